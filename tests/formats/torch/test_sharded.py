"""Models that several processes share, filled by each of them with its own blocks."""

from __future__ import annotations

import pytest
import torch

import graphclone as gc
from graphclone.errors import GraphcloneError
from tests.support.sharded_models import Decoder, on_meta, source
from tests.support.torchrun import torchrun


@pytest.mark.slow
@pytest.mark.parametrize(("count", "cases"), [(2, ["fsdp", "placements", "dcp"]), (4, ["mesh"])])
def test_every_process_fills_its_own_blocks(count: int, cases: list[str]) -> None:
    result = torchrun(count, "tests.support.sharded_models", *cases)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.fixture(scope="module")
def clone() -> gc.Clone:
    model, inputs = source()
    return gc.clone(model, inputs, widen=2)


def test_a_whole_model_on_the_meta_device_is_allocated_and_stays_tied(clone: gc.Clone) -> None:
    big = on_meta()
    loaded = gc.load_into(big, clone)
    whole = clone.state_dict()
    assert {name: torch.equal(tensor, whole[name]) for name, tensor in big.state_dict().items()} == dict.fromkeys(
        whole, True
    )
    assert torch.equal(big.table, torch.arange(5.0))
    assert big.head.weight is big.embed.weight
    tensors = {id(t): t for t in (*big.parameters(), *big.buffers())}
    assert loaded.written == sum(t.nbytes for t in tensors.values())


def test_a_model_of_another_dtype_is_filled_in_its_own(clone: gc.Clone) -> None:
    big = Decoder(2).bfloat16()
    gc.load_into(big, clone)
    assert torch.equal(big.blocks[0].up.weight, clone.state_dict()["blocks.0.up.weight"].bfloat16())


def test_a_model_that_is_not_the_clones_is_refused(clone: gc.Clone) -> None:
    with pytest.raises(GraphcloneError, match=r"shift: is \(27,\), but the clone's is \(18,\); give a model as"):
        gc.load_into(Decoder(3), clone)
    with pytest.raises(GraphcloneError, match=r"blocks\.1\.down\.bias: the model lacks it; give another instance"):
        gc.load_into(Decoder(2, blocks=1), clone)
    with pytest.raises(GraphcloneError, match=r"blocks\.2\.down\.bias: the clone does not have it; give another"):
        gc.load_into(Decoder(2, blocks=3), clone)
    untied = Decoder(2)
    untied.norm.bias = untied.norm.weight
    with pytest.raises(GraphcloneError, match=r"norm\.weight and norm\.bias: are tied in the model, but not in the"):
        gc.load_into(untied, clone)


def test_a_buffer_that_the_clone_knows_nothing_of_must_be_filled(clone: gc.Clone) -> None:
    big = on_meta()
    big.register_buffer("other", torch.empty(3, device="meta"), persistent=False)
    with pytest.raises(GraphcloneError, match="other: is on the meta device and not part of the clone; fill it"):
        gc.load_into(big, clone)
