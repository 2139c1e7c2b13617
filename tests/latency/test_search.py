"""A search under a latency budget, from the command line, on a device that is arithmetic."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from evosearch.latency.runtimes import RUNTIMES
from evosearch.run.reopening import reopen_meter
from evosearch.space.mask import Mask
from evosearch.study.accuracy_certificate import AccuracyCertificate
from evosearch.study.certificate import load_certificates
from evosearch.study.latency_certificate import LatencyCertificate
from evosearch.study.study import Study
from evosearch.study.timing import Conditions, Timing
from tests.latency.fakes import FAKE_RUNTIME, FakeStopwatch
from tests.test_cli import QUICK, InProcess, assert_refused
from tests.toys import comparable


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("latency")
    (folder / "quick.toml").write_text(QUICK + "[search.latency]\nbatch = 4\n")
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> InProcess:
    monkeypatch.setitem(RUNTIMES, "eager", FAKE_RUNTIME)
    monkeypatch.setattr("evosearch.latency.bench.torch_stopwatch", lambda threads: FakeStopwatch())
    for module in ("measurer", "finetuning"):
        monkeypatch.setattr(f"evosearch.run.{module}.time_fresh", time_here)
    return InProcess(monkeypatch, capfd)


def flat(text: str) -> str:
    """Returns text without the line breaks that the width of the console made."""
    return " ".join(text.split())


def time_here(
    folder: Path, masks: Sequence[Mask], seconds: float
) -> tuple[Conditions, list[Timing]]:
    """Does what a fresh process would, in this one, which has the fake clock."""
    meter = reopen_meter(folder, Study.open(folder).header)
    return meter.bench.conditions, [meter.time(mask, seconds) for mask in masks]


def test_a_search_is_certified_and_resumes_equal(run: InProcess, place: Path) -> None:
    asked = ("search", "quick.toml", "--latency", "70%", "--trials")
    done = run(*asked, "30", "--out", "whole", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "latency budget of 70.0% of the base network's certified" in flat(done.stdout)
    (certificate,) = load_certificates(place / "whole")
    assert isinstance(certificate, LatencyCertificate)
    assert certificate.winner is not None
    assert certificate.winner.timing.ratio_high <= 0.7
    study = Study.open(place / "whole")
    assert [segment.first for segment in study.segments] == [0, 12, 24]
    assert all(len(segment.checks) == 3 for segment in study.segments[1:])
    assert all(t.cost.latency <= 0.7 * study.header.base_cost.latency * 1.01 for t in study.trials)
    assert run(*asked, "17", "--out", "parts", cwd=place).returncode == 0
    assert run("resume", "parts", "--trials", "30", cwd=place).returncode == 0
    assert comparable(Study.open(place / "parts").trials) == comparable(study.trials)


def test_a_range_of_latencies_beside_an_exact_budget(run: InProcess, place: Path) -> None:
    asked = ("--latency", "50%..80%", "--params", "80%", "--trials", "26", "--out", "range")
    done = run("search", "quick.toml", *asked, cwd=place)
    assert done.returncode == 0, done.stderr
    assert "latency budget of 80.0% of the base network's certified" in flat(done.stdout)
    study = Study.open(place / "range")
    base = study.header.base_cost
    assert all(trial.cost.params <= 0.8 * base.params for trial in study.trials)
    shares = [trial.cost.latency / base.latency for trial in study.front().members]
    assert min(shares) < 0.6
    assert max(shares) > 0.7
    aim = study.segments[-1].aim.bounds["latency"]
    assert aim.low / aim.high == pytest.approx(50 / 80, rel=1e-3)  # both ends are corrected


def test_the_fastest_within_an_accuracy_drop(run: InProcess, place: Path) -> None:
    text = (place / "quick.toml").read_text()
    kept = text.replace("search = 300", "search = 300\nconfirmation = 400")
    (place / "confirmed.toml").write_text(kept)
    asked = ("--latency", "100%", "--accuracy-drop", "20", "--trials", "30", "--out", "fastest")
    done = run("search", "confirmed.toml", *asked, cwd=place)
    assert done.returncode == 0, done.stderr
    study = Study.open(place / "fastest")
    assert study.header.resource.name == "latency"
    tried = [segment.aim.bounds["latency"].high for segment in study.segments]
    assert tried[0] > tried[1] > tried[2]
    (certificate,) = load_certificates(place / "fastest")
    assert isinstance(certificate, AccuracyCertificate)
    assert certificate.certified
    assert certificate.latency is not None
    assert certificate.latency.trial == certificate.trial
    assert certificate.latency.attempts[0].timing.ratio_high < 0.9
    assert "latency budget of 100.0% of the base network's certified" in flat(done.stdout)


def test_what_was_cut_for_a_latency_is_timed_unasked(run: InProcess, place: Path) -> None:
    done = run("finetune", "whole", "--epochs", "0", cwd=place)
    assert done.returncode == 0, done.stderr
    (card,) = (place / "whole" / "artifacts").glob("*/card.json")
    (cost,) = json.loads(card.read_text())["runtimes"]
    assert cost["timing"]["ratio_high"] <= 0.7


def test_another_latency_on_resume(run: InProcess, place: Path) -> None:
    before = Study.open(place / "whole").requested
    done = run("resume", "whole", "--latency", "50%", "--trials", "36", cwd=place)
    assert done.returncode == 0, done.stderr
    study = Study.open(place / "whole")
    assert before.bounds["latency"] is not None
    assert study.requested.bounds["latency"] is not None
    assert study.requested.bounds["latency"].high < before.bounds["latency"].high
    assert "budget of 50.0%" in flat(done.stdout)


def test_a_device_that_changed_is_refused(
    run: InProcess, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evosearch.latency.bench.device_name", lambda _: "slide rule")
    done = run("resume", "whole", "--trials", "60", cwd=place)
    assert done.returncode == 2
    assert_refused(done, "on slide rule")
    assert json.loads((place / "whole/latency.json").read_text())["conditions"]["device"] in (
        done.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("search", "quick.toml", "--latency", "3.5"), "a time with its unit"),
        (("search", "quick.toml", "--latency=-3ms"), "a time with its unit"),
        (("search", "quick.toml", "--latency", "1e"), "a time with its unit"),
        (("search", "quick.toml", "--latency", "100%"), "finer than the noise"),
        (("search", "quick.toml", "--latency", "0.01%"), "held up by overhead"),
        (("search", "quick.toml", "--latency", "60%..40%"), "runs backwards"),
        (("search", "quick.toml", "--latency", "60%", "--runtime", "eagre"), "'eager'?"),
        (("profile", "quick.toml", "--runtime", "tensorrt"), "expected one of compile, eager"),
        (("profile", "quick.toml", "--device", "abacus"), "not available here"),
        (("profile", "missing.toml"), "missing.toml"),
    ],
)
def test_bad_input_is_one_line(
    run: InProcess, place: Path, arguments: tuple[str, ...], why: str
) -> None:
    done = run(*arguments, cwd=place)
    assert_refused(done, why)


def test_a_missing_package_names_the_command(
    run: InProcess, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evosearch.export.formats.find_spec", lambda name: None)
    done = run("profile", "quick.toml", "--runtime", "onnxruntime", cwd=place)
    assert done.returncode == 2
    assert "pip install 'evosearch[onnx]'" in done.stderr


def test_the_profile_is_printed(run: InProcess, place: Path) -> None:
    done = run("profile", "quick.toml", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "predictions for 12 others are off by 0.0% in the median" in flat(done.stdout)
    assert "eager, batch 4, 1 thread" in flat(done.stdout)
    done = run("profile", "quick.toml", "--json", cwd=place)
    assert json.loads(done.stdout)["validated"] == 12
