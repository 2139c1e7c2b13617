"""A training under a budget is a run: recorded, resumed bit for bit, finished, and shown."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import evosearch
from evosearch.cli.app import output
from evosearch.errors import InputError
from evosearch.export import artifact as artifact_module
from evosearch.export.artifact import Artifact
from evosearch.models.build import build_model
from evosearch.models.weights import load_weights, weights_digest
from evosearch.report.pagedata import page_json
from evosearch.report.pareto import ParetoView
from evosearch.run import identity as identity_module
from evosearch.run import refining
from evosearch.run import subject as subject_module
from evosearch.run.callbacks import Callbacks
from evosearch.run.choosing import floored
from evosearch.run.config import RunConfig, read_run_config, run_config_to_toml
from evosearch.run.finished import Trained
from evosearch.run.folder import RunFolder
from evosearch.run.reopening import reopen_training
from evosearch.run.spacefile import load_space_file
from evosearch.space.text import load_space
from evosearch.study.scorestore import ScoreStore
from evosearch.study.study import Study
from evosearch.study.trial import Trial
from evosearch.tasks.scoring import score
from evosearch.training.distillation import FinetuneConfig
from evosearch.training.epochs import EpochRecord
from evosearch.training.recipes import RECIPES
from tests.test_cli import InProcess, assert_refused, run  # noqa: F401  (run is a fixture)
from tests.toys import comparable

SPACE = """
[model]
build = "evosearch.models.zoo:digits_resnet"
input = [1, 8, 8]
[model.kwargs]
width = 8
[data]
name = "digits"
augment = ["crop"]
calibration = 150
search = 350
[train]
epochs = {epochs}
batch_size = 64
"""
EPOCHS = 6
PLAIN = """
from torch import nn

def make():
    convolutions = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(128, 10))
"""


class Stopped(Exception):
    pass


KNOWN: dict[str, Any] = {}


def once(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Returns what a function gave first, whatever it is called with."""

    def given(*arguments: Any) -> Any:
        if name not in KNOWN:
            KNOWN[name] = function(*arguments)
        return KNOWN[name]

    return given


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces and proves the one architecture here once; artifacts meet no fresh process."""
    for module, name in ((subject_module, "discover_space"), (identity_module, "graph_digest")):
        monkeypatch.setattr(module, name, once(getattr(module, name), name))
    monkeypatch.setattr(artifact_module, "verify_reload", lambda *_: None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    (folder / "space.toml").write_text(SPACE.format(epochs=EPOCHS))
    return folder


def trained(place: Path, name: str, recipe: str = "one_cycle", **options: Any) -> evosearch.Run:
    if (place / name).exists():
        return evosearch.load_run(place / name)
    out = evosearch.train(
        place / "space.toml", flops="25%", recipe=recipe, out=place / name, **options
    )
    assert isinstance(out, evosearch.Run)
    return out


def weights(place: Path, name: str) -> str:
    (folder,) = RunFolder(place / name).artifacts.iterdir()
    config = read_run_config(place / name)
    found = Artifact.open(folder)
    return weights_digest(found.load(lambda: build_model(config.space.model, place)))


def test_its_trials_are_the_networks_that_it_went_through(place: Path) -> None:
    done = trained(place, "whole")
    study, space = done.study, load_space(RunFolder(place / "whole").space)
    assert study.header.strategy == "one_cycle"
    assert len(study.trials) >= 3
    for number, trial in enumerate(study.trials):
        assert trial.number == trial.generation == number
        assert trial.cost == space.cost(trial.mask)
        assert trial.evaluation is not None
    *_, before, last = study.trials
    assert before.violation(study.budget) > 0
    assert last.violation(study.budget) == 0
    assert [trial.number for trial in done.front.members] == [last.number]
    times = [trial.genome["t"] for trial in study.trials]
    assert times == sorted(times)
    assert times[-1] == 1.0


def test_it_ends_in_the_finished_network(place: Path) -> None:
    trained(place, "whole")
    done = evosearch.resume(place / "whole").ended
    assert isinstance(done, Trained)
    card, last = done.artifact.card, Study.open(place / "whole").trials[-1]
    assert done.network.mask == last.mask
    assert last.evaluation is not None
    assert done.network.search == last.evaluation.score
    assert done.network.test is not None
    assert card["training"]["prune"]["recipe"] == done.recipe == "one_cycle"
    assert card["training"]["image_macs"] == done.image_macs
    assert 0.25 < done.share < 1
    assert done.seconds > 0
    assert "the test split was opened 1 times in this run" in card["notes"]
    # The cut network and nothing else: its accuracy by a scoring of what was saved.
    config = read_run_config(place / "whole")
    network = done.artifact.load(lambda: build_model(config.space.model, place))
    data = subject_module.load_search_data(config.space.data, place)
    with torch.inference_mode():
        answers = network(data.search.images[:]).argmax(1)
    accuracy = (answers == data.search.labels).double().mean().item()
    assert accuracy == pytest.approx(last.evaluation.score.accuracy)
    assert accuracy > 0.3


SLOW = [pytest.param(m, marks=pytest.mark.slow) for m in ("epoch 0", "epoch 6", "trial 1")]


@pytest.mark.parametrize("moment", ["epoch 2", "last trial", *SLOW])
def test_what_was_stopped_goes_on_to_the_same_end(place: Path, moment: str) -> None:
    expected = trained(place, "whole").study.trials
    what, _, number = moment.partition(" ")
    name = moment.replace(" ", "-")

    def on_epoch(record: EpochRecord) -> None:
        if what == "epoch" and record.epoch == int(number):
            raise Stopped

    def on_trial(trial: Trial) -> None:
        wanted = expected[-1].number if what == "last" else number
        if what != "epoch" and trial.number == int(wanted):
            raise Stopped

    with pytest.raises(Stopped):
        trained(place, name, callbacks=Callbacks(on_epoch=on_epoch, on_trial=on_trial))
    assert not RunFolder(place / name).artifacts.exists()
    done = evosearch.resume(place / name)
    assert comparable(done.study.trials) == comparable(expected)
    assert weights(place, name) == weights(place, "whole")
    assert not RunFolder(place / name).training.exists()


def test_the_commands_that_show_runs_show_it(
    place: Path,
    run: InProcess,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(output, "width", 200)  # a narrow one wraps names
    trained(place, "whole")
    trained(place, "begun small", "scratch")
    shown = run("pareto", "whole", cwd=place)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "whole network, untrained" in shown.stdout
    assert "distilled" not in shown.stdout
    view = ParetoView.read(place / "whole")
    page = page_json(view)
    assert page["made"] == "trained"
    assert page["commands"]["resume"] == f"evosearch resume {view.folder}"
    assert page["commands"]["within"] is None  # there is no network at another budget
    (plan,) = view.artifacts
    assert plan == f"trial {view.study.trials[-1].number}"
    assert run("report", "whole", "--html", "page.html", cwd=place).returncode == 0
    both = run("compare", "whole", "begun small", cwd=place)
    assert both.returncode == 0, both.stderr
    assert "scratch, seed 0" in both.stdout
    listed = run("recipes", cwd=place)
    assert all(name in listed.stdout for name in RECIPES)
    assert "2107.02086" in listed.stdout
    exported = run("export", view.artifacts[plan].folder, "--to", "exported", cwd=place)
    assert exported.returncode == 0, exported.stderr
    again = run("resume", "whole", cwd=place)
    assert again.returncode == 0, again.stderr
    assert "trained by one_cycle" in again.stdout
    assert "image-MACs" in again.stdout


def test_fresh_weights_are_of_the_seed(place: Path) -> None:
    trained(place, "whole")
    other = trained(place, "other seed", "scratch", seed=1)
    small = trained(place, "begun small", "scratch")
    bases = [done.study.header.base.search.loss for done in (small, other)]
    assert bases[0] != bases[1]
    evosearch.compare([place / "other seed", place / "begun small"])
    assert trained(place, "whole").study.header.base.search.loss == bases[0]
    assert len(other.study.trials) == len(small.study.trials) == 1


@pytest.mark.slow
def test_a_recipe_for_trained_weights_begins_with_those(place: Path) -> None:
    done = trained(place, "fisher", "fisher")
    base = done.study.header.base
    assert base.name == "base"
    assert base.search.accuracy > 0.5


def test_settings_of_the_space_file_take_the_place_of_the_recipes(place: Path) -> None:
    text = SPACE.format(epochs=2) + (
        '[prune]\nrecipe = "gradual"\nplan = "uniform"\n[prune.penalties]\nbn_l1 = 1e-4\n'
    )
    (place / "settings.toml").write_text(text)
    evosearch.train(place / "settings.toml", flops="50%", out=place / "settings")
    prune = read_run_config(place / "settings").prune
    assert prune is not None
    assert (prune.pace, prune.criterion, prune.plan) == ("cubic", "l1", "uniform")
    assert prune.penalties == {"bn_l1": 1e-4}
    assert Study.open(place / "settings").header.strategy == "gradual"


def test_a_floor_holds_in_every_group(place: Path) -> None:
    """One threshold on relative L1 norms leaves a single channel of some groups without it."""
    done = trained(place, "floor", recipe="at_a_glance")
    space, (*_, last) = load_space(RunFolder(place / "floor").space), done.study.trials
    least = {group.name: -(-group.size // 4) for group in space.groups}
    assert all(width >= least[name] for name, width in last.mask.widths.items())
    assert any(width == least[name] for name, width in last.mask.widths.items())
    assert last.violation(done.study.budget) == 0
    assert floored(space, 0.25).groups[0].min_keep == least[space.groups[0].name]
    assert space.groups[0].min_keep == 1


def test_scores_with_gates_are_said_to_be_such(place: Path) -> None:
    """They are no scores of the channels alone, which other networks might be compared with."""
    first, *_, last = trained(place, "gates", recipe="consensus").study.trials
    assert first.genome["gated"] is True
    assert "gated" not in last.genome
    store = ScoreStore(RunFolder(place / "gates").scores)
    whole = store.get(first.mask)  # that of the network before the first step
    assert whole is not None
    assert whole.score.loss != first.evaluation.score.loss
    assert store.get(last.mask).score.loss == last.evaluation.score.loss


def test_a_search_has_no_such_section(place: Path) -> None:
    """So that the digests of searches, with [prune] in their space file or not, stay."""
    trained(place, "whole")
    searched = read_run_config(place / "whole").model_copy(update={"prune": None})
    assert "prune" not in run_config_to_toml(searched)
    assert load_space_file(place / "space.toml").prune is None


BAD = {
    "a budget out of reach": (["--flops", "0.01%"], "", "out of reach"),
    "a budget under the floor": (
        ["--flops", "10%"],
        "[prune]\nfloor = 0.5",
        "out of reach",
    ),
    "an unknown recipe": (["--flops", "50%", "--recipe", "snipp"], "", "did you mean 'snip'"),
    "a pace that ends late": (
        ["--flops", "50%"],
        '[prune]\npace = { name = "linear", end = 0.9 }',
        "ends after 89% of training",
    ),
    "epi with uniform widths": (
        ["--flops", "50%", "--recipe", "epi"],
        '[prune]\nplan = "uniform"',
        "widths to settle",
    ),
    "gates that no step trains": (
        ["--flops", "50%"],
        '[prune]\ncriterion = "mseb"\npace = "start"',
        "cuts before any step: take another pace",
    ),
    "a pace for a drop": (["--flops", "50%"], '[prune]\npace = "slack"', "--accuracy-drop 1.0 al"),
    "a drop for a budget": (["--accuracy-drop", "1"], "", "add --recipe play_and_prune, or give"),
    "a drop and a budget": (
        ["--accuracy-drop", "1", "--flops", "50%", "--recipe", "play_and_prune"],
        "",
        "to no budget: give --accuracy-drop 1.0 alone",
    ),
    "a drop of nothing": (
        ["--accuracy-drop", "0", "--recipe", "play_and_prune"],
        "",
        "expected points over 0",
    ),
    "gates without a budget": (
        ["--accuracy-drop", "1", "--recipe", "play_and_prune"],
        '[prune]\ncriterion = "mseb"',
        "reads gates that train with the network on its way to a budget",
    ),
    "a drop from fresh weights": (
        ["--accuracy-drop", "1", "--recipe", "play_and_prune"],
        '[prune]\nweights = "fresh"',
        "follows the accuracy of a trained network",
    ),
    "an unknown criterion": (["--flops", "50%"], '[prune]\ncriterion = "l3"', "unknown criterion"),
    "an unknown plan": (["--flops", "50%"], '[prune]\nplan = "globe"', "did you mean 'global'"),
    "an unknown penalty": (
        ["--flops", "50%"],
        "[prune.penalties]\nbn_l2 = 1.0",
        "did you mean 'bn_l1'",
    ),
    "a network that comes trained": (
        ["--flops", "50%"],
        "[model]",
        'weights = "built": the network comes trained',
    ),
    "rounds, layer by layer": (
        ["--flops", "50%", "--recipe", "layerwise"],
        "[prune]\nrounds = 2",
        "leave rounds and drop out",
    ),
    "an unknown key": (["--flops", "50%"], "[prune]\npaces = 1", "did you mean 'pace'"),
    "an epoch to go back to, once": (
        ["--flops", "50%"],
        "[prune]\nrewind = 1",
        "goes back between trainings, and there is one",
    ),
    "an epoch to go back to, the last": (
        ["--flops", "50%", "--recipe", "imp"],
        "[prune]\nrewind = 2",
        "trainings of 2 epochs have none after that",
    ),
    "channels that come back, cut in cycles": (
        ["--flops", "50%", "--recipe", "imp"],
        "[prune]\nregrow = 0.5",
        "for one training that cuts all groups",
    ),
    "channels that come back, penalised": (
        ["--flops", "50%", "--recipe", "granet"],
        "[prune.penalties]\nbn_l1 = 1e-4",
        "held at zero",
    ),
    "a pace that nothing reads": (
        ["--flops", "50%", "--recipe", "imp"],
        '[prune]\npace = "cubic"',
        "of cuts in one training",
    ),
    "weights to go back to, once": (
        ["--flops", "50%"],
        '[prune]\nrewind = "fresh"',
        "goes back between trainings",
    ),
    "a pace beyond numbers": (
        ["--flops", "50%"],
        '[prune]\npace = { name = "one_cycle", b = 1000 }',
        "less than or equal to 200",
    ),
    "no epoch to go back to": (["--flops", "50%"], "[prune]\nrewind = 0", "prune.rewind"),
    "no steps between cuts": (["--flops", "50%"], "[prune]\nevery = 0", "prune.every"),
    "a range": (["--flops", "30%..50%"], "", "not at a range"),
    "a latency": (["--latency", "50%"], "", "keeps FLOPs or params"),
    "no budget": (["--seed", "1"], "", "give --flops 50% with it"),
    "more than there is": (["--flops", "200%"], "", "nothing to cut"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_refused_before_any_training(
    name: str,
    tmp_path: Path,
    run: InProcess,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments, section, message = BAD[name]
    text = SPACE.format(epochs=2)
    if section == "[model]":
        text, section = text.replace("[model]", '[model]\nweights = "built"'), ""
    (tmp_path / "space.toml").write_text(text + section)
    monkeypatch.setattr("evosearch.training.trainer.Training.epochs", None)
    done = run("train", "space.toml", *arguments, "--out", "out", cwd=tmp_path)
    assert_refused(done, message)
    assert not (tmp_path / "out").exists()


def test_a_penalty_that_the_network_cannot_have_leaves_no_run(
    tmp_path: Path,
    run: InProcess,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "plain.py").write_text(PLAIN)
    text = SPACE.format(epochs=2).replace("[model.kwargs]\nwidth = 8\n", "")
    text = text.replace("evosearch.models.zoo:digits_resnet", "plain.py:make")
    (tmp_path / "space.toml").write_text(f"{text}[prune.penalties]\nbn_l1 = 1e-4\n")
    monkeypatch.undo()  # this is another architecture
    monkeypatch.setattr("evosearch.training.trainer.Training.epochs", None)
    done = run("train", "space.toml", "--flops", "50%", "--out", "out", cwd=tmp_path)
    assert_refused(done, "no BatchNorm")
    assert not (tmp_path / "out").exists()


def test_what_is_no_search_says_so(place: Path) -> None:
    trained(place, "whole")
    with pytest.raises(InputError, match="a training under a budget, not a search"):
        evosearch.cut(place / "whole")
    with pytest.raises(InputError, match="goes on as it began"):
        evosearch.resume(place / "whole", trials=9)
    with pytest.raises(InputError, match="exists already"):
        evosearch.train(place / "space.toml", flops="25%", out=place / "whole")


def test_its_finished_network_is_taken_further(place: Path) -> None:
    whole = trained(place, "whole")
    before = evosearch.resume(place / "whole").ended
    assert isinstance(before, Trained)
    number = whole.study.trials[-1].number
    with pytest.raises(Stopped):
        evosearch.finetune(place / "whole", epochs=2, callbacks=Callbacks(on_epoch=stop_at(2)))
    epochs: list[int] = []
    done = evosearch.finetune(
        place / "whole",
        pick=number,
        epochs=2,
        callbacks=Callbacks(on_epoch=lambda record: epochs.append(record.epoch)),
    )
    assert epochs == [2]
    first, last = done.networks
    assert first == before.network
    assert last.name == f"{first.name}, distilled 2 epochs"
    assert (last.mask, last.cost) == (first.mask, first.cost)
    assert last.search.loss <= first.search.loss  # the network before the first epoch counts
    assert done.test_opened == 2  # once for each
    assert done.artifact.card["networks"][-1]["test"]["accuracy"] == last.test.accuracy
    config = read_run_config(place / "whole").space
    network = done.artifact.load(lambda: build_model(config.model, place))
    data = subject_module.load_search_data(config.data, place)
    assert score(network, data.search).loss == pytest.approx(last.search.loss)
    # The finished network stays what it is, and both are shown.
    again = evosearch.resume(place / "whole").ended
    assert isinstance(again, Trained)
    assert again.network == before.network
    assert list(ParetoView.read(place / "whole").artifacts) == [
        f"trial {number}",
        f"trial {number}, fine-tuned",
    ]
    with pytest.raises(InputError, match="fine-tuned with other settings"):
        evosearch.finetune(place / "whole", epochs=3)
    shutil.rmtree(done.artifact.folder)
    assert evosearch.finetune(place / "whole", epochs=2).networks[-1].test == last.test
    shutil.rmtree(done.artifact.folder)


def stop_at(epoch: int) -> Callable[[EpochRecord], None]:
    """Returns what stops a training before an epoch is saved."""

    def on_epoch(record: EpochRecord) -> None:
        if record.epoch == epoch:
            raise Stopped

    return on_epoch


def base_digest(folder: Path) -> str:
    config = read_run_config(folder).space.model
    model = build_model(config, folder.parent)
    load_weights(model, RunFolder(folder).base)
    return weights_digest(model)


@pytest.mark.parametrize("weights", ["fresh", "base"])
def test_who_teaches_a_finished_network(
    weights: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base network, where there is one that is trained; else the finished network itself."""
    text = SPACE.format(epochs=1) + f'[prune]\nrecipe = "scratch"\nweights = "{weights}"\n'
    (place / f"{weights}.toml").write_text(text)
    evosearch.train(place / f"{weights}.toml", flops="25%", out=place / weights)
    seen: list[tuple[str, str]] = []

    def distil(teacher: torch.nn.Module, student: torch.nn.Module, *_: Any, **__: Any) -> None:
        seen.append((weights_digest(teacher), weights_digest(student)))
        raise Stopped

    monkeypatch.setattr(refining, "distil", distil)
    with pytest.raises(Stopped):
        evosearch.finetune(place / weights)
    ((teacher, student),) = seen
    if weights == "base":
        assert teacher == base_digest(place / weights)
    else:
        assert teacher == student


def config_with(folder: Path, finetune: FinetuneConfig) -> RunConfig:
    config = read_run_config(folder)
    return config.model_copy(
        update={"space": config.space.model_copy(update={"finetune": finetune})}
    )


def test_what_a_finished_network_cannot_be_taken_further_by(
    place: Path,
    run: InProcess,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained(place, "whole")
    monkeypatch.setattr("evosearch.training.trainer.Training.epochs", None)
    paced = config_with(place / "whole", FinetuneConfig(pace="linear"))
    monkeypatch.setattr(refining, "reopen_training", lambda *_: (paced, None))
    assert_refused(run("finetune", "whole", cwd=place), "pace shrinks a base network")
    monkeypatch.setattr(refining, "reopen_training", reopen_training)
    for options, message in (
        (["--pick", "0"], "the finished network alone was kept, which is trial"),
        (["--at", "flops=25%"], "a training under a budget, not a search"),
        (["--baselines"], "a training under a budget, not a search"),
        (["--epochs", "0"], "is saved already"),
    ):
        assert_refused(run("finetune", "whole", *options, cwd=place), message)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "section"),
    [
        *(pytest.param(recipe, "", id=recipe) for recipe in RECIPES),
        pytest.param("imp", "[prune]\nrewind = 2\n", id="imp to epoch 2"),
    ],
)
def test_a_training_that_is_killed_ends_like_one_that_is_not(
    recipe: str, section: str, tmp_path: Path
) -> None:
    """By SIGKILL, once on the way, in processes of their own; in fewer FLOPs than a quarter."""
    (tmp_path / "space.toml").write_text(SPACE.format(epochs=15) + section)
    environment = {
        **os.environ,
        "EVOSEARCH_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "evosearch", "--quiet", *arguments]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True)

    tolerated = RECIPES[recipe].settings.get("pace") == "slack"
    limit = ("--accuracy-drop", "3") if tolerated else ("--flops", "25%")
    train = ("train", "space.toml", *limit, "--recipe", recipe, "--out")
    assert start(*train, "unkilled").wait() == 0
    process = start(*train, "killed")
    progress = RunFolder(tmp_path / "killed").training
    while process.poll() is None and not progress.exists():
        time.sleep(0.001)
    time.sleep(0.2)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert progress.exists()
    assert start("resume", "killed").wait() == 0
    expected = Study.open(tmp_path / "unkilled")
    assert comparable(Study.open(tmp_path / "killed").trials) == comparable(expected.trials)
    assert weights(tmp_path, "killed") == weights(tmp_path, "unkilled")
    assert expected.trials[-1].violation(expected.budget) == 0
    if not tolerated:
        assert expected.trials[-1].cost.macs <= 0.25 * expected.header.base_cost.macs
    else:
        assert expected.trials[-1].cost.macs < 0.5 * expected.header.base_cost.macs
