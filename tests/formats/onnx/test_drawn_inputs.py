"""Sizes and values for inputs: found by trying, or said by the user."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphclone.api import clone, trace
from graphclone.cli.__main__ import main
from graphclone.errors import GraphcloneError
from graphclone.formats.onnx.compared import compared_numbers
from graphclone.formats.onnx.drawn_inputs import DrawnInputs, Feeds, UserInputs
from graphclone.formats.onnx.file import load
from graphclone.formats.onnx.reader import Origin
from graphclone.runtime.sessions import Session
from tests.support.onnx_graphs import Weights, graph_of, parse, save

CONVOLVED = """
    convolved (float[n, 3, h, w] x) => (float[n, 2, i, j] y) {
        a = Conv(x, first)
        b = Relu(a)
        c = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(b)
        d = Conv(c, second)
        e = Relu(d)
        f = Conv(e, third)
        p = Conv(f, fourth)
        q = Conv(f, fifth)
        y = Add(p, q)
    }
"""
CONVOLVED_WEIGHTS = {
    "first": (8, 3, 3, 3), "second": (16, 8, 3, 3), "third": (2, 16, 3, 3),
    "fourth": (2, 2, 1, 1), "fifth": (2, 2, 1, 1),
}  # fmt: skip
"""Heights and widths of at least 12."""

FLATTENED = """
    flattened (float[n, 3, h, w] x) => (float[n, 4] y) {
        a = Conv<strides=[8, 8]>(x, kernel)
        b = Relu(a)
        c = Flatten(b)
        y = Gemm(c, down)
    }
"""

ATTENDED = """
    attended (float[batch, seq, 16] x) => (float[1, seq, 3] y) {
        length = Shape<start=1, end=2>(x)
        qkv = MatMul(x, in)
        sizes = Concat<axis=0>(one, length, three, width)
        split = Reshape(qkv, sizes)
        q3, k3, v3 = Split<axis=2, num_outputs=3>(split)
        q = Squeeze(q3, two)
        k = Squeeze(k3, two)
        v = Squeeze(v3, two)
        turned = Transpose<perm=[0, 2, 1]>(k)
        scores = MatMul(q, turned)
        weights = Softmax<axis=-1>(scores)
        mixed = MatMul(weights, v)
        hidden = MatMul(mixed, out)
        bent = Relu(hidden)
        y = MatMul(bent, down)
    }
"""
ATTENDED_WEIGHTS: Weights = {
    "in": (16, 48), "out": (16, 24), "down": (24, 3),
    **{name: np.array([n], np.int64) for name, n in {"one": 1, "two": 2, "three": 3, "width": 16}.items()},
}  # fmt: skip
"""The exporter has put a literal 1 in place of the batch."""

AVERAGED = """
    averaged (float[n, t, 3] x) => (float[n, 2] y) {
        rest = Slice(x, six, end, axis)
        a = MatMul(rest, up)
        b = Relu(a)
        c = MEAN(b)
        y = MatMul(c, down)
    }
"""

AVERAGED_WEIGHTS: Weights = {
    "up": (3, 5), "down": (5, 2),
    **{name: np.array([n], np.int64) for name, n in {"six": 6, "end": 1000, "axis": 1}.items()},
}  # fmt: skip
"""Of sequences of six or fewer there is nothing to average; ONNX Runtime says 0."""

HEARD = """
    heard (float[?, ?] sound, float[2, ?, 8] state) => (float[?, 8] y) {
        sounds = Unsqueeze(sound, one)
        a = Conv<strides=[64]>(sounds, frames)
        b = Relu(a)
        c = ReduceMean<axes=[2], keepdims=0>(b)
        first = Gather<axis=0>(state, zero)
        d = MatMul(c, down)
        e = Concat<axis=1>(d, first)
        sum = MatMul(e, mix)
        y = Reshape(sum, of)
    }
"""
HEARD_WEIGHTS: Weights = {
    "frames": (12, 1, 128), "down": (12, 4), "mix": (12, 8),
    "zero": np.array(0, np.int64), "one": np.array([1], np.int64), "of": np.array([1, 8], np.int64),
}  # fmt: skip
"""A piece of sound of 128 at least, in a batch of one, which is the second axis of the state."""

LOOKED_UP = """
    looked_up (int64[n] ids, bool flag) => (float[n, 3] y) {
        places = Sub(ids, lowest)
        a = Gather(table, places)
        b = MatMul(a, up)
        c = Relu(b)
        y = MatMul(c, down)
    }
"""
LOOKED_UP_WEIGHTS: Weights = {
    "table": (40, 6), "up": (6, 8), "down": (8, 3), "lowest": np.array(20, np.int64)
}  # fmt: skip
"""Ids below 20 are looked up from the end of the table, as far as it goes."""


def written(path: Path, text: str, weights: Weights, opset: int = 17) -> Path:
    return save(parse(text, weights, opset=opset), path)


def drawn(
    path: Path, given: UserInputs | None = None, known: Mapping[str, tuple[int, ...]] | None = None
) -> list[Feeds]:
    return list(DrawnInputs(Session(path, "cpu"), known_sizes=known, user_inputs=given).draw(3, 0))


@pytest.mark.parametrize("opset", [12, 18])
def test_images_are_large_enough(opset: int, tmp_path: Path) -> None:
    sizes = [feeds["x"].shape for feeds in drawn(written(tmp_path / "a.onnx", CONVOLVED, CONVOLVED_WEIGHTS, opset))]
    assert len({size[0] for size in sizes}) == 3
    assert all(min(size[2:]) >= 12 for size in sizes)


def test_a_signal_is_long_enough_where_the_batch_is_one(tmp_path: Path) -> None:
    path = written(tmp_path / "a.onnx", HEARD, HEARD_WEIGHTS)
    for feeds in drawn(path):
        assert feeds["sound"].shape[0] == 1
        assert feeds["sound"].shape[1] >= 128
        assert feeds["state"].shape == (2, 1, 8)
    assert clone(path, widen=2).verify(provider="cpu").ok


def test_a_signal_may_have_many_lengths(tmp_path: Path) -> None:
    """At 1,024 samples there are four frames, to which the second convolution, of five, does not fit."""
    text = """
        g (float[n, t] x) => (float[n, 4] y) {
            u = Unsqueeze(x, one)
            a = Conv<strides = [160]>(u, frames)
            b = Conv<strides = [2]>(a, fives)
            c = GlobalMaxPool(b)
            d = Flatten(c)
            y = MatMul(d, down)
        }
    """
    weights: Weights = {"one": np.array([1]), "frames": (8, 1, 400), "fives": (6, 8, 5), "down": (6, 4)}
    made = clone(written(tmp_path / "a.onnx", text, weights), widen=2)
    assert not made.state.graph.notes
    report = made.verify(provider="cpu")
    assert report.ok, str(report)
    assert len({re.search(r"x \d+x(\d+)", inputs).group(1) for inputs in report.inputs}) == 3  # type: ignore[union-attr]


def test_an_image_may_have_one_size_only(tmp_path: Path) -> None:
    path = written(tmp_path / "a.onnx", FLATTENED, {"kernel": (4, 3, 8, 8), "down": (4 * 16 * 16, 4)})
    assert {feeds["x"].shape[2:] for feeds in drawn(path)} == {(128, 128)}
    report = clone(path).verify(provider="cpu")
    assert report.ok, str(report)


def test_sizes_that_leave_something_go_before_those_that_do_not(tmp_path: Path) -> None:
    text = AVERAGED.replace("MEAN", "ReduceMean<axes=[1], keepdims=0>")
    report = clone(written(tmp_path / "a.onnx", text, AVERAGED_WEIGHTS)).verify(provider="cpu")
    assert [check.ok for check in report.checks] == [True] * 3, str(report)
    lengths = [int(sizes.split("x")[2]) for sizes in report.inputs]
    assert len(lengths) == 3
    assert min(lengths) > 6


VOID = """
    void (float[n, 3] x) => (float[n, 2] y, float[n, 2] z) {
        a = MatMul(x, up)
        b = Tanh(a)
        z = MatMul(b, down)
        c = Exp(z)
        d = Neg(c)
        y = Log(d)
    }
"""


def test_nothing_is_proven_where_no_input_leaves_anything(tmp_path: Path) -> None:
    """The logarithm of a negative number is none, in source and clone: any clone would agree."""
    report = clone(written(tmp_path / "a.onnx", VOID, {"up": (3, 5), "down": (5, 2)})).verify(provider="cpu")
    assert [check.ok for check in report.checks] == [True, None, None], str(report)
    assert all("y: the source has no finite element there" in check.summary for check in report.checks[1:])


def test_integers_may_have_to_be_large_and_switches_take_turns(tmp_path: Path) -> None:
    weights = {**LOOKED_UP_WEIGHTS, "lowest": np.array(70, np.int64)}
    found = drawn(written(tmp_path / "a.onnx", LOOKED_UP, weights))
    assert all(feeds["ids"].min() >= 30 for feeds in found)
    assert {bool(feeds["flag"]) for feeds in found} == {True, False}
    found = drawn(written(tmp_path / "b.onnx", LOOKED_UP, {**LOOKED_UP_WEIGHTS, "lowest": np.array(0, np.int64)}))
    assert max(feeds["ids"].max() for feeds in found) > 5


RATES = """
    g (float[batch, 6] x, int64 rate, int64[batch, 3] marks) => (float[batch, 5] y, int64[batch, 3] z) {
        wanted = Constant<value = float[1] {16000.}>()
        single = Squeeze(wanted)
        as_float = Cast<to = 1>(rate)
        fast = Equal(as_float, single)
        h = If (fast) <
            then_branch = t () => (float[batch, 5] p) { p = MatMul(x, up) },
            else_branch = e () => (float[batch, 5] q) { q = MatMul(x, other) }
        >
        y = Relu(h)
        late = Greater(marks, limit)
        z = Cast<to = 7>(late)
    }
"""
RATES_WEIGHTS = {"up": (6, 5), "other": (6, 5), "limit": np.array(70, np.int64)}


def test_integers_are_also_those_that_they_are_compared_with(tmp_path: Path) -> None:
    """So that both branches are taken; among several integers only some are such."""
    path = written(tmp_path / "a.onnx", RATES, RATES_WEIGHTS)
    numbers = compared_numbers(load(path))
    assert numbers == {"rate": [16000], "marks": [70, 71]}
    found = list(DrawnInputs(Session(path, "cpu"), compared=numbers).draw(4, 0))
    assert {int(feeds["rate"]) == 16000 for feeds in found} == {True, False}
    drawn_marks = np.concatenate([feeds["marks"].ravel() for feeds in found])
    assert {70, 71} < set(drawn_marks.tolist())
    assert (drawn_marks < 70).any()
    assert clone(path, widen=1).verify(provider="cpu").ok


def test_what_integers_are_compared_with_need_not_be_accepted(tmp_path: Path) -> None:
    """A table has no row for a number that only marks what to leave out."""
    text = """
        g (int64[batch, 4] ids) => (float[batch, 4, 5] y, bool[batch, 4] kept) {
            left_out = Equal(ids, mark)
            kept = Not(left_out)
            y = Gather(table, ids)
        }
    """
    path = written(tmp_path / "a.onnx", text, {"table": (9, 5), "mark": np.array(-100, np.int64)})
    numbers = compared_numbers(load(path))
    assert numbers == {"ids": [-100]}
    (feeds,) = DrawnInputs(Session(path, "cpu"), compared=numbers).draw(1, 0)
    assert feeds["ids"].min() >= 0


def test_floats_that_bound_a_table_bound_it_such_that_something_is_left(tmp_path: Path) -> None:
    """All scores outside of the bounds are infinite; where all are, nothing is returned that could be compared."""
    text = """
        g (float[batch, 6] x, float low, float high) => (float[batch, 20] y) {
            scores = MatMul(x, up)
            above = GreaterOrEqual(pitches, low)
            below = LessOrEqual(pitches, high)
            kept = And(above, below)
            left = Where(kept, scores, nothing)
            y = Softmax(left)
        }
    """
    weights = {"up": (6, 20), "pitches": np.linspace(50, 2000, 20).astype(np.float32)}
    path = written(tmp_path / "a.onnx", text, {**weights, "nothing": np.array(-np.inf, np.float32)})
    numbers = compared_numbers(load(path))
    assert numbers == {"low": [50.0, 2000.0], "high": [50.0, 2000.0]}
    first, *_ = DrawnInputs(Session(path, "cpu"), compared=numbers).draw(3, 0)
    assert np.isfinite(Session(path, "cpu").run(first)["y"]).all()
    assert (float(first["low"]), float(first["high"])) == (50, 2000)


# Reading


def symbols(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    origin: Origin = graph_of(model).origin
    return dict(origin.reading.assignment)


def test_sizes_of_which_nothing_is_left_are_not_believed() -> None:
    found = symbols(parse(CONVOLVED, CONVOLVED_WEIGHTS))
    assert all(min(found[symbol]) >= 12 for symbol in "hw")
    assert all(len(set(found[symbol])) == 3 for symbol in "nhw")


@pytest.mark.parametrize(
    "slide", ["Conv<strides=[160]>(waves, frames)", "MaxPool<kernel_shape=[512], strides=[160]>(waves)"]
)
def test_windows_that_do_not_fit_are_not_believed(slide: str) -> None:
    """onnx infers sizes just below a window's to leave nothing, in every reading, and those far below to be wrong."""
    text = f"""
        heard (float[n, t] x) => (float[n, t2, 3] y) {{
            waves = Unsqueeze(x, one)
            a = {slide}
            b = Transpose<perm=[0, 2, 1]>(a)
            c = MatMul(b, up)
            d = Relu(c)
            y = MatMul(d, down)
        }}
    """
    count = 5 if "Conv" in slide else 1
    weights: Weights = {"frames": (5, 1, 512), "up": (count, 8), "down": (8, 3), "one": np.array([1], np.int64)}
    assert min(symbols(parse(text, weights))["t"]) >= 512


def test_a_symbol_that_only_admits_one_is_read_as_one(tmp_path: Path) -> None:
    found = symbols(parse(ATTENDED, ATTENDED_WEIGHTS, opset=18))
    assert found["batch"] == (1, 1, 1)
    assert len(set(found["seq"])) == 3
    made = clone(written(tmp_path / "a.onnx", ATTENDED, ATTENDED_WEIGHTS, 18))
    (note,) = made.graph.notes
    assert note.startswith("read with static sizes: batch = 1 (")
    assert made.state_dict()["in"].shape == (16, 96)
    report = made.verify(provider="cpu")
    assert [check.ok for check in report.checks] == [True] * 3, str(report)
    shapes = [re.findall(r"\d+x\d+x\d+", text)[0].split("x") for text in report.inputs]
    assert {shape[0] for shape in shapes} == {"1"}
    assert len({shape[1] for shape in shapes}) == 3


def tower(count: int) -> onnx.ModelProto:
    """Convolutions whose every value is declared with an expression of symbols."""
    body = "c0 = Conv<strides=[2, 2], pads=[1, 1, 1, 1]>(x, w)\n"
    for k in range(count):
        body += f"c{k + 1} = Conv<pads=[1, 1, 1, 1]>(c{k}, w{k})\n"
    text = f"tower (float[n, 3, h, w] x) => (float[n, 8, i, j] c{count}) {{\n{body}}}"
    model = parse(text, {"w": (8, 3, 3, 3), **{f"w{k}": (8, 8, 3, 3) for k in range(count)}})
    for k in range(count):
        shape = ["n", 8, "floor(h/2 - 1/2) + 1", "floor(w/2 - 1/2) + 1"]
        model.graph.value_info.append(onnx.helper.make_tensor_value_info(f"c{k}", onnx.TensorProto.FLOAT, shape))
    return model


def test_only_sizes_that_something_has_are_kept() -> None:
    """Those that are declared and also inferred would else be two each, and all are looked through for products."""
    origin: Origin = graph_of(tower(30)).origin
    assert len(origin.reading.sizes.symbols) == 5  # of the input three, and a height and a width behind the first


# What the user says


def test_arrays_are_used_as_they_are_and_others_are_like_them(tmp_path: Path) -> None:
    path = written(tmp_path / "a.onnx", LOOKED_UP, {**LOOKED_UP_WEIGHTS, "lowest": np.array(5000, np.int64)})
    ids = np.arange(5000, 5040)
    with pytest.raises(GraphcloneError, match=r"no inputs .* are accepted: .*; inputs=.* says what is accepted"):
        drawn(path)
    first, *others = drawn(path, {"ids": ids})
    assert np.array_equal(first["ids"], ids)
    assert len(others) == 2
    for feeds in others:
        assert not np.array_equal(feeds["ids"], ids)
        assert np.array_equal(np.sort(feeds["ids"]), ids)
    report = clone(path, inputs={"ids": ids}).verify(provider="cpu")
    assert report.ok, str(report)
    assert report.inputs[0].startswith("ids 40, ")


def test_sizes_that_are_said_are_the_only_ones(tmp_path: Path) -> None:
    path = written(tmp_path / "a.onnx", FLATTENED, {"kernel": (4, 3, 8, 8), "down": (4 * 6 * 10, 4)})
    with pytest.raises(GraphcloneError, match="Gemm"):
        trace(path)
    assert {feeds["x"].shape for feeds in drawn(path, {"x": (2, 3, 48, 80)})} == {(2, 3, 48, 80)}
    made = clone(path, inputs={"x": (2, 3, 48, 80)})
    report = made.verify(provider="cpu")
    assert report.ok, str(report)
    assert made.graph.notes[0].startswith("read with static sizes: h = 48, w = 80 (")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"z": (1,)}, "the model has no input 'z'; it has x"),
        ({"x": (2, 3, 48)}, "x is nx3xhxw in the model, not 2x3x48"),
        ({"x": (2, 4, 48, 80)}, "x is nx3xhxw in the model, not 2x4x48x80"),
        ({"x": np.zeros((2, 3, 48, 80), np.int64)}, "x has dtype float32 in the model, not int64"),
    ],
)
def test_what_fits_no_input_is_refused(given: UserInputs, message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.onnx", CONVOLVED, CONVOLVED_WEIGHTS)
    with pytest.raises(GraphcloneError, match=re.escape(message)):
        drawn(path, given)


def test_the_command_line_takes_sizes_and_arrays(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = str(written(tmp_path / "a.onnx", FLATTENED, {"kernel": (4, 3, 8, 8), "down": (4 * 6 * 10, 4)}))
    wide, arrays = str(tmp_path / "wide.onnx"), str(tmp_path / "x.npz")
    assert main(["inspect", path]) == 2
    assert main(["inspect", path, "--input", "x=2x3x48x80"]) == 0
    assert main(["clone", path, "-o", wide, "--input", "x=2x3x48x80", "--provider", "cpu"]) == 0
    assert main(["verify", path, wide, "--input", "x=2x3x48x80", "--provider", "cpu"]) == 0
    np.savez(arrays, x=np.ones((2, 3, 48, 80), np.float32))
    assert main(["clone", path, "-o", wide, "--force", "--inputs", arrays, "--provider", "cpu"]) == 0
    capfd.readouterr()
    assert main(["clone", path, "-o", wide, "--force", "--inputs", path]) == 2
    assert "a.onnx: not an .npz file of arrays: " in capfd.readouterr().err
    assert main(["inspect", "opt-mini", "--input", "x=1"]) == 2
    assert "opt-mini: it takes no inputs, which are for .onnx files and checkpoints;" in capfd.readouterr().err
    with pytest.raises(SystemExit) as left:
        main(["inspect", path, "--input", "x=ax3"])
    assert left.value.code == 2
    assert "'x=ax3' is not NAME=SHAPE" in capfd.readouterr().err


RECURRENT: Weights = {"W": (1, 15, 4), "R": (1, 15, 5)}
STORED: dict[str, tuple[str, Weights]] = {
    "a state": (
        "q, h = GRU <hidden_size = 5> (x, W, R, , , state)",
        {"W": (1, 15, 4), "R": (1, 15, 5), "state": (1, 2, 5)},
    ),
    "a shape": ("h = Reshape(x, shape)", {"shape": np.array([3, 2, 4], np.int64)}),
    "a sum": ("h = Add(x, table)", {"table": (3, 2, 4)}),
    "a part": ("h = Concat <axis = 2> (x, table)", {"table": (3, 2, 5)}),
    "a product": ("h = MatMul(mixed, x)", {"mixed": (6, 2)}),
}


@pytest.mark.parametrize("case", STORED)
def test_a_symbol_has_the_size_of_what_is_stored(case: str, tmp_path: Path) -> None:
    """A file may say that an axis varies, in front of something that has one size of it."""
    node, weights = STORED[case]
    columns = {"a state": 5, "a part": 9}.get(case, 4)
    result = "a, b, c, 3" if case == "a state" else "a, b, 3"
    layers = "u = MatMul(h, up) r = Relu(u) y = MatMul(r, down)"
    text = f"g (float[3, n, 4] x) => (float[{result}] y) {{ {node} {layers} }}"
    made = clone(written(tmp_path / "a.onnx", text, weights | {"up": (columns, 6), "down": (6, 3)}, 17))
    (note,) = made.graph.notes
    assert note.startswith("read with static sizes: n = 2 (")
    assert made.state_dict()["up"].shape[1] == 12
    assert made.verify(provider="cpu").ok
