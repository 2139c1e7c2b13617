"""Search spaces: exact costs, legality, repair, files."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evosearch.errors import InfeasibleBudget, InputError
from evosearch.space.budget import Bound, Budget
from evosearch.space.cost import Cost
from evosearch.space.costform import FORMS, CostTerm, Monomial, total
from evosearch.space.mask import ChannelGroup, Mask, Member
from evosearch.space.space import FrozenGroup, SearchSpace
from evosearch.space.text import load_space, space_to_toml
from tests.strategies.problems import budget_of, chain

TWO = SearchSpace(
    groups=(
        ChannelGroup("a", 3, (Member(tensor="conv.weight", dim=0, positions=(0, 1, 2)),)),
        ChannelGroup("b", 4, min_keep=2),
    ),
    terms=(
        CostTerm(
            name="conv",
            macs=(Monomial(10, ("a",)),),
            params=(Monomial(5, ("a",)), Monomial(1)),
            activations=(Monomial(2, ("a",)),),
        ),
        CostTerm(
            name="next",
            macs=(Monomial(7, ("b", "a")), Monomial(3, ("b", "b")), Monomial(100)),
            params=(Monomial(7, ("a", "b")),),
        ),
    ),
    frozen=(FrozenGroup(name="fc", size=10, reason="network output"),),
    reference={"model": {"build": "x:y", "input": [3, 8, 8]}},
)


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    sizes = draw(st.lists(st.integers(1, 20), min_size=1, max_size=5))
    least = draw(st.integers(1, min(sizes)))
    return chain(sizes, multiple_of=draw(st.integers(1, 5)), min_keep=least)


@st.composite
def spaces_with_budgets(draw: st.DrawFn) -> tuple[SearchSpace, Budget]:
    space = draw(spaces())
    shares = {"macs": draw(st.floats(0, 1))}
    if draw(st.booleans()):
        shares["params"] = draw(st.floats(0, 1))
    return space, budget_of(space, **shares)


def random_mask(space: SearchSpace, rng: np.random.Generator) -> Mask:
    """Returns a mask that need not be legal, nor fit anything."""
    share = rng.random()
    return Mask({g.name: rng.random(g.size) < share for g in space.groups})


def test_cost_by_hand() -> None:
    assert TWO.cost_of_widths(np.array([2, 3])) == Cost(
        macs=20 + 42 + 27 + 100, params=11 + 42, activations=4
    )
    assert TWO.base_cost == Cost(macs=30 + 84 + 48 + 100, params=16 + 84, activations=6)
    assert TWO.smallest_cost == Cost(macs=10 + 14 + 12 + 100, params=6 + 14, activations=2)


@given(spaces(), st.integers(0, 10**6))
def test_costs_of_many_plans_are_the_sums_of_terms(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    plans = np.stack([rng.integers(1, g.size + 1, 5) for g in space.groups], axis=1)
    costs = space.costs(plans)
    for i, plan in enumerate(plans):
        widths = dict(zip(space.sizes, plan.tolist(), strict=True))
        parts = [term.evaluate(widths) for term in space.terms]
        for name in FORMS:
            assert costs[name][i] == sum(getattr(part, name) for part in parts)
        assert costs["size"][i] == sum(total(term.bytes, widths) for term in space.size)
        alive = [total(term.bytes, widths) for term in space.memory]
        assert costs["memory"][i] == max(alive, default=0)
        assert costs["latency"][i] == 0


@given(spaces())
def test_cost_of_the_full_mask_is_the_base_cost(space: SearchSpace) -> None:
    mask = space.full_mask()
    space.check(mask)
    assert space.cost(mask) == space.base_cost
    np.testing.assert_array_equal(space.widths(mask), space.full_widths)


def test_a_large_cost_does_not_overflow() -> None:
    space = SearchSpace(
        groups=(ChannelGroup("a", 4096),),
        terms=(CostTerm(name="conv", macs=(Monomial(9 * 512 * 512, ("a", "a")),)),),
    )
    assert space.base_cost.macs == 9 * 512 * 512 * 4096**2


# Legality


@settings(deadline=None)
@given(spaces_with_budgets(), st.integers(0, 10**6))
def test_repair_is_legal_within_the_budget_and_idempotent(
    case: tuple[SearchSpace, Budget], seed: int
) -> None:
    space, budget = case
    rng = np.random.default_rng(seed)
    mask = random_mask(space, rng)
    repaired = space.repair(mask, rng, budget)
    space.check(repaired)
    assert budget.violation(space.cost(repaired)) == 0
    assert space.repair(repaired, rng, budget) == repaired


@given(spaces_with_budgets(), st.integers(0, 10**6))
def test_repair_only_drops_where_widths_shrink(
    case: tuple[SearchSpace, Budget], seed: int
) -> None:
    space, budget = case
    rng = np.random.default_rng(seed)
    mask = random_mask(space, rng)
    repaired = space.repair(mask, rng, budget)
    for group in space.groups:
        before, after = mask[group.name], repaired[group.name]
        if after.sum() <= before.sum():
            assert not np.any(after & ~before)
        else:
            assert not np.any(before & ~after)


@given(spaces_with_budgets(), st.integers(0, 10**6))
def test_samples_are_legal_and_within_the_budget(
    case: tuple[SearchSpace, Budget], seed: int
) -> None:
    space, budget = case
    mask = space.sample(np.random.default_rng(seed), budget)
    space.check(mask)
    assert budget.violation(space.cost(mask)) == 0


def test_samples_differ_and_reach_all_channels() -> None:
    space = chain([6, 6])
    rng = np.random.default_rng(0)
    samples = [space.sample(rng, budget_of(space, macs=0.6)) for _ in range(200)]
    assert len(set(samples)) > 100
    for name in space.sizes:
        assert np.all(np.mean([mask[name] for mask in samples], axis=0) > 0.2)


@given(spaces_with_budgets())
def test_fitted_widths_leave_no_room_for_one_more_step(case: tuple[SearchSpace, Budget]) -> None:
    space, budget = case
    widths = space.fit_widths(space.full_widths, budget)
    for i, group in enumerate(space.groups):
        wider = [w for w in group.legal_widths() if w > widths[i]]
        if wider:
            larger = widths.copy()
            larger[i] = wider[0]
            assert not space.fits(larger[None], budget)[0]


@given(spaces(), st.integers(0, 10**6))
def test_legal_widths_that_fit_come_back_unchanged(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    widths = np.array([rng.choice(g.legal_widths()) for g in space.groups])
    own = space.cost_of_widths(widths)
    budget = Budget.of(macs=Bound(low=own.macs, high=own.macs))
    np.testing.assert_array_equal(space.fit_widths(widths, budget), widths)


def test_an_unreachable_budget_names_the_smallest_cost_and_what_holds_it_up() -> None:
    budget = Budget.of(macs=Bound(low=60, high=135))
    with pytest.raises(InfeasibleBudget) as error:
        TWO.fit_widths(TWO.full_widths, budget)
    for part in ("budget of 270 FLOPs", "smallest reachable network has 272 FLOPs", "next 252"):
        assert part in str(error.value)
    TWO.require_reachable(Budget.of(macs=Bound(low=136, high=136)))
    with pytest.raises(InfeasibleBudget, match="120 FLOPs"):  # the lower end counts
        TWO.require_reachable(Budget.of(macs=Bound(low=60, high=200)))


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        ({"a": [1, 1, 1]}, "names groups"),
        ({"a": [1, 1, 1], "b": [1, 1, 1]}, "'b' has 3 channels, expected 4"),
        ({"a": [1, 1, 1], "b": [1, 0, 0, 0]}, "keeps 1 channels of group 'b'; legal widths are 2"),
        ({"a": [0, 0, 0], "b": [1, 1, 1, 1]}, "keeps 0 channels of group 'a'"),
    ],
)
def test_illegal_masks_are_named(bits: dict[str, list[int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TWO.check(Mask({name: np.array(own, dtype=bool) for name, own in bits.items()}))


def test_top_channels_keeps_the_highest_and_of_equals_the_earlier() -> None:
    scores = {"a": np.array([0.0, 2.0, 1.0]), "b": np.array([1.0, 1.0, 1.0, 5.0])}
    mask = TWO.top_channels(np.array([2, 3]), scores)
    assert mask["a"].tolist() == [False, True, True]
    assert mask["b"].tolist() == [True, True, False, True]


# Files


def test_file_round_trip(tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(space_to_toml(TWO))
    again = load_space(tmp_path / "space.toml")
    assert again == TWO
    assert again.digest == TWO.digest


def test_members_survive_as_ranges(tmp_path: Path) -> None:
    members = (
        Member(tensor="w", dim=1, positions=(5, 0, 1, 9, 10, 11)),
        Member(tensor="v", dim=0, positions=()),
    )
    space = SearchSpace(groups=(ChannelGroup("g", 3, members[:1]),), terms=TWO.terms[:0])
    (tmp_path / "space.toml").write_text(space_to_toml(space))
    assert load_space(tmp_path / "space.toml").groups == space.groups


def test_digest_changes_with_groups_and_costs_only() -> None:
    renamed = SearchSpace(groups=TWO.groups, terms=TWO.terms, reference={"model": {}})
    assert renamed.digest == TWO.digest
    wider = SearchSpace(groups=(TWO.groups[0], ChannelGroup("b", 5, min_keep=2)), terms=TWO.terms)
    dearer = SearchSpace(groups=TWO.groups, terms=TWO.terms[:1])
    assert len({TWO.digest, wider.digest, dearer.digest}) == 3


def test_the_digest_is_of_every_field_whatever_it_prints_as() -> None:
    group = ChannelGroup("g", 3, (Member(tensor="w", dim=0, positions=(0, 1, 2)),))
    text = (
        "((ChannelGroup(name='g', size=3, members=(Member(tensor='w', dim=0,"
        " positions=(0, 1, 2)),), min_keep=1, multiple_of=1),),"
        " (CostTerm(name='w', macs=(Monomial(coefficient=2, groups=('g',)),), params=(),"
        " activations=()),))"
    )
    term = CostTerm(name="w", macs=(Monomial(2, ("g",)),))
    space = SearchSpace(groups=(group,), terms=(term,))
    assert space.digest == sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("min_keep = 2", "min_keep = 1", "were edited"),
        ("[traced]", "[traced", "not a saved search space"),
        ("digest", "digset", "not a saved search space"),
    ],
)
def test_edited_files_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "space.toml"
    path.write_text(space_to_toml(TWO))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=message):
        load_space(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a saved search space"):
        load_space(tmp_path / "none.toml")


def test_prunable_share() -> None:
    constant = CostTerm(name="fixed", macs=(Monomial(262),))
    assert TWO.prunable_share == 1.0  # every layer has a prunable side
    assert SearchSpace(groups=TWO.groups, terms=(*TWO.terms, constant)).prunable_share == 0.5


@given(spaces(), st.integers(0, 10**6))
def test_cost_depends_on_widths_alone(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = random_mask(space, rng)
    shuffled = Mask({name: rng.permutation(own) for name, own in mask.items()})
    assume(shuffled != mask)
    assert space.cost(shuffled) == space.cost(mask)


def test_bytes_survive_the_file_and_leave_the_digest(tmp_path: Path) -> None:
    space = chain([4, 6, 5])
    (tmp_path / "space.toml").write_text(space_to_toml(space))
    assert load_space(tmp_path / "space.toml") == space
    bare = replace(space, size=(), memory=())
    assert space.digest == bare.digest
    assert bare.base_cost.memory == bare.base_cost.size == 0
    (tmp_path / "space.toml").write_text(space_to_toml(bare))
    assert load_space(tmp_path / "space.toml") == bare


def test_the_smallest_memory_is_said() -> None:
    """Of widths 2, 2, 2 a layer reads 16 or 4 bytes a channel and gives 4 or 1."""
    space = chain([4, 6, 5], min_keep=2)
    budget = Budget.of(memory=Bound(low=10, high=10))
    with pytest.raises(InfeasibleBudget) as caught:
        space.require_reachable(budget)
    least = space.smallest_cost.memory
    assert least == max(total(t.bytes, dict.fromkeys(space.sizes, 2)) for t in space.memory)
    assert f"the smallest reachable network has {least} B of activations" in str(caught.value)
