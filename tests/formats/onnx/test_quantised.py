"""Quantised weights: the numbers are copied, the scale takes the factor; what cannot be is pinned, with the reason."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir
import pytest
from onnxruntime import InferenceSession

import graphclone as gc
from graphclone.passes import analysis
from graphclone.pipeline.runner import run
from graphclone.pipeline.state import Request, State
from tests.support.onnx_graphs import drawn, graph_of, lockstep, parse, save, widened

DEQUANTISED = """
    g (float[batch, 6] x) => (float[batch, 5] y) {
        up_ = DequantizeLinear<axis = AXIS>(up, up_scale, up_zero)
        down_ = DequantizeLinear<axis = AXIS>(down, down_scale, down_zero)
        a = MatMul(x, up_)
        b = Relu(a)
        y = MatMul(b, down_)
    }
"""

WIDTHS = {"up": (6, 8), "down": (8, 5)}


def quantised(dtype: type, axis: int | None, opset: int = 21) -> onnx.ModelProto:
    """Two layers in a small type, with one scale for all or one per index of an axis."""
    model = parse(DEQUANTISED.replace("AXIS", str(axis or 0)), opset=opset, ir_version=10)
    for name, shape in WIDTHS.items():
        scales = () if axis is None else (shape[axis],)
        weight = np.clip(np.round(7 * drawn(name, shape)), -8, 7).astype(dtype)
        add(model, name, weight)
        add(model, f"{name}_scale", np.abs(drawn(f"{name}_scale", scales)).astype(np.float32) + np.float32(0.1))
        zeros = (
            np.zeros(scales) if np.dtype(dtype).name.startswith("float") else np.round(2 * drawn(f"{name}_z", scales))
        )
        add(model, f"{name}_zero", np.asarray(zeros).astype(dtype))
    return model


def add(model: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    model.graph.initializer.append(onnx_ir.serde.serialize_tensor(onnx_ir.tensor(array, name=name)))


def signed(name: str, *shape: int) -> np.ndarray:
    return np.round(9 * drawn(name, shape)).astype(np.int8)


def small(name: str, *shape: int) -> np.ndarray:
    return ((np.abs(drawn(name, shape)) + 1) / 50).astype(np.float32)


def packed(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def cloned(model: onnx.ModelProto, folder: Path) -> tuple[gc.Clone, onnx.ModelProto]:
    clone = gc.clone(save(model, folder / "source.onnx"), widen=2)
    clone.save_onnx(folder / "clone.onnx")
    return clone, onnx.load(folder / "clone.onnx")


@pytest.mark.parametrize("axis", [None, 0, 1], ids=["per tensor", "per input", "per output"])
@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, ml_dtypes.int4, ml_dtypes.float8_e4m3fn], ids=["int8", "uint8", "int4", "fp8"]
)
def test_weights_behind_a_dequantisation_grow(dtype: type, axis: int | None, tmp_path: Path) -> None:
    if dtype is np.uint8:
        model = quantised(np.int8, axis)
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.INT8:
                array = (onnx.numpy_helper.to_array(tensor).astype(np.int16) + 128).astype(np.uint8)
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    else:
        model = quantised(dtype, axis)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    clone, written = cloned(model, tmp_path)
    assert {tensor.name: tuple(tensor.dims) for tensor in written.graph.initializer if tensor.name in WIDTHS} == {
        "up": (6, 16),
        "down": (16, 5),
    }
    assert {tensor.name: tensor.data_type for tensor in written.graph.initializer if tensor.name in types} == types
    report = clone.verify(provider="cpu")
    assert report.ok, str(report)
    assert report.check("exact").ok  # type: ignore[union-attr]


def test_blocks_of_a_contracted_axis_are_refused_with_the_reason(tmp_path: Path) -> None:
    """The blocks of one scale each would no longer begin where the copies do."""
    model = parse(DEQUANTISED.replace("axis = AXIS", "axis = 0, block_size = 4"), opset=21, ir_version=10)
    for name, shape in {"up": (8, 8), "down": (8, 5)}.items():
        add(model, name, np.round(7 * drawn(name, shape)).astype(np.int8))
        add(model, f"{name}_scale", np.abs(drawn(f"{name}_scale", (2, shape[1]))) + np.float32(0.1))
        add(model, f"{name}_zero", np.zeros((2, shape[1]), np.int8))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 8
    traced = gc.trace(save(model, tmp_path / "source.onnx"))
    assert any("block" in refusal.why.text for refusal in traced.state.facts.refusals) or any(
        dim.pin and "block" in dim.pin.text for group in traced.dims for dim in group.dims
    )


INTEGERS = """
    g (float[batch, 6] x) => (float[batch, 5] y) {
        h = MatMul(x, up)
        q, s, z = DynamicQuantizeLinear(h)
        i = MatMulInteger(q, middle, z)
        f = Cast<to = 1>(i)
        j = Mul(f, s)
        k = Relu(j)
        y = MatMul(k, down)
    }
"""


MIDDLE = {"up": (6, 8), "down": (7, 5), "middle": np.round(9 * drawn("middle", (8, 7))).astype(np.int8)}


def test_a_sum_of_integers_grows_where_a_cast_takes_it_to_floats(tmp_path: Path) -> None:
    """Its factor goes with it, and one of the numbers that follow takes it."""
    clone, written = cloned(parse(INTEGERS, MIDDLE), tmp_path)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in written.graph.initializer}
    assert shapes == {"up": (6, 16), "middle": (16, 14), "down": (14, 5)}
    total = next(value for value in clone.state.facts.of if value.name == "i")
    assert clone.state.scales.values[total] == 2.0
    report = clone.verify(provider="cpu")
    assert report.ok, str(report)
    assert report.check("exact").ok  # type: ignore[union-attr]


HELD = {
    "integers are added": ("one = Constant<value_int = 1>()\n b = Cast<to = 6>(one)\n c = Add(i, b)", "c", 1),
    "the float is too narrow": ("", "i", 10),
    "integers of fewer bits": ("c = Cast<to = 3>(i)", "c", 1),
}
"""What comes between a sum of integers and floats so that the sum may not grow, what is cast, and to which type."""


@pytest.mark.parametrize("name", HELD)
def test_a_sum_of_integers_is_pinned_where_its_factor_does_not_pass(name: str, tmp_path: Path) -> None:
    between, last, to = HELD[name]
    text = INTEGERS.replace("f = Cast<to = 1>(i)", f"{between}\n c_ = Cast<to = {to}>({last})\n f = Cast<to = 1>(c_)")
    clone, written = cloned(parse(text, MIDDLE), tmp_path)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in written.graph.initializer}
    assert shapes == {"up": (6, 8), "middle": (8, 14), "down": (14, 5)}
    pins = [str(dim.pin) for group in clone.dims for dim in group.dims if dim.pin and dim.size == 8]
    assert pins and all(pin.startswith("summed over integers that ") for pin in pins)
    assert clone.verify(provider="cpu").ok


def test_a_sum_of_integers_that_is_returned_is_pinned() -> None:
    text = INTEGERS.replace("(float[batch, 5] y)", "(float[batch, 5] y, int32[batch, 7] i)")
    state = State(graph_of(parse(text, MIDDLE)), Request(widen_io=("*",)))
    run(analysis(), state)
    pins = {
        leaf.pin for axis in state.facts.of[state.graph.nodes[0].outputs[0]] for leaf in state.facts.axes.leaves(axis)
    }
    assert any(pin and pin.text == "summed over integers that are returned" for pin in pins)


@pytest.mark.parametrize(("factor", "grows"), [(2, True), (3, False)])
def test_a_sum_of_integers_stays_within_its_bits(factor: int, grows: bool, tmp_path: Path) -> None:
    """Two times 12,000 products of 255 and 255 are less than 2 ** 31, three times are more."""
    weights = {"up": (6, 12_000), "down": (7, 5), "middle": np.ones((12_000, 7), np.int8)}
    source = tmp_path / "source.onnx"
    source.write_bytes(parse(INTEGERS, weights).SerializeToString())
    clone = gc.clone(source, widen=factor)
    sizes = {initializer.name: initializer.value.shape for initializer in clone.state.graph.initializers}
    assert sizes["middle"] == (12_000 * (factor if grows else 1), 7 * factor)
    assert 255**2 * 12_000 * 2 < 2**31 < 255**2 * 12_000 * 3


CONVOLVED = """
    g (float[batch, 6, 5, 4] x) => (float[batch, 3, 3, 2] y) {
        h = Conv(x, up)
        q, s, z = DynamicQuantizeLinear(h)
        i = ConvInteger<group = GROUPS>(q, middle, z, zero)
        t = Transpose<perm = [0, 2, 3, 1]>(i)
        f = Cast<to = 1>(t)
        both = Mul(s, steps)
        j = Mul(f, both)
        k = Relu(j)
        l = Transpose<perm = [0, 3, 1, 2]>(k)
        y = Conv(l, down)
    }
"""


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_windows_of_integers_grow_by_any_factors(groups: int) -> None:
    """Every value is the source's, replicated, and the sum of integers as many times greater as its axes grew."""
    weights = {"up": (8, 6, 1, 1), "down": (3, 12, 1, 1), "steps": small("steps", 12)} | {
        "middle": signed("middle", 12, 8 // groups, 3, 3),
        "zero": np.array(3, np.int8),
    }
    model = parse(CONVOLVED.replace("GROUPS", str(groups)), weights)
    factors = set()
    for seed in range(8):
        state = widened(model, seed=seed)
        factors |= {scale for value, scale in state.scales.values.items() if value.name == "i"}
        found = lockstep(state)
        assert found.first is None
        assert found.output < 1e-12
    assert factors >= {2.0, 3.0}


def test_what_is_divided_by_scales_grows(tmp_path: Path) -> None:
    """``QLinearMatMul`` and ``QLinearConv`` without a bias round to integers what they have multiplied by scales."""
    text = """
        g (float[batch, 6] x) => (float[batch, 5] y) {
            h = MatMul(x, up)
            q = QuantizeLinear(h, a, z)
            m = QLinearMatMul(q, a, z, middle, steps, zeros, a, z)
            t = Unsqueeze(m, places)
            n = QLinearConv(t, a, z, kernel, b, zero, a, z)
            o = Squeeze(n, places)
            d = DequantizeLinear(o, a, z)
            y = MatMul(d, down)
        }
    """
    weights = {"up": (6, 8), "down": (9, 5), "a": np.float32(0.05), "z": np.uint8(128), "steps": small("steps", 7)} | {
        "middle": packed(8, 7),
        "zeros": packed(7),
        "kernel": packed(9, 7, 1),
        "places": np.array([2]),
        "b": np.float32(0.01),
        "zero": np.uint8(100),
    }
    weights = {name: np.asarray(w) if isinstance(w, np.generic) else w for name, w in weights.items()}
    clone, written = cloned(parse(text, weights), tmp_path)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in written.graph.initializer}
    assert {name: shapes[name] for name in ("up", "middle", "kernel", "down")} == {
        "up": (6, 16),
        "middle": (16, 14),
        "kernel": (18, 14, 1),
        "down": (18, 5),
    }
    report = clone.verify(provider="cpu")
    assert report.ok, str(report)
    assert report.check("exact").ok  # type: ignore[union-attr]


REFUSED = {
    "QAttention": "y = com.microsoft.QAttention<num_heads=2>(q3, w24, bias, s, s, , z, zero)",
    "QMoE": "y = com.microsoft.QMoE(h, route, bytes, steps, , bytes, steps)",
    "Trilu": "y = com.microsoft.Trilu(h)",
}
"""Operators of ONNX Runtime's own that nothing passes: by a rule, in some of their forms, or for want of a rule."""


@pytest.mark.parametrize("op", REFUSED)
def test_an_operator_that_nothing_passes_is_named_first(op: str, tmp_path: Path) -> None:
    """Also where the input and the output pin what is left."""
    text = f"""
        g (float[5, 6] x) => (y) {{
            h = MatMul(x, up)
            q, s, z = DynamicQuantizeLinear(h)
            q3 = Unsqueeze(q, front)
            {REFUSED[op]}
        }}
    """
    weights = {"up": (6, 8), "route": (5, 3), "bias": (24,), "steps": (3, 8)} | {
        "front": np.array([0]),
        "zero": np.array(0, np.uint8),
        "w24": np.ones((8, 24), np.uint8),
        "bytes": np.ones((3, 8, 4), np.uint8),
    }
    path = save(parse(text, weights), tmp_path / "model.onnx")
    with pytest.raises(gc.GraphcloneError, match=rf"^nothing to widen: com.microsoft.{op}: "):
        gc.clone(path)


PASSED = {
    "a mixture of experts": (
        """e = com.microsoft.MoE<k = 2>(h, route, fc1, , fc2)
        m = Add(h, e)""",
        {"route": (5, 3), "fc1": (3, 10, 8), "fc2": (3, 8, 10)},
        {"fc1": (3, 20, 16), "fc2": (3, 16, 20)},
    ),
    "a mixture of quantised experts": (
        """e = com.microsoft.QMoE<k = 2, weights_prepacked = 0, activation_type = "silu">
            (h, route, fc1, steps1, , fc2, steps2)
        m = Add(h, e)""",
        {"route": (5, 3), "fc1": packed(3, 10, 4), "fc2": packed(3, 8, 5)}
        | {"steps1": small("steps1", 3, 10), "steps2": small("steps2", 3, 8)},
        {"fc1": (3, 20, 8), "fc2": (3, 16, 10), "steps1": (3, 20), "steps2": (3, 16)},
    ),
    "a product of integers to floats": (
        """q, a, z = DynamicQuantizeLinear(h)
        i = com.microsoft.QGemm(q, a, z, b, steps, zeros)
        m = MatMul(i, back)""",
        {"b": packed(8, 10), "steps": small("steps", 10), "zeros": packed(10), "back": (10, 8)},
        {"b": (16, 20), "steps": (20,), "zeros": (20,), "back": (20, 16)},
    ),
    "a product of integers that are added to": (
        """q, a, z = DynamicQuantizeLinear(h)
        i = com.microsoft.QGemm(q, a, z, b, steps, zeros, c)
        m = MatMul(i, back)""",
        {"b": packed(8, 10), "steps": small("steps", 10), "zeros": packed(10), "back": (10, 8)}
        | {"c": np.arange(10, dtype=np.int32)},
        {"b": (16, 20), "steps": (20,), "zeros": (20,), "c": (20,), "back": (20, 16)},
    ),
    "a recurrence over integers": (
        """t = Unsqueeze(h, front)
        every, last = com.microsoft.DynamicQuantizeLSTM<hidden_size = 8>
            (t, w, r, bias, , , , , steps, zero, other, zero)
        m = Squeeze(last, front)""",
        {"front": np.array([0]), "zero": np.zeros(1, np.int8), "bias": (1, 64)}
        | {"w": signed("w", 1, 8, 32), "r": signed("r", 1, 8, 32)}
        | {"steps": small("a step", 1), "other": small("another", 1)},
        {"w": (1, 16, 64), "r": (1, 16, 64), "bias": (1, 128), "steps": (1,)},
    ),
    "a convolution of integers, channels last": (
        """q, a, z = DynamicQuantizeLinear(h)
        t = Unsqueeze(q, places)
        i = com.microsoft.QLinearConv<channels_last = 1>(t, a, z, kernel, steps, zeros, a, z, c)
        d = DequantizeLinear(i, a, z)
        e = Squeeze(d, places)
        m = MatMul(e, back)""",
        {"places": np.array([1, 2]), "kernel": packed(10, 8, 1, 1), "steps": small("steps", 10)}
        | {"zeros": np.zeros(10, np.uint8), "c": np.arange(10, dtype=np.int32), "back": (10, 8)},
        {"kernel": (20, 16, 1, 1), "steps": (20,), "zeros": (20,), "c": (20,), "back": (20, 16)},
    ),
}
"""What makes eight numbers of eight, its weights, and the sizes of these in a clone of twice the width. The number of
experts stays. What experts read is read once more: ONNX Runtime clears it too early where their result may lie in the
same memory."""


@pytest.mark.parametrize("name", PASSED)
def test_operators_over_integers_and_experts_grow(name: str, tmp_path: Path) -> None:
    text, weights, expected = PASSED[name]
    model = parse(
        f"g (float[5, 6] x) => (float[5, 4] y) {{ h = MatMul(x, up)\n {text}\n k = Relu(m)\n y = MatMul(k, down) }}",
        {"up": (6, 8), "down": (8, 4), **weights},
    )
    clone, written = cloned(model, tmp_path)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in written.graph.initializer}
    assert {key: shapes[key] for key in expected} == expected
    report = clone.verify(provider="cpu")
    assert report.ok, str(report)
    assert report.check("exact").ok  # type: ignore[union-attr]


def _convolved(a: str, scale: str, result: str, bias: str = "c") -> str:
    """``QLinearConv`` of eight channels to ten, over places of one."""
    return f"i = QLinearConv({a}, {scale}, z, kernel, step, zero, {result}, z, {bias})"


BIASED = {
    "QLinearConv": f"""q = QuantizeLinear(h, a, z)
        t = Unsqueeze(q, places)
        {_convolved("t", "a", "b")}
        d = DequantizeLinear(i, b, z)
        m = Squeeze(d, places)""",
    "QGemm to floats": """q = QuantizeLinear(h, a, z)
        m = com.microsoft.QGemm<alpha = 0.37, transB = 1>(q, a, z, matrix, steps, zeros, c)""",
    "QGemm to integers": """q = QuantizeLinear(h, a, z)
        i = com.microsoft.QGemm<transB = 1>(q, a, z, matrix, steps, zeros, c, b, z)
        m = DequantizeLinear(i, b, z)""",
}
"""Sums of eight products of integers to which integers are added, ten of them."""


def biased(text: str, bias: np.ndarray) -> onnx.ModelProto:
    weights = {"up": (6, 8), "down": (10, 4), "places": np.array([2]), "c": bias} | {
        "kernel": packed(10, 8, 1),
        "matrix": packed(10, 8),
        "steps": small("steps", 10),
        "zeros": packed(10),
        "z": np.array(117, np.uint8),
        "zero": np.array(90, np.uint8),
        **{name: np.array(step, np.float32) for name, step in (("a", 0.0531), ("b", 0.2137), ("step", 0.0119))},
    }
    head, tail = "h = MatMul(x, up)", "k = Relu(m)\n y = MatMul(k, down)"
    return parse(f"g (float[batch, 6] x) => (float[batch, 4] y) {{ {head}\n {text}\n {tail} }}", weights)


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("op", BIASED)
def test_integers_that_are_added_grow_as_the_sum_does(op: str, factor: int, tmp_path: Path) -> None:
    """``n (sum + bias)`` is what the scales divide: every integer of the bias is n times as great, in every copy."""
    bias = np.arange(-5000, 5000, 1000, dtype=np.int32) + 7
    source, wide = save(biased(BIASED[op], bias), tmp_path / "source.onnx"), tmp_path / "wide.onnx"
    clone = gc.clone(source, widen=factor)
    clone.save_onnx(wide)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(wide).graph.initializer}
    assert arrays["kernel" if op == "QLinearConv" else "matrix"].shape[:2] == (10 * factor, 8 * factor)
    np.testing.assert_array_equal(arrays["c"], np.tile(bias * factor, factor))
    report = clone.verify(provider="cpu")
    assert report.ok, str(report)
    assert report.check("exact").ok  # type: ignore[union-attr]
    x = drawn("input", (9, 6))
    of_source, of_clone = (InferenceSession(p, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
                           for p in (source, wide))  # fmt: skip
    assert of_source.std() > 0.01
    np.testing.assert_allclose(of_clone, of_source, atol=1e-4)


@pytest.mark.parametrize(("greatest", "columns"), [(2**29, 16), (2**30, 8)])
def test_a_bias_is_multiplied_if_its_multiple_fits(greatest: int, columns: int, tmp_path: Path) -> None:
    """Two times 2 ** 30 are more than 32 bits hold."""
    clone, written = cloned(biased(BIASED["QLinearConv"], np.full(10, greatest, np.int32)), tmp_path)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in written.graph.initializer}
    assert shapes["kernel"] == (20, columns, 1)
    assert clone.verify(provider="cpu").ok


def test_a_sum_that_computed_integers_are_added_to_is_pinned(tmp_path: Path) -> None:
    text = BIASED["QLinearConv"].replace(
        "i = ", "t_ = Cast<to = 6>(t)\n r = ReduceMax<keepdims = 0>(t_)\n g = Add(c, r)\n i = "
    )
    clone, written = cloned(biased(text.replace("z, c)", "z, g)"), np.full(10, 1000, np.int32)), tmp_path)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in written.graph.initializer}
    assert shapes["kernel"] == (20, 8, 1)
    pins = [str(dim.pin) for group in clone.dims for dim in group.dims if dim.pin]
    assert any(
        "summed over integers that are added to others that are not stored for them alone" in pin for pin in pins
    )
    assert clone.verify(provider="cpu").ok


def test_sums_that_share_a_bias_have_one_each(tmp_path: Path) -> None:
    """One is taken over more copies than the other."""
    text = f"""q = QuantizeLinear(h, a, z)
        p = Unsqueeze(q, places)
        {_convolved("p", "a", "b")}
        j = QLinearConv(p_, a, z, other, step, zero, b, z, c)
        both = Add(d, e)
        m = Squeeze(both, places)"""
    text = text.replace("both =", "d = DequantizeLinear(i, b, z)\n e = DequantizeLinear(j, b, z)\n both =")
    text = text.replace("j =", "x_ = Unsqueeze(x, places)\n p_ = QuantizeLinear(x_, a, z)\n j =")
    model = biased(text, np.arange(10, dtype=np.int32) * 321 - 1234)
    add(model, "other", packed(10, 6, 1))
    clone, written = cloned(model, tmp_path)
    greatest = {int(np.abs(onnx.numpy_helper.to_array(t)).max()) for t in written.graph.initializer if t.data_type == 6}
    assert greatest == {1655, 3310}
    report = clone.verify(provider="cpu")
    assert report.ok, str(report)
    assert report.check("exact").ok  # type: ignore[union-attr]


def test_a_network_of_integers_grows_through_its_poolings(tmp_path: Path) -> None:
    """As ONNX Runtime's own quantiser writes it."""
    text = """
        g (float[batch, 3, 8, 8] x) => (float[batch, 5] y) {
            q = QuantizeLinear(x, a, z)
            i = QLinearConv<pads = [1, 1, 1, 1]>(q, a, z, first, step, zero, b, z, c)
            p = com.microsoft.QLinearAveragePool<kernel_shape = [2, 2], strides = [2, 2]>(i, b, z, b, z)
            j = QLinearConv(p, b, z, second, steps, zeros, b, z, d)
            m = com.microsoft.QLinearGlobalAveragePool(j, b, z, b, z)
            f = Flatten(m)
            g = com.microsoft.QGemm<transB = 1>(f, b, z, third, step, zero, e, b, z)
            y = DequantizeLinear(g, b, z)
        }
    """
    weights = {
        "first": signed("first", 8, 3, 3, 3), "second": signed("second", 6, 8, 1, 1), "third": signed("third", 5, 6),
        "steps": small("steps", 6), "zeros": np.zeros(6, np.int8), "zero": np.array(0, np.int8),
        "z": np.array(117, np.uint8), "c": np.arange(8, dtype=np.int32), "d": np.arange(6, dtype=np.int32),
        "e": np.arange(5, dtype=np.int32),
        **{name: np.array(step, np.float32) for name, step in (("a", 0.0131), ("b", 0.0237), ("step", 0.0119))},
    }  # fmt: skip
    clone, written = cloned(parse(text, weights), tmp_path)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in written.graph.initializer}
    assert {name: shapes[name] for name in ("first", "second", "third")} == {
        "first": (16, 3, 3, 3),
        "second": (12, 16, 1, 1),
        "third": (5, 12),
    }
    report = clone.verify(provider="cpu")
    assert report.ok, str(report)
