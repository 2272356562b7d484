"""Op rules: what each operator means for axes and scales, one file per family of operators."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from graphclone.analysis.facts import Facts
from graphclone.errors import RuleError, one_line
from graphclone.graph.ir import Node
from graphclone.rules import (
    arithmetic,
    attention,
    concat,
    contrib,
    contrib_attention,
    contrib_experts,
    control,
    conv,
    create,
    index,
    linear,
    norm,
    pointwise,
    recurrent,
    reduce,
    view,
)
from graphclone.rules.site import Cannot, Rule, Site, Stated

FAMILIES = (
    pointwise,
    arithmetic,
    linear,
    conv,
    norm,
    attention,
    index,
    view,
    concat,
    reduce,
    recurrent,
    control,
    create,
    contrib,
    contrib_attention,
    contrib_experts,
)

Rules = Mapping[str, Rule]


def default_rules() -> dict[str, Rule]:
    """Every rule that comes with graphclone, by qualified op name."""
    return {op: rule for family in FAMILIES for op, rule in family.RULES.items()}


def pattern_of(rule: Rule) -> str | None:
    """The pattern that a rule states, if it is one that can be shown."""
    return rule.pattern if isinstance(rule, Stated) else None


def find(rules: Rules, op: str) -> tuple[Rule | None, bool]:
    """The rule for an op, and whether it works in place: ``add_`` means what ``add`` means."""
    if op in rules:
        return rules[op], False
    name, _, overload = op.rpartition(".")
    return rules.get(f"{name[:-1]}.{overload}" if name.endswith("_") else ""), True


def apply(node: Node, facts: Facts, rules: Rules) -> None:
    """State what a node means. What no rule understands is pinned, with the reason.

    Raises:
        RuleError: the rule breaks down instead of refusing the node.
    """
    site = Site(node, facts)
    rule, in_place = find(rules, node.op)
    if rule is not None:
        _apply(rule, site, in_place=in_place)
    elif any(output.is_tensor for output in node.outputs):
        site.refuse(f"{node.op}: no rule says what it means")
    else:
        site.pin_all("read as a number")


def _apply(rule: Rule, site: Site, *, in_place: bool) -> None:
    try:
        rule(site)
        if in_place:
            _write_back(site)
        unread = list(site.unread())
        if unread:
            raise Cannot(f"its {', '.join(unread)} is not understood")
        for value in list(site.unbalanced()):
            site.require({value: 1})
    except Cannot as reason:
        _forget(site.node, site.facts)
        site.refuse(f"{site.node.op}: {reason}")
    except Exception as error:  # whatever a rule raises that is no refusal
        where = f"{site.node.name} ({site.node.op})"
        raise RuleError(f"{where}: the rule {_name(rule)} fails with {one_line(error)}") from error


def _name(rule: Rule) -> str:
    """Where a rule is to be found."""
    function = rule.func if isinstance(rule, partial) else rule
    return f"{function.__module__}.{function.__qualname__}"


def _forget(node: Node, facts: Facts) -> None:
    """Take back what was said about a node that turns out not to be understood."""
    facts.balances.pop(node, None)
    facts.contractions[:] = [contraction for contraction in facts.contractions if contraction.node is not node]
    facts.sums[:] = [total for total in facts.sums if total.node is not node]
    facts.follows[:] = [follow for follow in facts.follows if follow.node is not node]
    facts.gatherings[:] = [gathering for gathering in facts.gatherings if gathering.node is not node]
    facts.distinct[:] = [pair for pair in facts.distinct if pair[2].node != node.name]
    facts.vanishing.discard(node)
    facts.poles.pop(node, None)
    for output in node.outputs:
        facts.summands.pop(output, None)
        facts.added.pop(output, None)
        facts.means.pop(output, None)
        facts.views.pop(output, None)
        facts.shifts.pop(output, None)
        facts.floors.pop(output, None)
        facts.picked.pop(output, None)
        facts.extremes.pop(output, None)
        facts.moved.discard(output)
        facts.regrouped.pop(output, None)
    facts.tables.difference_update(node.inputs)
    facts.outlines.difference_update((node, value) for value in node.inputs)


def _write_back(site: Site) -> None:
    """An in-place op changes its first operand, which must look like the result."""
    target = site.tensors[0]
    if site.facts.views.get(site.out, (target, ()))[1] not in ((), tuple(range(target.rank))):
        raise Cannot("it reorders axes in place")
    site.equal_all(site.axes(target), site.axes(site.out))
    if site.node in site.facts.balances:  # otherwise all scales are 1 anyway
        site.require({target: 1, site.out: -1})
