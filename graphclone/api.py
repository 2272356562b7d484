"""The public face: trace a model, look at its dims, widen it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from graphclone.algebra.depths import PLACES, STARTS, Depths, Start, Where
from graphclone.algebra.factors import Widen
from graphclone.algebra.strategies import StrategyLike
from graphclone.algebra.strategies import strategy as resolve_strategy
from graphclone.clones.clone import Clone
from graphclone.clones.source import After
from graphclone.clones.traced import Traced
from graphclone.errors import GraphcloneError
from graphclone.formats.onnx.source import OnnxSource
from graphclone.formats.torch.source import ModuleSource
from graphclone.optimizers.optimizers import grown_optimizer
from graphclone.optimizers.states import Inexact, Rule
from graphclone.pipeline.runner import Pass
from graphclone.pipeline.state import Request

if TYPE_CHECKING:
    from graphclone.formats.huggingface.source import CheckpointSource
    from graphclone.formats.onnx.drawn_inputs import UserInputs


def trace(
    model: torch.nn.Module | str | Path,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    widen_io: Sequence[str] = (),
    inputs: UserInputs | None = None,
    name: str | None = None,
) -> Traced:
    """Trace a model and find its dims, without widening anything.

    Args:
        model: in the mode it is to be traced in (eval, as a rule); or the path of an ``.onnx`` file, or the folder of
            a Hugging Face checkpoint.
        args: positional example inputs.
        kwargs: keyword example inputs.
        widen_io: patterns of names of inputs and outputs that may grow.
        inputs: of an ``.onnx`` file, by name: arrays, or sizes, that it accepts; they are found by trying otherwise.
        name: what the model is called in messages and reports; its class or file otherwise.

    Raises:
        GraphcloneError: torch.export refuses the model, or the file cannot be read.
    """
    _check(None, widen_io)
    return _source(model, args, kwargs, inputs, name).trace(widen_io)


def clone(  # noqa: PLR0913 (all but the first three are keywords)
    model: torch.nn.Module | str | Path,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    widen: Widen | None = None,
    sizes: Mapping[str, int] | None = None,
    depth: Depths | None = None,
    new_blocks: Where = "spread",
    new_from: Start = "copy",
    like: str | Path | None = None,
    keep_vocab: bool = False,
    widen_io: Sequence[str] = (),
    strategy: StrategyLike = "symmetric",
    snr_db: float | None = None,
    seed: int = 0,
    untie: bool = False,
    into: torch.nn.Module | None = None,
    inputs: UserInputs | None = None,
    passes: Sequence[Pass] | None = None,
    after: After | None = None,
    name: str | None = None,
) -> Clone:
    """Widen a model without changing what it computes (HyperCloning, arXiv 2409.12903).

    Args:
        model: the source, which is left as it is; or the path of an ``.onnx`` file or the folder of a Hugging Face
            checkpoint, which take ``inputs`` instead.
        args: positional example inputs to trace it with.
        kwargs: keyword example inputs.
        widen: a factor for every dim that grows by default, or a factor per dim or group (``trace(..).dims``), such as
            2, 1.5 or ``"4/3"``; 2 if neither it nor ``sizes`` nor ``depth`` is given.
        sizes: a new size per dim or group.
        depth: how many blocks there are to be, as in ``32``, or by the names of stacks, as in ``{"encoder": 32}``.
        new_blocks: where new ones go: ``spread`` evenly among those of the source, all at the ``end``, or at the
            ``start``.
        new_from: what they start from: a ``copy`` of the block before, or ``random`` numbers as large as its own. What
            closes them, so that they change nothing, is 0 in either case.
        like: for a checkpoint, the shape to take in place of all these: a config.json, a folder with one, or a hub id.
        keep_vocab: keep the source's vocabulary where ``like`` has another.
        widen_io: patterns of names of inputs and outputs that may grow.
        strategy: a name, a matrix, a callable or a ``Strategy``; see ``graphclone.algebra.strategies``.
        snr_db: signal-to-noise ratio of a noisy strategy, in decibels.
        seed: of the noise.
        untie: give a weight that is both looked up and contracted one copy for each use.
        into: a wider instance of the same code, whose widths are taken in place of ``widen``. Its weights are
            overwritten with the clone's, unless it is on the meta device: then ``Clone.tensors()`` streams them.
        inputs: of an ``.onnx`` file, by name: arrays, or sizes, that it accepts; they are found by trying otherwise.
        passes: the pipeline, if not the default.
        after: called after every pass.
        name: what the model is called in messages and reports; its class or file otherwise.

    Raises:
        GraphcloneError: the model cannot be traced, or not widened as asked.
    """
    _check(sizes, widen_io)
    _check_depth(depth, new_blocks, new_from)
    if like is not None and (widen is not None or sizes or depth is not None or into is not None):
        raise GraphcloneError("like= says every width and depth: leave widen=, sizes=, depth= and into= out")
    source = _source(model, args, kwargs, inputs, name)
    shared = resolve_strategy(strategy, snr_db)
    request = Request(
        widen,
        tuple(widen_io),
        shared,
        seed,
        untie,
        sizes=sizes or {},
        depth=depth,
        new_blocks=new_blocks,
        new_from=new_from,
        like=None if like is None else str(like),
        keep_vocab=keep_vocab,
    )
    if into is None:
        return source.clone(request, passes=passes, after=after)
    if not isinstance(source, ModuleSource):
        raise GraphcloneError(f"into=: {model} is a file; give two instances of a torch.nn.Module")
    return source.clone_into(into, request, after=after)


def grow_optimizer(
    clone: Clone,
    optimizer: torch.optim.Optimizer,
    module: torch.nn.Module,
    rule: Rule = "function",
    *,
    inexact: Inexact = "refuse",
) -> torch.optim.Optimizer:
    """An optimizer over a clone that goes on where the source's is.

    It is of the same class, with the same options. The clone's gradients are multiples of the source's, and so all that
    is kept of them follows. Pads, whose gradients the source never had, begin with a first moment of 0 and the second
    moment of an average element.

    Where the n copies of an input all take the source's steps, the function moves n times as far. So
    ``rule="function"`` splits groups into such as have a learning rate, weight decay and epsilon of their own, and
    training goes on as the source's would have. Under ``same`` groups and rates stay as they are, and it learns faster
    than that. A gradient norm that is clipped is the clone's own under either.

    Args:
        clone: of ``graphclone.clone``, whose source is the module that the optimizer was made for.
        optimizer: of the source, of a class in ``graphclone.optimizers.kinds``; it is left as it is.
        module: ``clone.module()``, or the module that was cloned ``into``.
        rule: how the rates follow.
        inexact: what becomes of the state of a parameter whose gradient is no multiple of the source's, since there is
            noise, or copies are not treated alike: the call is refused, or it begins ``fresh``; see ``warm_moments``.

    Raises:
        GraphcloneError: the optimizer is of another class or of another module, or a state cannot be grown, naming the
            first parameter that does not fit.
    """
    return grown_optimizer(clone.parameters, optimizer, clone.parameters.names, module, rule=rule, inexact=inexact)


def _source(
    model: torch.nn.Module | str | Path,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    inputs: UserInputs | None,
    name: str | None,
) -> ModuleSource | OnnxSource | CheckpointSource:
    """The source that a model is, once arguments that can mean nothing are refused."""
    if isinstance(args, torch.Tensor):
        raise GraphcloneError("args: a tensor; give a tuple of the example inputs, such as (x,)")
    if isinstance(model, torch.nn.Module):
        if inputs is not None:
            raise GraphcloneError("inputs=: is for .onnx files; give a module its example inputs as args and kwargs")
        return ModuleSource(name or type(model).__name__, model, tuple(args), dict(kwargs or {}))
    if inputs is not None and not isinstance(inputs, Mapping):
        raise GraphcloneError(f"inputs={inputs!r}: give a dict of arrays, or of sizes, by the names of inputs")
    if isinstance(model, str | Path) and Path(model).suffix == ".onnx":
        return OnnxSource(Path(model), inputs or {}, name)
    if isinstance(model, str | Path) and Path(model).is_dir():
        from graphclone.formats.huggingface.source import CheckpointSource

        return CheckpointSource(str(model), inputs or {})
    got = f"{str(model)!r}" if isinstance(model, str | Path) else type(model).__name__
    what = "a torch.nn.Module, the path of an .onnx file or the folder of a checkpoint"
    raise GraphcloneError(f"the model must be {what}, got {got}")


def _check_depth(depth: object, new_blocks: object, new_from: object) -> None:
    """Refuse a depth that can mean nothing."""
    if depth is not None and not isinstance(depth, int | Mapping):
        raise GraphcloneError(f"depth={depth!r}: give a whole number of blocks, or a dict of them by stack")
    for name, value, choices in (("new_blocks", new_blocks, PLACES), ("new_from", new_from, STARTS)):
        if value not in choices:
            raise GraphcloneError(f"{name}={value!r}: give {' or '.join(map(repr, choices))}")


def _check(sizes: object, widen_io: object) -> None:
    """Refuse what can mean nothing."""
    if sizes is not None and not isinstance(sizes, Mapping):
        raise GraphcloneError(f"sizes={sizes!r}: give a dict of sizes by dim, such as {{'hidden': 960}}")
    if isinstance(widen_io, str):
        raise GraphcloneError(f"widen_io={widen_io!r}: give a list of names, [{widen_io!r}]")
