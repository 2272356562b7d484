"""Guards of a trace: the sizes that it fixed, conditions on the others, and values that are part of it.

torch.export traces one way through the code. Where the code asks for a size, it notes what it found as a guard, and the
trace is the model only where all guards hold. One question leaves no guard: whether a size is 0 or 1, since
torch.export takes for granted that no dynamic size is. So the questions themselves are noted here, too
(``decisions``), and a size of 0 or 1 for which one of them has another answer is a *doubt*.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sympy
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx.experimental.symbolic_shapes import SYMPY_INTERP, ShapeEnv
from torch.utils._sympy.printers import PythonPrinter
from torch.utils._sympy.solve import try_solve

from graphclone.errors import GraphcloneError
from graphclone.formats.torch.kinds import is_of_model, takes
from graphclone.formats.torch.structure import argument_names

_ASSUMED = 2
"""The least size of a dynamic axis that torch.export thinks of."""

_SLICE: tuple[Any, ...] = (None, 0, None, None, 1)
"""What a slice takes where its arguments are left out."""

_DEPENDS = "the code depends on that size"


class InputError(GraphcloneError, ValueError):
    """Inputs that a trace does not hold for."""


@dataclass(frozen=True)
class Condition:
    """A condition on the sizes of the inputs.

    Attributes:
        text: a Python expression over the inputs by name, such as ``x.shape[0] > 3``.
        asked: the question of the code that it answers, and where; empty where torch.export noted it.
    """

    text: str
    asked: str = ""

    @property
    def cause(self) -> str:
        """The reason for the condition, in the code."""
        return f"the code asks whether {self.asked}" if self.asked else _DEPENDS

    def __str__(self) -> str:
        return f"traced for {self.text} only: {self.cause}"

    def function(self, names: Sequence[str], namespace: Mapping[str, Any] = SYMPY_INTERP) -> Callable[..., Any]:
        """The condition as a function of the inputs."""
        code = f"lambda {', '.join(names)}: {self.text}"
        predicate: Callable[..., Any] = eval(code, dict(namespace))  # noqa: S307 (torch's own printer wrote the text)
        return predicate


@dataclass(frozen=True)
class Doubt:
    """A size of 0 or 1 for which the code may take another way than the trace did.

    Attributes:
        input: position of the input among all.
        axis: of the input.
        size: 0 or 1.
        condition: that the axis has another size.
    """

    input: int
    axis: int
    size: int
    condition: Condition


@dataclass(frozen=True)
class Violation:
    """A reason why a trace does not hold for some inputs.

    Attributes:
        message: for people.
        axes: whose sizes are not those that it holds for: position of the input, and axis.
        cause: what in the code makes it so.
        remedy: what to do.
    """

    message: str
    axes: tuple[tuple[int, int], ...] = ()
    cause: str = _DEPENDS
    remedy: str = "clone with example inputs of that kind for these"


@dataclass(frozen=True)
class Guards:
    """The inputs that a trace holds for.

    Attributes:
        names: of all inputs, in order, with those that are no tensors.
        shapes: for each input that is a tensor its sizes, None where they are free; None for any other input.
        values: the inputs that are no tensors, by position: they are part of the trace.
        conditions: on the free sizes.
        doubts: sizes of which it is not known whether the trace holds for them.
        dtypes: for each input that is a tensor its dtype; None for any other input.
        kinds_asked: the kinds of numbers of which the code asks what dtype they have.
        arguments: the names of the arguments that the inputs lie in.
        by_position: how many of these may be given by position.
        any_order: whether dicts among them may have their keys in another order.
        contiguous: whether the code asks how an input lies in memory, so that it has to lie there as it is read.
        apart: pairs of positions of inputs that may not be the same tensor.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int | None, ...] | None, ...]
    values: Mapping[int, Any]
    conditions: tuple[Condition, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    dtypes: tuple[torch.dtype | None, ...] = ()
    kinds_asked: frozenset[str] = frozenset()
    arguments: tuple[str, ...] = ()
    by_position: int = 0
    any_order: bool = False
    contiguous: bool = False
    apart: tuple[tuple[int, int], ...] = ()

    @property
    def all_conditions(self) -> tuple[Condition, ...]:
        """The conditions, and that no size is in doubt."""
        return (*self.conditions, *(doubt.condition for doubt in self.doubts))

    def violations(self, inputs: Sequence[Any]) -> Iterator[Violation]:
        """Why the trace does not hold for these inputs; nothing if it does.

        Args:
            inputs: all of them, in order. Sizes may be symbolic: then what is found becomes a guard of that trace.
        """
        if len(inputs) != len(self.names):
            yield Violation(f"{len(inputs)} inputs, traced with {len(self.names)}: {', '.join(self.names)}")
            return
        for a, b in self.apart:
            if inputs[a] is inputs[b]:
                text = f"{self.names[a]} and {self.names[b]} are one tensor, and the code asks for that"
                yield Violation(text, remedy="give a copy for one of them")
        fitting = True
        for position, value in enumerate(inputs):
            for violation in self._of_input(position, value):
                fitting = False
                yield violation
        for condition in self.all_conditions if fitting else ():
            if not condition.function(self.names)(*inputs):
                yield Violation(str(condition), tuple(self.axes_in(condition)), condition.cause)

    def _of_input(self, position: int, value: Any) -> Iterator[Violation]:
        name, shape = self.names[position], self.shapes[position]
        if shape is None:
            traced = self.values[position]
            if not _same(traced, value):
                yield Violation(f"{name} is {_described(value)}, traced for {_described(traced)} only")
        elif not isinstance(value, torch.Tensor):
            yield Violation(f"{name} is {_described(value)}, traced with a tensor")
        elif value.ndim != len(shape):
            yield Violation(f"{name} has {value.ndim} axes, traced with {len(shape)}")
        elif not takes(dtype := self.dtypes[position] or value.dtype, value.dtype, self.kinds_asked):
            yield Violation(f"{name} is of {value.dtype}, traced with {dtype}")
        elif self.contiguous and not value.is_contiguous():
            yield Violation(f"{name} is not contiguous, and the code asks for that", remedy=f"give {name}.contiguous()")
        else:
            for axis, size in enumerate(shape):
                if size is not None and value.shape[axis] != size:
                    message = f"axis {axis} of {name} has {value.shape[axis]} elements, traced for {size} only"
                    violation = Violation(message, ((position, axis),))
                    if axis and value.is_floating_point():
                        asked = f"clone with dynamic_axes={{{name!r}: [{axis}]}} for others"
                        violation = replace(violation, remedy=asked)
                    yield violation

    def may_be_one(self, a: int, b: int) -> bool:
        """Whether one tensor may be given for two inputs."""
        first, second = self.shapes[a], self.shapes[b]
        if first is None or second is None or len(first) != len(second) or self.dtypes[a] != self.dtypes[b]:
            return False
        return all(None in (x, y) or x == y for x, y in zip(first, second, strict=True))

    def axes_in(self, condition: Condition) -> Iterator[tuple[int, int]]:
        """The axes that a condition is about: position of the input, and axis."""
        for position, shape in enumerate(self.shapes):
            for axis in range(len(shape or ())):
                if f"{self.names[position]}.shape[{axis}]" in condition.text:
                    yield position, axis

    def without(self, doubt: Doubt) -> Guards:
        """The guards with a doubt settled: the trace holds there."""
        return replace(self, doubts=tuple(other for other in self.doubts if other is not doubt))


def _described(value: Any) -> str:
    return "a tensor" if isinstance(value, torch.Tensor) else repr(value)


def _same(a: Any, b: Any) -> bool:
    """Whether two inputs that are no tensors are the same, 1 and True not being."""
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    return type(a) is type(b) and bool(a == b)


# Reading them off a program


@dataclass(frozen=True)
class Decision:
    """A question about sizes that the code asked while it was traced, and the answer.

    Attributes:
        question: in the symbols of the trace.
        answer: that the trace went on with.
        where: file and line.
    """

    question: sympy.Basic
    answer: bool
    where: str


@contextmanager
def decisions(*, of_torch: bool = False) -> Iterator[list[Decision]]:
    """Note the questions that the model's own code asks about symbolic sizes.

    torch.export has no hook for that, and those it answers from its own assumptions leave no guard. What torch asks
    itself, about strides above all, does not count: it changes how something is computed, never what. Its definitions
    of operators are an exception.

    Args:
        of_torch: whether what torch asks counts, too.
    """
    questions: list[Decision] = []
    original: Callable[[torch.SymBool], bool] = torch.SymBool.__bool__

    def ask(question: torch.SymBool) -> bool:
        expression = question.node.expr
        answer = original(question)
        frame = sys._getframe(1)
        file = frame.f_code.co_filename
        if of_torch or is_of_model(file):
            questions.append(Decision(expression, answer, f"{Path(file).name}:{frame.f_lineno}"))
        return answer

    torch.SymBool.__bool__ = ask  # type: ignore[method-assign]
    try:
        yield questions
    finally:
        torch.SymBool.__bool__ = original  # type: ignore[method-assign]


def guards_of(program: ExportedProgram, questions: Sequence[Decision] | None = ()) -> Guards:
    """Find the inputs that a program holds for.

    Args:
        program: as torch.export made it, its guards still with it.
        questions: what the code asked meanwhile; None where that is not known, so that any size of 0 or 1 is in doubt.
    """
    return _SizeReader(program).guards(questions)


class _SizeReader:
    def __init__(self, program: ExportedProgram) -> None:
        specs = program.graph_signature.input_specs
        names = {spec.arg.name for spec in specs if spec.kind is InputKind.USER_INPUT}
        self.program = program
        self.inputs = [node for node in program.graph.find_nodes(op="placeholder") if node.name in names]
        self.env = _shape_env(node.meta.get("val") for node in self.inputs)
        self.sizes: dict[sympy.Basic, sympy.Basic] = {}
        self.printer = PythonPrinter()

    def guards(self, questions: Sequence[Decision] | None) -> Guards:
        examples = [node.meta.get("val") for node in self.inputs]
        tensors = [isinstance(example, torch.Tensor) for example in examples]
        derived = list(self.bind(examples))
        every = (*derived, *self.ranges(), *self.noted(), *self.squeezed(), *self.sliced())
        each = (part for condition in every for part in sympy.And.make_args(condition) if part != sympy.true)
        conditions = dict.fromkeys(map(self.text, each))
        return Guards(
            names=tuple(node.name for node in self.inputs),
            shapes=tuple(_fixed(e) if tensor else None for e, tensor in zip(examples, tensors, strict=True)),
            values={i: e for i, (e, tensor) in enumerate(zip(examples, tensors, strict=True)) if not tensor},
            conditions=tuple(Condition(text) for text in conditions if text),
            doubts=tuple(self.doubts(examples, questions)),
            dtypes=tuple(e.dtype if tensor else None for e, tensor in zip(examples, tensors, strict=True)),
            arguments=argument_names(self.program),
        )

    def bind(self, examples: Sequence[Any]) -> Iterator[sympy.Basic]:
        """Find the size that stands for each symbol, and what follows for sizes that are expressions in others."""
        axes = list(self.free(examples))
        for _, _, expression, size in axes:
            if expression.is_Symbol:
                self.sizes.setdefault(expression, size)
        for _, _, expression, size in axes:
            unbound = expression.free_symbols - set(self.sizes)
            if len(unbound) == 1 and (solution := try_solve(sympy.Eq(expression, size), *unbound)) is not None:
                symbol = unbound.pop()
                self.sizes[symbol] = solution[1]
                yield sympy.Eq(sympy.Mod(size - expression.subs(symbol, 0), expression.coeff(symbol)), 0)
            elif not unbound:
                yield sympy.Eq(size, expression.subs(self.sizes))

    def free(self, examples: Sequence[Any]) -> Iterator[tuple[int, int, Any, sympy.Symbol]]:
        """Every free axis: input, axis, its size in the symbols of the trace, and as people write it."""
        for position, example in enumerate(examples):
            for axis, size in enumerate(example.shape if isinstance(example, torch.Tensor) else ()):
                if isinstance(size, torch.SymInt) and not size.node.expr.is_number:
                    name = f"{self.inputs[position].name}.shape[{axis}]"
                    yield position, axis, size.node.expr, sympy.Symbol(name, integer=True, nonnegative=True)

    def ranges(self) -> Iterator[sympy.Basic]:
        """Bounds of symbols; a lower one of 2 is torch.export's assumption, not the code's."""
        for symbol, allowed in self.program.range_constraints.items():
            if symbol in self.sizes and allowed.lower > _ASSUMED:
                yield sympy.Ge(symbol, allowed.lower)
            if symbol in self.sizes and allowed.upper.is_Integer:
                yield sympy.Le(symbol, allowed.upper)

    def noted(self) -> Iterator[sympy.Basic]:
        """The guards of the trace, those that its bounds make true left out."""
        if self.env is not None:
            for guard in self.env.guards:
                expression = self.env.simplify(guard.expr)
                if not self.env.bound_sympy(expression).is_singleton():
                    yield expression

    def squeezed(self) -> Iterator[sympy.Basic]:
        """What a squeeze removes is decided by sizes when it is run; the trace took for granted that none was 1."""
        for node in self.program.graph.nodes:
            if str(node.target).startswith("aten.squeeze."):
                shape = node.args[0].meta["val"].shape
                dims = node.args[1] if len(node.args) > 1 else range(len(shape))
                for dim in [dims] if isinstance(dims, int) else dims:
                    if isinstance(size := shape[dim], torch.SymInt):
                        yield sympy.Ne(size.node.expr, 1)

    def sliced(self) -> Iterator[sympy.Basic]:
        """How long a slice is depends on the size; the trace took for granted that it was not 1."""
        for node in self.program.graph.find_nodes(op="call_function", target=torch.ops.aten.slice.Tensor):
            arguments: list[Any] = [*node.args, *_SLICE[len(node.args) :]]
            source, dim, *bounds = arguments
            size, length = (of.meta["val"].shape[dim] for of in (source, node))
            if isinstance(size, torch.SymInt) and all(bound is None or isinstance(bound, int) for bound in bounds):
                single = dict.fromkeys(size.node.expr.free_symbols, sympy.Integer(1))
                real = len(range(*slice(*bounds).indices(int(size.node.expr.xreplace(single)))))
                if _expression(length).xreplace(single) != real:
                    yield from (sympy.Ne(symbol, 1) for symbol in single)

    def text(self, condition: sympy.Basic) -> str:
        """A condition as people write it; empty where it is about something that no input says."""
        expression = condition.subs(self.sizes)
        written = {size for size in expression.free_symbols if str(size).endswith("]")}
        return str(self.printer.doprint(expression)) if written == expression.free_symbols else ""

    def doubts(self, examples: Sequence[Any], questions: Sequence[Decision] | None) -> Iterator[Doubt]:
        for position, axis, expression, size in self.free(examples):
            if not expression.is_Symbol or self.sizes[expression] != size:
                continue
            lower = self.program.range_constraints[expression].lower
            for number in range(_ASSUMED) if lower <= _ASSUMED else ():
                if questions is None:
                    yield Doubt(position, axis, number, Condition(f"{size} != {number}"))
                    continue
                decision = next((d for d in questions if self.flips(d, expression, number)), None)
                if decision is not None:
                    asks = f"{self.text(decision.question) or decision.question} in {decision.where}"
                    yield Doubt(position, axis, number, Condition(f"{size} != {number}", asks))

    def flips(self, decision: Decision, symbol: sympy.Symbol, number: int) -> bool:
        """Whether a question would be answered otherwise if that symbol, or all symbols, were that number."""
        symbols = decision.question.free_symbols
        if symbol not in symbols or self.env is None:
            return False
        hints = self.env.backed_var_to_val
        for values in ({**hints, symbol: sympy.Integer(number)}, dict.fromkeys(symbols, sympy.Integer(number))):
            if decision.question.xreplace(values) != sympy.sympify(decision.answer):
                return True
        return False


def _expression(size: int | torch.SymInt) -> sympy.Basic:
    return size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)


def _shape_env(examples: Iterator[Any]) -> ShapeEnv | None:
    for example in examples:
        for size in example.shape if isinstance(example, torch.Tensor) else ():
            if isinstance(size, torch.SymInt):
                return size.node.shape_env
    return None


def _fixed(example: torch.Tensor) -> tuple[int | None, ...]:
    """The sizes of an input, None where they are symbolic."""
    return tuple(None if isinstance(s, torch.SymInt) and not s.node.expr.is_number else int(s) for s in example.shape)
