"""Ties of a front: networks compared image by image, from the scores on disk; without torch."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from evosearch.run.folder import RunFolder
from evosearch.space.mask import Mask
from evosearch.study.scores import Difference, ImageScores, Measure, Reals, Score
from evosearch.study.scorestore import ScoreStore
from evosearch.study.study import Study
from evosearch.study.trial import Trial


def tied_members(folder: Path, members: Sequence[Trial]) -> dict[int, list[int]]:
    """Returns the trials that each is tied with, of those whose scores are on disk.

    Args:
        folder: of the run.
        members: of its front, smallest first.

    Returns:
        Trial number -> numbers of the tied trials, in the order of the front.
    """
    found = {
        trial.number: scores
        for trial in members
        if trial.evaluation is not None
        and (scores := _scores(folder, trial.mask, trial.evaluation.score)) is not None
    }
    ties: dict[int, list[int]] = {number: [] for number in found}
    for first, second in combinations(found, 2):
        if found[first].loss_above(found[second]).is_tie:
            ties[first].append(second)
            ties[second].append(first)
    order = list(found)
    return {number: sorted(others, key=order.index) for number, others in ties.items()}


def above_base(folder: Path, study: Study, members: Sequence[Trial]) -> dict[int, Difference]:
    """Returns by how much each trial's metric exceeds the base network's, a share.

    Empty where the scores of the base network are not on disk, or the metric is pooled: only the
    task can tell what its statistics are worth.
    """
    if not study.header.references:
        return {}
    base = study.header.base
    reference = _scores(folder, base.mask, base.search)
    if reference is None or base.search.pooled:
        return {}
    differences = {}
    for trial in members:
        own = _scores(folder, trial.mask, base.search)
        if own is not None:
            differences[trial.number] = Difference.between(own.metrics, reference.metrics)
    return differences


def _scores(folder: Path, mask: Mask, score: Score) -> ImageScores | None:
    """Returns the scores on the whole search split; None where the file has fewer, or is none."""
    measure = Measure(name=score.metric, pooled=_unpooled if score.pooled else None)
    scores = ScoreStore(RunFolder(folder).scores, measure).get(mask)
    return None if scores is None or len(scores.losses) != score.images else scores


def _unpooled(statistics: Reals) -> float:
    """Stands for what the task alone can compute."""
    raise NotImplementedError
