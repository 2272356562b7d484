"""Makers of everything else: elementwise, reductions, masks, writes, constants made in the code, code that reads sizes."""

from __future__ import annotations

from tests.fuzz.builder import Builder, Maker, Skip, Var, is_constant, is_width

UNARY = (
    "torch.relu({0})", "{0}.tanh()", "F.gelu({0})", "F.gelu({0}, approximate='tanh')", "F.silu({0})", "{0}.sigmoid()", "{0}.sin()",
    "{0}.cos()", "F.softplus({0})", "F.elu({0})", "F.hardswish({0})", "F.mish({0})", "{0}.abs()", "-{0}", "{0}.neg()",
    "{0}.square()", "{0} ** 2", "{0}.pow(3) * 0.1", "torch.exp(-{0}.abs())", "({0}.abs() + 0.1).log()", "({0}.abs() + 0.1).sqrt()",
    "torch.rsqrt({0}.square() + 0.5)", "1 / ({0}.abs() + 1)", "({0}.square() + 1).reciprocal()", "torch.erf({0})", "{0}.clamp(-1, 1)",
    "{0}.clamp(min=0)", "torch.clamp({0}, max=0.5)", "F.hardtanh({0})", "F.relu6({0})", "F.leaky_relu({0}, 0.2)", "F.threshold({0}, 0.1, 0)",
    "F.softsign({0})", "F.logsigmoid({0})", "torch.sign({0})", "{0}.floor()", "{0} * 2", "{0} / 3", "{0} + 1", "1 - {0}", "{0} - 0.5",
    "0.5 * {0}", "torch.atan({0})", "F.tanhshrink({0})", "F.softshrink({0}, 0.2)", "F.hardshrink({0}, 0.2)", "{0}.expm1()",
    "{0}.abs().log1p()", "torch.nan_to_num({0})", "F.dropout({0}, 0.5, training=False)", "{0}.to(torch.float64)", "{0}.clone()",
    "{0}.detach()", "{0}.contiguous()", "torch.positive({0})", "{0}.type_as({0})", "torch.heaviside({0}, torch.zeros(1))", "{0}.round()",
    "{0}.double()", "torch.celu({0})", "F.selu({0})", "{0}.abs().pow(1.5)", "torch.logit({0}.sigmoid())", "{0}.sinh()", "{0}.remainder(0.7)",
    "({0} + 0.3).frac()", "torch.sinc({0})", "{0}.fmod(0.9)", "{0}.trunc()", "torch.copysign({0}, {0}.sin())",
)  # fmt: skip
"""Code of one operand."""

BINARY = (
    "{0} + {1}", "{0} + {1}", "{0} - {1}", "{0} * {1}", "{0} * {1}", "{0} * {1}.sigmoid()", "{0} / ({1}.abs() + 0.5)", "torch.maximum({0}, {1})",
    "torch.minimum({0}, {1})", "torch.where({0} > 0, {0}, {1})", "torch.where({0} > {1}, {0}, {1} * 0.5)", "torch.add({0}, {1}, alpha=0.3)",
    "torch.sub({0}, {1}, alpha=2)", "torch.rsub({0}, {1})", "torch.lerp({0}, {1}, 0.3)", "torch.addcmul({0}, {0}, {1}, value=0.5)",
    "torch.addcdiv({0}, {0}, {1}.abs() + 1, value=0.5)", "torch.atan2({0}, {1}.abs() + 0.5)", "torch.hypot({0}, {1})", "({0}, {1})[0] + ({1}, {0})[0]",
    "torch.logaddexp({0}, {1})", "sum([{0}, {1}])", "F.silu({0}) * {1}", "({0} > {1}).to({0}.dtype)", "{0}.masked_fill({1} > 0, 0)",
    "{0}.masked_fill({1} > 0.5, -1.5)", "torch.where({1} > 0, {0}, 0.0)", "torch.mul({0}, {1})", "torch.ldexp({0}, ({1} > 0).long())",
    "{0} + {1}.mean()", "{0} * {1}.sum()  * 0.1", "{0} - {1}.amax()", "F.cosine_similarity({0}, {1}, dim=-1)", "torch.dist({0}, {1})",
    "torch.cdist({0}, {1})", "{0} @ {1}.mT @ {0} * 0.1",
)  # fmt: skip
"""Code of two operands of one shape."""

ALONG = (
    "{0}.softmax({1})", "{0}.softmax({1})", "{0}.log_softmax({1})", "F.softmin({0}, {1})", "{0}.logsumexp({1})", "torch.logsumexp({0}, {1}, keepdim=True)",
    "{0}.mean({1})", "{0}.mean({1}, keepdim=True)", "{0}.sum({1})", "{0}.sum({1}, keepdim=True)", "{0} - {0}.mean({1}, keepdim=True)",
    "{0} / ({0}.abs().sum({1}, keepdim=True) + 0.1)", "{0}.var({1})", "{0}.std({1}, keepdim=True)", "{0}.var({1}, unbiased=False)",
    "torch.var_mean({0}, {1}, correction=0)[0]", "torch.std_mean({0}, dim={1})[0]", "{0}.norm(dim={1})", "{0}.norm(p=1, dim={1}, keepdim=True)",
    "torch.linalg.vector_norm({0}, ord=3, dim={1})", "torch.linalg.norm({0}, dim={1})", "{0}.amax({1})", "{0}.amin({1}, keepdim=True)",
    "{0}.max({1})[0]", "{0}.max({1}, keepdim=True).values", "{0}.min({1}).values", "{0}.cumsum({1})", "{0}.sort({1})[0]", "{0}.sort({1}, descending=True).values",
    "{0}.argsort({1}).double()", "{0}.argmax({1}).double()", "{0}.topk(1, {1})[0]", "{0}.prod({1})", "{0}.median({1})[0]", "({0} > 0).any({1}).double()",
    "({0} > 0).sum({1}).double()", "({0} > -9).all({1}).double()", "{0}.cummax({1})[0]", "{0}.flip({1}).cumsum({1}).flip({1})", "F.normalize({0}, dim={1})",
    "{0} - {0}.max({1}, keepdim=True).values", "{0} - {0}.logsumexp({1}, keepdim=True)", "torch.renorm({0}, 2, {1}, 1.0)", "{0}.nansum({1})",
    "F.normalize({0}, p=1, dim={1})", "{0}.aminmax(dim={1})[1]", "{0}.logcumsumexp({1})", "{0}.kthvalue(1, {1})[0]", "torch.count_nonzero({0}, {1}).double()",
    "F.glu({0}, {1})", "F.glu({0}, {1})", "{0}.cumprod({1})", "{0}.exp().mean({1}).log()",
)  # fmt: skip
"""Code along an axis."""

OVER_ALL = (
    "{0} / ({0}.abs().mean() + 0.1)", "{0} - {0}.mean()", "{0} * {0}.sum().tanh()", "{0} / ({0}.norm() + 0.1)", "{0} * {0}.std()", "{0} - {0}.amax()",
    "{0} * {0}.mean((0, 1), keepdim=True)", "{0}.var((-2, -1), keepdim=True) + {0}", "{0} + {0}.mean((-1, -2), keepdim=True).tanh()",
    "{0}.sum((0, -1), keepdim=True).tanh() * {0}", "{0} + {0}.flatten(1).mean(1).mean()", "F.layer_norm({0}, {0}.shape[1:])", "{0} * {0}.max()",
    "{0} * {0}.numel() / 100", "torch.amax({0}, (0, -1), keepdim=True) + {0}", "{0} - {0}.logsumexp((-2, -1), keepdim=True)",
)  # fmt: skip
"""Code over several axes."""


def unary(g: Builder) -> str:
    return g.rng.choice(UNARY).format(g.pick((0, 1, 2, 3, 4, 5)).name)


def binary(g: Builder) -> str:
    x = g.pick((1, 2, 3, 4, 5))
    y = g.like(x)
    return g.rng.choice(BINARY).format(x.name, y.name)


def residual(g: Builder) -> str:
    x = g.pick((1, 2, 3, 4))
    y = g.like(x)
    if x == y:
        raise Skip
    return f"{x.name} + {y.name}"


def broadcast(g: Builder) -> str:
    x = g.pick((1, 2, 3, 4))
    fits = lambda v: v.rank <= x.rank and all(s == t or s[:3] == (1, 1, 1) for s, t in zip(v.shape[::-1], x.shape[::-1], strict=False))  # noqa: E731
    y = g.pick((0, 1, 2, 3, 4), where=lambda v: v != x and v.shape != x.shape and fits(v))
    return g.rng.choice(["{0} + {1}", "{0} * {1}", "{0} - {1}", "{1} * {0} + {0}", "torch.where({0} > {1}, {0}, {1})", "{0} + {1}.expand_as({0})"]).format(x.name, y.name)


def along(g: Builder) -> str:
    x = g.pick((1, 2, 3, 4, 5))
    axis = g.axis(x)
    return g.rng.choice(ALONG).format(x.name, g.dim(x, axis))


def over_all(g: Builder) -> str:
    return g.rng.choice(OVER_ALL).format(g.pick((2, 3, 4)).name)


def written(g: Builder) -> tuple[str, ...]:
    """In-place ops on something that is there, or on a copy."""
    x = g.pick((1, 2, 3, 4), where=lambda v: not v.given)
    y = g.like(x)
    code = g.rng.choice(["{0}.add_({1})", "{0}.mul_(0.5)", "{0}.relu_()", "{0}.tanh_()", "{0}.sub_({1}, alpha=0.5)", "{0}.clamp_(min=0)", "{0} += 1", "{0} *= {1}", "F.relu({0}, inplace=True)", "{0}.masked_fill_({0} > 1, 0)", "{0}.copy_({1})", "{0}.zero_()", "{0}.fill_(0.5)", "{0}.neg_()", "{0}.div_(2)", "{0}.sigmoid_()"])
    if g.chance(0.5):
        return (code.format(x.name, y.name),)
    copy = g.rng.choice(["clone()", "clone()", "contiguous()", "reshape({0}.shape)", "detach()", "transpose(0, -1)", "flatten(0)", "unsqueeze(0)", "expand_as({0})"])
    if code.count("{1}"):
        code = code.replace("{1}", f"{x.name}.mean()")
    return (f"{g.target} = {x.name}.{copy.format(x.name)}", code.format(g.target, g.target))


def assigned(g: Builder) -> tuple[str, ...]:
    """A slice written into."""
    x = g.pick((1, 2, 3, 4))
    axis = g.axis(x, lambda s: min(s) > 1)
    before = ":, " * axis
    k = g.rng.randint(1, min(x.shape[axis]) - 1)
    where = g.rng.choice([f"{k}:", f":{k}", "::2", "0", f"{g.size(x.shape[axis])} // 2:", ":1"])
    value = g.rng.choice(["0", "1.5", f"{x.name}[{before}{where}] * 2", f"{x.name}[{before}{where}].tanh()"])
    start = g.rng.choice([f"{x.name}.clone()", f"torch.zeros_like({x.name})", f"{x.name}.new_zeros({x.name}.shape)", f"torch.empty_like({x.name}).fill_(0.5)", f"{x.name} * 1"])
    op = g.rng.choice(["=", "=", "+=", "*="])
    return (f"{g.target} = {start}", f"{g.target}[{before}{where}] {op} {value}")


def filled(g: Builder) -> tuple[str, ...]:
    """A tensor made in the code, filled piece by piece."""
    x = g.pick((2, 3, 4))
    sizes = ", ".join(f"{x.name}.shape[{i}]" if g.chance(0.6) or not is_width(s) else g.size(s, x.name) for i, s in enumerate(x.shape))
    start = f"{g.target} = torch.{g.rng.choice(['zeros', 'ones'])}({sizes})"
    body = g.rng.choice([f"{g.target}[..., i] = {x.name}[..., 0] * i", f"{g.target}[:, i] += {x.name}[:, 0]", f"{g.target}[..., i] = {x.name}[..., i].tanh()", f"{g.target}.select(-1, i).copy_({x.name}[..., 1])"])
    if g.chance(0.4):
        return (start, f"{g.target} += {x.name}")
    if g.chance(0.3):
        return (start, f"{g.target}[..., :1] = {x.name}.mean(-1, keepdim=True)", f"{g.target} = {g.target} + {x.name}")
    return (start, "for i in range(2):", f"    {body}")


def table(g: Builder) -> str:
    """A constant made in the code: positions, slopes, masks, ones."""
    x = g.pick((1, 2, 3, 4))
    axis = g.axis(x)
    k, view = g.size(x.shape[axis]), "[:, None]" if axis == x.rank - 2 else "" if axis == x.rank - 1 else "[..., None]" * (x.rank - 1 - axis)
    made = g.rng.choice(
        ["torch.arange({0})", "torch.ones({0})", "torch.arange({0}) / {0}", "torch.linspace(0, 1, {0})", "torch.zeros({0})", "torch.full(({0},), 0.3)", "0.5 ** torch.arange({0})",
         "(torch.arange({0}) % 2)", "torch.arange({0}).flip(0)", "torch.eye({0})[0]", "torch.ones({0}).cumsum(0)", "torch.tensor(0.5).expand({0})", "torch.arange(1, {0} + 1).log()", "(torch.arange({0}) > 1)"]
    ).format(k)
    op = g.rng.choice(["*", "+", "*", "-"])
    return f"{x.name} {op} ({made}){view}" if op == "*" else f"{x.name} {op} ({made}){view} * 0.1"


def buffered(g: Builder) -> str:
    """A table held as a buffer."""
    x = g.pick((1, 2, 3, 4), where=lambda v: is_width(v.shape[-1]))
    b = g.buffer(g.rng.choice(["torch.randn({0})", "torch.ones({0})", "torch.arange({0}) * 0.1", "torch.randn(1)", "torch.full(({0},), 0.7)"]).format(g.at_init(x.shape[-1])))
    return g.rng.choice([f"{x.name} * {b}", f"{x.name} + {b}", f"{x.name} * {b}.sigmoid()"])


def masked(g: Builder) -> str:
    """A mask given as an input, or made of tokens."""
    mask = g.pick((2,), kind="b", where=lambda v: v.given)
    x = g.pick((2, 3, 4), where=lambda v: v.shape[:2] == mask.shape or v.rank > 1 and v.shape[-1] == mask.shape[-1] and v.shape[0] == mask.shape[0])
    view = "[:, None, :]" if x.rank == 3 and x.shape[-1] == mask.shape[-1] and x.shape[:2] != mask.shape else "[..., None]" * (x.rank - 2)
    m = f"{mask.name}{view}"
    return g.rng.choice([f"{x.name}.masked_fill({m}, 0)", f"{x.name} * {m}", f"torch.where({m}, {x.name}, 0.0)", f"{x.name}.masked_fill(~{m}, -1e4).softmax(-1)", f"({x.name} * {m}).sum(1) / ({m}.sum(1) + 1)"])


def pooled(g: Builder) -> str:
    x = g.pick((3, 4))
    return g.rng.choice([f"{x.name}.mean(1)", f"{x.name}[:, 0]", f"{x.name}[:, -1]", f"{x.name}.mean((-2, -1))", f"{x.name}.flatten(2).amax(-1)", f"{x.name}.sum(1)", f"{x.name}[:, {x.name}.shape[1] // 2]"])


def read_sizes(g: Builder) -> tuple[str, ...]:
    """Code that computes with sizes, branches on one, or loops over one."""
    x = g.pick((2, 3, 4))
    axis = g.axis(x)
    size = f"{x.name}.shape[{axis}]"
    k = x.shape[axis][0]
    return g.rng.choice(
        [
            (f"{g.target} = {x.name} * {size} / 10",),
            (f"{g.target} = {x.name} / math.sqrt({size})",),
            (f"{g.target} = {x.name} * {size} ** -0.5",),
            (f"{g.target} = {x.name}.sum({axis}) / {size}",),
            (f"{g.target} = {x.name}.sum({axis}, keepdim=True) / max({size} - 1, 1) + {x.name}",),
            (f"{g.target} = {x.name} * 2 if {size} > {k} else {x.name} * 0.5",),
            (f"{g.target} = {x.name}.tanh() if {size} % 2 else {x.name}",),
            (f"{g.target} = {x.name} * 0", f"for i in range({size}):", f"    {g.target} = {g.target} + {x.name}.select({axis}, i).unsqueeze({axis}) * 0.3"),
            (f"{g.target} = sum({x.name}.unbind({axis}))",),
            (f"{g.target} = torch.cat([{x.name}.select({axis}, i).unsqueeze({axis}) for i in range({size})], {axis})",),
            (f"{g.target} = {x.name}.reshape({x.name}.shape[0], -1)",),
            (f"{g.target} = {x.name}.view({x.name}.size(0), {x.name}.size(1), -1).mean(-1)",),
            (f"{g.target} = {x.name} + torch.arange({x.name}.shape[-1]) / {x.name}.shape[-1]",),
            (f"{g.target} = {x.name}.movedim({axis}, -1)[..., :{size} // 2 + 1]",),
        ]
    )


def flagged(g: Builder) -> str:
    """Code that reads an input that is a number."""
    flags = [v for v in g.given if v.code in ("True", "False", "2", "0.5")]
    if not flags:
        raise Skip
    flag, x = g.rng.choice(flags), g.pick((1, 2, 3, 4))
    if flag.code in ("True", "False"):
        return f"{x.name}.tanh() if {flag.name} else -{x.name}"
    return g.rng.choice([f"{x.name} * {flag.name}", f"{x.name} + {flag.name}", f"{x.name} ** {flag.name}" if flag.code == "2" else f"{x.name} / {flag.name}"])


def contracted(g: Builder, x: Var) -> str:
    """A variable without its wide axes, each contracted with a weight or reduced."""
    code = x.name
    for axis in reversed(range(x.rank)):
        if is_width(x.shape[axis]) and not is_constant(x.shape[axis]):
            if g.chance(0.7):
                code = f"({code}.movedim({axis}, -1) @ {g.parameter(x.shape[axis])})"
            else:
                code = f"{code}.{g.rng.choice(['mean', 'mean', 'sum', 'amax', 'logsumexp', 'norm'])}({'dim=' if g.chance(0.3) else ''}{axis})".replace("norm(", "norm(dim=").replace("dim=dim=", "dim=")
    return code


MATHS: dict[Maker, float] = {
    unary: 6, binary: 4, residual: 2, broadcast: 1.5, along: 5, over_all: 1, written: 1.2, assigned: 1.2, filled: 0.7, table: 2, buffered: 1,
    masked: 1.5, pooled: 1, read_sizes: 1, flagged: 1.5,
}  # fmt: skip
"""How often each maker is drawn."""
