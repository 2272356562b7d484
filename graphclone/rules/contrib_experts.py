"""ONNX Runtime's mixtures of experts. Each expert has two or three layers, and each token chooses some experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from graphclone.algebra.axes import Axis
from graphclone.analysis.facts import Contraction
from graphclone.graph.ir import Value
from graphclone.rules.site import Cannot, Rule, Site

_CHOSEN = "experts are chosen by number"

_ROUTING = ("k", "normalize_routing_weights", "use_sparse_mixer")
_ACTIVATION = ("activation_type", "activation_alpha", "activation_beta", "swiglu_limit")
"""What says how experts are chosen and mixed, and which function acts on each element."""

Layer = Callable[[Site, str, Axis, Axis], tuple[Value, Contraction]]
"""Equates the axes of one layer of all experts, by its name, with its outputs and its inputs; returns what takes the
scale of its weights, and its contraction."""


def mixture(layer: Layer) -> Rule:
    """``... h, t e -> ... h``, t all tokens, with weights ``fc1 e (f i) h, fc2 e h i, fc3? e i h`` and biases.

    Both widths grow. The number of experts stays, as a choice among copies is another choice.
    """

    def rule(s: Site) -> None:
        x, router = s.tensor("input"), s.tensor("router_probs")
        s.ignores(*_ROUTING, *_ACTIVATION)
        hidden, tokens = s.axes(x)[-1], s.axes(x)[:-1]
        s.equal_all(s.axes(x), s.axes(s.out))
        _routed(s, router, tokens)
        if s.has("router_weights"):
            _routed(s, s.tensor("router_weights"), tokens)
        inner = s.system.dim(_inner_size(s))
        s.label(inner, "experts")
        gate = ["fc3"] if s.has("fc3_experts_weights") else []
        for name, rows in (("fc1", _fused(s, inner)), *((name, inner) for name in gate)):
            factor, contraction = layer(s, name, rows, hidden)
            s.require({x: 1, factor: 1}, contraction=contraction)
            if (bias := _bias(s, name, rows)) is not None:
                s.require({bias: 1})
        factor, contraction = layer(s, "fc2", hidden, inner)
        s.scale(s.out, {factor: 1}, contraction=contraction)
        if (bias := _bias(s, "fc2", hidden)) is not None:
            s.require({s.out: 1, bias: -1})

    return rule


def _routed(s: Site, router: Value, tokens: Sequence[Axis]) -> None:
    s.equal(s.axes(router)[0], s.system.product(tokens))
    s.pin(s.axes(router)[1], _CHOSEN)
    s.require({router: 1})


def _inner_size(s: Site) -> int:
    """How wide an expert is between its layers."""
    rows = s.axes(s.tensor("fc1_experts_weights"))[1].size
    return rows // (2 if s.flag("swiglu_fusion") else 1)


def _fused(s: Site, inner: Axis) -> Axis:
    """The outputs of the first layer, in which those of a gate lie between the others or after them."""
    order = s.integer("swiglu_fusion", 0)
    if not order:
        return inner
    return s.system.product([inner, s.system.dim(2, s.why("a gate"))]) if order == 1 else s.system.concat([inner] * 2)


def _bias(s: Site, name: str, rows: Axis) -> Value | None:
    bias = s.maybe_tensor(f"{name}_experts_bias")
    if bias is not None:
        _of_experts(s, bias, [rows])
    return bias


def floating(s: Site, name: str, rows: Axis, columns: Axis) -> tuple[Value, Contraction]:
    """``e o i``"""
    weight = s.tensor(f"{name}_experts_weights")
    _of_experts(s, weight, [rows, columns])
    return weight, s.contracted((weight, [2]))


def quantized(s: Site, name: str, rows: Axis, columns: Axis) -> tuple[Value, Contraction]:
    """``e o i`` of few bits each, several in a byte along i, with scales ``e o``, or ``e o b`` for blocks of i.

    Whole bytes or whole blocks are repeated, and the scales take what this multiplies.
    """
    weight, scales, zeros = (s.maybe_tensor(f"{name}_{what}") for what in ("experts_weights", "scales", "zero_points"))
    if weight is None or scales is None:
        raise Cannot("weights without scales")
    bits = s.integer(f"{name}_expert_weight_bits", s.integer("expert_weight_bits", 4))
    if bits not in (1, 2, 4, 8):
        raise Cannot(f"weights of {bits} bits")
    size = s.integer("block_size", 0)
    if size:
        blocks = s.system.dim(columns.size // size)
        s.equal(columns, s.system.product([blocks, s.system.dim(size, s.why("a block"))]))
        storage = s.system.product([blocks, s.system.dim(size * bits // 8, s.why("a block"))])
        scale_axes = [rows, blocks]
    else:
        storage, scale_axes = _in_bytes(s, columns, bits), [rows]
    _of_experts(s, weight, [rows, storage])
    _of_experts(s, scales, scale_axes)
    if zeros is not None:
        _of_experts(s, zeros, [*scale_axes[:-1], _in_bytes(s, scale_axes[-1], bits)])
    if size:
        return scales, s.contracted((scales, [2]))
    contraction = Contraction(s.node, (), (columns,))
    s.facts.contractions.append(contraction)
    return scales, contraction


def _of_experts(s: Site, value: Value, axes: list[Axis]) -> None:
    s.pin(s.axes(value)[0], _CHOSEN)
    s.equal_all(s.axes(value)[1:], axes)


def quantized_mixture(s: Site) -> None:
    """A mixture whose weights are integers that lie as the schema says."""
    s.ignores("accuracy_level")
    if s.text("quant_type", "int") != "int":
        raise Cannot("weights of a quant_type that is not int")
    if s.integer("weights_prepacked", -1) != 0:
        raise Cannot("every execution provider may lay its weights out anew, unless its weights_prepacked is 0")
    mixture(quantized)(s)


def _in_bytes(s: Site, axis: Axis, bits: int) -> Axis:
    """Bytes, each with as many numbers of an axis as it can hold."""
    count = 8 // bits
    if count == 1:
        return axis
    if axis.size % count:
        s.pin(axis, "a part of a byte")
        return s.system.dim(-(-axis.size // count), s.why("a part of a byte"))
    whole = s.system.dim(axis.size // count)
    s.equal(axis, s.system.product([whole, s.system.dim(count, s.why("packed in a byte"))]))
    return whole


RULES: Mapping[str, Rule] = {
    "com.microsoft.MoE": mixture(floating),
    "com.microsoft.QMoE": quantized_mixture,
}
