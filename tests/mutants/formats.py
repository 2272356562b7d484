"""Mistakes in what reads and writes models: ONNX files, checkpoints, configurations, modules."""

from __future__ import annotations

from tests.mutants import Mutant

_READING = ("tests/formats/onnx/test_reader.py",)
_UNREACHED = ("tests/formats/huggingface/test_unreached.py",)
_CONFIGS = ("tests/formats/huggingface/test_config_solver.py",)

_ONNX: tuple[Mutant, ...] = (
    Mutant(
        "onnx: what a body calls as another body does keeps its name",
        "graphclone/formats/onnx/plain.py",
        "value.name = fresh(value.name, taken)",
        "taken.add(value.name)",
        ("tests/formats/onnx/test_plain.py",),
    ),
    Mutant(
        "onnx: operators of functions are alike in all opsets",
        "graphclone/formats/onnx/plain.py",
        "    if opset == other:\n",
        "    if opset != 0:\n",
        ("tests/formats/onnx/test_plain.py",),
    ),
    Mutant(
        "onnx sizes: elements of which nothing is known count as known",
        "graphclone/formats/onnx/sizes.py",
        "True if constant else masks[i] if masks else False",
        "True if constant else masks[i] if masks else True",
        _READING,
    ),
    Mutant(
        "onnx sizes: the symbol of a multiple forgets the number",
        "graphclone/formats/onnx/sizes.py",
        'symbol if ratio == 1 else f"{int(ratio)}*{symbol}"',
        "symbol",
        _READING,
    ),
    Mutant(
        "onnx windows: a dilated window is one step too long",
        "graphclone/formats/onnx/evaluator/windows.py",
        "extents = [(k - 1) * d + 1 for",
        "extents = [k * d for",
        ("tests/formats/onnx/test_contrib.py::test_standard_operator_agrees_with_kernel",),
    ),
    Mutant(
        "onnx windows: a window may start behind the end",
        "graphclone/formats/onnx/evaluator/windows.py",
        ">= size + pads[0] else count",
        "> size + pads[0] else count",
        ("tests/formats/onnx/test_contrib.py::test_standard_operator_agrees_with_kernel",),
    ),
    Mutant(
        "onnx old opsets: Concat joins along the first axis",
        "graphclone/formats/onnx/evaluator/old.py",
        '{"axis": 1, **attributes}',
        '{"axis": 0, **attributes}',
        ("tests/formats/onnx/test_contrib.py::test_operators_of_old_opsets",),
    ),
    Mutant(
        "onnx sequences: the rest of a split is left out",
        "graphclone/formats/onnx/sequences.py",
        "+ ([size % part] if size % part else [])",
        "",
        _READING,
    ),
    Mutant(
        "onnx importer: weights that are equal by chance are tied",
        "graphclone/formats/onnx/reader.py",
        "many and (proto.dtype.is_integer() or _holds_one_number(proto))",
        "many and proto.dtype.is_integer()",
        _READING,
    ),
    Mutant(
        "onnx importer: a weight whose ends are equal holds one number",
        "graphclone/formats/onnx/reader.py",
        " and bool((elements == elements[0]).all())",
        "",
        _READING,
    ),
    Mutant(
        "onnx reading: the other branch of an If is taken",
        "graphclone/formats/onnx/reading.py",
        '"then_branch" if condition.item() else "else_branch"',
        '"else_branch" if condition.item() else "then_branch"',
        _READING,
    ),
    Mutant(
        "onnx checks: data may be shorter than its shape",
        "graphclone/formats/onnx/checks.py",
        "    if count != total:",
        "    if count > total:",
        ("tests/formats/onnx/test_files.py::test_broken_models_are_refused",),
    ),
    Mutant(
        "onnx writer: a size that is read is that of the clone",
        "graphclone/formats/onnx/writer.py",
        "        self.keep_sizes()\n",
        "",
        ("tests/formats/onnx/test_writer.py::test_a_size_that_is_read_stays_the_source_s",),
    ),
    Mutant(
        "onnx writer: an initializer of several readers grows for one",
        "graphclone/formats/onnx/writer.py",
        " or id(stored_value) in self.shared:",
        ":",
        ("tests/formats/onnx/test_writer.py::test_a_shared_initializer_of_which_one_reader_does_not_grow",),
    ),
    Mutant(
        "onnx writer: new initializers of old files are no inputs",
        "graphclone/formats/onnx/writer.py",
        "INITIALIZERS_APART = 4",
        "INITIALIZERS_APART = 3",
        ("tests/formats/onnx/test_writer.py::test_new_initializers_of_old_files_are_inputs_too",),
    ),
    Mutant(
        "onnx export: views depend on the strides of a kernel",
        "graphclone/formats/torch/export_onnx.py",
        "        _unfreeze_strides(program)\n",
        "",
        ("tests/formats/torch/test_writer.py::test_views_of_attention_do_not_depend_on_the_kernel",),
    ),
)

_OTHERS: tuple[Mutant, ...] = (
    Mutant(
        "modules: frozen parameters train",
        "graphclone/formats/torch/writer.py",
        'requires_grad=getattr(initializer.tensor, "requires_grad", True)',
        "requires_grad=True",
        ("tests/formats/torch/test_writer.py::test_frozen_parameters_stay_frozen",),
    ),
    Mutant(
        "modules: constants are saved with the weights",
        "graphclone/formats/torch/writer.py",
        'persistent=initializer.kind != "constant"',
        "persistent=True",
        ("tests/formats/torch/test_writer.py::test_a_module_has_the_state_dict_of_the_wider_class",),
    ),
    Mutant(
        "shards: rows of a contracted axis are not shared out",
        "graphclone/runtime/shards.py",
        "recipe.scale / (copies if 0 in recipe.contracted else 1)",
        "recipe.scale",
        ("tests/formats/huggingface/test_writer.py::test_every_tensor_is_what_the_kernel_makes",),
    ),
    Mutant(
        "shards: rows with other maps count as tiled",
        "graphclone/runtime/shards.py",
        "    if not np.array_equal(layout.index_map, np.arange(layout.new_size) % layout.size):\n        return None\n",
        "",
        ("tests/formats/huggingface/test_writer.py::test_every_tensor_is_what_the_kernel_makes",),
    ),
    Mutant(
        "checkpoints: experts are stacked in the order of the alphabet",
        "graphclone/formats/huggingface/conversion.py",
        "sorted(disk, key=core_model_loading.dot_natural_key)",
        "sorted(disk)",
        ("tests/formats/huggingface/test_conversion.py::test_experts_are_stacked_by_number",),
    ),
    Mutant(
        "config solver: an axis that is a sum moves as fast as its probe",
        "graphclone/formats/huggingface/config_solver.py",
        "(ratio - 1) * Fraction(probed - size, self.probe - 1)",
        "(ratio - 1) * (probed - size)",
        ("tests/formats/huggingface/test_config_solver.py::test_a_sum_that_can_only_be_seen_tripled",),
    ),
    Mutant(
        "config solver: many changes are tried before few",
        "graphclone/formats/huggingface/config_solver.py",
        "(sum(r != 1 for r in ratios), ratios)",
        "(-sum(r != 1 for r in ratios), ratios)",
        _CONFIGS,
    ),
    Mutant(
        "unreached: what is computed with may be left out",
        "graphclone/formats/huggingface/unreached.py",
        "if i.value in read]:",
        "if i.value in read and False]:",
        _UNREACHED,
    ),
    Mutant(
        "verifier: weights that are not found are as they come",
        "graphclone/formats/huggingface/verifier.py",
        "tensors[name].fill_(torch.nan)",
        "pass",
        _UNREACHED,
    ),
    Mutant(
        "unreached: any weight that grows is 0",
        "graphclone/formats/huggingface/unreached.py",
        "return not bool(torch.as_tensor(initializer.read()).any())",
        "return True",
        _UNREACHED,
    ),
    Mutant(
        "checkpoints: a table of widths is begun anew",
        "graphclone/formats/huggingface/plan.py",
        "    left_out.check(checkpoint.blank, build)\n",
        "",
        ("tests/formats/huggingface/test_unreached.py::test_a_table_of_widths_is_not_begun_anew",),
    ),
    Mutant(
        "checkpoints: an output that the model computes with has any scale",
        "passes/balance_scales.py",
        "if output.free and any(self.state.layout(axis).grows for axis in self.facts.of.get(value, ())):",
        "if output.free:",
        ("tests/formats/huggingface/test_inner_outputs.py",),
    ),
    Mutant(
        "checkpoints: writing into an output is reading it",
        "graphclone/formats/huggingface/reader.py",
        "if not reached.isdisjoint(node.outputs):",
        "if node.outputs:",
        ("tests/formats/huggingface/test_inner_outputs.py",),
    ),
    Mutant(
        "checkpoints: tables grow that the class computes anew for other places",
        "graphclone/formats/huggingface/traces.py",
        "if BY_PLACES in source.notes and (table",
        "if False and (table",
        ("tests/formats/huggingface/test_unusual_inputs.py::test_what_is_computed_anew_for_other_places_may_not_grow",),
    ),
    Mutant(
        "checkpoints: what the class decides by is forgotten with the trace",
        "graphclone/formats/torch/stored_graph.py",
        'notes=[*map(str, plain["notes"])],',
        "notes=[],",
        ("tests/formats/huggingface/test_unusual_inputs.py::test_a_class_decides_by_the_places_of_tokens",),
    ),
    Mutant(
        "checkpoints: a folder in the way is taken for one's own",
        "graphclone/formats/huggingface/staging.py",
        "(any(partial.glob(_RECORDS)) or not any(partial.iterdir()))",
        "partial.exists()",
        ("tests/formats/huggingface/test_faults.py::test_folders_of_others_are_in_the_way",),
    ),
    Mutant(
        "widths: what only a loss reads has to grow",
        "graphclone/formats/huggingface/widths.py",
        "self.loose = loose_dims(goal.facts) - asked_for",
        "self.loose = loose_dims(goal.facts) - loose_dims(goal.facts)",
        ("tests/formats/huggingface/test_unreached.py::test_what_only_a_loss_reads_keeps_its_classes",),
    ),
    Mutant(
        "widths: what only a loss reads stays though it is asked for",
        "graphclone/formats/huggingface/widths.py",
        "self.loose = loose_dims(goal.facts) - asked_for",
        "self.loose = loose_dims(goal.facts)",
        ("tests/formats/huggingface/test_unreached.py::test_classes_that_are_asked_for_are_refused",),
    ),
)

MUTANTS: tuple[Mutant, ...] = (*_ONNX, *_OTHERS)
