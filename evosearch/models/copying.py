"""A copy of a model, whatever its code has stored on its modules."""

import copy
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.utils import _pytree as pytree

Model = TypeVar("Model", bound=nn.Module)
_CONTAINERS = (OrderedDict, dict, set, list)


def copied(model: Model, *, keeping: Iterable[Tensor] = ()) -> Model:
    """Returns a copy that shares nothing with a model but the tensors in `keeping`.

    A tensor that a forward pass stored in an attribute may hang on that pass's graph, and torch
    refuses to copy it; the copy gets its value.
    """
    memo: dict[int, Any] = {id(tensor): tensor for tensor in keeping}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, _CONTAINERS) and not value:
                # A module has a dozen empty ones, for hooks: most of what copying would cost.
                if type(value) in _CONTAINERS:
                    memo[id(value)] = type(value)()
            elif not isinstance(value, str | int | float | None):
                for leaf in pytree.tree_leaves(value):
                    if isinstance(leaf, Tensor) and not leaf.is_leaf:
                        memo.setdefault(id(leaf), leaf.detach().clone())
    return copy.deepcopy(model, memo)
