"""What is held at the pads of dims that no whole number of copies fills."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import graphclone as gc
from graphclone.algebra.growth import Fill, Kind
from graphclone.clones.clone import Clone
from graphclone.errors import GraphcloneError
from graphclone.formats.torch.source import ModuleSource
from graphclone.models.randomise import randomise
from graphclone.pipeline.state import Request
from graphclone.verification.lockstep import run_lockstep

WIDTH, WIDER = 12, 17


def centred(x: Tensor) -> Tensor:
    """A LayerNorm, spelled out."""
    x = x - x.mean(-1, keepdim=True)
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-2).sqrt()


def rooted(x: Tensor) -> Tensor:
    """An RMS norm, spelled out."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-2)


def deviating(x: Tensor) -> Tensor:
    """A LayerNorm by ``std``."""
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, correction=0) + 1e-2)


NORMS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "LayerNorm": lambda: nn.LayerNorm(WIDTH),
    "LayerNorm without bias": lambda: nn.LayerNorm(WIDTH, bias=False),
    "LayerNorm without weights": lambda: nn.LayerNorm(WIDTH, elementwise_affine=False),
    "RMSNorm": lambda: nn.RMSNorm(WIDTH),
    "a LayerNorm in parts": lambda: centred,
    "an RMS norm in parts": lambda: rooted,
    "a norm by std": lambda: deviating,
}


class Stream(nn.Module):
    """A stream of states that two blocks read through a norm and add to."""

    def __init__(
        self, norm: Callable[[], Callable[[Tensor], Tensor]], *, after: bool = False, width: int = WIDTH
    ) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(7, width), nn.Linear(width, 5)
        self.up, self.down = nn.Linear(width, 9), nn.Linear(9, width)
        self.norms = [norm() for _ in range(2)]
        self.modules_of_norms = nn.ModuleList(n for n in self.norms if isinstance(n, nn.Module))
        self.after = after

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        if self.after:
            return self.head(self.norms[1](self.norms[0](x) + self.down(torch.tanh(self.up(self.norms[0](x))))))
        x = x + self.down(torch.tanh(self.up(self.norms[0](x))))
        return self.head(self.norms[1](x))


def widened(module: nn.Module, **widths: int) -> Clone:
    clone = gc.clone(randomise(module).eval(), (torch.randint(0, 7, (2, 3)),), sizes=widths or {"hidden": WIDER})
    assert clone.state.growths
    return clone


def exact(clone: Clone) -> float:
    """The greatest error of any value in float64, on inputs of the trace."""
    lockstep = run_lockstep(clone.state, [torch.randint(0, 7, (2, 3))])
    assert lockstep.first is None, str(lockstep.first)
    return lockstep.worst


@pytest.mark.parametrize("kind", ["tile", "interleave"])
def test_what_is_not_averaged_keeps_its_place_beside_pads(kind: Kind) -> None:
    """A norm's weight, whose pads may be anything, has its copies where the stream has them."""
    module = randomise(Stream(NORMS["LayerNorm"])).eval()
    ids = torch.randint(0, 7, (2, 3))
    clone = ModuleSource("stream", module, (ids,), {}).clone(Request({}, sizes={"hidden": 2 * WIDER}, kind=kind))
    assert run_lockstep(clone.state, [ids]).worst <= 1e-12
    torch.testing.assert_close(clone.module()(ids), module(ids), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NORMS)
def test_a_stream_grows_to_any_width(name: str) -> None:
    assert exact(widened(Stream(NORMS[name]))) < 1e-12


@pytest.mark.parametrize("name", ["LayerNorm", "a LayerNorm in parts"])
def test_a_stream_that_is_normed_after_the_sum_is_refused_with_the_node(name: str) -> None:
    with pytest.raises(
        GraphcloneError, match=r"hidden cannot grow from 12 to 17, .* does not keep the mean over the dim"
    ) as refusal:
        widened(Stream(NORMS[name], after=True))
    assert "leave it at 12 or grow it to 24; any size can be had by up" in str(refusal.value)


def test_a_width_that_another_model_gives_advises_no_others() -> None:
    narrow, wide = (Stream(partial(nn.LayerNorm, width), after=True, width=width) for width in (WIDTH, WIDER))
    with pytest.raises(GraphcloneError, match=r"leave it at 12 or grow it to 24$"):
        gc.clone(randomise(narrow).eval(), (torch.randint(0, 7, (2, 3)),), into=wide.eval())


def test_an_rms_norm_after_the_sum_keeps_zeros() -> None:
    assert exact(widened(Stream(NORMS["RMSNorm"], after=True))) < 1e-12


class Scaled(nn.Module):
    """A stream that branches are added to, each times vectors of its own (LayerScale, arXiv 2103.17239, equation 3)."""

    def __init__(self, branch: Callable[[Scaled, Tensor], Tensor] = lambda m, y: m.gamma * (m.delta * y)) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(7, WIDTH), nn.Linear(WIDTH, 5)
        self.up, self.down = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH)
        self.gamma, self.delta = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.ones(1, WIDTH))
        self.register_buffer("by_place", torch.rand(3, WIDTH))
        self.norm, self.last = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.branch = branch

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        return self.head(self.last(x + self.branch(self, self.down(self.up(self.norm(x)).tanh()))))


@pytest.mark.parametrize(
    "mask",
    [
        lambda x, m: x * m.expand(-1, -1, x.shape[-1]),
        lambda x, m: x * m.expand_as(x),
        lambda x, m: x + m.expand_as(x),
        lambda x, m: x / (m + 2).expand_as(x),
        lambda x, m: x * m.repeat(1, 1, WIDTH),
        lambda x, m: x * m.expand(-1, -1, x.shape[-1]).transpose(0, 1).transpose(1, 0),
        lambda x, m: x.masked_fill((m > 0).expand_as(x), 0.0),
        lambda x, m: x * torch.ones_like(x) * m,
    ],
)
def test_what_is_expanded_along_a_dim_keeps_its_mean(mask: Callable[[Tensor, Tensor], Tensor]) -> None:
    module = Scaled(lambda _, y: mask(y, y.mean(-1, keepdim=True).tanh()))
    clone = gc.clone(randomise(module).eval(), (torch.randint(0, 7, (2, 3)),), sizes={"hidden": WIDER}, seed=1)
    assert exact(clone) < 1e-12
    assert clone.verify(onnx=False).ok


def test_what_is_written_into_is_no_constant_along_a_dim() -> None:
    def branch(m: Scaled, y: Tensor) -> Tensor:
        mask = torch.ones_like(y)
        view = mask.transpose(0, 1)
        mask.mul_(y.tanh())
        return y * view.transpose(0, 1)

    with pytest.raises(GraphcloneError, match="does not keep the mean over the dim"):
        widened(Scaled(branch))


@pytest.mark.parametrize("strategy", ["symmetric", "diagonal", "noisy-symmetric", "fresh"])
@pytest.mark.parametrize(
    "branch",
    [
        lambda m, y: m.gamma * y,
        lambda m, y: m.gamma.view(1, 1, -1) * (m.delta * y),
        lambda m, y: m.gamma * (y + m.delta),
        lambda m, y: torch.addcmul(y.new_zeros(()), m.gamma, y, value=0.5),
    ],
)
def test_a_branch_may_be_scaled_by_parameters(branch: Callable[[Scaled, Tensor], Tensor], strategy: str) -> None:
    module, ids = randomise(Scaled(branch)).eval(), torch.randint(0, 7, (2, 3))
    clone = gc.clone(module, (ids,), sizes={"hidden": WIDER}, strategy=strategy, seed=1)
    assert exact(clone) < 1e-12
    assert clone.verify(onnx=False).ok
    torch.testing.assert_close(clone.module()(ids), module(ids), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("branch", "reason"),
    [
        (lambda m, y: m.gamma * (y + 1), "add.Tensor does not keep the mean over the dim"),
        (lambda m, y: m.gamma * y + y, "would have to hold two means at once"),
        (lambda m, y: m.gamma + m.gamma * y, "would have to hold 1 and the mean at once"),
        (lambda m, y: m.by_place * y, "mul.Tensor does not keep the mean over the dim"),
        (lambda m, y: m.gamma.tanh() * y, "mul.Tensor does not keep the mean over the dim"),
        (lambda m, y: y * y, "mul.Tensor does not keep the mean over the dim"),
    ],
)
def test_a_mean_has_weights_that_are_parameters(branch: Callable[[Scaled, Tensor], Tensor], reason: str) -> None:
    with pytest.raises(GraphcloneError) as refusal:
        widened(Scaled(branch))
    assert reason in str(refusal.value)


class Reduced(nn.Module):
    """A hidden state, reduced by something."""

    def __init__(self, reduction: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.embed, self.reduction = nn.Embedding(7, WIDTH), reduction

    def forward(self, ids: Tensor) -> Tensor:
        return self.reduction(self.embed(ids))


@pytest.mark.parametrize(
    "reduction",
    [
        lambda x: x.mean(-1),
        lambda x: x.sum(-1),
        lambda x: x.relu().sum(-1),
        lambda x: x.square().mean(-1),
        lambda x: torch.linalg.vector_norm(x, dim=-1),
        lambda x: x.var(-1, correction=0),
        lambda x: x @ x.transpose(-1, -2),
        lambda x: x.new_ones(x.shape[:2]) + x.square().sum(-1),
    ],
)
def test_reductions_bear_pads(reduction: Callable[[Tensor], Tensor]) -> None:
    assert exact(widened(Reduced(reduction), embed=WIDER)) < 1e-12


@pytest.mark.parametrize(
    ("reduction", "reason"),
    [
        (lambda x: x.softmax(-1).square().sum(-1), "softmax over it, which only whole multiples leave as it is"),
        (lambda x: x.var(-1), "averaged over it, which only whole multiples leave as it is"),
        (lambda x: (x + 1).square().sum(-1), "adds what is not 0"),
        (lambda x: x.sigmoid().sum(-1), "sigmoid.default does not keep 0"),
    ],
)
def test_what_cannot_bear_them_is_named(reduction: Callable[[Tensor], Tensor], reason: str) -> None:
    with pytest.raises(GraphcloneError) as refusal:
        widened(Reduced(reduction), embed=WIDER)
    assert reason in str(refusal.value)


class GatedHeads(nn.Module):
    """The average over heads, each of which is multiplied by a gate, and over what is in a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.values, self.gates = nn.Embedding(7, WIDTH), nn.Linear(WIDTH, 8), nn.Linear(WIDTH, 2)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        heads = self.values(x).unflatten(-1, (2, 4)) * self.gates(x).unsqueeze(-1)
        return heads.flatten(-2).mean(-1)


@pytest.mark.parametrize("kind", ["symmetric", "fresh"])
def test_of_an_average_over_two_dims_one_holds_0_and_the_other_its_mean(kind: str) -> None:
    module, ids = randomise(GatedHeads()).eval(), torch.randint(0, 7, (2, 3))
    both = [dim for group in gc.trace(module, (ids,)).dims for dim in group.dims if dim.size in (2, 4)]
    sizes = {dim.name: dim.size + 1 for dim in both}
    clone = gc.clone(module, (ids,), sizes=sizes, strategy=kind)
    assert sorted(growth.pads for growth in clone.state.growths.values()) == [1, 1]
    fills = {place.dim.size: fill for place, fill in clone.state.widths.fills.items() if place.value.name == "mul"}
    assert fills == {2: Fill.ZERO, 4: Fill.MEAN}
    assert exact(clone) < 1e-12
    torch.testing.assert_close(clone.module()(ids), module(ids))


def test_a_dim_that_nothing_averages_over_is_repeated_unevenly() -> None:
    clone = widened(Stream(NORMS["LayerNorm"]), up=13)
    assert {growth.pads for growth in clone.state.growths.values()} == {0}
    assert exact(clone) < 1e-12


class Meeting(nn.Module):
    """A hidden state that is summed up, so that its pads hold 0, and of which a function that is not 0 at 0 is read."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.columns = nn.Embedding(7, WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        return x.sum(-1, keepdim=True) + self.columns(x.sigmoid())


def test_columns_that_meet_something_else_than_0_are_0() -> None:
    clone = widened(Meeting(), embed=WIDER)
    assert exact(clone) < 1e-12
    assert not clone.state_dict()["columns.weight"][:, WIDTH:].any()


class Rectified(nn.Module):
    """Layers with nothing between them but a function whose slope at 0 is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(7, WIDTH), nn.Linear(WIDTH, 9), nn.Linear(9, 5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.down(self.up(self.embed(ids)).relu())


@pytest.mark.parametrize(
    "make", [lambda: Stream(NORMS["LayerNorm"]), lambda: Stream(NORMS["RMSNorm"]), Scaled, Rectified]
)
def test_all_that_is_fresh_has_a_gradient_at_the_second_step(make: Callable[[], nn.Module]) -> None:
    source = randomise(make()).eval()
    ids = torch.randint(0, 7, (32, 3))
    clone = gc.clone(source, (ids,), widen=2, strategy="fresh")
    assert exact(clone) < 1e-12
    wide = clone.module()
    optimizer = torch.optim.SGD(wide.parameters(), 0.01)
    for _ in range(2):
        optimizer.zero_grad()
        wide(ids).square().sum().backward()
        optimizer.step()
    for name, parameter in wide.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        for axis, size in enumerate(source.get_parameter(name).shape):
            added = parameter.grad.narrow(axis, size, parameter.shape[axis] - size)
            assert not added.numel() or added.any(), f"axis {axis} of {name}"


def test_what_is_fresh_repeats_nothing() -> None:
    weights = widened(Rectified(), up=18).state_dict()
    clone = gc.clone(randomise(Rectified()).eval(), (torch.randint(0, 7, (2, 3)),), widen=2, strategy="fresh")
    fresh = clone.state_dict()["up.weight"]
    assert torch.equal(weights["up.weight"][:9], weights["up.weight"][9:])
    assert len(fresh.unique()) == 2 * 9 * WIDTH + 1  # the old ones, new rows, and the 0 of new columns


def test_a_reason_against_fresh_names_the_node() -> None:
    with pytest.raises(
        GraphcloneError, match=r"by what is new alone: aten.layer_norm.default .*takes? a strategy that"
    ):
        gc.clone(
            randomise(Stream(NORMS["LayerNorm"], after=True)).eval(),
            (torch.randint(0, 7, (2, 3)),),
            widen=2,
            strategy="fresh",
        )


class Halves(nn.Module):
    """A hidden state cut into parts, one of which is normed."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.norm = nn.Linear(5, 20), nn.RMSNorm(WIDTH)
        self.left, self.right = nn.Linear(WIDTH, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.both(x).split([WIDTH, 8], -1)
        return self.left(self.norm(a)) + self.right(b)


def test_a_part_of_what_is_cut_may_have_pads() -> None:
    x = torch.randn(4, 5)
    clone = gc.clone(randomise(Halves()).eval(), (x,), sizes={"both": WIDER})
    assert any(growth.pads for growth in clone.state.growths.values())
    assert run_lockstep(clone.state, [x]).worst < 1e-12


class Gated(nn.Module):
    """What is normed is a product, of whose factors the first repeats what is not 0."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.norm = nn.Linear(5, 1), nn.Linear(5, WIDTH), nn.RMSNorm(WIDTH)
        self.down = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.norm(self.gate(x).sigmoid().repeat_interleave(WIDTH, -1) * self.up(x)))


def test_of_a_product_the_factor_is_0_that_can_be() -> None:
    x = torch.randn(4, 5)
    clone = gc.clone(randomise(Gated()).eval(), (x,), sizes={"up": WIDER})
    assert run_lockstep(clone.state, [x]).worst < 1e-12


class Messages(nn.Module):
    """What is normed is gathered from neighbours, by an index that is as large as what they say."""

    def __init__(self) -> None:
        super().__init__()
        self.says, self.down = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor, to: Tensor) -> Tensor:
        said = self.says(x)
        heard = said.new_zeros(3, WIDTH).scatter_add(0, to[:, None].expand_as(said), said)
        return self.down(nn.functional.normalize(heard, dim=-1))


def test_an_index_needs_no_zeros() -> None:
    inputs = (torch.randn(4, 5), torch.tensor([0, 2, 1, 0]))
    clone = gc.clone(randomise(Messages()).eval(), inputs, sizes={"says": WIDER})
    assert any(growth.pads for growth in clone.state.growths.values())
    assert run_lockstep(clone.state, list(inputs)).worst < 1e-12


class Spectral(nn.Module):
    """A stream that a weight of complex numbers mixes, as in Fourier neural operators."""

    def __init__(self, norm: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.into, self.out, self.first, self.last = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 2), norm(), norm()
        self.modes = nn.Parameter(torch.randn(WIDTH, WIDTH, 5, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        h = self.into(x)
        spectrum = torch.fft.rfft(self.first(h), dim=1)[:, :5]
        h = h + torch.fft.irfft(torch.einsum("bmi,iom->bmo", spectrum, self.modes), n=16, dim=1)
        y: Tensor = self.out(self.last(h))
        return y


@pytest.mark.parametrize("strategy", ["noisy-diagonal", "fresh"])
@pytest.mark.parametrize("norm", [partial(nn.RMSNorm, WIDTH), partial(nn.LayerNorm, WIDTH)], ids=["RMS", "layer"])
def test_complex_weights_have_pads(norm: Callable[[], nn.Module], strategy: str, tmp_path: Path) -> None:
    model, x = randomise(Spectral(norm)).eval(), torch.randn(2, 16, 3)
    clone = gc.clone(model, (x,), sizes={"hidden": WIDER}, strategy=strategy)
    wide = clone.module()
    torch.testing.assert_close(wide(x), model(x), rtol=1e-4, atol=1e-4)
    assert wide.get_parameter("modes").shape == (WIDER, WIDER, 5)
    clone.save(tmp_path / "wide.safetensors")
    for name, tensor in load_file(tmp_path / "wide.safetensors").items():
        torch.testing.assert_close(tensor, wide.state_dict()[name], rtol=0, atol=0)


class Half(nn.Module):
    """Takes half of the mean away, which leaves pads that hold the mean half of it."""

    def __init__(self, by: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.into, self.norm, self.out, self.by = nn.Linear(6, 8), nn.RMSNorm(8, eps=1e-2), nn.Linear(8, 3), by

    def forward(self, x: Tensor) -> Tensor:
        h = self.into(x)
        y: Tensor = self.out(self.norm(self.by(h, h.mean(-1, keepdim=True))))
        return y


@pytest.mark.parametrize(
    "by", [lambda h, m: torch.sub(h, m, alpha=0.5), lambda h, m: torch.rsub(h, m, alpha=2)], ids=["sub", "rsub"]
)
@pytest.mark.parametrize("strategy", ["symmetric", "fresh"])
def test_a_difference_from_a_multiple_of_the_mean_is_none_from_the_mean(
    by: Callable[[Tensor, Tensor], Tensor], strategy: str
) -> None:
    model, x = randomise(Half(by)).double().eval(), torch.randn(5, 6, dtype=torch.float64)
    with suppress(GraphcloneError):  # it need not grow
        torch.testing.assert_close(gc.clone(model, (x,), sizes={"into": 12}, strategy=strategy).module()(x), model(x))


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_gradients_of_distances_are_those_of_the_source(p: float) -> None:
    """Of the greatest difference each copy would get all."""

    class Distances(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.into, self.out = nn.Linear(6, 4), nn.Linear(4, 8), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.into(torch.tanh(self.inner(x)))
            y: Tensor = self.out(torch.cdist(h, h[:3] + 1, p=p))
            return y

    model, x = randomise(Distances()).double().eval(), torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    wide = gc.clone(model, (x.detach(),), widen=2).module()
    slopes = [torch.autograd.grad(module(x).square().sum(), x)[0] for module in (model, wide)]
    torch.testing.assert_close(*slopes)


def test_a_bag_of_rows_may_have_pads_though_it_returns_more_than_its_sums() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows, self.out = nn.EmbeddingBag(20, 8, mode="sum"), nn.Linear(8, 3)

        def forward(self, rows: Tensor, starts: Tensor) -> Tensor:
            return self.out(torch.tanh(self.rows(rows, starts)))

    model, given = randomise(Bag()).eval(), (torch.arange(9), torch.tensor([0, 3, 7]))
    wide = gc.clone(model, given, widen=2, strategy="fresh").module()
    torch.testing.assert_close(wide(*given), model(*given))
