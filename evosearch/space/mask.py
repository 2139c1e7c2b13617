"""Channel groups, and which of their channels a candidate keeps."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import final

import numpy as np
from numpy.typing import NDArray

from evosearch.errors import InputError

Bits = NDArray[np.bool_]
_LISTED = 6
"""Groups whose widths a mask prints one by one, at most."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """Where a group's channels live in one tensor of the network.

    Attributes:
        tensor: name of a parameter or buffer, as in the state dict; or of an integer that a
            module keeps, alone or in a sequence (`norm.num_groups`, `conv.splits.1`), which
            counts as a tensor of one dimension.
        dim: the dimension that the channels run along.
        positions: indices along `dim`, channel by channel: with r positions per channel (a
            flattened map has as many as it has pixels), channel j owns `positions[j*r:(j+1)*r]`.
    """

    tensor: str
    dim: int
    positions: tuple[int, ...]

    def __repr__(self) -> str:
        return f"Member({self.tensor}[{self.dim}], {len(self.positions)} positions)"


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that the network couples; each is kept or dropped as one.

    Attributes:
        name: the first module that writes the channels.
        size: number of channels.
        members: every place in a parameter or buffer that the channels occupy.
        min_keep: fewest channels that may stay.
        multiple_of: widths below `size` are multiples of this.
    """

    name: str
    size: int
    members: tuple[Member, ...] = ()
    min_keep: int = 1
    multiple_of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.min_keep <= self.size:
            raise InputError(
                f"group {self.name!r}: min_keep must be from 1 to its size {self.size},"
                f" not {self.min_keep}"
            )
        if self.multiple_of < 1:
            raise InputError(f"group {self.name!r}: multiple_of must be 1 or more")

    def __repr__(self) -> str:
        rules = [f"min_keep {self.min_keep}"] if self.min_keep > 1 else []
        rules += [f"multiple_of {self.multiple_of}"] if self.multiple_of > 1 else []
        parts = [f"size {self.size}", f"members {len(self.members)}", *rules]
        return f"ChannelGroup({self.name}: {', '.join(parts)})"

    @cached_property
    def _legal_widths(self) -> tuple[int, ...]:
        first = -(-self.min_keep // self.multiple_of) * self.multiple_of
        return (*range(first, self.size, self.multiple_of), self.size)

    def legal_widths(self) -> tuple[int, ...]:
        """Returns the widths that a mask may have here, in ascending order; the last is `size`."""
        return self._legal_widths

    def index(self, member: Member) -> NDArray[np.int64]:
        """Returns a member's positions, `(size, positions per channel)`."""
        return np.asarray(member.positions, dtype=np.int64).reshape(self.size, -1)


@final
class Mask(Mapping[str, Bits]):
    """A keep mask: for each group a read-only boolean array, True where a channel stays.

    Masks are values: equal when the same channels of the same groups stay, and hashable.
    """

    __slots__ = ("_bits", "_key")

    def __init__(self, bits: Mapping[str, Bits]) -> None:
        """Copies `bits`: group name -> booleans `(channels,)`."""
        self._bits: dict[str, Bits] = {}
        for name, values in bits.items():
            copy = np.array(values, dtype=np.bool_)
            if copy.ndim != 1:
                raise InputError(
                    f"mask of group {name!r}: expected one dimension, got {copy.ndim}"
                )
            copy.flags.writeable = False
            self._bits[name] = copy
        self._key: str | None = None

    def __getitem__(self, group: str) -> Bits:
        return self._bits[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self._bits)

    def __len__(self) -> int:
        return len(self._bits)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        widths = self.widths
        if len(widths) <= _LISTED:
            return f"Mask({', '.join(f'{name}={width}' for name, width in widths.items())})"
        channels = sum(bits.size for bits in self._bits.values())
        return f"Mask({sum(widths.values())} of {channels} channels in {len(widths)} groups)"

    def then(self, inner: "Mask") -> "Mask":
        """Returns the mask that keeps, of the channels kept here, those that `inner` keeps.

        Args:
            inner: of the network that this mask leaves.

        Raises:
            InputError: `inner` is of a network with other groups or widths.
        """
        if self.widths != {name: bits.size for name, bits in inner.items()}:
            raise InputError(f"{inner!r} is not of the network that {self!r} leaves")
        both = {name: bits.copy() for name, bits in self.items()}
        for name, bits in both.items():
            bits[bits] = inner[name]
        return Mask(both)

    @property
    def widths(self) -> dict[str, int]:
        """Number of channels kept in each group."""
        return {name: int(bits.sum()) for name, bits in self._bits.items()}

    @property
    def key(self) -> str:
        """32 hexadecimal digits that tell this mask from every other."""
        if self._key is None:
            content = [self.to_json(), {n: b.size for n, b in self._bits.items()}]
            text = json.dumps(content, sort_keys=True)
            self._key = sha256(text.encode()).hexdigest()[:32]
        return self._key

    def to_json(self) -> dict[str, str]:
        """Returns each group's bits in hexadecimal, first channel in the highest bit."""
        return {name: np.packbits(bits).tobytes().hex() for name, bits in self._bits.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, str], sizes: Mapping[str, int]) -> "Mask":
        """Reads what `to_json` wrote.

        Args:
            data: group name -> hexadecimal bits.
            sizes: group name -> number of channels.

        Raises:
            InputError: the groups differ, or a group's bits are not hexadecimal or too few.
        """
        if set(data) != set(sizes):
            raise InputError(f"mask names groups {sorted(data)}, the space has {sorted(sizes)}")
        bits = {}
        for name, size in sizes.items():
            try:
                packed = np.frombuffer(bytes.fromhex(data[name]), dtype=np.uint8)
            except ValueError as error:
                raise InputError(f"mask of group {name!r}: not hexadecimal ({error})") from error
            if packed.size != -(-size // 8):
                raise InputError(
                    f"mask of group {name!r}: {packed.size} bytes for {size} channels"
                )
            bits[name] = np.unpackbits(packed, count=size).astype(np.bool_)
        return cls(bits)
