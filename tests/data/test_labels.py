"""Labels that are nests of tensors: read, chosen, told apart, and split with their images."""

import numpy as np
import pytest
import torch

from evosearch.data import splits as data
from evosearch.data.config import DataConfig
from evosearch.data.contents import listed_images
from evosearch.data.labels import (
    NestedLabels,
    are_classes,
    class_numbers,
    kind_of,
    label_texts,
    read_labels,
    same_label,
    together,
)
from evosearch.errors import InputError

SCENES = [
    {"boxes": np.zeros((2, 4), np.float32), "labels": [3, 5]},
    {"labels": [1], "boxes": np.ones((1, 4), np.float32)},
    {"boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64)},
]


def test_ragged_nests_are_tensors_by_name():
    labels = read_labels(SCENES)
    assert isinstance(labels, NestedLabels)
    assert [len(each["boxes"]) for each in labels.each] == [2, 1, 0]
    assert labels.each[0]["labels"].tolist() == [3, 5]
    assert kind_of(labels) == "{boxes: float32 (rows, 4), labels: int64 (rows)}"
    assert repr(labels) == "NestedLabels(3 x {boxes: float32 (rows, 4), labels: int64 (rows)})"


@pytest.mark.parametrize(
    "chosen", [[2, 0], np.array([2, 0]), torch.tensor([2, 0]), slice(None, None, -2)]
)
def test_a_choice_of_nests(chosen):
    own = read_labels(SCENES)[chosen]
    assert [len(each["boxes"]) for each in own.each] == [0, 2]
    assert len(together([own, own.to("cpu")])) == 4


def test_a_dict_of_columns_is_a_nest_for_each_image():
    labels = read_labels({"angle": [0.5, 1.0], "mask": np.arange(8).reshape(2, 2, 2)})
    assert labels.each[1]["angle"].item() == 1.0
    assert labels.each[1]["mask"].tolist() == [[4, 5], [6, 7]]


def test_tuples_of_arrays_are_nests_and_tuples_of_numbers_are_rows():
    nests = read_labels([(np.zeros(2), np.zeros(2)), (np.ones(1), np.ones(1))])
    assert kind_of(nests) == "(float64 (rows), float64 (rows))"
    rows = read_labels([(1, 2), (3, 4)])
    assert rows.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"a": 1}, {"b": 1}], r"image 1: a label of \{b: int64\}, while the first has \{a: int"),
        ([{"a": 1}, {"a": 1.5}], r"image 1: a label of \{a: float32\}"),
        ([{"a": np.zeros((1, 4))}, {"a": np.zeros((1, 5))}], r"\(rows, 5\)\}, while .*rows, 4"),
        ([{"a": 1}, {"a": "cat"}], "image 1: a label that is no number: .*; expected an integer"),
        ([{"a": 1.0}, {"a": float("nan")}], "labels hold values that are not finite"),
        ({"a": [1, 2], "b": [1]}, r"labels by name, of \{'a': 2, 'b': 1\} images"),
        ({}, "labels by name, of no images"),
        ({"a": 3}, "labels 'a': expected an array or a list, got 3"),
        (["cat", "dog"], "labels that are no array of numbers"),
    ],
)
def test_labels_that_are_refused(given, message):
    with pytest.raises(InputError, match=message) as error:
        read_labels(given)
    assert "\n" not in str(error.value)


def test_classes_are_whole_numbers_alone():
    assert are_classes(torch.tensor([1, 2]))
    assert not are_classes(torch.tensor([1.0, 2.0]))
    assert not are_classes(torch.zeros(2, 3, dtype=torch.int64))
    assert not are_classes(read_labels(SCENES))
    assert class_numbers(torch.tensor([2, 0])).tolist() == [2, 0]
    assert class_numbers(read_labels(SCENES)).tolist() == [0, 0, 0]


def test_the_text_of_a_nest_changes_with_each_value_its_place_and_its_type():
    def text(nest):
        return label_texts(read_labels([nest, nest]))[0]

    first = {"a": [1, 2], "b": [3]}
    assert text(first) == text({"b": [3], "a": [1, 2]})
    others = [
        {"a": [1, 3], "b": [3]},
        {"a": [1], "b": [2, 3]},
        {"a": [3], "b": [1, 2]},
        {"a": [1.0, 2.0], "b": [3]},
        {"a": [[1, 2]], "b": [3]},
        {"c": [1, 2], "b": [3]},
    ]
    assert len({text(nest) for nest in [first, *others]}) == 1 + len(others)
    assert not same_label(*read_labels([{"a": [1]}, {"a": [1, 1]}]).each)


SOURCE = """
import numpy as np

class Scenes:
    def __init__(self, first, count):
        self.first, self.count = first, count

    def __len__(self):
        return self.count

    def __getitem__(self, position):
        number = self.first + position
        image = np.full((1, 4, 4), number, np.float32)
        return image, {"boxes": np.full((number % 3, 4), number, np.float32), "number": number}

def datasets():
    return Scenes(0, 20), Scenes(20, 6)

def arrays():
    parts = [[scenes[i] for i in range(len(scenes))] for scenes in datasets()]
    return [(np.stack([x for x, _ in part]), [y for _, y in part]) for part in parts]
"""


@pytest.mark.parametrize("name", ["datasets", "arrays"])
def test_splits_hold_the_nests_of_their_images(tmp_path, name):
    (tmp_path / "scenes.py").write_text(SOURCE)
    config = DataConfig(name=f"scenes.py:{name}", calibration=4, search=6)
    found = data.load_search_data(config, tmp_path)
    for part in (found.train, found.calibration, found.search):
        for images, labels in part.batches(4):
            numbers = [nest["number"].item() for nest in labels.each]
            assert images[:, 0, 0, 0].tolist() == numbers
            assert [len(nest["boxes"]) for nest in labels.each] == [n % 3 for n in numbers]
    _, drawn = found.train.batch(torch.tensor([3, 1]), torch.Generator())
    assert [nest["number"].item() for nest in drawn.each] == found.train.indices[[3, 1]].tolist()
    texts = {label for _, label in listed_images(found.search).values()}
    assert len(texts) == 6
    assert data.load_test_split(config, tmp_path).labels.each[0]["number"].item() == 20


def test_augmentation_that_would_leave_boxes_behind_is_refused(tmp_path):
    (tmp_path / "scenes.py").write_text(SOURCE)
    config = DataConfig(name="scenes.py:arrays", calibration=4, search=6, augment=("flip",))
    message = r"but not their labels \{boxes: float32 \(rows, 4\), number: int64\}; leave both"
    with pytest.raises(InputError, match=message):
        data.load_search_data(config, tmp_path)
