"""Makers of everything else: elementwise, reductions, masks, writes, constants, code that reads sizes."""

from __future__ import annotations

from tests.fuzz.builder import Builder, Maker, Skip, Var, constant, is_constant, is_width
from tests.fuzz.formulas import ALONG, BINARY, OVER_ALL, UNARY


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

    def fits(v: Var) -> bool:
        sizes = zip(v.shape[::-1], x.shape[::-1], strict=False)
        return v.shape != x.shape and v.rank <= x.rank and all(s == t or s == constant(1) for s, t in sizes)

    y = g.pick((0, 1, 2, 3, 4), where=fits)
    return g.rng.choice(
        [
            "{0} + {1}",
            "{0} * {1}",
            "{0} - {1}",
            "{1} * {0} + {0}",
            "torch.where({0} > {1}, {0}, {1})",
            "{0} + {1}.expand_as({0})",
        ]
    ).format(x.name, y.name)


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
    code = g.rng.choice(
        [
            "{0}.add_({1})",
            "{0}.mul_(0.5)",
            "{0}.relu_()",
            "{0}.tanh_()",
            "{0}.sub_({1}, alpha=0.5)",
            "{0}.clamp_(min=0)",
            "{0} += 1",
            "{0} *= {1}",
            "F.relu({0}, inplace=True)",
            "{0}.masked_fill_({0} > 1, 0)",
            "{0}.copy_({1})",
            "{0}.zero_()",
            "{0}.fill_(0.5)",
            "{0}.neg_()",
            "{0}.div_(2)",
            "{0}.sigmoid_()",
        ]
    )
    if g.chance(0.5):
        return (code.format(x.name, y.name),)
    copy = g.rng.choice(
        [
            "clone()",
            "clone()",
            "contiguous()",
            "reshape({0}.shape)",
            "detach()",
            "transpose(0, -1)",
            "flatten(0)",
            "unsqueeze(0)",
            "expand_as({0})",
        ]
    )
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
    start = g.rng.choice(
        [
            f"{x.name}.clone()",
            f"torch.zeros_like({x.name})",
            f"{x.name}.new_zeros({x.name}.shape)",
            f"torch.empty_like({x.name}).fill_(0.5)",
            f"{x.name} * 1",
        ]
    )
    op = g.rng.choice(["=", "=", "+=", "*="])
    return (f"{g.target} = {start}", f"{g.target}[{before}{where}] {op} {value}")


def filled(g: Builder) -> tuple[str, ...]:
    """A tensor made in the code, filled piece by piece."""
    x = g.pick((2, 3, 4))
    sizes = ", ".join(
        f"{x.name}.shape[{i}]" if g.chance(0.6) or not is_width(s) else g.size(s, x.name) for i, s in enumerate(x.shape)
    )
    start = f"{g.target} = torch.{g.rng.choice(['zeros', 'ones'])}({sizes})"
    body = g.rng.choice(
        [
            f"{g.target}[..., i] = {x.name}[..., 0] * i",
            f"{g.target}[:, i] += {x.name}[:, 0]",
            f"{g.target}[..., i] = {x.name}[..., i].tanh()",
            f"{g.target}.select(-1, i).copy_({x.name}[..., 1])",
        ]
    )
    if g.chance(0.4):
        return (start, f"{g.target} += {x.name}")
    if g.chance(0.3):
        return (start, f"{g.target}[..., :1] = {x.name}.mean(-1, keepdim=True)", f"{g.target} = {g.target} + {x.name}")
    return (start, "for i in range(2):", f"    {body}")


def table(g: Builder) -> str:
    """A constant made in the code: positions, slopes, masks, ones."""
    x = g.pick((1, 2, 3, 4))
    axis = g.axis(x)
    k, view = (
        g.size(x.shape[axis]),
        "[:, None]" if axis == x.rank - 2 else "" if axis == x.rank - 1 else "[..., None]" * (x.rank - 1 - axis),
    )
    made = g.rng.choice(
        [
            "torch.arange({0})",
            "torch.ones({0})",
            "torch.arange({0}) / {0}",
            "torch.linspace(0, 1, {0})",
            "torch.zeros({0})",
            "torch.full(({0},), 0.3)",
            "0.5 ** torch.arange({0})",
            "(torch.arange({0}) % 2)",
            "torch.arange({0}).flip(0)",
            "torch.eye({0})[0]",
            "torch.ones({0}).cumsum(0)",
            "torch.tensor(0.5).expand({0})",
            "torch.arange(1, {0} + 1).log()",
            "(torch.arange({0}) > 1)",
        ]
    ).format(k)
    op = g.rng.choice(["*", "+", "*", "-"])
    return f"{x.name} {op} ({made}){view}" if op == "*" else f"{x.name} {op} ({made}){view} * 0.1"


def buffered(g: Builder) -> str:
    """A table held as a buffer."""
    x = g.pick((1, 2, 3, 4), where=lambda v: is_width(v.shape[-1]))
    b = g.buffer(
        g.rng.choice(
            [
                "torch.randn({0})",
                "torch.ones({0})",
                "torch.arange({0}) * 0.1",
                "torch.randn(1)",
                "torch.full(({0},), 0.7)",
            ]
        ).format(g.at_init(x.shape[-1]))
    )
    return g.rng.choice([f"{x.name} * {b}", f"{x.name} + {b}", f"{x.name} * {b}.sigmoid()"])


def masked(g: Builder) -> str:
    """A mask given as an input, or made of tokens."""
    mask = g.pick((2,), kind="b", where=lambda v: v.given)
    x = g.pick(
        (2, 3, 4),
        where=lambda v: (
            v.shape[:2] == mask.shape or (v.rank > 1 and v.shape[-1] == mask.shape[-1] and v.shape[0] == mask.shape[0])
        ),
    )
    view = (
        "[:, None, :]"
        if x.rank == 3 and x.shape[-1] == mask.shape[-1] and x.shape[:2] != mask.shape
        else "[..., None]" * (x.rank - 2)
    )
    m = f"{mask.name}{view}"
    return g.rng.choice(
        [
            f"{x.name}.masked_fill({m}, 0)",
            f"{x.name} * {m}",
            f"torch.where({m}, {x.name}, 0.0)",
            f"{x.name}.masked_fill(~{m}, -1e4).softmax(-1)",
            f"({x.name} * {m}).sum(1) / ({m}.sum(1) + 1)",
        ]
    )


def pooled(g: Builder) -> str:
    x = g.pick((3, 4))
    return g.rng.choice(
        [
            f"{x.name}.mean(1)",
            f"{x.name}[:, 0]",
            f"{x.name}[:, -1]",
            f"{x.name}.mean((-2, -1))",
            f"{x.name}.flatten(2).amax(-1)",
            f"{x.name}.sum(1)",
            f"{x.name}[:, {x.name}.shape[1] // 2]",
        ]
    )


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
            (
                f"{g.target} = {x.name} * 0",
                f"for i in range({size}):",
                f"    {g.target} = {g.target} + {x.name}.select({axis}, i).unsqueeze({axis}) * 0.3",
            ),
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
    return g.rng.choice(
        [
            f"{x.name} * {flag.name}",
            f"{x.name} + {flag.name}",
            f"{x.name} ** {flag.name}" if flag.code == "2" else f"{x.name} / {flag.name}",
        ]
    )


REDUCTIONS = ("{}.mean({})", "{}.mean({})", "{}.sum({})", "{}.amax({})", "{}.logsumexp({})", "{}.norm(dim={})")


def contracted(g: Builder, x: Var) -> str:
    """A variable without its wide axes, each contracted with a weight or reduced."""
    code = x.name
    for axis in reversed(range(x.rank)):
        if is_width(x.shape[axis]) and not is_constant(x.shape[axis]):
            if g.chance(0.7):
                code = f"({code}.movedim({axis}, -1) @ {g.parameter(x.shape[axis])})"
            else:
                code = g.rng.choice(REDUCTIONS).format(code, axis)
    return code


MATHS: dict[Maker, float] = {
    unary: 6, binary: 4, residual: 2, broadcast: 1.5, along: 5, over_all: 1, written: 1.2, assigned: 1.2, filled: 0.7,
    table: 2, buffered: 1, masked: 1.5, pooled: 1, read_sizes: 1, flagged: 1.5,
}  # fmt: skip
"""How often each maker is drawn."""
