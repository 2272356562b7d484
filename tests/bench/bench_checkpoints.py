"""Checkpoints disk to disk: time beside a plain ``write()`` of the same bytes, and peak memory beside its bound.

The sources have random weights and the published sizes of the paper's three families. Every run is a process of its
own, without verification, from the import of Python to the renamed folder. ``GRAPHCLONE_BENCH_DIR`` says where to
write; the largest needs 12 GB.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from graphclone.models import MODELS
from graphclone.models.huggingface import new_model
from tests.bench import Figure, child

RUNS = 5

SIZES = {"opt-350m": torch.float32, "pythia-410m": torch.float16, "olmo-1b": torch.bfloat16}
"""The families of the paper, each in a dtype of its own; the last has the 1.3B shape of the memory bound."""

BASE_MEMORY = 600e6
"""Bytes that any clone may take, beside twice the largest widened tensor."""

_CHUNK = 64 << 20

_CLONE = """
import json, sys, time
from tests.bench import peak_memory
begin = time.perf_counter()
from transformers import AutoModel, PreTrainedModel
from graphclone.formats.huggingface.writer import clone_checkpoint
imported = time.perf_counter() - begin
stages = {}
def progress(what, done, total):
    stages.setdefault(what.split()[0], time.perf_counter() - begin)
made = clone_checkpoint(sys.argv[1], sys.argv[2], strategy=sys.argv[3], verify=False, progress=progress)
peak = peak_memory()
largest = max(entry.nbytes for shard in made.plan.shards for entry in shard.entries)
total = time.perf_counter() - begin
sizes = [shard.nbytes for shard in made.plan.shards]
call, writing = total - imported, total - stages["writing"]
print(json.dumps({"total": total, "call": call, "writing": writing, "peak": peak, "largest": largest, "sizes": sizes}))
"""


def clone_checkpoints() -> Iterator[Figure]:
    """Every family 2x with the symmetric strategy, and the smallest with noise."""
    root = os.environ.get("GRAPHCLONE_BENCH_DIR")
    with tempfile.TemporaryDirectory(prefix="graphclone-bench-", dir=root) as folder:
        for name, dtype in SIZES.items():
            source = Path(folder) / name
            _save(name, dtype, source)
            yield from _measured(name, source, "symmetric", plain_write)
            if name == "opt-350m":
                yield from _measured(name, source, "noisy-symmetric", noise, "drawing as many normal numbers")
            shutil.rmtree(source)


_PLAN = """
import json, sys, time
import torch, transformers.conversion_mapping, networkx
from graphclone.formats.huggingface.plan import plan
from graphclone.formats.huggingface.reader import open_checkpoint, quiet_transformers
from graphclone.formats.torch.reader import trace_module
from graphclone.formats.torch.weightless import weightless
from graphclone.pipeline.state import Request
def timed(work):
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
def planned():
    return plan(open_checkpoint(sys.argv[1]), Request(2))
checkpoint = open_checkpoint(sys.argv[1])
with quiet_transformers():
    module = weightless(checkpoint.blank)
    inputs = checkpoint.example_inputs
    exported = timed(lambda: torch.export.export(module, (), inputs, strict=False))
print(json.dumps([timed(planned), exported]))
"""


def plan_again() -> Iterator[Figure]:
    """The plan of a clone, in a new process each, with what is kept on disk and without, against one torch.export."""
    with tempfile.TemporaryDirectory(prefix="graphclone-bench-") as folder:
        source, caches = Path(folder) / "source", [f"{folder}/cache-{number}" for number in range(RUNS)]
        _save_opt(source)
        rounds = [(child(_PLAN, str(source), cache=cache), child(_PLAN, str(source), cache=cache)) for cache in caches]
        for name, runs in zip(("nothing kept", "answers kept"), zip(*rounds, strict=True), strict=True):
            seconds, exported = (statistics.median(column) for column in zip(*runs, strict=True))
            yield Figure(f"plan a 125M clone, {name}", seconds, "torch.export", exported)


def verify_clone() -> Iterator[Figure]:
    """Comparing a clone with its source by their stock class, against loading both and running each once."""
    with tempfile.TemporaryDirectory(prefix="graphclone-bench-") as folder:
        source, wide = Path(folder) / "source", Path(folder) / "wide"
        _save("opt-350m", torch.float32, source)
        child(_CLONE, str(source), str(wide), "symmetric")
        runs = [child(_VERIFY, str(source), str(wide)) for _ in range(3)]
        seconds, plain = (statistics.median(column) for column in zip(*runs, strict=True))
        yield Figure("verify a clone of opt-350m", seconds, "load and run both", plain)
        sampled = [child(_SAMPLE, str(source), str(wide)) for _ in range(3)]
        middle = {key: statistics.median(run[key] for run in sampled) for key in sampled[0]}
        yield Figure("verify it part by part", middle["seconds"], "load and run both", plain)
        bound = BASE_MEMORY + middle["block"]
        yield Figure("verify it part by part, peak", middle["peak"], "600 MB and one block", bound, "MB", 1)


_VERIFY = """
import json, sys, time
import torch
from transformers import AutoModelForCausalLM
from graphclone.formats.huggingface.verifier import verify_folders
def timed(work):
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
@torch.no_grad()
def plain():
    for folder in sys.argv[1:3]:
        AutoModelForCausalLM.from_pretrained(folder).eval()(torch.arange(14).view(2, 7))
plain()
print(json.dumps([timed(lambda: verify_folders(*sys.argv[1:3]).raise_if_failed()), timed(plain)]))
"""


_SAMPLE = """
import json, re, sys, time
from pathlib import Path
from graphclone.formats.huggingface.plan import plan
from graphclone.formats.huggingface.reader import open_checkpoint
from graphclone.formats.huggingface.verifier import verify_checkpoints
from graphclone.pipeline.state import Request
from tests.bench import peak_memory
made = plan(open_checkpoint(sys.argv[1]), Request(2))
begin = time.perf_counter()
verify_checkpoints(made, Path(sys.argv[2]), sample=True).raise_if_failed()
seconds = time.perf_counter() - begin
peak = peak_memory()
blocks = {}
for entry in (entry for shard in made.shards for entry in shard.entries):
    part = re.match(r".*?\\.\\d+\\.|.*", entry.name)[0]
    blocks[part] = blocks.get(part, 0) + entry.nbytes
print(json.dumps({"seconds": seconds, "peak": peak, "block": max(blocks.values())}))
"""


def _save(name: str, dtype: torch.dtype, folder: Path) -> None:
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model: Any = new_model("CausalLM", MODELS[name].model_type, MODELS[name].fields)
    finally:
        torch.set_default_dtype(default)
    model.save_pretrained(folder)


def _save_opt(folder: Path) -> None:
    sizes = {"hidden_size": 768, "word_embed_proj_dim": 768, "ffn_dim": 3072, "num_attention_heads": 12}
    model: Any = new_model("CausalLM", "opt", {**sizes, "num_hidden_layers": 12, "max_position_embeddings": 2048})
    model.save_pretrained(folder)


def _measured(
    name: str, source: Path, strategy: str, yardstick: Callable[[Path, list[int]], float], anchor: str = "plain write()"
) -> Iterator[Figure]:
    """Clone and yardstick in turn, so that a busy moment hits both.

    Each begins with nothing left to be written to the disk, and in memory that no file has just given back: a virtual
    machine writes into such pages several times as fast as into others.
    """
    out = source.parent / "out"
    runs, times = [], []
    for _ in range(RUNS):
        os.sync()
        runs.append(child(_CLONE, str(source), str(out), strategy))
        os.sync()
        times.append(yardstick(source.parent, runs[-1]["sizes"]))
        shutil.rmtree(out)
    middle = {
        key: statistics.median(run[key] for run in runs) for key in ("total", "call", "writing", "peak", "largest")
    }
    what = f"clone {name} 2x {strategy}, {sum(runs[0]['sizes']) / 1e9:.1f} GB"
    seconds = statistics.median(times)
    yield Figure(f"{what}, from start to end", middle["total"], anchor, seconds)
    yield Figure(f"{what}, imports left out", middle["call"], anchor, seconds)
    yield Figure(f"{what}, weights alone", middle["writing"], anchor, seconds)
    bound = BASE_MEMORY + 2 * middle["largest"]
    yield Figure(f"{what}, peak", middle["peak"], "600 MB and two tensors", bound, "MB", 1)


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
