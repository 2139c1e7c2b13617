"""Measures nine budgets answered from one elastic search against networks trained for one each.

Both searches go over the same range. Elastic weights are trained once, and the plan for each
budget is kept as it is: no training follows. The other search's plan for each budget is
compensated and distilled, and all nine distillations together may cost what elastic training did,
in image-MACs. What was measured is kept in --runs, so a bench that was stopped goes on. Prints
Markdown.

    EVOSEARCH_DATA=DIR .venv/bin/python scripts/bench_many_budgets.py --runs DIR [--space FILE]
        [--elastic-epochs 20] [--trials 60] [--seed 0]
"""

import argparse
import json
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
import torch
from torch import nn

from bench_equal import SPACE
from benchfiles import opened_run
from equalcost import epoch_cost
from evosearch.data.splits import load_test_split
from evosearch.engine.loop import Limits
from evosearch.errors import EvosearchError
from evosearch.run.elastic import cost_in_epochs, palette_of
from evosearch.run.planning import measured_plan
from evosearch.run.session import Session
from evosearch.run.spacefile import load_space_file
from evosearch.space.budget import BudgetRequest
from evosearch.space.mask import Mask
from evosearch.tasks.scoring import image_scores
from evosearch.training.distillation import distil
from evosearch.training.elastic import ElasticConfig

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
RANGE = f"{100 * SHARES[0]:g}%..{100 * SHARES[-1]:g}%"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a budget got.

    Attributes:
        share: the budget, of the base network's MACs.
        elastic: accuracy on test of the elastic search's plan, in percent, not trained further.
        compensated: of the other search's plan, likewise.
        trained: of that plan when it was distilled.
        epochs: of that distillation.
        cost: of that distillation, in epochs of the whole network.
    """

    share: float
    elastic: float
    compensated: float
    trained: float
    epochs: int
    cost: float


class Bench:
    """One search of each kind, and their plans."""

    def __init__(self, given: argparse.Namespace) -> None:
        """Takes the command line."""
        self._given = given
        self._file = load_space_file(given.space)
        self._test = load_test_split(self._file.data, given.space.parent)
        section = self._file.elastic or ElasticConfig()
        self.elastic = section.model_copy(update={"epochs": given.elastic_epochs})

    @cached_property
    def cost(self) -> float:
        """What elastic training costs, in epochs of the whole network."""
        prepared = self._searched["elastic"].prepared
        space = prepared.subject.discovery.space
        budget = BudgetRequest.of(flops=RANGE).resolve(space.base_cost)
        palette = palette_of(space, self.elastic, self._given.seed, budget, prepared.knowledge)
        return cost_in_epochs(space, palette, self.elastic)

    @cached_property
    def images(self) -> int:
        """Images in an epoch."""
        return len(self._searched["elastic"].prepared.subject.data.train)

    def answer(self, share: float) -> Answer:
        """Returns what a budget gets of both."""
        session, elastic = self._searched["compensated"], self._searched["elastic"]
        subject = session.prepared.subject
        mask = self._plan(session, share)
        network = session.prepared.evaluator.builder.final(mask)
        compensated = self._accuracy(network)
        space = subject.discovery.space
        epoch = epoch_cost(space.cost(mask).macs / space.base_cost.macs) / 3
        epochs = max(1, round(self.cost / len(SHARES) / epoch))
        config = self._file.finetune.model_copy(update={"epochs": epochs})
        data, seed = subject.data, self._given.seed
        distil(subject.model, network, data.train, data.search, config, seed, task=subject.task)
        return Answer(
            share=share,
            elastic=self._accuracy(
                elastic.prepared.evaluator.builder.final(self._plan(elastic, share))
            ),
            compensated=compensated,
            trained=self._accuracy(network),
            epochs=epochs,
            cost=epochs * epoch,
        )

    def _accuracy(self, network: nn.Module) -> float:
        task = self._searched["elastic"].prepared.subject.task
        return 100 * image_scores(network, self._test, task=task).score.accuracy

    @staticmethod
    def _plan(session: Session, share: float) -> Mask:
        evaluate, at = session.prepared.evaluator.evaluate, f"flops={100 * share:g}%"
        return measured_plan(session.folder, session.study, at, evaluate).mask

    @cached_property
    def _searched(self) -> dict[str, Session]:
        sessions = {build: self._session(build) for build in ("elastic", "compensated")}
        for session in sessions.values():
            session.search(Limits(trials=self._given.trials))
        return sessions

    def _session(self, build: str) -> Session:
        return opened_run(
            self._given.runs / build,
            self._file.model_copy(update={"elastic": self.elastic}),
            self._given.space.parent,
            BudgetRequest.of(flops=RANGE),
            evaluator={"build": build},
            strategy="rates",
            seed=self._given.seed,
            threads=1,
        )


def page(bench: Bench, given: argparse.Namespace, answers: list[Answer]) -> Iterator[str]:
    """Yields the lines of the result as Markdown."""
    spent = sum(answer.cost for answer in answers)
    yield f"# Nine budgets from one elastic search, {datetime.now(UTC):%Y-%m-%d}"
    yield ""
    yield (
        f"`{given.space.stem}`, one thread, Python {platform.python_version()},"
        f" torch {torch.__version__}. Made by `scripts/bench_many_budgets.py`."
    )
    yield ""
    yield (
        f"`rates`, {given.trials} trials over {RANGE} of the MACs, seed {given.seed}, once with"
        f" elastic weights ({bench.elastic.epochs} epochs of {bench.images} images, which cost"
        f" {bench.cost:.1f} epochs of the whole network) and once compensated. Accuracy on test in"
        " percent. *Trained alone*: the compensated plan, distilled; all nine cost"
        f" {spent:.1f} epochs of the whole network together."
    )
    yield ""
    yield (
        "| MACs | elastic, no training after | compensated | trained alone | its epochs"
        " | elastic minus it |"
    )
    yield "|--:|--:|--:|--:|--:|--:|"
    for own in answers:
        yield (
            f"| {own.share:.0%} | {own.elastic:.2f} | {own.compensated:.2f} | {own.trained:.2f}"
            f" | {own.epochs} | {own.elastic - own.trained:+.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder of all that is kept")
    parser.add_argument("--space", type=Path, default=SPACE)
    parser.add_argument("--elastic-epochs", type=int, default=20)
    parser.add_argument("--trials", type=int, default=60, help="of each search")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    about = f"{given.space.stem}, {given.elastic_epochs} epochs, {given.trials} trials"
    given.runs = given.runs / f"{about}, seed {given.seed}"
    given.runs.mkdir(parents=True, exist_ok=True)
    kept = given.runs / "answers.json"
    try:
        bench = Bench(given)
        known: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
        for share in SHARES:
            if str(share) not in known:
                known[str(share)] = vars(bench.answer(share))
                kept.write_text(json.dumps(known))
        print("\n".join(page(bench, given, [Answer(**known[str(s)]) for s in SHARES])))
    except EvosearchError as error:
        print(f"bench_many_budgets: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
