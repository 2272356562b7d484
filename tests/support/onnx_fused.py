"""ONNX files with the fused ops of ONNX Runtime.

Its optimizer for transformers looks for the ops that older versions of transformers were exported to. Attention is
therefore spelled here as it was in version 4.27; all else is as torch exports it. Decoders are also written down as
tools for text generation write them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from graphclone.formats.torch.export_onnx import MAX_IR_VERSION
from graphclone.models.huggingface import new_model
from graphclone.models.randomise import randomise
from tests.support.onnx_exports import Exportable, legacy, with_forward, zoo_model
from tests.support.zoo import ZOO

Form = Literal["gqa", "gqa-packed", "mha"]

_MASKED = -10000.0
_POSITIONS = 64
_PAST = 3
_AS_OF_4_27 = "as-of-4.27"


def fuse(source: bytes, path: Path, model_type: str, heads: int, width: int, *, multi_head: bool = False) -> None:
    """Write a model with the fusions of ``onnxruntime.transformers``.

    Args:
        source: the model as exported.
        path: the file to write.
        model_type: whose patterns to look for.
        heads: of its attention.
        width: of its hidden states.
        multi_head: whether to prefer MultiHeadAttention to Attention, which holds the weights of q, k and v too.
    """
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    options = FusionOptions(model_type)
    options.use_multi_head_attention = multi_head
    with _silent():
        model = onnx.load_from_string(source)
        fused = optimize_model(model, model_type, heads, width, optimization_options=options, opt_level=0)
        fused.save_model_to_file(str(path))


def export_bert(name: str, path: Path, *, opset: int) -> None:
    """Write a BERT whose attention fuses whole."""
    legacy(zoo_model(name, masked=True, attention="eager"), path, opset=opset)


def export_vit(path: Path, *, opset: int) -> None:
    """Write a vision transformer whose attention fuses whole."""
    _register_old_attention()
    legacy(zoo_model("vit", attention=_AS_OF_4_27), path, opset=opset)


def export_gpt2(path: Path, *, opset: int) -> None:
    """Write a GPT-2 whose attention fuses whole: of ids alone."""
    module = _old_gpt2()
    forward = module.forward
    ids = ZOO["gpt2"].build().kwargs["input_ids"]
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "logits")}
    module = with_forward(module, lambda input_ids: (forward(input_ids).logits,), ["input_ids"])
    legacy(Exportable(module, {"input_ids": ids}, ["logits"], axes), path, opset=opset)


def export_gpt2_with_cache(path: Path, *, opset: int) -> None:
    """Write a GPT-2 whose attention fuses whole, with a past and a present that hold keys and values in one."""
    from transformers import DynamicCache

    module = _old_gpt2()
    forward = module.forward
    ids = ZOO["gpt2"].build().kwargs["input_ids"]
    batch, sequence = ids.shape
    layers, heads = module.config.n_layer, module.config.n_head
    past = torch.randn(layers, 2, batch, heads, _PAST, 8, generator=torch.Generator().manual_seed(0))
    inputs = {
        "input_ids": ids,
        "position_ids": torch.arange(_PAST, _PAST + sequence).repeat(batch, 1),
        "attention_mask": torch.ones(batch, _PAST + sequence, dtype=torch.int64),
        **{f"past_{i}": one for i, one in enumerate(past)},
    }

    def step(input_ids: Tensor, position_ids: Tensor, attention_mask: Tensor, **past: Tensor) -> tuple[Tensor, ...]:
        mask = attention_mask.view(input_ids.shape[0], -1)[:, None, None, :].to(torch.float32)
        cache = DynamicCache([(one[0], one[1]) for one in past.values()])
        arguments = {"position_ids": position_ids, "past_key_values": cache, "use_cache": True}
        outputs = forward(input_ids, attention_mask=(1.0 - mask) * _MASKED, **arguments)
        return (outputs.logits, *(torch.stack((layer.keys, layer.values)) for layer in cache.layers))

    present = [f"present_{i}" for i in range(layers)]
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "position_ids", "logits")}
    axes["attention_mask"] = {0: "batch", 1: "total_sequence"}
    axes |= {name: {1: "batch", 3: "past_sequence"} for name in inputs if name.startswith("past")}
    axes |= {name: {1: "batch", 3: "total_sequence"} for name in present}
    model = Exportable(with_forward(module, step, list(inputs)), inputs, ["logits", *present], axes)
    legacy(model, path, opset=opset)


def _old_gpt2() -> nn.Module:
    """The GPT-2 of the zoo with the triangles in which its attention once kept what may see what."""
    _register_old_attention()
    module = ZOO["gpt2"].build().module
    module.set_attn_implementation(_AS_OF_4_27)
    triangle = torch.ones(1, 1, _POSITIONS, _POSITIONS, dtype=torch.bool).tril()
    for name, each in module.named_modules():
        if name.endswith(".attn"):
            each.register_buffer("bias", triangle, persistent=False)
    return module


def _register_old_attention() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(_AS_OF_4_27, _old_attention)


def _old_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor]:
    """Attention in the ops, and in the order, that the optimizer knows."""
    scores = torch.matmul(query, key.transpose(-1, -2)) / value.size(-1) ** 0.5
    if hasattr(module, "bias"):
        queries, keys = scores.size(-2), scores.size(-1)
        visible = module.bias[:, :, keys - queries : keys, :keys]
        scores = torch.where(visible, scores, torch.tensor(_MASKED))
    if mask is not None:
        scores = scores + mask
    weights = nn.functional.softmax(scores, dim=-1)
    return torch.matmul(weights, value).transpose(1, 2), weights


@contextmanager
def _silent() -> Iterator[None]:
    """Without the optimizer's log, which it writes to the root logger as well."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)


def llama(form: Form) -> nn.Module:
    """A Llama that the fused ops can hold: grouped-query attention turns heads of 16, 32, ... only."""
    fields = {"hidden_size": 60, "intermediate_size": 52, "num_attention_heads": 15, "num_hidden_layers": 2}
    fields |= {"num_key_value_heads": 15 if form == "mha" else 5, "head_dim": 16, "vocab_size": 61}
    return randomise(new_model("CausalLM", "llama", fields)).eval()


def write_decoder(path: Path, form: Form) -> None:
    """Write a Llama in fused ops, as tools for text generation do, with a key/value cache."""
    module = llama(form)
    writer = _Decoder(module.config, form)
    writer.build(dict(module.state_dict()))
    onnx.save(writer.model(), path)


class _Decoder:
    """Collects the nodes and weights of a decoder.

    Grouped-query attention takes more than one new token after a past for a batch of one only, so that is declared.
    """

    def __init__(self, config: Any, form: Form) -> None:
        self.config, self.form = config, form
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.head_dim
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self.batch = "batch" if form == "mha" else 1
        self.inputs = [
            _port("input_ids", self.batch, "sequence"),
            _port("attention_mask", self.batch, "total_sequence"),
        ]
        self.outputs = [_port("logits", self.batch, "sequence", config.vocab_size, kind=TensorProto.FLOAT)]

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "decoder", self.inputs, self.outputs, self.weights)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=min(10, MAX_IR_VERSION))

    def build(self, state: Mapping[str, Tensor]) -> None:
        self.lengths()
        self.rotary_tables()
        embedding = self.weight("model.embed_tokens.weight", state["model.embed_tokens.weight"])
        hidden = self.op("Gather", [embedding, "input_ids"], "/model/embed_tokens/Gather")
        change = ""
        for layer in range(self.config.num_hidden_layers):
            here = f"model.layers.{layer}"
            states = {key.removeprefix(f"{here}."): each for key, each in state.items() if key.startswith(f"{here}.")}
            normal, hidden = self.norm(hidden, change, f"{here}.input_layernorm", states["input_layernorm.weight"])
            change = self.attention(normal, here, states, layer)
            after = states["post_attention_layernorm.weight"]
            normal, hidden = self.norm(hidden, change, f"{here}.post_attention_layernorm", after)
            change = self.feed_forward(normal, f"{here}.mlp", states)
        normal, _ = self.norm(hidden, change, "model.norm", state["model.norm.weight"])
        head = state.get("lm_head.weight", state["model.embed_tokens.weight"])
        self.op("MatMul", [normal, self.weight("lm_head.MatMul.weight", head.T)], "logits")

    def lengths(self) -> None:
        """What attention is told of the mask: all of it, or how long each sequence and the longest is."""
        if self.form == "mha":
            self.inputs.append(_port("position_ids", "batch", "sequence"))
            self.op("Cast", ["attention_mask"], "padding", to=TensorProto.INT32)
            return
        one = self.weight("one", torch.tensor([1]))
        count = self.op("ReduceSum", ["attention_mask", one], "/model/attn_mask/ReduceSum", keepdims=0)
        last = self.op("Sub", [count, one], "/model/attn_mask/Sub")
        self.op("Cast", [last], "seqlens_k", to=TensorProto.INT32)
        shape = self.op("Shape", ["attention_mask"], "/model/attn_mask/Shape")
        total = self.op("Gather", [shape, self.weight("axis", torch.tensor(1))], "/model/attn_mask/Gather")
        self.op("Cast", [total], "total_seq_len", to=TensorProto.INT32)

    def rotary_tables(self) -> None:
        half = self.head_dim // 2
        theta = self.config.rope_parameters["rope_theta"]
        angles = torch.arange(_POSITIONS)[:, None] * theta ** (-torch.arange(half) / half)
        self.weight("cos_cache", angles.cos())
        self.weight("sin_cache", angles.sin())

    def norm(self, hidden: str, change: str, name: str, scale: Tensor) -> tuple[str, str]:
        """The normalised sum of the hidden states and what changes them, and the sum."""
        inputs = [hidden, self.weight(f"{name}.weight", scale)]
        epsilon = self.config.rms_norm_eps
        if not change:
            return self.op("SimplifiedLayerNormalization", inputs, f"/{name}", epsilon=epsilon, axis=-1), hidden
        inputs.insert(1, change)
        outputs = [f"/{name}/output_0", "", "", f"/{name}/output_3"]
        self.fused("SkipSimplifiedLayerNormalization", inputs, outputs, epsilon=epsilon)
        return outputs[0], outputs[3]

    def attention(self, x: str, here: str, states: Mapping[str, Tensor], layer: int) -> str:
        past, present = self.cache(layer)
        name = f"{here}.attn"
        outputs = [f"/{name}/output_0", *present]
        weights = {part: states[f"self_attn.{part}_proj.weight"] for part in "qkv"}
        if self.form == "gqa-packed":
            packed = self.linear(x, f"{name}.qkv_proj", torch.cat(list(weights.values())))
            self.grouped([packed, "", "", *past], outputs)
        else:
            q, k, v = (self.linear(x, f"{name}.{part}_proj", weight) for part, weight in weights.items())
            if self.form == "gqa":
                self.grouped([q, k, v, *past], outputs)
            else:
                inputs = [self.turned(q), self.turned(k), v, "", "padding", "", *past]
                self.fused("MultiHeadAttention", inputs, outputs, num_heads=self.heads, unidirectional=1)
        return self.linear(outputs[0], f"{name}.o_proj", states["self_attn.o_proj.weight"])

    def grouped(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        inputs = [*inputs, "seqlens_k", "total_seq_len", "cos_cache", "sin_cache"]
        sizes = {"num_heads": self.heads, "kv_num_heads": self.kv_heads, "scale": self.head_dim**-0.5}
        self.fused("GroupQueryAttention", inputs, outputs, do_rotary=1, **sizes)

    def turned(self, x: str) -> str:
        output = f"{x}/RotaryEmbedding"
        self.fused("RotaryEmbedding", [x, "position_ids", "cos_cache", "sin_cache"], [output], num_heads=self.heads)
        return output

    def cache(self, layer: int) -> tuple[list[str], list[str]]:
        """The names of the keys and values of a layer, as inputs and as outputs."""
        past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
        present = [f"present.{layer}.{part}" for part in ("key", "value")]
        for names, length, ports in ((past, "past_sequence", self.inputs), (present, "total_sequence", self.outputs)):
            shape = (self.batch, self.kv_heads, length, self.head_dim)
            ports.extend(_port(each, *shape, kind=TensorProto.FLOAT) for each in names)
        return past, present

    def feed_forward(self, x: str, name: str, states: Mapping[str, Tensor]) -> str:
        gate, up = (self.linear(x, f"{name}.{part}", states[f"mlp.{part}.weight"]) for part in ("gate_proj", "up_proj"))
        sigmoid = self.op("Sigmoid", [gate], f"/{name}/act_fn/Sigmoid")
        silu = self.op("Mul", [gate, sigmoid], f"/{name}/act_fn/Mul")
        product = self.op("Mul", [silu, up], f"/{name}/Mul")
        return self.linear(product, f"{name}.down_proj", states["mlp.down_proj.weight"])

    def linear(self, x: str, name: str, weight: Tensor) -> str:
        return self.op("MatMul", [x, self.weight(f"{name}.MatMul.weight", weight.T)], f"/{name}/MatMul")

    def weight(self, name: str, tensor: Tensor) -> str:
        self.weights.append(numpy_helper.from_array(tensor.detach().contiguous().numpy(), name))
        return name

    def op(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def fused(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        node = helper.make_node(kind, inputs, outputs, outputs[0], domain="com.microsoft", **attributes)
        self.nodes.append(node)


def _port(name: str, *shape: str | int, kind: int = TensorProto.INT64) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)
