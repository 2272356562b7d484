"""Strategies: how the copies of an input share one weight, the A of ``W' = A (x) W + N``, and how loud N is.

A parameter contracted over an axis must satisfy, for every output index and every source index k, "the
weights of all copies of k sum to the source's weight" (HyperCloning, arXiv 2409.12903, section 3). For an
output widened n_out times and an input widened n_in times, A has shape (n_out, n_in) and rows that sum to 1:

    symmetric, 2 x 2        diagonal, 2 x 2
    [ W/2  W/2 ]            [ W  0 ]
    [ W/2  W/2 ]            [ 0  W ]

The noise N sums to 0 over the copies of every input, so it never changes the function. An input whose copies are one
more or one less than another's has a matrix of its own. Other ways to grow are other matrices:

    blend, 2 x 2            staged, 2 x 2           lemon, 2 x 2             orthogonal, 2 x 2
    [ 3W/4   W/4 ]          [ W  0 ]                [ 0.80 W  0.20 W ]       [   0.8 W  0.2 W ]
    [  W/4  3W/4 ]          [ 0  W ]                [ 0.35 W  0.65 W ]       [ -W / 3   4W / 3 ]

and of a single output that reads two copies, such as a head: ``staged`` takes half of each, as ``symmetric`` does.
Noise may be as loud as the weight has it, or as the number of inputs has it, and of a low rank.

The strategy ``fresh`` makes no copies. New entries are random, except those that must be 0 or a mean to keep the
function. ``graphclone.analysis.fills`` finds these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from graphclone.errors import StrategyError

FloatArray = npt.NDArray[np.float64]
Rule = Callable[[int, int], npt.ArrayLike]
StrategyLike: TypeAlias = "str | Strategy | Rule | npt.ArrayLike"
"""What ``strategy`` accepts."""

PAPER_SNR_DB = 10.0
"""The paper's signal-to-noise ratio of the noisy strategies, in decibels."""

_NET2NET_SNR_DB = 40.0
"""Net2Net adds but a little noise, so that copies part (Chen et al. 2015, arXiv 1511.05641, section 2.3)."""

_RANK = 8
"""The rank of ``low-rank`` noise, usual for adapters (LoRA, Hu et al. 2021, arXiv 2106.09685, table 6)."""

_SPREAD = 0.5
"""The spread of ``mup-noise``: half of what a layer is initialised with."""

_ROW_SUM_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Strategy:
    """A way in which the copies of an input share a weight: ``W' = A (x) W + N`` (HyperCloning, section 3).

    Attributes:
        name: what reports call it.
        rule: a function ``(n_out, n_in) -> A``, a matrix of shape (n_out, n_in) whose rows sum to 1. It is not called
            for n_in = 1, since a single column can only hold ones.
        snr_db: the power of A (x) W over that of N, in decibels; None for noise of another level, or none.
        copies: whether new indices repeat source indices. If not, each is a pad.
        spread: the root mean square of N times the square root of the inputs that an output of the clone adds up; None
            for noise of another level, or none. A layer initialised at random has a spread of about 1.
        rank: of N, as a matrix whose rows are the places along one replicated axis; None for independent entries.

    Raises:
        StrategyError: ``snr_db`` or ``spread`` is not finite, there are both, or ``rank`` is not above 0.

    Examples:
        >>> import numpy as np
        >>> first = gc.Strategy("first", lambda n_out, n_in: np.eye(n_in)[np.zeros(n_out, dtype=int)])
        >>> first.matrix(2, 2)
        array([[1., 0.],
               [1., 0.]])
        >>> torch.allclose(gc.clone(model, (x,), strategy=first).module()(x), model(x), atol=1e-6)
        True
    """

    name: str
    rule: Rule
    snr_db: float | None = None
    copies: bool = True
    spread: float | None = None
    rank: int | None = None

    def __post_init__(self) -> None:
        if self.snr_db is not None and not math.isfinite(self.snr_db):
            raise StrategyError(f"snr_db must be a finite number of decibels, got {self.snr_db}")
        if self.spread is not None and (self.snr_db is not None or not math.isfinite(self.spread)):
            raise StrategyError(f"spread must be a finite number, and alone: got {self.spread}, snr_db {self.snr_db}")
        if self.rank is not None and self.rank < 1:
            raise StrategyError(f"the rank of noise must be at least 1, got {self.rank}")

    @property
    def noisy(self) -> bool:
        """Whether there is an N."""
        return self.snr_db is not None or self.spread is not None

    @property
    def uniform(self) -> bool:
        """Whether A is 1 / n_in everywhere. Output copies then differ in noise only."""
        return self.rule is _symmetric

    def matrix(self, n_out: int, n_in: int) -> FloatArray:
        """A for an output of ``n_out`` copies and an input of ``n_in``, shape (n_out, n_in).

        Raises:
            StrategyError: when the user's matrix or callable gives another shape, an entry that is not finite,
                or a row that does not sum to 1 within 1e-12.
        """
        if n_in == 1:
            return np.ones((n_out, 1))
        matrix = np.array(self.rule(n_out, n_in), dtype=np.float64)
        _check_matrix(matrix, (n_out, n_in), self.name)
        return matrix


@dataclass(frozen=True)
class _Fixed:
    """A rule that knows one matrix; a tuple of rows, so that equal strategies compare equal."""

    rows: tuple[tuple[float, ...], ...]

    def __call__(self, n_out: int, n_in: int) -> FloatArray:
        matrix = np.array(self.rows)
        if matrix.shape != (n_out, n_in):
            raise StrategyError(
                f"the strategy's matrix has shape {matrix.shape}, but a parameter with {n_out} output and "
                f"{n_in} input copies needs {(n_out, n_in)}: give a callable (n_out, n_in) -> matrix instead"
            )
        return matrix


def _symmetric(n_out: int, n_in: int) -> FloatArray:
    return np.full((n_out, n_in), 1.0 / n_in)


def _diagonal(n_out: int, n_in: int) -> FloatArray:
    return np.eye(n_in)[np.arange(n_out) % n_in]


def _staged(n_out: int, n_in: int) -> FloatArray:
    """Networks side by side, whose outputs are averaged (Shen et al. 2022, arXiv 2203.06211, section 3.1).

    An output copy reads the input copies of its own number; where there are more of these, their mean.
    """
    if n_out >= n_in:
        return _diagonal(n_out, n_in)
    own = (np.arange(n_in) % n_out == np.arange(n_out)[:, None]).astype(np.float64)
    matrix: FloatArray = own / own.sum(axis=1, keepdims=True)
    return matrix


@dataclass(frozen=True)
class _Blend:
    """So much of ``symmetric``, and the rest of ``diagonal``: every copy reads all others, and itself most."""

    share: float

    def __call__(self, n_out: int, n_in: int) -> FloatArray:
        matrix: FloatArray = self.share * _symmetric(n_out, n_in) + (1 - self.share) * _diagonal(n_out, n_in)
        return matrix


@dataclass(frozen=True)
class _Circulant:
    """So much of the input copy of the same number, and the rest of the one after it."""

    own: float

    def __call__(self, n_out: int, n_in: int) -> FloatArray:
        after = np.roll(np.eye(n_in), 1, axis=1)[np.arange(n_out) % n_in]
        matrix: FloatArray = self.own * _diagonal(n_out, n_in) + (1 - self.own) * after
        return matrix


_LEAN = 0.6


def _lemon(n_out: int, n_in: int) -> FloatArray:
    """Every output copy weighs the input copies differently (LEMON, Wang et al. 2023, arXiv 2310.07999).

    There is no noise to harm what the weights have learned, and yet no exchange of copies leaves the network as it
    is: each output copy leans towards the input copy of its own number, and less so from copy to copy.
    """
    lean = _LEAN * (1 - np.arange(n_out) / n_out)
    place = np.linspace(1, -1, n_in)
    turned = place[(np.arange(n_in)[None, :] - np.arange(n_out)[:, None]) % n_in]
    matrix: FloatArray = (1 + lean[:, None] * turned) / n_in
    return matrix


_TURN = 0.25
"""The tangent of the angle by which ``orthogonal`` turns."""


def _orthogonal(n_out: int, n_in: int) -> FloatArray:
    """Rows that are orthogonal, so that no output copy repeats another: those of a rotation, each made to sum to 1.

    Input copies are turned into each other in pairs, one after the other.
    """
    turned = np.eye(n_in)
    cosine, sine = 1 / math.hypot(1, _TURN), _TURN / math.hypot(1, _TURN)
    for i in range(n_in - 1):
        plane = np.eye(n_in)
        plane[i : i + 2, i : i + 2] = [[cosine, sine], [-sine, cosine]]
        turned = turned @ plane
    matrix: FloatArray = (turned / turned.sum(axis=1, keepdims=True))[np.arange(n_out) % n_in]
    return matrix


SYMMETRIC = Strategy("symmetric", _symmetric)
DIAGONAL = Strategy("diagonal", _diagonal)
FRESH = Strategy("fresh", _symmetric, copies=False)

STRATEGIES: dict[str, Strategy] = {
    "symmetric": SYMMETRIC,
    "diagonal": DIAGONAL,
    "noisy-symmetric": Strategy("noisy-symmetric", _symmetric, PAPER_SNR_DB),
    "noisy-diagonal": Strategy("noisy-diagonal", _diagonal, PAPER_SNR_DB),
    "net2net": Strategy("net2net", _symmetric, _NET2NET_SNR_DB),
    "low-rank": Strategy("low-rank", _symmetric, PAPER_SNR_DB, rank=_RANK),
    "mup-noise": Strategy("mup-noise", _symmetric, spread=_SPREAD),
    "staged": Strategy("staged", _staged),
    "blend": Strategy("blend", _Blend(0.5)),
    "circulant": Strategy("circulant", _Circulant(0.75)),
    "lemon": Strategy("lemon", _lemon),
    "orthogonal": Strategy("orthogonal", _orthogonal),
    "fresh": FRESH,
}
"""The strategies of the paper, others that make copies, and one that makes none, by name."""

_TAKING: dict[str, Callable[[float], Rule]] = {"blend": _Blend, "circulant": _Circulant}
"""What takes a number after its name, as ``blend:0.3`` does: the share of ``symmetric``, or of the own copy."""


def strategy(spec: StrategyLike, snr_db: float | None = None) -> Strategy:
    """The strategy that ``spec`` stands for: a name, a Strategy, a matrix or a callable that gives one.

    Args:
        spec: one of ``STRATEGIES`` (HyperCloning, section 3), or a user's own: any rows that sum to 1 are
            exact. A matrix serves one pair of copy counts, a callable (n_out, n_in) -> matrix all of them.
        snr_db: noise of that signal-to-noise ratio, instead of the strategy's own.

    Raises:
        StrategyError: for an unknown name, a number where a name takes none, noise asked of a strategy whose noisy form
            has a name of its own, an ``snr_db`` that is not finite, or a matrix that is not 2-D, not finite, or has a
            row that does not sum to 1.
    """
    chosen = _resolve(spec)
    if snr_db is None:
        return chosen
    if chosen in (SYMMETRIC, DIAGONAL, FRESH):
        noisy = f"noisy-{chosen.name}" if chosen.copies else "noisy-symmetric"
        raise StrategyError(f"strategy '{chosen.name}' has no noise, so snr_db does not apply: use '{noisy}'")
    return replace(chosen, snr_db=float(snr_db), spread=None)


def _resolve(spec: StrategyLike) -> Strategy:
    if isinstance(spec, Strategy):
        return spec
    if isinstance(spec, str):
        return _named(spec)
    if callable(spec):
        return Strategy(getattr(spec, "__name__", "custom"), spec)
    return Strategy("custom", _fixed(spec))


def _named(spec: str) -> Strategy:
    name, colon, text = spec.partition(":")
    if name not in STRATEGIES:
        raise StrategyError(f"unknown strategy '{spec}': choose one of {', '.join(STRATEGIES)}")
    if not colon:
        return STRATEGIES[name]
    if name not in _TAKING:
        raise StrategyError(f"strategy '{name}' takes no number, as in '{spec}': {' and '.join(_TAKING)} do")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise StrategyError(f"strategy '{spec}': '{text}' is not a number; write, say, {name}:0.3")
    return Strategy(spec, _TAKING[name](number))


def _fixed(spec: npt.ArrayLike) -> _Fixed:
    expected = f"give a matrix, a callable or one of {', '.join(STRATEGIES)}"
    try:
        matrix = np.array(spec, dtype=np.float64)
    except (TypeError, ValueError):
        raise StrategyError(f"a strategy cannot be made of {spec!r}: {expected}") from None
    if matrix.ndim != 2:
        raise StrategyError(f"a strategy's matrix must be 2-D, got {matrix.ndim}-D: {expected}")
    _check_matrix(matrix, matrix.shape, "custom")
    return _Fixed(tuple(tuple(row) for row in matrix.tolist()))


def _check_matrix(matrix: FloatArray, shape: Sequence[int], name: str) -> None:
    if matrix.shape != tuple(shape):
        raise StrategyError(f"strategy '{name}' gave a matrix of shape {matrix.shape} where {tuple(shape)} is needed")
    if not np.isfinite(matrix).all():
        raise StrategyError(f"strategy '{name}' has an entry that is not finite")
    sums = matrix.sum(axis=1)
    wrong = np.flatnonzero(np.abs(sums - 1) > _ROW_SUM_TOLERANCE)
    if len(wrong):
        row = int(wrong[0])
        raise StrategyError(f"strategy '{name}': every row must sum to 1, but row {row} sums to {sums[row]:.15g}")
