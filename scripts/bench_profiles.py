"""The latency profile of digits: how many timings it takes, and by how much its fit is off.

Run it with the code before and after a change on PYTHONPATH, each with a name:

    PYTHONPATH=BEFORE python scripts/bench_profiles.py before --to profiles.jsonl
    PYTHONPATH=AFTER python scripts/bench_profiles.py after --to profiles.jsonl

A run is a line of the file; one that is there is not made again. Each has a cache of its own
beside the file, so one that was stopped goes on.
"""

import argparse
import json
import os
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
    os.environ["EVOSEARCH_CACHE"] = str(asked.to.resolve().with_suffix(f".{'-'.join(key)}"))
    row = {"key": key, **profiled(asked.space, asked.runtime)}
    with asked.to.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row, indent=1))


def profiled(space: Path, runtime: str) -> dict[str, object]:
    """Returns what a profile took and found."""
    from evosearch.latency.journal import Journal
    from evosearch.run.profiling import profile_space

    counts: Counter[str] = Counter()
    delete = Journal.delete

    def counted(self: Journal) -> None:
        counts.update(key.split()[0] for key in self._entries)
        delete(self)

    Journal.delete = counted  # type: ignore[method-assign]
    began, processor = time.monotonic(), time.process_time()
    model, _ = profile_space(space, {"runtime": runtime}, "cpu")
    return {
        "networks": counts["network"],
        "pairs_of_layers": counts["layer"],
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
