"""Calls of operators whose meaning differs between opsets, ranks or attributes, to be run by every evaluator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphclone.runtime.arrays import Array

OPSETS = (7, 9, 10, 11, 12, 13, 15, 18, 21)
"""Opsets that differ in operators which are met often."""

NEWEST = 22

_RANDOM = np.random.default_rng(0)


@dataclass(frozen=True)
class OpCall:
    """One operator on arrays.

    Attributes:
        op: its name.
        inputs: arrays; None for one that is left out.
        attributes: by name.
        since: the first opset in which it means this.
        until: the last one.
        outputs: how many are wanted.
    """

    op: str
    inputs: tuple[Array | None, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    since: int = OPSETS[0]
    until: int = NEWEST
    outputs: int = 1

    def opsets(self) -> list[int]:
        """Those in which it is to be tried."""
        return sorted({self.since, self.until, *(n for n in OPSETS if self.since <= n <= self.until)})

    def __str__(self) -> str:
        shapes = ",".join("-" if a is None else "x".join(map(str, a.shape)) or "scalar" for a in self.inputs)
        return " ".join([self.op, shapes, *(f"{name}={value}" for name, value in self.attributes.items())])


def f(*shape: int) -> Array:
    return _RANDOM.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> Array:
    return np.abs(f(*shape)) + np.float32(0.1)


def i(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def calls() -> Iterator[OpCall]:
    """All of them."""
    for size in ((9,), (8, 9), (5, 6, 7)):
        yield from _pooled(size)
        yield from _convolved(size)
        yield from _normalised(size)
    yield from _reduced()
    yield from _moved()
    yield from _pointwise()
    yield from _resized()
    yield from _picked()
    for direction in ("forward", "reverse", "bidirectional"):
        yield from _recurrent(direction)


def _pooled(size: tuple[int, ...]) -> Iterator[OpCall]:
    x, rank = f(2, 3, *size), len(size)
    threes, twos, ones = [3] * rank, [2] * rank, [1] * 2 * rank
    yield OpCall("GlobalMaxPool", (x,))
    yield OpCall("GlobalAveragePool", (x,))
    yield OpCall("GlobalLpPool", (x,), {"p": 2})
    yield OpCall("LpPool", (x,), {"kernel_shape": threes, "strides": twos}, since=11)
    for op in ("MaxPool", "AveragePool"):
        yield OpCall(op, (x,), {"kernel_shape": threes, "strides": twos, "pads": ones})
        yield OpCall(op, (x,), {"kernel_shape": threes, "strides": twos, "ceil_mode": 1}, since=10)
        yield OpCall(op, (x,), {"kernel_shape": twos, "strides": twos, "auto_pad": "SAME_UPPER"})
        yield OpCall(op, (f(2, 3, *[1] * rank),), {"kernel_shape": twos, "strides": twos})
    yield OpCall(
        "AveragePool",
        (x,),
        {"kernel_shape": twos, "strides": twos, "auto_pad": "SAME_LOWER", "count_include_pad": 1},
    )


def _convolved(size: tuple[int, ...]) -> Iterator[OpCall]:
    rank = len(size)
    threes, twos = [3] * rank, [2] * rank
    x = f(2, 3, *size)
    yield OpCall("Conv", (x, f(4, 3, *threes), f(4)), {"auto_pad": "SAME_UPPER", "strides": twos})
    yield OpCall("Conv", (x, f(4, 3, *threes)), {"dilations": twos, "pads": twos * 2})
    yield OpCall("Conv", (f(2, 4, *size), f(4, 2, *threes)), {"group": 2})
    yield OpCall("ConvTranspose", (x, f(3, 2, *threes)), {"strides": twos, "output_padding": [1] * rank})
    yield OpCall("ConvTranspose", (x, f(3, 2, *[4] * rank), f(2)), {"strides": twos, "auto_pad": "SAME_UPPER"})


def _normalised(size: tuple[int, ...]) -> Iterator[OpCall]:
    x = f(2, 3, *size)
    yield OpCall("InstanceNormalization", (x, f(3), f(3)))
    yield OpCall("BatchNormalization", (x, f(3), f(3), f(3), positive(3)))
    if len(size) == 2:  # ONNX Runtime knows no other
        yield OpCall("LRN", (x,), {"size": 3})
    yield OpCall("MeanVarianceNormalization", (x,), {"axes": [0, *range(2, 2 + len(size))]}, since=9)
    yield OpCall("LayerNormalization", (x, f(*x.shape[2:]), f(*x.shape[2:])), {"axis": 2}, since=17)
    yield OpCall("GroupNormalization", (f(2, 4, *size), f(4), f(4)), {"num_groups": 2}, since=21)
    yield OpCall("LpNormalization", (x,), {"axis": 1, "p": 2})


def _reduced() -> Iterator[OpCall]:
    x = positive(2, 1, 3, 1)
    for kind in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare"):
        op, last = f"Reduce{kind}", 12 if kind == "Sum" else 17
        yield OpCall(op, (x,), {"axes": [1]}, until=last)
        yield OpCall(op, (x,), {"axes": [1, 2], "keepdims": 0}, until=last)
        yield OpCall(op, (x,), {"axes": [-1], "keepdims": 0}, since=11, until=last)
        yield OpCall(op, (x,), {"keepdims": 0}, until=17)
        yield OpCall(op, (x, i(1, 2)), {"keepdims": 0}, since=last + 1)
    for op in ("ArgMax", "ArgMin"):
        yield OpCall(op, (f(2, 3, 4),), {"axis": 1, "keepdims": 0})
        yield OpCall(op, (np.ones((2, 3), np.float32),), {"axis": 1, "select_last_index": 1}, since=12)
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        yield OpCall(op, (f(2, 3, 4),), {"axis": 1})
        yield OpCall(op, (f(2, 3, 4),))
    yield OpCall("CumSum", (f(3, 4), np.array(1)), {"reverse": 1, "exclusive": 1}, since=11)


def _moved() -> Iterator[OpCall]:
    x = f(2, 1, 3, 1)
    yield OpCall("Squeeze", (x,), {"axes": [1]}, until=12)
    yield OpCall("Squeeze", (x,), {"axes": [-1]}, since=11, until=12)
    yield OpCall("Squeeze", (x,))
    yield OpCall("Squeeze", (x, i(1)), since=13)
    yield OpCall("Unsqueeze", (f(2, 3),), {"axes": [0, 2]}, until=12)
    yield OpCall("Unsqueeze", (f(2, 3), i(0, -1)), since=13)
    yield OpCall("Split", (f(6, 4),), {"axis": 0, "split": [2, 4]}, until=12, outputs=2)
    yield OpCall("Split", (f(6, 4),), {"axis": 0}, until=17, outputs=2)
    yield OpCall("Split", (f(6, 4), i(2, 4)), {"axis": 0}, since=13, outputs=2)
    yield OpCall("Flatten", (f(2, 3, 4),), {"axis": 2})
    yield OpCall("Transpose", (f(2, 3, 4),), {"perm": [2, 0, 1]})
    yield OpCall("Tile", (f(2, 3), i(2, 1)))
    yield OpCall("Pad", (f(3, 4),), {"pads": [1, 0, 0, 2], "value": 1.5}, until=10)
    yield OpCall("Pad", (f(3, 4),), {"pads": [1, 0, 0, 2], "mode": "reflect"}, until=10)
    yield OpCall("Pad", (f(3, 4), i(1, 0, 0, 2), f()), since=11)
    yield OpCall("Slice", (f(3, 4),), {"starts": [1], "ends": [3], "axes": [1]}, until=9)
    yield OpCall("Slice", (f(3, 6), i(5), i(0), i(1), i(-2)), since=10)
    yield OpCall("DepthToSpace", (f(2, 8, 4, 6),), {"blocksize": 2})
    yield OpCall("DepthToSpace", (f(2, 8, 4, 6),), {"blocksize": 2, "mode": "CRD"}, since=11)
    yield OpCall("SpaceToDepth", (f(1, 2, 4, 6),), {"blocksize": 2})
    yield OpCall("Concat", (f(2, 3), f(2, 1)), {"axis": 1})
    yield OpCall("Expand", (f(3, 1), i(2, 1, 4)), since=8)
    yield OpCall("Trilu", (f(3, 4),), {"upper": 0}, since=14)
    yield OpCall("ReverseSequence", (f(4, 2, 3), i(2, 4)), {"time_axis": 0, "batch_axis": 1}, since=10)


def _pointwise() -> Iterator[OpCall]:
    x = f(3, 4)
    yield OpCall("Clip", (x,), {"min": -0.5, "max": 0.5}, until=10)
    yield OpCall("Clip", (x, f(), None), since=11)
    yield OpCall("PRelu", (f(2, 3, 4), f(3, 1)))
    yield OpCall("Selu", (x,))
    yield OpCall("Elu", (x,), {"alpha": 0.7})
    yield OpCall("LeakyRelu", (x,), {"alpha": 0.3})
    yield OpCall("HardSigmoid", (x,), {"alpha": 0.3})
    yield OpCall("Softplus", (x,))
    yield OpCall("Softsign", (x,))
    yield OpCall("ThresholdedRelu", (x,), since=10)
    yield OpCall("Shrink", (x,), {"lambd": 0.2, "bias": 0.1}, since=9)
    yield OpCall("Celu", (x,), since=12)
    yield OpCall("HardSwish", (x,), since=14)
    yield OpCall("Mish", (x,), since=18)
    yield OpCall("Gelu", (x,), since=20)
    yield OpCall("Gelu", (x,), {"approximate": "tanh"}, since=20)
    yield OpCall("Erf", (x,), since=9)
    yield OpCall("Mod", (x, positive(3, 4)), {"fmod": 1}, since=10)
    yield OpCall("Pow", (positive(3, 4), f(4)))
    yield OpCall("Gemm", (f(3, 4), f(4, 5), f(5)), {"alpha": 0.5, "beta": 2.0})
    yield OpCall("MatMul", (f(2, 3, 4), f(4, 5)))
    yield OpCall("Einsum", (f(2, 3, 4), f(3, 4, 5)), {"equation": "bgi,gih->bgh"}, since=12)
    yield OpCall("Cast", (x * 4,), {"to": 7})
    yield OpCall("Dropout", (x,))


def _resized() -> Iterator[OpCall]:
    x, factors, nothing = f(1, 2, 4, 5), np.array([1, 1, 2, 2], np.float32), f(0)
    for mode in ("nearest", "linear"):
        yield OpCall("Upsample", (x,), {"mode": mode, "scales": [1.0, 1.0, 2.0, 2.0]}, until=8)
        yield OpCall("Upsample", (x, factors), {"mode": mode}, since=9, until=9)
        yield OpCall("Resize", (x, factors), {"mode": mode}, since=10, until=10)
    for mode in ("nearest", "linear", "cubic"):
        for coordinates in ("asymmetric", "align_corners", "half_pixel", "pytorch_half_pixel"):
            how = {"mode": mode, "coordinate_transformation_mode": coordinates}
            yield OpCall("Resize", (x, nothing, factors), how, since=11)
            yield OpCall("Resize", (x, nothing, nothing, i(1, 2, 7, 3)), how, since=11, until=12)
            yield OpCall("Resize", (x, None, factors), how, since=13)
            yield OpCall("Resize", (x, None, None, i(1, 2, 7, 3)), how, since=13)
    yield OpCall("GridSample", (f(1, 2, 4, 5), np.clip(f(1, 3, 3, 2), -1, 1)), since=16, until=19)
    yield OpCall("AffineGrid", (f(2, 2, 3), i(2, 3, 4, 5)), since=20)
    yield OpCall("Col2Im", (f(1, 12, 20), i(5, 6), i(2, 2)), since=18)
    rois = np.array([[0, 0, 0, 3, 3], [0, 1, 2, 6, 7]], np.float32)
    yield OpCall("MaxRoiPool", (f(1, 2, 8, 8), rois), {"pooled_shape": [2, 2]}, until=21)


def _picked() -> Iterator[OpCall]:
    yield OpCall("TopK", (f(3, 6),), {"k": 2, "axis": 1}, until=9, outputs=2)
    yield OpCall("TopK", (f(3, 6), i(2)), {"axis": 1}, since=10, outputs=2)
    yield OpCall("Gather", (f(4, 3), i(2, 0)), {"axis": 0})
    yield OpCall("GatherElements", (f(3, 3), i(1, 0, 2)[None]), {"axis": 0}, since=11)
    yield OpCall("GatherND", (f(2, 3, 4), np.array([[0, 1], [1, 2]])), since=12)
    yield OpCall("ScatterND", (f(4, 3), np.array([[1], [3]]), f(2, 3)), since=11)
    yield OpCall("ScatterElements", (f(3, 3), i(1, 0, 2)[None], f(1, 3)), {"axis": 0}, since=11)
    yield OpCall("ScatterElements", (f(3, 3), i(1, 1, 1)[None], f(1, 3)), {"axis": 0, "reduction": "add"}, since=18)
    yield OpCall("Scatter", (f(3, 3), i(1, 0, 2)[None], f(1, 3)), {"axis": 0}, since=9, until=10)
    yield OpCall("OneHot", (i(1, 3), np.array(5), np.array([0, 1], np.float32)), {"axis": 0}, since=9)
    yield OpCall("Where", (np.array([True, False, True]), f(2, 3), f(3)), since=9)


def _recurrent(direction: str) -> Iterator[OpCall]:
    count, lengths = 2 if direction == "bidirectional" else 1, np.array([3, 5], np.int32)
    attributes: dict[str, Any] = {"hidden_size": 3, "direction": direction}
    others = {"RNN": ["Relu"], "GRU": ["HardSigmoid", "ScaledTanh"], "LSTM": ["HardSigmoid", "Softsign", "Elu"]}
    for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        x, start = f(5, 2, 4), f(count, 2, 3)
        weights = (f(count, gates * 3, 4), f(count, gates * 3, 3), f(count, 2 * gates * 3))
        outputs = 3 if op == "LSTM" else 2
        names = others[op] * count
        yield OpCall(op, (x, *weights), attributes, outputs=outputs)
        yield OpCall(op, (x, *weights, lengths, start), attributes, outputs=outputs)
        yield OpCall(op, (x, *weights, lengths), {**attributes, "activations": names}, outputs=outputs)
        yield OpCall(op, (x, *weights), {**attributes, "clip": 0.4}, outputs=outputs)
        alphas = {"activations": ["LeakyRelu", *others[op][1:]] * count, "activation_alpha": [0.3] * len(names)}
        yield OpCall(op, (x, *weights), {**attributes, **alphas}, outputs=outputs)
    yield OpCall("GRU", (x, f(count, 9, 4), f(count, 9, 3), f(count, 18)), {**attributes, "linear_before_reset": 1})
    peepholes = (None, start, f(count, 2, 3), f(count, 9))
    yield OpCall("LSTM", (x, *weights, *peepholes), attributes, outputs=3)
    yield OpCall("LSTM", (x, *weights), {**attributes, "input_forget": 1}, outputs=3)
