"""A network that is cut group by group while it trains, each in the network as it is by then."""

from itertools import combinations, pairwise

import numpy as np
import torch
from torch import nn

from evosearch.refit.gram import collect_statistics, gram_blocks
from evosearch.run.choosing import Scorer
from evosearch.space.mask import Mask
from evosearch.space.space import SearchSpace
from evosearch.surgery.compaction import compact
from evosearch.surgery.discovery import Discovery
from evosearch.surgery.narrowing import narrow
from evosearch.surgery.tracing.export import trace
from evosearch.tasks.classification import CLASSIFICATION
from evosearch.training.recipes import PruneConfig
from tests.run.test_shrinking import QUARTER, SPACE, STEPS, Watched

IMAGES = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)).double()


def cut_groups(masks: list[Mask]) -> list[list[str]]:
    """Returns which groups each mask has fewer channels of than the one before it."""
    return [[n for n in b if b.widths[n] < a.widths[n]] for a, b in pairwise(masks)]


def test_groups_go_one_by_one_and_are_trained_between() -> None:
    watched = Watched("layerwise").run()
    masks = [*(mask for mask, _, _ in watched.left), watched.mask]
    cut = cut_groups([SPACE.full_mask(), *masks])
    order = [group.name for group in SPACE.groups]
    one_by_one = [name for names in cut for name in names]
    assert one_by_one == [name for name in order if name in one_by_one]
    assert len(one_by_one) > len(order) // 2
    assert sum(bool(names) for names in cut) >= 4  # cuts at that many moments
    *early, _ = watched.cuts
    assert all(cost.macs == in_force.bounds["macs"].high for cost, in_force in early)
    times = [t for _, _, t in watched.left]
    assert all(later - earlier >= 1 / (8 * STEPS) for earlier, later in pairwise(times))
    assert QUARTER.violation(SPACE.cost(watched.mask)) == 0


def test_all_go_before_the_first_step_where_the_pace_is_done_at_once() -> None:
    watched = Watched("layerwise", pace="start", plan="uniform", layerwise="scores").run()
    assert watched.left == []
    uniform = Watched("snip", criterion="two_step", plan="uniform").run()
    assert watched.mask.widths == uniform.mask.widths


def test_the_plan_is_in_the_state() -> None:
    watched, other = Watched("layerwise").run(), Watched("layerwise")
    state = watched.training.state()
    other.training.restore(state)
    assert other.shrinking._planned == watched.shrinking._planned != []


def scorer(layerwise: str, criterion: str) -> Scorer:
    config = PruneConfig(layerwise=layerwise, criterion=criterion)
    batches = [(IMAGES, torch.zeros(len(IMAGES), dtype=torch.long))]
    return Scorer(config=config, batches=batches, task=CLASSIFICATION, seed=0)


def discovered(model: nn.Module) -> Discovery:
    found = trace(model, (IMAGES[:2],))
    space = SearchSpace(groups=found.groups, terms=())
    return Discovery(space=space, layers=found.layers, proofs=())


def test_a_group_is_scored_in_the_network_as_cut_so_far() -> None:
    """The strongest channel of the second layer feeds on what the first has lost."""
    layers = [[[5.0, 0], [0, 0.5]], [[0, 4.0], [1.0, 0]], [[5.0, 0], [0, 1.0]]]
    model = nn.Sequential(*[nn.Linear(2, 2, bias=False).double() for _ in layers])
    with torch.no_grad():
        for layer, rows in zip(model, layers, strict=True):
            layer.weight.copy_(torch.tensor(rows))
    whole = discovered(model)
    gone = Mask({"0": np.array([True, False]), "1": np.ones(2, dtype=bool)})
    small, here = compact(model, whole.space.groups, gone), narrow(whole, gone)
    for layerwise, criterion in (("scores", "lasso"), ("scores", "two_step"), ("genetic", "l1")):
        by = scorer(layerwise, criterion)
        before = by.mask_of(model, whole, whole.space.groups[1], 1, step=0)
        after = by.mask_of(small, here, here.space.groups[1], 1, step=0)
        assert before["1"].tolist() == [True, False]
        assert after["1"].tolist() == [False, True]
        assert before.widths["0"] == 2
        assert after.widths["0"] == 1


def test_the_genetic_algorithm_finds_the_channels_of_least_two_step_error() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(2, 7), nn.ReLU(), nn.Linear(7, 3)).double()
    found = discovered(model)
    (group,) = found.space.groups
    kept = scorer("genetic", "l1").mask_of(model, found, group, 3, step=0)[group.name]
    consumers = collect_statistics(model, [group], found.layers, [IMAGES], 0)
    gram = gram_blocks(model, [group], consumers)[group.name, group.name]

    def error(gone: np.ndarray) -> float:
        return float(gram[np.ix_(gone, gone)].sum())

    every = [error(np.array(gone)) for gone in combinations(range(7), 4)]
    assert error(np.flatnonzero(~kept)) == min(every)
