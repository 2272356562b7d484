"""The measure of rounding: every weight moves by a rounding, wherever it is stored, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import TensorProto, helper, numpy_helper

from graphclone.api import clone
from graphclone.formats.huggingface import verifier as verify_checkpoints
from graphclone.formats.huggingface.reader import open_checkpoint
from graphclone.formats.onnx.drawn_inputs import DrawnInputs
from graphclone.formats.onnx.runs import shaken_runs
from graphclone.formats.torch.example import Example
from graphclone.models.randomise import randomise
from graphclone.runtime.sessions import Session
from graphclone.verification.rounding import SHAKES, ULPS, is_weight, shaken
from tests.support.clones import features, perceptron
from tests.support.onnx_graphs import drawn

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", _DTYPES)
def test_a_weight_moves_by_a_unit_in_its_last_place(dtype: torch.dtype) -> None:
    weight = torch.cat([features(100, 7).reshape(-1), torch.tensor([torch.finfo(dtype).max, float("inf"), 0.0])])
    weight = weight.to(dtype)
    moved = shaken(weight, "w", 0)
    assert moved.dtype == dtype
    off = ((moved.double() - weight.double()) / weight.double()).nan_to_num(0).abs() / torch.finfo(dtype).eps
    assert 0.5 <= off.max() <= ULPS + 0.5  # and what is moved is rounded
    assert (moved != weight).double().mean() > 0.25
    assert torch.equal(moved.isfinite(), weight.isfinite())
    assert torch.equal(moved, shaken(weight, "w", 0))
    assert not torch.equal(moved, shaken(weight, "w", 1))
    assert not torch.equal(moved, shaken(weight, "v", 0))


@pytest.mark.parametrize(
    "tensor", [torch.tensor(0.5), torch.tensor([0.5]), torch.tensor([0.0, 1.0, -2.0]), torch.arange(4), torch.eye(3)]
)
def test_numbers_that_are_exact_stay(tensor: torch.Tensor) -> None:
    assert not is_weight(tensor)
    assert torch.equal(shaken(tensor, "w", 0), tensor)


def test_a_transposed_weight_moves() -> None:
    weight = features(3, 4).T
    assert not torch.equal(shaken(weight, "w", 0), weight)


def stored(how: str, path: Path) -> Path:
    """x (2, 3) times a weight of 6 elements that is stored in one of several ways."""
    weight = numpy_helper.from_array(drawn("w", (3, 2)), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    constant = helper.make_node("Constant", [], ["w"], value=weight)
    if how == "list of floats":
        flat = helper.make_node("Constant", [], ["flat"], value_floats=drawn("w", (6,)).tolist())
        nodes = [
            flat,
            helper.make_node("Constant", [], ["sizes"], value_ints=[3, 2]),
            helper.make_node("Reshape", ["flat", "sizes"], ["w"]),
            *nodes,
        ]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])]
    if how in ("captured", "in a branch", "constant in a branch"):
        first = [constant] if how == "constant in a branch" else []
        inner = [weight] if how == "in a branch" else []
        branches = [helper.make_graph([*first, *nodes], name, [], [y], inner) for name in ("then", "else")]
        nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])]
        inputs.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    elif how == "constant":
        nodes = [constant, *nodes]
    outer = [weight] if how in ("initializer", "captured") else []
    graph = helper.make_graph(nodes, "g", inputs, [y], outer)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    "how", ["initializer", "constant", "list of floats", "captured", "in a branch", "constant in a branch"]
)
def test_a_weight_of_a_file_moves_wherever_it_is_stored(how: str, tmp_path: Path) -> None:
    path = stored(how, tmp_path / "a.onnx")
    (feeds,) = DrawnInputs(Session(path, "cpu")).draw(1, 0)
    (moved,) = shaken_runs(path, tmp_path / "b.onnx", [feeds], "cpu", 0)
    own = Session(path, "cpu").run(feeds)["y"]
    errors = [np.abs(other["y"] - own).max() / np.abs(own).max() for other in moved]
    assert all(0 < error < 1e-6 for error in errors)
    assert not np.array_equal(moved[0]["y"], moved[1]["y"])


def test_what_is_no_weight_of_a_file_stays(tmp_path: Path) -> None:
    """A factor of 2.5 gives other sizes if it is a rounding less, and a negative number has no root."""
    nodes = [
        helper.make_node("Concat", ["ones", "factors"], ["scales"], axis=0),
        helper.make_node("Resize", ["x", "", "scales"], ["a"], mode="nearest"),
        helper.make_node("Pow", ["a", "exponents"], ["y"]),
    ]
    numbers = {"ones": [1, 1], "factors": [2.5, 1.5], "exponents": [2.0, 0.5, 2.0]}
    weights = [numpy_helper.from_array(np.array(v, np.float32), name) for name, v in numbers.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 2, 2])
    graph = helper.make_graph(nodes, "g", [x], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], weights)
    path = tmp_path / "a.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    (feeds,) = DrawnInputs(Session(path, "cpu")).draw(1, 0)
    (moved,) = shaken_runs(path, tmp_path / "b.onnx", [feeds], "cpu", 0)
    own = Session(path, "cpu").run(feeds)["y"]
    assert all(np.array_equal(other["y"], own, equal_nan=True) for other in moved)


def test_captured_tensors_of_a_module_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor that is no parameter is as rounded as one that is."""
    from graphclone.formats.torch import samples

    moved: list[str] = []
    real = samples.shaken
    monkeypatch.setattr(samples, "shaken", lambda t, name, seed: moved.append(name) or real(t, name, seed))

    table = features(6, 10)

    class Captured(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = torch.nn.Linear(10, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.down(torch.tanh(x @ table))
            return y

    made = clone(Captured().eval(), (features(3, 6),))
    sample = next(iter(samples.draw_samples(made.state, Example((features(3, 6),)), 1, 0)))
    assert not moved
    assert 0 < sample.noise[0] < 1e-5
    assert len(moved) == 3 * len(made.state.source.initializers)  # type: ignore[union-attr]
    assert perceptron().verify(onnx=False).ok


def test_weights_of_a_checkpoint_move_from_where_they_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every run moves the weights that are on disk, a shared one once, and what the code computes as well."""
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=71, **sizes, tie_word_embeddings=True)
    model = randomise(transformers.LlamaForCausalLM(config))
    model.save_pretrained(tmp_path / "source")
    found: dict[tuple[str, int], torch.Tensor] = {}

    def recorded(tensor: torch.Tensor, name: str, seed: int, precision: torch.dtype | None) -> torch.Tensor:
        assert (name, seed) not in found
        assert precision is None  # rotary tables are of float32 as it is
        found[name, seed] = tensor.detach().clone()
        return shaken(tensor, name, seed, precision)

    monkeypatch.setattr(verify_checkpoints, "shaken", recorded)
    runs = verify_checkpoints.run_source(open_checkpoint(tmp_path / "source"))
    stored = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert any("inv_freq" in name for name in stored) and "lm_head.weight" not in stored
    assert not found  # until it is asked
    moved = [[other["logits"] for other in run] for run in runs.shaken]
    assert found.keys() == {(name, seed) for name in stored for seed in range(SHAKES)}
    assert all(torch.equal(tensor, stored[name]) for (name, _), tensor in found.items())
    own = [output["logits"] for output in runs.own]
    assert len(moved) == SHAKES
    for run in moved:
        errors = [float((a - b).norm() / b.norm()) for a, b in zip(run, own, strict=True)]
        assert all(0 < error < 1e-5 for error in errors)
    assert not torch.equal(moved[0][0], moved[1][0])
