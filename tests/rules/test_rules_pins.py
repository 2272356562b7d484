"""What rules hold back: axes that must not grow, and nodes that nobody understands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from graphclone.algebra.axes import Axis
from graphclone.analysis.facts import Facts
from graphclone.formats.torch.dialect import TorchDialect
from graphclone.graph.ir import Graph, Node, Output, Value
from graphclone.passes.infer_dims import InferDims
from graphclone.pipeline.state import Request, State
from graphclone.rules import default_rules, find
from graphclone.rules.pointwise import homogeneous
from graphclone.rules.site import Rule, Site
from tests.support import rule_property, rule_samples
from tests.support.rule_calls import call, flags, floats, numbers
from tests.support.rule_property import PLAIN_TRIALS, Disproved, Sample, Trial, check, graph_of, infer

TRIALS = (*PLAIN_TRIALS, Trial(factors=(2, 3), scaled=True, seed=5))


def pinned(facts: Facts, axis: Axis) -> bool:
    """Whether all of an axis is pinned, by the node under test and with a reason."""
    leaves = facts.axes.leaves(axis)
    assert all(leaf.pin is None or (leaf.pin.node == "op" and leaf.pin.text) for leaf in leaves)
    return all(leaf.pin is not None for leaf in leaves)


# Axes that mean something by position

torch.default_generator.manual_seed(0)  # the samples below are drawn here, whatever was imported before

_LOOKUP = numbers(4, 2, 3)
_PLACES = torch.tensor([2, 0, 1])
_ROWS = torch.stack([torch.randperm(6)[:3] for _ in range(4)])

PINNED: list[tuple[Sample, str, str]] = [
    (call("cumsum", floats(4, 6), 1), "self", "01"),
    (call("cumprod", floats(4, 6), 0), "self", "10"),
    (call("logcumsumexp", floats(4, 6), -1), "self", "01"),
    (call("cummax", floats(4, 6), -1), "self", "01"),
    (call("log_softmax.int", floats(4, 6), 1), "self", "01"),
    (call("softmax.int", floats(4, 6), 1), "self", "00"),
    (call("sort", floats(4, 6)), "self", "01"),
    (call("argsort", floats(4, 6), 0), "self", "10"),
    (call("topk", floats(4, 6), 2), "self", "01"),
    (call("argmax", floats(4, 6), 1), "self", "01"),
    (call("argmax", floats(4, 6)), "self", "11"),
    (call("max.dim", floats(4, 6), 1), "self", "01"),
    (call("amax", floats(4, 6), [1]), "self", "00"),
    (call("prod.dim_int", floats(4, 6), 1), "self", "01"),
    (call("logsumexp", floats(4, 6), [1]), "self", "01"),
    (call("sum.dim_IntList", flags(4, 6), [1]), "self", "01"),
    (call("sum.dim_IntList", floats(4, 6), [1]), "self", "00"),
    (call("matmul", numbers(9, 4, 6), numbers(9, 6, 8)), "self", "01"),
    (call("diff", floats(4, 6)), "self", "01"),
    (call("tril", floats(3, 4, 6)), "self", "011"),
    (call("fft_rfft", floats(4, 6)), "self", "01"),
    (call("fft_fftn", floats(3, 4, 6), None, [0, 1]), "self", "110"),
    (call("flip", floats(4, 6), [1]), "self", "01"),
    (call("roll", floats(4, 6), [1], [0]), "self", "10"),
    (call("embedding", floats(7, 6), numbers(7, 2, 3)), "weight", "10"),
    (call("index.Tensor", floats(4, 6, 5), [_LOOKUP]), "self", "100"),
    (call("index.Tensor", floats(4, 6, 5), [None, flags(6, 5)]), "self", "011"),
    (call("index.Tensor", floats(4, 5, 6, 3), [None, numbers(5, 4), None, numbers(3, 4)]), "self", "0101"),
    (call("index_put", floats(4, 6), [None, torch.tensor([2, 0])], floats(4, 2)), "self", "01"),
    (call("index_put", floats(4, 5, 6, 3), [None, _PLACES, None, _PLACES], floats(3, 4, 6)), "values", "100"),
    (call("index_put", floats(4, 6), [None, torch.tensor([2, 0])], floats(4, 2)), "values", "01"),
    (call("index_select", floats(4, 6), 1, torch.tensor([2, 0])), "self", "01"),
    (call("index_add", floats(4, 6), 1, torch.tensor([2, 0]), floats(4, 2)), "source", "01"),
    (call("index_reduce", floats(4, 6), 1, torch.tensor([2, 0]), floats(4, 2), "amax"), "source", "01"),
    (call("gather", floats(4, 6), 1, _ROWS), "self", "01"),
    (call("gather", floats(5, 6), 1, _ROWS), "self", "11"),
    (call("scatter.src", floats(4, 6), 1, _ROWS, floats(4, 3)), "self", "01"),
    (call("scatter.src", floats(4, 6), 1, _ROWS, floats(5, 3)), "self", "11"),
    (call("one_hot", numbers(5, 2, 3), 5), "self", "00"),
    (call("select.int", floats(4, 6), 1, 2), "self", "01"),
    (call("unbind.int", floats(4, 6), 1), "self", "01"),
    (call("diagonal", floats(3, 4, 6), 1, 2, 0), "self", "101"),
    (call("diagonal", floats(4, 6)), "self", "11"),
    (call("fill_diagonal_", floats(4, 6), 2.0), "self", "11"),
    (call("unfold", floats(4, 6), 1, 3, 2), "self", "01"),
    (call("split_with_sizes", floats(4, 6), [2, 4], -1), "self", "00"),
    (call("slice.Tensor", floats(4, 6), 1, 2, 3, 1), "self", "00"),
    (call("slice.Tensor", floats(4, 6), 1, 1, 6, 4), "self", "01"),
    (call("slice.Tensor", floats(4, 6), 1, -6, 6, 2), "self", "01"),
    (call("pad", floats(4, 6), [1, 2]), "self", "00"),
    (call("pad", floats(4, 6), [1, -2]), "self", "01"),
    (call("pad", floats(4, 6), [1, 2], "reflect"), "self", "01"),
    (call("conv1d", floats(2, 6, 5), floats(4, 6, 3)), "input", "001"),
    (call("conv1d", floats(2, 6, 5), floats(4, 6, 1)), "input", "000"),
    (call("conv1d", floats(2, 6, 5), floats(4, 6, 3)), "weight", "001"),
    (call("max_pool1d", floats(2, 6, 5), [2]), "self", "001"),
    (call("upsample_nearest1d", floats(2, 6, 5), [7]), "self", "001"),
    (call("pixel_shuffle", floats(2, 12, 3, 5), 2), "self", "0011"),
    (call("view_as_complex", floats(4, 6, 2)), "self", "001"),
    (call("sym_size.int", floats(4, 6), 1), "self", "01"),
    (call("cdist", floats(4, 6), floats(5, 6)), "x1", "00"),
    (call("matrix_exp", floats(3, 4, 4)), "self", "011"),
    (call("scaled_dot_product_attention", floats(2, 4, 6), floats(2, 7, 6), floats(2, 7, 3), None, 0.0, True),
     "query", "010"),
]  # fmt: skip


@pytest.mark.parametrize(("sample", "name", "expected"), PINNED, ids=[f"{s.op}-{n}" for s, n, _ in PINNED])
def test_axes_that_mean_something_by_position_are_pinned(sample: Sample, name: str, expected: str) -> None:
    """``expected`` has a 1 for every axis of the operand that must keep its size, and a 0 for one that may grow."""
    facts = infer(sample)
    axes = facts.of[facts.graph.nodes[0].operands[name]]
    assert "".join("1" if pinned(facts, axis) else "0" for axis in axes) == expected
    assert not facts.refusals


@pytest.mark.parametrize(
    ("sample", "position"),
    [
        (call("stack", [floats(4), floats(4)], 0), 0),
        (call("stack", [floats(4), floats(4)], 1), 1),
        (call("one_hot", numbers(5, 4), 5), 1),
    ],
    ids=["stacked first", "stacked last", "one_hot"],
)
def test_new_axes_that_mean_something_by_position_are_pinned(sample: Sample, position: int) -> None:
    facts = infer(sample)
    axes = facts.of[facts.graph.nodes[0].outputs[0]]
    assert [pinned(facts, axis) for axis in axes] == [i == position for i in range(2)]


# Wrong rules are caught


def caught(sample: Sample, rules: dict[str, Rule] | None = None) -> bool:
    """Whether some trial shows the rules to be wrong; a trial that breaks down shows nothing, and fails."""
    for trial in TRIALS:
        try:
            check(sample, trial, rules)
        except Disproved:
            return True
    return False


def _product_of_wrong_order(s: Site) -> None:
    """What conv would be if channels were members times groups."""
    x, w = s.tensor("input"), s.tensor("weight")
    groups = s.system.dim(s.integer("groups"))
    for name in ("bias", "stride", "padding", "dilation"):
        s.get(name)
    s.equal(s.axes(x)[1], s.system.product([s.axes(w)[1], groups]))
    s.equal(s.axes(s.out)[1], s.axes(w)[0])
    s.equal(s.axes(w)[0], s.system.product([s.system.dim(s.axes(w)[0].size // groups.size), groups]))
    s.equal(s.axes(x)[2], s.axes(s.out)[2])
    s.follow(("groups",), groups)
    s.scale(s.out, {x: 1, w: 1}, contraction=s.contracted((w, [1])))


def _linear_that_sums_nothing(s: Site) -> None:
    x, w = s.tensor("input"), s.tensor("weight")
    s.equal(s.axes(x)[-1], s.axes(w)[1])
    s.equal_all(s.axes(s.out), [*s.axes(x)[:-1], s.axes(w)[0]])
    s.scale(s.out, {x: 1, w: 1})


def _inner_repeat(s: Site) -> None:
    x = s.tensor("self")
    for i, (count, a, b) in enumerate(zip(s.integers("repeats"), s.axes(x), s.axes(s.out), strict=True)):
        times = s.system.dim(count)
        s.follow(("repeats", i), times)
        s.equal(b, s.system.product([a, times]))
    s.same_scale(s.out, x)


def _aligned(s: Site) -> None:
    s.read.update(s.node.operands)
    s.broadcast(*s.tensors)


def _any_scale(s: Site) -> None:
    _aligned(s)
    s.scale(s.out, dict.fromkeys(s.tensors, 1))


WRONG: dict[str, tuple[Sample, Rule]] = {
    "cumsum is elementwise": (call("cumsum", floats(4, 6), 1), homogeneous),
    "sort is elementwise": (call("sort", floats(4, 6), 1), homogeneous),
    "flip is elementwise": (call("flip", floats(4, 6), [1]), homogeneous),
    "softmax has no factor": (call("softmax.int", floats(4, 6), 1), _aligned),
    "gelu is homogeneous": (call("gelu", floats(4, 6)), homogeneous),
    "log_softmax is homogeneous": (call("log_softmax.int", floats(4, 6), 1), homogeneous),
    "adding multiplies scales": (call("add.Tensor", floats(4, 6), floats(6)), _any_scale),
    "linear contracts nothing": (call("linear", floats(4, 6), floats(8, 6)), _linear_that_sums_nothing),
    "conv groups are inner": (call("conv1d", floats(2, 6, 5), floats(4, 3, 1), groups=2), _product_of_wrong_order),
    "repeat is interleaved": (call("repeat", floats(4, 6), [2, 3]), _inner_repeat),
    "prelu is aligned from the right": (call("prelu", floats(2, 5, 5), floats(5).abs()), _aligned),
    "a cast to integers is homogeneous": (
        call("to.dtype", floats(4, 6) * 9, torch.int64),
        lambda s: _aligned(s) or s.any_scale(),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_rule_is_caught(name: str) -> None:
    sample, wrong = WRONG[name]
    assert caught(sample, {**default_rules(), sample.op: wrong})
    assert not caught(sample)


def test_a_trial_that_breaks_down_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says nothing of the rule, whatever is raised."""

    def broken(facts: Facts, wanted: Any) -> None:
        raise ValueError("a defect of the trial")

    monkeypatch.setattr(rule_property, "settle", broken)
    with pytest.raises(ValueError, match="a defect of the trial"):
        caught(call("cumsum", floats(4, 6), 1), default_rules())


def _nothing(*args: Any, **kwargs: Any) -> None:
    """A statement that is not made."""


NEEDS_UNIFORM = [
    call("layer_norm", floats(4, 6), [6], floats(6), floats(6), 1e-2),
    call("rms_norm", floats(4, 6), [6], floats(6), 1e-2),
    call("group_norm", floats(2, 12, 6), 2, floats(12), floats(12), 1e-2),
    call("batch_norm", floats(6, 3, 4), None, None, None, None, True, 0.1, 1e-2, False),
    call("instance_norm", floats(2, 3, 6), None, None, None, None, True, 0.1, 1e-2, False),
    call("_weight_norm", floats(4, 6), floats(4, 1).abs()),
    call("mean.dim", floats(4, 6), [1]),
    call("sum.dim_IntList", floats(4, 6), [1]),
    call("linalg_vector_norm", floats(4, 6), 2, [1]),
    call("var.dim", floats(4, 6), [1]),
    call("softmax.int", floats(4, 6), 1),
    call("cdist", floats(4, 6), floats(5, 6)),
    call("mse_loss", floats(4, 6), floats(4, 6)),
    call("matmul", floats(4, 6), floats(6, 8)),
    call("scaled_dot_product_attention", floats(2, 4, 6), floats(2, 6, 6), floats(2, 6, 3), scale=0.3),
]


@pytest.mark.parametrize("sample", NEEDS_UNIFORM, ids=lambda sample: sample.op)
def test_averages_need_even_copies(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were parts of an axis free to be repeated unequally, the average would change."""
    assert not caught(sample)
    monkeypatch.setattr("graphclone.algebra.axes.Axes.uniform", _nothing)
    assert caught(sample)


NEEDS_FOLLOW = [
    call("reshape", floats(4, 6), [24]),
    call("unflatten.int", floats(2, 12), 1, [3, 4]),
    call("expand", floats(4, 1), [4, 6]),
    call("repeat", floats(4, 6), [2, 3]),
    call("repeat_interleave.self_int", floats(4, 6), 3, 1),
    call("split_with_sizes", floats(3, 12), [2, 7, 3], 1),
    call("tensor_split.indices", floats(3, 12), [2, 9], 1),
    call("slice.Tensor", floats(3, 12), 1, 4, 9),
    call("slice.Tensor", floats(3, 12), 1, -9, -4),
    call("slice.Tensor", floats(3, 12), 1, 0, 20),
    call("narrow", floats(3, 12), 1, -9, 4),
    call("pad", floats(3, 6), [2, 3]),
    call("layer_norm", floats(4, 6), [6]),
    call("group_norm", floats(2, 12, 5), 4),
    call("conv1d", floats(2, 6, 5), floats(6, 1, 3), groups=6),
    call("channel_shuffle", floats(2, 6, 4), 3),
    call("new_zeros", floats(3), [4, 6]),
]


@pytest.mark.parametrize("sample", NEEDS_FOLLOW, ids=lambda sample: sample.op)
def test_sizes_in_nodes_must_be_rewritten(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not caught(sample)
    monkeypatch.setattr(Site, "follow", lambda self, path, *axes, sign=1: self.read.add(path[0]))
    assert caught(sample)


PINS_MORE_THAN_IT_MUST = ("aten.fft_fftn.default", "aten.sym_size.int")
"""Ops that could let an axis grow if they asked how it does, or what its size is read for."""

NEEDS_PINS = [s for s, _, expected in PINNED if "1" in expected and s.op not in PINS_MORE_THAN_IT_MUST]


@pytest.mark.parametrize("sample", NEEDS_PINS, ids=lambda sample: sample.op)
def test_pins_are_needed(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its pins a rule is wrong: none of them holds back what could have grown."""
    assert not caught(sample)
    monkeypatch.setattr(Site, "pin", _nothing)
    assert caught(sample)


# What nobody understands


SCALARS = [
    call("sum.dim_IntList", floats(), [0]),
    call("amax", floats(), [0]),
    call("max.dim", floats(), 0),
    call("softmax.int", floats(), 0),
    call("cumsum", floats(), 0),
    call("sort", floats(), 0),
    call("var.dim", floats(), [0]),
    call("index_select", floats(), 0, torch.tensor([0])),
    call("index_add", floats(), 0, torch.tensor([0]), floats()),
    call("index_reduce", floats(), 0, torch.tensor([0]), floats(), "amax"),
    call("gather", floats(), 0, torch.tensor(0)),
    call("flip", floats(), [0]),
    call("unfold", floats(), 0, 1, 1),
    call("squeeze.dim", floats(), 0),
    call("transpose.int", floats(), 0, 0),
    call("repeat_interleave.self_int", floats(), 3),
]


@pytest.mark.parametrize("sample", SCALARS, ids=lambda sample: sample.op)
def test_tensors_without_axes(sample: Sample) -> None:
    """torch lets a scalar have one axis here, of which there is nothing to say."""
    check(sample, Trial(scaled=True))


def everything_pinned(facts: Facts) -> bool:
    return all(pinned(facts, axis) for axes in facts.of.values() for axis in axes)


UNKNOWN = [
    call("view.dtype", floats(4, 6), torch.int64),
    call("mode", floats(4, 6), 1),
    call("trace", floats(4, 6)),
    call("einsum", "ii->i", [floats(4, 4)]),
    call("einsum", "ij,jk,kl,lm->im", [floats(2, 4), floats(4, 6), floats(6, 3), floats(3, 5)]),
    call("einsum", "bi,bi->b", [floats(4, 1), floats(4, 6)]),
    call("dropout", floats(4, 6), 0.5, True),
    call("batch_norm", floats(4, 6), None, None, floats(6), floats(6).abs(), True, 0.1, 1e-5, False),
    call("linalg_vector_norm", floats(4, 6), 0, [1]),
    call("meshgrid.indexing", [floats(4), floats(6)], indexing="xy"),
    call("scaled_dot_product_attention", floats(4, 6), floats(7, 6), floats(7, 3), None, 0.5, scale=0.3),
    call("index.Tensor", floats(4, 6), [torch.tensor(True), torch.tensor([1, 2])]),
    call("index_put", floats(4, 6), [torch.tensor(True)], floats()),
    call("squeeze_", floats(1, 4, 6)),
    call("transpose_", floats(4, 4), 0, 1),
]


@pytest.mark.parametrize("sample", UNKNOWN, ids=str)
def test_what_is_not_understood_is_refused(sample: Sample) -> None:
    facts = infer(sample)
    assert everything_pinned(facts)
    (refusal,) = facts.refusals
    assert refusal.node.name == refusal.why.node == "op"
    assert sample.op in refusal.why.text
    assert refusal.node not in facts.balances


def test_unknown_op_is_named() -> None:
    facts = infer(call("mode", floats(4, 6), 1))
    assert str(facts.refusals[0].why) == "aten.mode.default: no rule says what it means (op)"


def with_operand(sample: Sample, name: str, operand: Any) -> Facts:
    """What is known about a sample whose node has one operand more."""
    graph, _, _ = graph_of(sample)
    graph.nodes[0].operands[name] = operand
    if isinstance(operand, Value):
        graph.inputs.append(operand)
    state = State(graph, Request(widen_io=("*",)))
    InferDims()(state)
    return state.facts


READS_EVERYTHING = (
    "elementwise vanishing jump step vanishing_jump rounding equality bounded_by homogeneous rectify identity detached "
    "cast_like dropout random_slope pool resample grid_sample image_to_columns columns_to_image positions "
    "dense_statistics embedding_bag"
).split()
"""Rules of ops whose options are all plain numbers, known to mean nothing for axes."""


def _rules_that_choose() -> Iterator[str]:
    for op, samples in rule_samples.samples().items():
        rule, _ = find(default_rules(), op)
        if rule is not None and rule.__name__ not in READS_EVERYTHING and not infer(samples[0]).refusals:
            yield op


@pytest.mark.parametrize(
    "operand",
    [3, "prod", True, [2, 3], Value("s0", None, "", role="input"), Value("t", (4,), "float64", role="input")],
    ids=str,
)
def test_an_operand_that_no_rule_reads_is_refused(operand: Any) -> None:
    ops = list(_rules_that_choose())
    assert len(ops) > 100
    by_op = rule_samples.samples()
    accepted = [op for op in ops if not with_operand(by_op[op][0], "mystery", operand).refusals]
    assert accepted == []


def test_the_unread_operand_is_named() -> None:
    facts = with_operand(call("mean.dim", floats(4, 6), [1]), "mystery", 3)
    assert facts.refusals[0].why.text == "aten.mean.dim: its mystery is not understood"
    assert everything_pinned(facts)


def test_a_number_read_from_a_tensor_pins_it() -> None:
    x = Value("x", (4, 6), "float64", role="input")
    number = Value("n", None, "")
    node = Node("op", "py.somewhere.count", {"arg0": x}, [number])
    graph = Graph("g", [x], [], [node], [Output("n", number)], TorchDialect())
    state = State(graph, Request(widen_io=("*",)))
    InferDims()(state)
    assert everything_pinned(state.facts)
