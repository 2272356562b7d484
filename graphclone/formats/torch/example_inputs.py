"""Example inputs for a trace: which axes are dynamic, and sizes that no width can be mistaken for."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphclone.errors import GraphcloneError
from graphclone.runtime.drawing import resized


def dynamic_axes(tensor: torch.Tensor, lengths: Collection[int] = ()) -> tuple[int, ...]:
    """The axes of an input that should not be fixed: the batch, all of integers, and those of a length in common.

    Args:
        tensor: an input.
        lengths: sizes that may vary in inputs of floats, too.
    """
    counts = not (tensor.is_floating_point() or tensor.is_complex())
    return tuple(a for a, size in enumerate(tensor.shape) if a == 0 or (size != 1 and (counts or size in lengths)))


def lengths_in_common(inputs: Any) -> set[int]:
    """The sizes that axes of a float input have in common with those of another one, their batch apart.

    The other is one of integers, or a float input of another shape, such as a mask over a sequence of vectors.
    """
    lengths: set[int] = set()
    shapes: set[tuple[int, ...]] = set()
    counted: set[int] = set()
    for tensor in _tensors(inputs):
        if len(dynamic_axes(tensor)) > 1:
            counted.update(tensor.shape[axis] for axis in dynamic_axes(tensor)[1:])
        else:
            shapes.add(tuple(tensor.shape[1:]))
    for shape in shapes:
        others = {size for other in shapes - {shape} for size in other}
        lengths |= {size for size in shape if size in counted or size in others}
    return lengths - {1}


def renamed_sizes(inputs: Any, others: Any, sizes: Collection[int]) -> set[int]:
    """What has become of sizes of inputs in others of the same structure, whose equal sizes are equal as well."""
    pairs = zip(_tensors(inputs), _tensors(others), strict=True)
    return {new for a, b in pairs for old, new in zip(a.shape, b.shape, strict=True) if old in sizes}


def named_sizes(module: torch.nn.Module, inputs: tuple[Any, Any], axes: Mapping[str, Sequence[int]]) -> set[int]:
    """The sizes of axes of inputs.

    Args:
        module: what they are fed to.
        inputs: positional and by name.
        axes: numbers of axes, by the name of an argument, followed by the keys or numbers that lead to a tensor in it,
            as in ``batch_x``.

    Raises:
        GraphcloneError: there is no such input or axis.
    """
    tensors = dict(_named_tensors(module, *inputs))
    sizes = set()
    for name, numbers in axes.items():
        if name not in tensors:
            raise GraphcloneError(f"dynamic_axes: there is no input {name!r}; there are {', '.join(tensors)}")
        for number in numbers:
            if not 0 <= number < tensors[name].ndim:
                raise GraphcloneError(f"dynamic_axes: {name} has {tensors[name].ndim} axes, and none numbered {number}")
            sizes.add(tensors[name].shape[number])
    return sizes


def _named_tensors(
    module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors among inputs, under the names that torch.export gives them."""
    signature = inspect.signature(module.forward)
    bound = signature.bind(*args, **kwargs)
    for argument, value in bound.arguments.items():
        by_keyword = signature.parameters[argument].kind is inspect.Parameter.VAR_KEYWORD
        for path, leaf in pytree.tree_flatten_with_path(value)[0]:
            keys = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", "")))) for key in path]
            if isinstance(leaf, torch.Tensor):
                yield "_".join(keys if by_keyword else [argument, *keys]), leaf


def separate_tensors(inputs: Any) -> Any:
    """The inputs, each tensor a contiguous copy of its own.

    torch.export takes what is one tensor for one thing: of two inputs its program would read one, and none of an input
    that is a weight as well. How a tensor lies in memory is a constant to it.
    """

    def separate(tensor: torch.Tensor) -> torch.Tensor:
        copy = tensor.detach().clone(memory_format=torch.contiguous_format)
        return copy.requires_grad_(tensor.requires_grad)

    return pytree.tree_map_only(torch.Tensor, separate, inputs)


def in_order(module: torch.nn.Module, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs by name in the order of the parameters of a module."""
    places = {parameter.name: place for place, parameter in enumerate(_parameters(module))}
    return dict(sorted(kwargs.items(), key=lambda item: places.get(item[0], len(places))))


def count_by_position(module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """How many of the inputs of a module may be given by position: those that leave out no parameter before them.

    Args:
        module: called with the inputs.
        args: those that are given by position.
        kwargs: those by name, in the order of its parameters.
    """
    count = len(args)
    for name, parameter in zip(kwargs, _parameters(module)[count:], strict=False):
        if name != parameter.name or parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
            break
        count += 1
    return count


def _parameters(module: torch.nn.Module) -> list[inspect.Parameter]:
    """The parameters of a module's forward; none where Python does not know them, as of TorchScript."""
    try:
        return list(inspect.signature(module.forward).parameters.values())
    except ValueError:
        return []


def dynamic_shapes(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    varying: bool = True,
    lengths: Collection[int] = (),
) -> Any:
    """The ``dynamic_shapes`` argument of torch.export for these inputs: what should vary may, or nothing.

    Without that argument sizes would still be symbols, which some code cannot use as numbers.
    """
    dim = torch.export.Dim
    shapes = torch.export.ShapesCollection()
    for tensor in _tensors((args, kwargs)):
        free = dynamic_axes(tensor, lengths) if varying else ()
        shapes[tensor] = {axis: dim.AUTO if axis in free else dim.STATIC for axis in range(tensor.ndim)}
    return shapes.dynamic_shapes(module, args, kwargs)


@contextmanager
def keywords_named(module: torch.nn.Module, kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Let ``forward`` have a parameter for every keyword.

    torch.export counts those twice that ``**kwargs`` takes, and then finds no sizes for them that may vary.
    """
    forward, signature = module.forward, inspect.signature(module.forward)
    own = list(signature.parameters.values())
    others = [name for name in kwargs if name not in signature.parameters]
    if not others or own[-1].kind is not inspect.Parameter.VAR_KEYWORD:
        yield
        return

    @wraps(forward)
    def named(*args: Any, **keywords: Any) -> Any:
        return forward(*args, **keywords)

    added = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in others]
    named.__signature__ = signature.replace(parameters=[*own[:-1], *added, own[-1]])  # type: ignore[attr-defined]
    before = dict(vars(module))
    module.forward = named
    try:
        yield
    finally:
        vars(module).pop("forward")
        if "forward" in before:
            module.forward = before["forward"]


def with_fresh_sizes(
    inputs: Any, others: Collection[int], constant: Collection[int] = (), lengths: Collection[int] = ()
) -> Any:
    """The inputs with every dynamic axis resized to a prime that no other axis has.

    A batch of 4 beside 4 heads would let a reshape be read in two ways. Equal sizes stay equal; values are
    repeated or cut off.

    Args:
        inputs: any nesting of tensors and other things.
        others: sizes to avoid, those of all parameters.
        constant: sizes that stay as they are.
        lengths: see ``dynamic_axes``.
    """
    tensors = list(_tensors(inputs))
    static = {size for t in tensors for axis, size in enumerate(t.shape) if axis not in dynamic_axes(t, lengths)}
    sizes = {size: size for size in constant}
    for tensor in tensors:
        for axis in dynamic_axes(tensor, lengths):
            size = tensor.shape[axis]
            if size not in sizes:
                sizes[size] = fresh_size(size, {*others, *static, *sizes.values()})
    return pytree.tree_map_only(
        torch.Tensor, lambda t: resized(t, {a: sizes[t.shape[a]] for a in dynamic_axes(t, lengths)}), inputs
    )


def _tensors(inputs: Any) -> Iterator[torch.Tensor]:
    for leaf in pytree.tree_leaves(inputs):
        if isinstance(leaf, torch.Tensor):
            yield leaf


def fresh_size(size: int, others: Collection[int]) -> int:
    """The nearest prime not taken, at most ``size`` where there is one (a sequence may not get too long)."""
    below = (n for n in range(size, 1, -1) if _is_prime(n) and n not in others)
    above = (n for n in range(max(size, 2), 10 * size + 1000) if _is_prime(n) and n not in others)
    return next(below, None) or next(above, size)


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))
