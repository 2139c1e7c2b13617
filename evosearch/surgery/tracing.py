"""What is coupled in a network: labels propagated over its exported graph.

`trace` follows DESIGN's one rule. A convolution or linear layer writes fresh labels and reads
others; an elementwise sum or product unites labels position by position; operators that move
elements carry the labels along; what the rule does not know is frozen, with its name as reason.
"""

import operator
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from evosearch.errors import TracingError
from evosearch.mask import ChannelGroup, Member
from evosearch.space import FrozenGroup
from evosearch.surgery.labels import Labels, collapse, splits_channels

Value = Any
"""A label tensor, a `_Source`, or a tuple of values; None for what is no tensor."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Operators by what they do to labels; an in-place variant (`relu_`) follows the same rule.
_PASS = _names(
    "relu relu6 hardtanh sigmoid tanh silu gelu elu leaky_relu hardswish hardsigmoid softplus"
    " mish dropout feature_dropout clone contiguous detach alias abs neg exp sqrt rsqrt square"
    " to _to_copy lift_fresh_copy"
)
_MERGE = _names("add sub mul div maximum minimum")
_POOL = _names(
    "max_pool1d max_pool2d avg_pool1d avg_pool2d adaptive_avg_pool1d adaptive_avg_pool2d"
    " adaptive_max_pool2d upsample_nearest2d upsample_bilinear2d"
)
_MOVE = _names("permute transpose t cat squeeze unsqueeze expand")
_RESHAPE = _names("view reshape flatten unflatten _unsafe_view")
_CONVOLUTION = _names("conv1d conv2d conv3d")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One call of a convolution or linear layer.

    Attributes:
        module: name of the module; a module that is called twice is two layers.
        weight: name of its weight, whose dimension 0 is written and dimension 1 read.
        bias: name of its bias, if it has one.
        mixes: whether it reads every input channel for every output channel; a depthwise
            convolution does not, it passes channels through.
        normalized: whether its output goes into BatchNorm alone, which absorbs a constant shift.
        positions: output positions for one image.
    """

    module: str
    weight: str
    bias: str | None
    mixes: bool
    normalized: bool
    positions: int


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What tracing found, before proof.

    Attributes:
        groups: prunable groups in network order.
        frozen: channels that stay, with reasons, by the module that writes them.
        layers: every call of a convolution or linear layer, in execution order.
    """

    groups: tuple[ChannelGroup, ...]
    frozen: tuple[FrozenGroup, ...]
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class _Source:
    """A parameter or buffer of the model, not yet read by an operator."""

    name: str
    shape: tuple[int, ...]


def trace(model: nn.Module, example: tuple[Any, ...]) -> Trace:
    """Finds the channel groups of a model.

    Args:
        model: in any mode; it is not changed.
        example: its arguments, batched, with a batch of at least 2.

    Raises:
        TracingError: `torch.export` cannot export the model.
    """
    was_training = model.training
    try:
        with torch.enable_grad():
            program = torch.export.export(model.eval(), example, strict=False)
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TracingError(
            f"{type(model).__name__} cannot be traced by torch.export: {first}"
        ) from error
    finally:
        model.train(was_training)
    return _Tracer(program).run()


class _Tracer:
    """Walks an exported graph once and keeps the labels of every tensor."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        signature = program.graph_signature
        self._sources = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self._shapes = {name: tuple(t.shape) for name, t in program.state_dict.items()}
        self._shapes |= {
            name: tuple(t.shape) for name, t in program.constants.items() if isinstance(t, Tensor)
        }  # non-persistent buffers
        self._graph = program.graph
        self._labels = Labels()
        self._values: dict[fx.Node, Value] = {}
        self._axes: dict[tuple[str, int], Tensor] = {}
        self._layers: list[Layer] = []
        self._rules: dict[str, Callable[[fx.Node, list[Value]], Value]] = {
            **dict.fromkeys(_PASS, self._pass),
            **dict.fromkeys(_MERGE, self._merge),
            **dict.fromkeys(_POOL, self._pool),
            **dict.fromkeys(_MOVE, self._move),
            **dict.fromkeys(_RESHAPE, self._reshape),
            **dict.fromkeys(_CONVOLUTION, self._convolution),
            "linear": self._linear,
            "batch_norm": self._batch_norm,
            "mean": self._reduce,
            "sum": self._reduce,
        }

    def run(self) -> Trace:
        for node in self._graph.nodes:
            if node.op == "placeholder":
                self._values[node] = self._placeholder(node)
            elif node.op == "output":
                for value in self._arguments(node):
                    self._freeze(value, "network output")
            else:
                self._values[node] = self._call(node)
        return _collect(self._labels, self._axes, self._layers)

    # Values

    def _placeholder(self, node: fx.Node) -> Value:
        name = self._sources.get(node.name)
        if name is not None:
            return _Source(name, self._shapes[name])
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return None
        return self._labels.new_frozen("network input").expand(value.shape)

    def _arguments(self, node: fx.Node) -> list[Value]:
        """Returns the values of everything that a node reads, nested arguments flattened."""
        return [self._values[argument] for argument in node.all_input_nodes]

    def _axis(self, name: str, dim: int) -> Tensor:
        """Returns the labels of one dimension of a parameter or buffer."""
        if (name, dim) not in self._axes:
            self._axes[name, dim] = self._labels.new(self._shapes[name][dim])
        return self._axes[name, dim]

    def _freeze(self, value: Value, reason: str) -> None:
        if isinstance(value, Tensor):
            self._labels.freeze(value, reason)
        elif isinstance(value, _Source):
            for dim in range(len(value.shape)):
                self._labels.freeze(self._axis(value.name, dim), reason)
        elif isinstance(value, tuple):
            for part in value:
                self._freeze(part, reason)

    def _like(self, node: fx.Node, label: Tensor) -> Value:
        """Returns one label expanded to every output of a node."""
        value = node.meta.get("val")
        if isinstance(value, Tensor):
            return label.expand(value.shape)
        if isinstance(value, tuple | list):
            return tuple(label.expand(v.shape) if isinstance(v, Tensor) else None for v in value)
        return None

    def _refuse(self, node: fx.Node, reason: str) -> Value:
        """Freezes all that a node reads and writes."""
        for value in self._arguments(node):
            self._freeze(value, reason)
        return self._like(node, self._labels.new_frozen(reason))

    # Rules

    def _call(self, node: fx.Node) -> Value:
        if node.target is operator.getitem:
            source, index = cast("tuple[fx.Node, int]", node.args)
            values = self._values[source]
            return values[index] if isinstance(values, tuple) else self._refuse(node, "getitem")
        name = str(node.target).removeprefix("aten.").split(".")[0].removesuffix("_")
        rule = self._rules.get(name)
        if rule is None:
            return self._refuse(node, f"operator {name}")
        return rule(node, self._arguments(node))

    def _pass(self, node: fx.Node, values: list[Value]) -> Value:
        if not isinstance(values[0], Tensor):
            return self._refuse(node, f"operator {node.name} on a parameter")
        return values[0]

    def _merge(self, node: fx.Node, values: list[Value]) -> Value:
        tensors = [value for value in values if isinstance(value, Tensor)]
        if not tensors:
            return self._refuse(node, "arithmetic on parameters alone")
        # A tensor merged with itself is one input node, so this also covers x * x.
        result = tensors[0]
        for tensor in tensors[1:]:
            result = self._labels.unite(result, tensor)
        result = result.expand(node.meta["val"].shape)
        for source in values:
            if isinstance(source, _Source) and prod(source.shape) > 1:
                wide = [dim for dim, size in enumerate(source.shape) if size > 1]
                if len(wide) > 1:
                    return self._refuse(node, f"{source.name} varies along several dimensions")
                axis = self._axis(source.name, wide[0])
                tail = [1] * (len(source.shape) - 1 - wide[0])
                result = self._labels.unite(result, axis.reshape(-1, *tail))
        return result

    def _pool(self, node: fx.Node, values: list[Value]) -> Value:
        channels = self._channels(values[0], 1)
        if channels is None or not isinstance(node.meta["val"], Tensor):
            return self._refuse(node, f"operator {node.name} over channels")
        shape = node.meta["val"].shape
        return channels.reshape(1, -1, *[1] * (len(shape) - 2)).expand(shape)

    def _move(self, node: fx.Node, values: list[Value]) -> Value:
        if not all(isinstance(value, Tensor) for value in values):
            return self._refuse(node, f"operator {node.name} on a parameter")
        operator_ = cast("Callable[..., Tensor]", node.target)
        return operator_(*fx.node.map_arg(node.args, self._values.__getitem__), **node.kwargs)

    def _reshape(self, node: fx.Node, values: list[Value]) -> Value:
        shape = node.meta["val"].shape
        if not isinstance(values[0], Tensor) or splits_channels(values[0], shape):
            return self._refuse(node, f"operator {node.name} splits channels")
        return values[0].reshape(shape)

    def _reduce(self, node: fx.Node, values: list[Value]) -> Value:
        labels = values[0]
        if not isinstance(labels, Tensor):
            return self._refuse(node, f"operator {node.name} on a parameter")
        dims = cast("list[int] | None", node.args[1] if len(node.args) > 1 else None)
        reduced = collapse(labels, [dim % labels.ndim for dim in dims or range(labels.ndim)])
        if reduced is None:
            return self._refuse(node, f"operator {node.name} over channels")
        return reduced.reshape(node.meta["val"].shape)

    def _channels(self, labels: Value, dim: int) -> Tensor | None:
        """Returns the labels along a dimension, `(size,)`; None where they change elsewhere."""
        if not isinstance(labels, Tensor) or labels.ndim <= dim:
            return None
        dim %= labels.ndim
        lone = collapse(labels, [other for other in range(labels.ndim) if other != dim])
        return None if lone is None else lone.flatten()

    def _convolution(self, node: fx.Node, values: list[Value]) -> Value:
        groups = cast("int", node.args[6] if len(node.args) > 6 else 1)
        x, weight = values[0], values[1]
        channels = self._channels(x, 1)
        if channels is None or not isinstance(weight, _Source):
            return self._refuse(node, f"operator {node.name} with a computed weight or input")
        depthwise = groups == channels.numel() and weight.shape[1] == 1 and groups > 1
        if groups > 1 and not depthwise:
            return self._refuse(node, "grouped convolution")
        written = self._axis(weight.name, 0)
        if depthwise:
            self._labels.unite(written, channels.repeat_interleave(weight.shape[0] // groups))
        else:
            self._labels.unite(self._axis(weight.name, 1), channels)
        self._record(node, values, weight, written, mixes=not depthwise)
        shape = node.meta["val"].shape
        return written.reshape(1, -1, *[1] * (len(shape) - 2)).expand(shape)

    def _linear(self, node: fx.Node, values: list[Value]) -> Value:
        x, weight = values[0], values[1]
        channels = self._channels(x, -1)
        if channels is None or not isinstance(weight, _Source):
            return self._refuse(node, f"operator {node.name} with a computed weight or input")
        self._labels.unite(self._axis(weight.name, 1), channels)
        written = self._axis(weight.name, 0)
        self._record(node, values, weight, written, mixes=True)
        return written.expand(node.meta["val"].shape)

    def _record(
        self, node: fx.Node, values: list[Value], weight: _Source, written: Tensor, *, mixes: bool
    ) -> None:
        bias = values[2] if len(values) > 2 and isinstance(values[2], _Source) else None
        if bias is not None:
            self._labels.unite(self._axis(bias.name, 0), written)
        shape = node.meta["val"].shape
        self._layers.append(
            Layer(
                module=weight.name.rpartition(".")[0],
                weight=weight.name,
                bias=None if bias is None else bias.name,
                mixes=mixes,
                normalized=all("batch_norm" in str(user.target) for user in node.users),
                positions=prod(shape) // shape[0] // written.numel(),
            )
        )

    def _batch_norm(self, node: fx.Node, values: list[Value]) -> Value:
        channels = self._channels(values[0], 1)
        if channels is None:
            return self._refuse(node, f"operator {node.name} on positions")
        for source in values[1:]:
            if not isinstance(source, _Source):
                return self._refuse(node, f"operator {node.name} with computed statistics")
            self._labels.unite(self._axis(source.name, 0), channels)
        return values[0]


def _collect(
    labels: Labels, axes: dict[tuple[str, int], Tensor], layers: Sequence[Layer]
) -> Trace:
    """Turns label classes into groups: classes with the same members make one."""
    places: dict[int, dict[tuple[str, int], list[int]]] = defaultdict(lambda: defaultdict(list))
    for axis, axis_labels in axes.items():
        for position, label in enumerate(axis_labels.tolist()):
            places[labels.find(label)][axis].append(position)

    writers = list(dict.fromkeys(layer.weight for layer in layers))
    frozen: dict[tuple[str, str], int] = defaultdict(int)
    alike: dict[tuple[str, frozenset[Any]], list[int]] = defaultdict(list)
    for root, members in places.items():
        writer = next((weight for weight in writers if (weight, 0) in members), None)
        if writer is None:
            continue  # read but never written by a layer: the network's input
        reason = labels.reason(root)
        if reason is not None:
            for weight in writers:
                if (weight, 0) in members:
                    frozen[weight, reason] += len(members[weight, 0])
            continue
        signature = frozenset((axis, len(positions)) for axis, positions in members.items())
        alike[writer, signature].append(root)

    used: dict[str, int] = defaultdict(int)
    groups = []
    for (writer, _), roots in sorted(alike.items(), key=lambda item: writers.index(item[0][0])):
        roots.sort(key=lambda root: places[root][writer, 0][0])
        module = writer.rpartition(".")[0]
        used[module] += 1
        occupied = tuple(
            Member(
                tensor=tensor,
                dim=dim,
                positions=tuple(p for root in roots for p in places[root][tensor, dim]),
            )
            for tensor, dim in places[roots[0]]
        )
        name = module if used[module] == 1 else f"{module}#{used[module]}"
        groups.append(ChannelGroup(name=name, size=len(roots), members=occupied))
    return Trace(
        groups=tuple(groups),
        frozen=tuple(
            FrozenGroup(name=weight.rpartition(".")[0], size=size, reason=reason)
            for (weight, reason), size in frozen.items()
        ),
        layers=tuple(layers),
    )
