"""The two-step Gram matrices against the layer errors that they stand for."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evosearch.refit import gram
from evosearch.refit.gram import channel_gram, collect_statistics, gram_blocks
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import masked
from evosearch.surgery.tracing.export import Trace, trace
from evosearch.surgery.tracing.layer import Layer


class Chain(nn.Module):
    """conv -> BN -> ReLU -> conv with bias -> ReLU -> flatten -> linear without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 5, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(5)
        self.second = nn.Conv2d(5, 4, 3, stride=2, padding=1)
        self.last = nn.Linear(4 * 9, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)))
        x = F.relu(self.second(x))
        return self.last(torch.flatten(x, 1))


class Concat(nn.Module):
    """Two branches that one convolution reads together, and one of them another reads too."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(2, 3, 1)
        self.right = nn.Conv2d(2, 4, 1)
        self.both = nn.Conv2d(7, 2, 1)
        self.alone = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left(x), self.right(x)
        return self.both(torch.cat([left, right], 1)) + self.alone(left)


def prepared(model: nn.Module, images: Tensor) -> tuple[Trace, dict[str, gram.Consumer]]:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    found = trace(model, (images[:2],))
    return found, collect_statistics(model.eval(), found.groups, found.layers, [images], seed=0)


def test_the_quadratic_form_is_the_layer_error() -> None:
    """dE = mean |W'x - Wx|^2 / energy, around the mean where a bias absorbs the shift."""
    images = torch.randn(20, 2, 6, 6, dtype=torch.float64)
    model = Chain().double()
    found, consumers = prepared(model, images)
    blocks = gram_blocks(model, found.groups, consumers)
    assert {group.name for group in found.groups} == {"first", "second"}
    rng = np.random.default_rng(0)
    for group, reader, centred in (("first", "second", True), ("second", "last", False)):
        channels = next(g for g in found.groups if g.name == group)
        for _ in range(5):
            bits = rng.random(channels.size) < 0.5
            dropped = (~bits).astype(float)
            outputs: list[Tensor] = []
            hook = model.get_submodule(reader).register_forward_hook(
                lambda _module, _inputs, output: outputs.append(output.detach())  # noqa: B023
            )
            model(images)
            with masked(model, [channels], found.layers, Mask({group: bits})):
                model(images)
            hook.remove()
            whole, less = (o.movedim(1, -1).flatten(0, -2) for o in outputs)
            if centred:
                whole, less = whole - whole.mean(0), less - less.mean(0)
            else:
                assert model.get_submodule(reader).bias is None
            error = float((whole - less).square().sum(1).mean())
            energy = float(whole.square().sum(1).mean())
            assert dropped @ blocks[group, group] @ dropped == pytest.approx(error / energy)


def test_groups_sum_over_consumers_and_share_blocks_where_one_reads_both() -> None:
    images = torch.randn(30, 2, 4, 4)
    model = Concat()
    found, consumers = prepared(model, images)
    blocks = gram_blocks(model, found.groups, consumers)
    assert set(blocks) == {("left", "left"), ("right", "right"), ("left", "right")}

    def normalised(reader: str) -> np.ndarray:
        whole = channel_gram(model.get_submodule(reader).weight, consumers[reader].covariance)
        return whole / whole.sum()

    both, alone = normalised("both"), normalised("alone")
    np.testing.assert_allclose(blocks["left", "left"], both[:3, :3] + alone)
    np.testing.assert_allclose(blocks["left", "right"], both[:3, 3:])
    np.testing.assert_allclose(blocks["right", "right"], both[3:, 3:])


def test_channel_gram_by_hand() -> None:
    """Two inputs, one output: W = (2, 3), S = ((1, .5), (.5, 4))."""
    covariance = torch.tensor([[1.0, 0.5], [0.5, 4.0]], dtype=torch.float64)
    found = channel_gram(torch.tensor([[2.0, 3.0]]), covariance)
    np.testing.assert_allclose(found, [[4.0, 3.0], [3.0, 36.0]])
    diagonal = channel_gram(torch.tensor([[2.0, 3.0]]), covariance.diagonal())
    np.testing.assert_allclose(diagonal, [4.0, 36.0])


def test_drawn_patches_and_diagonals_estimate_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randn(60, 2, 6, 6)
    model = Chain()
    found, whole = prepared(model, images)
    monkeypatch.setattr(gram, "MAX_PATCHES", 300)
    drawn = collect_statistics(model, found.groups, found.layers, [images], seed=0)
    again = collect_statistics(model, found.groups, found.layers, [images], seed=0)
    assert torch.equal(drawn["second"].covariance, again["second"].covariance)
    close = (drawn["second"].covariance - whole["second"].covariance).norm()
    assert 0 < close < 0.5 * whole["second"].covariance.norm()
    monkeypatch.setattr(gram, "MAX_PATCHES", 10**9)
    monkeypatch.setattr(gram, "MAX_INPUTS", 10)
    diagonal = collect_statistics(model, found.groups, found.layers, [images], seed=0)
    torch.testing.assert_close(
        diagonal["second"].covariance, whole["second"].covariance.diag(), rtol=1e-5, atol=1e-5
    )


def test_patches_are_never_all_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of five images at a time give the same moments, drawn or not."""
    images = torch.randn(60, 2, 6, 6, dtype=torch.float64)
    model = Chain().double()
    found, whole = prepared(model, images)
    sizes: list[int] = []
    real = gram.input_patches

    def patches(layer: Layer, inputs: Tensor) -> Tensor:
        rows = real(layer, inputs)
        if layer.operator == "conv2d":
            sizes.append(rows.numel())
        return rows

    monkeypatch.setattr(gram, "input_patches", patches)
    monkeypatch.setattr(gram, "LARGEST_PATCHES", 5 * 9 * 5 * 9)  # of five images of `second`
    parts = collect_statistics(model, found.groups, found.layers, [images], seed=0)
    assert max(sizes) == 5 * 9 * 5 * 9
    for name, consumer in whole.items():
        torch.testing.assert_close(parts[name].covariance, consumer.covariance)
        torch.testing.assert_close(parts[name].mean, consumer.mean)
    monkeypatch.setattr(gram, "MAX_PATCHES", 270)  # half of the positions
    drawn = collect_statistics(model, found.groups, found.layers, [images], seed=0)
    close = (drawn["second"].covariance - whole["second"].covariance).norm()
    assert 0 < close < 0.5 * whole["second"].covariance.norm()


def test_statistics_leave_the_model_as_it_was() -> None:
    images = torch.randn(8, 2, 6, 6)
    model = Chain().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = trace(model, (images[:2],))
    collect_statistics(model, found.groups, found.layers, [images], seed=0)
    assert model.training
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_statistics_leave_every_module_in_its_own_mode() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3)).train()
    model[1].eval()  # as a fine-tuned network with frozen statistics has it
    found = trace(model, (torch.randn(2, 1, 8, 8),))
    collect_statistics(model, found.groups, found.layers, [torch.randn(4, 1, 8, 8)], seed=0)
    assert [module.training for module in model] == [True, False, True]


@pytest.mark.parametrize("biased", [True, False])
def test_moments_are_right_far_from_zero(biased: bool) -> None:
    """Inputs around 1000 with a spread of 1: their squares have no room for it in float32."""
    torch.manual_seed(0)
    images = 1000 + torch.randn(4000, 6) @ torch.randn(6, 6)
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2, bias=biased)).eval()
    with torch.no_grad():  # the first layer passes its inputs on
        model[0].weight.copy_(torch.eye(6))
        model[0].bias.zero_()
    found = trace(model, (images[:2],))
    batches = list(images.split(500))
    consumer = collect_statistics(model, found.groups, found.layers, batches, seed=0)["1"]
    read = images.double()
    mean = read.mean(0) if biased else torch.zeros(6, dtype=torch.float64)
    expected = (read - mean).T @ (read - mean) / len(read)
    torch.testing.assert_close(consumer.mean, mean, rtol=1e-6, atol=0)
    error = (consumer.covariance - expected).abs().max() / expected.diagonal().max()
    assert error < (1e-3 if biased else 1e-6)


class Flattened(nn.Module):
    """A head that reads every position of a map, in channels of their own and together."""

    def __init__(self, sides: int) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 4, 1), nn.Conv2d(1, 2, 1)
        self.head = nn.Linear(6 * sides**2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.left(x), self.right(x)], 1).flatten(1))


def test_a_wide_head_has_the_blocks_of_its_diagonal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram, "MAX_INPUTS", 10)
    images, model = torch.randn(50, 1, 3, 3), Flattened(3).eval()
    found, consumers = prepared(model, images)
    covariance = consumers["head"].covariance
    assert covariance.shape == (54,)
    blocks = gram_blocks(model, found.groups, consumers)
    dense = {"head": replace(consumers["head"], covariance=torch.diag(covariance))}
    expected = gram_blocks(model, found.groups, dense)
    assert {*blocks} == {*expected} == {("left", "left"), ("left", "right"), ("right", "right")}
    for pair, block in expected.items():
        np.testing.assert_allclose(blocks[pair], block, rtol=1e-12)
    assert np.count_nonzero(blocks["left", "left"]) == 4
    assert not blocks["left", "right"].any()


def test_a_wide_head_takes_no_more_memory_than_its_inputs() -> None:
    """12,800 inputs: a matrix of them would take 1.2 GiB."""
    images, model = torch.randn(20, 1, 46, 46), Flattened(46).eval()
    found, consumers = prepared(model, images)
    assert consumers["head"].covariance.shape == (12_696,)
    tracemalloc.start()
    gram_blocks(model, found.groups, {"head": consumers["head"]})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**22
