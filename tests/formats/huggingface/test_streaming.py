"""Models that read their weights while they run compute what they compute when they are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from graphclone.errors import GraphcloneError, NotEquivalentError
from graphclone.formats.huggingface.reader import open_checkpoint
from graphclone.formats.huggingface.streaming import _ReadOnUse, streamed
from graphclone.formats.huggingface.verifier import verify_checkpoints
from graphclone.formats.huggingface.weights import StoredTensor
from graphclone.formats.huggingface.writer import clone_checkpoint
from tests.support.checkpoints import loaded, outputs, planned, saved


@pytest.mark.parametrize("name", ["bart", "mixtral", "t5", "vit", "olmo-mini"])
def test_it_computes_the_same_to_the_bit(name: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(saved(name, tmp_path / name))
    whole, _ = loaded(checkpoint.folder)
    model = streamed(checkpoint)
    expected, actual = (outputs(m, checkpoint.example_inputs) for m in (whole.eval(), model))
    assert {n: t for n, t in actual.items() if not torch.equal(t, expected[n])} == {}
    assert all(parameter.is_meta for parameter in model.parameters())


def test_no_two_parts_are_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_checkpoint(saved("mixtral", tmp_path / "mixtral"))
    model, held = streamed(checkpoint), []
    read = StoredTensor.read

    def noted(self: StoredTensor) -> torch.Tensor:
        held.append(sum(p.nbytes for p in model.parameters() if not p.is_meta))
        return read(self)

    monkeypatch.setattr(StoredTensor, "read", noted)
    outputs(model, checkpoint.example_inputs)
    largest = max(sum(p.nbytes for p in part.parameters(recurse=False)) for part in model.modules())
    assert 0 < max(held) <= largest


def test_a_sample_is_enough_to_see_that_a_clone_is_right_or_wrong(tmp_path: Path) -> None:
    source = saved("t5", tmp_path / "t5")
    written = clone_checkpoint(source, tmp_path / "wide", verify="sample")
    assert written.verification is not None
    (check,) = written.verification.checks
    assert (check.name, check.ok) == ("sample", True)

    file = tmp_path / "wide" / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("wo.weight"))
    tensors[name][0, 0] += 1
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(NotEquivalentError):
        verify_checkpoints(planned(source), tmp_path / "wide", sample=True).raise_if_failed()
    del tensors[name]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(NotEquivalentError, match=name):
        verify_checkpoints(planned(source), tmp_path / "wide", sample=True).raise_if_failed()


def test_a_part_that_computes_with_the_weights_of_another_reads_them(tmp_path: Path) -> None:
    """``torch.nn.MultiheadAttention``, here of the pooling head, never calls its last layer."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.SiglipVisionConfig(**sizes, image_size=16, patch_size=8)
    transformers.SiglipVisionModel(config).eval().save_pretrained(tmp_path / "siglip")
    checkpoint = open_checkpoint(tmp_path / "siglip")
    whole, _ = loaded(checkpoint.folder)
    expected, actual = (outputs(m, checkpoint.example_inputs) for m in (whole.eval(), streamed(checkpoint)))
    torch.testing.assert_close(actual, dict(expected), rtol=1e-5, atol=1e-6)  # it fuses the layer elsewhere


class _Borrowing(torch.nn.Linear):
    """A layer whose class asks another one what its weight is, and computes with a view of it."""

    def __init__(self, other: torch.nn.Linear) -> None:
        super().__init__(4, 4)
        self.other = other

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.to(self.other.weight.device, self.other.weight.dtype)) @ self.other.weight.T


def test_weights_are_read_by_the_operator_that_takes_them() -> None:
    other = torch.nn.Linear(4, 3, bias=False, device="meta")
    weight, reads = torch.randn(3, 4), []

    def read() -> torch.Tensor:
        reads.append(1)
        return weight

    layer, x = _Borrowing(other), torch.randn(2, 4)
    with _ReadOnUse({id(other.weight): read}):
        assert other.weight.shape == (3, 4)
        assert not reads
        found = layer(x)
    assert len(reads) == 1
    torch.testing.assert_close(found, torch.nn.functional.linear(x, layer.weight, layer.bias) @ weight.T)


def test_a_tensor_of_no_part_is_named(tmp_path: Path) -> None:
    folder = saved("olmo-mini", tmp_path / "olmo")
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "stray.weight": torch.ones(3)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GraphcloneError, match=r"stray\.weight"):
        streamed(open_checkpoint(folder))
