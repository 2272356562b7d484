"""Outputs in Python's own containers, so that a program can be loaded without the library that it came from."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from pathlib import Path
from typing import Any

from torch.utils import _pytree as pytree

from graphclone.errors import GraphcloneError
from graphclone.graph.ir import Graph

_OWN = (tuple, list, dict, OrderedDict, defaultdict, deque)


def output_names(spec: pytree.TreeSpec) -> list[str]:
    """A name per output: its field or key where the model returns a structure of named things.

    Args:
        spec: the layout of the outputs, as torch.export has it.
    """
    return [".".join(path) or "output" for path in _paths(_numbered(spec))]


def plain_outputs(spec: pytree.TreeSpec) -> pytree.TreeSpec:
    """The layout of the same outputs with Python's own containers in place of classes of other libraries.

    A class with named parts becomes a dict of them, any other class a tuple. Named tuples become tuples, since torch
    cannot write them.

    Args:
        spec: the layout of the outputs, as torch.export has it.

    Returns:
        A layout of as many outputs, in the same order.
    """
    numbers, plain = pytree.tree_flatten(_plain(_numbered(spec)))
    assert numbers == list(range(spec.num_leaves))
    return plain


def _numbered(spec: pytree.TreeSpec) -> Any:
    return pytree.tree_unflatten(list(range(spec.num_leaves)), spec)


def _paths(tree: Any) -> list[tuple[str, ...]]:
    if pytree.tree_is_leaf(tree):
        return [()]
    return [(str(key), *path) for key, part in _parts(tree).items() for path in _paths(part)]


def _plain(tree: Any) -> Any:
    if pytree.tree_is_leaf(tree):
        return tree
    if type(tree) in _OWN:
        return pytree.tree_map(_plain, tree, is_leaf=lambda part: part is not tree)
    parts = {key: _plain(part) for key, part in _parts(tree).items()}
    unnamed = isinstance(tree, tuple) or list(parts) == list(range(len(parts)))
    return (*parts.values(),) if unnamed else parts


def _parts(tree: Any) -> dict[Any, Any]:
    """The parts of a container by field or key, or by number if whoever registered its class told no keys."""
    try:
        parts, _ = pytree.tree_flatten_with_path(tree, is_leaf=lambda part: part is not tree)
    except ValueError:
        return dict(enumerate(pytree.tree_leaves(tree, is_leaf=lambda part: part is not tree)))
    return {_key(*path): part for path, part in parts}


def _key(step: Any) -> Any:
    """The key, the position or the field that a step of a path names."""
    for attribute in ("key", "idx", "name"):
        if hasattr(step, attribute):
            return getattr(step, attribute)
    return str(step)


def refuse_texts(graph: Graph, path: Path) -> None:
    """Refuse a model that returns a text: no file of ONNX holds one so, and torch reads no program again that does.

    Raises:
        GraphcloneError: it does.
    """
    if any(isinstance(output.operand, str) for output in graph.outputs):
        raise GraphcloneError(f"{path}: the model returns a text, which no {path.suffix} can; save .safetensors")
