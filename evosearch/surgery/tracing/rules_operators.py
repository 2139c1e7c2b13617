"""Label rules of operators without sizes of their own: pass, unite, move, pool, reduce."""

import re
from collections.abc import Callable
from typing import cast

from torch import Tensor, fx

from evosearch.surgery.tracing.labels import concatenate
from evosearch.surgery.tracing.walk import (
    Constant,
    Rule,
    Source,
    Value,
    Walk,
    like,
    operator_name,
    spread,
)


def _pass(walk: Walk, node: fx.Node) -> Value:
    """The channels of the first input, whatever the others are."""
    labels = walk.tensor(walk.inputs(node)[0])
    return walk.refuse(node, "on a weight") if labels is None else labels


def _elementwise(walk: Walk, node: fx.Node) -> Value:
    """Elementwise on one tensor or several: what meets in one element is one channel."""
    shape = node.meta["val"].shape
    values = walk.inputs(node)
    operands = [value for value in values if isinstance(value, Tensor)]
    sources = [value for value in values if isinstance(value, Source)]
    if not operands:
        operands = [labels for labels in map(walk.tensor, sources) if labels is not None]
        if len(operands) < len(sources):
            return walk.refuse(node, "on a weight")
        sources = []
    if len(values) == 1:
        return operands[0]
    labels = unite(walk, node, operands)
    if labels is None:
        return walk.refuse(node, "on channels that run along different dimensions")
    labels = labels.expand(shape)
    for source in sources:
        # Positions that a parameter varies along (a positional embedding) are nobody's channels.
        for dim in _common_channels(walk, labels, source.shape):
            channels = walk.channels(labels, dim)
            if channels is None:
                return walk.refuse(node)
            walk.bind(source.name, dim + len(source.shape), channels)
    fixed = any(
        _common_channels(walk, labels, argument.meta["val"].shape)
        for argument in node.all_input_nodes
        if isinstance(walk.values[argument], Constant)
    )
    if fixed and walk.choose(node, 2, labels) == 1:
        walk.freeze(labels, _with_constant(node))
    return labels


def _with_constant(node: fx.Node) -> str:
    return f"operator {operator_name(node)} with a constant of fixed size"


def _common_channels(walk: Walk, labels: Tensor, shape: tuple[int, ...]) -> list[int]:
    """Returns the dimensions, from the end, along which channels meet a tensor of `shape`."""
    return [
        dim for dim in range(-len(shape), 0) if shape[dim] > 1 and walk.labels.changes(labels, dim)
    ]


def unite(walk: Walk, node: fx.Node, operands: list[Tensor]) -> Tensor | None:
    """Returns the labels of operands that meet; None where their channels run crosswise.

    An operand that is broadcast over the others' channels is none of them: it is frozen.
    """
    ndim = max(labels.ndim for labels in operands)
    aligned = [labels[(None,) * (ndim - labels.ndim)] for labels in operands]
    along = {dim for labels in aligned for dim in walk.labels.changing(labels)}
    result: Tensor | None = None
    for labels in aligned:
        if all(labels.shape[dim] > 1 for dim in along):
            result = labels if result is None else walk.labels.unite(result, labels)
        elif walk.labels.changing(labels):
            return None
        else:
            walk.freeze(labels, f"operator {operator_name(node)} broadcasts it over channels")
    return result


def _copy(walk: Walk, node: fx.Node) -> Value:
    if isinstance(walk.inputs(node)[0], Constant):
        return walk.refuse(node, "into a constant")
    return _elementwise(walk, node)


def _move(walk: Walk, node: fx.Node) -> Value:
    """Moves elements without looking at sizes: labels move with them."""
    labels = walk.tensor(walk.inputs(node)[0])
    if labels is None:
        return walk.refuse(node, "on a weight")
    return apply(node, labels)


def apply(node: fx.Node, labels: Tensor) -> Value:
    """Returns what an operator makes of labels instead of its first input."""
    operator = cast("Callable[..., Tensor | list[Tensor]]", node.target)
    result = operator(labels.detach(), *node.args[1:], **node.kwargs)
    return result if isinstance(result, Tensor) else tuple(result)


def _concatenate(walk: Walk, node: fx.Node) -> Value:
    arguments = cast("list[fx.Node]", node.args[0])
    shape = node.meta["val"].shape
    dim = cast("int", node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0))
    dim %= len(shape)
    values = [walk.values[argument] for argument in arguments]
    known = [walk.tensor(value) for value in values if not isinstance(value, Constant)]
    first = known[0]
    if first is None or any(labels is None for labels in known):
        return walk.refuse(node, "with a weight")
    over_positions = any(
        walk.labels.changes(labels, other)
        for labels in known
        if labels is not None
        for other in range(len(shape))
        if other != dim
    )
    parts = []
    for argument, value in zip(arguments, values, strict=True):
        labels = walk.tensor(value)
        if labels is None:
            size = argument.meta["val"].shape
            if walk.choose(node, 2, first) == 1:
                labels = walk.labels.new_frozen(_with_constant(node)).expand(size)
            elif over_positions:
                labels = first.narrow(dim, 0, 1).expand(size)
            else:
                labels = spread(walk.labels.new(size[dim]), dim, size)
        parts.append(labels)
    result = concatenate(parts, dim)
    if over_positions and not any(walk.labels.changes(part, dim) for part in parts):
        return walk.labels.tie(result, [dim])
    return result


def _stack(walk: Walk, node: fx.Node) -> Value:
    """The same channels in every part of the new dimension."""
    dim = cast("int", node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0))
    known = [labels for labels in walk.inputs(node) if isinstance(labels, Tensor)]
    labels = unite(walk, node, known) if len(known) == len(walk.inputs(node)) else None
    if labels is None:
        return walk.refuse(node)
    return labels.unsqueeze(dim).expand(node.meta["val"].shape)


def _pool(walk: Walk, node: fx.Node) -> Value:
    """Mixes positions within each channel: pooling, interpolation."""
    sizes = re.search(r"(\d)d", operator_name(node))
    dim = -1 - int(sizes[1]) if sizes else 1
    channels = walk.channels(walk.inputs(node)[0], dim)
    if channels is None:
        return walk.refuse(node, "over channels")
    return like(node, lambda shape: spread(channels, dim, shape))


def _reduce(walk: Walk, node: fx.Node) -> Value:
    """Reduces dimensions, which are positions."""
    if len(node.all_input_nodes) > 1:
        return _elementwise(walk, node)  # `max` of two tensors
    labels = walk.tensor(walk.inputs(node)[0])
    if labels is None:
        return walk.refuse(node, "on a weight")
    dims = walk.arguments(node).get("dim")
    listed = [dims] if isinstance(dims, int) else dims or range(labels.ndim)
    reduced = {dim % labels.ndim for dim in listed}
    along = set(walk.labels.changing(labels))
    if along and along <= reduced:
        return walk.refuse(node, "over channels")
    labels = walk.labels.tie(labels, along & reduced)
    for dim in reduced:
        labels = labels.narrow(dim, 0, 1)
    return like(node, labels.reshape)


def _along(walk: Walk, node: fx.Node) -> Value:
    """Works along one dimension, of positions."""
    labels, dim = walk.tensor(walk.inputs(node)[0]), walk.arguments(node)["dim"]
    if labels is None or walk.labels.changes(labels, dim):
        return walk.refuse(node, "over channels")
    return labels


def _pixel_shuffle(walk: Walk, node: fx.Node) -> Value:
    """The channels that make the pixels of one output channel go together."""
    arguments = walk.arguments(node)
    channels = walk.channels(arguments["self"], 1)
    if channels is None:
        return walk.refuse(node)
    parts = channels.reshape(-1, arguments["upscale_factor"] ** 2)
    return spread(walk.labels.tie(parts, [1])[:, 0], 1, node.meta["val"].shape)


def _pixel_unshuffle(walk: Walk, node: fx.Node) -> Value:
    arguments = walk.arguments(node)
    channels = walk.channels(arguments["self"], 1)
    if channels is None:
        return walk.refuse(node)
    repeated = channels.repeat_interleave(arguments["downscale_factor"] ** 2)
    return spread(repeated, 1, node.meta["val"].shape)


def _rules(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_rules(
        _pass,
        "alias clone contiguous detach dropout feature_dropout alpha_dropout lift_fresh_copy"
        " to _to_copy type_as zeros_like ones_like full_like rand_like randn_like empty_like"
        " fill zero bernoulli",
    ),
    **_rules(
        _elementwise,
        "relu relu6 hardtanh sigmoid tanh silu gelu elu celu selu leaky_relu hardswish hardsigmoid"
        " hardshrink softshrink threshold softplus logsigmoid mish abs neg exp expm1 log log1p"
        " sqrt rsqrt square reciprocal sign floor ceil round erf sin cos atan pow clamp clamp_min"
        " clamp_max add sub rsub mul div maximum minimum where masked_fill lerp addcmul addcdiv"
        " expand_as eq ne lt le gt ge logical_and logical_or logical_not",
    ),
    **_rules(_copy, "copy"),
    **_rules(_move, "permute transpose t movedim swapaxes squeeze unsqueeze flip"),
    **_rules(_concatenate, "cat concat"),
    **_rules(_stack, "stack"),
    **_rules(
        _pool,
        "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d"
        " adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d"
        " adaptive_max_pool3d max_pool2d_with_indices max_pool3d_with_indices upsample_nearest1d"
        " upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d"
        " upsample_bicubic2d upsample_trilinear3d _upsample_nearest_exact2d reflection_pad1d"
        " reflection_pad2d replication_pad1d replication_pad2d replication_pad3d",
    ),
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    **_rules(_reduce, "mean sum amax amin max min prod var std logsumexp linalg_vector_norm"),
    **_rules(_along, "softmax log_softmax cumsum"),
}
