"""Callbacks for the trainers of others: models that grow in the middle of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import torch
from transformers import TrainerCallback

from graphclone.algebra.depths import Depths
from graphclone.algebra.factors import Widen
from graphclone.algebra.strategies import StrategyLike
from graphclone.algebra.strategies import strategy as resolve_strategy
from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.plan import Plan, plan
from graphclone.formats.huggingface.reader import open_checkpoint, quiet_transformers
from graphclone.formats.torch.into import load_into
from graphclone.optimizers.optimizers import grow_in_place
from graphclone.optimizers.parameters import Parameters
from graphclone.optimizers.schedules import check_schedule, regroup
from graphclone.optimizers.states import Inexact, Rule
from graphclone.pipeline.state import Request


class GrowthCallback(TrainerCallback):
    """Widens and deepens the model of a ``transformers.Trainer`` after given steps, with its optimizer and schedule.

    The model stays the same object, as others hold it; what it is made of is replaced.

        Trainer(.., callbacks=[GrowthCallback({1000: 2, 3000: {"hidden": 2}})])

    A state saved after a growth under ``rule="function"`` has more groups than ``Trainer`` makes, so that only ``same``
    lets another run resume from it.

    Args:
        at: by how much to widen, by the number of optimizer steps done before; a factor, or factors by dim.
        depth: how many blocks there are to be, by the number of steps; as for ``graphclone.clone``.
        rule: how the rates follow; see ``graphclone.grow_optimizer``.
        strategy: as for ``graphclone.clone``.
        snr_db: signal-to-noise ratio of a noisy strategy, in decibels.
        seed: of the noise.
        inexact: what becomes of the state of a parameter whose gradient is no multiple of what it was.
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
        """Grow, if it is time.

        Raises:
            GraphcloneError: the model cannot be widened so, or its optimizer or schedule not go on; nothing changes.
        """
        widen, depth = self.at.get(state.global_step), self.depth.get(state.global_step)
        if widen is not None or depth is not None:
            request = Request(widen, strategy=self.strategy, seed=self.seed, depth=depth)
            self._grow(request, args, kwargs["model"], kwargs["optimizer"], kwargs["lr_scheduler"])

    def _grow(self, request: Request, args: Any, model: Any, optimizer: Any, schedule: Any) -> None:
        if args.world_size > 1:
            raise GraphcloneError(f"{args.world_size} processes share the model; a run grows in one process only")
        if self.rule == "function":
            check_schedule(schedule)
        with tempfile.TemporaryDirectory(prefix="graphclone-") as folder, quiet_transformers():
            model.save_pretrained(folder)
            decided = plan(open_checkpoint(folder), request)
            parameters = Parameters.of(decided.widened.state)
            wide = _wide(decided, parameters, model)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        grown = grow_in_place(parameters, optimizer, names, wide, rule=self.rule, inexact=self.inexact)
        regroup(schedule, grown)
        _replace(model, wide)
        if args.gradient_checkpointing:
            model.gradient_checkpointing_enable(args.gradient_checkpointing_kwargs)


def _wide(decided: Plan, parameters: Parameters, model: Any) -> Any:
    """The wider model, on the device and in the mode of the other, with the weights of the clone."""
    attention = model.config._attn_implementation
    config = decided.checkpoint.with_fields(decided.fields)
    with torch.device(model.device):
        wide = type(model)._from_config(config, dtype=model.dtype, attn_implementation=attention)
    load_into(decided.widened.state, wide)
    own, source = dict(model.named_parameters(remove_duplicate=False)), parameters.source_of()
    for name, parameter in wide.named_parameters():
        parameter.requires_grad_(own[source[name]].requires_grad)
    return wide.train(model.training)


def _replace(model: torch.nn.Module, wide: torch.nn.Module) -> None:
    """Make a module another one, whatever it has been wrapped in, or is to call."""
    vars(model).update({key: value for key, value in vars(wide).items() if not key.endswith("_hooks")})
