"""Tensors out of nothing: where every element is the same all axes are free, and the literal sizes follow."""

from __future__ import annotations

from collections.abc import Mapping

from graphclone.rules.site import Rule, Site
from graphclone.rules.view import follow_sizes


def constant(value: float | None) -> Rule:
    """A tensor of one value, given by ``fill_value`` where it is None. Zeros have any scale."""

    def rule(s: Site) -> None:
        for name in ("dtype", "layout", "device", "pin_memory", "memory_format", "names"):
            s.get(name)
        if "self" in s.node.operands:
            s["self"]  # gives the dtype only
        follow_sizes(s, "size", s.axes(s.out))
        _fill(s, value)

    return rule


def constant_like(value: float | None) -> Rule:
    """As ``constant``, in the shape of another tensor, whose layout it takes."""

    def rule(s: Site) -> None:
        x = s.tensor("self")
        for name in ("dtype", "layout", "device", "pin_memory", "memory_format"):
            s.get(name)
        s.equal_all(s.axes(x), s.axes(s.out))
        _fill(s, value)

    return rule


def _fill(s: Site, value: float | None) -> None:
    fill = s.get("fill_value") if value is None else value
    if fill == 0:
        s.scale(s.out, {s.literal("", 0.0): 1})
    elif value is None and isinstance(fill, int | float):
        s.scale(s.out, {s.literal("fill_value", float(fill)): 1})
    else:
        s.scale(s.out, {})


def positions(s: Site) -> None:
    """Numbers whose place means something, or random ones: nothing grows."""
    for name in s.node.operands:
        s.get(name)
    s.pin_all("values by position")


_SIZED = {"zeros": 0.0, "ones": 1.0, "full": None, "empty": 0.0}

RULES: Mapping[str, Rule] = {
    **{f"aten.{prefix}{name}.{overload}": constant(value)
       for name, value in _SIZED.items() for prefix in ("", "new_") for overload in ("default", "memory_format")},
    **{f"aten.{name}_like.default": constant_like(value) for name, value in _SIZED.items()},
    "aten.zero.default": constant_like(0.0),
    **dict.fromkeys(
        (
            "aten.arange.default", "aten.arange.start", "aten.arange.start_step", "aten.eye.default", "aten.eye.m",
            "aten.linspace.default", "aten.scalar_tensor.default", "aten.rand.default", "aten.randn.default",
            "aten.randint.default", "aten.rand_like.default", "aten.randn_like.default", "aten.randperm.default",
            "aten.tril_indices.default", "aten.triu_indices.default",
        ),
        positions,
    ),
}  # fmt: skip
