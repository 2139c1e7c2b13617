"""What a part of a network costs, as a polynomial in the widths of its channel groups."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from evosearch.space.cost import Cost

FORMS = ("macs", "params", "activations")
"""The fields of a `Cost` that every module has its own exact form of."""
BYTES = ("size", "memory")
"""The fields of a `Cost` that are bytes."""


@dataclass(frozen=True)
class Monomial:
    """`coefficient` times the product of the widths of at most two groups."""

    coefficient: int
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CostTerm:
    """What one module costs, exactly, as sums of monomials in the widths.

    Attributes:
        name: the module, or the part of the network, that the cost belongs to.
        macs: multiply-accumulates for one image.
        params: parameters; a shared module's parameters count once.
        activations: elements of its output for one image.
    """

    name: str
    macs: tuple[Monomial, ...] = ()
    params: tuple[Monomial, ...] = ()
    activations: tuple[Monomial, ...] = ()

    def evaluate(self, widths: Mapping[str, int]) -> Cost:
        """Returns the module's cost at the given widths."""
        return Cost(**{name: total(getattr(self, name), widths) for name in FORMS})


@dataclass(frozen=True, kw_only=True)
class LatencyTerm:
    """A part of the predicted time of one batch, as a sum of monomials in the widths.

    Attributes:
        name: what takes the time: a module, or "overhead".
        picoseconds: each coefficient is rounded up.
    """

    name: str
    picoseconds: tuple[Monomial, ...]

    def evaluate(self, widths: Mapping[str, int]) -> int:
        """Returns the part's picoseconds at the given widths."""
        return total(self.picoseconds, widths)


@dataclass(frozen=True, kw_only=True)
class ByteTerm:
    """Bytes that something takes, exactly, as a sum of monomials in the widths.

    Attributes:
        name: what takes them: a module, or a point of the program where tensors are alive.
        bytes: of them.
    """

    name: str
    bytes: tuple[Monomial, ...]


def total(monomials: Iterable[Monomial], widths: Mapping[str, int]) -> int:
    """Returns a sum of monomials at the given widths."""
    return sum(
        m.coefficient * int(np.prod([widths[g] for g in m.groups], dtype=np.int64))
        for m in monomials
    )
