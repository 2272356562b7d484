"""Modules that live on a GPU: their clones live there, too, and are those of the CPU to the bit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_map_only

import graphclone as gc
from graphclone.clones.clone import Clone
from graphclone.models import Built
from tests.support.zoo import ZOO

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]

MODELS = ("opt-mini", "bert-classifier", "vit", "resnet-basic", "llama-gqa", "t5", "encoder", "unet", "mobilenet")


def on_gpu(built: Built) -> Built:
    """The same model and inputs on the GPU."""
    args, kwargs = tree_map_only(torch.Tensor, lambda tensor: tensor.cuda(), (built.args, dict(built.kwargs)))
    return Built(copy.deepcopy(built.module).cuda(), args, kwargs)


def cloned(built: Built, **options: Any) -> Clone:
    return gc.clone(built.module, built.args, built.kwargs, **options)


def devices(tensors: dict[str, torch.Tensor]) -> set[str]:
    return {tensor.device.type for tensor in tensors.values()}


@pytest.mark.parametrize("strategy", ["symmetric", "noisy-diagonal", "lemon"])
@pytest.mark.parametrize("name", MODELS)
def test_a_clone_of_a_module_on_a_gpu_lives_there(name: str, strategy: str) -> None:
    source = ZOO[name].build()
    there = on_gpu(source)
    made = cloned(there, widen=2, strategy=strategy)
    wide, expected = made.state_dict(), cloned(source, widen=2, strategy=strategy).state_dict()
    assert devices(wide) == {"cuda"}
    assert all(torch.equal(wide[key].cpu(), expected[key]) for key in expected)
    assert devices(dict(made.module().state_dict())) == {"cuda"}
    assert made.verify(onnx=False).ok


def test_its_verification_runs_on_the_gpu() -> None:
    report = cloned(on_gpu(ZOO["opt-mini"].build()), widen=2).verify(provider="cuda")
    assert report.ok, str(report)
    assert report.provider == "CUDAExecutionProvider"


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".safetensors"])
def test_it_is_saved_as_that_of_the_cpu(suffix: str, tmp_path: Path) -> None:
    source = ZOO["opt-mini"].build()
    cloned(on_gpu(source), widen=2).save(tmp_path / f"there{suffix}")
    cloned(source, widen=2).save(tmp_path / f"here{suffix}")
    if suffix == ".safetensors":
        assert (tmp_path / f"there{suffix}").read_bytes() == (tmp_path / f"here{suffix}").read_bytes()
    elif suffix == ".pt2":
        assert devices(torch.export.load(tmp_path / f"there{suffix}").state_dict) == {"cuda"}


def test_a_wider_module_on_the_gpu_is_filled() -> None:
    source, wide = on_gpu(ZOO["opt-mini"].build()), on_gpu(ZOO["opt-mini"].build(2))
    made = cloned(source, into=wide.module)
    assert devices(dict(wide.module.state_dict())) == {"cuda"}
    with torch.no_grad():
        got, wanted = wide.module(*source.args, **source.kwargs)[0], source.module(*source.args, **source.kwargs)[0]
    assert torch.allclose(got, wanted, atol=1e-5)
    assert made.verify(onnx=False).ok


def test_a_clone_on_the_cpu_fills_a_module_on_the_gpu() -> None:
    source = ZOO["opt-mini"].build()
    made = cloned(source, widen=2, strategy="noisy-diagonal")
    with torch.device("meta"):
        big = ZOO["opt-mini"].module(2)
    gc.load_into(big, made, device="cuda")
    whole = made.state_dict()
    assert devices(big.state_dict()) == {"cuda"}
    assert all(torch.equal(tensor.cpu(), whole[name]) for name, tensor in big.state_dict().items())


def test_an_optimizer_on_the_gpu_grows() -> None:
    source = on_gpu(ZOO["opt-mini"].build())
    made = cloned(source, widen=2)
    wide = made.module()
    optimizer = torch.optim.AdamW(source.module.parameters(), lr=1e-3)
    source.module(*source.args, **source.kwargs)[0].square().mean().backward()
    optimizer.step()
    grown = gc.grow_optimizer(made, optimizer, wide)
    moments = [state["exp_avg"].device.type for state in grown.state.values()]
    assert set(moments) == {"cuda"}


def test_a_module_of_low_precision_runs_in_onnx_runtime() -> None:
    built = ZOO["opt-mini"].build()
    report = cloned(on_gpu(Built(built.module.bfloat16(), built.args, built.kwargs)), widen=2).verify(provider="cuda")
    assert report.ok, str(report)
    assert report.onnx_checked


@pytest.mark.parametrize(
    ("strategy", "sizes"),
    [
        ("symmetric", {"model.decoder": 71, "layers.*.fc1": 201}),
        ("noisy-symmetric", {"model.decoder": 71, "layers.*.fc1": 201}),
        ("fresh", {"layers.*.fc1": 201}),
    ],
)
def test_sizes_and_pads_are_those_of_the_cpu(strategy: str, sizes: dict[str, int]) -> None:
    built = ZOO["opt-mini"].build()
    expected = cloned(built, sizes=sizes, strategy=strategy).state_dict()
    wide = cloned(on_gpu(built), sizes=sizes, strategy=strategy).state_dict()
    assert all(torch.equal(wide[key].cpu(), expected[key]) for key in expected)


def test_copies_learn_slowly_on_a_module_that_was_moved_since() -> None:
    source = ZOO["opt-mini"].build()
    made = cloned(source, sizes={"layers.*.fc1": 201}, strategy="fresh")
    wide = made.module()
    optimizer = torch.optim.SGD(wide.parameters(), lr=1e-2)
    gc.slow_copies(made, optimizer, wide, 0.0)
    there = on_gpu(Built(wide.cuda(), source.args, source.kwargs))
    before = {name: parameter.detach().clone() for name, parameter in wide.named_parameters()}
    wide(*there.args, **there.kwargs)[0].square().mean().backward()
    optimizer.step()
    moved = torch.cat([(parameter != before[name]).view(-1) for name, parameter in wide.named_parameters()])
    assert 0 < moved.float().mean() < 0.5
