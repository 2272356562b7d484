"""What the analysis of a 7-billion-parameter decoder costs: beside its trace, and as its layers double.

The model is traced without weights, in the usual shape of that size: width 4096, feed-forward width 11008, 32 heads.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from graphclone.api import trace
from graphclone.formats.torch.example_inputs import dynamic_shapes
from graphclone.formats.torch.reader import trace_module
from graphclone.graph.ir import Graph
from graphclone.models.huggingface import new_model, token_ids
from graphclone.passes import analysis
from graphclone.pipeline.runner import run
from graphclone.pipeline.state import Request, State
from graphclone.runtime import collector
from tests.bench import Figure, against

WIDTH, FEED_FORWARD, HEADS, VOCABULARY = 4096, 11008, 32, 32000


def analyse_decoder() -> Iterator[Figure]:
    """Analysis against the trace before it, and 32 layers against 16."""
    half, whole = traced(16), traced(32)
    yield against("analyse 32 layers of 7B", lambda: analyse(whole), "trace them", lambda: traced(32), repeats=1)
    yield against("analyse 32 layers of 7B", lambda: analyse(whole), "analyse 16", lambda: analyse(half), bound=2.2)


def trace_decoder() -> Iterator[Figure]:
    """A trace with its dims, against torch.export alone: with all sizes fixed, and with those open that a trace has."""
    module, inputs = new_model("CausalLM", "opt", _SMALL).eval(), (token_ids(2, 7, _SMALL["vocab_size"]),)
    shapes = dynamic_shapes(module, inputs, {}, varying=True)

    def exported(open_sizes: object = None) -> object:
        return torch.export.export(module, inputs, dynamic_shapes=open_sizes, strict=False)

    def traced() -> object:
        return trace(module, inputs)

    yield against("trace 12 layers", traced, "torch.export, open sizes", lambda: exported(shapes), bound=1.2)
    yield against("trace 12 layers", traced, "torch.export, fixed sizes", exported)


_SMALL = {
    "vocab_size": 1000,
    "hidden_size": 192,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "ffn_dim": 768,
    "max_position_embeddings": 64,
    "word_embed_proj_dim": 192,
}


@collector.seldom()
def analyse(graph: Graph) -> None:
    """Everything up to knowing the dims, on a graph of its own, as traces and clones do it."""
    run(analysis(), State(graph.copy(), Request()))


def traced(layers: int) -> Graph:
    """The decoder's graph, from parameters that hold no memory."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        fields = {
            "hidden_size": WIDTH,
            "intermediate_size": FEED_FORWARD,
            "num_attention_heads": HEADS,
            "num_hidden_layers": layers,
            "vocab_size": VOCABULARY,
            "use_cache": False,
        }
        module = new_model("CausalLM", "llama", fields)
        ids = token_ids(2, 7, VOCABULARY)
    return trace_module(module, (ids,))
