"""What one of several processes does to see that a sharded model is filled as a whole one is.

torchrun --nproc-per-node 2 -m tests.support.sharded_models fsdp
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import graphclone as gc
from graphclone.clones.clone import Clone
from graphclone.errors import GraphcloneError
from graphclone.formats.torch import dcp
from graphclone.runtime import kernel, ranks
from graphclone.runtime.shards import BLOCK


class Largest(TorchDispatchMode):
    """Finds out how large the largest plain tensor was that anything made."""

    def __init__(self) -> None:
        super().__init__()
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            made = (t for t in tree_leaves(result) if type(t) is Tensor and not t.is_meta)
            self.nbytes = max(self.nbytes, *(t.nbytes for t in made), 0)
        return result


VOCABULARY, WIDTH, INNER = 19, 9, 15


class Decoder(nn.Module):
    """Blocks between an embedding and a head that are tied, with a buffer and a table: (batch, length) -> logits."""

    def __init__(self, factor: int = 1, blocks: int = 2) -> None:
        super().__init__()
        width = WIDTH * factor
        self.embed = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(Block(width, INNER * factor) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("shift", torch.ones(width))
        self.register_buffer("table", torch.arange(5.0), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.shift + self.table.mean()
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


class Block(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.down(torch.relu(self.up(self.norm(x))))
        return y


def source() -> tuple[nn.Module, tuple[Tensor]]:
    """The narrow model and its inputs, the same in every process."""
    torch.manual_seed(0)
    model = Decoder().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model, (torch.randint(VOCABULARY, (2, 5)),)


def on_meta(factor: int = 2) -> Decoder:
    """The wide model without weights."""
    with torch.device("meta"):
        return Decoder(factor).eval()


def check(big: nn.Module, clone: Clone, inputs: tuple[Tensor], expected: Tensor) -> None:
    """See that every tensor is the clone's, bit for bit, that the model runs and that no block was larger than due."""
    with Largest() as seen:
        loaded = gc.load_into(big, clone)
    whole = clone.state_dict()
    tensors = dict(big.named_parameters(remove_duplicate=False)) | dict(big.named_buffers(remove_duplicate=False))
    own = {name: t.to_local() if isinstance(t, DTensor) else t for name, t in tensors.items()}
    unique = {id(tensor): own[name] for name, tensor in tensors.items()}
    assert loaded.written == sum(t.nbytes for t in unique.values()), loaded
    assert seen.nbytes <= max(*(t.nbytes for t in own.values()), BLOCK, 8 * kernel.CHUNK), seen.nbytes
    for name, tensor in whole.items():
        full = tensors[name].full_tensor() if isinstance(tensors[name], DTensor) else tensors[name]
        assert torch.equal(full, tensor), name
    assert tensors["head.weight"] is tensors["embed.weight"]
    with torch.no_grad():
        found = big(*inputs)
    found = found.full_tensor() if isinstance(found, DTensor) else found
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def clones() -> list[tuple[Clone, int]]:
    """Clones of every kind, and the factor of the wide model."""
    model, inputs = source()
    made = [(gc.clone(model, inputs, widen=2, strategy=s, seed=3), 2) for s in ("symmetric", "noisy-diagonal")]
    wide = on_meta(3)
    wide.table = torch.arange(5.0)  # compared with the source's
    return [*made, (gc.clone(model, inputs, into=wide, strategy="noisy-symmetric"), 3)]


def fsdp() -> None:
    """FSDP2 over all processes, in blocks of uneven sizes; it trains a step."""
    model, inputs = source()
    with torch.no_grad():
        expected = model(*inputs)
    for clone, factor in clones():
        big = on_meta(factor)
        for block in big.blocks:
            fully_shard(block)
        fully_shard(big)
        check(big, clone, inputs, expected)
    optimizer = torch.optim.AdamW(big.parameters(), lr=1e-3)
    big(*inputs).square().mean().backward()
    optimizer.step()
    assert big.head.weight is big.embed.weight


def fsdp_and_tensor_parallel() -> None:
    """A 2 x 2 mesh: rows of one dim cut by both, and columns; what tensor parallelism cuts is even, as torch wants."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    model, inputs = source()
    with torch.no_grad():
        expected = model(*inputs)
    for clone, factor in clones()[:2]:
        big = on_meta(factor)
        for block in big.blocks:
            parallelize_module(block, mesh["tp"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
            fully_shard(block, mesh=mesh["dp"])
        fully_shard(big, mesh=mesh["dp"])
        check(big, clone, inputs, expected)


def placements() -> None:
    """Any placement, one tensor at a time; and models that are not the clone's."""
    model, inputs = source()
    clone = gc.clone(model, inputs, widen=2, strategy="noisy-symmetric")
    mesh: DeviceMesh = init_device_mesh("cpu", (2,))
    from torch.distributed.tensor import Partial, Replicate, Shard

    for placement in (Shard(0), Shard(1), Replicate()):
        big = on_meta()
        whole = clone.state_dict()["blocks.0.up.weight"]
        up = big.blocks[0].up
        up.weight = nn.Parameter(DTensor.from_local(_local(whole, placement), mesh, [placement], run_check=False))
        gc.load_into(big, clone)
        assert isinstance(up.weight, DTensor)
        assert torch.equal(up.weight.full_tensor(), whole)
    big = on_meta()
    up = big.blocks[0].up
    up.weight = nn.Parameter(DTensor.from_local(whole.to("meta"), mesh, [Partial()], run_check=False))
    with pytest.raises(GraphcloneError, match="is a sum over processes"):
        gc.load_into(big, clone)


def _local(whole: Tensor, placement: object) -> Tensor:
    dim = getattr(placement, "dim", None)
    rank, count = distributed.get_rank(), distributed.get_world_size()
    return (whole if dim is None else whole.chunk(count, dim)[rank]).to("meta")


def written_together() -> None:
    """A DCP checkpoint that all processes write, loaded into FSDP2."""
    model, inputs = source()
    clone = gc.clone(model, inputs, widen=2, strategy="noisy-symmetric")
    folder = Path(tempfile.gettempdir()) / f"graphclone-test-{distributed.get_world_size()}-{os.getppid()}"
    with patch.object(dcp, "PART", 300):
        dcp.save_dcp(clone.state, folder, ranks=ranks.current())
    big = Decoder(2).eval()
    fully_shard(big)
    state = get_model_state_dict(big)
    checkpoint.load({"model": state}, checkpoint_id=folder)
    set_model_state_dict(big, state)
    for name, tensor in clone.state_dict().items():
        found = big.get_parameter(name) if name != "shift" else big.shift
        assert torch.equal(found.full_tensor() if isinstance(found, DTensor) else found, tensor), name
    distributed.barrier()
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(distributed.get_rank())
    with pytest.raises(GraphcloneError, match="the processes have different models; seed what draws"):
        dcp.save_dcp(gc.clone(Decoder().eval(), inputs).state, folder, ranks=ranks.current())


CASES: dict[str, Callable[[], None]] = {
    "fsdp": fsdp,
    "mesh": fsdp_and_tensor_parallel,
    "placements": placements,
    "dcp": written_together,
}


def main() -> None:
    """Run the cases named on the command line."""
    distributed.init_process_group("gloo")
    for name in sys.argv[1:]:
        CASES[name]()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
