"""A toy evaluator that takes its time; apart, so that workers need not import more."""

import time
from dataclasses import dataclass

from evosearch.space.mask import Mask
from evosearch.study.scores import ImageScores
from tests.toys import ToyEvaluator


class Slow(ToyEvaluator):
    def image_scores(self, mask: Mask, start: int, stop: int) -> ImageScores:
        time.sleep(0.05)
        return super().image_scores(mask, start, stop)


@dataclass(frozen=True)
class SlowToys:
    def __call__(self, worker: int) -> Slow:
        return Slow()
