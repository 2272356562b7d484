"""Mistakes in what makes sure that a trace is the user's module, and in what a comparison may see."""

from __future__ import annotations

from tests.mutants import Mutant

_READS = ("tests/formats/torch/test_guards.py::test_a_clone_computes_what_the_model_does_or_refuses",)
_WRITTEN = ("tests/formats/torch/test_guards.py::test_what_is_written_does_so_too",)
_TRACE = ("tests/formats/torch/test_trace_check.py",)
_UNTOUCHED = ("tests/formats/torch/test_untouched.py",)
_WIDTHS = "tests/passes/test_widths_and_scales.py::"

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "export: nobody looks whether the guards hold for the example",
        "graphclone/formats/torch/export.py",
        "        return not violations\n",
        "        return True\n",
        _READS,
    ),
    Mutant(
        "export: the strict mode is not tried",
        "graphclone/formats/torch/export.py",
        "for strict in (False, True):",
        "for strict in (False,):",
        ("tests/formats/torch/test_guards.py::test_a_module_that_only_the_strict_mode_can_export",),
    ),
    Mutant(
        "guards: a smaller size than the fixed one passes",
        "graphclone/formats/torch/guards.py",
        "if size is not None and value.shape[axis] != size:",
        "if size is not None and value.shape[axis] > size:",
        _READS,
    ),
    Mutant(
        "guards: what is in doubt passes",
        "graphclone/formats/torch/guards.py",
        "return (*self.conditions, *(doubt.condition for doubt in self.doubts))",
        "return self.conditions",
        _READS,
    ),
    Mutant(
        "guards: conditions of the trace are not read",
        "graphclone/formats/torch/guards.py",
        "(*derived, *self.ranges(), *self.noted(), *self.squeezed(), *self.sliced())",
        "(*derived, *self.ranges(), *self.squeezed(), *self.sliced())",
        _READS,
    ),
    Mutant(
        "guards: bounds of the trace are not read",
        "graphclone/formats/torch/guards.py",
        "(*derived, *self.ranges(), *self.noted(), *self.squeezed(), *self.sliced())",
        "(*derived, *self.noted(), *self.squeezed(), *self.sliced())",
        _READS,
    ),
    Mutant(
        "guards: 1 is True",
        "graphclone/formats/torch/guards.py",
        "return type(a) is type(b) and bool(a == b)",
        "return bool(a == b)",
        ("tests/formats/torch/test_guards.py::test_an_input_that_is_no_tensor_is_part_of_the_trace",),
    ),
    Mutant(
        "input guard: an ONNX file fails where it should not",
        "graphclone/formats/torch/input_guard.py",
        "holds.logical_not().to(torch.int64)",
        "holds.to(torch.int64)",
        _WRITTEN,
    ),
    Mutant(
        "input guard: an ONNX file checks nothing",
        "graphclone/formats/torch/export_onnx.py",
        "module.get_submodule(GUARD).in_graph = True",
        "module.get_submodule(GUARD).in_graph = False",
        _WRITTEN,
    ),
    Mutant(
        "input guard: a program on disk does not ask for single elements",
        "graphclone/formats/torch/input_guard.py",
        "                torch._assert_async(holds, text)\n",
        "                pass\n",
        _WRITTEN,
    ),
    Mutant(
        "verify trace: the module is called once",
        "graphclone/formats/torch/trace_check.py",
        "sample.inputs.tensors, calls=2)",
        "sample.inputs.tensors)",
        _TRACE,
    ),
    Mutant(
        "verify trace: only the first input set counts",
        "graphclone/formats/torch/trace_check.py",
        "    for sample in samples:\n        measured.append(",
        "    for sample in samples[:1]:\n        measured.append(",
        _TRACE,
    ),
    Mutant(
        "verify trace: doubts are settled unseen",
        "graphclone/formats/torch/trace_check.py",
        "settled = [doubt for doubt in doubts if _agrees(state, example, [doubt])]",
        "settled = doubts",
        _READS,
    ),
    Mutant(
        "verify trace: doubts are never settled",
        "graphclone/formats/torch/trace_check.py",
        "settled = [doubt for doubt in doubts if _agrees(state, example, [doubt])]",
        "settled = []",
        ("tests/formats/torch/test_guards.py::test_a_single_element_is_let_through_where_the_answer_does_not_matter",),
    ),
    Mutant(
        "verify trace: the wide module runs with weights of its own",
        "graphclone/formats/torch/trace_check.py",
        "sample.inputs.tensors, weights)",
        "sample.inputs.tensors)",
        _TRACE,
    ),
    Mutant(
        "running: padding is left out",
        "graphclone/formats/torch/running.py",
        "torch.backends.mha.set_fastpath_enabled(False)",
        "torch.backends.mha.set_fastpath_enabled(True)",
        _TRACE,
    ),
    Mutant(
        "running: a result is a buffer that is about to be restored",
        "graphclone/formats/torch/running.py",
        "return leaf.detach().clone() if",
        "return leaf.detach() if",
        _UNTOUCHED,
    ),
    Mutant(
        "untouched: buffers are not restored",
        "graphclone/formats/torch/untouched.py",
        "                self.buffer.copy_(self.data)\n",
        "                pass\n",
        _UNTOUCHED,
    ),
    Mutant(
        "untouched: the random state of torch is not restored",
        "graphclone/formats/torch/untouched.py",
        "with ExitStack() as stack, torch.random.fork_rng():",
        "with ExitStack() as stack:",
        _UNTOUCHED,
    ),
    Mutant(
        "untouched: what a list is given stays in it",
        "graphclone/formats/torch/untouched.py",
        "            _refill(attributes[name], content)\n",
        "            pass\n",
        _UNTOUCHED,
    ),
    Mutant(
        "match widths: numbers in the code are no equations",
        "passes/match_widths.py",
        "            widths.count(follow, new)\n",
        "            pass\n",
        ("tests/formats/torch/test_into.py::test_numbers_in_the_wide_code_are_equations_like_its_shapes",),
    ),
    Mutant(
        "choose widths: the first dim found is blamed",
        "passes/choose_widths.py",
        "worst = max(graph_dims, key=weight)",
        "worst = graph_dims[0]",
        (_WIDTHS + "test_what_is_blamed_is_what_holds_most",),
    ),
    Mutant(
        "reduce: an unbiased variance over a batch is mended by a number",
        "graphclone/rules/reduce.py",
        "if correction and not x.dynamic",
        "if not correction and not x.dynamic",
        (_WIDTHS + "test_no_factor_makes_up_for_an_unbiased_variance_over_a_dynamic_number_of_elements",),
    ),
    Mutant(
        "balance: a parameter that is returned is shifted",
        "passes/balance_scales.py",
        " and returned.isdisjoint(chain)",
        "",
        (_WIDTHS + "test_a_shifted_parameter_that_is_returned_keeps_its_value",),
    ),
    Mutant(
        "balance: a mask is scaled until it overflows",
        "passes/balance_scales.py",
        "greatest * max(scale, _HEADROOM) > _limit(dtype)",
        "greatest > _limit(dtype)",
        (_WIDTHS + "test_a_mask_stands_for_infinity_and_does_not_overflow",),
    ),
    Mutant(
        "ties: only extremes that both sides share count",
        "graphclone/analysis/ties.py",
        "yield from left.extremes ^ right.extremes",
        "yield from left.extremes & right.extremes",
        ("tests/analysis/test_ties.py",),
    ),
    Mutant(
        "canonicalize: what the caller may write into is a constant",
        "graphclone/graph/canonical.py",
        "last_writes(graph, by_caller=True)",
        "last_writes(graph)",
        ("tests/formats/torch/test_aliases.py",),
    ),
)
