"""Channels that are cut for a while: off they are at zero, and who comes back is worth reading."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from evosearch.refit.norms import recalibrate
from evosearch.run.regrowing import Regrowth, exchanged_share
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import masked
from evosearch.training.pacing import LATEST
from evosearch.training.parts import Moment, Part
from tests.run.test_shrinking import IMAGES, QUARTER, SCHEDULE, SPACE, STEPS, Watched, pixels
from tests.surgery.trainable import found

GROUPS, LAYERS = found("digits").space.groups, found("digits").layers


def test_the_share_that_is_exchanged_falls_from_a_half_to_a_hundredth_of_it() -> None:
    """GraNet: half a cosine from 0.5 to 0.005; 0.005 + 0.495 / 2 in the middle."""
    shares = [exchanged_share(0.5, t) for t in (0, 0.5, 1)]
    assert shares == pytest.approx([0.5, 0.2525, 0.005])


class Spy(Part):
    """Notes what is on before every step, and what reads the rest after it."""

    def __init__(self, watched: Watched) -> None:
        self.watched, self.on, self.held = watched, [], []
        watched.training._parts = (*watched.training._parts, self)

    @property
    def regrowth(self) -> Regrowth | None:
        return self.watched.shrinking._regrowth

    def before_step(self, moment: Moment) -> None:
        self.on.append((moment, None if self.regrowth is None else self.regrowth.on))

    def after_step(self, images: int) -> None:
        if self.regrowth is not None:
            self.held.append(readers(self.watched.model, self.regrowth.on))


def readers(model: nn.Module, mask: Mask) -> float:
    """Returns the largest weight that reads a channel that is off, by hand for this network."""
    largest = 0.0
    for group in GROUPS:
        for member in group.members:
            if (member.tensor, member.dim) in {(layer.weight, layer.reads) for layer in LAYERS}:
                off = torch.from_numpy(group.index(member)[~mask[group.name]]).flatten()
                rows = model.get_parameter(member.tensor).detach().index_select(member.dim, off)
                largest = max(largest, rows.abs().max().item() if rows.numel() else 0.0)
    return largest


@pytest.fixture(scope="module")
def spy() -> Spy:
    """A network of which channels went and came back at every step, to three quarters."""
    spy = Spy(Watched("granet"))
    spy.watched.run()
    return spy


def test_channels_that_are_off_are_at_zero_after_every_step(spy: Spy) -> None:
    assert len(spy.held) == LATEST * SCHEDULE.epochs * STEPS
    assert max(spy.held) == 0.0
    assert spy.watched.shrinking.is_done


def test_some_come_back_while_widths_only_fall(spy: Spy) -> None:
    masks = [on for _, on in spy.on if on is not None]
    came_back = 0
    for earlier, later in pairwise(masks):
        came_back += sum(int((later[n] & ~bits).sum()) for n, bits in earlier.items())
        assert all(later.widths[name] <= width for name, width in earlier.widths.items())
    assert came_back > 0
    assert QUARTER.violation(SPACE.cost(masks[-1])) == 0
    for moment, on in spy.on:
        in_force = spy.watched.shrinking._in_force(moment)
        assert on is None or in_force.violation(SPACE.cost(on)) == 0


def test_its_steps_cost_the_whole_network_until_nothing_comes_back(spy: Spy) -> None:
    whole, small = SPACE.base_cost.macs, SPACE.cost(spy.watched.mask).macs
    expected = 3 * SCHEDULE.epochs * IMAGES * (LATEST * whole + (1 - LATEST) * small)
    assert spy.watched.shrinking.image_macs == expected


def begun() -> tuple[Watched, Regrowth]:
    """A network of which half of the channels are off, drawn at random."""
    watched = Watched("granet")
    regrowth = watched.shrinking._regrowth
    assert regrowth is not None
    rng = np.random.default_rng(0)
    widths = np.array([group.size // 2 for group in GROUPS])
    regrowth.drop(SPACE.top_channels(widths, {g.name: rng.random(g.size) for g in GROUPS}))
    return watched, regrowth


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Returns the loss's gradients on the calibration images, by a backward pass."""
    model, images = copy.deepcopy(model), pixels(12, 3)
    recalibrate(model, [images])
    model.eval()
    functional.cross_entropy(model(images), torch.arange(12) % 3).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_the_least_important_give_way_to_those_that_the_loss_asks_for() -> None:
    """By L1 norms of filters, and by gradients of what reads a channel; widths stay."""
    watched, regrowth = begun()
    before, model = regrowth.on, copy.deepcopy(watched.model)
    asked = gradients(model)
    counts = regrowth.counts(0.0)
    assert counts == {group.name: group.size // 4 for group in GROUPS}
    assert max(counts.values()) >= 1
    regrowth.exchange(0.0, 0)
    assert regrowth.on.widths == before.widths
    alone = 0
    for group in GROUPS:
        norms, growth = [], np.zeros(group.size)
        for layer in LAYERS:
            for member in group.members:
                index = torch.from_numpy(group.index(member)).flatten()
                kernel = model.state_dict().get(member.tensor)
                if (member.tensor, member.dim) == (layer.weight, layer.writes):
                    # It reads zeros where a channel is off.
                    norms.append(kernel.movedim(member.dim, 0)[index].abs().flatten(1).sum(1))
                if (member.tensor, member.dim) == (layer.weight, layer.reads):
                    rows = asked[layer.weight].movedim(member.dim, 0)[index]
                    growth += rows.double().flatten(1).norm(dim=1).numpy()
        was, now, count = before[group.name], regrowth.on[group.name], counts[group.name]
        come = np.flatnonzero(~was)[np.argsort(-growth[~was])[:count]]
        assert sorted(np.flatnonzero(~was & now)) == sorted(come)
        if len(norms) == 1:
            alone += 1
            gone = np.flatnonzero(was)[np.argsort(norms[0].numpy()[was])[:count]]
            assert sorted(np.flatnonzero(was & ~now)) == sorted(gone)
    assert alone


def test_who_comes_back_changes_nothing_at_first() -> None:
    """Outputs are those of the network with what stayed alone, and no momentum is left."""
    watched, regrowth = begun()
    before = regrowth.on
    images = pixels(5, 9)
    alone = copy.deepcopy(watched.model).eval()
    regrowth.exchange(0.0, 0)
    stayed = Mask({name: bits & regrowth.on[name] for name, bits in before.items()})
    assert stayed.widths != regrowth.on.widths
    with torch.no_grad(), masked(alone, GROUPS, LAYERS, stayed):
        assert torch.equal(watched.model.eval()(images), alone(images))
