"""The run of training that a checkpoint was saved in: its optimizer's state, grown, and what goes with that.

A state counts parameters in the order of the optimizer's groups and says no names. The orders in which trainers put
parameters into groups are tried, and the one is taken that the state's groups and shapes have.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.plan import Plan
from graphclone.formats.huggingface.reader import imported, quiet_transformers
from graphclone.optimizers.optimizers import is_by_name, state_dict
from graphclone.optimizers.parameters import Parameters
from graphclone.optimizers.states import Grown

if TYPE_CHECKING:
    from graphclone.formats.torch.optimizer_states import Stored

_BESIDE = (
    "scheduler.pt", "scheduler.bin", "scaler.pt", "rng_state*.pth", "random_states_*.pkl", "trainer_state.json",
    "sampler*.bin", "dl_state_dict*.bin",
)  # fmt: skip
"""Files of a run that hold for any width: schedules, random states, the number of steps."""

Order = Sequence[Sequence[str]]
"""The names of the parameters of every group."""


@dataclass(frozen=True)
class TrainingState:
    """The state of a training run that a clone goes on from.

    Attributes:
        name: of the file, or the folder, of the optimizer.
        source: the optimizer's state that it has grown from.
        grown: what that has become.
        beside: other files of the run.
    """

    name: str
    source: Stored
    grown: Grown
    beside: Sequence[Path]

    def write(self, folder: Path) -> str:
        """Write it into the folder of the clone; returns what the user should know about it."""
        state = state_dict(self.grown, by_name=is_by_name(self.source.state))
        self.source.write(state, folder / self.name)
        for path in self.beside:
            shutil.copyfile(path, folder / path.name)
        files = ", ".join((self.name, *(path.name for path in self.beside)))
        return f"training goes on from {files}, at the source's rates"


def training_state(plan: Plan, path: Path) -> TrainingState:
    """Grow the state of an optimizer with a checkpoint. Nothing is written.

    Args:
        plan: what has been decided about the clone.
        path: the ``optimizer.pt`` of transformers' Trainer, the ``optimizer.bin`` of Accelerate, or the folder that
            either has from FSDP.

    Raises:
        GraphcloneError: it cannot be read, or belongs to another model, or cannot be grown.
    """
    from graphclone.formats.torch.optimizer_states import read_state

    source = read_state(path)
    parameters = Parameters.of(plan.widened.state)
    try:
        kind = source.kind
        place, names = _names(plan, source.state, parameters)
        result = source.grown(parameters, kind, names)
        if place is not None:
            _arrange(result, _orders(plan, plan.checkpoint.with_fields(plan.fields))[place])
    except GraphcloneError as error:  # what helps there is no option here
        raise GraphcloneError(f"{path}: {error.message}") from error
    beside = [file for pattern in _BESIDE for file in sorted(path.parent.glob(pattern))]
    return TrainingState(path.resolve().name, source, result, beside)


def _arrange(result: Grown, order: Order) -> None:
    """Put the parameters of every group into the order that they have in the wider model.

    Raises:
        GraphcloneError: the groups of that one have others.
    """
    for group, names in zip(result.groups, order, strict=True):
        if strays := set(names) ^ set(group["params"]):
            raise GraphcloneError(f"the wider model has other groups: {min(strays)} is in only one of the two")
        group["params"] = list(names)


def _names(plan: Plan, state: Mapping[str, Any], parameters: Parameters) -> tuple[int, list[str]] | tuple[None, None]:
    """Which order a state has its parameters in, and the names of these; nothing where it says them.

    Raises:
        GraphcloneError: the state is of another model, or its order cannot be told.
    """
    if is_by_name(state) or all("param_names" in group for group in state["param_groups"]):
        return None, None
    orders = _orders(plan, plan.checkpoint.config)
    if lost := [name for names in orders[0] for name in names if name not in parameters.heirs]:
        raise GraphcloneError(f"may have a state of {lost[0]}, which the clone lacks; let the optimizer begin anew")
    counts = [len(group["params"]) for group in state["param_groups"]]
    fitting = [place for place, order in enumerate(orders) if [len(names) for names in order] == counts]
    if not fitting:
        expected = " or ".join(str([len(names) for names in order]) for order in orders)
        raise GraphcloneError(f"its groups have {counts} parameters, but those of the model are {expected}")
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    misfits = {place: _misfit(orders[place], numbers, state["state"], parameters) for place in fitting}
    found = [place for place in fitting if misfits[place] is None]
    if not found:
        raise GraphcloneError(str(misfits[fitting[0]]))
    if any(orders[place] != orders[found[0]] for place in found):
        raise GraphcloneError("its parameters may be in several orders; make the optimizer of named_parameters()")
    return found[0], [name for names in orders[found[0]] for name in names]


def _misfit(
    order: Order, numbers: Sequence[int], entries: Mapping[int, Mapping[str, Any]], parameters: Parameters
) -> str | None:
    """The first parameter whose state has another shape, and what it has."""
    for name, number in zip((name for names in order for name in names), numbers, strict=True):
        shape = parameters.source_shape(name)
        for key, value in entries.get(number, {}).items():
            if isinstance(value, torch.Tensor) and value.dim() and tuple(value.shape) != shape:
                return f"the state of {name} has {key} of {tuple(value.shape)}, but it is {shape}"
    return None


def _orders(plan: Plan, config: Any) -> list[Order]:
    """The groups that parameters come in: all in one, as Trainer has them, and matrices before the rest."""
    with quiet_transformers():
        module = plan.checkpoint.on_meta(config)
        decaying = set(imported().Trainer.get_decay_parameter_names(None, module))
    trained = [(name, parameter.dim() > 1) for name, parameter in module.named_parameters() if parameter.requires_grad]
    return [
        [[name for name, _ in trained]],
        [[name for name, _ in trained if name in decaying], [name for name, _ in trained if name not in decaying]],
        [[name for name, matrix in trained if matrix], [name for name, matrix in trained if not matrix]],
    ]
