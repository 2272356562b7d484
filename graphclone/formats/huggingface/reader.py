"""From a Hugging Face checkpoint to a graph whose weights stay on disk.

The class is the one that config.json names. It is built on the meta device and traced with fake weights; tables that
are not saved with a model, such as rotary frequencies, get the values that ``from_pretrained`` would give them, since
they are part of what the model computes.
"""

from __future__ import annotations

import copy
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from graphclone.errors import GraphcloneError, Remedy, first_line
from graphclone.extras import required
from graphclone.formats.huggingface import weights
from graphclone.formats.huggingface.answers import Answers
from graphclone.formats.huggingface.config_solver import Config, Shapes
from graphclone.formats.huggingface.conversion import ModelTensor, loaded
from graphclone.formats.huggingface.descriptions import processor_fields
from graphclone.formats.huggingface.discarded import calls_noted, let_grow, owners_of_unread, returned_besides
from graphclone.formats.huggingface.installed import runs_installed_code
from graphclone.formats.huggingface.layouts import (
    CONFIG,
    VARIANTS,
    advice_by_names,
    layout_advice,
    quantised,
    with_adapter,
    without_config,
    wrapped,
)
from graphclone.formats.huggingface.model_class import fitting_class
from graphclone.formats.huggingface.model_inputs import InputMaker, main_inputs
from graphclone.formats.huggingface.operations import Recorder, Run
from graphclone.formats.huggingface.sentence_modules import module_folders
from graphclone.formats.huggingface.size_inputs import GIVE, counts_known, sizes_known, traceable
from graphclone.formats.torch.export import asks_for_numbers
from graphclone.formats.torch.forgetting import forgotten
from graphclone.formats.torch.reader import trace_module
from graphclone.formats.torch.traceable import traceable_torch
from graphclone.formats.torch.weightless import weightless
from graphclone.graph.ir import Graph, Output, Value, values_in
from graphclone.runtime.quiet import silenced

_ASSERTION = "aten._assert"

BY_PLACES = "the class decides by the places of tokens; this is what it computes where these are those of the example"
"""A note on a graph."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk.

    Attributes:
        name: as the user wrote it.
        folder: that it is in.
        raw: config.json as it is.
        config: the configuration object.
        cls: the model's class.
        dtype: of the model.
        weights: the tensors on disk, by the names they have there.
        inputs: what to feed the model, where the user says so.
        trusted: whether code that comes with it may run.
        graphs: what has been traced, by the fields of its configuration.
    """

    name: str
    folder: Path
    raw: Config
    config: Any
    cls: Any
    dtype: torch.dtype
    weights: weights.Weights
    inputs: Mapping[str, Any] = field(default_factory=dict)
    trusted: bool = False
    graphs: dict[str, Graph] = field(default_factory=dict)

    @cached_property
    def fields(self) -> Config:
        """The configuration as a dict, defaults and all."""
        config: Config = self.config.to_dict()
        return config

    @cached_property
    def blank(self) -> Any:
        """The model without any memory for its weights, not to be changed."""
        with quiet_transformers():
            return uncached(self.on_meta(self.config))

    def blank_with(self, fields: Config) -> Any:
        """The model with other fields, without any memory for its weights."""
        with quiet_transformers():
            return self.on_meta(self.with_fields(fields))

    @cached_property
    def answers(self) -> Answers:
        """The answers that earlier runs found about the class."""
        asked = type(self).__name__, f"{self.cls.__module__}.{self.cls.__qualname__}", str(self.dtype)
        return Answers(*asked, kept=not self.trusted and runs_installed_code(self.blank))

    @cached_property
    def tensors(self) -> dict[str, ModelTensor]:
        """The stored tensor for each tensor of the model; ``from_pretrained`` knows old names and forms.

        Raises:
            GraphcloneError: tensors on disk do not make one of the model.
        """
        with quiet_transformers():
            return loaded(self.blank, self.weights)

    @cached_property
    def weight_sizes(self) -> set[int]:
        """Every size that a weight of the source has, which no example input should have."""
        return {size for shape in self.shapes(self.fields).values() for size in shape}

    @property
    def notes(self) -> list[str]:
        """What the user should know about what is read: whether its weights are there."""
        return [] if self.weights else ["no weights are here: this is what the configuration alone says"]

    def with_fields(self, fields: Config) -> Any:
        """The configuration object of other fields."""
        return type(self.config).from_dict(copy.deepcopy(fields))

    def understood(self, raw: Config) -> Config:
        """The configuration that ``from_pretrained`` makes of a config.json, as a dict."""
        with tempfile.TemporaryDirectory() as folder, quiet_transformers():
            (Path(folder) / CONFIG).write_text(json.dumps(raw))
            fields: Config = type(self.config).from_pretrained(folder).to_dict()
        return fields

    def shapes(self, fields: Config) -> Shapes:
        """The shape of every parameter and saved buffer of the model with these fields."""
        return self.answers.shapes(fields, partial(self._shapes, fields))

    def _shapes(self, fields: Config) -> Shapes:
        return {name: tuple(tensor.shape) for name, tensor in self.blank_with(fields).state_dict().items()}

    def on_meta(self, config: Any) -> Any:
        """The model of a configuration, without any memory for its weights."""
        return _on_meta(self.cls, config, self.dtype)

    def traced(self, fields: Config, name: str) -> Graph:
        """The trace of the model with these fields, without weights; a graph of one's own.

        Raises:
            GraphcloneError: nobody says what to feed it, or torch.export refuses it.
        """
        key = json.dumps(fields, sort_keys=True, default=str)
        if key not in self.graphs:
            trace = partial(self._traced, fields, name)
            self.graphs[key] = self.answers.graph(fields, self.example_inputs, name, trace)
        return self.graphs[key].copy()

    def _traced(self, fields: Config, name: str) -> Graph:
        try:
            return self._traced_on_fakes(fields, name)
        except GraphcloneError as refusal:
            if not asks_for_numbers(refusal):
                raise
            try:
                with counts_known():
                    graph = self._traced_on_fakes(fields, name)
            except GraphcloneError:
                raise refusal from None
        graph.notes.append(BY_PLACES)
        return graph

    def _traced_on_fakes(self, fields: Config, name: str) -> Graph:
        with quiet_transformers(), forgotten(self.blank):
            module = uncached(self.on_meta(self.with_fields(fields)))
            inputs = traceable(module, dict(self.example_inputs))
            module = weightless(module)
            with sizes_known(inputs) as size_tensors:
                module.forward = _with_sizes(module.forward, size_tensors) if size_tensors() else module.forward
                with calls_noted(module) as called:
                    graph = self._exported(module, inputs, name)
                if in_vain := called & owners_of_unread(graph):
                    with returned_besides(module, in_vain):
                        graph = self._exported(module, inputs, name)
                    let_grow(graph)
        return graph

    def _exported(self, module: Any, inputs: dict[str, Any], name: str) -> Graph:
        try:
            graph = trace_module(module, (), inputs, name=name, dynamic=False)
        except GraphcloneError as refusal:
            if self.inputs:
                raise
            names = ", ".join(name for name, value in self.example_inputs.items() if _is_tensor(value))
            raise GraphcloneError(f"{refusal}; it was fed with {names} made for it", GIVE) from refusal
        graph.notes.clear()  # it is the class that will run, at any size, and with its own assertions
        graph.nodes = [node for node in graph.nodes if not node.op.startswith(_ASSERTION)]
        graph.prune()
        return graph

    def run(self, fields: Config) -> Run:
        """The operations of one run of the model with these fields."""
        return self.answers.run(fields, self.example_inputs, partial(self._run, fields))

    def _run(self, fields: Config) -> Run:
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        with quiet_transformers(), forgotten(self.blank), torch.no_grad():
            module = uncached(self.on_meta(self.with_fields(fields)))
            inputs, faked = traceable(module, dict(self.example_inputs)), weightless(module, mode)
            recorder = Recorder(dict([*faked.named_parameters(), *faked.named_buffers()]))
            with traceable_torch(), mode, recorder, sizes_known(inputs) as size_tensors:
                faked(**inputs, **size_tensors())
        return recorder.run()

    @cached_property
    def example_inputs(self) -> dict[str, Any]:
        """Inputs for the model: the user's, or those that its signature and its configuration ask for.

        Raises:
            GraphcloneError: neither says enough.
        """
        with quiet_transformers():
            maker = InputMaker(self.blank, processor_fields(self.folder), self.dtype, self.weight_sizes)
            inputs = maker.inputs_from(self.inputs) if self.inputs else maker.inputs()
            if inputs is not None and not self.inputs:
                takes = self.answers.takes(self.fields, inputs, partial(maker.runs, inputs))
                inputs = inputs if takes else maker.others(inputs)
        if inputs is None:
            unknown = f"it is not known what to feed as {' and '.join(sorted(main_inputs(self.blank)))}"
            raise GraphcloneError(f"{self.name}: {unknown}", GIVE)
        return inputs


# Reading


def open_checkpoint(
    text: str | Path,
    *,
    trust_remote_code: bool = False,
    inputs: Mapping[str, Any] | None = None,
    dtype: torch.dtype | str | None = None,
    weightless: bool = False,
) -> Checkpoint:
    """The checkpoint in a folder, or of a hub id; its weights are not read yet.

    Args:
        text: folder or hub id.
        trust_remote_code: let code that comes with the checkpoint run.
        inputs: all that the model is fed, by name, where none can be made for it: tensors, arrays, and tuples of sizes
            that values are drawn for.
        dtype: that its floats are read in, or its name, if not those they are stored in.
        weightless: be content with a configuration, and download nothing else.

    Raises:
        GraphcloneError: it is not there, damaged, or of a kind that cannot be read.
    """
    folder = Path(text)
    if folder.is_file():
        raise GraphcloneError(layout_advice(folder) or f"{text}: a file; give the folder of a checkpoint")
    if not folder.is_dir():
        folder = _downloaded(str(text), weightless)
    raw = _read_config(folder / CONFIG)
    if with_adapter(folder):
        raise GraphcloneError(
            f"{text}: a PEFT adapter lies beside the model; merge the two (merge_and_unload) and save that, or take "
            "adapter_config.json out of the folder to widen the model without it"
        )
    if quantised(raw):
        raise GraphcloneError(
            f"{text}: its weights are quantised, and cannot be widened; use the unquantised checkpoint"
        )
    tensors = {} if weightless and not weights.are_in(folder) else weights.open_weights(folder)
    if (fault := wrapped(tensors)) is not None:
        raise GraphcloneError(f"{text}: {fault}")
    if dtype is None:
        dtype = _dtype(raw, tensors)
    else:
        dtype = _dtype_called(dtype)
        tensors = weights.converted(tensors, dtype)
        raw = {**{key: value for key, value in raw.items() if key != "torch_dtype"}, "dtype": _named(dtype)}
    config, cls = _config_and_class(folder, raw, trust_remote_code, tensors, dtype)
    trusted = trust_remote_code and "auto_map" in raw
    return Checkpoint(str(text), folder, raw, config, cls, dtype, tensors, dict(inputs or {}), trusted)


def _downloaded(name: str, weightless: bool) -> Path:
    """The folder that a hub id has been downloaded to."""
    huggingface_hub = required("huggingface_hub", "hf", "a hub id")
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    advice = "give the folder of a checkpoint, or a hub id where there is a network"
    small = ["*.json", "*.model", "*.txt", "*.jinja", "LICENSE*", "README.md", "*.py"]
    download = partial(huggingface_hub.snapshot_download, name)
    beside = partial(download, ignore_patterns=["*/*", *VARIANTS])
    try:
        folder = Path(beside(allow_patterns=[*small, *([] if weightless else ["*.safetensors"])]))
        if weightless and (folder / CONFIG).exists():
            return folder
        if not any(folder.glob("*.safetensors")):  # many repositories have both
            folder = Path(beside(allow_patterns=["*.bin"]))
        if folders := module_folders(folder):
            folder = Path(download(allow_patterns=[f"{inner}/*" for inner in folders]))
        if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
            names = huggingface_hub.list_repo_files(name, revision=folder.name)
            if (said := advice_by_names(name, names)) is not None:
                raise GraphcloneError(said)
    except HFValidationError:
        raise GraphcloneError(f"{name}: no such folder, and not a hub id; {advice}") from None
    except (LocalEntryNotFoundError, OSError, HfHubHTTPError) as error:
        reason = first_line(error)
        raise GraphcloneError(f"{name}: no such folder, and the hub gives none: {reason}; {advice}") from error
    return folder


def _read_config(path: Path) -> Config:
    try:
        raw = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise GraphcloneError(without_config(path.parent)) from None
    except (OSError, ValueError) as error:
        raise GraphcloneError(f"{path}: cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise GraphcloneError(f"{path}: is not a configuration")
    return raw


def _config_and_class(
    folder: Path, raw: Config, trusted: bool, tensors: weights.Weights, dtype: torch.dtype
) -> tuple[Any, Any]:
    transformers = imported()
    name = next(iter(raw.get("architectures") or []), "")
    cls = getattr(transformers, name, None) if name else None
    remote = raw.get("auto_map") or {}
    if cls is None and remote and not trusted:
        raise GraphcloneError(
            f"{folder}: needs code that comes with it ({name}), which is not run unless you ask: read it first",
            Remedy("trust_remote_code", "runs it"),
        )
    try:
        with quiet_transformers():
            if cls is None and remote:
                return _remote(folder, name, remote)
            config = transformers.AutoConfig.from_pretrained(folder)
    except GraphcloneError:
        raise
    except Exception as error:  # validators and unknown model types raise whatever they like
        reason = first_line(error)
        raise GraphcloneError(f"{folder / CONFIG}: transformers refuses it: {reason}") from error
    with quiet_transformers():
        cls = cls or fitting_class(config, tensors, lambda cls: _on_meta(cls, config, dtype))
    if cls is None:
        fault = f"names {name}, which transformers does not have" if name else "does not say which class it is for"
        advice = "set its architectures to the class that saved it"
        raise GraphcloneError(
            f"{folder / CONFIG}: {fault}, and no class for {config.model_type} finds all its weights; {advice}"
        )
    return config, cls


def _remote(folder: Path, name: str, remote: Mapping[str, str]) -> tuple[Any, Any]:
    """The configuration and the class whose code comes with the checkpoint."""
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    reference = next((item for item in remote.values() if str(item).rpartition(".")[2] == name), None)
    if reference is None:
        raise GraphcloneError(f"{folder}: neither transformers nor the code of the checkpoint has {name}")
    config = imported().AutoConfig.from_pretrained(folder, trust_remote_code=True)
    return config, get_class_from_dynamic_module(reference, folder)


def imported() -> Any:
    """The transformers library.

    Raises:
        MissingExtraError: it is not installed.
    """
    return required("transformers", "hf", "a Hugging Face checkpoint")


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype_called(given: torch.dtype | str) -> torch.dtype:
    """A dtype, or the one of a name.

    Raises:
        GraphcloneError: there is none of that name that weights could have.
    """
    dtype = getattr(torch, given.removeprefix("torch."), None) if isinstance(given, str) else given
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise GraphcloneError(f"dtype is {given!r}; give that of floats, such as torch.float32")
    return dtype


def _dtype(raw: Config, tensors: weights.Weights) -> torch.dtype:
    """What the configuration says, or else the first weight has."""
    dtype = getattr(torch, str(raw.get("dtype") or raw.get("torch_dtype")).removeprefix("torch."), None)
    if isinstance(dtype, torch.dtype):
        return dtype
    return next((tensor.dtype for tensor in tensors.values() if tensor.dtype.is_floating_point), torch.float32)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without the logs, the warnings and the bars of the libraries, for which a probe that is refused is an error."""
    bars = imported().logging
    visible = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        with silenced(logging.CRITICAL):
            yield
    finally:
        if visible:
            bars.enable_progress_bar()


# Building


def _on_meta(cls: Any, config: Any, dtype: torch.dtype) -> Any:
    with torch.device("meta"), _safe_linspace():
        return cls._from_config(config, dtype=dtype).eval()


@contextmanager
def _safe_linspace() -> Iterator[None]:
    """Code that reads numbers off ``torch.linspace`` while it builds a model needs it on the CPU."""
    original: Callable[..., Any] = torch.linspace

    def on_cpu(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **{"device": "cpu", **kwargs})

    torch.linspace = on_cpu
    try:
        yield
    finally:
        torch.linspace = original


def uncached(module: Any) -> Any:
    """A model that keeps no cache unless it is told to; not every class passes on what it is told."""
    for part in module.modules():
        if getattr(getattr(part, "config", None), "use_cache", False):
            part.config.use_cache = False
    return module


def _with_sizes(forward: Callable[..., Any], size_tensors: Callable[[], dict[str, Any]]) -> Callable[..., Any]:
    return lambda **inputs: forward(**inputs, **size_tensors())


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def free_inner_outputs(graph: Graph) -> None:
    """Let outputs grow that the model computes with, the first one apart.

    What a model returns besides, such as the states of its encoder, may be as wide as the model. That goes for all that
    one part returns (``image_outputs``), of which the model may read only some.
    """
    read = _read(graph)
    besides = [output for output in graph.outputs[1:] if not output.free]
    parts = {part_of(o) for o in besides if any(value in read for value in values_in(o.operand))}
    inner = [output for output in besides if part_of(output) in parts]
    graph.outputs = [replace(output, free=True) if output in inner else output for output in graph.outputs]


def _read(graph: Graph) -> set[Value]:
    """The values that others are computed from on the way to an output; writing into one is not reading it."""
    reached = {value for output in graph.outputs for value in values_in(output.operand)}
    read: set[Value] = set()
    for node in reversed(graph.nodes):
        if not reached.isdisjoint(node.outputs):
            read.update(node.inputs)
            reached.update(node.inputs)
    return read


def part_of(output: Output) -> str:
    """The name of what an output is a part of; its own name where it is all."""
    return output.name.partition(".")[0]
