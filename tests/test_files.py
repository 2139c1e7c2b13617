"""Files that several processes write at the same time: whole, and none of the writers fails."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evosearch.files import replacing, write_text
from evosearch.models import weights


def test_weights_that_another_process_caches_meanwhile_are_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "base.safetensors"
    mine, other = nn.Linear(2, 2), nn.Linear(2, 2)
    others = [other]
    as_bytes = weights.save

    def with_another_writer(tensors: dict[str, Tensor], **options: Any) -> bytes:
        if others:  # comes in before the file has its name
            weights.save_weights(others.pop(), path)
            weights.load_weights(other, path)
        return as_bytes(tensors, **options)

    monkeypatch.setattr(weights, "save", with_another_writer)
    weights.save_weights(mine, path)
    weights.load_weights(other, path)
    assert torch.equal(other.weight, mine.weight)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_two_that_write_the_same_file_have_names_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with replacing(path) as first, replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
        assert not path.exists()
    assert path.read_text() == "first"  # whose block ended last
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "before")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half \ud800")  # which no UTF-8 says
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
