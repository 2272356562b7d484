"""Whether two checkpoints compute the same, both loaded by ``from_pretrained`` as anybody would.

The measure is the source's own rounding: its error against itself in a higher precision (float64, or float32 for a
model of half precision, which needs less memory). Each is loaded once; the source, twice as large at most, is given up
before the clone is loaded. Only where the clone is farther off than that is the source loaded once more, to see what
rounding makes of it at most.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from graphclone.errors import GraphcloneError, Remedy, first_line
from graphclone.formats.huggingface.descriptions import media_tokens
from graphclone.formats.huggingface.reader import Checkpoint, open_checkpoint, quiet_transformers, uncached
from graphclone.formats.huggingface.size_inputs import structured
from graphclone.formats.huggingface.streaming import streamed
from graphclone.formats.torch.plain_outputs import output_names
from graphclone.formats.torch.running import SEED
from graphclone.runtime.drawing import drawn_since
from graphclone.runtime.exclusive import exclusive
from graphclone.runtime.interpreter import output_tensors
from graphclone.runtime.maps import Maps
from graphclone.runtime.precision import all_digits
from graphclone.runtime.threads import workers
from graphclone.verification.checks import Check, NoiseFloor, Report, error, judge, noise_floor, rounding
from graphclone.verification.distance import Deviation, magnitude
from graphclone.verification.rounding import SHAKES, shaken

if TYPE_CHECKING:
    from graphclone.formats.huggingface.plan import Plan

SETS = 3
"""Input sets: the example, and others with other values."""

_WHOLE, _SAMPLE = "from_pretrained", "sample"
"""The names of the check: of models that are loaded, and of such as read their weights part by part."""

_TOKENS = "input_ids"

_LEAST, _UNITS = 1e-3, 8
"""By how much of its greatest output, or by how many units in the last place, a model that draws numbers may differ
from itself in a higher precision, where it may draw others."""

Outputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class SourceRuns:
    """The results of the source, to hold clones against.

    Attributes:
        inputs: what it was fed.
        own: its outputs in its own precision.
        exact: its outputs in a higher precision, if its code can be run in one.
        shake: runs the source of such results with weights that are a rounding off, in several ways.
        options: that it had to be loaded with to be run.
        precision: the coarsest that it computes in, where that is not the one of its weights.
        drawn: where its last run left the generator, if it draws random numbers.
    """

    inputs: Sequence[dict[str, Any]]
    own: Sequence[Outputs]
    exact: Sequence[Outputs]
    shake: Callable[[SourceRuns], Sequence[Sequence[Outputs]]]
    options: Mapping[str, Any] = field(default_factory=dict)
    precision: torch.dtype | None = None
    drawn: torch.Tensor | None = None

    @cached_property
    def shaken(self) -> Sequence[Sequence[Outputs]]:
        """Its outputs with weights that are a rounding off, for each way and each input set; run when first asked."""
        return self.shake(self)


_EAGER = {"experts_implementation": "eager"}
"""Other implementations know no float64, and no row whose length is odd."""


@all_digits()
@torch.random.fork_rng()
@torch.no_grad()
@exclusive()
def run_source(checkpoint: Checkpoint, sets: int = SETS, seed: int = 0) -> SourceRuns:
    """Load the source and run it, in its own precision and in a higher one.

    Args:
        checkpoint: the source.
        sets: how many input sets; the example is one of them.
        seed: of the others.

    Raises:
        GraphcloneError: it cannot be loaded or run.
    """
    options: Mapping[str, Any] = {}
    model, *_ = _loaded(checkpoint, checkpoint.folder)
    feeds = list(_input_sets(checkpoint, sets, seed))
    try:
        inputs, own = _own_runs(model, checkpoint, feeds)
    except GraphcloneError:
        options = _EAGER
        model, *_ = _loaded(checkpoint, checkpoint.folder, **options)
        inputs, own = _own_runs(model, checkpoint, feeds)
    drawn = drawn_since(SEED)
    precision = _coarsest(checkpoint, model, inputs[0])
    if not options:
        model.set_experts_implementation("eager")
    precise = _precise(checkpoint)
    model.to(precise)
    exact = _unless_refused(lambda: [_run(model, _cast(feed, precise)) for feed in inputs], own)
    return SourceRuns(inputs, own, exact, partial(_shaken_runs, checkpoint), options, precision, drawn)


@all_digits()
@torch.random.fork_rng()
@torch.no_grad()
@exclusive()
def sample_source(checkpoint: Checkpoint) -> SourceRuns:
    """Run the source on its example input, reading its weights part by part; see ``run_source``.

    Raises:
        GraphcloneError: it cannot be run so.
    """
    inputs, options = [checkpoint.example_inputs], {}
    try:
        own = [_streamed_run(streamed(checkpoint), feed) for feed in inputs]
    except GraphcloneError:
        options = _EAGER
        own = [_streamed_run(streamed(checkpoint, eager=True), feed) for feed in inputs]
    drawn = drawn_since(SEED)
    precision = _coarsest(checkpoint, streamed(checkpoint, eager=bool(options)), inputs[0])
    precise = _precise(checkpoint)

    def run_precisely() -> list[Outputs]:
        return [_run(streamed(checkpoint, precise=precise, eager=True), _cast(feed, precise)) for feed in inputs]

    exact = _unless_refused(run_precisely, own)
    return SourceRuns(inputs, own, exact, partial(_shaken_sample, checkpoint), options, precision, drawn)


def _unless_refused(run_precisely: Callable[[], list[Outputs]], own: list[Outputs]) -> list[Outputs]:
    """The outputs in a higher precision; the source's own where its code names the one that it computes in.

    Against those the source has no error, so that the clone is held against what other rounding makes of them.
    """
    try:
        return run_precisely()
    except GraphcloneError:
        return own


@torch.no_grad()
def _shaken_sample(checkpoint: Checkpoint, source: SourceRuns) -> list[list[Outputs]]:
    """What the source makes of inputs with every weight a rounding off, as it is read."""
    changes = [partial(shaken, seed=seed, precision=source.precision) for seed in range(SHAKES)]
    return [
        [_run(streamed(checkpoint, c, eager=bool(source.options)), feed) for feed in source.inputs] for c in changes
    ]


def _streamed_run(model: Any, feed: dict[str, Any]) -> Outputs:
    """What a model makes of inputs whose weights are read part by part.

    Raises:
        GraphcloneError: a part computes with weights of another one, which were not there.
    """
    outputs = _run(model, feed)
    if empty := [name for name, tensor in outputs.items() if tensor.is_meta]:
        raise GraphcloneError(f"{empty[0]} of {type(model).__name__} is computed from weights of parts that do not run")
    return outputs


def _precise(checkpoint: Checkpoint) -> torch.dtype:
    return torch.float32 if checkpoint.dtype.itemsize < 4 else torch.float64


class _Casts(TorchDispatchMode):
    """Notes the coarsest precision that something of another one is cast to."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.coarsest: torch.dtype | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        cast = func is torch.ops.aten._to_copy.default and args[0].is_floating_point() and result.is_floating_point()
        if cast and _unit(args[0].dtype) < _unit(result.dtype) > _unit(self.coarsest or args[0].dtype):
            self.coarsest = result.dtype
        return result


def _unit(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps


def _coarsest(checkpoint: Checkpoint, model: Any, feed: dict[str, Any]) -> torch.dtype | None:
    """The precision that a model of float64 casts to on its way, if it does; its rounding is that of the model.

    A model of another precision shows this rounding when it is run in a higher one.
    """
    if checkpoint.dtype is not torch.float64:
        return None
    casts = _Casts()
    with casts:
        _run(model, feed)
    return casts.coarsest


@torch.no_grad()
def _shaken_runs(checkpoint: Checkpoint, source: SourceRuns) -> list[list[Outputs]]:
    """What the source, loaded anew, makes of the input sets with every weight a rounding off, in several ways."""
    model, *_ = _loaded(checkpoint, checkpoint.folder, **source.options)
    moved, runs = copy.deepcopy(model), []
    own, others = list(_weights(model)), [tensor for _, tensor in _weights(moved)]
    for seed in range(SHAKES):
        with workers() as pool:
            list(pool.map(partial(_shake_into, seed, source.precision), own, others))
        runs.append([_run(moved, feed) for feed in source.inputs])
    return runs


@torch.no_grad()
def _shake_into(
    seed: int, precision: torch.dtype | None, weight: tuple[str, torch.Tensor], other: torch.Tensor
) -> None:
    name, tensor = weight
    other.copy_(shaken(tensor, name, seed, precision))


def _weights(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    return chain(model.named_parameters(), model.named_buffers())


def _own_runs(
    model: Any, checkpoint: Checkpoint, feeds: Iterable[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[Outputs]]:
    """The input sets that the source can be run on, the example among them, and what it makes of each.

    Raises:
        GraphcloneError: it cannot be run on the example.
    """
    inputs: list[dict[str, Any]] = []
    own: list[Outputs] = []
    for feed in feeds:
        try:
            own.append(_run(model, feed))
        except GraphcloneError as refusal:
            if not inputs:
                remedy = Remedy("verify", "writes the clone unseen", value=False)
                reason = f"{checkpoint.name}: the source itself fails: {refusal}; give other inputs"
                raise GraphcloneError(reason, remedy) from refusal
            continue  # values in another order may mean nothing to it
        inputs.append(feed)
    return inputs, own


@all_digits()
@torch.random.fork_rng()
@exclusive()
def verify_checkpoints(plan: Plan, folder: Path, source: SourceRuns | None = None, *, sample: bool = False) -> Report:
    """Load source and clone, and run both on the same inputs.

    Args:
        plan: of the clone.
        folder: that it lies in.
        source: what the source computes, if that is known already.
        sample: run both on the example input alone, and read their weights part by part.

    Raises:
        GraphcloneError: the source cannot be loaded or run. What is wrong with the clone is in the report.
    """
    source = source or (sample_source if sample else run_source)(plan.checkpoint)
    maps = Maps(plan.widened.state)
    values = {name: value for name, value in output_tensors(plan.widened.graph) if name in source.own[0]}
    widened = {name: partial(maps.widened, value) for name, value in values.items()}
    return _compared(plan.checkpoint, folder, source, widened, how=_SAMPLE if sample else _WHOLE)


@all_digits()
@torch.random.fork_rng()
@exclusive()
def verify_folders(
    source: str | Path,
    clone: str | Path,
    inputs: Mapping[str, Any] | None = None,
    *,
    sample: bool = False,
    trust_remote_code: bool = False,
) -> Report:
    """Load two checkpoints, by folder or hub id, and run both on inputs made for the first, in the second's dtype.

    Args:
        source: one of them.
        clone: the other.
        inputs: what to feed both instead; as for ``clone_checkpoint``.
        sample: run both on the example input alone, and read their weights part by part.
        trust_remote_code: let code that comes with them run.

    Raises:
        GraphcloneError: one cannot be read, or the first not run.
    """
    wide = open_checkpoint(clone, trust_remote_code=trust_remote_code)
    opened = partial(open_checkpoint, source, inputs=inputs, trust_remote_code=trust_remote_code)
    checkpoint = opened()
    if checkpoint.dtype != wide.dtype:
        checkpoint = opened(dtype=wide.dtype)
    runs = (sample_source if sample else run_source)(checkpoint)
    widened, how = dict.fromkeys(runs.own[0], _as_it_is), _SAMPLE if sample else _WHOLE
    report = _compared(checkpoint, wide.folder, runs, widened, alike_only=True, how=how)
    return replace(report, model=wide.name)


def _as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _compared(
    checkpoint: Checkpoint,
    folder: Path,
    source: SourceRuns,
    widened: Mapping[str, Callable[[torch.Tensor], torch.Tensor]],
    *,
    alike_only: bool = False,
    how: str = _WHOLE,
) -> Report:
    """What the model in a folder makes of the source's inputs, held against what the source makes of them, widened.

    With ``alike_only`` outputs after the first are left out that have another shape: a clone may compute with them.
    """
    try:
        load = _streamed if how == _SAMPLE else _loaded
        model, problems, absent = load(checkpoint, folder, **source.options)
        if problems:
            return _report(checkpoint, _failed(how, problems[0]), source.inputs)
        with torch.no_grad():
            wide = [_run(model, feed) for feed in source.inputs]
        drawn = drawn_since(SEED)
        del model  # the source may be loaded once more
    except GraphcloneError as refusal:
        return _report(checkpoint, _failed(how, str(refusal)), source.inputs)
    if lost := [name for name in widened if name not in wide[0]]:
        return _report(checkpoint, _failed(how, f"it returns no {lost[0]}"), source.inputs)
    first, *others = widened
    names = [first, *(n for n in others if not alike_only or wide[0][n].shape == source.own[0][n].shape)]
    measured = [
        [_floor(source, index, name, widened[name], outputs[name]) for name in names]
        for index, outputs in enumerate(wide)
    ]
    check = judge(how, measured)
    others_drawn = drawn is not None and source.drawn is not None and not torch.equal(drawn, source.drawn)
    if (check.ok is False and others_drawn) or (source.drawn is not None and _differs_from_itself(source, first)):
        check = Check(how, None, _DRAWN, open=True)
    if absent and not check.ok:
        check = _failed(how, f"from_pretrained finds missing keys: {absent[0]}")
    return _report(checkpoint, check, source.inputs)


_DRAWN = (
    "the model draws random numbers, which are others in another precision and for other widths; give them as inputs, "
    "if it takes them so"
)


def _differs_from_itself(source: SourceRuns, name: str) -> bool:
    """Whether a higher precision gives something else, as other numbers are drawn in it."""
    pairs = [(exact[name].double(), own[name]) for exact, own in zip(source.exact, source.own, strict=True)]
    return any(error(exact, own) > _most(own.dtype) * magnitude(exact) for exact, own in pairs)


def _most(dtype: torch.dtype) -> float:
    return max(_LEAST, _UNITS * torch.finfo(dtype).eps) if dtype.is_floating_point else 0.0


def _report(checkpoint: Checkpoint, check: Check, inputs: Sequence[dict[str, Any]]) -> Report:
    shapes = [", ".join("x".join(map(str, v.shape)) for v in feed.values() if _is_tensor(v)) for feed in inputs]
    return Report(checkpoint.name, (check,), tuple(shapes))


def _failed(how: str, reason: str) -> Check:
    first = Deviation("the clone", "", "", float("inf"), reason)
    return Check(how, False, reason, first=first)


def _floor(
    source: SourceRuns, index: int, name: str, widened: Callable[[torch.Tensor], torch.Tensor], wide: torch.Tensor
) -> NoiseFloor:
    """The error of one output in source and clone; in half precision the truth is known to float32 only."""
    truth = source.exact[index][name].to(torch.float64)
    floor = noise_floor(name, (truth, source.own[index][name]), (widened(truth), wide), source.precision)
    return floor.unless_explained(lambda: max(rounding(truth, run[index][name]) for run in source.shaken))


def _loaded(checkpoint: Checkpoint, folder: Path, **options: Any) -> tuple[Any, list[str], list[str]]:
    """The model in a folder, what ``from_pretrained`` could not use, and which weights it did not find: they are NaN.

    Raises:
        GraphcloneError: it raises.
    """
    options |= {"trust_remote_code": True} if checkpoint.trusted else {}
    try:
        with quiet_transformers():
            model, info = checkpoint.cls.from_pretrained(
                folder, output_loading_info=True, dtype=checkpoint.dtype, **options
            )
    except Exception as failure:  # whatever the class raises
        reason = first_line(failure)
        raise GraphcloneError(f"{folder}: from_pretrained fails: {reason}") from failure
    absent = _spoilt(model, info["missing_keys"])
    problems = [
        f"from_pretrained finds {what.replace('_', ' ')}: {min(map(str, info[what]))}"
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if info[what] and sorted(info[what]) != absent
    ]
    return uncached(model.eval()), problems, absent


def _spoilt(model: Any, names: Collection[str]) -> list[str]:
    """Those of some weights that are NaN from now on, so that it shows where one is read."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    spoilt = sorted(name for name in names if name in tensors and tensors[name].is_floating_point())
    with torch.no_grad():
        for name in spoilt:
            tensors[name].fill_(torch.nan)
    return spoilt


def _streamed(checkpoint: Checkpoint, folder: Path, **options: Any) -> tuple[Any, list[str], list[str]]:
    """The clone in a folder, which reads its weights part by part; see ``_loaded``."""
    clone = open_checkpoint(folder, trust_remote_code=checkpoint.trusted, dtype=checkpoint.dtype)
    with torch.no_grad():
        return streamed(clone, eager=bool(options)), [], []


def _run(model: Any, feed: dict[str, Any]) -> Outputs:
    torch.manual_seed(SEED)
    try:
        result = model(**feed)
    except Exception as failure:  # whatever the class raises
        raise GraphcloneError(f"{type(model).__name__} cannot be run: {first_line(failure)}") from failure
    if hasattr(result, "items"):
        return {str(name): tensor for name, tensor in result.items() if _is_tensor(tensor)}
    leaves, spec = pytree.tree_flatten(result)
    return {name: leaf for name, leaf in zip(output_names(spec), leaves, strict=True) if _is_tensor(leaf)}


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _cast(feed: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    return {k: v.to(dtype) if _is_tensor(v) and v.is_floating_point() else v for k, v in feed.items()}


def _input_sets(checkpoint: Checkpoint, sets: int, seed: int) -> Iterator[dict[str, Any]]:
    """The example, and its values in other orders; sizes, and places that are not for words, stay where they are."""
    example, tokens = checkpoint.example_inputs, media_tokens(checkpoint.config)
    rigid = structured(example, tokens)
    places = torch.tensor(list(tokens.values()))
    yield example
    for index in range(1, sets):
        generator = torch.Generator().manual_seed(seed + index)
        yield {
            name: _rearranged(value, places, generator)
            if _is_tensor(value) and (value.is_floating_point() or name == _TOKENS or not rigid)
            else value
            for name, value in example.items()
        }


def _rearranged(tensor: torch.Tensor, places: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    values = tensor.flatten()
    moving = ~torch.isin(values, places) if tensor.dtype == torch.int64 else torch.ones_like(values, dtype=torch.bool)
    values = values[moving]
    order = torch.randperm(values.numel(), generator=generator)
    return tensor.masked_scatter(moving.view(tensor.shape), values[order])
