"""The genetic algorithm of one group: its operators, and that it finds optima by evolving."""

from itertools import combinations, pairwise
from random import getstate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from evosearch.strategies.genetic_layer import (
    GeneticConfig,
    bernoulli,
    cross,
    evaluate,
    evolve,
    mutate,
    roulette,
)
from evosearch.strategies.two_step import descend_by_swaps
from tests.strategies.problems import correlated_gram, greedy_removal, wishart_gram

CONFIG = GeneticConfig()


def optima(gram: np.ndarray) -> dict[int, float]:
    """Returns the least error at every width, by enumeration."""
    size = len(gram)
    pruned = (np.arange(2**size)[:, None] >> np.arange(size) & 1).astype(float)
    errors = np.einsum("ij,ij->i", pruned @ gram, pruned)
    widths = size - pruned.sum(axis=1).astype(int)
    return {width: float(errors[widths == width].min()) for width in range(1, size + 1)}


def error_of(gram: np.ndarray, keep: np.ndarray) -> float:
    return float((1.0 - keep) @ gram @ (1.0 - keep))


@pytest.mark.parametrize("make", [correlated_gram, wishart_gram])
@pytest.mark.parametrize("size", [2, 5, 9, 13, 16])
def test_reaches_the_optimum_at_every_width(size: int, make) -> None:
    for seed in range(2):
        gram = make(np.random.default_rng(100 * size + seed), size)
        for width, optimum in optima(gram).items():
            found = evolve(gram, width, CONFIG, np.random.default_rng([seed, width]))
            assert found.keep.sum() == width
            assert found.error == pytest.approx(error_of(gram, found.keep), rel=1e-9, abs=1e-15)
            assert found.error <= optimum * (1 + 1e-9) + 1e-14, (size, seed, width)


@pytest.mark.parametrize("make", [correlated_gram, wishart_gram])
@pytest.mark.parametrize("size", [32, 48, 64])
def test_is_never_worse_than_greedy_removal(size: int, make) -> None:
    better = 0
    for seed in range(2):
        gram = make(np.random.default_rng(seed), size)
        for width in (size // 8, size // 4, size // 2, 3 * size // 4, size - 2):
            keep = greedy_removal(gram, width)
            found = evolve(gram, width, CONFIG, np.random.default_rng([seed, width]))
            assert found.error <= error_of(gram, keep) * (1 + 1e-9), (size, seed, width)
            better += found.error < error_of(gram, keep) * (1 - 1e-9)
    assert better >= 2  # of 10: greedy alone is often right


def test_is_mostly_as_good_as_greedy_removal_with_swaps() -> None:
    as_good = 0
    for seed in range(8):
        gram = wishart_gram(np.random.default_rng(seed), 48)
        pruned = descend_by_swaps(gram, (~greedy_removal(gram, 12)).astype(float))
        found = evolve(gram, 12, CONFIG, np.random.default_rng(seed))
        as_good += found.error <= pruned @ gram @ pruned * (1 + 1e-9)
    assert as_good >= 7


def test_evolution_starts_at_random_and_improves() -> None:
    gram = wishart_gram(np.random.default_rng(0), 40)
    logbook = evolve(gram, 10, CONFIG, np.random.default_rng(0)).logbook
    best, mean = logbook.select("best", "mean")
    greedy = error_of(gram, greedy_removal(gram, 10))
    assert best[0] > greedy  # no seed from greedy removal hides in the first generation
    assert best[-1] < greedy
    assert all(later <= earlier for earlier, later in pairwise(best))
    assert mean[-1] < mean[0]
    assert 1 < len(best) <= CONFIG.generations


def test_ends_after_patience_and_generations() -> None:
    gram = wishart_gram(np.random.default_rng(0), 12)
    one = GeneticConfig(generations=1)
    assert len(evolve(gram, 6, one, np.random.default_rng(0)).logbook) == 1
    patient = GeneticConfig(patience=7)
    best = evolve(gram, 6, patient, np.random.default_rng(0)).logbook.select("best")
    assert best.index(best[-1]) == len(best) - 1 - 7


def test_same_generator_same_channels_and_no_global_random() -> None:
    gram = wishart_gram(np.random.default_rng(0), 48)
    before, legacy = getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    hasty = GeneticConfig(generations=3)
    found = [evolve(gram, 20, hasty, np.random.default_rng(seed)).keep for seed in (5, 5, 6)]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert getstate() == before
    assert np.random.get_state()[1].tolist() == legacy  # noqa: NPY002


def test_bernoulli_bits_keep_the_width() -> None:
    bits = bernoulli(30, 11, 4000, np.random.default_rng(0))
    assert bits.shape == (4000, 30)
    assert np.all(bits.sum(axis=1) == 11)
    np.testing.assert_allclose(bits.mean(axis=0), 11 / 30, atol=0.04)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(2, 30), st.data())
def test_children_keep_what_both_parents_keep(seed: int, size: int, data: st.DataObject) -> None:
    width = data.draw(st.integers(1, size))
    rng = np.random.default_rng(seed)
    first, second = bernoulli(size, width, 20, rng), bernoulli(size, width, 20, rng)
    children = cross(1.0, width, rng, first, second)
    assert np.all(children.sum(axis=1) == width)
    assert np.all(children[first & second])
    assert not np.any(children[~first & ~second])


def test_crossover_mixes_both_parents_or_copies_the_first() -> None:
    rng = np.random.default_rng(0)
    first, second = bernoulli(20, 8, 200, rng), bernoulli(20, 8, 200, rng)
    np.testing.assert_array_equal(cross(0.0, 8, rng, first, second), first)
    children = cross(1.0, 8, rng, first, second)
    from_first = np.mean(children[first & ~second])
    assert 0.4 < from_first < 0.6


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(2, 30), st.sampled_from([0.0, 0.5, 1.0]), st.data())
def test_mutation_keeps_the_width(
    seed: int, size: int, informed: float, data: st.DataObject
) -> None:
    width = data.draw(st.integers(1, size - 1))
    rng = np.random.default_rng(seed)
    config = GeneticConfig(mutation=1.0, further_swap=0.0, informed=informed)
    children = bernoulli(size, width, 20, rng)
    mutated = mutate(wishart_gram(rng, size), config, rng, children)
    assert np.all(mutated.sum(axis=1) == width)
    assert np.all((mutated != children).sum(axis=1) == 2)  # one swap each


def test_mutation_of_a_dead_group_draws_uniformly() -> None:
    rng = np.random.default_rng(0)
    children = bernoulli(6, 3, 20, rng)
    mutated = mutate(np.zeros((6, 6)), GeneticConfig(mutation=1.0), rng, children)
    assert np.all(mutated.sum(axis=1) == 3)


def test_informed_swaps_are_better_than_blind_ones() -> None:
    rng = np.random.default_rng(0)
    gram = correlated_gram(rng, 40)
    children = bernoulli(40, 20, 400, rng)
    means = []
    for informed in (0.0, 1.0):
        config = GeneticConfig(mutation=1.0, informed=informed)
        means.append(evaluate(gram, mutate(gram, config, rng, children)).mean())
    assert means[1] < means[0]


def test_roulette_favours_low_errors_and_ignores_copies() -> None:
    # The fourth is a copy of the best: together they are drawn as often as the best alone.
    population = np.eye(4, dtype=bool)[[0, 1, 2, 0]]
    errors = np.array([1.0, 2.0, 3.0, 1.0])
    drawn = roulette(1.0, np.random.default_rng(0), population, errors, (20000,))
    shares = np.bincount(drawn, minlength=4) / 20000
    chances = np.exp(-np.array([0.0, 1.0, 2.0]) / errors.std())
    expected = chances / chances.sum()
    np.testing.assert_allclose([shares[0] + shares[3], *shares[1:3]], expected, atol=0.02)


def test_roulette_of_equal_errors_is_uniform() -> None:
    population = np.eye(4, dtype=bool)
    drawn = roulette(0.5, np.random.default_rng(0), population, np.ones(4), (2, 4000))
    assert drawn.shape == (2, 4000)
    np.testing.assert_allclose(np.bincount(drawn.ravel()) / 8000, 0.25, atol=0.03)


def test_evaluate_is_the_quadratic_form() -> None:
    gram = wishart_gram(np.random.default_rng(0), 6)
    population = np.array(
        [[i not in pair for i in range(6)] for pair in combinations(range(6), 2)]
    )
    expected = [error_of(gram, keep) for keep in population]
    np.testing.assert_allclose(evaluate(gram, population), expected, rtol=1e-12)


def test_config_refuses_unknown_keys_and_nonsense() -> None:
    with pytest.raises(ValidationError):
        GeneticConfig.model_validate({"populations": 10})
    with pytest.raises(ValidationError):
        GeneticConfig(crossover=1.5)
