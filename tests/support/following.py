"""Train a source and its clone side by side, in float64 throughout, on the same batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from graphclone.api import clone, grow_optimizer
from graphclone.models import Built
from graphclone.models.huggingface import new_model, token_ids
from graphclone.models.randomise import randomise
from tests.support.zoo import ZOO

torch.set_num_threads(1)

Make = Callable[[list[dict[str, Any]]], Optimizer]
"""Makes an optimizer of groups."""


class Lifted(TorchDispatchMode):
    """Float64 wherever code asks for float32, as norms and rotary embeddings do."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        lifted = {k: torch.float64 if v is torch.float32 else v for k, v in (kwargs or {}).items()}
        return func(*args, **lifted)


class Lion(Optimizer):
    """Symbolic discovery's optimizer (Chen et al. 2023, arXiv 2302.06675), in a few lines."""

    def __init__(
        self, params: Any, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            fast, slow = group["betas"]
            for p in (p for p in group["params"] if p.grad is not None):
                mean = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(torch.sign(mean * fast + p.grad * (1 - fast)), alpha=-group["lr"])
                mean.lerp_(p.grad, 1 - slow)


OPTIMIZERS: dict[str, Make] = {
    "AdamW": lambda g: torch.optim.AdamW(g, lr=1e-3, weight_decay=0.1),
    "AdamW-amsgrad": lambda g: torch.optim.AdamW(g, lr=1e-3, weight_decay=0.1, amsgrad=True, foreach=True),
    "Adam": lambda g: torch.optim.Adam(g, lr=1e-3, weight_decay=0.01),
    "Adam-fused": lambda g: torch.optim.Adam(g, lr=1e-3, weight_decay=0.01, fused=True),
    "NAdam": lambda g: torch.optim.NAdam(g, lr=1e-3, weight_decay=0.01, decoupled_weight_decay=True),
    "Adamax": lambda g: torch.optim.Adamax(g, lr=1e-3, weight_decay=0.01),
    "Adagrad": lambda g: torch.optim.Adagrad(g, lr=1e-3, weight_decay=0.01, lr_decay=0.01),
    "SGD": lambda g: torch.optim.SGD(g, lr=1e-2, weight_decay=0.01),
    "SGD-momentum": lambda g: torch.optim.SGD(g, lr=1e-3, momentum=0.9, weight_decay=0.01),
    "SGD-nesterov": lambda g: torch.optim.SGD(g, lr=1e-3, momentum=0.9, weight_decay=0.01, nesterov=True),
    "RMSprop": lambda g: torch.optim.RMSprop(g, lr=1e-4, weight_decay=0.01),
    "RMSprop-centered": lambda g: torch.optim.RMSprop(g, lr=1e-4, momentum=0.5, centered=True, weight_decay=0.01),
    "Lion": lambda g: Lion(g, lr=1e-4, weight_decay=0.1),
}


def built(name: str) -> Built:
    """A model of the zoo, or a mixture of experts, in float64."""
    source = _experts() if name == "experts" else ZOO[name].build()
    kwargs = {k: v.double() if v.is_floating_point() else v for k, v in source.kwargs.items()}
    args = tuple(v.double() if v.is_floating_point() else v for v in source.args)
    return Built(source.module.double(), args, kwargs)


def _experts() -> Built:
    fields = {
        "vocab_size": 61, "hidden_size": 40, "intermediate_size": 52, "num_attention_heads": 5, "num_hidden_layers": 2,
        "num_key_value_heads": 5, "head_dim": 8, "num_local_experts": 3, "num_experts_per_tok": 2,
        "max_position_embeddings": 64, "experts_implementation": "batched_mm",
        "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    module = randomise(new_model("CausalLM", "mixtral", fields)).eval()
    return Built(module, (), {"input_ids": token_ids(2, 7, 61)})


def groups_of(module: nn.Module) -> list[dict[str, Any]]:
    """Matrices decay, and vectors do not and are faster: two groups with options of their own."""
    trained = [p for p in module.parameters() if p.requires_grad]
    vectors = [p for p in trained if p.dim() < 2]
    return [{"params": [p for p in trained if p.dim() >= 2]}, {"params": vectors, "weight_decay": 0.0}]


def losses(module: nn.Module, source: Built, count: int, seed: int = 0) -> Iterator[Tensor]:
    """The loss on one batch after another, tokens or pictures like the example's."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        args = tuple(_drawn(value, generator) for value in source.args)
        kwargs = {key: _drawn(value, generator) for key, value in source.kwargs.items()}
        result = module(*args, **kwargs)
        logits = result if isinstance(result, Tensor) else result.logits
        targets = torch.randint(logits.shape[-1], logits.shape[:-1], generator=generator)
        yield nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten())


def _drawn(example: Tensor, generator: torch.Generator) -> Tensor:
    if example.is_floating_point():
        return torch.randn(example.shape, generator=generator, dtype=example.dtype)
    return torch.randint(int(example.max()) + 1, example.shape, generator=generator)


def trained(module: nn.Module, optimizer: Optimizer, source: Built, count: int, seed: int = 0) -> list[float]:
    """The losses of so many steps."""
    seen = []
    for loss in losses(module, source, count, seed):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    return seen


class Follower:
    """A source and its clone, traced once; every optimizer begins with the same weights."""

    def __init__(self, name: str, **options: Any) -> None:
        self.source = built(name)
        self.weights = {key: value.clone() for key, value in self.source.module.state_dict().items()}
        with self.lifted():
            self.clone = clone(self.source.module, self.source.args, self.source.kwargs, name=name, **options)

    def lifted(self) -> AbstractContextManager[Any]:
        """Float64 where the code of transformers asks for float32; nothing for code that never does."""
        return Lifted() if any("float32" in repr(node.operands) for node in self.nodes()) else nullcontext()

    def nodes(self) -> list[Any]:
        return self.clone.graph.nodes if hasattr(self, "clone") else []

    def start(self, make: Make, before: int = 5) -> Optimizer:
        """An optimizer of the source that has taken some steps."""
        self.source.module.load_state_dict(self.weights)
        optimizer = make(groups_of(self.source.module))
        with self.lifted():
            trained(self.source.module, optimizer, self.source, before)
        return optimizer

    def deviation(self, optimizer: str, steps: int = 50) -> float:
        """How far the losses of the clone are from those that its source would have had, relative, at worst."""
        own = self.start(OPTIMIZERS[optimizer])
        with self.lifted():
            wide = self.clone.module()
            grown = grow_optimizer(self.clone, own, wide)
            expected = trained(self.source.module, own, self.source, steps, seed=1)
            actual = trained(wide, grown, self.source, steps, seed=1)
        return max(abs(a - b) / abs(a) for a, b in zip(expected, actual, strict=True))


@cache
def follower(name: str, **options: Any) -> Follower:
    """It is shared: every test begins with ``start``."""
    return Follower(name, **options)
