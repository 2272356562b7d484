"""The new depth of each stack, and which block then stands at each place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from graphclone.algebra.depths import Depths, Where
from graphclone.analysis.closing import Tower
from graphclone.errors import GraphcloneError
from graphclone.graph.blocks import Stack, forms, stacks
from graphclone.graph.deepen import Slot
from graphclone.graph.ir import Graph

_STREAM = "a stream, one value from each block to the next that nothing further behind reads"


def depths_asked(towers: Sequence[Tower], depth: Depths, model: str) -> dict[Tower, int]:
    """The number of blocks that is asked of each stack.

    Args:
        towers: of the model.
        depth: as it is asked for.
        model: what messages call it.

    Raises:
        GraphcloneError: there is no such stack, or it cannot be made so deep.
    """
    asked: dict[Tower, int] = {}
    for pattern, number in _by_pattern(towers, depth, model).items():
        matching = [tower for tower in towers if tower.stack.matches(pattern)]
        if not matching:
            raise GraphcloneError(f"depth: no stack of blocks is called {pattern!r}; there are {_listed(towers)}")
        for tower in matching:
            _check(tower, number)
            asked[tower] = number
    return asked


def _by_pattern(towers: Sequence[Tower], depth: Depths, model: str) -> Mapping[str, int]:
    if not towers:
        raise GraphcloneError(f"depth: {model} has no blocks that are repeated along {_STREAM}")
    if isinstance(depth, Mapping):
        return depth
    able = [tower for tower in towers if not tower.obstacle] or list(towers)[:1]
    if len(able) > 1:
        example = f"{{{able[0].name!r}: {depth}}}"
        raise GraphcloneError(f"depth: there are several stacks of blocks, {_listed(able)}; say which, as {example}")
    return {able[0].name: depth}


def _listed(towers: Sequence[Tower]) -> str:
    return ", ".join(f"{tower.name} ({len(tower.stack.blocks)})" for tower in towers)


def _check(tower: Tower, number: object) -> None:
    count = len(tower.stack.blocks)
    if isinstance(number, bool) or not isinstance(number, int) or number < count:
        raise GraphcloneError(
            f"depth: {tower.name}={number}: the depth is a whole number of at least {count}, the source's"
        )
    if tower.obstacle and number > count:
        raise GraphcloneError(f"depth: the blocks of {tower.name} cannot be repeated: {tower.obstacle}")


def arranged(tower: Tower, depth: int, where: Where) -> list[Slot]:
    """The blocks of a stack that is made deeper, in order.

    A new block is made after the one before it, or the nearest that can be. Where kinds of blocks take turns whole
    turns are added, if that gives the depth.
    """
    count = len(tower.stack.blocks)
    turn = _turn(tower.stack.kinds)
    if (depth - count) % turn or any(closing.obstacle for closing in tower.closings):
        turn = 1
    turns, more = count // turn, (depth - count) // turn
    slots: list[Slot] = []
    for index in range(turns):
        own = [*range(index * turn, (index + 1) * turn)]
        before, behind = _copies(index, turns, more, where)
        slots += [Slot(_closable(tower, block), new=True) for block in own * before]
        slots += [Slot(block, new=False) for block in own]
        slots += [Slot(_closable(tower, block), new=True) for block in own * behind]
    return slots


def _turn(kinds: Sequence[int]) -> int:
    """After how many blocks their kinds come again."""
    count = len(kinds)
    turns = (n for n in range(1, count) if count % n == 0)
    return next((n for n in turns if all(kinds[i] == kinds[i % n] for i in range(count))), 1)


def _copies(index: int, turns: int, more: int, where: Where) -> tuple[int, int]:
    """How many new turns come before one of the source, and how many behind it."""
    if where == "spread":
        return 0, (index + 1) * more // turns - index * more // turns
    if where == "end":
        return 0, more if index == turns - 1 else 0
    return more if index == 0 else 0, 0


def _closable(tower: Tower, block: int) -> int:
    """The nearest block that can be repeated, an earlier one if there is one."""
    able = [i for i, closing in enumerate(tower.closings) if not closing.obstacle]
    return max((i for i in able if i <= block), default=able[0])


# Into a deeper graph of the same code


def aligned_blocks(source: Graph, target: Graph, where: Where = "spread") -> dict[Stack, list[Slot]]:
    """The blocks of each stack of which a target has more, in order, by the name of the stack.

    Blocks keep their order, and every block of the source meets one of the target that runs the same operators; what is
    left over in the target is new. Of all ways to do that it is the one nearest to where new blocks are to go.

    Args:
        source: canonical, as is the target.
        target: the same code, perhaps at other widths.
        where: new blocks are to go, if there is a choice.

    Raises:
        GraphcloneError: a block of the source meets none of the target, or a new one is like none of the source.
    """
    others = {stack.name: stack for stack in stacks(target)}
    plans: dict[Stack, list[Slot]] = {}
    for stack in stacks(source):
        other = others.get(stack.name)
        nested = any(f"{stack.name}.".startswith(f"{outer.name}.") for outer in plans)
        if other is not None and not nested and len(other.blocks) > len(stack.blocks):
            plans[stack] = _aligned(stack, *_comparable((stack, source), (other, target)), where)
    return plans


def _comparable(own: tuple[Stack, Graph], other: tuple[Stack, Graph]) -> tuple[Sequence[object], Sequence[object]]:
    """The forms of the blocks of two stacks; without what constants they read, if they cannot be matched with that."""
    for constants in (True, False):
        ours, theirs = (forms(stack, graph, exact=False, constants=constants) for stack, graph in (own, other))
        behind = iter(theirs)
        if all(form in behind for form in ours) and set(theirs) <= set(ours):
            break
    return ours, theirs


def _aligned(stack: Stack, ours: Sequence[object], theirs: Sequence[object], where: Where) -> list[Slot]:
    matched = _matched(ours, theirs, [*_ideal(len(ours), len(theirs), where)])
    if matched is None:
        raise GraphcloneError(f"{stack.name}: the target does not have the blocks of the source in their order")
    block_at = {place: block for block, place in enumerate(matched)}
    before = list(accumulate((block_at.get(place, -1) for place in range(len(theirs))), max))
    slots: list[Slot] = []
    for place, form in enumerate(theirs):
        if place in block_at:
            slots.append(Slot(block_at[place], new=False))
            continue
        alike = [block for block, own in enumerate(ours) if own == form]
        if not alike:
            raise GraphcloneError(
                f"{stack.name}: block {stack.first + place} of the target is unlike all blocks of the source"
            )
        slots.append(Slot(max((b for b in alike if b <= before[place]), default=alike[0]), new=True))
    return slots


def _ideal(count: int, depth: int, where: Where) -> Iterator[int]:
    """Where the blocks of the source would go if all were alike."""
    place = 0
    for index in range(count):
        before, behind = _copies(index, count, depth - count, where)
        yield place + before
        place += before + 1 + behind


def _matched(ours: Sequence[object], theirs: Sequence[object], ideal: Sequence[int]) -> list[int] | None:
    """The place of every block of the source, ascending, the sum of distances to the ideal ones being least."""
    best: list[tuple[int, tuple[int, ...]] | None] = [(0, ())] * (len(theirs) + 1)
    for block, form in enumerate(ours):
        following: list[tuple[int, tuple[int, ...]] | None] = [None]
        for place, other in enumerate(theirs):
            here, held = best[place], following[-1]
            if here is not None and form == other:
                cost = here[0] + abs(place - ideal[block])
                held = min(held or (cost, (*here[1], place)), (cost, (*here[1], place)))
            following.append(held)
        best = following
    return list(best[-1][1]) if best[-1] is not None else None
