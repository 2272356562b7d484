"""A callback for transformers' Trainer: the model grows in the middle of a run."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.nn.parallel import DistributedDataParallel

from graphclone.algebra.depths import Depths
from graphclone.algebra.factors import Widen
from graphclone.algebra.strategies import StrategyLike
from graphclone.algebra.strategies import strategy as resolve_strategy
from graphclone.errors import GraphcloneError, first_line
from graphclone.extras import MissingExtraError
from graphclone.formats.huggingface.plan import Plan, plan
from graphclone.formats.huggingface.reader import open_checkpoint, quiet_transformers
from graphclone.formats.torch.into import load_into
from graphclone.optimizers.optimizers import grow_in_place
from graphclone.optimizers.parameters import Parameters
from graphclone.optimizers.schedules import check_schedule, regroup
from graphclone.optimizers.states import Inexact, Rule
from graphclone.pipeline.state import Request

try:
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType
    from transformers import TrainerCallback
except ImportError as error:
    raise MissingExtraError("a callback", "transformers.Trainer", "study", error) from error


class GrowthCallback(TrainerCallback):
    """Widens and deepens the model of a ``transformers.Trainer`` after given steps, with its optimizer and schedule.

    The model stays the same object, since others hold it; its parts are replaced. Under ``DistributedDataParallel``
    each process holds a whole model, and all of them grow alike. FSDP, DeepSpeed and Megatron are refused. The first
    process writes the model into the run's folder for a moment, where all processes read it.

    A checkpoint that is saved after a growth under ``rule="function"`` has more parameter groups than ``Trainer``
    makes. Another run can resume from it only under ``rule="same"``.

    Args:
        at: a dict from the number of optimizer steps done to how much to widen then: a factor, or a dict of factors by
            dim.
        depth: a dict from the number of steps to the number of blocks from then on; as for ``graphclone.clone``.
        rule: how the rates follow; see ``graphclone.grow_optimizer``.
        strategy: as for ``graphclone.clone``.
        snr_db: the signal-to-noise ratio of a noisy strategy, in decibels.
        seed: of the noise.
        inexact: what to do about a parameter whose gradient is no multiple of the source's; see
            ``graphclone.grow_optimizer``.

    Examples:
        >>> growth = GrowthCallback({1000: 2, 3000: {"hidden": 2}}, depth={2000: 24})
        >>> sorted(growth.at)
        [1000, 3000]
    """

    def __init__(
        self,
        at: Mapping[int, Widen] | None = None,
        *,
        depth: Mapping[int, Depths] | None = None,
        rule: Rule = "function",
        strategy: StrategyLike = "symmetric",
        snr_db: float | None = None,
        seed: int = 0,
        inexact: Inexact = "refuse",
    ) -> None:
        self.at = dict(at or {})
        self.depth = dict(depth or {})
        self.rule: Rule = rule
        self.strategy = resolve_strategy(strategy, snr_db)
        self.seed = seed
        self.inexact: Inexact = inexact

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Grow, if a growth is due after this step.

        Raises:
            GraphcloneError: the model cannot grow so, or its optimizer or schedule cannot go on. Nothing changes.
        """
        widen, depth = self.at.get(state.global_step), self.depth.get(state.global_step)
        if widen is not None or depth is not None:
            request = Request(widen, strategy=self.strategy, seed=self.seed, depth=depth)
            self._grow(request, args, kwargs["model"], kwargs["optimizer"], kwargs["lr_scheduler"])

    def _grow(self, request: Request, args: Any, model: Any, optimizer: Any, schedule: Any) -> None:
        replicas = _replicas(model)
        if self.rule == "function":
            check_schedule(schedule)
        with _saved(model, Path(args.output_dir)) as folder, quiet_transformers():
            parameters, wide = _agreed(lambda: _widened(folder, request, model))
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        grown = grow_in_place(parameters, optimizer, names, wide, rule=self.rule, inexact=self.inexact)
        regroup(schedule, grown)
        _replace(model, wide)
        if replicas is not None:
            _reduce(replicas)
        if args.gradient_checkpointing:
            model.gradient_checkpointing_enable(args.gradient_checkpointing_kwargs)


def _widened(folder: str, request: Request, model: Any) -> tuple[Parameters, Any]:
    """The parameters of a model that has been saved beside those of its clone, and the wider model."""
    decided = plan(open_checkpoint(folder), request)
    parameters = Parameters.of(decided.widened.state)
    return parameters, _wide(decided, parameters, model)


def _wide(decided: Plan, parameters: Parameters, model: Any) -> Any:
    """The wider model, on the device and in the mode of the other, with the weights of the clone."""
    attention = model.config._attn_implementation
    config = decided.checkpoint.with_fields(decided.fields)
    with torch.device(model.device), torch.random.fork_rng():  # the run goes on with the numbers it would have drawn
        wide = type(model)._from_config(config, dtype=model.dtype, attn_implementation=attention)
    load_into(decided.widened.state, wide)
    own, source = dict(model.named_parameters(remove_duplicate=False)), parameters.source_of()
    for name, parameter in wide.named_parameters():
        parameter.requires_grad_(own[source[name]].requires_grad)
    return wide.train(model.training)


# Several processes


@contextmanager
def _saved(model: Any, beside: Path) -> Iterator[str]:
    """A folder with the model, which the first process writes where the run's checkpoints lie, and all read."""
    first = _count() == 1 or torch.distributed.get_rank() == 0
    with tempfile.TemporaryDirectory(prefix=".graphclone-", dir=beside) if first else nullcontext() as own:
        _agreed(lambda: model.save_pretrained(own) if first else None)
        folder: list[Any] = [own]
        if _count() > 1:
            torch.distributed.broadcast_object_list(folder)
        yield folder[0]


def _count() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


_T = TypeVar("_T")


def _agreed(make: Callable[[], _T]) -> _T:
    """What a process makes, if all the others make theirs.

    Raises:
        GraphcloneError: one of them has failed.
    """
    if _count() == 1:
        return make()
    made, failure = None, None
    try:
        made = make()
    except Exception as error:  # all are to know of it, whatever it is
        failure = error
    failures: list[str | None] = [None] * _count()
    torch.distributed.all_gather_object(failures, None if failure is None else first_line(failure))
    if failure is not None:
        raise failure
    for rank, text in enumerate(failures):
        if text is not None:
            raise GraphcloneError(f"process {rank}: {text}")
    return made  # type: ignore[return-value]


def _replicas(model: torch.nn.Module) -> DistributedDataParallel | None:
    """What averages the gradients of a model over several processes. Callbacks are not told what wraps a model.

    Raises:
        GraphcloneError: the model is shared out in another way.
    """
    state = AcceleratorState()
    if state.num_processes > 1:
        found = (o for o in gc.get_objects() if type(o) is DistributedDataParallel and o.module is model)
        if (replicas := next(found, None)) is not None:
            return replicas
    elif state.distributed_type not in _SHARING:
        return None
    raise GraphcloneError(
        f"{state.distributed_type.value}: a run grows in one process, or under DistributedDataParallel; "
        "grow a checkpoint of it"
    )


_SHARING = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
"""Ways to hold a model that are not the model's own, even in one process."""


def _reduce(replicas: DistributedDataParallel) -> None:
    """Average the gradients of the parameters that there are now.

    What is unpickled does so anew, with all its settings; it is to keep nothing of the others.
    """
    state = replicas.__getstate__()
    hooks = state.pop("_comm_hooks", [])
    parameters = list(replicas.module.parameters())
    replicas.__setstate__({**state, "_module_parameters": parameters, "_comm_hooks": []})
    for hook, own in hooks:
        replicas.register_comm_hook(own, hook)


def _replace(model: torch.nn.Module, wide: torch.nn.Module) -> None:
    """Make a module another one, whatever it has been wrapped in, or is to call."""
    vars(model).update({key: value for key, value in vars(wide).items() if not key.endswith("_hooks")})
