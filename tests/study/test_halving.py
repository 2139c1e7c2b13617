"""The rounds of successive halving, by hand."""

import pytest

from evosearch.errors import InputError
from evosearch.study.halving import Round, epochs_of, halving


@pytest.mark.parametrize(
    ("networks", "epochs", "expected", "cost"),
    [
        (2, 20, [(2, 20)], 40),
        # Shares of the epochs 1/4 : 1/2, so a third and the rest: 4 x 7 + 2 x 14.
        (4, 21, [(4, 7), (2, 21)], 56),
        # 1/8 : 1/4 : 1/2 of 21 epochs: 3, 6 and 12 more; every round is 24 epochs.
        (8, 21, [(8, 3), (4, 9), (2, 21)], 72),
        # 1/3 : 1/2: two fifths of the epochs.
        (3, 10, [(3, 4), (2, 10)], 24),
        # 1/5 : 1/3 : 1/2, of 31/30 together: 5.8 and 15.5 of 30.
        (5, 30, [(5, 6), (3, 15), (2, 30)], 87),
        # An epoch at least in every round.
        (16, 4, [(16, 1), (8, 2), (4, 3), (2, 4)], 30),
        (8, 4, [(8, 1), (4, 2), (2, 4)], 16),
    ],
)
def test_rounds_by_hand(
    networks: int, epochs: int, expected: list[tuple[int, int]], cost: int
) -> None:
    rounds = halving(networks, epochs)
    assert rounds == tuple(Round(networks=n, until=u) for n, u in expected)
    assert epochs_of(rounds) == cost


@pytest.mark.parametrize("power", [1, 2, 3, 4])
def test_the_cost_is_what_it_is_said_to_be(power: int) -> None:
    """Of 2^r networks r 2^r / (2^r - 1) trainings of one, where nothing is rounded."""
    networks = 2**power
    epochs = 10 * (networks - 1)
    assert epochs_of(halving(networks, epochs)) == 10 * power * networks


@pytest.mark.parametrize("networks", range(2, 40))
def test_rounds_rise_and_halve(networks: int) -> None:
    for epochs in (7, 8, 20):
        rounds = halving(networks, epochs)
        untils = [own.until for own in rounds]
        assert untils == sorted(set(untils))
        assert untils[0] >= 1
        assert untils[-1] == epochs
        counts = [own.networks for own in rounds]
        assert counts[0] == networks
        assert counts[-1] == 2
        assert all(after == -(-before // 2) for before, after in zip(counts, counts[1:]))  # noqa: B905, RUF007


def test_too_few_epochs_are_refused() -> None:
    with pytest.raises(InputError, match=r"take 3 epochs or more, .* and 2 were asked"):
        halving(8, 2)
    with pytest.raises(InputError, match="take 1 epochs or more"):
        halving(2, 0)
