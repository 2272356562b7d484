"""Whole numbers that are summed up and told apart: shares of them are rounded, and 7 becomes 6."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

import graphclone as gc

BITS = 5
TOKENS = 11


class Model(nn.Module):
    """A number of bits is read off a dim, and looked up; another dim may always grow."""

    def __init__(self, number: Callable[[Model, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.bits = nn.Embedding(TOKENS, 16), nn.Linear(16, BITS)
        self.table, self.last = nn.Embedding(2**BITS + 1, 16), nn.Linear(16, 4)
        self.number = number
        self.register_buffer("powers", 2.0 ** torch.arange(BITS))
        self.register_buffer("any_numbers", torch.randn(BITS))
        self.fixed = nn.Parameter(2.0 ** torch.arange(BITS))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.tokens(x))
        return self.last(self.table(self.number(self, self.bits(h))) + h)


COUNTED: dict[str, Callable[[Model, Tensor], Tensor]] = {
    "a product with a buffer": lambda m, b: ((b > 0).to(b.dtype) @ m.powers).long(),
    "a product with fixed numbers that might train": lambda m, b: ((b > 0).to(b.dtype) @ m.fixed).long(),
    "a sum": lambda m, b: (b > 0).to(b.dtype).sum(-1).long(),
    "a mean": lambda m, b: ((b > 0).to(b.dtype).mean(-1) >= 0.4).long(),
    "rounded first": lambda m, b: ((b.tanh().round() + 1) * m.powers).sum(-1).to(torch.int32) % 32,
    "signs": lambda m, b: (((b.sign() + 1) / 2) * m.powers).sum(-1).floor().long(),
    "cut before": lambda m, b: ((b.clamp(-0.9, 0.9) + 1).floor() * m.powers).sum(-1).long(),
    "in another shape": lambda m, b: ((b > 0).to(b.dtype)[..., None, :] @ m.powers[:, None])[..., 0, 0].long(),
    "equal": lambda m, b: ((b > 0).to(b.dtype).sum(-1) == 3).long(),
    "clamped": lambda m, b: ((b * 1e9).clamp(0, 1) @ m.powers).long(),
    "clamped by a tensor": lambda m, b: (torch.minimum((b * 1e9).relu(), torch.ones_like(b)) @ m.powers).long(),
    "chosen where a number is great": lambda m, b: (b.relu().masked_fill(b > 0, 1.0) @ m.powers).long(),
    "saturated": lambda m, b: ((b * 1e9).sigmoid() @ m.powers).long(),
    "saturated, and averaged": lambda m, b: (((b * 1e9).tanh().mean(-1) + 1) * 15 + 0.5).floor().long(),
    "shared out": lambda m, b: ((b * 1e9).softmax(-1) @ m.powers).long(),
    "rounded by what is missing": lambda m, b: ((b + (b.round() - b).detach()).clamp(0, 1) @ m.powers).long(),
    "less what is too much": lambda m, b: (((c := b.clamp(-0.9, 0.9) + 1) - c % 1) @ m.powers).long(),
    "with no slope but the number's": lambda m, b: (b - b.detach() + (b > 0).to(b.dtype)).mul(m.powers).sum(-1).long(),
}

FREE: dict[str, Callable[[Model, Tensor], Tensor]] = {
    "numbers that depend on weights": lambda m, b: (b @ m.powers).sigmoid().round().long(),
    "numbers that nobody chose": lambda m, b: ((b > 0).to(b.dtype) @ m.any_numbers > 0.1).long(),
    "what is left of them": lambda m, b: (b.frac() @ m.powers > 0.1).long(),
    "beside numbers that depend on weights": lambda m, b: ((b > 0).to(b.dtype).sum(-1) > b.amax(-1) * 7).long(),
    "added to them": lambda m, b: ((b + (b > 0).to(b.dtype)).sum(-1) > 1.3).long(),
    "twice such a number": lambda m, b: ((b + b) @ m.powers).sigmoid().round().long(),
    "cut off at 0": lambda m, b: (b.relu() @ m.powers > 7).long(),
    "the greatest": lambda m, b: (b > 0).to(b.dtype).amax(-1).long(),
    "not told apart": lambda m, b: torch.sigmoid((b > 0).to(b.dtype).sum(-1) - b.sum(-1)).round().long(),
}


@pytest.mark.parametrize("name", COUNTED)
def test_what_is_counted_keeps_its_size(name: str) -> None:
    model, x = Model(COUNTED[name]).double().eval(), torch.randint(TOKENS, (2, 40))
    made = gc.clone(model, (x,), widen=3, strategy="noisy-diagonal")
    assert made.state_dict()["bits.weight"].shape == (BITS, 48)
    (pin,) = (str(dim.pin) for dim in made.dims if dim.name == "bits")
    assert pin.startswith("whole numbers are summed up, and ")
    torch.testing.assert_close(made.module()(x), model(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FREE)
def test_what_comes_near_a_step_by_accident_only_may_grow(name: str) -> None:
    model, x = Model(FREE[name]).double().eval(), torch.randint(TOKENS, (2, 40))
    made = gc.clone(model, (x,), widen=3)
    assert made.state_dict()["bits.weight"].shape == (3 * BITS, 48)
    torch.testing.assert_close(made.module()(x), model(x), rtol=1e-12, atol=1e-12)


def test_copies_of_what_is_counted_would_count_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clone that is made without the pin is another model: a bit of 1 is three thirds, and they sum to less."""
    monkeypatch.setattr("graphclone.passes.infer_dims.pin_counts", lambda *_: None)
    model, x = Model(COUNTED["a product with a buffer"]).double().eval(), torch.randint(TOKENS, (2, 40))
    made = gc.clone(model, (x,), widen=3, strategy="noisy-diagonal")
    assert (made.module()(x) - model(x)).abs().max() > 0.1


def test_an_onnx_file_counts_alike(tmp_path) -> None:
    rng = np.random.default_rng(0)
    stored = {
        "bits": rng.standard_normal((6, BITS)).astype(np.float32),
        "powers": (2.0 ** np.arange(BITS)).astype(np.float32),
        "zero": np.zeros((), np.float32),
        "table": rng.standard_normal((2**BITS, 8)).astype(np.float32),
        "last": rng.standard_normal((8, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "bits"], ["b"]),
        helper.make_node("Greater", ["b", "zero"], ["set"]),
        helper.make_node("Cast", ["set"], ["ones"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["ones", "powers"], ["number"]),
        helper.make_node("Cast", ["number"], ["row"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "row"], ["found"]),
        helper.make_node("MatMul", ["found", "last"], ["y"]),
    ]
    ports = [helper.make_tensor_value_info(*port) for port in (("x", 1, ["n", 6]), ("y", 1, ["n", 3]))]
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "counts", ports[:1], ports[1:], tensors)
    path = tmp_path / "counts.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    made = gc.clone(path, widen=3)
    assert made.verify().ok
    (pin,) = (str(dim.pin) for dim in made.dims if dim.size == BITS)
    assert "whole numbers are summed up" in pin
