"""Strategies: they propose masks and learn from trials; nothing here imports torch.

A new one is a class in a file, and a line in `STRATEGIES`; `README.md` has the steps.

===============  ==========================================================================
`base`           the protocol of a strategy, and the `Problem` that one is built from
`rates`          the strategy: weights of groups are searched, an allocation decodes them
`spdy`           its other sampler: random draws, then a shrinking local search
`policy`         the strategy: one policy gives keep ratios for any budget, by REINFORCE
`gaussian`       its policy
`stepwise`       the strategy: one width after the other, by bisection under rising limits
`genetic`        the strategy: a genetic algorithm over whole masks, NSGA-II
`layerwise`      the strategy: rates from sensitivity, channels from a genetic algorithm
`baselines`      the strategies that do not search: random, uniform, global, and so on
`fixed_plans`    the plans that those propose
`two_step`       the error of dropping channels, as a quadratic form
`weightstudy`    the weights that `rates` has tried, as Optuna sees them
`costcurves`     what each group's cut costs by itself, as `rates` predicts it
`untried`        the plans and masks that are left, where proposals repeat
`sensitivity`    measured sensitivities: the scale of error curves, widths for a tolerance
`allocation`     the widths of least weighted error within a budget
`two_step_plan`  the plan of least two-step error: one allocation, and no search
`palette`        the plans that elastic weights are trained for
`knapsack`       the dynamic program inside it
`regression`     a Bayesian regression of losses on what each group's cut costs
`learned`        the loss of any mask, as that regression predicts it
`population`     masks as matrices, for `genetic`
`initial`        its first plans, by known rules
`variation`      its crossover and mutation
`selection`      its survival selection
`genetic_layer`  the genetic algorithm of one group, for `layerwise`
===============  ==========================================================================
"""

from evosearch.errors import unknown_name
from evosearch.strategies.base import Strategy
from evosearch.strategies.baselines import Global, Random, Relative, Triangular, Uniform
from evosearch.strategies.genetic import Genetic
from evosearch.strategies.layerwise import Layerwise
from evosearch.strategies.policy import Policy
from evosearch.strategies.rates import Rates
from evosearch.strategies.stepwise import Stepwise

STRATEGIES: dict[str, type[Strategy]] = {
    "genetic": Genetic,
    "layerwise": Layerwise,
    "rates": Rates,
    "policy": Policy,
    "stepwise": Stepwise,
    "random": Random,
    "uniform": Uniform,
    "global": Global,
    "triangular": Triangular,
    "relative": Relative,
}
"""Every strategy by name."""


def strategy_class(name: str) -> type[Strategy]:
    """Returns the strategy of a name.

    Raises:
        InputError: there is none; names the nearest.
    """
    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)
    return STRATEGIES[name]
