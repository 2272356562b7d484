"""Operands are read as what they must be, and what they are instead is said."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from graphclone.graph.canonical import respellings
from graphclone.graph.ir import Graph, Node, Opaque, Operand, Spelling, Value, evaluated, substitute
from graphclone.graph.operands import OperandError, Reader

X = Value("x", (2, 3), "float32", role="input")
N = Value("n", None, "", role="input")

OPERANDS: dict[str, Operand] = {
    "x": X, "n": N, "xs": [X, X], "mixed": [X, 1], "none": None, "one": 1, "half": 0.5, "alone": [4], "yes": True,
    "text": "mean", "sizes": [2, N, -1], "integers": [3, -1], "floats": [0.5], "dtype": Opaque("float32"),
}  # fmt: skip


def reader() -> Reader:
    return Reader(Node("op", "aten.op.default", dict(OPERANDS), []))


GIVEN: list[tuple[Callable[[Reader], object], object]] = [
    (lambda r: r.tensor("x"), X),
    (lambda r: r.tensor("x", 2), X),
    (lambda r: r.value("n"), N),
    (lambda r: r.maybe_tensor("n"), None),
    (lambda r: r.maybe_tensor("absent"), None),
    (lambda r: r.tensor_list("xs"), [X, X]),
    (lambda r: r.tensor_list("x"), [X]),
    (lambda r: r.number("half"), 0.5),
    (lambda r: r.number("none", 2.5), 2.5),
    (lambda r: r.integer("alone"), 4),
    (lambda r: r.integer("absent", 7), 7),
    (lambda r: r.count("one"), 1),
    (lambda r: r.flag("yes"), True),
    (lambda r: r.flag("none", True), True),
    (lambda r: r.flag("absent"), False),
    (lambda r: r.text("text"), "mean"),
    (lambda r: r.text("none", "sum"), "sum"),
    (lambda r: r.size("n"), N),
    (lambda r: r.size("one"), 1),
    (lambda r: r.sizes("sizes"), [2, N, -1]),
    (lambda r: r.integers("integers"), [3, -1]),
    (lambda r: r.integers("one"), [1]),
    (lambda r: r.integers("absent", ()), []),
    (lambda r: r.axis("one", 2), 1),
    (lambda r: r.axis("absent", 3, -1), 2),
    (lambda r: r.axis_list("integers", 4), [3, 3]),
    (lambda r: r.axis_list("integers", 0), []),
    (lambda r: (r.has("none"), r.has("one"), r.get("dtype")), (False, True, Opaque("float32"))),
]


@pytest.mark.parametrize("number", range(len(GIVEN)))
def test_an_operand_is_read_as_what_it_is(number: int) -> None:
    read, expected = GIVEN[number]
    result = read(reader())
    assert result == expected
    assert type(result) is type(expected)


REFUSED: dict[str, Callable[[Reader], object]] = {
    "it has no absent": lambda r: r.tensor("absent"),
    "its n is no tensor": lambda r: r.tensor("n"),
    "its x has 2 axes where 3 were expected": lambda r: r.tensor("x", 3),
    "its one is not computed": lambda r: r.value("one"),
    "its mixed is no list of tensors": lambda r: r.tensor_list("mixed"),
    "its none is no list of tensors": lambda r: r.tensor_list("none"),
    "its n is not a literal number": lambda r: r.number("n"),
    "its xs is not a literal number": lambda r: r.number("xs"),
    "its none is not a literal number": lambda r: r.number("none"),
    "its half is not a literal integer": lambda r: r.integer("half"),
    "its text is neither true nor false": lambda r: r.flag("text"),
    "its n is neither true nor false": lambda r: r.flag("n"),
    "its one is no text": lambda r: r.text("one"),
    "its x is not a literal number": lambda r: r.size("x"),
    "its x is computed as a whole": lambda r: r.sizes("x"),
    "its one is no list": lambda r: r.sizes("one"),
    "its floats is no list of integers": lambda r: r.sizes("floats"),
    "its sizes is no list of literal integers": lambda r: r.integers("sizes"),
    "its one names axis 1 of 1": lambda r: r.axis("one", 1),
    "its integers names axis 3 of 3": lambda r: r.axis_list("integers", 3),
    "its dtype is no tensor": lambda r: r.tensor("dtype"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_an_operand_that_is_something_else_is_refused(message: str) -> None:
    with pytest.raises(OperandError) as refused:
        REFUSED[message](reader())
    assert str(refused.value) == message


@pytest.mark.parametrize("count", [0, -3])
def test_what_counts_is_above_nothing(count: int) -> None:
    with pytest.raises(OperandError, match=f"its heads is {count}, which counts nothing"):
        Reader(Node("op", "aten.op.default", {"heads": count}, [])).count("heads")


def test_values_are_replaced_by_operands_and_evaluated_by_results() -> None:
    operand: Operand = [X, [N, 2], Opaque("float32"), None]
    assert substitute(operand, {X: 5}) == [5, [N, 2], Opaque("float32"), None]
    assert evaluated(operand, {X: 2.5, N: 7}) == [2.5, [7, 2], "float32", None]


def test_a_malformed_node_keeps_its_spelling() -> None:
    """The rule that reads it says what is wrong."""
    other = Spelling(lambda node: ("aten.other.default", {"self": Reader(node).tensor("x")}))

    def graph(operands: dict[str, Operand]) -> Graph:
        node = Node("op", "aten.op.default", operands, [Value("y", (2, 3), "float32")])
        return Graph("g", [X], [], [node], [], SimpleNamespace(spellings={"aten.op.default": other}))

    assert [canonical for _, canonical in respellings(graph({"x": X}))] == [("aten.other.default", {"self": X})]
    assert not respellings(graph({"x": 3}))
