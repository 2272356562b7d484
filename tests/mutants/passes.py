"""Mistakes in the passes, and in what clones one model into another."""

from __future__ import annotations

from tests.mutants import Mutant

_WIDTHS = ("tests/passes/test_widths_and_scales.py",)
_GRAPHS = ("tests/rules/test_rules_graphs.py",)

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "matching: the wide graph is matched as it was traced",
        "passes/matching.py",
        "    run((Canonicalize(),), wide)\n",
        "",
        ("tests/formats/torch/test_into.py",),
    ),
    # registry
    Mutant(
        "registry: an option that is as by default is written, and another one is not",
        "passes/registry.py",
        "text != options.write(_default(field))",
        "text == options.write(_default(field))",
        ("tests/pipeline/test_runner.py",),
    ),
    Mutant(
        "options: a comma in quotes ends an option",
        "passes/options.py",
        """r'"(?:[^"\\\\]|\\\\.)*"|.'""",
        "r'.'",
        ("tests/pipeline/test_runner.py",),
    ),
    # canonicalize
    Mutant(
        "canonicalize: a variance is unbiased where it should not be",
        "graphclone/formats/torch/canonical.py",
        'int(read.flag("unbiased", True))',
        '1 - int(read.flag("unbiased", True))',
        ("tests/formats/torch/test_canonical.py",),
    ),
    Mutant(
        "canonicalize: the default scale of attention is its inverse",
        "graphclone/formats/torch/canonical.py",
        "float(query.size(-1)) ** -0.5",
        "float(query.size(-1)) ** 0.5",
        ("tests/pipeline/test_printer.py",),
    ),
    Mutant(
        "canonicalize: what is written into is folded",
        "graphclone/graph/canonical.py",
        "        and not any(value in written for value in node.outputs)\n",
        "",
        ("tests/rules/test_rules_graphs.py::test_what_is_written_into_is_made_anew_in_every_run",),
    ),
    Mutant(
        "canonicalize: what nobody reads stays",
        "passes/canonicalize.py",
        "unread = graph.prune()",
        "unread = False",
        ("tests/pipeline/test_runner.py", "tests/pipeline/test_printer.py"),
    ),
    # conditions
    Mutant(
        "conditions: what a pass requires is believed once it was ensured",
        "graphclone/pipeline/runner.py",
        "self.holding = set(step.ensures)",
        "self.holding |= step.ensures",
        ("tests/pipeline/test_conditions.py",),
    ),
    Mutant(
        "conditions: a literal that still has its old value is a new one",
        "graphclone/pipeline/conditions.py",
        "if isinstance(size, int) and size != expected:",
        "if isinstance(size, int) and size > expected:",
        ("tests/pipeline/test_conditions.py",),
    ),
    Mutant(
        "snapshot: numbers in nodes may change",
        "graphclone/graph/snapshot.py",
        " or operands != node.operands",
        "",
        ("tests/pipeline/test_conditions.py",),
    ),
    Mutant(
        "state: later results stay when an earlier one is set",
        "graphclone/pipeline/state.py",
        "earlier = STAGES[: STAGES.index(self.name)]",
        "earlier = STAGES",
        ("tests/pipeline/test_conditions.py",),
    ),
    # invariants
    Mutant(
        "invariants: a value may be wider than the widths say",
        "graphclone/pipeline/invariants.py",
        "if value.shape not in (sizes, wide):",
        "if value.shape is None:",
        ("tests/graph/test_invariants.py",),
    ),
    Mutant(
        "invariants: lists of operands are not looked into",
        "graphclone/graph/invariants.py",
        "            for item in operand:\n                self.operand(item, where)\n",
        "            pass\n",
        ("tests/graph/test_invariants.py",),
    ),
    # infer-dims
    Mutant(
        "infer-dims: outputs may grow unasked",
        "passes/infer_dims.py",
        '    ports += [("output", o.name, v) for o in facts.graph.outputs for v in values_in(o.operand)]\n',
        "",
        ("tests/analysis/test_flow.py",),
    ),
    Mutant(
        "infer-dims: what nobody reads may grow",
        "passes/infer_dims.py",
        "        _pin_unread(facts)\n",
        "",
        ("tests/analysis/test_dims.py",),
    ),
    Mutant(
        "dims: inner factors grow unasked, outer ones do not",
        "graphclone/analysis/dims.py",
        "for before in outer for part in rest for leaf in part",
        "for part in rest for before in part for leaf in outer",
        ("tests/analysis/test_dims.py",),
    ),
    Mutant(
        "dims: groups of which some cannot grow stand before their channels",
        "graphclone/analysis/dims.py",
        "key=lambda leaves: not partial.isdisjoint(leaves)",
        "key=lambda leaves: 0",
        ("tests/analysis/test_dims.py",),
    ),
    Mutant(
        "dims: the width of heads stands before heads of which some cannot grow",
        "graphclone/analysis/dims.py",
        "any(summed.isdisjoint(whole) for whole in leaves)",
        "any(leaves)",
        ("tests/analysis/test_dims.py",),
    ),
    Mutant(
        "infer-dims: an identity that is looked up is a table like any",
        "passes/infer_dims.py",
        "        _pin_one_hots(facts)\n",
        "",
        ("tests/rules/test_one_hot.py",),
    ),
    # choose-widths
    Mutant(
        "settling: requirements are settled once",
        "graphclone/analysis/settling.py",
        "    ):\n        pass\n    return growths, reasons",
        "    ):\n        break\n    return growths, reasons",
        ("tests/algebra/test_axes.py::test_what_one_requirement_lowers_may_break_another",),
    ),
    Mutant(
        "settling: segments grow by the greatest factor",
        "graphclone/analysis/settling.py",
        "least = min(g.factor for g in alike if g)",
        "least = max(g.factor for g in alike if g)",
        ("tests/algebra/test_axes.py::test_what_one_requirement_lowers_may_break_another",),
    ),
    Mutant(
        "settling: tied factors may grow unequally",
        "graphclone/analysis/settling.py",
        '("tile", b.factor, "tile")',
        '("tile", a.factor, "tile")',
        ("tests/algebra/test_axes.py::test_factorings_without_common_factors_are_tied",),
    ),
    Mutant(
        "settling: what stands behind a tied factor may grow",
        "graphclone/analysis/settling.py",
        "_hold(growths, reasons, [*inner, *outer], tie.why)",
        "_hold(growths, reasons, outer, tie.why)",
        ("tests/algebra/test_axes.py::test_behind_a_tied_factor_nothing_grows",),
    ),
    Mutant(
        "settling: a sum of integers may leave its bits",
        "graphclone/analysis/facts.py",
        "self.places * size * 255**2 < 2**31",
        "self.places * size * 255 < 2**31",
        ("tests/formats/onnx/test_quantised.py::test_a_sum_of_integers_stays_within_its_bits",),
    ),
    Mutant(
        "integers: a sum is carried into integers and floats of any width",
        "graphclone/analysis/integers.py",
        "or out.dtype not in (value.dtype, *_WIDE)",
        "",
        ("tests/formats/onnx/test_quantised.py::test_a_sum_of_integers_is_pinned_where_its_factor_does_not_pass",),
    ),
    Mutant(
        "integers: a sum is carried to any reader",
        "graphclone/analysis/integers.py",
        "if not all(self._passes(node, out, value) for out in node.outputs):",
        "if False:",
        ("tests/formats/onnx/test_quantised.py::test_a_sum_of_integers_is_pinned_where_its_factor_does_not_pass",),
    ),
    # balance-scales
    Mutant(
        "balance-scales: the variance of few elements is that of many",
        "passes/balance_scales.py",
        "Fraction((new - 1) * old, (old - 1) * new)",
        "Fraction(new * old, old * new)",
        _WIDTHS,
    ),
    Mutant(
        "balance-scales: a mended value has the inverse scale",
        "passes/balance_scales.py",
        "scales.values.get(mend.value, 1.0) / factor",
        "scales.values.get(mend.value, 1.0) * factor",
        _GRAPHS,
    ),
    Mutant(
        "balance-scales: a shifted weight is shifted by the whole scale",
        "passes/balance_scales.py",
        "(scale - 1) * number",
        "scale * number",
        (
            "tests/passes/test_widths_and_scales.py::test_a_weight_read_plus_one_absorbs_a_factor_if_nothing_else_reads_it",
        ),
    ),
    Mutant(
        "balance-scales: a weight that others read is shifted for one",
        "passes/balance_scales.py",
        'self.initializers[chain[-1]].kind == "parameter" and alone:',
        'self.initializers[chain[-1]].kind == "parameter":',
        (
            "tests/passes/test_widths_and_scales.py::test_a_weight_read_plus_one_absorbs_a_factor_if_nothing_else_reads_it",
        ),
    ),
    Mutant(
        "balance-scales: a given graph is mended",
        "passes/balance_scales.py",
        "if not balance.mendable or self.given is not None:",
        "if not balance.mendable:",
        ("tests/formats/torch/test_into.py::test_an_untied_wide_model_takes_what_a_tied_one_cannot",),
    ),
    Mutant(
        "rewrite-literals: a square takes a factor twice",
        "passes/rewrite_literals.py",
        "            node.operands[name] = new\n            return\n",
        "            node.operands[name] = new\n",
        ("tests/rules/test_rules_graphs.py::test_a_square_takes_a_factor_once",),
    ),
    # widen-initializers and rewrite-literals
    Mutant(
        "widen-initializers: nothing is shared out",
        "passes/widen_initializers.py",
        "contracted=facts.folded.get(initializer.value, ())",
        "contracted=()",
        ("tests/rules/test_rules_graphs.py::test_a_weight_absorbs_copies_behind_a_view",),
    ),
    Mutant(
        "widen-initializers: shifts are left out",
        "passes/widen_initializers.py",
        "shift=scales.shifts.get(initializer.value, 0.0)",
        "shift=0.0",
        (
            "tests/passes/test_widths_and_scales.py::test_a_weight_read_plus_one_absorbs_a_factor_if_nothing_else_reads_it",
        ),
    ),
    Mutant(
        "rewrite-literals: a size from the end is written as one from the start",
        "passes/rewrite_literals.py",
        "follow.sign * sum(layout.new_size",
        "sum(layout.new_size",
        ("tests/rules/test_rules.py::test_rule[aten.slice.Tensor]",),
    ),
    Mutant(
        "rewrite-literals: a factor is divided by its scale",
        "passes/rewrite_literals.py",
        "item.value * scale",
        "item.value / scale",
        ("tests/passes/test_widths_and_scales.py::test_an_attention_scale_follows_head_dim",),
    ),
    # match-widths and into
    Mutant(
        "match-widths: a segment that occurs twice counts once",
        "passes/match_widths.py",
        "parts.count(unknown)",
        "1",
        ("tests/formats/torch/test_into.py::test_a_part_that_occurs_twice_counts_twice",),
    ),
    Mutant(
        "match-widths: widths need not be repeated evenly where they must",
        "passes/match_widths.py",
        "        _check_settled(facts, growths)\n",
        "",
        ("tests/formats/torch/test_into.py::test_what_is_averaged_over_must_grow_evenly",),
    ),
    Mutant(
        "alignment: a node may read something else in the wide model",
        "graphclone/graph/alignment.py",
        "if self.alignment.values.get(a) is not b:",
        "if a not in self.alignment.values:",
        ("tests/formats/torch/test_into.py::test_operands_in_another_order_are_other_code",),
    ),
    Mutant(
        "alignment: types may differ",
        "graphclone/graph/alignment.py",
        "if a.dtype != b.dtype:",
        "if a.is_float != b.is_float:",
        ("tests/formats/torch/test_into.py::test_what_is_no_wider_instance",),
    ),
    Mutant(
        "into: modes may differ",
        "graphclone/formats/torch/into.py",
        "if big.training != small.training:",
        "if big.training and not small.training and big is small:",
        ("tests/formats/torch/test_into.py::test_what_is_no_wider_instance",),
    ),
)
