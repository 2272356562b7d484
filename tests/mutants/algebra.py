"""Mistakes in the algebra of axes, growths, scales and strategies, in the facts about a graph, and in the kernel."""

from __future__ import annotations

from tests.mutants import Mutant

_AXES = ("tests/algebra/test_axes.py",)
_GROWTH = ("tests/algebra/test_growth.py",)
_SCALES = ("tests/algebra/test_scales.py",)
_STRATEGIES = ("tests/algebra/test_strategies.py",)
_GRAPHS = ("tests/rules/test_rules_graphs.py",)


def _kernel(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/runtime/test_kernel.py::{name}" for name in names)


MUTANTS: tuple[Mutant, ...] = (
    # axes
    Mutant(
        "axes: a pin holds the first dim of an axis only",
        "graphclone/algebra/axes.py",
        "for leaf in self.leaves(axis):\n            if leaf.pin is None:",
        "for leaf in self.leaves(axis)[:1]:\n            if leaf.pin is None:",
        _AXES,
    ),
    Mutant(
        "axes: of two unequal sizes one is not pinned",
        "graphclone/algebra/axes.py",
        "            self.pin(b, clash)\n",
        "",
        _AXES,
    ),
    Mutant(
        "axes: a structure equal to a pinned dim stays free",
        "graphclone/algebra/axes.py",
        "                self._pin_structured(other, rigid.pin)\n",
        "",
        _AXES,
    ),
    Mutant(
        "axes: of two parts of a pinned dim one is free",
        "graphclone/algebra/axes.py",
        "parts[0].pin = parts[1].pin = axis.pin",
        "parts[0].pin = axis.pin",
        _AXES,
    ),
    Mutant(
        "axes: a common factor is split off from the wrong end",
        "graphclone/algebra/axes.py",
        "(common, x.size // common)",
        "(x.size // common, common)",
        _AXES,
    ),
    Mutant(
        "axes: what stands behind tied factors is not pinned",
        "graphclone/algebra/axes.py",
        "for axis in (*a[1:], *b[1:]):",
        "for axis in a[1:]:",
        _AXES,
    ),
    Mutant(
        "axes: a segment is inner times outer",
        "graphclone/algebra/axes.py",
        "self.product([multiple, rest])",
        "self.product([rest, multiple])",
        _AXES,
    ),
    Mutant(
        "axes: a segment is cut from the wrong end",
        "graphclone/algebra/axes.py",
        "(y.size, x.size - y.size)",
        "(x.size - y.size, y.size)",
        _AXES,
    ),
    Mutant(
        "axes: a cut inside a copy cuts off the copies before it only",
        "graphclone/algebra/axes.py",
        "for edge in (end - end % step, end + -end % step)",
        "for edge in (end - end % step, ends[-1])",
        _AXES,
    ),
    Mutant(
        "axes: a segment is cut where it sticks out",
        "graphclone/algebra/axes.py",
        "(left, segment.size - left)",
        "(segment.size - left, left)",
        _AXES,
    ),
    # growth
    Mutant(
        "growth: copies in place of pads of an interleaved dim are laid among the others",
        "graphclone/algebra/growth.py",
        'if self.kind == "tile":\n            return self.between(self.size, self.new_size)',
        "if self.pads:\n            return self.between(self.size, self.new_size, self.kind)",
        _GROWTH,
    ),
    Mutant(
        "growth: copies of an interleaved dim are numbered by index",
        "graphclone/algebra/growth.py",
        "else new % self.growth.factor",
        "else new // self.growth.factor",
        _GROWTH,
    ),
    Mutant(
        "growth: a product is column-major",
        "graphclone/algebra/growth.py",
        "index = a[:, None] * b_size + b[None, :]",
        "index = a[:, None] + b[None, :] * a_size",
        _GROWTH,
    ),
    Mutant(
        "growth: segments start where the wide ones do",
        "graphclone/algebra/growth.py",
        "np.cumsum([0, *(part.size for part in self.parts)])",
        "np.cumsum([0, *(part.new_size for part in self.parts)])",
        _GROWTH,
    ),
    Mutant(
        "growth: segments of unequal multiplicities count as uniform",
        "graphclone/algebra/growth.py",
        "return factors.pop() if len(factors) == 1 else None",
        "return factors.pop() if factors else None",
        _GROWTH,
    ),
    Mutant(
        "growth: pads do not matter to uniformity",
        "graphclone/algebra/growth.py",
        "return copies if copies is not None and self.new_size == copies * self.size else None",
        "return copies",
        _GROWTH,
    ),
    Mutant(
        "growth: more copies are those of the last indices",
        "graphclone/algebra/growth.py",
        "self.factor + (source < self.extra)",
        "self.factor + (source >= self.size - self.extra)",
        _GROWTH,
    ),
    Mutant(
        "balance scales: pads of 0 do not thin an average",
        "passes/balance_scales.py",
        "if layout.padded and not self._holds_mean(averaged, axis):",
        "if False:",
        ("tests/analysis/test_fills.py",),
    ),
    Mutant(
        "kernel: pads that are to hold a mean hold 0",
        "graphclone/runtime/kernel.py",
        "elif region.fill.is_mean:",
        "elif False:",
        ("tests/runtime/test_pads.py",),
    ),
    Mutant(
        "maps: what is free at pads is compared",
        "graphclone/runtime/maps.py",
        "(~free).nonzero()[0]",
        "(free | ~free).nonzero()[0]",
        ("tests/analysis/test_fills.py",),
    ),
    # scales
    Mutant(
        "scales: the logarithm of a denominator has the wrong sign",
        "graphclone/algebra/scales.py",
        "(number.denominator, -1)",
        "(number.denominator, 1)",
        _SCALES,
    ),
    Mutant(
        "scales: the dearest unknown is changed",
        "graphclone/algebra/scales.py",
        "pivot = min(unknowns, key=self.cost)",
        "pivot = max(unknowns, key=self.cost)",
        _SCALES,
    ),
    Mutant(
        "scales: an unknown is multiplied by its coefficient",
        "graphclone/algebra/scales.py",
        "-value / coefficient",
        "-value * coefficient",
        _SCALES,
    ),
    Mutant(
        "scales: an expression is added without its factor",
        "graphclone/algebra/scales.py",
        "Fraction(0)) + factor * coefficient",
        "Fraction(0)) + coefficient",
        _SCALES,
    ),
    # strategies
    Mutant(
        "strategies: rows may be off by a hundred times as much",
        "graphclone/algebra/strategies.py",
        "_ROW_SUM_TOLERANCE = 1e-12",
        "_ROW_SUM_TOLERANCE = 1e-10",
        _STRATEGIES,
    ),
    Mutant(
        "strategies: the diagonal goes in blocks",
        "graphclone/algebra/strategies.py",
        "return np.eye(n_in)[np.arange(n_out) % n_in]",
        "return np.eye(n_in)[np.arange(n_out) * n_in // n_out]",
        _STRATEGIES,
    ),
    Mutant(
        "strategies: columns sum to one",
        "graphclone/algebra/strategies.py",
        "sums = matrix.sum(axis=1)",
        "sums = matrix.sum(axis=0)",
        _STRATEGIES,
    ),
    # kernel
    Mutant(
        "kernel: a weight is shared out by the mean multiplicity",
        "graphclone/runtime/kernel.py",
        "yield _Share(block.out, block.source, recipe.scale / columns, columns)",
        "mean = prod(recipe.axes[i].new_size / recipe.axes[i].size for i in recipe.contracted)\n"
        "            yield _Share(block.out, block.source, recipe.scale / mean, columns)",
        _kernel("test_every_index_is_shared_out_among_its_own_copies"),
    ),
    Mutant(
        "kernel: noise does not sum to zero",
        "graphclone/runtime/kernel.py",
        "alpha=1 / block.copies_of(recipe.contracted)",
        "alpha=1 / (block.copies_of(recipe.contracted) + 1)",
        _kernel("test_a_widened_linear_layer_repeats_its_outputs"),
    ),
    Mutant(
        "kernel: decibels of amplitude instead of power",
        "graphclone/runtime/kernel.py",
        "(-(recipe.strategy.snr_db or 0.0) / 10)",
        "(-(recipe.strategy.snr_db or 0.0) / 20)",
        _kernel("test_the_noise_level_is_exact_at_every_factor"),
    ),
    Mutant(
        "kernel: the scale of a shifted weight is applied twice",
        "graphclone/runtime/kernel.py",
        "1.0 if recipe.shift else share.factor",
        "share.factor",
        _kernel("test_scalars_are_kept_and_scaled"),
    ),
    Mutant(
        "kernel: pads are not shifted",
        "graphclone/runtime/kernel.py",
        "            region.out.fill_(region.number(recipe))",
        "            region.out.fill_(0.0)",
        _kernel("test_pads_are_shifted_and_not_scaled"),
    ),
    Mutant(
        "kernel: rounded sums are not restored",
        "graphclone/runtime/kernel.py",
        "            restore_sums(source, recipe, part, along, start)\n",
        "            pass\n",
        ("tests/runtime/test_kernel_precision.py::test_copies_of_few_digits_sum_to_the_source",),
    ),
    Mutant(
        "kernel: the last copy makes up for rounding, however large it is",
        "graphclone/runtime/kernel.py",
        "masked_fill_(size < few.source, copy.column)",
        "masked_fill_(size < math.inf, copy.column)",
        ("tests/runtime/test_kernel_precision.py::test_copies_of_few_digits_sum_to_the_source",),
    ),
    Mutant(
        "kernel: the rows of A are counted over contracted axes too",
        "graphclone/runtime/kernel.py",
        "if axis not in recipe.contracted and layout.grows)",
        "if layout.grows)",
        _kernel("test_a_strategy_is_asked_for_the_copies_of_outputs_and_of_inputs"),
    ),
    Mutant(
        "initializers: all weights have the same noise",
        "graphclone/algebra/recipes.py",
        r'f"{seed}\0{name}"',
        'f"{seed}"',
        _kernel("test_noise_does_not_depend_on_what_was_widened_before"),
    ),
    # facts
    Mutant(
        "facts: a returned weight is shared out",
        "graphclone/analysis/facts.py",
        "if value in returned:",
        "if value in returned and not value.is_tensor:",
        _GRAPHS,
    ),
    Mutant(
        "facts: what a node reads besides what it contracts is ignored",
        "graphclone/analysis/facts.py",
        "len(contractions) != sum(operand is value for operand in node.inputs)",
        "not contractions",
        _GRAPHS,
    ),
    Mutant(
        "facts: a weight contracted with itself is shared out",
        "graphclone/analysis/facts.py",
        "sources.count(parameter) > 1 or ",
        "",
        _GRAPHS,
    ),
    Mutant(
        "facts: two weights share out what they contract with each other",
        "graphclone/analysis/facts.py",
        " or any(source in self.folded for source in sources)",
        "",
        _GRAPHS,
    ),
    Mutant(
        "facts: the axes of a view of a view are those of the first",
        "graphclone/analysis/facts.py",
        "-1 if axis is None else origin[axis] for axis in order",
        "-1 if axis is None else axis for axis in order",
        _GRAPHS,
    ),
    Mutant(
        "facts: a weight behind a view is not seen to absorb",
        "graphclone/analysis/facts.py",
        "any(self.source(value) in self.folded for",
        "any(value in self.folded for",
        _GRAPHS,
    ),
    Mutant(
        "facts: a weight contracted over two axes is shared out over one",
        "graphclone/analysis/facts.py",
        "if len(uses) == 1 and",
        "if uses and",
        ("tests/passes/test_widths_and_scales.py::test_a_weight_used_twice_is_widened_twice", *_GRAPHS),
    ),
    Mutant(
        "facts: what no weight absorbs may be repeated unevenly",
        "graphclone/analysis/facts.py",
        "if not self.absorbed(contraction):",
        "if self.absorbed(contraction):",
        ("tests/rules/test_rules_pins.py::test_averages_need_even_copies",),
    ),
)
