"""Widens one file twofold and verifies the clone, in a process that may die of it."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import onnx
import torch

import graphclone as gc
import graphclone.frontends.onnx.importer  # this and the next are loaded once, before processes are forked
import graphclone.verify_onnx_model
from graphclone.errors import first_line
from graphclone.inspection import parameter_count
from tests.survey.rows import EMPTY, FAILED, REFUSED, WIDENED

FACTOR = 2
MEMORY = 12 << 30
"""Bytes that a process may hold of its own."""

_NO_WEIGHTS = "no parameter has an axis of more than one element"

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__])

Facts = dict[str, Any]


def tried(file: Path, seconds: float) -> Facts:
    """What ``facts`` says of a file, found out in a process of its own."""
    return outcome_of(facts, file, seconds)


def outcome_of(find: Callable[[Path], Facts], file: Path, seconds: float) -> Facts:
    """What a function says of a file; if its process ends in another way, or not in time, that is a failure."""
    receiver, sender = _FORKS.Pipe(duplex=False)
    process = _FORKS.Process(target=_found, args=(find, file, sender))
    start = time.monotonic()
    process.start()
    sender.close()
    try:
        if receiver.poll(seconds):
            found: Facts = receiver.recv()
        else:
            found = {"outcome": FAILED, "why": f"no end after {seconds:g} s"}
    except EOFError:
        process.join()
        found = {"outcome": FAILED, "why": f"the process ended with exit code {process.exitcode}"}
    finally:
        process.kill()
        process.join()
    return {**found, "seconds": round(time.monotonic() - start, 1)}


def _found(find: Callable[[Path], Facts], file: Path, sender: Connection) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    sender.send(find(file))


def facts(file: Path) -> Facts:
    """Clone a file and verify the clone; whatever is raised becomes a fact."""
    found: Facts = {}
    try:
        for more in _learned(file):
            found |= more
    except gc.GraphcloneError as refusal:
        why = first_line(refusal)
        found |= {"outcome": EMPTY if _NO_WEIGHTS in why else REFUSED, "why": why}
    except Exception as error:  # a defect is a row, too
        found |= {"outcome": FAILED, "why": f"{type(error).__name__}: {first_line(error)}"}
    return found


def _learned(file: Path) -> Iterator[Facts]:
    model = onnx.load(file, load_external_data=False)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    yield {"producer": f"{model.producer_name} {model.producer_version}".strip(), "opset": opset}
    clone = gc.clone(file, widen=FACTOR)
    known = clone.state.known
    before, after = parameter_count(known), parameter_count(known, clone.state.growths)
    pins = sorted({f"{refusal.node.op}: {refusal.why.text}" for refusal in known.refusals})
    yield {"parameters": before, "growth": after / before, "pins": pins}
    report = clone.verify(provider="cpu")
    ran = report.check("ONNX Runtime")
    if ran is not None and ran.ok is not None:
        yield {"ratio": ran.figures.get("ratio")}
    wrong = next((str(check) for check in report.checks if check.ok is False), "")
    missing = next((str(check) for check in report.checks if not check.ok), "")
    if wrong:
        yield {"outcome": FAILED, "why": wrong}
    elif report.ok and report.onnx_checked:
        yield {"outcome": WIDENED}
    else:
        yield {"outcome": REFUSED, "why": missing}
