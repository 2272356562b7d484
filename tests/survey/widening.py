"""Widens one file twofold and verifies the clone, in a process that may die of it."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import onnx
import torch

import graphclone as gc
import graphclone.formats.onnx.reader  # this and the next are loaded once, before processes are forked
import graphclone.formats.onnx.verifier
from graphclone.errors import first_line
from graphclone.inspection import parameter_count
from tests.survey.rows import EMPTY, FAILED, REFUSED, WIDENED

FACTOR = 2
MEMORY = 12 << 30
"""Bytes that a process may hold of its own."""

PATIENCE = 10
"""How many times as long a process may take by the clock, waiting for the processor or for nothing."""

_SIGNALS = {-signal.SIGXCPU: "no end: the processor's time is up", -signal.SIGTERM: "no end: the time is up"}

_NO_WEIGHTS = "no parameter has an axis of more than one element"

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__])

Facts = dict[str, Any]


def tried(file: Path, seconds: int) -> Facts:
    """What ``facts`` says of a file, found out in a process of its own."""
    return outcome_of(facts, file, seconds)


def outcome_of(find: Callable[[Path], Facts], file: Path, seconds: int) -> Facts:
    """What a function says of a file; if its process ends in another way, or not in time, that is a failure.

    Args:
        find: the function.
        file: the file.
        seconds: of the processor's time, which does not depend on what else the machine does.
    """
    receiver, sender = _FORKS.Pipe(duplex=False)
    process = _FORKS.Process(target=_find, args=(find, file, seconds, sender))
    process.start()
    sender.close()
    try:
        if receiver.poll(PATIENCE * seconds):
            found: Facts = receiver.recv()
            return found
        process.terminate()
    except EOFError:
        pass
    finally:
        process.join()
    how = _SIGNALS.get(process.exitcode or 0, f"the process ended with exit code {process.exitcode}")
    return {"outcome": FAILED, "why": how, "seconds": seconds}


def _find(find: Callable[[Path], Facts], file: Path, seconds: int, sender: Connection) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    start = time.process_time()
    found = find(file)
    sender.send({**found, "seconds": round(time.process_time() - start, 1)})


def facts(file: Path) -> Facts:
    """Clone a file and verify the clone; whatever is raised becomes a fact."""
    found: Facts = {}
    try:
        for more in _learned(file):
            found |= more
    except gc.GraphcloneError as refusal:
        why = first_line(refusal).replace(str(file), file.name)
        found |= {"outcome": EMPTY if _NO_WEIGHTS in why else REFUSED, "why": why}
    except Exception as error:  # a defect is a row, too
        found |= {"outcome": FAILED, "why": f"{type(error).__name__}: {first_line(error)}"}
    return found


def _learned(file: Path) -> Iterator[Facts]:
    model = onnx.load(file, load_external_data=False)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    yield {"producer": f"{model.producer_name} {model.producer_version}".strip(), "opset": opset}
    clone = gc.clone(file, widen=FACTOR)
    known = clone.state.facts
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
