"""Images that are several tensors each, such as a picture with a mask: inputs of one network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar, final

from torch import Tensor

from evosearch.calling import SeveralInputs
from evosearch.data.images import Images, Positions

A = TypeVar("A")
B = TypeVar("B")


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class SeveralImages:
    """A choice of images of which each is several tensors, read together.

    Attributes:
        parts: by their place in the network's call, or by name.
    """

    parts: tuple[Images, ...] | Mapping[str, Images]

    def __len__(self) -> int:
        return len(self.each[0])

    def __getitem__(self, chosen: Positions) -> SeveralInputs:
        """Returns what a network is called with for some of these images."""
        read: Callable[[Images], Tensor] = lambda images: images[chosen]  # noqa: E731
        return SeveralInputs(parts=mapped(read, self.parts))

    @property
    def each(self) -> tuple[Images, ...]:
        """What there is of every image, one kind after the other."""
        return tuple(self.parts.values() if isinstance(self.parts, Mapping) else self.parts)

    @property
    def files(self) -> None:
        """None: these images are not a file each."""

    @property
    def thread_safe(self) -> bool:
        """See `Pixels.thread_safe`."""
        return all(images.thread_safe for images in self.each)

    @property
    def shape(self) -> Any:
        """The shapes of one image's tensors."""
        return mapped(lambda images: images.shape, self.parts)

    def select(self, chosen: Positions) -> Self:
        """Returns a choice of these images; none is read or copied."""
        return self.map(lambda images: images.select(chosen))

    def map(self, function: Callable[[Images], Images]) -> Self:
        """Returns what a function makes of each kind."""
        return type(self)(parts=mapped(function, self.parts))


AnyImages = Images | SeveralImages


def is_several(images: Any) -> bool:
    """Returns whether what a source gives for images is several tensors: a tuple, or by name."""
    return isinstance(images, tuple | Mapping)


def mapped(
    function: Callable[[A], B], parts: tuple[A, ...] | Mapping[str, A]
) -> tuple[B, ...] | dict[str, B]:
    """Returns what a function makes of each of several, under their names."""
    if isinstance(parts, Mapping):
        return {str(name): function(own) for name, own in parts.items()}
    return tuple(map(function, parts))
