"""A slice computes what the compact network does, and its gradients go where it was read from."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evosearch.models.copying import copied
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import compact
from evosearch.surgery.discovery import Discovery
from evosearch.surgery.slicing import Slice
from tests.surgery.cases import discovered, random_masks
from tests.surgery.trainable import BUILDS, built, example, found

OPERATORS = ("flatten", "grouped_whole", "reused_weight", "transposed_groups")


def whole(name: str) -> tuple[nn.Module, Tensor, Discovery]:
    """Returns a network in float64, images, and its groups."""
    if name in BUILDS:
        return built(name).double(), example(name)[0].double(), found(name)
    case = discovered(name)
    return copied(case.model).double(), case.example[0].double(), case.discovery


def placed(
    model: nn.Module, discovery: Discovery, mask: Mask, small: nn.Module
) -> dict[str, Tensor]:
    """Returns a compact network's gradients at their places in the whole one, zero elsewhere.

    Places come from the groups' members, position by position.
    """
    names = dict(model.named_parameters(remove_duplicate=False))
    kept = {name: [np.arange(n) for n in tensor.shape] for name, tensor in names.items()}
    for group in discovery.space.groups:
        for member in group.members:
            if member.tensor in names:
                gone = group.index(member)[~mask[group.name]].flatten()
                axes = kept[member.tensor]
                axes[member.dim] = np.setdiff1d(axes[member.dim], gone)
    # Of a tensor with several names the groups know one.
    shapes = {name: tuple(len(axis) for axis in axes) for name, axes in kept.items()}
    compact_ones = dict(small.named_parameters(remove_duplicate=False))
    result = {}
    for name, tensor in model.named_parameters():
        alike = [other for other in names if names[other] is tensor]
        fitting = [other for other in alike if shapes[other] == compact_ones[name].shape]
        full, own = np.zeros(tensor.shape), compact_ones[name].grad
        if own is not None:
            full[np.ix_(*kept[fitting[0]])] = own.numpy()
        result[name] = torch.from_numpy(full)
    return result


@pytest.mark.parametrize("name", [*BUILDS, *OPERATORS])
def test_gradients_are_the_compact_networks_own_at_their_places(name: str) -> None:
    model, images, discovery = whole(name)
    for mask in random_masks(discovery.space, 2):
        small = compact(model, discovery.space.groups, mask).train()
        model.zero_grad()
        network = Slice(model, discovery.space.groups, mask)
        torch.manual_seed(1)  # of dropout
        output = network(images)
        torch.manual_seed(1)
        expected = small(images)
        assert isinstance(output, Tensor)
        assert torch.equal(output, expected)
        for one in (output, expected):
            one.square().mean().backward()  # type: ignore[no-untyped-call]
        places = placed(model, discovery, mask, small)
        for key, parameter in model.named_parameters():
            got = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            assert torch.equal(got, places[key]), key


def test_a_slice_reads_the_weights_of_the_moment_and_leaves_buffers_alone() -> None:
    model, images, discovery = whole("resnet")
    mask = random_masks(discovery.space, 2)[1]
    network = Slice(model, discovery.space.groups, mask)
    before = network(images)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    after = network(images)
    assert torch.equal(after, compact(model, discovery.space.groups, mask).train()(images))
    assert not torch.equal(before, after)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, buffers[name])


def test_a_slice_begins_as_its_start_and_takes_over_what_the_whole_network_changes() -> None:
    model, images, discovery = whole("resnet")
    groups, mask = discovery.space.groups, random_masks(discovery.space, 2)[1]
    start = compact(model, groups, mask)
    with torch.no_grad():
        for parameter in start.parameters():
            parameter.add_(torch.randn_like(parameter))
    begun = {name: parameter.clone() for name, parameter in start.named_parameters()}
    network = Slice(model, groups, mask, start=copied(start))
    torch.testing.assert_close(network(images), start.train()(images))
    before = compact(model, groups, mask)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    after = dict(compact(model, groups, mask).named_parameters())
    for name, old in before.named_parameters():
        expected = begun[name] + (after[name] - old)
        torch.testing.assert_close(network.weights()[name], expected)


def test_a_start_can_have_weights_that_are_no_numbers() -> None:
    """Such as a mask of attention, which does not learn."""
    model = nn.Sequential(nn.Linear(2, 2))
    model.register_parameter("bar", nn.Parameter(torch.tensor([0, -torch.inf])))
    network = Slice(model, (), Mask({}), start=copied(model))
    assert network.weights()["bar"].tolist() == [0, -torch.inf]


def test_modules_that_are_to_evaluate_do() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(0.5), nn.Flatten())
    images = torch.randn(2, 3, 4, 4)
    assert torch.equal(Slice(model, (), Mask({}), evaluating=["1"])(images), model.eval()(images))
