"""Stop a search, go on with it, then ask the same run for smaller networks.

.venv/bin/python scripts/examples/resume.py [--trials 30] [--out RUN]
"""

import argparse
from pathlib import Path

import evosearch

SPACE = Path(__file__).parents[2] / "search_spaces" / "digits_resnet.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    third = options.trials // 3

    run = evosearch.search(SPACE, flops="50%", trials=third, seed=0, out=options.out)
    print(f"stopped after {len(run.study.trials)} trials; best loss {loss(run):.4f}")

    # A killed search goes on in the same way: nothing but the folder is needed.
    run = evosearch.resume(run.folder, trials=2 * third)
    print(f"went on to {len(run.study.trials)} trials; best loss {loss(run):.4f}")

    # From here on trials are proposed for another budget; what was learnt is kept.
    run = evosearch.resume(run.folder, flops="25%", trials=3 * third)
    print(
        f"at 25 % of the FLOPs: best loss {loss(run):.4f}, {len(run.front.members)} in the front"
    )


def loss(run: evosearch.Run) -> float:
    return run.front.best().evaluation.score.loss


if __name__ == "__main__":
    main()
