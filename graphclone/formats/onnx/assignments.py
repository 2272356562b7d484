"""Sizes for the dynamic axes of an ONNX graph, by which it is read: which to try, likeliest first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import onnx_ir

from graphclone.errors import GraphcloneError
from graphclone.formats.onnx.sizes import READINGS, evaluate_symbol, fresh_sizes
from graphclone.graph.symbols import IMAGES, SIGNALS, sums

Assignment = Mapping[str, tuple[int, ...]]
"""A size per reading for every symbol."""

_STEP = 32
"""What the sizes of images are multiples of where they are halved again and again."""

_SIGNAL_STEP = 2560
"""What the lengths of pieces of sound are multiples of, so that pieces of 160, 256, 320 and 512 samples fit in."""


@dataclass(frozen=True)
class _Axis:
    """A dynamic axis of an input."""

    value: onnx_ir.Value
    number: int
    symbol: str


def symbol_of(value: onnx_ir.Value, axis: int, size: onnx_ir.SymbolicDim) -> str:
    """The symbol of a dynamic axis: one of its own where it has none."""
    return size.value or f"{value.name}_{axis}"


def assignments(
    model: onnx_ir.Model, name: str, shapes: Mapping[str, Sequence[int]], told: Iterable[Assignment] = ()
) -> Iterator[Assignment]:
    """Sizes for every symbol, those that say most first.

    Different ones for all; one the sum of others; equal ones for equal positions; those of images; those of a signal;
    what failures tell of; one of them 1; what is known to be accepted; and single sizes that models are made for, which
    other sizes of the same axis do not fit.

    Args:
        model: whose inputs are looked at.
        name: for messages.
        shapes: of inputs, that are known to be accepted.
        told: those that failures tell of, read when it is their turn.

    Raises:
        GraphcloneError: an input declares no shape.
    """
    axes = _axes(model, name)
    symbols = {axis.symbol: axis.number for axis in axes}
    occupied = _static_sizes(model)
    plain = [symbol for symbol in symbols if _is_plain(symbol, symbols)]
    fresh = [fresh_sizes(occupied, 5 + 16 * reading) for reading in range(READINGS)]
    base = {symbol: tuple(next(sizes) for sizes in fresh) for symbol in plain}
    yield _completed(symbols, base)
    if not symbols:
        return
    for whole, a, b in sums(plain):
        both = tuple(one + other for one, other in zip(base[a], base[b], strict=True))
        yield _completed(symbols, base | {whole: both})
    by_position = {axis: tuple(next(sizes) for sizes in fresh) for axis in sorted(set(symbols.values()))}
    yield {symbol: by_position[axis] for symbol, axis in symbols.items()}
    others = [symbol for symbol in plain if symbols[symbol]] or plain
    images = base | _multiples(_STEP, others)
    yield _completed(symbols, images)
    signals = [base | _multiples(_SIGNAL_STEP, others)] if len(others) == 1 else []
    yield from (_completed(symbols, sizes) for sizes in signals)
    yield from told
    for sizes in (base, images, *signals):
        yield from (_completed(symbols, sizes | {symbol: (1,) * READINGS}) for symbol in plain)
    yield from _single(axes, symbols, base, shapes)


def _axes(model: onnx_ir.Model, name: str) -> list[_Axis]:
    axes: list[_Axis] = []
    for value in model.graph.inputs:
        if value.name in model.graph.initializers or not isinstance(value.type, onnx_ir.TensorType):
            continue
        if value.shape is None:
            raise GraphcloneError(
                f"{name}: input {value.name} declares no shape; give it one, with symbols where it varies"
            )
        sizes = [(axis, size) for axis, size in enumerate(value.shape) if not isinstance(size, int)]
        axes += [_Axis(value, axis, symbol_of(value, axis, size)) for axis, size in sizes]
    return axes


def _static_sizes(model: onnx_ir.Model) -> set[int]:
    """Sizes that would be mistaken for others: those of weights and of static axes."""
    values = [*model.graph.initializers.values(), *model.graph.inputs]
    return {size for value in values for size in _numbers(value)}


def _numbers(value: onnx_ir.Value) -> list[int]:
    shape = value.const_value.shape if value.const_value is not None else value.shape
    return [size for size in shape or () if isinstance(size, int)]


def _is_plain(symbol: str, symbols: Mapping[str, int]) -> bool:
    """Whether a symbol is one, and no sum or product of others."""
    return symbol.isidentifier() or evaluate_symbol(symbol, dict.fromkeys(symbols, 1)) is None


def _completed(symbols: Mapping[str, int], base: Mapping[str, tuple[int, ...]]) -> Assignment:
    """The sizes of plain symbols, with those of sums and products of them."""
    completed = dict(base)
    for symbol in symbols:
        if symbol not in completed:
            readings = ({name: sizes[i] for name, sizes in base.items()} for i in range(READINGS))
            completed[symbol] = tuple(evaluate_symbol(symbol, sizes) or 1 for sizes in readings)
    return completed


def _multiples(step: int, symbols: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Multiples of a step, different for all."""
    return {
        symbol: tuple(step * (READINGS * (index + 1) + reading) for reading in range(READINGS))
        for index, symbol in enumerate(symbols)
    }


def _single(
    axes: Sequence[_Axis],
    symbols: Mapping[str, int],
    base: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, Sequence[int]],
) -> Iterator[Assignment]:
    """Assignments in which symbols have one size only: that of an input which is given, one of an image, 1, or
    that of a signal with all others 1.
    """
    one = (1,) * READINGS
    accepted = {a.symbol: (shapes[a.value.name or ""][a.number],) * READINGS for a in axes if a.value.name in shapes}
    if accepted:
        assignment = {symbol: accepted.get(symbol, base.get(symbol, one)) for symbol in symbols}
        yield assignment | {symbol: base[symbol] for symbol in base if not symbols[symbol]}
        yield assignment
    batch = next((base[symbol] for symbol, axis in symbols.items() if axis == 0 and symbol in base), one)
    for size in IMAGES:
        for first in dict.fromkeys((batch, one)):
            yield {symbol: (size,) * READINGS if axis else first for symbol, axis in symbols.items()}
    ones = dict.fromkeys(symbols, one)
    yield ones
    for length, symbol in product(sorted(SIGNALS), symbols):
        yield ones | {symbol: (length,) * READINGS}


def failed_sizes(sizes: Assignment, meeting: Sequence[int]) -> Iterator[Assignment]:
    """The sizes with one symbol fixed at what it met, for each symbol that has one of the sizes that do not fit.

    A file may have an axis that it says varies, in front of a state or a shape that is stored.

    Args:
        sizes: with which a file could not be read.
        meeting: the sizes that do not go together.
    """
    for symbol, own in sizes.items():
        for other in meeting if set(own) & set(meeting) else ():
            if other not in own:
                yield {**sizes, symbol: (other,) * READINGS}
