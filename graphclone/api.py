"""The public face: trace a model, look at its dims, widen it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from graphclone.algebra.depths import Depths, Start, Where
from graphclone.algebra.factors import Widen
from graphclone.algebra.strategies import StrategyLike
from graphclone.clones.clone import Clone
from graphclone.clones.source import After
from graphclone.clones.traced import Traced
from graphclone.errors import GraphcloneError, Remedy
from graphclone.formats.onnx.source import OnnxSource
from graphclone.formats.torch.source import ModuleSource
from graphclone.optimizers.optimizers import grown_optimizer
from graphclone.optimizers.slowing import slow
from graphclone.optimizers.states import Inexact, Rule
from graphclone.pipeline.requests import patterns, requested
from graphclone.pipeline.runner import Pass

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
    dynamic_axes: Mapping[str, Sequence[int]] | None = None,
    name: str | None = None,
) -> Traced:
    """Trace a model and find its dims, without widening anything.

    Args:
        model: a module, in the mode in which it is to be traced (eval, as a rule); or the path of an ``.onnx`` file; or
            the folder of a Hugging Face checkpoint.
        args: the positional example inputs of a module.
        kwargs: the keyword example inputs of a module.
        widen_io: patterns of names, such as ``"past*"``. Inputs and outputs that match one may grow.
        inputs: of an ``.onnx`` file or a checkpoint, by name: arrays, or tuples of sizes. If they are not given,
            graphclone finds inputs that the model accepts.
        dynamic_axes: as for ``clone``.
        name: what messages and reports call the model. By default it is the class or the file.

    Returns:
        The traced model. Its ``dims`` are groups of dims, each with a name, a size and what pins it.

    Raises:
        GraphcloneError: ``torch.export`` refuses the model, or the file cannot be read.

    Examples:
        >>> [(group.name, group.size) for group in gc.trace(model, (x,)).dims if group.pin is None]
        [('0', 6)]
    """
    return _source(model, args, kwargs, inputs, name, dynamic_axes).trace(patterns("widen_io", widen_io))


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
    omit: Sequence[str] = (),
    widen_io: Sequence[str] = (),
    strategy: StrategyLike = "symmetric",
    snr_db: float | None = None,
    seed: int = 0,
    untie: bool = False,
    into: torch.nn.Module | None = None,
    inputs: UserInputs | None = None,
    dynamic_axes: Mapping[str, Sequence[int]] | None = None,
    passes: Sequence[Pass] | None = None,
    after: After | None = None,
    name: str | None = None,
) -> Clone:
    """Make a model bigger without changing what it computes (HyperCloning, arXiv 2409.12903).

    Nothing is computed before it is asked for: the clone holds a recipe for each weight.

    Args:
        model: the source, which stays as it is: a module; or the path of an ``.onnx`` file; or the folder of a Hugging
            Face checkpoint.
        args: the positional example inputs to trace a module with.
        kwargs: the keyword example inputs.
        widen: a factor for each dim that grows by default; or a dict of factors by the name of a dim or group, as
            ``trace(..).dims`` has them. A factor is a number such as 2 or 1.5, or a text such as ``"4/3"``. If
            ``widen``, ``sizes`` and ``depth`` are all left out, it is 2.
        sizes: a dict of new sizes by the name of a dim or group.
        depth: how many blocks the clone has: a number, or a dict of numbers by the name of a stack, as in
            ``{"encoder": 32}``.
        new_blocks: where new blocks go: ``spread`` evenly among those of the source, all at the ``end``, or all at
            the ``start``.
        new_from: what a new block begins as: a ``copy`` of the block before it, or ``random`` numbers as large as that
            block's. In either case its closing weights are 0, so that it changes nothing yet.
        like: for a checkpoint, the shape to take in place of ``widen``, ``sizes``, ``depth`` and ``into``: a
            config.json, a folder with one, or a hub id.
        keep_vocab: keep the source's vocabulary if ``like`` has another one.
        omit: for a checkpoint, names or patterns of parts that no example input reaches, and that the clone is to lack.
            ``from_pretrained`` begins them anew.
        widen_io: patterns of names, such as ``"past*"``. Inputs and outputs that match one may grow, as ``[x, x]``.
        strategy: how the copies of an input share a weight: a name in ``graphclone.algebra.strategies.STRATEGIES``, a
            ``Strategy``, a matrix of shape (output copies, input copies) whose rows sum to 1, or a function
            ``(output copies, input copies) -> matrix``.
        snr_db: the level of the noise of a noisy strategy: the power of the weight over that of the noise, in decibels.
        seed: of the noise, and of all other random weights.
        untie: give a weight that is both looked up and contracted one copy for each use.
        into: a wider or deeper instance of the same code. Its widths and depth are taken in place of ``widen``, and its
            weights are overwritten with the clone's. If it is on the meta device it stays as it is, and
            ``Clone.tensors()`` streams the weights.
        inputs: of an ``.onnx`` file or a checkpoint, by name: arrays, or tuples of sizes. If they are not given,
            graphclone finds inputs that the model accepts.
        dynamic_axes: for a module, axes of inputs of floats that may vary in size, by the name of the input:
            ``{"x": [1]}`` for sequences of vectors. Batches, and all axes of integers, may vary in any case.
        passes: the pipeline, if it is not the default one.
        after: a function that is called after each pass, with the pass and the state.
        name: what messages and reports call the model. By default it is the class or the file.

    Returns:
        The clone: ``module()``, ``state_dict()``, ``save(path)`` and ``verify()`` say what to do with it.

    Raises:
        GraphcloneError: the model cannot be traced, or cannot grow as asked.

    Examples:
        >>> wide = gc.clone(model, (x,), widen=2)
        >>> wide.state_dict()["0.weight"].shape
        torch.Size([12, 4])
        >>> torch.allclose(wide.module()(x), model(x), atol=1e-6)
        True
    """
    request = requested(
        widen=widen,
        sizes=sizes,
        depth=depth,
        new_blocks=new_blocks,
        new_from=new_from,
        like=like,
        keep_vocab=keep_vocab,
        omit=omit,
        widen_io=widen_io,
        strategy=strategy,
        snr_db=snr_db,
        seed=seed,
        untie=untie,
    )
    if like is not None and into is not None:
        raise GraphcloneError("like already says every width and depth", Remedy("into", value=None))
    _check_steps(passes, after)
    source = _source(model, args, kwargs, inputs, name, dynamic_axes)
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
    """Make an optimizer for a clone that goes on where the source's optimizer is.

    The new optimizer has the class and options of the old one. The gradients of a clone are multiples of the source's,
    so everything that an optimizer keeps of gradients can be computed. Pads, whose gradients the source never had,
    begin with a first moment of 0 and a second moment of average size.

    If n copies of an input all take the source's steps, the function moves n times as far. ``rule="function"`` corrects
    this: it splits parameter groups and gives each group its own learning rate, weight decay and epsilon, so that
    training goes on as the source's would have. ``rule="same"`` keeps groups and rates, and the clone learns faster
    than the source would have. Under either rule a clipped gradient norm is that of the clone.

    Args:
        clone: what ``graphclone.clone`` made of the module that the optimizer was made for.
        optimizer: the source's. It stays as it is. ``graphclone.optimizers.kinds`` lists the classes that can grow.
        module: ``clone.module()``, or the module that was cloned ``into``.
        rule: how rates follow: ``function`` or ``same``.
        inexact: what to do about a parameter whose gradient is no multiple of the source's, because of noise or because
            copies are not treated alike. ``refuse`` raises an error; ``fresh`` lets the parameter begin without a
            state, which ``warm_moments`` can then measure.

    Raises:
        GraphcloneError: the optimizer is of another class or of another module; or a state cannot grow. The error names
            the first such parameter.

    Examples:
        >>> optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        >>> wide = clone.module()
        >>> grown = gc.grow_optimizer(clone, optimizer, wide)
        >>> sorted({group["lr"] for group in grown.param_groups})
        [0.0005, 0.001]
    """
    return grown_optimizer(clone.parameters, optimizer, clone.parameters.names, module, rule=rule, inexact=inexact)


def slow_copies(clone: Clone, optimizer: torch.optim.Optimizer, module: torch.nn.Module, factor: float) -> None:
    """Let an optimizer move what a clone has from its source by a part of each step only.

    A learning rate belongs to a whole parameter, and a parameter of a ``fresh`` clone is old in one part and new in the
    rest. So the optimizer takes a whole step, and then a part of it is taken back where the parameter is old. While a
    step is taken, all parameters are in memory twice.

    Args:
        clone: what ``graphclone.clone`` made with ``strategy="fresh"``.
        optimizer: of the parameters of the module.
        module: ``clone.module()``, or the module that was cloned ``into``. No other process holds a part of it.
        factor: of each step: 1 changes nothing, 0 keeps what is old as it is.

    Raises:
        GraphcloneError: the factor is not between 0 and 1, the clone has another strategy, or the module is another.

    Examples:
        >>> fresh = gc.clone(model, (x,), widen=2, strategy="fresh")
        >>> wide = fresh.module()
        >>> optimizer = torch.optim.AdamW(wide.parameters(), lr=1e-3)
        >>> gc.slow_copies(fresh, optimizer, wide, factor=0.2)
    """
    if clone.state.request.strategy.copies:
        raise GraphcloneError("slow_copies: only a clone by strategy='fresh' has parts that are new; lower the rate")
    slow(clone.parameters, optimizer, module, factor)


def _source(
    model: torch.nn.Module | str | Path,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    inputs: UserInputs | None,
    name: str | None,
    dynamic_axes: Mapping[str, Sequence[int]] | None,
) -> ModuleSource | OnnxSource | CheckpointSource:
    """Find out what kind of source a model is, and refuse arguments that make no sense."""
    _check_example(args, kwargs)
    if isinstance(model, torch.nn.Module):
        if inputs is not None:
            raise GraphcloneError(
                "inputs=: is for files and checkpoints; give a module its example inputs as args and kwargs"
            )
        axes = dynamic_axes or {}
        if not (isinstance(axes, Mapping) and all(isinstance(numbers, Sequence) for numbers in axes.values())):
            raise GraphcloneError(f"dynamic_axes={axes!r}: give a dict of lists of axes by input, such as {{'x': [1]}}")
        return ModuleSource(name or type(model).__name__, model, tuple(args), dict(kwargs or {}), dict(axes))
    if dynamic_axes is not None:
        raise GraphcloneError("dynamic_axes=: is for modules; a file or a checkpoint says itself what may vary")
    if inputs is not None and not isinstance(inputs, Mapping):
        raise GraphcloneError(f"inputs={inputs!r}: give a dict of arrays, or of sizes, by the names of inputs")
    if isinstance(model, str | Path) and Path(model).exists() and (args or kwargs):
        raise GraphcloneError("args and kwargs are for modules; give a file or a checkpoint inputs= by name")
    if isinstance(model, str | Path) and Path(model).suffix == ".onnx":
        return OnnxSource(Path(model), inputs or {}, name)
    if isinstance(model, str | Path) and Path(model).is_dir():
        from graphclone.formats.huggingface.source import CheckpointSource

        return CheckpointSource(str(model), inputs or {})
    got = f"{str(model)!r}" if isinstance(model, str | Path) else type(model).__name__
    what = "a torch.nn.Module, the path of an .onnx file or the folder of a checkpoint"
    raise GraphcloneError(f"the model must be {what}, got {got}")


def _check_example(args: object, kwargs: object) -> None:
    """Refuse what cannot be the example inputs of a module."""
    if isinstance(args, str | Mapping) or not isinstance(args, Sequence):
        got = "a tensor" if isinstance(args, torch.Tensor) else type(args).__name__
        raise GraphcloneError(f"args: {got}; give a tuple of the example inputs, such as (x,)")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise GraphcloneError(f"kwargs: {type(kwargs).__name__}; give a dict of example inputs by name")


def _check_steps(passes: object, after: object) -> None:
    """Refuse a pipeline, or what watches it, that cannot be called."""
    steps = passes if isinstance(passes, Sequence) else [passes]
    if passes is not None and not all(callable(step) and hasattr(step, "ensures") for step in steps):
        raise GraphcloneError(f"passes={passes!r}: give a list of passes, as graphclone.passes.default_pipeline() does")
    if after is not None and not callable(after):
        raise GraphcloneError(f"after={after!r}: give a function of a pass and a state")
