"""Inputs for an ONNX file, made from what the file declares and from what the user says.

Sizes and values are tried until ONNX Runtime accepts them and every output has a finite element; failing that, until
it accepts them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, product

import numpy as np
import numpy.typing as npt
import torch

from graphclone.errors import GraphcloneError, Remedy
from graphclone.formats.onnx.given_shapes import check_shape
from graphclone.formats.onnx.tensors import to_array, to_torch
from graphclone.graph.symbols import IMAGES, SIGNALS, sums
from graphclone.runtime.arrays import Array, is_float
from graphclone.runtime.drawing import drawn_like
from graphclone.runtime.sessions import Port, Session

Feeds = dict[str, Array]

UserInputs = Mapping[str, Array | Sequence[int]]
"""What the user says about inputs, by name: an array, or sizes."""

_Sizes = Mapping[tuple[str, int], int]
"""The size of every axis of every input."""

_BOUNDS = (1000, 100, 30, 10, 5, 3)
"""What integer inputs are drawn below, if the source runs with it; 2 otherwise."""

_RANGES = ((0, 2), (1, 3), (2, 10), (16, 100), (100, 1000))
"""From where to where integers are drawn until the source accepts some."""

_DECIDED = 0.25
"""How many of many integers are such as they are compared with."""

_SEEDS = 3
"""How often values are drawn anew for sizes that might do."""

_PATIENCE = 12
"""Runs without a number in every output after which no more are tried."""

_STEP = 32
"""By how much the sizes of images differ."""

_SAY = Remedy("inputs", "says what is accepted", {"NAME": "array or shape"})


class DrawnInputs:
    """Draws inputs that a session accepts."""

    def __init__(
        self,
        session: Session,
        bound: int | None = None,
        known_sizes: Mapping[str, Sequence[int]] | None = None,
        user_inputs: UserInputs | None = None,
        holds: Callable[[Feeds], bool] = lambda _: True,
        compared: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        """Take what the user says about the inputs of a session.

        Args:
            session: that is to accept them.
            bound: what integers are drawn below; found by trying where it is not given.
            known_sizes: the only sizes that an axis is known to have, by its symbol, ``name_axis`` where it has none.
            user_inputs: arrays and sizes that the user gives.
            holds: whether an input set leaves something to compare; those that do go before those that do not.
            compared: what inputs are compared with, by name; integers, and single floats, take such values, too, if the
                source runs with them.

        Raises:
            GraphcloneError: what is given fits no input.
        """
        self.session = session
        self.user_inputs = {name: _checked(session, name, item) for name, item in (user_inputs or {}).items()}
        self.known_sizes = dict(known_sizes or {})
        self.holds = holds
        self.compared = dict(compared or {})
        self.search = bound is None
        self.integers = [p.name for p in session.inputs if p.dtype.kind in "iu" and p.name not in self._arrays()]
        self.ranges = dict.fromkeys(self.integers, (0, bound or _RANGES[0][1]))
        self.reason = ""

    def _arrays(self) -> dict[str, Array]:
        return {name: item for name, item in self.user_inputs.items() if isinstance(item, np.ndarray)}

    def draw(self, sets: int, seed: int) -> Iterator[Feeds]:
        """Input sets of different sizes where these are dynamic; the first one has the arrays that are given.

        Raises:
            GraphcloneError: the session accepts none.
        """
        for index in range(sets):
            choice = self._accepted(index, seed + index)
            if choice is None:
                if index == 0:
                    raise GraphcloneError(f"no inputs of the declared types are accepted: {self.reason}", _SAY)
                continue
            sizes, value_seed = choice
            if index == 0 and self.search:
                self._raise_bounds(sizes, value_seed)
            yield self._feeds(sizes, value_seed, index)

    # Trying

    def _accepted(self, index: int, seed: int) -> tuple[_Sizes, int] | None:
        """Sizes and a seed of values with which the session runs; those that let it return numbers, if there are."""
        searched = index == 0 and self.search and self.integers
        spans: Sequence[tuple[int, int] | None] = _RANGES if searched else (None,)
        compared = self.compared
        run: tuple[_Sizes, int, Mapping[str, tuple[int, int]], Mapping[str, Sequence[float]]] | None = None
        patience = _PATIENCE
        tries = product(dict.fromkeys((bool(compared), False)), spans, range(_SEEDS), list(self._sizes(index)))
        for deciding, span, attempt, sizes in tries:
            self.compared = compared if deciding else {}
            if span is not None:
                self.ranges = dict.fromkeys(self.integers, span)
            value_seed = seed + 1001 * attempt
            feeds = self._feeds(sizes, value_seed, index)
            results = self._returned(feeds)
            if results is None:
                continue
            if all(_numbers(array).any() for array in results) and self.holds(feeds):
                return sizes, value_seed
            run = run or (sizes, value_seed, self.ranges, self.compared)
            patience -= 1
            if not patience:
                break
        if run is None:
            return None
        sizes, value_seed, self.ranges, self.compared = run[0], run[1], dict(run[2]), dict(run[3])
        return sizes, value_seed

    def _returned(self, feeds: Feeds) -> list[Array] | None:
        """What the session returns; None where it refuses."""
        try:
            return list(self.session.run(feeds).values())
        except GraphcloneError as error:
            self.reason = str(error)
            return None

    def _raise_bounds(self, sizes: _Sizes, seed: int) -> None:
        """Find for every integer input how large its values may be."""
        for name in self.integers:
            low, least = self.ranges[name]
            for bound in _BOUNDS:
                if bound <= least:
                    break
                self.ranges[name] = (low, bound)
                results = self._returned(self._feeds(sizes, seed, 0))
                if results is not None and all(_numbers(array).all() for array in results):
                    break
                self.ranges[name] = (low, least)

    # Sizes

    def _sizes(self, index: int) -> Iterator[_Sizes]:
        """Sizes of all axes: one per symbol, or per position, or one symbol the sum of two, or the same for all, or 1,
        or one of them 1, or those of images, or that of a signal with all others 1.

        Inputs that belong together need not share a symbol, and those that share a position need not be equal, so
        input sets take turns in which of both is tried first.
        """
        axes = [(port, axis, size) for port in self.session.inputs for axis, size in enumerate(port.shape)]
        sizes_of = self._symbol_sizes()
        static = {(port.name, axis): size for port, axis, size in axes if isinstance(size, int)}
        symbols = {(p.name, axis): _symbol(p, axis) for p, axis, size in axes if not isinstance(size, int)}
        static |= {place: sizes_of[symbol] for place, symbol in symbols.items() if symbol in sizes_of}
        free = {place: symbol for place, symbol in symbols.items() if symbol not in sizes_of}
        position: dict[str, int] = {}
        for (_, axis), symbol in free.items():
            position.setdefault(symbol, axis)
        names = [size for _, _, size in axes if isinstance(size, str) and size in position]
        for numbers in (
            *self._sizes_from_file(position, index),
            *_by_symbol(position, list(dict.fromkeys(names)), index),
        ):
            yield static | {place: numbers[symbol] for place, symbol in free.items()}

    def _sizes_from_file(self, position: Mapping[str, int], index: int) -> Iterator[Mapping[str, int]]:
        """The sizes that symbols are known to have, in turn; few along the first axis, which takes any as a rule."""
        if position and position.keys() <= self.known_sizes.keys():
            sizes = {symbol: self.known_sizes[symbol][index % len(self.known_sizes[symbol])] for symbol in position}
            yield {symbol: size if position[symbol] else 2 + index for symbol, size in sizes.items()}
            yield sizes

    def _symbol_sizes(self) -> dict[str, int]:
        """The one size of symbols that have only one."""
        sizes_of = {symbol: sizes[0] for symbol, sizes in self.known_sizes.items() if len(set(sizes)) == 1}
        ports = {port.name: port for port in self.session.inputs}
        for name, item in self.user_inputs.items():
            sizes = item.shape if isinstance(item, np.ndarray) else item
            sizes_of |= {_symbol(ports[name], axis): size for axis, size in enumerate(sizes)}
        return sizes_of

    # Values

    def _feeds(self, sizes: _Sizes, seed: int, index: int) -> Feeds:
        """Arrays of these sizes: those that are given at first, then others like them; random ones otherwise."""
        random = np.random.default_rng(seed)
        arrays = self._arrays()
        return {
            port.name: self._like(arrays[port.name], seed, index)
            if port.name in arrays
            else self._array(port, sizes, seed, random)
            for port in self.session.inputs
        }

    @staticmethod
    def _like(array: Array, seed: int, index: int) -> Array:
        if not index:
            return array
        return to_array(drawn_like(to_torch(array), {}, torch.Generator().manual_seed(seed)))

    def _array(self, port: Port, sizes: _Sizes, seed: int, random: np.random.Generator) -> Array:
        shape = [sizes[port.name, axis] for axis in range(len(port.shape))]
        if port.dtype.kind == "b" and not shape:  # a switch, which two input sets should not have alike
            return np.asarray(bool(seed % 2))
        if is_float(port.dtype):
            drawn = np.asarray(random.standard_normal(shape))
        else:
            low, high = self.ranges.get(port.name, (0, 2))
            if port.dtype.kind in "iu":
                high = min(high, int(np.iinfo(port.dtype).max))
            drawn = np.asarray(random.integers(low, high, shape))
        return self._decided(port, drawn, seed, random).astype(port.dtype)

    def _decided(self, port: Port, drawn: Array, seed: int, random: np.random.Generator) -> Array:
        """What is drawn, or what it is compared with: a single number takes turns, of other integers some are such."""
        numbers = self.compared.get(port.name, ())
        if not numbers or (drawn.size != 1 and is_float(port.dtype)):
            return drawn
        if drawn.size == 1:  # not all inputs take the first at once
            turn = (seed + list(self.compared).index(port.name)) % (len(numbers) + 1)
            return drawn if turn == len(numbers) else np.full(drawn.shape, numbers[turn])
        decided: Array = np.where(random.random(drawn.shape) < _DECIDED, random.choice(numbers, drawn.shape), drawn)
        return decided


def _by_symbol(position: Mapping[str, int], symbols: Sequence[str], index: int) -> Iterator[Mapping[str, int]]:
    """Sizes of symbols, likeliest first.

    Args:
        position: the axis of each.
        symbols: those that the file names.
        index: of the input set, which are to differ.
    """
    numbers = dict(zip(position, count(2 + index, 3), strict=False))
    by_position = {symbol: 2 + index + 3 * axis for symbol, axis in position.items()}
    yield from (numbers, by_position) if index % 2 else (by_position, numbers)
    for whole, a, b in sums(symbols):
        yield numbers | {whole: numbers[a] + numbers[b]}
    for least in (2 + index, 1):
        yield dict.fromkeys(position, least)
    yield from (numbers | {symbol: 1} for symbol in position)
    for side, first, step, skew in product(sorted(IMAGES), (1 + index, 1), (_STEP * index, 0), (_STEP, 0)):
        yield {symbol: side + step + skew * (axis % 2) if axis else first for symbol, axis in position.items()}
    for length, symbol in product(sorted(SIGNALS), position):
        yield dict.fromkeys(position, 1) | {symbol: length}


def _symbol(port: Port, axis: int) -> str:
    """The symbol of an axis, as the file is read: one of its own where it has none."""
    size = port.shape[axis]
    return size if isinstance(size, str) and size else f"{port.name}_{axis}"


def _numbers(array: Array) -> npt.NDArray[np.bool_]:
    """Which elements are numbers; one that is none for an array without elements."""
    finite = np.isfinite(array) if is_float(array.dtype) else np.ones(array.shape, bool)
    return finite if array.size else np.zeros(1, bool)


# What the user says


def _checked(session: Session, name: str, item: Array | Sequence[int]) -> Array | tuple[int, ...]:
    """What is given for an input, if it fits what the file declares."""
    check_shape(name, tuple(getattr(item, "shape", item)), {port.name: port.shape for port in session.inputs})
    if not isinstance(item, np.ndarray):
        return tuple(item)
    port = next(port for port in session.inputs if port.name == name)
    same = any(item.dtype.kind in kind and port.dtype.kind in kind for kind in ("iu", "b"))
    if not (same or (is_float(item.dtype) and is_float(port.dtype))):
        raise GraphcloneError(f"inputs: {name} has dtype {port.dtype} in the model, not {item.dtype}")
    return item.astype(port.dtype)
