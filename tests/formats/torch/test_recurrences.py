"""Recurrent layers are traced, and exported to ONNX, for sequences of every length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import nn

import graphclone as gc
from tests.support.clones import seeded


class Reader(nn.Module):
    """(batch, length) of tokens below 11 -> (batch, length, 11), and the last states"""

    def __init__(self, layer: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.embed, self.layers = nn.Embedding(11, 8), layer(8, 12, batch_first=True, **options)
        directions = 2 if options.get("bidirectional") else 1
        self.head = nn.Linear(options.get("proj_size", 12) * directions, 11)

    def forward(self, tokens: torch.Tensor) -> Any:
        h, states = self.layers(self.embed(tokens))
        return self.head(h), states


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(11, shape, generator=torch.Generator().manual_seed(0))


CASES = [
    (nn.LSTM, {}),
    (nn.LSTM, {"num_layers": 2, "bidirectional": True, "bias": False}),
    (nn.GRU, {"num_layers": 2}),
    (nn.GRU, {"bidirectional": True, "bias": False}),
    (nn.RNN, {"num_layers": 2, "bidirectional": True}),
    (nn.RNN, {"nonlinearity": "relu"}),
]


@pytest.mark.parametrize(("layer", "options"), CASES)
def test_a_clone_takes_every_length(tmp_path: Path, layer: type[nn.RNNBase], options: dict[str, Any]) -> None:
    model = seeded(lambda: Reader(layer, **options)).eval()
    clone = gc.clone(model, (tokens(3, 7),), widen=2)
    module = clone.module()
    clone.save(tmp_path / "clone.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "clone.onnx", providers=["CPUExecutionProvider"])
    for shape in ((3, 7), (2, 9), (1, 1)):
        x = tokens(*shape)
        torch.testing.assert_close(module(x)[0], model(x)[0])
        torch.testing.assert_close(torch.tensor(session.run(None, {"tokens": x.numpy()})[0]), model(x)[0])
    assert clone.verify().verdict == "equivalent"


def test_a_projection_has_every_length_and_is_refused_in_onnx(tmp_path: Path) -> None:
    model = seeded(lambda: Reader(nn.LSTM, proj_size=5)).eval()
    clone = gc.clone(model, (tokens(3, 7),), widen=2)
    torch.testing.assert_close(clone.module()(tokens(2, 9))[0], model(tokens(2, 9))[0])
    with pytest.raises(gc.GraphcloneError, match="ONNX has no recurrence that projects its states"):
        clone.save(tmp_path / "clone.onnx")


def test_torch_has_its_own_definition_after_a_trace() -> None:
    operator = torch.ops.aten.lstm.input
    before = dict(operator.py_kernels)
    gc.trace(seeded(lambda: Reader(nn.LSTM)), (tokens(3, 7),))
    assert operator.py_kernels == before
