"""Compensated weights against least squares done otherwise."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evosearch.refit import compensation
from evosearch.refit.compensated_error import compensated_error
from evosearch.refit.compensation import RIDGE
from evosearch.refit.norms import recalibrate
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import compact, dropped_positions
from evosearch.surgery.tracing.export import trace


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Returns samples `(n, 6)` with correlated columns, their covariance, and a weight."""
    rng = torch.Generator().manual_seed(seed)
    mixing = torch.randn(6, 6, generator=rng, dtype=torch.float64)
    samples = torch.randn(500, 6, generator=rng, dtype=torch.float64) @ mixing
    samples = samples - samples.mean(0)
    weight = torch.randn(3, 6, generator=rng, dtype=torch.float64)
    return samples, samples.T @ samples / len(samples), weight


def test_refit_is_least_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compensation, "RIDGE", 1e-9)
    samples, covariance, weight = problem()
    kept = torch.tensor([0, 2, 5])
    outputs = samples @ weight.T
    expected = np.linalg.lstsq(samples[:, kept].numpy(), outputs.numpy(), rcond=None)[0]
    inner, cross = covariance[kept][:, kept], samples[:, kept].T @ outputs / len(samples)
    found = compensation.refit(weight[:, kept], inner, cross)
    np.testing.assert_allclose(found.numpy(), expected.T, rtol=1e-5)


def test_error_is_the_schur_complement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compensation, "RIDGE", 1e-9)
    _, covariance, weight = problem()
    kept, gone = torch.tensor([0, 2, 5]), torch.tensor([1, 3, 4])
    schur = covariance[gone][:, gone] - covariance[gone][:, kept] @ torch.linalg.solve(
        covariance[kept][:, kept], covariance[kept][:, gone]
    )
    lost = torch.trace(weight[:, gone] @ schur @ weight[:, gone].T)
    energy = torch.trace(weight @ covariance @ weight.T)
    assert compensated_error(weight, covariance, kept) == pytest.approx(float(lost / energy))


def test_compensation_never_loses_to_plain_dropping() -> None:
    for seed in range(10):
        _, covariance, weight = problem(seed)
        kept = torch.tensor([1, 2, 4])
        change = weight.clone()
        change[:, kept] = 0
        plain = float(
            ((change @ covariance) * change).sum() / ((weight @ covariance) * weight).sum()
        )
        assert compensated_error(weight, covariance, kept) <= plain


def test_with_nothing_dropped_nothing_changes() -> None:
    _, covariance, weight = problem()
    found = compensation.refit(weight, covariance, covariance @ weight.T)
    torch.testing.assert_close(found, weight)
    assert compensated_error(weight, covariance, torch.arange(6)) == pytest.approx(0, abs=1e-20)


def test_dead_inputs_keep_their_weights_and_a_twin_takes_over() -> None:
    """A zero column, and two equal ones of which one is dropped."""
    samples = torch.randn(200, 4, dtype=torch.float64)
    samples[:, 1] = 0
    samples[:, 3] = samples[:, 2]
    weight = torch.tensor([[1.0, 5.0, 2.0, 3.0]], dtype=torch.float64)
    kept = samples[:, :3]
    inner, cross = kept.T @ kept / 200, kept.T @ (samples @ weight.T) / 200
    found = compensation.refit(weight[:, :3], inner, cross)
    expected = torch.tensor([[1.0, 5.0, 5.0]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=10 * RIDGE)
    nothing = torch.zeros(3, 3, dtype=torch.float64)
    torch.testing.assert_close(
        compensation.refit(weight[:, :3], nothing, nothing[:, :1]), weight[:, :3]
    )


def test_a_system_that_float32_cannot_factor_is_solved_in_float64() -> None:
    """Whole numbers, so that they are exact; the determinant of each block is 1."""
    factors = [torch.tensor([[k, k + 1.0], [k - 1.0, k]]) for k in range(60, 130, 10)]
    system = torch.block_diag(*(factor.T @ factor for factor in factors))
    assert int(torch.linalg.cholesky_ex(system)[1]) > 0
    found = compensation.solved(system, system.sum(1, keepdim=True))
    torch.testing.assert_close(found, torch.ones_like(found), rtol=0, atol=1e-3)
    with pytest.raises(RuntimeError, match="positive-definite"):
        compensation.solved(-torch.eye(2), torch.ones(2, 1))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_float32_gives_the_weights_that_float64_gives(layout: torch.memory_format) -> None:
    """A whole pass over convolutions, a BatchNorm and a linear layer, in either layout."""
    model, mask = redundant(3)
    images = torch.randn(64, 1, 6, 6, dtype=torch.float64)
    found = trace(model, (images[:2],))
    weights = []
    for dtype in (torch.float64, torch.float32):
        base = copy.deepcopy(model).to(dtype)
        laid = images.to(dtype).contiguous(memory_format=layout)
        network = compact(base, found.groups, mask).eval()
        fitted = compensation.Compensation(base, found.layers, laid, seed=0)
        fitted.apply(network, dropped_positions(found.groups, mask))
        weights.append(network.state_dict())
    for name, exact in weights[0].items():
        torch.testing.assert_close(weights[1][name].to(exact), exact, rtol=1e-4, atol=1e-5)


def test_rescaled_rows_by_hand() -> None:
    """Two inputs of variances 1 and 4, and an output that varied by 9 where 5 are left."""
    weight = torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    inner = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64))
    found = compensation.rescaled(weight, inner, torch.tensor([9.0, 2.0], dtype=torch.float64))
    factor = (9 / 5) ** 0.5
    torch.testing.assert_close(
        found, torch.tensor([[factor, factor], [0, 0]], dtype=torch.float64)
    )


def test_rescaling_gives_outputs_their_variance_back() -> None:
    """A sum of six independent inputs, of which three go: half of its variance goes with them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 1)).double().eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(6))
        model[1].weight.fill_(1.0)
        model[1].bias.fill_(3.0)
    images = torch.randn(4000, 6, dtype=torch.float64)
    found = trace(model, (images[:2],))
    mask = Mask({"0": np.arange(6) < 3})
    drops = dropped_positions(found.groups, mask)
    target = model(images).detach()
    outputs = {}
    for rescale in (False, True):
        network = compact(model, found.groups, mask).eval()
        fitted = compensation.Compensation(model, found.layers, images, seed=0, rescale=rescale)
        fitted.apply(network, drops)
        outputs[rescale] = network(images).detach()
    assert float(outputs[False].var() / target.var()) == pytest.approx(0.5, abs=0.05)
    assert float(outputs[True].var() / target.var()) == pytest.approx(1, abs=1e-9)
    assert float(outputs[True].mean()) == pytest.approx(float(target.mean()), abs=1e-9)
    # One factor for the row, about the root of 2.
    factor = (outputs[True] - target.mean()) / (outputs[False] - target.mean())
    torch.testing.assert_close(factor, factor[:1].expand_as(factor))
    assert float(factor[0]) == pytest.approx(2**0.5, abs=0.05)


def redundant(seed: int) -> tuple[nn.Module, Mask]:
    """A network whose convolutions repeat their channels, and the mask that drops the copies."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3, stride=2, dilation=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 9, 3),
    ).double()
    with torch.no_grad():
        model[0].weight[3:] = model[0].weight[:3]
    mask = Mask({"0": np.arange(6) < 3, "3": np.ones(4, bool)})
    return model.eval(), mask


def test_redundant_channels_go_without_a_trace() -> None:
    model, mask = redundant(0)
    images = torch.randn(64, 1, 6, 6, dtype=torch.float64)
    with torch.no_grad():  # BatchNorm as compensation leaves it: the statistics of these images
        model[1].momentum = 1.0
        model[1].train()(model[0](images))
        model.eval()
    found = trace(model, (images[:2],))
    fitted = compensation.Compensation(model, found.layers, images, seed=0)
    network = compact(model, found.groups, mask).eval()
    drops = dropped_positions(found.groups, mask)

    def difference() -> float:
        change = (network(images) - model(images)).detach().abs().max()
        return float(change / model(images).detach().abs().max())

    assert difference() > 0.1
    fitted.apply(network, drops)
    assert difference() < 0.02
    assert network[1].momentum == 1.0
    assert not any(module._forward_pre_hooks for module in network.modules())
    assert not network[1].training


def test_errors_do_not_pile_up_layer_after_layer() -> None:
    """Every layer is fitted to the base network's outputs from what really reaches it."""
    torch.manual_seed(1)
    model = nn.Sequential(*[nn.Sequential(nn.Linear(12, 12), nn.ReLU()) for _ in range(4)])
    model.append(nn.Linear(12, 3)).double().eval()
    images = torch.randn(400, 12, dtype=torch.float64)
    found = trace(model, (images[:2],))
    rng = np.random.default_rng(0)
    mask = Mask({group.name: rng.permutation(group.size) < 8 for group in found.groups})
    drops = dropped_positions(found.groups, mask)
    plain = compact(model, found.groups, mask).eval()
    fitted = compact(model, found.groups, mask).eval()
    compensation.Compensation(model, found.layers, images, seed=0).apply(fitted, drops)
    target = model(images).detach()
    left = [float((n(images) - target).detach().square().mean()) for n in (plain, fitted)]
    assert left[1] < 0.25 * left[0]


class ChannelsLast(nn.Module):
    """A block of ConvNeXt's kind: linear layers on maps whose channels run last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up, self.down = nn.Conv2d(1, 5, 3), nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        return self.down(self.up(x).relu()).mean((1, 2))


class PadsInForward(nn.Module):
    """A strided convolution whose input its module pads, on one side only."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(1, 8, 3, padding=1), PadsBefore(8, 4, 3, stride=2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x).relu()).relu().mean((2, 3)))


class PadsBefore(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


class OwnNorm(nn.Module):
    """A BatchNorm of one's own, whose statistics nobody estimates anew."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.randn(channels))
        self.register_buffer("var", torch.rand(channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, self.mean, self.var)


def kept_without_copies(model: nn.Module, layer: str, reader: str, keep: int) -> Mask:
    """Makes channels of a layer repeat its first ones, and returns the mask that drops them."""
    weight, bias = model.get_submodule(layer).weight, model.get_submodule(layer).bias
    with torch.no_grad():
        for channel in range(keep, len(weight)):
            weight[channel] = weight[channel % keep]
            if bias is not None:
                bias[channel] = bias[channel % keep]
    return Mask({layer: np.arange(len(weight)) < keep})


@pytest.mark.parametrize(
    ("build", "layer", "reader", "keep"),
    [(ChannelsLast, "up", "down", 5), (PadsInForward, "stem", "body", 5)],
)
def test_layers_are_refitted_to_what_they_really_read(
    build: type[nn.Module], layer: str, reader: str, keep: int
) -> None:
    """Channels that repeat others go without a trace; a wrong patch would leave one."""
    torch.manual_seed(2)
    model = build().double().eval()
    mask = kept_without_copies(model, layer, reader, keep)
    images = torch.randn(64, 1, 8, 8, dtype=torch.float64)
    found = trace(model, (images[:2],))
    assert {group.name: group.size for group in found.groups}[layer] == 8
    groups = [group for group in found.groups if group.name == layer]
    network = compact(model, groups, mask).eval()
    expected = model(images).detach()
    before = float((network(images) - expected).detach().abs().max() / expected.abs().max())
    fitted = compensation.Compensation(model, found.layers, images, seed=0)
    fitted.apply(network, dropped_positions(groups, mask))
    left = float((network(images) - expected).detach().abs().max() / expected.abs().max())
    assert before > 0.05
    assert left < 0.1 * before


def test_a_norm_that_is_not_estimated_anew_absorbs_no_shift() -> None:
    """Inputs around 3 with hardly any spread: what counts is their mean."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 1, bias=True), nn.Conv2d(6, 4, 1, bias=False), OwnNorm(4)
    ).eval()
    with torch.no_grad():
        model[0].weight.mul_(0.01)
        model[0].bias.fill_(3.0)
    images = torch.randn(64, 1, 6, 6)
    found = trace(model, (images[:2],))
    assert [layer.norm for layer in found.layers] == [None, None]
    assert not found.layers[1].absorbs_shift
    groups = [group for group in found.groups if group.name == "0"]
    mask = Mask({"0": np.arange(6) < 3})
    network = compact(model, groups, mask).eval()
    fitted = compensation.Compensation(model, found.layers, images, seed=0)
    fitted.apply(network, dropped_positions(groups, mask))
    expected = model(images).detach()
    difference = (network(images) - expected).detach().abs().max() / expected.abs().max()
    assert difference < 0.02


class CalledTwice(nn.Module):
    """One BatchNorm after two convolutions, whose outputs lie far apart."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.between = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
        self.second, self.norm = nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.between(self.norm(self.first(x)).relu()).relu()
        return self.norm(self.second(x))


def test_a_cut_that_changes_nothing_changes_nothing_behind_a_norm_called_twice() -> None:
    torch.manual_seed(0)
    model = CalledTwice().double()
    with torch.no_grad():
        model.second.bias.add_(4)
        model.second.weight.mul_(3)
        model.between.weight[3], model.between.bias[3] = 0, -1  # a channel that is always off
    images = torch.randn(64, 1, 8, 8, dtype=torch.float64)
    recalibrate(model.eval(), [images])
    found = trace(model, (images[:2],))
    assert [layer.norm for layer in found.layers] == [None] * 3
    groups = [group for group in found.groups if group.name == "between"]
    mask = Mask({"between": np.arange(4) < 3})
    network = compact(model, groups, mask).eval()
    fitted = compensation.Compensation(model, found.layers, images, seed=0)
    fitted.apply(network, dropped_positions(groups, mask))
    expected = model(images).detach()
    difference = (network(images) - expected).detach().abs().max() / expected.abs().max()
    assert difference < 1e-9
    plain = compact(model, groups, mask).eval()
    recalibrate(plain, [images])
    torch.testing.assert_close(plain(images).detach(), expected)
