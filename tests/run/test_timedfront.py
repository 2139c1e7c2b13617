"""The front by its measured latency, from the command line, on a device that is arithmetic."""

import json
import shutil
from pathlib import Path

import pytest

from evosearch.errors import InputError
from evosearch.latency.runtimes import RUNTIMES
from evosearch.run.folder import RunFolder
from evosearch.run.freshtiming import time_fresh
from evosearch.study.study import Study
from tests.latency.fakes import FAKE_RUNTIME, FakeStopwatch
from tests.test_cli import InProcess, place, run  # noqa: F401  (fixtures)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> FakeStopwatch:
    stopwatch = FakeStopwatch(noise=0.05)
    monkeypatch.setitem(RUNTIMES, "eager", FAKE_RUNTIME)
    monkeypatch.setattr("evosearch.latency.bench.torch_stopwatch", lambda threads: stopwatch)
    return stopwatch


def test_pareto_by_latency(run: InProcess, place: Path, watch: FakeStopwatch) -> None:  # noqa: F811
    done = run("pareto", "run", "--x", "latency", "--plot", "latency.png", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "measured in turn with the base network" in " ".join(done.stdout.split())
    assert (place / "latency.png").read_bytes().startswith(b"\x89PNG")
    asked = watch.asked
    data = json.loads(run("pareto", "run", "--x", "latency", "--json", cwd=place).stdout)
    assert watch.asked == asked  # what was timed is read back
    ratios = [network["latency"]["ratio"] for network in data["networks"]]
    assert ratios == sorted(ratios)
    base = next(network for network in data["networks"] if network["name"] == "base")
    assert base["latency"]["ratio_low"] <= 1 <= base["latency"]["ratio_high"]
    assert all(n["latency"]["ratio_high"] > n["latency"]["ratio_low"] for n in data["networks"])
    done = run("pareto", "run", "--x", "latency", "--follow", cwd=place)
    assert done.returncode == 2


def test_a_fresh_process_times_really(
    place: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """It imports from where this process does, and not from where it is started."""
    (tmp_path / "random.py").write_text("raise ImportError('not this one')")
    (tmp_path / "own").mkdir()
    marker = tmp_path / "imported"
    program = f"from pathlib import Path\nPath({str(marker)!r}).touch()"
    (tmp_path / "own" / "sitecustomize.py").write_text(program)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "own")
    monkeypatch.setenv("EVOSEARCH_CACHE", str(place / "cache"))
    study = Study.open(place / "run")
    conditions, timings = time_fresh(place / "run", [study.trials[0].mask], seconds=0.1)
    assert conditions.runtime == "eager"
    assert len(timings) == 1
    assert marker.exists()
    assert 0 < timings[0].ratio_low <= timings[0].ratio <= timings[0].ratio_high
    torn = tmp_path / "torn"
    shutil.copytree(place / "run", torn)
    RunFolder(torn).study.unlink()
    with pytest.raises(InputError, match=r"torn: latency cannot be measured: .*not a run"):
        time_fresh(torn, [], seconds=0.1)
