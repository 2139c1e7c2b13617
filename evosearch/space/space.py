"""The search space: channel groups, exact costs as forms in their widths, legality and repair."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evosearch.errors import InfeasibleBudget, InputError
from evosearch.space.budget import Budget
from evosearch.space.cost import Cost
from evosearch.space.costform import (
    BYTES,
    FORMS,
    ByteTerm,
    CostTerm,
    LatencyTerm,
    Monomial,
    total,
)
from evosearch.space.digest import digest_of
from evosearch.space.mask import Bits, ChannelGroup, Mask
from evosearch.space.polynomials import Polynomials
from evosearch.space.resources import RESOURCES, amounts

Widths = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class FrozenGroup:
    """Channels that the search leaves alone, and why."""

    name: str
    size: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What is searched: which channels may go, and what every choice costs.

    Attributes:
        groups: the prunable groups in network order; an array of widths follows this order.
        terms: the cost of every module; their sum is the network's.
        frozen: what stays, with reasons.
        latency: the predicted time of one batch on one device, as a sum; empty without a model.
        size: bytes of the file of the weights, as a sum.
        memory: bytes of the activations that are alive at each point of the program that may need
            the most of them. This and `size` are empty in spaces that earlier versions saved.
        reference: the sections of the space file that say which model and data this is.
    """

    groups: tuple[ChannelGroup, ...]
    terms: tuple[CostTerm, ...]
    frozen: tuple[FrozenGroup, ...] = ()
    latency: tuple[LatencyTerm, ...] = ()
    size: tuple[ByteTerm, ...] = ()
    memory: tuple[ByteTerm, ...] = ()
    reference: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Group name -> number of channels."""
        return {group.name: group.size for group in self.groups}

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that change with the groups or the costs.

        Bytes follow from the same graph, and do not count: runs from before they were known keep
        their digest.
        """
        return digest_of((self.groups, self.terms, *([self.latency] if self.latency else [])))

    def __repr__(self) -> str:
        return (
            f"SearchSpace({self.digest}: {sum(self.sizes.values())} channels in"
            f" {len(self.groups)} groups, {len(self.frozen)} frozen, {amounts(self.base_cost)})"
        )

    # Cost

    def parts(self, resource: str) -> list[tuple[str, tuple[Monomial, ...]]]:
        """Returns the parts of what a network takes of a resource, each behind its name.

        The sum of them counts; of memory they are points of the program, and the largest counts.
        """
        if resource in FORMS:
            return [(term.name, getattr(term, resource)) for term in self.terms]
        if resource == "latency":
            return [(term.name, term.picoseconds) for term in self.latency]
        return [(term.name, term.bytes) for term in getattr(self, resource)]

    def sums(self, resource: str) -> tuple[tuple[Monomial, ...], ...]:
        """Returns the forms of which the largest is what a network takes of a resource."""
        parts = tuple(monomials for _, monomials in self.parts(resource))
        return parts if resource == "memory" else (tuple(chain.from_iterable(parts)),)

    @cached_property
    def forms(self) -> dict[str, Polynomials]:
        """The same for many plans at once, by resource."""
        every = (*FORMS, "latency", *BYTES)
        return {name: Polynomials(self.sums(name), tuple(self.sizes)) for name in every}

    def costs(self, widths: Widths) -> dict[str, Widths]:
        """Returns the costs of many plans at once.

        Args:
            widths: `(plans, groups)`.

        Returns:
            For each field of a `Cost` an array `(plans,)`.
        """
        return {resource: form.largest(widths) for resource, form in self.forms.items()}

    def cost_of_widths(self, widths: Widths) -> Cost:
        """Returns the exact cost of one plan, `(groups,)`."""
        costs = self.costs(np.asarray(widths, dtype=np.int64)[None])
        return Cost(**{resource: int(values[0]) for resource, values in costs.items()})

    def cost(self, mask: Mask) -> Cost:
        """Returns the exact cost of the network that a mask leaves."""
        return self.cost_of_widths(self.widths(mask))

    def widths(self, mask: Mask) -> Widths:
        """Returns a mask's widths in group order, `(groups,)`."""
        return np.array([mask[group.name].sum() for group in self.groups], dtype=np.int64)

    @cached_property
    def full_widths(self) -> Widths:
        """Every group's size, `(groups,)`."""
        return np.array([group.size for group in self.groups], dtype=np.int64)

    @cached_property
    def least_widths(self) -> Widths:
        """Every group's smallest legal width, `(groups,)`."""
        return np.array([group.legal_widths()[0] for group in self.groups], dtype=np.int64)

    @cached_property
    def base_cost(self) -> Cost:
        """Cost of the unpruned network."""
        return self.cost_of_widths(self.full_widths)

    @cached_property
    def smallest_cost(self) -> Cost:
        """The smallest reachable cost: every group at its smallest legal width."""
        return self.cost_of_widths(self.least_widths)

    @cached_property
    def prunable_share(self) -> float:
        """Share of the base network's MACs in layers with a prunable side."""
        prunable = sum(
            term.evaluate(self.sizes).macs
            for term in self.terms
            if any(monomial.groups for monomial in term.macs)
        )
        return prunable / self.base_cost.macs

    def fits(self, widths: Widths, budget: Budget) -> NDArray[np.bool_]:
        """Returns which of many plans `(plans, groups)` meet the budget, `(plans,)`."""
        costs = self.costs(widths)
        met = np.ones(len(widths), dtype=np.bool_)
        for name, bound in budget.bounds.items():
            met &= costs[name] <= bound.high
        return met

    def require_reachable(self, budget: Budget) -> None:
        """Checks that some mask fits even the lower end of the budget.

        Raises:
            InfeasibleBudget: none does; names the smallest reachable cost and what holds it up.
        """
        for name, bound in budget.bounds.items():
            resource = RESOURCES[name]
            smallest, base = resource.of(self.smallest_cost), resource.of(self.base_cost)
            if smallest <= bound.low:
                continue
            least = dict(zip(self.sizes, self.least_widths.tolist(), strict=True))
            amounts = [(total(parts, least), part) for part, parts in self.parts(name)]
            rest = sorted(amounts, key=lambda item: (-item[0], item[1]))
            holders = ", ".join(f"{part} {resource.shown(c)}" for c, part in rest[:3] if c)
            raise InfeasibleBudget(
                f"budget of {resource.shown(bound.low)}{resource.unit} ({bound.low / base:.1%} of"
                " the base) is out of reach: the smallest reachable network has"
                f" {resource.shown(smallest)}{resource.unit} ({smallest / base:.1%}), held up by"
                f" {holders}"
            )

    # Legality

    def check(self, mask: Mask) -> None:
        """Checks that a mask belongs to this space.

        Raises:
            InputError: groups or sizes differ, or a width is not legal.
        """
        if set(mask) != set(self.sizes):
            raise InputError(f"mask names groups {sorted(mask)}, expected {sorted(self.sizes)}")
        for group in self.groups:
            bits = mask[group.name]
            if bits.size != group.size:
                raise InputError(
                    f"mask of group {group.name!r} has {bits.size} channels, expected {group.size}"
                )
            if int(bits.sum()) not in group.legal_widths():
                raise InputError(
                    f"mask keeps {int(bits.sum())} channels of group {group.name!r}; legal widths"
                    f" are {_summary(group.legal_widths())}"
                )

    def full_mask(self) -> Mask:
        """Returns the mask that keeps everything."""
        return Mask({group.name: np.ones(group.size, dtype=np.bool_) for group in self.groups})

    def fit_widths(self, widths: Widths, budget: Budget) -> Widths:
        """Returns legal widths within the budget, no larger than asked where those are legal.

        Widths that are legal and fit come back unchanged. Others are scaled down together, then
        grown again one legal step at a time in turn, as far as the budget and `widths` allow.

        Args:
            widths: `(groups,)`, any integers.
            budget: its upper end is met.

        Raises:
            InfeasibleBudget: not even the smallest legal widths fit.
        """
        legal = [np.array(group.legal_widths()) for group in self.groups]
        steps = np.array(
            [
                max(0, np.searchsorted(w, x, side="right") - 1)
                for w, x in zip(legal, widths, strict=True)
            ],
            dtype=np.int64,
        )

        def at(step: Widths) -> Widths:
            return np.array([w[s] for w, s in zip(legal, step, strict=True)], dtype=np.int64)

        if self.fits(at(steps)[None], budget)[0]:
            return at(steps)
        shares = np.linspace(0, 1, 257)[:-1]
        scaled = np.floor(shares[:, None] * steps).astype(np.int64)
        fitting = np.flatnonzero(self.fits(np.stack([at(row) for row in scaled]), budget))
        if fitting.size == 0:
            self.require_reachable(Budget.exactly(**{n: b.high for n, b in budget.bounds.items()}))
        current = scaled[fitting[-1]]
        growing = list(range(len(steps)))
        while growing:
            grown = []
            for group in growing:
                trial = current.copy()
                trial[group] += 1
                if trial[group] <= steps[group] and self.fits(at(trial)[None], budget)[0]:
                    current = trial
                    grown.append(group)
            growing = grown
        return at(current)

    def sample(self, rng: np.random.Generator, budget: Budget) -> Mask:
        """Returns a random legal mask within the budget: widths first, then channels."""
        widths = [int(rng.choice(group.legal_widths())) for group in self.groups]
        scores = {group.name: rng.random(group.size) for group in self.groups}
        return self.top_channels(self.fit_widths(np.array(widths), budget), scores)

    def top_channels(self, widths: Widths, scores: Mapping[str, NDArray[Any]]) -> Mask:
        """Returns the mask that keeps the highest-scored channels; ties keep the earlier channel.

        Args:
            widths: `(groups,)`.
            scores: group name -> `(channels,)`.
        """
        bits: dict[str, Bits] = {}
        for group, width in zip(self.groups, widths, strict=True):
            order = np.argsort(-np.asarray(scores[group.name]), kind="stable")
            bits[group.name] = np.isin(np.arange(group.size), order[:width])
        return Mask(bits)

    def repair(self, mask: Mask, rng: np.random.Generator, budget: Budget) -> Mask:
        """Returns a legal mask within the budget, near to the one given.

        A mask that is legal and fits comes back equal. Widths are lowered by `fit_widths`; which
        channels go (or come, where a width was under the smallest legal one) is drawn at random.
        """
        widths = self.fit_widths(self.widths(mask), budget)
        # Kept channels score in [1, 2), dropped ones in [0, 1): kept ones go first, at random.
        scores = {name: bits + rng.random(bits.size) for name, bits in mask.items()}
        return self.top_channels(widths, scores)


def _summary(widths: Sequence[int]) -> str:
    return (
        ", ".join(map(str, widths))
        if len(widths) <= 6
        else f"{widths[0]}, {widths[1]}, ..., {widths[-1]}"
    )
