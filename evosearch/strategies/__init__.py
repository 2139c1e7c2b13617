"""Strategies propose masks and learn from trials; nothing here imports torch.

======================  ==================================================================
`base`                  the protocol that every strategy follows
`layerwise`             rates from measured sensitivity, channels from a genetic algorithm
`genetic`               a genetic algorithm over whole masks finds the front (NSGA-II)
`rates`                 Optuna searches weights of groups, an allocation decodes them
`two_step`              what dropping channels costs, as a quadratic form
`allocation`            from weights to the widths of least error within a budget
`knapsack`              the dynamic program inside it
`genetic_layer`         the genetic algorithm of one group
`sensitivity`           error curves in nats and widths, from measured sensitivity
`regression`            weights of groups read off the trials
`learned`               the loss of any mask, as those weights predict it
`population`            masks as matrices
`initial`               the first of them, by known rules
`variation`             crossover and mutation of a population
`selection`             NSGA-II
`baselines`             plans that need no search
`profiles`              the strategies that propose those
======================  ==================================================================
"""

from collections.abc import Mapping

from evosearch.errors import unknown_name
from evosearch.strategies.base import Strategy
from evosearch.strategies.genetic import Genetic
from evosearch.strategies.layerwise import Layerwise
from evosearch.strategies.profiles import Global, Random, Relative, Triangular, Uniform
from evosearch.strategies.rates import Rates

STRATEGIES: Mapping[str, type[Strategy]] = {
    "genetic": Genetic,
    "layerwise": Layerwise,
    "rates": Rates,
    "random": Random,
    "uniform": Uniform,
    "global": Global,
    "triangular": Triangular,
    "relative": Relative,
}


def strategy_class(name: str) -> type[Strategy]:
    """Returns the strategy of a name.

    Raises:
        InputError: there is none; names the nearest.
    """
    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)
    return STRATEGIES[name]
