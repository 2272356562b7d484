"""What checkpoints with pictures and sounds are fed, and what becomes of parts that their inputs do not reach."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

import graphclone as gc
from graphclone.cli.__main__ import main
from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface import discarded
from graphclone.formats.huggingface.descriptions import text_config
from graphclone.formats.huggingface.reader import open_checkpoint
from graphclone.formats.huggingface.verifier import _input_sets
from graphclone.formats.huggingface.writer import Written, clone_checkpoint
from graphclone.formats.torch.reader import trace_module
from graphclone.models.randomise import randomise
from tests.support.checkpoints import loaded

_IMAGE = 3
_TEXT = {
    "vocab_size": 71,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def cropped() -> nn.Module:
    """Features of pictures take the places of tokens; the last layer of the tower is never read."""
    tower = {"hidden_size": 20, "intermediate_size": 36, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**tower, "model_type": "clip_vision_model", "image_size": 28, "patch_size": 14}
    config = transformers.LlavaConfig(
        image_token_index=_IMAGE, text_config={**_TEXT, "model_type": "llama"}, vision_config=vision
    )
    return transformers.LlavaForConditionalGeneration(config)


def gridded() -> nn.Module:
    """Pictures come as patches with a grid, whose numbers are sizes."""
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 1]}
    vision = {
        "depth": 1,
        "embed_dim": 16,
        "hidden_size": 24,
        "num_heads": 2,
        "mlp_ratio": 2,
        "patch_size": 14,
        "in_channels": 3,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    config = transformers.Qwen2VLConfig(
        text_config={**_TEXT, "rope_parameters": rope}, vision_config=vision, image_token_id=_IMAGE
    )
    return transformers.Qwen2VLForConditionalGeneration(config)


def heard(cls: Any = transformers.WhisperForConditionalGeneration) -> nn.Module:
    towers = {"layers": 1, "attention_heads": 4, "ffn_dim": 40}
    both = {f"{tower}_{field}": n for tower in ("encoder", "decoder") for field, n in towers.items()}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
    sizes = {"max_source_positions": 30, "max_target_positions": 20, "num_mel_bins": 10, "classifier_proj_size": 18}
    return cls(transformers.WhisperConfig(vocab_size=71, d_model=24, **both, **tokens, **sizes, num_labels=3))


def saved(make: Callable[[], Any], folder: Path) -> Path:
    randomise(make()).save_pretrained(folder)
    return folder


def both_run(source: Path, out: Path, inputs: dict[str, Any], output: str = "logits") -> tuple[Tensor, Tensor]:
    """What source and clone make of inputs, in float64."""
    (small, _), (wide, problems) = loaded(source), loaded(out)
    assert not problems
    with torch.no_grad():
        fed = {k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in inputs.items()}
        return small.double().eval()(**fed)[output], wide.double().eval()(**fed)[output]


def ids_with_places(count: int) -> Tensor:
    """Two texts with places for a picture, elsewhere than the example has them."""
    ids = torch.arange(20, 40).view(2, 10)
    ids[0, 3 : 3 + count] = ids[1, 5 : 5 + count] = _IMAGE
    return ids


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Written]:
    folder = tmp_path_factory.mktemp("cropped")
    source = saved(cropped, folder / "source")
    return source, folder / "out", clone_checkpoint(source, folder / "out", strategy="noisy-diagonal")


def test_the_width_of_tokens_grows_where_features_take_their_places(pictures: tuple[Path, Path, Written]) -> None:
    source, out, written = pictures
    assert written.verification is not None and written.verification.ok
    assert written.plan.changes["text_config.hidden_size"] == (24, 48)
    assert written.plan.changes["vision_config.hidden_size"] == (20, 40)
    inputs = {"input_ids": ids_with_places(4), "pixel_values": torch.randn(2, 3, 28, 28)}
    small, wide = both_run(source, out, inputs)
    torch.testing.assert_close(wide, small, rtol=0, atol=1e-5)


def test_a_layer_whose_result_is_returned_to_nobody_is_widened_by_what_it_computes(
    pictures: tuple[Path, Path, Written],
) -> None:
    """Other settings than the checkpoint's read it, and find it right."""
    source, out, written = pictures
    note = "returned to nobody, so that it is not compared: what model.vision_tower.post_layernorm computes"
    assert note in written.notes
    inputs = {"input_ids": ids_with_places(4), "pixel_values": torch.randn(2, 3, 28, 28), "vision_feature_layer": -1}
    small, wide = both_run(source, out, inputs)
    torch.testing.assert_close(wide, small, rtol=0, atol=1e-5)


def seen_and_said() -> nn.Module:
    """An encoder with a pooler that the decoder has no use for."""
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 40}
    encoder = transformers.ViTConfig(**sizes, image_size=16, patch_size=8)
    of_decoder = {"d_model": 20, "decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 36}
    decoder = transformers.TrOCRConfig(vocab_size=61, **of_decoder, cross_attention_hidden_size=24)
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id = 1, 0
    return transformers.VisionEncoderDecoderModel(config=config)


def read_before_its_pooler() -> nn.Module:
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 40}
    config = transformers.LayoutLMConfig(vocab_size=61, **sizes, max_2d_position_embeddings=64)
    return transformers.LayoutLMForMaskedLM(config)


@pytest.mark.parametrize("make", [seen_and_said, read_before_its_pooler])
@pytest.mark.parametrize("strategy", ["symmetric", "noisy-diagonal"])
def test_a_pooler_that_nobody_reads_grows_right(make: Callable[[], nn.Module], strategy: str, tmp_path: Path) -> None:
    source, out = saved(make, tmp_path / "source"), tmp_path / "out"
    written = clone_checkpoint(source, out, strategy=strategy)
    assert written.verification is not None and written.verification.ok
    (note,) = (note for note in written.notes if note.startswith("returned to nobody"))
    assert note.endswith("pooler.dense computes")
    feed = open_checkpoint(source).example_inputs
    small, wide = pooled(source, feed), pooled(out, feed)
    assert wide.shape[-1] == 2 * small.shape[-1]
    torch.testing.assert_close(wide, torch.cat([small, small], -1), rtol=0, atol=1e-6)


def pooled(folder: Path, feed: dict[str, Any]) -> Tensor:
    """What the pooler of a checkpoint computes."""
    model, problems = loaded(folder)
    assert not problems
    (pooler,) = (part for name, part in model.named_modules() if name.endswith(".pooler"))
    results: list[Tensor] = []
    pooler.register_forward_hook(lambda *call: results.append(call[-1]))
    with torch.no_grad():
        model.eval()(**feed)
    return results[0]


@pytest.mark.parametrize("called", [True, False])
def test_only_parts_that_are_called_and_not_read_are_returned_besides(called: bool) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read, self.thrown, self.both = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 5)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            h = self.read(x)
            if called:
                self.thrown(self.both(h).relu() @ torch.ones(5, 6))
            return {"y": h}

    model = Model().eval()
    with discarded.calls_noted(model) as names:
        graph = trace_module(model, (torch.ones(2, 4),))
    graph.prune()
    in_vain = names & discarded.owners_of_unread(graph)
    assert in_vain == ({"thrown", "both"} if called else set())
    with discarded.returned_besides(model, in_vain):
        graph = trace_module(model, (torch.ones(2, 4),))
    graph.prune()
    discarded.let_grow(graph)
    assert [output.name for output in graph.outputs] == ["y", *["thrown().0"] * called]
    assert discarded.names_of(graph) == ["thrown"] * called
    assert model(torch.ones(2, 4)).keys() == {"y"}
    assert graph.copy().outputs[-1].free == called


@pytest.mark.slow
def test_pictures_with_a_grid_are_made_from_the_configuration(tmp_path: Path) -> None:
    source, out = saved(gridded, tmp_path / "source"), tmp_path / "out"
    written = clone_checkpoint(source, out)
    assert written.verification is not None and written.verification.ok
    assert all("which the model returns besides" in note for note in written.notes)
    assert written.plan.changes["vision_config.hidden_size"] == (24, 48)
    ids = ids_with_places(2)
    inputs = {
        "input_ids": ids,
        "pixel_values": torch.randn(16, 3 * 2 * 14 * 14),
        "image_grid_thw": torch.tensor([[1, 2, 4], [1, 4, 2]]),
        "mm_token_type_ids": (ids == _IMAGE).int(),
    }
    small, wide = both_run(source, out, inputs)
    torch.testing.assert_close(wide, small, rtol=0, atol=1e-5)


def test_a_table_that_the_class_computes_cannot_be_kept_wider(tmp_path: Path) -> None:
    """It is not among what the class saves, and another one for another width."""
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40}
    config = transformers.MarianConfig(vocab_size=64, pad_token_id=63, decoder_start_token_id=63, **sizes)
    source = saved(lambda: transformers.MarianMTModel(config), tmp_path / "source")
    with pytest.raises(GraphcloneError, match=r"is missing; MarianMTModel computes it anew, .*clone it as a module"):
        clone_checkpoint(source, tmp_path / "out")


def masked() -> nn.Module:
    """A vector stands for patches that are hidden."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.ViTConfig(**sizes, image_size=16, patch_size=4, encoder_stride=4)
    return transformers.ViTForMaskedImageModeling(config)


_MASK = torch.arange(32).view(2, 16) % 5 > 2


@pytest.mark.parametrize("options", [{"widen": "3/2"}, {"strategy": "fresh"}, {"strategy": "noisy-diagonal"}], ids=str)
def test_what_stands_for_hidden_patches_grows_as_patches_do(options: dict[str, Any], tmp_path: Path) -> None:
    source, out = saved(masked, tmp_path / "source"), tmp_path / "out"
    assert not clone_checkpoint(source, out, **options).notes
    pictures = {"pixel_values": torch.randn(2, 3, 16, 16)}
    for inputs in (pictures, pictures | {"bool_masked_pos": _MASK}):
        small, wide = both_run(source, out, inputs, "reconstruction")
        torch.testing.assert_close(wide, small, rtol=0, atol=1e-5)


def test_a_vector_that_is_not_reached_is_repeated_where_all_of_its_width_is(tmp_path: Path) -> None:
    source, shown = saved(masked, tmp_path / "source"), {"pixel_values": torch.randn(2, 3, 16, 16)}
    written = clone_checkpoint(source, tmp_path / "out", inputs=shown)
    assert [note.rpartition(": ")[2] for note in written.notes] == ["vit.embeddings.mask_token"]
    small, wide = both_run(source, tmp_path / "out", shown | {"bool_masked_pos": _MASK}, "reconstruction")
    torch.testing.assert_close(wide, small, rtol=0, atol=1e-5)
    for options in ({"widen": "3/2"}, {"strategy": "fresh"}):
        with pytest.raises(GraphcloneError, match="mask_token may meet what grew in another way than by copies"):
            clone_checkpoint(source, tmp_path / "other", inputs=shown, **options)
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_what_is_not_reached_may_not_meet_what_grew(tmp_path: Path) -> None:
    source, text = saved(gridded, tmp_path / "source"), {"input_ids": torch.arange(20, 38).view(2, 9)}
    message = r"model.visual is not reached by the example inputs .* has one of 24, as has what grew.*give inputs"
    with pytest.raises(GraphcloneError, match=message):
        clone_checkpoint(source, tmp_path / "out", inputs=text)
    assert not (tmp_path / "out").exists()
    written = clone_checkpoint(source, tmp_path / "out", inputs=text, widen={"layers.*.mlp": 2})
    assert written.plan.changes == {"text_config.intermediate_size": (40, 80)}
    assert written.notes == [
        "not reached by the example inputs, so that what it computes is not compared: model.visual"
    ]


@pytest.mark.parametrize(
    "cls", [transformers.WhisperForConditionalGeneration, transformers.WhisperForAudioClassification]
)
def test_sounds_are_made_from_the_configuration(cls: Any, tmp_path: Path) -> None:
    source = saved(lambda: heard(cls), tmp_path / "source")
    assert open_checkpoint(source).example_inputs["input_features"].shape[1:] == (10, 60)
    written = clone_checkpoint(source, tmp_path / "out")
    assert written.verification is not None and written.verification.ok
    assert written.plan.changes["d_model"] == (24, 48)


def test_other_orders_of_values_keep_sizes_and_places(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(saved(gridded, tmp_path / "source"))
    example, *others = _input_sets(checkpoint, sets=3, seed=0)
    assert others
    for feed in others:
        assert torch.equal(feed["image_grid_thw"], example["image_grid_thw"])
        assert torch.equal(feed["input_ids"] == _IMAGE, example["input_ids"] == _IMAGE)
        assert not torch.equal(feed["input_ids"], example["input_ids"])
        assert not torch.equal(feed["pixel_values"], example["pixel_values"])


@pytest.mark.parametrize(("padding", "rows"), [(None, 1), (0, 2)])
def test_a_class_that_pads_nothing_is_fed_with_one_text(padding: int | None, rows: int, tmp_path: Path) -> None:
    config = transformers.LlamaConfig(**_TEXT, num_labels=3, pad_token_id=padding)
    source = saved(lambda: transformers.LlamaForSequenceClassification(config), tmp_path / "a")
    assert len(open_checkpoint(source).example_inputs["input_ids"]) == rows
    clone_checkpoint(source, tmp_path / "b", widen=2)
    small, wide = both_run(source, tmp_path / "b", {"input_ids": torch.arange(1, 10).view(1, 9)})
    torch.testing.assert_close(wide, small)


def sorts_texts() -> nn.Module:
    """Reads where a text ends, in a decoder that is fed the same text."""
    sizes = {"vocab_size": 71, "d_model": 24, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 64}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 36, "decoder_ffn_dim": 40}
    return transformers.BartForSequenceClassification(transformers.BartConfig(**sizes, **heads, num_labels=3))


def test_texts_end_where_a_class_looks_for_their_end(tmp_path: Path) -> None:
    source, ids = saved(sorts_texts, tmp_path / "source"), torch.arange(5, 23).view(2, 9)
    ids[:, -1] = 2
    assert open_checkpoint(source).example_inputs.keys() == {"input_ids", "use_cache"}
    for out, inputs in (("made", None), ("given", {"input_ids": ids.numpy(), "use_cache": False})):
        written = clone_checkpoint(source, tmp_path / out, inputs=inputs)
        assert written.verification is not None and written.verification.ok
        assert written.plan.changes["d_model"] == (24, 48)
        small, wide = both_run(source, tmp_path / out, {"input_ids": ids})
        torch.testing.assert_close(wide, small, rtol=0, atol=1e-6)


def test_arrays_are_fed_as_they_are(tmp_path: Path) -> None:
    source = saved(sorts_texts, tmp_path / "source")
    found = open_checkpoint(source, inputs={"input_ids": np.arange(8).reshape(2, 4)}).example_inputs
    assert found["input_ids"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_configuration_of_several_texts_is_taken_as_a_whole() -> None:
    """MusicGen has one for what it reads, and one for what it says."""

    class Several:
        pad_token_id = 3

        def get_text_config(self) -> Any:
            raise ValueError("Multiple valid text configs")

    assert text_config(Several()).pad_token_id == 3


def forecast(folder: Path) -> Path:
    """A model of numbers, whose main input its documentation alone describes."""
    sizes = {"context_length": 32, "patch_length": 8, "prediction_length": 8, "d_model": 24, "num_input_channels": 3}
    config = transformers.PatchTSTConfig(
        **sizes, ffn_dim=40, num_attention_heads=4, num_hidden_layers=2, scaling=None, patch_stride=8
    )
    return saved(lambda: transformers.PatchTSTForPrediction(config), folder)


def report(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


@pytest.mark.parametrize("said", [["--inputs", "inputs.npz"], ["--input", "past_values=2x32x3"]], ids=["file", "size"])
def test_inputs_on_the_command_line(
    said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    source, out = str(forecast(tmp_path / "source")), str(tmp_path / "out")
    assert main(["inspect", source]) == 0
    capfd.readouterr()
    monkeypatch.setattr(transformers.PatchTSTForPrediction.forward, "__doc__", None)
    assert main(["inspect", source, "--no-cache"]) == 2
    assert "it is not known what to feed as past_values; --input NAME=SHAPE" in capfd.readouterr().err
    values = np.random.default_rng(0).standard_normal((2, 32, 3))  # float64, which the model does not take
    np.savez("inputs.npz", past_values=values)
    assert main(["inspect", source, *said, "--json"]) == 0
    assert {"size": 40, "default": True}.items() <= _widest(report(capfd)).items()
    assert main(["clone", source, "-o", out, *said, "--json"]) == 0
    verification = report(capfd)["verification"]
    assert verification["ok"] and all(text.endswith("x32x3") for text in verification["inputs"])
    assert main(["verify", source, out, *said]) == 0
    (small, _), (wide, problems) = loaded(Path(source)), loaded(Path(out))
    assert not problems and wide.config.d_model == 48
    with torch.no_grad():
        fed = torch.from_numpy(values)
        found, wanted = (model.double().eval()(past_values=fed).prediction_outputs for model in (wide, small))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert " ".join(said) in (Path(out) / "README.md").read_text()


def _widest(inspection: dict[str, Any]) -> dict[str, Any]:
    rows: list[dict[str, Any]] = inspection["dims"]
    return max((row for row in rows if row["pinned"] is None), key=lambda row: row["size"])


def test_inputs_of_a_checkpoint_that_becomes_a_file(tmp_path: Path) -> None:
    source, out = str(forecast(tmp_path / "source")), str(tmp_path / "wide.safetensors")
    assert main(["clone", source, "-o", out, "--input", "past_values=2x32x3"]) == 0


def test_values_are_drawn_for_sizes(tmp_path: Path) -> None:
    source = saved(cropped, tmp_path / "source")
    given = {"input_ids": (2, 11), "attention_mask": (2, 11), "position_ids": (2, 11), "pixel_values": (2, 3, 28, 28)}
    found = open_checkpoint(source, inputs=given, dtype=torch.bfloat16).example_inputs
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == given
    assert not (found["input_ids"] == _IMAGE).any() and found["input_ids"].unique().numel() > 20
    assert found["attention_mask"].all() and set(found["position_ids"].unique().tolist()) == {0, 1}
    assert found["pixel_values"].dtype == torch.bfloat16


def test_sizes_stay_where_the_model_takes_no_others(tmp_path: Path) -> None:
    """A width could be mistaken for 24 places, but the values that go with the mask have as many."""
    source = saved(cropped, tmp_path / "source")
    given = {"inputs_embeds": (2, 24, 24), "attention_mask": (2, 24)}
    found = open_checkpoint(source, inputs=given).example_inputs
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == given
    found = open_checkpoint(source, inputs={"input_ids": (2, 24)}).example_inputs
    assert found["input_ids"].shape == (2, 23)


def test_tokens_that_no_number_of_is_known_are_to_be_given(tmp_path: Path) -> None:
    """CANINE reads characters: there is no table of them, and its configuration has no number."""
    towers = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 40}
    tables = {"num_hash_functions": 2, "num_hash_buckets": 64, "max_position_embeddings": 256}
    folder = saved(lambda: transformers.CanineModel(transformers.CanineConfig(**towers, **tables)), tmp_path)
    with pytest.raises(GraphcloneError, match=r"CanineModel: no number of tokens .* inputs="):
        gc.trace(folder)
    traced = gc.trace(folder, inputs={"input_ids": np.arange(256).reshape(2, 128)})
    assert {group.size for group in traced.dims if group.pin is None} >= {4, 40}


def test_a_class_that_cannot_count_places_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(gridded, tmp_path)

    def wants_more(*_: Any, **__: Any) -> None:
        raise AttributeError("no such field")

    monkeypatch.setattr(transformers.Qwen2VLModel, "get_rope_index", wants_more)
    with pytest.raises(GraphcloneError, match="get_rope_index failed: AttributeError: no such field"):
        gc.trace(folder)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_idz": np.arange(14).reshape(2, 7)}, "inputs: Qwen2VL.* has no input 'input_idz'; it has input_ids, "),
        ({"input_ids": (2, 7), "pixel": (2, 3)}, "inputs: Qwen2VL.* has no input 'pixel'; it has input_ids, "),
        ({"input_ids": torch.ones(2, 7), "x": torch.ones(2)}, "has no input 'x'"),
        ({"input_ids": np.array([["a", "b"]])}, "inputs: input_ids has dtype <U1; give numbers"),
        ({"input_ids": (2, 7), "image_grid_thw": (2, 3)}, "the numbers of image_grid_thw are sizes, .* give an array"),
    ],
)
def test_inputs_that_a_checkpoint_does_not_take(tmp_path: Path, inputs: dict[str, Any], message: str) -> None:
    source = saved(gridded, tmp_path / "source")
    with pytest.raises(GraphcloneError, match=message):
        _ = open_checkpoint(source, inputs=inputs).example_inputs


# masked_scatter


class Scattered(nn.Module):
    """Features written into tokens by a mask."""

    def __init__(self, mask: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.mask = mask
        self.tokens, self.features, self.head = nn.Embedding(11, 12), nn.Linear(5, 12), nn.Linear(12, 3)

    def forward(self, ids: Tensor, x: Tensor) -> Tensor:
        tokens = self.tokens(ids)
        return self.head(tokens.masked_scatter(self.mask(ids, tokens), self.features(x).reshape(-1, 12)))


def _written_into(ids: Tensor, tokens: Tensor) -> Tensor:
    mask = (ids == 3)[..., None].expand_as(tokens).clone()
    mask.logical_and_(tokens > 0)
    return mask


MASKS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], bool]] = {
    "broadcast": (lambda ids, tokens: (ids == 3)[..., None], True),
    "expanded": (lambda ids, tokens: (ids == 3)[..., None].expand_as(tokens).to(tokens.device), True),
    "joined": (
        lambda ids, tokens: ((ids == 3) | (ids == 4))[..., None].expand(-1, -1, 12) & (ids > 2)[..., None],
        True,
    ),
    "of one written": (lambda ids, h: ((ids == 3) | (ids == 4).logical_or_(ids > 5))[..., None].expand_as(h), True),
    "of the values": (lambda ids, tokens: tokens > 0, False),
    "written into": (_written_into, False),
    "of places": (lambda ids, tokens: torch.arange(12) > 4, False),
}


@pytest.mark.parametrize("name", MASKS)
def test_growth_passes_through_where_a_mask_repeats_itself(name: str) -> None:
    mask, grows = MASKS[name]
    torch.manual_seed(0)
    module, ids = Scattered(mask).eval(), torch.tensor([[1, 3, 3, 2, 5, 3, 4], [3, 1, 2, 3, 3, 6, 2]])
    inputs = (ids, torch.randn(15, 5))
    hidden = [group for group in gc.trace(module, inputs).dims if group.size == 12]
    if not grows:
        assert all("its mask tells the elements of the last axis apart" in str(group.pin) for group in hidden)
        return
    clone = gc.clone(module, inputs, widen=2)
    assert clone.state_dict()["tokens.weight"].shape == (11, 24)
    torch.testing.assert_close(clone.module()(*inputs), module(*inputs))
