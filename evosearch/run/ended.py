"""The end of a session: why it ended, and what was certified.

Imported without torch.
"""

from dataclasses import dataclass
from typing import final

from evosearch.engine.loop import Outcome
from evosearch.study.certificate import Certificate


@final
@dataclass(frozen=True, kw_only=True)
class Ended:
    """What came of a session.

    Attributes:
        outcome: why it ended.
        certificate: whether the winner was measured to keep the budget; None where there was
            nothing to certify, or no time for it.
    """

    outcome: Outcome
    certificate: Certificate | None
