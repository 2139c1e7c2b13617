"""Scores from weights alone, by hand and against torch-pruning."""

import numpy as np
import pytest
import torch
import torch_pruning
import torchvision
from torch import nn

from evosearch.criteria.coreset import coreset_of, draw_coreset, reweighted
from tests.criteria.toys import Normed, Stream, linear_pair, scores, seen, set_weights

IMAGE = torch.randn(1, 3, 3)


def stream() -> Stream:
    model = Stream()
    set_weights(
        model,
        {
            "a": [1.0, -2.0],
            "b": [[3.0, -1.0], [0.0, 0.5]],
            "c": [[1.0, 0.0], [2.0, 0.0], [2.0, 3.0]],
        },
    )
    return model


HALF = np.sqrt([(1 + 9 + 1) / 2, (4 + 0.25) / 2])
BY_HAND = {
    "l1": [(1 + 4) / 2, (2 + 0.5) / 2],
    "l2": HALF,
    "relative_l1": [5 / 3, 2.5 / 3],
    # All weights that write: 1 2 3 1 0 .5; their median is 1, and two zeros lie under it.
    "zero_keep": [0, 2 / 3],
    # What reads: column 0 of b (3, 0) and of c (1, 2, 2); column 1 (-1, .5) and (0, 0, 3).
    "in_out_norm": [11**0.5 + 18**0.5, 4.25**0.5 + 10.25**0.5],
    "fpgm": [(9 + 9 + 2.25) ** 0.5] * 2,
    "bn_scale": [1, 1],
    "coreset": [11**0.5 * 3, 4.25**0.5 * 3],
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_stream_by_hand(name: str) -> None:
    found = scores(name, seen(stream(), IMAGE), ())
    assert list(found) == ["a"]
    np.testing.assert_allclose(found["a"], BY_HAND[name])


def test_random_draws_from_the_generator_alone() -> None:
    network = seen(stream(), IMAGE)
    first, again, other = (scores("random", network, (), seed)["a"] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert ((first >= 0) & (first < 1)).all()


def test_fpgm_sums_plain_distances() -> None:
    """Filters 0, 3 and 4 on a line: torch-pruning squares norms and would not see the sign."""
    found = scores(
        "fpgm", seen(linear_pair([[0.0], [3.0], [-4.0]], [[1.0] * 3]), torch.ones(1)), ()
    )
    np.testing.assert_allclose(found["0"], [3 + 4, 3 + 7, 4 + 7])


def test_bn_scale_and_coreset_read_batchnorm() -> None:
    model = Normed(2)
    with torch.no_grad():
        model.norm.weight.copy_(torch.tensor([-3.0, 2.0]))
        model.norm.bias.copy_(torch.tensor([1.0, 0.0]))
        model.norm.running_mean.copy_(torch.tensor([2.0, 0.0]))
        model.norm.running_var.copy_(torch.tensor([9.0, 1.0]))
        model.first.weight.fill_(1)
        model.last.weight.fill_(0)
        model.last.weight[1, 0] = 2
        model.last.weight[2, 1] = 1
    network = seen(model, torch.randn(2, 4, 4))
    np.testing.assert_allclose(scores("bn_scale", network, ())["first"], [3, 2])
    # Folded: filter 0 is -1 in 18 places with bias 1 - (-1) * 2 = 3, filter 1 is 2 with bias 0.
    expected = [(18 + 9) ** 0.5 * 6, (18 * 4) ** 0.5 * 3]
    np.testing.assert_allclose(scores("coreset", network, ())["first"], expected)


def test_a_coreset_keeps_the_function_in_expectation() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    network = seen(model, torch.randn(3))
    importance = scores("coreset", network, ())["0"]
    images = torch.randn(50, 3)
    rng = np.random.default_rng(0)
    outputs = []
    for _ in range(400):
        kept, factors = draw_coreset(importance, 4, rng)
        assert kept.sum() == 4
        assert not factors[~kept].any()
        # However the draws fall, the probabilities weigh their factors to one.
        assert (importance / importance.sum()) @ factors == pytest.approx(1)
        outputs.append(reweighted(network, {"0": factors})(images).detach())
    mean = torch.stack(outputs).mean(0)
    assert (mean - model(images)).norm() < 0.1 * (outputs[0] - model(images)).norm()
    with pytest.raises(ValueError, match="expected 3"):
        draw_coreset(np.array([1.0, 0.0, 1.0]), 3, rng)


def test_draws_are_those_of_drawing_one_by_one() -> None:
    """Frequencies and mean factors, within five standard errors of the naive loop's."""
    importance, rng = np.array([5.0, 1.0, 2.0, 0.0, 2.0]), np.random.default_rng(1)
    chances, trials = importance / 10, 4000
    found = [draw_coreset(importance, 3, rng) for _ in range(trials)]
    naive = []
    for _ in range(trials):
        counts = np.zeros(5)
        while (counts > 0).sum() < 3:
            counts[rng.choice(5, p=chances)] += 1
        shares = counts / counts.sum()
        naive.append(np.divide(shares, chances, out=np.zeros(5), where=counts > 0))
    factors = np.array([own for _, own in found])
    assert all(np.array_equal(own > 0, kept) for kept, own in found)
    for moment in (lambda x: x > 0, lambda x: x, np.square):
        ours, theirs = moment(factors), moment(np.array(naive))
        error = np.sqrt((ours.var(0) + theirs.var(0)) / trials)
        assert (np.abs(ours.mean(0) - theirs.mean(0)) <= 5 * error).all()


def test_a_coreset_of_widths_leaves_out_what_is_dead() -> None:
    model = linear_pair([[1.0], [0.0], [2.0], [1.0]], [[1.0, 1.0, 1.0, 3.0]])
    network = seen(model, torch.ones(1))
    for seed in range(20):
        mask, weighted = coreset_of(network, np.array([2]), np.random.default_rng(seed))
        assert mask.widths == {"0": 2}
        assert not mask["0"][1]
        factors = (weighted[2].weight / model[2].weight).detach().numpy()[0]
        assert np.array_equal(factors > 0, mask["0"])
        assert factors @ np.array([1, 0, 2, 3]) / 6 == pytest.approx(1)
    mask, weighted = coreset_of(network, np.array([3]), np.random.default_rng(0))
    assert mask["0"].tolist() == [True, False, True, True]
    assert torch.equal(weighted[2].weight, model[2].weight)  # nothing is lost


@pytest.mark.parametrize("name", ["l1", "l2", "bn_scale"])
def test_ranks_as_torch_pruning_does(name: str) -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).eval().double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.normal_()
    example = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    network = seen(model, example[0])
    ours = scores(name, network, ())
    power, kind = {
        "l1": (1, nn.Conv2d),
        "l2": (2, nn.Conv2d),
        "bn_scale": (1, nn.BatchNorm2d),
    }[name]
    importance = torch_pruning.importance.MagnitudeImportance(p=power, target_types=[kind])
    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=example)
    modules = {module: path for path, module in model.named_modules()}
    compared = 0
    for group in graph.get_all_groups(ignored_layers=[model.fc]):
        # Its score adds what reads the channels; Li et al. score what writes them. It counts in
        # float32: close scores may change places.
        writers = [
            item
            for item in group
            if isinstance(item.dep.target.module, kind)
            and graph.is_out_channel_pruning_fn(item.dep.handler)
        ]
        theirs = importance(writers).numpy()
        paths = {modules[item.dep.target.module] for item in writers}
        name_here = next(
            g.name
            for g in network.groups
            if any(m.tensor.rpartition(".")[0] in paths and m.dim == 0 for m in g.members)
        )
        mine = ours[name_here] ** power
        np.testing.assert_allclose(mine / mine.mean(), theirs, rtol=1e-5)
        order = np.argsort(theirs)
        assert (np.diff(mine[order]) >= -1e-6 * mine.mean()).all()
        compared += 1
    assert compared == len(network.groups)
