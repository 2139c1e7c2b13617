"""Measures the two-step fitness and a generation's own overhead, in Markdown.

    .venv/bin/python scripts/bench_two_step.py [--repeats 7]

Set OMP_NUM_THREADS=1 before the start, as runs do: the two-core figure takes two Python threads.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np

from evosearch.space.budget import Bound, Budget
from evosearch.space.costform import CostTerm, Monomial
from evosearch.space.knowledge import Knowledge, SensitivityCurve
from evosearch.space.mask import ChannelGroup
from evosearch.space.space import SearchSpace
from evosearch.strategies.base import Problem
from evosearch.strategies.genetic import Genetic, NsgaConfig
from evosearch.strategies.two_step import child_errors, quadratic_errors
from evosearch.study.scores import Score
from evosearch.study.trial import Evaluation, Proposal, Trial, TrialState

CHANNELS, MASKS, CHILDREN, FLIPS = 512, 10_000, 100_000, 2
GROUPS, PER_GROUP, POPULATION = 20, 250, 100


def best_of(repeats: int, work: Callable[[], object]) -> float:
    """Returns the least wall time, in seconds, of a few runs after a first one."""
    work()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def gram_of(rng: np.random.Generator, channels: int) -> np.ndarray:
    factor = rng.normal(size=(channels, channels // 4)) * np.exp(rng.normal(size=(channels, 1)))
    gram = factor @ factor.T
    return np.asarray(gram / gram.sum())


def scoring(repeats: int) -> list[str]:
    """Returns table rows: arithmetic peak, from scratch, incremental."""
    rng = np.random.default_rng(0)
    gram = gram_of(rng, CHANNELS)
    keep = rng.random((MASKS, CHANNELS)) < 0.5
    dense = rng.random((MASKS, CHANNELS))
    product_flops = 2 * MASKS * CHANNELS**2
    rows = []
    for kind in (np.float32, np.float64):
        left, right = dense.astype(kind), gram.astype(kind)
        seconds = best_of(repeats, lambda left=left, right=right: left @ right)  # type: ignore[misc]
        rows.append(
            f"matrix product, {kind.__name__} | {product_flops / seconds / 1e9:.0f} GFLOP/s"
        )
    peak = product_flops / seconds
    rows.append(
        f"masks at that peak, by one full product | {peak / (2 * CHANNELS**2):.2e} masks/s"
    )
    scratch = best_of(repeats, lambda: quadratic_errors(gram, ~keep))
    rows.append(f"masks from scratch | {MASKS / scratch:.2e} masks/s")
    halves = np.array_split(~keep, 2)
    with ThreadPoolExecutor(2) as pool:
        both = best_of(
            repeats, lambda: list(pool.map(lambda half: quadratic_errors(gram, half), halves))
        )
    rows.append(f"masks from scratch, halves in two Python threads | {MASKS / both:.2e} masks/s")
    pruned = (~keep[:POPULATION]).astype(np.float64)
    product, errors = pruned @ gram, quadratic_errors(gram, ~keep[:POPULATION])
    parents = rng.integers(POPULATION, size=CHILDREN)
    for flips in (FLIPS, 2 * FLIPS, 4 * FLIPS):
        bits = np.argsort(rng.random((1000, CHANNELS)), axis=1)[:, :flips]
        chosen = np.tile(bits, (CHILDREN // 1000, 1))
        seconds = best_of(
            repeats,
            lambda chosen=chosen: child_errors(gram, pruned, product, errors, parents, chosen),  # type: ignore[misc]
        )
        rows.append(f"children with {flips} flipped bits | {CHILDREN / seconds:.2e} children/s")
    return rows


def network() -> tuple[SearchSpace, Knowledge]:
    """Returns a chain of 20 groups of 250 channels, with random knowledge."""
    rng = np.random.default_rng(0)
    names = [f"g{i}" for i in range(GROUPS)]
    terms = [
        CostTerm(name=f"conv{i}", macs=(Monomial(9 * 64, ends),), params=(Monomial(9, ends),))
        for i in range(GROUPS + 1)
        for ends in [tuple(names[max(0, i - 1) : i + 1])]
    ]
    widths = np.array([31, 62, 125, 187, PER_GROUP])
    sensitivity = {}
    for name in names:
        increase = rng.uniform(0.2, 2) * (1 - widths / PER_GROUP) ** 2
        sensitivity[name] = SensitivityCurve(widths=widths, loss_increase=increase)
    space = SearchSpace(
        groups=tuple(ChannelGroup(name, PER_GROUP) for name in names), terms=tuple(terms)
    )
    knowledge = Knowledge(
        gram={(name, name): gram_of(rng, PER_GROUP) for name in names},
        scores={"l1": {name: rng.random(PER_GROUP) for name in names}},
        comparable={"l1": {name: rng.random(PER_GROUP) for name in names}},
        sensitivity=sensitivity,
    )
    return space, knowledge


def overhead(children: int, repeats: int) -> tuple[float, float, float]:
    """Returns seconds of the set-up, an ask and a tell, with a full population."""
    space, knowledge = network()
    base = space.base_cost.macs
    config = NsgaConfig(population=POPULATION, children=children, round_size=16)
    began = time.perf_counter()
    strategy = Genetic(
        Problem(
            space=space,
            budget=Budget.of(macs=Bound(low=base // 5, high=base)),
            knowledge=knowledge,
            config=config,
            seed=0,
        )
    )
    setup = time.perf_counter() - began
    theta = np.exp(np.random.default_rng(1).normal(size=GROUPS))
    asks, tells = [], []
    for generation in range(20 + repeats):
        began = time.perf_counter()
        proposals = strategy.ask()
        asks.append(time.perf_counter() - began)
        first = generation * config.round_size
        trials = [trial_of(space, knowledge, theta, p, first + i) for i, p in enumerate(proposals)]
        began = time.perf_counter()
        strategy.tell(trials)
        tells.append(time.perf_counter() - began)
    return setup, float(np.median(asks[-repeats:])), float(np.median(tells[-repeats:]))


def trial_of(
    space: SearchSpace, knowledge: Knowledge, theta: np.ndarray, proposal: Proposal, number: int
) -> Trial:
    errors = [float(~bits @ knowledge.gram[g, g] @ ~bits) for g, bits in proposal.mask.items()]
    loss = 0.1 + float(theta @ np.square(errors))
    return Trial(
        number=number,
        generation=0,
        mask=proposal.mask,
        genome=proposal.genome,
        cost=space.cost(proposal.mask),
        state=TrialState.COMPLETE,
        evaluation=Evaluation(
            score=Score(loss=loss, loss_se=0.0, accuracy=0.5, accuracy_se=0.0, images=1),
            seconds=0.0,
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    print(f"# Two-step fitness, {datetime.now(UTC):%Y-%m-%d}\n")
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"{platform.processor() or platform.machine()}, {threads} BLAS threads,", end=" ")
    print(f"numpy {np.__version__}; {MASKS} masks over {CHANNELS} channels.\n")
    print("| what | rate |\n|---|---|")
    print("\n".join(f"| {row} |" for row in scoring(repeats)))
    print(f"\n{GROUPS * PER_GROUP} channels in {GROUPS} groups, {POPULATION} parents,", end=" ")
    print("over 300 trials told; wall time in milliseconds.\n")
    print("| children | set-up, once | ask | tell |\n|---|---|---|---|")
    for children in (100, 1024):
        figures = overhead(children, repeats)
        print(f"| {children} | " + " | ".join(f"{1000 * x:.1f}" for x in figures) + " |")


if __name__ == "__main__":
    main()
