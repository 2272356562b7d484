"""The model builders, and the zoo that the other tests widen."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from graphclone.errors import GraphcloneError
from graphclone.models import MODELS, Built, build
from tests.support.zoo import ZOO

MINIS = [name for name in MODELS if name.endswith("-mini")]
PUBLISHED = {"opt-350m": 331e6, "pythia-410m": 405e6, "olmo-1b": 1.18e9}
"""Numbers of parameters."""


def run(built: Built) -> Tensor:
    """The model's only output."""
    with torch.no_grad():
        outputs = built.module(*built.args, **built.kwargs)
    output: Tensor
    (output,) = outputs.values() if isinstance(outputs, dict) else (outputs,)
    return output


def parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_model_is_small_or_published() -> None:
    assert {*MINIS, *PUBLISHED} == set(MODELS)


@pytest.mark.parametrize("name", MINIS)
def test_mini_runs(name: str) -> None:
    built = build(name)
    logits = run(built)
    assert not built.module.training
    assert logits.dtype == torch.float32
    assert logits.shape == (2, 7, MODELS[name].fields["vocab_size"])
    assert logits.isfinite().all()


@pytest.mark.parametrize("make", [*(MODELS[name].build for name in MINIS), *(source.build for source in ZOO.values())])
def test_weights_depend_on_nothing_but_the_name(make: Callable[[], Built]) -> None:
    first = make()
    torch.rand(1)
    second = make()
    states = first.module.state_dict(), second.module.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert torch.equal(run(first), run(second))


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("context", [FakeTensorMode, lambda: torch.device("meta")], ids=["fake", "meta"])
def test_published_size(name: str, context: Callable[[], Any]) -> None:
    with context():
        module = build(name).module
    assert parameter_count(module) == pytest.approx(PUBLISHED[name], rel=0.03)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_size_runs_on_fake_tensors(name: str) -> None:
    with FakeTensorMode():
        assert run(build(name)).shape == (2, 7, MODELS[name].fields["vocab_size"])


def test_unknown_name() -> None:
    with pytest.raises(GraphcloneError, match="no model is called 'opt': choose one of opt-mini, opt-350m"):
        build("opt")


def test_missing_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'graphclone\[hf\]'"):
        build("opt-mini")


@pytest.mark.parametrize("name", ZOO)
def test_source_runs(name: str) -> None:
    built = ZOO[name].build()
    output = run(built)
    assert not any(module.training for module in built.module.modules())
    assert output.isfinite().all()
    assert output.std() > 0.1


@pytest.mark.parametrize("name", ZOO)
def test_source_hides_no_error(name: str) -> None:
    state = ZOO[name].build().module.state_dict()
    floats = {key: tensor for key, tensor in state.items() if tensor.is_floating_point()}
    assert [key for key, tensor in floats.items() if tensor.std() < 0.01] == []
    assert all(tensor.min() > 0 for key, tensor in floats.items() if key.endswith("running_var"))


@pytest.mark.parametrize("name", ZOO)
def test_wider_source(name: str) -> None:
    """Every axis is as long, or twice as long; what goes in and out stays."""
    source, wider = ZOO[name].build(), ZOO[name].build(2)
    wide_state = wider.module.state_dict()
    ratios = {
        key: [big / small for small, big in zip(tensor.shape, wide_state.pop(key).shape, strict=True)]
        for key, tensor in source.module.state_dict().items()
    }
    assert not wide_state
    assert {ratio for shape in ratios.values() for ratio in shape} == {1.0, 2.0}
    assert parameter_count(wider.module) > parameter_count(source.module)
    assert run(wider).shape == run(source).shape


@pytest.mark.filterwarnings("ignore:The tensor attributes .*_flat_weights")
@pytest.mark.parametrize("name", ZOO)
def test_source_exports(name: str) -> None:
    source = ZOO[name].build()
    program = torch.export.export(source.module, source.args, source.kwargs, strict=False)
    exported = run(source._replace(module=program.module()))
    torch.testing.assert_close(exported, run(source))
