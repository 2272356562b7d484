"""Mistakes in what makes models deeper."""

from __future__ import annotations

from tests.mutants import Mutant

_CLOSING = ("tests/analysis/test_closing.py",)
_DEPTH = ("tests/analysis/test_depth.py",)
_DEEPEN = ("tests/passes/test_deepen.py",)
_FILES = ("tests/formats/onnx/test_depth.py",)

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "closing: a stream without gradient is one",
        "graphclone/analysis/closing.py",
        "        if value in self.facts.detached:\n            raise",
        "        if False:\n            raise",
        ("tests/analysis/test_closing.py",),
    ),
    Mutant(
        "closing: what is read as one and a parameter is closed by 0",
        "graphclone/analysis/closing.py",
        "return {initializer: 0.0 - number}",
        "return {initializer: 0.0}",
        _CLOSING,
    ),
    Mutant(
        "closing: a parameter that others read closes a block, too",
        "graphclone/analysis/closing.py",
        "return len(readers) == 1 and ",
        "return ",
        _CLOSING,
    ),
    Mutant(
        "closing: a stream may be rounded on its way",
        "graphclone/analysis/closing.py",
        "if value.dtype not in _HOLDS.get(self.block.entry.dtype, ()):",
        "if not _HOLDS:",
        _CLOSING,
    ),
    Mutant(
        "closing: a stream with a factor is added as it is",
        "graphclone/rules/arithmetic.py",
        '            if s.number("alpha", 1) == 1:\n',
        "            if True:\n",
        _CLOSING,
    ),
    Mutant(
        "closing: what is taken off is added",
        "graphclone/rules/arithmetic.py",
        "    s.facts.added.pop(s.out, None)\n",
        "",
        _CLOSING,
    ),
    Mutant(
        "blocks: what several outputs need is not looked at",
        "graphclone/graph/blocks.py",
        "if value in self.returned or outside:",
        "if value in self.returned:",
        _FILES,
    ),
    Mutant(
        "depth: new blocks are made after those behind them",
        "graphclone/analysis/depth.py",
        "return max((i for i in able if i <= block), default=able[0])",
        "return min((i for i in able if i >= block), default=able[-1])",
        _DEPTH,
    ),
    Mutant(
        "depth: kinds that take turns are not told",
        "graphclone/analysis/depth.py",
        "turn = _turn(tower.stack.kinds)",
        "turn = 1",
        _DEPTH,
    ),
    Mutant(
        "deepen: new blocks begin open",
        "passes/deepen.py",
        "    if closed is not None:\n",
        "    if closed:\n",
        _DEEPEN,
    ),
    Mutant(
        "deepen: later blocks keep their numbers",
        "graphclone/graph/deepen.py",
        "numbers = {block.number: stack.first + place for place, block in own}",
        "numbers = {block.number: block.number for _, block in own}",
        _DEEPEN,
    ),
    Mutant(
        "verification: streams of new blocks are not compared",
        "graphclone/verification/depth.py",
        "if value.name in exits:",
        "if value.name in entries - exits.keys():",
        ("tests/passes/test_deepen.py::test_a_closing_parameter_that_was_missed_is_found_out",),
    ),
    Mutant(
        "into: new blocks are not told from those of the source",
        "graphclone/analysis/depth.py",
        "if here is not None and form == other:",
        "if here is not None:",
        _DEPTH,
    ),
    Mutant(
        "depth: blocks that something goes around are not looked for",
        "graphclone/graph/blocks.py",
        "for start in dict.fromkeys([*starts, *entries]):",
        "for start in dict.fromkeys(starts):",
        ("tests/passes/test_deepen.py::test_blocks_that_something_goes_around_are_repeated",),
    ),
)
