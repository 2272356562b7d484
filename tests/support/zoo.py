"""Source models for tests: tiny, with random weights, one of every way to wire a network.

``ZOO[name].build()`` is the source. ``ZOO[name].build(n)`` is the same architecture with every width n times
as large, whose parameter shapes a clone widened n times must have: its heads and groups multiply, while
head_dim, the query heads per key/value head and the channels per group stay. Vocabulary, positions, layers,
kernels, inputs and outputs stay too.

Sizes are chosen apart: no two unrelated axes of one model are equal, nor equal to the batch or the sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from graphclone.models import MODELS, Built
from graphclone.models.huggingface import new_model, token_ids
from graphclone.models.randomise import randomise

_BATCH, _SEQUENCE, _VOCABULARY, _LABELS = 2, 7, 61, 13

_WIDTHS = {
    *("hidden_size", "intermediate_size", "ffn_dim", "word_embed_proj_dim"),
    *("num_attention_heads", "num_key_value_heads"),
    *("n_embd", "n_inner", "n_head"),
    *("d_model", "d_ff", "num_heads"),
    *("embedding_size", "hidden_sizes"),
}
"""The configuration fields that a wider model multiplies."""


@dataclass(frozen=True, eq=False)
class Source:
    """One architecture.

    Attributes:
        module: makes it with every width multiplied by n.
        args: example inputs, by position.
        kwargs: example inputs, by name.
    """

    name: str
    module: Callable[[int], nn.Module]
    args: tuple[Tensor, ...] = ()
    kwargs: Mapping[str, Tensor] = field(default_factory=dict)

    def build(self, n: int = 1) -> Built:
        """The model in eval mode with weights drawn anew, always the same ones, and its example inputs."""
        return Built(randomise(self.module(n)).eval(), self.args, dict(self.kwargs))


def widened(fields: Mapping[str, Any], n: int) -> dict[str, Any]:
    """A transformers configuration with every width multiplied by n."""
    return {name: _times(value, n) if name in _WIDTHS else value for name, value in fields.items()}


def _times(width: int | list[int], n: int) -> int | list[int]:
    return [n * one for one in width] if isinstance(width, list) else n * width


def _floats(*shape: int) -> Tensor:
    """A batch of random features or images of that shape."""
    return torch.randn(_BATCH, *shape, generator=torch.Generator().manual_seed(0))


_TOKENS = token_ids(_BATCH, _SEQUENCE, _VOCABULARY)


# Models of transformers: the fields hold everything that differs from the defaults.


def _hugging_face(name: str, task: str, model_type: str, kwargs: Mapping[str, Tensor], **fields: Any) -> Source:
    return Source(name, lambda n: new_model(task, model_type, widened(fields, n)), kwargs=kwargs)


def _causal(name: str, model_type: str, **fields: Any) -> Source:
    common = {"vocab_size": _VOCABULARY, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    return _hugging_face(name, "CausalLM", model_type, {"input_ids": _TOKENS}, **common, **fields)


def _mini(name: str) -> Source:
    mini = MODELS[name]
    ids = token_ids(_BATCH, _SEQUENCE, mini.fields["vocab_size"])
    return _hugging_face(name, "CausalLM", mini.model_type, {"input_ids": ids}, **mini.fields)


def logits_alone(module: nn.Module) -> nn.Module:
    """A model of transformers that returns its logits only, and no hidden state, which would hold a width."""
    module.register_forward_hook(lambda module, args, output: output.logits)
    return module


def _t5(n: int) -> nn.Module:
    fields = {
        "vocab_size": _VOCABULARY,
        "d_model": 40,
        "d_kv": 8,
        "d_ff": 52,
        "num_layers": 2,
        "num_heads": 5,
        "relative_attention_num_buckets": 12,
        "relative_attention_max_distance": 16,
    }
    return logits_alone(new_model("Seq2SeqLM", "t5", widened(fields, n)))


_DECODER = {
    "hidden_size": 40,
    "num_attention_heads": 5,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
}
_OPT = {**_DECODER, "ffn_dim": 52}
_GROUPED = {
    **_DECODER,
    "hidden_size": 120,
    "num_attention_heads": 15,
    "num_key_value_heads": 5,
    "head_dim": 8,
}
"""Grouped-query attention: 5 key/value heads, each read by 3 query heads."""
_BERT = {**_DECODER, "vocab_size": _VOCABULARY, "intermediate_size": 52, "type_vocab_size": 3}
_GEMMA2 = {
    "attn_implementation": "eager",
    "query_pre_attn_scalar": 11,
    "sliding_window": 4,
    "attn_logit_softcapping": 2.5,
    "final_logit_softcapping": 1.5,
}
_BERT_INPUTS = {
    "input_ids": _TOKENS,
    "token_type_ids": _TOKENS % 3,
    "attention_mask": torch.tensor([[1] * _SEQUENCE, [1] * (_SEQUENCE - 3) + [0] * 3]),
}
_RESNET = {"embedding_size": 6, "depths": [1, 2], "num_labels": _LABELS}


# Models of plain torch.


def _mlp(n: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(11, 24 * n),
        nn.BatchNorm1d(24 * n),
        nn.ReLU(),
        nn.Linear(24 * n, 40 * n, bias=False),
        nn.LayerNorm(40 * n),
        nn.GELU(),
        nn.Dropout(),
        nn.Linear(40 * n, _LABELS),
    )


class Encoder(nn.Module):
    """torch.nn's own encoder on learned positions: (batch, sequence) ids -> (batch, sequence, labels)."""

    def __init__(self, n: int, norm_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(40 * n, 5 * n, 52 * n, batch_first=True, norm_first=norm_first)
        self.embedding = nn.Embedding(_VOCABULARY, 40 * n)
        self.position = nn.Parameter(torch.empty(64, 40 * n))
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(40 * n, _LABELS)

    def forward(self, ids: Tensor) -> Tensor:
        embedded = self.embedding(ids) + self.position[: ids.shape[1]]
        labels: Tensor = self.head(self.encoder(embedded))
        return labels


class Recurrent(nn.Module):
    """A two-layer LSTM: (batch, sequence) ids -> (batch, sequence, vocabulary)."""

    def __init__(self, n: int, bidirectional: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(_VOCABULARY, 10 * n)
        self.lstm = nn.LSTM(10 * n, 24 * n, num_layers=2, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(24 * n * (1 + bidirectional), _VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.lstm(self.embedding(ids))
        logits: Tensor = self.head(states)
        return logits


class UNet(nn.Module):
    """Two scales and a skip concatenation of unequal parts: (batch, 3, h, w) -> (batch, labels, h, w)."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.fine = _conv_norm(3, 6 * n)
        self.pool = nn.MaxPool2d(2)
        self.coarse = nn.Sequential(_conv_norm(6 * n, 14 * n), _conv_norm(14 * n, 10 * n))
        self.up = nn.ConvTranspose2d(10 * n, 9 * n, kernel_size=2, stride=2)
        self.merge = _conv_norm(15 * n, 11 * n)
        self.head = nn.Conv2d(11 * n, _LABELS, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        fine = self.fine(image)
        up = self.up(self.coarse(self.pool(fine)))
        labels: Tensor = self.head(self.merge(torch.cat([up, fine], dim=1)))
        return labels


def _conv_norm(inputs: int, outputs: int) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class MobileNet(nn.Module):
    """Depthwise and grouped convolutions, group norm, squeeze-excite: (batch, 3, h, w) -> (batch, labels)."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 14 * n, kernel_size=3, stride=2)
        self.depthwise = nn.Conv2d(14 * n, 14 * n, kernel_size=3, padding=1, groups=14 * n, bias=False)
        self.depthwise_norm = nn.GroupNorm(7 * n, 14 * n)
        self.pointwise = nn.Conv2d(14 * n, 20 * n, kernel_size=1, bias=False)
        self.pointwise_norm = nn.GroupNorm(10 * n, 20 * n)
        self.squeeze = nn.Conv2d(20 * n, 8 * n, kernel_size=1)
        self.excite = nn.Conv2d(8 * n, 20 * n, kernel_size=1)
        self.grouped = nn.Conv2d(20 * n, 55 * n, kernel_size=3, padding=1, groups=5 * n)
        self.head = nn.Linear(55 * n, _LABELS)

    def forward(self, image: Tensor) -> Tensor:
        x = self.depthwise_norm(self.depthwise(self.stem(image))).relu()
        x = nn.functional.silu(self.pointwise_norm(self.pointwise(x)))
        gate = nn.functional.adaptive_avg_pool2d(x, 1)
        x = x * self.excite(self.squeeze(gate).relu()).sigmoid()
        labels: Tensor = self.head(self.grouped(x).relu().mean((2, 3)))
        return labels


_SOURCES = (
    _mini("opt-mini"),
    _mini("pythia-mini"),
    _mini("olmo-mini"),
    _causal("opt", "opt", **_OPT),
    _causal("opt-untied", "opt", **_OPT, tie_word_embeddings=False),
    _causal("olmo-untied", "olmo", **_DECODER, intermediate_size=52, tie_word_embeddings=False),
    _causal("olmo2", "olmo2", **_DECODER, intermediate_size=52),
    _causal("gpt2", "gpt2", n_embd=40, n_inner=52, n_head=5, n_layer=2, n_positions=64),
    _causal("llama-gqa", "llama", **_GROUPED, intermediate_size=88),
    _causal("llama-tied", "llama", **_DECODER, intermediate_size=52, tie_word_embeddings=True),
    _causal("qwen3", "qwen3", **_GROUPED | {"hidden_size": 60}, intermediate_size=88),
    _causal("mistral", "mistral", **_GROUPED, intermediate_size=88, sliding_window=4),
    _causal("gemma", "gemma", **_GROUPED | {"hidden_size": 60}, intermediate_size=88),
    _causal("gemma2", "gemma2", **_GROUPED | {"hidden_size": 60}, intermediate_size=88, **_GEMMA2),
    _hugging_face("bert-mlm", "MaskedLM", "bert", {"input_ids": _TOKENS}, **_BERT),
    _hugging_face("bert-classifier", "SequenceClassification", "bert", _BERT_INPUTS, **_BERT, num_labels=_LABELS),
    _hugging_face(
        "vit",
        "ImageClassification",
        "vit",
        {"pixel_values": _floats(3, 24, 24)},
        hidden_size=40,
        num_attention_heads=5,
        num_hidden_layers=2,
        intermediate_size=52,
        image_size=24,
        patch_size=4,
        num_labels=_LABELS,
    ),
    *(
        _hugging_face(
            f"resnet-{layer}",
            "ImageClassification",
            "resnet",
            {"pixel_values": _floats(3, 32, 32)},
            **_RESNET,
            layer_type=layer,
            hidden_sizes=[20, 44],
        )
        for layer in ("basic", "bottleneck")
    ),
    Source("t5", _t5, kwargs={"input_ids": _TOKENS, "decoder_input_ids": token_ids(_BATCH, 9, _VOCABULARY)}),
    Source("mlp", _mlp, (_floats(11),)),
    Source("encoder", partial(Encoder, norm_first=False), (_TOKENS,)),
    Source("encoder-norm-first", partial(Encoder, norm_first=True), (_TOKENS,)),
    Source("unet", UNet, (_floats(3, 16, 16),)),
    Source("mobilenet", MobileNet, (_floats(3, 19, 19),)),
    Source("lstm", partial(Recurrent, bidirectional=False), (_TOKENS,)),
    Source("lstm-bidirectional", partial(Recurrent, bidirectional=True), (_TOKENS,)),
)

ZOO: dict[str, Source] = {source.name: source for source in _SOURCES}
