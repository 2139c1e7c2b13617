"""Costs of trainings: of distillation, of elastic weights, and of finals."""

from evosearch.study.halving import epochs_of, halving

FINALISTS = (4, 3, 2)
"""How many plans finals have, at most: the first count that the cost allows for."""


def epoch_cost(share: float) -> float:
    """Returns what an image of distillation costs, in passes of the base network.

    Args:
        share: of the base network's MACs that the student has.
    """
    return 3 * share + 1


def elastic_cost(share: float, plans: int) -> float:
    """Returns likewise what an image of elastic training costs, where all plans have a size."""
    return 3 * share * plans + 1


def affordable_finals(worth: int) -> tuple[int, int]:
    """Returns the finals that cost no more than so many epochs of one network.

    Args:
        worth: two epochs or more.

    Returns:
        Their networks, the most of `FINALISTS` that can be paid for, and epochs of the whole
        training, as many as can be.
    """
    for count in FINALISTS:
        rounds = len(halving(count, worth)) if worth >= count - 1 else worth + 1
        possible = [e for e in range(rounds, worth + 1) if epochs_of(halving(count, e)) <= worth]
        if possible:
            return count, max(possible)
    raise ValueError(f"finals of two networks cost two epochs or more, and there is {worth}")
