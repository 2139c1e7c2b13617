"""Read a run, finished or not, and look at its front, its widths and its ties; no torch needed.

.venv/bin/python scripts/examples/inspect_front.py RUN
"""

import sys

import evosearch
from evosearch.report.ties import tied_members


def main(folder: str) -> None:
    run = evosearch.load_run(folder)
    front = run.front
    ties = tied_members(run.folder, front.members)
    for trial in front.members:
        knee = " (knee)" if trial is front.knee else ""
        tied = f", tied with {ties[trial.number]}" if ties.get(trial.number) else ""
        print(f"trial {trial.number}{knee}: loss {trial.evaluation.score.loss:.4f}{tied}")
        print("   widths", trial.mask.widths)

    # The best plan for any budget, also one that was never searched.
    plan = run.pick(at="flops=45%")
    print(f"at 45 % of the FLOPs: {plan.name}, {plan.cost.flops} FLOPs")

    # One flat dict for each trial, as pandas.DataFrame takes them.
    rows = run.rows()
    slowest = max(rows, key=lambda row: row["seconds"])
    print(f"{len(rows)} trials; slowest: trial {slowest['trial']}, {slowest['seconds']:.2f} s")


if __name__ == "__main__":
    main(sys.argv[1])
