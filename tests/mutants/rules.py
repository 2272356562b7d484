"""Mistakes in what rules say about operators."""

from __future__ import annotations

from tests.mutants import Mutant

_GRAPHS = ("tests/rules/test_rules_graphs.py",)
BY_POSITION = ("tests/rules/test_rules_pins.py::test_axes_that_mean_something_by_position_are_pinned",)


def of_torch(*ops: str) -> tuple[str, ...]:
    """The property tests of operators of torch."""
    return tuple(f"tests/rules/test_rules.py::test_rule[aten.{op}]" for op in ops)


def of_onnx(*ops: str) -> tuple[str, ...]:
    """The property tests of operators of ONNX."""
    return tuple(f"tests/formats/onnx/test_rules.py::test_rule[{op}]" for op in ops)


_STATEMENTS: tuple[Mutant, ...] = (
    Mutant(
        "site: operands are aligned from the left",
        "graphclone/rules/site.py",
        "zip(reversed(axes), reversed(target), strict=False)",
        "zip(axes, target, strict=False)",
        of_torch("add.Tensor", "linear.default"),
    ),
    Mutant(
        "similarity: the least norm does not follow the copies",
        "graphclone/rules/reduce.py",
        "s.require({x: 1, least: -1}, logs={axis: Fraction(1, 2)})",
        "s.require({x: 1, least: -1})",
        of_torch("cosine_similarity.default"),
    ),
    Mutant(
        "operands: negative axes are not counted from the end",
        "graphclone/graph/operands.py",
        "return axis % rank",
        "return axis",
        BY_POSITION,
    ),
    Mutant(
        "rules: a node whose rule breaks down is pinned",
        "graphclone/rules/__init__.py",
        'raise RuleError(f"{where}: the rule {_name(rule)} fails with {one_line(error)}") from error',
        'site.refuse(f"{where}: {_name(rule)} {one_line(error)}")',
        ("tests/rules/test_malformed_nodes.py::test_a_rule_that_breaks_down_is_named_with_its_node",),
    ),
    Mutant(
        "operands: an axis beyond the last is counted from the first again",
        "graphclone/graph/operands.py",
        "if not -rank <= axis < rank:",
        "if not rank:",
        ("tests/graph/test_operands.py",),
    ),
    Mutant(
        "site: text that no rule has read is let pass",
        "graphclone/rules/site.py",
        "isinstance(operand, int | float | complex | str)",
        "isinstance(operand, int | float | complex)",
        ("tests/rules/test_rules_pins.py::test_an_operand_that_no_rule_reads_is_refused",),
    ),
    Mutant(
        "site: tensors that no rule has read are let pass",
        "graphclone/rules/site.py",
        "(_says_something(operand) or any(True for _ in values_in(operand)))",
        "_says_something(operand)",
        ("tests/rules/test_rules_pins.py::test_an_operand_that_no_rule_reads_is_refused",),
    ),
    Mutant(
        "site: an operand that no equation mentions has any scale",
        "graphclone/rules/site.py",
        "if value.is_float and value not in mentioned:",
        "if False:",
        ("tests/rules/test_rules_graphs.py::test_what_a_rule_says_nothing_of_keeps_its_scale",),
    ),
    Mutant(
        "site: of three operands one need not have the scale of the others",
        "graphclone/rules/site.py",
        "for value in others[1:]:",
        "for value in others[2:]:",
        of_torch("add.Tensor", "maximum.default", "cat.default"),
    ),
    Mutant(
        "site: sums over integers may grow",
        "graphclone/rules/site.py",
        "if not self.out.is_float:",
        "if False:",
        BY_POSITION,
    ),
    Mutant(
        "powers: an irrational number counts as the fraction next to it",
        "graphclone/rules/powers.py",
        "return fraction if float(fraction) == number else None",
        "return fraction",
        of_torch("pow.Tensor_Scalar"),
    ),
    Mutant(
        "patterns: averaged axes are read as pinned ones, and pinned ones as averaged",
        "graphclone/rules/patterns.py",
        '(self.pinned if token[0] == "!" else self.even).add(text)',
        '(self.pinned if token[0] == "~" else self.even).add(text)',
        ("tests/rules/test_rules_patterns.py",),
    ),
    Mutant(
        "patterns: an operand may lack its last axes instead of its first",
        "graphclone/rules/patterns.py",
        "[max(-rest, 0) :]",
        "[: rank]",
        ("tests/rules/test_rules_patterns.py",),
    ),
    Mutant(
        "binding: a contracted axis of size 1 is broadcast",
        "graphclone/rules/binding.py",
        "if isinstance(atom, Name) and atom in keys and axis.size != self.bound[atom].size:",
        "if False:",
        (
            "tests/rules/test_rules_patterns.py",
            "tests/rules/test_rules_pins.py::test_what_is_not_understood_is_refused",
        ),
    ),
    Mutant(
        "binding: the literals of a pattern are not rewritten",
        "graphclone/rules/binding.py",
        "self.site.follow((value,), axis)",
        "pass",
        ("tests/rules/test_rules_patterns.py", *of_torch("channel_shuffle.default")),
    ),
    Mutant(
        "rules: what is written into has a scale of its own",
        "graphclone/rules/__init__.py",
        "site.require({target: 1, site.out: -1})",
        "pass",
        ("tests/rules/test_rules.py::test_rule_in_place",),
    ),
    Mutant(
        "rules: an operand that no rule has read is let pass",
        "graphclone/rules/__init__.py",
        "        if unread:\n",
        "        if unread and rule is None:\n",
        ("tests/rules/test_rules_pins.py::test_an_operand_that_no_rule_reads_is_refused",),
    ),
    Mutant(
        "rules: axes may be reordered in place",
        "graphclone/rules/__init__.py",
        'raise Cannot("it reorders axes in place")',
        "return",
        ("tests/rules/test_rules_pins.py::test_what_is_not_understood_is_refused",),
    ),
)

_PRODUCTS: tuple[Mutant, ...] = (
    Mutant(
        "linear: a matrix is contracted over its last axis",
        "graphclone/rules/linear.py",
        'says("... i.. k, ... k j..',
        'says("... i.. k, ... j.. k',
        of_torch("matmul.default"),
    ),
    Mutant(
        "site: a bias need not have the scale of the sum",
        "graphclone/rules/site.py",
        "self.require({self.out: 1, **powers}, contraction)",
        "pass",
        of_torch("linear.default", "addmm.default"),
    ),
    Mutant(
        "site: a factor that occurs twice counts once",
        "graphclone/rules/site.py",
        "self.scale(self.out, Counter(factors), contraction",
        "self.scale(self.out, dict.fromkeys(factors, 1), contraction",
        (*of_torch("matmul.default", "mm.default"), *_GRAPHS),
    ),
    Mutant(
        "linear: Gemm transposes B when it should not",
        "graphclone/rules/linear.py",
        '"j k" if s.flag("transB") else "k j"',
        '"k j" if s.flag("transB") else "j k"',
        ("tests/formats/onnx/test_rules.py::test_a_product_sums_over_one_axis_of_each_matrix",),
    ),
    Mutant(
        "conv: channels are members times groups",
        "graphclone/rules/conv.py",
        'f"(g i) {x}", f"(g o) {y}")\n    pattern = f"b.. ',
        'f"(i g) {x}", f"(g o) {y}")\n    pattern = f"b.. ',
        of_torch("conv1d.default"),
    ),
    Mutant(
        "conv: the number of groups is not rewritten",
        "graphclone/rules/conv.py",
        '"input", "weight", "bias", g=groups, why',
        '"input", "weight", "bias", g=s.integer("groups", 1), why',
        of_torch("conv1d.default"),
    ),
    Mutant(
        "conv: a transposed convolution contracts its outputs",
        "graphclone/rules/conv.py",
        "c {x}, c o !w.. + (!g o)? -> b.. (!g o) {y}",
        "c {x}, o c !w.. + (!g o)? -> b.. (!g o) {y}",
        (
            *of_torch("conv_transpose1d.default"),
            "tests/rules/test_rules.py::test_contracted_operands_may_be_parameters",
        ),
    ),
    Mutant(
        "conv: a column is window times channel",
        "graphclone/rules/conv.py",
        "-> b.. (c !k) !l",
        "-> b.. (!k c) !l",
        of_torch("im2col.default"),
    ),
    Mutant(
        "conv: the modes of DepthToSpace are swapped",
        "graphclone/rules/conv.py",
        's.text("mode", "DCR") == "CRD"',
        's.text("mode", "DCR") == "DCR"',
        of_onnx("DepthToSpace"),
    ),
    Mutant(
        "attention: query heads are groups times key heads",
        "graphclone/rules/attention.py",
        "... (h g) l e,",
        "... (g h) l e,",
        of_torch("scaled_dot_product_attention.default"),
    ),
    Mutant(
        "attention: the scale does not take the copies of what is summed over",
        "graphclone/rules/attention.py",
        's.literal("scale", s.number("scale")): 1}, contraction=contraction)',
        's.literal("scale", s.number("scale")): 1})',
        of_torch("scaled_dot_product_attention.default"),
    ),
    Mutant(
        "attention: keys may grow in causal order",
        "graphclone/rules/attention.py",
        's.pin([axes["l"], axes["m"]], "causal order")',
        's.pin([axes["l"]], "causal order")',
        of_torch("scaled_dot_product_attention.default"),
    ),
    Mutant(
        "attention: a cache comes after the new keys",
        "graphclone/rules/attention.py",
        "s.system.concat([s.axes(cache)[2], axes.length])",
        "s.system.concat([axes.length, s.axes(cache)[2]])",
        of_onnx("Attention"),
    ),
    Mutant(
        "attention: interleaved pairs are taken for halves, and halves for pairs",
        "graphclone/rules/attention.py",
        's.system.product(pairs) if s.flag("interleaved") else s.system.concat([half, half])',
        's.system.concat([half, half]) if s.flag("interleaved") else s.system.product(pairs)',
        of_onnx("RotaryEmbedding"),
    ),
    Mutant(
        "recurrent: gates are the inner factor",
        "graphclone/rules/recurrent.py",
        'f"| (!g h) x, (!g h) o{biases}"',
        'f"| (h !g) x, (h !g) o{biases}"',
        of_torch("lstm.input"),
    ),
    Mutant(
        "recurrent: what feeds a layer is mended for a weight inside it",
        "graphclone/rules/recurrent.py",
        "others=others), mendable=False)",
        "others=others))",
        _GRAPHS,
    ),
    Mutant(
        "recurrent: the hidden size is not rewritten",
        "graphclone/rules/recurrent.py",
        's.follow(("hidden_size",), axes["h"])',
        's.get("hidden_size")',
        of_onnx("LSTM"),
    ),
)

_NORMS: tuple[Mutant, ...] = (
    Mutant(
        "norm: epsilon follows the scale and not its square",
        "graphclone/rules/norm.py",
        's.literal("eps", eps): -1}',
        's.literal("eps", eps): -2}',
        of_torch("layer_norm.default"),
    ),
    Mutant(
        "binding: what is averaged over may be repeated unevenly",
        "graphclone/rules/binding.py",
        "self.site.uniform(axis, self.why)",
        "pass",
        ("tests/rules/test_rules_pins.py::test_averages_need_even_copies",),
    ),
    Mutant(
        "norm: a running variance scales as its input",
        "graphclone/rules/norm.py",
        "s.require({x: 2, var: -1})",
        "s.require({x: 1, var: -1})",
        of_torch("batch_norm.default"),
    ),
    Mutant(
        "norm: the norm of a weight shrinks with its copies",
        "graphclone/rules/norm.py",
        "dict.fromkeys(over, Fraction(-1, 2))",
        "dict.fromkeys(over, Fraction(1, 2))",
        of_torch("_weight_norm.default"),
    ),
    Mutant(
        "norm: groups are averaged over instead of their members",
        "graphclone/rules/norm.py",
        "b (g ~m) ~x..",
        "b (~g m) ~x..",
        of_torch("group_norm.default"),
    ),
    Mutant(
        "norm: the normalised shape is not rewritten",
        "graphclone/rules/norm.py",
        's.follow(("normalized_shape", i), axis)',
        's.get("normalized_shape")',
        of_torch("layer_norm.default"),
    ),
    Mutant(
        "norm: a p-norm shrinks with its copies",
        "graphclone/rules/norm.py",
        'logs={axes["n"]: -root',
        'logs={axes["n"]: root',
        of_onnx("LpNormalization"),
    ),
    Mutant(
        "pointwise: a reciprocal root is a root",
        "graphclone/rules/pointwise.py",
        '"aten.rsqrt.default": power_of(Fraction(-1, 2))',
        '"aten.rsqrt.default": power_of(Fraction(1, 2))',
        of_torch("rsqrt.default"),
    ),
    Mutant(
        "pointwise: a divisor multiplies",
        "graphclone/rules/arithmetic.py",
        '(("self", 1), ("other", sign))',
        '(("self", 1), ("other", 1))',
        of_torch("div.Tensor"),
    ),
    Mutant(
        "pointwise: a slope for each channel lies along the last axis",
        "graphclone/rules/pointwise.py",
        '"b c x.. | c -> b c x.."',
        '"b x.. c | c -> b x.. c"',
        of_torch("prelu.default"),
    ),
    Mutant(
        "pointwise: a cast to integers is a view",
        "graphclone/rules/pointwise.py",
        "if s.out.is_float or not x.is_float:",
        "if s.out.is_tensor:",
        ("tests/rules/test_rules_graphs.py::test_a_weight_cast_to_integers_is_not_divided",),
    ),
    Mutant(
        "pointwise: the weight of an interpolation has any scale",
        "graphclone/rules/arithmetic.py",
        '"... + ... | ...? -> ..."',
        '"... + ..., ...? -> ..."',
        of_torch("lerp.Tensor"),
    ),
    Mutant(
        "pointwise: a shift has the wrong sign",
        "graphclone/rules/arithmetic.py",
        "(tensor, real(number, name))",
        "(tensor, -real(number, name))",
        (
            "tests/passes/test_widths_and_scales.py::test_a_weight_read_plus_one_absorbs_a_factor_if_nothing_else_reads_it",
        ),
    ),
    Mutant(
        "reduce: a sum shrinks with its copies",
        "graphclone/rules/reduce.py",
        "exponent}, logs=_count(axes, 1))",
        "exponent}, logs=_count(axes, -1))",
        of_torch("sum.dim_IntList"),
    ),
    Mutant(
        "patterns: axes that a reduction keeps are those before it",
        "graphclone/rules/patterns.py",
        "if keep or not reduce]",
        "if keep or reduce]",
        of_torch("mean.dim"),
    ),
    Mutant(
        "reduce: shares grow with their copies",
        "graphclone/rules/reduce.py",
        's.scale(s.out, {}, logs={axes["n"]: -1})',
        's.scale(s.out, {}, logs={axes["n"]: 1})',
        of_torch("softmax.int"),
    ),
    Mutant(
        "reduce: an unbiased variance grows with its copies",
        "graphclone/rules/reduce.py",
        "{elements: -power}",
        "{elements: power}",
        of_torch("var.dim"),
    ),
    Mutant(
        "powers: a p-norm grows by the p-th power of its copies",
        "graphclone/rules/powers.py",
        "Fraction(0) if math.isinf(order) else exact(1 / order)",
        "Fraction(0) if math.isinf(order) else exact(order)",
        of_torch("linalg_vector_norm.default"),
    ),
    Mutant(
        "reduce: an axis taken in order may grow",
        "graphclone/rules/reduce.py",
        "| a.. !n b.. -> a.. !m b.., a.. !m b..?",
        "| a.. n b.. -> a.. n b.., a.. n b..?",
        of_torch("cumsum.default", "sort.default"),
    ),
    Mutant(
        "reduce: an axis searched for a position may grow",
        "graphclone/rules/reduce.py",
        "any(position not in s.facts.unread for",
        "any(position in s.facts.unread for",
        of_torch("max.dim"),
    ),
)

MUTANTS: tuple[Mutant, ...] = (*_STATEMENTS, *_PRODUCTS, *_NORMS)
