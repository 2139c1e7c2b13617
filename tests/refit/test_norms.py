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
