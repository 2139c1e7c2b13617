"""One plan of a run, and the networks of its artifact, as tables and as JSON; without torch."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from evosearch.report.columns import (
    MEASURED,
    NAME,
    PREDICTED_LOSS,
    SEARCH_ACCURACY,
    TEST_ACCURACY,
    NetworkColumn,
    measured_columns,
    metric_of,
    naming,
    size_column,
    size_columns,
)
from evosearch.report.tables import json_object, terminal_table
from evosearch.space.resources import RESOURCES
from evosearch.study.networks import NamedNetwork
from evosearch.study.study import Study


def plan_table(study: Study, plan: NamedNetwork) -> Table:
    """Returns one plan as a table; what is predicted is said to be."""
    return terminal_table((NAME, *_plan_columns(study, plan)), [plan])


def plan_json(study: Study, plan: NamedNetwork) -> dict[str, Any]:
    """Returns one plan as JSON."""
    return {
        "plan": plan.name,
        "measured": plan.evaluation is not None,
        **json_object((PREDICTED_LOSS, *_plan_columns(study, plan)), plan),
        "widths": plan.mask.widths,
    }


def _plan_columns(study: Study, plan: NamedNetwork) -> tuple[NetworkColumn, ...]:
    if plan.evaluation is None:
        return (*size_columns(study), PREDICTED_LOSS)
    return measured_columns(study)


def networks_table(study: Study, networks: Sequence[NamedNetwork]) -> Table:
    """Returns finished networks of a run, each measured once on test."""
    scores = naming(metric_of(study), SEARCH_ACCURACY, TEST_ACCURACY)
    return terminal_table((NAME, *size_columns(study), *scores), networks)


def cut_table(base: NamedNetwork, plan: NamedNetwork) -> Table:
    """Returns a network that was cut and not trained, beside its base network."""
    usual = [resource for resource in RESOURCES.values() if resource.is_usual]
    sizes = (size_column(own, base.cost) for own in usual if own.of(base.cost))
    return terminal_table((NAME, *sizes, *naming(base.search.metric, *MEASURED)), [base, plan])
