"""Whatever changes under a run or a cache is refused by name or measured anew, never mixed."""

import json
import logging
import os
import shutil
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evosearch
from evosearch import machine
from evosearch.errors import InputError
from evosearch.latency.runtimes import RUNTIMES
from evosearch.models.build import build_model
from evosearch.models.weights import save_weights
from evosearch.run import identity as identifying
from evosearch.run.folder import RunFolder
from evosearch.run.recorded import recorded_identity
from evosearch.run.reopening import RunEvaluator, reopen_meter
from evosearch.run.spacefile import load_space_file
from evosearch.study.identity import Part
from evosearch.study.study import Study
from tests.data.helpers import write_folder
from tests.latency.fakes import FAKE_RUNTIME, FakeStopwatch
from tests.run.test_identity import NET, SPACE, change_in_place, edit_net, write_space
from tests.toys import comparable

TASK = """
import os

def loss(output, target):
    return float(os.environ.get("SCALE", "1")) * (output[:, 0] - target) ** 2
"""
"""Of what it reads from the environment, no digest knows."""
TRIALS = 8


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with a space and two runs of it: one to go on with, and one that did at once."""
    folder = tmp_path_factory.mktemp("identity")
    write_space(folder / "space")
    (folder / "space" / "task.py").write_text(TASK)
    cat = folder / "space/pets/train/cat/0003.png"
    for path in cat.parent.glob("*.png"):  # so that a byte is a pixel's
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("EVOSEARCH_CACHE", str(folder / "cache"))
        for name, trials in (("run", 3), ("whole", TRIALS)):
            search(folder / "space", folder / name, trials)
    shutil.copytree(folder / "space", folder / "kept")
    return folder


def search(space, out, trials):
    return evosearch.search(
        space / "space.toml",
        flops="75%",
        strategy="random",
        trials=trials,
        out=out,
        anyway=True,  # the images are noise
    )


@pytest.fixture
def space(begun):
    """The space, which is put back as it was."""
    yield begun / "space"
    shutil.rmtree(begun / "space")
    shutil.copytree(begun / "kept", begun / "space")


@pytest.fixture
def run(begun, tmp_path):
    shutil.copytree(begun / "run", tmp_path / "run")
    return tmp_path / "run"


def image_of(begun, part):
    """Returns the name of a bitmap in a split."""
    images = recorded_identity(begun / "run", Study.open(begun / "run").header).images[part]
    return min(name for name in images if name.endswith(".bmp"))


def add_image(space):
    Image.new("RGB", (8, 8)).save(space / "pets/train/dog/new.png")


def rename_label(space):
    for part in ("train", "test"):
        (space / "pets" / part / "cat").rename(space / "pets" / part / "bat")


def fake_torch(monkeypatch):
    faked = {"torch": "1.2.3+cpu"}
    monkeypatch.setattr(machine, "version", lambda name: faked.get(name, metadata.version(name)))


CHANGES = {
    "source": (edit_net, r"the model's graph \(its code\);"),
    "image added": (add_image, r"splits? \(1 added"),
    "label renamed": (rename_label, "the images of the train, .*15 renamed: test/bat/0000"),
    "task": (lambda space: (space / "task.py").write_text(TASK + "\nx = 1\n"), "code of the task"),
}


def refused(run, match):
    """Checks that going on with a run is refused in one line, and changes nothing."""
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=match) as caught:
        evosearch.resume(run, trials=TRIALS)
    assert str(caught.value).startswith(f"{run}: ")
    assert "start a new run" in str(caught.value)
    assert "\n" not in str(caught.value)
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    names = ("run.log", "lock")
    assert {p: b for p, b in after.items() if p.name not in names} == {
        p: b for p, b in before.items() if p.name not in names
    }


def test_what_did_not_change_goes_on_to_the_same_study(begun, run, caplog):
    resumed = evosearch.resume(run, trials=TRIALS)
    assert comparable(resumed.study.trials) == comparable(Study.open(begun / "whole").trials)
    assert "rounds otherwise" not in caplog.text  # bit for bit


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_refused_by_name(space, run, name):
    change, words = CHANGES[name]
    change(space)
    refused(run, f"no longer the same: .*{words}")


@pytest.mark.parametrize("part", [Part.TRAIN, Part.CALIBRATION, Part.SEARCH])
def test_an_image_changed_in_place_is_refused_by_name(begun, space, run, part):
    name = image_of(begun, part)
    change_in_place(space / "pets" / name)
    refused(run, rf"the images of the {part} split \(1 changed in place: {name}\)")


def test_another_torch_is_refused_by_name(run, monkeypatch):
    fake_torch(monkeypatch)
    refused(run, r"torch \(was 2\.\S+, is 1\.2\.3\)")


def test_another_torch_is_one_line_though_the_environment_differs_too(run, monkeypatch, caplog):
    fake_torch(monkeypatch)
    with pytest.raises(InputError, match="no longer the same: torch"):
        evosearch.finetune(run, pick="best")
    assert "results can differ" not in caplog.text


def test_another_environment_is_warned_of_once(run, caplog):
    path = RunFolder(run).environment
    path.write_text(json.dumps({**json.loads(path.read_text()), "python": "3.0.0"}))
    evosearch.resume(run, trials=TRIALS)
    warned = [r for r in caplog.records if "python was 3.0.0" in r.getMessage()]
    assert [r.levelname for r in warned if r.levelno >= logging.WARNING] == ["WARNING"]
    assert "python was 3.0.0" in RunFolder(run).log.read_text()


def test_other_base_weights_in_the_run_are_refused_by_name(space, run):
    replace_weights(space, RunFolder(run).base)
    refused(run, "the weights of the base network")


def replace_weights(space, path):
    model = load_space_file(space / "space.toml").model.model_copy(update={"weights": None})
    save_weights(build_model(model, space, seed=7), path)


def test_a_run_keeps_its_base_network_and_a_new_one_takes_the_new_weights(
    begun, space, run, tmp_path
):
    replace_weights(space, space / "net.safetensors")
    resumed = evosearch.resume(run, trials=TRIALS)
    assert comparable(resumed.study.trials) == comparable(Study.open(begun / "whole").trials)
    new = search(space, tmp_path / "new", 2)
    assert resumed.study.header.identity.differences(new.study.header.identity) == [
        "the weights of the base network"
    ]
    assert new.study.header.base.search.loss != resumed.study.header.base.search.loss
    with pytest.raises(InputError, match="different base networks"):
        evosearch.compare([run, tmp_path / "new"])


def test_every_command_that_opens_a_run_refuses(space, run):
    edit_net(space)
    for command in (
        lambda: evosearch.finetune(run, pick="best"),
        lambda: evosearch.pareto(run, at="flops=75%", evaluate=True),
        lambda: evosearch.pareto(run, x="latency"),
    ):
        with pytest.raises(InputError, match="no longer the same: the model's graph"):
            command()


def test_an_image_of_the_test_split_is_refused_before_a_network_is_measured_on_it(space, run):
    Image.new("RGB", (8, 8)).save(space / "pets/test/dog/0001.png")
    with pytest.raises(InputError, match=r"test split \(1 changed in place: test/dog/0001\.png\)"):
        evosearch.finetune(run, pick="best")
    assert not RunFolder(run).test.exists()


def test_a_list_of_images_that_is_gone_or_forged_refuses_with_fewer_words(space, run):
    add_image(space)
    path = RunFolder(run).images
    forged = json.loads(path.read_text())
    forged["search"] = {"image 0": ["", "0"]}
    for text in (json.dumps(forged), "[]", "{", None):
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        with pytest.raises(InputError, match=r"the images of the [^(]* splits?; undo that"):
            evosearch.resume(run, trials=TRIALS)


def test_workers_compare_code_and_scores_and_read_no_image_twice(space, run, monkeypatch):
    def unread(_):
        raise AssertionError("all images are read")

    monkeypatch.setattr(identifying, "listed_images", unread)
    helper = RunEvaluator(str(run))
    base = Study.open(run).header.base
    evaluator = helper()
    assert evaluator.image_scores(base.mask, 0, evaluator.images).score == base.search
    edit_net(space)
    with pytest.raises(InputError, match="no longer the same: the model's graph"):
        helper()
    with pytest.raises(InputError, match="no longer the same: the model's graph"):
        reopen_meter(run, Study.open(run).header)


def test_timing_opens_no_data(space, run):
    shutil.rmtree(space / "pets")
    assert reopen_meter(run, Study.open(run).header).bench.conditions.runtime == "eager"


def test_what_no_digest_sees_shows_in_the_score_of_the_base_network(run, monkeypatch, caplog):
    """The scores on disk are not asked, which hold those of the base network too."""
    assert len(list(RunFolder(run).scores.iterdir())) > 1
    monkeypatch.setenv("SCALE", "1.5")
    refused(run, r"the base network no longer scores what it did \(loss .* on 6 images; is ")
    with pytest.raises(InputError, match="no longer scores what it did"):
        RunEvaluator(str(run))()
    monkeypatch.setenv("SCALE", "1.000001")  # as much as another device may round
    evosearch.resume(run, trials=4)
    assert "this device rounds otherwise" in caplog.text


def test_runs_whose_scores_are_of_other_images_are_not_compared(begun, space, tmp_path):
    runs = [begun / "run", tmp_path / "train", tmp_path / "search"]
    shown = evosearch.compare([begun / "run", begun / "whole"]).to_json()
    assert [found["differences"] for found in shown["runs"]] == [[], []]
    for part in (Part.TRAIN, Part.SEARCH):
        name = image_of(begun, part)
        change_in_place(space / "pets" / name)
        search(space, tmp_path / part, 2)
    name = image_of(begun, Part.TRAIN)
    words = f"the images of the train split (1 changed in place: {name})"
    comparison = evosearch.compare(runs[:2])
    assert comparison.to_json()["runs"][1]["differences"] == [words]
    assert comparison.render().renderables[-1] == (
        f"train is not of the same as run; from run to train: {words}"
    )
    name = image_of(begun, Part.SEARCH)
    with pytest.raises(InputError, match=rf"not comparable; .* the search split \(1 .*: {name}\)"):
        evosearch.compare([runs[0], runs[2]])


# What is kept between runs: base weights and latency profiles.


UNTRAINED = SPACE.replace('weights = "net.safetensors"', "") + "[train]\nepochs = 1\n"


@pytest.fixture
def trained(space):
    """The space without weights, whose base network is trained."""
    (space / "space.toml").write_text(UNTRAINED)
    assert epochs_of_training(space) == 1
    return space


def epochs_of_training(space):
    """Returns how many epochs `train` trained for, and checks which file it names."""
    epochs = []
    found = evosearch.train(
        space / "space.toml", callbacks=evosearch.Callbacks(on_epoch=epochs.append)
    )
    assert found.weights.parent == Path(os.environ["EVOSEARCH_CACHE"]) / "base"
    assert found.weights.is_file()
    return len(epochs)


def change_train_image(space):
    train = space / "pets/train/cat"
    for path in train.iterdir():  # one of them is in the train split
        change_in_place(path)


def edit_initial_weights(space):
    """Leaves the graph and every name as it is."""
    text = (space / "net.py").read_text()
    ones = "net = Net(); nn.init.ones_(net.head.weight); return net"
    edited = text.replace("return Net()", ones)
    assert edited != text
    (space / "net.py").write_text(edited)


ANEW = {
    "source": edit_net,
    "initial weights": edit_initial_weights,
    "image added": add_image,
    "images changed in place": change_train_image,
    "label renamed": rename_label,
    "task": lambda space: (space / "task.py").write_text(TASK + "\nx = 1\n"),
}


@pytest.mark.parametrize("name", ANEW)
def test_a_base_network_is_trained_anew_after_a_change(trained, name):
    assert epochs_of_training(trained) == 0
    ANEW[name](trained)
    assert epochs_of_training(trained) == 1
    assert epochs_of_training(trained) == 0


def test_a_base_network_is_trained_anew_by_another_torch(trained, monkeypatch):
    fake_torch(monkeypatch)
    assert epochs_of_training(trained) == 1


def test_a_base_network_is_of_the_list_that_names_the_search_split(space):
    (space / "space.toml").write_text(UNTRAINED.replace("search = 6", 'search = "list.txt"'))
    names = sorted(f"train/dog/{path.name}" for path in (space / "pets/train/dog").iterdir())
    trained = []
    for chosen in (names[:6], names[1:7], names[:6]):
        (space / "list.txt").write_text("\n".join(chosen))
        trained.append(epochs_of_training(space))
    assert trained == [1, 1, 0]


def test_a_base_network_is_not_trained_anew_for_what_it_does_not_follow_from(
    begun, trained, tmp_path
):
    """Such as the layout of code, the place of all files, and images that it is not trained on."""
    change_in_place(trained / "pets" / image_of(begun, Part.SEARCH))
    shutil.copytree(trained, tmp_path / "elsewhere")
    for path in (tmp_path / "elsewhere").rglob("*"):
        os.utime(path, ns=(10**18, 10**18))
    text = (tmp_path / "elsewhere" / "net.py").read_text()
    (tmp_path / "elsewhere" / "net.py").write_text(f"# Written again.\n{text}")
    (tmp_path / "elsewhere" / "space.toml").write_text(f"{UNTRAINED}[search]\ntrials = 3\n")
    assert epochs_of_training(tmp_path / "elsewhere") == 0


def test_projects_of_one_text_and_different_code_share_no_base_network(tmp_path):
    found = {}
    for act in ("ReLU", "Softsign"):
        place = write_space(tmp_path / act)
        (place / "net.py").write_text(NET.replace("{act}", act).replace("{scale}", "1.0"))
        (place / "space.toml").write_text(UNTRAINED)
        assert epochs_of_training(place) == 1
        found[act] = search(place, tmp_path / f"run-{act}", 2).study.header
    assert found["ReLU"].identity.differences(found["Softsign"].identity) == [
        "the model's graph (its code)",
        "the weights of the base network",
    ]


def test_with_200_more_images_no_search_image_is_one_that_the_base_network_has_seen(
    trained, tmp_path
):
    before = search(trained, tmp_path / "before", 2)
    write_folder(tmp_path, "more", 100, classes=("cat", "dog"), seed=9)
    for path in (tmp_path / "more").rglob("*.png"):
        path.rename(trained / "pets/train" / path.parent.name / f"more{path.name}")
    refused(before.folder, "200 added")
    assert epochs_of_training(trained) == 1
    after = search(trained, tmp_path / "after", 2)
    images = recorded_identity(after.folder, after.study.header).images
    assert not images[Part.TRAIN].keys() & images[Part.SEARCH].keys()
    assert len(images[Part.TRAIN]) == 24 + 200 - 4 - 6
    assert not np.array_equal(
        *(RunFolder(run.folder).base.read_bytes() for run in (before, after))
    )
    with pytest.raises(InputError, match="score other things"):
        evosearch.compare([before.folder, after.folder])


def test_a_latency_profile_is_of_code_and_versions_not_of_images(space, monkeypatch):
    clocks = []

    def clock(_threads):
        clocks.append(FakeStopwatch())
        return clocks[-1]

    def measured():
        evosearch.profile(space / "space.toml")
        return clocks[-1].asked > 0

    monkeypatch.setitem(RUNTIMES, "eager", FAKE_RUNTIME)
    monkeypatch.setattr("evosearch.latency.bench.torch_stopwatch", clock)
    assert measured()
    assert not measured()
    rename_label(space)
    assert not measured()
    edit_net(space)
    assert measured()
    fake_torch(monkeypatch)
    assert measured()
    assert not measured()
