"""The trials of a training under a budget: the networks that it went through, as it left them."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import final

from torch import nn

from evosearch.errors import InputError
from evosearch.run.callbacks import Callbacks
from evosearch.run.folder import RunFolder
from evosearch.run.log import RunLog
from evosearch.run.subject import Subject
from evosearch.space.mask import Mask
from evosearch.study.scorestore import ScoreStore
from evosearch.study.study import Study
from evosearch.study.trial import Evaluation, Rung, Step, Trial, TrialState
from evosearch.surgery.gating import gates_of
from evosearch.tasks.scoring import image_scores


@final
@dataclass(frozen=True, kw_only=True)
class Waypoints:
    """Records the networks of a training, each once.

    Attributes:
        folder: of the run.
        study: of the run, open for appending.
        subject: the whole network, and the data.
        recipe: of the training.
        log: of the run.
        callbacks: told of each trial.
    """

    folder: Path
    study: Study
    subject: Subject
    recipe: str
    log: RunLog
    callbacks: Callbacks

    def record(self, network: nn.Module, mask: Mask, number: int, t: float) -> Trial:
        """Returns the trial of a network as training leaves it, recorded once.

        Args:
            network: as it is now.
            mask: its channels, of those of the whole network.
            number: of the trial.
            t: share of the training's steps that are done.

        Raises:
            InputError: the study has another one, so that this is not the training that it was.
        """
        study = self.study
        if number < len(study.trials):
            if study.trials[number].mask != mask:
                raise InputError(
                    f"{self.folder}: trial {number} has other channels than this training gives"
                    " again: another machine or version computes otherwise; start a new run"
                )
            return study.trials[number]
        subject, began = self.subject, time.perf_counter()
        scores = image_scores(network, subject.data.search, task=subject.task)
        seconds, result = time.perf_counter() - began, scores.score
        gated = gates_of(network) is not None
        if not gated:  # no network of these channels alone has such scores
            ScoreStore(RunFolder(self.folder).scores).put(mask, scores)
        step = Step(rung=Rung.FULL, score=result.loss, images=result.images, seconds=seconds)
        trial = Trial(
            number=number,
            generation=number,
            mask=mask,
            genome={"recipe": self.recipe, "t": t} | ({"gated": True} if gated else {}),
            cost=subject.discovery.space.cost(mask),
            state=TrialState.COMPLETE,
            evaluation=Evaluation(score=result, seconds=seconds),
            steps=(step,),
        )
        study.append(trial)
        self.log.trial(trial)
        self.callbacks.on_trial(trial)
        return trial
