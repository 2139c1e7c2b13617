"""Layers over tokens: what heads and MLPs are measured and refitted by, token for token."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evosearch.criteria.gradients import gradients
from evosearch.criteria.scored_network import ScoredNetwork
from evosearch.refit.compensation import Compensation
from evosearch.refit.gram import collect_statistics, gram_blocks
from evosearch.space.mask import ChannelGroup, Mask
from evosearch.surgery.compaction import compact, dropped_positions, masked
from evosearch.surgery.tracing.export import Trace, trace
from tests.surgery.attention import swin, vision_transformer
from tests.surgery.networks import randomized

VIT, SWIN = "encoder.layers.encoder_layer_0", "features.1.1"
BLOCKS = {
    "heads of vit": (vision_transformer, f"{VIT}.self_attention", f"{VIT}.self_attention"),
    "mlp of vit": (vision_transformer, f"{VIT}.mlp.0", f"{VIT}.mlp"),
    "heads of swin": (swin, f"{SWIN}.attn.qkv", f"{SWIN}.attn"),
    "mlp of swin": (swin, f"{SWIN}.mlp.0", f"{SWIN}.mlp"),
}
"""A network, one of its groups, and the module whose output is that of the group's reader."""
IMAGES = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(4)).double()


def prepared(build: Any, name: str) -> tuple[nn.Module, Trace, ChannelGroup]:
    model = randomized(build()).double()
    found = trace(model, (IMAGES[:2],))
    return model, found, next(group for group in found.groups if group.name == name)


def output_of(model: nn.Module, module: str) -> Tensor:
    """Returns what a module puts out, `(tokens of all images, channels)`, around its mean."""
    outputs: list[Any] = []
    hook = model.get_submodule(module).register_forward_hook(lambda *call: outputs.append(call[2]))
    with torch.no_grad():
        model(IMAGES)
    hook.remove()
    (found,) = outputs
    rows: Tensor = (found[0] if isinstance(found, tuple) else found).flatten(0, -2)
    return rows - rows.mean(0)


@pytest.mark.parametrize(("build", "name", "module"), BLOCKS.values(), ids=BLOCKS)
def test_the_quadratic_form_is_the_error_over_all_tokens(
    build: Any, name: str, module: str
) -> None:
    model, found, group = prepared(build, name)
    consumers = collect_statistics(model, [group], found.layers, [IMAGES], seed=0)
    form = gram_blocks(model, [group], consumers)[name, name]
    whole = output_of(model, module)
    for seed in range(3):
        bits = np.random.default_rng(seed).permutation(group.size) < group.size // 2
        with masked(model, [group], found.layers, Mask({name: bits})):
            change = output_of(model, module) - whole
        error = float(change.square().sum() / whole.square().sum())
        assert (~bits) @ form @ (~bits) == pytest.approx(error)


@pytest.mark.parametrize(("build", "name", "module"), BLOCKS.values(), ids=BLOCKS)
def test_a_channel_that_repeats_another_goes_without_a_trace(
    build: Any, name: str, module: str
) -> None:
    model, found, group = prepared(build, name)
    keep = group.size // 2
    parameters = dict(model.named_parameters())
    writers = [m for m in group.members if m.dim == 0 or "table" in m.tensor]
    with torch.no_grad():
        for member in writers:
            if member.tensor in parameters:
                index = torch.from_numpy(group.index(member))
                of_channels = parameters[member.tensor].movedim(member.dim, 0)
                of_channels[index[keep:]] = of_channels[index[: group.size - keep]]
    mask = Mask({name: np.arange(group.size) < keep})
    network = compact(model, [group], mask).eval()
    whole, plain = output_of(model, module), output_of(network, module)
    fitted = Compensation(model, found.layers, IMAGES, seed=0)
    fitted.apply(network, dropped_positions([group], mask))
    before, left = ((found - whole).abs().max() for found in (plain, output_of(network, module)))
    assert before > 0.05 * whole.abs().max()
    assert left < 0.1 * before


@pytest.mark.parametrize(("build", "name", "module"), BLOCKS.values(), ids=BLOCKS)
def test_gates_of_a_group_are_those_of_its_output(build: Any, name: str, module: str) -> None:
    """With all gates of a reader scaled alike, its output without the bias is scaled alike."""
    model, found, group = prepared(build, name)
    network = ScoredNetwork(model=model, groups=[group], layers=found.layers)
    labels = torch.arange(len(IMAGES)) % 5
    gates = gradients(network, [(IMAGES, labels)]).gates[name][0].sum(1)

    scales = torch.ones(len(IMAGES), dtype=torch.float64, requires_grad=True)
    projection = model.get_submodule(module)
    bias = next(
        p
        for n, p in projection.named_parameters()
        if n in ("out_proj.bias", "proj.bias", "3.bias")
    )

    def scaled(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        own = output[0] if isinstance(output, tuple) else output
        shape = len(IMAGES), *[1] * (own.ndim - 1)
        own = (own - bias) * scales.reshape(shape) + bias
        return (own, *output[1:]) if isinstance(output, tuple) else own

    hook = projection.register_forward_hook(scaled)
    losses = network.losses(model(IMAGES), labels)
    (expected,) = torch.autograd.grad(losses.sum(), scales)
    hook.remove()
    torch.testing.assert_close(gates, expected)
