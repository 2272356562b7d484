"""Code that says itself what its gradients are, of which a trace keeps what it computes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointFunction


@contextmanager
def own_gradients(module: torch.nn.Module) -> Iterator[set[str]]:
    """The names of what has gradients of its own in a module that is run in the block.

    These are functions of ``torch.autograd.Function``, once they are called, and hooks on gradients.
    """
    names = {f"a hook of {name or type(module).__name__}" for name, owner in _owners(module) if _hooks(owner)}
    apply: Any = vars(torch.autograd.Function)["apply"]
    register: Any = torch.Tensor.register_hook

    def noting(function: type[Any], *args: Any, **kwargs: Any) -> Any:
        if function.__module__.partition(".")[0] != "torch":
            names.add(function.__name__)
        return apply.__func__(function, *args, **kwargs)

    def hooked(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        names.add("a hook of a result")
        return register(tensor, *args, **kwargs)

    changes = [(torch.autograd.Function, "apply", classmethod(noting)), (torch.Tensor, "register_hook", hooked)]
    changes += _forwards(names)  # code may have taken hold of apply before
    with _replaced(*changes):
        yield names


def _forwards(names: set[str]) -> Iterator[tuple[type[Any], str, Any]]:
    """The forward of every function with a gradient of its own, but for torch's, that notes the name once called."""
    for function in _functions():
        forward = vars(function).get("forward")
        if isinstance(forward, staticmethod):
            yield function, "forward", staticmethod(_noted(forward.__func__, function.__name__, names))


def _functions(base: type[Any] = torch.autograd.Function) -> Iterator[type[Any]]:
    function: type[Any]
    for function in base.__subclasses__():
        if function.__module__.partition(".")[0] != "torch":
            yield function
        yield from _functions(function)


def _noted(forward: Callable[..., Any], name: str, names: set[str]) -> Callable[..., Any]:
    @wraps(forward)
    def noting(*args: Any, **kwargs: Any) -> Any:
        names.add(name)
        return forward(*args, **kwargs)

    return noting


@contextmanager
def _replaced(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    """Attributes of classes replaced within the block."""
    with ExitStack() as stack:
        for owner, name, own in changes:
            stack.callback(setattr, owner, name, vars(owner)[name])
            setattr(owner, name, own)
        yield


@contextmanager
def inference_modes() -> Iterator[list[str]]:
    """Where ``torch.inference_mode`` is entered, once for each time."""
    entered: list[str] = []
    enter: Any = torch.inference_mode.__enter__

    def begin(self: torch.inference_mode) -> None:
        entered.append("torch.inference_mode")
        enter(self)

    with _replaced((torch.inference_mode, "__enter__", begin)):
        yield entered


def _owners(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    yield from module.named_modules()
    yield from module.named_parameters()


def _hooks(owner: Any) -> bool:
    return any(getattr(owner, kind, None) for kind in _KINDS)


_KINDS = ("_backward_hooks", "_backward_pre_hooks", "_post_accumulate_grad_hooks")
"""Where torch keeps the hooks on gradients of modules and parameters."""


@contextmanager
def grad_modes() -> Iterator[None]:
    """Let a trace know where gradients are on.

    torch turns them off for the forward of a ``torch.autograd.Function``, and in ``torch.inference_mode``, without
    telling the trace. A reentrant checkpoint is traced as what it checkpoints.
    """
    modes, original = torch.inference_mode, vars(torch.autograd.Function)["apply"]
    before: list[bool] = []

    def apply(function: type[Any], *args: Any, **kwargs: Any) -> Any:
        if function is CheckpointFunction:
            run, _, *inputs = args
            return run(*inputs)
        enabled = torch.is_grad_enabled()
        results = original.__func__(function, *args, **kwargs)
        torch.set_grad_enabled(enabled)
        return results

    def begin(self: torch.inference_mode) -> None:
        before.append(torch.is_grad_enabled())
        torch.set_grad_enabled(before[-1] and not self.mode)

    def end(self: torch.inference_mode, *error: Any) -> None:
        del self, error
        torch.set_grad_enabled(before.pop())

    of_functions = torch.autograd.Function, "apply", classmethod(apply)
    with _replaced(of_functions, (modes, "__enter__", begin), (modes, "__exit__", end)):
        yield
