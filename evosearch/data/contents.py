"""The contents of a split: its images and labels, told apart by digests."""

import hashlib
import json
from pathlib import Path

from evosearch.data.config import DataConfig
from evosearch.data.filedigests import file_digests
from evosearch.data.imagecache import image_hashes
from evosearch.data.labels import label_texts
from evosearch.data.pools import Pool
from evosearch.data.sources import load_pools
from evosearch.data.splits import (
    CalibrationSplit,
    ConfirmationSplit,
    SearchSplit,
    TestSplit,
    TrainSplit,
    image_names,
    require_alike,
)


def listed_images(
    split: TrainSplit | CalibrationSplit | SearchSplit | ConfirmationSplit | TestSplit | Pool,
) -> dict[str, tuple[str, str]]:
    """Returns every image of a split by name, with a digest of its content and its label.

    An image in a file is told apart by the file's bytes, which are read once (`file_digests`);
    any other by its pixels as the source gives them, which are all read each time.

    Raises:
        InputError: an image cannot be read.
    """
    images, files = split.images, split.images.files
    if files is None:
        contents = [row.tobytes().hex() for row in image_hashes(images)]
    else:
        contents = file_digests(files.root, files.names)
    known = zip(contents, label_texts(split.labels), strict=True)
    return dict(zip(image_names(images, split.indices), known, strict=True))


def listed_test_images(
    config: DataConfig, folder: Path, *, like: TrainSplit | None = None
) -> dict[str, tuple[str, str]]:
    """Returns the images of the test split, as `listed_images`; nothing else comes to see them.

    The data's source is opened for it once more, as for the final report.

    Args:
        config: the `[data]` section.
        folder: where the space file lies.
        like: training images, whose kind those of the test split have to be of.

    Raises:
        InputError: an image cannot be read, or is of another kind.
    """
    pool = load_pools(config, folder)["test"]()
    if like is not None:
        require_alike(like, pool, "test")
    return listed_images(pool)


def preparation_digest(config: DataConfig) -> str:
    """Returns 32 hexadecimal digits that change with what is done to images before a network."""
    done = config.model_dump(mode="json", include={"mean", "std", "transforms", "augment"})
    return hashlib.sha256(json.dumps(done, sort_keys=True).encode()).hexdigest()[:32]
