"""Calls of ops that look up, reshape, join, cut, reduce and create."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import inf

import torch

from tests.support.rule_calls import call, flags, floats, numbers
from tests.support.rule_property import Sample

_END = 2**63 - 1
"""What the end of a slice is when it is left out."""


# Indices


def _indices() -> Iterator[Sample]:
    x, i, j = floats(4, 6, 5), numbers(4, 3), numbers(4, 2, 3)
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
    for reduce in ("amax", "amin", "mean", "prod"):
        for included in (True, False):
            rows = torch.tensor([3, 1, 3])
            yield call("index_reduce", x, 1, rows, floats(4, 3, 5), reduce, include_self=included)


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
    yield call("searchsorted.Tensor", floats(4).sort()[0], floats(2, 3))


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
        yield call(f"{name}.intlist", floats(4, 6, 4), [0, 1], [1, 0])
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
    for offset, first, second in ((0, 0, 1), (1, 2, 0), (-1, 0, -1), (2, 1, 2)):
        yield call("diagonal", floats(3, 4, 6), offset, first, second)
    yield call("diagonal", floats(4, 6))
    for value in (2.5, 0, True):
        yield call("fill_diagonal_", floats(4, 6), value)
    yield call("fill_diagonal_", floats(9, 3), 1.0, True)
    yield call("fill_diagonal_", floats(3, 3, 3), -1.0)
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


def _norms_and_sums() -> Iterator[Sample]:
    x, n = floats(3, 4, 5), numbers(9, 3, 4, 5)
    for dims, keep in product(([1], [0, -1], []), (False, True)):
        yield call("mean.dim", x, dims, keep)
        yield call("sum.dim_IntList", x, dims, keep)
        yield call("linalg_vector_norm", x, 3, dims, keep)
        yield call("norm.ScalarOpt_dim", x, None, dims, keep)
    for name in ("mean.dim", "sum.dim_IntList"):
        yield call(name, x, None)
    for name in ("sum", "mean", "prod", "max", "min", "norm.Scalar", "linalg_norm"):
        yield call(name, x)
    yield call("mean", n, dtype=torch.float64)
    yield call("sum", n)
    for counted in (n, flags(3, 4)):
        yield call("sum.dim_IntList", counted, [1])
    yield call("sum.dim_IntList", n, [1], dtype=torch.float64)
    for order in (1, 2, 2.5, inf, -inf, 0, 0.3):
        yield call("linalg_vector_norm", x, order, [1])
    for arguments in ((None, [1, 2]), (2, [1]), (2, [1, 2]), (inf, [0, 1])):
        yield call("linalg_norm", x, *arguments)
    for order in (2.0, 1.0, inf, 0.0, 1.5):
        yield call("cdist", floats(2, 4, 6), floats(2, 5, 6), order)
    yield call("cdist", floats(4, 6), floats(3, 5, 6))
    for dim, eps in ((1, ()), (-1, (1e-6,)), (0, (0.5,))):
        yield call("cosine_similarity", floats(3, 4, 6), floats(3, 4, 6), dim, *eps)
    yield call("cosine_similarity", floats(4, 6), floats(3, 1, 6), 2)
    for reduction in (0, 1, 2):
        yield call("mse_loss", x, floats(3, 4, 5), reduction)
    yield call("_is_all_true", flags(3, 4))


def _spreads() -> Iterator[Sample]:
    x = floats(3, 4, 5)
    for name in ("var", "std"):
        yield call(name, x)
        yield call(f"{name}.dim", floats(3, 1), [1])
        for dims, keep in product(([1], [0, -1], [], None), (False, True)):
            yield call(f"{name}.dim", x, dims, False, keep)
            yield call(f"{name}.dim", x, dims, True, keep)
            for correction in (0, 1, None, 2):
                yield call(f"{name}.correction", x, dims, correction=correction, keepdim=keep)


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


FAMILIES = (
    _indices, _tables, _scatters, _reshapes, _reorderings, _repetitions, _concatenations, _splits, _slices, _borders,
    _norms_and_sums, _spreads, _orders, _creations,
)  # fmt: skip
