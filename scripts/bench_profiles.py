"""The latency profile of digits: how many timings it takes, and by how much its fit is off.

Run it with the code before and after a change on PYTHONPATH, each with a name:

    PYTHONPATH=BEFORE python scripts/bench_profiles.py before --to profiles.jsonl
    PYTHONPATH=AFTER python scripts/bench_profiles.py after --to profiles.jsonl

A run is a line of the file; one that is there is not made again.
"""

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Profiles digits, in a cache of its own, and notes what that took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="of the code that is run")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--space", type=Path, default=ROOT / "search_spaces/digits_resnet.toml")
    parser.add_argument("--to", type=Path, default=Path("profiles.jsonl"))
    asked = parser.parse_args()
    done = asked.to.read_text(encoding="utf-8").splitlines() if asked.to.is_file() else []
    key = [asked.name, asked.runtime, asked.space.stem]
    if any(json.loads(line)["key"] == key for line in done):
        return
    with tempfile.TemporaryDirectory() as cache:
        os.environ["EVOSEARCH_CACHE"] = cache
        row = {"key": key, **profiled(asked.space, asked.runtime)}
    with asked.to.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row, indent=1))


def profiled(space: Path, runtime: str) -> dict[str, object]:
    """Returns what a profile took and found."""
    from evosearch.latency.journal import Journal
    from evosearch.latency.meter import Meter
    from evosearch.run.profiling import profile_space

    counts: Counter[str] = Counter()
    prepare, timing = Meter.runner, Journal.timing

    def counted_timing(self, key, measure):  # type: ignore[no-untyped-def]
        counts[key.split()[0]] += 1 if key not in self._entries else 0
        return timing(self, key, measure)

    def counted_prepare(self, module, images):  # type: ignore[no-untyped-def]
        counts["prepared"] += 1
        return prepare(self, module, images)

    Meter.runner, Journal.timing = counted_prepare, counted_timing  # type: ignore[method-assign]
    began, processor = time.monotonic(), time.process_time()
    model, _ = profile_space(space, {"runtime": runtime}, "cpu")
    return {
        "networks": counts["network"],
        "pairs_of_layers": counts["layer"],
        "prepared": counts["prepared"],
        "seconds": round(time.monotonic() - began, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
        "fitted": model.fitted,
        "median_error": model.median_error,
        "worst_error": model.worst_error,
        "noise": model.noise,
        "steps": dict(model.steps),
        "conditions": str(model.conditions),
    }


if __name__ == "__main__":
    main()
