"""Runs the tests against every mutant, each in a copy of the tree, and lists those that survive."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants import ROOT, Mutant, StaleError, mutants

BROAD = (
    "tests/algebra/test_axes.py",
    "tests/algebra/test_growth.py",
    "tests/algebra/test_scales.py",
    "tests/algebra/test_strategies.py",
    "tests/verification/test_lockstep.py",
    "tests/rules/test_rules_graphs.py",
    "tests/rules/test_rules_pins.py",
    "tests/passes/test_widths_and_scales.py",
    "tests/pipeline/test_printer.py",
    "tests/pipeline/test_runner.py",
    "tests/formats/onnx/test_reader.py",
    "tests/formats/onnx/test_writer.py",
    "tests/formats/huggingface/test_config_solver.py",
    "tests/formats/torch/test_into.py",
    "tests/runtime/test_kernel.py",
    "tests/rules/test_rules.py",
    "tests/test_clones.py",
    "tests/formats/torch/test_verifier.py",
)
"""What a mutant must get past, too, before it counts as a survivor: quick tests that reach far."""

LIMIT = 1200
"""Seconds that pytest may take; a mutant that makes it take longer has been noticed."""

PASSED, FAILED = 0, 1
"""Exit codes of pytest. Any other means that it could not run the tests."""

_LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "build", "dist", "docs")


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: ``killed``, ``survived``, ``stale`` or ``broken``, and by what."""

    name: str
    verdict: str
    seconds: float
    detail: str

    def __str__(self) -> str:
        return f"{self.verdict:<9} {self.seconds:6.1f} s  {self.name:<48} {self.detail}"


def judge(mutant: Mutant) -> Outcome:
    """Make the mistake in a copy of the tree, and run the tests there."""
    start = time.monotonic()

    def outcome(verdict: str, detail: str = "") -> Outcome:
        return Outcome(mutant.name, verdict, time.monotonic() - start, detail)

    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        tree = copied(Path(folder) / "tree")
        file = tree / mutant.file
        try:
            file.write_text(mutant.applied(file.read_text()))
        except StaleError as error:
            return outcome("stale", str(error))
        rest = [test for test in BROAD if test not in mutant.tests]
        for tests in (mutant.tests, rest):
            code, detail = run_tests(tree, tests)
            if code == FAILED:
                return outcome("killed", detail)
            if code != PASSED:
                return outcome("broken", detail)
    return outcome("survived")


def copied(target: Path) -> Path:
    """A copy of the tree; symlinks stay symlinks, so that the copy has its own passes and models."""
    shutil.copytree(ROOT, target, symlinks=True, ignore=_LEFT_OUT)
    return target


def run_tests(tree: Path, tests: Sequence[str], limit: int | None = LIMIT) -> tuple[int, str]:
    """Run tests in a tree; pytest's exit code, and the first test that failed or pytest's last words."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return FAILED, f"no end after {limit} s"
    lines = [line for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
    said = [line for sign in ("FAILED ", "ERROR") for line in lines if line.startswith(sign)] or lines[-1:] or [""]
    return done.returncode, said[0].removeprefix("FAILED ").partition(" - ")[0][:160]


def main() -> int:
    """Print an outcome per mutant; 1 if the tests fail without any, or if one is not killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants to run; all of them by default")
    parser.add_argument("--jobs", type=int, default=1, help="how many run at a time")
    options = parser.parse_args()
    known = {mutant.name: mutant for mutant in mutants()}
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"no mutant is called {unknown[0]!r}")
    chosen = [known[name] for name in options.names or known]
    if (reason := unfit(chosen)) is not None:
        print(f"the tests fail without any mutant: {reason}")
        return 1
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = []
        for outcome in pool.map(judge, chosen):
            print(outcome, flush=True)
            outcomes.append(outcome)
    killed = sum(outcome.verdict == "killed" for outcome in outcomes)
    print(f"{len(outcomes)} mutants, {killed} killed")
    return 0 if killed == len(outcomes) else 1


def unfit(chosen: Sequence[Mutant]) -> str | None:
    """Why the tests cannot tell mutants from the library as it is: a test of theirs that fails anyway."""
    tests = list(dict.fromkeys(test for mutant in chosen for test in mutant.tests))
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        code, detail = run_tests(copied(Path(folder) / "tree"), tests, limit=None)
    return None if code == PASSED else detail


if __name__ == "__main__":
    sys.exit(main())
