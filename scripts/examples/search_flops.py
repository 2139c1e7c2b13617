"""Search the digits for networks of 30 % to 70 % of the FLOPs, and distil the one at half.

.venv/bin/python scripts/examples/search_flops.py [--trials 40] [--out RUN]
"""

import argparse
from pathlib import Path

import evosearch

SPACE = Path(__file__).parents[2] / "search_spaces" / "digits_resnet.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    run = evosearch.search(SPACE, flops="30%..70%", trials=options.trials, seed=0, out=options.out)
    base = run.study.header.base_cost
    for trial in run.front.members:
        share, result = trial.cost.relative_to(base)["macs"], trial.evaluation.score
        print(
            f"trial {trial.number}: {share:.1%} of the FLOPs,"
            f" search accuracy {result.accuracy_text} %"
        )

    done = evosearch.finetune(run.folder, at="flops=50%", epochs=options.epochs)
    test = done.networks[-1].test
    print(f"{done.networks[-1].name}: test accuracy {test.accuracy_text} %")
    print(f"artifact: {done.artifact.folder}")


if __name__ == "__main__":
    main()
