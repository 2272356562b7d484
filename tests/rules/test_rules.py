"""Every rule against the op it speaks of: replicate the operands, run the op, compare the results."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product
from typing import Any

import pytest
import torch

from graphclone.rules import default_rules, find
from tests.support import rule_opinfo, rule_samples
from tests.support.rule_property import (
    PLAIN_TRIALS,
    RESPELLED,
    Sample,
    Trial,
    check,
    contracted_values,
    infer,
    target_of,
)

OPS = [op for op in dict.fromkeys([*default_rules(), *RESPELLED]) if op.startswith(("aten.", "transformers."))]

PINNED_BY_NATURE = {
    "no tensor goes in, and places mean something": """
        arange.default arange.start arange.start_step eye.default eye.m linspace.default randperm.default
        scalar_tensor.default tril_indices.default triu_indices.default
    """,
    "copies would not be drawn alike": """
        rand.default rand.generator randn.default randn.generator randint.default randint.low rand_like.default
        randn_like.default
    """,
    "depends on the data": "histc.default bincount.default nonzero.default where.default",
    "a place for every element": "affine_grid_generator.default fill_diagonal_.default",
    "reduces over all axes": "prod.default",
}
"""Ops of which no axis can grow, by reason."""

_PINNED = {f"aten.{name}" for names in PINNED_BY_NATURE.values() for name in names.split()}

_PARAMETER_TRIALS = (
    Trial(factors=(2, 3)),
    Trial(kind="interleave", strategy="noisy-diagonal", before=True, scaled=True),
    Trial(strategy="diagonal", after=True, seed=1),
)

CONTRACTIONS = [
    *(f"aten.{name}.default" for name in "linear matmul einsum tensordot bilinear conv1d conv2d conv3d".split()),
    *(f"aten.{name}.default" for name in "addmm baddbmm addbmm addmv".split()),
    *("aten.conv1d.padding", "aten.conv2d.padding", "aten.conv3d.padding"),
    *("aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input"),
    *(f"aten.{name}.input" for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")),
    *(f"aten.{name}_cell.default" for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")),
    "aten.scaled_dot_product_attention.default",
    "transformers.grouped_mm_fallback.default",
]


def _samples(op: str) -> list[Sample]:
    return [*rule_samples.samples().get(op, []), *(rule_opinfo.samples(op) if op.startswith("aten.") else [])]


@pytest.mark.parametrize("op", OPS)
def test_rule(op: str) -> None:
    """What the rule states is what the op does, however axes are made up, grow and are scaled."""
    samples = _samples(op)
    assert samples, "no sample covers this rule: add one to tests/support/rule_samples.py"
    grown = [check(sample, trial) for sample in samples for trial in PLAIN_TRIALS]
    assert any(trial.grows for trial in grown) is (op not in _PINNED)


_PADDED_TRIALS = (Trial(padded=True), Trial(padded=True, before=True, scaled=True, seed=1))


@pytest.mark.parametrize("op", OPS)
def test_rule_at_any_size(op: str) -> None:
    """As ``test_rule``, but with unequal copies, and with pads that hold what the rule says they may."""
    for sample in _samples(op):
        for trial in _PADDED_TRIALS:
            check(sample, trial)


def _target_in_place(op: str) -> Any:
    """The op that writes the result of an op into its first operand; None where there is none."""
    namespace, name, overload = op.split(".")
    packet = getattr(getattr(torch.ops, namespace), f"{name}_", None)
    return getattr(packet, overload) if packet is not None and overload in packet.overloads() else None


def _in_place(sample: Sample) -> Sample | None:
    """The same call of the op that writes its result into its first operand, where there is one and it fits."""
    target = _target_in_place(sample.op)
    first = next(iter(sample.operands.values()), None)
    if target is None or not isinstance(first, torch.Tensor):
        return None
    _, *rest = sample.operands.items()
    found = Sample(target, {target._schema.arguments[0].name: first, **dict(rest)})
    result = sample.target(**sample.operands)
    fits = isinstance(result, torch.Tensor) and (result.shape, result.dtype) == (first.shape, first.dtype)
    return found if fits else None


_MUST_WORK_IN_PLACE = """
    add.Tensor mul.Tensor div.Tensor sub.Tensor relu.default silu.default hardswish.default hardtanh.default
    leaky_relu.default dropout.default masked_fill.Scalar copy.default fill.Tensor fill.Scalar zero.default
    index_put.default scatter.value scatter.src scatter_add.default index_add.default detach.default clamp.default
    addmm.default baddbmm.default addbmm.default addmv.default addr.default
"""


MUST_WORK_IN_PLACE = {f"aten.{name}" for name in _MUST_WORK_IN_PLACE.split()}

IN_PLACE = sorted(MUST_WORK_IN_PLACE | {op for op in rule_samples.samples() if _target_in_place(op) is not None})


@pytest.mark.parametrize("op", IN_PLACE)
def test_rule_in_place(op: str) -> None:
    """``add_`` is read by the rule of ``add``, and what it wrote into must look like the result."""
    samples = rule_samples.samples().get(op, []) + (rule_opinfo.samples(op) if op in MUST_WORK_IN_PLACE else [])
    written = [call for sample in samples if (call := _in_place(sample)) is not None]
    assert written or op not in MUST_WORK_IN_PLACE
    for call, trial in product(written, PLAIN_TRIALS):
        check(call, trial)


@pytest.mark.parametrize("op", CONTRACTIONS)
def test_contracted_operands_may_be_parameters(op: str) -> None:
    """A weight takes the multiplicity of what it contracts, by any strategy; two weights do not take it twice."""
    absorbed = False
    for sample in rule_samples.samples()[op]:
        positions = contracted_values(sample)
        pairs = combinations(positions, 2) if len(positions) < 4 else [positions]
        for parameters in (*((position,) for position in positions), *pairs):
            for options in _PARAMETER_TRIALS:
                grown = check(sample, replace(options, parameters=parameters))
                layouts = [grown.state.layout(axis) for c in grown.facts.contractions for axis in c.axes]
                absorbed |= bool(grown.facts.folded) and any(layout.grows for layout in layouts)
    assert absorbed


def test_every_contraction_is_tried_with_parameters() -> None:
    calls = rule_samples.samples().items()
    contracting = [op for op, (sample, *_) in calls if any(c.axes for c in infer(sample).contractions)]
    assert set(contracting) <= set(CONTRACTIONS)


# Coverage


@pytest.mark.parametrize("op", OPS)
def test_every_rule_names_an_op(op: str) -> None:
    target_of(op)


FREQUENT = """
    aten.linear.default aten.add.Tensor aten.transpose.int aten.mul.Tensor aten.view.default aten.reshape.default
    aten.unsqueeze.default aten._assert_tensor_metadata.default aten.expand.default aten.arange.default
    aten.slice.Tensor aten.scaled_dot_product_attention.default aten.cat.default aten.to.dtype
    aten.embedding.default aten.dropout.default aten.mean.dim aten.layer_norm.default aten.to.dtype_layout
    aten.sub.Tensor aten.index.Tensor aten.alias.default aten.to.device aten.le.Tensor aten.__and__.Tensor
    aten.gelu.default aten.ne.Scalar aten.new_ones.default aten.sin.default aten.cos.default aten.cumsum.default
    aten.pow.Tensor_Scalar aten.neg.default aten.conv2d.default py._operator.getitem aten.flatten.using_ints
    aten.silu.default aten.eq.Tensor aten.diff.default aten.rsqrt.default aten.contiguous.default
    aten.permute.default aten.matmul.default aten.softmax.int aten.div.Tensor aten.select.int aten.ge.Scalar
    aten.chunk.default aten.relu.default aten.batch_norm.default aten.zeros.default aten.sum.dim_IntList
    aten.sigmoid.default aten.pad.default aten.adaptive_avg_pool2d.default aten.type_as.default aten.add_.Tensor
    aten.conv1d.default aten.index_put_.default aten.topk.default aten.squeeze.dim aten.split_with_sizes.default
    aten.floor_divide.default aten.gather.default aten.sort.default aten.masked_fill.Scalar aten.where.ScalarOther
    aten.empty_like.default aten.histc.default transformers.grouped_mm_fallback.default aten.ones.default
    aten.stack.default aten.exp.default aten.relu_.default aten.unbind.int aten.tanh.default
    aten.zeros_like.default aten.gt.Tensor aten.copy_.default aten.max_pool2d.default aten.bitwise_not.default
    aten.repeat_interleave.self_int aten.div_.Tensor aten.clamp.default aten.einsum.default aten.eq.Scalar
    aten.clone.default aten.softplus.default aten.arange.start aten.avg_pool2d.default
    aten.lift_fresh_copy.default aten.repeat.default aten.group_norm.default aten.where.self aten.scatter_.value
    aten.abs.default aten.lt.Scalar aten.linalg_vector_norm.default aten.bmm.default aten.expand_as.default
    aten.square.default aten.log.default aten.new_empty.default
"""
"""The ops that twenty or more of 626 exported models have."""

EXCUSED = {
    "aten._assert_tensor_metadata.default": "canonicalize drops it",
    "py._operator.getitem": "takes one of several results, which the front end does",
}


@pytest.mark.parametrize("op", FREQUENT.split())
def test_frequent_op_has_a_rule(op: str) -> None:
    known = find(default_rules(), op)[0] is not None
    assert known is (op not in EXCUSED)
