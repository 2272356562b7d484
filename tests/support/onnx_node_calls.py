"""Calls of ONNX operators that onnx's own tests lack: more channels, weights of other shapes, and older opsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphclone.runtime.arrays import Array

_RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class NodeCall:
    """One call of an operator of the default domain.

    Attributes:
        inputs: by position; None for one that is left out.
        outputs: how many are wanted.
        declared: the shape of the result, where nothing can infer it.
    """

    op: str
    opset: int
    inputs: Sequence[Array | None]
    attributes: Mapping[str, Any]
    outputs: int = 1
    declared: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        shapes = "_".join("x".join(map(str, data.shape)) or "scalar" for data in self.inputs if data is not None)
        options = "_".join(f"{key}_{value}" for key, value in self.attributes.items())
        return f"our_{self.op.lower()}_{self.opset}_{shapes}_{options}".replace(" ", "").replace(",", "x")


def call(
    op: str,
    *inputs: Array | None,
    opset: int = 20,
    outputs: int = 1,
    declared: tuple[int, ...] | None = None,
    **attributes: Any,
) -> NodeCall:
    """A call."""
    return NodeCall(op, opset, inputs, attributes, outputs, declared)


def f(*shape: int) -> Array:
    """Drawn floats."""
    return _RNG.standard_normal(shape).astype(np.float32)


def p(*shape: int) -> Array:
    """Drawn positive floats."""
    return np.abs(f(*shape)) + np.float32(0.5)


def ints(*numbers: int) -> Array:
    """A vector of integers."""
    return np.array(numbers, np.int64)


def one(number: int) -> Array:
    """A single integer."""
    return np.array(number, np.int64)


def drawn(low: int, high: int, *shape: int, dtype: Any = np.int64) -> Array:
    """Drawn integers."""
    return _RNG.integers(low, high, shape).astype(dtype)


_OLD_POINTWISE = (
    call("Add", f(2, 3, 4), f(3), opset=6, axis=1, broadcast=1),
    call("Mul", f(2, 3, 4, 4), f(3, 4), opset=6, axis=-3, broadcast=1),
    call("Sub", f(2, 3, 4), f(4), opset=6, broadcast=1),
    call("Div", f(2, 3, 4), p(2, 3), opset=6, axis=0, broadcast=1),
    call("Equal", drawn(0, 2, 2, 3, 4), drawn(0, 2, 3), opset=6, axis=1, broadcast=1),
    call("PRelu", f(2, 3, 4), p(3), opset=6),
    call("PRelu", f(2, 4, 4), p(4), opset=6),
    call("PRelu", f(2, 4, 4), p(4)),
    call("PRelu", f(2, 3, 4), p(3, 1)),
    call("Clip", f(2, 6), opset=6, min=-0.5, max=0.5),
    call("Clip", f(2, 6), opset=6, min=0.0),
    call("Clip", f(2, 6), np.float32(0.0), np.float32(6.0)),
    call("Dropout", f(2, 6), opset=7, outputs=2, ratio=0.3),
    call("Dropout", f(2, 6), opset=6, outputs=1, is_test=1),
    call("Dropout", f(2, 6), opset=13, outputs=2),
    call("Max", f(2, 6), f(2, 6), f(1, 6), opset=8),
    call("Max", f(2, 6), np.float32(0.25)),
    call("Sum", f(2, 6), f(2, 1), np.float32(0.25), f(6)),
    call("Mean", f(4, 6), f(4, 6), f(6)),
    call("Where", f(4, 6) > 0, f(4, 6), np.float32(-3.0)),
    call("Where", f(4, 6) > 0, np.float32(0.0), f(6)),
    call("Add", f(4, 6), np.float32(1.5)),
    call("Sub", np.float32(1.5), f(4, 6)),
    call("Div", np.float32(1.5), p(4, 6)),
    call("Pow", p(4, 6), np.float32(-1.5)),
    call("Pow", p(4, 6), np.float32(0.3333)),
    call("Pow", np.float32(2.0), f(4, 6)),
    call("Pow", p(4, 6), f(6)),
    call("Mod", f(4, 6), p(6), fmod=1),
    call("Sqrt", p(4, 6)),
    call("Reciprocal", p(4, 6)),
    call("LeakyRelu", f(4, 6), alpha=0.3),
    call("Neg", f(4, 6)),
    call("Abs", f(4, 6)),
    call("Cast", f(4, 6), to=7),
    call("Cast", f(4, 6), to=10),
)

_REDUCTIONS = (
    *(
        call(f"Reduce{kind}", p(2, 4, 6), opset=opset, axes=axes, keepdims=keep)
        for kind in ("Sum", "Mean", "L1", "L2", "SumSquare", "Max", "Min", "Prod", "LogSum", "LogSumExp")
        for opset, axes, keep in ((11, [-1], 0), (11, [0, 2], 1))
    ),
    *(call(f"Reduce{kind}", p(4, 6), None, noop_with_empty_axes=1, opset=18) for kind in ("Sum", "Mean", "L2", "Max")),
    call("ReduceSum", drawn(0, 9, 4, 6), opset=11, axes=[1]),
    call("ReduceMean", drawn(0, 9, 4, 6), opset=11, axes=[1]),
    call("ReduceSumSquare", drawn(0, 9, 4, 6), opset=11, axes=[1]),
    call("Softmax", f(2, 3, 4), opset=11),
    call("Softmax", f(2, 3, 4), opset=11, axis=-1),
    call("Softmax", f(2, 3, 4), opset=11, axis=0),
    call("LogSoftmax", f(2, 3, 4), opset=11, axis=2),
    call("Hardmax", f(4, 3, 4), opset=11, axis=1),
    call("ArgMax", f(4, 6), opset=11),
    call("ArgMax", f(4, 6), axis=1, keepdims=0, select_last_index=1),
    call("TopK", f(4, 6), opset=9, outputs=2, k=3),
    call("TopK", f(4, 6), ints(2), outputs=2, axis=0, largest=0),
    call("CumSum", f(4, 6), one(1), exclusive=1),
    call("CumSum", f(4, 6), one(0), reverse=1),
    call("Trilu", f(4, 5, 5), one(1), upper=0),
    call("Det", f(4, 3, 3)),
    call("DFT", f(4, 6, 1), opset=17, axis=1, onesided=1),
    call("DFT", f(4, 5, 6, 2), None, one(2), opset=20),
    call("DFT", f(4, 5, 6, 2), opset=20),
    call("DFT", f(4, 6, 2), one(8), opset=20, inverse=1),
    call("STFT", f(4, 16, 1), one(4), p(8), one(8), opset=17, declared=(4, 3, 5, 2)),
    call("STFT", f(4, 16, 1), one(4), None, one(8), opset=17, declared=(4, 3, 5, 2)),
)

_NORMS = (
    call("LayerNormalization", f(3, 4, 6), p(6), f(6), epsilon=0.1, outputs=3),
    call("LayerNormalization", f(3, 4, 6), p(1), outputs=1, epsilon=0.1),
    call("LayerNormalization", f(3, 4, 6), p(4, 6), f(4, 6), axis=1, outputs=3),
    call("LayerNormalization", f(3, 4, 6), p(6), f(6), axis=-2, epsilon=0.1),
    call("RMSNormalization", f(3, 4, 6), p(6), opset=23, epsilon=0.1),
    call("RMSNormalization", f(3, 4, 6), p(4, 6), opset=23, axis=1),
    call("BatchNormalization", f(3, 4, 6), p(4), f(4), f(4), p(4), epsilon=0.1),
    call("BatchNormalization", f(3, 4, 6), p(4), f(4), f(4), p(4), epsilon=0.1, training_mode=1, outputs=3),
    call("BatchNormalization", f(3, 4), p(4), f(4), f(4), p(4), epsilon=0.1, opset=9),
    call("BatchNormalization", f(3, 4, 5), p(4), f(4), f(4), p(4), opset=7, spatial=1),
    call("BatchNormalization", f(3, 4, 5), p(4), f(4), f(4), p(4), opset=6, is_test=1, epsilon=0.1),
    call("InstanceNormalization", f(3, 4, 6), p(4), f(4), epsilon=0.1),
    call("GroupNormalization", f(3, 4, 6), p(2), f(2), opset=18, num_groups=2, epsilon=0.1),
    call("GroupNormalization", f(3, 4, 6), p(4), f(4), opset=21, num_groups=2, epsilon=0.1),
    call("GroupNormalization", f(3, 4, 6), p(4), f(4), opset=21, num_groups=4),
    call("LpNormalization", f(3, 4, 6), axis=1, p=1),
    call("LpNormalization", f(3, 4, 6)),
    call("MeanVarianceNormalization", f(3, 4, 6), axes=[0, 2]),
    call("LRN", f(3, 4, 6, 6), size=3),
    call("QuantizeLinear", f(3, 4, 6), p(4), drawn(0, 5, 4, dtype=np.uint8), opset=13),
    call("QuantizeLinear", f(3, 4), np.float32(0.1), np.int8(2), opset=13),
    call("QuantizeLinear", f(4, 6), p(2, 6), opset=21, axis=0, block_size=2, output_dtype=3),
    call("DequantizeLinear", drawn(-9, 9, 3, 4, dtype=np.int8), p(4), drawn(-5, 5, 4, dtype=np.int8), opset=13),
    call("DequantizeLinear", drawn(-9, 9, 3, 4, dtype=np.int8), p(3), opset=13, axis=0),
    call("DequantizeLinear", drawn(-9, 9, 4, 6, dtype=np.int8), p(1, 6), opset=21, axis=0, block_size=4),
    call("DynamicQuantizeLinear", f(3, 6), opset=11, outputs=3),
)

_LAYERS = (
    call("Conv", f(2, 4, 6, 6), f(6, 4, 3, 3), f(6), pads=[1, 1, 1, 1]),
    call("Conv", f(2, 4, 6, 6), f(6, 2, 1, 1), group=2),
    call("Conv", f(2, 4, 6, 6), f(4, 1, 3, 3), group=4),
    call("ConvTranspose", f(2, 4, 5, 5), f(4, 6, 3, 3), f(6), strides=[2, 2]),
    call("DeformConv", f(2, 4, 3, 3), f(6, 4, 2, 2), f(2, 8, 2, 2), f(6), kernel_shape=[2, 2]),
    call("GridSample", f(2, 4, 5, 5), f(2, 3, 3, 2)),
    call("Resize", f(2, 4, 5, 5), None, np.array([1, 1, 2, 2], np.float32)),
    call("Resize", f(2, 4, 5, 5), None, None, ints(2, 4, 8, 8), mode="linear"),
    call("Upsample", f(2, 4, 5, 5), np.array([1, 1, 2, 2], np.float32), opset=9),
    call("Upsample", f(2, 4, 5, 5), opset=7, scales=[1.0, 1.0, 2.0, 2.0]),
    call("Squeeze", f(4, 1, 6), opset=11, axes=[1]),
    call("Unsqueeze", f(4, 6), opset=11, axes=[0, 2]),
    call("Slice", f(4, 6), opset=9, starts=[2], ends=[6], axes=[1]),
    call("Split", f(4, 6), opset=11, axis=1, split=[2, 4], outputs=2),
    call("Split", f(4, 6), opset=11, axis=1, outputs=3),
    call("Pad", f(4, 6), opset=10, pads=[0, 1, 0, 2], mode="constant", value=0.5),
    call("OneHot", drawn(0, 5, 3, 4), one(5), f(2), opset=11, axis=1),
    call("ConstantOfShape", ints(3, 4), opset=20),
    call("NegativeLogLikelihoodLoss", f(4, 3, 6), drawn(0, 3, 4, 6), p(3), reduction="sum"),
    call("SoftmaxCrossEntropyLoss", f(4, 3, 6), drawn(0, 3, 4, 6), p(3), reduction="none", outputs=2),
    call("GlobalLpPool", f(2, 4, 5, 5), p=3),
    call("MaxRoiPool", f(2, 4, 6, 6), np.array([[0, 0, 0, 4, 4], [1, 1, 1, 5, 5]], np.float32), pooled_shape=[2, 2]),
    call("ConvInteger", drawn(0, 9, 2, 4, 5, 5, dtype=np.uint8), drawn(0, 9, 6, 4, 3, 3, dtype=np.uint8)),
    call("MatMul", f(3, 4, 6), f(6, 5)),
    call("Gather", f(6, 5), drawn(0, 6, 3, 4)),
)

CALLS = (*_OLD_POINTWISE, *_REDUCTIONS, *_NORMS, *_LAYERS)
