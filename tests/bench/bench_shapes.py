"""What any shape costs: planning a 7B one, and writing pads, against traces and against whole multiples."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from graphclone.models.huggingface import new_model
from tests.bench import Figure, child

ROUNDS = 3
PLANS = 1
BASE_MEMORY = 600e6
"""Bytes that any clone may take, beside twice the largest widened tensor."""

_STYLE = {"tie_word_embeddings": False, "vocab_size": 32000, "head_dim": 128}
_SMALL = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
_LARGE = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}

_PLAN = """
import json, sys, time
from graphclone.formats.huggingface.plan import plan
from graphclone.formats.huggingface.reader import open_checkpoint
from graphclone.pipeline.state import Request
from graphclone.runtime import collector
from graphclone.runtime.cache import no_cache
small, large, what = sys.argv[1:]
begin = time.process_time()
with no_cache(), collector.seldom():
    if what == "plan":
        plan(open_checkpoint(small), Request(like=large))
    else:
        for folder in (small, large):
            checkpoint = open_checkpoint(folder)
            checkpoint.traced(checkpoint.fields, folder)
print(json.dumps(time.process_time() - begin))
"""
"""Both begin in a process of their own, since whatever is done first there waits for what is imported."""

_WRITE = """
import json, sys, time
from graphclone.formats.huggingface.plan import plan
from graphclone.formats.huggingface.reader import open_checkpoint
from graphclone.formats.huggingface.writer import write_checkpoint
from graphclone.pipeline.state import Request
from tests.bench import peak_memory
made = plan(open_checkpoint(sys.argv[1]), Request(like=sys.argv[2]))
begin = time.perf_counter()
write_checkpoint(made, sys.argv[3], verify=False)
seconds = time.perf_counter() - begin
peak = peak_memory()
entries = [entry.nbytes for shard in made.shards for entry in shard.entries]
print(json.dumps({"seconds": seconds, "peak": peak, "largest": max(entries), "bytes": sum(entries)}))
"""


def plan_like() -> Iterator[Figure]:
    """Everything decided about a 1B decoder that takes the shape of a 7B one, against the traces of the two."""
    with tempfile.TemporaryDirectory(prefix="graphclone-bench-") as folder:
        small, large = (hollow(Path(folder) / name, {**_STYLE, **f}) for name, f in (("1b", _SMALL), ("7b", _LARGE)))
        rounds = [[child(_PLAN, str(small), str(large), what) for what in ("plan", "traces")] for _ in range(PLANS)]
        work, traces = (statistics.median(column) for column in zip(*rounds, strict=True))
        yield Figure("plan a 1B decoder --like a 7B one, CPU time", work, "trace both", traces, bound=1.5)


def hollow(folder: Path, fields: dict[str, Any]) -> Path:
    """A checkpoint whose file of weights is as long as it should be and takes no room on the disk."""
    with FakeTensorMode():
        heads = fields["hidden_size"] // fields["head_dim"]
        sizes = {**fields, "num_attention_heads": heads, "num_key_value_heads": heads}
        model: Any = new_model("CausalLM", "llama", sizes)
    header, end = {}, 0
    for name, tensor in model.named_parameters():
        begin, end = end, end + 2 * prod(tensor.shape)
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(file.tell() + end)
    config = {**model.config.to_dict(), "architectures": [type(model).__name__], "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def stream_pads() -> Iterator[Figure]:
    """A clone whose stream has pads and whose heads are repeated unequally, against one of whole multiples."""
    with tempfile.TemporaryDirectory(prefix="graphclone-bench-") as folder:
        root = Path(folder)
        target = _saved(root / "target", 1536, 24)
        sources = {"pads": _saved(root / "pads", 1024, 16), "multiples": _saved(root / "multiples", 768, 12)}
        rounds = [
            {
                kind: child(_WRITE, str(source), str(target), str(root / f"{kind}-{i}"))
                for kind, source in sources.items()
            }
            for i in range(ROUNDS)
        ]
        padded, whole = ([run[kind] for run in rounds] for kind in sources)
        assert padded[0]["bytes"] == whole[0]["bytes"]
        size, bound = padded[0]["bytes"] / 1e9, BASE_MEMORY + 2 * padded[0]["largest"]
        seconds, others = (statistics.median(run["seconds"] for run in runs) for runs in (padded, whole))
        yield Figure(f"write {size:.1f} GB with pads", seconds, "of whole multiples", others, bound=1.1)
        for kind, runs in (("with pads", padded), ("of whole multiples", whole)):
            peak = statistics.median(run["peak"] for run in runs)
            yield Figure(f"write {size:.1f} GB {kind}, peak", peak, "600 MB and two tensors", bound, "MB", 1)


def _saved(folder: Path, width: int, heads: int) -> Path:
    sizes = {"hidden_size": width, "num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": 64}
    fields = {**sizes, "intermediate_size": 4096, "num_hidden_layers": 6, "vocab_size": 8000, "use_cache": False}
    torch.manual_seed(0)
    model: Any = new_model("CausalLM", "llama", fields)
    model.save_pretrained(folder)
    return folder
