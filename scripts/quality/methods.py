"""The methods that are compared."""

from collections.abc import Mapping
from dataclasses import dataclass

from quality.rivals import CRITERIA, ON_GRADIENTS, SCOPES

UNTUNED = ("raw", "recalibrated", "compensated")
TUNED = ("labels", "distill")
"""What is done to a network before it is measured."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to choose channels.

    Attributes:
        strategy: evosearch's; None for torch-pruning's, and for the base network.
        searches: whether it takes trials.
        inner: whether only channels inside residual blocks may go.
        draws: whether what it keeps, or how it is compensated, depends on the seed.
        stages: what its networks are measured after.
    """

    strategy: str | None = None
    searches: bool = False
    inner: bool = True
    draws: bool = True
    stages: tuple[str, ...] = (*UNTUNED, *TUNED)


BASE = "base"
RIVALS = {
    f"tp-{criterion}-{scope}": Method(
        draws=criterion in ON_GRADIENTS, stages=("raw", "recalibrated", *TUNED)
    )
    for criterion in CRITERIA
    for scope in SCOPES
}
OURS = {
    f"{strategy}{suffix}": Method(
        strategy=strategy, searches=strategy not in ("uniform", "global"), inner=bool(suffix)
    )
    for suffix in ("-inner", "")
    for strategy in ("uniform", "global", "layerwise", "genetic", "rates")
}
METHODS: Mapping[str, Method] = {BASE: Method(draws=False, stages=("raw",)), **RIVALS, **OURS}
