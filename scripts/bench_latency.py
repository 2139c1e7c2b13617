"""Measures how well latency is predicted, what a latency budget buys, and whether it holds.

    .venv/bin/python scripts/bench_latency.py --cifar cifar10_resnet20.toml [--runs DIR]

Prints Markdown: the error of predicted latency on random networks (digits and ResNet-20); a
search under 60 % of the latency beside one under FLOPs, at equal loss; and the winner's latency
in five fresh processes. Searches go on where they stopped; set OMP_NUM_THREADS=1.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import evosearch
from evosearch.latency.meter import Meter
from evosearch.latency.stopwatch import compare
from evosearch.run.measurer import SECONDS
from evosearch.run.profiling import profile_space
from evosearch.run.reopening import reopen_meter
from evosearch.run.timedfront import timed_front
from evosearch.study.certificate import load_certificates
from evosearch.study.latency_certificate import LatencyCertificate
from evosearch.study.study import Study
from evosearch.study.timing import Timing
from evosearch.study.trial import Trial

DIGITS = Path(__file__).parents[1] / "search_spaces" / "digits_resnet.toml"
CONDITIONS = (("eager", 1), ("eager", 64), ("onnxruntime", 1))
BATCH = 64
REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar", type=Path, help="space file of the ResNet-20")
    parser.add_argument("--runs", type=Path, default=Path("runs/bench_latency"))
    parser.add_argument("--latency", default="60%")
    parser.add_argument("--flops", default="30%..80%")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--once", nargs=2, metavar=("RUN", "TRIAL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        once(Path(options.once[0]), int(options.once[1]))
        return
    predictions([DIGITS, *([options.cifar] if options.cifar else [])])
    if options.cifar:
        space, runs, trials = options.cifar, options.runs, options.trials
        latency = searched(space, runs / "latency", trials, latency=options.latency)
        flops = searched(space, runs / "flops", trials, flops=options.flops)
        compared(latency, flops)
        repeated(latency)


def predictions(spaces: list[Path]) -> None:
    print("| network | runtime | batch | base, ms | noise | median error | worst error |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for space in spaces:
        for runtime, batch in CONDITIONS:
            model, _ = profile_space(space, {"runtime": runtime, "batch": batch}, "cpu")
            print(
                f"| {space.stem} | {runtime} | {batch} | {model.base_picoseconds / 1e9:.3g} |"
                f" ±{model.noise:.1%} | {model.median_error:.1%} | {model.worst_error:.1%} |",
                flush=True,
            )


def searched(space: Path, folder: Path, trials: int, **budget: str) -> Path:
    if not folder.exists():
        evosearch.search(space, runtime="eager", batch=BATCH, trials=trials, out=folder, **budget)
    elif not load_certificates(folder):
        evosearch.resume(folder, trials=trials)
    return folder


def compared(latency: Path, flops: Path) -> None:
    """Prints the winner under latency beside the FLOPs search's networks of equal loss."""
    print("\n| network | FLOPs | latency, % of base (95 %) | search loss | search accuracy, % |")
    print("|---|--:|--:|--:|--:|")
    for folder in (latency, flops):
        for network in timed_front(folder).networks:
            timing, score = network.timing, network.evaluation
            print(
                f"| {folder.name}: {network.name} | {network.cost.flops / 1e6:.1f}M |"
                f" {100 * timing.ratio:.1f} ({100 * timing.ratio_low:.1f} to"
                f" {100 * timing.ratio_high:.1f}) | {score.loss:.3f} ± {score.loss_se:.3f} |"
                f" {score.accuracy_text} |"
            )
    first = winner(latency)
    second = equal_in_loss(first, Study.open(flops))
    meter = reopen_meter(flops, Study.open(flops).header)
    runners = [runner(meter, trial) for trial in (first, second)]
    timing = compare(*runners, meter.bench.stopwatch, 2 * SECONDS)
    assert first.evaluation is not None
    assert second.evaluation is not None
    print(
        f"\nTrial {first.number} under latency (loss {first.evaluation.score.loss:.3f} ±"
        f" {first.evaluation.score.loss_se:.3f}, {first.cost.flops / 1e6:.1f}M FLOPs) takes"
        f" {timing.ratio:.1%} ({timing.ratio_low:.1%} to {timing.ratio_high:.1%}) of the time of"
        f" trial {second.number} under FLOPs (loss {second.evaluation.score.loss:.3f} ±"
        f" {second.evaluation.score.loss_se:.3f}, {second.cost.flops / 1e6:.1f}M FLOPs), timed in"
        " turn."
    )


def certificate_in(folder: Path) -> LatencyCertificate:
    (certificate,) = load_certificates(folder)
    assert isinstance(certificate, LatencyCertificate)
    return certificate


def winner(folder: Path) -> Trial:
    certificate = certificate_in(folder)
    print(f"\n{certificate}")
    assert certificate.winner is not None
    return Study.open(folder).trials[certificate.winner.trial]


def equal_in_loss(trial: Trial, study: Study) -> Trial:
    """Returns the trial of fewest FLOPs whose loss is no worse, within the standard error."""
    assert trial.evaluation is not None
    worst = trial.evaluation.score.loss + trial.evaluation.score.loss_se
    equal = [t for t in study.front().members if t.evaluation and t.evaluation.score.loss <= worst]
    return min(equal, key=lambda t: t.cost.macs)


def runner(meter: Meter, trial: Trial):  # type: ignore[no-untyped-def]
    return meter.bench.runner(meter.compact(trial.mask))


def once(folder: Path, number: int) -> None:
    study = Study.open(folder)
    timing = reopen_meter(folder, study.header).time(study.trials[number].mask, SECONDS)
    print(json.dumps(asdict(timing)))


def repeated(folder: Path) -> None:
    certificate = certificate_in(folder)
    assert certificate.winner is not None
    share = certificate.limit / certificate.base_picoseconds
    print(f"\n| process | latency, % of base (95 %) | at or under {share:.1%} |\n|--:|--:|---|")
    for number in range(REPEATS):
        command = [sys.executable, __file__, "--once", str(folder), str(certificate.winner.trial)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        timing = Timing(**json.loads(done.stdout.splitlines()[-1]))
        print(
            f"| {number + 1} | {100 * timing.ratio:.1f} ({100 * timing.ratio_low:.1f} to"
            f" {100 * timing.ratio_high:.1f}) | {'yes' if timing.ratio <= share else 'no'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
