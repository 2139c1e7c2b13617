"""Label rules of operators whose sizes the model's code may fix.

An exported graph does not tell a size that follows a pruned width (`x.shape[1] // 2`) from one
that the code fixes (`8`). So each of these operators has readings: in the loose ones its sizes
follow, as attributes of a module or with positions tied part by part where it cuts the channels;
in the strict one its sizes are fixed, and the channels that must stay for it are frozen. The
proof decides.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import gcd

import torch
from torch import Tensor, fx

from evosearch.surgery.tracing.rules_operators import apply
from evosearch.surgery.tracing.walk import Constant, Rule, Value, Walk, operator_name, spread


def fixed(node: fx.Node) -> str:
    """Returns why channels stay that an operator counts."""
    return f"operator {operator_name(node)} with sizes fixed in the code"


def _expand(walk: Walk, node: fx.Node) -> Value:
    labels = walk.tensor(walk.inputs(node)[0])
    if labels is None:
        return walk.refuse(node, "on a weight")
    shape = node.meta["val"].shape
    labels = labels[(None,) * (len(shape) - labels.ndim)]
    along = walk.labels.changing(labels)
    sizes = walk.arguments(node)["size"]
    if not along and len(shape) > 1 and labels.shape[1] == 1 < shape[1]:
        # One channel becomes many, which take part in whatever they meet.
        walk.freeze(labels, f"operator {operator_name(node)} broadcasts it over channels")
        if walk.choose(node, 2, labels) == 0:
            fresh = walk.labels.new(shape[1])
            walk.touch(node, fresh)
            return spread(fresh, 1, shape)
    elif any(sizes[dim] != -1 for dim in along) and walk.choose(node, 2, labels) == 1:
        walk.freeze(labels, fixed(node))
    return labels.expand(shape)


def _cut(
    walk: Walk, node: fx.Node, dim: int, bounds: Sequence[int], counted: Sequence[range] = ()
) -> Tensor | None:
    """Returns the labels of a node's input, which the node cuts at `bounds`.

    A bound counts channels from the start, or from the end where it is negative. Loosest: the
    lengths are attributes of the calling module, which follow the widths. Loose: the cut falls
    between equal parts, whose positions are tied; their total is an attribute, or is not. Strict:
    the channels that a bound counts are frozen.

    Args:
        walk: that reads the node.
        node: cuts its input.
        dim: along this dimension.
        bounds: where.
        counted: the parts whose lengths the call gives.
    """
    labels = walk.tensor(walk.inputs(node)[0])
    if labels is None or not bounds or not walk.labels.changes(labels, dim):
        return labels
    channels = walk.channels(labels, dim)
    if channels is None:
        return None
    unit = gcd(channels.numel(), *bounds)
    kept = _attributes(walk, node, counted)
    total = walk.attribute_of(walk.module(node), channels.numel()) if counted else None
    ways = ["attributes"] if kept else []
    if unit > 1:
        ways += ["total", "parts"] if total else ["parts"]
    reading = walk.choose(node, len(ways) + 1, channels)
    way = ways[reading] if reading < len(ways) else "strict"
    if way == "attributes":
        for attribute, parts in kept.items():
            alike = torch.stack([channels[part.start : part.stop] for part in parts])
            walk.bind(attribute, 0, walk.labels.tie(alike, [0])[0])
    elif way in ("total", "parts"):
        channels = walk.labels.tie(channels.reshape(-1, unit), [0]).flatten()
        if way == "total":
            walk.bind(f"{walk.module(node)}.{total}", 0, channels)
    else:
        for bound in bounds:
            walk.freeze(channels[:bound] if bound > 0 else channels[bound:], fixed(node))
    return spread(channels, dim, labels.shape)


def _cut_and_apply(
    walk: Walk, node: fx.Node, dim: int, bounds: Sequence[int], counted: Sequence[range] = ()
) -> Value:
    labels = _cut(walk, node, dim, bounds, counted)
    return walk.refuse(node, "on a weight") if labels is None else apply(node, labels)


def _attributes(walk: Walk, node: fx.Node, counted: Sequence[range]) -> dict[str, list[range]]:
    """Returns the sizes that the calling module keeps, each with the parts that it counts.

    Nothing where any part is counted by none: by a list of all lengths, or by one integer alone.
    """
    module, lengths = walk.module(node), tuple(len(part) for part in counted)
    whole = walk.attribute_of(module, lengths)
    if whole is not None:
        return {f"{module}.{whole}.{i}": [part] for i, part in enumerate(counted)}
    kept: dict[str, list[range]] = {}
    for part, length in zip(counted, lengths, strict=True):
        attribute = walk.attribute_of(module, length)
        if attribute is None:
            return {}
        kept.setdefault(f"{module}.{attribute}", []).append(part)
    return kept


def _before(bounds: Sequence[int], size: int) -> list[range]:
    """Returns the parts that bounds count, from the start or from the end."""
    return [range(bound) if bound > 0 else range(size + bound, size) for bound in bounds]


def _slice(walk: Walk, node: fx.Node) -> Value:
    arguments = walk.arguments(node)
    dim, start, end = arguments["dim"], arguments["start"] or 0, arguments["end"]
    size = node.all_input_nodes[0].meta["val"].shape[dim]
    if arguments["step"] == 1:
        bounds = [
            bound for bound in (start, size if end is None else end) if 0 < abs(bound) < size
        ]
        return _cut_and_apply(walk, node, dim, bounds, _before(bounds, size))
    labels = walk.tensor(walk.inputs(node)[0])
    if labels is None:
        return walk.refuse(node, "on a weight")
    if walk.labels.changes(labels, dim):
        step, channels = arguments["step"], walk.channels(labels, dim)
        if channels is None:
            return walk.refuse(node, "along channels that vary over positions")
        regular = size % step == 0 and 0 <= start < step and (end is None or end >= size)
        if regular and walk.choose(node, 2, channels) == 0:
            tied = walk.labels.tie(channels.reshape(-1, step), [1])
            return apply(node, spread(tied.flatten(), dim, labels.shape))
        walk.freeze(channels, fixed(node))
    return apply(node, labels)


def _narrow(walk: Walk, node: fx.Node) -> Value:
    arguments = walk.arguments(node)
    start, length = arguments["start"], arguments["length"]
    bounds = [bound for bound in (start, start + length) if bound != 0]
    counted = [*_before(bounds[:-1], 0), range(start, start + length)]
    return _cut_and_apply(walk, node, arguments["dim"], bounds, counted)


def _select(walk: Walk, node: fx.Node) -> Value:
    arguments = walk.arguments(node)
    labels, dim, index = walk.tensor(arguments["self"]), arguments["dim"], arguments["index"]
    if labels is None:
        return walk.refuse(node, "on a weight")
    if walk.labels.changes(labels, dim):
        length = index + 1 if index >= 0 else -index
        start = 0 if index >= 0 else labels.shape[dim] + index
        walk.freeze(labels.narrow(dim, start, length), fixed(node))
    return labels.select(dim, index)


def _split(walk: Walk, node: fx.Node) -> Value:
    arguments = walk.arguments(node)
    dim = arguments["dim"]
    size = node.all_input_nodes[0].meta["val"].shape[dim]
    name = operator_name(node)
    parts = arguments.get("chunks") or arguments.get("sections")
    counted: list[range] = []
    if name == "split_with_sizes" or isinstance(arguments.get("split_size"), list):
        bounds = list(accumulate(arguments.get("split_sizes") or arguments["split_size"]))
        counted = [range(start, end) for start, end in pairwise([0, *bounds])]
    elif name == "split":
        length = arguments["split_size"]
        bounds = list(range(length, size, length))
        counted = [range(end - length, end) for end in range(length, size + 1, length)]
    elif "indices" in arguments:
        bounds = [bound for bound in arguments["indices"] if 0 < abs(bound) < size]
    elif size % parts == 0:
        bounds = list(range(size // parts, size + 1, size // parts))
    else:
        bounds = [1, size]  # of unequal lengths: no equal parts to tie
    return _cut_and_apply(walk, node, dim, bounds, counted)


def _glu(walk: Walk, node: fx.Node) -> Value:
    """One half of the channels gates the other."""
    dim, shape = walk.arguments(node)["dim"], node.meta["val"].shape
    labels = _cut(walk, node, dim, [shape[dim]])
    if labels is None:
        return walk.refuse(node, "on a weight")
    first, second = labels.chunk(2, dim)
    return walk.labels.unite(first, second)


def _unbind(walk: Walk, node: fx.Node) -> Value:
    labels, dim = walk.tensor(walk.inputs(node)[0]), walk.arguments(node)["dim"]
    if labels is None:
        return walk.refuse(node, "on a weight")
    if walk.labels.changes(labels, dim):
        walk.freeze(labels, fixed(node))
    return apply(node, labels)


def _pad(walk: Walk, node: fx.Node) -> Value:
    arguments = walk.arguments(node)
    labels, shape = walk.tensor(arguments["self"]), node.meta["val"].shape
    if labels is None:
        return walk.refuse(node, "on a weight")
    pads: Sequence[int] = arguments["pad"]
    along = walk.labels.changing(labels)
    wide = [dim for dim in along if any(pads[2 * (labels.ndim - 1 - dim) :][:2])]
    if not wide:
        for dim in set(range(labels.ndim)) - set(along):
            labels = labels.narrow(dim, 0, 1)
        return labels.expand(shape)
    dim = wide[0]
    channels = walk.channels(labels, dim)
    if channels is None or len(wide) > 1 or arguments.get("mode", "constant") != "constant":
        return walk.refuse(node, "over channels")
    before, after = pads[2 * (labels.ndim - 1 - dim) :][:2]
    crops = [bound for bound in (max(0, -before), min(0, after)) if bound]
    unit = gcd(channels.numel(), *crops)
    loose = walk.choose(node, 2, channels) == 0
    if loose and unit > 1:
        channels = walk.labels.tie(channels.reshape(-1, unit), [0]).flatten()
    else:
        for bound in crops:
            walk.freeze(channels[:bound] if bound > 0 else channels[bound:], fixed(node))
    sides = [
        walk.labels.new(max(0, count))
        if loose
        else walk.labels.new_frozen(fixed(node)).expand(max(0, count))
        for count in (before, after)
    ]
    for side in sides:
        walk.touch(node, side)
    kept = channels[max(0, -before) : channels.numel() + min(0, after)]
    return spread(torch.cat([sides[0], kept, sides[1]]), dim, shape)


def _roll(walk: Walk, node: fx.Node) -> Value:
    """A shift of channels is fixed: it may fit one width and not another."""
    labels = walk.tensor(walk.inputs(node)[0])
    dims = walk.arguments(node)["dims"]
    if labels is None or any(walk.labels.changes(labels, dim) for dim in dims or [0]):
        return walk.refuse(node, "over channels")
    return labels


def _channel_shuffle(walk: Walk, node: fx.Node) -> Value:
    arguments = walk.arguments(node)
    channels, groups = walk.channels(arguments["self"], 1), arguments["groups"]
    if channels is None or walk.choose(node, 2, channels) == 1:
        return walk.refuse(node)
    tied = walk.labels.tie(channels.reshape(groups, -1), [0])
    return spread(tied.T.flatten(), 1, node.meta["val"].shape)


def _constant(walk: Walk, node: fx.Node) -> Value:  # noqa: ARG001
    return Constant()


RULES: dict[str, Rule] = {
    "expand": _expand,
    "slice": _slice,
    "narrow": _narrow,
    "select": _select,
    "unbind": _unbind,
    "glu": _glu,
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split"), _split),
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    "roll": _roll,
    "channel_shuffle": _channel_shuffle,
    **dict.fromkeys(("new_zeros", "new_ones", "new_full", "new_empty"), _constant),
}
