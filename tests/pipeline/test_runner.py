"""Pipelines: written as text, run in order, watched, timed, and extended by passes of users."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, Optional

import pytest
import torch
from hypothesis import given, strategies
from torch import nn

from graphclone.algebra.axes import Why
from graphclone.api import clone
from graphclone.errors import GraphcloneError, InvariantError
from graphclone.formats.torch.reader import trace_module
from graphclone.graph.invariants import check_graph
from graphclone.graph.ir import Graph, Node
from graphclone.passes import PASSES, analysis, default_pipeline
from graphclone.passes.choose_widths import ChooseWidths
from graphclone.passes.infer_dims import InferDims
from graphclone.passes.match_widths import MatchWidths
from graphclone.passes.registry import available, parse, unparse
from graphclone.pipeline.conditions import CONDITIONS
from graphclone.pipeline.runner import Pass, run
from graphclone.pipeline.state import Request, State
from tests.support.marks import slow_but
from tests.support.zoo import ZOO

NAMES = [cls.name for cls in PASSES]
INPUTS = (torch.ones(2, 6),)


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 14), nn.ReLU(), nn.Linear(14, 10), nn.ReLU(), nn.Linear(10, 5)).eval()


def traced() -> Graph:
    return trace_module(model(), INPUTS)


@dataclass(frozen=True)
class HoldBack:
    """Keep every dim below a size as it is."""

    below: int = 12
    strictly: bool = True
    ratio: float = 1.0
    reason: str = "small"
    name: ClassVar[str] = "hold-back"
    requires: ClassVar[frozenset[str]] = frozenset({"dims"})
    ensures: ClassVar[frozenset[str]] = frozenset({"held"})

    def __call__(self, state: State) -> bool:
        axes = state.facts.axes
        found = {leaf for shape in state.facts.of.values() for axis in shape for leaf in axes.leaves(axis)}
        small = [leaf for leaf in found if leaf.pin is None and leaf.size < self.below]
        for leaf in small:
            axes.pin(leaf, Why("", self.reason))
        return bool(small)


# Text


def test_text_means_passes_in_its_order() -> None:
    assert parse("infer-dims, canonicalize") == (PASSES[2](), PASSES[0]())


def test_the_default_pipeline_can_be_written_as_text() -> None:
    assert parse(",".join(NAMES)) == default_pipeline()


def test_an_option_is_a_field() -> None:
    assert parse("canonicalize,choose-widths{factor=3},infer-dims")[1] == ChooseWidths(factor=3)


def test_options_have_the_types_of_their_fields() -> None:
    (step,) = parse("hold-back{below=3,strictly=false,ratio=0.5,reason=no}", [HoldBack])
    assert step == HoldBack(below=3, strictly=False, ratio=0.5, reason="no")


@dataclass(frozen=True)
class Typed:
    """A pass with an option of every type that text can give."""

    count: int | None = None
    ratio: float = 0
    on: bool = False
    word: str = ""
    way: Literal["tile", "interleave", 3] = "tile"
    names: tuple[str, ...] = ()
    maybe_name: Optional[str] = "x"  # noqa: UP045  both spellings are read
    either: str | int | bool = 0
    sizes: tuple[int, ...] = field(default_factory=tuple)
    name: ClassVar[str] = "typed"
    requires: ClassVar[frozenset[str]] = frozenset()
    ensures: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, state: State) -> bool:
        return False


@pytest.mark.parametrize(
    ("options", "step"),
    [
        ("count=3", Typed(count=3)),
        ("count=none", Typed()),
        ("ratio=1e-3", Typed(ratio=0.001)),
        ("on=True", Typed(on=True)),
        ("word=two words", Typed(word="two words")),
        ('word="a,b}=\\"c"', Typed(word='a,b}="c')),
        ("way=interleave", Typed(way="interleave")),
        ("way=3", Typed(way=3)),
        ("names=[a, b]", Typed(names=("a", "b"))),
        ('names=["a,b",c*]', Typed(names=("a,b", "c*"))),
        ("names=[]", Typed()),
        ("maybe-name=none", Typed(maybe_name=None)),
        ('maybe_name="none"', Typed(maybe_name="none")),
        ("either=2", Typed(either=2)),
        ('either="2"', Typed(either="2")),
        ("either=true", Typed(either=True)),
        ("sizes=[1,2]", Typed(sizes=(1, 2))),
    ],
)
def test_options_are_read_by_their_type_hints(options: str, step: Typed) -> None:
    assert parse(f"typed{{{options}}}", [Typed]) == (step,)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("count=many", "pass option typed: count cannot be 'many'; it is a whole number or none"),
        ("ratio=half", "it is a number"),
        ("way=4", "way cannot be '4'; it is tile or interleave or 3"),
        ("names=a", "it is a list [..], each item a text"),
        ("sizes=[a]", "it is a list [..], each item a whole number"),
        ('word="a', "word cannot be '\"a'; it is a text"),
    ],
)
def test_values_that_options_cannot_have(option: str, message: str) -> None:
    with pytest.raises(GraphcloneError) as error:
        parse(f"typed{{{option}}}", [Typed])
    assert message in str(error.value)


TYPED = strategies.builds(
    Typed,
    count=strategies.none() | strategies.integers(),
    ratio=strategies.floats(allow_nan=False),
    on=strategies.booleans(),
    word=strategies.text(),
    way=strategies.sampled_from(["tile", "interleave", 3]),
    names=strategies.lists(strategies.text()).map(tuple),
    maybe_name=strategies.none() | strategies.text() | strategies.sampled_from(["none", "true", "1", "nan"]),
    either=strategies.text() | strategies.integers() | strategies.booleans(),
    sizes=strategies.lists(strategies.integers()).map(tuple),
)


def types_of(step: Pass) -> list[type]:
    return [type(getattr(step, option.name)) for option in fields(step)]


@given(strategies.lists(TYPED | strategies.builds(ChooseWidths, strategies.integers()) | strategies.just(InferDims())))
def test_a_pipeline_is_written_as_the_text_that_means_it(steps: list[Pass]) -> None:
    text = unparse(steps)
    again = parse(text, [Typed])
    assert again == tuple(steps)
    assert list(map(types_of, again)) == list(map(types_of, steps))
    assert unparse(again) == text


@pytest.mark.parametrize(
    "text", ["canonicalize,infer-dims", "choose-widths{factor=3}", 'hold-back{below=3,reason="not, now"}', ""]
)
def test_a_pipeline_prints_back_as_the_text_it_was_parsed_from(text: str) -> None:
    assert unparse(parse(text, [HoldBack])) == text


def test_a_pipeline_that_no_text_means() -> None:
    with pytest.raises(GraphcloneError, match="pass match-widths cannot be written as text: an option is a Graph"):
        unparse([MatchWidths(traced())])
    with pytest.raises(GraphcloneError, match="pass match-widths needs target"):
        parse("match-widths", [MatchWidths])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("canonicalise", "no pass is called 'canonicalise'; there are canonicalize, deepen, infer-dims, "),
        ("choose-widths{width=2}", "pass choose-widths has no option 'width'; it has factor"),
        ("canonicalize{x=1}", "pass canonicalize has no option 'x'; it has none"),
        ("choose-widths{factor=two}", "pass option choose-widths: factor cannot be 'two'"),
        ("hold-back{strictly=2}", "pass option hold-back: strictly cannot be '2'"),
        ("choose-widths{factor=2", "the options have no closing brace"),
    ],
)
def test_text_that_means_nothing(text: str, message: str) -> None:
    with pytest.raises(GraphcloneError) as error:
        parse(text, [HoldBack])
    assert message in str(error.value)


def test_an_option_overrides_the_request() -> None:
    text = "canonicalize,infer-dims,choose-widths{factor=3},balance-scales,widen-initializers,rewrite-literals"
    wide = clone(model(), INPUTS, widen=2, passes=parse(text))
    assert wide.module()(*INPUTS).shape == (2, 5)
    assert wide.state_dict()["0.weight"].shape == (42, 6)


# Running


def test_every_pass_is_timed() -> None:
    timings = run(default_pipeline(), State(traced()))
    assert [timing.name for timing in timings] == NAMES
    assert all(timing.seconds > 0 for timing in timings)


def test_a_pass_says_whether_it_changed_anything() -> None:
    state = State(traced(), Request(widen=1))
    changed = {timing.name: timing.changed for timing in run(default_pipeline(), state)}
    assert changed["widen-initializers"] is False
    assert changed["rewrite-literals"] is False
    assert run(default_pipeline()[:1], State(traced()))[0].changed is False


def test_every_pass_can_be_watched() -> None:
    seen: list[tuple[str, bool]] = []
    run(
        default_pipeline(),
        State(traced()),
        after=lambda step, state: seen.append((step.name, state.has(State.analysis))),
    )
    assert seen == [("canonicalize", False), ("deepen", False), *((name, True) for name in NAMES[2:])]


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        ((ChooseWidths(),), "choose-widths requires dims, which no earlier pass ensures"),
        ((InferDims(), *default_pipeline()[5:]), "widen-initializers requires scales, widths, which"),
    ],
)
def test_a_pass_before_what_it_requires(passes: tuple[Pass, ...], message: str) -> None:
    with pytest.raises(InvariantError, match=message):
        run(passes, State(traced()))


def test_every_requirement_is_ensured_by_an_earlier_pass() -> None:
    known: set[str] = set()
    for cls in PASSES:
        assert cls.requires <= known
        assert cls.ensures
        assert cls.ensures <= CONDITIONS.keys()
        known |= cls.ensures


@pytest.mark.parametrize(
    "name",
    slow_but(
        ("mlp", "olmo-mini", "gpt2", "lstm"),
        ("mlp", "opt", "olmo-mini", "gpt2", "llama-gqa", "gemma2", "resnet-basic", "unet", "lstm"),
    ),
)
def test_the_graph_is_sound_after_every_pass(name: str) -> None:
    built = ZOO[name].build()
    state = State(trace_module(built.module, built.args, built.kwargs), Request(widen=2))
    check_graph(state.graph)
    run(default_pipeline(), state, check=True)


# Invariants


def drop_first_node(graph: Graph) -> None:
    del graph.nodes[0]


def repeat_node(graph: Graph) -> None:
    graph.nodes.append(graph.nodes[0])


def swap_nodes(graph: Graph) -> None:
    graph.nodes[:2] = graph.nodes[1::-1]


def drop_last_node(graph: Graph) -> None:
    del graph.nodes[-1]


def forget_producer(graph: Graph) -> None:
    graph.nodes[0].outputs[0].producer = None


def repeat_input(graph: Graph) -> None:
    graph.inputs.append(graph.inputs[0])


def repeat_name(graph: Graph) -> None:
    first = graph.nodes[0]
    graph.nodes.insert(0, Node(first.name, first.op, {}, []))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_first_node, "relu reads linear before it is computed"),
        (repeat_node, "two nodes are called linear"),
        (swap_nodes, "relu reads linear before it is computed"),
        (drop_last_node, "output output reads linear_2 before it is computed"),
        (forget_producer, "linear is an output of linear but names another producer"),
        (repeat_input, "an input defines input a second time"),
        (repeat_name, "two nodes are called linear"),
    ],
)
def test_a_pass_that_breaks_the_graph_is_caught(damage: Any, message: str) -> None:
    @dataclass(frozen=True)
    class Damage:
        name: ClassVar[str] = "damage"
        requires: ClassVar[frozenset[str]] = frozenset()
        ensures: ClassVar[frozenset[str]] = frozenset()

        def __call__(self, state: State) -> bool:
            damage(state.graph)
            return True

    with pytest.raises(InvariantError, match=message):
        run((Damage(),), State(traced()), check=True)
    run((Damage(),), State(traced()))


# Passes of users


def test_passes_satisfy_the_protocol() -> None:
    assert all(isinstance(cls(), Pass) for cls in (*PASSES, HoldBack))


def test_a_pass_from_python() -> None:
    passes = (*analysis(), HoldBack(), *default_pipeline()[3:])
    wide = clone(model(), INPUTS, widen=2, passes=passes)
    assert wide.state_dict()["2.weight"].shape == (10, 28)
    assert {group.name: str(group.pin) for group in wide.dims if group.pin}["2"] == "small"


class EntryPoint:
    """What importlib.metadata finds for a plug-in."""

    @staticmethod
    def load() -> type[HoldBack]:
        return HoldBack


def test_a_pass_from_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry_points(group: str) -> list[type[EntryPoint]]:
        return [EntryPoint] if group == "graphclone.passes" else []

    assert "hold-back" not in available()
    monkeypatch.setattr("graphclone.passes.registry.entry_points", entry_points)
    assert list(available()) == [*NAMES, "hold-back"]
    assert parse("infer-dims,hold-back{below=4}")[1] == HoldBack(below=4)
