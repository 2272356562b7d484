"""What a trace holds for: code that reads a size, a number among the inputs, and single elements."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from graphclone.cli.__main__ import main
from graphclone.formats.torch.export import export
from graphclone.formats.torch.guards import InputError
from tests.support.clones import features, seeded
from tests.support.marks import slow_but

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # torch's own pickling
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]

BATCHES = (1, 2, 3, 4, 5, 6, 8, 9, 16)


class Sized(nn.Module):
    """(batch, 6) -> (batch, 5), with something in between that may read the size of the batch."""

    def __init__(self, middle: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.up, self.down, self.middle = nn.Linear(6, 10), nn.Linear(10, 5), middle

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.middle(torch.tanh(self.up(x)), x))
        return y


def sized(middle: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
    made: nn.Module = seeded(lambda: Sized(middle)).double().eval()
    return made


def _loop(h: Tensor, x: Tensor) -> Tensor:
    for i in range(x.shape[0]):
        h = h * (1 + i / 10)
    return h


def _halves(h: Tensor) -> Tensor:
    return h.reshape(2 * h.shape[0], 5)


def _of_columns(h: Tensor, number: int) -> Tensor:
    if h.shape[1] != number:
        raise ValueError(f"{number} columns")
    return h


READS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a branch": lambda h, x: h * 2 if x.shape[0] > 3 else h,
    "a branch the other way": lambda h, x: h * 2 if x.shape[0] > 4 else h,
    "is it one": lambda h, x: h * 2 if x.shape[0] == 1 else h,
    "is it more than one": lambda h, x: h * 2 if len(x) > 1 else h,
    "parity": lambda h, x: h * 2 if x.shape[0] % 2 else h,
    "a quarter": lambda h, x: h * int(x.shape[0] / 4),
    "a float": lambda h, x: h / float(x.shape[0]),
    "a number of rows": lambda h, x: h.reshape(len(h), -1) * float(len(x)),
    "a share of the windows": lambda h, x: _halves(h).reshape(int(_halves(h).shape[0] / (6 / 3)), 2, -1).flatten(1),
    "a count by columns": lambda h, x: _of_columns(h, 10) * len(x),
    "is it one, by a number of rows": lambda h, x: (h * 2 if x.shape[0] == 1 else h).reshape(len(h), -1),
    "a logarithm": lambda h, x: h * math.log(1 + x.shape[0]),
    "a root": lambda h, x: h * x.shape[0] ** 0.5,
    "a stack over the batch": lambda h, x: torch.stack([row * (i + 1) for i, row in enumerate(h)]),
    "a loop over the batch": _loop,
    "a list of sizes": lambda h, x: h * (2 if x.shape[0] in (5, 6) else 1),
    "the width": lambda h, x: h * 2 if x.shape[0] == h.shape[1] else h,
    "the greater": lambda h, x: h * max(x.shape[0], 4),
    "a table": lambda h, x: h * torch.arange(1.0, 9.0)[x.shape[0] - 1],
    "a tensor of it": lambda h, x: h * torch.tensor(x.shape[0]),
    "windows": lambda h, x: h - h.view(2, x.shape[0] // 2, 10).mean(0, keepdim=True).repeat(2, 1, 1).view_as(h),
    "the last rows": lambda h, x: h[-2:].view(h[-2:].shape[0], -1).repeat(2, 1)[: x.shape[0]],
    "a squeeze": lambda h, x: h.squeeze(0) * 2,
    "nothing": lambda h, x: h * 2,
}


WRITTEN = ("a branch", "is it one", "parity", "a quarter", "a stack over the batch", "the width", "windows")
"""Those that are also written to disk: a bound, a doubt, remainders, a fixed size, two numbers, many conditions."""


def read(name: str, batch: int = 4) -> tuple[nn.Module, gc.Clone]:
    model = sized(READS[name])
    return model, gc.clone(model, (features(batch, 6).double(),), widen=2)


def outcomes(model: nn.Module, clone: Callable[[Tensor], Any]) -> dict[int, str]:
    """For every batch whether the clone computes what the model does, or refuses."""
    found = {}
    for batch in BATCHES:
        x = features(batch, 6).double()
        try:
            expected = model(x)
        except (RuntimeError, IndexError):
            continue
        try:
            y = torch.as_tensor(clone(x))
        except Exception:  # each format has its own
            found[batch] = "refused"
            continue
        same = y.shape == expected.shape and torch.allclose(y, expected, rtol=1e-5, atol=1e-6)
        found[batch] = "same" if same else "WRONG"
    return found


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", READS)
def test_a_clone_computes_what_the_model_does_or_refuses(name: str, batch: int) -> None:
    if (name, batch) == ("windows", 1):
        batch = 2
    model, clone = read(name, batch)
    found = outcomes(model, clone.module())
    assert "WRONG" not in found.values(), found
    assert found[batch] == "same"
    assert clone.state_dict()["up.weight"].shape == (20, 6)


@pytest.mark.parametrize("name", slow_but(("a branch", "parity", "windows"), WRITTEN))
def test_what_is_written_does_so_too(name: str, tmp_path: Path) -> None:
    model, clone = read(name)
    clone.save(tmp_path / "wide.pt2")
    found = outcomes(model, torch.export.load(tmp_path / "wide.pt2").module())
    assert "WRONG" not in found.values(), found
    assert found[4] == "same"
    clone.save_onnx(tmp_path / "wide.onnx")
    onnxruntime.set_default_logger_severity(4)
    session = onnxruntime.InferenceSession(tmp_path / "wide.onnx")
    port = session.get_inputs()[0].name
    found = outcomes(model, lambda x: session.run(None, {port: x.numpy()})[0])
    assert "WRONG" not in found.values(), found
    assert found[4] == "same"


@pytest.mark.parametrize(
    "name", ["a float", "a root", "a number of rows", "a share of the windows", "a count by columns"]
)
@pytest.mark.parametrize("batch", [1, 4])
def test_a_size_that_becomes_a_number_is_any_size(name: str, batch: int) -> None:
    model, clone = read(name, batch)
    assert set(outcomes(model, clone.module()).values()) == {"same"}


def _outcomes_of_rows(batch: int) -> dict[int, str]:
    model, clone = read("is it one, by a number of rows", batch)
    return outcomes(model, clone.module())


def test_strict_traces_doubt_every_single_element() -> None:
    """That mode has no record of what the code asks."""
    assert {size for size, found in _outcomes_of_rows(1).items() if found == "same"} == {1}
    found = _outcomes_of_rows(4)
    assert found.pop(1) == "refused"
    assert set(found.values()) == {"same"}


def test_what_reads_no_size_takes_any(tmp_path: Path) -> None:
    clone = gc.clone(sized(READS["nothing"]), (features(4, 6).double(),))
    assert set(outcomes(sized(READS["nothing"]), clone.module()).values()) == {"same"}
    assert not clone.graph.notes


def test_a_single_element_is_let_through_where_the_answer_does_not_matter() -> None:
    """Whether there is one element changes how this is computed, not what."""
    model = sized(lambda h, x: h.expand(1, *h.shape).sum(0) if x.shape[0] == 1 else h)
    clone = gc.clone(model, (features(4, 6).double(),))
    assert clone.graph.origin.guards.doubts
    assert set(outcomes(model, clone.module()).values()) == {"same"}
    assert clone.verify(onnx=False).ok


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("a loop over the batch", "traced with static sizes: x axis 0 = 4 (the code depends on that size)"),
        ("a branch", "holds for inputs with x.shape[0] >= 4 only"),
        ("parity", "holds for inputs with (x.shape[0] % 2) == 0 only"),
    ],
)
def test_what_was_fixed_is_a_note(name: str, note: str) -> None:
    assert gc.trace(sized(READS[name]), (features(4, 6).double(),)).graph.notes == [note]


def test_what_a_single_example_fixes_is_a_note_with_the_question() -> None:
    (note,) = gc.trace(sized(READS["is it one"]), (features(1, 6).double(),)).graph.notes
    assert note.startswith(
        "traced with static sizes: x axis 0 = 1 (the code asks whether x.shape[0] == 1 in test_guards"
    )


def test_the_command_line_prints_what_was_fixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "reading.py").write_text(
        """
import math
import torch
from torch import nn


class Reading(nn.Sequential):
    def forward(self, x):
        return super().forward(x) * math.log(x.shape[0])


def make():
    return Reading(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 5)), (torch.randn(4, 6),)
"""
    )
    assert main(["clone", f"{tmp_path / 'reading.py'}:make", "-o", str(tmp_path / "wide.pt2"), "--no-verify"]) == 0
    assert "note: traced with static sizes: x axis 0 = 4 (the code depends on that size)" in capsys.readouterr().out


class Recurrent(nn.Module):
    """Reads as many tokens as there are, one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.cell, self.out = nn.Embedding(20, 12), nn.GRUCell(12, 12), nn.Linear(12, 20)

    def forward(self, tokens: Tensor) -> Tensor:
        x, h = self.embedding(tokens), torch.zeros(tokens.shape[0], 12)
        steps = []
        for i in range(tokens.shape[1]):
            h = self.cell(x[:, i], h)
            steps.append(h)
        y: Tensor = self.out(torch.stack(steps, 1))
        return y


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_size_that_is_not_read_may_be_another(batch: int) -> None:
    model = seeded(Recurrent).eval()
    wide = gc.clone(model, (torch.arange(16).view(2, 8),)).module()
    tokens = torch.arange(8 * batch).view(batch, 8) % 20
    torch.testing.assert_close(wide(tokens), model(tokens))


def test_a_size_that_is_read_is_fixed() -> None:
    tokens = torch.arange(16).view(2, 8)
    clone = gc.clone(seeded(Recurrent).eval(), (tokens,))
    wide = clone.module()
    with pytest.raises(
        ValueError, match="axis 1 of tokens has 7 elements, traced for 8 only; clone with example inputs"
    ):
        wide(tokens[:, :7])
    assert clone.verify(onnx=False).ok


# Inputs that are no tensors


class Options(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 5)

    def forward(self, x: Tensor, k: Any = 2, flag: bool = False, mask: Tensor | None = None, name: str = "a") -> Tensor:
        h = torch.tanh(self.up(x)) * k * len(name)
        h = h if mask is None else h * mask
        y: Tensor = self.down(-h if flag else h)
        return y


@pytest.mark.parametrize(
    ("given", "other", "message"),
    [
        ({"k": 2}, {"k": 3}, "k is 3, traced for 2 only"),
        ({"k": 2}, {"k": 2.0}, "k is 2.0, traced for 2 only"),
        ({"k": 2.5}, {"k": 3.5}, "k is 3.5, traced for 2.5 only"),
        ({"flag": False}, {"flag": True}, "flag is True, traced for False only"),
        ({"flag": False}, {"flag": 0}, "flag is 0, traced for False only"),
        ({"mask": None}, {"mask": torch.zeros(3, 1)}, "mask is a tensor, traced for None only"),
        ({"mask": torch.zeros(3, 1)}, {"mask": None}, "mask is None, traced with a tensor"),
        ({"name": "a"}, {"name": "bb"}, "name is 'bb', traced for 'a' only"),
    ],
)
def test_an_input_that_is_no_tensor_is_part_of_the_trace(given: Any, other: Any, message: str) -> None:
    model, x = seeded(Options).eval(), features(3, 6)
    wide = gc.clone(model, (x,), given).module()
    torch.testing.assert_close(wide(x, **given), model(x, **given))
    with pytest.raises(InputError, match=message):
        wide(x, **other)


def test_what_was_left_out_cannot_be_given() -> None:
    wide = gc.clone(seeded(Options).eval(), (features(3, 6),)).module()
    with pytest.raises(TypeError):
        wide(features(3, 6), 3)


def test_inputs_that_grew_are_held_to_their_new_sizes() -> None:
    model = seeded(lambda: nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 5))).eval()
    wide = gc.clone(model, (features(3, 6),), widen_io=["*"]).module()
    x = features(7, 6)
    torch.testing.assert_close(wide(torch.cat([x, x], 1)), torch.cat([model(x)] * 2, 1))
    with pytest.raises(InputError, match="axis 1 of input has 6 elements, traced for 12 only"):
        wide(x)


# The guard goes where the module goes


@pytest.mark.parametrize(
    "move", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))], ids=["copy", "pickle"]
)
def test_copies_refuse_as_well(move: Callable[[nn.Module], nn.Module]) -> None:
    model, x = sized(READS["parity"]), features(4, 6).double()
    wide = move(gc.clone(model, (x,)).module())
    torch.testing.assert_close(wide(x), model(x))
    with pytest.raises(InputError, match=r"traced for \(x.shape\[0\] % 2\) == 0 only"):
        wide(features(3, 6).double())


def test_a_saved_module_refuses_as_well() -> None:
    file = io.BytesIO()
    model, x = sized(READS["is it one"]), features(4, 6).double()
    torch.save(gc.clone(model, (x,)).module(), file)
    file.seek(0)
    wide = torch.load(file, weights_only=False)
    torch.testing.assert_close(wide(x), model(x))
    with pytest.raises(
        InputError, match=r"traced for x.shape\[0\] != 1 only: the code asks whether x.shape\[0\] == 1 in"
    ):
        wide(x[:1])


def test_a_compiled_module_runs() -> None:
    model, x = sized(READS["nothing"]), features(4, 6).double()
    wide = torch.compile(gc.clone(model, (x,)).module(), backend="eager", fullgraph=True)
    torch.testing.assert_close(wide(x), model(x))


# What torch.export refuses


class Looking(nn.Module):
    """Looks a size up in a table, which a symbol cannot do."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(torch.tanh(self.up(x)) * {3: 2.0}.get(x.shape[0], 1.0))
        return y


def test_code_that_takes_sizes_for_numbers_is_traced_statically() -> None:
    model, x = seeded(Looking).eval(), features(3, 6)
    clone = gc.clone(model, (x,))
    torch.testing.assert_close(clone.module()(x), model(x))
    assert clone.graph.notes[0].startswith("traced with static sizes: x axis 0 = 3 (TypeError: unhashable")


def test_a_module_that_only_the_strict_mode_can_export() -> None:
    class Strict(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down, self.spare = nn.Linear(6, 10), nn.Linear(10, 5), nn.Linear(10, 5)
            self.spare.bias = self.down.bias
            self.register_buffer("mean", torch.ones(10))

        def forward(self, x: Tensor) -> Tensor:
            if not torch.compiler.is_dynamo_compiling() and torch.compiler.is_exporting():
                raise RuntimeError("read me, do not run me")
            y: Tensor = self.down(torch.tanh(self.up(x)))
            return y

    model, x = seeded(Strict).eval(), features(3, 6)
    wide = gc.clone(model, (x,)).module()
    torch.testing.assert_close(wide(x), model(x))
    assert wide.state_dict().keys() == model.state_dict().keys(), "the strict mode leaves out what nothing reads"
    assert wide.get_parameter("spare.bias") is wide.get_parameter("down.bias")


@pytest.mark.parametrize("make", [lambda m, x: torch.jit.trace(m, (x,)), lambda m, x: torch.jit.script(m)])
def test_a_torchscript_module_is_refused_as_such(make: Callable[[nn.Module, Tensor], nn.Module]) -> None:
    model, x = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 5)).eval(), features(3, 6)
    with pytest.raises(gc.GraphcloneError, match=r"a TorchScript module.*give the torch.nn.Module it was made from"):
        gc.clone(make(model, x), (x,))


def test_exports_say_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    model, x = sized(READS["nothing"]), features(3, 6).double()
    gc.clone(model, (x,)).verify()
    assert capfd.readouterr() == ("", "")


def test_an_export_leaves_the_questions_alone() -> None:
    before = torch.SymBool.__bool__
    export(sized(READS["is it one"]), (features(4, 6).double(),), {}, "model")
    assert torch.SymBool.__bool__ is before


class Keywords(nn.Module):
    """Takes whatever keywords there are, as most models of other libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.up, self.down = nn.Embedding(11, 6), nn.Linear(6, 10), nn.Linear(10, 5)

    def forward(self, ids: Tensor, *others: Tensor, scale: Tensor | None = None, **options: Any) -> Tensor:
        y: Tensor = self.down(torch.tanh(self.up(self.table(ids))))
        y = y * scale[:, None] if scale is not None else y
        return y * options["factor"] if options.get("factor") is not None else y


@pytest.mark.parametrize(
    "keywords",
    [{"flag": False}, {"factor": 2.0}, {"factor": None, "flag": True}, {"scale": torch.ones(3, 1), "flag": None}],
    ids=str,
)
def test_sizes_vary_whatever_keywords_there_are(keywords: dict[str, Any]) -> None:
    model = seeded(Keywords).eval()
    clone = gc.clone(model, (), {"ids": torch.randint(11, (3, 4)), **keywords})
    assert not any("static" in note for note in clone.graph.notes)
    inputs = {"ids": torch.randint(11, (5, 7)), **keywords}
    if "scale" in inputs:
        inputs["scale"] = torch.rand(5, 1)
    torch.testing.assert_close(clone.module()(**inputs), model(**inputs))
    assert "forward" not in vars(model)
