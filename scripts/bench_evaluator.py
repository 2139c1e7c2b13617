"""Compares the evaluator with the loop that people write, on the CIFAR-10 ResNet-20.

The naive loop, in one process of two threads: deep copy, torch-pruning, BatchNorm recalibrated on
1,000 images, 5,000 images scored, float32, batches of 256. Ours, in two processes of one thread:
recalibrated on 128 images, bfloat16 where the CPU has it, all candidates scored on a few images
and the best of them on more. Both rank the same candidates near half the MACs, half of them from
the second half of a search by the same score. Times are medians over rounds that alternate between
the two. Prints a Markdown report.

    pip install -e '.[bench]'
    EVOSEARCH_DATA=DIR .venv/bin/python scripts/bench_evaluator.py --search-list FILE \
        [--run FOLDER] [--rounds 5] [--tune 12]
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import final

import numpy as np
import torch
from scipy.stats import kendalltau

from evosearch.engine.config import EvaluatorConfig
from evosearch.engine.executor import Job
from evosearch.engine.loop import Limits
from evosearch.engine.parallel import OneByOne, Workers
from evosearch.errors import EvaluationError
from evosearch.run.config import SearchConfig
from evosearch.run.reopening import RunEvaluator, reopen
from evosearch.run.session import Session
from evosearch.run.spacefile import load_space_file
from evosearch.space.budget import Budget, BudgetRequest
from evosearch.space.mask import Mask
from evosearch.strategies.fixed_plans import random_mask
from evosearch.study.study import Study
from evosearch.tasks.scoring import score
from evosearch.training.distillation import distil
from naiveloop import FIRST, Loop, Losses, Way, steps

SPACE = Path(__file__).parent.parent / "search_spaces" / "cifar10_resnet20.toml"
SEARCHED, DRAWN, WIDE, WORKED, TRIALS = 30, 30, 30, 24, 80
NEAR = 0.005
"""How far the candidates' MACs ratios may be from a half."""
FINALISTS, SECOND = 8, 1024
"""How many candidates go on after the first images, and how many images they are scored on."""
QUICK = EvaluatorConfig(build="recalibrated", build_images=128)


def searched_masks(run: Session) -> list[Mask]:
    """Returns the last different masks near half the MACs of a search, its second half at most."""
    masks: list[Mask] = []
    for trial in reversed(run.study.trials[TRIALS // 2 :]):
        if trial.mask not in masks and is_near(run, trial.mask) and len(masks) < SEARCHED:
            masks.append(trial.mask)
    return masks


def drawn_masks(run: Session, ratios: Iterable[float]) -> list[Mask]:
    """Returns one random mask for each MACs ratio; every other one with two-step channels."""
    space, rng = run.prepared.subject.discovery.space, np.random.default_rng(0)
    masks: list[Mask] = []
    for ratio in ratios:
        budget = Budget.exactly(macs=int(ratio * space.base_cost.macs))
        mask = random_mask(space, budget, rng)
        while space.cost(mask).macs < (ratio - NEAR) * space.base_cost.macs:
            mask = random_mask(space, budget, rng)
        if len(masks) % 2:
            widths = np.array([mask[group.name].sum() for group in space.groups])
            mask = space.top_channels(widths, run.prepared.knowledge.scores["two_step"])
        masks.append(mask)
    return masks


def is_near(run: Session, mask: Mask) -> bool:
    space = run.prepared.subject.discovery.space
    return abs(space.cost(mask).macs / space.base_cost.macs - 0.5) <= NEAR


@final
class Quick:
    """Scores candidates with the evaluator of a run, in two worker processes.

    An evaluator remembers networks that it has built: what is timed again needs a new one.
    """

    def __init__(self, run: Session) -> None:
        """Has the workers load the run."""
        images = run.prepared.evaluator.images
        self._workers = Workers(RunEvaluator(str(run.folder.resolve())), images=images, count=2)
        full = run.prepared.subject.discovery.space.full_mask()
        self.losses([full] * 4, FIRST)

    def losses(self, masks: Sequence[Mask], stop: int, start: int = 0) -> list[float]:
        """Returns the loss of each mask on some of the images."""
        tasks = [Job(mask=mask, images=range(start, stop)) for mask in masks]
        found = list(self._workers.measure(tasks))
        failures = [measured.failure for measured in found if measured.failure]
        if failures:
            raise EvaluationError(failures[0])
        return [measured.scores.score.loss for measured in found if measured.scores]

    def scores(self, masks: Sequence[Mask]) -> Losses:
        """Returns what ranks the masks: finalists by many images, then the others by few."""
        few = np.array(self.losses(masks, FIRST))
        best = np.argsort(few)[:FINALISTS]
        rest = np.array(self.losses([masks[i] for i in best], SECOND, start=FIRST))
        many = (FIRST * few[best] + (SECOND - FIRST) * rest) / SECOND
        # A finalist that fell back is still before all that were not, as the ladder has it.
        few[best] = few.min() - 1 + many - many.max()
        return few


def tuned_accuracy(folder: Path, mask: Mask) -> float:
    """Returns a candidate's search accuracy after one epoch of fine-tuning, in percent."""
    torch.set_num_threads(1)
    prepared = reopen(folder, Study.open(folder).header, lambda _: None)
    subject = prepared.subject
    network = prepared.evaluator.builder.plain(mask)
    config = prepared.config.space.finetune.model_copy(update={"epochs": 1})
    distil(subject.model, network, subject.data.train, subject.data.search, config, 0)
    return 100 * score(network, subject.data.search).accuracy


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def spread(values: Sequence[float], unit: str = "") -> str:
    """Returns a median with the quartiles."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return f"{middle:.3g}{unit} ({low:.3g} to {high:.3g})"


def tau(left: Losses, right: Losses) -> float:
    return float(kendalltau(left, right).statistic)


def measured_steps(loop: Loop, masks: Sequence[Mask], rounds: int) -> list[str]:
    """Returns a table of what each measure gains, in one process of one thread."""
    torch.set_num_threads(1)
    ways = steps()
    seconds = {
        name: [seconds_of(partial(loop.losses, masks[i], way)) for i in range(rounds)]
        for name, way in ways.items()
    }
    lines = ["| each row adds one measure | s per candidate | gain |", "|---|---|---|"]
    before = None
    for name, values in seconds.items():
        middle = float(np.median(values))
        gain = "" if before is None else f"{before / middle:.2f}x"
        lines.append(f"| {name} | {spread(values)} | {gain} |")
        before = middle
    return lines


def measured_workers(run: Session, masks: Sequence[Mask], rounds: int) -> str:
    """Returns how much faster two workers are than one process, one thread each."""
    chosen, full = masks[:WORKED], run.prepared.subject.discovery.space.full_mask()
    tasks = [Job(mask=mask, images=range(SECOND)) for mask in chosen]
    gains = []
    for _ in range(rounds):
        alone, quick = OneByOne(RunEvaluator(str(run.folder.resolve()))()), Quick(run)
        torch.set_num_threads(1)
        list(alone.measure([Job(mask=full, images=range(FIRST))] * 2))
        one = seconds_of(partial(list, alone.measure(tasks)))
        gains.append(one / seconds_of(partial(quick.losses, chosen, SECOND)))
    return (
        f"- two workers: {spread(gains)} times the candidates per second of one process"
        f" ({WORKED} candidates on {SECOND} images each, one thread a process)"
    )


def report(run: Session, rounds: int, tune: int) -> list[str]:
    """Returns the lines of the report."""
    loop = Loop(run.prepared.subject)
    masks = [*searched_masks(run), *drawn_masks(run, [0.5] * DRAWN)]
    searched = len(masks) - DRAWN
    differ = max(loop.difference(mask) for mask in masks[:5])
    naive = Way()
    ours: list[float] = []
    theirs: list[float] = []
    full: list[float] = []
    share = -(-len(masks) // rounds)
    for start in range(0, len(masks), share):
        torch.set_num_threads(2)
        for mask in masks[start : start + share]:
            began = time.perf_counter()
            full.append(float(loop.losses(mask, naive).mean()))
            theirs.append(time.perf_counter() - began)
        torch.set_num_threads(1)
        quick = Quick(run)
        ours.append(seconds_of(partial(quick.scores, masks)) / len(masks))
    truth, found = np.array(full), quick.scores(masks)
    ratios = [float(np.median(theirs[i : i + share])) for i in range(0, len(theirs), share)]
    gains = [their / our for their, our in zip(ratios, ours, strict=True)]
    place = int(np.flatnonzero(np.argsort(found) == truth.argmin())[0]) + 1
    wide = drawn_masks(run, np.linspace(0.3, 0.7, WIDE))
    torch.set_num_threads(2)
    wide_truth = np.array([loop.losses(mask, naive).mean() for mask in wide])
    wide_found = np.array(quick.losses(wide, FIRST))
    lines = [
        f"{len(masks)} candidates, {searched} of them from the second half of a search of {TRIALS}"
        f" trials; their losses in the naive loop: searched {truth[:searched].min():.3f} to"
        f" {truth[:searched].max():.3f}, drawn {truth[searched:].min():.3f} to"
        f" {truth[searched:].max():.3f} nats. torch-pruning's networks and ours differ by at most"
        f" {differ:.1e} in an output.",
        "",
        f"- naive loop, 2 threads: {spread(theirs)} s per candidate",
        f"- evosearch, 2 processes of 1 thread: {spread(ours)} s per candidate",
        f"- **{spread(gains)} times the candidates per second**, median and quartiles of"
        f" {len(gains)} rounds",
        "- Kendall's tau with the naive loop's full score: among the searched plans"
        f" **{tau(found[:searched], truth[:searched]):.3f}**, searched and drawn ones together"
        f" **{tau(found, truth):.3f}**, plans drawn from 0.3 to 0.7"
        f" {tau(wide_found, wide_truth):.3f}",
        f"- the true best of the {len(masks)} has place {place} of ours",
        measured_workers(run, masks, rounds),
        "",
        *measured_steps(loop, masks, rounds),
    ]
    if tune:
        chosen = np.linspace(0, len(masks) - 1, tune).round().astype(int)
        with ProcessPoolExecutor(2, get_context("spawn")) as pool:
            tuned = pool.map(tuned_accuracy, [run.folder] * tune, [masks[i] for i in chosen])
            accuracies = np.array(list(tuned))
        lines += [
            "",
            f"After one epoch of fine-tuning, {tune} of them: {accuracies.min():.2f} to"
            f" {accuracies.max():.2f} % search accuracy; tau of lower loss with higher accuracy:"
            f" quick score {tau(-found[chosen], accuracies):.3f}, naive full score"
            f" {tau(-truth[chosen], accuracies):.3f}.",
        ]
    return lines


def main() -> None:
    """Searches, measures both loops and prints the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--search-list", type=Path, required=True)
    parser.add_argument("--run", type=Path, help="keep the search there, or go on with it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tune", type=int, default=12, help="candidates to fine-tune; 0: none")
    args = parser.parse_args()
    torch.set_num_threads(1)
    file = load_space_file(SPACE)
    # torch-pruning gets the padded shortcuts of this network wrong: leave their channels alone.
    groups = file.groups.model_copy(update={"exclude": ("conv1",)})
    data = file.data.model_copy(update={"search": str(args.search_list.resolve())})
    file = file.model_copy(update={"groups": groups, "data": data})
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.run or Path(temporary) / "run"
        if folder.exists():
            run = Session.resume(folder)
            if run.prepared.config.space.data.search != data.search:
                parser.error(f"{folder} was searched with another --search-list")
        else:
            run = Session.create(
                folder,
                space_file=file,
                space_folder=SPACE.parent,
                search=SearchConfig(
                    strategy="rates", trials=TRIALS, evaluator=QUICK, device="cpu"
                ),
                request=BudgetRequest.of(flops="50%"),
            )
        run.use_workers(2)
        run.search(Limits(trials=TRIALS))
        print("\n".join(report(run, args.rounds, args.tune)))


if __name__ == "__main__":
    main()
