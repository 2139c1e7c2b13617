"""A tolerated drop of accuracy in place of a budget: what it goes with, and what it came to.

Imported without torch.
"""

from dataclasses import dataclass
from typing import Self, final

from evosearch.errors import InputError
from evosearch.space.budget import BudgetRequest
from evosearch.study.records import Header
from evosearch.study.trial import Trial
from evosearch.training.recipes import PruneConfig


@final
@dataclass(frozen=True, kw_only=True)
class SearchDrop:
    """What a finished network lost on the search split, where a drop was tolerated.

    Attributes:
        tolerated: points of accuracy that might be lost.
        lost: points that are; negative where accuracy was gained.
        images: search images that both were measured on, and that decided which network is kept.
        metric: what is lost.
    """

    tolerated: float
    lost: float
    images: int
    metric: str

    @classmethod
    def of(cls, header: Header, trial: Trial) -> Self | None:
        """Returns the drop of a trial; None where the run has a budget instead."""
        tolerated = tolerated_points(header)
        if tolerated is None:
            return None
        assert trial.evaluation is not None
        base, now = header.base.search, trial.evaluation.score
        lost = 100 * (base.accuracy - now.accuracy)
        return cls(tolerated=round(tolerated, 6), lost=lost, images=now.images, metric=now.metric)

    def __str__(self) -> str:
        verb = "loses" if self.lost >= 0 else "gains"
        return (
            f"{verb} {abs(self.lost):.2f} points of {self.metric}"
            f" (at most {self.tolerated:g} may be lost) on the {self.images} search images, which"
            " also decided what was kept: optimistic, and not certified"
        )


def tolerated_points(header: Header) -> float | None:
    """Returns how many points of search accuracy may be lost; None where there is a budget."""
    least = header.budget.least_accuracy
    return None if least is None else 100 * (header.base.search.accuracy - least)


def require_drop_or_budget(prune: PruneConfig, request: BudgetRequest) -> None:
    """Refuses a tolerated drop without the pace that follows it, and the pace without a drop.

    Raises:
        InputError: says what to give.
    """
    drop, pace = request.accuracy_drop, prune.pace
    follows = (pace if isinstance(pace, str) else pace.get("name")) == "slack"
    if drop is None and not follows:
        return
    if drop is None or request.amounts:
        raise InputError(
            f"recipe {prune.recipe!r} shrinks to a tolerated drop of accuracy, and to no budget:"
            " give --accuracy-drop 1.0 alone"
            if follows
            else "a training ends at a budget or at a tolerated drop: give one of the two"
        )
    if not follows:
        raise InputError(
            f"--accuracy-drop {drop:g}: recipe {prune.recipe!r} shrinks to a budget, whatever the"
            " accuracy: add --recipe play_and_prune, or give --flops 50% instead"
        )
    if not 0 < drop < 100:
        raise InputError(
            f"--accuracy-drop {drop:g}: a network that shrinks loses some accuracy on its way;"
            " expected points over 0 and under 100, such as 1.0"
        )
    others = prune.drop or prune.regrow or prune.layerwise
    if prune.weights != "base" or prune.every != "epoch" or others:
        raise InputError(
            "[prune] pace = 'slack' follows the accuracy of a trained network, after each epoch of"
            " one training: it takes weights = 'base' and every = 'epoch', and none of drop,"
            " regrow and layerwise"
        )
