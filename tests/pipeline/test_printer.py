"""The text of a graph, against golden files that hold it before and after a pass.

``python -m tests.pipeline.test_printer`` writes the golden files anew; read the difference before you commit it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from graphclone.algebra.growth import Growth
from graphclone.api import clone
from graphclone.formats.torch.reader import trace_module
from graphclone.passes import default_pipeline
from graphclone.pipeline.printer import print_graph, print_state
from graphclone.pipeline.runner import Pass, run
from graphclone.pipeline.state import Request, State, Widths
from tests.support.zoo import ZOO

GOLDEN = Path(__file__).parents[1] / "golden"
SHOWN = ("canonicalize", "infer-dims", "rewrite-literals")


class Tiny(nn.Module):
    """Attention of 3 heads of 4 with fused q, k and v, then a gated MLP: (batch, time, 6) -> (.., 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 14)
        self.norm = nn.LayerNorm(14)
        self.qkv = nn.Linear(14, 36, bias=False)
        self.out = nn.Linear(12, 14, bias=False)
        self.gate_up = nn.Linear(14, 20)
        self.down = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        q, k, v = (t.view(*t.shape[:2], 3, 4).transpose(1, 2) for t in (q, k, v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        y: Tensor = self.down(nn.functional.silu(gate) * up)
        return y


def tiny_state() -> State:
    return State(trace_module(Tiny().eval(), (torch.ones(2, 7, 6),)), Request(widen=2))


def printed() -> dict[str, tuple[str, str]]:
    """The text before and after every pass of the default pipeline."""
    state = tiny_state()
    texts = [print_state(state)]
    passes = default_pipeline()
    run(passes, state, after=lambda step, now: texts.append(print_state(now)))
    return {step.name: pair for step, pair in zip(passes, pairwise(texts), strict=True)}


def golden(name: str, texts: tuple[str, str]) -> str:
    return f"# before {name}\n{texts[0]}\n# after {name}\n{texts[1]}"


@pytest.mark.parametrize("name", SHOWN)
def test_a_pass_does_what_its_golden_file_says(name: str) -> None:
    assert golden(name, printed()[name]) == (GOLDEN / f"{name}.txt").read_text()


def test_a_graph_is_printed_alike_every_time() -> None:
    assert printed() == printed()


def test_a_plain_graph_has_plain_sizes() -> None:
    graph = trace_module(Tiny().eval(), (torch.ones(2, 7, 6),))
    assert print_graph(graph).splitlines()[:4] == [
        "graph Tiny",
        "input x: float32[s0=2, 7, 6]",
        "parameter embed.weight: float32[14, 6]",
        "parameter embed.bias: float32[14]",
    ]


def clone_text(name: str, widen: dict[str, int] | int = 2) -> list[str]:
    built = ZOO[name].build()
    seen: list[str] = []

    def after(step: Pass, state: State) -> None:
        seen[:] = print_state(state).splitlines()

    clone(built.module, built.args, built.kwargs, widen=widen, after=after)
    return seen


def find(lines: Sequence[str], start: str) -> str:
    (line,) = (line for line in lines if line.startswith(start))
    return line


def test_tied_and_rescaled_initializers_say_so() -> None:
    lines = clone_text("opt")
    assert find(lines, "parameter model.decoder.embed_tokens.weight").endswith("alias lm_head.weight")
    assert find(lines, "parameter model.decoder.final_layer_norm.weight").endswith("scale 0.5")
    assert find(lines, "parameter model.decoder.layers.0.fc1.weight").endswith("contracts 1")


def test_shifted_initializers_say_so() -> None:
    assert any(line.endswith("scale 0.5 shift -0.5") for line in clone_text("gemma"))


def test_segments_and_factors_are_told_apart() -> None:
    line = find(clone_text("llama-gqa"), "parameter model.layers.0.self_attn.q_proj.weight")
    names, _, sizes = line.partition("[")[2].partition("]")[0].partition(", ")[0].partition("=")
    assert "(" in names
    assert "+" in names
    assert sizes == "5x2*3*(4+4)"


@pytest.mark.parametrize(
    ("growth", "text"),
    [
        (Growth(10, 3), "10x3"),
        (Growth(10, 3, "interleave"), "10xx3"),
        (Growth.explicit(10, range(10)), "10>10"),
    ],
)
def test_every_kind_of_growth_is_told_apart(growth: Growth, text: str) -> None:
    state = tiny_state()
    run(default_pipeline()[:4], state)
    (axis,) = (axis for axis, growth in state.growths.items() if growth.size == 10)
    state.widths = Widths({**state.growths, axis: growth})
    assert f"={text}]" in find(print_state(state).splitlines(), "%silu")


def test_what_has_no_name_gets_a_letter() -> None:
    """A free dim of activations only, such as the copies that a broadcast makes."""

    class Outer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, x.new_zeros(x.shape[0], 6)], dim=1)[:, :4]

    state = State(trace_module(Outer().eval(), (torch.ones(2, 4),)))
    run(default_pipeline()[:3], state)
    assert "new_zeros: float32[s0=2, a=6]" in print_state(state)


if __name__ == "__main__":
    for pass_name, pair in printed().items():
        if pass_name in SHOWN:
            (GOLDEN / f"{pass_name}.txt").write_text(golden(pass_name, pair))
