"""Mistakes in what is held at the pads of dims, and in what is new alone."""

from __future__ import annotations

from tests.mutants import Mutant

_FILLS = ("tests/analysis/test_fills.py",)
_RULES = ("tests/rules/test_rules.py::test_rule_at_any_size",)
_WIDTHS = ("tests/passes/test_widths_and_scales.py",)

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "settling: what is averaged over is repeated unevenly",
        "graphclone/analysis/settling.py",
        "padded=axis in averaged",
        "padded=False",
        _FILLS,
    ),
    Mutant(
        "fills: one summand of 0 makes a sum 0",
        "graphclone/analysis/fills.py",
        "return [demand for demand in demands if demand is not None]",
        "return [demand for demand in demands if demand is not None][:1]",
        _FILLS,
    ),
    Mutant(
        "fills: what meets 0 meets anything",
        "graphclone/analysis/fills.py",
        "        self.demand(column, Fill.ZERO)",
        "        return",
        _FILLS,
    ),
    Mutant(
        "fills: the mean over a segment is that over the whole",
        "graphclone/analysis/fills.py",
        "if self.has_segments(gathering.axis) else",
        "if False else",
        _RULES,
    ),
    Mutant(
        "fills: the mean over one of several axes is that over all",
        "graphclone/rules/site.py",
        "if centred and len(several) > 1:",
        "if False:",
        _RULES,
    ),
    Mutant(
        "fills: a mean over several dims is taken off each",
        "graphclone/analysis/fills.py",
        "if gathering.alone and len(leaves) > 1:",
        "if False:",
        _RULES,
    ),
    Mutant(
        "fills: the difference from the mean over several dims is 0 at the pads of one",
        "graphclone/analysis/fills.py",
        "source is x and over == [place.dim]",
        "source is x and place.dim in over",
        (*_FILLS, *_RULES),
    ),
    Mutant(
        "fills: the difference from another mean is 0",
        "graphclone/analysis/fills.py",
        "if source is x and over",
        "if over",
        (*_FILLS, *_RULES),
    ),
    Mutant(
        "fills: a value holds 0 and the mean at once",
        "graphclone/analysis/fills.py",
        "elif held is not fill:",
        "elif False:",
        (*_FILLS, *_RULES),
    ),
    Mutant(
        "fills: what is divided by pads may be anything",
        "graphclone/analysis/fills.py",
        "if any(self.carriers(node, divisor, place.dim) for divisor in summand.divisors):",
        "if False:",
        _RULES,
    ),
    Mutant(
        "fills: a product holds the mean if one factor does",
        "graphclone/analysis/fills.py",
        "if len(carriers) > 1 or any(self.carriers(node, value, place.dim) for value in others):",
        "if False:",
        (*_RULES, *_FILLS),
    ),
    Mutant(
        "fills: a sum with a number is 0",
        "graphclone/analysis/fills.py",
        'if not carriers:\n                raise Unfillable(node.name, f"{node.op} adds what is not 0")',
        "if not carriers:\n                return None",
        (*_FILLS, *_RULES),
    ),
    Mutant(
        "fills: what does not scale passes 0",
        "graphclone/analysis/fills.py",
        "return degree is not None and degree > 0",
        "return degree is not None",
        (*_FILLS, *_RULES),
    ),
    Mutant(
        "fills: a function of several is 0 where one of them is",
        "graphclone/analysis/fills.py",
        "return carrying >= {value",
        "return bool(carrying) or carrying >= {value",
        _RULES,
    ),
    Mutant(
        "fills: columns are free beside what is not 0",
        "graphclone/analysis/fills.py",
        "            if self.tried(partner, Fill.ZERO):\n                return",
        "            return",
        _FILLS,
    ),
    Mutant(
        "fills: a softmax bears pads",
        "graphclone/analysis/fills.py",
        "if self.has(axis, dim) and (why.node, self.axes.find(axis)) not in gathered:",
        "if False:",
        (*_FILLS, *_RULES),
    ),
    Mutant(
        "fills: a result that lacks the dim bears pads",
        "graphclone/analysis/fills.py",
        "if not self.averages(node, dim) and self.takes_away(node, dim):",
        "if False:",
        _RULES,
    ),
    Mutant(
        "fills: outputs may have pads",
        "graphclone/analysis/fills.py",
        '            if self.places(value, dim):\n                raise Unfillable(value.name, "an input or an output',
        '            if False:\n                raise Unfillable(value.name, "an input or an output',
        _RULES,
    ),
    Mutant(
        "fills: what is written into holds what it held before",
        "graphclone/analysis/fills.py",
        "        self.writes.check(value)\n",
        "",
        _RULES,
    ),
    Mutant(
        "fills: what lends its shape is taken together",
        "graphclone/analysis/fills.py",
        "felt = (value for value in node.inputs if (node, value) not in self.facts.outlines)",
        "felt = node.inputs",
        _FILLS,
    ),
    Mutant(
        "settling: sizes that tell a node what to compute may become equal",
        "graphclone/analysis/settling.py",
        "        or _settle_distinct(facts, growths, reasons)\n",
        "",
        _WIDTHS,
    ),
    Mutant(
        "widths: parts of an average that have more copies than others have no pads",
        "passes/choose_widths.py",
        "instead = evened(facts, wishes) if reasons else wishes",
        "instead = wishes",
        _WIDTHS,
    ),
    Mutant(
        "settling: what is new alone makes copies",
        "graphclone/analysis/settling.py",
        "if not copies:",
        "if False:",
        _FILLS,
    ),
    Mutant(
        "widths: all that takes any size is named, what does not too",
        "passes/choose_widths.py",
        "        except Unfillable:\n            continue\n",
        "        except Unfillable:\n            pass\n",
        _FILLS,
    ),
)
