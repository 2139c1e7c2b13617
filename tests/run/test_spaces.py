"""The spaces that ship: they are valid, and their networks take the images they name."""

from pathlib import Path

import pytest
import torch

from evosearch.data.splits import load_search_data
from evosearch.errors import InputError
from evosearch.models.build import build_model
from evosearch.models.weights import save_weights
from evosearch.run.spacefile import load_space_file
from evosearch.run.subject import example_input, load_subject
from evosearch.tasks.scoring import score
from tests.data.helpers import write_folder
from tests.run.test_newspace import SCREENS

SPACES = Path(__file__).parents[2] / "search_spaces"
CIFAR = ("cifar10_resnet20", "cifar10_resnet56")


@pytest.mark.parametrize("path", sorted(SPACES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_space_is_valid_and_its_network_runs(path):
    assert len(path.read_text().splitlines()) < SCREENS
    file = load_space_file(path)
    model = build_model(file.model.model_copy(update={"weights": None}), path.parent)
    with torch.no_grad():
        assert model(*example_input(file.model)).shape[0] == 2


@pytest.mark.parametrize("name", CIFAR)
def test_the_cifar_spaces_find_data_and_weights_of_a_user(name, tmp_path, monkeypatch):
    file = load_space_file(SPACES / f"{name}.toml")
    with pytest.raises(InputError, match=r"cifar10/train; \$EVOSEARCH_DATA, .*; unpack the image"):
        load_subject(file, SPACES)
    monkeypatch.setenv("EVOSEARCH_DATA", str(tmp_path))
    write_folder(tmp_path / "cifar10", "train", 30, size=(32, 32))
    write_folder(tmp_path / "cifar10", "test", 2, size=(32, 32))
    # As many images as there are here; the space asks for thousands.
    few = file.data.model_copy(update={"calibration": 8, "search": 8, "confirmation": 8})
    file = file.model_copy(update={"data": few})
    data = load_search_data(file.data, SPACES)
    with pytest.raises(InputError, match="; put the weights there, or leave the key out"):
        load_subject(file, SPACES)
    trained = build_model(file.model.model_copy(update={"weights": None}), SPACES, seed=3)
    save_weights(trained, tmp_path / f"{name}.safetensors")
    subject = load_subject(file, SPACES)
    assert score(subject.model, data.search) == score(trained, data.search)


def test_a_space_with_a_task_of_its_own(tmp_path):
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "def loss(output, target):\n"
        "    return nn.functional.cross_entropy(2 * output, target, reduction='none')\n"
    )
    text = (SPACES / "digits_resnet.toml").read_text().replace("epochs = 60", "epochs = 1")
    path = tmp_path / "space.toml"
    path.write_text(text + '\n[task]\nloss = "own.py:loss"\n')
    subject = load_subject(load_space_file(path), tmp_path)
    plain = score(subject.model, subject.data.search)
    own = score(subject.model, subject.data.search, task=subject.task)
    assert own.accuracy == plain.accuracy
    assert own.loss != plain.loss
    path.write_text(text + '\n[task]\nlosses = "own.py:loss"\n')
    with pytest.raises(InputError, match=r"\[task\] unknown key 'losses': did you mean 'loss'"):
        load_space_file(path)
