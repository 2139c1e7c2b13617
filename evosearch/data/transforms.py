"""Image transforms by name, built as callables of `torchvision.transforms.v2`."""

from collections.abc import Callable, Sequence
from typing import Any

from evosearch.callables import one_line
from evosearch.data.config import TransformConfig
from evosearch.errors import InputError

Transform = Callable[[Any], Any]


def build_transform(entries: Sequence[TransformConfig], where: str) -> Transform | None:
    """Returns transforms done one after the other; none where there are none.

    Args:
        entries: names that were checked to be of `torchvision.transforms.v2`, with arguments.
        where: the key that holds them, for messages.

    Raises:
        InputError: a transform refuses its arguments.
    """
    if not entries:
        return None
    from torchvision.transforms import v2

    steps = []
    for entry in entries:
        arguments = entry.arguments
        try:
            if "interpolation" in arguments:
                arguments["interpolation"] = v2.InterpolationMode(arguments["interpolation"])
            steps.append(getattr(v2, entry.name)(**arguments))
        except Exception as error:
            raise InputError(f"{where}: {entry.name}: {one_line(error)}") from error
    composed: Transform = v2.Compose(steps)
    return composed
