"""The identity that a run began with, as its folder has it; imported without torch."""

import json
from pathlib import Path

from evosearch.run.folder import RunFolder
from evosearch.study.identity import Identity
from evosearch.study.records import Header


def recorded_identity(folder: Path, header: Header) -> Identity:
    """Returns the identity of a run with its images, where their list can be read.

    The study has the digests; the list only makes it plain what became of the images.

    Args:
        folder: of the run.
        header: of its study.
    """
    try:
        images = json.loads(RunFolder(folder).images.read_bytes())
    except (OSError, ValueError):
        return header.identity
    return header.identity.with_images(images) if isinstance(images, dict) else header.identity
