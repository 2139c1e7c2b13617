"""Channel labels of every element of every tensor, as a union-find.

A label tensor has the shape of the activation that it describes and holds one label per element.
It is an `expand`ed view wherever it can be, so a feature map costs no more than its channels.
Operators that only move elements are applied to the label tensor as they are.

A tensor's labels *change* along a dimension where two of its elements differ; that is where
channels run. Dimensions along which they do not change (batch, height, width) are positions.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor


class Labels:
    """A union-find over labels; a class of labels may be frozen, with a reason."""

    def __init__(self) -> None:
        self._count = 0
        self._root = torch.arange(1024)  # of every label that may come; always fully resolved
        self._frozen: dict[int, str] = {}

    def new(self, count: int) -> Tensor:
        """Returns `count` fresh labels, `(count,)`."""
        first, self._count = self._count, self._count + count
        if self._count > len(self._root):
            more = torch.arange(len(self._root), 2 * self._count)
            self._root = torch.cat([self._root, more])
        return torch.arange(first, self._count)

    def new_frozen(self, reason: str) -> Tensor:
        """Returns one fresh frozen label, a scalar tensor."""
        label = self.new(1)
        self._frozen[int(label)] = reason
        return label[0]

    def roots(self, labels: Tensor) -> Tensor:
        """Returns the representatives of labels' classes, in the same shape."""
        thin = _thin([labels])[0]
        return self._root[thin].expand(labels.shape)

    def reason(self, root: int) -> str | None:
        """Returns why the class that `root` represents is frozen; None where it is not."""
        return self._frozen.get(root)

    def unite(self, left: Tensor, right: Tensor) -> Tensor:
        """Makes two label tensors the same, element by element, after broadcasting.

        Returns:
            The labels of the result, of the broadcast shape.
        """
        shape = np.broadcast_shapes(left.shape, right.shape)
        left, right = left.expand(shape), right.expand(shape)
        pairs = torch.stack([self._root[t].flatten() for t in _thin([left, right])])
        pairs = pairs[:, pairs[0] != pairs[1]]
        if pairs.numel():
            self._join(torch.unique(pairs, dim=1).T.tolist())
        return left

    def tie(self, labels: Tensor, dims: Iterable[int]) -> Tensor:
        """Makes labels the same along dimensions.

        Returns:
            The labels, as a view that is expanded along `dims`.
        """
        shape = labels.shape
        for dim in dims:
            self.unite(labels, labels.narrow(dim, 0, 1))
            labels = labels.narrow(dim, 0, 1)
        return labels.expand(shape)

    def _join(self, pairs: Iterable[Sequence[int]]) -> None:
        moved: dict[int, int] = {}

        def find(root: int) -> int:
            while root in moved:
                root = moved[root]
            return root

        for left, right in pairs:
            keep, merge = sorted((find(left), find(right)))
            if keep == merge:
                continue
            moved[merge] = keep
            reason = self._frozen.pop(merge, None)
            if reason is not None:
                self._frozen.setdefault(keep, reason)
        target = torch.arange(len(self._root))
        target[list(moved)] = torch.tensor([find(root) for root in moved])
        self._root = target[self._root]

    def freeze(self, labels: Tensor, reason: str) -> None:
        """Freezes every class in a label tensor; an earlier reason stays."""
        for root in torch.unique(self._root[_thin([labels])[0]]).tolist():
            self._frozen.setdefault(root, reason)

    def counts(self, labels: Tensor) -> dict[int, int]:
        """Returns how many elements of a label tensor each class has, by its representative."""
        thin = _thin([labels])[0]
        roots, counts = torch.unique(self._root[thin], return_counts=True)
        alike = labels.numel() // max(1, thin.numel())
        return {r: alike * n for r, n in zip(roots.tolist(), counts.tolist(), strict=True)}

    def changes(self, labels: Tensor, dim: int) -> bool:
        """Returns whether labels change along a dimension."""
        if labels.stride(dim) == 0 or labels.shape[dim] <= 1:
            return False
        roots = self._root[_thin([labels])[0]]
        return bool((roots != roots.narrow(dim, 0, 1)).any())

    def changing(self, labels: Tensor) -> list[int]:
        """Returns the dimensions along which labels change."""
        return [dim for dim in range(labels.ndim) if self.changes(labels, dim)]


def _thin(tensors: Sequence[Tensor], keep: int | None = None) -> list[Tensor]:
    """Returns tensors with size 1 wherever all are expanded from one element, except in `keep`."""
    for dim in range(tensors[0].ndim):
        if dim != keep and all(tensor.stride(dim) == 0 for tensor in tensors):
            tensors = [tensor.narrow(dim, 0, min(1, tensor.shape[dim])) for tensor in tensors]
    return list(tensors)


def concatenate(tensors: Sequence[Tensor], dim: int) -> Tensor:
    """Returns `torch.cat` of label tensors without copying what all are expanded along."""
    dim %= tensors[0].ndim
    shape = list(tensors[0].shape)
    shape[dim] = sum(tensor.shape[dim] for tensor in tensors)
    return torch.cat(_thin(tensors, keep=dim), dim).expand(shape)


def blocks(before: Sequence[int], after: Sequence[int]) -> list[tuple[range, range]]:
    """Returns which dimensions of a reshape make which others: the finest parts of equal size."""
    result = []
    i = j = 0
    while i < len(before) or j < len(after):
        first_in, first_out = i, j
        size_in, size_out = 1, 1
        while (i, j) == (first_in, first_out) or size_in != size_out:
            if j == len(after) or (i < len(before) and size_in <= size_out):
                size_in, i = size_in * before[i], i + 1
            else:
                size_out, j = size_out * after[j], j + 1
        result.append((range(first_in, i), range(first_out, j)))
    return result


def reshape(labels: Tensor, shape: Sequence[int]) -> Tensor:
    """Returns reshaped labels without copying dimensions along which they are expanded."""
    target = list(shape)
    for before, after in blocks(labels.shape, shape):
        if all(labels.stride(dim) == 0 for dim in before):
            for dim in before:
                labels = labels.narrow(dim, 0, 1)
            for dim in after:
                target[dim] = 1
    return labels.reshape(target).expand(tuple(shape))
