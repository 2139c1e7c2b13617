"""The command line as users meet it: exit codes, one clear line, nothing half-written."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from evosearch.cli import main

QUICK = """
[model]
build = "evosearch.models.zoo:digits_resnet"
input = [1, 8, 8]
[model.kwargs]
width = 8
[data]
name = "digits"
calibration = 150
search = 300
[train]
epochs = 3
[finetune]
epochs = 1
"""


PROGRESS = ("training the base", "base network: ", "the base network fails in ")
"""What the lines begin with that a search shows before its first trial."""


def evosearch(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "EVOSEARCH_CACHE": str(cwd / "cache"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "160",
    }
    return subprocess.run(
        [sys.executable, "-m", "evosearch", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


class InProcess:
    """Runs the command line in this process, which saves importing torch for every case."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capfd = monkeypatch, capfd

    def __call__(self, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        self._monkeypatch.chdir(cwd)
        self._monkeypatch.setenv("EVOSEARCH_CACHE", str(cwd / "cache"))
        self._monkeypatch.setattr(sys, "argv", ["evosearch", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capfd.readouterr()
        return subprocess.CompletedProcess(sys.argv, int(ended.value.code or 0), out, err)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> InProcess:
    return InProcess(monkeypatch, capfd)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small space whose search has run for six trials."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "quick.toml").write_text(QUICK)
    done = evosearch(
        "search", "quick.toml", "--flops", "30%..70%", "--trials", "6", "--out", "run", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_main_job_from_search_to_export(place: Path) -> None:
    picture = evosearch("pareto", "run", "--plot", "front.png", cwd=place)
    assert picture.returncode == 0, picture.stderr
    assert (place / "front.png").read_bytes().startswith(b"\x89PNG")
    assert "lowest-L1 uniform" in picture.stdout
    assert "largest of their kind within both ends and the middle" in picture.stdout

    more = evosearch("resume", "run", "--trials", "9", cwd=place)
    assert more.returncode == 0, more.stderr
    assert "evaluations/s; time: full" in more.stdout
    front = json.loads(evosearch("pareto", "run", "--json", cwd=place).stdout)
    assert front["trials"] == 9
    assert front["front"]
    assert all(point["flops_ratio"] <= 0.7 for point in front["front"])

    tuned = evosearch("finetune", "run", "--at", "flops=60%", "--latency", cwd=place)
    assert tuned.returncode == 0, tuned.stderr
    assert "largest of their kind within flops=60%" in tuned.stdout
    artifact = next((place / "run" / "artifacts").iterdir())
    card = json.loads((artifact / "card.json").read_text())
    names = [network["name"].split(",")[0] for network in card["networks"]]
    assert names[:3] == ["base network", "lowest-L1 uniform", "global"]
    assert names[3] == names[4] == card["plan"]
    assert card["networks"][-1]["ratios"]["macs"] <= 0.6
    (cost,) = card["runtimes"]
    assert cost["timing"]["ratio_high"] >= cost["timing"]["ratio_low"] > 0
    assert "\n| eager, batch 1, 1 thread, torch " in (artifact / "README.md").read_text()
    assert json.loads((place / "run" / "test.json").read_text())["opened"] == 5

    shown = json.loads(evosearch("pareto", "run", "--json", cwd=place).stdout)
    assert shown["distilled"][card["plan"]] == card["networks"][-1]
    assert "test accuracy, %" in evosearch("pareto", "run", "--follow", cwd=place).stdout

    exported = evosearch("export", artifact, "--to", "out", cwd=place)
    assert exported.returncode == 0, exported.stderr
    assert {path.name for path in (place / "out").iterdir()} == {
        "plan.json",
        "weights.safetensors",
        "check.safetensors",
        "card.json",
        "README.md",
        "load.py",
        "calling.py",
        "cut_attention.py",
    }


def test_a_network_is_cut_of_a_run_and_of_a_space(place: Path, run: InProcess) -> None:
    of_run = run("cut", "run", "--at", "flops=50%", "--to", "cut/run", cwd=place)
    of_space = run("cut", "quick.toml", "--flops", "50%", "--to", "cut/space", cwd=place)
    for done, name in ((of_run, "run"), (of_space, "space")):
        assert done.returncode == 0, done.stderr
        assert f"artifact: cut/{name}" in done.stdout
        assert "base network" in done.stdout
        card = json.loads((place / "cut" / name / "card.json").read_text())
        assert 0.3 < card["networks"][-1]["ratios"]["macs"] <= 0.5
        assert card["networks"][-1]["search"]["accuracy"] > 0.5
    done = run("export", "cut/space", "--to", "cut/copy", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "not saved: --to" in run("cut", "quick.toml", "--params", "70%", cwd=place).stdout


def test_any_budget_has_a_plan_and_evaluate_measures_it(place: Path, run: InProcess) -> None:
    plain = run("pareto", "run", "--at", "flops=42%", cwd=place)
    assert plain.returncode == 0, plain.stderr
    measured = run("pareto", "run", "--at", "flops=42%", "--evaluate", "--json", cwd=place)
    assert measured.returncode == 0, measured.stderr
    plan = json.loads(measured.stdout)
    assert plan["measured"] is True
    assert plan["flops_ratio"] <= 0.42
    assert 0 <= plan["accuracy"] <= 1
    again = run("pareto", "run", "--at", "flops=42%", cwd=place)
    assert "predicted" not in again.stdout


def test_the_fewest_flops_within_an_accuracy_drop(place: Path, run: InProcess) -> None:
    arguments = ["--accuracy-drop", "5", "--baselines", "--trials", "6", "--out", "drop"]
    done = run("search", "quick.toml", *arguments, cwd=place)
    assert done.returncode == 0, done.stderr
    content = json.loads(run("pareto", "drop", "--json", cwd=place).stdout)
    assert list(content["baselines"]) == ["random", "uniform", "global"]
    floor = content["references"][0]["accuracy"] - 0.05
    assert all(point["accuracy"] >= floor for point in content["front"])

    more = run("resume", "drop", "--accuracy-drop", "10", "--trials", "8", cwd=place)
    assert more.returncode == 0, more.stderr
    assert json.loads(run("pareto", "drop", "--json", cwd=place).stdout)["trials"] == 8


def test_two_runs_are_compared(place: Path, run: InProcess) -> None:
    arguments = ["--flops", "50%", "--strategy", "random", "--trials", "4", "--out", "rival"]
    assert run("search", "quick.toml", *arguments, cwd=place).returncode == 0
    done = run("compare", "run", "rival", "--plot", "fronts.png", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "random, seed 0" in done.stdout
    assert (place / "fronts.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads(run("compare", "run", "rival", "--json", cwd=place).stdout)
    assert [entry["run"] for entry in content["runs"]] == ["run", "rival"]
    text = QUICK.replace("width = 8", "width = 4").replace("epochs = 3", "epochs = 1")
    (place / "other.toml").write_text(text)
    arguments = ["--flops", "50%", "--strategy", "random", "--trials", "1", "--out", "other"]
    assert run("search", "other.toml", *arguments, cwd=place).returncode == 0
    assert_refused(run("compare", "run", "other", cwd=place), "different search spaces")


def test_a_page_is_written(place: Path, run: InProcess) -> None:
    pytest.importorskip("plotly")
    done = run("report", "run", "--html", "report.html", cwd=place)
    assert done.returncode == 0, done.stderr
    assert (place / "report.html").read_text().startswith("<!doctype html>")


def test_a_page_without_plotly_is_refused(
    place: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evosearch.report.page import _packed_plotly

    _packed_plotly.cache_clear()
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    done = run("report", "run", "--html", "none.html", cwd=place)
    assert_refused(done, 'pip install "evosearch[report]"')
    assert not (place / "none.html").exists()


def test_criteria_are_listed(place: Path, run: InProcess) -> None:
    done = run("criteria", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "l1" in done.stdout


def test_inspect_shows_groups_proof_and_cost(place: Path, run: InProcess) -> None:
    shown = json.loads(run("inspect", "quick.toml", "--json", cwd=place).stdout)
    names = {group["name"] for group in shown["groups"]}
    assert {"conv1", "layer2.0.conv2", "layer3.0.conv1"} <= names
    assert all(group["proof"]["error"] <= 1e-9 for group in shown["groups"])
    assert shown["frozen"] == [{"name": "linear", "size": 10, "reason": "network output"}]
    text = run("inspect", "quick.toml", cwd=place)
    assert text.returncode == 0
    assert "smallest reachable" in text.stdout


def test_inspect_misses_the_weights_that_a_search_will_miss(
    tmp_path: Path, run: InProcess
) -> None:
    (tmp_path / "space.toml").write_text(BAD_SPACES["missing weights"][0])
    done = run("inspect", "space.toml", cwd=tmp_path)
    assert_refused(done, "[model] weights = 'none.safetensors': nothing at ")
    assert done.stdout == ""


def test_an_edited_config_is_refused(place: Path, run: InProcess) -> None:
    config = place / "run" / "config.toml"
    content = config.read_text()
    config.write_text(content.replace("seed = 0", "seed = 1", 1))
    assert_refused(run("resume", "run", "--trials", "20", cwd=place), "edited since the run began")
    config.write_text(content)


def test_a_space_is_written_searched_and_refused_when_the_model_changed(
    tmp_path: Path, run: InProcess
) -> None:
    (tmp_path / "net.py").write_text(
        "from evosearch.models.zoo import digits_resnet\n"
        "def make(): return digits_resnet(width=WIDTH)\nWIDTH = 4\n"
    )
    made = run("space", "new", "net.py:make", "--input", "1x8x8", "--out", "s.toml", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert run("inspect", "s.toml", cwd=tmp_path).returncode == 0
    again = run("space", "new", "net.py:make", "--input", "1x8x8", "--out", "s.toml", cwd=tmp_path)
    assert_refused(again, "exists already")
    text = (tmp_path / "s.toml").read_text()
    (tmp_path / "s.toml").write_text(text.replace("multiple_of = 1", "multiple_of = 2", 1))
    assert_refused(run("inspect", "s.toml", cwd=tmp_path), "[traced] no longer holds")


def test_pareto_answers_without_torch(place: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['evosearch', 'pareto', 'run'];"
        "from evosearch.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place, check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr


BAD_SPACES = {
    "unknown key": (QUICK.replace("[train]", "[train]\nepoch = 3"), "did you mean 'epochs'"),
    "unknown section": (QUICK + "\n[modle]\n", "did you mean 'model'"),
    "malformed": (QUICK + "\n[model", "malformed TOML"),
    "no such model": (
        QUICK.replace("zoo:digits_resnet", "zoo:digits_resnt"),
        "did you mean 'digits_resnet'",
    ),
    "missing weights": (
        QUICK.replace("[model.kwargs]", 'weights = "none.safetensors"\n[model.kwargs]'),
        "none.safetensors",
    ),
    "untraceable": (
        QUICK.replace("evosearch.models.zoo:digits_resnet", "odd.py:Odd").replace(
            "[model.kwargs]\nwidth = 8", ""
        ),
        "cannot be traced",
    ),
    "bad value": (QUICK.replace("epochs = 3", 'epochs = "many"'), "train.epochs"),
    "bad search setting": (QUICK + "\n[search]\ntrails = 3\n", "did you mean 'trials'"),
}


@pytest.mark.parametrize("case", BAD_SPACES)
def test_a_bad_space_file_is_one_clear_line(case: str, tmp_path: Path, run: InProcess) -> None:
    content, expected = BAD_SPACES[case]
    (tmp_path / "space.toml").write_text(content)
    (tmp_path / "odd.py").write_text(
        "from torch import nn\n"
        "class Odd(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.linear = nn.Linear(64, 10)\n"
        "    def forward(self, x):\n"
        "        y = self.linear(x.flatten(1))\n"
        "        return y if y.sum() > 0 else -y\n"
    )
    done = run("search", "space.toml", "--flops", "50%", "--out", "run", cwd=tmp_path)
    assert_refused(done, expected)
    assert not (tmp_path / "run").exists()
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


BAD_ARGUMENTS = {
    "infeasible": (["--flops", "1%"], "smallest reachable network has"),
    "no budget": ([], "needs a budget"),
    "not an amount": (["--flops", "half"], "expected an amount such as 40M"),
    "not a drop": (["--accuracy-drop", "100"], "expected points of accuracy"),
    "no number": (["--accuracy-drop", "some"], "--accuracy-drop"),
    "no workers": (["--flops", "50%", "--workers", "0"], "--workers"),
    "backwards": (["--flops", "70%..30%"], "runs backwards"),
    "unknown strategy": (["--flops", "50%", "--strategy", "rate"], "did you mean 'rates'"),
    "unknown criterion": (["--flops", "50%", "--criterion", "fpmg"], "did you mean 'fpgm'"),
    "criterion of a training": (["--flops", "50%", "--criterion", "consensus"], "in [prune]"),
    "unknown runtime": (["--flops", "50%", "--runtime", "eagre"], "did you mean 'eager'"),
    "no cluster": (["--flops", "50%", "--cluster", "nowhere"], "no dask scheduler there"),
    "unknown device": (["--flops", "50%", "--device", "gpu9"], "--device 'gpu9'"),
    "unknown option": (["--flop", "50%"], "--flop"),
    "run exists": (["--flops", "50%", "--out", "run"], "exists already"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_of_search_are_one_clear_line(
    case: str, place: Path, run: InProcess
) -> None:
    arguments, expected = BAD_ARGUMENTS[case]
    before = sorted(place.rglob("*"))
    assert_refused(run("search", "quick.toml", *arguments, cwd=place), expected)
    assert sorted(place.rglob("*")) == before


BAD_DATA = {
    "a generator": ("(i for i in range(3))", "my_data.py:load': returned a generator; expected ("),
    "no test": ("{'train': part(60)}", "returned no 'test'"),
    "lengths": (
        "(images(60), labels(59)), part(9)",
        "train: 60 images, but labels of shape (59,)",
    ),
    "a label below": ("(images(60), labels(60) - 1), part(9)", "integers from 0, got -1"),
    "a label above": (
        "(images(60), labels(60) * 2), part(9)",
        "train: the data has label 18, the",
    ),
    "a test label": ("part(60), (images(9), labels(9) - 1)", "test: expected labels that are int"),
    "other test images": ("part(60), (images(9)[:, :, 1:], labels(9))", "[data] test: images of"),
    "no channels": (
        "(images(60)[:, 0], labels(60)), part(9)",
        "train: expected images (images, c",
    ),
    "channels last": (
        "(images(60).transpose(0, 2, 3, 1), labels(60)), part(9)",
        "[data] train: the network of [model] fails on images of shape (8, 8, 1)",
    ),
    "no images": (
        "{'train': part(60), 'search': part(0), 'test': part(9)}",
        "search: expected two",
    ),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_one_clear_line_before_any_training(
    case: str, tmp_path: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    returned, expected = BAD_DATA[case]
    monkeypatch.setattr("evosearch.run.subject.train_base", None)
    (tmp_path / "my_data.py").write_text(
        "import numpy as np\n"
        "def images(n):\n    return np.arange(n * 64.0).reshape(n, 1, 8, 8)\n"
        "def labels(n):\n    return np.arange(n) % 10\n"
        "def part(n):\n    return images(n), labels(n)\n"
        f"def load():\n    return {returned}\n"
    )
    sizes = "calibration = 10\n" + ("" if "search" in returned else "search = 20\n")
    head, _, rest = QUICK.partition("[data]")
    text = (
        f'{head}[data]\nname = "my_data.py:load"\n{sizes}\n[train]{rest.partition("[train]")[2]}'
    )
    (tmp_path / "space.toml").write_text(text)
    assert_refused(run("search", "space.toml", "--flops", "50%", cwd=tmp_path), expected)


@pytest.mark.parametrize(
    ("build", "arguments", "expected"),
    [
        (None, ["--flops", "0%"], "a budget must be positive"),
        (None, ["--flops", "0.1%"], "smallest reachable network"),
        ("torch.nn:Flatten", ["--flops", "50%"], "nothing can be pruned"),
        ("torch.nn:Embedding", ["--flops", "50%"], "cannot be traced"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_the_base_is_trained(
    build: str | None,
    arguments: list[str],
    expected: str,
    place: Path,
    run: InProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("evosearch.run.subject.train_base", None)
    text = QUICK.replace("epochs = 3", "epochs = 7")  # not in the cache
    if build is not None:
        text = text.replace("evosearch.models.zoo:digits_resnet", build)
        kwargs = "num_embeddings = 9\nembedding_dim = 8" if "Embedding" in build else ""
        text = text.replace("width = 8", kwargs)
    (place / "untrained.toml").write_text(text)
    assert_refused(run("search", "untrained.toml", *arguments, cwd=place), expected)


def test_an_artifact_of_other_settings_is_not_replaced(place: Path, run: InProcess) -> None:
    again = ["finetune", "run", "--pick", "smallest", "--epochs"]
    first = run(*again, "1", cwd=place)
    assert first.returncode == 0, first.stderr
    assert_refused(run(*again, "2", cwd=place), "fine-tuned with other settings")
    assert run(*again, "1", cwd=place).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["pareto", "nowhere"], "not a run"),
        (["resume", "cache"], "not a run"),
        (["finetune", "nowhere"], "not a run"),
        (["finetune", "run", "--pick", "999"], "the run has trials 0 to"),
        (["finetune", "run", "--pick", "kne"], "did you mean 'knee'"),
        (["finetune", "run", "--at", "50%"], "expected NAME=AMOUNT"),
        (["finetune", "run", "--at", "flops=1%"], "smallest reachable network"),
        (["cut", "nowhere", "--flops", "50%"], "no such file"),
        (["cut", "run", "--flops", "50%"], "named by --at flops=50% or --pick"),
        (["cut", "run", "--at", "flops=50%", "--to", "cache"], "exists already"),
        (["cut", "quick.toml"], "needs a budget"),
        (["cut", "quick.toml", "--latency", "60%"], "evosearch search SPACE --latency"),
        (["cut", "quick.toml", "--accuracy-drop", "1"], "evosearch search SPACE --accuracy-drop"),
        (["pareto", "run", "--x", "latencies"], "unknown --x"),
        (["pareto", "run", "--at", "flops:37%"], "expected NAME=AMOUNT"),
        (["pareto", "run", "--at", "flop=37%"], "did you mean 'flops'"),
        (["pareto", "run", "--at", "flops=1%"], "smallest reachable network"),
        (["pareto", "run", "--evaluate"], "give --at"),
        (["pareto", "run", "--at", "flops=50%", "--plot", "x.png"], "leave --x, --plot"),
        (["finetune", "run", "--at", "flops=50%", "--pick", "knee"], "give one of them"),
        (["pareto", "run", "--follow", "--json"], "leave --json out"),
        (["pareto", "run", "--plot", "none/front.png"], "cannot be written"),
        (["resume", "run", "--accuracy-drop", "-1"], "expected points of accuracy"),
        (["report", "nowhere", "--html", "page.html"], "not a run"),
        (["report", "run", "--html", "none/page.html"], "cannot be written"),
        (["report", "run"], "--html"),
        (["compare", "run"], "at least two different runs"),
        (["compare", "run", "nowhere"], "not a run"),
        (["export", "nowhere", "--to", "x"], "not an artifact"),
        (["measure", "nowhere"], "not an artifact"),
        (["inspect", "nowhere.toml"], "no such file"),
    ],
)
def test_bad_arguments_of_other_commands(
    arguments: list[str], expected: str, place: Path, run: InProcess
) -> None:
    assert_refused(run(*arguments, cwd=place), expected)


def assert_refused(done: subprocess.CompletedProcess[str], expected: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert expected in lines[-1], done.stderr
    assert lines[-1].startswith("evosearch: ")
    assert "Traceback" not in done.stderr
    assert len([line for line in lines if not is_progress(line)]) == 1


def is_progress(line: str) -> bool:
    """Returns whether a line of stderr tells how far a command is."""
    return line.startswith(PROGRESS) or is_stage(line)


def is_stage(line: str) -> bool:
    """Returns whether a line of stderr names the stage of a command, and when it began."""
    return re.match(r" *\[\d+ s\] ", line) is not None


ACTIVATIONS = """
from evosearch.space.resources import COUNT, RESOURCES, Resource
RESOURCES["activations"] = Resource(
    name="activations", option="activations", label="activations", unit=" activations",
    quantity=COUNT, help="50% or 30%..70%.",
)
from evosearch.cli import main
main()
"""


def test_a_row_of_the_table_of_resources_is_an_option(place: Path) -> None:
    def with_row(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", ACTIVATIONS, *arguments]
        environment = {**os.environ, "EVOSEARCH_CACHE": str(place / "cache"), "COLUMNS": "160"}
        return subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, check=False
        )

    search = ("search", "quick.toml", "--activations")
    done = with_row(*search, "50%", "--strategy", "random", "--trials", "4", "--out", "small")
    assert done.returncode == 0, done.stderr
    shown = with_row("pareto", "small", "--x", "activations", "--json")
    content = json.loads(shown.stdout)
    assert content["size"] == "activations"
    assert len(content["front"]) >= 1
    done = with_row(*search, "0.1%")
    assert_refused(done, "activations (0.1% of the base) is out of reach: the smallest reachable")
    assert "--activations" in with_row("search", "--help").stdout


def test_quiet_shows_no_progress(place: Path, run: InProcess) -> None:
    done = run("--quiet", "resume", "run", "--trials", "11", cwd=place)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "11 trials" in done.stdout
    assert (place / "run" / "run.log").stat().st_size > 0
