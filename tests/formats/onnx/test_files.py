"""Reading ONNX files: what is broken or hostile is refused in one line, and what is merely unusual is not."""

from __future__ import annotations

import os
import random
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphclone.api import clone
from graphclone.errors import GraphcloneError
from graphclone.formats.onnx import checks
from graphclone.formats.onnx.file import load
from tests.support.hostile_onnx import (
    BROKEN,
    FLOATS,
    UNUSUAL,
    Change,
    branches,
    changed,
    condition,
    external,
    function,
    functions,
    nested,
    small,
    unsorted,
    weight,
)
from tests.support.onnx_graphs import parse, save

SMALL = small().SerializeToString()

_recorded: list[Path] | None = None


def _audit(event: str, args: tuple[object, ...]) -> None:
    if event == "open" and _recorded is not None and isinstance(args[0], str | Path):
        _recorded.append(Path(args[0]))


sys.addaudithook(_audit)  # it cannot be taken away again, and does nothing while no test records


@pytest.fixture
def opened() -> Iterator[list[Path]]:
    """Every file that is opened during the test, whoever opens it in Python."""
    global _recorded  # noqa: PLW0603
    _recorded = []
    yield _recorded
    _recorded = None


def _refusal(path: Path) -> str:
    """What is said of a file, one line and cheaply found."""
    tracemalloc.start()
    try:
        with pytest.raises(GraphcloneError) as caught:
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    assert len(message) < len(str(path)) + 400
    assert ";" in message or "no such file" in message, "nothing says what to do"
    return message.removeprefix(f"{path}: ")


# Files that are no models


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty; export or download it again"),
        (b"Not Found\n", "cannot be read as an ONNX model: it is none, or damaged; export or"),
        (b"<!DOCTYPE html><html></html>", "cannot be read as an ONNX model"),
        (b"\x80\x04\x95\x10\x00", "cannot be read as an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "is a pointer of Git LFS"),
        (numpy_helper.from_array(FLOATS, "w").SerializeToString(), "cannot be read as an ONNX model"),
        (small().graph.SerializeToString(), "has no graph: it is no ONNX model"),
        (small().graph.node[0].SerializeToString(), "has no graph: it is no ONNX model"),
    ],
    ids=["empty", "text", "html", "pickle", "lfs", "tensor", "graph", "node"],
)
def test_what_is_no_model_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    assert _refusal(path).startswith(message)


def test_paths_of_no_files_are_refused(tmp_path: Path, opened: list[Path]) -> None:
    fifo, loop = tmp_path / "fifo.onnx", tmp_path / "loop.onnx"
    os.mkfifo(fifo)
    loop.symlink_to(loop)
    assert _refusal(tmp_path / "missing.onnx") == "no such file"
    assert _refusal(tmp_path) == "is a folder; give the path of the .onnx file in it"
    assert _refusal(fifo) == "is no regular file; give the path of an .onnx file"
    assert _refusal(loop) == "cannot be read: Too many levels of symbolic links; check the path and its permissions"
    assert not opened


def test_a_file_larger_than_protobuf_reads_is_not_read(tmp_path: Path, opened: list[Path]) -> None:
    path = tmp_path / "m.onnx"
    path.touch()
    os.truncate(path, 3 * 2**30)
    del opened[:]
    message = "has 3221225472 bytes, and ONNX files end below 2 GiB; export it with external data"
    assert _refusal(path) == message
    assert not opened


@pytest.mark.parametrize("end", range(len(SMALL)))
def test_a_file_is_refused_wherever_it_is_cut(end: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(SMALL[:end])
    _refusal(path)


def test_damaged_bytes_are_refused_or_harmless(tmp_path: Path) -> None:
    """Whatever a few wrong bytes do, the model loads and its weights can be read, or it is refused in one line."""
    draw = random.Random(0)
    source = changed(nested(2), functions(function("f", "g"), function("g"))).SerializeToString()
    path = tmp_path / "m.onnx"
    loaded, refusals = 0, set()
    for _ in range(300):
        data = bytearray(source)
        for _ in range(draw.randint(1, 3)):
            data[draw.randrange(len(data))] = draw.choice([0, 1, 0x7F, 0xFF, draw.randrange(256)])
        path.write_bytes(data)
        try:
            model = load(path)
        except GraphcloneError as error:
            refusals.add(str(error))
        else:
            loaded += 1
            assert all(value.const_value.numpy() is not None for value in model.graph.initializers.values())
    assert loaded
    assert refusals
    assert all(refusal.isprintable() for refusal in refusals)


# Models that break the rules


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_models_are_refused(tmp_path: Path, opened: list[Path], change: Change, message: str) -> None:
    path = save(changed(change), tmp_path / "m.onnx")
    del opened[:]
    assert message in _refusal(path)
    assert opened == [path]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (b"add", "node b'\\xff\\xfe\\xfd' ('Add') has a name that is not UTF-8"),
        (b"main", "the graph has a name that is not UTF-8"),
        (b"here", "is damaged: UnicodeDecodeError: "),
    ],
)
def test_names_that_are_no_text_are_refused(tmp_path: Path, name: bytes, message: str) -> None:
    model = small()
    model.graph.node.add(op_type="Strings", output=["z"]).attribute.add(name="a", type=8, strings=[b"here"])
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString().replace(name, bytes([0xFF, 0xFE, 0xFD, 0xFC])[: len(name)]))
    assert _refusal(path).startswith(message)


@pytest.mark.parametrize("depth", [60, 1000])
def test_nesting_ends_where_protobuf_does(depth: int, tmp_path: Path) -> None:
    assert load(save(changed(nested(30)), tmp_path / "m.onnx"))
    message = _refusal(save(changed(nested(depth)), tmp_path / "deep.onnx"))
    assert message.startswith("its graphs nest deeper than protobuf reads; ")


# External data


def _with_external(folder: Path, **entries: object) -> Path:
    """The small model in a folder, its weight w in another file, which is written elsewhere."""
    model = small()
    external(model.graph.initializer[0], **entries)
    return save(model, folder / "m.onnx")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for a model, with data in it, beside it, and links of all kinds."""
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "model-2").mkdir()
    for path in (folder / "w.bin", folder / "sub" / "w.bin", tmp_path / "secret", tmp_path / "model-2" / "secret"):
        path.write_bytes(bytes(8) + FLOATS.tobytes())
    (folder / "short.bin").write_bytes(bytes(47))
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "sibling").symlink_to(tmp_path / "model-2" / "secret")
    (folder / "outdir").symlink_to(tmp_path)
    (folder / "in").symlink_to(folder / "sub" / "w.bin")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "dangling").symlink_to(folder / "nothing")
    (folder / "hard").hardlink_to(tmp_path / "secret")
    os.mkfifo(folder / "fifo")
    return folder


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "../secret"}, "'../secret' must be a path below the model's folder"),
        ({"location": "sub/../../secret"}, "'sub/../../secret' must be a path below the model's folder"),
        ({"location": "sub/../w.bin"}, "'sub/../w.bin' must be a path below the model's folder"),
        ({"location": "/etc/hostname"}, "'/etc/hostname' must be a path below the model's folder"),
        ({"location": "out"}, "'out' is a link that leads out of the model's folder; put the file itself beside"),
        ({"location": "sibling"}, "'sibling' is a link that leads out of the model's folder"),
        ({"location": "outdir/secret"}, "'outdir/secret' is a link that leads out of the model's folder"),
        ({"location": "outdir/model/../secret"}, "must be a path below the model's folder"),
        ({"location": "loop"}, "'loop' cannot be found: Too many levels of symbolic links"),
        ({"location": "dangling"}, "'dangling' is missing; put it beside the model"),
        ({"location": "w.bim"}, "'w.bim' is missing; put it beside the model"),
        ({"location": "w.bin/x"}, "'w.bin/x' cannot be found: Not a directory"),
        ({"location": "w\0bin"}, "cannot be found: ValueError: 'embedded null byte'"),
        ({"location": "w" * 5000}, "cannot be found: File name too long"),
        ({"location": "sub"}, "'sub' is no regular file"),
        ({"location": ""}, "'' is no regular file"),
        ({}, "'' is no regular file"),
        ({"location": "fifo"}, "'fifo' is no regular file"),
        ({"location": "w.bin", "offset": -8}, "the offset of its external data is '-8', not a number"),
        ({"location": "w.bin", "length": -48}, "the length of its external data is '-48', not a number"),
        ({"location": "w.bin", "offset": "8.0"}, "the offset of its external data is '8.0', not a number"),
        ({"location": "w.bin", "offset": "9" * 9999}, "the offset of its external data is '999"),
        ({"location": "w.bin", "offset": "٨"}, "the offset of its external data is '٨', not a number"),
        ({"location": "w.bin", "offset": 9}, "its external data ends at byte 57 of a file of 56"),
        ({"location": "w.bin", "offset": 10**17}, "of a file of 56; export or download it again"),
        ({"location": "w.bin", "length": 47}, "its external data has 47 bytes, but its shape [3, 4] needs 48"),
        ({"location": "w.bin", "length": 0}, "its external data has 0 bytes, but its shape [3, 4] needs 48"),
        ({"location": "w.bin", "length": 49}, "its external data has 49 bytes, but its shape [3, 4] needs 48"),
        ({"location": "short.bin"}, "its external data ends at byte 48 of a file of 47"),
    ],
)
def test_external_data_that_is_not_there_is_refused(
    folder: Path, opened: list[Path], entries: dict[str, object], message: str
) -> None:
    path = _with_external(folder, **entries)
    del opened[:]
    found = _refusal(path)
    assert found.startswith("initializer 'w': ")
    assert message in found
    assert opened == [path]


def test_external_data_of_huge_or_odd_tensors_is_refused(folder: Path) -> None:
    model = changed(weight(dims=[10**12]))
    external(model.graph.initializer[0], location="w.bin")
    assert "its external data ends at byte 4000000000000 of a file of 56" in _refusal(save(model, folder / "a.onnx"))
    model.graph.initializer[0].data_type = TensorProto.STRING
    assert "holds strings, which cannot lie in another file" in _refusal(save(model, folder / "b.onnx"))


@pytest.mark.parametrize("where", ["'value' of node 'k' ('Constant')", "initializer 'inner'"])
def test_external_data_of_attributes_and_branches_is_checked(where: str, folder: Path, opened: list[Path]) -> None:
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[3, 4])
    external(tensor, location="../secret")
    constant = helper.make_node("Constant", [], ["t"], name="k", value=tensor)
    inner = branches([constant])
    inner.attribute[0].g.initializer.append(tensor)
    inner.attribute[0].g.initializer[0].name = "inner"
    node = inner if "inner" in where else constant
    path = save(changed(condition, lambda model: model.graph.node.append(node)), folder / "m.onnx")
    del opened[:]
    assert f"{where}: external data '../secret' must be" in _refusal(path)
    assert opened == [path]


@pytest.mark.parametrize(
    ("location", "real"),
    [
        ("w.bin", "w.bin"),
        ("./sub/w.bin", "sub/w.bin"),
        ("in", "sub/w.bin"),
        ("hard", "hard"),
        ("sub//w.bin", "sub/w.bin"),
    ],
)
@pytest.mark.parametrize("sizes", [{"offset": 8, "length": 48}, {"offset": 8}])
def test_external_data_is_mapped_when_it_is_wanted(
    folder: Path, opened: list[Path], location: str, real: str, sizes: dict[str, int]
) -> None:
    path = _with_external(folder, location=location, **sizes)
    del opened[:]
    tensor = load(path).graph.initializers["w"].const_value
    assert opened == [path]
    assert isinstance(tensor, onnx_ir.ExternalTensor)
    assert Path(tensor.path) == folder / real
    assert tensor.tobytes() == FLOATS.tobytes()
    assert opened == [path, folder / real]
    np.testing.assert_array_equal(tensor.numpy(), FLOATS)


def test_external_data_is_found_after_the_directory_has_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _with_external(folder, location="w.bin", offset=8)
    monkeypatch.chdir(folder)
    tensor = load(Path("m.onnx")).graph.initializers["w"].const_value
    monkeypatch.chdir("/")
    assert tensor is not None
    np.testing.assert_array_equal(tensor.numpy(), FLOATS)


@pytest.mark.parametrize("links", ["relative", "absolute"])
def test_the_cache_of_the_hugging_face_hub_is_read(tmp_path: Path, opened: list[Path], links: str) -> None:
    """There, model and data are links in one folder to files of another."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "5c38ec"
    blobs.mkdir()
    (snapshot / "onnx").mkdir(parents=True)
    _with_external(blobs, location="model.onnx_data").rename(blobs / "0a1b")
    (blobs / "2c3d").write_bytes(FLOATS.tobytes())
    for name, blob in (("model.onnx", "0a1b"), ("model.onnx_data", "2c3d")):
        target = blobs / blob if links == "absolute" else Path("../../../blobs") / blob
        (snapshot / "onnx" / name).symlink_to(target)
    tensor = load(snapshot / "onnx" / "model.onnx").graph.initializers["w"].const_value
    assert isinstance(tensor, onnx_ir.ExternalTensor)
    assert Path(tensor.path) == blobs / "2c3d"
    np.testing.assert_array_equal(tensor.numpy(), FLOATS)
    (snapshot / "onnx" / "model.onnx_data").unlink()
    (snapshot / "onnx" / "model.onnx_data").symlink_to(_secret(tmp_path))
    del opened[:]
    assert "leads out of the model's folder" in _refusal(snapshot / "onnx" / "model.onnx")
    assert opened == [snapshot / "onnx" / "model.onnx"]


def _secret(folder: Path) -> Path:
    path = folder / "secret"
    path.write_bytes(FLOATS.tobytes())
    return path


def test_gigabytes_of_external_data_cost_no_memory(tmp_path: Path) -> None:
    rows = 2**29
    model = changed(weight(dims=[rows, 4], data_type=TensorProto.UINT8))
    external(model.graph.initializer[0], location="w.bin")
    path = save(model, tmp_path / "m.onnx")
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(rows * 4 - 1)
        file.seek(rows * 4 - 1)
        file.write(b"\x07")
    tracemalloc.start()
    tensor = load(path).graph.initializers["w"].const_value
    assert tensor is not None
    assert tensor.nbytes == 2**31
    assert tensor.numpy()[-1, -1] == 7
    assert tracemalloc.get_traced_memory()[1] < 2e6
    tracemalloc.stop()


def test_external_data_of_no_elements_may_lie_in_an_empty_file(tmp_path: Path) -> None:
    model = changed(weight(dims=[0, 4]))
    external(model.graph.initializer[0], location="w.bin", length=0)
    (tmp_path / "w.bin").touch()
    tensor = load(save(model, tmp_path / "m.onnx")).graph.initializers["w"].const_value
    assert tensor is not None
    assert tensor.numpy().shape == (0, 4)
    assert tensor.tobytes() == b""


# What is unusual, and no fault


@pytest.mark.parametrize("change", UNUSUAL)
def test_unusual_models_load(tmp_path: Path, change: Change) -> None:
    model = load(save(changed(change), tmp_path / "m.onnx"))
    assert onnx_ir.to_proto(model).graph.node[0].name == "mm"


def test_a_function_may_refer_to_its_attributes(tmp_path: Path) -> None:
    made = function("f", attributes=["slope"])
    reference = onnx.AttributeProto(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope")
    made.node.add(op_type="LeakyRelu", input=["a"], output=["z"]).attribute.append(reference)
    assert load(save(changed(functions(made)), tmp_path / "m.onnx")).functions


def test_a_model_without_operators_of_onnx_needs_no_version_of_them(tmp_path: Path) -> None:
    model = small()
    for each in model.graph.node:
        each.domain = "own"
    model.opset_import[0].domain = "own"
    assert load(save(model, tmp_path / "m.onnx")).opset_imports == {"own": 17}


def test_the_domain_has_one_name(tmp_path: Path) -> None:
    model = small()
    model.opset_import[0].domain = model.graph.node[0].domain = "ai.onnx"
    loaded = load(save(model, tmp_path / "m.onnx"))
    assert loaded.opset_imports == {"": 17}
    assert loaded.graph[0].domain == ""


def test_a_size_below_zero_is_one_that_varies(tmp_path: Path) -> None:
    text = """
        g (float[n, 3, side, side] x) => (float[n, 2] y) {
            a = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(x, kernel)
            b = Relu(a)
            c = ReduceMean<axes=[2, 3], keepdims=0>(b)
            y = MatMul(c, down)
        }
    """
    model = parse(text, {"kernel": (6, 3, 3, 3), "down": (6, 2)})
    for port in (model.graph.input[0], model.graph.output[0]):
        port.type.tensor_type.shape.dim[0].dim_value = -1
    path = save(model, tmp_path / "model.onnx")
    (read,) = load(path).graph.inputs
    assert read.shape is not None
    assert [size if isinstance(size, int) else size.value for size in read.shape] == [None, 3, "side", "side"]
    widened = clone(path, widen=2)
    assert widened.verify(provider="cpu").ok
    (kernel,) = [i for i in widened.graph.initializers if "kernel" in i.names]
    assert kernel.value.shape == (12, 3, 3, 3)


def test_nodes_are_sorted(tmp_path: Path) -> None:
    loaded = load(save(changed(unsorted), tmp_path / "m.onnx"))
    assert [each.op_type for each in loaded.graph] == ["MatMul", "Add", "Relu"]


@pytest.mark.parametrize("version", [1, 3])
def test_constants_of_old_versions_make_the_model_a_newer_one(tmp_path: Path, version: int) -> None:
    """Their rules had every initializer be an input, and not all files kept to them."""
    model = small()
    model.ir_version = version
    loaded = load(save(model, tmp_path / "m.onnx"))
    assert loaded.ir_version == 4
    onnx.checker.check_model(onnx_ir.to_proto(loaded))


def test_initializers_have_the_type_they_have(tmp_path: Path) -> None:
    model = small()
    model.graph.value_info.append(helper.make_tensor_value_info("w", TensorProto.INT8, [7]))
    value = load(save(model, tmp_path / "m.onnx")).graph.initializers["w"]
    assert (value.dtype, value.shape) == (onnx_ir.DataType.FLOAT, (3, 4))


_NUMBERS = [each for each in TensorProto.DataType.values() if each not in (TensorProto.UNDEFINED, TensorProto.STRING)]


@pytest.mark.parametrize("raw", [True, False], ids=["bytes", "numbers"])
@pytest.mark.parametrize("element", _NUMBERS, ids=TensorProto.DataType.Name)
def test_weights_of_all_types_load(tmp_path: Path, element: int, raw: bool) -> None:
    expected = onnx_ir.tensor([1] * 5, onnx_ir.DataType(element), name="w")
    data = expected.tobytes() if raw else [1] * 5
    tensor = helper.make_tensor("w", element, [5], data, raw=raw)
    model = small()
    model.graph.initializer[0].CopyFrom(tensor)
    found = load(save(model, tmp_path / "m.onnx")).graph.initializers["w"].const_value
    assert found is not None
    np.testing.assert_array_equal(found.numpy(), expected.numpy())
    tensor.dims[0] = 9
    model.graph.initializer[0].CopyFrom(tensor)
    assert "initializer 'w' holds" in _refusal(save(model, tmp_path / "m.onnx"))


PACKAGE = Path(onnx.__file__).parent / "backend" / "test" / "data"

MODELS = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.onnx"))


@pytest.mark.parametrize("name", MODELS)
def test_the_models_of_the_onnx_package_load(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "OPSETS", range(1, 99))  # most are of opset 6
    path = PACKAGE / name
    order = [list(each.output) for each in onnx.load(path).graph.node]
    assert [[value.name for value in each.outputs] for each in load(path).graph] == order


def test_the_onnx_package_has_models() -> None:
    assert len(MODELS) > 100
