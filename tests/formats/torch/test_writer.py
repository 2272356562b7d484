"""What is written: trainable modules, exported programs and ONNX models, whole or not at all."""

from __future__ import annotations

import errno
import logging
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import onnx_ir
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import graphclone as gc
from graphclone.clones.clone import Clone
from graphclone.errors import GraphcloneError
from graphclone.formats.onnx import saving
from graphclone.formats.torch import export_onnx
from graphclone.runtime.files import written
from graphclone.runtime.sessions import Session
from tests.support.clones import Unsupported, features, perceptron, small, spoilable, zoo_clone
from tests.support.zoo import ZOO


def initializers(path: Path) -> dict[str, tuple[int, ...]]:
    model = onnx.load(path)
    return {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}


def close(a: Tensor, b: Any) -> None:
    torch.testing.assert_close(a, torch.as_tensor(b), rtol=1e-4, atol=1e-5)


# Modules


@pytest.mark.parametrize("name", ["opt-mini", "bert-classifier", "unet", "lstm"])
def test_a_module_has_the_state_dict_of_the_wider_class(name: str) -> None:
    wide = ZOO[name].build(2).module.state_dict()
    module, state = zoo_clone(name).module(), zoo_clone(name).state_dict()
    assert {key: t.shape for key, t in module.state_dict().items()} == {k: t.shape for k, t in wide.items()}
    assert {key: t.shape for key, t in state.items()} == {k: t.shape for k, t in wide.items()}


def test_tied_parameters_stay_tied() -> None:
    module = zoo_clone("opt-mini").module()
    head, table = "lm_head.weight", "model.decoder.embed_tokens.weight"
    assert module.get_parameter(head) is module.get_parameter(table)
    state = zoo_clone("opt-mini").state_dict()
    assert state[head].data_ptr() == state[table].data_ptr()
    assert len(list(module.parameters())) == len(list(ZOO["opt-mini"].build().module.parameters()))


@pytest.mark.parametrize("name", ["opt-mini", "bert-classifier", "resnet-basic"])
def test_a_module_trains(name: str) -> None:
    """Gradients reach the parameters they reach in the source, and a step downhill lowers the loss."""
    built, module = ZOO[name].build(), zoo_clone(name).module()
    assert not module.training

    def loss(model: nn.Module) -> Tensor:
        output = model(*built.args, **built.kwargs)
        total: Tensor = output["logits"].square().mean()
        return total

    loss(built.module).backward()
    reached = {key for key, p in built.module.named_parameters() if p.grad is not None and p.grad.any()}
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-4)
    before = loss(module)
    before.backward()
    assert {key for key, p in module.named_parameters() if p.grad is not None and p.grad.any()} == reached
    optimizer.step()
    assert loss(module) < before


def test_a_module_that_is_moved_makes_its_tensors_where_it_is() -> None:
    """The trace says that positions are made on the CPU."""
    source = ZOO["opt-mini"].build()
    wide = zoo_clone("opt-mini").module()
    assert wide.to("meta")(**{name: tensor.to("meta") for name, tensor in source.kwargs.items()})[0].is_meta


def test_frozen_parameters_stay_frozen() -> None:
    module = small()
    module.get_parameter("0.weight").requires_grad = False
    wide = spoilable(module).module()
    assert not wide.get_parameter("0.weight").requires_grad
    assert wide.get_parameter("0.bias").requires_grad


def test_a_module_is_called_as_its_source_is() -> None:
    """Inputs by name in any order, None and numbers among them, and an input called like a parameter."""

    class Called(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(features(6, 10))
            self.down = nn.Linear(10, 5)

        def forward(self, bias: Any, weight: Tensor, times: int, other: Tensor) -> dict[str, Tensor]:
            return {"result": self.down(torch.tanh(weight @ self.weight)) * times + other}

    kwargs = {"other": features(3, 5) + 1, "weight": features(3, 6), "times": 2}
    source = Called()
    made = spoilable(source, None, kwargs=kwargs)
    module = made.module()
    assert module.weight.shape == (6, 20)
    expected = source(None, **kwargs)["result"]
    close(expected, module(None, **kwargs)["result"])
    close(expected, module(None, **dict(reversed(kwargs.items())))["result"])
    assert made.verify(onnx=False).ok


# Programs


def test_a_program_survives_the_disk(tmp_path: Path) -> None:
    made = zoo_clone("opt-mini")
    made.save(tmp_path / "wide.pt2")
    assert [file.name for file in tmp_path.iterdir()] == ["wide.pt2"]
    loaded = torch.export.load(tmp_path / "wide.pt2")
    state = made.state_dict()
    assert loaded.state_dict.keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict.items())
    ids = torch.arange(15).reshape(3, 5)
    close(made.module()(input_ids=ids)["logits"], loaded.module()(input_ids=ids)["logits"])


class Fields:
    """A class of some library, whose parts have names."""

    def __init__(self, last: Any, others: Any) -> None:
        self.last, self.others = last, others


class Parts:
    """A class that was registered without names for its parts."""

    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts


class Pair(NamedTuple):
    first: Any
    second: Any


pytree.register_pytree_node(
    Fields,
    lambda fields: ([fields.last, fields.others], None),
    lambda parts, _: Fields(*parts),
    serialized_type_name="tests.Fields",
    flatten_with_keys_fn=lambda fields: (
        [(pytree.GetAttrKey("last"), fields.last), (pytree.GetAttrKey("others"), fields.others)],
        None,
    ),
)
pytree.register_pytree_node(
    Parts,
    lambda parts: (parts.parts, None),
    lambda parts, _: Parts(list(parts)),
    serialized_type_name="tests.Parts",
)


class Structured(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 20), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Any:
        hidden = self.down(self.up(x).relu())
        return Fields(hidden, [Pair(hidden + 1, {"b": hidden + 2, "a": Parts([hidden + 3, hidden + 4])})])


def test_a_program_returns_what_needs_no_library(tmp_path: Path) -> None:
    """Classes become dicts and tuples; the module of the clone returns them as the source does."""
    x = features(2, 6)
    made = spoilable(Structured(), x)
    assert isinstance(made.module()(x), Fields)
    assert [output.name for output in made.graph.outputs][:3] == ["last", "others.0.first", "others.0.second.b"]
    made.save(tmp_path / "wide.pt2")
    hidden = made.module()(x).last
    found = torch.export.load(tmp_path / "wide.pt2").module()(x)
    torch.testing.assert_close(
        found, {"last": hidden, "others": [(hidden + 1, {"b": hidden + 2, "a": (hidden + 3, hidden + 4)})]}
    )


def test_a_program_that_does_not_fit_on_the_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(program: Any, target: Path) -> None:
        target.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed\nand more")

    monkeypatch.setattr(torch.export, "save", save)
    with pytest.raises(GraphcloneError, match=r"cannot write .*wide.pt2: PytorchStreamWriter .* failed$"):
        perceptron().save(tmp_path / "wide.pt2")
    assert not list(tmp_path.iterdir())


def test_a_program_that_the_format_has_no_place_for_is_refused(tmp_path: Path) -> None:
    class Asked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, bool]:
            return self.down(torch.tanh(self.up(x))), x.shape[0] > 3

    with pytest.raises(GraphcloneError, match=r"wide.pt2: torch cannot write this program: "):
        gc.clone(Asked().eval(), (torch.randn(5, 6),)).save(tmp_path / "wide.pt2")
    assert not list(tmp_path.iterdir())


# ONNX


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX model of a clone with tied weights."""
    path = tmp_path_factory.mktemp("onnx") / "wide.onnx"
    zoo_clone("opt-mini").save_onnx(path)
    return path


def test_onnx_keeps_the_names_of_the_state_dict(onnx_file: Path) -> None:
    state = zoo_clone("opt-mini").state_dict()
    found = initializers(onnx_file)
    assert found.keys() <= state.keys()
    assert {state[name].data_ptr() for name in found} == {tensor.data_ptr() for tensor in state.values()}
    assert all(found[name] == tuple(state[name].shape) for name in found)


def test_onnx_runs_on_other_sizes_and_names_its_ports(onnx_file: Path) -> None:
    session = Session(onnx_file, "cpu")
    assert session.provider == "CPUExecutionProvider"
    assert [port.name for port in session.inputs] == ["input_ids"]
    assert [port.name for port in session.outputs] == ["logits"]
    assert not any(isinstance(size, int) for size in session.inputs[0].shape)
    ids = torch.arange(18).reshape(3, 6)
    logits = session.run({"input_ids": ids.numpy()})["logits"]
    close(zoo_clone("opt-mini").module()(input_ids=ids)["logits"].detach(), logits)


def test_onnx_is_of_a_version_that_runs_and_holds_no_notes(onnx_file: Path) -> None:
    model = onnx.load(onnx_file)
    onnx.checker.check_model(model)
    assert model.ir_version <= export_onnx.MAX_IR_VERSION
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == export_onnx.OPSET
    assert not any(item.metadata_props for item in (model.graph, *model.graph.node, *model.graph.input))
    assert b"site-packages" not in onnx_file.read_bytes()
    assert not any(node.op_type == "Identity" for node in model.graph.node)


def test_onnx_is_written_in_silence(tmp_path: Path, capfd: Any, caplog: Any) -> None:
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.WARNING):
        perceptron().save_onnx(tmp_path / "wide.onnx")
    assert capfd.readouterr() == ("", "")
    assert not caught
    assert not caplog.records


def test_an_axis_that_export_fixes_is_a_number_in_onnx(tmp_path: Path) -> None:
    """A loop over a sequence is unrolled, so that it has the length of the example."""

    class Summing(nn.Module):
        """(batch, length) of tokens below 11 -> (batch, 5)"""

        def __init__(self) -> None:
            super().__init__()
            self.embed, self.cell, self.head = nn.Embedding(11, 6), nn.GRUCell(6, 10), nn.Linear(10, 5)

        def forward(self, tokens: Tensor) -> Tensor:
            state = None
            for step in self.embed(tokens).unbind(1):
                state = self.cell(step, state)
            y: Tensor = self.head(state)
            return y

    gc.clone(Summing(), (torch.arange(21).reshape(3, 7) % 11,)).save_onnx(tmp_path / "wide.onnx")
    (port,) = Session(tmp_path / "wide.onnx", "cpu").inputs
    batch, sequence = port.shape
    assert isinstance(batch, str)
    assert sequence == 7


def test_ports_that_are_one_value_get_names_of_their_own(tmp_path: Path) -> None:
    """An output that is an input, one that is a parameter, and two that are the same."""

    class Repeating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 10)
            self.x = nn.Linear(10, 5)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            hidden = torch.tanh(self.linear(x))
            y = self.x(hidden)
            return {"linear": y, "x": x, "again": y, "x.bias": self.x.bias, "y": y + 1}

    made = spoilable(Repeating())
    made.save_onnx(tmp_path / "wide.onnx")
    session = Session(tmp_path / "wide.onnx", "cpu")
    names = [port.name for port in session.outputs]
    assert names == ["linear", "x_1", "again", "x.bias_1", "y"]
    expected = made.module()(features(4, 6))
    found = session.run({"x": features(4, 6).numpy()})
    for tensor, name in zip(expected.values(), names, strict=True):
        close(tensor.detach(), found[name])
    assert {"linear.weight", "linear.bias", "x.weight", "x.bias"} == set(initializers(tmp_path / "wide.onnx"))


def test_views_of_attention_do_not_depend_on_the_kernel(tmp_path: Path) -> None:
    """With a mask the exporter's kernel leaves its result in another order in memory than that of the trace."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(6, 14) for _ in range(3))
            self.bias, self.out = nn.Parameter(features(1, 2, 1, 1)), nn.Linear(14, 5)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            q, k, v = (f(x).view(*x.shape[:2], 2, 7).transpose(1, 2) for f in (self.q, self.k, self.v))
            bias = (mask[:, None, None, :] + self.bias).expand(-1, -1, x.shape[1], -1)
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
            y: Tensor = self.out(mixed.transpose(1, 2).contiguous().view(x.shape[0], -1, 14))
            return y

    made = spoilable(Masked(), features(3, 11, 6), torch.arange(33).view(3, 11))
    made.save_onnx(tmp_path / "wide.onnx")
    x, mask = features(4, 11, 6), torch.ones(4, 11, dtype=torch.int64)
    found = Session(tmp_path / "wide.onnx", "cpu").run({"x": x.numpy(), "mask": mask.numpy()})
    close(made.module()(x, mask).detach(), found["output"])


def test_large_weights_lie_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "INLINE_LIMIT", 100)
    wide = spoilable(nn.Sequential(nn.Linear(6, 50), nn.Tanh(), nn.Linear(50, 5)))
    wide.save_onnx(tmp_path / "wide.onnx")
    assert {file.name for file in tmp_path.iterdir()} == {"wide.onnx", "wide.onnx.data"}
    (found,) = Session(tmp_path / "wide.onnx", "cpu").run({"input": features(4, 6).numpy()}).values()
    close(wide.module()(features(4, 6)).detach(), found)


@pytest.fixture(scope="session")
def unsupported() -> Clone:
    return spoilable(Unsupported())


def test_what_torch_cannot_export_is_said_in_one_line(tmp_path: Path, unsupported: Clone) -> None:
    with pytest.raises(GraphcloneError, match="small: torch cannot export it to ONNX: ") as caught:
        unsupported.save_onnx(tmp_path / "wide.onnx")
    assert "bessel" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("existing", [None, b"before"])
def test_a_full_disk_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bytes | None
) -> None:
    def save(model: Any, target: Path, external_data: str, **_: Any) -> None:
        target.write_bytes(b"half")
        target.with_name(external_data).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(onnx_ir, "save", save)
    monkeypatch.setattr(saving, "INLINE_LIMIT", 0)
    model = onnx_ir.Model(onnx_ir.Graph([], [], nodes=[], opset_imports={"": 20}), ir_version=10)
    model.graph.register_initializer(onnx_ir.Value(name="w", const_value=onnx_ir.tensor([1.0])))
    path = tmp_path / "wide.onnx"
    if existing is not None:
        path.write_bytes(existing)
    with pytest.raises(GraphcloneError, match=r"cannot write .*wide.onnx: No space left on device$"):
        saving.write_model(model, path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == (
        {} if existing is None else {"wide.onnx": existing}
    )


# Atomic files


def test_files_appear_together_and_replace_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_text("old")
    with written(target) as path:
        path.write_text("new")
        path.with_name("a.bin.data").write_text("data")
        assert target.read_text() == "old"
        assert not (tmp_path / "a.bin.data").exists()
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a.bin": "new", "a.bin.data": "data"}


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with written(tmp_path / "a.bin") as path:
            path.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_a_target_that_cannot_be_replaced_takes_its_data_with_it(tmp_path: Path) -> None:
    (tmp_path / "a.bin").mkdir()

    def write() -> None:
        with written(tmp_path / "a.bin") as path:
            path.write_text("new")
            path.with_name("a.bin.data").write_text("data")

    with pytest.raises(GraphcloneError, match="cannot write"):
        write()
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    missing = tmp_path / "no" / "a.bin"
    with pytest.raises(GraphcloneError, match=r"cannot write to .*no: No such file or directory"), written(missing):
        pytest.fail("there is nowhere to write to")


def test_a_rescaled_number_is_as_exact_in_onnx_as_the_model() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down, self.inner = nn.Linear(6, 10), nn.Linear(10, 5), nn.Parameter(torch.randn(10, 10))

        def forward(self, x: Tensor) -> Tensor:
            h = self.up(x)
            y: Tensor = self.down(h + nn.functional.linear(h, self.inner) / self.inner.norm(dim=1))
            return y

    made = gc.clone(Normed().double().eval(), (features(4, 6).double(),), strategy="symmetric")
    assert any(isinstance(operand, float) for node in made.graph.nodes for operand in node.operands.values())
    report = made.verify(onnx=True)
    assert report.ok, str(report)


def test_a_program_that_torch_could_not_read_is_not_written(tmp_path: Path) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, str]:
            return self.down(torch.tanh(self.up(x))), "logits"

    made = gc.clone(Named().eval(), (torch.randn(3, 6),))
    assert made.module()(torch.randn(2, 6))[1] == "logits"
    for suffix in (".pt2", ".onnx"):
        with pytest.raises(
            GraphcloneError, match=rf"the model returns a text, which no \{suffix} can; save \.safetensors"
        ):
            made.save(tmp_path / f"wide{suffix}")
    assert list(tmp_path.iterdir()) == []
