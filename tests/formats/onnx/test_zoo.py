"""Real ONNX files, as exporters and optimisers write them: widened, verified in ONNX Runtime, and right node by node.

``python -m tests.survey.collection`` does the same with all of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import graphclone as gc
from graphclone.algebra.growth import Kind
from graphclone.formats.onnx.reader import read_graph
from graphclone.formats.onnx.tensors import to_torch
from graphclone.pipeline.runner import run
from graphclone.pipeline.state import Request, State
from graphclone.verification.lockstep import run_lockstep
from tests.support.marks import slow_but
from tests.support.onnx_zoo import feeds, model_file
from tests.support.tracing import random_pipeline
from tests.survey.collection import surveyed

FILES = [
    "light/light_squeezenet",
    "pytorch-converted/ConvTranspose2d",
    "pytorch-converted/Embedding",
    "pytorch-operator/operator_conv",
    "dynamo/gpt2",
    "dynamo/lstm",
    "dynamo-optimized/llama-tied",
    "dynamo-optimized/resnet-basic",
    "legacy-11/bert-mlm",
    "legacy-11/encoder",
    "legacy-17/olmo2",
    "legacy-17/unet",
    "ort-basic/opt-dynamo",
    "ort-extended/bert-classifier",
    "ort-extended/mobilenet",
    "fused/gpt2-with-cache-17",
    "fused/llama-gqa",
    "fused/bert-mlm-multi-head-11",
    "cache/llama-gqa-dynamo",
    "cache/opt-legacy-17",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx")


QUICK = (
    *("pytorch-converted/ConvTranspose2d", "pytorch-converted/Embedding", "pytorch-operator/operator_conv"),
    *("dynamo-optimized/resnet-basic", "legacy-11/bert-mlm", "legacy-17/unet", "ort-extended/mobilenet"),
    *("fused/gpt2-with-cache-17", "fused/llama-gqa", "cache/opt-legacy-17"),
)


@pytest.mark.parametrize("name", slow_but(QUICK, FILES))
def test_files_grow_as_their_class_does_and_stay_equivalent(name: str, folder: Path) -> None:
    row = surveyed(name, folder, factor=3)
    assert not row.refused
    assert row.ok, row.checks
    assert row.widened
    assert row.growth >= 0.9 * (row.expected or 0)


@pytest.mark.parametrize("kind", slow_but(("tile",), ("tile", "interleave")))
@pytest.mark.parametrize("name", [name for name in FILES if "light" not in name])
def test_every_dim_may_grow_by_itself(name: str, kind: Kind, folder: Path) -> None:
    """Any widths, inputs and outputs let grow: every node in float64."""
    path = model_file(name, folder)
    state = State(read_graph(path), Request(widen_io=("*",)))
    run(random_pipeline(1, kind), state, check=True)
    drawn = feeds(path)
    found = run_lockstep(state, [to_torch(drawn[value.name]) for value in state.graph.inputs])
    assert found.first is None
    assert any(growth.grows for growth in state.growths.values())


def test_a_shuffle_network_grows_where_a_group_has_members_of_two_branches(folder: Path) -> None:
    """Of 112 + 24 channels in 4 groups the last has members of both, and so has every stage after it."""
    clone = gc.clone(model_file("light/light_shufflenet", folder), widen=3)
    wide = {i.name: i.value.shape for i in clone.graph.initializers}
    assert wide["gpu_0/conv3_0_w_0"] == (72, 3, 3, 3)
    assert wide["gpu_0/pred_w_0"] == (1000, 3 * 544)
