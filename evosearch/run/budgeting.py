"""Another budget for a run that was begun: made out from what is known of it, and recorded."""

from pathlib import Path

from evosearch.aims import begin_segment
from evosearch.files import write_text, writing
from evosearch.latency.model import LatencyModel
from evosearch.run.config import run_config_to_toml
from evosearch.run.folder import RunFolder
from evosearch.run.preparation import Prepared, require_drop_of_mean
from evosearch.space.budget import Budget, BudgetRequest
from evosearch.space.text import load_space
from evosearch.study.study import Study


def resolved_budget(folder: Path, study: Study, request: BudgetRequest) -> Budget:
    """Returns the budget that is asked of a run from here on.

    Raises:
        InputError: it is at fault or out of reach.
    """
    base = study.header.base.search
    require_drop_of_mean(request, base.metric, pooled=base.pooled)
    budget = request.resolve(study.header.base_cost, base.accuracy)
    space = load_space(RunFolder(folder).space)
    space.require_reachable(budget)
    if budget.measured:
        LatencyModel.load(RunFolder(folder).latency).require_finer(budget)
    return budget


def change_budget(folder: Path, study: Study, budget: Budget, prepared: Prepared) -> None:
    """Has the trials of a run from here on proposed for another budget.

    The study says so first; the config repeats it for people.
    """
    if budget != study.requested:
        begin_segment(study, budget, prepared.subject.discovery.space.smallest_cost)
    segments = tuple(segment.to_json() for segment in study.segments)
    text = run_config_to_toml(prepared.config.model_copy(update={"segments": segments}))
    path = RunFolder(folder).config
    with writing(path):
        write_text(path, text)
