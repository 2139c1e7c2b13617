"""Knowledge on disk."""

import os
from pathlib import Path

import numpy as np
import pytest

from evosearch.errors import InputError
from evosearch.space.knowledge import Knowledge, SensitivityCurve

KNOWLEDGE = Knowledge(
    gram={("a", "a"): np.eye(3), ("a", "b.c"): np.arange(6.0).reshape(3, 2)},
    scores={"l1": {"a": np.array([1.0, 2, 3])}, "taylor": {"a": np.zeros(3), "b.c": np.ones(2)}},
    sensitivity={
        "a": SensitivityCurve(widths=np.array([1, 3]), loss_increase=np.array([0.5, 0.0]))
    },
)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "knowledge.npz"
    KNOWLEDGE.save(path)
    again = Knowledge.load(path)
    assert again.gram.keys() == KNOWLEDGE.gram.keys()
    for key, block in KNOWLEDGE.gram.items():
        np.testing.assert_array_equal(again.gram[key], block)
    assert {c: set(groups) for c, groups in again.scores.items()} == {
        "l1": {"a"},
        "taylor": {"a", "b.c"},
    }
    np.testing.assert_array_equal(again.scores["taylor"]["b.c"], [1, 1])
    curve = again.sensitivity["a"]
    assert curve.widths.tolist() == [1, 3]
    assert curve.widths.dtype.kind == "i"
    assert curve.loss_increase.tolist() == [0.5, 0]
    assert os.listdir(tmp_path) == ["knowledge.npz"]


def test_without_sensitivity(tmp_path: Path) -> None:
    Knowledge(gram=KNOWLEDGE.gram, scores={}).save(tmp_path / "k.npz")
    again = Knowledge.load(tmp_path / "k.npz")
    assert (again.sensitivity, again.scores) == ({}, {})


def test_saving_again_replaces(tmp_path: Path) -> None:
    KNOWLEDGE.save(tmp_path / "k.npz")
    Knowledge(gram={("z", "z"): np.ones((1, 1))}, scores={}).save(tmp_path / "k.npz")
    assert list(Knowledge.load(tmp_path / "k.npz").gram) == [("z", "z")]


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.path),))


def test_a_pickle_inside_is_refused(tmp_path: Path) -> None:
    planted = np.array([Hostile(tmp_path / "planted")], dtype=object)
    np.savez(tmp_path / "k.npz", **{"gram|a|a": planted})
    with pytest.raises(InputError, match=r"k\.npz: damaged; evosearch resume measures it again"):
        Knowledge.load(tmp_path / "k.npz")
    assert not (tmp_path / "planted").exists()
