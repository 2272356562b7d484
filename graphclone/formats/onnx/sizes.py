"""Facts about an ONNX graph that is not run: shapes, and the elements of small integer tensors.

The graph is read several times, each time with other sizes of its dynamic axes. An axis that has one size in all
readings is static. The elements of shape computations are evaluated with their sizes filled in, and every element
carries along whether it depends on a dynamic one; what does not is as good as a literal.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from typing import Any

import numpy as np
import onnx_ir

from graphclone.errors import first_line
from graphclone.formats.onnx.ops import Call, TensorInfo, infer, run_call
from graphclone.graph.names import fresh
from graphclone.runtime.arrays import Array

READINGS = 3

_SMALL = 4096
"""Elements of the largest tensor that is evaluated because it may hold sizes."""

LARGE = 1 << 20
"""Elements of the largest tensor that is evaluated because nothing in it depends on the inputs."""

_MOVED = {
    *("Gather", "Slice", "Concat", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose", "Identity", "Cast"),
    *("Split", "Expand", "Tile"),
}
"""Operators that only move elements: what is known about each of them moves along."""

_ELEMENTWISE = {
    *("Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs", "Min", "Max", "Where", "Equal", "Less", "LessOrEqual"),
    *("Greater", "GreaterOrEqual", "And", "Or", "Not", "Floor", "Ceil", "Sqrt", "Pow", "Sign", "Reciprocal"),
}

_CONVOLUTIONS = {"Conv", "ConvInteger", "QLinearConv", "FusedConv"}
_POOLINGS = {"AveragePool", "MaxPool", "LpPool"}
"""Operators that slide a window, which must fit: that of a pooling may be larger by less than it moves on."""

_RECURRENCES = {"RNN": (5,), "GRU": (5,), "LSTM": (5, 6)}
"""Operators with states, and which operands these are at first."""

_RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}

_UNKNOWN_SIZES = (7919, 7927, 7933)
"""Sizes, by reading, that depend on data."""


class ReadingError(Exception):
    """A graph cannot be read with the sizes that its dynamic axes were given.

    Attributes:
        sizes: those that do not go together, if they are known.
    """

    def __init__(self, message: str, sizes: Iterable[int] = ()) -> None:
        super().__init__(message)
        self.sizes = tuple(dict.fromkeys(sizes))


@dataclass(eq=False)
class Fact:
    """The known facts about one value.

    Attributes:
        dtype: one of onnx's tensor types; 0 for what is no tensor.
        shapes: its shape in every reading; None for what is no tensor.
        arrays: its elements in every reading, if they are few and known.
        static_mask: for each element whether it is the same whatever the inputs are; None without elements.
    """

    dtype: int
    shapes: tuple[tuple[int, ...], ...] | None
    arrays: tuple[Array, ...] | None = None
    static_mask: Array | None = None

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Its shape in the first reading."""
        return None if self.shapes is None else self.shapes[0]

    @property
    def constant(self) -> Array | None:
        """Its elements, if all of them are always the same."""
        if self.arrays is None or self.static_mask is None or not self.static_mask.all():
            return None
        return self.arrays[0]

    def dynamic(self) -> list[int]:
        """The axes whose size differs between readings."""
        return [axis for axis, sizes in enumerate(zip(*(self.shapes or ()), strict=True)) if len(set(sizes)) > 1]

    @classmethod
    def of(cls, array: Array) -> Fact:
        """The fact that a value is constant, whatever the inputs are."""
        dtype = onnx_ir.DataType.from_numpy(array.dtype).value
        shapes = (array.shape,) * READINGS
        return cls(dtype, shapes, (array,) * READINGS, np.ones(array.shape, bool))


Declared = Callable[[], Fact | None]
"""What the file says about a value, asked for only where nothing else is known: what it says may be a new size."""


class Sizes:
    """The facts about all values of a graph, collected node by node."""

    def __init__(self, symbols: Mapping[str, tuple[int, ...]]) -> None:
        """Begin without values.

        Args:
            symbols: the sizes that stand for each symbol, one per reading.
        """
        self.symbols = dict(symbols)
        self.unknown = 0
        self.names: dict[tuple[int, ...], str] = {}

    # Nodes

    def add(
        self, name: str, call: Call, operands: Sequence[Fact | None], declarations: Sequence[Declared]
    ) -> list[Fact]:
        """The facts about the results of a node.

        Args:
            name: of the node, for messages.
            call: the operator.
            operands: facts about its inputs; None for one that is left out.
            declarations: what the file says about its outputs, for where nothing else is known.

        Raises:
            ReadingError: the operands do not fit together or are no tensors, or nothing says what shape a result has.
        """
        if any(operand is not None and not operand.dtype for operand in operands):
            raise ReadingError(f"{name} ({call.op}): takes a sequence, a map or an optional, which are not understood")
        evaluated = self._evaluated(call, operands)
        if evaluated is not None:
            return evaluated
        readings = [self._inferred(name, call, operands, i) or [] for i in range(READINGS)]
        return self.combined(name, call.op, readings, declarations)

    def combined(
        self, name: str, op: str, readings: Sequence[Sequence[TensorInfo]], declarations: Sequence[Declared]
    ) -> list[Fact]:
        """The facts about results whose shapes have been inferred in every reading, if they have been."""
        if not all(readings):
            return [self._declared(name, op, declaration()) for declaration in declarations]
        facts = [self._combined(name, op, results) for results in zip(*readings, strict=True)]
        return [
            self._declared(name, op, declaration()) if fact.shapes is None and fact.dtype else fact
            for fact, declaration in zip(facts, declarations, strict=True)
        ]

    def _inferred(
        self, name: str, call: Call, operands: Sequence[Fact | None], reading: int
    ) -> list[TensorInfo] | None:
        infos = [None if fact is None else _reading(fact, reading) for fact in operands]
        try:
            results = infer(call, infos)
        except Exception as error:  # onnx and ONNX Runtime each raise their own
            sizes = [size for info in infos if info is not None for size in info.shape or () if size is not None]
            raise ReadingError(f"{name} ({call.op}): {first_line(error)}", sizes) from error
        if (call.domain, call.op) == ("", "Reshape") and results and infos[0]:
            _check_elements(name, infos[0], results[0])
        if call.op in _CONVOLUTIONS | _POOLINGS and results and infos[0]:
            single = infer(call.without("strides"), infos) if call.op in _CONVOLUTIONS else None
            _check_windows(f"{name} ({call.op})", infos[0], (single or results)[0])
        if not call.domain and call.op in _RECURRENCES:
            _check_states(f"{name} ({call.op})", call, infos)
        return results

    def _combined(self, name: str, op: str, results: Sequence[TensorInfo]) -> Fact:
        first = results[0]
        if any(result.shape is None for result in results):
            return Fact(first.dtype, None)
        shapes = [list(result.shape or ()) for result in results]
        for axis, sizes in enumerate(zip(*shapes, strict=True)):
            if None in sizes:
                number = self.unknown_size()
                for shape, size in zip(shapes, number, strict=True):
                    shape[axis] = size
            elif min(sizes) < 0 or (0 in sizes and any(sizes)):
                raise ReadingError(f"{name} ({op}): nothing is left of its operand")
        return Fact(first.dtype, tuple(tuple(size or 0 for size in shape) for shape in shapes))

    def unknown_size(self) -> tuple[int, ...]:
        """Sizes for an axis that depends on data."""
        self.unknown += 1
        sizes = tuple(size + 2 * self.unknown for size in _UNKNOWN_SIZES)
        self._named(sizes)
        return sizes

    @staticmethod
    def _declared(name: str, op: str, declaration: Fact | None) -> Fact:
        if declaration is None or (declaration.dtype and declaration.shapes is None):
            raise ReadingError(f"{name} ({op}): nothing says what shape its results have")
        return declaration

    # Elements

    def _evaluated(self, call: Call, operands: Sequence[Fact | None]) -> list[Fact] | None:
        """The facts about results whose elements can be computed."""
        if call.op == "Shape" and not call.domain:
            return [_shape_of(call, operands[0])] if operands[0] and operands[0].shapes is not None else None
        if call.op == "CastLike" and operands[1] is not None:
            call, operands = call.cast(operands[1].dtype), operands[:1]
        if not _computable(call, operands):
            return None
        constant = all(fact is None or fact.constant is not None for fact in operands)
        try:
            runs = [run_call(call, [_array(fact, i) for fact in operands]) for i in range(1 if constant else READINGS)]
        except Exception:  # not an operator of this kind after all
            return None
        runs *= READINGS // len(runs)
        if not all(isinstance(array, np.ndarray) for arrays in runs for array in arrays):
            return None
        masks = None if constant else _static_masks(call, operands)
        return [
            _fact(arrays, True if constant else masks[i] if masks else False)
            for i, arrays in enumerate(zip(*runs, strict=True))
        ]

    # Symbols

    def dynamic(self, fact: Fact) -> dict[int, str]:
        """The symbol of every dynamic axis: one of an input, a number times some, or one of its own."""
        assert fact.shapes is not None
        return {axis: self._symbol(tuple(shape[axis] for shape in fact.shapes)) for axis in fact.dynamic()}

    def _symbol(self, sizes: tuple[int, ...]) -> str:
        """The symbol of an axis that has these sizes; the same whenever it is asked for."""
        if sizes not in self.names:
            self.names[sizes] = self._product(sizes) or self._named(sizes)
        return self.names[sizes]

    def _product(self, sizes: tuple[int, ...]) -> str | None:
        """A number times some symbols that the sizes are, in every reading."""
        factors = {
            name: values
            for name, values in self.symbols.items()
            if all(size % one == 0 for size, one in zip(sizes, values, strict=True)) and len(set(values)) > 1
        }
        for count in (1, 2, 3):
            for names in combinations(factors, count):
                products = [prod(factors[name][i] for name in names) for i in range(READINGS)]
                ratios = {size / product for size, product in zip(sizes, products, strict=True)}
                if len(ratios) == 1 and (ratio := ratios.pop()).is_integer():
                    symbol = "*".join(names)
                    return symbol if ratio == 1 else f"{int(ratio)}*{symbol}"
        return None

    def _named(self, sizes: tuple[int, ...]) -> str:
        """A new symbol for an axis that has these sizes."""
        name = fresh(f"u{len(self.symbols)}", set(self.symbols))
        self.symbols[name] = sizes
        return name


def _check_elements(name: str, operand: TensorInfo, result: TensorInfo) -> None:
    """Refuse a Reshape to another number of elements, which onnx infers without a word."""
    old, new = operand.shape, result.shape
    if old is None or new is None or None in (*old, *new):
        return
    if prod(size or 0 for size in old) != prod(size or 0 for size in new):
        text = f"{'x'.join(map(str, old))} does not become {'x'.join(map(str, new))}"
        raise ReadingError(f"{name} (Reshape): {text}", [size for size in (*new, *old) if size is not None])


def _check_windows(name: str, operand: TensorInfo, result: TensorInfo) -> None:
    """Refuse windows larger than what they slide over, of which onnx infers that nothing is left; it does not run.

    A result by single steps tells, as onnx rounds a part of a step up.
    """
    nothing = any(size is not None and size < 1 for size in result.shape or ())
    if nothing and 0 not in (operand.shape or ()):
        raise ReadingError(f"{name}: nothing is left of its operand")


def _check_states(name: str, call: Call, infos: Sequence[TensorInfo | None]) -> None:
    """Refuse states of another batch than the sequence's, which onnx infers without a word; it does not run."""
    sequence, *states = (infos[i] if i < len(infos) else None for i in (0, *_RECURRENCES[call.op]))
    axis = 0 if call.integers().get("layout") else 1
    shapes = [info.shape for info in (sequence, *states) if info is not None and info.shape is not None]
    batches = {size for shape in shapes for size in shape[axis : axis + 1] if size is not None}
    if len(batches) > 1:
        raise ReadingError(f"{name}: batches of {' and '.join(map(str, sorted(batches)))} meet", sorted(batches))


def _computable(call: Call, operands: Sequence[Fact | None]) -> bool:
    """Whether the elements of an operator's results are few and known."""
    if call.domain or call.op in _RANDOM or not all(fact is None or fact.arrays is not None for fact in operands):
        return False
    limit = LARGE if all(fact is None or fact.constant is not None for fact in operands) else _SMALL
    if any(array.size > limit for fact in operands if fact for array in fact.arrays or ()):
        return False
    try:
        results = infer(call, [None if fact is None else _reading(fact, 0) for fact in operands])
    except Exception:  # onnx raises its own; there is nothing to compute
        return False
    shapes = [result.shape for result in results or ()]
    return bool(shapes) and all(shape is None or prod(size or 1 for size in shape) <= limit for shape in shapes)


def _reading(fact: Fact, reading: int) -> TensorInfo:
    array = None if fact.arrays is None else fact.arrays[reading]
    return TensorInfo(fact.dtype, None if fact.shapes is None else fact.shapes[reading], array)


def _array(fact: Fact | None, reading: int) -> Array | None:
    return None if fact is None or fact.arrays is None else fact.arrays[reading]


def _shape_of(call: Call, operand: Fact) -> Fact:
    attributes = call.integers()
    bounds = slice(attributes.get("start"), attributes.get("end"))
    shapes = operand.shapes or ()
    dynamic = operand.dynamic()
    static = [axis not in dynamic for axis in range(len(shapes[0]))]
    arrays = [np.array(shape[bounds], np.int64) for shape in shapes]
    return _fact(arrays, np.array(static[bounds], bool))


def _fact(arrays: Sequence[Array], static: Any) -> Fact:
    """Elements that need not have the same shape in all readings; those that do not are unknown."""
    dtype = onnx_ir.DataType.from_numpy(arrays[0].dtype).value
    same = len({array.shape for array in arrays}) == 1
    mask = np.broadcast_to(np.asarray(static if same else False, bool), arrays[0].shape)
    return Fact(dtype, tuple(array.shape for array in arrays), tuple(arrays), mask)


def _static_masks(call: Call, operands: Sequence[Fact | None]) -> list[Array] | None:
    """For every result a mask of the elements that no input changes; None where all depend on everything."""
    masks = [None if fact is None else fact.static_mask for fact in operands]
    if any(mask is None and fact is not None for mask, fact in zip(masks, operands, strict=True)):
        return None
    if call.op in _ELEMENTWISE:
        return [np.logical_and.reduce(np.broadcast_arrays(*(mask for mask in masks if mask is not None)))]
    if call.op not in _MOVED:
        return None
    data = len(operands) if call.op == "Concat" else 1
    if any(mask is not None and not mask.all() for mask in masks[data:]):
        return None
    data_masks = [None if mask is None else mask.astype(np.int64) for mask in masks[:data]]
    return [
        array.astype(bool) for array in run_call(call, [*data_masks, *(_array(fact, 0) for fact in operands[data:])])
    ]


# Sizes for dynamic axes


def evaluate_symbol(text: str, sizes: Mapping[str, int]) -> int | None:
    """The size an expression of symbols means, such as ``past + sequence``; None where it means none."""
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError:
        return None
    return _value(tree, sizes)


def _value(tree: ast.expr, sizes: Mapping[str, int]) -> int | None:
    if isinstance(tree, ast.Name):
        return sizes.get(tree.id)
    if isinstance(tree, ast.Constant):
        return tree.value if isinstance(tree.value, int) else None
    if not isinstance(tree, ast.BinOp):
        return None
    left, right = _value(tree.left, sizes), _value(tree.right, sizes)
    if left is None or right is None:
        return None
    operations = {ast.Add: left + right, ast.Sub: left - right, ast.Mult: left * right}
    return operations.get(type(tree.op))


def fresh_sizes(others: set[int], start: int) -> Iterator[int]:
    """Odd sizes that no weight has."""
    size = start
    while True:
        if size not in others:
            yield size
        size += 2
