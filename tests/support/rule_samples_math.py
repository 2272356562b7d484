"""Calls of ops that compute: elementwise, contractions, windows, norms, attention, recurrences."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import inf

import torch
import transformers.integrations.moe  # noqa: F401  registers an op that has a rule
from torch import Tensor

from tests.support.rule_calls import call, flags, floats, numbers, positive
from tests.support.rule_property import Sample

# Elementwise


def _pointwise() -> Iterator[Sample]:
    x, y, row = floats(4, 6), floats(4, 6), floats(6)
    for name in ("clamp", "clip"):
        yield call(name, x, -0.5, 0.5)
        yield call(f"{name}.Tensor", x, -positive(6), positive(4, 1))
    for name in ("clamp_min", "clamp_max"):
        yield call(name, x, 0.1)
        yield call(f"{name}.Tensor", x, row)
    for name in ("airy_ai", "bessel_j0", "bessel_j1", "expm1", "modified_bessel_i0", "spherical_bessel_j0"):
        yield call(f"special_{name}", x)
    yield call("polygamma", 1, positive(4, 6))
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
        yield call("addbmm", floats(4, 8), floats(3, 4, 6), floats(3, 6, 8), alpha=alpha, beta=beta)
        yield call("addbmm", floats(8), floats(3, 4, 6), floats(3, 6, 8), alpha=alpha, beta=beta)
        for term in (floats(4), floats(1)):
            yield call("addmv", term, floats(4, 6), floats(6), alpha=alpha, beta=beta)
        for term in (floats(4, 6), floats(6)):
            yield call("addr", term, floats(4), floats(6), alpha=alpha, beta=beta)
    yield call("outer", floats(4), floats(6))
    for left, right in (([1], [0]), ([-1], [0]), ([1, 0], [0, 2]), ([], [])):
        yield call("tensordot", floats(4, 6), floats(6, 3, 4), left, right)
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
    for name, dims, corners in (
        ("upsample_nearest1d", 1, ()), ("upsample_nearest2d", 2, ()), ("upsample_nearest3d", 3, ()),
        ("_upsample_nearest_exact1d", 1, ()), ("_upsample_nearest_exact2d", 2, ()),
        ("_upsample_nearest_exact3d", 3, ()), ("upsample_linear1d", 1, (False,)), ("upsample_bilinear2d", 2, (True,)),
        ("upsample_bicubic2d", 2, (False,)), ("upsample_trilinear3d", 3, (False,)),
        ("_upsample_bilinear2d_aa", 2, (False,)), ("_upsample_bicubic2d_aa", 2, (False,)),
    ):  # fmt: skip
        x = floats(2, 3, *(4, 5, 2)[:dims])
        yield call(name, x, [7, 3, 6][:dims], *corners)
        yield call(f"{name}.vec", x, [7, 3, 6][:dims], *corners, None)
        yield call(f"{name}.vec", x, None, *corners, [2.0] * dims)


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
        yield call("batch_norm", floats(4, 6), *affine, None, None, True, 0.1, 1e-2, False)
        yield call("batch_norm", x, *affine, None, None, True, 0.1, 0.0, False)
        yield call("instance_norm", x, *affine, None, None, True, 0.1, 1e-2, False)
        yield call("instance_norm", x, *affine, floats(6), positive(6), False, 0.1, 1e-2, False)
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
    for layers, directions, biased in product((1, 2), (1, 2), (False, True)):
        hidden, inner, given = 5, 4, 3
        hx = [floats(layers * directions, 2, given), floats(layers * directions, 2, hidden)]
        params = []
        for layer, _ in product(range(layers), range(directions)):
            width = inner if layer == 0 else given * directions
            params += [floats(4 * hidden, width), floats(4 * hidden, given)]
            params += [floats(4 * hidden), floats(4 * hidden)] if biased else []
            params.append(floats(given, hidden))
        yield call("lstm.input", floats(2, 3, inner), hx, params, biased, layers, 0.0, False, directions == 2, True)
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


FAMILIES = (
    _pointwise, _casts, _arithmetic, _comparisons, _choices, _products, _einsums, _convolutions, _pools, _resamplings,
    _places, _norms, _attention, _recurrences,
)  # fmt: skip
