"""Gates by hand; and gates of 0 and 1 are dropped and kept channels, image by image."""

import math
from collections.abc import Iterator
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evosearch.errors import InputError
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import compact, cut, masked
from evosearch.surgery.cut_attention import projections_called
from evosearch.surgery.gate_kinds import (
    ConsensusGates,
    ExcitationGates,
    disagreement,
    excess,
    rounded,
)
from evosearch.surgery.gating import Excitation, Gates, gates_of
from evosearch.surgery.narrowing import narrow
from evosearch.surgery.tracing.export import trace
from tests.criteria.toys import Stream, set_weights
from tests.surgery.trainable import BUILDS, built, found

KINDS = [ExcitationGates, ConsensusGates]


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def hung(name: str, kind: type[Gates]) -> tuple[nn.Module, Gates]:
    """Returns a network in float64 with gates that differ from image to image."""
    model, space = built(name).double(), found(name).space
    gates = kind(model, space.groups, found(name).layers, rng()).double()
    with torch.no_grad():
        for block in blocks(gates):
            block.up.normal_(0, 1.0, generator=rng())
            block.down.abs_()
            if block.up_bias is not None:
                block.down_bias.zero_()
                block.up_bias.copy_(-0.5 * block.up.sum(1))  # between dark images and bright ones
    return model, gates


def blocks(gates: Gates) -> Iterator[Excitation]:
    for block in gates.modules():
        if isinstance(block, Excitation):
            yield block


def images(name: str) -> Tensor:
    """Of very different contrasts, so that gates differ between them."""
    drawn = torch.randn(6, *BUILDS[name][1], generator=rng()).double()
    return drawn * torch.logspace(-2, 1, 6).double().reshape(-1, 1, 1, 1)


def half(name: str) -> Mask:
    space, draws = found(name).space, np.random.default_rng(1)
    widths = np.maximum(space.least_widths, space.full_widths // 2)
    return space.top_channels(widths, {g.name: draws.random(g.size) for g in space.groups})


def of_stream(kind: type[Gates]) -> tuple[nn.Module, Gates]:
    """`a` writes two channels, `b` adds to them, `c` reads the sum's means."""
    model = Stream()
    set_weights(model, {"a": [1, 3], "b": [[1, 0], [0, 1]], "c": [[1, 0], [0, 1], [0, 0]]})
    model.c.bias.data.zero_()
    found = trace(model, (torch.ones(2, 1, 2, 2),))
    return model, kind(model, found.groups, found.layers, rng())


def test_squeeze_and_excitation_by_hand() -> None:
    """Means (1, 3) -> relu(0.5 + 0.75 + 0.25) = 1.5 -> logits (2 x 1.5 - 1, 0)."""
    model, gates = of_stream(ExcitationGates)
    of_a, of_b = blocks(gates)
    with torch.no_grad():
        of_a.down.copy_(torch.tensor([[0.5, 0.25]]))
        of_a.down_bias.fill_(0.25)
        of_a.up.copy_(torch.tensor([[2.0], [0.0]]))
        of_a.up_bias.copy_(torch.tensor([-1.0, 0.0]))
        of_b.up_bias.copy_(torch.tensor([0.0, math.log(3)]))
    first, second = 1 / (1 + math.exp(-2)), 0.5
    # What `a` gives is (first, 3 second); `b` copies that, times (1/2, 3/4), and adds it.
    expected = [first * 1.5, 3 * second * 1.75, 0.0]
    assert model(torch.ones(1, 1, 2, 2))[0].tolist() == pytest.approx(expected)
    # The channels have two writers: their gate is the mean of both.
    (factors,) = gates.factors.values()
    assert factors[0].tolist() == pytest.approx([(first + 0.5) / 2, (second + 0.75) / 2])


def test_blocks_have_a_sixteenth_as_many_units_and_narrow_ones_biases() -> None:
    widths = [4, 16, 17, 48]
    layers = [nn.Linear(*sizes) for sizes in pairwise([2, *widths, 3])]
    model = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))
    seen = trace(model, (torch.ones(2, 2),))
    gates = ExcitationGates(model, seen.groups, seen.layers, rng())
    shapes = [(*reversed(block.down.shape), block.up_bias is not None) for block in blocks(gates)]
    assert shapes == [(4, 1, True), (16, 1, True), (17, 1, False), (48, 3, False)]


def test_what_disagreement_costs_by_hand() -> None:
    """Gates 0, 0, 1, 1 over four images cost 1/4; agreement costs nothing."""
    gates = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    assert disagreement(gates[:, :1].mean(0)) == 0.25
    assert disagreement(gates[:, 1:].mean(0)) == 0
    assert disagreement(gates.mean(0)) == pytest.approx(0.25 / 3)


def test_what_is_over_the_budget_costs_by_hand() -> None:
    assert excess(torch.tensor(0.8)) == 0
    assert excess(torch.tensor(1.5)) == 0.5


def test_gates_are_rounded_exactly_and_learn_as_if_they_were_not() -> None:
    logits = torch.randn(1000, generator=rng()).requires_grad_()
    chances = logits.sigmoid()
    gates = rounded(chances)
    assert torch.equal(gates, (chances > 0.5).float())
    gates.sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, (chances * (1 - chances)).detach())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", BUILDS)
def test_consensus_begins_as_the_network_without_gates(name: str, training: bool) -> None:
    batch = images(name).float()
    whole = built(name).train(training)
    with projections_called(whole):
        expected = whole(batch)
    model = built(name).train(training)
    ConsensusGates(model, found(name).space.groups, found(name).layers, rng())
    assert torch.equal(model(batch), expected)


@pytest.mark.parametrize("name", BUILDS)
def test_each_image_sees_the_network_of_its_own_gates(name: str) -> None:
    """A gate that were missing at one of the readers, or another image's, would show."""
    model, gates = hung(name, ConsensusGates)
    batch, groups = images(name), found(name).space.groups
    outputs, factors = model(batch), gates.factors
    masks = [
        Mask({group: own[image].gt(0.5).numpy() for group, own in factors.items()})
        for image in range(len(batch))
    ]
    assert len(set(masks)) > 1
    gates.discard()
    for image, (mask, output) in enumerate(zip(masks, outputs, strict=True)):
        with masked(model, groups, found(name).layers, mask) as dropped:
            one = dropped(batch[image : image + 1])[0]
        torch.testing.assert_close(output, one, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", BUILDS)
def test_gates_that_agree_are_thrown_away_with_what_they_close(name: str) -> None:
    mask, space = half(name), found(name).space
    model, gates = hung(name, ConsensusGates)
    with torch.no_grad():
        for block, bits in zip(blocks(gates), kept_by_block(gates, mask), strict=True):
            block.up.zero_()
            block.up_bias.copy_(torch.where(bits, 3.0, -3.0))
    gated = model(images(name))
    cut(model, space.groups, mask)
    gates.discard()
    torch.testing.assert_close(model(images(name)), gated, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "kind"),
    [*product([name for name in BUILDS if name != "vit"], KINDS), ("vit", ConsensusGates)],
)
def test_gates_follow_a_cut(name: str, kind: type[Gates]) -> None:
    """As those of the uncut network that see nothing of the dropped channels."""
    mask, space = half(name), found(name).space
    model, gates = hung(name, kind)
    with torch.no_grad():
        for block, bits in zip(blocks(gates), kept_by_block(gates, mask), strict=True):
            block.down[:, ~bits] = 0
    with masked(model, space.groups, found(name).layers, mask):
        expected = model(images(name))
        factors = gates.factors
    cut(model, space.groups, mask)
    small = narrow(found(name), mask)
    gates.follow(model, small.space.groups, small.layers, mask)
    torch.testing.assert_close(model(images(name)), expected, rtol=0, atol=1e-12)
    for group, own in gates.factors.items():
        torch.testing.assert_close(
            own, factors[group][:, mask[group].nonzero()[0]], rtol=0, atol=1e-12
        )


def test_gates_on_what_attention_packs_are_refused() -> None:
    """Queries, keys and values of one weight, which no module writes alone."""
    with pytest.raises(InputError, match=r"MultiheadAttention.* writes channels out of sight"):
        hung("vit", ExcitationGates)


def kept_by_block(gates: Gates, mask: Mask) -> Iterator[Tensor]:
    """Yields for each block which of its channels a mask keeps."""
    if isinstance(gates, ConsensusGates):
        seen = dict.fromkeys(g for groups in gates._places.values() for g, _ in groups)
        for group in seen:
            yield torch.from_numpy(mask[group].copy())
        return
    for groups in gates._places.values():
        yield torch.from_numpy(
            np.concatenate([np.repeat(mask[group], index.shape[1]) for group, index in groups])
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_without_its_gates_is_as_it_was(kind: type[Gates]) -> None:
    expected = built("digits").double()
    model, gates = hung("digits", kind)
    batch = images("digits")
    assert gates_of(model) is gates
    assert not torch.equal(model(batch), expected(batch))
    assert any(parameter is next(gates.parameters()) for parameter in model.parameters())
    gates.discard()
    assert gates_of(model) is None
    assert torch.equal(model(batch), expected(batch))
    assert list(model.state_dict()) == list(expected.state_dict())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    whole = compact(model, found("digits").space.groups, found("digits").space.full_mask())
    assert [type(m) for m in whole.modules()] == [type(m) for m in expected.modules()]


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight)


def test_what_is_out_of_sight_is_refused_and_leaves_nothing() -> None:
    model = nn.Sequential(nn.Linear(2, 2), Own(), nn.Linear(2, 3))
    seen = trace(model, (torch.ones(2, 2),))
    with pytest.raises(InputError, match=r"module '1' \(Own\) writes channels out of sight"):
        ExcitationGates(model, seen.groups, seen.layers, rng())
    assert gates_of(model) is None
    assert not model._forward_pre_hooks


def test_gates_that_were_not_passed_are_named() -> None:
    model, gates = hung("digits", ConsensusGates)
    model._forward_pre_hooks.clear()
    with pytest.raises(InputError, match="none of the modules with its gates was called"):
        _ = gates.factors
