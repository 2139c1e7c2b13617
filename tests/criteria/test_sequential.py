"""LASSO selection on the network as cut so far: by hand, and against the slow way."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import lasso_path
from torch import Tensor, nn

from evosearch.criteria import sequential
from evosearch.criteria.sequential import contributions, select_by_lasso
from evosearch.refit import compensation
from evosearch.refit.compensation import Compensation
from evosearch.space.mask import Mask
from evosearch.space.space import SearchSpace
from evosearch.surgery.compaction import compact, dropped_positions
from evosearch.surgery.discovery import Discovery
from evosearch.surgery.tracing.export import trace
from evosearch.surgery.tracing.layer import Layer
from tests.criteria.toys import scores, seen


def discovered(model: nn.Module, images: Tensor) -> Discovery:
    found = trace(model, (images[:2],))
    space = SearchSpace(groups=found.groups, terms=())
    return Discovery(space=space, layers=found.layers, proofs=())


def chain(*weights: list[list[float]]) -> nn.Sequential:
    layers = [nn.Linear(len(rows[0]), len(rows), bias=False).double() for rows in weights]
    with torch.no_grad():
        for layer, rows in zip(layers, weights, strict=True):
            layer.weight.copy_(torch.tensor(rows))
    return nn.Sequential(*layers).eval()


def selected(model: nn.Module, images: Tensor, widths: list[int]) -> Mask:
    discovery = discovered(model, images)
    compensation = Compensation(model, discovery.layers, images, seed=0)
    return select_by_lasso(model, discovery, compensation, np.array(widths))


def test_a_channel_that_feeds_on_what_is_gone_is_not_chosen() -> None:
    """The second layer's channel 0 is the strongest, but lives on a channel that leaves."""
    torch.manual_seed(0)
    images = torch.randn(400, 2, dtype=torch.float64)
    model = chain([[1.0, 0.0], [0.0, 0.5]], [[0.0, 4.0], [1.0, 0.0]], [[5.0, 0.0], [0.0, 1.0]])
    # Channel 0 of the first layer gives 1 * 1 of what reads it, channel 1 0.5 * 4: that stays.
    assert selected(model, images, [1, 2])["0"].tolist() == [False, True]
    whole = scores("lasso", seen(model, images[0]), [(images, torch.zeros(400))])
    assert whole["1"][0] > whole["1"][1]
    with torch.no_grad():
        model[0].weight[0] *= 5  # now channel 0 stays, so that channel 0 of the second dies
    whole = scores("lasso", seen(model, images[0]), [(images, torch.zeros(400))])
    assert whole["1"][0] > whole["1"][1]
    found = selected(model, images, [1, 1])
    assert found["0"].tolist() == [True, False]
    assert found["1"].tolist() == [False, True]


def test_inputs_that_are_not_known_together_count_as_independent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of a very wide layer, by their variances; those of a grouped one, as variance one."""
    torch.manual_seed(0)
    images = torch.randn(300, 4, dtype=torch.float64) * torch.tensor([3.0, 1.0, 2.0, 1.0])
    eye = np.eye(4).tolist()
    model = chain(eye, [[0.5, 1.0, 1.0, 0.1]])  # contributions vary by 1.5, 1, 2 and 0.1
    for module in (sequential, compensation):
        monkeypatch.setattr(module, "MAX_INPUTS", 3)
    assert selected(model, images, [2])["0"].tolist() == [True, False, True, False]

    grouped = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.Flatten())
    with torch.no_grad():
        grouped[1].weight.copy_(torch.tensor([[1.0, 5], [1, 5], [1, 5], [1, 5]])[..., None, None])
    found = trace(grouped.eval(), (torch.randn(2, 2, 3, 3),)).groups
    widths = [group.size // 2 for group in found]
    mask = selected(grouped.eval(), torch.randn(20, 2, 3, 3), widths)
    assert list(mask.widths.values()) == widths
    assert mask[found[0].name].tolist() == [False, True]  # the same place in both conv groups


class Small(nn.Module):
    """Two convolutions in a row that are cut, the second beside a third one it is joined with."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 5, 3, padding=1)
        self.second = nn.Conv2d(5, 6, 3, padding=1)
        self.beside = nn.Conv2d(5, 3, 1)
        self.last = nn.Conv2d(9, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = torch.cat([self.second(x), self.beside(x)], 1).relu()
        return self.last(x).flatten(1)


def test_selection_is_a_lasso_on_the_channels_outputs_themselves() -> None:
    """Against sklearn on every channel's own output, position by position."""
    torch.manual_seed(1)
    model, images = Small().double().eval(), torch.randn(30, 2, 6, 6, dtype=torch.float64)
    discovery = discovered(model, images)
    groups = discovery.space.groups
    assert [group.name for group in groups] == ["first", "second", "beside"]
    compensation = Compensation(model, discovery.layers, images, seed=0)
    found = select_by_lasso(model, discovery, compensation, np.array([3, 3, 2]))
    assert found.widths == {"first": 3, "second": 3, "beside": 2}

    mask = Mask({**discovery.space.full_mask(), "first": found["first"]})
    network = compact(model, groups, mask).eval()
    read: dict[str, tuple[Layer, Tensor, Tensor]] = {}
    compensation.apply(
        network,
        dropped_positions(groups, mask),
        lambda layer, *moments: read.update({layer.module: (layer, *moments)}),
    )
    inputs: list[Tensor] = []
    handle = network.last.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with torch.no_grad():
        network(images)
        target = model(images).reshape(30, 4, -1).transpose(1, 2).flatten(0, 1)
        parts = [
            nn.functional.conv2d(inputs[0][:, [c]], model.last.weight[:, [c]]) for c in range(9)
        ]
    handle.remove()
    rows = torch.stack([part.flatten(2).transpose(1, 2).flatten(0, 1) for part in parts], 2)
    rows, target = rows - rows.mean(0), target - target.mean(0)
    left = (target - rows[:, :, 6:].sum(2)).flatten().numpy()
    inner = rows[:, :, :6].flatten(0, 1).numpy()
    (place,) = seen(model, images[0]).readers["second"]
    gram, correlation = contributions(model.last.weight.detach(), place, *read["last"][1:])
    energy = float(target.square().sum())
    np.testing.assert_allclose(gram, inner.T @ inner / energy, rtol=1e-9)
    np.testing.assert_allclose(correlation, inner.T @ left / energy, rtol=1e-9)
    assert np.abs(correlation - gram.sum(1)).max() > 0.01 * correlation.max()  # Y is not X W'
    _, path, _ = lasso_path(inner, left, eps=1e-4)
    counts = (path != 0).sum(1)
    threshold = np.sort(counts)[-3]
    assert (counts[found["second"]] >= threshold).all()
    assert (counts[~found["second"]] <= threshold).all()
