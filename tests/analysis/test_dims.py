"""What dims are called, how they are grouped, and which grow by default."""

from __future__ import annotations

import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

import graphclone as gc
from graphclone.algebra.axes import Cause
from graphclone.clones.traced import Traced
from graphclone.passes import analysis
from graphclone.pipeline.runner import run
from graphclone.pipeline.state import State
from tests.support.onnx_graphs import drawn, graph_of
from tests.support.zoo import ZOO


def groups(name: str) -> dict[str, tuple[int, int, bool]]:
    """Size, count and default of every free group of a zoo model."""
    built = ZOO[name].build()
    found = gc.trace(built.module, built.args, built.kwargs).dims
    return {group.name: (group.size, len(group.dims), group.default) for group in found if group.pin is None}


def test_a_decoder() -> None:
    assert groups("opt") == {
        "hidden": (40, 1, True),
        "layers.*.self_attn.heads": (5, 2, True),
        "layers.*.self_attn.head_dim": (8, 2, False),
        "layers.*.self_attn.v_head_dim": (8, 2, False),
        "layers.*.fc1": (52, 2, True),
    }


def test_grouped_queries_grow_by_their_key_heads() -> None:
    found = groups("llama-gqa")
    by_default = {name: size for name, (size, _, default) in found.items() if default}
    others = {size for size, _, default in found.values() if not default}
    assert sorted(by_default.values()) == [5, 88, 120]
    assert others == {3, 4, 8}  # the group, half a rotary head, the width of a value head


def test_a_plain_sequence_is_named_by_position() -> None:
    module = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 3))
    found = gc.trace(module.eval(), (torch.randn(4, 5),)).dims
    assert [group.name for group in found if group.pin is None] == ["0", "2"]


@pytest.mark.parametrize("pattern", ["layers.*.fc", "layers.1.fc", "layers.?.fc"])
def test_names_and_patterns_select_layers(pattern: str) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.back = nn.Linear(6, 10), nn.Linear(10, 6)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.back(torch.tanh(self.fc(x)))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(Block(), Block())

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    made = gc.clone(Net().eval(), (torch.randn(3, 6),), widen={pattern: 3})
    widths = [made.state_dict()[f"layers.{i}.fc.weight"].shape[0] for i in (0, 1)]
    assert widths == ([10, 30] if "1" in pattern else [30, 30])


def test_an_unread_parameter_stays() -> None:
    class Spare(nn.Linear):
        def __init__(self) -> None:
            super().__init__(5, 3)
            self.spare = nn.Parameter(torch.randn(9))
            self.hidden = nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.tanh(self.hidden(torch.tanh(self.hidden.weight.sum() + x))))

    found = gc.trace(Spare().eval(), (torch.randn(4, 5),)).dims
    (spare,) = [group for group in found if group.size == 9]
    assert spare.pin is not None
    assert spare.pin.text == "nothing reads it"


class Positions(nn.Module):
    """A table with rows for longer texts, and a product of which one factor is read in part elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(9, 5))
        self.left, self.right = nn.Parameter(torch.randn(5, 6)), nn.Parameter(torch.randn(6, 5))
        self.aside = nn.Parameter(torch.randn(4, 5))

    def forward(self, x: Tensor) -> Tensor:
        rows = nn.functional.dropout(self.rows, training=False).unsqueeze(0)
        x = (x + rows[:, : x.shape[1]]) @ (self.left @ self.right)
        return x + (torch.tanh(x @ self.left[:, :4]) @ self.aside)


def test_rows_that_are_left_out_stay() -> None:
    """Parts that a product sums over are not left out, though nothing has them any more."""
    found = {group.size: group.pin for group in gc.trace(Positions().eval(), (torch.randn(4, 3, 5),)).dims}
    assert (found[4], found[2]) == (None, None)
    assert found[6] is not None
    assert found[6].kind is Cause.UNREAD


# What tells dims of one module apart


def sizes(module: nn.Module, x: Tensor) -> dict[str, int]:
    return {group.name: group.size for group in gc.trace(module.eval(), (x,)).dims}


class Recurrent(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(5, 8, layers, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.lstm(x)[0])
        return y


def test_dims_of_recurrent_layers_are_told_apart_by_parameter_and_axis() -> None:
    x = torch.randn(3, 7, 5)
    assert sizes(Recurrent(1), x) == {"lstm": 4, "hidden": 8, "lstm.in": 5, "head": 3}
    gates = {"lstm": 4, "lstm.weight_ih_l1.out1": 4}
    assert sizes(Recurrent(2), x) == {**gates, "hidden": 8, "lstm.weight_ih_l0.in": 5, "head": 3}


class Batched(nn.Module):
    """Experts as matrices side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up, self.down = nn.Parameter(torch.randn(4, 12, 20)), nn.Parameter(torch.randn(4, 10, 12))

    def forward(self, x: Tensor) -> Tensor:
        gate, up = torch.einsum("bi,eio->beo", x, self.gate_up).chunk(2, -1)
        return torch.einsum("bei,eio->beo", gate.sigmoid() * up, self.down).mean(1)


class Separate(nn.Module):
    """Experts as modules."""

    def __init__(self) -> None:
        super().__init__()
        self.modules_ = nn.ModuleList(nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 12)) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([expert(x) for expert in self.modules_], 1).mean(1)


class Mixture(nn.Module):
    def __init__(self, make: type[nn.Module]) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(5, 12), nn.Linear(12, 3)
        self.layers = nn.ModuleList(nn.ModuleDict({"experts": make()}) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = x + layer["experts"](x)  # type: ignore[index]
        y: Tensor = self.head(x)
        return y


def test_dims_of_experts_are_told_apart_by_parameter() -> None:
    x = torch.randn(7, 5)
    found = sizes(Mixture(Batched), x)
    assert found == {"hidden": 12, "embed": 5, "layers.*.experts": 4, "layers.*.experts.down": 10, "head": 3}
    found = sizes(Mixture(Separate), x)
    assert found == {"hidden": 12, "embed": 5, "layers.*.experts.modules_.*.0": 10, "head": 3}
    wide = gc.clone(Mixture(Batched).eval(), (x,), widen={"layers.*.experts.down": 3}).state_dict()
    assert wide["layers.1.experts.down"].shape == (4, 30, 12)
    wide = gc.clone(Mixture(Batched).eval(), (x,), widen={"layers.*.experts": 3}).state_dict()
    assert wide["layers.1.experts.down"].shape == (12, 10, 12)


@pytest.mark.parametrize("pattern", ["layers.*.experts#2", "layers.*.experts#*", "layers.*.experts.d*"])
def test_a_number_in_place_of_what_tells_dims_apart_is_understood(pattern: str) -> None:
    made = gc.clone(Mixture(Batched).eval(), (torch.randn(7, 5),), widen={pattern: 3})
    assert made.state_dict()["layers.1.experts.down"].shape == (4, 30, 12)


def test_factors_of_one_axis_are_told_apart_by_their_order() -> None:
    found = groups("gemma2")
    heads = ("layers.*.self_attn.q_proj", "layers.*.self_attn.q_proj.out2")
    assert [found[name] for name in heads] == [(5, 2, True), (3, 2, False)]


def test_no_name_ends_with_a_number_of_its_own() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.up = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.up(torch.relu(self.conv(x)))
            return y

    found = sizes(Net(), torch.randn(2, 3, 9, 9))
    assert found == {"conv": 8, "conv.in": 3, "conv.axis2": 3, "conv.axis3": 3, "up": 6, "up.axis2": 3, "up.axis3": 3}


def paths(prefix: str, ending: str, named: bool) -> list[str]:
    """The names of the dims of dense layers whose weights, and nodes or not, are named by their places."""
    nodes, weights, last, size = [], [], "x", 5
    for number, (place, width) in enumerate((("dense", 12), ("block/query", 14), ("block/out", 13), ("dense_1", 3))):
        at = f"{prefix}{place}"
        kernel, bias = f"{at}/MatMul{ending}", f"{at}/BiasAdd{ending}"
        weights.append(onnx.numpy_helper.from_array(drawn(kernel, (size, width)), kernel))
        weights.append(onnx.numpy_helper.from_array(drawn(bias, (width,)), bias))
        for op, inputs, name in (("MatMul", [last, kernel], "MatMul"), ("Add", [f"{at}:MatMul", bias], "BiasAdd")):
            nodes.append(helper.make_node(op, inputs, [f"{at}:{name}"], name=f"{at}/{name}" if named else ""))
        nodes.append(helper.make_node("Tanh", [f"{at}:BiasAdd"], [f"{at}:Tanh"], name=f"n{number}"))
        last, size = f"{at}:Tanh", width
    ends = [helper.make_tensor_value_info(*end) for end in (("x", 1, [2, 5]), (last, 1, [2, 3]))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    state = State(graph_of(model))
    return [group.name for group in Traced(state, run(analysis(), state)).dims]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("ending", ["/ReadVariableOp:0", "", "/a/b"])
@pytest.mark.parametrize("prefix", ["Call/model/", "", "tower/"])
def test_what_all_paths_have_in_common_is_left_out(prefix: str, ending: str, named: bool) -> None:
    assert paths(prefix, ending, named) == ["dense.in", "dense", "block", "block.out", "dense_1"]


class Transposed(nn.Module):
    """Channels in two factors, which one weight knows in one order and another in the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).sigmoid().unflatten(1, (2, 3)).transpose(1, 2).flatten(1))


def test_of_factors_that_change_places_the_first_grows() -> None:
    found = gc.trace(Transposed().eval(), (torch.randn(7, 5),)).dims
    assert [(group.size, group.default) for group in found if group.pin is None] == [(2, True), (3, False)]


class Joined(nn.Module):
    """Two hidden states side by side, in groups of which one has members of both: 15 + 9 = 4 * 6, 15 = 2 * 6 + 3."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(5, 15), nn.Linear(5, 9)
        self.groups, self.last = nn.Conv1d(24, 8, 1, groups=4), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.left(x), self.right(x)], 1)
        return self.last(self.groups(joined.sigmoid().unsqueeze(2)).flatten(1).sigmoid())


def test_where_groups_can_only_grow_in_part_their_channels_grow() -> None:
    clone = gc.clone(Joined().eval(), (torch.randn(7, 5),), widen=3)
    shapes = {name: tuple(weight.shape) for name, weight in clone.state_dict().items() if name.endswith("weight")}
    assert shapes["left.weight"] == (45, 5) and shapes["right.weight"] == (27, 5)
    assert shapes["groups.weight"] == (24, 18, 1)
    assert clone.verify().ok


class FusedMultiQuery(nn.Module):
    """Four heads of queries, one of keys and one of values, in one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(7, 30), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (6, 5)).transpose(1, 2).split([4, 1, 1], 1)
        scores = (q @ k.transpose(-1, -2)).softmax(-1)
        return self.out((scores @ v).transpose(1, 2).flatten(2))


def test_heads_of_which_one_serves_all_grow_as_others_do() -> None:
    clone = gc.clone(FusedMultiQuery().eval(), (torch.randn(2, 3, 7),), widen=2)
    assert clone.state_dict()["qkv.weight"].shape == (50, 7)
    assert clone.verify().ok


class Flat(nn.Module):
    """Every matrix is stored as one row of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = (4, 8, 6, 10, 3)
        pairs = zip(self.sizes, self.sizes[1:], strict=False)
        self.weights = nn.ParameterList([torch.randn(rows * columns) for rows, columns in pairs])

    def forward(self, x: Tensor) -> Tensor:
        for weight, rows, columns in zip(self.weights, self.sizes, self.sizes[1:], strict=False):
            x = torch.sigmoid(x @ weight.view(rows, columns))
        return x


def test_both_sides_of_a_flat_matrix_grow() -> None:
    clone = gc.clone(Flat().eval(), (torch.randn(7, 4),), widen=2)
    weights = [tensor.numel() for tensor in clone.state_dict().values()]
    assert weights == [4 * 16, 16 * 12, 12 * 20, 20 * 3]
    assert clone.verify(onnx=False).ok
