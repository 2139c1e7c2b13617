"""The part of a training that hangs gates into its network, while there is something to cut."""

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from evosearch.space.budget import Budget
from evosearch.space.space import SearchSpace
from evosearch.surgery.discovery import Discovery
from evosearch.surgery.gating import Gates
from evosearch.training.parts import Host, Part


@final
class Gated(Part):
    """Gates on the channels of a network as long as it is over its budget.

    They learn as the rest does, with its optimizer and learning rate, and are in the network's
    state. They follow its cuts; one that leaves it within the budget throws them away.
    """

    def __init__(self, kind: type[Gates], budget: Budget, rng: torch.Generator) -> None:
        """Takes which gates, and until when.

        Args:
            kind: of gates.
            budget: of bounds on what exact forms give.
            rng: of what is drawn, of the CPU.
        """
        self._kind, self._budget, self._rng = kind, budget, rng
        self._gates: Gates | None = None

    def joined(self, training: Host) -> None:
        """See `Part.joined`; the training must know its channel groups."""
        self._training = training
        if not self._is_done:
            found = self._discovery
            self._gates = self._kind(training.model, found.space.groups, found.layers, self._rng)

    def undecayed(self) -> frozenset[str]:
        """See `Part.undecayed`."""
        if self._gates is None or self._kind.decays:
            return frozenset()
        own = {id(parameter) for parameter in self._gates.parameters()}
        named = self._training.model.named_parameters()
        return frozenset(name for name, parameter in named if id(parameter) in own)

    def term(self) -> Tensor | None:
        """See `Part.term`."""
        return None if self._gates is None else self._gates.term(self._share)

    def after_cut(self) -> None:
        """See `Part.after_cut`."""
        if self._gates is None:
            return
        if self._is_done:
            self._gates.discard()
            self._gates = None
            return
        found, mask = self._discovery, self._training.mask
        assert mask is not None
        self._gates.follow(self._training.model, found.space.groups, found.layers, mask)

    def _share(self, widths: Mapping[str, Tensor]) -> Tensor:
        """Counts no group narrower than it can become, so that none is pushed on from there."""
        space = self._discovery.space
        least = dict(zip(space.sizes, space.least_widths.tolist(), strict=True))
        legal = {name: width.clamp(min=least[name]) for name, width in widths.items()}
        return share_of(space, self._budget, legal)

    @property
    def _is_done(self) -> bool:
        return self._budget.violation(self._discovery.space.base_cost) == 0

    @property
    def _discovery(self) -> Discovery:
        assert self._training.discovery is not None
        return self._training.discovery


def share_of(space: SearchSpace, budget: Budget, widths: Mapping[str, Tensor]) -> Tensor:
    """Returns the cost of widths as a share of a budget, with gradient: the largest of its bounds.

    Args:
        space: has the exact forms.
        budget: of bounds on what they give.
        widths: of every group, which need not be whole.
    """
    shares = []
    for name, bound in budget.bounds.items():
        for monomials in space.sums(name):
            total = torch.zeros(())
            for monomial in monomials:
                product = torch.as_tensor(float(monomial.coefficient))
                for group in monomial.groups:
                    product = product * widths[group]
                total = total + product
            shares.append(total / bound.high)
    return torch.stack(shares).max()
