"""Times tracing and proof with this code and with another checkout's, in turns.

CPU seconds of one thread, each in a process of its own, the two codes in turns; and what stays
behind: the objects that the garbage collector walks over, the seconds that one full collection
takes, before and after, and those that the process takes to end. One JSON line a process, so that
what is killed goes on.

    .venv/bin/python scripts/bench_tracing.py measure --other CHECKOUT --results FILE [--rounds 3]
    .venv/bin/python scripts/bench_tracing.py page --results FILE
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

NETWORKS = {
    "resnet18": 96,
    "mobilenetv3_large_100": 96,
    "seresnet50": 96,
    "res2net50_26w_4s": 96,
}
"""Of timm: name -> sides of the images."""
ONE = """
import gc, json, sys, time
import timm, torch
from evosearch.surgery.discovery import GroupRules, discover
torch.set_num_threads(1)
name, side = sys.argv[1], int(sys.argv[2])
model, example = timm.create_model(name), (torch.randn(2, 3, side, side),)
def left():
    began = time.process_time()
    gc.collect()
    return {"collection": time.process_time() - began, "objects": len(gc.get_objects())}
import torch._dynamo, torch.export  # what tracing imports is there before
before = left()
began = time.process_time()
found = discover(model, example, GroupRules(), seed=0)
seconds = time.process_time() - began
print(json.dumps({
    "seconds": seconds, "groups": len(found.space.groups), "share": found.space.prunable_share,
    "before": before, "after": left(), "process": time.process_time(),
}))
"""
"""One measurement, in a process of its own."""
CODES = ("other", "this")


def lines(results: Path) -> list[dict[str, Any]]:
    """Returns what was measured so far."""
    return [*map(json.loads, results.read_text().splitlines())] if results.exists() else []


def measure(checkout: Path, results: Path, rounds: int) -> None:
    """Measures what has no line yet, round by round."""
    places = {"other": checkout, "this": Path(__file__).resolve().parent.parent}
    for round_ in range(rounds):
        for name, side in NETWORKS.items():
            for code in CODES:
                key = {"name": name, "code": code, "round": round_}
                if any(key.items() <= line.items() for line in lines(results)):
                    continue
                began = cpu_of_children()
                made = subprocess.run(
                    [sys.executable, "-c", ONE, name, str(side)],
                    env={**os.environ, "PYTHONPATH": str(places[code]), "OMP_NUM_THREADS": "1"},
                    cwd=places[code],
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                )
                line = key | json.loads(made.stdout)
                line["exit"] = cpu_of_children() - began - line.pop("process")
                with results.open("a") as file:
                    file.write(json.dumps(line) + "\n")


def cpu_of_children() -> float:
    """Returns the CPU seconds of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def page(results: Path) -> str:
    """Returns the ratios as a Markdown table."""
    table = [
        "| network | groups | share | CPU time, of the other's | rounds: from, to |"
        " objects left behind | a full collection, after by before | exit, CPU seconds |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in NETWORKS:
        own = {
            code: [line for line in lines(results) if (line["name"], line["code"]) == (name, code)]
            for code in CODES
        }
        ratios = [
            this["seconds"] / other["seconds"]
            for this, other in zip(own["this"], own["other"], strict=False)
        ]
        if not ratios:
            continue
        last, before = own["this"][-1], own["other"][-1]
        objects = last["after"]["objects"] - last["before"]["objects"]
        collection = median(
            line["after"]["collection"] / line["before"]["collection"] for line in own["this"]
        )
        table.append(
            f"| {name} | {before['groups']} -> {last['groups']}"
            f" | {before['share']:.3f} -> {last['share']:.3f} | {median(ratios):.2f}"
            f" | {min(ratios):.2f}, {max(ratios):.2f} | {objects} of {last['after']['objects']}"
            f" | {collection:.2f} | {median(line['exit'] for line in own['this']):.2f} |"
        )
    return "\n".join(table)


def main() -> None:
    """Measures, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("measure", "page"))
    parser.add_argument("--other", type=Path, help="checkout to compare with")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.what == "page":
        print(page(arguments.results))
    elif arguments.other is None:
        parser.error("measure needs --other")
    else:
        measure(arguments.other.resolve(), arguments.results, arguments.rounds)


if __name__ == "__main__":
    main()
