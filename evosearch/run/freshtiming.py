"""The latency of networks of a run, timed in a process of its own, as they will be deployed.

What a process has allocated before decides how fast it gets memory: one that has searched has
large blocks at hand, and times another ratio to the base network than a fresh one does.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from evosearch.errors import EvosearchError, InputError
from evosearch.files import write_json
from evosearch.processes import ProcessError, run_fresh
from evosearch.run.config import read_run_config
from evosearch.run.reopening import reopen_meter
from evosearch.space.mask import Mask
from evosearch.study.study import Study
from evosearch.study.timing import Conditions, Timing

REQUEST, ANSWER = "request.json", "answer.json"


def time_fresh(
    folder: Path, masks: Sequence[Mask], seconds: float
) -> tuple[Conditions, list[Timing]]:
    """Times the networks that masks leave against the base network, in a fresh process.

    Args:
        folder: of the run.
        masks: of its space.
        seconds: to spend on each, about.

    Returns:
        The conditions, and a timing for each.

    Raises:
        InputError: the run cannot be opened, or its runtime is not there.
        EvosearchError: the process ended without timings.
    """
    read_run_config(folder).space.require_names("--latency")
    with TemporaryDirectory() as exchange:
        request = {"masks": [mask.to_json() for mask in masks], "seconds": seconds}
        write_json(Path(exchange, REQUEST), request)
        try:
            run_fresh(
                "-m", "evosearch.run.freshtiming", folder.resolve(), exchange, importing=True
            )
        except ProcessError as error:
            raise EvosearchError(f"{folder}: latency cannot be measured: {error}") from error
        answer = json.loads(Path(exchange, ANSWER).read_text(encoding="utf-8"))
    if "error" in answer:
        raise InputError(f"{folder}: latency cannot be measured: {answer['error']}")
    timings = [Timing(**timing) for timing in answer["timings"]]
    return Conditions(**answer["conditions"]), timings


def main() -> None:
    """Answers a request: the other end of `time_fresh`."""
    folder, exchange = Path(sys.argv[1]), Path(sys.argv[2])
    request = json.loads((exchange / REQUEST).read_text(encoding="utf-8"))
    answer: dict[str, Any]
    try:
        header = Study.open(folder).header
        meter = reopen_meter(folder, header)
        masks = [Mask.from_json(mask, header.sizes) for mask in request["masks"]]
        timings = [asdict(meter.time(mask, request["seconds"])) for mask in masks]
        answer = {"conditions": asdict(meter.bench.conditions), "timings": timings}
    except InputError as error:
        answer = {"error": str(error)}
    write_json(exchange / ANSWER, answer)


if __name__ == "__main__":
    main()
