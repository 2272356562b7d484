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
from graphclone.algebra.growth import Growth
from graphclone.analysis.facts import Facts
from graphclone.graph.ir import Value


@dataclass(frozen=True, eq=False)
class Dim:
    """One hidden dim of the source.

    Attributes:
        axis: the leaf that stands for it.
        name: unique in its graph, after the modules it lives in.
        group: the name with layer numbers starred.
        numbered: the name with a number in place of what tells it apart from others, which is understood as well.
        size: in the source.
        parameters: names of the parameters that have it, in order.
        pin: why it cannot grow, if so.
        default: whether it grows when only a factor is asked for.
    """

    axis: Axis
    name: str
    group: str
    numbered: str
    size: int
    parameters: tuple[str, ...]
    pin: Why | None
    default: bool

    def matches(self, pattern: str) -> bool:
        """Whether a name or a pattern with wildcards means this dim."""
        name = self.numbered if "#" in pattern else self.name
        return pattern in (self.name, self.group) or fnmatchcase(name, pattern)


def dims(facts: Facts) -> list[Dim]:
    """The dims of a graph that touch a parameter, in the order of the parameters.

    A dim is offered by default if it is free and is the outermost free factor wherever it is a factor of a
    parameter's axis: heads grow and the width of a head stays, groups grow and their members stay. Both sides grow of a
    matrix that is stored as one row of numbers, as nothing that the model computes has an axis of both.
    """
    places = _places(facts)
    inner = _inner(facts)
    names, numbered = _names(facts, _by_path(facts, places))
    groups = {axis: starred(name) for axis, name in names.items()}
    return [
        Dim(
            axis=axis,
            name=names[axis],
            group=groups[axis],
            numbered=numbered[axis],
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
    """Leaves that stand behind a free outer factor in some parameter's axis.

    Of leaves that each stand behind the other, as they do where a model transposes factors, the first that has nothing
    else before it stands behind none. Nor does one that stands behind itself alone, as in the products of all pairs.
    """
    import networkx as nx

    behind: nx.DiGraph[Axis] = nx.DiGraph()
    products = list(_products(facts))
    partial = {leaf for factors in products for leaf in _partial(facts, factors)}
    for factors in products:
        outer, *rest = sorted(map(facts.axes.leaves, factors), key=lambda leaves: not partial.isdisjoint(leaves))
        inner = [leaf for part in rest for leaf in part]
        behind.add_edges_from((before, leaf) for before in outer for leaf in inner if leaf is not before)
    groups = nx.condensation(behind)
    order = {leaf: place for place, leaf in enumerate(behind)}
    circles = (groups.nodes[group]["members"] for group in groups if not groups.in_degree(group))
    first = {min(circle, key=order.__getitem__) for circle in circles if len(circle) > 1}
    return {leaf for leaf in behind if behind.in_degree(leaf)} - first


def _products(facts: Facts) -> Iterator[list[Axis]]:
    """The factors that can grow, of every product that is in a parameter's axis and in one of a computed value."""
    computed = set(_composed(facts, (axis for value in _computed(facts) for axis in facts.of[value])))
    for axis in _composed(facts, (axis for _, axes in _parameters(facts) for axis in axes)):
        if axis.kind is Kind.PRODUCT and axis in computed:
            free = [part for part in facts.axes.factors(axis) if not facts.axes.is_rigid(part)]
            if free:
                yield free


def _composed(facts: Facts, axes: Iterable[Axis]) -> dict[Axis, None]:
    """The products and sums among axes, and within these, in order."""
    pending, seen = list(axes), dict[Axis, None]()
    for axis in pending:
        axis = facts.axes.find(axis)
        if axis not in seen and axis.kind is not Kind.DIM:
            seen[axis] = None
            pending += facts.axes.factors(axis) if axis.kind is Kind.PRODUCT else facts.axes.segments(axis)
    return seen


def _computed(facts: Facts) -> Iterator[Value]:
    """The values that depend on an input, as what is done to weights alone does not."""
    fed = set(facts.graph.inputs)
    for node in facts.graph.nodes:
        if not fed.isdisjoint(node.inputs):
            fed.update(node.outputs)
    yield from (value for value in fed if value in facts.of)


def _partial(facts: Facts, factors: Sequence[Axis]) -> list[Axis]:
    """The leaves of an outer factor that can only grow in part, where another, not summed over, can as a whole.

    Where some of the groups of a convolution cannot grow, their channels do. What is summed over without a weight, as
    the width of a head is, stays behind the heads, however few of them can grow.
    """
    outer, *others = factors
    summed = {leaf for axis, _ in facts.axes.uniforms for leaf in facts.axes.leaves(axis)}
    leaves = (facts.axes.leaves(other) for other in others if facts.axes.is_whole(other))
    yields = not facts.axes.is_whole(outer) and any(summed.isdisjoint(whole) for whole in leaves)
    return facts.axes.leaves(outer) if yields else []


# Names


def _names(facts: Facts, places: dict[Axis, list[tuple[str, int]]]) -> tuple[dict[Axis, str], dict[Axis, str]]:
    """A unique name per dim, and another with a number in place of what tells it apart."""
    labels = {leaf: label for axis, label in facts.labels for leaf in _labelled(facts, axis)}
    paths = _paths(facts)
    contracted = {paths[i.name]: facts.folded[i.value] for i in facts.graph.initializers if i.value in facts.folded}
    tails = _tails(facts, paths)
    long = {axis: _long_name(axis, uses, labels) for axis, uses in places.items()}
    long = _resolve(long, {axis: _first_module(uses, labels.get(axis), contracted) for axis, uses in places.items()})
    short = {axis: _shortened(name) for axis, name in long.items()}
    clashes = _clashing(short, long)
    choice = {axis: long[axis] if short[axis] in clashes else short[axis] for axis in places}
    return _numbered(_told_apart(choice, tails)), _numbered(choice)


def _by_path(facts: Facts, places: dict[Axis, list[tuple[str, int]]]) -> dict[Axis, list[tuple[str, int]]]:
    paths = _paths(facts)
    return {axis: [(paths[name], index) for name, index in uses] for axis, uses in places.items()}


def _paths(facts: Facts) -> dict[str, str]:
    """Where in the model every initializer belongs: its own name, or, if that is no module's, that of its first reader.

    Where no weight is named after a module, what the paths of all have in common says nothing and is left out.
    """
    weights = [name for name, _ in _parameters(facts)]
    placed = _placed(facts, weights)
    noise = _noise([placed[name] for name in weights]) if all(name in placed for name in weights) else 0
    names = [initializer.name for initializer in facts.graph.initializers]
    return {name: ".".join(placed[name][noise:]) if name in placed else name for name in names}


def _placed(facts: Facts, weights: Sequence[str]) -> dict[str, list[str]]:
    """The parts of the path of every initializer whose name is no module's: its reader's, or those of its name."""
    users = facts.graph.users()
    endings = [name.split("/")[::-1] for name in weights if "/" in name]
    noise = _shared(endings, 2)
    placed = {}
    for initializer in facts.graph.initializers:
        if "." in initializer.name and "/" not in initializer.name:
            continue
        scope = next((node.scope for node in users.get(initializer.value, ()) if node.scope), "")
        path = initializer.name.split("/")
        path = path[: max(len(path) - noise, 1)]
        placed[initializer.name] = _joined(scope.split("."), path) if scope else path
    return placed


def _noise(paths: Sequence[Sequence[str]]) -> int:
    """How many first parts all paths have in common, up to the container of a numbered module."""
    shared = _shared(paths, 2)
    numbers = [at for at, part in enumerate(paths[0][: shared + 1] if paths else ()) if part.isdigit()]
    return min(shared, max(numbers[0] - 1, 0)) if numbers else shared


def _joined(scope: list[str], path: list[str]) -> list[str]:
    """The path of a weight in the part of the model that reads it; its last part is the weight's own."""
    return [*scope, "/".join(path[_shared([scope, path], 1) :])]


def _shared(paths: Sequence[Sequence[str]], rest: int) -> int:
    """How many first parts all paths have in common; so many are left of each at least."""
    most = max(min((len(path) for path in paths), default=0) - rest, 0)
    return next((at for at in range(most) if len({path[at] for path in paths}) > 1), most)


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
    maker = next((name for name, index in uses if name in contracted and index not in contracted[name]), None)
    maker = maker or next((name for name, index in uses if index == 0), uses[0][0])
    return f"{_module(maker)}.{label}".lstrip(".") if label else _module(maker) or maker


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
        stems.setdefault(starred(name), set()).add(starred(long[axis]))
    return {name for name in short.values() if len(stems[starred(name)]) > 1}


def _tails(facts: Facts, paths: Mapping[str, str]) -> dict[Axis, tuple[str, ...]]:
    """What tells a dim apart from others of its module, simplest first: which axis it is of which parameter.

    The first axis that it is the whole of says most.
    """
    tails: dict[Axis, tuple[str, ...]] = {}
    whole: dict[Axis, tuple[str, ...]] = {}
    for initializer in facts.graph.initializers:
        if initializer.kind != "parameter":
            continue
        parameter = paths[initializer.name].rpartition(".")[2]
        for index, axis in enumerate(facts.of[initializer.value]):
            role, leaves = _role(facts, initializer.value, index), facts.axes.leaves(axis)
            for part, leaf in enumerate(leaves, 1):
                place = f"{role}{part}" if len(leaves) > 1 else role
                full = f"{paths[initializer.name]}.{place}"
                table = tails if len(leaves) > 1 else whole
                table.setdefault(leaf, (parameter, place, f"{parameter}.{place}", full))
    return tails | whole


def _role(facts: Facts, parameter: Value, index: int) -> str:
    """What an axis of a parameter is for it: what goes in, what comes out, or one of several."""
    contracted = facts.folded.get(parameter, ())
    if contracted and index == min(contracted):
        return "in"
    return "out" if contracted and {*range(parameter.rank)} == {*contracted, index} else f"axis{index}"


def _told_apart(names: dict[Axis, str], tails: Mapping[Axis, Sequence[str]]) -> dict[Axis, str]:
    """Names of which dims that share one say where they are, alike in every layer; the first that can grow keeps it."""
    alike: dict[str, dict[str, list[Axis]]] = {}
    for axis, name in names.items():
        alike.setdefault(starred(name), {}).setdefault(name, []).append(axis)
    result = dict(names)
    for layers in alike.values():
        crowds = [sharing for sharing in layers.values() if len(sharing) > 1]
        form = _telling(crowds, tails)
        for sharing in crowds:
            keeps = next((axis for axis in sharing if axis.pin is None), sharing[0])
            result.update((axis, f"{names[axis]}.{tails[axis][form]}") for axis in sharing if axis is not keeps)
    return result


def _telling(crowds: Sequence[Sequence[Axis]], tails: Mapping[Axis, Sequence[str]]) -> int:
    """The first kind of tail that differs within every crowd, if it is one to type, and the same in all crowds.

    The last kind, with the whole path, always differs.
    """
    apart = []
    for kind in range(len(next(iter(tails.values()), ()))):
        rows = [[tails[axis][kind] for axis in sharing] for sharing in crowds]
        if all(len({*names}) == len(names) for names in rows):
            apart.append(kind)
            if all(names == rows[0] and all(re.fullmatch(r"[\w.]+", name) for name in names) for names in rows):
                return kind
    return next(iter(apart), -1)


def _numbered(names: dict[Axis, str]) -> dict[Axis, str]:
    """Names made unique by a number."""
    counts: Counter[str] = Counter()
    unique: dict[Axis, str] = {}
    for axis, name in names.items():
        counts[name] += 1
        unique[axis] = name if counts[name] == 1 else f"{name}#{counts[name]}"
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


def starred(name: str) -> str:
    """The name with the numbers of modules starred. A first or last number stays, since it is no layer's."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name)


# Groups


def doubled(dims: Iterable[Dim]) -> dict[Axis, Growth]:
    """Twice each of some dims, which is what shows what growth costs."""
    return {dim.axis: Growth(dim.size, 2) for dim in dims}


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
