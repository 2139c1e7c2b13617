"""Compares finished networks of one budget at equal training cost: searched or not.

A method may cost what so many epochs of distilling the network that fits the budget cost, in
image-MACs: forward once and backward twice through it, and once forward through the base network.
Elastic training takes a fifth of that before the search, and finals train several plans of the
search for all of it. What scoring candidates takes trains nothing; it is counted beside. A row
that is in the results file is not measured again, so what was killed goes on, and processes with
different seeds can work at once.

    EVOSEARCH_DATA=DIR .venv/bin/python scripts/bench_equal.py measure --results FILE --runs DIR
        [--space FILE] [--ratios 0.5 0.3 0.15] [--worth 3 10] [--seeds 0 1 2] [--methods ...]
    .venv/bin/python scripts/bench_equal.py page --results FILE --out PAGE.md --hardware TEXT
"""

import argparse
import shutil
import sys
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import optuna
import torch
from torch import nn

from bench_recipes import scoring_cost
from benchfiles import append_row, commit, opened_run, read_rows
from equalcost import affordable_finals, elastic_cost, epoch_cost
from equalpage import Row, page
from evosearch.data.splits import load_test_split
from evosearch.engine.loop import Limits
from evosearch.errors import EvosearchError, unknown_name
from evosearch.models.build import build_model
from evosearch.run.finals import run_finals
from evosearch.run.references import GLOBAL, UNIFORM, plans_without_search
from evosearch.run.session import Session
from evosearch.run.spacefile import load_space_file
from evosearch.space.budget import BudgetRequest
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import compact
from evosearch.tasks.scoring import image_scores, score
from evosearch.training.distillation import distil
from evosearch.training.elastic import ElasticConfig

SPACE = Path(__file__).parent.parent / "search_spaces" / "cifar10_resnet20.toml"
FINALS, SCRATCH = "finals of rates", "from scratch, distilled"
SEARCHES = {
    "rates": ("rates", False),
    FINALS: ("rates", False),
    "rates, elastic": ("rates", True),
    "genetic, elastic": ("genetic", True),
}
"""Method -> strategy, and whether it searches on elastic weights."""
METHODS = (GLOBAL, "rates", "rates, elastic", FINALS, "genetic, elastic", UNIFORM, SCRATCH)
SHARE = 0.2
"""Of the cost, what elastic training takes; a whole epoch at least."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished network's figures, before they are a row.

    Attributes:
        mask: its channels.
        epochs: of its distillation.
        cost: of all training, in image-MACs.
        start: accuracy on test before training; None where it was not asked.
        search: accuracy on the search split.
        test: accuracy on test.
    """

    mask: Mask
    epochs: int
    cost: float
    start: float | None
    search: float
    test: float


class Bench:
    """Measures the networks of one space."""

    def __init__(self, given: argparse.Namespace) -> None:
        """Takes the command line."""
        self._given = given
        self._file = load_space_file(given.space)
        self._test = load_test_split(self._file.data, given.space.parent)
        self._commit = commit()

    def row(self, method: str, ratio: float, worth: int, seed: int) -> Row:
        """Returns a row: a method's finished network, at the cost of `worth` epochs."""
        began = time.perf_counter()
        strategy, is_elastic = SEARCHES.get(method, ("rates", False))
        elastic = self._elastic(ratio, worth) if is_elastic else None
        session = self._session(strategy, ratio, seed, elastic)
        if method in SEARCHES:
            session.search(Limits(trials=self._given.trials))
        trials = session.study.trials if method in SEARCHES else ()
        space, data = session.prepared.subject.discovery.space, session.prepared.subject.data
        base, images = space.base_cost.macs, len(data.train)
        allowed = worth * (epoch_cost(ratio) * images * base)
        begun = 0.0
        if elastic is not None:
            begun = elastic.epochs * (elastic_cost(ratio, elastic.plans) * images * base)
        if method == FINALS:
            session.close()
            done = self._finals(session.folder, worth)
        else:
            done = self._distilled(session, method, seed, allowed - begun)
            session.close()
        return Row(
            space=self._given.space.stem,
            ratio=ratio,
            worth=worth,
            method=method,
            seed=seed,
            images=images,
            elastic=0 if elastic is None else elastic.epochs,
            epochs=done.epochs,
            cost=(begun + done.cost) / allowed,
            scoring=sum(scoring_cost(t, len(data.calibration)) for t in trials) / allowed,
            macs=space.cost(done.mask).macs / base,
            start=None if done.start is None else 100 * done.start,
            search=100 * done.search,
            test=100 * done.test,
            seconds=time.perf_counter() - began,
            commit=self._commit,
        )

    def _elastic(self, ratio: float, worth: int) -> ElasticConfig:
        """Returns the `[elastic]` section that takes its share of the cost."""
        config = self._file.elastic or ElasticConfig()
        epochs = SHARE * worth * epoch_cost(ratio) / elastic_cost(ratio, config.plans)
        return config.model_copy(update={"epochs": max(1, round(epochs))})

    def _session(
        self, strategy: str, ratio: float, seed: int, elastic: ElasticConfig | None
    ) -> Session:
        """Returns a run, begun or gone on with."""
        about = "compensated" if elastic is None else f"elastic {elastic.epochs}"
        name = f"{self._given.space.stem}, {strategy}, {about}, {ratio:g}, seed {seed}"
        folder = self._given.runs / name
        file = self._file
        if elastic is not None:
            file = file.model_copy(update={"elastic": elastic})
        return opened_run(
            folder,
            file,
            self._given.space.parent,
            BudgetRequest.of(flops=f"{100 * ratio:g}%"),
            evaluator={} if elastic is None else {"build": "elastic"},
            strategy=strategy,
            seed=seed,
            threads=1,
        )

    def _distilled(self, session: Session, method: str, seed: int, left: float) -> Finished:
        """Returns a plan, distilled for as many epochs as what is left pays for."""
        subject, mask = session.prepared.subject, self._plan(session, method)
        space, data, task = subject.discovery.space, subject.data, subject.task
        network = session.prepared.evaluator.builder.final(mask)
        if method == SCRATCH:
            network = self._fresh(session, mask, seed)
        start = image_scores(network, self._test, task=task).score.accuracy
        share = space.cost(mask).macs / space.base_cost.macs
        epoch = epoch_cost(share) * len(data.train) * space.base_cost.macs
        epochs = max(1, round(left / epoch))
        config = self._file.finetune.model_copy(update={"epochs": epochs})
        distil(subject.model, network, data.train, data.search, config, seed, task=task)
        return Finished(
            mask=mask,
            epochs=epochs,
            cost=epochs * epoch,
            start=start,
            search=score(network, data.search, task=task).accuracy,
            test=image_scores(network, self._test, task=task).score.accuracy,
        )

    def _plan(self, session: Session, method: str) -> Mask:
        if method in SEARCHES:
            return session.study.front().best().mask
        prepared, space = session.prepared, session.prepared.subject.discovery.space
        budget, criterion = session.study.header.budget, prepared.config.search.criterion
        plans = plans_without_search(space, budget, prepared.knowledge, criterion)
        return plans[UNIFORM if method == UNIFORM else GLOBAL]

    def _fresh(self, session: Session, mask: Mask, seed: int) -> nn.Module:
        """Returns a network of a mask's widths with initial weights, for the global plan's."""
        config = self._file.model.model_copy(update={"weights": None})
        whole = build_model(config, self._given.space.parent, seed=seed)
        return compact(whole, session.prepared.subject.discovery.space.groups, mask)

    def _finals(self, folder: Path, worth: int) -> Finished:
        """Returns the winner of finals among a run's plans and the global one."""
        count, epochs = affordable_finals(worth)
        decided = run_finals(folder, count=count, epochs=epochs)
        # Finals of another length would find its place taken.
        shutil.rmtree(decided.artifact.folder)
        finals = decided.finals
        winner = finals.finalists[finals.winner]
        best = winner.history[winner.best_epoch]
        return Finished(
            mask=winner.plan.mask,
            epochs=epochs,
            cost=finals.image_macs,
            start=None,
            search=best.accuracy,
            test=finals.test.accuracy,
        )


def measure(given: argparse.Namespace) -> None:
    """Measures the rows that were selected and are not there."""
    for name in given.methods:
        if name not in METHODS:
            raise unknown_name("method", name, METHODS)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    given.runs.mkdir(parents=True, exist_ok=True)
    bench = Bench(given)
    for worth, seed, ratio, method in product(
        given.worth, given.seeds, given.ratios, given.methods
    ):
        key = (given.space.stem, ratio, worth, method, seed)
        if key in {row.key for row in read_rows(given.results, Row)}:
            continue
        row = bench.row(method, ratio, worth, seed)
        append_row(given.results, row)
        print(f"{method}, {ratio}, {worth}, seed {seed}: {row.test:.2f} %", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    jobs = parser.add_subparsers(required=True)
    measuring = jobs.add_parser("measure")
    measuring.add_argument("--results", type=Path, required=True, help="file of JSON lines")
    measuring.add_argument("--runs", type=Path, required=True, help="folder of all that is kept")
    measuring.add_argument("--space", type=Path, default=SPACE)
    measuring.add_argument("--ratios", type=float, nargs="+", default=[0.5, 0.3, 0.15])
    measuring.add_argument("--worth", type=int, nargs="+", default=[3, 10], help="epochs")
    measuring.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    measuring.add_argument("--methods", nargs="+", default=METHODS, metavar="NAME")
    measuring.add_argument("--trials", type=int, default=60, help="of each search")
    measuring.set_defaults(job=measure)
    writing = jobs.add_parser("page")
    writing.add_argument("--results", type=Path, required=True)
    writing.add_argument("--out", type=Path, required=True)
    writing.add_argument("--hardware", required=True)
    writing.set_defaults(
        job=lambda given: given.out.write_text(page(read_rows(given.results, Row), given.hardware))
    )
    given = parser.parse_args()
    try:
        given.job(given)
    except EvosearchError as error:
        print(f"bench_equal: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
