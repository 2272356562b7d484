"""Calls of aten ops made by hand: those torch has no samples for, and the corners its samples leave out.

Sizes differ within a call wherever the op allows it, so that an axis taken for another does not fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import inf
from typing import Any

import torch
import transformers.integrations.moe  # noqa: F401  registers an op that has a rule
from torch import Tensor

from tests.rule_opinfo import bound
from tests.rule_property import Sample, target_of

_END = 2**63 - 1


def call(op: str, *args: Any, **kwargs: Any) -> Sample:
    """A call of an op, the namespace aten where none is given, the overload default where none is given."""
    name = op if op.count(".") == 2 else f"aten.{op}" if "." in op else f"aten.{op}.default"
    operands = bound(target_of(name), args, kwargs)
    assert operands is not None, f"{op} takes no such arguments"
    return Sample(target_of(name), operands)


def floats(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def positive(*shape: int) -> Tensor:
    return floats(*shape).abs() + 0.1


def numbers(high: int, *shape: int) -> Tensor:
    return torch.randint(high, shape)


def flags(*shape: int) -> Tensor:
    return torch.rand(shape) > 0.5


def samples() -> dict[str, list[Sample]]:
    """Every call, by op."""
    torch.manual_seed(0)
    found: dict[str, list[Sample]] = {}
    for family in _FAMILIES:
        for sample in family():
            found.setdefault(sample.op, []).append(sample)
    return found


# Elementwise


def _pointwise() -> Iterator[Sample]:
    x, y, row = floats(4, 6), floats(4, 6), floats(6)
    for name in ("clamp", "clip"):
        yield call(name, x, -0.5, 0.5)
        yield call(f"{name}.Tensor", x, -positive(6), positive(4, 1))
    for name in ("clamp_min", "clamp_max"):
        yield call(name, x, 0.1)
        yield call(f"{name}.Tensor", x, row)
    yield call("special_expm1", x)
    yield call("round.decimals", x, decimals=1)
    for name in ("alias", "detach", "lift_fresh_copy", "lift", "contiguous", "clone"):
        yield call(name, x)
    for name in ("dropout", "feature_dropout", "alpha_dropout"):
        yield call(name, x, 0.5, False)
    yield call("rrelu", x, 0.1, 0.3, False)
    for shape, slopes in (((2, 3, 5), (3,)), ((2, 3, 5), (1,)), ((4, 6), (6,)), ((5, 5), (5,)), ((4,), (1,))):
        yield call("prelu", floats(*shape), positive(*slopes))
    yield call("glu", floats(4, 6, 2), 1)
    yield call("glu", floats(4, 6))
    yield call("polar", positive(4, 6), x)
    yield call("complex", x, y)
    for name in ("real", "imag", "abs"):
        yield call(name, torch.complex(x, y))


def _casts() -> Iterator[Sample]:
    x = floats(4, 6) * 5
    for dtype in (torch.float32, torch.int64, torch.float64, torch.bool):
        yield call("to.dtype", x, dtype)
        yield call("_to_copy", x, dtype=dtype)
    yield call("to.dtype", numbers(9, 4, 6), torch.float64)
    yield call("to.dtype_layout", x, dtype=torch.int64)
    yield call("to.dtype_layout", x, dtype=torch.float64, device=torch.device("cpu"))
    yield call("to.device", x, torch.device("cpu"), torch.float64)
    for other in (numbers(9, 3), floats(5, 4, 6), floats(4, 6)):
        yield call("to.other", x, other)
        yield call("type_as", x, other)


def _arithmetic() -> Iterator[Sample]:
    x, y, n = floats(4, 6), floats(4, 6), numbers(9, 4, 6)
    for name, other, alpha in product(("add", "sub", "rsub"), (y, floats(6), floats(4, 1), n), (1, -3)):
        yield call(f"{name}.Tensor", x, other, alpha=alpha)
    for name, number in product(("add", "sub", "rsub"), (0.7, 2, 0, inf)):
        yield call(f"{name}.Scalar", x, number, alpha=2)
    yield call("add.Tensor", x, 0.7)
    yield call("add.Tensor", n, 3)
    yield call("add.Tensor", x, x)
    for name, number in product(("mul", "multiply", "div"), (0.7, -2)):
        yield call(f"{name}.Scalar", x, number)
    yield call("mul.Scalar", n, 0.7)
    yield call("mul.Scalar", n, 3)
    yield call("mul.Tensor", x, x)
    yield call("mul.Tensor", x, n)
    yield call("div.Tensor", x, n + 1)
    yield call("div.Tensor", n, n + 1)
    yield call("div.Scalar_mode", x, 0.3, rounding_mode="floor")
    yield call("floor_divide.Scalar", x, 0.3)
    for exponent in (2, 0.5, -1, 3.0, 0, 2.7182818, 1 / 3):
        yield call("pow.Tensor_Scalar", positive(4, 6), exponent)
    yield call("pow.Tensor_Scalar", n, 2)
    yield call("pow.Scalar", 2.5, x)
    for value in (1, -0.5):
        yield call("addcmul", x, floats(6), floats(4, 1), value=value)
        yield call("addcdiv", x, floats(6), positive(4, 1), value=value)
    yield call("addcmul", x, x, y)
    yield call("lerp.Scalar", x, floats(6), 0.3)
    yield call("lerp.Tensor", x, y, floats(4, 1))


def _comparisons() -> Iterator[Sample]:
    x, n, mask = floats(4, 6), numbers(9, 4, 6), flags(4, 6)
    for name in ("eq", "ne", "lt", "le", "gt", "ge", "fmod", "remainder"):
        yield call(f"{name}.Scalar", x, 0.3)
        yield call(f"{name}.Scalar", n, 4)
    for name in ("bitwise_and", "bitwise_or", "bitwise_xor", "__and__", "__or__", "__xor__"):
        yield call(f"{name}.Scalar", n, 5)
        yield call(f"{name}.Tensor", mask, flags(6))
        yield call(f"{name}.Tensor", n, numbers(9, 4, 1))
    for name in ("__lshift__", "__rshift__"):
        yield call(f"{name}.Scalar", n, 1)
        yield call(f"{name}.Tensor", n, numbers(3, 6))
    for name in ("bitwise_left_shift", "bitwise_right_shift"):
        yield call(f"{name}.Tensor_Scalar", n, 1)
    yield call("xlogy.Scalar_Self", 0.7, positive(4, 6))
    yield call("xlogy.Scalar_Other", x, 0.7)


def _choices() -> Iterator[Sample]:
    x, y, mask = floats(4, 6), floats(4, 6), flags(4, 6)
    for other in (y, floats(6), numbers(9, 6), torch.tensor(0.3, dtype=torch.float64)):
        yield call("where.self", mask, x, other)
        yield call("where.self", flags(4, 1), other, x)
    for number in (0.7, 0, -inf, 3, True):
        yield call("where.ScalarOther", mask, x, number)
        yield call("where.ScalarSelf", flags(6), number, x)
        yield call("masked_fill.Scalar", x, flags(4, 1), number)
        yield call("fill.Scalar", x, number)
    for pair in ((0.7, 0), (1, 0), (0.7, -0.2)):
        yield call("where.Scalar", mask, *pair)
    for tensor in (torch.tensor(0.3, dtype=torch.float64), torch.tensor(3)):
        yield call("masked_fill.Tensor", x, mask, tensor)
        yield call("fill.Tensor", x, tensor)
    yield call("copy", x, y)
    yield call("copy", x, floats(6), True)
    yield call("copy", numbers(9, 4, 6), x)
    for name in ("maximum", "minimum", "max.other", "min.other"):
        yield call(name, x, floats(6))
        yield call(name, x, x)


# Contractions


def _products() -> Iterator[Sample]:
    x, w = floats(3, 4, 6), floats(8, 6)
    yield call("linear", x, w)
    yield call("linear", x, w, floats(8))
    yield call("linear", x, floats(6))
    yield call("linear", floats(6), w, floats(8))
    yield call("linear", x, w, floats(1))
    for a, b in (((4, 6), (6, 8)), ((3, 4, 6), (6, 8)), ((3, 4, 6), (3, 6, 8)), ((2, 1, 4, 6), (3, 6, 8))):
        yield call("matmul", floats(*a), floats(*b))
    for a, b in (((6,), (6, 8)), ((3, 4, 6), (6,)), ((6,), (6,)), ((6,), (3, 6, 8)), ((4, 6), (2, 3, 6, 8))):
        yield call("matmul", floats(*a), floats(*b))
    square = floats(6, 6)
    yield call("matmul", square, square)
    yield call("matmul", numbers(9, 4, 6), numbers(9, 6, 8))
    for alpha, beta in ((1, 1), (0.3, -2), (2, 0)):
        yield call("addmm", floats(4, 8), floats(4, 6), floats(6, 8), alpha=alpha, beta=beta)
        yield call("addmm", floats(8), floats(4, 6), floats(6, 8), alpha=alpha, beta=beta)
        yield call("baddbmm", floats(3, 1, 8), floats(3, 4, 6), floats(3, 6, 8), alpha=alpha, beta=beta)
    yield call("outer", floats(4), floats(6))
    yield call("bilinear", floats(4, 3), floats(4, 6), floats(8, 3, 6), floats(8))
    yield call("transformers.grouped_mm_fallback.default", floats(9, 6), floats(3, 6, 8), torch.tensor([2, 5, 9]))


def _einsums() -> Iterator[Sample]:
    for equation, *shapes in (
        ("bi,oi->bo", (4, 6), (8, 6)),
        ("...i,oi->...o", (2, 4, 6), (8, 6)),
        ("bhid,bhjd->bhij", (2, 3, 4, 6), (2, 3, 5, 6)),
        ("i,j->ij", (4,), (6,)),
        ("ij->ji", (4, 6)),
        ("ij->i", (4, 6)),
        ("b...i,...ij->b...j", (2, 4, 6), (4, 6, 5)),
        ("bi,bi->b", (4, 1), (4, 6)),
        ("...i,...i->...", (4, 6), (2, 4, 6)),
        ("ii->i", (4, 4)),
        ("ij,jk,kl->il", (2, 4), (4, 6), (6, 3)),
        ("ijk,jk->i", (2, 4, 6), (4, 6)),
    ):
        yield call("einsum", equation, [floats(*shape) for shape in shapes])


def _convolutions() -> Iterator[Sample]:
    for groups, kernel, bias in product((1, 2, 3, 6), (1, 3), (None, floats(12))):
        yield call("conv1d", floats(2, 6, 5), floats(12, 6 // groups, kernel), bias, groups=groups)
    yield call("conv1d", floats(6, 5), floats(4, 6, 1))
    yield call("conv1d", floats(2, 6, 5), floats(4, 6, 1), None, [2])
    yield call("conv1d.padding", floats(2, 6, 5), floats(4, 3, 3), None, [1], "same", [1], 2)
    yield call("conv2d", floats(2, 6, 5, 7), floats(4, 3, 1, 1), floats(4), groups=2)
    yield call("conv2d", floats(2, 6, 5, 7), floats(4, 6, 3, 2), floats(4), [2, 1], [1, 0], [1, 2])
    yield call("conv2d.padding", floats(2, 6, 5, 7), floats(4, 6, 1, 1), None, [1, 1], "valid")
    yield call("conv3d", floats(2, 6, 3, 5, 4), floats(4, 3, 1, 1, 1), groups=2)
    yield call("conv3d.padding", floats(2, 6, 3, 5, 4), floats(4, 3, 2, 1, 1), None, [1, 1, 1], "same", [1, 1, 1], 2)
    for groups in (1, 2, 3):
        one, two, three = ((6, 12 // groups, *kernel) for kernel in ((3,), (2, 3), (2, 1, 2)))
        yield call("conv_transpose1d", floats(2, 6, 5), floats(*one), floats(12), groups=groups)
        yield call("conv_transpose2d.input", floats(2, 6, 5, 4), floats(*two), None, [2, 1], groups=groups)
        yield call("conv_transpose3d.input", floats(6, 3, 4, 2), floats(*three), floats(12), groups=groups)


# Windows


def _pools() -> Iterator[Sample]:
    for n, name in product((1, 2, 3), ("max_pool{}d", "max_pool{}d_with_indices", "avg_pool{}d")):
        x = floats(2, 3, *(5, 6, 4)[:n])
        yield call(name.format(n), x, [2] * n)
        yield call(name.format(n), x[0], [3] * n, [2] * n, [1] * n)
    for n, name in product((1, 2, 3), ("adaptive_avg_pool{}d", "adaptive_max_pool{}d")):
        yield call(name.format(n), floats(2, 3, *(5, 6, 4)[:n]), [2] * n)


def _resamplings() -> Iterator[Sample]:
    kinds = {1: ("nearest", "_nearest_exact", "linear"), 2: ("nearest", "_nearest_exact", "bilinear", "bicubic")}
    for n, kind in (*((n, kind) for n in (1, 2) for kind in kinds[n]), (3, "nearest"), (3, "_nearest_exact")):
        name = f"upsample_{kind}{n}d" if kind[0] != "_" else f"_upsample{kind}{n}d"
        x, corners = floats(2, 3, *(4, 5, 2)[:n]), [False] if "linear" in kind or kind == "bicubic" else []
        yield call(name, x, [7] * n, *corners)
        yield call(f"{name}.vec", x, None, *corners, [2.0] * n)
    x = floats(2, 3, 4, 5, 2)
    yield call("upsample_trilinear3d", x, [7, 7, 7], False)
    yield call("upsample_trilinear3d.vec", x, [7, 7, 7], True, None)
    for name in ("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"):
        yield call(name, x[..., 0], [7, 3], False)
        yield call(f"{name}.vec", x[..., 0], [7, 3], False, None)


def _places() -> Iterator[Sample]:
    grid = floats(2, 6, 7, 2).clamp(-1, 1)
    yield call("grid_sampler", floats(2, 3, 4, 5), grid, 0, 0, False)
    yield call("grid_sampler", floats(2, 3, 4, 5), grid, 0, 1, True)
    yield call("affine_grid_generator", floats(2, 2, 3), [2, 3, 4, 5], False)
    yield call("im2col", floats(2, 3, 4, 5), [2, 3], [1, 1], [0, 1], [1, 2])
    yield call("im2col", floats(3, 4, 5), [2, 2], [1, 1], [0, 0], [1, 1])
    yield call("col2im", floats(2, 12, 20), [5, 6], [2, 2], [1, 1], [0, 0], [1, 1])
    yield call("pixel_shuffle", floats(2, 12, 3, 5), 2)
    yield call("pixel_unshuffle", floats(2, 3, 4, 6), 2)
    yield call("channel_shuffle", floats(2, 6, 4), 3)


# Normalisations and attention


def _norms() -> Iterator[Sample]:
    x = floats(2, 6, 4, 3)
    for affine in ((None, None), (floats(4, 3), floats(4, 3)), (floats(4, 3), None)):
        yield call("layer_norm", x, [4, 3], *affine, 1e-2)
    yield call("layer_norm", x, [3], floats(3), floats(3))
    yield call("layer_norm", x, [3], floats(3), floats(3), 0.0)
    for eps in (None, 1e-2):
        yield call("rms_norm", x, [3], floats(3), eps)
        yield call("rms_norm", x, [4, 3], None, eps)
    for affine in ((None, None), (floats(6), floats(6))):
        yield call("batch_norm", x, *affine, floats(6), positive(6), False, 0.1, 1e-2, False)
        yield call("batch_norm", floats(4, 6), *affine, floats(6), positive(6), False, 0.1, 1e-2, False)
        yield call("batch_norm", x, *affine, None, None, True, 0.1, 1e-2, False)
        yield call("instance_norm", x, *affine, None, None, True, 0.1, 1e-2, False)
        for groups in (1, 2, 3, 6):
            yield call("group_norm", x, groups, *affine, 1e-2)
    yield call("_weight_norm", floats(4, 6, 3), positive(4, 1, 1))
    yield call("_weight_norm", floats(4, 6, 3), positive(1, 1, 3), 2)
    yield call("_weight_norm", floats(4, 6, 3), positive(), -1)


def _attention() -> Iterator[Sample]:
    sdpa = "scaled_dot_product_attention"
    q, k, v = floats(2, 6, 4, 5), floats(2, 6, 7, 5), floats(2, 6, 7, 3)
    yield call(sdpa, q, k, v, scale=0.3)
    for mask in (flags(4, 7) | torch.eye(4, 7).bool(), floats(6, 4, 7), floats(2, 1, 1, 7), floats(2, 1, 4, 1)):
        yield call(sdpa, q, k, v, mask, scale=0.3)
    yield call(sdpa, q, k, v, None, 0.0, True, scale=0.3)
    yield call(sdpa, q, floats(2, 3, 7, 5), floats(2, 3, 7, 4), scale=0.3, enable_gqa=True)
    yield call(sdpa, q, floats(2, 1, 7, 5), floats(2, 1, 7, 4), scale=0.3, enable_gqa=True)
    yield call(sdpa, q, floats(1, 6, 7, 5), v, scale=0.3)
    yield call(sdpa, q[0, 0], k[0, 0], v[0, 0], scale=0.3)
    yield call(sdpa, q, k, v)


def _recurrences() -> Iterator[Sample]:
    for (name, gates, states), layers, directions, biased in product(
        (("lstm", 4, 2), ("gru", 3, 1), ("rnn_tanh", 1, 1), ("rnn_relu", 1, 1)), (1, 2), (1, 2), (False, True)
    ):
        hidden, inner = 5, 4
        hx = [floats(layers * directions, 2, hidden) for _ in range(states)]
        params: list[Tensor] = []
        for layer, _ in product(range(layers), range(directions)):
            width = inner if layer == 0 else hidden * directions
            params += [floats(gates * hidden, width), floats(gates * hidden, hidden)]
            params += [floats(gates * hidden), floats(gates * hidden)] if biased else []
        state = hx if states > 1 else hx[0]
        options = (biased, layers, 0.0, False, directions == 2, True)
        yield call(f"{name}.input", floats(2, 3, inner), state, params, *options)
    for name, gates, states in (
        ("lstm_cell", 4, 2),
        ("gru_cell", 3, 1),
        ("rnn_tanh_cell", 1, 1),
        ("rnn_relu_cell", 1, 1),
    ):
        for biases in ((), (floats(gates * 5), floats(gates * 5))):
            hx = [floats(2, 5) for _ in range(states)]
            weights = floats(gates * 5, 4), floats(gates * 5, 5)
            yield call(name, floats(2, 4), hx if states > 1 else hx[0], *weights, *biases)


# Indices


def _indices() -> Iterator[Sample]:
    x, i, j = floats(4, 6, 5), numbers(4, 3), numbers(5, 2, 3)
    for indices in ([i], [None, i], [i, None, j], [None, i, j], [j, i], [torch.tensor(1), None, i]):
        yield call("index.Tensor", x, indices)
    for indices in ([flags(4)], [flags(4, 6)], [None, None, flags(5)], [None, flags(6, 5)]):
        yield call("index.Tensor", x, indices)
    for accumulate in (False, True):
        for indices, shape in (
            ([torch.tensor([2, 0])], (2, 6, 5)),
            ([torch.tensor([2, 0])], (5,)),
            ([torch.tensor([2, 0])], (2, 1, 5)),
            ([None, torch.tensor([2, 0])], (4, 2, 5)),
            ([None, torch.tensor([2, 0])], (2, 5)),
            ([torch.tensor([2, 0]), None, torch.tensor([1, 1])], (2, 6)),
            ([torch.tensor([2, 0]), torch.tensor([[1], [3]])], (2, 2, 5)),
            ([torch.tensor([1, 0, 1, 0]).bool()], (2, 6, 5)),
            ([torch.tensor([1, 0, 1, 0]).bool()], (6, 5)),
            ([torch.tensor([1, 0, 1, 0]).bool()], ()),
            ([torch.eye(4, 6).bool()], (4, 5)),
            ([None, torch.eye(6, 5).bool()], (4, 5)),
        ):
            yield call("index_put", x, indices, floats(*shape), accumulate)
    yield call("index_select", x, 1, i)
    yield call("index_select", x, -1, torch.tensor(2))
    yield call("index_fill.int_Scalar", x, 1, i, 0)
    yield call("index_fill.int_Scalar", x, 1, i, 0.7)
    for name in ("index_add", "index_copy"):
        yield call(name, x, 1, torch.tensor([3, 0]), floats(4, 2, 5))
    yield call("index_add", x, 0, torch.tensor([3, 3]), floats(2, 6, 5), alpha=-2)


def _tables() -> Iterator[Sample]:
    table, indices = floats(7, 6), numbers(7, 2, 3)
    yield call("embedding", table, indices)
    yield call("embedding", table, torch.tensor(3), 1)
    for mode, weights in ((0, None), (1, None), (2, None), (0, floats(5))):
        offsets = torch.tensor([0, 2, 4])
        rest = (False, mode, False, weights, False, -1)
        yield call("embedding_bag.padding_idx", table, numbers(7, 5), offsets, *rest)
    yield call("one_hot", numbers(5, 2, 3), 5)
    yield call("bucketize.Tensor", floats(2, 3), floats(4).sort()[0])


def _scatters() -> Iterator[Sample]:
    x, index = floats(4, 6), torch.stack([torch.randperm(6)[:3] for _ in range(4)])
    narrow = index[:2]
    for rows in (index, narrow):
        yield call("gather", x, 1, rows)
        yield call("scatter.src", x, 1, rows, floats(*rows.shape))
        yield call("scatter.src", x, 1, rows, floats(4, 6))
        yield call("scatter.value", x, 1, rows, 0)
        yield call("scatter.value", x, 1, rows, 0.7)
        yield call("scatter_add", x, -1, rows, floats(4, 6))
        for reduce, included in product(("sum", "prod", "mean", "amax"), (True, False)):
            yield call("scatter_reduce.two", x, 1, rows, floats(4, 6), reduce, include_self=included)
    yield call("gather", floats(3, 4, 6), 1, numbers(4, 3, 2, 6))


# Views


def _reshapes() -> Iterator[Sample]:
    for shape, sizes in (
        ((4, 6), [24]), ((24,), [4, 6]), ((24,), [4, -1]), ((4, 6), [2, 2, 6]), ((4, 6), [6, 4]), ((4, 6), [8, 3]),
        ((2, 3, 4, 5), [2, 12, 5]), ((2, 1, 6), [2, 6, 1]), ((1, 6, 4), [6, 2, 2]), ((4, 6, 5), [2, 2, 30]),
        ((12, 10), [15, 8]), ((48,), [4, 12]), ((4, 12), [6, 8]),
    ):  # fmt: skip
        yield call("reshape", floats(*shape), sizes)
        yield call("view", floats(*shape), sizes)
        yield call("_unsafe_view", floats(*shape), sizes)
        fixed = torch.empty(shape).reshape(sizes).shape
        yield call("reshape_as", floats(*shape), floats(*fixed))
        yield call("view_as", floats(*shape), floats(*fixed))
    yield call("flatten.using_ints", floats(2, 3, 4, 5), 1, 2)
    yield call("flatten.using_ints", floats(2, 1, 4, 1), 1, -1)
    yield call("flatten.using_ints", floats(4, 6))
    yield call("unflatten.int", floats(2, 12, 5), 1, [3, 4])
    yield call("unflatten.int", floats(2, 12, 5), -2, [3, -1, 2])


def _reorderings() -> Iterator[Sample]:
    x = floats(2, 3, 4, 5)
    yield call("permute", x, [0, 2, -1, 1])
    for name in ("transpose.int", "swapaxes", "swapdims"):
        yield call(name, x, 1, -1)
        yield call(name, floats(4, 4), 0, 1)
    for name in ("movedim", "moveaxis"):
        yield call(f"{name}.int", x, 1, -1)
        yield call(f"{name}.intlist", x, [3, 0], [0, 2])
        yield call(f"{name}.intlist", x, [0, 1], [-1, -2])
    for name in ("mT", "mH", "adjoint", "numpy_T"):
        yield call(name, x if name != "mH" else torch.complex(x, x))
    for name in ("t", "numpy_T"):
        yield call(name, floats(4, 6))
        yield call(name, floats(4))
    yield call("unsqueeze", x, 2)
    yield call("unsqueeze", x, -1)
    thin = floats(1, 3, 1, 5)
    yield call("squeeze", thin)
    for dim in (0, -2, 1):
        yield call("squeeze.dim", thin, dim)
    yield call("squeeze.dims", thin, [0, 1, -2])
    yield call("view_as_real", torch.complex(floats(4, 6), floats(4, 6)))
    yield call("view_as_complex", floats(4, 6, 2))
    yield call("sym_size.int", x, 1)


def _repetitions() -> Iterator[Sample]:
    x, thin = floats(4, 6), floats(4, 1, 6)
    for size in ([4, 3, 6], [-1, 3, -1], [2, 4, 5, 6], [2, -1, 5, -1]):
        yield call("expand", thin, size)
    yield call("broadcast_to", thin, [2, 4, 3, 6])
    yield call("expand_as", thin, floats(2, 4, 3, 6))
    yield call("broadcast_tensors", [floats(4, 1), floats(6), floats(3, 1, 1)])
    for counts in ([2, 3], [1, 1], [5, 1, 2], [3, 1, 1, 1]):
        yield call("repeat", x, counts)
        yield call("tile", x, counts)
    yield call("tile", x, [3])
    for dim in (0, -1, None):
        yield call("repeat_interleave.self_int", x, 3, dim)
    yield call("repeat_interleave.self_int", x, 3, 1, output_size=18)


# Concatenations and cuts


def _concatenations() -> Iterator[Sample]:
    for name in ("cat", "concat", "concatenate"):
        yield call(name, [floats(2, 3, 5), floats(2, 4, 5)], 1)
        yield call(name, [floats(4, 6), floats(0), floats(4, 6)], -1)
    x = floats(4, 6)
    yield call("cat", [x, x, floats(3, 6)])
    yield call("cat", [x, numbers(9, 4, 6)])
    yield call("stack", [x, floats(4, 6)], 1)
    yield call("meshgrid", [floats(4), floats(6), floats(1)])
    yield call("meshgrid.indexing", [floats(4), floats(6)], indexing="ij")
    yield call("meshgrid.indexing", [floats(4), floats(6)], indexing="xy")


def _splits() -> Iterator[Sample]:
    x = floats(3, 12)
    yield call("split_with_sizes", x, [2, 7, 3], -1)
    yield call("split.Tensor", x, 5, 1)
    yield call("chunk", x, 3, 1)
    yield call("chunk", floats(7, 3), 3)
    for cuts in ([2, 9], [4], [9, 4], [4, 20], [-3], []):
        yield call("tensor_split.indices", x, cuts, 1)
    yield call("unbind.int", x, 1)
    yield call("unbind.int", x)
    for index in (0, -1):
        yield call("select.int", x, 1, index)


def _slices() -> Iterator[Sample]:
    x = floats(3, 12)
    for start, end, step in (
        (None, None, 1), (0, _END, 1), (4, _END, 1), (0, 4, 1), (2, 7, 1), (-5, _END, 1), (0, -3, 1), (-7, -3, 1),
        (0, 12, 1), (0, 20, 1), (-20, 5, 1), (-12, 5, 1), (3, -3, 1), (5, 5, 1), (7, 3, 1), (20, 30, 1), (-30, -20, 1),
        (0, _END, 2), (1, _END, 3), (1, 12, 2), (1, 20, 2), (2, _END, 2), (-12, _END, 2), (0, 11, 2), (0, _END, 5),
        (None, None, 12), (-1, _END, 4), (0, -2, 2),
    ):  # fmt: skip
        yield call("slice.Tensor", x, 1, start, end, step)
    for start, length in ((0, 4), (2, 7), (-5, 5), (-5, 2), (0, 12), (12, 0)):
        yield call("narrow", x, 1, start, length)


def _borders() -> Iterator[Sample]:
    x = floats(3, 6, 5)
    for padding in ([2, 3], [0, 2], [1, 0, 0, 2], [0, 0, 2, 1, 3, 0], [-1, 2], [0, -2]):
        for value in (None, 0.0, 0.7, -inf):
            yield call("pad", x, padding, "constant", value)
        yield call("constant_pad_nd", x, padding, 0.3)
    for mode in ("reflect", "replicate", "circular"):
        yield call("pad", x, [2, 1], mode)
    yield call("flip", x, [1])
    yield call("roll", x, [2], [1])
    yield call("roll", x, [2])
    yield call("unfold", x, 1, 3, 2)


# Reductions and orders


def _reductions() -> Iterator[Sample]:
    x, n = floats(3, 4, 5), numbers(9, 3, 4, 5)
    for dims, keep in product(([1], [0, -1], [], None), (False, True)):
        for name in ("mean.dim", "sum.dim_IntList", "linalg_vector_norm", "norm.ScalarOpt_dim"):
            options = (3,) if name == "linalg_vector_norm" else (None,) if name.startswith("norm") else ()
            if dims is not None or not name.startswith("norm"):
                yield call(name, x, *options, dims, keep)
        for name, unbiased in product(("var.dim", "std.dim"), (False, True)):
            yield call(name, x, dims, unbiased, keep)
        for name, correction in product(("var.correction", "std.correction"), (0, 1, None, 2)):
            yield call(name, x, dims, correction=correction, keepdim=keep)
    for name in ("sum", "mean", "var", "std", "prod", "max", "min", "norm.Scalar"):
        yield call(name, x)
    yield call("mean", n, dtype=torch.float64)
    yield call("sum.dim_IntList", n, [1])
    yield call("sum.dim_IntList", flags(3, 4), [1])
    yield call("sum", n)
    yield call("sum.dim_IntList", n, [1], dtype=torch.float64)
    for order in (1, 2, 2.5, inf, -inf, 0, 0.3):
        yield call("linalg_vector_norm", x, order, [1])
    for arguments in ((None, [1, 2]), (2, [1]), ("ignored", None), (2, [1, 2]), (inf, [0, 1])):
        if arguments[0] != "ignored":
            yield call("linalg_norm", x, *arguments)
    yield call("linalg_norm", x)
    for order in (2.0, 1.0, inf, 0.0, 1.5):
        yield call("cdist", floats(2, 4, 6), floats(2, 5, 6), order)
    yield call("cdist", floats(4, 6), floats(3, 5, 6))
    for reduction in (0, 1, 2):
        yield call("mse_loss", x, floats(3, 4, 5), reduction)
    yield call("_is_all_true", flags(3, 4))


def _orders() -> Iterator[Sample]:
    x = floats(3, 4, 5)
    for name in ("_softmax", "_log_softmax"):
        yield call(name, x, 1, False)
    for name in ("softmax.int", "log_softmax.int"):
        yield call(name, x, -1)
    yield call("sort.stable", x, stable=True, dim=1)
    yield call("argsort.stable", x, stable=True, dim=1, descending=True)
    yield call("diff", x, 1, -1, floats(3, 4, 2))
    for name in ("tril", "triu"):
        yield call(name, x, 1)
    yield call("matrix_exp", floats(3, 4, 4))
    for name in ("fft_fft", "fft_rfft", "fft_ifft"):
        yield call(name, x, None, 1)
        yield call(name, x, 6)
    for name in ("fft_fftn", "fft_rfftn", "fft_ifftn"):
        yield call(name, x, [4, 5])
        yield call(name, x, None, [0, 1])
        yield call(name, x)
    for name in ("fft_fft2", "fft_rfft2"):
        yield call(name, x)
    yield call("where", flags(4, 6))
    yield call("nonzero", flags(4, 6))
    yield call("histc", x, 4)
    yield call("bincount", numbers(5, 7))
    yield call("masked_scatter", x, flags(3, 4, 1), floats(60))


# Tensors out of nothing


def _creations() -> Iterator[Sample]:
    x = floats(3, 5)
    for name in ("zeros", "ones", "empty.memory_format"):
        yield call(name, [4, 6], dtype=torch.float64)
    for name in ("new_zeros", "new_ones", "new_empty"):
        yield call(name, x, [4, 6])
    for name in ("zeros_like", "ones_like", "empty_like", "zero"):
        yield call(name, x)
    for fill in (0, 0.7, 2, True, -inf):
        yield call("full", [4, 6], fill)
        yield call("new_full", x, [4, 6], fill)
        yield call("full_like", x, fill)
    yield call("eye", 4)
    yield call("eye.m", 4, 6)
    yield call("scalar_tensor", 0.7)
    for name in ("rand", "randn"):
        yield call(name, [4, 6])
        yield call(f"{name}.generator", [4, 6], generator=None)
    yield call("randperm", 4)


_FAMILIES = (
    _pointwise, _casts, _arithmetic, _comparisons, _choices, _products, _einsums, _convolutions, _pools, _resamplings,
    _places, _norms, _attention, _recurrences, _indices, _tables, _scatters, _reshapes, _reorderings, _repetitions,
    _concatenations, _splits, _slices, _borders, _reductions, _orders, _creations,
)  # fmt: skip
