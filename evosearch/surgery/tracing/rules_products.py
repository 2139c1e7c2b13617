"""Label rules of products of two activations, and of what attention adds to them."""

from torch import Tensor, fx

from evosearch.surgery.tracing.rules_operators import unite
from evosearch.surgery.tracing.walk import Constant, Rule, Source, Value, Walk


def _product(walk: Walk, node: fx.Node, left: Tensor, right: Tensor) -> Tensor | None:
    """Notes a product of matrices, and returns its labels.

    What is summed over has no weight that could be zero where a channel goes, so channels may
    run along the other dimensions only: heads along those that both have.

    Args:
        walk: that reads the node.
        node: its MACs are noted as those of the module that calls it.
        left: `(..., rows, inner)`.
        right: `(..., inner, columns)`.

    Returns:
        `(..., rows, columns)`; None where channels run along what is summed over, or along the
        rows of one and the columns of the other.
    """
    if walk.labels.changes(left, -1) or walk.labels.changes(right, -2):
        return None
    labels = unite(walk, node, [left.narrow(-1, 0, 1), right.narrow(-2, 0, 1)])
    if labels is None:
        return None
    rows, columns = left.shape[-2], right.shape[-1]
    labels = labels.expand(*labels.shape[:-2], rows, columns)
    walk.add_product(node, labels, left.shape[-1])
    return labels


def _matmul(walk: Walk, node: fx.Node) -> Value:
    arguments = walk.arguments(node)
    left, right = (walk.tensor(value) for value in list(arguments.values())[:2])
    if left is None or right is None or min(left.ndim, right.ndim) < 2:
        return walk.refuse(node, "with a weight or a vector")
    labels = _product(walk, node, left, right)
    return walk.refuse(node, "over channels") if labels is None else labels


def _attention(walk: Walk, node: fx.Node) -> Value:
    """Heads go as a whole: the scale of the scores is that of a head's size."""
    arguments = walk.arguments(node)
    query, key, value = (walk.tensor(arguments[name]) for name in ("query", "key", "value"))
    if query is None or key is None or value is None or arguments["enable_gqa"]:
        return walk.refuse(node, "with a weight, or with heads that share keys")
    scores = _product(walk, node, query, key.transpose(-2, -1))
    mask = arguments["attn_mask"]
    if isinstance(mask, Source) and max(mask.shape[:-2], default=1) == 1:
        mask = None  # the same for all heads
    if scores is not None and mask is not None and not isinstance(mask, Constant):
        added = walk.tensor(mask)
        scores = None if added is None else unite(walk, node, [scores, added])
    if scores is None or walk.labels.changes(scores, -1):
        return walk.refuse(node, "over channels")
    labels = _product(walk, node, scores, value)
    return walk.refuse(node, "over channels") if labels is None else labels


def _index(walk: Walk, node: fx.Node) -> Value:
    """Takes positions along the first dimension, as from a table of relative positions."""
    arguments = walk.arguments(node)
    taken, (index, *others) = arguments["self"], arguments["indices"]
    if isinstance(taken, Source) and len(taken.shape) == 2:
        labels: Tensor | None = walk.axis(taken.name, 1)[None]
    else:
        labels = walk.tensor(taken)
    along_others = index is None or any(other is not None for other in others)
    if labels is None or along_others or walk.labels.changes(labels, 0):
        return walk.refuse(node, "over channels")
    if isinstance(index, Tensor):
        walk.freeze(index, "operator index takes positions by it")
    return labels[0].expand(node.meta["val"].shape)


RULES: dict[str, Rule] = {
    "matmul": _matmul,
    "bmm": _matmul,
    "scaled_dot_product_attention": _attention,
    "index": _index,
}
