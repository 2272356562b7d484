"""Checkpoints written by several processes: to the byte what one writes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from unittest.mock import patch

import pytest
from torch.distributed import HashStore

from graphclone.cli.__main__ import main
from graphclone.errors import GraphcloneError, StoppedError
from graphclone.formats.huggingface import staging
from graphclone.formats.huggingface.plan import Plan
from graphclone.formats.huggingface.writer import write_checkpoint
from graphclone.runtime.ranks import Ranks, current
from graphclone.runtime.shards import write_shards
from tests.support.checkpoints import contents, planned, saved
from tests.support.torchrun import torchrun

SHARD = 30_000


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("llama-gqa", tmp_path_factory.mktemp("source") / "source")


@pytest.fixture(scope="module")
def plan(source: Path) -> Plan:
    made = planned(source, kind="noisy-symmetric", max_shard_size=SHARD)
    assert len(made.shards) > 4
    return made


def together(count: int, plan: Plan, out: Path, **options: bool) -> list[object]:
    """What each of several processes returns or raises; here they are threads."""
    store = HashStore()

    def one(rank: int) -> object:
        ranks = Ranks(rank, count, store)
        try:
            return write_checkpoint(plan, out, verify=False, ranks=ranks, **options)
        except Exception as error:
            return ranks.fail(), error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@pytest.mark.parametrize("count", [2, 3, 99])
def test_ranks_write_what_one_process_writes(count: int, plan: Plan, tmp_path: Path) -> None:
    write_checkpoint(plan, tmp_path / "one", verify=False)
    together(count if count < 99 else len(plan.shards) + 2, plan, tmp_path / "several")
    assert contents(tmp_path / "several") == contents(tmp_path / "one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "several"]


def test_where_one_fails_all_stop_and_another_number_of_them_goes_on(plan: Plan, tmp_path: Path) -> None:
    out, both_wrote = tmp_path / "out", Barrier(2, timeout=60)

    def failing(folder: Path, shards: object, done: object, advance: object) -> None:
        mine = list(shards)  # type: ignore[call-overload]
        write_shards(folder, mine[:1], done, advance)  # type: ignore[arg-type]
        both_wrote.wait()
        if plan.shards[1] in mine:
            raise OSError(28, "No space left on device")

    with patch.object(staging, "write_shards", failing):
        (first, stopped), (second, failed) = together(2, plan, out)  # type: ignore[misc]
    assert (first, second) == (False, True)
    assert isinstance(stopped, StoppedError)
    assert str(stopped) == "stopped, because rank 1 failed"
    assert isinstance(failed, GraphcloneError)
    assert f"No space left on device; finished shards are left in {out}.partial; resume=True" in str(failed)
    left = {path.name: path.stat().st_ino for path in Path(f"{out}.partial").glob("*.safetensors")}
    assert len(left) == 2
    together(3, plan, out, resume=True)
    write_checkpoint(plan, tmp_path / "one", verify=False)
    assert contents(out) == contents(tmp_path / "one")
    assert {name: (out / name).stat().st_ino for name in left} == left


def test_processes_that_plan_something_else_are_refused(plan: Plan, source: Path, tmp_path: Path) -> None:
    plans = [plan, planned(source, 3, max_shard_size=SHARD)]
    store = HashStore()

    def one(rank: int) -> None:
        with pytest.raises(GraphcloneError, match="the processes see different sources or versions"):
            write_checkpoint(plans[rank], tmp_path / "out", ranks=Ranks(rank, 2, store))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, range(2)))
    assert not list(tmp_path.iterdir())


def test_processes_that_are_not_there_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    current.cache_clear()
    with pytest.raises(GraphcloneError, match=r"the processes do not find each other: .*; start them with torchrun"):
        current()


@pytest.mark.slow
def test_torchrun_shares_a_clone_and_resumes_it(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    for folder in (one, two):
        folder.mkdir()
    words = ["clone", str(source), "-o", "out", "--strategy", "noisy-diagonal", "--max-shard-size", str(SHARD)]
    words.append("--no-verify")
    monkeypatch.chdir(one)
    assert main(words) == 0
    monkeypatch.chdir(two)
    failed = torchrun(2, "tests.support.killed_rank", "0", "failed", *words)
    assert failed.returncode
    assert failed.stderr.count("graphclone: ") == 1, failed.stderr
    assert "graphclone: cannot write out: No space left on device; finished shards are left in out.partial" in (
        failed.stderr
    )
    killed = torchrun(2, "tests.support.killed_rank", "1", "killed", *words)
    assert killed.returncode
    records = [json.loads(path.read_bytes())["finished"] for path in Path("out.partial").glob("*progress*")]
    assert any(records)
    result = torchrun(4, "graphclone", *words, "--resume")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("parameters: ") == 1
    assert contents(two / "out") == contents(one / "out")
    refused = torchrun(2, "graphclone", "clone", "opt-mini", "-o", "wide.onnx")
    assert refused.stderr.count("graphclone: wide.onnx: is written by one process; several share folders") == 1
