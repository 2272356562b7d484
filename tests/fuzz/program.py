"""A random module as text: statements that can be printed, built at any width, and left out one by one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor, nn

HEADER = """\
import math
import torch
import torch.nn.functional as F
from torch import nn

torch.set_default_dtype(torch.float64)
"""

BUILD = """
def make(n=1):
    torch.manual_seed({seed})
    model = M(n).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(0.3 * torch.randn_like(tensor))
            if name.endswith("running_var"):
                tensor.abs_().add_(0.1)
    return model
"""

INPUTS = """
def inputs(B={B}, T={T}, seed=0):
    torch.manual_seed(seed)
    return ({args}), {{{kwargs}}}
"""


@dataclass(frozen=True)
class Given:
    """One input: its name, the code that makes it of B and T, and whether it is given by name."""

    name: str
    code: str
    keyword: bool = False


@dataclass(frozen=True)
class Statement:
    """Lines of ``forward`` that define one variable, or write into one that is there."""

    target: str | None
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True)
class Program:
    """A module's code and its inputs.

    Attributes:
        seed: of its weights.
        sizes: B and T of the example.
        others: B and T of other inputs it may be run on.
        given: its inputs.
        inits: lines of ``__init__`` by the attribute they make.
        statements: of ``forward``.
        outputs: the code of what is returned, by the variable it returns.
        shape: how outputs are returned: ``one``, ``tuple``, ``list``, ``dict`` or ``nested``.
    """

    seed: int
    sizes: tuple[int, int]
    others: tuple[tuple[int, int], ...]
    given: tuple[Given, ...]
    inits: Mapping[str, str]
    statements: tuple[Statement, ...]
    outputs: tuple[str, ...]
    shape: str = "tuple"

    @property
    def probed(self) -> list[tuple[int, int]]:
        """All sizes it is run on, those of the example first."""
        return [self.sizes, *self.others]

    def source(self) -> str:
        """The whole program, self-contained."""
        names = [f"{g.name}=None" if g.keyword else g.name for g in self.given]
        lines = [
            "class M(nn.Module):",
            "    def __init__(self, n=1):",
            "        super().__init__()",
            "        self.n = n",
        ]
        lines += [f"        {line}" for line in self._needed()]
        lines += ["", f"    def forward(self, {', '.join(names)}):"]
        lines += [f"        {line}" for statement in self.statements for line in statement.lines]
        lines += [f"        return {self._returned()}", ""]
        args = "".join(f"{g.code}, " for g in self.given if not g.keyword)
        kwargs = ", ".join(f"{g.name!r}: {g.code}" for g in self.given if g.keyword)
        inputs = INPUTS.format(B=self.sizes[0], T=self.sizes[1], args=args, kwargs=kwargs)
        return "\n".join([HEADER, "", *lines]) + BUILD.format(seed=self.seed) + inputs

    def _needed(self) -> list[str]:
        """The lines of ``__init__`` that ``forward`` needs, by way of others."""
        wanted: set[str] = set()
        pending = attributes(s.text for s in self.statements) | attributes(self.outputs)
        while pending:
            attribute = pending.pop()
            if attribute in self.inits and attribute not in wanted:
                wanted.add(attribute)
                pending |= attributes([self.inits[attribute]])
        return [line for name, text in self.inits.items() if name in wanted for line in text.splitlines()]

    def _returned(self) -> str:
        o = self.outputs
        if self.shape == "dict":
            return "{" + ", ".join(f"'o{i}': {code}" for i, code in enumerate(o)) + "}"
        if self.shape == "nested":
            return "{'first': " + o[0] + ", 'rest': [" + ", ".join(o[1:]) + "]}"
        if self.shape == "list":
            return f"[{', '.join(o)}]"
        return o[0] if self.shape == "one" and len(o) == 1 else f"({', '.join(o)},)"

    def without(self, index: int) -> Program | None:
        """The program less a statement and all that reads what it defines; None where nothing would be returned."""
        gone = {self.statements[index].target} - {None}
        kept = list(self.statements[:index])
        for statement in self.statements[index + 1 :]:
            if reads(statement.text) & gone:
                gone.add(statement.target)
            else:
                kept.append(statement)
        outputs = tuple(code for code in self.outputs if not reads(code) & gone)
        return replace(self, statements=tuple(kept), outputs=outputs) if outputs else None


@dataclass
class Built:
    """A program that runs."""

    program: Program
    space: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        exec(compile(self.program.source(), "<fuzz>", "exec"), self.space)

    @cached_property
    def source(self) -> nn.Module:
        """The module that is cloned; no request may change it."""
        return self.make()

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """What the source holds from first to last."""
        return self.make().state_dict()

    def make(self, n: int = 1) -> nn.Module:
        model: nn.Module = self.space["make"](n)
        return model

    def inputs(self, sizes: tuple[int, int] | None = None, seed: int = 0) -> tuple[tuple[Any, ...], dict[str, Any]]:
        b, t = sizes or self.program.sizes
        args, kwargs = self.space["inputs"](b, t, seed)
        return tuple(args), kwargs


def attributes(texts: Iterable[str]) -> set[str]:
    """Names of the module's own attributes in code."""
    return {name for text in texts for name in re.findall(r"\bself\.([mpb]\d+)\b", text)}


def reads(code: str) -> set[str | None]:
    """Names of inputs and variables in code."""
    return set(re.findall(r"\b[hx]\d+\b", code))


def renamed(code: str, old: str, new: str) -> str:
    """Code that reads another variable."""
    return re.sub(rf"\b{old}\b", new, code)
