"""The identity of what a run is about: digests of contents, never of names."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any, final

from evosearch.errors import InputError
from evosearch.study.imagelist import ImageList, changes, list_digest

ARITHMETIC = "1"
"""Raised whenever evosearch comes to score, train or cut the same contents otherwise."""


class Part(StrEnum):
    """What an identity is made of; a part's value is a digest, or a version as it is written."""

    GRAPH = "graph"
    WEIGHTS = "weights"
    ELASTIC = "elastic"
    TRAIN = "train"
    CALIBRATION = "calibration"
    SEARCH = "search"
    CONFIRMATION = "confirmation"
    TEST = "test"
    PREPARATION = "preparation"
    TASK = "task"
    EVOSEARCH = "evosearch"
    TORCH = "torch"
    TORCHVISION = "torchvision"
    PILLOW = "pillow"


SPLITS = (Part.TRAIN, Part.CALIBRATION, Part.SEARCH, Part.CONFIRMATION, Part.TEST)
"""The parts that are the images and labels of a split."""
VERSIONS = (Part.EVOSEARCH, Part.TORCH, Part.TORCHVISION, Part.PILLOW)
"""The parts that are versions."""
_WORDS = {
    Part.GRAPH: "the model's graph (its code)",
    Part.WEIGHTS: "the weights of the base network",
    Part.ELASTIC: "the elastic weights, or how candidates are made of them",
    Part.PREPARATION: "what is done to images ([data] mean, std, transforms, augment)",
    Part.TASK: "the code of the task ([task])",
    Part.EVOSEARCH: "evosearch's arithmetic",
}


@final
@dataclass(frozen=True, kw_only=True)
class Identity:
    """Digests of contents, by part: two things are the same where all of them are equal.

    Attributes:
        parts: those that are known; a part that only one of two identities has is a difference.
        images: the images behind the parts of `SPLITS`, where they are at hand. They make a
            message exact, and are neither compared nor written with the identity.
    """

    parts: Mapping[Part, str]
    images: Mapping[Part, ImageList] = field(default_factory=dict, compare=False, repr=False)

    def __repr__(self) -> str:
        return f"Identity({self.key(*self.parts)}: {', '.join(self.parts)})"

    def differences(self, now: "Identity") -> list[str]:
        """Returns what another identity has otherwise than this one, each in a few words.

        Args:
            now: the identity that came later, for "was" and "is".
        """
        differing = [part for part in Part if self.parts.get(part) != now.parts.get(part)]
        splits = [part for part in differing if part in SPLITS]
        found = [_WORDS[part] for part in differing if part not in (*SPLITS, *VERSIONS)]
        if splits:
            found.append(self._of_splits(now, splits))
        return found + [
            f"{_WORDS.get(part, part)} (was {self.parts.get(part, 'not recorded')},"
            f" is {now.parts.get(part, 'not recorded')})"
            for part in differing
            if part in VERSIONS
        ]

    def require_same(self, now: "Identity", *, where: str, advice: str) -> None:
        """Checks that nothing differs.

        Args:
            now: the identity that came later.
            where: what is of this identity, such as a run's folder.
            advice: what to do about a difference.

        Raises:
            InputError: something does; one line that names it.
        """
        found = self.differences(now)
        if found:
            raise InputError(f"{where}: no longer the same: {'; '.join(found)}; {advice}")

    def only(self, parts: Collection[Part]) -> "Identity":
        """Returns the identity of some parts alone, of those that are known."""
        return Identity(
            parts={part: value for part, value in self.parts.items() if part in parts},
            images={part: images for part, images in self.images.items() if part in parts},
        )

    def key(self, *parts: Part, settings: Mapping[str, Any] | None = None) -> str:
        """Returns 16 hexadecimal digits for what follows from some parts, such as a cache's.

        Args:
            parts: all that it follows from, of those that are known.
            settings: what else it follows from, as JSON.
        """
        chosen = {part: self.parts[part] for part in sorted(parts)}
        text = json.dumps([chosen, settings], sort_keys=True)
        return sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, str]:
        """Returns the digests as JSON, in a fixed order."""
        return {part.value: self.parts[part] for part in Part if part in self.parts}

    @classmethod
    def from_json(cls, data: Mapping[str, str]) -> "Identity":
        """Reads what `to_json` wrote.

        Raises:
            InputError: another version wrote it.
        """
        unknown = sorted(set(data) - set(Part))
        if unknown:
            raise InputError(f"an identity with {unknown[0]!r}, which this version does not know")
        return cls(parts={Part(name): value for name, value in data.items()})

    def images_to_json(self) -> dict[str, Any]:
        """Returns the images at hand as JSON; they are no part of `to_json`."""
        return {part.value: dict(images) for part, images in self.images.items()}

    def with_images(self, data: Mapping[str, Any]) -> "Identity":
        """Returns this identity with the images that `images_to_json` wrote.

        Those that are not what this identity is about, or cannot be read, are left out.
        """
        images = {}
        for part in SPLITS:
            try:
                found = {name: (content, label) for name, (content, label) in data[part].items()}
            except (AttributeError, KeyError, TypeError, ValueError):
                continue
            if list_digest(found) == self.parts.get(part):
                images[part] = found
        return Identity(parts=self.parts, images=images)

    def _of_splits(self, now: "Identity", splits: list[Part]) -> str:
        names = " and ".join([", ".join(splits[:-1]), splits[-1]] if splits[1:] else splits)
        text = f"the images of the {names} {'splits' if splits[1:] else 'split'}"
        if any(part not in self.images or part not in now.images for part in splits):
            return text
        before, after = ([one.images[part] for part in splits] for one in (self, now))
        return f"{text} ({changes(before, after)})"
