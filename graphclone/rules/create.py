"""Tensors out of nothing: where every element is the same all axes are free, and the literal sizes follow."""

from __future__ import annotations

from collections.abc import Mapping

from graphclone.analysis.facts import Summand
from graphclone.rules.site import Rule, Site, refused, says
from graphclone.rules.view import follow_sizes


def constant(value: float | None) -> Rule:
    """A tensor of one value, given by ``fill_value`` where it is None. Zeros have any scale."""

    def rule(s: Site) -> None:
        s.ignores("dtype", "layout", "device", "pin_memory", "memory_format", "names")
        if s.has("self"):
            s.irrelevant(s.tensor("self"))  # gives the dtype only
        follow_sizes(s, "size", s.axes(s.out))
        _fill(s, value)

    return rule


def constant_like(value: float | None) -> Rule:
    """Like ``constant``, in the shape of another tensor, whose layout it takes."""

    def rule(s: Site) -> None:
        x = s.tensor("self")
        s.ignores("dtype", "layout", "device", "pin_memory", "memory_format")
        s.equal_all(s.axes(x), s.axes(s.out))
        s.irrelevant(x)
        _fill(s, value)

    return rule


def _fill(s: Site, value: float | None) -> None:
    fill = s.get("fill_value") if value is None else value
    s.facts.filled.add(s.out)
    s.sums(s.out, *([] if fill == 0 else [Summand(())]))  # of nothing, or of a number
    if fill == 0:
        s.scale(s.out, {s.literal("", 0.0): 1})
    elif value is None and isinstance(fill, int | float):
        s.scale(s.out, {s.literal("fill_value", float(fill)): 1})
    else:
        s.scale(s.out, {})


def positions(s: Site) -> None:
    """Numbers whose place means something, or random ones: nothing grows."""
    s.ignores(*s.node.operands)
    s.pin_all("values by position")


def onnx_constant(s: Site) -> None:
    """A tensor of one value, its sizes given as numbers."""
    follow_sizes(s, "input", s.axes(s.out))
    s.sums(s.out, *([Summand(())] if s.number("value", 0) else []))
    s.scale(s.out, {} if s.number("value", 0) else {s.literal("", 0.0): 1})


@says("!v | a.. b.., !d..? -> a.. !n b..")
def one_hot(s: Site, pattern: str) -> None:
    """One of two values each, along a new axis."""
    before = s.axis("axis", s.out.rank, -1)
    s.states(pattern, "values", "indices", "depth", a=before, why="its elements are numbered")


_VALUES = {"zeros": 0.0, "ones": 1.0, "full": None, "empty": 0.0}

_BY_POSITION = """
    arange.default arange.start arange.start_step eye.default eye.m linspace.default scalar_tensor.default
    rand.default rand.generator randn.default randn.generator randint.default randint.low rand_like.default
    randn_like.default randperm.default tril_indices.default triu_indices.default affine_grid_generator.default
"""

_ONNX_BY_POSITION = """
    Range EyeLike Bernoulli RandomNormal RandomNormalLike RandomUniform RandomUniformLike BlackmanWindow HammingWindow
    HannWindow MelWeightMatrix
"""

_NO_TENSORS = """
    ImageDecoder Optional OptionalGetElement OptionalHasElement StringNormalizer StringSplit TfIdfVectorizer
"""

RULES: Mapping[str, Rule] = {
    **{f"aten.{name}.default": constant(value) for name, value in _VALUES.items() if name != "empty"},
    "aten.empty.memory_format": constant(0.0),
    **{f"aten.new_{name}.default": constant(value) for name, value in _VALUES.items()},
    **{f"aten.{name}_like.default": constant_like(value) for name, value in _VALUES.items()},
    "aten.zero.default": constant_like(0.0),
    **{f"aten.{name}": positions for name in _BY_POSITION.split()},
    "onnx.ConstantOfShape": onnx_constant,
    "onnx.OneHot": one_hot,
    **{f"onnx.{name}": positions for name in _ONNX_BY_POSITION.split()},
    **{f"onnx.{name}": refused("a value of its own kind") for name in _NO_TENSORS.split()},
}
