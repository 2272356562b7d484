"""The pattern language of rules: what it reads, what it states, and what it refuses."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from graphclone import rules
from graphclone.algebra.axes import Axis
from graphclone.analysis.facts import Facts
from graphclone.graph.ir import Graph, Node, Value
from graphclone.rules import pattern_of
from graphclone.rules.binding import Binding, Hint
from graphclone.rules.patterns import Compound, Name, Number, PatternError, Term, measured, parse
from graphclone.rules.site import Cannot, Site, says, spelled, stated
from tests.support.rule_property import _DIALECT

HIDDEN, OUT = Name("i"), Name("o")


class At:
    """A node of tensors of given shapes, ``x0``, ``x1`` and so on, and its site.

    Args:
        operands: their shapes; None for one that is missing, and literals by name.
        results: their shapes.
    """

    def __init__(self, *operands: tuple[int, ...] | None, results: Sequence[tuple[int, ...]], **literals: Any) -> None:
        values = [None if shape is None else Value(f"x{i}", shape, "float64") for i, shape in enumerate(operands)]
        self.node = Node("op", "op", {f"x{i}": value for i, value in enumerate(values)} | literals, [])
        self.node.outputs = [Value(f"y{i}", shape, "float64") for i, shape in enumerate(results)]
        inputs = [value for value in values if value is not None]
        graph = Graph("g", inputs, [], [self.node], [], _DIALECT)
        self.facts = Facts(graph)
        for value in (*inputs, *self.node.outputs):
            self.facts.of[value] = tuple(map(self.facts.axes.dim, value.shape or ()))
        self.site = Site(self.node, self.facts)

    def states(self, pattern: str, /, *, why: str = "", **hints: Hint) -> Binding:
        """State a pattern of ``x0``, ``x1`` and so on, and the numbers ``n0``, ``n1`` and so on."""
        terms = parse(pattern).operands
        tensors, numbers = iter(range(len(terms))), iter(range(len(terms)))
        names = [f"n{next(numbers)}" if term.is_number else f"x{next(tensors)}" for term in terms]
        return self.site.states(pattern, *names, why=why, **hints)

    def shown(self) -> str:
        """The layouts of all axes, as a pattern whose letters are dims."""
        letters: dict[Axis, str] = {}
        values = [value for value in self.node.operands.values() if isinstance(value, Value)]
        terms = [
            " ".join(self._layout(axis, letters) for axis in self.facts.of[v]) for v in (*values, *self.node.outputs)
        ]
        return f"{', '.join(terms[: len(values)])} -> {', '.join(terms[len(values) :])}"

    def _layout(self, axis: Axis, letters: dict[Axis, str]) -> str:
        axes = self.facts.axes
        if len(axes.factors(axis)) > 1:
            return "*".join(self._layout(part, letters) for part in axes.factors(axis))
        if len(axes.segments(axis)) > 1:
            return "+".join(self._layout(part, letters) for part in axes.segments(axis))
        dim = axes.find(axis)
        if dim.pin is not None or dim.size == 1:
            return f"!{dim.size}"
        return letters.setdefault(dim, "abcdefghij"[len(letters)])


# Grammar


def test_a_pattern_has_operands_products_and_results() -> None:
    pattern = parse("... i, o i + o? | !t -> ... o")
    assert pattern.products == ((0, 1), (2,))
    assert [term.axes for term in pattern.operands[1:3]] == [(OUT, HIDDEN), (OUT,)]
    assert [term.optional for term in pattern.operands] == [False, False, True, False]
    assert pattern.pinned == {"t"}
    assert not pattern.even
    assert pattern.results[0].axes == (Name("...", None), OUT)
    assert pattern.summed(pattern.products[0]) == ["i"]


def test_atoms() -> None:
    (term,) = parse("| 2 ~n (h d) (q r + k) (x..) ...").operands
    product = Compound("product", (Name("h"), Name("d")))
    concat = Compound("concat", (Compound("product", (Name("q"), Name("r"))), Name("k")))
    run = Compound("product", (Name("x", None),))
    assert term.axes == (Number(2), Name("n"), product, concat, run, Name("...", None))
    assert parse("| ~n").even == {"n"}


def test_a_number_an_operand_without_axes_and_one_that_may_be_short() -> None:
    number, scalar, short = parse("#, | [b i]? -> ").operands
    assert number.is_number
    assert scalar == Term()
    assert (short.short, short.optional, len(short.axes)) == (True, True, 2)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("a & b -> a", "'&' means nothing"),
        ("a -> a -> a", "'->' is not expected there"),
        ("a, b", "a product without a result"),
        ("| (a b -> a", "a bracket is not closed, or holds what is no axis"),
        ("| [a -> a", "a bracket is not closed"),
        ("| (a +) -> a", "nothing stands in a bracket, or beside a +"),
        ("| () -> a", "nothing stands in a bracket, or beside a +"),
        ("| (... a) -> a", "a bracket is not closed, or holds what is no axis"),
        ("| a) -> a", "')' is not expected there"),
        ("| a a -> a", "it takes a diagonal"),
        ("| !a, ~a -> a", "a cannot be both pinned and averaged over"),
        ("a i, (i j) -> a", "no operand has all the axes that it sums over"),
        ("| a # -> a", "a number has no axes"),
        ("| x.. -> x", "x is both an axis and a run"),
    ],
)
def test_a_malformed_pattern_is_refused(pattern: str, why: str) -> None:
    with pytest.raises(PatternError) as error:
        parse(pattern)
    assert str(error.value) == f"pattern {pattern!r}: {why}"


def test_a_rule_of_a_malformed_pattern_is_refused_where_it_is_written() -> None:
    with pytest.raises(PatternError, match="means nothing"):
        stated("a -> a;", "self")


def test_the_lengths_of_runs_follow_from_each_other() -> None:
    terms = [(term, rank) for term, rank in zip(parse("| a.. n b.., a.., [a.. c..]").operands, (5, 2, 9), strict=True)]
    assert measured(terms, {}) == {"a": 2, "b": 2}
    assert measured(terms[:1], {}) == {}
    assert measured(terms[:1], {"b": 0}) == {"a": 4, "b": 0}


# What it equates

EQUATIONS: list[tuple[str, dict[str, Hint], list[tuple[int, ...] | None], tuple[int, ...], str]] = [
    ("... i, o i + o? -> ... o", {}, [(2, 3, 6), (4, 6), (4,)], (2, 3, 4), "a b c, d c, d -> a b d"),
    ("... i, o i + o? -> ... o", {}, [(2, 6), (4, 6), None], (2, 4), "a b, c b -> a c"),
    ("..., ... -> ...", {}, [(3, 4), (2, 1, 4)], (2, 3, 4), "a b, c !1 b -> c a b"),
    ("a, a -> a", {}, [(1,), (4,)], (4,), "!1, a -> a"),
    ("a b -> b a", {}, [(3, 4)], (4, 3), "a b -> b a"),
    ("b (g i), (g o) i -> b (g o)", {"g": 2}, [(2, 6), (8, 3)], (2, 8), "a b*c, b*d c -> a b*d"),
    ("| b (g i) -> b (i g)", {"g": 2}, [(2, 6)], (2, 6), "a b*c -> a c*b"),
    ("| ... (h + h) -> ... h", {}, [(3, 8)], (3, 4), "a b+b -> a b"),
    ("| b (q r + k) -> b (q r)", {"r": 2}, [(2, 10)], (2, 6), "a b*c+d -> a b*c"),
    ("| a.. b.. -> (a..) (b..)", {"a": 2}, [(2, 3, 5)], (6, 5), "a b c -> a*b c"),
    ("| a.. !n b.. -> a.. !m b..", {"a": -2}, [(2, 3, 5)], (2, 4, 5), "a !3 b -> a !4 b"),
    ("... 2 -> ...", {}, [(3, 2)], (3,), "a !2 -> a"),
    ("v c.. | i.. -> i.. c..", {}, [(9, 4), (2, 3)], (2, 3, 4), "a b, c d -> c d b"),
    ("i k + [b i k] -> i k", {}, [(3, 4), (4,)], (3, 4), "a b, b -> a b"),
    ("| ... (h g) m, [... (h g) m] -> ...", {"g": 2}, [(2, 6, 3), (1, 3)], (2,), "a b*c d, !1 d -> a"),
]


@pytest.mark.parametrize(("pattern", "hints", "operands", "result", "expected"), EQUATIONS)
def test_axes_of_one_name_are_equal(
    pattern: str, hints: dict[str, Hint], operands: list[Any], result: tuple[int, ...], expected: str
) -> None:
    at = At(*operands, results=[result])
    at.states(pattern, **hints)
    assert at.shown() == expected


def test_what_averages_are_over_is_repeated_evenly_and_what_is_marked_keeps_its_size() -> None:
    at = At((2, 3, 5), results=[(2, 3, 5)])
    axes = at.states("| ~a !b c -> a b c", why="for a reason")
    assert [(axis, why.text) for axis, why in at.facts.axes.uniforms] == [(axes["a"], "for a reason")]
    assert [axis.pin and axis.pin.text for axis in at.facts.of[at.node.outputs[0]]] == [None, "for a reason", None]


def test_names_of_operands_count_axes() -> None:
    at = At((2, 6, 5), results=[(2, 6, 5)], groups=3)
    axes = at.states("| b (g c) x", g="groups")
    assert [(follow.path, follow.axes) for follow in at.facts.follows] == [(("groups",), (axes["g"],))]
    assert axes["g"].size == 3


def test_axes_that_are_known_may_be_given() -> None:
    at = At((2, 12), (3,), results=[(2, 12)])
    (heads,) = at.facts.of[at.node.operands["x1"]]
    at.site.states("| b (h d)", "x0", h=heads)
    assert at.shown() == "a b*c, b -> d e"


# Scales


def balances(at: At) -> list[tuple[bool, dict[str, int]]]:
    """For each equation whether it is of the result, and the powers of its terms by their names."""
    return [
        (balance.out is not None, {getattr(item, "name", "number"): int(power) for power, item in balance.terms})
        for balance in at.facts.balances.get(at.node, [])
    ]


def test_a_sum_of_products_says_how_scales_pass() -> None:
    at = At((2, 6), (4, 6), (4,), results=[(2, 4)])
    at.states("i k, j k + j? -> i j")
    (contraction,) = at.facts.contractions
    assert balances(at) == [(True, {"x0": 1, "x1": 1}), (False, {"y0": 1, "x2": -1})]
    assert [indices for _, indices in contraction.operands] == [(1,), (1,)]
    assert contraction.axes == (at.facts.of[at.node.operands["x0"]][1],)


def test_a_value_that_occurs_twice_counts_twice() -> None:
    at = At((4,), results=[(4,)])
    at.site.states("a, a -> a", "x0", "x0")
    assert balances(at) == [(True, {"x0": 2})]


def test_what_is_given_behind_a_bar_has_no_part_in_scales() -> None:
    at = At((4,), (4,), results=[(4,)])
    at.states("a | a -> a")
    assert balances(at) == [(True, {"x0": 1})]
    at = At((4,), results=[(4,)])
    at.states("| a -> a")
    assert at.node not in at.facts.balances


def test_a_product_of_nothing_has_no_scale() -> None:
    at = At(None, (4,), results=[(4,)])
    at.states("c? | c -> c")
    assert balances(at) == [(True, {})]


@pytest.mark.parametrize(
    ("beta", "expected"), [(2.0, [{"x0": 1}, {"y0": 1, "x1": -1, "number": -1}]), (0.0, [{"x0": 1}])]
)
def test_numbers_are_factors_and_nothing_is_left_of_what_is_multiplied_with_0(
    beta: float, expected: list[dict[str, int]]
) -> None:
    at = At((4,), (4,), results=[(4,)], n0=beta)
    at.states("a + a, # -> a")
    assert [powers for _, powers in balances(at)] == expected
    assert list(at.site.unbalanced()) == []


# What it refuses


@pytest.mark.parametrize(
    ("pattern", "operands", "results", "why"),
    [
        ("| a b -> a", [(2, 3, 4)], [(2,)], "an operand or a result with more or fewer axes"),
        ("| a b -> a b", [(2,)], [(2, 3)], "an operand or a result with more or fewer axes"),
        ("| a 2 -> a", [(4, 3)], [(4,)], "an axis of 3 where 2 was expected"),
        ("| (h + h) -> a", [(7,)], [(4,)], "an axis of 7 that is not made of"),
        ("i k, k j -> i j", [(2, 1), (3, 4)], [(2, 4)], "it broadcasts an axis that it sums over"),
        ("a -> a, a", [(2,)], [(2,)], "it has fewer results"),
        ("a, a -> a", [(2,), None], [(2,)], "its x1 is no tensor"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    pattern: str, operands: list[Any], results: list[tuple[int, ...]], why: str
) -> None:
    with pytest.raises(Cannot, match=why):
        At(*operands, results=results).states(pattern)


def test_a_pattern_that_is_used_wrongly_is_the_authors_mistake() -> None:
    at = At((12,), results=[(12,)])
    with pytest.raises(PatternError, match="2 operands for 1 terms"):
        at.site.states("a -> a", "x0", "x0")
    with pytest.raises(PatternError, match="no axis is called h"):
        at.states("a -> a", h=3)
    with pytest.raises(PatternError, match="the sizes of the parts of an axis are not known"):
        at.states("| (h d) -> a")


# All rules


def _patterns() -> Iterator[str]:
    """Every pattern that is written into a rule as it is; those with gaps are read when their rules are tried."""
    for path in Path(rules.__file__).parent.glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        gaps = {part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in gaps:
                yield from [node.value] if _LIKE_A_PATTERN.fullmatch(node.value) else []


_LIKE_A_PATTERN = re.compile(r"\| [^`\n]+|[^`\n{]+ -> [^`\n{]*")


def test_the_patterns_of_all_rules_are_well_formed() -> None:
    patterns = set(_patterns())
    assert len(patterns) > 50
    for pattern in patterns:
        parse(pattern)


# Rules that have one


def test_the_pattern_of_a_rule_is_what_it_states() -> None:
    given: list[str] = []

    @says("... i -> ... o")
    def rule(s: Site, pattern: str) -> None:
        """Does nothing."""
        given.append(pattern)

    at = At((4, 6), results=[(4, 6)])
    rule(at.site)
    assert given == ["... i -> ... o"]
    assert (rule.__name__, rule.__doc__) == ("rule", "Does nothing.")
    renamed = spelled(rule, x="y")
    renamed(at.site)
    assert given == ["... i -> ... o"] * 2
    assert pattern_of(rule) == pattern_of(renamed) == pattern_of(stated("... i -> ... o", "x0")) == "... i -> ... o"
    assert pattern_of(lambda s: None) is None


def test_a_malformed_pattern_is_found_when_the_rule_is_made() -> None:
    with pytest.raises(PatternError):
        says("(a")(lambda s, pattern: None)
