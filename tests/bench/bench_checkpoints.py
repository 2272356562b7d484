"""Checkpoints disk to disk: time beside a plain ``write()`` of the same bytes, and peak memory beside its bound.

The sources have random weights and the published sizes of the paper's three families. Every run is a process of its
own, without verification, from the import of Python to the renamed folder. ``GRAPHCLONE_BENCH_DIR`` says where to
write; the largest needs 12 GB.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from graphclone.api import clone
from graphclone.models import MODELS
from graphclone.models.huggingface import new_model, token_ids
from tests.bench import Timing, against

RUNS = 5

SIZES = {"opt-350m": torch.float32, "pythia-410m": torch.float16, "olmo-1b": torch.bfloat16}
"""The families of the paper, each in a dtype of its own; the last has the 1.3B shape of the memory bound."""

BASE_MEMORY = 600e6
"""Bytes that any clone may take, beside twice the largest widened tensor."""

_CHUNK = 64 << 20

_CLONE = """
import json, re, sys, time
begin = time.perf_counter()
from transformers import AutoModel, PreTrainedModel
from graphclone.formats.huggingface.writer import clone_checkpoint
imported = time.perf_counter() - begin
stages = {}
def progress(what, done, total):
    stages.setdefault(what.split()[0], time.perf_counter() - begin)
made = clone_checkpoint(sys.argv[1], sys.argv[2], strategy=sys.argv[3], verify=False, progress=progress)
# not ru_maxrss, which begins with that of the process that started this one
peak = 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
largest = max(entry.nbytes for shard in made.plan.shards for entry in shard.entries)
total = time.perf_counter() - begin
sizes = [shard.nbytes for shard in made.plan.shards]
call, writing = total - imported, total - stages["writing"]
print(json.dumps({"total": total, "call": call, "writing": writing, "peak": peak, "largest": largest, "sizes": sizes}))
"""


@dataclass(frozen=True)
class Figure:
    """One line: medians over all runs."""

    text: str

    def __str__(self) -> str:
        return self.text


def clone_checkpoints() -> Iterator[Figure]:
    """Every family 2x with the symmetric strategy, and the smallest with noise."""
    root = os.environ.get("GRAPHCLONE_BENCH_DIR")
    with tempfile.TemporaryDirectory(prefix="graphclone-bench-", dir=root) as folder:
        for name, dtype in SIZES.items():
            source = Path(folder) / name
            _save(name, dtype, source)
            yield _measured(name, source, "symmetric", plain_write)
            if name == "opt-350m":
                yield _measured(name, source, "noisy-symmetric", noise, "drawing as many normal numbers")
            shutil.rmtree(source)


def _save(name: str, dtype: torch.dtype, folder: Path) -> None:
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model: Any = new_model("CausalLM", MODELS[name].model_type, MODELS[name].fields)
    finally:
        torch.set_default_dtype(default)
    model.save_pretrained(folder)


def _measured(
    name: str, source: Path, strategy: str, yardstick: Callable[[Path, list[int]], float], what: str = "plain write()"
) -> Figure:
    """Clone and yardstick in turn, so that a busy moment hits both.

    Each begins with nothing left to be written to the disk, and in memory that no file has just given back: a virtual
    machine writes into such pages several times as fast as into others.
    """
    out = source.parent / "out"
    runs, times = [], []
    for _ in range(RUNS):
        command = [sys.executable, "-W", "ignore", "-c", _CLONE, str(source), str(out), strategy]
        os.sync()
        runs.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        os.sync()
        times.append(yardstick(source.parent, runs[-1]["sizes"]))
        shutil.rmtree(out)
    total, call, writing = (
        statistics.median(run[key] / seconds for run, seconds in zip(runs, times, strict=True))
        for key in ("total", "call", "writing")
    )
    peak, largest = (statistics.median(run[key] for run in runs) for key in ("peak", "largest"))
    size = sum(runs[0]["sizes"]) / 1e9
    return Figure(
        f"clone {name} 2x {strategy}, {size:.1f} GB: {total:.2f} x {what} from start to end, "
        f"{call:.2f} x without the import of torch and transformers, "
        f"{writing:.2f} x for the weights alone; peak {peak / 1e6:.0f} MB, "
        f"{peak / (BASE_MEMORY + 2 * largest):.2f} of the bound"
    )


def plain_write(folder: Path, sizes: list[int]) -> float:
    """Seconds that writing files of these sizes takes."""
    data = memoryview(os.urandom(1 << 20) * (_CHUNK >> 20))
    begin = time.perf_counter()
    paths = [folder / f"plain-{i}" for i in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        with path.open("wb", buffering=0) as file:
            for start in range(0, size, _CHUNK):
                file.write(data[: min(_CHUNK, size - start)])
    seconds = time.perf_counter() - begin
    for path in paths:
        path.unlink()
    return seconds


def noise(folder: Path, sizes: list[int]) -> float:
    """Seconds that drawing as many float32 numbers as fit these sizes takes, in one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out = torch.empty(_CHUNK // 4)
    begin = time.perf_counter()
    for _ in range(sum(sizes) // _CHUNK):
        out.normal_()
    seconds = time.perf_counter() - begin
    torch.set_num_threads(threads)
    return seconds


# In memory

_FIELDS = {"vocab_size": 50272, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "ffn_dim": 3072}


def clone_in_memory() -> Iterator[Timing]:
    """The state dict of a model widened 2x against building the wide model and overwriting its random weights."""
    fields = {**_FIELDS, "max_position_embeddings": 2048, "word_embed_proj_dim": 768}
    wide = fields | {name: 2 * fields[name] for name in _FIELDS if name not in ("vocab_size", "num_hidden_layers")}
    wide["word_embed_proj_dim"] = 1536
    made = clone(new_model("CausalLM", "opt", fields).eval(), (token_ids(2, 7, 50272),))
    state = made.state_dict()
    yield against(
        "state dict of a 125M decoder, 2x", made.state_dict, "build and overwrite", partial(_overwrite, wide, state)
    )


def _overwrite(fields: dict[str, int], state: dict[str, torch.Tensor]) -> None:
    new_model("CausalLM", "opt", fields).load_state_dict(state)
