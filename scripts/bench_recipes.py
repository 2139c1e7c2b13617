"""Compares every recipe of training under a budget, at equal training cost.

All begin with fresh weights and end with a finished network. What each may cost is that of two
trainings of the whole network, in image-MACs: images times MACs, forward once and backward twice.
How many epochs a recipe has for that is found by trying, on its first seed, beginning with what
it had on another space. Plans without a search
and `rates` spend one half on the base network, what the search scores next, and the rest on
distillation. A row that is in the results file is not measured again, so what was killed goes on,
and two processes with different methods can work at once.

    .venv/bin/python scripts/bench_recipes.py measure --results FILE --runs DIR [--space FILE]
        [--epochs 40] [--budgets 50% 25%] [--seeds 5] [--methods scratch rates ...]
    .venv/bin/python scripts/bench_recipes.py page --results FILE --out PAGE.md --hardware TEXT
"""

import argparse
import shutil
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import torch

from benchfiles import append_row, commit, read_rows
from evosearch.data.splits import load_test_split
from evosearch.engine.loop import Limits
from evosearch.errors import unknown_name
from evosearch.run.callbacks import SILENT
from evosearch.run.config import SearchConfig
from evosearch.run.references import GLOBAL, UNIFORM, plans_without_search
from evosearch.run.session import Session
from evosearch.run.shrinking import steps_cost
from evosearch.run.spacefile import SpaceFile, load_space_file
from evosearch.run.training import begin_training
from evosearch.space.budget import BudgetRequest
from evosearch.space.mask import Mask
from evosearch.study.study import Study
from evosearch.study.trial import Trial
from evosearch.tasks.scoring import image_scores
from evosearch.training.distillation import distil
from evosearch.training.recipes import RECIPES, PruneConfig
from recipespage import Row, page

SPACE = Path(__file__).parent.parent / "search_spaces" / "digits_resnet.toml"
SEARCHED = "rates"
DISTILLED = (UNIFORM, GLOBAL, SEARCHED)
BUDGETED = [name for name, recipe in RECIPES.items() if recipe.settings.get("pace") != "slack"]
"""Recipes that shrink to a budget, and not to a tolerated drop."""
METHODS = (*BUDGETED, *DISTILLED)
WHOLE = 2
"""What a method may cost, in trainings of the whole network."""
NEAR = 0.05
"""How far from that its cost may be, relatively."""
TRIES, TRIALS = 5, 60


class Bench:
    """Measures rows of one space."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._path, self._whole, self._runs = given.space, given.epochs, given.runs
        file = load_space_file(given.space)
        fresh = file.model.model_copy(update={"weights": None})
        self._commit = commit()
        self._file = file.model_copy(update={"model": fresh, "prune": None})

    def rows(
        self, method: str, budget: str, seed: int, epochs: int | None, guess: int
    ) -> Iterator[Row]:
        """Yields the row of a method; those before it had too many or too few epochs.

        Args:
            method: one of `METHODS`.
            budget: of the FLOPs.
            seed: of everything.
            epochs: those that cost what they may; None where they must be found.
            guess: what is tried first where they must.
        """
        if method in DISTILLED:
            yield self._distilled(method, budget, seed)
            return
        wanted = epochs or guess
        for _ in range(TRIES):
            row = self._trained(method, budget, seed, wanted)
            yield row
            better = max(1, round(wanted * WHOLE / row.cost))
            if epochs or abs(row.cost / WHOLE - 1) <= NEAR or better == wanted:
                return
            wanted = better

    def _space(self, seed: int, epochs: int) -> SpaceFile:
        train = self._file.train.model_copy(update={"epochs": epochs})
        data = self._file.data.model_copy(update={"seed": seed})
        return self._file.model_copy(update={"train": train, "data": data})

    def _trained(self, recipe: str, budget: str, seed: int, epochs: int) -> Row:
        folder = self._runs / f"{recipe}-{budget.strip('%')}-{seed}-{epochs}"
        shutil.rmtree(folder, ignore_errors=True)
        trained = begin_training(
            folder,
            space_file=self._space(seed, epochs),
            space_folder=self._path.parent,
            search=SearchConfig(seed=seed),
            prune=PruneConfig(recipe=recipe),
            request=BudgetRequest.of(flops=budget),
            callbacks=SILENT,
        )
        network, base = trained.network, Study.open(folder).header.base_cost
        assert network.test is not None
        begun = RECIPES[recipe].settings.get("weights") == "base"
        return Row(
            space=self._path.stem,
            whole=self._whole,
            method=recipe,
            budget=budget,
            seed=seed,
            epochs=epochs,
            trainings=trained.trainings + begun,
            cost=(trained.share + begun) * epochs / self._whole,
            flops=network.cost.macs / base.macs,
            test=100 * network.test.accuracy,
            images=network.test.images,
            seconds=trained.seconds,
            commit=self._commit,
        )

    def _distilled(self, method: str, budget: str, seed: int) -> Row:
        """Returns the row of a plan for a base network, searched or not, and distilled."""
        folder = self._runs / f"{SEARCHED}-{budget.strip('%')}-{seed}"
        session = self._session(folder, budget, seed)
        if method == SEARCHED:
            session.search(Limits(trials=TRIALS))
        subject, study = session.prepared.subject, session.study
        space, data = subject.discovery.space, subject.data
        whole = steps_cost(self._whole * len(data.train), space.base_cost)
        cost, mask = 1.0, self._plan(session, method)
        if method == SEARCHED:
            cost += (
                sum(scoring_cost(trial, len(data.calibration)) for trial in study.trials) / whole
            )
        student = session.prepared.evaluator.builder.final(mask)
        small, finetune = space.cost(mask), self._file.finetune
        # The base network is asked forward for each image that the small one is trained on.
        epoch = steps_cost(len(data.train), small) + len(data.train) * space.base_cost.macs
        epochs = max(1, round((WHOLE - cost) * whole / epoch))
        finetune = finetune.model_copy(update={"epochs": epochs})
        began = time.perf_counter()
        distil(subject.model, student, data.train, data.search, finetune, seed, task=subject.task)
        seconds = time.perf_counter() - began
        split = load_test_split(session.prepared.config.space.data, self._path.parent)
        test = image_scores(student, split, task=subject.task).score
        session.close()
        return Row(
            space=self._path.stem,
            whole=self._whole,
            method=method,
            budget=budget,
            seed=seed,
            epochs=epochs,
            trainings=2,
            cost=cost + epochs * epoch / whole,
            flops=small.macs / space.base_cost.macs,
            test=100 * test.accuracy,
            images=test.images,
            seconds=seconds,
            commit=self._commit,
        )

    def _session(self, folder: Path, budget: str, seed: int) -> Session:
        if folder.exists():
            return Session.resume(folder)
        return Session.create(
            folder,
            space_file=self._space(seed, self._whole),
            space_folder=self._path.parent,
            search=SearchConfig(seed=seed),
            request=BudgetRequest.of(flops=budget),
        )

    def _plan(self, session: Session, method: str) -> Mask:
        if method == SEARCHED:
            return session.study.front().best().mask
        prepared, space = session.prepared, session.prepared.subject.discovery.space
        criterion = prepared.config.search.criterion
        limit = session.study.header.budget
        return plans_without_search(space, limit, prepared.knowledge, criterion)[method]


def scoring_cost(trial: Trial, calibration: int) -> int:
    """Returns what scoring a trial cost, forward: its rungs' images, and to calibrate it once."""
    return (calibration + sum(step.images for step in trial.steps)) * trial.cost.macs


def measure(given: argparse.Namespace) -> None:
    """Measures the rows that were selected and are not there."""
    for name in given.methods:
        if name not in METHODS:
            raise unknown_name("method", name, METHODS)
    torch.set_num_threads(1)
    bench = Bench(given)
    for budget, seed, method in product(given.budgets, range(given.seeds), given.methods):
        known = read_rows(given.results, Row)
        rows = [r for r in known if (r.method, r.budget) == (method, budget)]
        alike = [r for r in rows if (r.space, r.whole) == (given.space.stem, given.epochs)]
        if any(row.seed == seed for row in alike):
            continue
        epochs = nearest(alike).epochs if alike else None
        tried = list(bench.rows(method, budget, seed, epochs, first_guess(rows, given.epochs)))
        append_row(given.results, nearest(tried))


def first_guess(rows: Sequence[Row], whole: int) -> int:
    """Returns the epochs that a recipe had elsewhere, for another length of the whole training."""
    if not rows:
        return max(4, whole // 4)
    row = nearest(rows)
    return max(1, round(row.epochs * whole / row.whole))


def nearest(rows: Sequence[Row]) -> Row:
    """Returns the row whose cost is nearest to what it may be."""
    return min(rows, key=lambda row: abs(row.cost - WHOLE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    jobs = parser.add_subparsers(required=True)
    measuring = jobs.add_parser("measure")
    measuring.add_argument("--results", type=Path, required=True)
    measuring.add_argument("--runs", type=Path, required=True)
    measuring.add_argument("--space", type=Path, default=SPACE)
    measuring.add_argument("--epochs", type=int, default=40)
    measuring.add_argument("--budgets", nargs="+", default=["50%", "25%"])
    measuring.add_argument("--seeds", type=int, default=5)
    measuring.add_argument("--methods", nargs="+", default=METHODS)
    measuring.set_defaults(job=measure)
    writing = jobs.add_parser("page")
    writing.add_argument("--results", type=Path, required=True)
    writing.add_argument("--out", type=Path, required=True)
    writing.add_argument("--hardware", required=True)
    writing.set_defaults(
        job=lambda given: given.out.write_text(page(read_rows(given.results, Row), given.hardware))
    )
    given = parser.parse_args()
    given.job(given)


if __name__ == "__main__":
    main()
