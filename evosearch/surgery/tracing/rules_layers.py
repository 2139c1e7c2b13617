"""Label rules of layers with weights and of normalizations."""

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor, fx

from evosearch.surgery.tracing.layer import Geometry, Layer
from evosearch.surgery.tracing.walk import Rule, Source, Value, Walk, operator_name, spread


def _convolution(walk: Walk, node: fx.Node) -> Value:
    arguments = walk.arguments(node)
    weight, groups = arguments["weight"], arguments["groups"]
    transposed = "transpose" in operator_name(node)
    channels = walk.channels(arguments["input"], 1)
    if channels is None or not isinstance(weight, Source):
        return walk.refuse(node, "with a computed weight or input")
    if weight.name in walk.graph.buffers:
        return _fixed_filter(walk, node, weight, channels)
    reads, writes = (0, 1) if transposed else (1, 0)
    if groups == 1:
        walk.bind(weight.name, reads, channels)
        written = walk.axis(weight.name, writes)
        return _record(walk, node, written, reads=reads, writes=writes)

    # Channels go as whole conv groups, or as the same position in each: whichever leaves more
    # channels to choose from is tried first.
    size_in = channels.numel() // groups
    size_out = weight.shape[1] if transposed else weight.shape[0] // groups
    parts = channels.reshape(groups, size_in)
    whole = not transposed or size_out % size_in == 0
    by_position = size_in * size_out > 1
    ways = []
    if whole:
        ways.append(_whole_groups)
    if by_position:
        ways.append(_positions)
    if size_in + size_out > groups:
        ways.reverse()
    reading = walk.choose(node, len(ways) + 1, channels)
    if reading < len(ways):
        return ways[reading](walk, node, weight, parts, size_out)
    walk.freeze(channels, f"operator {operator_name(node)} with groups")
    written = walk.axis(weight.name, 0)
    if transposed:
        written = walk.axis(weight.name, 1).expand(groups, -1).flatten()
    walk.freeze(written, f"operator {operator_name(node)} with groups")
    return _record(walk, node, written, reads=None, writes=writes)


def _fixed_filter(walk: Walk, node: fx.Node, weight: Source, channels: Tensor) -> Value:
    """A filter for each channel that is not trained, as to blur: no layer, but for what it costs.

    The code may take the number of conv groups from an attribute, which then follows.
    """
    size = channels.numel()
    depthwise = walk.arguments(node)["groups"] == size and weight.shape[:2] == (size, 1)
    if not depthwise or "transpose" in operator_name(node):
        return walk.refuse(node, "with a fixed weight over channels")
    walk.bind(weight.name, 0, channels)
    module = walk.module(node)
    attribute = walk.attribute_of(module, size)
    if attribute is not None and walk.choose(node, 2, channels) == 0:
        walk.bind(f"{module}.{attribute}", 0, channels)
    written = spread(channels, 1, node.meta["val"].shape)
    walk.add_product(node, written, prod(weight.shape[1:]))
    return written


def _whole_groups(walk: Walk, node: fx.Node, weight: Source, parts: Tensor, outputs: int) -> Value:
    """A conv group goes with all that it reads and writes; `parts`: `(groups, inputs each)`."""
    kept = walk.labels.tie(parts, [1])[:, :1]
    transposed = "transpose" in operator_name(node)
    written = kept.expand(-1, outputs).flatten()
    walk.bind(weight.name, 0, kept.expand(parts.shape).flatten() if transposed else written)
    walk.bind_attribute(weight.name.rpartition(".")[0], "groups", kept[:, 0])
    return _record(walk, node, written, reads=None, writes=0)


def _positions(walk: Walk, node: fx.Node, weight: Source, parts: Tensor, outputs: int) -> Value:
    """The same positions of every conv group go; `parts`: `(groups, inputs each)`."""
    groups = len(parts)
    tied = walk.labels.tie(parts, [0])
    if "transpose" in operator_name(node):
        walk.bind(weight.name, 0, tied.flatten())
        written = walk.axis(weight.name, 1).expand(groups, -1).flatten()
        reads, writes = 0, 1
    else:
        walk.bind(weight.name, 1, tied[0])
        written = walk.axis(weight.name, 0).reshape(groups, outputs)
        written = walk.labels.tie(written, [0]).flatten()
        reads, writes = 1, 0
    walk.touch(node, written)
    return _record(walk, node, written, reads=reads, writes=writes)


def _linear(walk: Walk, node: fx.Node) -> Value:
    arguments = walk.arguments(node)
    weight = arguments["weight"]
    channels = walk.channels(arguments["input"], -1)
    if channels is None or not isinstance(weight, Source):
        return walk.refuse(node, "with a computed weight or input")
    walk.bind(weight.name, 1, channels)
    return _record(walk, node, walk.axis(weight.name, 0), reads=1, writes=0)


def _record(
    walk: Walk, node: fx.Node, written: Tensor, *, reads: int | None, writes: int
) -> Value:
    """Notes the layer and returns its output, whose channels are `written`, `(channels,)`."""
    arguments = walk.arguments(node)
    weight, bias = arguments["weight"], arguments["bias"]
    if isinstance(bias, Source):
        walk.bind(bias.name, 0, written)
    elif isinstance(bias, Tensor):
        walk.labels.unite(bias, written)
    elif bias is not None:
        return walk.refuse(node, "with a constant bias")
    shape = node.meta["val"].shape
    if prod(shape) % (written.numel() * walk.graph.batch):
        return walk.refuse(node, "on one tensor for a whole batch")
    linear, groups = operator_name(node) == "linear", arguments.get("groups", 1)
    elements = prod(shape) // walk.graph.batch
    source = node.all_input_nodes[0].meta["val"].shape
    transposed = "transpose" in operator_name(node)
    walk.layers[walk.graph.name].append(
        Layer(
            operator=operator_name(node),
            module=weight.name.rpartition(".")[0],
            weight=weight.name,
            bias=bias.name if isinstance(bias, Source) else None,
            reads=reads,
            writes=writes,
            groups=groups,
            mixes=groups == 1,
            norm=_norm_behind(walk, node),
            geometry=None if linear else _geometry(arguments, weight.shape[2:]),
            positions=prod(source[2:]) if transposed else elements // written.numel(),
            outputs=elements // weight.shape[writes],
        )
    )
    return spread(written, -1 if linear else 1, shape)


def _norm_behind(walk: Walk, node: fx.Node) -> str | None:
    users = list(node.users)
    if len(users) != 1 or "batch_norm" not in str(users[0].target):
        return None
    norm = walk.module(users[0])
    return norm if norm in walk.graph.norms else None


def _geometry(arguments: dict[str, Any], kernel: tuple[int, ...]) -> Geometry:
    def each(value: int | Sequence[int]) -> tuple[int, ...]:
        values = (value,) if isinstance(value, int) else tuple(value)
        return values * (len(kernel) // len(values))  # one value stands for all dimensions

    dilation, padding = each(arguments["dilation"]), arguments["padding"]
    if padding == "same":  # of an odd number, the larger part comes after
        total = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
        pads = tuple((count // 2, count - count // 2) for count in total)
    else:
        pads = tuple((count, count) for count in each(0 if padding == "valid" else padding))
    return Geometry(
        kernel=kernel, stride=each(arguments["stride"]), padding=pads, dilation=dilation
    )


def _normalization(walk: Walk, node: fx.Node) -> Value:
    """BatchNorm and InstanceNorm: every channel by itself."""
    arguments = walk.arguments(node)
    channels = walk.channels(arguments["input"], 1)
    if channels is None:
        return walk.refuse(node, "over positions")
    statistics = [
        arguments[name]
        for name in ("weight", "bias", "running_mean", "running_var")
        if arguments[name] is not None
    ]
    if not all(isinstance(source, Source) for source in statistics):
        return walk.refuse(node, "with computed statistics")
    for source in statistics:
        walk.bind(source.name, 0, channels)
    if not statistics:
        walk.bind_attribute(walk.module(node), "num_features", channels)
    return spread(channels, 1, node.meta["val"].shape)


def _group_norm(walk: Walk, node: fx.Node) -> Value:
    """Whole norm groups go: with fewer channels in one, its statistics would be others."""
    arguments = walk.arguments(node)
    channels, groups = walk.channels(arguments["input"], 1), arguments["num_groups"]
    parameters = [arguments[name] for name in ("weight", "bias") if arguments[name] is not None]
    computed = not all(isinstance(parameter, Source) for parameter in parameters)
    if channels is None or groups == 1 or computed or walk.choose(node, 2, channels) == 1:
        return walk.refuse(node, "over channels")
    tied = walk.labels.tie(channels.reshape(groups, -1), [1])
    channels = tied.flatten()
    for parameter in parameters:
        walk.bind(parameter.name, 0, channels)
    module = walk.module(node)
    walk.bind_attribute(module, "num_groups", tied[:, 0])
    walk.bind_attribute(module, "num_channels", channels)
    return spread(channels, 1, node.meta["val"].shape)


def _layer_norm(walk: Walk, node: fx.Node) -> Value:
    arguments = walk.arguments(node)
    labels = walk.tensor(arguments["input"])
    if labels is None:
        return walk.refuse(node)
    normalized = range(labels.ndim - len(arguments["normalized_shape"]), labels.ndim)
    if any(walk.labels.changes(labels, dim) for dim in normalized):
        return walk.refuse(node, "over channels")
    return labels


def _prelu(walk: Walk, node: fx.Node) -> Value:
    arguments = walk.arguments(node)
    channels, weight = walk.channels(arguments["self"], 1), arguments["weight"]
    if channels is None or not isinstance(weight, Source):
        return walk.refuse(node)
    if weight.shape != (1,):
        walk.bind(weight.name, 0, channels)
    return spread(channels, 1, node.meta["val"].shape)


RULES: dict[str, Rule] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _convolution),
    "linear": _linear,
    "batch_norm": _normalization,
    "instance_norm": _normalization,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "prelu": _prelu,
}
