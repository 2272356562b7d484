"""The class that a checkpoint is of: the one that its configuration names, or that its weights fill."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from graphclone.formats.huggingface.conversion import DiskTensor, loaded

_HEADS = ("CAUSAL_LM", "SEQ_TO_SEQ_CAUSAL_LM", "MASKED_LM", "IMAGE_TEXT_TO_TEXT", "SPEECH_SEQ_2_SEQ")
"""Tasks that are meant where weights fit several."""


def fitting_class(config: Any, disk: Mapping[str, DiskTensor], build: Any) -> Any | None:
    """The class for a type of model that finds all its weights and leaves the fewest; None where there is none.

    Args:
        config: whose type of model is known.
        disk: the weights on disk by name.
        build: makes a model without weights from a class.
    """
    ranked = []
    for order, cls in enumerate(dict.fromkeys(_classes(config))):
        try:
            module = build(cls)
            tensors = loaded(module, disk)
        except Exception:  # whatever a class raises that is not meant
            continue
        parameters = dict(module.named_parameters(remove_duplicate=False))
        filled = {id(parameter) for name, parameter in parameters.items() if name in tensors}
        if all(id(parameter) in filled for parameter in parameters.values()):
            used = {part.name for name in tensors if name in module.state_dict() for part in tensors[name].parts}
            exact = sum(name in parameters for name in disk)
            ranked.append((len(disk) - len(used), -exact, order, cls))
    return min(ranked, key=lambda item: item[:3])[3] if ranked else None


def _classes(config: Any) -> Iterator[Any]:
    """All classes of transformers for a type of model, those of the commonest tasks first."""
    from transformers.models.auto import modeling_auto

    names = [name for name in vars(modeling_auto) if name.startswith("MODEL_") and name.endswith("_MAPPING")]
    common = [f"MODEL_FOR_{head}_MAPPING" for head in _HEADS]
    for name in sorted(names, key=lambda name: common.index(name) if name in common else len(common)):
        entry = getattr(modeling_auto, name).get(type(config), ())
        yield from entry if isinstance(entry, tuple) else (entry,)
