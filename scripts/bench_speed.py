"""CPU seconds of a candidate against the loop that people write, and how alike they rank plans.

Takes a finished run at one budget, and the different plans of the second half of its search. Each
is scored by the naive loop (see `naiveloop.py`), by the build that is the default and by
`recalibrated` on 128 images, one after the other, in one process of one thread; what counts is
the processor's time, so that other work on the machine does not. Rows are kept in a file, and a
killed bench goes on. Then a table for each number of images that candidates could be scored on.

    .venv/bin/evosearch search SPACE --flops 50% --out RUN
    .venv/bin/python scripts/bench_speed.py RUN --rows FILE [--plans 24]
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau

from evosearch.engine.config import EvaluatorConfig
from evosearch.engine.evaluator import MaskEvaluator
from evosearch.run.evaluating import make_evaluator
from evosearch.run.preparation import Prepared
from evosearch.run.reopening import reopen
from evosearch.space.mask import Mask
from evosearch.study.rankcorrelation import RankCorrelation
from evosearch.study.study import Study
from naiveloop import Loop, Way

WAYS = {
    "compensated, the default": EvaluatorConfig(),
    "recalibrated on 128 images": EvaluatorConfig(build="recalibrated", build_images=128),
}
NAIVE = "the naive loop"
IMAGES = (192, 512, 1024, 2048, 5000)
Row = dict[str, Any]


def searched_plans(study: Study, count: int) -> list[Mask]:
    """Returns the last different plans of the second half of a search."""
    late = study.trials[len(study.trials) // 2 :]
    done = (trial.mask for trial in reversed(late) if trial.is_complete)
    return list(dict.fromkeys(done))[:count]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Returns the processor's seconds that work takes, and what it gives."""
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def scored(evaluator: MaskEvaluator, mask: Mask) -> Row:
    """Returns what a plan costs by an evaluator, built and scored apart, and its losses."""
    first = 64  # one batch: the rest of the time is that of the other images
    build, _ = timed(lambda: evaluator.image_scores(mask, 0, first))
    rest, scores = timed(lambda: evaluator.image_scores(mask, first, evaluator.images))
    a_image = rest / (evaluator.images - first)
    head = evaluator.image_scores(mask, 0, first).losses
    losses = np.concatenate([head, scores.losses])
    return {"build": build - first * a_image, "image": a_image, "losses": losses.tolist()}


def measured(prepared: Prepared, masks: Sequence[Mask], rows: Path) -> list[Row]:
    """Returns a row for each plan: those that are in a file, and the others, which it gets."""
    known = {row["mask"]: row for row in map(json.loads, rows.open())} if rows.exists() else {}
    loop, config = Loop(prepared.subject), prepared.config
    evaluators = {}
    for name, way in WAYS.items():
        search = config.search.model_copy(update={"evaluator": way})
        evaluators[name] = make_evaluator(search, prepared.subject, config.space.finetune)
        evaluators[name].prepare(errors=False)
        evaluators[name].image_scores(prepared.subject.discovery.space.full_mask(), 0, 64)
    for mask in masks:
        if mask.key in known:
            continue
        seconds, losses = timed(lambda mask=mask: loop.losses(mask, Way()))
        row: Row = {"mask": mask.key, NAIVE: {"cpu": seconds, "losses": losses.tolist()}}
        for name, evaluator in evaluators.items():
            row[name] = scored(evaluator, mask)
        known[mask.key] = row
        with rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
    return [known[mask.key] for mask in masks]


def means(rows: Sequence[Row], way: str, images: int) -> NDArray[np.float64]:
    """Returns the mean loss of every plan on the first images."""
    return np.array([np.mean(row[way]["losses"][:images]) for row in rows])


def table(rows: Sequence[Row]) -> list[str]:
    """Returns the report's table."""
    whole = len(rows[0][NAIVE]["losses"])
    naive = np.median([row[NAIVE]["cpu"] for row in rows])
    lines = [
        "| build | images scored | candidates per CPU second, naive loop = 1 | Spearman's"
        " rho (Kendall's tau) with the default's full score | and with the naive loop's |",
        "|---|---|---|---|---|",
    ]
    default = next(iter(WAYS))
    own, truth = means(rows, default, whole), means(rows, NAIVE, whole)
    for way in WAYS:
        build = np.median([row[way]["build"] for row in rows])
        image = np.median([row[way]["image"] for row in rows])
        for images in sorted({min(count, whole) for count in IMAGES}):
            found = means(rows, way, images)
            cells = [way, str(images), f"{naive / (build + images * image):.1f}"]
            cells += ["" if (way, images) == (default, whole) else agreement(found, own)]
            cells.append(agreement(found, truth))
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def agreement(found: NDArray[np.float64], truth: NDArray[np.float64]) -> str:
    """Returns how alike two orders are."""
    rho = RankCorrelation.between(found.tolist(), truth.tolist())
    return f"{rho} ({kendalltau(found, truth).statistic:.2f})"


def main() -> None:
    """Measures what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--plans", type=int, default=24)
    args = parser.parse_args()
    torch.set_num_threads(1)
    study = Study.open(args.run)
    prepared = reopen(args.run, study.header, lambda _: None)
    rows = measured(prepared, searched_plans(study, args.plans), args.rows)
    builds = {way: np.median([row[way]["build"] for row in rows]) for way in WAYS}
    naive = np.median([row[NAIVE]["cpu"] for row in rows])
    print(f"{len(rows)} plans; of the naive loop's time a build alone takes", end=" ")
    print(", ".join(f"{way}: {seconds / naive:.1%}" for way, seconds in builds.items()))
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
