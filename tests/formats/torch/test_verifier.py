"""Verification: what is right passes, and whatever is wrong is caught and located."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from graphclone.api import clone
from graphclone.clones.clone import Clone
from graphclone.errors import GraphcloneError, NotEquivalentError
from graphclone.rules import norm, reduce
from graphclone.rules.site import Rule, Site
from graphclone.runtime.sessions import NoProviderError
from graphclone.verification.checks import Check, NoiseFloor, Report, noise_floor
from graphclone.verification.distance import Deviation
from tests.support.clones import (
    Unsupported,
    clone_by_rules,
    features,
    node_of,
    perceptron,
    seeded,
    small,
    spoilable,
    spoiled_tensors,
    zoo_clone,
)
from tests.support.marks import slow_but

IN_ONNX = ("opt-mini", "bert-classifier", "vit", "resnet-basic", "lstm", "encoder", "unet")
IN_TORCH = ("llama-gqa", "gemma2", "t5", "mobilenet")


def first(report: Report) -> Deviation:
    """The first wrong tensor of a report that has one."""
    assert not report.ok
    assert report.first is not None
    return report.first


def failed(report: Report) -> str:
    """The name of the check that failed."""
    (name,) = [check.name for check in report.checks if check.ok is False]
    return name


# What is right


@pytest.mark.parametrize("name", slow_but(("lstm", "opt-mini", "unet"), IN_ONNX))
def test_a_clone_is_equivalent_in_torch_and_in_onnx_runtime(name: str) -> None:
    report = zoo_clone(name).verify()
    assert report.ok, str(report)
    assert report.first is None
    assert [check.ok for check in report.checks] == [True] * 5
    assert report.provider in {"CPUExecutionProvider", "CUDAExecutionProvider"}
    batches = {text.split("x")[0] for text in report.inputs}
    assert len(batches) == 3
    assert not report.checks[4].figures["skipped"]


@pytest.mark.parametrize("name", slow_but(("llama-gqa", "mobilenet"), IN_TORCH))
def test_a_clone_is_equivalent_in_torch(name: str) -> None:
    report = zoo_clone(name, 3).verify(onnx=False)
    assert report.ok, str(report)
    assert [check.name for check in report.checks] == ["trace", "static", "exact", "noise floor"]
    assert report.checks[2].figures["output"] <= 1e-13
    assert not report.onnx_checked
    assert len(report.inputs) == 3


def test_sequences_of_other_lengths_are_tried() -> None:
    report = zoo_clone("encoder").verify(onnx=False, sets=5)
    assert report.ok, str(report)  # there heads and batch are one axis, so its map depends on the batch
    shapes = [tuple(map(int, text.split(" ")[0].split("x"))) for text in report.inputs]
    assert shapes[0] == (2, 7)
    assert len({batch for batch, _ in shapes}) >= 3
    assert len({length for _, length in shapes}) == 5


def test_grown_inputs_and_outputs_are_compared_through_the_maps() -> None:
    module = seeded(lambda: nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.LayerNorm(10)))
    made = spoilable(module, widen_io=["*"])
    assert made.graph.inputs[0].shape == (3, 12)
    report = made.verify()
    assert report.ok, str(report)
    assert report.onnx_checked
    assert failed(made.verify(tensors=spoiled_tensors(made, "0.bias"), onnx=False)) == "noise floor"


def test_verification_leaves_model_and_inputs_alone() -> None:
    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = x.view(-1, 6)
            x.mul_(2)
            y: Tensor = self.down(torch.tanh(self.up(x)))
            return y

    module, x = Writing(), features(3, 6)
    made = spoilable(module, x)
    before, was = {k: t.clone() for k, t in module.state_dict().items()}, x.clone()
    assert made.verify(onnx=False).ok
    assert torch.equal(x, was)
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())


def test_what_depends_on_data_is_not_held_against_the_clone() -> None:
    class Selecting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 5)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.down(torch.tanh(self.up(x)))
            return y[x.sum(-1) > 0]

    report = spoilable(Selecting(), features(9, 6)).verify(onnx=False)
    assert report.ok, str(report)


def test_an_assertion_about_a_count_that_depends_on_data_is_not_held_against_the_clone() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(4, 10), nn.Linear(10, 5)
            self.register_buffer("mask", torch.tensor([True, False, True, True]))

        def forward(self, x: Tensor) -> Tensor:
            places = self.mask.nonzero().squeeze(-1)  # type: ignore[operator]
            y: Tensor = self.down(torch.tanh(self.up(x.index_copy(-1, places, x[..., places].sin()))))
            return y

    report = spoilable(Masked(), features(9, 4)).verify(onnx=False)
    assert report.ok, str(report)


# What is wrong


@pytest.mark.parametrize(("weight", "reader"), [("0.weight", "linear"), ("1.weight", "layer_norm")])
def test_a_spoiled_weight_is_caught_and_located(weight: str, reader: str) -> None:
    made = perceptron()
    report = made.verify(tensors=spoiled_tensors(made, weight), onnx=False)
    assert failed(report) == "noise floor"
    assert first(report).value == reader
    with pytest.raises(NotEquivalentError, match=rf"^small: the clone is not equivalent: {reader} \(rule of aten"):
        report.raise_if_failed()


def test_a_spoiled_row_that_only_other_inputs_read_is_located() -> None:
    """The example's ids are few; a table's row that they do not look up is looked up by none of the sets."""
    made = spoilable(nn.Sequential(nn.Embedding(4, 10), nn.LayerNorm(10), nn.Linear(10, 5)), torch.arange(4))
    report = made.verify(tensors=spoiled_tensors(made, "0.weight"), onnx=False)
    assert (first(report).value, first(report).op) == ("embedding", "aten.embedding.default")


class Attention(nn.Module):
    """Two heads of 7: (batch, length, 6) -> (batch, length, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, 14) for _ in range(3))
        self.out = nn.Linear(14, 5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).view(*x.shape[:2], 2, 7).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        y: Tensor = self.out(mixed.transpose(1, 2).reshape(*x.shape[:2], 14))
        return y


def attending() -> Clone:
    return spoilable(seeded(Attention), features(3, 11, 6))


def test_a_spoiled_view_is_caught_before_anything_runs() -> None:
    made = attending()
    assert made.verify(onnx=False).ok
    node = node_of(made, "aten.reshape.default", 1)
    node.set_operand(("shape", 2), node.operand(("shape", 2)) // 2)
    report = made.verify()
    assert [check.name for check in report.checks] == ["trace", "static"]
    assert first(report).value == node.name
    assert first(report).op == "aten.reshape.default"
    assert first(report).scope == ""


def test_a_view_of_the_right_size_but_the_wrong_shape_is_caught() -> None:
    made = attending()
    node = node_of(made, "aten.reshape.default")
    shape = node.operands["shape"]
    node.operands["shape"] = [*shape[:2], shape[3], shape[2]]
    found = first(made.verify())
    assert found.value == node.name
    assert found.detail == "shape (3, 11, 7, 4), expected (3, 11, 4, 7)"


def test_a_spoiled_scale_is_caught_in_float64() -> None:
    made = attending()
    node = node_of(made, "aten.scaled_dot_product_attention.default")
    node.operands["scale"] *= 1.001
    report = made.verify()
    assert [check.ok for check in report.checks] == [True, True, False, False]
    assert first(report).value == node.name


def test_a_wrong_scale_of_a_parameter_is_caught_though_the_parameter_is_zero() -> None:
    """A bias that is all zeros hides its factor; the run with other weights shows it."""
    module = small()
    nn.init.zeros_(module.get_parameter("1.bias"))
    made = spoilable(module)
    recipes = made.state.recipes
    value = next(value for value, recipe in recipes.items() if recipe.name == "1.bias")
    recipes[value] = dataclasses.replace(recipes[value], scale=0.5)
    found = first(made.verify(onnx=False))
    assert (found.value, found.op) == ("layer_norm", "aten.layer_norm.default")


# Rules that are wrong


def uniform_forgotten(s: Site) -> None:
    s.uniform = lambda axis, text: None  # type: ignore[method-assign]
    norm.layer_norm(s)


def factor_forgotten(s: Site) -> None:
    axes, x = s.axes(s.out), s.tensor("self")
    s.integer("dim")
    s.equal_all(s.axes(x), axes)
    s.uniform(axes[-1], "softmax over")
    s.require({x: 1})
    s.scale(s.out, {})


def contraction_forgotten(s: Site) -> None:
    x, w, b = s.tensor("input"), s.tensor("weight"), s.tensor("bias")
    s.equal_all(s.axes(s.out), [*s.axes(x)[:-1], s.axes(w)[0]])
    s.equal(s.axes(x)[-1], s.axes(w)[1])
    s.broadcast(b)
    s.same_scale(s.out, x)


class Joined(nn.Module):
    """A norm over what grows beside what does not: (batch, 6) -> (batch, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(6, 10), nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.norm(torch.cat([self.up(x), x], -1)))
        return y


def _softmax() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 10), nn.Softmax(-1), nn.Linear(10, 5))


def _layers() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 14), nn.Tanh(), nn.Linear(14, 5))


@pytest.mark.parametrize(
    ("make", "op", "rule", "right", "value"),
    [
        (Joined, "aten.layer_norm.default", uniform_forgotten, norm.layer_norm, "layer_norm"),
        (_softmax, "aten.softmax.int", factor_forgotten, reduce.softmax, "softmax"),
        (_layers, "aten.linear.default", contraction_forgotten, None, "linear_1"),
    ],
)
def test_a_wrong_rule_is_caught_and_named(
    make: Callable[[], nn.Module], op: str, rule: Rule, right: Rule | None, value: str
) -> None:
    module = seeded(make)
    made = clone_by_rules(module, [features(3, 6)], {op: rule})
    found = first(made.verify())
    assert (found.value, found.op) == (value, op)
    assert f"rule of {op}" in str(found)
    if right is not None and make is not Joined:  # where the right rule lets something grow at all
        assert clone_by_rules(module, [features(3, 6)], {op: right}).verify(onnx=False).ok


# The noise floor


def test_low_precision_is_judged_by_its_own_noise() -> None:
    made = spoilable(small().to(torch.bfloat16), features(3, 6).to(torch.bfloat16))
    report = made.verify()
    noise = report.check("noise floor")
    assert report.ok
    assert noise is not None
    assert noise.worst is not None
    assert noise.worst.source > 1e-4  # where a tolerance fit for float32 would cry wolf
    assert not report.onnx_checked
    assert "not checked" in str(report)


def test_an_error_beyond_the_noise_is_caught_though_it_is_small() -> None:
    """1e-4 of one weight is nothing to a tolerance of 1e-3, and a hundred times the noise."""
    made = perceptron()
    tensors = spoiled_tensors(made, "3.weight", change=1e-4)
    report = made.verify(tensors=tensors, onnx=False)
    assert first(report).value == "linear_1"
    assert first(report).error < 1e-3


def test_a_model_in_float64_is_held_to_a_tolerance() -> None:
    """Its own error is nothing, for there is nothing more exact to compare it with."""
    made = spoilable(seeded(_layers).double(), features(3, 6).double())
    assert made.verify(onnx=False).ok
    assert failed(made.verify(tensors=spoiled_tensors(made, "2.weight", 1e-10), onnx=False)) == "noise floor"


def test_noise_floor() -> None:
    exact, own = torch.tensor([1.0, -2.0]).double(), torch.tensor([1.0, -2.5])
    floor = noise_floor("y", (exact, own), (exact, torch.tensor([1.0, -4.0])))
    assert (floor.source, floor.clone) == (0.5, 2.0)
    assert floor.ok
    assert floor.ratio == 4
    assert not dataclasses.replace(floor, clone=2.1).ok
    ulp = dataclasses.replace(floor, source=0.0, clone=8 * floor.ulp)
    assert ulp.ok
    assert not dataclasses.replace(ulp, clone=8.1 * floor.ulp).ok
    assert noise_floor("y", (exact, own), (exact, torch.tensor([1.0]))).clone == math.inf
    nan = torch.tensor([math.nan, 1.0])
    assert noise_floor("y", (nan.double(), nan), (nan.double(), nan)).clone == 0
    assert noise_floor("y", (exact, own), (exact, nan)).clone == math.inf
    assert noise_floor("y", (nan.double(), nan), (nan.double(), torch.zeros(2))).ok is False
    ints = torch.tensor([1, 2, 3, 4])
    assert noise_floor("y", (ints, ints), (ints, torch.tensor([1, 2, 3, 5]))).clone == 0.25
    assert not noise_floor("y", (ints, ints), (ints, torch.tensor([1, 2, 3, 5]))).ok
    assert (floor | ulp) == floor | floor


# ONNX Runtime that cannot, and exports that are wrong


def test_what_cannot_be_exported_is_judged_by_torch_and_says_so() -> None:
    report = spoilable(Unsupported()).verify()
    assert report.ok
    assert not report.onnx_checked
    assert report.provider == ""
    check = report.check("ONNX Runtime")
    assert check is not None
    assert "bessel" in check.summary


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_that_is_not_there_is_said_at_once() -> None:
    with pytest.raises(NoProviderError, match="no CUDA"):
        perceptron().verify(provider="cuda")
    assert perceptron().verify(provider="cuda", onnx=False).ok


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_cuda_runs_where_it_is() -> None:
    report = zoo_clone("opt-mini").verify(provider="cuda")
    assert report.ok
    assert report.provider == "CUDAExecutionProvider"


def test_a_model_without_weights_is_refused() -> None:
    with FakeTensorMode():
        made = clone(nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 5)), (torch.empty(3, 6),))
    with pytest.raises(GraphcloneError, match="traced without weights"):
        made.verify()


# Reports


def test_a_report_is_json_and_text() -> None:
    floor = NoiseFloor("y", 0.5, math.inf, 1e-7)
    deviation = Deviation("y", "aten.linear.default", "head", math.inf, "shape (2,), expected (4,)")
    checks = (
        Check("static", False, "why", {"values": 3}, (floor,), deviation),
        Check("ONNX Runtime", None, "not checked: no such op", {}),
    )
    report = Report("net", checks, ("2x3 (example)",))
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found["ok"] is False
    assert found["first"]["value"] == "y"
    assert found["checks"][0]["outputs"][0]["clone"] == "inf"
    assert str(report).splitlines() == [
        "net: NOT EQUIVALENT",
        "  first wrong: y (rule of aten.linear.default in head): shape (2,), expected (4,)",
        "  static        WRONG  why",
        "  ONNX Runtime  --     not checked: no such op",
        "  on 2x3 (example)",
    ]


def test_nothing_checked_is_not_equivalent() -> None:
    report = Report("net", (Check("ONNX Runtime", None, "not checked"),))
    assert not report.ok
    with pytest.raises(NotEquivalentError, match="no check could be made"):
        report.raise_if_failed()


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    perceptron().verify(onnx=False, progress=lambda *step: told.append(step))
    assert told == [
        ("trace", 0, 4),
        ("static", 1, 4),
        ("float64", 2, 4),
        ("noise floor", 3, 4),
        ("done", 4, 4),
    ]


def test_shapes_alone_are_no_verdict() -> None:
    checks = (Check("trace", True, "ok"), Check("static", True, "ok"), Check("exact", None, "not checked: not finite"))
    report = Report("net", checks)
    assert (report.ok, report.verdict) == (False, "cannot be judged")


def test_a_model_that_gives_nothing_finite_cannot_be_judged() -> None:
    class Nothing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 5)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = torch.log(-(self.down(torch.tanh(self.up(x))).abs()) - 1)
            return y

    report = spoilable(seeded(Nothing)).verify(onnx=False)
    assert report.verdict == "cannot be judged", str(report)
