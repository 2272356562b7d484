"""Writing a widened ONNX file: what changed is right, and everything else is as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest

import graphclone as gc
from graphclone.errors import GraphcloneError
from graphclone.formats.onnx.writer import to_model
from graphclone.pipeline.state import Request
from graphclone.runtime.sessions import Session
from tests.support.onnx_graphs import SUMMED_BEFORE, SUMMED_BEFORE_WEIGHTS, drawn, parse, save, shapes, widened

MLP = """
    mlp (float[batch, 5] x) => (float[batch, 3] y) {
        [first] a = MatMul(x, up)
        b = Add(a, bias)
        c = Relu(b)
        y = MatMul(c, down)
        unread = Relu(x)
    }
"""
MLP_WEIGHTS = {"up": (5, 8), "bias": (8,), "down": (8, 3), "unused": (8,)}

HEADS = """
    heads (float[batch, sequence, 12] x) => (float[batch, sequence, 12] y) {
        h = MatMul(x, up)
        shape = Shape(h)
        first = Gather<axis=0>(shape, zero)
        second = Gather<axis=0>(shape, one)
        width = Gather<axis=0>(shape, two)
        head = Div(width, four)
        rows_ = Mul(first, four)
        rows = Unsqueeze(rows_, axes)
        batch_ = Unsqueeze(first, axes)
        sequence_ = Unsqueeze(second, axes)
        head_ = Unsqueeze(head, axes)
        four_ = Unsqueeze(four, axes)
        split = Concat<axis=0>(batch_, sequence_, four_, head_)
        merged = Concat<axis=0>(rows, sequence_, head_)
        joined = Concat<axis=0>(batch_, four_, sequence_, head_)
        whole = Concat<axis=0>(batch_, sequence_, minus)
        p = Reshape(h, split)
        q = Transpose<perm=[0, 2, 1, 3]>(p)
        r = Reshape(q, merged)
        s = Softmax<axis=1>(r)
        t = Reshape(s, joined)
        u = Transpose<perm=[0, 2, 1, 3]>(t)
        v = Reshape(u, whole)
        y = MatMul(v, down)
    }
"""
HEADS_WEIGHTS = {
    "up": (12, 24),
    "down": (24, 12),
    "zero": np.array(0, np.int64),
    "one": np.array(1, np.int64),
    "two": np.array(2, np.int64),
    "four": np.array(4, np.int64),
    "axes": np.array([0], np.int64),
    "minus": np.array([-1], np.int64),
}


def cloned(model: onnx.ModelProto, folder: Path, **options: object) -> tuple[gc.Clone, onnx.ModelProto]:
    """The clone of a model, verified, and the file it was written to."""
    clone = gc.clone(save(model, folder / "source.onnx"), **options)  # type: ignore[arg-type]
    clone.save_onnx(folder / "clone.onnx")
    report = clone.verify(onnx=folder / "clone.onnx")
    assert report.ok, str(report)
    assert report.onnx_checked
    return clone, onnx.load(folder / "clone.onnx")


def test_weights_grow_and_keep_their_names(tmp_path: Path) -> None:
    _, model = cloned(parse(MLP, MLP_WEIGHTS), tmp_path)
    assert shapes(model) == {"up": (5, 16), "bias": (16,), "down": (16, 3), "unused": (8,)}


def test_what_nobody_asked_to_change_survives(tmp_path: Path) -> None:
    source = parse(MLP, MLP_WEIGHTS, opset=15, ir_version=7)
    source.producer_name, source.producer_version, source.domain, source.model_version = "maker", "7", "here", 5
    source.doc_string = source.graph.doc_string = "about it"
    source.graph.node[0].doc_string, source.graph.input[0].doc_string = "a node", "an input"
    source.graph.metadata_props.add(key="graph", value="props")
    source.metadata_props.add(key="license", value="mine")
    source.graph.node[1].metadata_props.add(key="line", value="12")
    source.graph.quantization_annotation.add(tensor_name="x").quant_parameter_tensor_names.add(key="K", value="v")
    _, model = cloned(source, tmp_path)
    fields = ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string")
    assert {field: getattr(model, field) for field in fields} == {field: getattr(source, field) for field in fields}
    assert {o.domain: o.version for o in model.opset_import} == {o.domain: o.version for o in source.opset_import}
    assert [p.value for p in model.metadata_props] == ["mine"]
    assert [p.value for p in model.graph.metadata_props] == ["props"]
    assert model.graph.doc_string == "about it"
    for before, after in zip(source.graph.node, model.graph.node, strict=True):
        for node in (before, after):
            node.ClearField("domain")  # empty, said or not
        assert before == after
    assert model.graph.quantization_annotation == source.graph.quantization_annotation
    assert (model.graph.input, model.graph.output) == (source.graph.input, source.graph.output)


@pytest.mark.parametrize(("batch", "sequence"), [(1, 1), (3, 2), (2, 11)])
def test_computed_shapes_are_right_for_every_batch_and_length(batch: int, sequence: int, tmp_path: Path) -> None:
    clone, model = cloned(parse(HEADS, HEADS_WEIGHTS), tmp_path)
    assert shapes(model)["up"] == (12, 48)
    assert "4 -> 8" in " ".join(f"{g.size} -> {g.size * clone.factors(g)[0]}" for g in clone.dims)
    session, wide = Session(tmp_path / "source.onnx", "cpu"), Session(tmp_path / "clone.onnx", "cpu")
    x = drawn("x", (batch, sequence, 12))
    np.testing.assert_allclose(wide.run({"x": x})["y"], session.run({"x": x})["y"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_every_dim_of_computed_shapes_can_grow_by_itself(seed: int) -> None:
    state = widened(parse(HEADS, HEADS_WEIGHTS), Request(widen_io=("*",)), seed)
    onnx.checker.check_model(onnx_ir.serde.serialize_model(to_model(state)), full_check=True)


READS_ITS_WIDTH = """
    g (float[batch, 5] x) => (float[batch, 3] y) {
        a = MatMul(x, up)
        shape = Shape(a)
        width = Gather<axis=0>(shape, one)
        number = Cast<to=1>(width)
        root = Sqrt(number)
        scaled = Div(a, root)
        MORE
        y = MatMul(more, down)
    }
"""

READS_ITS_BATCH = """
    rows = Gather<axis=0>(shape, zero)
    batch_size = Cast<to=1>(rows)
    more = Mul(scaled, batch_size)
"""


@pytest.mark.parametrize("more", [READS_ITS_BATCH, "more = Identity(scaled)"], ids=["and the batch", "alone"])
def test_a_size_that_is_read_stays_the_source_s(more: str, tmp_path: Path) -> None:
    """What is scaled by the square root of a width is scaled by that of the source's.

    Where nothing but the width is read, the graph knows of no shape, but the file still computes one.
    """
    weights = {"up": (5, 8), "down": (8, 3), "one": np.array(1, np.int64), "zero": np.array(0, np.int64)}
    _, model = cloned(parse(READS_ITS_WIDTH.replace("MORE", more), weights), tmp_path)
    assert shapes(model)["up"] == (5, 16)


TIED = """
    tied (int64[batch] ids) => (float[batch, 11] y) {
        a = Gather<axis=0>(table, ids)
        b = Tanh(a)
        turned = Transpose<perm=[1, 0]>(table)
        y = MatMul(b, turned)
    }
"""


def test_a_factor_that_nothing_absorbs_becomes_a_multiplication(tmp_path: Path) -> None:
    _, model = cloned(parse(TIED, {"table": (11, 6)}), tmp_path)
    assert shapes(model)["table"] == (11, 12)
    assert [node.op_type for node in model.graph.node].count("Mul") == 1
    assert [output.name for output in model.graph.output] == ["y"]


def test_copies_of_a_shared_initializer_that_grow_alike_stay_one(tmp_path: Path) -> None:
    text = """
        g (float[batch, 5] x) => (float[batch, 3] y) {
            a = MatMul(x, up)
            b = Mul(a, ones)
            c = Add(b, ones)
            d = MatMul(c, middle)
            e = Mul(d, ones)
            y = MatMul(e, down)
        }
    """
    weights = {"up": (5, 4), "middle": (4, 4), "down": (4, 3), "ones": np.ones(4, np.float32)}
    path = save(parse(text, weights), tmp_path / "source.onnx")
    free = [group.name for group in gc.trace(path).dims if group.pin is None]
    clone = gc.clone(path, widen=dict(zip(free, (3, 2), strict=True)))
    clone.save_onnx(tmp_path / "clone.onnx")
    found = shapes(onnx.load(tmp_path / "clone.onnx"))
    assert sorted(shape for name, shape in found.items() if name.startswith("ones")) == [(8,), (12,)]
    assert clone.verify().ok


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_weights_of_other_types_grow(dtype: str, tmp_path: Path) -> None:
    code = {"float16": 10, "bfloat16": 16, "float64": 11}[dtype]
    model = parse(MLP.replace("float[", f"{dtype.replace('float64', 'double')}["))
    for name, shape in MLP_WEIGHTS.items():
        tensor = onnx_ir.tensor(drawn(name, shape).astype(onnx_ir.DataType(code).numpy()), name=name)
        model.graph.initializer.append(onnx_ir.serde.serialize_tensor(tensor))
    clone = gc.clone(save(model, tmp_path / "source.onnx"))
    clone.save_onnx(tmp_path / "clone.onnx")
    written = onnx.load(tmp_path / "clone.onnx")
    assert {tensor.data_type for tensor in written.graph.initializer} == {code}
    assert shapes(written)["up"] == (5, 16)
    if dtype != "bfloat16":  # which ONNX Runtime does not multiply on a CPU
        assert clone.verify().ok


@pytest.mark.parametrize("write", [gc.Clone.module, lambda clone: clone.save("clone.pt2")], ids=["module", "pt2"])
def test_an_onnx_clone_is_written_as_onnx_only(write: Callable[[gc.Clone], object], tmp_path: Path) -> None:
    clone = gc.clone(save(parse(MLP, MLP_WEIGHTS), tmp_path / "source.onnx"))
    with pytest.raises(
        GraphcloneError,
        match=r"an ONNX file (has no torch module|can be written as \.onnx, )",
    ):
        write(clone)
    assert {name: tuple(t.shape) for name, t in clone.state_dict().items()}["up"] == (5, 16)


def test_new_initializers_of_old_files_are_inputs_too(tmp_path: Path) -> None:
    """As they must be before version 4 of the format."""
    text = "g (float[batch, 5] x, float[5, 4] up, float[4, 3] down) => (float[batch, 3] y) { CHAIN }"
    chain = "sizes = Constant<value = int64[2] {-1, 4}>() a = MatMul(x, up) b = Reshape(a, sizes) y = MatMul(b, down)"
    source = parse(text.replace("CHAIN", chain), {"up": (5, 4), "down": (4, 3)}, opset=9, ir_version=3)
    _, model = cloned(source, tmp_path)
    assert model.ir_version == 3
    assert {tensor.name for tensor in model.graph.initializer} < {value.name for value in model.graph.input}
    assert shapes(model)["up"] == (5, 8)


BRANCH = """
    g (float[batch, 5] x, bool flag) => (float[batch, 5] y) {
        h = MatMul(x, up)
        z = If (flag) <
            then_branch = t () => (float[batch, 7] p)
                <float[6, 7] a = {1., 2., 3., 4., 5., 6., 7., 8., 9., 1., 2., 3., 4., 5., 6., 7., 8., 9., 1., 2., 3.,
                                  4., 5., 6., 7., 8., 9., 1., 2., 3., 4., 5., 6., 7., 8., 9., 1., 2., 3., 4., 5., 6.}>
                { p = MatMul(h, a) },
            else_branch = e () => (float[batch, 7] q) { r = Relu(h) q = MatMul(r, b) }
        >
        y = MatMul(z, down)
    }
"""


def test_weights_in_branches_grow(tmp_path: Path) -> None:
    clone, model = cloned(parse(BRANCH, {"up": (5, 6), "b": (6, 7), "down": (7, 5)}), tmp_path)
    assert {shapes(model)[name] for name in ("up", "b", "down")} == {(5, 12), (12, 14), (14, 5)}
    inner = [tensor for node in model.graph.node for a in node.attribute for tensor in a.g.initializer]
    assert [tuple(tensor.dims) for tensor in inner] in ([], [(12, 14)])
    assert clone.state_dict()["a"].shape == (12, 14)


def test_training_information_is_noted_to_be_lost(tmp_path: Path) -> None:
    source = parse(MLP, MLP_WEIGHTS)
    source.training_info.add().algorithm.name = "sgd"
    (note,) = gc.trace(save(source, tmp_path / "source.onnx")).graph.notes
    assert note.startswith("the training information of the file is not kept")


def test_what_nobody_reads_goes_where_it_would_not_fit(tmp_path: Path) -> None:
    """It stays where it reads nothing that grew."""
    text = MLP.replace("unread = Relu(x)", "unread = Relu(x)\ndead = MatMul(x, up)\nafter = Relu(dead)")
    _, model = cloned(parse(text, MLP_WEIGHTS), tmp_path)
    outputs = [name for node in model.graph.node for name in node.output]
    assert "unread" in outputs
    assert not {"dead", "after"} & set(outputs)


@pytest.mark.parametrize("last", [False, True])
def test_a_shared_initializer_of_which_one_reader_does_not_grow(last: bool, tmp_path: Path) -> None:
    """It is read first by one that does not grow, or last."""
    text = """
        g (float[batch, 4] x) => (float[batch, 4] y) {
            a = Mul(x, ones)
            b = MatMul(a, up)
            c = Mul(b, ones)
            y = MatMul(c, down)
        }
    """
    weights = {"ones": np.ones(4, np.float32), "up": (4, 4), "down": (4, 4)}
    if last:
        text = text.replace("Mul(x, ones)", "Identity(x)").replace("y = ", "d = ").replace("}", "y = Mul(d, ones) }")
    _, model = cloned(parse(text, weights), tmp_path)
    assert sorted(shape for name, shape in shapes(model).items() if "ones" in name) == [(4,), (8,)]


def run_both(model: onnx.ModelProto, folder: Path, feeds: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What source and clone return first."""
    cloned(model, folder)
    name = model.graph.output[0].name
    small, wide = (Session(folder / file, "cpu").run(feeds)[name] for file in ("source.onnx", "clone.onnx"))
    return small, wide


def test_what_a_loop_begins_with_is_rescaled(tmp_path: Path) -> None:
    model = parse(SUMMED_BEFORE, SUMMED_BEFORE_WEIGHTS)
    small, wide = run_both(model, tmp_path, {"x": drawn("x", (3, 5))})
    np.testing.assert_allclose(wide, small, rtol=1e-5, atol=1e-5)


SUMMED_IN = """
    g (float[batch, 5] x, float[3, batch, 5] many) => (float[batch, 5] y) {
        h = MatMul(x, up)
        before = ReduceMean<axes=[-1], keepdims=1>(h)
        wide = MatMul(many, up)
        scanned = ReduceSum<keepdims=1>(wide, last)
        end, all = Scan <num_scan_inputs = 1,
            body = b (float[batch, 1] s, float[batch, 1] e) => (float[batch, 1] u, float[batch, 1] o) {
                t = Tanh(h)
                f = ReduceSum<keepdims=1>(t, last)
                g = Add(f, s)
                u = Sigmoid(g)
                o = Add(e, s)
            }
        > (before, scanned)
        mean = ReduceMean<axes=[0], keepdims=0>(all)
        both = Add(mean, end)
        y = MatMul(both, down)
    }
"""


def test_what_a_scan_looks_at_and_computes_is_rescaled(tmp_path: Path) -> None:
    model = parse(SUMMED_IN, {"up": (5, 6), "down": (1, 5), "last": np.array([-1])})
    small, wide = run_both(model, tmp_path, {"x": drawn("x", (2, 5)), "many": drawn("many", (3, 2, 5))})
    np.testing.assert_allclose(wide, small, rtol=1e-5, atol=1e-5)


SHARED_BEGINNING = """
    g (float[2, 5] x, float[2, 6] z) => (float[2, 5] y, float[2, 6] r) {
        h = MatMul(x, up)
        end = Loop (rounds, , zeros) <
            body = b (int64 i, bool c, float[2, 6] s) => (bool d, float[2, 6] u) {
                d = Identity(c)
                t = Tanh(s)
                u = Add(t, h)
            }
        >
        y = MatMul(end, down)
        r = Add(z, zeros)
    }
"""


def test_a_loop_begins_with_its_own_copy_of_an_initializer_that_stays_elsewhere(tmp_path: Path) -> None:
    weights = {"up": (5, 6), "down": (6, 5), "zeros": np.zeros((2, 6), np.float32)}
    model = parse(SHARED_BEGINNING, {**weights, "rounds": np.array(3, np.int64)})
    small, wide = run_both(model, tmp_path, {"x": drawn("x", (2, 5)), "z": drawn("z", (2, 6))})
    np.testing.assert_allclose(wide, small, rtol=1e-5, atol=1e-5)
