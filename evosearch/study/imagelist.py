"""The images of a split as a list, name by name, and what became of them since."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import sha256

ImageList = Mapping[str, tuple[str, str]]
"""Name of an image -> digest of its content, and its label, in the order of the split.

A name is that of a file, relative to the data's root, such as `train/cat/0001.png`; of an image
that is in no file, `image 17` by its position in the source.
"""


def list_digest(images: ImageList) -> str:
    """Returns 32 hexadecimal digits that change with any name, image, label, or their order."""
    rows = [[name, *known] for name, known in images.items()]
    return sha256(json.dumps(rows).encode()).hexdigest()[:32]


def changes(before: Iterable[ImageList], now: Iterable[ImageList]) -> str:
    """Returns what became of images, such as "200 added, 1 changed in place: train/cat/0.png".

    Args:
        before: lists that are looked at together.
        now: those in their place.
    """
    old = {name: known for images in before for name, known in images.items()}
    new = {name: known for images in now for name, known in images.items()}
    gone = [name for name in old if name not in new]
    added: list[str] = []
    renamed: list[str] = []
    # An image that is gone and one that is added, with the same content, are one under two names.
    left = Counter(old[name][0] for name in gone)
    for name in new:
        if name in old:
            continue
        content, _ = new[name]
        (renamed if left[content] > 0 else added).append(name)
        left[content] -= 1
    both = [name for name in old if name in new]
    changed = [name for name in both if old[name][0] != new[name][0]]
    relabelled = [
        name for name in both if old[name][0] == new[name][0] and old[name][1] != new[name][1]
    ]
    found = []
    if added:
        found.append(f"{len(added)} added")
    if len(gone) > len(renamed):
        found.append(f"{len(gone) - len(renamed)} gone")
    named = {"renamed": renamed, "changed in place": changed, "relabelled": relabelled}
    found += [f"{len(names)} {what}: {_some(names)}" for what, names in named.items() if names]
    return ", ".join(found) or "divided otherwise"


def _some(names: list[str]) -> str:
    return min(names) + (" ..." if len(names) > 1 else "")
