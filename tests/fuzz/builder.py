"""Grow a random module statement by statement; each is run at several widths and sizes before it is kept.

An axis is known by its sizes in every environment: (8, 16, 8) is a width of ``8 * n``, (3, 3, 4) a batch. Two axes
agree where these do, and code that does not run everywhere is thrown away, so nothing here infers any shape.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.fuzz.program import Given, Program, Statement, reads

Sig = tuple[int, ...]
WIDTHS_IN = (1, 2, 1)
"""The width n of every environment; the last has other sizes of the inputs."""

MOST_ELEMENTS, MOST_RANK, GREATEST = 6000, 5, 1e4


class Skip(Exception):
    """Nothing here for this maker to work on."""


@dataclass(frozen=True)
class Var:
    """A tensor of the program: its axes, and f, i or b for its dtype."""

    name: str
    shape: tuple[Sig, ...]
    kind: str
    given: bool = False

    @property
    def rank(self) -> int:
        return len(self.shape)


Maker = Callable[["Builder"], "str | tuple[str, ...]"]


def constant(size: int) -> Sig:
    return (size,) * len(WIDTHS_IN)


def times(a: Sig, b: Sig) -> Sig:
    return tuple(x * y for x, y in zip(a, b, strict=True))


def over(a: Sig, b: Sig) -> Sig | None:
    """The quotient of two sizes, if it is whole everywhere."""
    return None if any(x % y for x, y in zip(a, b, strict=True)) else tuple(x // y for x, y in zip(a, b, strict=True))


def is_constant(sig: Sig) -> bool:
    return len(set(sig)) == 1


def is_width(sig: Sig) -> bool:
    """Whether it depends on n alone, if on anything: parameters may have it."""
    return sig[0] == sig[2]


def grows(sig: Sig) -> bool:
    return is_width(sig) and not is_constant(sig)


class Builder:
    """The program so far, and what every variable is in every environment."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.seed, self.count = seed, 0
        self.vars: list[Var] = []
        self.given: list[Given] = []
        self.inits: dict[str, str] = {}
        self.statements: list[Statement] = []
        self.target = ""
        self.hosts = [nn.Module() for _ in range(2)]
        for host, n in zip(self.hosts, (1, 2), strict=True):
            host.n = n
        names = {"torch": torch, "nn": nn, "F": F, "math": math}
        self.frames: list[dict[str, Any]] = [{**names, "self": self.hosts[n - 1], "n": n} for n in WIDTHS_IN]
        rng = self.rng
        self.widths = [times(constant(rng.choice([2, 3, 4, 6, 8, 12])), WIDTHS_IN) for _ in range(2)]
        self.widths.append(constant(rng.choice([2, 4, 5, 6])))
        self.sizes = tuple(rng.choice([*(w[0] for w in self.widths), 2, 3, 4, 5]) for _ in range(2))
        self.others = tuple(rng.choice([k for k in (1, 2, 3, 4, 5, 6, 7) if k != s]) for s in self.sizes)

    # What makers ask for

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def number(self, low: float = 0.2, high: float = 1.5) -> str:
        return f"{self.rng.uniform(low, high):.2f}"

    def pick(self, rank: int | Sequence[int] | None = None, kind: str = "f", where: Any = None) -> Var:
        """A variable, late ones first."""
        ranks = (rank,) if isinstance(rank, int) else rank
        found = [
            v
            for v in self.vars
            if v.kind in kind and (ranks is None or v.rank in ranks) and (where is None or where(v))
        ]
        if not found:
            raise Skip
        return self.rng.choices(found, [1.25**i for i in range(len(found))])[0]

    def like(self, var: Var) -> Var:
        """Another variable of the same shape, if there is one."""
        others = [v for v in self.vars if (v.shape, v.kind) == (var.shape, var.kind) and v != var]
        return self.rng.choice(others) if others else var

    def axis(self, var: Var, where: Callable[[Sig], bool] = lambda _: True) -> int:
        """An axis, those that may grow first."""
        found = [i for i in range(var.rank) if where(var.shape[i])]
        if not found:
            raise Skip
        return self.rng.choices(found, [3 if grows(var.shape[i]) else 1 for i in found])[0]

    def dim(self, var: Var, axis: int) -> int:
        """An axis as written: from the front or from the back."""
        return axis if self.chance(0.5) else axis - var.rank

    def width(self) -> Sig:
        return self.rng.choices(self.widths, [4, 3, 1])[0]

    def divisor(self, sig: Sig, least: int = 2) -> Sig:
        """A true divisor, with or without n."""
        candidates = [constant(k) for k in (2, 3, 4)] + [tuple(k * n for n in WIDTHS_IN) for k in (1, 2, 3, 4)]
        found = [c for c in candidates if c[0] >= least and (over(sig, c) or (0,))[0] > 1]
        if not found:
            raise Skip
        return self.rng.choice(found)

    def at_init(self, sig: Sig) -> str:
        """A size as ``__init__`` writes it."""
        if not is_width(sig):
            raise Skip
        return _in_n(sig, "n")

    def size(self, sig: Sig, avoid: str = "") -> str:
        """A size as ``forward`` writes it: a number, or read off a tensor."""
        read = [
            f"{v.name}.{'shape[{}]' if self.chance(0.7) else 'size({})'}".format(i)
            for v in self.vars
            if v.name != avoid
            for i, s in enumerate(v.shape)
            if s == sig
        ]
        if read and (not is_width(sig) or self.chance(0.3)):
            return self.rng.choice(read)
        if is_width(sig):
            return _in_n(sig, "self.n")
        for first in {s for v in self.vars for s in v.shape if not is_width(s)}:
            rest = over(sig, first)
            if rest is not None and rest != sig:
                return f"{self.size(first)} * {self.size(rest)}"
        raise Skip

    def module(self, code: str) -> str:
        """A submodule, made by the code."""
        return self._attribute("m", "self.{0} = " + code)

    def parameter(self, *sizes: Sig, code: str = "torch.randn({})") -> str:
        made = code.format(", ".join(self.at_init(s) for s in sizes))
        return self._attribute("p", f"self.{{0}} = nn.Parameter({made} * 0.5)")

    def buffer(self, code: str) -> str:
        return self._attribute("b", f'self.register_buffer("{{0}}", {code}, persistent={self.chance(0.5)})')

    def also(self, attribute: str, line: str) -> None:
        """One more line of ``__init__`` that belongs to an attribute."""
        self.inits[attribute.removeprefix("self.")] += f"\n{line}"

    def _attribute(self, letter: str, line: str) -> str:
        name = f"{letter}{self.count}_{len(self.inits)}".replace("_", "0")
        self.inits[name] = line.format(name)
        return f"self.{name}"

    # Growing

    def give(self, code: str, keyword: bool = False) -> str:
        """One more input, made of B and T."""
        given = Given(f"x{len(self.given)}", code, keyword)
        self.given.append(given)
        for frame, b, t in zip(self.frames, *self._environments(), strict=True):
            torch.manual_seed(0)
            frame[given.name] = eval(code, {"torch": torch, "B": b, "T": t})
        if isinstance(self.frames[0][given.name], torch.Tensor):
            self.vars.append(self._seen(given.name, given=True))
        return given.name

    def _environments(self) -> tuple[list[int], list[int]]:
        (b, t), (b2, t2) = self.sizes, self.others
        return [b, b, b2], [t, t, t2]

    def step(self, maker: Maker) -> bool:
        """Add what a maker makes, if it runs everywhere. Whether it did."""
        self.count += 1
        self.target = f"h{self.count}"
        before = dict(self.inits)
        try:
            made = maker(self)
            lines = (f"{self.target} = {made}",) if isinstance(made, str) else made
            self._run(lines, set(self.inits) - set(before))
        except Exception:  # whatever torch says about code that does not fit
            self.inits = before
            return False
        defines = any(line.startswith(f"{self.target} = ") for line in lines)
        self.statements.append(Statement(self.target if defines else None, lines))
        return True

    def _run(self, lines: Sequence[str], fresh: set[str]) -> None:
        code = "\n".join(lines)
        for name in sorted(fresh, key=list(self.inits).index):
            for host in self.hosts:
                torch.manual_seed(0)
                exec(self.inits[name], {**self.frames[0], "self": host, "n": host.n})
                host.eval()
        given = [{v.name: f[v.name].clone() for v in self.vars} for f in self.frames]
        weights = [[p.detach().clone() for p in host.state_dict().values()] for host in self.hosts]
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for frame in self.frames:
                    exec(code, frame)
            self._check(given, weights)
        except Exception:
            for frame, kept in zip(self.frames, given, strict=True):
                for name, tensor in kept.items():
                    frame[name] = tensor
            for host, values in zip(self.hosts, weights, strict=True):
                for p, value in zip(host.state_dict().values(), values, strict=True):
                    p.copy_(value)
            raise

    def _check(self, given: list[dict[str, torch.Tensor]], weights: list[list[torch.Tensor]]) -> None:
        """Inputs and weights are as they were, and the variable is one to go on from."""
        fixed = [v.name for v in self.vars if v.given]
        same = all(
            torch.equal(f[name], kept[name]) for f, kept in zip(self.frames, given, strict=True) for name in fixed
        )
        kept_weights = all(
            torch.equal(p, value)
            for host, values in zip(self.hosts, weights, strict=True)
            for p, value in zip(host.state_dict().values(), values, strict=True)
        )
        if not (same and kept_weights):
            raise Skip
        for var in self.vars:
            _check_values(self.frames[0][var.name], var.kind)
        if self.target in self.frames[0]:
            self.vars.append(self._seen(self.target))

    def _seen(self, name: str, given: bool = False) -> Var:
        tensors = [frame[name] for frame in self.frames]
        first = tensors[0]
        kind = "f" if first.is_floating_point() else "b" if first.dtype == torch.bool else "i"
        if len({t.ndim for t in tensors}) > 1 or first.ndim > MOST_RANK or not 0 < tensors[1].numel() <= MOST_ELEMENTS:
            raise Skip
        if kind == "f" and first.dtype != torch.float64:
            raise Skip
        _check_values(first, kind)
        return Var(name, tuple(zip(*(t.shape for t in tensors), strict=True)), kind, given)

    def finish(self, outputs: Sequence[str], shape: str) -> Program:
        others = ((self.others[0], self.sizes[1]), (self.sizes[0], self.others[1]), self.others, (1, self.sizes[1]))
        used = {name for s in self.statements for name in reads(s.text)} | {n for o in outputs for n in reads(o)}
        kept = tuple(g for g in self.given if g.name in used)
        return Program(self.seed, self.sizes, others, kept, self.inits, tuple(self.statements), tuple(outputs), shape)


def _check_values(tensor: torch.Tensor, kind: str) -> None:
    if kind == "f" and not (tensor.isfinite().all() and tensor.abs().amax() < GREATEST):
        raise Skip


def _in_n(sig: Sig, n: str) -> str:
    """A size as an expression in n."""
    one, two = sig[0], sig[1]
    if one == two:
        return str(one)
    if two % one == 0 and two // one in (2, 4):
        return " * ".join([str(one), *[n] * (two // one // 2)])
    slope = two - one
    return f"({slope} * {n} {'+' if one > slope else '-'} {abs(one - slope)})"
