"""Tracing: names, sizes, shared and folded tensors, regions, in-place writes, and what to do when export refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from graphclone.formats.torch.example_inputs import with_fresh_sizes
from graphclone.formats.torch.reader import trace_module
from graphclone.graph.invariants import check_graph
from graphclone.graph.ir import Graph
from graphclone.passes import Canonicalize
from graphclone.pipeline.state import State
from graphclone.verification.lockstep import run_lockstep


def graph_of(module: nn.Module, *inputs: Tensor) -> Graph:
    graph = trace_module(module.eval(), inputs)
    check_graph(graph)
    return graph


def exact_clone(module: nn.Module, *inputs: Tensor) -> Any:
    made = gc.clone(module.eval(), inputs)
    check_graph(made.graph)
    result = run_lockstep(made.state, inputs)
    assert result.first is None, str(result.first)
    return made


class Hidden(nn.Module):
    """5 -> 24 -> something -> 7."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(5, 24), nn.Linear(24, 7)

    def middle(self, h: Tensor) -> Tensor:
        return torch.tanh(h)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x)))


X = torch.randn(3, 5)


def test_batches_are_dynamic_and_sizes_coincide_with_no_width() -> None:
    graph = graph_of(Hidden(), torch.randn(24, 5))
    (value,) = graph.inputs
    assert set(value.dynamic) == {0}
    assert value.shape is not None and value.shape[0] not in (5, 24, 7)
    assert not graph.notes


def test_integer_inputs_are_dynamic_in_every_axis() -> None:
    module = nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 3))
    (value,) = graph_of(module, torch.randint(0, 11, (2, 4))).inputs
    assert set(value.dynamic) == {0, 1}


def test_what_a_mask_chooses_may_be_dealt_out_to_a_batch() -> None:
    class Dealt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            chosen = self.first(x)[mask, :].view(x.shape[0], -1, 6)
            return self.last(torch.tanh(chosen)).sum(1)

    x, mask = torch.randn(3, 4, 4), torch.tensor([True, False, True, False]).expand(3, 4)
    clone = gc.clone(Dealt().eval(), (x, mask), widen=2)
    assert [leaf.size for leaf in clone.state.growths if clone.state.growths[leaf].grows] == [6]
    assert clone.verify().ok


def test_what_data_leave_over_has_a_size() -> None:
    """As many rows as are said, and the rest filled up: more than there are stand for them while the graph is read."""

    class Filled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor, count: Tensor) -> Tensor:
            number = int(count.sum().item())
            torch._check(number >= 0)
            torch._check(number <= 12)
            rest = x.new_zeros(12 - number, 6)
            return self.last(torch.tanh(self.first(x)).sum(0) + rest.sum(0) + rest.shape[0])

    clone = gc.clone(Filled().eval(), (torch.randn(5, 4), torch.tensor([2, 3])), widen=2)
    assert all(size >= 0 for node in clone.graph.nodes for value in node.outputs for size in value.shape or ())
    assert clone.verify().ok


class Masked(nn.Module):
    """Tokens, a mask of floats over them, and numbers of another kind."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.table, self.numbers = nn.Embedding(11, 8), nn.Linear(numbers, 8)

    def forward(self, tokens: Tensor, mask: Tensor, numbers: Tensor) -> Tensor:
        return (self.table(tokens) * mask[..., None]).sum(1) + self.numbers(numbers)


def test_a_mask_of_floats_has_the_length_of_its_tokens() -> None:
    inputs = (torch.randint(0, 11, (2, 6)), torch.ones(2, 6), torch.randn(2, 4))
    tokens, mask, numbers = graph_of(Masked(4), *inputs).inputs
    assert set(tokens.dynamic) == set(mask.dynamic) == {0, 1}
    assert tokens.dynamic == mask.dynamic
    assert set(numbers.dynamic) == {0}


def test_a_mask_of_floats_has_the_length_of_its_sequence() -> None:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return self.last((torch.tanh(self.first(x)) * mask[..., None]).sum(1))

    x, mask = graph_of(Sequence(), torch.randn(2, 7, 4), torch.ones(2, 7)).inputs
    assert x.dynamic == mask.dynamic
    assert set(x.dynamic) == {0, 1}


def test_floats_whose_size_is_that_of_the_tokens_by_chance_stay_as_they_are() -> None:
    """They are told from a mask that has this size too; what was tried is no reason for what is static."""
    graph = graph_of(Masked(6), torch.randint(0, 11, (2, 6)), torch.ones(2, 6), torch.randn(2, 6))
    tokens, mask, numbers = graph.inputs
    assert [set(value.dynamic) for value in (tokens, mask, numbers)] == [{0, 1}, {0, 1}, {0}]
    assert not any("static" in note for note in graph.notes)


def test_fresh_sizes_keep_equal_sizes_equal() -> None:
    a, b = with_fresh_sizes((torch.zeros(4, 8, dtype=torch.long), torch.ones(4, 8, dtype=torch.long)), {8, 4})
    assert a.shape == b.shape == (3, 7)
    (c,) = with_fresh_sizes((torch.arange(4),), {3, 2})
    assert c.tolist() == [0, 1, 2, 3, 0]


def test_a_static_model_is_traced_statically_and_says_so() -> None:
    class Static(Hidden):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[0] != 3:
                raise ValueError("a batch of 3, please")
            return super().forward(x)

    graph = graph_of(Static(), X)
    assert not graph.inputs[0].dynamic
    assert graph.notes == ["traced with static sizes: x axis 0 = 3"]


def test_what_cannot_be_exported_is_refused_in_one_line() -> None:
    class Branch(Hidden):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(gc.GraphcloneError) as refusal:
        trace_module(Branch().eval(), (X,))
    assert str(refusal.value).startswith("Branch: torch.export failed at test_reader.py:")
    assert "\n" not in str(refusal.value)


def test_inputs_that_the_module_itself_refuses_are_not_called_a_failure_of_torch_export() -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    reason = "RuntimeError: mat1 and mat2 shapes cannot be multiplied"
    message = rf"^Sequential: refuses these example inputs, even without a trace: {reason} \(2x15 and 16x32\)$"
    with pytest.raises(gc.GraphcloneError, match=message):
        trace_module(model, (torch.zeros(2, 15),))


class Opaque:
    """What torch's trees do not know."""


class Remembering(nn.Module):
    """Returns something beside its result."""

    def forward(self, x: Tensor) -> tuple[Tensor, Opaque]:
        return x + 1, Opaque()


def test_a_result_that_is_no_tensor_is_named() -> None:
    with pytest.raises(gc.GraphcloneError, match=r"returns a Opaque, .* use_cache=False is among the inputs"):
        gc.trace(Remembering(), (torch.zeros(3),))


def test_named_outputs() -> None:
    class Two(Hidden):
        def forward(self, x: Tensor) -> Any:
            h = self.first(x)
            return {"hidden": h, "rest": [self.last(h), None]}

    assert [output.name for output in graph_of(Two(), X).outputs] == ["hidden", "rest.0", "rest.1"]


def test_tied_names_share_one_initializer() -> None:
    class Tied(Hidden):
        def __init__(self) -> None:
            super().__init__()
            self.again = self.first

    names = [initializer.names for initializer in graph_of(Tied(), X).initializers]
    assert ("first.weight", "again.weight") in names
    made = exact_clone(Tied(), X)
    module = made.module()
    assert module.again.weight is module.first.weight
    assert module.state_dict().keys() == Tied().state_dict().keys()


def test_constants_are_folded_and_grow() -> None:
    class Table(Hidden):
        def middle(self, h: Tensor) -> Tensor:
            return torch.tanh(h * torch.arange(24).float().cos())

    graph = graph_of(Table(), X)
    Canonicalize()(State(graph))
    assert [i.kind for i in graph.initializers].count("constant") == 1
    assert not any("arange" in node.op or "cos" in node.op for node in graph.nodes)
    made = exact_clone(Table(), X)
    assert made.state_dict()["first.weight"].shape == (48, 5)
    assert made.module().state_dict().keys() == Table().state_dict().keys()


def test_buffers_that_are_not_saved_and_lifted_constants_grow_and_stay_unsaved() -> None:
    class Buffers(Hidden):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.rand(24), persistent=False)
            self.register_buffer("kept", torch.rand(24))

        def middle(self, h: Tensor) -> Tensor:
            return torch.tanh(h * self.table * self.kept + torch.tensor([0.25] * 24))

    made = exact_clone(Buffers(), X)
    assert made.state_dict()["kept"].shape == (48,)
    assert "table" not in made.state_dict()
    module = made.module()
    assert module.state_dict().keys() == Buffers().state_dict().keys()
    torch.testing.assert_close(module(X), Buffers()(X) * 0 + module(X))


def test_regions_are_inlined() -> None:
    class Regions(Hidden):
        def middle(self, h: Tensor) -> Tensor:
            with torch.no_grad():
                scale = h.abs().mean(-1, keepdim=True)
            with torch.autocast("cpu", enabled=False):
                return torch.tanh(h * scale)

    graph = graph_of(Regions(), X)
    assert not any(node.op.startswith("hop.") for node in graph.nodes)
    assert exact_clone(Regions(), X).state_dict()["first.weight"].shape == (48, 5)


def test_in_place_writes() -> None:
    class InPlace(Hidden):
        def middle(self, h: Tensor) -> Tensor:
            total = torch.zeros(h.shape[0], 24)
            total += h
            total[:, :8] *= 2
            total[:, 8:16].copy_(h[:, 16:])
            return torch.relu_(total).add_(h)

    made = exact_clone(InPlace(), X)
    assert made.state_dict()["first.weight"].shape == (48, 5)
    torch.testing.assert_close(made.module()(X), InPlace()(X))


def test_batch_norm_in_training_mode_is_refused() -> None:
    class Norm(Hidden):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(24)

        def middle(self, h: Tensor) -> Tensor:
            return self.norm(h)

    with pytest.raises(gc.GraphcloneError, match=r"eval mode|training mode"):
        gc.clone(Norm().train(), (X,))


def test_a_computed_size_follows_the_heads_in_it() -> None:
    """Batch times heads is one dynamic axis; its heads still grow."""

    class Merged(Hidden):
        def middle(self, h: Tensor) -> Tensor:
            merged = h.view(h.shape[0] * 4, 6)
            return torch.tanh(merged).view(h.shape[0], 24)

    assert exact_clone(Merged(), X).state_dict()["first.weight"].shape == (48, 5)


def test_a_size_read_off_a_widened_axis_pins_it() -> None:
    class Reads(Hidden):
        def middle(self, h: Tensor) -> Tensor:
            return torch.tanh(h) / h.shape[-1]

    made = exact_clone(Reads(), X)
    assert made.state_dict()["first.weight"].shape == (48, 5)


def test_fake_parameters_are_traced_without_memory() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        module = nn.Sequential(nn.Linear(5, 1 << 20), nn.Linear(1 << 20, 7)).eval()
        x = torch.zeros(3, 5)
    made = gc.clone(module, (x,))
    assert {recipe.shape for recipe in made.state.recipes.values()} >= {(1 << 21, 5), (7, 1 << 21)}


def test_a_write_further_down_leaves_spellings_further_up_alone() -> None:
    class Gated(Hidden):
        def middle(self, h: Tensor) -> Tensor:
            gate, up = torch.tanh(h).chunk(2, -1)
            total = torch.zeros(h.shape[0], 12)
            total.copy_(gate * up)
            return torch.cat([total, total.relu_()], -1)

    made = exact_clone(Gated(), X)
    assert not any(node.op == "aten.chunk.default" for node in made.graph.nodes)
    assert made.state_dict()["first.weight"].shape == (48, 5)


class _Table(nn.Module):
    """5 -> 24, times a constant table."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.first = nn.Linear(5, 24)
        self.register_buffer("table", table)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sparse.mm(self.table, self.first(x).T)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("form", [Tensor.to_sparse, Tensor.to_sparse_csr])
def test_sparse_weights_are_refused_by_name(form: Any) -> None:
    with pytest.raises(gc.GraphcloneError, match=r"^_Table: table is sparse \(torch.sparse_.*to_dense\(\) makes it"):
        gc.clone(_Table(form(torch.eye(3, 24))), (X,))


def test_a_wrapped_or_sharded_module_is_refused_by_what_to_give() -> None:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(Hidden())
        with pytest.raises(gc.GraphcloneError, match="give the module inside of DistributedDataParallel"):
            gc.clone(wrapped, (X,))
        sharded = torch.distributed.fsdp.fully_shard(Hidden())
        with pytest.raises(gc.GraphcloneError, match=r"first.weight is sharded; clone the whole module"):
            gc.clone(sharded, (X,))
    finally:
        torch.distributed.destroy_process_group()


def test_the_reason_is_that_of_the_least_that_was_asked() -> None:
    """What fails with other sizes says nothing of what fails with those that were given."""

    class Counted(Hidden):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[0] != 3:
                raise ValueError("three rows")
            return super().forward(x) * sum(range(int(x.abs().sum())))

    with pytest.raises(gc.GraphcloneError, match="depends on numbers that it has computed"):
        gc.clone(Counted(), (X,))
