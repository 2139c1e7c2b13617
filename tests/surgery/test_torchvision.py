"""The networks that people really have: proven whole, cost exact, most of their MACs prunable."""

import pytest
import torch

from evosearch.surgery.compaction import compact, masked
from evosearch.surgery.counting import count_macs
from evosearch.surgery.discovery import GroupRules, discover
from tests.surgery.cases import random_masks, tensors
from tests.surgery.networks import randomized
from tests.surgery.realnetworks import NETWORKS


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_real_network(name: str) -> None:
    build, side, least = NETWORKS[name]
    model, example = randomized(build()), (torch.randn(2, 3, side, side),)
    found = discover(model, example, GroupRules(), seed=1)
    space = found.space
    assert found.space.prunable_share >= least
    assert all(proof.error <= 1e-9 and proof.effect > 1e-3 for proof in found.proofs)
    assert not [part for part in space.frozen if "proof" in part.reason]
    if name in ("vit_b_16", "swin_t"):  # an MLP and heads in each of twelve blocks
        assert sum(group.name.endswith(".mlp.0") for group in space.groups) == 12
        assert (
            sum(group.name.endswith((".self_attention", ".qkv")) for group in space.groups) == 12
        )
        assert len(space.sizes) == 24
    for mask in random_masks(space, 25):
        with torch.no_grad():
            small = compact(model, space.groups, mask)
            cost = space.cost(mask)
            assert count_macs(small, example) == cost.macs
            assert sum(p.numel() for p in small.parameters()) == cost.params
    with torch.no_grad(), masked(model, space.groups, found.layers, mask) as reference:
        expected = tensors(reference(*example))
        for ours, theirs in zip(tensors(small(*example)), expected, strict=True):
            scale = theirs.abs().max()
            torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=1e-4)
