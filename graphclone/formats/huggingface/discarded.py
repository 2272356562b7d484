"""Results that a class computes and returns to nobody, such as that of a pooler whose model has another head.

torch.export leaves out what nobody reads, and with it all that the weights behind it mean. So such results are returned
besides, as outputs that may grow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from graphclone.algebra.axes import Axis
from graphclone.analysis.facts import Facts
from graphclone.graph.ir import Graph, Output, values_in

_CALL = "()"
"""Behind the name of a module: its result. No output of a class has such a name."""


@contextmanager
def calls_noted(module: torch.nn.Module) -> Iterator[set[str]]:
    """The names of the parts with weights of their own that are called in the block."""
    called: set[str] = set()
    owners = [name for name, part in module.named_modules() if next(part.parameters(recurse=False), None) is not None]
    with _told_results(module, owners, lambda name, _: called.add(name)):
        yield called


@contextmanager
def _told_results(module: torch.nn.Module, names: Collection[str], tell: Callable[[str, Any], None]) -> Iterator[None]:
    """Tell the name and the result of parts of a module whenever one of them is called."""

    def hook(name: str, _: torch.nn.Module, __: Any, result: Any) -> None:
        tell(name, result)

    handles = [module.get_submodule(name).register_forward_hook(partial(hook, name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def owners_of_unread(graph: Graph) -> set[str]:
    """The names of the parts of a model that have parameters of their own of which a graph reads none."""
    read = graph.read()
    owners: dict[bool, set[str]] = {True: set(), False: set()}
    for initializer in graph.initializers:
        if initializer.kind == "parameter":
            owners[initializer.value in read].update(name.rpartition(".")[0] for name in initializer.names)
    return owners[False] - owners[True]


@contextmanager
def returned_besides(module: torch.nn.Module, names: Collection[str]) -> Iterator[None]:
    """Let a module that returns results by name return those of parts of it, too."""
    results: dict[str, list[Any]] = {}
    forward = module.forward

    def both(*args: Any, **kwargs: Any) -> Any:
        results.clear()
        outputs = forward(*args, **kwargs)
        return {**outputs, **results} if isinstance(outputs, Mapping) else outputs

    def keep(name: str, result: Any) -> None:
        results.setdefault(f"{name}{_CALL}", []).append(result)

    module.forward = both
    try:
        with _told_results(module, names, keep):
            yield
    finally:
        module.forward = forward


def let_grow(graph: Graph) -> None:
    """Mark the results that were returned besides as such; what others read after all is returned no more."""
    read = set(graph.users())
    outputs = []
    for output in graph.outputs:
        if _CALL not in output.name:
            outputs.append(output)
        elif read.isdisjoint(values_in(output.operand)):
            outputs.append(Output(output.name, output.operand, free=True))
    graph.outputs = outputs


def names_of(graph: Graph) -> list[str]:
    """The names of the modules whose results nobody reads."""
    return list(dict.fromkeys(output.name.partition(_CALL)[0] for output in graph.outputs if is_discarded(output)))


def is_discarded(output: Output) -> bool:
    """Whether an output is a result that a model returns to nobody."""
    return _CALL in output.name


def loose_dims(facts: Facts) -> set[Axis]:
    """Dims that only discarded results have: nothing says how large they should become.

    Those of a pooler are as wide as the model, and the classes of a head that a loss in training has are as many as
    before. Every other dim is one of an output, or some node takes it and does not hand it on.
    """
    outputs = {discarded: set[Axis]() for discarded in (True, False)}
    for output in facts.graph.outputs:
        outputs[is_discarded(output)] |= facts.leaves(values_in(output.operand))
    read = outputs[False]
    for node in facts.graph.nodes:
        read |= facts.leaves(node.inputs) - facts.leaves(node.outputs)
    return outputs[True] - read
