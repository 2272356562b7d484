"""Dims as people see them: which there are, what they are called, what pins them, which grow by default.

Names come from the parameters a dim touches, and from what rules say about it; nothing here knows any model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from graphclone.algebra.axes import Axis, Kind, Why
from graphclone.analysis.facts import Facts


@dataclass(frozen=True, eq=False)
class Dim:
    """One hidden dim of the source.

    Attributes:
        axis: the leaf that stands for it.
        name: unique in its graph, after the modules it lives in.
        group: the name with layer numbers starred.
        size: in the source.
        parameters: names of the parameters that have it, in order.
        pin: why it cannot grow, if so.
        default: whether it grows when only a factor is asked for.
    """

    axis: Axis
    name: str
    group: str
    size: int
    parameters: tuple[str, ...]
    pin: Why | None
    default: bool

    def matches(self, pattern: str) -> bool:
        """Whether a name or a pattern with wildcards means this dim."""
        return pattern in (self.name, self.group) or fnmatchcase(self.name, pattern)


def dims(facts: Facts) -> list[Dim]:
    """The dims of a graph that touch a parameter, in the order of the parameters.

    A dim is offered by default if it is free and is the outermost free factor wherever it is a factor of a
    parameter's axis: heads grow and the width of a head stays, groups grow and their members stay.
    """
    places = _places(facts)
    inner = _inner(facts)
    names = _names(facts, _by_path(facts, places))
    groups = {axis: _starred(name) for axis, name in names.items()}
    return [
        Dim(
            axis=axis,
            name=names[axis],
            group=groups[axis],
            size=axis.size,
            parameters=tuple(dict.fromkeys(name for name, _ in uses)),
            pin=axis.pin,
            default=axis.pin is None and axis not in inner,
        )
        for axis, uses in places.items()
        if axis.size > 1
    ]


def _parameters(facts: Facts) -> Iterator[tuple[str, tuple[Axis, ...]]]:
    for initializer in facts.graph.initializers:
        if initializer.kind == "parameter":
            yield initializer.name, facts.of[initializer.value]


def _places(facts: Facts) -> dict[Axis, list[tuple[str, int]]]:
    """The leaves of all parameters' axes, each with the parameters and axes it is in."""
    places: dict[Axis, list[tuple[str, int]]] = {}
    for name, axes in _parameters(facts):
        for index, axis in enumerate(axes):
            for leaf in facts.axes.leaves(axis):
                places.setdefault(leaf, []).append((name, index))
    return places


def _inner(facts: Facts) -> set[Axis]:
    """Leaves that stand behind a free outer factor in some parameter's axis."""
    inner: set[Axis] = set()
    pending = [axis for _, axes in _parameters(facts) for axis in axes]
    seen: set[Axis] = set()
    while pending:
        axis = facts.axes.find(pending.pop())
        if axis in seen or axis.kind is Kind.DIM:
            continue
        seen.add(axis)
        parts = facts.axes.factors(axis) if axis.kind is Kind.PRODUCT else facts.axes.segments(axis)
        pending += parts
        free = [part for part in parts if not facts.axes.is_rigid(part)]
        if axis.kind is Kind.PRODUCT:
            inner.update(leaf for part in free[1:] for leaf in facts.axes.leaves(part))
    return inner


# Names


def _names(facts: Facts, places: dict[Axis, list[tuple[str, int]]]) -> dict[Axis, str]:
    """A unique name per dim."""
    labels = {leaf: label for axis, label in facts.labels for leaf in _labelled(facts, axis)}
    paths = _paths(facts)
    contracted = {paths[i.name]: facts.folded[i.value] for i in facts.graph.initializers if i.value in facts.folded}
    long = {axis: _long_name(axis, uses, labels) for axis, uses in places.items()}
    long = _resolve(long, {axis: _first_module(uses, labels.get(axis), contracted) for axis, uses in places.items()})
    short = {axis: _shortened(name) for axis, name in long.items()}
    clashes = _clashing(short, long)
    chosen = {axis: long[axis] if short[axis] in clashes else short[axis] for axis in places}
    return _numbered(chosen)


def _by_path(facts: Facts, places: dict[Axis, list[tuple[str, int]]]) -> dict[Axis, list[tuple[str, int]]]:
    paths = _paths(facts)
    return {axis: [(paths[name], index) for name, index in uses] for axis, uses in places.items()}


def _paths(facts: Facts) -> dict[str, str]:
    """Where in the model every initializer belongs: its own name, or, if that has no path, that of its first reader."""
    users = facts.graph.users()
    paths = {}
    for initializer in facts.graph.initializers:
        readers = users.get(initializer.value, ()) if "." not in initializer.name else ()
        scope = next((node.scope for node in readers if node.scope), "")
        paths[initializer.name] = f"{scope}.{initializer.name}".lstrip(".")
    return paths


def _labelled(facts: Facts, axis: Axis) -> list[Axis]:
    """The leaf a label means: the axis itself, or its outermost factor."""
    return [facts.axes.leaves(axis)[0]]


def _long_name(axis: Axis, uses: list[tuple[str, int]], labels: dict[Axis, str]) -> str:
    modules = list(dict.fromkeys(_module(name) for name, _ in uses))
    prefix = _common(modules)
    if axis in labels:
        return f"{prefix}.{labels[axis]}".lstrip(".")
    if len(modules) > 3 and not re.search(r"(^|\.)\d+(\.|$)", prefix):
        return f"{prefix}.hidden".lstrip(".")
    return "" if prefix.rpartition(".")[2].isdigit() else prefix


def _first_module(uses: list[tuple[str, int]], label: str | None, contracted: Mapping[str, Sequence[int]]) -> str:
    """The module that makes the dim: the first whose output axis it is."""
    made = next((name for name, index in uses if name in contracted and index not in contracted[name]), None)
    made = made or next((name for name, index in uses if index == 0), uses[0][0])
    return f"{_module(made)}.{label}".lstrip(".") if label else _module(made) or made


def _resolve(names: dict[Axis, str], fallback: dict[Axis, str]) -> dict[Axis, str]:
    """Dims that would share a name (or have none) are called after the module that makes them."""
    counts = Counter(names.values())
    return {axis: name if name and counts[name] == 1 else fallback[axis] for axis, name in names.items()}


def _shortened(name: str) -> str:
    """The name from the container of the first numbered module on; ``hidden`` alone where it is that."""
    parts = name.split(".")
    number = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    if number is not None and number > 0:
        return ".".join(parts[number - 1 :])
    return parts[-1] if parts[-1] == "hidden" else name


def _clashing(short: dict[Axis, str], long: dict[Axis, str]) -> set[str]:
    """Short names whose starred form stands for different long names."""
    stems: dict[str, set[str]] = {}
    for axis, name in short.items():
        stems.setdefault(_starred(name), set()).add(_starred(long[axis]))
    return {name for name in short.values() if len(stems[_starred(name)]) > 1}


def _numbered(names: dict[Axis, str]) -> dict[Axis, str]:
    """Names made unique by a number where nothing else tells dims apart."""
    seen: Counter[str] = Counter()
    unique: dict[Axis, str] = {}
    for axis, name in names.items():
        seen[name] += 1
        unique[axis] = name if seen[name] == 1 else f"{name}#{seen[name]}"
    return unique


def _module(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def _common(modules: list[str]) -> str:
    """The longest path that all modules share."""
    parts = [module.split(".") for module in modules]
    shared = []
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return ".".join(shared)


def _starred(name: str) -> str:
    """The name with the numbers of modules starred, but for a first or last one, which is no layer's."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name)


# Groups


@dataclass(frozen=True)
class Group:
    """Dims that differ only by the number of their layer.

    Attributes:
        name: the starred name.
        size: of each of them.
        dims: the dims.
        pin: why none of them can grow, if so.
        default: whether they grow when only a factor is asked for.
    """

    name: str
    size: int
    dims: tuple[Dim, ...]
    pin: Why | None
    default: bool


def groups(graph_dims: Iterable[Dim]) -> list[Group]:
    """Dims gathered by starred name, size and whether they can grow, in order of appearance."""
    gathered: dict[tuple[str, int, bool, bool], list[Dim]] = {}
    for dim in graph_dims:
        gathered.setdefault((dim.group, dim.size, dim.pin is None, dim.default), []).append(dim)
    return [
        Group(name, size, tuple(members), members[0].pin, default)
        for (name, size, _, default), members in gathered.items()
    ]
