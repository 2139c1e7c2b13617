"""Polynomials of degree two in the widths of channel groups, for many plans at once."""

from collections.abc import Iterable, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from evosearch.space.costform import Monomial

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@final
class Polynomials:
    """Polynomials in the widths of the same groups."""

    def __init__(self, forms: Sequence[Iterable[Monomial]], groups: Sequence[str]) -> None:
        """Adds up the monomials of each form.

        Args:
            forms: the monomials of each polynomial.
            groups: names of the groups, in the order of the widths.
        """
        column = {name: i + 1 for i, name in enumerate(groups)}
        places: dict[tuple[int, int], int] = {}
        found: list[tuple[int, int, int]] = []
        for number, form in enumerate(forms):
            for monomial in form:
                columns = sorted(column[name] for name in monomial.groups)
                left, right = [0] * (2 - len(columns)) + columns
                place = places.setdefault((left, right), len(places))
                found.append((place, number, monomial.coefficient))
        keys = np.array(list(places), dtype=np.int64).reshape(-1, 2)
        # Two columns of the widths that each coefficient multiplies; column 0 is the number 1.
        self._left, self._right = keys[:, 0], keys[:, 1]
        self._coefficients = np.zeros((len(places), len(forms)), dtype=np.int64)
        for place, number, coefficient in found:
            self._coefficients[place, number] += coefficient
        self._groups = len(groups)

    def __len__(self) -> int:
        return int(self._coefficients.shape[1])

    def values(self, widths: Integers) -> Integers:
        """Returns the values at many plans `(plans, groups)`, `(plans, polynomials)`."""
        padded = np.ones((len(widths), self._groups + 1), dtype=np.int64)
        padded[:, 1:] = widths
        values = (padded[:, self._left] * padded[:, self._right]) @ self._coefficients
        return np.asarray(values, dtype=np.int64)

    def largest(self, widths: Integers) -> Integers:
        """Returns the largest value at each of many plans, `(plans,)`; 0 without polynomials."""
        return np.asarray(self.values(widths).max(axis=1, initial=0))

    def coefficients(self) -> tuple[Floats, Floats]:
        """Returns the polynomials as `constant + linear @ w + w @ quadratic @ w / 2`.

        Returns:
            linear: `(polynomials, groups)`.
            quadratic: `(polynomials, groups, groups)`, symmetric.
        """
        dense = np.zeros((len(self), self._groups + 1, self._groups + 1))
        for row, (left, right) in enumerate(zip(self._left, self._right, strict=True)):
            dense[:, left, right] += self._coefficients[row]
        quadratic = dense[:, 1:, 1:]
        return dense[:, 0, 1:], quadratic + quadratic.transpose(0, 2, 1)
