"""The errors that evosearch raises on purpose, and whose fault each is.

::

    EvosearchError
    ├── InputError          the user's input is at fault: one clear line, exit code 2
    │   ├── InfeasibleBudget    no legal mask fits the budget
    │   └── TracingError        the model cannot be traced
    ├── EvaluationError     one candidate failed: a FAIL trial, and the search goes on
    └── MemoryExhausted     the machine has too little memory, whatever the candidate
"""

from collections.abc import Iterable
from difflib import get_close_matches


class EvosearchError(Exception):
    """Base of everything that evosearch raises on purpose."""


class InputError(EvosearchError):
    """The user's input is at fault; the message says where, what came and what was expected."""


class InfeasibleBudget(InputError):
    """No legal mask fits the budget; the message names the smallest reachable cost."""


class TracingError(InputError):
    """The model cannot be traced, so its channel groups are unknown."""


class EvaluationError(EvosearchError):
    """A candidate could not be evaluated."""


class MemoryExhausted(EvosearchError):
    """The least batch does not fit into memory: no candidate's fault; a run ends, and resumes."""


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> InputError:
    """Returns the error for a name that does not exist, with the nearest one that does.

    Args:
        kind: what was to be named, such as "strategy".
        name: what came.
        valid: every valid name.
    """
    choices = sorted(valid)
    near = get_close_matches(name, choices, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(choices)}"
    return InputError(f"unknown {kind} {name!r}: {hint}")
