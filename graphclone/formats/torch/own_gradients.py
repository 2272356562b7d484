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
    with ExitStack() as stack:
        for function in _functions():
            forward = vars(function)["forward"]
            if isinstance(forward, staticmethod):
                function.forward = staticmethod(_noted(forward.__func__, function.__name__, names))
                stack.callback(setattr, function, "forward", forward)
        register = torch.Tensor.register_hook
        torch.Tensor.register_hook = _noted(register, "a hook of a result", names)  # type: ignore[method-assign]
        stack.callback(setattr, torch.Tensor, "register_hook", register)
        yield names


def _owners(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    yield from module.named_modules()
    yield from module.named_parameters()


def _hooks(owner: Any) -> bool:
    return any(getattr(owner, kind, None) for kind in _KINDS)


_KINDS = ("_backward_hooks", "_backward_pre_hooks", "_post_accumulate_grad_hooks")
"""Where torch keeps the hooks on gradients of modules and parameters."""


def _functions(base: type[Any] = torch.autograd.Function) -> Iterator[type[Any]]:
    """The classes of functions with a gradient of their own, but for torch's."""
    function: type[Any]
    for function in base.__subclasses__():
        if function.__module__.partition(".")[0] != "torch" and "forward" in vars(function):
            yield function
        yield from _functions(function)


def _noted(forward: Callable[..., Any], name: str, names: set[str]) -> Callable[..., Any]:
    @wraps(forward)
    def noting(*args: Any, **kwargs: Any) -> Any:
        names.add(name)
        return forward(*args, **kwargs)

    return noting


@contextmanager
def grad_modes() -> Iterator[None]:
    """Let a trace know where gradients are on.

    torch turns them off for the forward of a ``torch.autograd.Function``, and in ``torch.inference_mode``, without
    telling the trace. A reentrant checkpoint is traced as what it checkpoints.
    """
    modes, original = torch.inference_mode, vars(torch.autograd.Function)["apply"]
    enter, leave = modes.__enter__, modes.__exit__
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

    with ExitStack() as stack:
        for owner, name, own, others in (
            (torch.autograd.Function, "apply", classmethod(apply), original),
            (modes, "__enter__", begin, enter),
            (modes, "__exit__", end, leave),
        ):
            setattr(owner, name, own)
            stack.callback(setattr, owner, name, others)
        yield
