"""What one of several processes does to see that the state of an optimizer grows from FSDP2 to FSDP2, by the disk.

torchrun --nproc-per-node 2 -m tests.support.sharded_optimizers FOLDER
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard

import graphclone as gc
from graphclone.cli.__main__ import main as command
from tests.support.sharded_models import Decoder, source


def _sharded(model: nn.Module) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model whose parameters all processes share, and an optimizer over them."""
    for block in model.blocks:
        fully_shard(block)
    fully_shard(model)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3)


def _whole(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return get_optimizer_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=True))


def main(folder: str) -> None:
    """Train a step, save, grow by the command line, and load into a wide model."""
    distributed.init_process_group("gloo")
    os.chdir(folder)
    narrow, inputs = source()
    model, optimizer = _sharded(narrow)
    model(*inputs).square().sum().backward()
    optimizer.step()
    state = {"model": get_model_state_dict(model), "optimizer": get_optimizer_state_dict(model, optimizer)}
    checkpoint.save(state, checkpoint_id="in")
    words = "clone mine.py:model --weights in --optimizer in -o out --format dcp --no-verify".split()
    assert command(words) == 0
    big, theirs = _sharded(Decoder(2))
    state = {"model": get_model_state_dict(big), "optimizer": get_optimizer_state_dict(big, theirs)}
    checkpoint.load(state, checkpoint_id="out")
    set_model_state_dict(big, state["model"])
    set_optimizer_state_dict(big, theirs, state["optimizer"])
    clone = gc.clone(*source())
    expected = clone.optimizer_state_dict(_whole(model, optimizer), rule="same")
    found = _whole(big, theirs)
    assert found["state"].keys() == expected["state"].keys()
    for name, entry in expected["state"].items():
        assert all(torch.equal(value, found["state"][name][key]) for key, value in entry.items()), name
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
