"""Narrowing gives what tracing the cut network anew would; cuts compose."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evosearch.errors import InputError
from evosearch.space.mask import Mask
from evosearch.space.space import SearchSpace
from evosearch.surgery.compaction import compact
from evosearch.surgery.discovery import Discovery, GroupRules, discover
from evosearch.surgery.filesize import HEADER
from evosearch.surgery.narrowing import narrow
from tests.surgery.cases import discovered
from tests.surgery.trainable import BUILDS, built, example, found

OPERATORS = (
    "channels_last",
    "chunk",
    "flatten",
    "group_norm_plain",
    "grouped_positions",
    "grouped_whole",
    "heads",
    "heads_of_a_memory",
    "heads_pixels",
    "pixel_shuffle",
    "reused_weight",
    "shuffle_module",
    "swin",
    "transposed_groups",
)


def random_mask(space: SearchSpace, seed: int) -> Mask:
    """Returns a random mask with two channels a group at least: one alone is frozen anew."""
    rng = np.random.default_rng(seed)
    widths = [rng.choice([w for w in group.legal_widths() if w > 1]) for group in space.groups]
    scores = {group.name: rng.random(group.size) for group in space.groups}
    return space.top_channels(np.array(widths), scores)


def places(discovery: Discovery) -> list[str]:
    """Returns each group's members, in an order that does not depend on names."""
    return sorted(repr((group.size, group.members)) for group in discovery.space.groups)


@pytest.mark.parametrize("name", BUILDS)
def test_narrowing_equals_tracing_and_proving_the_cut_network(name: str) -> None:
    require_equal(built(name), example(name), found(name))


@pytest.mark.parametrize("name", OPERATORS)
def test_narrowing_follows_what_an_operator_does_with_channels(name: str) -> None:
    case = discovered(name)
    require_equal(case.model, case.example, case.discovery)


def byte_term(space: SearchSpace, name: str) -> int:
    """Returns the bytes of a constant part of the file of the weights."""
    (term,) = (term for term in space.size if term.name == name)
    (constant,) = term.bytes
    return constant.coefficient


def require_equal(model: nn.Module, inputs: tuple[Any, ...], whole: Discovery) -> None:
    """Compares narrowing by a random mask with what is found in the compact network."""
    mask = random_mask(whole.space, seed=1)
    narrowed = narrow(whole, mask)
    small = compact(model, whole.space.groups, mask)
    traced = discover(small, inputs, GroupRules(), seed=4)
    assert places(narrowed) == places(traced)
    assert narrowed.layers == traced.layers
    assert narrowed.space.terms == traced.space.terms
    assert narrowed.space.base_cost == whole.space.cost(mask)
    # The file's header is that of the whole network, which is longer. Memory is a bound where
    # code makes tensors of sizes of its own; tests/surgery/test_peakmemory.py says where.
    whole_header, header = (byte_term(own.space, HEADER) for own in (whole, traced))
    size = narrowed.space.base_cost.size - whole_header + header
    memory = traced.space.base_cost.memory
    assert whole_header >= header
    assert memory <= narrowed.space.base_cost.memory <= 1.3 * memory
    expected = replace(narrowed.space.base_cost, size=size, memory=memory)
    assert traced.space.base_cost == expected
    assert narrowed.space.sizes == mask.widths


@pytest.mark.parametrize("name", BUILDS)
def test_cutting_twice_is_cutting_by_the_composed_mask(name: str) -> None:
    model, whole = built(name), found(name)
    outer = random_mask(whole.space, seed=2)
    narrowed = narrow(whole, outer)
    inner = random_mask(narrowed.space, seed=4)
    assert inner.widths != narrowed.space.sizes
    twice = compact(compact(model, whole.space.groups, outer), narrowed.space.groups, inner)
    once = compact(model, whole.space.groups, outer.then(inner))
    assert repr(twice) == repr(once)
    for (key, tensor), other in zip(
        twice.state_dict().items(), once.state_dict().values(), strict=True
    ):
        assert torch.equal(tensor, other), key
    assert narrow(narrowed, inner) == narrow(whole, outer.then(inner))


def test_positions_move_down_by_what_is_dropped_before_them() -> None:
    """A concat reads `left` (0..3), the stem (4..9), `right` (10..14) in one dimension."""
    whole = found("concat")
    mask = Mask(
        {
            "stem.0": np.array([1, 0, 1, 1, 1, 0], dtype=bool),
            "left": np.array([0, 1, 1, 0], dtype=bool),
            "right": np.array([1, 1, 0, 0, 1], dtype=bool),
        }
    )
    at = {
        (group.name, member.tensor): member.positions
        for group in narrow(whole, mask).space.groups
        for member in group.members
    }
    assert at["left", "bn.weight"] == (0, 1)
    assert at["stem.0", "bn.weight"] == (2, 3, 4, 5)
    assert at["right", "bn.weight"] == (6, 7, 8)
    assert at["stem.0", "stem.0.weight"] == (0, 1, 2, 3)


def test_a_full_mask_narrows_nothing() -> None:
    whole = found("grouped")
    assert narrow(whole, whole.space.full_mask()) == whole


def test_fewer_channels_than_may_stay_are_refused() -> None:
    whole = found("digits")
    none = Mask({name: np.zeros(size, dtype=bool) for name, size in whole.space.sizes.items()})
    with pytest.raises(InputError, match="min_keep must be from 1 to its size 0"):
        narrow(whole, none)
