"""torch-pruning as an oracle, on the networks where it is right (shared/research, section 4)."""

from collections import defaultdict

import pytest
import torch
import torch_pruning
import torchvision
from torch import nn

from evosearch.surgery.tracing.export import trace

Site = tuple[str, int]
"""A convolution or linear layer, and one of its output channels."""


def ours(model: nn.Module, example: torch.Tensor) -> set[frozenset[Site]]:
    """Returns which output channels go together, for every channel that may go."""
    found = trace(model, (example,))
    weights = {layer.weight: layer.module for layer in found.layers}
    classes: dict[tuple[str, int], set[Site]] = defaultdict(set)
    for group in found.groups:
        for member in group.members:
            if member.dim == 0 and member.tensor in weights:
                for channel, positions in enumerate(group.index(member)):
                    classes[group.name, channel] |= {
                        (weights[member.tensor], int(p)) for p in positions
                    }
    return {frozenset(sites) for sites in classes.values()}


def theirs(model: nn.Module, example: torch.Tensor) -> set[frozenset[Site]]:
    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=example)
    names = {module: name for name, module in model.named_modules()}
    last = list(names)[-1]
    classes: dict[tuple[int, int], set[Site]] = defaultdict(set)
    for number, group in enumerate(graph.get_all_groups(ignored_layers=[last])):
        for item in group:
            module = item.dep.target.module
            writes = graph.is_out_channel_pruning_fn(item.dep.handler)
            if writes and isinstance(module, nn.Conv2d | nn.Linear):
                for index, root in zip(item.idxs, item.root_idxs, strict=True):
                    classes[number, root].add((names[module], index))
    return {frozenset(sites) for sites in classes.values()}


@pytest.mark.parametrize("name", ["resnet18", "vgg16_bn", "mobilenet_v2"])
def test_the_same_output_channels_go_together(name: str) -> None:
    model = torchvision.models.get_model(name, weights=None).eval()
    example = torch.randn(2, 3, 64, 64)
    assert ours(model, example) == theirs(model, example)
