"""Wrong members planted in a network of many groups: each is found and named, and no other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from evosearch.space.mask import ChannelGroup, Member
from evosearch.surgery.proof import TOLERANCE, Checker, prove
from evosearch.surgery.tracing.export import Trace, trace
from tests.surgery.networks import conv, head, randomized

BLOCKS = 10


class Block(nn.Module):
    """A residual block with squeeze-and-excitation: a group inside, and one in the squeeze."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = conv(8, 9), nn.BatchNorm2d(9), conv(9, 8)
        self.down, self.up = conv(9, 4, 1), conv(4, 9, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm(self.first(x)).relu_()
        gate = self.up(silu(self.down(inner.mean((2, 3), keepdim=True)))).sigmoid()
        return x + self.second(inner * gate)


@pytest.fixture(scope="module")
def many() -> tuple[nn.Module, tuple[Tensor], Trace]:
    model = nn.Sequential(conv(3, 8), *(Block() for _ in range(BLOCKS)), head(8))
    example = (torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)),)
    return randomized(model), example, trace(model, example)


def planted(
    group: ChannelGroup, others: list[ChannelGroup], rng: np.random.Generator
) -> ChannelGroup:
    """Returns a group with one wrong member: in another order, missing, or another group's."""
    number = int(rng.integers(len(group.members)))
    member, rest = group.members[number], list(group.members)
    kind = rng.choice(["order", "missing", "another's"])
    if kind == "order":
        order = np.roll(np.arange(group.size), rng.integers(1, group.size))
        moved = group.index(member)[order].flatten().tolist()
        rest[number] = replace(member, positions=tuple(moved))
    elif kind == "missing":
        del rest[number]
    else:
        stranger = others[rng.integers(len(others))]
        theirs = stranger.members[rng.integers(len(stranger.members))]
        own = tuple(theirs.positions[i % len(theirs.positions)] for i in range(group.size))
        rest[number] = Member(tensor=theirs.tensor, dim=theirs.dim, positions=own)
    return replace(group, members=tuple(rest))


def test_the_network_has_many_groups_and_all_are_right(
    many: tuple[nn.Module, tuple[Tensor], Trace],
) -> None:
    model, example, found = many
    proof = prove(Checker(model, example, seed=0), found)
    assert len(proof.groups) == 2 * BLOCKS + 1
    assert not [part for part in proof.frozen if "output" not in part.reason]


@pytest.mark.parametrize("seed", range(3))
def test_each_wrong_group_of_many_is_found_and_named(
    many: tuple[nn.Module, tuple[Tensor], Trace], seed: int
) -> None:
    model, example, found = many
    rng = np.random.default_rng(seed)
    groups = list(found.groups)
    wrong = rng.choice(len(groups), size=7, replace=False).tolist()
    for number in wrong:
        others = [group for i, group in enumerate(found.groups) if i != number]
        groups[number] = planted(groups[number], others, rng)
    proof = prove(Checker(model, example, seed), replace(found, groups=tuple(groups)))
    assert {part.name for part in proof.frozen} == {groups[number].name for number in wrong}
    assert all(part.reason.startswith("proof failed") for part in proof.frozen)
    assert {group.name for group in proof.groups} == {g.name for g in groups} - {
        groups[number].name for number in wrong
    }


def test_what_is_reused_gives_what_is_computed(
    many: tuple[nn.Module, tuple[Tensor], Trace],
) -> None:
    """Right groups and wrong ones are told apart alike, and effects are equal to the last bit."""
    model, example, found = many
    checker, rng = Checker(model, example, seed=0), np.random.default_rng(0)
    for group in found.groups[::4]:
        for one in (group, planted(group, [g for g in found.groups if g is not group], rng)):
            mask = checker.some(one)
            error, effect = checker._compare([one], found.layers, mask, reusing=True)
            full_error, full_effect = checker._compare([one], found.layers, mask)
            assert effect == full_effect
            assert (error <= TOLERANCE) == (full_error <= TOLERANCE) == (one is group)
