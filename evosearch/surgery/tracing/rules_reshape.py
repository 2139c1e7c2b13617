"""Label rules of reshapes: where channels are split into parts, one of them follows the width."""

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from evosearch.surgery.tracing.labels import blocks, reshape
from evosearch.surgery.tracing.rules_sizes import fixed
from evosearch.surgery.tracing.walk import Rule, Value, Walk

HEADS = ("num_heads", "num_attention_heads", "n_heads", "heads")
"""Attributes of modules that hold a number of heads: a reshape to so many parts follows them."""
WIDTHS_OF_HEADS = ("attn_dim", "all_head_size", "inner_dim")
"""Attributes that hold the channels of all heads together, into which a reshape puts them."""


def _reshape(walk: Walk, node: fx.Node) -> Value:
    """Where it splits channels into parts, one of the new dimensions follows the width."""
    labels = walk.tensor(walk.inputs(node)[0])
    if labels is None:
        return walk.refuse(node, "on a weight")
    shape = node.meta["val"].shape
    result = reshape(labels, shape)
    along = walk.labels.changing(result)
    arguments = walk.arguments(node)
    sizes: Sequence[int] = arguments.get("size") or arguments.get("shape") or [-1] * len(shape)
    derived = [dim for dim in along if dim < len(sizes) and sizes[dim] == -1]
    split: list[int] = []
    for before, after in blocks(labels.shape, shape):
        parts = [dim for dim in along if dim in after]
        if len(parts) > sum(walk.labels.changes(labels, dim) for dim in before):
            split += parts
    if not split and derived == along:
        return result
    # The longest part is the likeliest to follow the width, unless the code says which does. Of
    # two that may be the heads (three of them, for example) it is the one before their size.
    module = walk.module(node)
    kept = walk.graph.attributes.get(module, {})
    heads = {kept.get(attribute) for attribute in HEADS}
    counted = [dim for dim in split if len(_classes(walk, result, dim)) in heads]
    follow = sorted(
        split,
        key=lambda d: (
            d not in counted,
            bool(counted) and d != split[-2],
            d not in derived,
            -shape[d],
        ),
    )
    reading = walk.choose(node, max(1, len(follow)) + 1, result)
    if reading == max(1, len(follow)):
        walk.freeze(result, fixed(node))
        return result
    if not split:
        for attribute in WIDTHS_OF_HEADS:
            for dim in along:
                walk.bind_attribute(module, attribute, _line(result, dim))
        return result
    result = walk.labels.tie(result, [dim for dim in split if dim != follow[reading]])
    for attribute in HEADS:
        walk.bind_attribute(module, attribute, _classes(walk, result, follow[reading]))
    return result


def _line(labels: Tensor, dim: int) -> Tensor:
    """Returns the labels along one dimension, at the first place of the others."""
    return labels[tuple(slice(None) if d == dim else 0 for d in range(labels.ndim))]


def _classes(walk: Walk, labels: Tensor, dim: int) -> Tensor:
    """Returns one label of each class along a dimension, `(classes,)`."""
    classes: Tensor = torch.unique(walk.labels.roots(_line(labels, dim)))
    return classes


RULES: dict[str, Rule] = dict.fromkeys(
    ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as"), _reshape
)
