"""Source models to widen: the three families of the HyperCloning paper, small and at their published sizes.

Weights are random, so nothing is downloaded. The families' definitions come from transformers, an optional
dependency. Building under ``torch.device("meta")`` or a FakeTensorMode allocates nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from graphclone.errors import GraphcloneError
from graphclone.models import olmo, opt, pythia
from graphclone.models.source import Built, CausalLM

__all__ = ["MODELS", "Built", "CausalLM", "build"]

MODELS: Mapping[str, CausalLM] = MappingProxyType({**opt.MODELS, **pythia.MODELS, **olmo.MODELS})


def build(name: str) -> Built:
    """Build a model that comes with graphclone, with random weights, in eval mode.

    Args:
        name: a key of ``graphclone.models.MODELS``, such as ``"pythia-mini"``.

    Returns:
        The module, with example inputs.

    Raises:
        GraphcloneError: there is no such model.
        MissingExtraError: transformers is not installed.

    Examples:
        >>> built = gc.build("pythia-mini")
        >>> built.module(**built.kwargs)[0].shape
        torch.Size([2, 7, 127])
    """
    if name not in MODELS:
        raise GraphcloneError(f"no model is called {name!r}: choose one of {', '.join(MODELS)}")
    return MODELS[name].build()
