"""The `[data]` section, read from TOML."""

import pytest
from torchvision.transforms import v2

from evosearch.config import validated
from evosearch.data import config as dataconfig
from evosearch.data.config import DataConfig
from evosearch.errors import InputError

LEAST = {"name": "digits", "calibration": 8, "search": 12}


def test_every_allowed_name_is_a_transform_of_torchvision():
    for name in (*dataconfig.FIXED_TRANSFORMS, *dataconfig.RANDOM_TRANSFORMS):
        assert issubclass(getattr(v2, name), v2.Transform)


def test_a_name_alone_stands_for_a_transform_without_arguments():
    short = DataConfig(**LEAST, augment=["crop", {"name": "RandomErasing", "p": 0.5}])
    assert [entry.name for entry in short.augment] == ["crop", "RandomErasing"]
    assert short.augment[1].arguments == {"p": 0.5}
    assert DataConfig(**short.model_dump(mode="json")) == short


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transforms": [{"name": "Resise"}]}, "unknown transform 'Resise': did you mean 'Res"),
        ({"transforms": [{"name": "Lambda"}]}, "unknown transform 'Lambda': expected one of Cen"),
        ({"transforms": [{"name": "RandomCrop"}]}, "draws at random: it belongs in augment"),
        ({"transforms": [{"size": 3}]}, "data.transforms.0.name: Field required"),
        ({"augment": ["rotate"]}, "unknown augmentation 'rotate'"),
        ({"augment": [{"name": "flop"}]}, "did you mean 'flip'"),
        ({"augment": [{"name": "crop", "size": 3}]}, "'crop' takes border alone"),
        ({"augment": [{"name": "crop", "border": "miror"}]}, "'miror'.*mirror"),
        ({"augment": [{"name": "flip", "border": "mirror"}]}, "'flip' takes nothing"),
        ({"augment": [3]}, "data.augment.0"),
        ({"augment": "crop"}, "data.augment"),
        ({"search": 1}, "search must be 2 or more, or a file"),
        ({"serch": 1}, "did you mean 'search'"),
    ],
)
def test_what_is_refused_in_one_line(changes, message):
    from evosearch.run.spacefile import SpaceFile

    content = {"model": {"build": "a:b", "input": [1, 8, 8]}, "data": LEAST | changes}
    with pytest.raises(InputError, match=message) as caught:
        validated(SpaceFile, content, "space.toml")
    assert str(caught.value).startswith("space.toml: ")
    assert "\n" not in str(caught.value)
