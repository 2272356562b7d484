"""The structure of inputs: the lists, tuples and dicts that their tensors lie in, as a trace was given them.

A module may count the items of a list, ask whether a dict has a key, or take values in the order of the keys. Its trace
did so once.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree


def argument_names(program: ExportedProgram) -> tuple[str, ...]:
    """The names of the arguments that a program was traced with, those by position first."""
    signature = program.module_call_graph[0].signature
    names = None if signature is None else getattr(signature, "forward_arg_names", None)
    positional, keywords = program.call_spec.in_spec.children()
    unknown = [f"argument {i + 1}" for i in range(positional.num_children)]
    return tuple(names or (*unknown, *keywords.context))


def misfits(inputs: Any, spec: pytree.TreeSpec, names: Sequence[str], *, any_order: bool) -> Iterator[str]:
    """Where the structure of inputs is not that of a trace.

    Args:
        inputs: a pair of a list and a dict: what a module is called with.
        spec: of what it was traced with.
        names: of the arguments, those by position first.
        any_order: whether dicts may have their keys in another order.
    """
    positional, keywords = inputs
    values = (*positional, *keywords.values())
    specs = [part for group in spec.children() for part in group.children()]
    for name, value, part in zip(names, values, specs, strict=True):
        yield from _misfits(name, value, part, any_order)


def _misfits(name: str, value: Any, spec: pytree.TreeSpec, any_order: bool) -> Iterator[str]:
    if spec.is_leaf() or isinstance(value, torch.fx.Proxy):
        return
    if (keys := _keys(spec)) is not None:
        yield from _dict_misfits(name, value, spec, keys, any_order)
    elif spec.type in (list, tuple):
        if not isinstance(value, list | tuple):
            yield f"{name} is a {type(value).__name__}, traced with a {spec.type.__name__}"
        elif len(value) != spec.num_children:
            yield f"{name} has {len(value)} items, traced with {spec.num_children}"
        else:
            for i, part in enumerate(spec.children()):
                yield from _misfits(f"{name}[{i}]", value[i], part, any_order)
    else:  # a class that is registered; of a named tuple, whichever, the context says which
        expected = spec.context if isinstance(spec.context, type) else spec.type
        if type(value) is not expected:
            yield f"{name} is a {type(value).__name__}, traced with a {expected.__name__}"


def _dict_misfits(
    name: str, value: Any, spec: pytree.TreeSpec, traced: Sequence[Any], any_order: bool
) -> Iterator[str]:
    keys = list(value.keys()) if hasattr(value, "keys") else None
    if keys is None:
        yield f"{name} is a {type(value).__name__}, traced with a {spec.type.__name__}"
    elif keys != traced and not (any_order and set(keys) == set(traced)):
        order = " in this order" if set(keys) == set(traced) else ""
        yield f"{name} has the keys {_listed(keys)}, traced with {_listed(traced)}{order}"
    else:
        for key, part in zip(traced, spec.children(), strict=True):
            yield from _misfits(f"{name}[{key!r}]", value[key], part, any_order)


def leaves_of(value: Any, spec: pytree.TreeSpec) -> Iterator[Any]:
    """The inputs one by one, in the order of a trace.

    Args:
        value: inputs that have the structure of the trace, any class of dicts being like any other.
        spec: of what was traced.
    """
    if spec.is_leaf():
        yield value
        return
    if (keys := _keys(spec)) is not None:
        parts: Any = [value[key] for key in keys]
    elif spec.type in (list, tuple):
        parts = [value[i] for i in range(spec.num_children)]
    else:
        parts = pytree.SUPPORTED_NODES[spec.type].flatten_fn(value)[0]
    for part, child in zip(parts, spec.children(), strict=True):
        yield from leaves_of(part, child)


def _keys(spec: pytree.TreeSpec) -> list[Any] | None:
    """The keys of a dict, of whichever class; None of anything else."""
    if spec.type is defaultdict:
        return list(spec.context[1])
    return list(spec.context) if spec.type in (dict, OrderedDict) else None


def has_orders(spec: pytree.TreeSpec) -> bool:
    """Whether there is a dict of several keys among the inputs."""
    arguments = (part for group in spec.children() for part in group.children())
    return any(_has_orders(part) for part in arguments)


def _has_orders(spec: pytree.TreeSpec) -> bool:
    return (_keys(spec) is not None and spec.num_children > 1) or any(map(_has_orders, spec.children()))


def turned(value: Any) -> Any:
    """An input with the keys of all its dicts in the opposite order."""
    if isinstance(value, Mapping):
        return {key: turned(value[key]) for key in reversed(value)}
    if type(value) in (list, tuple):
        return type(value)(map(turned, value))
    return value


def _listed(keys: Sequence[Any]) -> str:
    return ", ".join(map(str, keys)) or "none"
