"""Gates in a training: what they learn by, what they cost, and that nothing of them is left."""

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from evosearch.data.splits import TrainSplit
from evosearch.space.budget import Budget, BudgetRequest
from evosearch.space.mask import Mask
from evosearch.surgery.gate_kinds import ConsensusGates, ExcitationGates
from evosearch.surgery.gating import Gates, gates_of
from evosearch.training.base_training import TrainConfig
from evosearch.training.gated import Gated, share_of
from evosearch.training.parts import Moment, Part
from evosearch.training.trainer import Training
from tests.data.helpers import split_of
from tests.surgery.trainable import built, found

NAME = "digits"
SPACE = found(NAME).space
QUARTER = BudgetRequest.of(flops="25%").resolve(SPACE.base_cost)
KINDS = [ExcitationGates, ConsensusGates]
SCHEDULE = TrainConfig(epochs=4, batch_size=6, lr=0.1)


def narrowed(share: float) -> Mask:
    """Returns random channels of a share of each group, of those that it has."""
    draws = np.random.default_rng(0)
    widths = np.maximum(1, (share * SPACE.full_widths).astype(int))
    return SPACE.top_channels(widths, {g.name: draws.random(g.size) for g in SPACE.groups})


class Cuts(Part):
    """Cuts before some steps, to masks of what is left."""

    def __init__(self, masks: Mapping[int, Mask]) -> None:
        self._masks = masks

    def joined(self, training: Any) -> None:
        self._training = training

    def before_step(self, moment: Moment) -> None:
        if moment.step in self._masks:
            self._training.cut(self._masks[moment.step])


def begun(
    kind: type[Gates], masks: Mapping[int, Mask] | None = None, budget: Budget = QUARTER
) -> Training:
    model = built(NAME)
    rng = torch.Generator().manual_seed(4)
    pixels = torch.randn(12, 1, 8, 8, generator=rng)
    return Training(
        model,
        split_of(TrainSplit, pixels, [number % 3 for number in range(12)]),
        SCHEDULE,
        lambda x, y: functional.cross_entropy(model(x), y),
        torch.Generator().manual_seed(0),
        discovery=found(NAME),
        parts=[Cuts(masks or {}), Gated(kind, budget, torch.Generator().manual_seed(1))],
    )


def inner(outer: Mask, whole: Mask) -> Mask:
    """Returns the mask of what `outer` leaves that leaves what both keep."""
    return Mask({name: whole[name][bits] for name, bits in outer.items()})


@pytest.mark.parametrize("seed", range(3))
def test_the_share_of_whole_widths_is_that_of_the_exact_cost(seed: int) -> None:
    draws = np.random.default_rng(seed)
    widths = draws.integers(1, SPACE.full_widths + 1)
    cost = SPACE.cost_of_widths(widths)
    named = {name: torch.tensor(float(w)) for name, w in zip(SPACE.sizes, widths, strict=True)}
    assert share_of(SPACE, QUARTER, named).item() == pytest.approx(
        cost.macs / QUARTER.bounds["macs"].high
    )
    both = Budget.exactly(macs=cost.macs * 2, params=cost.params // 3)
    expected = cost.params / (cost.params // 3)
    assert share_of(SPACE, both, named).item() == pytest.approx(expected)


def test_the_gradient_of_the_share_is_what_a_channel_costs() -> None:
    widths = SPACE.full_widths // 2
    named = {
        name: torch.tensor(float(w), dtype=torch.float64, requires_grad=True)
        for name, w in zip(SPACE.sizes, widths, strict=True)
    }
    share_of(SPACE, QUARTER, named).backward()
    for place, width in enumerate(named.values()):
        step = np.eye(len(widths), dtype=int)[place]
        costs = [SPACE.cost_of_widths(widths + sign * step).macs for sign in (1, -1)]
        expected = (costs[0] - costs[1]) / 2 / QUARTER.bounds["macs"].high
        assert width.grad is not None
        assert width.grad.item() == pytest.approx(expected)  # forms are at most quadratic


@pytest.mark.parametrize("kind", KINDS)
def test_gates_learn_with_the_network_and_its_rate(kind: type[Gates]) -> None:
    training = begun(kind)
    gates = gates_of(training.model)
    assert gates is not None
    before = {name: value.clone() for name, value in gates.state_dict().items()}
    (optimizer,) = training._optimizers
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert {decays[id(p)] for p in gates.parameters()} == {5e-4 if kind.decays else 0.0}
    assert {group["lr"] for group in optimizer.param_groups} == {SCHEDULE.lr}
    next(training.epochs())
    moved = {n for n, value in gates.state_dict().items() if not torch.equal(value, before[n])}
    assert {name for name in before if name.endswith(("up", "up_bias"))} <= moved


@pytest.mark.parametrize("kind", KINDS)
def test_they_follow_a_cut_and_are_gone_with_the_one_to_the_budget(kind: type[Gates]) -> None:
    first, last = narrowed(0.75), narrowed(0.4)
    training = begun(kind, {1: first, 3: inner(first, last)})
    names = list(built(NAME).state_dict())
    seen = []
    for _ in training.epochs():
        seen.append(gates_of(training.model) is not None)
    assert seen == [True, False, False, False]
    assert training.mask == last
    assert list(training.model.state_dict()) == names
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in training.model.modules())


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_within_its_budget_never_has_any(kind: type[Gates]) -> None:
    training = begun(kind, budget=Budget.exactly(macs=SPACE.base_cost.macs))
    assert gates_of(training.model) is None
    assert math.isfinite(next(training.epochs()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_state_goes_through_a_checkpoint(kind: type[Gates], stop: int) -> None:
    """Before the first cut, between that and the last one, and after it."""
    first, last = narrowed(0.75), narrowed(0.4)
    masks = {3: first, 5: inner(first, last)}
    unstopped, stopped, resumed = (begun(kind, masks) for _ in range(3))
    list(unstopped.epochs())
    epochs = stopped.epochs()
    for _ in range(stop):
        next(epochs)
    file = io.BytesIO()
    torch.save(stopped.state(), file)
    file.seek(0)
    resumed.restore(torch.load(file, weights_only=True))
    assert (gates_of(resumed.model) is None) == (stop == 3)
    list(resumed.epochs())
    assert resumed.mask == unstopped.mask
    for own, other in zip(
        resumed.model.state_dict().values(), unstopped.model.state_dict().values(), strict=True
    ):
        assert torch.equal(own, other)


def test_what_consensus_costs_takes_gates_to_the_budget_and_to_agreement() -> None:
    """By that term alone, the network's weights held."""
    model, space = built(NAME), found(NAME).space
    gates = ConsensusGates(model, space.groups, found(NAME).layers, torch.Generator())
    part = Gated(ConsensusGates, QUARTER, torch.Generator())
    part._training = begun(ExcitationGates)
    pixels = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    optimizer = torch.optim.SGD(gates.parameters(), lr=0.1, momentum=0.9)
    for _ in range(60):
        model(pixels)
        optimizer.zero_grad()
        gates.term(part._share).backward()
        optimizer.step()
    model(pixels)
    means = {group: own.gt(0.5).float().mean(0) for group, own in gates.factors.items()}
    share = share_of(space, QUARTER, {group: own.sum() for group, own in means.items()})
    assert 0.6 < share.item() <= 1.1
    every = torch.cat([*means.values()])
    assert ((every == 0) | (every == 1)).double().mean() > 0.95


def test_a_group_as_narrow_as_it_can_be_is_pushed_no_further() -> None:
    part = Gated(ConsensusGates, QUARTER, torch.Generator())
    part._training = begun(ExcitationGates)
    widths = {name: torch.tensor(4.0, requires_grad=True) for name in SPACE.sizes}
    first, *_ = SPACE.sizes
    widths[first] = torch.tensor(0.5, requires_grad=True)
    part._share(widths).backward()
    assert widths[first].grad == 0
    assert all(width.grad > 0 for name, width in widths.items() if name != first)
