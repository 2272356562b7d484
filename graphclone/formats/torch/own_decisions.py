"""Decisions by what a model itself holds, such as a flag in a buffer: a trace takes them as they are.

torch.export takes the numbers out of every tensor, also out of those that are the same whatever the inputs are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch._subclasses.fake_tensor import is_fake
from torch.fx.experimental.proxy_tensor import py_sym_types
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.weak import WeakIdKeyDictionary

_MOST = 4096
"""Elements of what is followed. Flags and lists of places are small."""


@contextmanager
def own_decisions(module: torch.nn.Module | None, *, varying: bool = True) -> Iterator[list[str]]:
    """Answer code that asks whether a tensor is true, or where, if it is computed from the module's own numbers alone.

    These are its buffers of integers and flags, tensors that are no part of it, and what the code makes of plain
    numbers. Parameters are learned, and statistics move. What is asked for as a number stays an operator of the trace.

    Args:
        module: that is traced in the block; None where nothing is to be answered.
        varying: whether the trace tells sizes from plain numbers. Where it does not, what is made of plain numbers may
            be made of sizes, such as the places of tokens, and is not answered for.

    Yields:
        The names of the buffers by which something was decided, in the end.

    Raises:
        RuntimeError: the code writes to what it has decided by, so that the next run may be another.
    """
    names: list[str] = []
    if module is None:
        yield names
        return
    follower = _Follower(module, _MAKING if varying else ())
    with _while_called(module, follower):
        yield names
    if written := follower.decided & follower.written:
        what = ", ".join(sorted(root for root in written if isinstance(root, str))) or "a tensor"
        raise RuntimeError(f"the code decides by {what}, which it writes to as well")
    names += sorted(root for root in follower.decided if isinstance(root, str))


@contextmanager
def _while_called(module: torch.nn.Module, mode: TorchFunctionMode) -> Iterator[None]:
    """Enter a mode whenever the module is called, so that it lies above those of torch.export, which call much more."""
    with ExitStack() as stack:

        def enter(*_: Any) -> None:
            stack.enter_context(mode)

        def leave(*_: Any) -> None:
            stack.close()

        hooks = (module.register_forward_pre_hook(enter), module.register_forward_hook(leave, always_call=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


@dataclass(frozen=True, eq=False)
class _Known:
    """A tensor that can be computed from the module's own numbers.

    Attributes:
        compute: gives its numbers.
        roots: what it is computed from: names of buffers, and other tensors.
    """

    compute: Callable[[], Any]
    roots: frozenset[Any]


class _Follower(TorchFunctionMode):
    """Keeps in mind how to compute whatever the code computes from the module's own numbers."""

    def __init__(self, module: torch.nn.Module, making: Collection[Callable[..., Any]]) -> None:
        super().__init__()
        self.making = making
        self.decided: set[Any] = set()
        self.written: set[Any] = set()
        self._buffers = [
            (owner, name, f"{prefix}.{name}".lstrip("."), buffer)
            for prefix, owner in module.named_modules()
            for name, buffer in owner._buffers.items()
            if buffer is not None and _has_numbers(buffer) and not _is_continuous(buffer)
        ]
        tables = (part._parameters for part in module.modules())
        self._parameters = [(table, name) for table in tables for name in table if table[name] is not None][:1]
        self._stand_ins: list[Any] = []
        self._others: list[Any] = []
        self._known = WeakIdKeyDictionary()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") == "__get__":  # a shape or a dtype, most of all
            return function(*args, **kwargs)
        tensors = [*_tensors(args), *_tensors(kwargs.values())]
        self._look_at_buffers()
        known = [found for tensor in tensors if (found := self._of(tensor)) is not None]
        if known and _writes(function, kwargs):
            self.written |= frozenset[Any]().union(*(found.roots for found in known))
        elif (known or function in self.making) and len(known) == len(tensors) and not _has_sizes((args, kwargs)):
            return self._followed(function, args, kwargs, known)
        return function(*args, **kwargs)

    def _look_at_buffers(self) -> None:
        """Know the tensors that stand for buffers in a trace, which replaces all of a module, or by the code itself."""
        now = [owner._buffers.get(name) for owner, name, _, _ in self._buffers]
        others = [table[name] for table, name in self._parameters]
        begins = not self._stand_ins or any(a is not b for a, b in zip(others, self._others, strict=True))
        for (_, _, path, buffer), stand_in, before in zip(self._buffers, now, self._stand_ins or now, strict=True):
            if begins:
                self._known[stand_in] = _Known(partial(lambda numbers: numbers, buffer), frozenset([path]))
            elif stand_in is not before:
                self.written.add(path)
        self._stand_ins, self._others = now, others

    def _of(self, tensor: torch.Tensor) -> _Known | None:
        known = self._known.get(tensor)
        if known is None and _is_constant(tensor):
            known = _Known(lambda: tensor, frozenset([id(tensor)]))
        return known if known is not None and known.roots.isdisjoint(self.written) else None

    def _followed(
        self, function: Callable[..., Any], args: Any, kwargs: Mapping[str, Any], known: Sequence[_Known]
    ) -> Any:
        roots = frozenset[Any]().union(*(found.roots for found in known)) or frozenset([object()])
        arguments = pytree.tree_map_only(torch.Tensor, self._of, (args, kwargs))

        def compute() -> Any:
            given = pytree.tree_map_only(_Known, lambda found: found.compute(), arguments)
            return function(*given[0], **given[1])

        if function in _QUESTIONS and (answer := _without_trace(compute)) is not None:
            self.decided |= roots
            return pytree.tree_map_only(torch.Tensor, _written_out, answer)
        result = function(*args, **kwargs)
        for number, leaf in enumerate(pytree.tree_leaves(result)):
            if isinstance(leaf, torch.Tensor) and not _has_sizes(tuple(leaf.shape)) and leaf.numel() <= _MOST:
                self._known[leaf] = _Known(partial(_leaf, compute, number), roots)
        return result


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """The tensors among the arguments of a function of torch, which come in lists at the most."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _leaf(compute: Callable[[], Any], number: int) -> Any:
    return pytree.tree_leaves(compute())[number]


def _has_numbers(tensor: torch.Tensor) -> bool:
    return not (tensor.is_meta or is_fake(tensor) or torch._is_functional_tensor(tensor))


def _is_continuous(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _is_constant(tensor: torch.Tensor) -> bool:
    """Whether a tensor that is met in a trace is no part of the model or of its inputs, which others stand for."""
    return type(tensor) is torch.Tensor and not tensor.requires_grad and _has_numbers(tensor)


_MAKING = (torch.tensor, torch.arange, torch.linspace, torch.zeros, torch.ones, torch.full)
"""Functions that make tensors of plain numbers, and of sizes."""

_QUESTIONS = (torch.Tensor.__bool__, torch.nonzero, torch.Tensor.nonzero)

_WRITING = {"__setitem__"} | {
    f"__i{name}__" for name in "add sub mul truediv floordiv mod pow and or xor lshift rshift".split()
}


def _without_trace(compute: Callable[[], Any]) -> Any:
    """The numbers; None if they are drawn at random."""
    before = torch.get_rng_state()
    with _disable_current_modes(), torch.no_grad():
        numbers = compute()
    return numbers if torch.equal(before, torch.get_rng_state()) else None


def _written_out(numbers: torch.Tensor) -> torch.Tensor:
    """The numbers as a constant of the trace."""
    return torch.tensor(numbers.tolist(), dtype=numbers.dtype).reshape(numbers.shape)


def _has_sizes(values: Any) -> bool:
    """Whether sizes of inputs are among values, which may be others in another run."""
    leaves = pytree.tree_leaves(values)
    ends = (end for leaf in leaves if isinstance(leaf, slice) for end in (leaf.start, leaf.stop, leaf.step))
    return any(isinstance(value, py_sym_types) for value in chain(leaves, ends))


def _writes(function: Callable[..., Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a function writes into one of its operands."""
    name = getattr(function, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name in _WRITING or "out" in kwargs
