"""Source and clone side by side: what is wrong is found, and named where it begins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from graphclone.clones.clone import Clone
from graphclone.graph.ir import Node
from graphclone.pipeline.state import State
from graphclone.runtime.interpreter import ExecutionError, MemoryShortageError
from graphclone.runtime.tensors import lazily_widened, widened_tensors
from graphclone.verification.distance import relative_error
from graphclone.verification.lockstep import Lockstep, run_lockstep
from tests.support.clones import doubled, features, node_of, perceptron, small, spoilable, spoiled_tensors, zoo_clone
from tests.support.onnx_graphs import parse, widened

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("expected", "actual", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 4.0], [1.0, 4.4], 0.1),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([INF, NAN, -INF, 1.0], [INF, NAN, -INF, 1.0], 0.0),
        ([INF, 1.0], [-INF, 1.0], INF),
        ([NAN, 1.0], [0.0, 1.0], INF),
        ([0.0, 1.0], [NAN, 1.0], INF),
        ([0.0, 1.0], [INF, 1.0], INF),
        ([-3e38, 1.0], [-3e38, 1.1], 0.1),  # beside a mask everything else would look like rounding
        ([-3e38, 1.0], [-1.5e38, 1.0], 0.5),
        ([3, 4], [3, 4], 0.0),
        ([3, 4], [3, 5], INF),
        ([True, False], [True, True], INF),
        ([], [], 0.0),
    ],
)
def test_relative_error(expected: list[float], actual: list[float], error: float) -> None:
    dtype = torch.float64 if any(isinstance(x, float) for x in expected) else None
    found = relative_error(torch.tensor(expected, dtype=dtype), torch.tensor(actual, dtype=dtype))
    assert found == pytest.approx(error, rel=1e-6)


class Filling(nn.Module):
    """(batch, 6) -> (batch, 5), plain and filled: some elements, as a mask does it, or all."""

    def __init__(self, number: float, *, throughout: bool) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 5)
        self.register_buffer("filled", torch.arange(5) > (-1 if throughout else 2))
        self.number = number

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.down(torch.tanh(self.up(x)))
        return y, y.masked_fill(self.filled, self.number)


@pytest.mark.parametrize("number", [NAN, INF, -INF])
def test_an_output_without_a_number_is_said_to_be_unmeasured(number: float) -> None:
    """NaN equals nothing, and an infinity that both have says nothing."""
    partly = run_lockstep(spoilable(Filling(number, throughout=False)).state, [features(3, 6)])
    assert (partly.first, partly.unmeasured) == (None, ())
    nowhere = run_lockstep(spoilable(Filling(number, throughout=True)).state, [features(3, 6)])
    assert nowhere.first is None
    assert len(nowhere.unmeasured) == 1
    assert nowhere.values == partly.values - 1


def test_a_clone_is_equal_at_every_value() -> None:
    result = run_lockstep(perceptron().state, [features(3, 6)])
    assert result.first is None
    assert result.values == 4
    assert 0 < result.output <= result.worst < 1e-14


@pytest.mark.parametrize(
    ("weight", "reader"),
    [("0.weight", "linear"), ("1.bias", "layer_norm"), ("3.bias", "linear_1")],
)
def test_a_spoiled_weight_is_found_at_the_node_that_reads_it(weight: str, reader: str) -> None:
    made = perceptron()
    result = run_lockstep(made.state, [features(3, 6)], tensors=doubled(spoiled_tensors(made, weight)))
    assert result.first is not None
    assert result.first.value == reader
    assert result.first.scope == weight.partition(".")[0]
    assert f"rule of {result.first.op} in {result.first.scope}" in str(result.first)


@pytest.mark.parametrize(
    ("bias", "change", "found"),
    [("0.bias", 1e-9, "linear"), ("3.bias", 1e-9, "linear_1"), ("3.bias", 1e-11, "output"), ("3.bias", 1e-13, None)],
)
def test_values_hold_to_ten_digits_and_outputs_to_twelve(bias: str, change: float, found: str | None) -> None:
    made = perceptron()
    tensors = doubled(widened_tensors(made.state))
    (spoiled,) = [tensors[i.value] for i in made.graph.initializers if bias in i.names]
    spoiled[0] += change
    result = run_lockstep(made.state, [features(3, 6)], tensors=tensors)
    assert 0.2 * change < result.worst < 5 * change
    assert (result.first.value if result.first else None) == found


class Centred(nn.Module):
    """Norms by hand of what is normed already: means are 0 but for rounding, as a difference may be."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = nn.functional.layer_norm(torch.tanh(self.first(x)), (8,))
        mean = y.mean(-1, keepdim=True)
        z = (y - mean) * torch.rsqrt((y - mean).square().mean(-1, keepdim=True) + 1e-6)
        return self.last(z), y.sum(-1), y.var(-1, correction=0) - 1


def test_what_is_0_but_for_rounding_may_be_another_rounding() -> None:
    made = gc.clone(Centred().eval(), (features(3, 6),))
    assert run_lockstep(made.state, [features(3, 6)]).first is None
    for name in ("first.weight", "last.bias"):
        wrong = run_lockstep(made.state, [features(3, 6)], tensors=doubled(spoiled_tensors(made, name)))
        assert wrong.first is not None


def test_a_spoiled_literal_is_found_at_its_node() -> None:
    made = spoilable(small())
    node = node_of(made, "aten.layer_norm.default")
    node.operands["eps"] = 1e-3
    result = run_lockstep(made.state, [features(3, 6)])
    assert result.first is not None
    assert (result.first.value, result.first.op) == ("layer_norm", "aten.layer_norm.default")


def test_a_node_of_the_clone_that_cannot_run_is_a_deviation() -> None:
    made = spoilable(small())
    node_of(made, "aten.layer_norm.default").operands["normalized_shape"] = [10]
    result = run_lockstep(made.state, [features(3, 6)])
    assert result.first is not None
    assert result.first.value == "layer_norm"
    assert result.worst == math.inf
    assert result.output == math.inf
    assert "RuntimeError" in result.first.detail


class Tied(nn.Module):
    """(batch,) ids -> (batch, 30): a table looked up and contracted, with nothing between to absorb the factor."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(features(30, 8))

    def forward(self, ids: Tensor) -> Tensor:
        return torch.tanh(self.table[ids]) @ self.table.T


def _rescaled() -> Clone:
    made = spoilable(Tied(), torch.arange(4))
    assert any("rescaled" in node.name for node in made.graph.nodes)
    return made


def test_a_node_that_the_clone_alone_has_is_passed_over_but_not_believed() -> None:
    made = _rescaled()
    assert run_lockstep(made.state, [torch.arange(4)]).first is None
    node = next(node for node in made.graph.nodes if "rescaled" in node.name)
    node.operands["other"] = 0.75
    found = run_lockstep(made.state, [torch.arange(4)]).first
    assert found is not None
    assert found.op == "aten.matmul.default"


class Summed(nn.Module):
    """(batch, 6) -> (batch,): a sum that counts the copies, as the last thing that is done."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.up(x)).sum(-1)


def test_a_node_that_the_clone_alone_has_at_its_end_gives_the_output() -> None:
    made = spoilable(Summed())
    assert "rescaled" in made.graph.nodes[-1].name
    assert run_lockstep(made.state, [features(3, 6)]).output < 1e-14
    made.graph.nodes[-1].operands["other"] = 0.75
    found = run_lockstep(made.state, [features(3, 6)])
    assert found.output == pytest.approx(0.5)
    assert found.first is not None
    assert found.first.value == "output"


class Folded(nn.Module):
    """(batch, 3, 4, 4) -> (batch, 2): patches folded into the batch before a convolution pins what they are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.mix = nn.Conv2d(3, 6, 1), nn.Linear(6, 6)
        self.windows, self.down = nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.up(x).reshape(x.shape[0] * 6 * 2, 2, 2, 2).transpose(1, 2).reshape(x.shape[0], 6, 4, 4)
        mixed = torch.tanh(self.mix(patches.transpose(1, 3).reshape(x.shape[0] * 4, 4, 6)))
        y: Tensor = self.down(self.windows(mixed.reshape(x.shape[0], 4, 4, 6).transpose(1, 3)).mean((2, 3)))
        return y


@pytest.mark.parametrize("strategy", ["symmetric", "fresh"])
def test_another_batch_is_compared_where_something_is_folded_into_it(strategy: str) -> None:
    made = spoilable(Folded(), features(2, 3, 4, 4), widen=2, strategy=strategy)
    for batch in (2, 3, 5):
        assert run_lockstep(made.state, [features(batch, 3, 4, 4)]).first is None


def test_a_source_that_cannot_run_is_an_error_that_names_the_node() -> None:
    with pytest.raises(ExecutionError, match=r"linear \(aten.linear.default\) failed: RuntimeError"):
        run_lockstep(perceptron().state, [features(3, 7)])


def test_views_of_shared_out_weights_are_not_compared() -> None:
    """A transposed weight is not repeated but divided by the copies."""

    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(6, 10), nn.Parameter(features(5, 10))

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.up(x)) @ self.down.transpose(0, 1)

    made = spoilable(Transposed())
    result = run_lockstep(made.state, [features(3, 6)])
    assert result.first is None
    assert result.values == len(made.graph.nodes) - 1


def test_tensors_widened_one_by_one_are_those_widened_at_once() -> None:
    state = zoo_clone("mlp", 3).state
    lazy, at_once = lazily_widened(state), widened_tensors(state)
    assert len(lazy) == len(at_once)
    for value in lazy:
        assert lazy[value].dtype == (torch.float64 if value.is_float else torch.int64)
        torch.testing.assert_close(lazy[value].to(at_once[value].dtype), at_once[value], rtol=1e-6, atol=0)


PICKING = """
    picking (float[n, 6] x, int64[m] rows, bool all) => (float[k, 4] y) {
        h = MatMul(x, up)
        y = If (all) <
            then_branch = of_all () => (float[n, 4] a) {
                u = Tanh(h)
                a = MatMul(u, other)
            },
            else_branch = of_some () => (float[m, 4] b) {
                r = Gather<axis = 0>(h, rows)
                s = Relu(r)
                b = MatMul(s, down)
            }
        >
    }
"""
"""One branch takes rows by their numbers, which there need not be."""


def picking() -> State:
    return widened(parse(PICKING, {"up": (6, 8), "down": (8, 4), "other": (8, 4)}))


def picked(state: State, *rows: int, everything: bool) -> Lockstep:
    return run_lockstep(state, [torch.randn(3, 6), torch.tensor(rows), torch.tensor(everything)])


@pytest.mark.parametrize(("row", "everything", "values"), [(5, True, 4), (2, True, 7), (2, False, 7)])
def test_a_branch_that_is_not_taken_need_not_fit(row: int, *, everything: bool, values: int) -> None:
    """Where it does it is compared as well."""
    found = picked(picking(), 0, row, everything=everything)
    assert found.first is None
    assert found.worst < 1e-14
    assert found.values == values


def test_a_branch_that_is_taken_must_fit() -> None:
    with pytest.raises(ExecutionError, match=r"Gather_r \(onnx.Gather\) failed: IndexError"):
        picked(picking(), 0, 5, everything=False)


@pytest.mark.parametrize("everything", [True, False])
def test_a_branch_that_only_the_clone_cannot_compute_is_a_deviation(*, everything: bool) -> None:
    state = picking()
    (gather,) = (node for node in state.graph.nodes if node.op == "onnx.Gather")
    gather.operands["axis"] = 7
    found = picked(state, 0, 2, everything=everything)
    assert found.first is not None
    assert found.first.op == "onnx.Gather"


def test_memory_that_does_not_suffice_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    clone = perceptron()
    dialect = type(clone.graph.dialect)
    plain = dialect.run

    def run(self: Any, node: Node, operands: Mapping[str, Any], **options: Any) -> Any:
        results = plain(self, node, operands, **options)
        if any(isinstance(y, Tensor) and y.dtype == torch.float64 and y.shape[-1:] == (20,) for y in results):
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return results

    monkeypatch.setattr(dialect, "run", run)
    exact = next(check for check in clone.verify(onnx=False).checks if check.name == "exact")
    assert exact.ok is None and "can't allocate memory" in exact.summary


def test_an_error_stays_one_where_memory_does_not_suffice_for_another_look(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: object) -> None:
        raise MemoryShortageError(made.graph.nodes[0], MemoryError())

    made = perceptron()
    wrong = doubled(spoiled_tensors(made, "0.weight"))
    monkeypatch.setattr("graphclone.verification.lockstep.own_errors", short)
    result = run_lockstep(made.state, [features(3, 6)], tensors=wrong)
    assert result.first is not None and result.first.value == "linear"
