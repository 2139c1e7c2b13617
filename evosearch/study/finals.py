"""The finals of a run: plans trained side by side by successive halving, and what came of them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, final

from evosearch.errors import InputError
from evosearch.files import write_json, writing
from evosearch.space.cost import Cost
from evosearch.space.mask import Mask
from evosearch.study.accuracy_certificate import ConfirmedNetwork
from evosearch.study.networks import NamedNetwork
from evosearch.study.pairedgain import PairedGain
from evosearch.study.rankcorrelation import LEAST, RankCorrelation
from evosearch.study.scores import Score
from evosearch.study.trial import Evaluation

RECORD = "finals.json"


@final
@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A plan in finals.

    Attributes:
        plan: with its score as the search gave it, before training.
        history: scores on the search split after each epoch that it was trained for; first of
            the network before training.
        best_epoch: the epoch of least loss, whose weights it has.
    """

    plan: NamedNetwork
    history: tuple[Score, ...]
    best_epoch: int

    @property
    def epochs(self) -> int:
        """That it was trained for."""
        return len(self.history) - 1

    @property
    def network(self) -> NamedNetwork:
        """The network that it became, with its best epoch's score."""
        score = self.history[self.best_epoch]
        return replace(self.plan, evaluation=Evaluation(score=score, seconds=0.0))


@final
@dataclass(frozen=True, kw_only=True)
class Finals:
    """What came of finals.

    Attributes:
        at: the budget, in words.
        epochs: of the whole training, which the last round ends with.
        finalists: the plan without a search, which goes on to the end whatever it scores, and
            then the others, the best by the search first.
        rival: index of the searched plan that was trained to the end beside it.
        winner: index of that of the two which has the lesser loss on the search split.
        test: score of the winner, the only one that the test split was opened for.
        gain: of the searched plan over that without a search, after the same training; None
            without confirmation images.
        confirmed: drop of the winner against the base network; None without such images.
        image_macs: what the training cost, forward and backward, the base network's outputs
            included: images times MACs.
    """

    at: str
    epochs: int
    finalists: tuple[Finalist, ...]
    rival: int
    winner: int
    test: Score
    gain: PairedGain | None
    confirmed: ConfirmedNetwork | None
    image_macs: int

    @property
    def network(self) -> NamedNetwork:
        """The finished network."""
        found = self.finalists[self.winner].network
        return replace(found, name=finished_name(found.name, self.epochs), test=self.test)

    @property
    def compared_at(self) -> int | None:
        """The last epoch that three finalists or more were trained for; None without so many."""
        trained = sorted((finalist.epochs for finalist in self.finalists), reverse=True)
        return trained[LEAST - 1] if len(trained) >= LEAST else None

    @property
    def telling(self) -> RankCorrelation | None:
        """How far the search's score orders finalists as their accuracy at `compared_at` does.

        None for fewer than three finalists, or where all ended alike.
        """
        epoch = self.compared_at
        if epoch is None:
            return None
        trained = [finalist for finalist in self.finalists if finalist.epochs >= epoch]
        return RankCorrelation.between(
            [-finalist.plan.search.loss for finalist in trained],
            [finalist.history[epoch].accuracy for finalist in trained],
        )

    def save(self, folder: Path) -> None:
        """Writes it into a folder of its own.

        Raises:
            StorageError: it cannot be written.
        """
        with writing(folder / RECORD):
            write_json(folder / RECORD, self._to_json())

    @classmethod
    def load(cls, folder: Path, sizes: Mapping[str, int]) -> Self:
        """Reads what `save` wrote.

        Args:
            folder: of these finals.
            sizes: group -> channels, of the run.

        Raises:
            InputError: there is none, or it is malformed.
        """
        path = folder / RECORD
        try:
            return cls._from_json(json.loads(path.read_text(encoding="utf-8")), sizes)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise InputError(f"{path}: not the record of finals ({error!r})") from error

    def _to_json(self) -> dict[str, Any]:
        return {
            **asdict(replace(self, finalists=())),
            "finalists": [
                {
                    "name": own.plan.name,
                    "mask": own.plan.mask.to_json(),
                    "cost": asdict(own.plan.cost),
                    "score": asdict(own.plan.search),
                    "history": [asdict(score) for score in own.history],
                    "best_epoch": own.best_epoch,
                }
                for own in self.finalists
            ],
        }

    @classmethod
    def _from_json(cls, data: Mapping[str, Any], sizes: Mapping[str, int]) -> Self:
        finalists = tuple(
            Finalist(
                plan=NamedNetwork(
                    name=own["name"],
                    mask=Mask.from_json(own["mask"], sizes),
                    cost=Cost(**own["cost"]),
                    evaluation=Evaluation(score=Score(**own["score"]), seconds=0.0),
                ),
                history=tuple(Score(**score) for score in own["history"]),
                best_epoch=own["best_epoch"],
            )
            for own in data["finalists"]
        )
        gain, confirmed = data["gain"], data["confirmed"]
        read = {
            "finalists": finalists,
            "test": Score(**data["test"]),
            "gain": None if gain is None else PairedGain(**gain),
            "confirmed": None if confirmed is None else ConfirmedNetwork.of_record(confirmed),
        }
        return cls(**{**data, **read})


def finished_name(plan: str, epochs: int) -> str:
    """Returns what a plan's network is called once it was distilled."""
    return f"{plan}, distilled {epochs} epochs"


def load_finals(folder: Path, sizes: Mapping[str, int]) -> tuple[Finals, ...]:
    """Returns the finals that a run has finished, by their budgets; what is unreadable is not.

    Args:
        folder: that holds a folder for each.
        sizes: group -> channels, of the run.
    """
    found = []
    for path in sorted(folder.glob(f"*/{RECORD}")):
        try:
            found.append(Finals.load(path.parent, sizes))
        except InputError:
            continue
    return tuple(sorted(found, key=lambda own: (own.at, len(own.finalists), own.epochs)))
