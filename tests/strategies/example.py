"""The strategy that `evosearch/strategies/README.md` writes, with its row in the table."""

from functools import cache

from evosearch.strategies import STRATEGIES
from evosearch.strategies.base import Strategy
from tests.readmes import code_blocks

EXAMPLE = "climb"


@cache
def example() -> type[Strategy]:
    """Returns the strategy of the README; the table stays as it is."""
    (code,) = code_blocks("strategies", "python")
    exec(compile(code, "strategies/README.md", "exec"), {})
    return STRATEGIES.pop(EXAMPLE)
