"""Take every step of the ladders by every strategy, and print how exact each clone is: ``python -m tests.ladders``.

Tiny models are cloned into the larger class, compared at every node in float64 and in ONNX Runtime, written as
checkpoints, loaded by the stock class and compared again. With ``--real`` the published shapes are planned instead,
without weights, and time and memory are printed. With ``--others`` models of other kinds and ONNX files grow by other
factors.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import graphclone as gc
from graphclone.algebra.strategies import strategy
from graphclone.clones.clone import Clone
from graphclone.clones.summary import parameters
from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.likeness import reach
from graphclone.formats.huggingface.plan import plan
from graphclone.formats.huggingface.reader import Checkpoint, drop_inner_outputs, open_checkpoint
from graphclone.formats.huggingface.traces import Traces
from graphclone.formats.huggingface.writer import write_checkpoint
from graphclone.models.randomise import randomise
from graphclone.pipeline.state import Request
from graphclone.verification.checks import Check
from tests.support.ladders import STEPS, Step
from tests.support.other_sizes import FILES, OTHERS, Growing, GrowingFile
from tests.support.zoo import logits_alone

STRATEGIES = ("symmetric", "diagonal", "noisy-symmetric", "fresh")


def main() -> int:
    """Print a row for every step and strategy."""
    parser = argparse.ArgumentParser(prog="python -m tests.ladders", description=__doc__)
    parser.add_argument("steps", nargs="*", help="parts of names of steps")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--real", action="store_true", help="plan the published shapes, without weights")
    mode.add_argument("--others", action="store_true", help="models of other kinds, and ONNX files")
    arguments = parser.parse_args()
    steps: Mapping[str, Any] = {**OTHERS, **FILES} if arguments.others else STEPS
    rows = _grown if arguments.others else _planned if arguments.real else _climbed
    header = (
        "| step | parameters | seconds | GB | |"
        if arguments.real
        else "| step | strategy | float64 | ONNX Runtime | class |"
    )
    print(header, "|" + "---|" * (header.count("|") - 1), sep="\n")
    for name, step in steps.items():
        if not arguments.steps or any(part in name for part in arguments.steps):
            for row in rows(step):
                print("|", " | ".join((name, *row)), "|", flush=True)
    return 0


def _climbed(step: Step) -> Iterator[tuple[str, ...]]:
    """How exact the clones of a tiny model are, by strategy."""
    small, large = step.configs(tiny=True)
    with TemporaryDirectory() as name:
        folder = Path(name)
        model: Any = randomise(step.cls(small)).eval()
        model.save_pretrained(folder / "source")
        (folder / "target.json").write_text(json.dumps(large.to_dict()))
        checkpoint = open_checkpoint(folder / "source")
        for kind in STRATEGIES:
            try:
                request = Request(like=str(folder / "target.json"), strategy=strategy(kind), seed=1)
                report = write_checkpoint(plan(checkpoint, request), folder / kind).verification
            except GraphcloneError as error:
                yield kind, "refused", "", str(error).partition(": ")[2]
                return
            big = step.cls(large).eval()
            for module in (model, big) if small.is_encoder_decoder else ():
                module._forward_hooks.clear()
                logits_alone(module)
            clone = gc.clone(model, (), checkpoint.example_inputs, into=big, strategy=kind, seed=1)
            assert report is not None
            yield kind, *_checked(clone, kind), _shown(report.checks[0])


def _grown(growing: Growing | GrowingFile) -> Iterator[tuple[str, ...]]:
    """How exact the clones of a model of another kind are, by strategy."""
    with TemporaryDirectory() as name:
        for kind in STRATEGIES:
            try:
                clone, stock = growing.clone(kind, Path(name, kind))
                yield kind, *_checked(clone, kind), _shown(stock.checks[0]) if stock else ""
            except GraphcloneError as error:
                yield kind, "refused", "", str(error)


def _checked(clone: Clone, kind: str) -> tuple[str, str]:
    """What verification says in float64, and of the first strategy in ONNX Runtime, whose files take long to write."""
    checks = {check.name: _shown(check) for check in clone.verify(sets=2, onnx=kind == STRATEGIES[0]).checks}
    return checks["exact"], checks.get("ONNX Runtime", "")


def _shown(check: Check) -> str:
    return f"{'ok' if check.ok else 'FAILED' if check.ok is False else 'not made'}: {check.summary}"


def _planned(step: Step) -> Iterator[tuple[str, ...]]:
    """How long it takes to plan a step between published shapes."""
    small, large = step.configs(tiny=False)
    with TemporaryDirectory() as name:
        target = Path(name, "config.json")
        target.write_text(json.dumps(large.to_dict()))
        raw = {**small.to_dict(), "architectures": [step.cls.__name__]}
        checkpoint = Checkpoint(str(step), Path(name), raw, small, step.cls, torch.bfloat16, {})
        start = time.perf_counter()
        source = checkpoint.traced(checkpoint.fields, str(step))
        drop_inner_outputs(source)
        try:
            found = reach(Traces(checkpoint), source, Request(like=str(target)))
            what = "; ".join(map(str, found.obstacles)) or "reached"
            counts = parameters(found.grown.model) if found.grown is not None else (0, 0)
        except GraphcloneError as error:
            what, counts = str(error), (0, 0)
        seconds, memory = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        yield f"{counts[0]:,} -> {counts[1]:,}", f"{seconds:.1f}", f"{memory:.2f}", what


if __name__ == "__main__":
    sys.exit(main())
