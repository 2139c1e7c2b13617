"""Compares how a pruned network can be fine-tuned, beside what `[finetune]` does by default.

One plan, the global one without a search, cut and compensated, is fine-tuned in every variant with
equal seeds. A seed draws order, augmentation and, of a limited number of train images, which;
where the space names no weights also the splits, and with them the base network. Variants are to
be chosen by the search split, and test is opened when all epochs are done. A row that is in the
results file is not measured again, so what was killed goes on.

    .venv/bin/python scripts/bench_schedule.py measure --results FILE [--space FILE] [--ratio 0.3]
        [--epochs 3 10] [--seeds 0 1 2 3 4] [--variants default muon ...] [--images 8500]
    .venv/bin/python scripts/bench_schedule.py page --results FILE --out PAGE.md --hardware TEXT
"""

import argparse
import copy
import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from pathlib import Path

import torch
from torch import nn

from benchfiles import append_row, commit, read_rows
from evosearch.data.splits import TrainSplit, load_test_split
from evosearch.errors import unknown_name
from evosearch.machine import resolve_device
from evosearch.run.baselook import fitted
from evosearch.run.config import SearchConfig
from evosearch.run.evaluating import criteria_of, make_evaluator
from evosearch.run.references import GLOBAL, plans_without_search
from evosearch.run.shrinking import steps_cost
from evosearch.run.spacefile import load_space_file
from evosearch.run.subject import Subject, load_subject
from evosearch.space.budget import BudgetRequest
from evosearch.space.cost import Cost
from evosearch.tasks.scoring import image_scores, score
from finetunevariants import VARIANTS, tuned
from schedulepage import Row, page

SPACE = Path(__file__).parent.parent / "search_spaces" / "digits_resnet.toml"


class Bench:
    """A space, and the network that every variant begins with."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._path, self._ratio, self._images = given.space, given.ratio, given.images
        self._file = load_space_file(given.space)
        self._start = lru_cache(maxsize=1)(self._started)
        self._commit = commit()

    def row(self, name: str, epochs: int, seed: int) -> Row:
        """Returns the row of a variant."""
        file, variant = self._file, VARIANTS[name]
        subject, start, small = self._start(seed if file.model.weights is None else None)
        train = self._train(subject, seed)
        student = copy.deepcopy(start)
        search, base = subject.data.search, subject.discovery.space.base_cost
        began = time.process_time()
        best = tuned(
            variant,
            subject.model,
            student,
            train,
            search,
            epochs=epochs,
            seed=seed,
            task=subject.task,
        )
        seconds = time.process_time() - began
        found = score(student, search, task=subject.task)
        split = load_test_split(file.data, self._path.parent)
        test = image_scores(student, split, task=subject.task).score
        # The base network is asked forward for each image, unless labels are all that counts.
        asked = variant.settings.get("alpha") != 0.0
        cost = steps_cost(len(train), small) + asked * len(train) * base.macs
        return Row(
            space=self._path.stem,
            ratio=self._ratio,
            images=self._images,
            epochs=epochs,
            seed=seed,
            variant=name,
            macs=small.macs / base.macs,
            search_loss=found.loss,
            search=100 * found.accuracy,
            test=100 * test.accuracy,
            best_epoch=best,
            image_macs=epochs * cost,
            seconds=seconds,
            commit=self._commit,
        )

    def _train(self, subject: Subject, seed: int) -> TrainSplit:
        """Returns what a seed learns from."""
        train = subject.data.train
        if self._images is None:
            return train
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
        return train.take(order[: self._images].numpy())

    def _started(self, seed: int | None) -> tuple[Subject, nn.Module, Cost]:
        """Returns base network and data, the plan cut and compensated, and its cost."""
        file = self._file
        if seed is not None:
            file = file.model_copy(update={"data": file.data.model_copy(update={"seed": seed})})
        subject = load_subject(file, self._path.parent)
        search = SearchConfig(seed=seed or 0, device=resolve_device("auto"))
        evaluator = make_evaluator(fitted(search, subject)[0], subject, file.finetune)
        space, knowledge = subject.discovery.space, evaluator.knowledge(criteria_of(search))
        budget = BudgetRequest.of(flops=f"{100 * self._ratio:g}%").resolve(space.base_cost)
        mask = plans_without_search(space, budget, knowledge, search.criterion)[GLOBAL]
        return subject, evaluator.builder.final(mask), space.cost(mask)


def measure(given: argparse.Namespace) -> None:
    """Measures the rows that were selected and are not there."""
    for name in given.variants:
        if name not in VARIANTS:
            raise unknown_name("variant", name, VARIANTS)
    torch.set_num_threads(1)
    bench, known = Bench(given), {row.key for row in read_rows(given.results, Row)}
    setting = (given.space.stem, given.ratio, given.images)
    for seed, epochs, name in product(given.seeds, given.epochs, given.variants):
        if (*setting, epochs, seed, name) in known:
            continue
        row = bench.row(name, epochs, seed)
        append_row(given.results, row)
        print(
            f"{name}, {epochs} epochs, seed {seed}: search {row.search:.2f}, test {row.test:.2f}"
            f" % ({row.seconds:.1f} s)",
            file=sys.stderr,
            flush=True,
        )


def write_page(given: argparse.Namespace) -> None:
    """Writes the page of all rows."""
    given.out.write_text(page(read_rows(given.results, Row), given.hardware), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    jobs = parser.add_subparsers(required=True)
    measuring = jobs.add_parser("measure")
    measuring.add_argument("--results", type=Path, required=True)
    measuring.add_argument("--space", type=Path, default=SPACE)
    measuring.add_argument("--ratio", type=float, default=0.3, help="of MACs")
    measuring.add_argument("--epochs", type=int, nargs="+", default=[3, 10])
    measuring.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    measuring.add_argument("--variants", nargs="+", default=list(VARIANTS), metavar="NAME")
    measuring.add_argument("--images", type=int, help="train images; all by default")
    measuring.set_defaults(job=measure)
    writing = jobs.add_parser("page")
    writing.add_argument("--results", type=Path, required=True)
    writing.add_argument("--out", type=Path, required=True)
    writing.add_argument("--hardware", required=True)
    writing.set_defaults(job=write_page)
    given = parser.parse_args(arguments)
    given.job(given)


if __name__ == "__main__":
    main()
