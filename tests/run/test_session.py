"""The search loop: replay, repeats, failures and limits, with every strategy."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from evosearch.engine.loop import EXHAUSTED, Limits, Outcome, search
from evosearch.engine.measurements import Measurements
from evosearch.engine.parallel import OneByOne
from evosearch.errors import InputError
from evosearch.space.budget import Budget, BudgetRequest
from evosearch.space.mask import Mask
from evosearch.strategies import STRATEGIES
from evosearch.strategies.base import Problem, Strategy
from evosearch.strategies.baselines import BaselineConfig
from evosearch.strategies.stepwise import Stepwise
from evosearch.study.records import Header
from evosearch.study.scores import ImageScores
from evosearch.study.scorestore import ScoreStore
from evosearch.study.study import STUDY_FILE, Study
from evosearch.study.trial import Proposal, Trial, TrialState
from tests.toys import IDENTITY, ToyEvaluator, comparable, toy_knowledge, toy_space

SPACE = toy_space()
BUDGET = BudgetRequest.of(flops="30%..70%").resolve(SPACE.base_cost)


def header(strategy: str, seed: int = 0) -> Header:
    return Header(
        space_digest=SPACE.digest,
        config_digest="",
        sizes=SPACE.sizes,
        least_widths=dict(zip(SPACE.sizes, SPACE.least_widths.tolist(), strict=True)),
        budget=BUDGET,
        base_cost=SPACE.base_cost,
        strategy=strategy,
        seed=seed,
        identity=IDENTITY,
        references=(),
    )


def builder(
    strategy: str, seed: int = 0
) -> Callable[[Budget, Sequence[Trial], Measurements], Strategy]:
    kind = STRATEGIES[strategy]

    def build(aim: Budget, earlier: Sequence[Trial], _: Measurements) -> Strategy:
        return kind(
            Problem(
                space=SPACE,
                budget=aim,
                knowledge=toy_knowledge(),
                config=kind.Config(),
                seed=seed,
                earlier=earlier,
            )
        )

    return build


def go(
    folder: Path,
    strategy: str,
    trials: int,
    *,
    seed: int = 0,
    evaluator: ToyEvaluator | None = None,
) -> tuple[Outcome, Study]:
    """Creates or resumes the study in a folder and searches up to a number of trials."""
    if (folder / STUDY_FILE).exists():
        study = Study.open_for_appending(folder)
    else:
        folder.mkdir()
        study = Study.create(folder, header(strategy, seed))
    outcome = search(
        study=study,
        space=SPACE,
        build=builder(strategy, seed),
        executor=OneByOne(evaluator or ToyEvaluator()),
        store=ScoreStore(folder / "scores"),
        limits=Limits(trials=trials),
    )
    return outcome, study


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_same_seed_same_study_and_another_seed_another(strategy: str, tmp_path: Path) -> None:
    outcome, first = go(tmp_path / "a", strategy, 25)
    _, again = go(tmp_path / "b", strategy, 25)
    assert comparable(first.trials) == comparable(again.trials)
    kind = STRATEGIES[strategy]
    if strategy != "random" and kind.Config is BaselineConfig:
        assert outcome is Outcome.NOTHING_NEW
    elif strategy != "stepwise":
        assert outcome is Outcome.TRIALS
        assert len(first.trials) == 25
    if strategy == "random" or (kind is not Stepwise and kind.Config is not BaselineConfig):
        _, other = go(tmp_path / "c", strategy, 25, seed=1)
        assert comparable(first.trials) != comparable(other.trials)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_study_cut_anywhere_resumes_to_the_same_study(strategy: str, tmp_path: Path) -> None:
    """Cut after every trial of the first rounds, with a torn record behind it."""
    ended, whole = go(tmp_path / "whole", strategy, 18)
    total = len(whole.trials)
    lines = (tmp_path / "whole" / STUDY_FILE).read_bytes().splitlines(keepends=True)
    head = len(lines) - total
    for kept in range(total):
        folder = tmp_path / f"cut-{kept}"
        folder.mkdir()
        torn = lines[head + kept][: (7 * kept) % len(lines[head + kept])]
        (folder / STUDY_FILE).write_bytes(b"".join(lines[: head + kept]) + torn)
        shutil.copytree(tmp_path / "whole" / "scores", folder / "scores")
        for mask in {trial.mask for trial in whole.trials[kept:]}:
            (folder / "scores" / f"{mask.key}.npy").unlink(missing_ok=True)
        evaluator = ToyEvaluator()
        outcome, resumed = go(folder, strategy, 18, evaluator=evaluator)
        assert outcome is ended
        assert comparable(resumed.trials) == comparable(whole.trials)
        # Nothing finished is evaluated again; what failed on a lower rung left no scores.
        finished = {t.mask for t in whole.trials[:kept] if t.error is None}
        assert not finished & set(evaluator.asked)
        assert comparable(Study.open(folder).trials) == comparable(whole.trials)


def test_a_shorter_search_is_the_beginning_of_a_longer_one(tmp_path: Path) -> None:
    _, short = go(tmp_path / "a", "rates", 11)
    _, long = go(tmp_path / "b", "rates", 30)
    assert comparable(short.trials) == comparable(long.trials)[:11]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_trial_is_within_the_budget_and_legal(strategy: str, tmp_path: Path) -> None:
    _, study = go(tmp_path / "a", strategy, 40)
    for trial in study.trials:
        SPACE.check(trial.mask)
        assert trial.violation(BUDGET) == 0
        assert trial.cost == SPACE.cost(trial.mask)


def test_failures_are_recorded_with_their_reason_and_the_search_goes_on(tmp_path: Path) -> None:
    outcome, study = go(tmp_path / "a", "rates", 60)
    failed = [trial for trial in study.trials if trial.state is TrialState.FAIL]
    assert outcome is Outcome.TRIALS
    assert failed
    for trial in failed:
        assert trial.error == "EvaluationError: the loss is not finite"
        assert trial.evaluation is None


def test_a_repeated_mask_is_recorded_and_not_evaluated_again(tmp_path: Path) -> None:
    evaluator = ToyEvaluator()
    study = Study.create(tmp_path, header("random"))
    search(
        study=study,
        space=SPACE,
        build=lambda *given: Hesitant(builder("random")(*given)),
        executor=OneByOne(evaluator),
        store=ScoreStore(tmp_path / "scores"),
        limits=Limits(trials=60),
    )
    assert any(trial.error for trial in study.trials)
    repeated = [trial for trial in study.trials if trial.duplicate_of is not None]
    assert repeated
    assert len(evaluator.asked) == len(set(evaluator.asked)) == 60 - len(repeated)
    for trial in repeated:
        first = study.trials[trial.duplicate_of or 0]
        assert (trial.mask, trial.evaluation, trial.error) == (
            first.mask,
            first.evaluation,
            first.error,
        )


class Hesitant:
    """Proposes every round of another strategy twice."""

    name = "hesitant"
    ladder = ()

    def __init__(self, inner: Strategy) -> None:
        self.inner, self.rounds = inner, 0

    def ask(self) -> list[Proposal]:
        return self.inner.ask()

    def tell(self, trials: Sequence[Trial]) -> None:
        self.rounds += 1
        if self.rounds % 2 == 0:
            self.inner.tell(trials)


class Stubborn:
    """Proposes one mask for ever."""

    name = "stubborn"
    ladder = ()

    def ask(self) -> list[Proposal]:
        return [Proposal(mask=SPACE.full_mask())] * 100

    def tell(self, trials: object) -> None:
        pass


def test_an_exhausted_space_ends_the_search(tmp_path: Path) -> None:
    study = Study.create(tmp_path, header("rates"))
    outcome = search(
        study=study,
        space=SPACE,
        build=lambda *_: Stubborn(),
        executor=OneByOne(ToyEvaluator(failing=False)),
        store=ScoreStore(tmp_path / "scores"),
        limits=Limits(trials=10 * EXHAUSTED),
    )
    assert outcome is Outcome.EXHAUSTED
    assert len(study.trials) == EXHAUSTED + 1


def test_a_search_ends_with_what_its_strategy_knows(tmp_path: Path) -> None:
    outcome, study = go(tmp_path / "a", "uniform", 40)
    assert outcome is Outcome.NOTHING_NEW
    assert len({trial.mask for trial in study.trials}) == len(study.trials) < 40
    again, longer = go(tmp_path / "a", "uniform", 100)
    assert again is outcome
    assert comparable(longer.trials) == comparable(study.trials)


def test_seconds_and_stop_end_a_search_between_trials(tmp_path: Path) -> None:
    study = Study.create(tmp_path, header("rates"))
    parts = {
        "space": SPACE,
        "executor": OneByOne(ToyEvaluator()),
        "store": ScoreStore(tmp_path / "scores"),
        "study": study,
        "build": builder("rates"),
    }
    limits = Limits(trials=50, seconds=0)
    assert search(limits=limits, **parts) is Outcome.SECONDS
    assert study.trials == ()
    outcome = search(
        limits=Limits(trials=50),
        should_stop=lambda: len(study.trials) == 3,
        **parts,
    )
    assert outcome is Outcome.STOPPED
    assert len(study.trials) == 3


def test_records_of_another_seed_are_refused(tmp_path: Path) -> None:
    _, study = go(tmp_path / "a", "rates", 15)
    with pytest.raises(InputError, match="is not what this strategy and seed propose"):
        search(
            study=study,
            space=SPACE,
            build=builder("rates", seed=5),
            executor=OneByOne(ToyEvaluator()),
            store=ScoreStore(tmp_path / "scores"),
            limits=Limits(trials=30),
        )


class Broken:
    """Raises what no one expects."""

    images = 100

    def prepare(self, *, errors: bool) -> None:
        pass

    def image_scores(self, mask: Mask, start: int, stop: int) -> ImageScores:
        raise MemoryError("allocating 80 GiB\nmore lines")


def test_any_exception_of_a_candidate_becomes_one_line(tmp_path: Path) -> None:
    study = Study.create(tmp_path, header("rates"))
    search(
        study=study,
        space=SPACE,
        build=builder("rates"),
        executor=OneByOne(Broken()),
        store=ScoreStore(tmp_path / "scores"),
        limits=Limits(trials=5),
    )
    assert {trial.error for trial in study.trials} == {"MemoryError: allocating 80 GiB"}


def test_front_of_a_study_is_feasible_and_undominated(tmp_path: Path) -> None:
    _, study = go(tmp_path / "a", "rates", 40)
    front = study.front()
    losses = np.array([trial.evaluation.score.loss for trial in front.members if trial.evaluation])
    assert len(front.members) > 1
    assert (np.diff(losses) < 0).all()
