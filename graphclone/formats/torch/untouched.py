"""Leave a caller's modules, and the random state of the process, as they were found."""

from __future__ import annotations

import copy
import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

_CONTAINERS = (list, dict, set, OrderedDict, defaultdict, Counter, deque)
"""What is filled again as it was, hooks and submodules among it. A class of one's own need not bear that."""


@contextmanager
def untouched(*modules: torch.nn.Module) -> Iterator[None]:
    """Undo what a block does to modules and to random number generators.

    Restored are training flags, attributes, hooks, the contents of containers and of tensors that are attributes,
    buffers, gradients, generators that modules hold, and the global generators of Python, numpy and torch. Weights that
    a forward pass writes are not: no module that is to be cloned does that.
    """
    with ExitStack() as stack, torch.random.fork_rng():
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002 (the global one is meant)
        for module in modules:
            for owner in module.modules():
                stack.callback(_undoing(owner))
        yield


def _undoing(module: torch.nn.Module) -> Callable[[], None]:
    """What restores one module, its children apart."""
    attributes = dict(module.__dict__)
    contents = {k: copy.copy(v) for k, v in attributes.items() if type(v) in _CONTAINERS}
    tensors = (*module._buffers.values(), *attributes.values())
    saved_tensors = [_Saved(tensor) for tensor in tensors if isinstance(tensor, torch.Tensor)]
    gradients = [(parameter, parameter.grad) for parameter in module._parameters.values() if parameter is not None]
    generators = [(g, g.get_state()) for g in attributes.values() if isinstance(g, torch.Generator)]

    def undo() -> None:
        module.__dict__.clear()
        module.__dict__.update(attributes)
        for name, content in contents.items():
            _refill(attributes[name], content)
        for saved in saved_tensors:
            saved.restore()
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for generator, state in generators:
            generator.set_state(state)

    return undo


class _Saved:
    """A tensor and what it held."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self.data = tensor.detach().clone()
        self.version = _version(tensor)

    def restore(self) -> None:
        if self.version is None or self.version != _version(self.tensor):
            with torch.no_grad():
                self.tensor.copy_(self.data)


def _version(tensor: torch.Tensor) -> int | None:
    """How often a tensor has been written; None where torch does not count."""
    return None if tensor.is_inference() else tensor._version


def _refill(container: Any, content: Any) -> None:
    container.clear()
    (container.extend if isinstance(container, list | deque) else container.update)(content)
