"""What a search is shown beside: the same build, so that a difference is the search's."""

import numpy as np
import pytest

import evosearch
from evosearch.run.references import GLOBAL, PLAIN, POSITIONS, UNIFORM
from evosearch.run.reopening import reopen
from evosearch.strategies.fixed_plans import global_mask, uniform_mask
from evosearch.strategies.two_step import TwoStep
from tests.test_cli import QUICK


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> evosearch.Run:
    folder = tmp_path_factory.mktemp("references")
    (folder / "quick.toml").write_text(QUICK)
    return evosearch.search(
        folder / "quick.toml",
        flops="30%..60%",
        criterion="taylor",
        trials=8,
        seed=0,
        out=folder / "run",
    )


def test_three_plans_at_three_places_of_a_range(run: evosearch.Run) -> None:
    base, *others = run.study.header.references
    assert base.name == "base"
    assert [plan.name for plan in others] == [PLAIN, UNIFORM, GLOBAL] * len(POSITIONS)
    limits = [run.study.header.budget.at(x).bounds["macs"].high for x in POSITIONS]
    for plan, limit in zip(others, np.repeat(limits, 3), strict=True):
        assert 0.9 * limit < plan.cost.macs <= limit


def test_each_is_built_and_chosen_as_its_name_says(run: evosearch.Run) -> None:
    prepared = reopen(run.folder, run.study.header, lambda _: None)
    space, evaluator = prepared.subject.discovery.space, prepared.evaluator
    knowledge, channels = prepared.knowledge, TwoStep(space, prepared.knowledge.gram)
    middle = run.study.header.budget.at(0.5)
    plain, uniform, ranked = run.study.header.references[4:7]
    assert plain.mask == uniform_mask(space, middle, knowledge.scores["l1"])
    assert plain.search == evaluator.evaluate_plain(plain.mask).score
    assert uniform.mask.widths == plain.mask.widths
    widths = global_mask(space, middle, knowledge.comparable["taylor"]).widths
    assert ranked.mask.widths == widths
    for plan in (uniform, ranked):
        assert plan.mask == channels.mask(space.widths(plan.mask))
        assert plan.search == evaluator.evaluate(plan.mask).score
    # Why the build must be the same: it alone makes the lowest-L1 plan a better one.
    assert evaluator.evaluate(plain.mask).score.loss < plain.search.loss


def test_a_search_begins_with_the_uniform_plan_that_it_is_shown_beside(run: evosearch.Run) -> None:
    trials = {trial.mask: trial for trial in run.study.trials}
    uniform = [plan for plan in run.study.header.references if plan.name == UNIFORM]
    for plan in (uniform[0], uniform[-1]):
        own = trials[plan.mask]
        assert own.genome["operator"] == "uniform"
        assert own.evaluation is not None
        assert own.evaluation.score == plan.search
