"""Ties of a front: networks compared image by image, from the scores on disk; without torch."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from evosearch.run.folder import RunFolder
from evosearch.study.scores import Difference
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
    store = ScoreStore(RunFolder(folder).scores)
    found = {
        trial.number: losses
        for trial in members
        if trial.evaluation is not None
        and (losses := store.losses(trial.mask)) is not None
        and len(losses) == trial.evaluation.score.images
    }
    ties: dict[int, list[int]] = {number: [] for number in found}
    for first, second in combinations(found, 2):
        if Difference.between(found[first], found[second]).is_tie:
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
    if base.search.pooled:
        return {}
    store, images = ScoreStore(RunFolder(folder).scores), base.search.images
    reference = store.get(base.mask)
    if reference is None or len(reference.metrics) != images:
        return {}
    differences = {}
    for trial in members:
        own = store.get(trial.mask)
        if own is not None and len(own.metrics) == images:
            differences[trial.number] = Difference.between(own.metrics, reference.metrics)
    return differences
