"""Reading ONNX: what is a literal, what is computed, what is a weight, and whose each initializer is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from graphclone.errors import GraphcloneError
from graphclone.graph.ir import Graph, Node, Value
from graphclone.passes import analysis
from graphclone.pipeline.runner import run
from graphclone.pipeline.state import Request, State
from graphclone.runtime.interpreter import outputs
from graphclone.runtime.tensors import Lazy, lifted_tensor
from graphclone.verification.lockstep import run_lockstep
from tests.support.onnx_graphs import (
    SUMMED_BEFORE,
    SUMMED_BEFORE_WEIGHTS,
    drawn,
    graph_of,
    inputs_of,
    lockstep,
    parse,
    widened,
)

SPLIT_HEADS = """
    g (float[batch, sequence, 24] x) => (float[batch, sequence, 4, 6] y) {
        shape = Shape(x)
        first = Gather<axis=0>(shape, zero)
        second = Gather<axis=0>(shape, one)
        width = Gather<axis=0>(shape, two)
        head = Div(width, heads)
        batch_ = Unsqueeze(first, axes)
        sequence_ = Unsqueeze(second, axes)
        heads_ = Unsqueeze(heads, axes)
        head_ = Unsqueeze(head, axes)
        sizes = Concat<axis=0>(batch_, sequence_, heads_, head_)
        y = Reshape(x, sizes)
    }
"""

NUMBERS = {name: np.array(i, np.int64) for i, name in enumerate(("zero", "one", "two"))}


def node_of(graph: Graph, op: str) -> Node:
    (found,) = [node for node in graph.nodes if node.op == op]
    return found


def test_static_sizes_of_a_computed_shape_are_literals() -> None:
    weights = {**NUMBERS, "heads": np.array(4, np.int64), "axes": np.array([0], np.int64)}
    shape = node_of(graph_of(parse(SPLIT_HEADS, weights)), "onnx.Reshape").operands["shape"]
    assert shape[2:] == [4, 6]
    assert all(isinstance(size, Value) and not size.is_tensor for size in shape[:2])


def test_a_size_that_only_seems_static_is_computed() -> None:
    """Rounded up to 64, all short sequences are equally long."""
    text = """
        g (float[batch, sequence] x) => (float[n] y) {
            length = Shape<start=1, end=2>(x)
            more = Add(length, sixty_three)
            blocks = Div(more, sixty_four)
            padded = Mul(blocks, sixty_four)
            y = ConstantOfShape(padded)
        }
    """
    numbers = {"sixty_three": np.array([63], np.int64), "sixty_four": np.array([64], np.int64)}
    (size,) = node_of(graph_of(parse(text, numbers)), "onnx.ConstantOfShape").operands["input"]
    assert isinstance(size, Value)


def test_sizes_of_dynamic_axes_are_symbols_and_their_multiples() -> None:
    text = "g (float[batch, 6, s] x, float[batch, 6, s] z) => (float[n, 6, s] y) { y = Concat<axis=0>(x, z) }"
    assert node_of(graph_of(parse(text)), "onnx.Concat").outputs[0].dynamic == {0: "2*batch", 2: "s"}


def test_weights_are_found_wherever_they_lie() -> None:
    text = """
        g (float[batch, 3] x) => (float[batch, 4] y) {
            a = Constant<value = float[3, 4] {1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12.}>()
            filled = ConstantOfShape<value = float[1] {0.5}>(sizes)
            bias = Constant<value_floats = [1.0, 2.0, 3.0, 4.0]>()
            h = MatMul(x, a)
            i = MatMul(h, filled)
            y = Add(i, bias)
        }
    """
    graph = graph_of(parse(text, {"sizes": np.array([4, 4], np.int64)}))
    weights = {i.name: (i.kind, i.value.shape) for i in graph.initializers}
    assert weights == {
        "a": ("parameter", (3, 4)),
        "filled": ("parameter", (4, 4)),
        "bias": ("parameter", (4,)),
    }
    assert float(graph.initializers[1].read().sum()) == 8.0


def test_initializers_that_are_inputs_too_are_weights() -> None:
    text = "g (float[batch, 3] x, float[3, 4] w) => (float[batch, 4] y) { y = MatMul(x, w) }"
    graph = graph_of(parse(text, {"w": (3, 4)}, ir_version=3, opset=9))
    assert [value.name for value in graph.inputs] == ["x"]
    assert [initializer.name for initializer in graph.initializers] == ["w"]


SHARED = """
    g (float[batch, 4] x) => (float[batch, 4] y) {
        a = Mul(x, w)
        b = Mul(a, w)
        y = Mul(b, w)
    }
"""


@pytest.mark.parametrize(
    ("content", "copies"),
    [(np.ones(4, np.float32), 3), (np.arange(4, dtype=np.float32), 1), (np.array([1, 2, 3, 1], np.float32), 1)],
    ids=["one number", "trained", "trained to equal ends"],
)
def test_an_initializer_shared_by_chance_is_one_for_each_reader(content: np.ndarray, copies: int) -> None:
    graph = graph_of(parse(SHARED, {"w": content}))
    assert len(graph.initializers) == copies
    assert graph.initializers[0].name == "w"


@pytest.mark.parametrize(("position", "size"), [(0, 3), (1, 3), (2, 1), (-1, 1)])
def test_a_pick_from_a_split_sequence_is_a_part_of_a_split(position: int, size: int) -> None:
    text = f"""
        g (float[batch, 7] x) => (float[batch, {size}] y) {{
            parts = SplitToSequence<axis=1, keepdims=1>(x, three)
            y = SequenceAt(parts, position)
        }}
    """
    graph = graph_of(parse(text, {"three": np.array(3, np.int64), "position": np.array(position, np.int64)}))
    split = node_of(graph, "onnx.Split")
    assert split.operands["split"] == [3, 3, 1]
    assert split.outputs[position] is graph.outputs[0].operand


def test_functions_of_the_model_are_inlined() -> None:
    opset = [onnx.helper.make_opsetid("", 17)]
    inner = onnx.helper.make_function(
        "here",
        "Twice",
        ["a"],
        ["b"],
        [onnx.helper.make_node("Add", ["a", "a"], ["b"])],
        opset,
    )
    model = parse("g (float[batch, 3] x) => (float[batch, 4] y) { h = MatMul(x, w) y = Identity(h) }", {"w": (3, 4)})
    model.graph.node[1].op_type, model.graph.node[1].domain = "Twice", "here"
    model.opset_import.append(onnx.helper.make_opsetid("here", 1))
    model.functions.append(inner)
    assert [node.op for node in graph_of(model).nodes] == ["onnx.MatMul", "onnx.Add"]


def test_an_input_without_a_shape_is_refused() -> None:
    model = parse("g (float[batch, 3] x) => (float[batch, 3] y) { y = Relu(x) }")
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(GraphcloneError, match=r"^model.onnx: input x declares no shape; give it one"):
        graph_of(model)


def test_nodes_that_do_not_fit_together_are_refused() -> None:
    model = parse("g (float[2, 3] x) => (float[2, 3] y) { y = MatMul(x, w) }", {"w": (4, 3)})
    with pytest.raises(GraphcloneError, match=r"^model.onnx: .*MatMul") as refusal:
        graph_of(model)
    assert "\n" not in str(refusal.value)


# Branches and loops

BRANCH = """
    g (float[batch, 5] x, bool flag) => (float[batch, 5] y) {
        h = MatMul(x, up)
        z = If (flag) <
            then_branch = t () => (float[batch, 7] p) { p = MatMul(h, a) },
            else_branch = e () => (float[batch, 7] q) { r = Relu(h) q = MatMul(r, b) }
        >
        y = MatMul(z, down)
    }
"""

BRANCH_WEIGHTS = {"up": (5, 6), "a": (6, 7), "b": (6, 7), "down": (7, 5)}


@pytest.mark.parametrize("seed", [None, 1, 3])
def test_dims_pass_through_both_branches_of_an_if(seed: int | None) -> None:
    state = widened(parse(BRANCH, BRANCH_WEIGHTS), seed=seed)
    assert all(i.value.elements > 0 for i in state.graph.initializers)
    assert any(growth.grows for growth in state.growths.values())
    assert lockstep(state).first is None


SUMMED = """
    g (float[batch, 5] x, bool flag) => (float[batch, 5] y) {
        h = MatMul(x, up)
        z = If (flag) <
            then_branch = t () => (float[batch, 1] p) { p = ReduceSum<keepdims=1>(h, last) },
            else_branch = e () => (float[batch, 1] q) { q = ReduceMean<axes=[-1], keepdims=1>(h) }
        >
        y = MatMul(z, down)
    }
"""


@pytest.mark.parametrize("flag", [False, True])
def test_both_branches_of_an_if_have_one_scale(flag: bool) -> None:
    """A sum counts the copies that a mean does not."""
    state = widened(parse(SUMMED, {"up": (5, 6), "down": (1, 5), "last": np.array([-1])}))
    assert {i.name: i.value.shape for i in state.graph.initializers}["up"] == (5, 12)
    x, _ = inputs_of(state.source)
    assert run_lockstep(state, [x, torch.tensor(flag)]).first is None


def test_a_branch_that_is_always_taken_takes_the_place_of_its_if() -> None:
    text = BRANCH.replace(", bool flag", "").replace("h = MatMul(x, up)", "h = MatMul(x, up)\nflag = Equal(one, one)")
    model = parse(text, {**BRANCH_WEIGHTS, "one": np.array(1, np.int64)})
    graph = graph_of(model)
    assert [node.op for node in graph.nodes] == ["onnx.MatMul"] * 3
    assert graph.nodes[-1].inputs


LOOP = """
    g (float[batch, 5] x) => (float[batch, 5] y) {
        h = MatMul(x, up)
        last, all = Loop (rounds, , h) <
            body = b (int64 i, bool c, float[batch, 6] s) => (bool d, float[batch, 6] u, float[batch, 7] o) {
                d = Identity(c)
                t = MatMul(s, recurrent)
                u = Tanh(t)
                o = MatMul(u, out)
            }
        >
        mean = ReduceMean<axes=[0], keepdims=0>(all)
        z = MatMul(mean, down)
        w = MatMul(last, side)
        y = Add(z, w)
    }
"""

LOOP_WEIGHTS = {"up": (5, 6), "recurrent": (6, 6), "out": (6, 7), "down": (7, 5), "side": (6, 5)}


@pytest.mark.parametrize("op", ["GreaterOrEqual", "LessOrEqual"])
@pytest.mark.parametrize("opset", [12, 15, 16])
def test_comparisons_have_a_shape_in_every_opset(op: str, opset: int) -> None:
    """onnx infers none of these two below opset 16."""
    text = f"""
        g (float[batch, 4] x) => (float[batch, 3] y) {{
            a = MatMul(x, up)
            b = {op}(a, bound)
            c = Where(b, a, bound)
            y = MatMul(c, down)
        }}
    """
    weights = {"up": (4, 6), "down": (6, 3), "bound": np.array(0.5, np.float32)}
    state = widened(parse(text, weights, opset=opset))
    assert lockstep(state).first is None
    assert {i.names[0]: i.value.shape for i in state.graph.initializers}["up"] == (4, 12)


def test_dims_pass_through_the_body_of_a_loop() -> None:
    model = parse(LOOP, {**LOOP_WEIGHTS, "rounds": np.array(3, np.int64)})
    state = widened(model)
    shapes = {i.name: i.value.shape for i in state.graph.initializers if i.kind == "parameter"}
    assert shapes == {"up": (5, 12), "recurrent": (12, 12), "out": (12, 14), "down": (14, 5), "side": (12, 5)}


def test_the_state_of_a_loop_has_one_scale() -> None:
    """A sum counts the copies that a mean does not: the first round begins with the one, all others with the other."""
    state = widened(parse(SUMMED_BEFORE, SUMMED_BEFORE_WEIGHTS))
    scales = {value.name: scale for value, scale in state.scales.values.items()}
    assert scales["before"] == 2.0
    begins, ends = (node_of(state.graph, op).operands["states"][0] for op in ("onnx.Loop.body", "onnx.Loop"))
    assert begins.name != "before"
    assert scales.get(begins.name, 1.0) == scales.get(ends.name, 1.0) == 1.0


SCAN = """
    g (float[4, batch, 5] x) => (float[4, batch, 5] y) {
        start = ConstantOfShape(sizes)
        last, all = Scan <num_scan_inputs = 1,
            body = b (float[batch, 6] s, float[batch, 5] e) => (float[batch, 6] u, float[batch, 6] o) {
                f = MatMul(e, up)
                t = MatMul(s, recurrent)
                v = Add(f, t)
                u = Tanh(v)
                o = Identity(u)
            }
        > (start, x)
        y = MatMul(all, down)
    }
"""


def test_dims_pass_through_the_body_of_a_scan() -> None:
    weights = {"up": (5, 6), "recurrent": (6, 6), "down": (6, 5)}
    model = parse(SCAN.replace("batch", "2"), {**weights, "sizes": np.array([2, 6], np.int64)})
    state = widened(model)
    shapes = {i.name: i.value.shape for i in state.graph.initializers if i.kind == "parameter"}
    assert shapes == {"up": (5, 12), "recurrent": (12, 12), "down": (12, 5)}
    assert {i.name: i.value.shape for i in state.graph.initializers}["start"] == (2, 12)


SCANNED = """
    g (float[4, 5] x) => (float[4] y) {
        h = MatMul(x, up)
        start = ConstantOfShape(sizes)
        y, all = Scan <num_scan_inputs = 1, scan_input_axes = [1],
            body = b (float[4] s, float[4] e) => (float[4] u, float[4] o) { u = Add(s, e) o = Identity(e) }
        > (start, h)
    }
"""


def test_what_a_scan_takes_one_by_one_keeps_its_size() -> None:
    state = State(graph_of(parse(SCANNED, {"up": (5, 6), "sizes": np.array([4])})))
    run(analysis(), state)
    (up,) = [axes for value, axes in state.facts.of.items() if value.name == "up"]
    assert "one position for every round" in str(state.facts.axes.find(up[1]).pin)


def test_chance_is_the_same_for_source_and_clone() -> None:
    text = """
        g (float[batch, 3] x) => (float[batch, 2] y) {
            noise = RandomNormalLike(x)
            a = Add(x, noise)
            b = MatMul(a, up)
            y = MatMul(b, down)
        }
    """
    state = widened(parse(text, {"up": (3, 4), "down": (4, 2)}))
    assert any(growth.grows for growth in state.growths.values())
    assert lockstep(state).first is None


LEARNER = """
    g (float[batch, 6] x) => (float[batch, 5] y) {
        scaled = ai.onnx.ml.Scaler<offset = [1., 2., 3., 4., 5., 6.], scale = [2., 2., 2., 3., 3., 3.]>(x)
        a = MatMul(scaled, up)
        b = Relu(a)
        y = MatMul(b, down)
    }
"""


def of_learners(text: str) -> onnx.ModelProto:
    model = parse(text, {"up": (6, 8), "down": (8, 5)})
    model.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 3))
    return model


def test_what_classical_learners_do_to_features_has_a_shape() -> None:
    """onnx infers nothing of their operators, but runs them."""
    state = widened(of_learners(LEARNER))
    assert {i.name: i.value.shape for i in state.graph.initializers}["up"] == (6, 16)
    assert lockstep(state).first is None


def test_a_dictionary_has_no_shape() -> None:
    text = LEARNER.replace("y = ", "labels = ai.onnx.ml.ZipMap<classlabels_int64s = [1, 2, 3, 4, 5]>(b)\ny = ")
    with pytest.raises(GraphcloneError, match=r"ZipMap\): nothing says what shape its results have"):
        graph_of(of_learners(text))


def test_floats_that_a_constant_lists_are_weights() -> None:
    """Float32, as other weights are; what is computed from them grows with them."""
    text = """
        g (float[batch, 6] x) => (float[batch, 5] y) {
            a = MatMul(x, up)
            listed = Constant<value_floats = [0.1, 0.2, 0.3, 0.4]>()
            half = Constant<value_float = 0.5>()
            bias = Mul(listed, half)
            b = Add(a, bias)
            c = Relu(b)
            y = MatMul(c, down)
        }
    """
    state = widened(parse(text, {"up": (6, 4), "down": (4, 5)}))
    assert {i.name: i.value.shape for i in state.graph.initializers} == {"up": (6, 8), "listed": (8,), "down": (8, 5)}
    assert lockstep(state).first is None


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize(("axis", "new_axis"), [(1, 0), (-1, 0), (1, 1), (-1, 1)])
def test_a_sequence_that_is_put_together_is_a_concatenation(axis: int, new_axis: int, opset: int) -> None:
    """As stack and cat of lists are exported."""
    size = "2, 4" if axis > 0 else "4, 2"
    text = f"""
        g (float[batch, 6] x) => (float[batch, {size if new_axis else 8}] y) {{
            a = MatMul(x, first)
            b = MatMul(x, second)
            both = SequenceConstruct(a, b)
            y = ConcatFromSequence<axis = {axis}, new_axis = {new_axis}>(both)
        }}
    """
    model = parse(text, {"first": (6, 4), "second": (6, 4)}, opset=opset)
    expected = ReferenceEvaluator(model).run(None, {"x": drawn("x", (3, 6))})[0]
    state = widened(model, Request(2, widen_io=("y",)))
    assert not any("Sequence" in node.op for node in state.graph.nodes)
    assert {i.name: i.value.shape for i in state.graph.initializers if i.value.is_float} == {
        "first": (6, 8),
        "second": (6, 8),
    }
    assert lockstep(state).first is None
    (y,) = outputs(
        state.model, Lazy(state.model, lifted_tensor), [torch.as_tensor(drawn("x", (3, 6))).double()], lift=True
    )
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_an_operator_that_takes_a_sequence_is_named() -> None:
    text = """
        g (float[batch, 6] x) => (float[batch, 5] y) {
            a = MatMul(x, up)
            both = SequenceConstruct(a, a)
            one = SequenceErase(both)
            c = ConcatFromSequence<axis = 1>(one)
            y = MatMul(c, down)
        }
    """
    with pytest.raises(GraphcloneError, match=r"one \(SequenceErase\): takes a sequence, a map or an optional"):
        graph_of(parse(text, {"up": (6, 4), "down": (4, 5)}))


STATES = """
    g (float[batch, length] x, float[1, streams, 8] state) => (float[1, streams, 8] next) {
        channel = Unsqueeze(x, one)
        c = Conv<strides = [16]>(channel, kernel)
        sequence = Transpose<perm = [2, 0, 1]>(c)
        y, next = GRU<hidden_size = 8>(sequence, W, R, , , state)
    }
"""
STATE_WEIGHTS = {"kernel": (6, 1, 32), "W": (1, 24, 6), "R": (1, 24, 8), "one": np.array([1], np.int64)}


def test_states_have_the_batch_of_the_sequence() -> None:
    """Sizes are tried until they do, whatever the file calls them; onnx infers shapes without a word."""
    graph = graph_of(parse(STATES, STATE_WEIGHTS))
    x, state = (value.shape for value in graph.inputs)
    assert x is not None and state is not None
    assert x[0] == state[1] and x[1] >= 32
    assert any("batches of" in note for note in graph.notes)
