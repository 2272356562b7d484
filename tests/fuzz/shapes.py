"""Makers of views, cuts and joins."""

from __future__ import annotations

from tests.fuzz.builder import Builder, Maker, Skip, constant, grows, is_constant, is_width, over, times


def split_axis(g: Builder) -> str:
    """An axis read as two, heads or groups outside."""
    x = g.pick((1, 2, 3, 4))
    axis = g.axis(x, lambda s: is_width(s) and s[0] > 3)
    outer = g.divisor(x.shape[axis])
    inner = over(x.shape[axis], outer)
    assert inner is not None
    sizes = [g.size(outer), g.size(inner)]
    if g.chance(0.4):
        sizes[g.rng.randrange(2)] = "-1"
    if g.chance(0.4):
        return f"{x.name}.unflatten({g.dim(x, axis)}, ({', '.join(sizes)}))"
    whole = [
        f"{x.name}.shape[{i}]" if not is_constant(s) or g.chance(0.3) else str(s[0]) for i, s in enumerate(x.shape)
    ]
    whole[axis : axis + 1] = sizes
    return f"{x.name}.{g.rng.choice(['view', 'reshape'])}({', '.join(whole)})"


def merge_axes(g: Builder) -> str:
    x = g.pick((2, 3, 4, 5))
    axis = g.rng.randrange(x.rank - 1)
    merged = times(x.shape[axis], x.shape[axis + 1])
    if g.chance(0.4):
        return f"{x.name}.flatten({axis}, {axis + 1})"
    whole = [f"{x.name}.shape[{i}]" if g.chance(0.7) else g.size(s) for i, s in enumerate(x.shape)]
    whole[axis : axis + 2] = [g.rng.choice(["-1", g.size(merged)])]
    if g.chance(0.3):
        return f"{x.name}.contiguous().view({', '.join(whole)})"
    return (
        f"{x.name}.reshape({', '.join(whole)})" if g.chance(0.7) else f"torch.reshape({x.name}, ({', '.join(whole)},))"
    )


def regrouped(g: Builder) -> str:
    """One factorisation of an axis read as another."""
    x = g.pick((2, 3, 4))
    axis = g.rng.randrange(x.rank - 1)
    merged = times(x.shape[axis], x.shape[axis + 1])
    outer = g.divisor(merged)
    inner = over(merged, outer)
    assert inner is not None
    whole = [f"{x.name}.shape[{i}]" for i in range(x.rank)]
    whole[axis : axis + 2] = [g.size(outer), g.size(inner)]
    return f"{x.name}.reshape({', '.join(whole)})"


def permuted(g: Builder) -> str:
    x = g.pick((2, 3, 4, 5))
    order = g.rng.sample(range(x.rank), x.rank)
    a, b = g.rng.sample(range(x.rank), 2)
    return g.rng.choice(
        [
            f"{x.name}.permute({', '.join(map(str, order))})",
            f"{x.name}.transpose({g.dim(x, a)}, {g.dim(x, b)})",
            f"{x.name}.movedim({a}, {b})",
            f"torch.swapaxes({x.name}, {a}, {b}).contiguous()",
            f"{x.name}.mT",
        ]
    )


def parts(g: Builder) -> tuple[str, ...]:
    """Chunks or splits, put together again in another way."""
    x = g.pick((1, 2, 3, 4))
    axis = g.axis(x, lambda s: is_width(s) and s[0] > 1)
    size, d = x.shape[axis], g.dim(x, axis)
    pieces = g.rng.choice([k for k in (2, 3) if over(size, constant(k))] or [0])
    if pieces and g.chance(0.7):
        names = "abc"[:pieces]
        each = over(size, constant(pieces))
        assert each is not None
        cut = g.rng.choice(
            [
                f"{x.name}.chunk({pieces}, {d})",
                f"torch.split({x.name}, {g.size(each)}, dim={d})",
                f"torch.tensor_split({x.name}, {pieces}, {d})",
            ]
        )
    else:
        names = "ab"
        k = g.rng.randint(1, size[0] - 1)
        first = constant(k) if g.chance(0.4) else tuple(k * n for n in (1, 2, 1))
        rest = tuple(s - f for s, f in zip(size, first, strict=True))
        cut = f"{x.name}.split([{g.size(first)}, {_plain(rest)}], {d})"
    a, b = names[0], names[-1]
    same = len(names) > 1 and pieces and "split([" not in cut
    joined = [
        f"torch.cat(({b}, {a}), {d})",
        f"torch.cat([{', '.join(reversed(names))}], dim={d})",
        f"torch.cat(({a}, {a}), {d})",
        a,
        b,
    ]
    if same:
        joined += [
            f"{a} * F.silu({b})",
            f"{a} + {b}",
            f"torch.stack(({a}, {b}), {g.rng.randrange(x.rank + 1)})",
            f"torch.cat((-{b}, {a}), {d})",
        ] * 2
    return (f"{', '.join(names)} = {cut}", f"{g.target} = {g.rng.choice(joined)}")


def _plain(sig: tuple[int, ...]) -> str:
    """A size in the code that is read off nothing."""
    one, two = sig[:2]
    if one == two:
        return str(one)
    slope = two - one
    return f"{slope} * self.n" + (f" + {one - slope}" if one > slope else f" - {slope - one}" if one < slope else "")


def cat(g: Builder) -> str:
    x = g.pick((1, 2, 3, 4))
    axis = g.rng.randrange(x.rank)
    y = g.pick(
        x.rank, where=lambda v: all(s == t for i, (s, t) in enumerate(zip(v.shape, x.shape, strict=True)) if i != axis)
    )
    made = g.rng.choice([y.name, y.name, y.name, f"torch.zeros_like({y.name})", f"torch.ones_like({y.name})"])
    order = g.rng.choice([(x.name, made), (made, x.name), (x.name, made, x.name)])
    return f"{g.rng.choice(['torch.cat', 'torch.concat'])}(({', '.join(order)}), {g.dim(x, axis)})"


def stack(g: Builder) -> str:
    x = g.pick((1, 2, 3))
    y = g.like(x)
    axis = g.rng.randrange(x.rank + 1)
    stacked = f"torch.stack(({x.name}, {y.name}), {axis})"
    if g.chance(0.5) and axis:
        return f"{stacked}.flatten({axis - 1}, {axis})"
    return f"{stacked}.{g.rng.choice(['sum', 'mean', 'amax'])}({axis})" if g.chance(0.3) else stacked


def sliced(g: Builder) -> str:
    x = g.pick((1, 2, 3, 4))
    axis = g.axis(x, lambda s: min(s) > 1)
    size = x.shape[axis]
    before = ":, " * axis
    k = g.rng.randint(1, min(size) - 1)
    half = over(size, constant(2))
    cuts = [f"{k}:", f":{k}", f"-{k}:", f":-{k}", "::2", "1::2", f"{k - 1}:{k + 1}"]
    if half and is_width(size):
        cuts += [f":{g.size(half)}", f"{g.size(half)}:", f"{_plain(half)}:", "::2", "1::2"]
    if g.chance(0.15):
        return f"{x.name}.narrow({axis}, {k - 1}, 2)"
    if g.chance(0.2):
        return g.rng.choice(
            [
                f"{x.name}[{before}{k}]",
                f"{x.name}.select({axis}, {k})",
                f"{x.name}.unbind({axis})[{k}]",
                f"{x.name}[{before}-1]",
            ]
        )
    return f"{x.name}[{before}{g.rng.choice(cuts)}]"


def halves(g: Builder) -> str:
    """The rotary turn, half split or interleaved."""
    x = g.pick((2, 3, 4), where=lambda v: is_width(v.shape[-1]) and over(v.shape[-1], constant(2)))
    a, half = x.name, f"{x.name}.shape[-1] // 2"
    return g.rng.choice(
        [
            f"torch.cat((-{a}[..., {half}:], {a}[..., :{half}]), dim=-1)",
            f"torch.stack((-{a}[..., 1::2], {a}[..., ::2]), dim=-1).flatten(-2)",
            f"torch.stack((-{a}[..., 1::2], {a}[..., ::2]), dim=-1).reshape({a}.shape)",
        ]
    )


def indexed(g: Builder) -> str:
    x = g.pick((1, 2, 3, 4))
    axis = g.axis(x, lambda s: min(s) > 1)
    least = min(x.shape[axis])
    index = [g.rng.randrange(least) for _ in range(g.rng.randint(1, 4))]
    before = ":, " * axis
    return g.rng.choice(
        [
            f"{x.name}.index_select({axis}, torch.tensor({index}))",
            f"{x.name}[{before}torch.tensor({index})]",
            f"{x.name}[{before}{index}]",
            f"torch.gather({x.name}, {axis}, torch.zeros_like({x.name}, dtype=torch.long))",
            f"torch.gather({x.name}, {axis}, torch.ones_like({x.name}).long())",
            f"torch.take_along_dim({x.name}, {x.name}.argmax({axis}, keepdim=True), dim={axis})",
            f"{x.name}[{before}torch.arange({g.size(x.shape[axis])} - 1, -1, -1)]",
        ]
    )


def moved(g: Builder) -> str:
    x = g.pick((1, 2, 3, 4))
    axis = g.axis(x)
    return g.rng.choice(
        [
            f"{x.name}.flip({axis})",
            f"torch.roll({x.name}, {g.rng.choice([1, -1, 2])}, {axis})",
            f"{x.name}.roll(1, dims={g.dim(x, axis)})",
            f"torch.flip({x.name}, ({g.dim(x, axis)},))",
        ]
    )


def padded(g: Builder) -> str:
    x = g.pick((2, 3, 4))
    axis = g.axis(x)
    pad = "0, 0, " * (x.rank - 1 - axis) + f"{g.rng.choice([0, 1, 2])}, {g.rng.choice([0, 1])}"
    mode = g.rng.choice(
        ["", "", f", value={g.number()}"]
        + ([", mode='reflect'", ", mode='replicate'", ", mode='circular'"] if axis == x.rank - 1 and x.rank > 2 else [])
    )
    return f"F.pad({x.name}, ({pad}){mode})"


def expanded(g: Builder) -> str:
    x = g.pick((1, 2, 3))
    axis = g.rng.randrange(x.rank + 1)
    r = g.rng.choice([constant(2), constant(3), (2, 4, 2)])
    sizes = ["-1"] * x.rank
    sizes.insert(axis, g.size(r))
    wide = f"{x.name}.unsqueeze({axis}).expand({', '.join(sizes)})"
    if g.chance(0.6):
        k = axis if axis < x.rank else axis - 1
        return (
            f"{wide}.{g.rng.choice([f'flatten({k}, {k + 1})', f'sum({axis})', f'mean({axis})'])}"
            if k + 1 <= x.rank
            else wide
        )
    return wide


def repeated(g: Builder) -> str:
    x = g.pick((1, 2, 3))
    axis = g.rng.randrange(x.rank)
    r = g.size(g.rng.choice([constant(2), constant(3), (2, 4, 2)]))
    counts = ["1"] * x.rank
    counts[axis] = r
    return g.rng.choice(
        [
            f"{x.name}.repeat({', '.join(counts)})",
            f"{x.name}.tile(({', '.join(counts)}))",
            f"{x.name}.repeat_interleave({r}, dim={axis})",
            f"torch.repeat_interleave({x.name}, {r}, {axis})",
        ]
    )


def squeezed(g: Builder) -> str:
    x = g.pick((1, 2, 3, 4))
    ones = [i for i in range(x.rank) if x.shape[i] == constant(1)]
    if ones and g.chance(0.6):
        return f"{x.name}.squeeze({ones[0]})"
    axis = g.rng.randrange(x.rank + 1)
    return g.rng.choice([f"{x.name}.unsqueeze({axis})", f"{x.name}[{':, ' * axis}None]"])


def shuffled(g: Builder) -> str:
    """Channel shuffle: groups and members change places."""
    x = g.pick((3, 4), where=lambda v: grows(v.shape[1]) or is_constant(v.shape[1]))
    outer = g.divisor(x.shape[1])
    inner = over(x.shape[1], outer)
    assert inner is not None
    if g.chance(0.3):
        return f"F.channel_shuffle({x.name}, {g.size(outer)})"
    rest = ", ".join(f"{x.name}.shape[{i}]" for i in range(2, x.rank))
    b = f"{x.name}.shape[0]"
    return f"{x.name}.view({b}, {g.size(outer)}, {g.size(inner)}, {rest}).transpose(1, 2).reshape({b}, -1, {rest})"


def pixels(g: Builder) -> str:
    x = g.pick(4)
    if over(x.shape[1], constant(4)) and g.chance(0.6):
        return f"F.pixel_shuffle({x.name}, 2)"
    return f"F.pixel_unshuffle({x.name}, 2)"


def viewed_as(g: Builder) -> str:
    x = g.pick((1, 2, 3, 4))
    y = g.like(x)
    return g.rng.choice(
        [
            f"{x.name}.flatten().view_as({y.name})",
            f"{x.name}.flatten().reshape(*{y.name}.shape)",
            f"{x.name}.reshape({y.name}.size())",
            f"{x.name}.reshape(-1).reshape_as({y.name})",
        ]
    )


def windows(g: Builder) -> str:
    x = g.pick((2, 3, 4))
    axis = g.axis(x, lambda s: min(s) > 2)
    spelled = [
        f"{x.name}.unfold({axis}, 2, 1)",
        f"{x.name}.unfold({axis}, 2, 2).flatten({axis}, {axis + 1})",
        f"{x.name}.diff(dim={axis})",
    ]
    if x.rank == 4:
        spelled += [
            f"F.unfold({x.name}, 2)",
            f"F.interpolate({x.name}, scale_factor=2)",
            f"F.avg_pool2d({x.name}, 2)",
            f"F.max_pool2d({x.name}, 2)",
            f"F.adaptive_avg_pool2d({x.name}, 1)",
            f"F.adaptive_avg_pool2d({x.name}, 1).flatten(1)",
        ]
    if x.rank == 3:
        spelled += [
            f"F.avg_pool1d({x.name}, 2)",
            f"F.max_pool1d({x.name}, 2)",
            f"F.adaptive_max_pool1d({x.name}, 1)",
            f"F.interpolate({x.name}, scale_factor=2)",
        ]
    return g.rng.choice(spelled)


def diagonals(g: Builder) -> str:
    x = g.pick((2, 3, 4))
    if x.shape[-1] != x.shape[-2]:
        raise Skip
    return g.rng.choice(
        [
            f"{x.name}.diagonal(dim1=-2, dim2=-1)",
            f"{x.name}.tril()",
            f"{x.name}.triu(1)",
            f"torch.einsum('...ii->...i', {x.name})",
            f"{x.name} * torch.eye({g.size(x.shape[-1])})",
        ]
    )


SHAPES: dict[Maker, float] = {
    split_axis: 4,
    merge_axes: 3,
    regrouped: 1,
    permuted: 4,
    parts: 4,
    cat: 3,
    stack: 1.5,
    sliced: 3,
    halves: 1,
    indexed: 2,
    moved: 1.5,
    padded: 1.5,
    expanded: 1.5,
    repeated: 1.5,
    squeezed: 2,
    shuffled: 1,
    pixels: 0.7,
    viewed_as: 0.7,
    windows: 1.5,
    diagonals: 0.7,
}
"""How often each maker is drawn."""
