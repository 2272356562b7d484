"""From a widened ONNX graph back to a model: the source's own, changed only where the clone differs.

Names, metadata, documentation and whatever nothing reads survive. Nodes whose literals changed get new ones, weights
are replaced by lazy ones, and what has thereby lost its last reader goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import onnx_ir

from graphclone.algebra.recipes import Widening
from graphclone.formats.onnx.control import captured
from graphclone.formats.onnx.dialect import InputPlace, LiteralType, Target, frozen
from graphclone.formats.onnx.plain import values_of
from graphclone.formats.onnx.reader import Origin
from graphclone.formats.onnx.sizes import Fact
from graphclone.formats.onnx.tensors import OnnxTensor, data_type, to_array
from graphclone.graph.ir import Initializer, Node, Operand, Value, items_of, values_in
from graphclone.graph.names import fresh
from graphclone.graph.operands import Reader, Size
from graphclone.pipeline.state import State
from graphclone.runtime.kernel import widen

_ARITHMETIC = {"size.times": "Mul", "size.over": "Div"}
"""What computes with sizes."""


def to_model(state: State) -> onnx_ir.Model:
    """The model of a clone whose source was read from an ONNX file.

    Args:
        state: after the whole pipeline.

    Returns:
        A model whose weights are computed when they are written.
    """
    return _Writer(state).model()


INITIALIZERS_APART = 4
"""The first IR version in which an initializer need not be an input."""


class _Writer:
    def __init__(self, state: State) -> None:
        origin = state.graph.origin_as(Origin)
        self.state = state
        self.origin = origin
        self.result = origin.model.clone()
        self.graph = self.result.graph
        self.nodes = dict(zip(origin.model.graph.all_nodes(), self.graph.all_nodes(), strict=True))
        same = dict(zip(_values(origin.model), _values(self.result), strict=True))
        self.values = self.renamed({name: same[value] for name, value in origin.file_values.items()})
        self.names = {value.name or "" for value in same.values()}
        self.was_read = {value for value in same.values() if _is_read(value)}
        self.shared = self.shared_unequally()
        self.widened: dict[Any, onnx_ir.Value] = {}
        self.sizes: dict[str, onnx_ir.Value] = {}
        self.cursors: dict[onnx_ir.Node | onnx_ir.Graph, onnx_ir.Node] = {}

    def renamed(self, values: dict[str, onnx_ir.Value]) -> dict[str, onnx_ir.Value]:
        """The file's values by the names that they have in the clone, where blocks have been numbered anew."""
        if not self.state.has(State.depth):
            return values
        moved = {
            i.value.name: values[origin.value.name]
            for i in self.state.graph.initializers
            if (origin := self.state.depth.origins.get(i.name)) is not None
        }
        left = {origin.value.name for origin in self.state.depth.origins.values()}
        return {name: value for name, value in values.items() if name not in left} | moved

    def model(self) -> onnx_ir.Model:
        self.keep_sizes()
        for initializer in self.state.graph.initializers:
            self.initializer(initializer)
        for node in self.state.graph.nodes:
            self.node(node)
        if self.state.has(State.depth):
            self.number_anew()
            self.graph.sort()
        self.outputs()
        self.reshape()
        self.drop_dead_readers()
        self.drop_unread()
        _detach(self.result)
        return self.result

    # Initializers

    def initializer(self, initializer: Initializer) -> None:
        """Put widened data in place of the source's; readers that share the source's share the widened, too."""
        recipe = self.state.recipes[initializer.value]
        stored_value = self.values.get(initializer.value.name)
        if stored_value is None:  # of a new block
            self.values[initializer.value.name] = self.register(initializer.name, self.lazy(initializer, recipe))
            return
        if recipe.identity:
            return
        stored = initializer.tensor.source if isinstance(initializer.tensor, OnnxTensor) else None
        key = (id(stored or initializer.tensor), replace(recipe, name=""))
        if key not in self.widened:
            self.widened[key] = self.widen(initializer, recipe, stored_value)
        self.values[initializer.value.name] = self.widened[key]

    def shared_unequally(self) -> set[int]:
        """The file's values that several initializers of the graph are, which do not all grow alike."""
        recipes: dict[int, set[Widening]] = {}
        for initializer in self.state.graph.initializers:
            if (own := self.values.get(initializer.value.name)) is not None:
                recipes.setdefault(id(own), set()).add(replace(self.state.recipes[initializer.value], name=""))
        return {value for value, growths in recipes.items() if len(growths) > 1}

    def widen(self, initializer: Initializer, recipe: Widening, stored_value: onnx_ir.Value) -> onnx_ir.Value:
        lazy = self.lazy(initializer, recipe)
        if stored_value.name not in self.graph.initializers or id(stored_value) in self.shared:
            return self.register(initializer.name, lazy)
        stored_value.const_value = lazy
        stored_value.shape = onnx_ir.Shape(recipe.shape)
        return stored_value

    def lazy(self, initializer: Initializer, recipe: Widening) -> onnx_ir.LazyTensor:
        dtype = data_type(initializer.value.dtype)
        return onnx_ir.LazyTensor(
            lambda: onnx_ir.tensor(to_array(widen(initializer.read(), recipe), dtype), dtype),
            dtype=dtype,
            shape=onnx_ir.Shape(recipe.shape),
            name=initializer.name,
        )

    def register(self, name: str, tensor: onnx_ir.TensorProtocol) -> onnx_ir.Value:
        """A new initializer, named as near to that as can be."""
        value = onnx_ir.Value(
            name=fresh(name, self.names),
            shape=onnx_ir.Shape(tensor.shape.numpy()),
            type=onnx_ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        if (self.result.ir_version or 0) < INITIALIZERS_APART:
            self.graph.inputs.append(value)
        return value

    def number_anew(self) -> None:
        """Let initializers have the numbers that their blocks have now."""
        origins = self.state.depth.origins
        others = (i for i in self.state.graph.initializers if i.name not in origins or origins[i.name].name != i.name)
        named = [(self.values[i.value.name], i.name) for i in others]
        moved = {value: name for value, name in named if value.is_initializer() and value.name != name}
        names = {value.name for value in moved}
        moved = {value: name for value, name in moved.items() if name not in self.names - names}
        for value in moved:  # first out of each other's way
            value.name = fresh(f"{value.name}_before", self.names)
        for value, name in moved.items():
            value.name = name

    # Nodes

    def node(self, node: Node) -> None:
        """Bring a node of the file to what the clone's node says, or put in a new one."""
        target: Target | None = node.target
        if target is None:  # a size, put in where a literal needs it
            return
        read = Reader(node)
        if target.node is None and node.op == "size.pack":
            self.pack(node)
        elif target.node is None:
            self.insert(node, target)
        elif node.op == "onnx.If":
            self.results(target.node, {name: read.tensor_list(name) for name in ("then_branch", "else_branch")})
        elif node.op in ("onnx.Loop.body", "onnx.Scan.body"):
            self.begin(self.nodes[target.node], [*read.tensor_list("states"), *read.tensor_list("scanned")])
        elif node.op in ("onnx.Loop", "onnx.Scan"):
            self.results(target.node, {"body": [*read.tensor_list("states"), *read.tensor_list("stacked")]})
        elif node.op != "size.pack":
            self.attributes(self.nodes[target.node], node, target)
            self.inputs(self.nodes[target.node], node, target)

    def begin(self, own: onnx_ir.Node, values: Sequence[Value]) -> None:
        """What a loop begins with and what it scans now; a Loop's first inputs, which count its rounds, stay."""
        counters = 2 if own.op_type == "Loop" else 0
        places = [index for index, operand in enumerate(own.inputs) if operand is not None and index >= counters]
        for index, value in zip(places, values, strict=False):
            if own.inputs[index] is not self.values[value.name]:
                own.replace_input_with(index, self.values[value.name])

    def results(self, node: onnx_ir.Node, results: Mapping[str, Sequence[Value]]) -> None:
        """What the bodies of a node return now, by attribute; the first result of a Loop's, its condition, stays."""
        for name, values in results.items():
            body = self.nodes[node].attributes[name].as_graph()
            first = len(body.outputs) - len(values)
            for index, value in enumerate(values, first):
                if body.outputs[index] is not self.values[value.name]:
                    body.outputs[index] = self.inside(body, self.values[value.name])

    def inside(self, body: onnx_ir.Graph, value: onnx_ir.Value) -> onnx_ir.Value:
        """A value that a body may return: one that it computes, if only by passing on what is outside."""
        producer = value.producer()
        if producer is not None and producer.graph is body:
            return value
        identity = onnx_ir.node("Identity", [value], name=fresh(f"{value.name}_returned", self.names))
        identity.outputs[0].name = fresh(f"{value.name}_inside", self.names)
        identity.outputs[0].type, identity.outputs[0].shape = value.type, value.shape
        body.append(identity)
        return identity.outputs[0]

    def insert(self, node: Node, target: Target) -> None:
        inputs = [self.input(place, operand, target, node.name) for place, operand in target.operands(node)]
        numbers = {name: node.operands.get(name) for name in target.attributes}
        attributes = [onnx_ir.Attr(k, target.attributes[k], n) for k, n in numbers.items() if n is not None]
        attributes += [onnx_ir.serde.deserialize_attribute(attribute) for attribute in target.fixed]
        count = len(target.outputs)
        own = onnx_ir.Node(target.domain, target.op, inputs, attributes, num_outputs=count, name=node.name)
        wanted = [value for value, is_wanted in zip(own.outputs, target.outputs, strict=True) if is_wanted]
        for value, out in zip(wanted, node.outputs, strict=True):
            value.name = fresh(out.name, self.names)
            value.dtype = data_type(out.dtype)
            value.shape = onnx_ir.Shape([None if i in out.dynamic else n for i, n in enumerate(out.shape or ())])
            self.values[out.name] = value
        for value in own.outputs:
            value.name = value.name or ""
        self.place(own, next((value for value in inputs if value is not None), None))

    def pack(self, node: Node) -> None:
        """Put the sizes of a tensor of a new block together."""
        (out,), sizes = node.outputs, Reader(node).sizes("items")
        numbers = [size for size in sizes if isinstance(size, int)]
        if len(numbers) == len(sizes):
            self.values[out.name] = self.register(out.name, _vector(numbers))
        else:
            self.values[out.name] = self.packed(sizes, f"{out.name}_sizes")
            self.values[out.name].name = fresh(out.name, self.names)

    def place(self, node: onnx_ir.Node, source: onnx_ir.Value | None) -> None:
        """Put a new node right behind what computes a value, and behind others put there before.

        One of a new block may read others as well; all are brought into order in the end.
        """
        producer = source.producer() if source is not None else None
        graph = (producer.graph if producer is not None else source.graph if source is not None else None) or self.graph
        assert isinstance(graph, onnx_ir.Graph)
        anchor = self.cursors.get(producer or graph, producer)
        if anchor is None:
            graph.insert_before(graph[0], node)
        else:
            graph.insert_after(anchor, node)
        self.cursors[producer or graph] = node

    def attributes(self, own: onnx_ir.Node, node: Node, target: Target) -> None:
        for name, kind in target.attributes.items():
            literal = node.operands.get(name)
            attribute = own.attributes.get(name)
            if literal is not None and (attribute is None or _listed(attribute.value) != _listed(literal)):
                own.attributes[name] = onnx_ir.Attr(name, kind, literal)
            elif literal is None and attribute is not None:  # respelled without it
                own.attributes.pop(name)

    def inputs(self, own: onnx_ir.Node, node: Node, target: Target) -> None:
        operands = target.operands(node)
        if len(operands) > len(own.inputs):
            own.resize_inputs(len(operands))
        for index, (place, operand) in enumerate(operands):
            if operand is None or (place in target.literal_types and target.literals.get(place) == frozen(operand)):
                continue
            value = self.input(place, operand, target, node.name)
            if own.inputs[index] is not value:
                own.replace_input_with(index, value)

    def input(self, place: InputPlace, operand: Operand, target: Target, reader: str) -> onnx_ir.Value:
        if isinstance(operand, Value) and operand.is_tensor:
            return self.values[operand.name]
        if any(True for _ in values_in(operand)):
            items = items_of(operand) or [operand]
            sizes = [item for item in items if isinstance(item, Value | int)]
            assert len(sizes) == len(items), "what is computed number by number are integers"
            return self.cast(self.packed(sizes, f"{reader}_{place[0]}"), target.literal_types[place])
        return self.register(f"{reader}_{place[0]}", onnx_ir.tensor(target.literal_types[place].array(operand)))

    # Sizes

    def cast(self, vector: onnx_ir.Value, literal_type: LiteralType) -> onnx_ir.Value:
        """A computed vector of int64 in the type and the shape that its reader expects."""
        name = vector.name or ""
        if literal_type.dtype != onnx_ir.DataType.INT64:
            vector = self.computed("Cast", [vector], name, vector, to=literal_type.dtype.value)
            vector.dtype = literal_type.dtype
        if not literal_type.shape:
            vector = self.computed("Squeeze", [vector], name, vector)
            vector.dtype = literal_type.dtype
        return vector

    def packed(self, items: Sequence[Size], name: str) -> onnx_ir.Value:
        """A vector of numbers, some of which are computed, all from one tensor."""
        parts = [self.size(item) if isinstance(item, Value) else self.register(name, _vector([item])) for item in items]
        source = next(self.source(item) for item in items if isinstance(item, Value))
        return self.computed("Concat", parts, name, source, axis=0)

    def source(self, number: Value) -> onnx_ir.Value:
        """The tensor that a number was read from."""
        assert number.producer is not None
        read = Reader(number.producer).value("self")
        return self.values[read.name] if read.is_tensor else self.source(read)

    def size(self, number: Value) -> onnx_ir.Value:
        """A computed number, as a vector of one."""
        if number.name not in self.sizes:
            assert number.producer is not None
            self.sizes[number.name] = self._size(number.producer, number.name)
        return self.sizes[number.name]

    def _size(self, node: Node, name: str) -> onnx_ir.Value:
        operands = Reader(node)
        read = operands.value("self")
        source = self.source(node.outputs[0])
        if node.op in _ARITHMETIC:
            number = self.register(name, _vector([operands.integer("other")]))
            return self.computed(_ARITHMETIC[node.op], [self.size(read), number], name, source)
        if node.op == "size.axis":
            shape = self.computed("Shape", [source], f"{name}_shape", source)
            return self.computed(
                "Gather", [shape, self.register(name, _vector([operands.integer("dim")]))], name, source
            )
        if read.rank == 0:
            return self.computed("Reshape", [source, self.register(name, _vector([1]))], name, source)
        index = self.register(name, _vector([operands.integer("index")]))
        return self.computed("Gather", [source, index], name, source)

    def computed(
        self, op: str, inputs: Sequence[onnx_ir.Value], name: str, source: onnx_ir.Value, **attributes: int
    ) -> onnx_ir.Value:
        node = onnx_ir.node(op, inputs, attributes, name=fresh(name, self.names))
        node.outputs[0].name = fresh(name, self.names)
        node.outputs[0].dtype = onnx_ir.DataType.INT64
        self.place(node, source)
        return node.outputs[0]

    def keep_sizes(self) -> None:
        """Let sizes that are read be those of the source, also where the clone's tensor has grown.

        Every size the clone needs is a literal of its own; what else the file computes from sizes must not change.
        """
        wide = {id(self.values[name]) for name in self.grown if name in self.values}
        replacements: dict[int, onnx_ir.Value] = {}
        read = [(old, node) for old, node in self.nodes.items() if node.op_type in ("Shape", "Size")]
        for old, node in read:
            if not node.domain and id(node.inputs[0]) in wide:
                sizes = node.outputs[0]
                replacements[id(sizes)] = self.kept_size(self.origin.reading.of(old.outputs[0]), sizes)
        self.values = {name: replacements.get(id(value), value) for name, value in self.values.items()}

    def kept_size(self, fact: Fact, sizes: onnx_ir.Value) -> onnx_ir.Value:
        """Put the source's numbers in place of those that are known; the others are read as before."""
        assert fact.arrays is not None
        assert fact.static_mask is not None
        name, readers = f"{sizes.name}_source", [(use.node, use.idx) for use in sizes.uses()]
        if fact.static_mask.all():
            source_sizes = self.register(name, onnx_ir.tensor(fact.arrays[0]))
        else:
            parts = [
                self.register(name, _vector([number]))
                if static
                else self.computed("Gather", [sizes, self.register(name, _vector([i]))], name, sizes)
                for i, (number, static) in enumerate(zip(fact.arrays[0].tolist(), fact.static_mask, strict=True))
            ]
            source_sizes = self.computed("Concat", parts, name, sizes, axis=0)
        for reader, index in readers:
            reader.replace_input_with(index, source_sizes)
        return source_sizes

    @cached_property
    def grown(self) -> set[str]:
        """The names of the values whose shape is not that of the source."""
        source = {v.name: v.shape for v in _tensors(self.state.source)}
        return {v.name for v in _tensors(self.state.graph) if v.shape != source.get(v.name, v.shape)}

    # The whole

    def outputs(self) -> None:
        """Let the outputs keep their names, whatever computes them now."""
        for index, output in enumerate(self.state.graph.outputs):
            (value,) = values_in(output.operand)
            new, own = self.values[value.name], self.graph.outputs[index]
            if new is own:
                continue
            name, new.shape, new.type = own.name, own.shape, own.type
            own.name = fresh(f"{name}_before", self.names)
            new.name = name
            self.graph.outputs[index] = new

    def reshape(self) -> None:
        """Let values declare the sizes that they have grown to."""
        for value in _tensors(self.state.graph):
            own = self.values.get(value.name)
            if own is None or own.shape is None or value.shape is None or len(own.shape) != value.rank:
                continue
            sizes = [new if isinstance(old, int) else old for old, new in zip(own.shape, value.shape, strict=True)]
            if list(own.shape) != sizes:
                own.shape = onnx_ir.Shape(sizes)

    def drop_dead_readers(self) -> None:
        """Remove what computes nothing that is returned, where it reads what has grown: it would not fit any more."""
        alive = _alive(self.graph)
        wide = {id(self.values[name]) for name in self.grown}
        dropped: dict[onnx_ir.Node, None] = {}
        for node in self.graph:
            read = [value for value in (*node.inputs, *captured(node)) if value is not None]
            if node not in alive and any(id(value) in wide or value.producer() in dropped for value in read):
                dropped[node] = None
        for node in reversed(dropped):
            self.graph.remove(node, safe=True)

    def drop_unread(self) -> None:
        """Remove nodes and initializers that have lost their last reader."""
        for node in reversed(list(self.graph.all_nodes())):
            before = any(value in self.was_read for value in node.outputs)
            if before and not any(_is_read(value) for value in node.outputs):
                node.graph.remove(node, safe=True)  # type: ignore[union-attr]
        for graph in self.result.graphs():
            for name, value in list(graph.initializers.items()):
                if value in self.was_read and not _is_read(value) and not value.is_graph_input():
                    del graph.initializers[name]


def _alive(graph: onnx_ir.Graph) -> set[onnx_ir.Node]:
    """The nodes that the outputs of a graph depend on."""
    alive: set[onnx_ir.Node] = set()
    pending = [value.producer() for value in graph.outputs]
    while pending:
        node = pending.pop()
        if node is not None and node not in alive:
            alive.add(node)
            pending += [value.producer() for value in (*node.inputs, *captured(node)) if value is not None]
    return alive


def _vector(numbers: Sequence[int]) -> onnx_ir.TensorProtocol:
    return onnx_ir.tensor(np.array(numbers, np.int64))


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


def _is_read(value: onnx_ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _values(model: onnx_ir.Model) -> Iterator[onnx_ir.Value]:
    return chain.from_iterable(map(values_of, model.graphs()))


def _tensors(graph: Any) -> list[Value]:
    initializers = [initializer.value for initializer in graph.initializers]
    values = [*graph.inputs, *initializers, *(out for node in graph.nodes for out in node.outputs)]
    return [value for value in values if value.is_tensor]


def _detach(model: onnx_ir.Model) -> None:
    """Let no tensor refer to the source's external data, which the clone does not come with."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, onnx_ir.ExternalTensor):
                value.const_value = _lazy(value.const_value)


def _lazy(tensor: onnx_ir.ExternalTensor) -> onnx_ir.LazyTensor:
    read: Callable[[], onnx_ir.TensorProtocol] = lambda: onnx_ir.tensor(  # noqa: E731
        to_array(OnnxTensor(tensor).read(), tensor.dtype), tensor.dtype
    )
    return onnx_ir.LazyTensor(read, dtype=tensor.dtype, shape=tensor.shape, name=tensor.name)
