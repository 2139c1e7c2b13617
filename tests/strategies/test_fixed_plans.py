"""Plans without a search: the last of each family that fits, by hand and from the definition."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evosearch.errors import InfeasibleBudget
from evosearch.space.budget import Bound, Budget
from evosearch.space.knowledge import ImportanceScores
from evosearch.space.mask import Mask
from evosearch.space.space import SearchSpace, Widths
from evosearch.strategies.fixed_plans import (
    global_mask,
    random_mask,
    relative_mask,
    triangular_mask,
    uniform_mask,
    uniform_widths,
)
from tests.strategies.problems import budget_of, chain

Plan = Callable[[SearchSpace, Budget, ImportanceScores], Mask]
PLANS = [uniform_mask, triangular_mask, global_mask, relative_mask]
PAIR = chain([4, 4])
"""MACs of widths a, b: 576 a + 144 ab + 36 b + 36 b^2 + 50."""
RAGGED = chain([15, 12, 16, 8, 12])
SCORES = {"g0": np.array([1.0, 2.0, 3.0, 10.0]), "g1": np.array([3.0, 3.0, 4.0, 6.0])}


def macs(bound: int) -> Budget:
    return Budget.of(macs=Bound(low=bound, high=bound))


def means(scores: ImportanceScores) -> ImportanceScores:
    """Returns scores in shares of their group's mean."""
    return {name: own / own.mean() for name, own in scores.items()}


def kept(mask: Mask) -> str:
    return " ".join("".join(map(str, mask[name].astype(int))) for name in mask)


def problem(
    seed: int, multiple_of: int, share: float
) -> tuple[SearchSpace, Budget, ImportanceScores]:
    rng = np.random.default_rng(seed)
    space = chain(rng.integers(2, 20, rng.integers(1, 6)).tolist(), multiple_of=multiple_of)
    # Whole numbers tie often; they would not compare exactly as means of several.
    scores = {
        name: np.ceil(rng.random(size) * 6) if multiple_of == 1 else rng.random(size)
        for name, size in space.sizes.items()
    }
    bounds = {"params": 0.6} if seed % 3 == 0 else {}
    return space, budget_of(space, macs=share, **bounds), scores


problems = st.builds(problem, st.integers(0, 10**6), st.integers(1, 5), st.floats(0, 1))


def at_ratio(space: SearchSpace, ratio: float) -> Widths:
    widths = []
    for group in space.groups:
        fitting = [w for w in group.legal_widths() if w <= ratio * group.size + 1e-9]
        widths.append(max(fitting, default=group.legal_widths()[0]))
    return np.array(widths)


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 6), st.floats(0, 1), st.booleans())
def test_is_the_last_that_fits_of_plans_that_grow_by_ratio_and_then_by_group(
    seed: int, groups: int, multiple_of: int, share: float, both: bool
) -> None:
    rng = np.random.default_rng(seed)
    space = chain(rng.integers(2, 30, groups), multiple_of=multiple_of)
    budget = budget_of(space, macs=share, **({"params": 0.5} if both else {}))
    steps = sorted(
        (Fraction(w, g.size), i, w)
        for i, g in enumerate(space.groups)
        for w in g.legal_widths()[1:]
    )
    expected = space.least_widths.copy()
    for _, group, width in steps:
        larger = expected.copy()
        larger[group] = width
        if not space.fits(larger[None], budget)[0]:
            break
        expected = larger
    found = uniform_widths(space, budget)
    np.testing.assert_array_equal(found, expected)
    # Between the plans of two neighbouring ratios, each of which is the same for all groups.
    ratios = np.unique([w / g.size for g in space.groups for w in g.legal_widths()])
    for plan in (at_ratio(space, ratio) for ratio in ratios):
        assert (plan <= found).all() or (plan >= found).all()


def test_by_hand() -> None:
    # MACs of widths a, b: 576 a + 144 ab + 36 b + 36 b^2 + 50; all channels: 32882, 30 %: 9864.
    # (4, 8) costs 9554, and (4, 9), the next ratio, 10778.
    space = chain([8, 16])
    assert space.base_cost.macs == 32882
    assert uniform_widths(space, budget_of(space, macs=1.0)).tolist() == [8, 16]
    assert uniform_widths(space, budget_of(space, macs=0.3)).tolist() == [4, 8]
    # (5, 10) is one ratio, and costs 14090; (5, 9) costs 12650.
    assert uniform_widths(space, budget_of(space, macs=14090 / 32882)).tolist() == [5, 10]
    assert uniform_widths(space, budget_of(space, macs=14089 / 32882)).tolist() == [5, 9]


def test_mask_drops_the_lowest_scores() -> None:
    space = chain([4, 4])
    scores = {"g0": np.array([3.0, 1.0, 4.0, 2.0]), "g1": np.array([1.0, 2.0, 2.0, 2.0])}
    mask = uniform_mask(space, budget_of(space, macs=0.4), scores)
    assert mask["g0"].tolist() == [True, False, True, False]
    assert mask["g1"].tolist() == [False, True, True, False]  # of equal scores the earlier stay


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (5378, "1111 1111"),
        (4000, "1111 0011"),  # rates 0 and 1/2: 3722 MACs
        (3002, "1111 0001"),
        (3001, "0111 0001"),  # the last rate is 1, so the first rises: 2282 MACs
        (842, "0001 0001"),
    ],
)
def test_triangular_by_hand(bound: int, expected: str) -> None:
    assert kept(triangular_mask(PAIR, macs(bound), SCORES)) == expected


def test_triangular_rates_are_linear_over_the_groups() -> None:
    # Rates 0, 1/4, 1/2 leave (4, 3, 2) channels at 10526 MACs; then g1 and g2 both lose one, for
    # 0, 1/2, 1 at most: 7430 MACs. Then the first rate rises, and g0 and g1 both lose one.
    space = chain([4, 4, 4])
    scores = {name: np.arange(4.0) for name in space.sizes}
    for bound, widths in [(10526, [4, 3, 2]), (10525, [4, 2, 1]), (7429, [3, 1, 1])]:
        assert space.widths(triangular_mask(space, macs(bound), scores)).tolist() == widths


@settings(deadline=None, max_examples=80)
@given(problems)
# Two groups reach a width at the same severity, but not by the rounded arithmetic of each.
@example((RAGGED, macs(119281), {name: np.ones(size) for name, size in RAGGED.sizes.items()}))
def test_triangular_is_the_lowest_severity_that_fits(
    case: tuple[SearchSpace, Budget, ImportanceScores],
) -> None:
    space, budget, scores = case
    last = max(1, len(space.groups) - 1)
    places = [Fraction(i, last) for i in range(len(space.groups))]

    def widths_at(severity: Fraction) -> list[int]:
        first, final = max(Fraction(0), severity - 1), min(Fraction(1), severity)
        widths = []
        for group, place in zip(space.groups, places, strict=True):
            room = (1 - first - (final - first) * place) * group.size
            legal = group.legal_widths()
            widths.append(max((w for w in legal if w <= room), default=legal[0]))
        return widths

    severities = {Fraction(2)}
    for group, place in zip(space.groups, places, strict=True):
        for rate in (1 - Fraction(width, group.size) for width in group.legal_widths()):
            low = rate < place
            severities.add(rate / place if low else 1 + (rate - place) / (1 - place))
    plans = np.array([widths_at(s) for s in sorted(severities)])
    expected = plans[space.fits(plans, budget)][0]
    assert space.widths(triangular_mask(space, budget, scores)).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (5378, "1111 1111"),
        (5377, "0111 1111"),
        (4225, "0011 1111"),
        # Three channels score 0.75; the group that keeps more goes first, and its later channel.
        (3073, "0011 1011"),
        (2497, "0011 0011"),
        (1993, "0001 0011"),
        (1129, "0001 0001"),
    ],
)
def test_global_by_hand(bound: int, expected: str) -> None:
    assert kept(global_mask(PAIR, macs(bound), means(SCORES))) == expected


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (5377, "0111 1111"),
        (2000, "0001 1111"),  # shares of the best: 0.1, 0.2, 0.3 against 0.5 and more
        (1921, "0001 1011"),
        (1489, "0001 0011"),
    ],
)
def test_relative_by_hand(bound: int, expected: str) -> None:
    assert kept(relative_mask(PAIR, macs(bound), SCORES)) == expected


def test_channels_between_legal_widths_go_together() -> None:
    # Legal widths are 2, 4 and 5. Means of what goes: g0 1, then (2 + 9) / 2 (of mean 6.2),
    # g1 4, then (5 + 5) / 2 (of mean 5.8), so g0, then g1, g1 and g0.
    space = chain([5, 5], multiple_of=2)
    scores = {"g0": np.array([9.0, 1, 2, 9, 10]), "g1": np.array([5.0, 4, 5, 7, 8])}
    cost = {w: space.cost_of_widths(np.array(w)).macs for w in [(5, 5), (4, 5), (4, 4), (4, 2)]}
    assert kept(global_mask(space, macs(cost[5, 5] - 1), means(scores))) == "10111 11111"
    assert kept(global_mask(space, macs(cost[4, 5] - 1), means(scores))) == "10111 10111"
    assert kept(global_mask(space, macs(cost[4, 4] - 1), means(scores))) == "10111 00011"
    assert kept(global_mask(space, macs(cost[4, 2] - 1), means(scores))) == "10001 00011"


@pytest.mark.parametrize(
    ("plan", "reference"), [(global_mask, lambda _: 1.0), (relative_mask, np.max)]
)
@settings(deadline=None, max_examples=80)
@given(problems)
def test_the_lowest_are_dropped_until_the_budget_holds(
    plan: Plan,
    reference: Callable[[np.ndarray], float],
    case: tuple[SearchSpace, Budget, ImportanceScores],
) -> None:
    # From all channels, one legal step at a time: the group whose next channels have the lowest
    # mean goes, of equals the one of highest keep ratio, then the later one.
    space, budget, scores = case
    widths = space.full_widths.copy()
    while not space.fits(widths[None], budget)[0]:
        steps = []
        for i, (group, width) in enumerate(zip(space.groups, widths, strict=True)):
            lower = [w for w in group.legal_widths() if w < width]
            if lower:
                own = np.sort(scores[group.name] / reference(scores[group.name]))[::-1]
                mean = own[lower[-1] : width].mean()
                steps.append((-mean, width / group.size, i, lower[-1]))
        _, _, index, width = max(steps)
        widths[index] = width
    expected = space.top_channels(widths, scores)
    assert plan(space, budget, scores) == expected


def test_equal_means_leave_one_step_at_a_time() -> None:
    # The mean of three scores of 0.1 is not 0.1, so means of equal scores need not be equal.
    space = chain([23], multiple_of=3)
    almost = macs(space.base_cost.macs - 1)
    assert global_mask(space, almost, {"g0": np.full(23, 0.1)}).widths == {"g0": 21}


def test_equal_scores_make_global_uniform() -> None:
    space = chain([8, 16])
    scores = {name: np.ones(size) for name, size in space.sizes.items()}
    for share in (0.2, 0.3, 0.5, 0.8):
        budget = budget_of(space, macs=share)
        excess = space.widths(global_mask(space, budget, scores)) - uniform_widths(space, budget)
        assert excess.min() == 0  # at most a part of the next common step comes on top
        assert excess.max() <= 1


@pytest.mark.parametrize("plan", PLANS)
@settings(deadline=None, max_examples=40)
@given(problems, st.floats(0, 1))
def test_plans_of_smaller_budgets_are_subsets(
    plan: Plan, case: tuple[SearchSpace, Budget, ImportanceScores], share: float
) -> None:
    space, budget, scores = case
    smaller = budget_of(space, macs=share * budget.bounds["macs"].high / space.base_cost.macs)
    if "params" in budget.bounds:
        smaller = Budget.of(macs=smaller.bounds["macs"], params=budget.bounds["params"])
    large, small = plan(space, budget, scores), plan(space, smaller, scores)
    space.check(large)
    assert budget.violation(space.cost(large)) == 0
    assert all((small[name] <= large[name]).all() for name in large)


@settings(deadline=None, max_examples=80)
@given(problems, st.integers(0, 100))
def test_random_masks_use_the_budget(
    case: tuple[SearchSpace, Budget, ImportanceScores], seed: int
) -> None:
    space, budget, _ = case
    mask = random_mask(space, budget, np.random.default_rng(seed))
    space.check(mask)
    assert budget.violation(space.cost(mask)) == 0
    # The next larger common factor widens one group by one step, and does not fit.
    widths, grown = space.widths(mask), []
    for i, group in enumerate(space.groups):
        wider = [w for w in group.legal_widths() if w > widths[i]]
        if wider:
            grown.append(widths.copy())
            grown[-1][i] = wider[0]
    assert not grown or not space.fits(np.stack(grown), budget).all()


def test_random_masks_differ_in_widths_and_channels() -> None:
    rng = np.random.default_rng(0)
    space = chain([8, 8, 8])
    masks = [random_mask(space, budget_of(space, macs=0.4), rng) for _ in range(400)]
    assert len({tuple(mask.widths.values()) for mask in masks}) > 40
    shares = np.mean([[mask[name] for name in mask] for mask in masks], axis=0)
    assert np.abs(shares - shares.mean(axis=1, keepdims=True)).max() < 0.1  # no channel preferred


@pytest.mark.parametrize("plan", PLANS)
def test_an_unreachable_budget_is_refused(plan: Plan) -> None:
    space = chain([8, 8], min_keep=4)
    scores = {name: np.ones(size) for name, size in space.sizes.items()}
    with pytest.raises(InfeasibleBudget):
        plan(space, Budget.of(macs=Bound(low=1, high=space.smallest_cost.macs - 1)), scores)
