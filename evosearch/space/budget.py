"""Limits on the network: a budget in numbers, and as users write it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from evosearch.errors import InputError, unknown_name
from evosearch.space.cost import Cost
from evosearch.space.resources import RESOURCES, Resource

FLOPS = "macs"
"""The resource that is minimised where a budget is an accuracy alone."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """Upper bounds on one resource that a run serves: from `low` to `high`, both included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise InputError(f"a budget must satisfy 0 < low <= high, not {self.low}..{self.high}")

    def at(self, position: float) -> int:
        """Returns the bound at `position` in [0, 1]: 0 is `low`, 1 is `high`, 0.5 midway."""
        return round(self.low + position * (self.high - self.low))


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits on the network; several hold together.

    A range is served as a whole: a candidate is feasible under the upper end, and strategies
    propose plans for the budgets in between (`at`).

    Attributes:
        bounds: resource -> its bound, in the order of `RESOURCES`; one or more. Those of exact
            resources hold by construction, the others are aimed at and then measured.
        relative_latency: whether latency was asked for as a share of the base network's.
        least_accuracy: accuracy on the search split, in [0, 1], under which a network is not
            feasible; aimed at, and then measured.
    """

    bounds: Mapping[str, Bound]
    relative_latency: bool = False
    least_accuracy: float | None = None

    def __post_init__(self) -> None:
        if not self.bounds:
            labels = [resource.label for resource in RESOURCES.values()]
            raise InputError(
                f"a budget needs at least one of {', '.join(labels[:-1])} and {labels[-1]}"
            )
        order = list(RESOURCES)
        ordered = dict(sorted(self.bounds.items(), key=lambda item: order.index(item[0])))
        object.__setattr__(self, "bounds", ordered)

    def __repr__(self) -> str:
        parts = []
        for name, bound in self.bounds.items():
            shown, unit = RESOURCES[name].shown, RESOURCES[name].unit
            low = f"{shown(bound.low)} to " if bound.low < bound.high else ""
            parts.append(f"{low}{shown(bound.high)}{unit}")
        if self.least_accuracy is not None:
            parts.append(f"search accuracy of {self.least_accuracy:.2%}")
        return f"Budget({', '.join(parts)})"

    @classmethod
    def of(
        cls,
        *,
        least_accuracy: float | None = None,
        relative_latency: bool = False,
        **bounds: Bound | None,
    ) -> Self:
        """Returns the budget of bounds that are given by name; None is none."""
        return cls(
            bounds={name: bound for name, bound in bounds.items() if bound is not None},
            least_accuracy=least_accuracy,
            relative_latency=relative_latency,
        )

    @classmethod
    def exactly(cls, **amounts: int) -> Self:
        """Returns the budget of one bound on each resource that is given by name."""
        return cls(bounds={n: Bound(low=x, high=x) for n, x in amounts.items()})

    @property
    def resource(self) -> Resource:
        """The resource that is minimised beside the loss: a measured one goes first."""
        limited = [RESOURCES[name] for name in self.bounds]
        return min(limited, key=lambda resource: resource.exact)

    @property
    def measured(self) -> dict[str, Bound]:
        """The bounds that do not hold by construction."""
        return {name: b for name, b in self.bounds.items() if not RESOURCES[name].exact}

    @property
    def shrunk(self) -> str:
        """The resource that is minimised where an accuracy is kept: a measured one, or FLOPs."""
        return next(iter(self.measured), FLOPS)

    @property
    def is_range(self) -> bool:
        """Whether any resource has more than one bound to serve."""
        return any(bound.low < bound.high for bound in self.bounds.values())

    def at(self, position: float) -> "Budget":
        """Returns the single budget at `position` in [0, 1]: 0 is the smallest network."""
        points = {name: bound.at(position) for name, bound in self.bounds.items()}
        return replace(Budget.exactly(**points), relative_latency=self.relative_latency)

    def but(self, **bounds: Bound) -> "Budget":
        """Returns the same budget with other bounds on the resources that are given by name."""
        return replace(self, bounds={**self.bounds, **bounds})

    def violation(self, cost: Cost, accuracy: float | None = None) -> float:
        """Returns by how much a network exceeds the budget.

        Args:
            cost: of the network.
            accuracy: its accuracy on the search split, where that was measured.

        Returns:
            The sum over resources of the excess as a share of the upper bound, and of what the
            accuracy lacks; 0.0 when met.
        """
        excess = 0.0
        for name, bound in self.bounds.items():
            excess += max(0, RESOURCES[name].of(cost) - bound.high) / bound.high
        if self.least_accuracy is not None and accuracy is not None:
            excess += max(0.0, self.least_accuracy - accuracy)
        return excess

    def to_json(self) -> dict[str, Any]:
        """Returns the bounds as `{resource: [low, high]}`, and what else there is."""
        bounds = {name: [bound.low, bound.high] for name, bound in self.bounds.items()}
        rest = {"least_accuracy": self.least_accuracy, "relative_latency": self.relative_latency}
        return bounds | {name: value for name, value in rest.items() if value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads what `to_json` wrote."""
        bounds = {n: Bound(low=x[0], high=x[1]) for n, x in data.items() if isinstance(x, list)}
        rest = {name: value for name, value in data.items() if name not in bounds}
        return cls(bounds=bounds, **rest)


@dataclass(frozen=True, kw_only=True)
class BudgetRequest:
    """A budget as a user writes it.

    Attributes:
        amounts: option of a resource ("flops") -> text: "40M" (absolute), "50%" (of the base
            network) or "30%..70%" (a range); a time has its unit, such as "3.5ms".
        accuracy_drop: points of accuracy on the search split that may be lost; then the latency
            is minimised where that has an amount ("100%" is no limit), or else the FLOPs.
    """

    amounts: Mapping[str, str] = field(default_factory=dict)
    accuracy_drop: float | None = None

    def __post_init__(self) -> None:
        options = {resource.option: resource for resource in RESOURCES.values()}
        for option, text in self.amounts.items():
            if option not in options:
                raise unknown_name("budget", option, [*options, "accuracy_drop"])
            if options[option].exact:
                continue
            if len({part.strip().endswith("%") for part in text.split("..")}) > 1:
                raise InputError(
                    f"--{option} {text!r}: the ends of a range that is measured are both shares,"
                    " or both amounts"
                )
            _read_bound(options[option], text, base=1_000_000)  # before anything is measured

    @classmethod
    def of(cls, *, accuracy_drop: float | None = None, **amounts: str | None) -> Self:
        """Returns the request of amounts that are given by option; None is none."""
        given = {option: str(text) for option, text in amounts.items() if text is not None}
        return cls(amounts=given, accuracy_drop=accuracy_drop)

    @property
    def is_empty(self) -> bool:
        """Whether it asks for nothing."""
        return not self.amounts and self.accuracy_drop is None

    @property
    def needs_model(self) -> bool:
        """Whether it limits what a model must predict."""
        return any(r.option in self.amounts and not r.exact for r in RESOURCES.values())

    def exact(self) -> "BudgetRequest":
        """Returns the part of the request that needs no model."""
        kept = {r.option for r in RESOURCES.values() if r.exact}
        amounts = {option: text for option, text in self.amounts.items() if option in kept}
        return replace(self, amounts=amounts)

    def resolve(self, base: Cost, base_accuracy: float | None = None) -> Budget:
        """Returns the budget in numbers.

        Args:
            base: cost of the unpruned network, which shares refer to.
            base_accuracy: its accuracy on the search split, in [0, 1], which a drop refers to.

        Raises:
            InputError: the text is no budget, or asks for more than the base network.
        """
        amounts, floor = dict(self.amounts), None
        if self.accuracy_drop is not None:
            floor = self._least_accuracy(base_accuracy)
            if not self.needs_model:
                amounts.setdefault(RESOURCES[FLOPS].option, "100%")
        bounds = {
            resource.name: _checked_bound(resource, amounts[resource.option], base)
            for resource in RESOURCES.values()
            if resource.option in amounts
        }
        relative = any(
            "%" in amounts[RESOURCES[n].option] for n in bounds if not RESOURCES[n].exact
        )
        return Budget(bounds=bounds, relative_latency=relative, least_accuracy=floor)

    def _least_accuracy(self, base_accuracy: float | None) -> float:
        assert self.accuracy_drop is not None
        if not 0 <= self.accuracy_drop < 100:
            raise InputError(
                f"--accuracy-drop {self.accuracy_drop:g}: expected points of accuracy, from"
                " 0 to under 100, such as 1.0"
            )
        if base_accuracy is None:
            raise InputError("an accuracy drop is no size; give FLOPs or params here")
        return base_accuracy - self.accuracy_drop / 100


def _checked_bound(resource: Resource, text: str, base: Cost) -> Bound:
    """Returns the bound that a text stands for, in the cost's own unit."""
    whole = resource.of(base)
    if not whole:
        reason = (
            "it is counted in models that are traced as a whole, by runs of this version on"
            if resource.exact
            else "begin a new run with it"
        )
        raise InputError(
            f"--{resource.option}: the {resource.label} of these networks is not known; {reason}"
        )
    bound = _read_bound(resource, text, resource.scale * whole)
    if bound.high > resource.scale * whole:
        raise InputError(
            f"--{resource.option} {text!r}: more than the base network's"
            f" {resource.shown(whole)}; nothing to cut"
        )
    ends = [max(1, end // resource.scale) for end in (bound.low, bound.high)]
    return Bound(low=ends[0], high=ends[1])


def _read_bound(resource: Resource, text: str, base: int) -> Bound:
    """Returns the bound that a text stands for, in what users count."""
    option = f"--{resource.option}"
    ends = [resource.quantity.read(part, text, option, base) for part in text.split("..")]
    if len(ends) > 2:
        raise InputError(f"{option} {text!r}: a range is written LOW..HIGH, such as 30%..70%")
    if ends[0] > ends[-1]:
        raise InputError(f"{option} {text!r}: the range runs backwards; write the lower end first")
    return Bound(low=ends[0], high=ends[-1])
