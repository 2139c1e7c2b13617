"""What holds for every criterion: the contract, and what the formulas promise."""

import copy
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from evosearch.criteria import CRITERIA, criterion_class, score_channels
from evosearch.criteria.base import Needs, Normaliser
from evosearch.criteria.scored_network import ScoredNetwork
from evosearch.errors import InputError
from evosearch.report.criteria import criteria_table
from tests.criteria.toys import Normed, scores, seen
from tests.surgery.attention import OUT_OF_SIGHT
from tests.surgery.cases import CASES, discovered
from tests.surgery.networks import Plain, Residual, randomized

BATCHES = [
    (torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(2)), torch.arange(6) % 5),
    (torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(3)), torch.arange(3)),
]

ALONE = [name for name, kind in CRITERIA.items() if kind.needs is not Needs.TRAINING]
"""Those that need no training under a budget."""


def network_of(name: str) -> ScoredNetwork:
    found = discovered(name)
    return ScoredNetwork(
        model=copy.deepcopy(found.model),
        groups=found.discovery.space.groups,
        layers=found.discovery.layers,
    )


@pytest.mark.parametrize("name", CRITERIA)
def test_says_what_it_is(name: str) -> None:
    kind = criterion_class(name)
    assert kind.__doc__ is not None
    assert kind.__doc__.splitlines()[0].endswith(".")
    assert isinstance(kind.needs, Needs)
    assert isinstance(kind.normaliser, Normaliser)
    assert kind.source
    assert kind.coupled


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'taylor'"):
        criterion_class("tailor")


def test_normalisers() -> None:
    scores = np.array([1.0, 2.0, 3.0])
    assert Normaliser.NONE(scores).tolist() == [1, 2, 3]
    assert Normaliser.MEAN(scores).tolist() == [0.5, 1, 1.5]
    np.testing.assert_allclose(Normaliser.MAX(scores), [1 / 3, 2 / 3, 1])
    assert Normaliser.MEAN(np.zeros(2)).tolist() == [0, 0]


@pytest.mark.parametrize(
    "case",
    [name for name in CASES if CASES[name].shapes == ((3, 8, 8),) and name not in OUT_OF_SIGHT],
)
def test_scores_every_channel_of_every_network(case: str) -> None:
    network = network_of(case)
    names = list(ALONE)
    if any(m.tensor.endswith("_proj_weight") for g in network.groups for m in g.members):
        names.remove("mseb")  # its gates are behind what writes, and attention packs that
        with pytest.raises(InputError, match="writes channels out of sight"):
            scores("mseb", network, BATCHES)
    found = score_channels(names, network, BATCHES, np.random.default_rng(0))
    assert list(found) == names
    for name, groups in found.items():
        assert list(groups) == [group.name for group in network.groups], name
        for group in network.groups:
            assert groups[group.name].shape == (group.size,), name
            assert groups[group.name].dtype == np.float64, name


def test_scores_do_not_depend_on_what_else_is_asked_for() -> None:
    network = network_of("residual")
    together = score_channels(ALONE, network, BATCHES, np.random.default_rng(4))
    for name, groups in together.items():
        alone = score_channels([name], network, BATCHES, np.random.default_rng(4))[name]
        for group, values in groups.items():
            np.testing.assert_array_equal(alone[group], values, err_msg=name)


class Failing(Residual):
    """Fails in its last layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        super().forward(x)
        raise RuntimeError("failed here")


@pytest.mark.parametrize("fails", [False, True])
def test_leaves_nothing_changed_in_the_model(fails: bool) -> None:
    network = network_of("residual")
    model = network.model
    model.train()
    model.bn.eval()
    model.stem.weight.requires_grad_(False)
    model.project.weight.grad = torch.ones_like(model.project.weight)
    if fails:
        model.__class__ = Failing
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    asking = [parameter.requires_grad for parameter in model.parameters()]
    gradients = [parameter.grad is None for parameter in model.parameters()]
    for name in ALONE:
        if fails and criterion_class(name).needs is not Needs.NOTHING:
            with pytest.raises(RuntimeError, match="failed here"):
                scores(name, network, BATCHES)
        elif not fails:
            scores(name, network, BATCHES)
        assert [module.training for module in model.modules()] == modes, name
        assert [p.requires_grad for p in model.parameters()] == asking, name
        assert [p.grad is None for p in model.parameters()] == gradients, name
        assert all(torch.equal(tensors[n], v) for n, v in model.state_dict().items()), name
        for module in model.modules():
            assert not module._forward_pre_hooks, name
            assert not module._forward_hooks, name


INVARIANT = [
    *("bn_scale", "coreset", "synflow", "mean_activation", "apoz", "hrank", "class_response"),
    *("taylor", "group_fisher", "group_fisher_macs", "snip", "two_step", "lasso", "cap"),
]


@pytest.mark.parametrize("name", INVARIANT)
def test_scaling_a_channel_before_batchnorm_changes_nothing(name: str) -> None:
    """The network computes the same, so what it computes with must score the same."""
    torch.manual_seed(0)
    model = randomized(Normed()).double()
    batches = [(torch.randn(12, 2, 5, 5, dtype=torch.float64), torch.arange(12) % 3)]
    before = scores(name, seen(model, batches[0][0][0]), batches)["first"]
    with torch.no_grad():
        model.first.weight[1] *= 0.25
        model.norm.running_mean[1] *= 0.25
        model.norm.running_var[1] *= 0.25**2
    after = scores(name, seen(model, batches[0][0][0]), batches)["first"]
    np.testing.assert_allclose(after, before, rtol=1e-9)


MAGNITUDES = ["l1", "l2", "relative_l1", "in_out_norm", "fpgm"]


@pytest.mark.parametrize("name", MAGNITUDES)
def test_magnitudes_see_the_scale_that_batchnorm_hides(name: str) -> None:
    torch.manual_seed(0)
    model = randomized(Normed()).double()
    network = seen(model, torch.randn(2, 5, 5, dtype=torch.float64))
    before = scores(name, network, ())["first"]
    with torch.no_grad():
        model.first.weight[1] *= 0.25
    assert scores(name, network, ())["first"][1] < before[1]


NOT_LOWEST_WHEN_DEAD = {"random", "zero_keep", "fpgm", "hap", "mseb"}
"""A draw; zeros are what it keeps; far from the others; traces may be negative; its gate stays
where it began, over those that the loss wants smaller."""


@pytest.mark.parametrize("name", [n for n in ALONE if n not in NOT_LOWEST_WHEN_DEAD])
def test_a_dead_channel_scores_lowest(name: str) -> None:
    torch.manual_seed(0)
    model = randomized(Plain())
    with torch.no_grad():
        for tensor in (model.conv1.weight, model.bn1.weight, model.bn1.bias):
            tensor[2] = 0
        model.conv2.weight[:, 2] = 0
        model.bn1.running_mean[2] = 0
    found = scores(name, seen(model, BATCHES[0][0][0]), BATCHES)["conv1"]
    assert found[2] < np.delete(found, 2).min()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", ["residual", "depthwise", "concat", "flatten"])
def test_scores_are_the_same_on_a_gpu(case: str) -> None:
    """But for those that choose step by step, where rounding may change a step."""
    network = network_of(case)
    draws = [np.random.default_rng(0) for _ in range(2)]
    here = score_channels(ALONE, network, BATCHES, draws[0])
    there = replace(network, model=network.model.cuda())
    batches = [(images.cuda(), labels.cuda()) for images, labels in BATCHES]
    for name, groups in score_channels(ALONE, there, batches, draws[1]).items():
        steps = name in {"synflow", "two_step", "lasso", "cap", "hrank", "mseb"}
        for group, values in groups.items() if not steps else ():
            scale = np.abs(here[name][group]).max()
            np.testing.assert_allclose(
                values, here[name][group], rtol=1e-2, atol=1e-2 * scale, err_msg=name
            )


def test_a_score_that_is_not_finite_is_refused() -> None:
    network = network_of("plain")
    with torch.no_grad():
        network.model.conv1.weight[0] = torch.nan
    with pytest.raises(InputError, match="criterion 'l1': a score of group 'conv1'"):
        scores("l1", network, ())


def test_a_reader_out_of_sight_is_named() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x, self.weight)

    network = seen(nn.Sequential(nn.Linear(2, 3), Own()), torch.randn(2))
    with pytest.raises(InputError, match=r"module '1' \(Own\) reads channels out of sight"):
        scores("apoz", network, [(torch.randn(2, 2), torch.zeros(2))])


@pytest.mark.parametrize("case", OUT_OF_SIGHT)
def test_attention_that_reads_channels_with_packed_weights_is_named(case: str) -> None:
    network = network_of(case)
    for name in ("apoz", "taylor"):
        with pytest.raises(
            InputError, match=r"\(MultiheadAttention\) reads channels out of sight"
        ):
            scores(name, network, BATCHES)


def test_missing_data_and_readers_that_are_not_called_are_named() -> None:
    network = network_of("plain")
    with pytest.raises(InputError, match="criterion 'taylor' needs gradients: no batches came"):
        scores("taylor", network, ())
    network.model.conv2.forward = lambda x: nn.functional.conv2d(  # type: ignore[method-assign]
        x, network.model.conv2.weight, network.model.conv2.bias, stride=2, padding=1
    )
    network.model.forward = lambda x: network.model.linear(  # type: ignore[method-assign]
        network.model.conv2.forward(network.model.conv1(x).relu()).relu().flatten(1)
    )
    for name in ("apoz", "taylor"):
        with pytest.raises(InputError, match="group 'conv1': none of the modules that read it"):
            scores(name, network, BATCHES)


def test_the_table_shows_every_criterion() -> None:
    console = Console(width=400, record=True)
    console.print(criteria_table())
    text = console.export_text()
    for name, kind in CRITERIA.items():
        assert re.search(rf"\b{name}\b", text)
        assert kind.source.split(",")[0] in text
