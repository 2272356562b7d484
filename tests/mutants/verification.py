"""Mistakes in what is to find mistakes: maps, lockstep, checks and verification."""

from __future__ import annotations

from tests.mutants import Mutant

_LOCKSTEP = ("tests/verification/test_lockstep.py",)
_FLOOR = ("tests/formats/torch/test_verifier.py::test_noise_floor",)

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "lockstep: what is 0 but for rounding is wrong",
        "graphclone/verification/lockstep.py",
        "        return compared(own_errors(state.source, inputs, read, sums))",
        "        return result",
        ("tests/verification/test_lockstep.py",),
    ),
    Mutant(
        "lockstep: a value may be as far off as the source's operands are great",
        "graphclone/verification/lockstep.py",
        "torch.finfo(torch.float64).eps * added",
        "added",
        ("tests/verification/test_lockstep.py",),
    ),
    Mutant(
        "maps: a shifted value is compared unshifted",
        "graphclone/runtime/maps.py",
        "wide * scale + shift",
        "wide * scale",
        (
            "tests/passes/test_widths_and_scales.py::test_a_weight_read_plus_one_absorbs_a_factor_if_nothing_else_reads_it",
        ),
    ),
    Mutant(
        "maps: a dynamic axis keeps the size of the trace",
        "graphclone/runtime/maps.py",
        "        self._learn(axis, size)\n",
        "",
        ("tests/rules/test_rules_graphs.py::test_heads_in_one_axis_with_a_batch_of_another_size",),
    ),
    Mutant(
        "lockstep: values may be off by a hundred times as much",
        "graphclone/verification/distance.py",
        "VALUE_TOLERANCE = 1e-10",
        "VALUE_TOLERANCE = 1e-8",
        _LOCKSTEP,
    ),
    Mutant(
        "lockstep: outputs may be off by a hundred times as much",
        "graphclone/verification/distance.py",
        "OUTPUT_TOLERANCE = 1e-12",
        "OUTPUT_TOLERANCE = 1e-10",
        _LOCKSTEP,
    ),
    Mutant(
        "loops: what is scanned from the end is scanned from the front",
        "graphclone/runtime/loops.py",
        "whole.shape[axis] - 1 - number if backwards else number",
        "number",
        ("tests/formats/onnx/test_loops.py",),
    ),
    Mutant(
        "loops: a condition that fails is not heard",
        "graphclone/runtime/loops.py",
        'return operands.get("cond") is None or bool(operands["cond"])',
        "return True",
        ("tests/formats/onnx/test_loops.py",),
    ),
    Mutant(
        "lockstep: a NaN equals anything",
        "graphclone/verification/distance.py",
        'nan_to_num(nan=float("inf")',
        "nan_to_num(nan=0.0",
        _LOCKSTEP,
    ),
    Mutant(
        "lockstep: a view of a shared out weight is compared",
        "graphclone/verification/lockstep.py",
        "return state.facts.source(value) not in state.facts.folded",
        "return value not in state.facts.folded",
        _LOCKSTEP,
    ),
    Mutant(
        "lockstep: an output of another shape is no error",
        "graphclone/verification/lockstep.py",
        'if actual is not None and fits else float("inf")',
        "if actual is not None and fits else 0.0",
        _LOCKSTEP,
    ),
    Mutant(
        "lockstep: what the clone has after the source's last node is not run",
        "graphclone/verification/lockstep.py",
        "for _ in self._clone_until(None):",
        "for _ in ():",
        _LOCKSTEP,
    ),
    Mutant(
        "lockstep: everything is measured by the masks beside it",
        "graphclone/verification/distance.py",
        "_HUGE = 1e30",
        "_HUGE = 1e40",
        _LOCKSTEP,
    ),
    Mutant(
        "lockstep: the last value that is wrong is named",
        "graphclone/verification/lockstep.py",
        "if self.first is None and not deviation.error <= tolerance:",
        "if not deviation.error <= tolerance:",
        _LOCKSTEP,
    ),
    Mutant(
        "checks: the clone may have a hundred times as much noise",
        "graphclone/verification/checks.py",
        "FLOOR_FACTOR = 4.0",
        "FLOOR_FACTOR = 400.0",
        _FLOOR,
    ),
    Mutant(
        "checks: nothing checked is equivalent",
        "graphclone/verification/checks.py",
        "any(check.ok for check in compared) and ",
        "",
        ("tests/formats/torch/test_verifier.py::test_nothing_checked_is_not_equivalent",),
    ),
    Mutant(
        "checks: outputs of other shapes are equal",
        "graphclone/verification/checks.py",
        "        return math.inf\n    if expected.numel() == 0:",
        "        return 0.0\n    if expected.numel() == 0:",
        _FLOOR,
    ),
    Mutant(
        "samples: an output that grew is compared with one that did not",
        "graphclone/formats/torch/samples.py",
        "(maps.widened(value, exact), wide)",
        "(exact, wide)",
        ("tests/formats/torch/test_verifier.py::test_grown_inputs_and_outputs_are_compared_through_the_maps",),
    ),
    Mutant(
        "static check: only ranks are compared",
        "graphclone/formats/torch/static_check.py",
        "if shape == predicted:",
        "if len(shape) == len(predicted):",
        ("tests/formats/torch/test_verifier.py::test_a_view_of_the_right_size_but_the_wrong_shape_is_caught",),
    ),
    Mutant(
        "verify: other weights are not tried",
        "graphclone/formats/torch/verifier.py",
        "runs.append((sets[0], perturbed))",
        "runs.append((sets[0], lifted_tensor))",
        (
            "tests/formats/torch/test_verifier.py::test_a_wrong_scale_of_a_parameter_is_caught_though_the_parameter_is_zero",
        ),
    ),
    Mutant(
        "verify: the export of the source is taken on trust",
        "graphclone/formats/torch/onnx_check.py",
        "if floor.allows(_EXPORT_SLACK) is False:",
        "if floor.allows(1e9) is False:",
        (
            "tests/formats/torch/test_onnx_check.py::test_an_export_that_computes_something_else_leaves_the_verdict_open",
        ),
    ),
    Mutant(
        "verify files: a declared width that is no multiple is accepted",
        "graphclone/formats/onnx/file_verifier.py",
        "if rest or not factor:",
        "if not factor:",
        ("tests/formats/onnx/test_file_verifier.py",),
    ),
    Mutant(
        "verify: what moves the source at all excuses the clone",
        "graphclone/formats/onnx/runs.py",
        "floor.ok is False and floor.clone > moved[floor.value]",
        "floor.ok is False and not moved[floor.value]",
        (
            "tests/formats/onnx/test_verifier.py::test_what_the_optimiser_does_to_the_source_is_not_held_against_the_clone",
        ),
    ),
)
