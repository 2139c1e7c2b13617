"""Measured rows of networks that several methods cut."""

from dataclasses import dataclass
from pathlib import Path

import benchfiles


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured network.

    Attributes:
        network: the base network's name.
        method: who chose the channels.
        trials: of the search; 0 where there is none.
        ratio: the budget, as a share of the base network's MACs.
        seed: of the search, the drawn images and the fine-tuning.
        stage: what was done to the network before it was measured.
        mask: key of the mask.
        macs: share of the base network's that the network has.
        params: likewise.
        search: accuracy on the search split, in percent.
        test: accuracy on the test split, in percent.
        seconds: that choosing the channels took; None for a search that was killed in between.
        evaluations: networks that were scored on the whole search split to choose them.
        stage_seconds: that the stage took.
    """

    network: str
    method: str
    trials: int
    ratio: float
    seed: int
    stage: str
    mask: str
    macs: float
    params: float
    search: float
    test: float
    seconds: float | None
    evaluations: int
    stage_seconds: float

    @property
    def key(self) -> tuple[str, str, int, float, int, str]:
        """What tells the row from every other."""
        return self.network, self.method, self.trials, self.ratio, self.seed, self.stage

    @property
    def label(self) -> str:
        """What tables call the method."""
        return f"{self.method}, {self.trials} trials" if self.trials else self.method


def read_rows(path: Path) -> list[Row]:
    """Returns the rows of a results file, each key once; none where there is no file."""
    return list({row.key: row for row in benchfiles.read_rows(path, Row)}.values())
