"""What every strategy is: it proposes masks a round at a time, and learns from trials."""

from collections.abc import Sequence
from typing import ClassVar, Protocol

from evosearch.trial import Proposal, Trial


class Strategy(Protocol):
    """Proposes masks and learns from what came of them.

    A strategy is built from `(space, budget, knowledge, config, seed)`. It holds no state that
    the seed and the trials told do not determine, so a resumed run rebuilds it by telling it the
    recorded rounds again. Every proposal is legal and within the upper end of the budget.
    """

    name: ClassVar[str]
    needs_sensitivity: ClassVar[bool]
    """Whether `Knowledge.sensitivity` must be measured before the search."""

    def ask(self) -> list[Proposal]:
        """Returns the proposals of the next round, always the same number.

        Pure: asking twice without a tell in between gives the same proposals.
        """
        ...

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learns from one whole round: the trials of the last `ask`, in its order.

        Failed trials come too; they carry no evaluation, and still advance the next ask.
        """
        ...
