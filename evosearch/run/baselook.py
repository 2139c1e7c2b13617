"""The base network as a search finds it: what it computes in, and whether it is worth pruning."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch

from evosearch.data.labels import Labels
from evosearch.data.sources import is_noise
from evosearch.engine.evaluator import MaskEvaluator
from evosearch.errors import InputError
from evosearch.run.config import SearchConfig
from evosearch.run.spacefile import SpaceFile
from evosearch.run.subject import Subject
from evosearch.study.scores import ACCURACY, ImageScores, Score
from evosearch.study.trial import Evaluation
from evosearch.tasks.classification import chance_level
from evosearch.tasks.scoring import working_numerics
from evosearch.tasks.task import Task

FAR = 0.05
"""How far under the accuracy that a space file states the 95 % interval may end."""
_CHECKS = (
    "check the labels and the order of the classes, [data] mean and std, [model] weights, and"
    " which output is judged"
)


@final
@dataclass(frozen=True, kw_only=True)
class BaseLook:
    """The base network's score on the search split, and what may be expected of it.

    Attributes:
        score: as candidates are scored.
        chance: accuracy of guessing the commonest class; None where no such level is known.
        stated: accuracy that the space file states; None where it states none.
    """

    score: Score
    chance: float | None
    stated: float | None

    @classmethod
    def of(cls, score: Score, file: SpaceFile, task: Task, labels: Labels) -> "BaseLook":
        """Returns the look at a score; of noise nothing is expected.

        Args:
            score: of the base network, on the search split.
            file: the space file.
            task: what gave the score.
            labels: of the search split.
        """
        if is_noise(file.data):
            return cls(score=score, chance=None, stated=None)
        stated = None if file.model.accuracy is None else file.model.accuracy / 100
        return cls(score=score, chance=chance_level(task, labels), stated=stated)

    def __str__(self) -> str:
        """Returns a line for people."""
        score = self.score
        return (
            f"base network: loss {score.loss:.4g}, {score.metric} {score.accuracy_text} % on"
            f" {score.images} search images"
        )

    @property
    def complaint(self) -> str | None:
        """What is wrong with the base network, and what to check; None where nothing is."""
        low, high = self.score.accuracy_interval
        metric = "an accuracy" if self.score.metric == ACCURACY.name else self.score.metric
        seen = f"{metric} of {self.score.accuracy_text} % on {self.score.images} search images"
        if self.chance is not None and low <= self.chance:
            return (
                f"the base network has {seen}, and guessing their commonest class"
                f" {self.chance:.2%}: {_CHECKS}"
            )
        if self.stated is not None and high < self.stated - FAR:
            return (
                f"the base network has {seen}, far under the {100 * self.stated:g} % of [model]"
                f" accuracy: {_CHECKS}"
            )
        return None


def fitted(config: SearchConfig, subject: Subject) -> tuple[SearchConfig, str | None]:
    """Returns the settings with numerics that the base network works in, tried on search images.

    Args:
        config: with a device that is not "auto".
        subject: whose network is tried, on that device.

    Returns:
        The settings, in which no precision and no layout is "auto"; and a line on what they fell
        back from, None where they did not.
    """
    wanted = config.evaluator.numerics(torch.device(config.device))
    model = subject.model.to(config.device)
    numerics, failed = working_numerics(model, subject.data.search, wanted, task=subject.task)
    found = {"precision": numerics.precision, "layout": numerics.layout}
    evaluator = config.evaluator.model_copy(update=found)
    note = None
    if failed is not None:
        note = f"the base network fails in {wanted} ({failed}): candidates compute in {numerics}"
    return config.model_copy(update={"evaluator": evaluator}), note


def look_at_base(
    evaluator: MaskEvaluator,
    subject: Subject,
    file: SpaceFile,
    *,
    anyway: bool,
    on_note: Callable[[str], None],
) -> tuple[ImageScores, Evaluation]:
    """Returns what the base network is worth on the search split, image by image and in all.

    Args:
        evaluator: measures it.
        subject: what it is about.
        file: the space file.
        anyway: whether one that is not what it should be is passed over.
        on_note: told what it is worth, and what is passed over.

    Raises:
        InputError: it is not what it should be; names what to check.
    """
    began = time.perf_counter()
    full_mask = subject.discovery.space.full_mask()
    scores = evaluator.image_scores(full_mask, 0, evaluator.images)
    base = Evaluation(score=scores.score, seconds=time.perf_counter() - began)
    look = BaseLook.of(base.score, file, subject.task, subject.data.search.labels)
    if look.complaint is not None and not anyway:
        raise InputError(f"{look.complaint}; --anyway goes on all the same")
    on_note(str(look))
    if look.complaint is not None:
        on_note(look.complaint)
    return scores, base
