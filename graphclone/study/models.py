"""The models of a study at any width: as they are, wider with random weights, or wider as a clone of a trained one."""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.func import functional_call
from torch.nn import functional as F

from graphclone.errors import GraphcloneError, first_line
from graphclone.models import MODELS
from graphclone.models.huggingface import new_model
from graphclone.sources import function, is_function
from graphclone.study.config import DEPTH
from graphclone.study.initialisations import INITIALISATIONS, Beginning

if TYPE_CHECKING:
    from graphclone.clones.clone import Clone
    from graphclone.pipeline.state import Request
    from graphclone.study.config import Model
    from graphclone.study.recipes import Recipe

_BATCH, _SEQUENCE = 2, 7

_NO_SPECIAL_TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


@dataclass(frozen=True)
class Family:
    """One model at every width.

    Attributes:
        model: what the study says of it.
        vocabulary: of the corpus.
        context: tokens of a sequence.
        cache: a folder for configurations that have been solved for.
    """

    model: Model
    vocabulary: int
    context: int
    cache: Path

    def build(self, factor: int, seed: int) -> torch.nn.Module:
        """The model with fresh random weights, or those of its checkpoint where the factor is 1; in training mode.

        Raises:
            GraphcloneError: it cannot be built, or takes other tokens than the corpus has.
        """
        try:
            make = self._user(factor) if is_function(self.model.source) else self._pretrained(factor)
            torch.manual_seed(seed)
            module = make()
        except GraphcloneError:
            raise
        except Exception as error:  # a configuration of the user's, or code of the user's
            raise GraphcloneError(f"model {self.model.name}: cannot be built: {first_line(error)}") from error
        self._check(module)
        return module.train()

    def clone(
        self,
        bases: Sequence[torch.nn.Module],
        factor: int,
        recipe: Recipe,
        seed: int,
        batch: Callable[[int], torch.Tensor],
    ) -> tuple[torch.nn.Module, Clone]:
        """The wide model with the weights of the small one, and how they were widened; see ``initialisations``.

        Args:
            bases: as many as the recipe takes; the first is the one that is cloned.
            factor: by how much it grows.
            recipe: how.
            seed: of what is random.
            batch: tokens to learn growth from, by number, shape (batch, context + 1).

        Raises:
            GraphcloneError: the model cannot be widened so.
        """
        small, *others = bases
        wide, widening = self._clone(small, factor, recipe, seed)
        if (begin := INITIALISATIONS.get(recipe.strategy)) is not None:
            loss = partial(_loss, wide, batch)
            other = next((self._clone(base, factor, recipe, seed)[0].state_dict() for base in others), None)
            beginning = Beginning(widening, small.state_dict(), wide.state_dict(), loss, seed, other)
            wide.load_state_dict(begin(beginning))
        return wide.train(), widening

    def _clone(self, small: torch.nn.Module, factor: int, recipe: Recipe, seed: int) -> tuple[torch.nn.Module, Clone]:
        from graphclone.api import clone

        wide, strategy = self.build(factor, seed), recipe.strategy_of_clones()
        assert strategy is not None
        tokens = torch.arange(_BATCH * _SEQUENCE).view(_BATCH, _SEQUENCE) % self.vocabulary
        name = self.model.name
        return wide, clone(small.eval(), (tokens,), into=wide.eval(), strategy=strategy, seed=seed, name=name)

    def _user(self, factor: int) -> Callable[[], torch.nn.Module]:
        if self.model.dims:
            raise GraphcloneError(f"model {self.model.name}: {self.model.source} builds any width; leave out dims")
        make, keyword = function(self.model.source), "deepen" if self.model.grows == DEPTH else "widen"
        if keyword not in inspect.signature(make).parameters:
            raise GraphcloneError(f"{self.model.source}: must take {keyword}=, the factor to build the model with")
        return partial(self._called, partial(make, **{keyword: factor}, **self.model.fields))

    def _called(self, make: Callable[[], Any]) -> torch.nn.Module:
        result = make()
        module = result[0] if isinstance(result, tuple) else result
        if not isinstance(module, torch.nn.Module):
            raise GraphcloneError(f"{self.model.source}: expected a module, got {type(module).__name__}")
        return module

    # Models of transformers

    def _pretrained(self, factor: int) -> Callable[[], torch.nn.Module]:
        if factor > 1:
            return partial(_from_config, self._wider(factor))
        if (model := MODELS.get(self.model.source)) is None:
            return self._loaded
        sizes = {"vocab_size": self.vocabulary, "max_position_embeddings": self.context}
        fields = {**model.fields, **sizes, **_NO_SPECIAL_TOKENS, **self.model.fields}
        return partial(new_model, "CausalLM", model.model_type, fields)

    def _loaded(self) -> torch.nn.Module:
        from graphclone.formats.huggingface.reader import imported, quiet_transformers

        with self._saved() as folder, quiet_transformers():
            module: torch.nn.Module = imported().AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            return module

    def _wider(self, factor: int) -> dict[str, Any]:
        """The configuration of the wide model, solved for once."""
        path = self.cache / f"{self.model.name}-{factor}x.json"
        if not path.exists():
            from graphclone.formats.huggingface.plan import plan
            from graphclone.formats.huggingface.reader import open_checkpoint
            from graphclone.runtime.files import written

            with self._saved() as folder:
                checkpoint = open_checkpoint(folder)
                fields = plan(checkpoint, self._request(checkpoint.config, factor)).config
            self.cache.mkdir(parents=True, exist_ok=True)
            with written(path) as partial:
                partial.write_text(json.dumps(fields, indent=1), encoding="utf-8")
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return config

    def _request(self, config: Any, factor: int) -> Request:
        from graphclone.pipeline.state import Request

        if self.model.grows == DEPTH:
            return Request(depth=factor * config.num_hidden_layers)
        return Request(dict.fromkeys(self.model.dims, factor) or factor)

    @contextmanager
    def _saved(self) -> Iterator[Path]:
        """The folder of the model's checkpoint; that of a model in models/ is made for the while."""
        if self.model.source not in MODELS:
            from graphclone.formats.huggingface.reader import open_checkpoint

            yield open_checkpoint(self.model.source).folder
            return
        from graphclone.formats.huggingface.reader import quiet_transformers

        with tempfile.TemporaryDirectory() as folder:
            module: Any = self._pretrained(1)()
            with quiet_transformers():
                module.save_pretrained(folder)
            yield Path(folder)

    def _check(self, module: torch.nn.Module) -> None:
        with torch.no_grad():
            shape = logits(module, torch.zeros(1, 2, dtype=torch.int64)).shape
        if len(shape) != 3 or shape[:2] != (1, 2) or shape[2] < self.vocabulary:
            raise GraphcloneError(
                f"model {self.model.name}: tokens of shape (1, 2) should give logits of shape (1, 2, at least "
                f"{self.vocabulary}), but give {tuple(shape)}"
            )


def _from_config(fields: Mapping[str, Any]) -> torch.nn.Module:
    return new_model("CausalLM", fields["model_type"], {k: v for k, v in fields.items() if k != "model_type"})


def _loss(
    module: torch.nn.Module, batch: Callable[[int], torch.Tensor], tensors: Mapping[str, torch.Tensor], number: int
) -> torch.Tensor:
    """Nats per token of a module with these tensors, on the batch of a number."""
    # tied weights are all among the tensors, under each of their names
    call = partial(functional_call, module, dict(tensors), tie_weights=False)
    return losses(lambda inputs: call(args=(inputs,)), batch(number)).mean()


def losses(module: Callable[[torch.Tensor], Any], tokens: torch.Tensor) -> torch.Tensor:
    """The loss of every token that follows another, in nats, shape (batch * (sequence - 1),), in float32.

    Args:
        module: see ``logits``.
        tokens: shape (batch, sequence), int64.
    """
    predictions = logits(module, tokens[:, :-1]).float()
    return F.cross_entropy(predictions.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")


def logits(module: Callable[[torch.Tensor], Any], tokens: torch.Tensor) -> torch.Tensor:
    """The logits of the token after each, shape (batch, sequence, vocabulary).

    Args:
        module: returns a tensor, something with ``.logits``, or a tuple or dict that begins with them.
        tokens: shape (batch, sequence), int64.
    """
    result = module(tokens)
    if isinstance(result, torch.Tensor):
        return result
    prediction = getattr(result, "logits", None)
    if prediction is None:
        prediction = next(iter(result.values())) if isinstance(result, dict) else result[0]
    assert isinstance(prediction, torch.Tensor)
    return prediction


class Averaged(torch.nn.Module):
    """Several models side by side, whose logits are averaged.

    Args:
        models: see ``logits``; they become the children of this one.
    """

    def __init__(self, models: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.models = torch.nn.ModuleList(models)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.stack([logits(model, tokens) for model in self.models]).mean(0)
