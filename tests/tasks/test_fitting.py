"""What does not fit is refused by the split that it is in, from two images of each."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from evosearch.data import splits
from evosearch.errors import InputError
from evosearch.tasks.classification import CLASSIFICATION
from evosearch.tasks.fitting import require_fit
from tests.data.helpers import split_of

KINDS = {
    "train": splits.TrainSplit,
    "calibration": splits.CalibrationSplit,
    "search": splits.SearchSplit,
    "confirmation": splits.ConfirmationSplit,
}


def network():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten())
    return nn.Sequential(body, nn.Linear(2 * 4 * 4, 3)).train()


def data(**odd):
    """Returns splits of 6 images each, of which some have other images or labels."""
    parts = {}
    for first, (name, kind) in enumerate(KINDS.items()):
        images, labels = odd.get(name, (torch.zeros(6, 3, 4, 4), torch.tensor([0, 2, 1] * 2)))
        split = split_of(kind, images, labels)
        parts[name] = replace(split, indices=split.indices + 6 * first)
    return splits.SearchData(**parts)


def test_what_fits_passes_and_the_network_stays_as_it_was():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    require_fit(model, data(), CLASSIFICATION)
    require_fit(model, data(confirmation=(torch.zeros(0, 3, 4, 4), [])), CLASSIFICATION)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("position", range(6))
def test_a_label_that_the_network_has_no_class_for(name, position):
    labels = torch.tensor([0, 2, 1] * 2)
    labels[position] = 3
    odd = {name: (torch.zeros(6, 3, 4, 4), labels)}
    with pytest.raises(
        InputError, match=rf"\[data\] {name}: the data has label 3, the model only"
    ):
        require_fit(network(), data(**odd), CLASSIFICATION)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            torch.zeros(6, 4, 4, 3),
            [0] * 6,
            r"fails on images of shape \(4, 4, 3\): RuntimeError: ",
        ),
        (
            torch.zeros(6, 3, 5, 5),
            [0] * 6,
            r"fails on images of shape \(3, 5, 5\): RuntimeError: ",
        ),
        (torch.zeros(6, 3, 4, 4), [0.5] * 6, r"labels of shape \(2,\) and type torch.float32 are"),
        (torch.zeros(6, 3, 4, 4), [[0, 1]] * 6, r"labels of shape \(2, 2\) .* are no classes"),
    ],
)
def test_images_and_labels_that_do_not_fit(images, labels, message):
    with pytest.raises(InputError, match=r"\[data\] search: .*" + message) as caught:
        require_fit(network(), data(search=(images, labels)), CLASSIFICATION)
    assert "\n" not in str(caught.value)


def test_a_task_that_fails_is_named_too():
    def loss(output, target):
        return output.mean()

    task = replace(CLASSIFICATION, loss=loss)
    with pytest.raises(
        InputError, match=r"\[data\] train: \[task\] loss: expected one number per"
    ):
        require_fit(network(), data(), task)
