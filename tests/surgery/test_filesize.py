"""The form of a weights file's size against the files themselves."""

from pathlib import Path

import pytest

from evosearch.models.weights import save_weights
from evosearch.surgery.compaction import compact
from evosearch.surgery.filesize import HEADER
from tests.surgery.cases import CASES, discovered, random_masks


@pytest.mark.parametrize("name", CASES)
def test_no_file_is_larger_than_said_and_the_whole_network_s_is_as_said(
    name: str, tmp_path: Path
) -> None:
    found = discovered(name)
    space = found.discovery.space
    header = dict(space.parts("size"))[HEADER][0].coefficient
    for mask in [space.full_mask(), *random_masks(space, 3)]:
        small = compact(found.model, space.groups, mask)
        save_weights(small, tmp_path / "small.safetensors")
        actual, said = (tmp_path / "small.safetensors").stat().st_size, space.cost(mask).size
        if mask == space.full_mask():
            assert actual == said
        assert said - 0.2 * header <= actual <= said


def test_a_plain_network_by_hand() -> None:
    """conv1 3 -> 4 with a BatchNorm, conv2 4 -> 6 with a bias, linear 96 -> 5, in float32."""
    space = discovered("plain").discovery.space
    header = dict(space.parts("size"))[HEADER][0].coefficient
    numbers = 4 * 3 * 9 + 4 * 4 + (6 * 4 * 9 + 6) + (96 * 5 + 5)
    assert space.base_cost.size == 4 * numbers + 8 + header  # and one counter of batches
    fewer = 3 * 3 * 9 + 4 * 3 + (2 * 3 * 9 + 2) + (32 * 5 + 5)
    assert space.cost_of_widths([3, 2]).size == 4 * fewer + 8 + header
