"""A clone in memory: against touching as much fresh memory, and against what a clone cost before.

The reference builds the wide model by its class, with random weights, and overwrites them by repeating the source's.
Both sides run twice in processes of their own, and the second run counts: a virtual machine is given memory by its host
when a page is touched for the first time, and loses what is free, which took longer than all the rest.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from graphclone.algebra.growth import Growth, Leaf
from graphclone.algebra.recipes import Widening
from graphclone.algebra.strategies import strategy
from graphclone.runtime.kernel import widen
from graphclone.runtime.threads import workers
from tests.bench import Figure, against, child

ROUNDS = 3
SLACK = 200e6
"""Bytes that a clone in memory may take beside source and clone."""

SHAPES = {"125M": (768, 12, "float32"), "350M": (1024, 24, "float32"), "1.3B": (2048, 24, "bfloat16")}
"""Width, layers and dtype of decoders; what the largest needs, source and clone, is 13 GB."""

_SETUP = """
import json, re, sys, time
import torch
from graphclone.api import clone
from graphclone.models.huggingface import new_model, token_ids
width, layers = int(sys.argv[1]), int(sys.argv[2])
torch.set_default_dtype(getattr(torch, sys.argv[3]))
def fields(factor):
    return {"vocab_size": 50272, "hidden_size": factor * width, "word_embed_proj_dim": factor * width,
            "ffn_dim": factor * 4 * width, "num_attention_heads": factor * width // 64, "num_hidden_layers": layers,
            "max_position_embeddings": 2048}
source = new_model("CausalLM", "opt", fields(1)).eval()
def status(what):
    return 1024 * int(re.search(rf"{what}:\\s+(\\d+)", open("/proc/self/status").read())[1])
def measured(work):
    for _ in range(2):
        tensors = None
        open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
        before = status("VmRSS")
        work_begins = time.perf_counter()
        tensors = work()
        seconds = time.perf_counter() - work_begins
    written = sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors.values()}.values())
    print(json.dumps({"seconds": seconds, "peak": status("VmHWM") - before, "clone": written}))
"""

_CLONE = f"""{_SETUP}
measured(lambda: clone(source, (token_ids(2, 7, 50272),), widen=2).state_dict())
"""

_KEPT = f"""{_SETUP}
folder = sys.argv[4]
source.save_pretrained(folder)
measured(lambda: clone(folder, widen=2).state_dict())
"""

_REFERENCE = f"""{_SETUP}
@torch.no_grad()
def built():
    wide = new_model("CausalLM", "opt", fields(2)).eval()
    for (_, old), (_, new) in zip(source.named_parameters(), wide.named_parameters(), strict=True):
        repeats = [b // a for a, b in zip(old.shape, new.shape, strict=True)]
        new.copy_(old.repeat(repeats) / repeats[-1])
    return wide.state_dict()
measured(built)
"""


def clone_in_memory() -> Iterator[Figure]:
    """The state dict of a decoder twice as wide, with and without a trace that is kept, against the reference."""
    for name, shape in SHAPES.items():
        sizes = [str(size) for size in shape]
        rounds = []
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory(prefix="graphclone-bench-") as folder:
                kept = child(_KEPT, *sizes, f"{folder}/source", cache=f"{folder}/cache")
            rounds.append((child(_CLONE, *sizes), kept, child(_REFERENCE, *sizes)))
        fresh, kept, reference = (
            {key: statistics.median(run[key] for run in runs) for key in runs[0]} for runs in zip(*rounds, strict=True)
        )
        what, anchor = f"clone a {name} decoder 2x in memory", "build at random and overwrite"
        yield Figure(what, fresh["seconds"], anchor, reference["seconds"], bound=1 / 5)
        yield Figure(f"{what}, trace kept", kept["seconds"], anchor, reference["seconds"], bound=1 / 10)
        yield Figure(f"{what}, peak", fresh["peak"], "clone and 200 MB", fresh["clone"] + SLACK, "MB", 1)
        yield Figure(f"{what}, peak", fresh["peak"], anchor, reference["peak"], "MB")


def first_touch() -> Iterator[Figure]:
    """Tensors widened into fresh memory, against filling as many fresh tensors with a number by as many threads."""
    axis = Leaf(Growth(2048, 2))
    recipe = Widening("weight", (axis, axis), (1,), strategy("symmetric"))
    source = torch.randn(2048, 2048)

    def each(pool: ThreadPoolExecutor, make: object) -> None:
        list(pool.map(make, range(8)))  # type: ignore[arg-type]

    with workers() as pool:
        yield against(
            "widen into 0.5 GB of fresh memory",
            lambda: each(pool, lambda _: widen(source, recipe)),
            "fill fresh memory, all threads",
            lambda: each(pool, lambda _: torch.empty(recipe.shape).fill_(1.0)),
            bound=1,
        )
