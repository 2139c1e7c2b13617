"""Scores of images on disk, mask by mask: what ties, races and resumed rounds compare.

Derived: an evaluation would give the same scores again, so the folder may be deleted.
"""

from pathlib import Path
from typing import final

import numpy as np

from evosearch.files import replacing, writing
from evosearch.space.mask import Mask
from evosearch.study.scores import ACCURACY, ImageScores, Measure, Reals

SCORES = "scores"
"""Folder of a run that holds them."""


@final
class ScoreStore:
    """One file for each mask, with its scores on the first images of the search split."""

    def __init__(self, folder: Path, measure: Measure = ACCURACY) -> None:
        """Takes a folder, made when something is stored, and what the metrics in it are."""
        self._folder, self._measure = folder, measure

    def get(self, mask: Mask) -> ImageScores | None:
        """Returns the scores stored of a mask, or None; a damaged file counts as none."""
        values = self._values(mask)
        is_flat = self._measure.pooled is None
        if values is None or (is_flat and len(values) > 2):
            return None
        metrics = values[1] if is_flat else values[1:].T
        return ImageScores(losses=values[0], metrics=metrics, measure=self._measure)

    def losses(self, mask: Mask) -> Reals | None:
        """Returns the losses stored of a mask, or None: they are alike whatever the measure."""
        values = self._values(mask)
        return None if values is None else values[0]

    def put(self, mask: Mask, scores: ImageScores) -> None:
        """Stores the scores of a mask in place of what there was.

        Raises:
            StorageError: they cannot be written.
        """
        values = np.vstack([scores.losses, scores.metrics.T])
        compact = values.astype(np.float32)
        # Losses come from float32 networks, so that half the space nearly always holds them.
        exact = np.array_equal(compact.astype(np.float64), values, equal_nan=True)
        path = self._path(mask)
        with writing(path):
            self._folder.mkdir(exist_ok=True)
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, compact if exact else values, allow_pickle=False)

    def _values(self, mask: Mask) -> Reals | None:
        """Returns what the file of a mask holds, losses first; a damaged one counts as none."""
        try:
            with self._path(mask).open("rb") as file:
                values = np.asarray(np.load(file, allow_pickle=False), dtype=np.float64)
        except (OSError, ValueError, TypeError, EOFError):
            return None
        return values if values.ndim == 2 and len(values) >= 2 else None

    def _path(self, mask: Mask) -> Path:
        return self._folder / f"{mask.key}.npy"
