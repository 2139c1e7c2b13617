"""One walk over an exported graph, which gives every element of every tensor its label."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, fx

from evosearch.surgery.tracing.graph import Graph
from evosearch.surgery.tracing.labels import Labels
from evosearch.surgery.tracing.layer import Layer as Layer


@dataclass(frozen=True)
class Source:
    """A parameter or buffer of the model, not yet read by an operator."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Constant:
    """A tensor in which no parameter and no input has a part: the code gives its sizes."""


@dataclass
class Choice:
    """An operator call that may be read in several ways, because code may fix its sizes.

    Attributes:
        operator: its name.
        reading: the one taken; from loose to strict.
        readings: how many there are.
        touched: labels that the reading ties or freezes.
    """

    operator: str
    reading: int
    readings: int
    touched: list[Tensor] = field(default_factory=list)

    @property
    def strict(self) -> bool:
        """Whether the last reading was taken."""
        return self.reading == self.readings - 1


Value = Any
"""A label tensor, a `Source`, a `Constant`, or a tuple of values; None for what is no tensor."""
Rule = Callable[["Walk", fx.Node], Value]
"""What an operator does to labels: returns the value of its result."""


class Walk:
    """The labels that follow from graphs of one model, the rules, and a reading of every choice.

    Attributes:
        graph: the one walked last.
        labels: the union-find.
        axes: labels along the dimensions of parameters and buffers, `(size,)` each.
        layers: by graph, every call of a convolution or linear layer in execution order.
        products: by graph, every product of two activations: the module that calls it, the labels
            of its result, and the MACs of each element of that.
        choices: by name of the node.
        values: what every node's result is.
    """

    def __init__(self, rules: Mapping[str, Rule], readings: Mapping[str, int]) -> None:
        self.labels = Labels()
        self.axes: dict[tuple[str, int], Tensor] = {}
        self.layers: dict[str, list[Layer]] = {}
        self.products: dict[str, list[tuple[str, Tensor, int]]] = {}
        self.choices: dict[str, Choice] = {}
        self.values: dict[fx.Node, Value] = {}
        self._rules = rules
        self._readings = readings

    def follow(self, graph: Graph) -> None:
        """Walks one more graph, which shares parameters with those before it."""
        self.graph = graph
        self.layers[graph.name] = []
        self.products[graph.name] = []
        for node in graph.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node.op == "output":
                for value in self.inputs(node):
                    self.freeze(value, "network output")
            elif node.op == "call_function":
                self.values[node] = self._call(node)
            else:  # a subgraph, which the operator that runs it reads
                self.values[node] = None

    def _placeholder(self, node: fx.Node) -> Value:
        if node.name in self.graph.sources:
            name = self.graph.sources[node.name]
            return Source(name, self.graph.shapes[name])
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return None
        if node.name in self.graph.constants:
            return Constant()
        return self.labels.new_frozen("network input").expand(value.shape)

    def _call(self, node: fx.Node) -> Value:
        if node.target is operator.getitem:
            source, index = cast("tuple[fx.Node, int]", node.args)
            value = self.values[source]
            return value[index] if isinstance(value, tuple) else value
        inputs = [value for value in self.inputs(node) if value is not None]
        if all(isinstance(value, Constant) for value in inputs):
            return Constant()
        if _is_check(node):
            return None
        rule = self._rules.get(operator_name(node))
        return self.refuse(node) if rule is None else rule(self, node)

    # What rules read

    def inputs(self, node: fx.Node) -> list[Value]:
        """Returns the values of everything that a node reads, nested arguments flattened."""
        return [self.values[argument] for argument in node.all_input_nodes]

    def arguments(self, node: fx.Node) -> dict[str, Any]:
        """Returns a node's arguments by name, defaults included, with values for nodes."""
        schema = cast("torch._ops.OpOverload", node.target)._schema.arguments
        named = {a.name: a.default_value if a.has_default_value() else None for a in schema}
        named |= dict(zip(named, node.args, strict=False)) | node.kwargs
        mapped: dict[str, Any] = fx.node.map_arg(named, self.values.__getitem__)
        return mapped

    def tensor(self, value: Value) -> Tensor | None:
        """Returns the labels of a value; None where it is no tensor with channels of its own.

        A parameter that is wide along one dimension has channels along it.
        """
        if isinstance(value, Source):
            wide = [dim for dim, size in enumerate(value.shape) if size > 1]
            if len(wide) > 1:
                return None
            labels = self.axis(value.name, wide[0]) if wide else self.labels.new(1)
            return spread(labels, wide[0] if wide else 0, value.shape)
        return value if isinstance(value, Tensor) else None

    def channels(self, value: Value, dim: int) -> Tensor | None:
        """Returns the labels along a dimension, `(size,)`.

        Where they change along other dimensions as well, they are tied along those: a channel
        stays at all positions, or at none.

        Returns:
            None where channels run along other dimensions only.
        """
        labels = self.tensor(value)
        if labels is None or labels.ndim <= dim:
            return None
        changing = self.labels.changing(labels)
        others = [other for other in changing if other != dim % labels.ndim]
        if others and len(others) == len(changing):
            return None
        place: list[int | slice] = [0] * labels.ndim
        place[dim] = slice(None)
        return self.labels.tie(labels, others)[tuple(place)]

    @staticmethod
    def module(node: fx.Node) -> str:
        """Returns the name of the module whose code calls an operator."""
        stack = node.meta.get("nn_module_stack") or {"": ("", "")}
        return str(list(stack.values())[-1][0])

    # What rules do

    def axis(self, name: str, dim: int) -> Tensor:
        """Returns the labels along one dimension of a parameter or buffer."""
        if (name, dim) not in self.axes:
            self.axes[name, dim] = self.labels.new(self.graph.shapes[name][dim])
        return self.axes[name, dim]

    def bind(self, name: str, dim: int, labels: Tensor) -> None:
        """Makes one dimension of a parameter or buffer carry the labels `(size,)`."""
        if (name, dim) in self.axes:
            self.labels.unite(self.axes[name, dim], labels)
        else:
            self.axes[name, dim] = labels

    def bind_attribute(self, module: str, attribute: str, labels: Tensor) -> None:
        """Makes a size that a module keeps as an attribute follow the labels `(size,)`."""
        if self.graph.attributes.get(module, {}).get(attribute) == len(labels):
            self.bind(f"{module}.{attribute}", 0, labels)

    def attribute_of(self, module: str, value: int | tuple[int, ...]) -> str | None:
        """Returns which attribute of a module holds a size, or sizes, where one alone does."""
        kept = self.graph.attributes.get(module, {})
        names = [name for name, held in kept.items() if held == value]
        return names[0] if len(names) == 1 else None

    def add_product(self, node: fx.Node, labels: Tensor, macs: int) -> None:
        """Notes a product of two activations, or of one and a fixed filter.

        Args:
            node: that computes it.
            labels: of its result.
            macs: of each element of that.
        """
        self.products[self.graph.name].append((self.module(node), labels, macs))

    def choose(self, node: fx.Node, readings: int, touched: Tensor) -> int:
        """Returns which of several readings of an operator call to take, and notes the choice."""
        name = self.choice_name(node)
        reading = min(self._readings.get(name, 0), readings - 1)
        self.choices[name] = Choice(operator_name(node), reading, readings, [touched])
        return reading

    def touch(self, node: fx.Node, labels: Tensor) -> None:
        """Notes that a node's reading ties or freezes more labels than its input's."""
        self.choices[self.choice_name(node)].touched.append(labels)

    def choice_name(self, node: fx.Node) -> str:
        """Returns what a node's choice is called."""
        return f"{self.graph.name}.{node.name}"

    def freeze(self, value: Value, reason: str) -> None:
        """Freezes all channels of a value."""
        if isinstance(value, Tensor):
            self.labels.freeze(value, reason)
        elif isinstance(value, Source):
            for dim in range(len(value.shape)):
                self.labels.freeze(self.axis(value.name, dim), reason)
        elif isinstance(value, tuple):
            for part in value:
                self.freeze(part, reason)

    def refuse(self, node: fx.Node, why: str = "") -> Value:
        """Freezes all that a node writes, and all that it reads if anything reads its result."""
        reason = f"operator {operator_name(node)}{why and ' '}{why}"
        if node.users or _mutates(node):
            for value in self.inputs(node):
                self.freeze(value, reason)
        return like(node, self.labels.new_frozen(reason).expand)


def _is_check(node: fx.Node) -> bool:
    """Returns whether an operator neither gives nor changes anything, as an assertion does."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and not schema.returns and not schema.is_mutable


def _mutates(node: fx.Node) -> bool:
    """Returns whether an operator may change what it reads."""
    schema = getattr(node.target, "_schema", None)
    return schema is None or schema.is_mutable


def operator_name(node: fx.Node) -> str:
    """Returns an operator's name without namespace, overload and the mark of in-place variants."""
    name = str(node.target).removeprefix("aten.").split(".")[0]
    return name if name.startswith("_") else name.removesuffix("_")


def like(node: fx.Node, fill: Callable[[torch.Size], Tensor]) -> Value:
    """Returns labels for every result of a node, made from its shape."""
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        return fill(value.shape)
    if isinstance(value, tuple | list):
        return tuple(fill(part.shape) if isinstance(part, Tensor) else None for part in value)
    return None


def spread(labels: Tensor, dim: int, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Returns labels `(size,)` along one dimension of a shape, expanded along the others."""
    if not shape:
        return labels.reshape(())
    dim %= len(shape)
    return labels.reshape(-1, *[1] * (len(shape) - 1 - dim)).expand(shape)
