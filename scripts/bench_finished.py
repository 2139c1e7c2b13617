"""Measures whether the search's score tells which networks are best once they are finished.

Networks near one budget (without a search, searched, drawn at random; all with two-step channels
and refitted weights) are scored as every build of the evaluator does, and each is fine-tuned alike
and measured on test. Prints the rank correlation of score and finished accuracy for every build. A
row that is in the results file is not measured again, and what was killed goes on.

    EVOSEARCH_DATA=DIR .venv/bin/python scripts/bench_finished.py --results FILE --runs DIR \
        [--space FILE] [--ratio 0.5] [--networks 24] [--epochs 3] [--trials 60] [--builds ...]
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import get_args

import numpy as np
import optuna
import torch

from benchfiles import append_row, opened_run, read_rows
from evosearch.engine.loop import Limits
from evosearch.errors import EvosearchError, InputError, unknown_name
from evosearch.models.weights import weights_digest
from evosearch.refit.building import Build
from evosearch.run.planning import plans_near
from evosearch.run.references import GLOBAL, UNIFORM, plans_without_search
from evosearch.run.session import Session
from evosearch.run.spacefile import load_space_file
from evosearch.space.budget import BudgetRequest
from evosearch.space.mask import Mask
from evosearch.strategies.two_step import TwoStep
from evosearch.study.rankcorrelation import RankCorrelation
from evosearch.tasks.scoring import score
from evosearch.tasks.testing import TestReport
from evosearch.training.distillation import distil

SPACE = Path(__file__).parent.parent / "search_spaces" / "cifar10_resnet20.toml"
RECOVERED = "recovered"
BUILDS = (*get_args(Build), RECOVERED)
SEARCHING = "compensated"
"""The build by which searched networks are found."""
SEED = 0
SEARCHED, DRAWN = "searched", "drawn"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A network, its score by one build, and what it was worth when it was finished.

    Attributes:
        space: name of the space file.
        ratio: the budget, as a share of the base network's MACs.
        build: of the evaluator.
        network: its name here.
        epochs: of its fine-tuning.
        mask: key of its mask.
        macs: share of the base network's.
        start: digest of the weights that its fine-tuning began with.
        loss: its score, on the search split.
        accuracy: likewise, a share.
        finished_search: accuracy on the search split when finished, a share.
        finished_test: likewise, on test.
        seconds: that the score took.
    """

    space: str
    ratio: float
    build: str
    network: str
    epochs: int
    mask: str
    macs: float
    start: str
    loss: float
    accuracy: float
    finished_search: float
    finished_test: float
    seconds: float

    @property
    def key(self) -> tuple[str, float, str, str, int]:
        """What tells the row from every other."""
        return self.space, self.ratio, self.build, self.network, self.epochs


def names_of(count: int) -> list[str]:
    """Returns what so many networks are called: two without a search, a third searched."""
    searched = count // 3
    drawn = count - 2 - searched
    return [
        GLOBAL,
        UNIFORM,
        *(f"{SEARCHED} {i}" for i in range(searched)),
        *(f"{DRAWN} {i}" for i in range(drawn)),
    ]


class Bench:
    """A base network, a run for every build of its evaluator, and the networks of one budget."""

    def __init__(self, given: argparse.Namespace) -> None:
        """Takes the command line."""
        self._given = given
        self._file = load_space_file(given.space)
        self._names = names_of(given.networks)
        self.session = cache(self._session)

    def row(self, build: str, name: str, known: Sequence[Row]) -> Row:
        """Returns a row; a fine-tuning of the same weights, that another build has, is its own."""
        given, mask = self._given, self._masks[name]
        prepared = self.session(build).prepared
        evaluation = prepared.evaluator.evaluate(mask)
        network = prepared.evaluator.builder.final(mask)
        start = weights_digest(network)
        same = [row for row in known if (row.start, row.epochs) == (start, given.epochs)]
        if same:
            found = same[0].finished_search, same[0].finished_test
        else:
            subject, about = prepared.subject, f"{name}, {start[:12]}, {given.epochs} epochs"
            config = self._file.finetune.model_copy(update={"epochs": given.epochs})
            progress, data = given.runs / f"{about}.progress", subject.data
            distil(
                subject.model,
                network,
                data.train,
                data.search,
                config,
                SEED,
                task=subject.task,
                progress=progress,
            )
            report = TestReport(
                given.runs / "test.json", self._file.data, given.space.parent, task=subject.task
            )
            test = report.measure(about, network).score
            found = score(network, data.search, task=subject.task).accuracy, test.accuracy
            progress.unlink()
        space = prepared.subject.discovery.space
        return Row(
            space=given.space.stem,
            ratio=given.ratio,
            build=build,
            network=name,
            epochs=given.epochs,
            mask=mask.key,
            macs=space.cost(mask).relative_to(space.base_cost)["macs"],
            start=start,
            loss=evaluation.score.loss,
            accuracy=evaluation.score.accuracy,
            finished_search=found[0],
            finished_test=found[1],
            seconds=evaluation.seconds,
        )

    @cached_property
    def _masks(self) -> dict[str, Mask]:
        """Returns the networks by name, each mask once."""
        session = self.session(SEARCHING)
        session.search(Limits(trials=self._given.trials))
        prepared, study = session.prepared, session.study
        space, knowledge = prepared.subject.discovery.space, prepared.knowledge
        budget, criterion = study.header.budget, prepared.config.search.criterion
        masks = plans_without_search(space, budget, knowledge, criterion)
        near = [p.mask for p in plans_near(session.folder, study, budget)]
        rng, channels = np.random.default_rng(SEED), TwoStep(space, knowledge.gram)

        def drawn() -> Iterator[Mask]:
            while True:
                yield channels.mask(space.widths(space.sample(rng, budget)))

        sources = {SEARCHED: iter(near), DRAWN: drawn()}
        for name in self._names[2:]:
            source = sources[name.split()[0]]
            fresh = (mask for mask in source if mask not in masks.values())
            mask = next(fresh, None)
            if mask is None:
                raise InputError(f"{len(near)} trials near the budget are too few: more --trials")
            masks[name] = mask
        return masks

    def _session(self, build: str) -> Session:
        """Returns the run of a build, begun or gone on with."""
        given = self._given
        folder = given.runs / build
        evaluator: dict[str, object] = {"build": build}
        if build == RECOVERED:
            evaluator = {"build": SEARCHING, "recovery_images": given.recovery_images}
        return opened_run(
            folder,
            self._file,
            given.space.parent,
            BudgetRequest.of(flops=f"{100 * given.ratio:g}%"),
            evaluator=evaluator,
            strategy="rates",
            seed=SEED,
            threads=given.threads,
        )


def table(rows: Sequence[Row]) -> str:
    """Returns the rank correlations as a Markdown table: over all, and without those drawn."""
    lines = [
        "| space | MACs | build | epochs | all networks | not drawn | seconds a score |",
        "|---|--:|---|--:|---|---|--:|",
    ]
    kinds = [(row.space, row.ratio, row.build, row.epochs) for row in rows]
    for kind in dict.fromkeys(kinds):
        own = [row for row, its in zip(rows, kinds, strict=True) if its == kind]
        better = [row for row in own if not row.network.startswith(DRAWN)]
        cells = [
            RankCorrelation.between([-row.loss for row in part], [r.finished_test for r in part])
            for part in (own, better)
        ]
        shown = [str(cell) if cell is not None else "" for cell in cells]
        seconds = float(np.median([row.seconds for row in own]))
        lines.append(f"| {' | '.join(map(str, [*kind, *shown]))} | {seconds:.2g} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True, help="file of JSON lines")
    parser.add_argument("--runs", type=Path, required=True, help="folder of all that is kept")
    parser.add_argument("--space", type=Path, default=SPACE)
    parser.add_argument("--ratio", type=float, default=0.5, help="of MACs")
    parser.add_argument("--networks", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=3, help="of each fine-tuning")
    parser.add_argument("--trials", type=int, default=60, help="of the search")
    parser.add_argument("--builds", nargs="+", default=list(BUILDS), metavar="NAME")
    parser.add_argument("--recovery-images", type=int, default=2000, help=f"of {RECOVERED}")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        for build in given.builds:
            if build not in BUILDS:
                raise unknown_name("build", build, BUILDS)
        given.runs.mkdir(parents=True, exist_ok=True)
        bench = Bench(given)
        for name in names_of(given.networks):
            for build in given.builds:
                known = read_rows(given.results, Row)
                key = (given.space.stem, given.ratio, build, name, given.epochs)
                if key in {row.key for row in known}:
                    continue
                began = time.perf_counter()
                row = bench.row(build, name, known)
                append_row(given.results, row)
                print(
                    f"{name}, {build}: loss {row.loss:.4f}, finished {100 * row.finished_test:.2f}"
                    f" % ({time.perf_counter() - began:.1f} s)",
                    file=sys.stderr,
                    flush=True,
                )
        print(table(read_rows(given.results, Row)))
    except EvosearchError as error:
        print(f"bench_finished: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
