"""Whatever a run is about has an identity, and every change of it is named in one line."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evosearch import machine
from evosearch.data.splits import load_search_data
from evosearch.errors import InputError
from evosearch.models.build import build_model
from evosearch.models.weights import save_weights
from evosearch.run.identity import identify
from evosearch.run.spacefile import load_space_file
from evosearch.run.subject import example_input
from evosearch.study.identity import Identity, Part
from tests.data.helpers import write_folder

NET = """
from torch import nn

def net(act="ReLU", scale=1.0):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act, self.head = nn.Conv2d(3, 4, 3), nn.{act}(), nn.Linear(4, 2)
        def forward(self, x):
            return self.head(self.act({scale} * self.conv(x)).mean((2, 3)))
    return Net()
"""
TASK = """
def loss(output, target):
    return ((output[:, 0] - target) ** 2){end}
"""
SPACE = """
[model]
build = "net.py:net"
input = [3, 8, 8]
weights = "net.safetensors"
[data]
name = "imagefolder"
root = "pets"
calibration = 4
search = 6
[task]
loss = "task.py:loss"
"""
CAT = "pets/train/cat/0003.png"


def write_net(folder, act="ReLU", scale="1.0"):
    (folder / "net.py").write_text(NET.replace("{act}", act).replace("{scale}", scale))


def write_space(folder):
    write_folder(write_folder(folder / "pets", "train", 12), "test", 3)
    write_net(folder)
    (folder / "task.py").write_text(TASK.format(end=""))
    (folder / "space.toml").write_text(SPACE)
    file = load_space_file(folder / "space.toml")
    model = build_model(file.model.model_copy(update={"weights": "built"}), folder, seed=1)
    save_weights(model, folder / "net.safetensors")
    return folder


def identity_of(folder):
    file = load_space_file(folder / "space.toml")
    model = build_model(file.model, folder)
    data = load_search_data(file.data, folder)
    return identify(file, folder, model, example_input(file.model), data)


@pytest.fixture
def folder(tmp_path):
    return write_space(tmp_path / "space")


def edit_net(folder):
    write_net(folder, act="Softsign")


def edit_constant(folder):
    write_net(folder, scale="1.5")


def edit_task(folder):
    (folder / "task.py").write_text(TASK.format(end=" / 2"))


def replace_weights(folder):
    file = load_space_file(folder / "space.toml")
    model = build_model(file.model.model_copy(update={"weights": None}), folder, seed=2)
    save_weights(model, folder / "net.safetensors")


def change_in_place(path):
    """Changes the last pixel of a file that keeps its size, and sets its times back."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def as_bitmaps(folder):
    """Writes an image without compression, so that one byte is a pixel's."""
    path = folder / CAT
    Image.open(path).save(path.with_suffix(".bmp"))
    path.unlink()


OF_A_SPACE = set(Part) - {Part.ELASTIC}
"""The parts of what a space file names; elastic weights come with a run."""

CHANGES = {
    "source": (edit_net, {Part.GRAPH}, "the model's graph (its code)"),
    "constant": (edit_constant, {Part.GRAPH}, "the model's graph (its code)"),
    "task": (edit_task, {Part.TASK}, "the code of the task ([task])"),
    "weights": (replace_weights, {Part.WEIGHTS}, "the weights of the base network"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_code_or_weights_is_named(folder, name):
    change, parts, words = CHANGES[name]
    before = identity_of(folder)
    change(folder)
    now = identity_of(folder)
    assert {part for part in OF_A_SPACE if before.parts[part] != now.parts[part]} == parts
    assert before.differences(now) == [words]


def test_added_images_are_counted(folder):
    before = identity_of(folder)
    rng = np.random.default_rng(5)
    for number in range(20):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"pets/train/dog/1{number:03}.png")
    (found,) = before.differences(identity_of(folder))
    assert found == "the images of the train, calibration and search splits (20 added)"


def test_an_image_changed_in_place_with_its_size_and_time_restored_is_named(folder):
    as_bitmaps(folder)
    before = identity_of(folder)
    change_in_place((folder / CAT).with_suffix(".bmp"))
    (found,) = before.differences(identity_of(folder))
    split = next(part for part, images in before.images.items() if "train/cat/0003.bmp" in images)
    assert found == f"the images of the {split} split (1 changed in place: train/cat/0003.bmp)"


def test_an_image_of_the_test_split_changes_that_split_alone(folder):
    before = identity_of(folder)
    Image.new("RGB", (8, 8)).save(folder / "pets/test/dog/0001.png")
    assert before.differences(identity_of(folder)) == [
        "the images of the test split (1 changed in place: test/dog/0001.png)"
    ]


def test_a_label_folder_that_is_renamed_is_named(folder):
    before = identity_of(folder)
    for part in ("train", "test"):
        (folder / "pets" / part / "cat").rename(folder / "pets" / part / "bat")
    assert before.differences(identity_of(folder)) == [
        "the images of the train, calibration, search and test splits"
        " (15 renamed: test/bat/0000.png ...)"
    ]


def test_labels_that_change_places_are_named(folder):
    """The folder of the first class now sorts last: every image of it has the other label."""
    before = identity_of(folder)
    for part in ("train", "test"):
        (folder / "pets" / part / "cat").rename(folder / "pets" / part / "elk")
    (found,) = before.differences(identity_of(folder))
    assert "15 renamed" in found
    assert "15 relabelled: test/dog/0000.png ..." in found


def test_another_division_is_named(folder):
    before = identity_of(folder)
    (folder / "space.toml").write_text(SPACE.replace("search = 6", "search = 6\nseed = 3"))
    assert before.differences(identity_of(folder)) == [
        "the images of the train, calibration and search splits (divided otherwise)"
    ]


def test_another_torch_is_named(folder, monkeypatch):
    before = identity_of(folder)
    faked = {"torch": "1.2.3+cpu"}
    monkeypatch.setattr(machine, "version", lambda name: faked.get(name, metadata.version(name)))
    now = identity_of(folder)
    with pytest.raises(InputError) as caught:
        before.require_same(now, where="runs/pets", advice="start a new run")
    was = before.parts[Part.TORCH]
    assert str(caught.value) == (
        f"runs/pets: no longer the same: torch (was {was}, is 1.2.3); start a new run"
    )


def test_everything_at_once_is_one_line(folder):
    before = identity_of(folder)
    for change in (edit_net, edit_task, replace_weights):
        change(folder)
    (folder / CAT).unlink()
    with pytest.raises(InputError) as caught:
        before.require_same(identity_of(folder), where="here", advice="start a new run")
    assert "\n" not in str(caught.value)
    assert str(caught.value).count(";") == 4


def test_equal_content_elsewhere_and_at_another_time_is_the_same(folder, tmp_path):
    other = write_space(tmp_path / "elsewhere" / "copy")
    for path in other.rglob("*"):
        os.utime(path, ns=(10**18, 10**18))
    (other / "net.py").write_text("# Written again.\n" + (other / "net.py").read_text())
    before, now = identity_of(folder), identity_of(other)
    assert now == before
    assert set(before.parts) == OF_A_SPACE
    assert before.images == now.images


SCRIPT = """
import json, sys
from pathlib import Path
from tests.run.test_identity import identity_of
print(json.dumps(identity_of(Path(sys.argv[1])).to_json()))
"""


def test_every_process_finds_the_same(folder, tmp_path):
    here = identity_of(folder)
    for seed in ("1", "2"):
        cache = str(tmp_path / f"cache{seed}")
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(folder)],
            env=os.environ | {"PYTHONHASHSEED": seed, "EVOSEARCH_CACHE": cache},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        assert Identity.from_json(json.loads(done.stdout)) == here


def test_images_that_confirm_are_part_of_it(folder):
    before = identity_of(folder)
    (folder / "space.toml").write_text(SPACE.replace("search = 6", "search = 6\nconfirmation = 5"))
    now = identity_of(folder)
    differing = {part for part in OF_A_SPACE if before.parts[part] != now.parts[part]}
    assert differing == {Part.TRAIN, Part.CONFIRMATION}
