"""Makers of layers: what holds parameters, and attention."""

from __future__ import annotations

import contextlib
import re

from tests.fuzz.builder import Builder, Maker, Sig, Skip, Var, constant, is_width, times
from tests.fuzz.program import reads, renamed

ACTIVATIONS = (
    "torch.relu({})",
    "F.gelu({})",
    "torch.tanh({})",
    "F.silu({})",
    "{}.sigmoid()",
    "F.leaky_relu({}, 0.1)",
    "{}",
)


def activated(g: Builder, code: str) -> str:
    return g.rng.choice(ACTIVATIONS).format(code)


def last(var: Var) -> Sig:
    return var.shape[-1]


def wide_last(var: Var) -> bool:
    return var.rank >= 1 and is_width(last(var))


def linear(g: Builder) -> str:
    x = g.pick((1, 2, 3, 4), where=wide_last)
    layer = g.module(f"nn.Linear({g.at_init(last(x))}, {g.at_init(g.width())}, bias={g.chance(0.7)})")
    return activated(g, f"{layer}({x.name})")


def sequential(g: Builder) -> str:
    x = g.pick((2, 3), where=wide_last)
    a, b = g.at_init(last(x)), g.at_init(g.width())
    middle = g.rng.choice(["nn.ReLU()", "nn.GELU()", f"nn.LayerNorm({b})", "nn.Tanh()", "nn.PReLU()", f"nn.PReLU({b})"])
    layer = g.module(f"nn.Sequential(nn.Linear({a}, {b}), {middle}, nn.Linear({b}, {a}))")
    return f"{x.name} + {layer}({x.name})" if g.chance(0.6) else f"{layer}({x.name})"


def functional_linear(g: Builder) -> str:
    x = g.pick((2, 3), where=wide_last)
    i, o = last(x), g.width()
    spelled = g.rng.randrange(6)
    w = g.parameter(*((o, i) if spelled in (0, 1, 2) else (i, o)))
    return [
        f"F.linear({x.name}, {w})",
        f"{x.name} @ {w}.t()",
        f"torch.matmul({x.name}, {w}.transpose(0, 1))",
        f"{x.name} @ {w}",
        f"torch.einsum('...i,io->...o', {x.name}, {w})",
        f"torch.tensordot({x.name}, {w}, dims=1)",
    ][spelled]


def one_parameter_two_axes(g: Builder) -> tuple[str, ...]:
    """A square weight contracted over both of its axes, or a weight used forth and back."""
    x = g.pick((2, 3), where=wide_last)
    i = last(x)
    o = i if g.chance(0.4) else g.width()
    w = g.parameter(o, i)
    return (
        f"{g.target} = {activated(g, f'F.linear({x.name}, {w})')}",
        f"{g.target} = {g.target} @ {w}",
    )


def low_rank(g: Builder) -> str:
    x = g.pick((2, 3), where=wide_last)
    i, o, r = last(x), g.width(), constant(2)
    w, a, b = g.parameter(o, i), g.parameter(r, i), g.parameter(o, r)
    return f"F.linear({x.name}, {w} + {b} @ {a} * {g.number()})"


def weight_norm(g: Builder) -> str:
    x = g.pick((2, 3), where=wide_last)
    made = f"nn.Linear({g.at_init(last(x))}, {g.at_init(g.width())})"
    kind = g.rng.choice(["weight_norm({})", "weight_norm({}, dim=1)", "weight_norm({}, dim=None)", "spectral_norm({})"])
    return f"{g.module('nn.utils.parametrizations.' + kind.format(made))}({x.name})"


def bilinear(g: Builder) -> str:
    x = g.pick((2, 3), where=wide_last)
    y = g.pick(x.rank, where=lambda v: v.shape[:-1] == x.shape[:-1] and wide_last(v))
    a, b, o = g.at_init(last(x)), g.at_init(last(y)), g.at_init(g.width())
    return f"{g.module(f'nn.Bilinear({a}, {b}, {o})')}({x.name}, {y.name})"


def addmm(g: Builder) -> str:
    x = g.pick(2, where=wide_last)
    o = g.width()
    w, bias = g.parameter(last(x), o), g.parameter(o)
    scales = f", beta={g.number()}, alpha={g.number()}" if g.chance(0.4) else ""
    return f"torch.addmm({bias}, {x.name}, {w}{scales})"


def baddbmm(g: Builder) -> str:
    x = g.pick(3, where=wide_last)
    y = g.pick(3, where=lambda v: (v.shape[0], last(v)) == (x.shape[0], last(x)))
    added = g.rng.choice(["torch.zeros(1)", "torch.ones(1)"])
    return f"torch.baddbmm({added}, {x.name}, {y.name}.transpose(1, 2), beta={g.number()}, alpha={g.number()})"


def products(g: Builder) -> str:
    """Products of two activations."""
    x = g.pick((2, 3, 4))
    y = g.pick(x.rank, where=lambda v: v.shape[:-2] == x.shape[:-2] and last(v) == last(x))
    a, b = x.name, y.name
    spelled = [
        f"{a} @ {b}.transpose(-1, -2)",
        f"torch.matmul({a}, {b}.mT)",
        f"torch.einsum('...ik,...jk->...ij', {a}, {b})",
    ]
    if x.rank == 3:
        spelled += [f"torch.bmm({a}, {b}.transpose(1, 2))", f"torch.einsum('bik,bjk->bij', {a}, {b})"]
    if x.shape == y.shape:
        spelled += [f"{a}.transpose(-1, -2) @ {b}", f"torch.einsum('...ki,...kj->...ij', {a}, {b})"]
    scale = g.rng.choice(["", "", f" / math.sqrt({g.size(last(x))})", f" * {g.size(last(x))} ** -0.5", " / 3"])
    return g.rng.choice(spelled) + scale


def outer(g: Builder) -> str:
    x = g.pick((2, 3))
    y = g.pick(x.rank, where=lambda v: v.shape[:-1] == x.shape[:-1])
    letters = "abc"[: x.rank - 1]
    return f"torch.einsum('{letters}i,{letters}j->{letters}ij', {x.name}, {y.name})"


def square(g: Builder) -> str:
    """All pairs of a width, beside a table that has it on both sides."""
    x = g.pick((2, 3), where=wide_last)
    table = g.parameter(last(x), last(x))
    pairs = f"{x.name}.unsqueeze(-1) * {x.name}.unsqueeze(-2) {g.rng.choice('+-*')} {table}"
    pairs = activated(g, f"({pairs})")
    return g.rng.choice(
        [f"({pairs} @ {x.name}.unsqueeze(-1)).squeeze(-1)", f"{pairs}.flatten(-2)", f"{pairs}.mean(-1)"]
    )


def einsum_parameter(g: Builder) -> str:
    """A weight of three axes: heads side by side, or a weight per position."""
    x = g.pick(3, where=wide_last)
    h, d = g.width(), constant(g.rng.choice([2, 3]))
    w = g.parameter(last(x), h, d)
    return g.rng.choice(
        [
            f"torch.einsum('bti,ihd->bthd', {x.name}, {w})",
            f"torch.einsum('bti,ihd->bhtd', {x.name}, {w})",
            f"torch.einsum('bti,ihd->btd', {x.name}, {w})",
            f"torch.einsum('bti,ihd->bih', {x.name}, {w}).transpose(1, 2)",
        ]
    )


def embedding(g: Builder) -> str:
    x = g.pick((1, 2, 3), kind="i", where=lambda v: v.given)
    rows, width = 9, g.width()
    layer = g.module(f"nn.Embedding({rows}, {g.at_init(width)})")
    spelled = [f"{layer}({x.name})", f"F.embedding({x.name}, {layer}.weight)", f"{layer}.weight[{x.name}]"]
    return g.rng.choice(spelled) + (f" * math.sqrt({g.size(width)})" if g.chance(0.2) else "")


def positions(g: Builder) -> str:
    """Learned positions, looked up by a range made in the code."""
    x = g.pick(3, where=wide_last)
    layer = g.module(f"nn.Embedding(16, {g.at_init(last(x))})")
    t = g.size(x.shape[1])
    return g.rng.choice([f"{x.name} + {layer}(torch.arange({t}))", f"{x.name} + {layer}.weight[:{t}]"])


def tied(g: Builder) -> str:
    """A weight contracted that something else reads too."""
    found = [(n, t) for n, t in g.inits.items() if re.match(r"self\.\w+ = nn\.(Embedding|Linear)\(", t)]
    if not found:
        raise Skip
    name, text = g.rng.choice(found)
    weight = f"self.{name}.weight"
    tensor = g.hosts[0].get_submodule(name).weight
    wide = g.hosts[1].get_submodule(name).weight
    axis = g.rng.choice([0, 1])
    x = g.pick((2, 3), where=lambda v: last(v)[:2] == (tensor.shape[axis], wide.shape[axis]) and is_width(last(v)))
    if "nn.Embedding(" in text and axis and g.chance(0.4):
        head = g.module(f"nn.Linear({g.at_init(last(x))}, {tensor.shape[0]}, bias={g.chance(0.3)})")
        g.also(head, f"{head}.weight = {weight}")
        return f"{head}({x.name})"
    return f"F.linear({x.name}, {weight})" if axis else f"{x.name} @ {weight}"


def replayed(g: Builder) -> str:
    """An earlier layer again, on something else of the same shape."""
    found = [s for s in g.statements if len(s.lines) == 1 and s.target and "self.m" in s.text]
    if not found:
        raise Skip
    text = g.rng.choice(found).text.partition(" = ")[2]
    old = g.rng.choice(sorted(str(name) for name in reads(text)))
    var = next(v for v in g.vars if v.name == old)
    other = g.like(var)
    return renamed(text, old, other.name)


def conv1d(g: Builder) -> str:
    x = g.pick((2, 3), where=lambda v: is_width(v.shape[-2]))
    return _conv(g, x, 1)


def conv2d(g: Builder) -> str:
    x = g.pick((3, 4), where=lambda v: is_width(v.shape[-3]))
    return _conv(g, x, 2)


def _conv(g: Builder, x: Var, space: int) -> str:
    i, o = x.shape[-1 - space], g.width()
    groups = constant(1)
    if g.chance(0.5):
        groups = i if g.chance(0.3) else g.divisor(i)
        o = times(groups, constant(g.rng.choice([1, 2, 3])))
    kernel = g.rng.choice([1, 2, 3])
    options = [f"{g.at_init(i)}", g.at_init(o), str(kernel), f"groups={g.at_init(groups)}", f"bias={g.chance(0.7)}"]
    options += g.rng.choice(
        [[], ["padding=1"], ["stride=2", "padding=1"], ["padding='same'"], ["dilation=2", "padding=2"]]
    )
    if g.chance(0.15):
        options = [option for option in options if "same" not in option]
        layer = g.module(f"nn.ConvTranspose{space}d({', '.join(options)})")
    else:
        layer = g.module(f"nn.Conv{space}d({', '.join(options)})")
    return activated(g, f"{layer}({x.name})")


def layer_norm(g: Builder) -> str:
    x = g.pick((2, 3, 4), where=wide_last)
    d = g.at_init(last(x))
    kind = g.rng.choice(
        [
            f"nn.LayerNorm({d})",
            f"nn.RMSNorm({d})",
            f"nn.LayerNorm({d}, elementwise_affine=False)",
            f"nn.RMSNorm({d}, eps=1e-3)",
        ]
        + ([f"nn.LayerNorm(({g.at_init(x.shape[-2])}, {d}))"] if x.rank > 2 and is_width(x.shape[-2]) else [])
    )
    return f"{g.module(kind)}({x.name})"


def channel_norm(g: Builder) -> str:
    x = g.pick((2, 3, 4), where=lambda v: is_width(v.shape[1]))
    c = x.shape[1]
    n = {2: "1", 3: "1", 4: "2"}[x.rank]
    kinds = [f"nn.BatchNorm{n}d({g.at_init(c)}, affine={g.chance(0.8)})"]
    if x.rank > 2:
        kinds += [f"nn.InstanceNorm{n}d({g.at_init(c)}, affine={g.chance(0.6)})"]
    groups = [constant(1), c]
    with contextlib.suppress(Skip):
        groups += [g.divisor(c), g.divisor(c)]
    if x.rank > 2 or c != constant(1):
        kinds += [f"nn.GroupNorm({g.at_init(g.rng.choice(groups))}, {g.at_init(c)}, affine={g.chance(0.8)})"] * 2
    return f"{g.module(g.rng.choice(kinds))}({x.name})"


def norm_by_hand(g: Builder) -> str:
    x = g.pick((2, 3, 4), where=wide_last)
    a, w = x.name, g.parameter(last(x))
    gain = g.rng.choice([w, f"(1 + {w})"])
    return g.rng.choice(
        [
            f"{a} * torch.rsqrt({a}.pow(2).mean(-1, keepdim=True) + 1e-5) * {gain}",
            f"{a} / ({a}.square().sum(-1, keepdim=True).sqrt() + 1e-6) * {gain}",
            f"({a} - {a}.mean(-1, keepdim=True)) / ({a}.var(-1, keepdim=True) + 1e-5).sqrt() * {gain}",
            f"({a} - {a}.mean(-1, keepdim=True)) / ({a}.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() * {gain}",
            f"F.layer_norm({a}, ({g.size(last(x))},), {gain})",
            f"F.normalize({a}, dim=-1) * {gain}",
            f"{a} / {a}.norm(dim=-1, keepdim=True).clamp(min=1e-6) * {g.size(last(x))} ** 0.5 * {gain}",
        ]
    )


def gain(g: Builder) -> str:
    """A parameter that is added or multiplied, in the many ways people do."""
    x = g.pick((1, 2, 3, 4))
    axis = g.axis(x, is_width)
    w = g.parameter(x.shape[axis])
    view = w + "".join("[:, None]" if not i else "[..., None]" for i in range(x.rank - 1 - axis))
    return g.rng.choice(
        [
            f"{x.name} * {view}",
            f"{x.name} + {view}",
            f"{x.name} * (1 + {view})",
            f"{x.name} * torch.exp({view})",
            f"{x.name} * torch.sigmoid({view})",
            f"{x.name} - {view}",
            f"{x.name} * {view}.softmax(0)" if axis == x.rank - 1 else f"{x.name} * {view}",
        ]
    )


def lookup_and_contract(g: Builder) -> tuple[str, ...]:
    """One parameter both added and contracted."""
    x = g.pick((2, 3), where=wide_last)
    if g.chance(0.5):
        w = g.parameter(last(x))
        code, read = f"({x.name} * {w}).sum(-1, keepdim=True)", w
    else:
        w = g.parameter(constant(5), last(x))
        code, read = f"F.linear({x.name}, {w})", f"{w}[2]"
    return (f"{g.target} = {code}", f"{g.target} = {g.target}.mean(-1, keepdim=True).tanh() * ({x.name} + {read})")


def multihead(g: Builder) -> tuple[str, ...]:
    """Attention by hand or fused, over heads that share their keys or not."""
    x = g.pick(3, where=wide_last)
    e = last(x)
    kv = g.rng.choice([constant(1), constant(2), (1, 2, 1), (2, 4, 2)])
    group, d = constant(g.rng.choice([1, 1, 2, 3])), g.rng.choice([constant(2), constant(4), (2, 4, 2)])
    heads = times(kv, group)
    q, k, v = (
        g.module(f"nn.Linear({g.at_init(e)}, {g.at_init(times(h, d))}, bias={g.chance(0.6)})") for h in (heads, kv, kv)
    )
    b = f"{x.name}.shape[0]"
    H, K, D, T = (g.size(s) for s in (heads, kv, d, x.shape[1]))
    lines = [f"q = {q}({x.name}).view({b}, -1, {H}, {D}).transpose(1, 2)"]
    lines += [f"{n} = {m}({x.name}).view({b}, -1, {K}, {D}).transpose(1, 2)" for n, m in (("k", k), ("v", v))]
    if g.chance(0.25):
        lines += [f"{n} = F.layer_norm({n}, ({D},))" for n in "qk"]
    if g.chance(0.3):
        lines += [
            f"{n} = torch.cat((-{n}[..., {D} // 2:], {n}[..., :{D} // 2]), -1) * 0.3 + {n}"
            if g.chance(0.5)
            else f"{n} = torch.stack((-{n}[..., 1::2], {n}[..., ::2]), -1).flatten(-2) * 0.3 + {n}"
            for n in "qk"
        ]
    fused = g.chance(0.5)
    if group != constant(1) and not (fused and g.chance(0.3)):
        r = g.size(group)
        repeat = g.rng.choice(
            ["{0}.repeat_interleave({1}, dim=1)", "{0}[:, :, None].expand(-1, -1, {1}, -1, -1).flatten(1, 2)"]
        )
        lines += [f"{n} = {repeat.format(n, r)}" for n in "kv"]
    elif group != constant(1):
        return _attended(g, lines, "F.scaled_dot_product_attention(q, k, v, enable_gqa=True)", x, times(heads, d))
    if fused:
        options = g.rng.choice(
            [
                "",
                ", is_causal=True",
                f", scale={g.number()}",
                f", scale=1 / math.sqrt({D})",
                f", attn_mask=torch.ones({T}, {T}, dtype=torch.bool).tril()",
            ]
        )
        return _attended(g, lines, f"F.scaled_dot_product_attention(q, k, v{options})", x, times(heads, d))
    scale = g.rng.choice([f" / math.sqrt({D})", f" * {D} ** -0.5", " * 0.4", ""])
    lines += [
        f"s = q @ k.transpose(-1, -2){scale}" if g.chance(0.7) else f"s = torch.einsum('bhid,bhjd->bhij', q, k){scale}"
    ]
    mask = f"torch.ones({T}, {T}, dtype=torch.bool)"
    lines += g.rng.choice(
        [
            [],
            [f"s = s.masked_fill({mask}.triu(1), float('-inf'))"],
            [f"s = torch.where({mask}.tril(), s, -1e4)"],
            [f"s = s + torch.full(({T}, {T}), -1e4).triu(1)"],
            [f"s = s + torch.arange({T}) * 0.1"],
        ]
    )
    return _attended(g, lines, "torch.softmax(s, -1) @ v", x, times(heads, d))


def _attended(g: Builder, lines: list[str], code: str, x: Var, width: Sig) -> tuple[str, ...]:
    b, t = f"{x.name}.shape[0]", f"{x.name}.shape[1]"
    joined = g.rng.choice([f"reshape({b}, {t}, -1)", "flatten(2)", f"contiguous().view({b}, {t}, {g.size(width)})"])
    lines.append(f"{g.target} = ({code}).transpose(1, 2).{joined}")
    if g.chance(0.5):
        o = g.module(f"nn.Linear({g.at_init(width)}, {g.at_init(last(x))})")
        lines.append(f"{g.target} = {x.name} + {o}({g.target})")
    return tuple(lines)


def fused_qkv(g: Builder) -> tuple[str, ...]:
    x = g.pick(3, where=wide_last)
    heads, d = g.rng.choice([constant(2), (2, 4, 2)]), g.rng.choice([constant(2), constant(3), (2, 4, 2)])
    width = times(heads, d)
    qkv = g.module(f"nn.Linear({g.at_init(last(x))}, 3 * {g.at_init(width)})")
    b, t, H, D = f"{x.name}.shape[0]", f"{x.name}.shape[1]", g.size(heads), g.size(d)
    lines = g.rng.choice(
        [
            [f"q, k, v = {qkv}({x.name}).view({b}, {t}, 3, {H}, {D}).permute(2, 0, 3, 1, 4)"],
            [f"q, k, v = {qkv}({x.name}).view({b}, {t}, {H}, 3 * {D}).transpose(1, 2).chunk(3, -1)"],
            [f"q, k, v = (y.unflatten(-1, ({H}, {D})).transpose(1, 2) for y in {qkv}({x.name}).chunk(3, dim=-1))"],
            [
                f"q, k, v = {qkv}({x.name}).split({g.size(width)}, dim=-1)",
                f"q, k, v = (y.view({b}, {t}, {H}, {D}).transpose(1, 2) for y in (q, k, v))",
            ],
        ]
    )
    fused = "F.scaled_dot_product_attention(q, k, v)"
    by_hand = f"torch.softmax(q @ k.transpose(-1, -2) / math.sqrt({D}), -1) @ v"
    return _attended(g, list(lines), g.rng.choice([fused, by_hand]), x, width)


def multihead_module(g: Builder) -> str:
    x = g.pick(3, where=wide_last)
    heads = g.rng.choice([constant(1), g.divisor(last(x))])
    layer = g.module(f"nn.MultiheadAttention({g.at_init(last(x))}, {g.at_init(heads)}, batch_first=True)")
    return f"{layer}({x.name}, {x.name}, {x.name}, need_weights={g.chance(0.3)})[0]"


def encoder_layer(g: Builder) -> str:
    x = g.pick(3, where=wide_last)
    heads = g.rng.choice([constant(1), g.divisor(last(x))])
    layer = g.module(
        f"nn.TransformerEncoderLayer({g.at_init(last(x))}, {g.at_init(heads)}, {g.at_init(g.width())}, dropout=0.0, "
        f"batch_first=True, norm_first={g.chance(0.5)}, activation={g.rng.choice(['relu', 'gelu'])!r})"
    )
    return f"{layer}({x.name})"


def recurrent(g: Builder) -> str:
    x = g.pick(3, where=wide_last)
    kind = g.rng.choice(["RNN", "GRU", "LSTM"])
    options = f"batch_first=True, bidirectional={g.chance(0.4)}, num_layers={g.rng.choice([1, 1, 2])}"
    return f"{g.module(f'nn.{kind}({g.at_init(last(x))}, {g.at_init(g.width())}, {options})')}({x.name})[0]"


def cell(g: Builder) -> tuple[str, ...]:
    """A recurrent cell, its state made in the code or not, once or in a loop over a fixed number or the length."""
    kind = g.rng.choice(["RNNCell", "GRUCell", "LSTMCell"])
    width = g.width()
    if g.chance(0.5):
        x = g.pick(2, where=wide_last)
        layer = g.module(f"nn.{kind}({g.at_init(last(x))}, {g.at_init(width)})")
        state = g.rng.choice(["", f", torch.zeros({x.name}.shape[0], {g.size(width)})"]) if kind != "LSTMCell" else ""
        return (f"{g.target} = {layer}({x.name}{state}){'[0]' if kind == 'LSTMCell' else ''}",)
    x = g.pick(3, where=wide_last)
    layer = g.module(f"nn.{kind.replace('LSTM', 'GRU')}({g.at_init(last(x))}, {g.at_init(width)})")
    steps = g.rng.choice(["2", f"{x.name}.shape[1]", f"min({x.name}.shape[1], 3)"])
    return (
        f"state, states = torch.zeros({x.name}.shape[0], {g.size(width)}), []",
        f"for i in range({steps}):",
        f"    state = {layer}({x.name}[:, i], state)",
        "    states.append(state)",
        f"{g.target} = {'torch.stack(states, 1)' if g.chance(0.7) else 'state'}",
    )


LAYERS: dict[Maker, float] = {
    linear: 8, sequential: 2, functional_linear: 3, one_parameter_two_axes: 1.5, low_rank: 0.7, weight_norm: 1,
    bilinear: 0.7, addmm: 0.8, baddbmm: 0.5, products: 3, outer: 0.5, square: 0.5, einsum_parameter: 1.2,
    embedding: 3, positions: 0.8, tied: 1.5, replayed: 2, conv1d: 1.5, conv2d: 3, layer_norm: 3, channel_norm: 3,
    norm_by_hand: 2, gain: 3, lookup_and_contract: 0.8, multihead: 2, fused_qkv: 1, multihead_module: 0.7,
    encoder_layer: 0.5, recurrent: 1, cell: 1,
}  # fmt: skip
"""How often each maker is drawn."""
