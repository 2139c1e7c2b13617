"""Re-estimated BatchNorm statistics against the moments of what each BatchNorm reads."""

import pytest
import torch
from torch import nn

from evosearch.refit.norms import estimating, recalibrate


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3, momentum=0.3), nn.Dropout(0.5))


def test_one_batch_leaves_its_moments_and_all_else_as_it_was() -> None:
    model = network()
    model[1].eval()
    images = torch.randn(50, 1, 4, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with estimating(model), torch.no_grad():
        assert not model[2].training
        model(images)
    read = model[0](images).detach().movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(model[1].running_mean, read.mean(0))
    torch.testing.assert_close(model[1].running_var, read.var(0))
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert model[1].momentum == 0.3
    assert [module.training for module in model] == [True, False, True]


def test_momenta_and_modes_are_put_back_when_a_pass_fails() -> None:
    model = network()
    with pytest.raises(RuntimeError), estimating(model):
        model(torch.randn(2, 9, 4, 4))
    assert model[1].momentum == 0.3
    assert all(module.training for module in model)


def test_no_batch_is_drawn_for_a_network_without_statistics() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3, track_running_stats=False))
    batches = iter([torch.randn(2, 1, 4, 4)])
    recalibrate(model, batches)
    assert len(list(batches)) == 1


class CalledTwice(nn.Module):
    """One BatchNorm that reads an image, and a quarter of it moved and stretched."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x).mean() + self.norm(3 * x[:, :, ::2, ::2] + 5).mean()


def test_calls_and_batches_count_by_how_much_they_read() -> None:
    """As the running averages of training, statistics are means over what normalises itself."""
    model = CalledTwice()
    model(torch.randn(8, 1, 4, 4))
    batches = [torch.randn(8, 1, 4, 4), 2 * torch.randn(2, 1, 4, 4) + 1]
    recalibrate(model, batches)
    read = [part for x in batches for part in (x, 3 * x[:, :, ::2, ::2] + 5)]
    counts = torch.tensor([float(part.numel()) for part in read])
    assert counts.tolist() == [128, 32, 32, 8]
    means = torch.stack([part.mean() for part in read])
    variances = torch.stack([part.var() for part in read])
    assert model.norm.num_batches_tracked == 4  # calls, whatever there were before
    torch.testing.assert_close(model.norm.running_mean[0], counts @ means / counts.sum())
    torch.testing.assert_close(model.norm.running_var[0], counts @ variances / counts.sum())


class Frozen(nn.BatchNorm2d):
    """Stays in evaluation mode whatever is asked of it, as frozen norms do."""

    def train(self, mode: bool = True) -> "Frozen":
        return super().train(False)


def test_a_norm_that_is_not_estimated_keeps_its_statistics() -> None:
    model = nn.Sequential(Frozen(1))
    model[0].running_mean.fill_(3)
    recalibrate(model, [torch.randn(4, 1, 2, 2)])
    assert float(model[0].running_mean) == 3
