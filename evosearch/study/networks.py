"""A named network of a run, wherever it is shown: with its cost, its scores and its latency."""

from dataclasses import dataclass
from typing import final

from evosearch.space.cost import Cost
from evosearch.space.mask import Mask
from evosearch.space.resources import amounts
from evosearch.study.scores import Score
from evosearch.study.timing import Timing
from evosearch.study.trial import Evaluation, Trial


@final
@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The loss of a network on the search split, in nats, as a model of the trials sees it.

    Attributes:
        loss: the most likely one.
        high: with the model's error on top: one standard deviation of the logarithm of loss over
            prediction.
    """

    loss: float
    high: float


@final
@dataclass(frozen=True, kw_only=True)
class NamedNetwork:
    """A network, and all that is known of it so far; None is what is not.

    Attributes:
        name: what tables call it.
        mask: its channels.
        cost: its exact cost.
        trial: number of the trial that it is.
        evaluation: as measured on the search split.
        test: its score on the test split, which it was measured on once.
        timing: its latency against the base network's.
        prediction: its loss, of one that was decoded from trials.
    """

    name: str
    mask: Mask
    cost: Cost
    trial: int | None = None
    evaluation: Evaluation | None = None
    test: Score | None = None
    timing: Timing | None = None
    prediction: Prediction | None = None

    def __repr__(self) -> str:
        parts = [amounts(self.cost)]
        if self.evaluation is not None:
            parts.append(f"search {self.evaluation.score}")
        elif self.prediction is not None:
            parts.append(f"search loss {self.prediction.loss:.3f}, predicted")
        if self.test is not None:
            parts.append(f"test {self.test}")
        if self.timing is not None:
            parts.append(str(self.timing))
        return f"NamedNetwork({self.name}: {', '.join(parts)})"

    @classmethod
    def of_trial(cls, trial: Trial) -> "NamedNetwork":
        """Returns the network of a trial; what it scored on a part of the images is left out."""
        return cls(
            name=f"trial {trial.number}",
            mask=trial.mask,
            cost=trial.cost,
            trial=trial.number,
            evaluation=trial.evaluation if trial.is_complete else None,
        )

    @property
    def search(self) -> Score:
        """Its score on the search split.

        Raises:
            ValueError: it was not measured there.
        """
        if self.evaluation is None:
            raise ValueError(f"{self.name} was not measured on the search split")
        return self.evaluation.score
