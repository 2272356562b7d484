"""Share a model that trains among processes, each with a part of every weight, gradient and moment (FSDP2)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor

from graphclone.errors import GraphcloneError
from graphclone.formats.torch.optimizer_states import read_state
from graphclone.optimizers.optimizers import is_by_name

OPTIMIZER = "optimizer.bin"
_SHARES = "optimizer_0"
"""What Accelerate calls the file of an optimizer, and the folder of one that is shared out."""


def prepare_sharded(accelerator: Any, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
    """Let Accelerate shard a module and its optimizer, and save and load them so.

    Blocks that transformers keeps whole are gathered one at a time; what is not a block, and a module that names none,
    is gathered as one.

    Args:
        accelerator: of several processes, on CPUs or GPUs.
        module: whole in every process.
        optimizer: over its parameters; its state is shared out as well.

    Returns:
        Both, prepared.

    Raises:
        GraphcloneError: there is one process only.
    """
    from accelerate import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    if accelerator.num_processes == 1:
        raise GraphcloneError(
            "[training] shard: a model is shared among several processes, here is one; start the study with torchrun"
        )
    blocks = set(getattr(module, "_no_split_modules", None) or ())
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=sorted(blocks & {type(part).__name__ for part in module.modules()}),
        cpu_ram_efficient_loading=False,
    )
    if accelerator.mixed_precision != "no":
        plugin.set_mixed_precision(accelerator.mixed_precision)
    # by itself Accelerate shards on GPUs only, and every model by the plugin of the first
    PartialState().distributed_type = accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = plugin
    state = get_optimizer_state_dict(module, optimizer) if optimizer.state else None
    optimizer.state.clear()  # of parameters that the optimizer is about to lose
    prepared, wrapped = accelerator.prepare(module, optimizer)
    if state is not None:
        set_optimizer_state_dict(prepared, wrapped, state, options=StateDictOptions(full_state_dict=True))
    return prepared, wrapped


def untied(module: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights that have been gathered of a module, each once under the first of its names."""
    names: dict[tuple[int, torch.Size], str] = {}
    for name, tensor in module.state_dict().items():
        own = tensor.to_local() if isinstance(tensor, DTensor) else tensor  # weights that were tied are gathered apart
        names.setdefault((own.data_ptr(), tensor.shape), name)
    return {name: weights[name].contiguous() for name in names.values() if name in weights}


def keep_optimizer(state: Path, folder: Path) -> None:
    """Keep the optimizer of a state that Accelerate has saved, as one file of the whole of it.

    Args:
        state: a folder of Accelerate's.
        folder: gets the file.
    """
    if (state / OPTIMIZER).exists():
        shutil.copyfile(state / OPTIMIZER, folder / OPTIMIZER)
    else:
        torch.save(read_state(state / _SHARES).state, folder / OPTIMIZER)


def load_optimizer(module: torch.nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Load what ``keep_optimizer`` has kept into an optimizer over the parameters of a module, in its order."""
    state = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True)
    if is_by_name(state):
        set_optimizer_state_dict(module, optimizer, state)
    else:
        optimizer.load_state_dict(state)
