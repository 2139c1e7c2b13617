"""Cost forms against hand counts and torch's own counter."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from evosearch.space.cost import Cost
from evosearch.surgery.compaction import compact
from evosearch.surgery.counting import count_macs
from tests.surgery.cases import CASES, discovered, random_masks, tensors

UNSEEN_LAYERS = (
    "attention",
    "heads_of_a_memory",
    "heads_pixels",
    "heads_whose_weights_are_read",
    "subgraph",
    "swin",
    "vit",
    "weight_norm",
)
"""Networks with layers that are not modules, or that do not read a parameter of their own."""


def measured(model: nn.Module, example: tuple[Any, ...]) -> Cost:
    """Counts what one image costs, without the code under test."""
    activations = 0

    def count(_: nn.Module, __: Any, output: Tensor) -> None:
        nonlocal activations
        activations += output[0].numel()

    for module in model.modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            module.register_forward_hook(count)
    with FlopCounterMode(display=False) as counter:
        model(*example)
    batch = len(tensors(example)[0])
    return Cost(
        macs=counter.get_total_flops() // 2 // batch,
        params=sum(p.numel() for p in model.parameters()),
        activations=activations,
    )


@pytest.mark.parametrize("name", CASES)
def test_the_form_equals_the_counter_on_compacted_networks(name: str) -> None:
    found = discovered(name)
    space = found.discovery.space
    for mask in [space.full_mask(), *random_masks(space, 6)]:
        small = compact(found.model, space.groups, mask)
        cost, counted = space.cost(mask), measured(small, found.example)
        assert (cost.macs, cost.params) == (counted.macs, counted.params)
        if name not in UNSEEN_LAYERS:
            assert cost.activations == counted.activations


def test_a_plain_network_by_hand() -> None:
    found = discovered("plain")
    # conv1: 3 -> 4 at 8 x 8; conv2: 4 -> 6 at 4 x 4; linear: 96 -> 5.
    # The file is counted by hand in `test_filesize`. In memory are the BatchNorm's two sides.
    assert replace(found.discovery.space.base_cost, size=0) == Cost(
        macs=4 * 3 * 9 * 64 + 6 * 4 * 9 * 16 + 96 * 5,
        params=4 * 3 * 9 + 2 * 4 + (6 * 4 * 9 + 6) + (96 * 5 + 5),
        activations=4 * 64 + 6 * 16 + 5,
        memory=4 * (4 + 4) * 64,
    )
    # With 3 and 2 channels left.
    assert replace(found.discovery.space.cost_of_widths([3, 2]), size=0) == Cost(
        macs=3 * 3 * 9 * 64 + 2 * 3 * 9 * 16 + 32 * 5,
        params=3 * 3 * 9 + 2 * 3 + (2 * 3 * 9 + 2) + (32 * 5 + 5),
        activations=3 * 64 + 2 * 16 + 5,
        memory=4 * (3 + 3) * 64,
    )


def test_heads_by_hand() -> None:
    """A class token and 4 patches, 6 heads of size 2, 12 hidden channels; then 2 heads and 3."""
    space = discovered("vit").discovery.space
    patches, classes = 3 * 4 * 4 * 12 * 4, 12 * 5
    whole = 5 * 12 * 36 + 2 * 5 * 5 * 12 + 5 * 12 * 12 + 2 * 5 * 12 * 12
    cut = 5 * 12 * 12 + 2 * 5 * 5 * 4 + 5 * 4 * 12 + 2 * 5 * 12 * 3
    assert space.base_cost.macs == patches + whole + classes
    assert space.cost_of_widths([2, 3]).macs == patches + cut + classes


def test_costs_are_told_by_module() -> None:
    terms = {term.name: term for term in discovered("plain").discovery.space.terms}
    cost = terms["conv2"].evaluate({"conv1": 4, "conv2": 6})
    assert cost == Cost(macs=6 * 4 * 9 * 16, params=6 * 4 * 9 + 6, activations=6 * 16)
    assert terms["bn1"].evaluate({"conv1": 3, "conv2": 6}).params == 6


def test_a_module_that_is_called_twice_costs_twice_but_has_its_parameters_once() -> None:
    space = discovered("shared_module").discovery.space
    shared = next(term for term in space.terms if term.name == "shared")
    cost = shared.evaluate({"stem": 5})
    assert cost == Cost(macs=2 * 5 * 5 * 9 * 64, params=5 * 5 * 9 + 5, activations=2 * 5 * 64)


def test_counting_does_not_depend_on_batch_size_or_leave_traces() -> None:
    model, case = CASES["residual"].model().train(), CASES["residual"]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert count_macs(model, case.example(2)) == count_macs(model, case.example(5))
    assert model.training
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
