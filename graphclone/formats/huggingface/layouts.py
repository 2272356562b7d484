"""Layouts of models on disk that are no Hugging Face checkpoint: what each is called, and how to make one of it."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CONFIG = "config.json"


@dataclass(frozen=True)
class ForeignLayout:
    """A way of others to store a model.

    Attributes:
        signs: patterns of names, of which a folder in this layout has one.
        what: it is.
        advice: what to do with it.
    """

    signs: tuple[str, ...]
    what: str
    advice: str

    def sign(self, names: Sequence[str]) -> str | None:
        """The first of the names in a folder that gives the layout away."""
        return next((name for sign in self.signs for name in sorted(fnmatch.filter(names, sign))), None)


VARIANTS = ("model.*.safetensors", "model-*.*.safetensors", "pytorch_model.*.bin", "pytorch_model-*.*.bin")
"""Names of weights that ``from_pretrained`` reads only where a variant of that name is asked for."""

_SAVE = "and save it with save_pretrained"

ADAPTER = ("adapter_config.json", "adapter_model.*")
"""What PEFT saves: how an adapter is put in, and its weights."""

LAYOUTS = (
    ForeignLayout(
        ("*.gguf",),
        "a GGUF file, quantised for inference",
        f"load it with from_pretrained(FOLDER, gguf_file=..), which undoes its quantisation, {_SAVE}",
    ),
    ForeignLayout(
        ADAPTER,
        "a PEFT adapter, which is no model by itself",
        f"load its base model with it, merge them (merge_and_unload), {_SAVE}",
    ),
    ForeignLayout(
        ("model_index.json",),
        "a diffusers pipeline of several models",
        "load one of its parts with from_pretrained(FOLDER, subfolder=..) and widen that in Python: graphclone.clone",
    ),
    ForeignLayout(
        ("*.distcp",),
        "a distributed checkpoint of torch (DCP)",
        "give the module it belongs to as package.module:function, with the folder as its weights, or make one file "
        f"of it with torch.distributed.checkpoint.format_utils.dcp_to_torch_save, load that, {_SAVE}",
    ),
    ForeignLayout(
        ("latest_checkpointed_iteration.txt", "mp_rank_*", "iter_*"),
        "a Megatron checkpoint",
        "convert it with the tools of Megatron that write Hugging Face checkpoints",
    ),
    ForeignLayout(
        ("zero_to_fp32.py", "global_step*"),
        "a DeepSpeed checkpoint in parts",
        f"join them with its zero_to_fp32.py, load the result, {_SAVE}",
    ),
    ForeignLayout(
        ("consolidated*.safetensors", "consolidated*.pth", "params.json"),
        "in the layout of its makers' own code (consolidated)",
        "take the files for transformers, or convert it with transformers' script for the model",
    ),
    ForeignLayout(
        VARIANTS,
        "weights of a variant, which nothing reads unless it is asked for",
        f"load it with from_pretrained(FOLDER, variant=..), {_SAVE}",
    ),
    ForeignLayout(
        ("tf_model*.h5", "flax_model*.msgpack", "model.ckpt.index", "saved_model.pb"),
        "weights of TensorFlow or Flax",
        f"load it in a version of transformers that still reads them (from_tf, from_flax), {_SAVE}",
    ),
    ForeignLayout(("*.nemo",), "an archive of NeMo", "export it to Hugging Face with NeMo's own converter"),
    ForeignLayout(
        ("open_clip_config.json",),
        "a model of open_clip",
        "load it there and widen the module in Python: graphclone.clone",
    ),
)


def layout_advice(path: Path) -> str | None:
    """The kind of a folder or a model's file, and what to do with it; None where nothing gives it away."""
    if path.is_file():
        return next((f"{path}: {it.what}; {it.advice}" for it in LAYOUTS if any(map(path.match, it.signs))), None)
    return advice_by_names(str(path), [inner.name for inner in path.iterdir()])


def advice_by_names(where: str, names: Sequence[str]) -> str | None:
    """The kind of a folder that holds files of these names, and what to do; None where no name gives it away."""
    matches = ((layout, name) for layout in LAYOUTS if (name := layout.sign(names)) is not None)
    return next((f"{where}: {layout.what} ({name}); {layout.advice}" for layout, name in matches), None)


def without_config(folder: Path) -> str:
    """The kind of a folder that holds no configuration."""
    inner = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
    if (description := layout_advice(folder)) is not None:
        return description
    if inner:
        return f"{folder}: no {CONFIG}, but there is one in {', '.join(inner[:3])}; give that folder"
    if not any(folder.iterdir()):
        return f"{folder}: is empty; give the folder of a Hugging Face checkpoint"
    return f"{folder}: no {CONFIG}, so it is no Hugging Face checkpoint; give the folder that save_pretrained wrote"


def with_adapter(folder: Path) -> bool:
    """Whether a PEFT adapter lies beside a model; ``from_pretrained`` loads both where peft is installed."""
    return all(any(folder.glob(sign)) for sign in ADAPTER)


_WRAPPERS = {
    "module.": ("DataParallel or DistributedDataParallel", "model.module"),
    "_orig_mod.": ("torch.compile", "model._orig_mod"),
}


def wrapped(names: Iterable[str]) -> str | None:
    """The wrapper that put a prefix before all names of weights, and what to do; None where there is none."""
    all_names = list(names)
    for prefix, (wrapper, inner) in _WRAPPERS.items():
        if all_names and all(name.startswith(prefix) for name in all_names):
            return (
                f"its weights are named {prefix}.., as {wrapper} wraps them, and from_pretrained does not find them; "
                f"save {inner}, or take {prefix!r} off the names"
            )
    return None


def quantised(raw: Mapping[str, object]) -> bool:
    """Whether a configuration says that the weights are quantised."""
    return bool(raw.get("quantization_config") or raw.get("quantization"))
