"""Measurements on the base network, made once per run for the strategies: plain numpy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evosearch.errors import InputError
from evosearch.files import replacing

Array = NDArray[np.float64]
ImportanceScores = Mapping[str, Array]
"""Group name -> `(channels,)`, higher is kept."""


@dataclass(frozen=True)
class SensitivityCurve:
    """How the loss rises when one group alone is cut (knowledge, not trials).

    Attributes:
        widths: the widths probed, ascending, the last the group's size; `(probes,)`.
        loss_increase: loss on the search split minus the base network's, in nats;
            `(probes,)`, the last 0.
    """

    widths: NDArray[np.int64]
    loss_increase: Array


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """Measurements on the base network.

    Attributes:
        gram: `(group, group) -> (channels, channels)`: the two-step Gram matrix between two
            groups, each consumer divided by its output energy. Diagonal blocks are symmetric;
            of a pair of groups that feed one consumer together only one order is present.
        scores: importance criterion -> group -> `(channels,)`, higher is kept.
        comparable: the same on one scale for all groups, as the criterion makes them comparable.
        sensitivity: group -> curve; empty where the strategy does not ask for it.
    """

    gram: Mapping[tuple[str, str], Array]
    scores: Mapping[str, ImportanceScores]
    comparable: Mapping[str, ImportanceScores] = field(default_factory=dict)
    sensitivity: Mapping[str, SensitivityCurve] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Writes everything to one `.npz` file, by way of a temporary name."""
        arrays: dict[str, Any] = {}
        for (left, right), block in self.gram.items():
            arrays[f"gram|{left}|{right}"] = block
        for kind, criteria in (("score", self.scores), ("comparable", self.comparable)):
            for criterion, groups in criteria.items():
                for group, values in groups.items():
                    arrays[f"{kind}|{criterion}|{group}"] = values
        for group, curve in self.sensitivity.items():
            arrays[f"sensitivity|{group}|widths"] = curve.widths
            arrays[f"sensitivity|{group}|loss_increase"] = curve.loss_increase
        # No `allow_pickle=False`: numpy before 2.2 would save it as one more array.
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Knowledge":
        """Reads what `save` wrote; refuses anything that would need unpickling.

        Raises:
            InputError: the file is missing or damaged, or holds something else.
        """
        try:
            return cls._read(path)
        # A damaged archive raises nearly anything.
        except Exception as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else "damaged"
            raise InputError(f"{path}: {reason}; evosearch resume measures it again") from error

    @classmethod
    def _read(cls, path: Path) -> "Knowledge":
        gram: dict[tuple[str, str], Array] = {}
        scores: dict[str, dict[str, Array]] = {}
        comparable: dict[str, dict[str, Array]] = {}
        curves: dict[str, dict[str, NDArray[Any]]] = {}
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for key in arrays.files:
                kind, first, second = key.split("|")
                if kind == "gram":
                    gram[first, second] = arrays[key]
                elif kind == "score":
                    scores.setdefault(first, {})[second] = arrays[key]
                elif kind == "comparable":
                    comparable.setdefault(first, {})[second] = arrays[key]
                else:
                    curves.setdefault(first, {})[second] = arrays[key]
        sensitivity = {group: SensitivityCurve(**curve) for group, curve in curves.items()}
        return cls(gram=gram, scores=scores, comparable=comparable, sensitivity=sensitivity)
