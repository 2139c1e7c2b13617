"""A population of masks as matrices, all groups side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from evosearch.space.knowledge import Array
from evosearch.space.mask import Bits, Mask
from evosearch.space.space import SearchSpace, Widths
from evosearch.strategies.two_step import TwoStep

Rows = NDArray[np.int64]


@final
@dataclass(frozen=True, kw_only=True)
class Population:
    """Masks of one space.

    Attributes:
        bits: channels kept, all groups side by side, `(masks, all channels)`.
        widths: `(masks, groups)`.
        errors: each group's own two-step error, `(masks, groups)`.
        parents: numbers of the trials that each is a child of, or is; -1 is none; `(masks, 2)`.
        operators: what made each: an index into `variation.OPERATORS`, `(masks,)`.
    """

    bits: Bits
    widths: Widths
    errors: Array
    parents: Rows
    operators: Rows

    def __len__(self) -> int:
        return len(self.bits)

    def take(self, rows: Sequence[int] | Rows) -> "Population":
        """Returns some of the masks."""
        index = np.asarray(rows, dtype=np.int64)
        return Population(**{name: values[index] for name, values in vars(self).items()})

    def join(self, other: "Population") -> "Population":
        """Returns the masks of both."""
        others = vars(other)
        joined = {name: np.concatenate([own, others[name]]) for name, own in vars(self).items()}
        return Population(**joined)

    def keys(self) -> list[bytes]:
        """Returns what tells each mask from every other of its space."""
        return [row.tobytes() for row in np.packbits(self.bits, axis=1)]


@final
class Layout:
    """The places of the groups in a population.

    Attributes:
        slices: columns of each group.
    """

    def __init__(self, space: SearchSpace, two_step: TwoStep) -> None:
        """Takes the space, and the errors that populations carry."""
        self._names, self._two_step = tuple(space.sizes), two_step
        ends = np.cumsum(space.full_widths).tolist()
        self._ends = ends[:-1]
        self.slices = [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]

    def rows(self, masks: Sequence[Mask]) -> Bits:
        """Returns masks as rows of bits, `(masks, all channels)`."""
        rows = [np.concatenate([mask[name] for name in self._names]) for mask in masks]
        return np.array(rows, dtype=np.bool_).reshape(len(masks), self.slices[-1].stop)

    def mask(self, bits: Bits) -> Mask:
        """Returns one row of bits as a mask."""
        return Mask(dict(zip(self._names, np.split(bits, self._ends), strict=True)))

    def widths(self, bits: Bits) -> Widths:
        """Returns `(masks, groups)` for rows of bits."""
        return np.stack([bits[:, own].sum(axis=1) for own in self.slices], axis=1)

    def errors(self, bits: Bits) -> Array:
        """Returns each group's own two-step error for rows of bits, `(masks, groups)`."""
        parts = zip(self._names, self.slices, strict=True)
        errors = [self._two_step.group_errors(name, bits[:, own]) for name, own in parts]
        return np.stack(errors, axis=1)

    def population(self, masks: Sequence[Mask], numbers: Sequence[int] = ()) -> Population:
        """Returns masks, scored from scratch.

        Args:
            masks: any number.
            numbers: of the trials that they are, where they are.
        """
        bits = self.rows(masks)
        parents = np.full((len(bits), 2), -1)
        if numbers:
            parents[:, 0] = numbers
        return Population(
            bits=bits,
            widths=self.widths(bits),
            errors=self.errors(bits),
            parents=parents,
            operators=np.zeros(len(bits), dtype=np.int64),
        )


@final
@dataclass(frozen=True, kw_only=True)
class Levels:
    """The best known channels of one group at the widths of its error curve.

    Attributes:
        nearest: width -> row of the nearest width on the curve, `(channels + 1,)`.
        widths: `(levels,)`.
        bits: `(levels, channels)`.
        errors: `(levels,)`.
    """

    nearest: Rows
    widths: Widths
    bits: Bits
    errors: Array

    @classmethod
    def of(cls, two_step: TwoStep, group: str, size: int) -> "Levels":
        """Reads a group's channels off its error curve."""
        widths = two_step.curve(group).widths
        bits = np.stack([two_step.subset(group, int(width)) for width in widths])
        return cls(
            nearest=nearest_rows(widths, size),
            widths=widths,
            bits=bits,
            errors=two_step.group_errors(group, bits),
        )


def nearest_rows(values: Rows, largest: int) -> Rows:
    """Returns the index of the nearest of ascending values to each of 0 to `largest`."""
    return np.searchsorted((values[1:] + values[:-1]) / 2, np.arange(largest + 1), side="left")
