"""What verification of checkpoints costs: each of the two is loaded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.llama.modeling_llama import LlamaMLP

from graphclone.formats.huggingface import verifier
from graphclone.formats.huggingface.reader import open_checkpoint
from graphclone.formats.huggingface.verifier import SourceRuns, run_source, verify_folders
from graphclone.formats.huggingface.writer import clone_checkpoint
from graphclone.models.randomise import randomise
from tests.support.checkpoints import saved


def test_two_folders_are_compared_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved("olmo-mini", tmp_path / "olmo")
    monkeypatch.setattr(verifier, "_loaded", None)  # nothing is loaded whole
    report = verify_folders(folder, folder, sample=True)
    assert report.ok
    assert [check.name for check in report.checks] == ["sample"]


@pytest.mark.parametrize("name", ["bart", "mixtral"])
def test_source_and_clone_are_loaded_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(name, tmp_path / name)
    folders: list[str] = []
    load = verifier._loaded

    def loaded(checkpoint: Any, path: Path, **options: Any) -> Any:
        folders.append(str(path))
        return load(checkpoint, path, **options)

    monkeypatch.setattr(verifier, "_loaded", loaded)
    assert verify_folders(folder, folder).ok
    assert len(folders) == 2


@pytest.mark.parametrize(("off", "shakes", "ok"), [(3e-5, 0, True), (3e-4, 1, True), (3e-2, 1, False)])
def test_a_lucky_run_of_the_source_is_not_the_measure(off: float, shakes: int, ok: bool) -> None:
    """The source is shaken where its one run does not explain the clone, and at no other time."""
    truth, asked = torch.ones(4, dtype=torch.float64), []

    def shake(_: SourceRuns) -> list[list[dict[str, torch.Tensor]]]:
        asked.append("")
        return [[{"y": truth + 1e-4}]]

    source = SourceRuns([{}], [{"y": truth.float() + 1e-5}], [{"y": truth}], shake)
    floors = [verifier._floor(source, 0, "y", verifier._as_it_is, truth.float() + off) for _ in range(2)]
    assert [floor.ok for floor in floors] == [ok, ok]
    assert len(asked) == shakes


def test_runs_differ_as_their_precisions_do(tmp_path: Path) -> None:
    runs = run_source(open_checkpoint(saved("mixtral", tmp_path / "mixtral")))
    (own, *_), (exact, *_) = runs.own, runs.exact
    assert exact["logits"].dtype == torch.float64
    off = [(run["logits"].double() - exact["logits"]).abs().max() for run in (own, *(runs[0] for runs in runs.shaken))]
    assert all(0 < float(error) < 1e-4 for error in off)
    assert len({float(error) for error in off}) == len(off)


def test_a_class_that_casts_on_its_way_rounds_as_what_it_casts_to(tmp_path: Path) -> None:
    """In float64 a source shows no rounding of its own, and the clone's is that of the norms, which cast to float32."""
    folder = saved("llama-gqa", tmp_path / "llama")
    written = clone_checkpoint(folder, tmp_path / "wide", dtype=torch.float64)
    assert written.verification is not None and written.verification.ok
    weights = load_file(tmp_path / "wide" / "model.safetensors")
    name = next(name for name in weights if name.endswith("down_proj.weight"))
    weights[name][0] *= 1 + 1e-2
    save_file(weights, tmp_path / "wide" / "model.safetensors", {"format": "pt"})
    report = verify_folders(folder, tmp_path / "wide")
    assert not report.ok
    assert report.model == str(tmp_path / "wide")


@pytest.mark.parametrize("sample", [False, True])
def test_a_class_that_knows_one_precision_is_held_against_its_own_run(
    sample: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: LlamaMLP, x: torch.Tensor) -> torch.Tensor:
        x = x.float()  # meets weights of float64 where the model is run in that
        out: torch.Tensor = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
        return out

    monkeypatch.setattr(LlamaMLP, "forward", forward)
    folder = saved("llama-gqa", tmp_path / "llama")
    written = clone_checkpoint(folder, tmp_path / "wide", verify="sample" if sample else True)
    assert written.verification is not None and written.verification.ok
    weights = load_file(tmp_path / "wide" / "model.safetensors")
    name = next(name for name in weights if name.endswith("down_proj.weight"))
    weights[name][0] *= 1 + 1e-2
    save_file(weights, tmp_path / "wide" / "model.safetensors", {"format": "pt"})
    assert not verify_folders(folder, tmp_path / "wide", sample=sample).ok


def masked_at_random() -> Any:
    """A model that draws which patches it hides, whatever it is given."""
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 36}
    decoder = {"decoder_hidden_size": 20, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 4}
    pictures = {"image_size": 16, "patch_size": 4, "decoder_intermediate_size": 28}
    return transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**sizes, **decoder, **pictures))


def test_a_model_that_draws_numbers_is_compared_on_the_same_ones(tmp_path: Path) -> None:
    randomise(masked_at_random()).save_pretrained(tmp_path / "source")
    written = clone_checkpoint(tmp_path / "source", tmp_path / "wide")
    assert written.verification is not None and written.verification.ok
    (check,) = written.verification.checks
    assert check.outputs[0].clone < 1e-4
    tensors, before = load_file(tmp_path / "wide" / "model.safetensors"), torch.get_rng_state()
    tensors["decoder.decoder_pred.bias"] += 0.01
    save_file(tensors, tmp_path / "wide" / "model.safetensors", {"format": "pt"})
    assert verify_folders(tmp_path / "source", tmp_path / "wide").verdict == "NOT EQUIVALENT"
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("off", "differs"), [(1e-5, False), (0.1, True)])
def test_a_model_that_draws_other_numbers_in_another_precision_is_no_measure(off: float, differs: bool) -> None:
    truth = torch.ones(4, dtype=torch.float64)
    source = SourceRuns([{}], [{"y": truth.float() + off}], [{"y": truth}], lambda _: [], drawn=torch.get_rng_state())
    assert verifier._differs_from_itself(source, "y") == differs


def test_a_model_that_returns_a_tensor_alone(tmp_path: Path) -> None:
    kernels = {"upsample_rates": [4, 4], "upsample_kernel_sizes": [8, 8], "resblock_kernel_sizes": [3]}
    sizes = {"model_in_dim": 8, "upsample_initial_channel": 16, "resblock_dilation_sizes": [[1, 3]]}
    randomise(transformers.SpeechT5HifiGan(transformers.SpeechT5HifiGanConfig(**sizes, **kernels))).save_pretrained(
        tmp_path / "source"
    )
    written = clone_checkpoint(tmp_path / "source", tmp_path / "wide", inputs={"spectrogram": (2, 10, 8)})
    assert written.verification is not None
    assert [floor.value for floor in written.verification.checks[0].outputs] == ["output"]
