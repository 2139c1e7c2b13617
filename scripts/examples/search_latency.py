"""Search the digits for the best network at 80 % of the latency of a batch on this machine.

.venv/bin/python scripts/examples/search_latency.py [--trials 40] [--out RUN]
"""

import argparse
from pathlib import Path

import evosearch
from evosearch.study.certificate import certificate_of

SPACE = Path(__file__).parents[2] / "search_spaces" / "digits_resnet.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", default="80%")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    run = evosearch.search(
        SPACE,
        latency=options.latency,
        runtime="eager",
        batch=options.batch,
        trials=options.trials,
        seed=0,
        out=options.out,
    )
    base = run.study.header.base_cost
    for trial in run.front.members:
        share, result = trial.cost.relative_to(base)["latency"], trial.evaluation.score
        print(
            f"trial {trial.number}: {share:.1%} of the latency, predicted,"
            f" search accuracy {result.accuracy_text} %"
        )
    print(certificate_of(run.folder, run.study.requested))


if __name__ == "__main__":
    main()
