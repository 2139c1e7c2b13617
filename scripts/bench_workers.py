"""Measures the overhead of the engine on a dask cluster: evaluations that only sleep.

Ten workers on this machine take artificial evaluations of 100 ms in rounds, as a search has them.
Efficiency is the time that the sleeps take divided by the workers' time: what is missing is what
the engine, joblib and dask cost. It says nothing of the speed of real evaluations. What a job
costs the processor, in all processes together, holds on a machine with other work, too.

    .venv/bin/python scripts/bench_workers.py [--workers 10] [--rounds 8] [--jobs 100]
"""

import argparse
import time
from contextlib import closing

import numpy as np
import psutil
from distributed import LocalCluster

from evosearch.engine.executor import Job
from evosearch.engine.parallel import Workers
from evosearch.space.mask import Mask
from sleepers import IMAGES, SLEEP, Sleepers


def masks(count: int, rng: np.random.Generator) -> list[Mask]:
    """Returns masks of a space of a thousand channels, as they travel to workers."""
    sizes = {f"layer{i}": 64 for i in range(16)}
    return [Mask({n: rng.random(size) < 0.5 for n, size in sizes.items()}) for _ in range(count)]


def cpu_seconds() -> float:
    """Returns the processor's seconds of this process and all that it started."""
    here = psutil.Process()
    times = [process.cpu_times() for process in (here, *here.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def main() -> None:
    """Prints the efficiency of every round, and their median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=100, help="in a round")
    args = parser.parse_args()
    rng, found, costs = np.random.default_rng(0), [], []
    with (
        LocalCluster(
            n_workers=args.workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
        ) as cluster,
        closing(
            Workers(Sleepers(), images=IMAGES, count=0, cluster=cluster.scheduler_address)
        ) as executor,
    ):
        for number in range(args.rounds + 1):
            jobs = [Job(mask=mask, images=range(IMAGES)) for mask in masks(args.jobs, rng)]
            began, spent = time.perf_counter(), cpu_seconds()
            done = list(executor.measure(jobs))
            seconds = time.perf_counter() - began
            assert all(measured.failure is None for measured in done)
            efficiency = args.jobs * SLEEP / args.workers / seconds
            if number:  # in the first round the workers import what they need
                found.append(efficiency)
                costs.append((cpu_seconds() - spent) / args.jobs)
                print(f"round {number}: {efficiency:.2f}", flush=True)
    low, middle, high = np.percentile(found, (25, 50, 75))
    cost = 1000 * np.median(costs)
    print(
        f"{args.workers} workers, evaluations of {1000 * SLEEP:.0f} ms that sleep: efficiency"
        f" {middle:.2f} ({low:.2f} to {high:.2f}), {cost:.1f} ms of the processor"
        " for a job; the engine's overhead, not its speed"
    )


if __name__ == "__main__":
    main()
