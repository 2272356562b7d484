"""Make a failing program small: leave out what the failure does not need."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.fuzz.program import Program, Statement, reads, renamed

Fails = Callable[[Program], bool]

TRIES = 100
"""Most programs that are tried."""


def minimised(program: Program, fails: Fails, tries: int = TRIES) -> Program:
    """The smallest program found that still fails, by greedy steps.

    Args:
        program: fails.
        fails: whether a program still fails in the same way; says no to one that does not run.
        tries: how many programs may be asked about.
    """
    asked = {program.source()}
    moved = True
    while moved:
        moved = False
        for smaller in _smaller(program):
            if smaller.source() in asked:
                continue
            if tries <= 0:
                return program
            tries -= 1
            asked.add(smaller.source())
            if fails(smaller):
                program, moved = smaller, True
                break
    return _tidied(program)


def _smaller(program: Program) -> Iterator[Program]:
    """Programs one step smaller, the greatest steps first."""
    for i in range(len(program.outputs) if len(program.outputs) > 1 else 0):
        yield replace(program, outputs=(program.outputs[i],), shape="one")
    for i in reversed(range(len(program.statements))):
        less = program.without(i)
        if less is not None:
            yield less
    for i in reversed(range(len(program.statements))):
        yield from _passed_by(program, i)
    for i, statement in enumerate(program.statements):
        for k in range(len(statement.lines) - 1 if len(statement.lines) > 1 else 0):
            yield _with(program, i, Statement(statement.target, statement.lines[:k] + statement.lines[k + 1 :]))
    yield from _smaller_numbers(program)


def _passed_by(program: Program, index: int) -> Iterator[Program]:
    """A statement left out, its readers reading one of its operands in its place."""
    statement = program.statements[index]
    if statement.target is None:
        return
    for operand in sorted(str(name) for name in reads(statement.text) - {statement.target}):
        after = tuple(
            Statement(s.target, tuple(renamed(line, statement.target, operand) for line in s.lines))
            for s in program.statements[index + 1 :]
        )
        outputs = tuple(renamed(code, statement.target, operand) for code in program.outputs)
        yield replace(program, statements=program.statements[:index] + after, outputs=outputs)


def _smaller_numbers(program: Program) -> Iterator[Program]:
    """Sizes that are smaller everywhere."""
    texts = [*program.inits.values(), *(s.text for s in program.statements), *(g.code for g in program.given)]
    numbers = sorted({int(n) for text in texts for n in re.findall(r"(?<![\w.])\d+(?![\w.])", text)}, reverse=True)
    for number in numbers:
        for less in (k for k in (2, 3, number // 2) if 1 < k < number):
            swap = lambda text, number=number, less=less: re.sub(rf"(?<![\w.]){number}(?![\w.])", str(less), text)  # noqa: E731
            yield replace(
                program,
                inits={name: swap(text) for name, text in program.inits.items()},
                statements=tuple(Statement(s.target, tuple(map(swap, s.lines))) for s in program.statements),
                given=tuple(replace(g, code=swap(g.code)) for g in program.given),
                outputs=tuple(map(swap, program.outputs)),
            )
    for sizes in ((2, program.sizes[1]), (program.sizes[0], 2)):
        if sizes < program.sizes:
            yield replace(program, sizes=sizes)


def _with(program: Program, index: int, statement: Statement) -> Program:
    return replace(program, statements=(*program.statements[:index], statement, *program.statements[index + 1 :]))


def _tidied(program: Program) -> Program:
    """Without what nothing needs any more: inputs."""
    used = {name for text in (*(s.text for s in program.statements), *program.outputs) for name in reads(text)}
    return replace(program, given=tuple(g for g in program.given if g.name in used))
