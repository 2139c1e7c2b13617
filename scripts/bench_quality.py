"""Measures how good the networks are that evosearch and torch-pruning cut from one network.

For every method, MACs ratio and seed: test accuracy of the network as cut, with BatchNorm
recalibrated, compensated (evosearch's own), and after 3 epochs of fine-tuning, on labels alone or
distilled. A row that is in the results file is not measured again, and what was killed goes on, so
a benchmark can be run in parts, also by two processes with different methods at once.

    EVOSEARCH_DATA=DIR .venv/bin/python scripts/bench_quality.py measure --results FILE \
        --runs DIR [--network resnet56] [--space FILE] [--methods rates tp-l1-global ...] \
        [--ratios 0.5 ...] [--seeds 0 1 2] [--finetune none labels distill] [--trials 60]
    .venv/bin/python scripts/bench_quality.py page --results FILE --out PAGE.md --hardware TEXT
"""

import argparse
import sys
import time
from itertools import product
from pathlib import Path

import optuna
import torch

from benchfiles import append_row
from evosearch.errors import EvosearchError, InputError, unknown_name
from evosearch.run.spacefile import load_space_file
from quality.bench import Bench
from quality.methods import BASE, METHODS, UNTUNED
from quality.page import headline, write_page
from quality.results import read_rows

SPACES = Path(__file__).parent.parent / "search_spaces"
DEPTHS = {"resnet20": 20, "resnet56": 56}

Job = tuple[str, float, int, str]
"""Method, MACs ratio, seed, stage."""


def jobs(args: argparse.Namespace) -> list[Job]:
    """Returns what was selected, cheap stages first; what draws nothing has seed 0 alone."""
    stages = [*(UNTUNED if "none" in args.finetune else ()), *args.finetune]
    found: dict[Job, None] = {}
    for stage, seed, ratio, name in product(stages, args.seeds, args.ratios, args.methods):
        method = METHODS[name]
        if stage in method.stages:
            drawn = method.draws or stage not in UNTUNED
            found[name, 1.0 if name == BASE else ratio, seed if drawn else 0, stage] = None
    return list(found)


def measure(args: argparse.Namespace) -> None:
    """Measures the rows that were selected and are not there."""
    for name in args.methods:
        if name not in METHODS:
            raise unknown_name("method", name, METHODS)
    space = args.space or SPACES / f"cifar10_{args.network}.toml"
    depth = load_space_file(space).model.kwargs.get("depth")
    if depth != DEPTHS[args.network]:
        raise InputError(f"{space}: a network of depth {depth}, not --network {args.network}")
    torch.set_num_threads(args.threads)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    bench = Bench(args.network, space, args.runs, args.trials, args.threads)
    for method, ratio, seed, stage in jobs(args):
        known = read_rows(args.results)
        key = args.network, method, bench.trials(method), ratio, seed, stage
        if key in {row.key for row in known}:
            continue
        began = time.perf_counter()
        row = bench.measure(method, ratio, seed, stage, known)
        append_row(args.results, row)
        print(
            f"{method} {ratio:g} seed {seed} {stage}: MACs {row.macs:.4f}, search"
            f" {row.search:.2f}, test {row.test:.2f} ({time.perf_counter() - began:.1f} s)",
            flush=True,
        )


def page(args: argparse.Namespace) -> None:
    """Writes the page and its picture, and prints the rows for the README."""
    rows = read_rows(args.results)
    if not rows:
        raise InputError(f"{args.results}: no rows; `bench_quality.py measure` makes them")
    write_page(rows, args.out, args.hardware)
    print(headline(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    measuring = commands.add_parser("measure", help="measure rows")
    measuring.set_defaults(run=measure)
    measuring.add_argument("--results", type=Path, required=True, help="file of JSON lines")
    measuring.add_argument("--runs", type=Path, required=True, help="folder of all that is kept")
    measuring.add_argument("--network", choices=DEPTHS, default="resnet20")
    measuring.add_argument("--space", type=Path, help="takes the place of the network's own")
    measuring.add_argument("--methods", nargs="+", default=list(METHODS), metavar="NAME")
    measuring.add_argument("--ratios", type=float, nargs="+", default=[0.7, 0.5, 0.3])
    measuring.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    measuring.add_argument(
        "--finetune", nargs="+", choices=("none", "labels", "distill"), default=["none"]
    )
    measuring.add_argument("--trials", type=int, default=60, help="of each search")
    measuring.add_argument("--threads", type=int, default=1)
    writing = commands.add_parser("page", help="write the page of what was measured")
    writing.set_defaults(run=page)
    writing.add_argument("--results", type=Path, required=True)
    writing.add_argument("--out", type=Path, required=True)
    writing.add_argument("--hardware", required=True, help="what the rows were measured on")
    args = parser.parse_args()
    try:
        args.run(args)
    except EvosearchError as error:
        print(f"bench_quality: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
