"""Every small network, and what is discovered in it."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from evosearch.space.mask import Mask
from evosearch.space.space import SearchSpace
from evosearch.surgery.discovery import Discovery, GroupRules, discover
from tests.surgery.attention import ATTENTION
from tests.surgery.networks import PATTERNS
from tests.surgery.operators import OPERATORS

CASES = {**PATTERNS, **OPERATORS, **ATTENTION}


@dataclass(frozen=True)
class Found:
    """A network of `CASES` with what was discovered in it; shared by tests, so never changed."""

    model: nn.Module
    example: tuple[Any, ...]
    discovery: Discovery


@cache
def discovered(name: str) -> Found:
    case = CASES[name]
    model, example = case.model(), case.example()
    return Found(model, example, discover(model, example, GroupRules(), seed=3))


def tensors(output: Any) -> list[Tensor]:
    """Returns the tensors in a network's arguments or results, whatever holds them."""
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def random_masks(space: SearchSpace, count: int, seed: int = 0) -> list[Mask]:
    """Returns random legal masks over all groups together; the first keeps as little as it can."""
    rng = np.random.default_rng(seed)
    plans = [space.least_widths] + [
        np.array([rng.choice(group.legal_widths()) for group in space.groups])
        for _ in range(count - 1)
    ]
    return [
        space.top_channels(plan, {group.name: rng.random(group.size) for group in space.groups})
        for plan in plans
    ]
