"""Compensated weights against least squares done otherwise."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evosearch.refit import compensation
from evosearch.refit.compensated_error import compensated_error
from evosearch.refit.compensation import RIDGE
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
