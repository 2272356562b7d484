"""The standing adversary itself: what it makes, what it notices, what it prints; and some of it, on every run."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from graphclone.errors import GraphcloneError
from graphclone.rules import reduce
from graphclone.rules.site import Site
from tests.fuzz import graphs
from tests.fuzz.__main__ import seeds
from tests.fuzz.builder import Builder, Maker
from tests.fuzz.minimise import minimised
from tests.fuzz.oracle import Wrong, check, judged
from tests.fuzz.program import Built, Given, Program, Statement
from tests.fuzz.requests import WAYS, Request, drawn
from tests.fuzz.runner import Failure, doubles, run

SEEDS = range(3, 13)
"""As many as take half a minute on one core."""


@pytest.mark.slow
def test_random_modules_and_requests() -> None:
    tally = run(iter(SEEDS))
    assert not tally.failures, "\n\n".join(map(str, tally.failures))
    assert tally.kinds["grown"] > tally.requests / 4, tally


# Programs


@pytest.mark.parametrize("maker", graphs.MAKERS, ids=lambda maker: maker.__name__)
def test_every_maker_makes_something(maker: Maker) -> None:
    with doubles():
        assert any(_extended(seed, maker) for seed in range(60))


def _extended(seed: int, maker: Maker) -> bool:
    """Whether a maker finds something to do in a young program."""
    g = Builder(seed)
    graphs.give_inputs(g)
    for _ in range(30):
        g.step(g.rng.choice(list(graphs.MAKERS)))
    return any(g.step(maker) for _ in range(5))


def test_a_seed_makes_one_program() -> None:
    with doubles():
        first, again, other = graphs.program(3), graphs.program(3), graphs.program(4)
        assert first.source() == again.source() != other.source()
        assert graphs.runs(first)


def test_a_program_is_built_at_any_width() -> None:
    with doubles():
        built = Built(PROGRAM)
        assert built.make(3).m1.weight.shape == (18, 4)
        args, kwargs = built.inputs((5, 2))
        assert built.make(3)(*args, **kwargs).shape == (5, 3)


def test_requests_are_drawn_of_every_way() -> None:
    rng = random.Random(0)
    assert {drawn(rng).way for _ in range(500)} == set(WAYS)


# The oracle


PROGRAM = Program(
    seed=1,
    sizes=(3, 2),
    others=((4, 2), (1, 2)),
    given=(Given("x0", "torch.randn(B, 4)"), Given("x1", "torch.randn(B, 4)")),
    inits={
        "m1": "self.m1 = nn.Linear(4, 6 * n)",
        "m2": "self.m2 = nn.Linear(6 * n, 3)",
        "m3": "self.m3 = nn.Linear(4, 5)",
    },
    statements=(
        Statement("h1", ("h1 = self.m1(x0)",)),
        Statement("h2", ("h2 = self.m3(x1).tanh()",)),
        Statement("h3", ("h3 = h1.softmax(-1)",)),
        Statement("h4", ("h4 = h3.relu()", "h4 = h4 + 0")),
        Statement("h5", ("h5 = self.m2(h4) + h2.sum()",)),
    ),
    outputs=("h5",),
    shape="one",
)


def careless(s: Site) -> None:
    """A softmax whose n copies would each be as large as the one was."""
    x = s.tensor("self")
    s.get("dim"), s.get("dtype")
    s.equal_all(s.axes(x), s.axes(s.out))
    s.require({x: 1})
    s.scale(s.out, {})


FAULT = {"aten.softmax.int": careless}


@pytest.mark.parametrize("way", ["factor", "dims", "into"])
def test_a_wrong_rule_is_noticed(way: str) -> None:
    request = Request(way, strategy="diagonal", seed=1)
    with doubles():
        assert judged(Built(PROGRAM), request).kind == "grown"
        with mock.patch.dict(reduce.RULES, FAULT):
            verdict = judged(Built(PROGRAM), request)
    assert verdict.kind == "wrong" and "the example, output 0: off by" in verdict.why


@pytest.mark.slow
@pytest.mark.parametrize("way", ["onnx", "file"])
def test_files_are_judged(way: str) -> None:
    with doubles(), mock.patch.dict(reduce.RULES, FAULT | {"onnx.Softmax": careless_file}):
        assert judged(Built(PROGRAM), Request(way, factor=3)).kind == "wrong"


def careless_file(s: Site) -> None:
    x = s.tensor("input")
    s.get("axis")
    s.equal_all(s.axes(x), s.axes(s.out))
    s.require({x: 1})
    s.scale(s.out, {})


def test_a_wrong_weight_is_noticed() -> None:
    with doubles():
        source, inputs = Built(PROGRAM).source, Built(PROGRAM).inputs()
        spoiled = copy.deepcopy(source)
        spoiled.m1.weight.data[0, 0] += 1e-6  # type: ignore[union-attr, index, operator]
        with pytest.raises(Wrong, match="off by"), torch.no_grad():
            check("here", source, inputs, source(*inputs[0]), spoiled(*inputs[0]))


class Turning(nn.Module):
    """So ill-conditioned that its last bits decide, and discontinuous as well."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 1e12).sin() + (x * 1e15).floor() % 2


def test_what_the_last_bits_decide_is_not_wrong() -> None:
    with doubles():
        x = torch.randn(50)
        check("here", Turning(), ((x,), {}), Turning()(x), Turning()(x * (1 + 2e-16)))
        with pytest.raises(Wrong):
            check("here", nn.Tanh(), ((x,), {}), x.tanh(), (x * (1 + 1e-7)).tanh())


@pytest.mark.parametrize(
    ("expected", "found", "message"),
    [
        (torch.ones(2), torch.ones(3), "of \\(3,\\) and not"),
        (torch.ones(2), torch.ones(2, dtype=torch.float64), "torch.float64 of"),
        (torch.ones(2), (torch.ones(2),), "returns"),
        (torch.ones(2), torch.tensor([1.0, float("nan")]), "off by inf"),
        ((torch.ones(2), 3), (torch.ones(2), 4), "4 and not 3"),
    ],
)
def test_other_results_are_wrong(expected: Any, found: Any, message: str) -> None:
    class Constant(nn.Module):
        def forward(self) -> Any:
            return expected

    with pytest.raises(Wrong, match=message):
        check("here", Constant(), ((), {}), expected, found)


# The minimiser


def test_a_program_is_made_small() -> None:
    with doubles():
        small = minimised(PROGRAM, lambda program: graphs.runs(program) and "softmax" in program.source())
    assert [s.text for s in small.statements] == ["h3 = x0.softmax(-1)"]
    assert len(small.outputs) == 1 and "m1" not in small.source()


def test_a_failure_is_printed_as_a_module_that_fails() -> None:
    request = Request("factor")
    with doubles(), mock.patch.dict(reduce.RULES, FAULT):
        failure = Failure(7, request, PROGRAM, judged(Built(PROGRAM), request)).smaller()
    text = str(failure)
    assert text.startswith("# seed 7, factor factor=2") and "# wrong: the example" in text
    assert "softmax" in text and "tanh" not in text and len(failure.program.statements) == 3
    space: dict[str, Any] = {}
    with doubles():
        exec(text, space)
        args, kwargs = space["inputs"]()
        assert space["make"](2)(*args, **kwargs).shape == space["make"](1)(*args, **kwargs).shape


def test_a_source_that_changed_is_wrong() -> None:
    def spoiling(source: nn.Module, *args: Any, **kwargs: Any) -> Any:
        source.m2.bias.data.add_(1e-12)  # type: ignore[union-attr, operator]
        raise GraphcloneError("no")

    with doubles(), mock.patch("graphclone.clone", side_effect=spoiling):
        assert judged(Built(PROGRAM), Request("factor")).why == "the source's own m2.bias changed"


def test_a_crash_is_one_kind_of_failure_by_its_message() -> None:
    with doubles(), mock.patch("graphclone.clone", side_effect=KeyError("m1")):
        verdict = judged(Built(PROGRAM), Request("factor"))
    assert verdict.kind == "crashed" and verdict.bad and verdict.why == "KeyError: 'm1'"


def test_sizes_that_the_clone_refuses_are_counted() -> None:
    fixed = replace(
        PROGRAM, statements=(*PROGRAM.statements[:-1], Statement("h5", ("h5 = self.m2(h4) * x0.shape[0]",)))
    )
    with doubles():
        verdict = judged(Built(fixed), Request("factor"))
        assert verdict.kind == "grown" and not verdict.narrow


def test_seeds_are_counted_or_timed() -> None:
    assert list(seeds(5, 0, 3)) == [5, 6, 7]
    assert list(seeds(5, 0, None)) == []
