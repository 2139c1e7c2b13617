"""Layers: what every call of a convolution or linear layer reads and writes; and products."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where the operator of a convolution reads, for each spatial dimension.

    What the code pads before it calls the operator is no part of it.

    Attributes:
        kernel: elements.
        stride: between output positions.
        padding: zeros that the operator adds before and after.
        dilation: between elements of the kernel.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One call of a convolution or linear layer.

    Attributes:
        operator: name of the operator, such as "conv2d".
        module: name of the module; a module that is called twice is two layers.
        weight: name of its weight.
        bias: name of its bias, if it has one.
        reads: dimension of the weight along which its input channels run; None where it passes
            channels through, as a depthwise convolution does.
        writes: dimension of the weight along which its output channels run.
        groups: conv groups.
        mixes: whether it reads every input channel for every output channel.
        norm: name of the torch BatchNorm that alone reads its output and reads nothing else; its
            statistics are estimated anew, and so absorb a constant shift.
        geometry: of a convolution; None for a linear layer.
        positions: where it is applied in one image; each element of the weight costs so many MACs.
        outputs: output elements for one image, for each position along `writes`.
    """

    operator: str
    module: str
    weight: str
    bias: str | None
    reads: int | None
    writes: int
    groups: int
    mixes: bool
    norm: str | None
    geometry: Geometry | None
    positions: int
    outputs: int

    @property
    def absorbs_shift(self) -> bool:
        """Whether a constant change of its inputs can be made good behind it."""
        return self.bias is not None or self.norm is not None


@dataclass(frozen=True, kw_only=True)
class Product:
    """One product of two activations, as attention has them, or of one and a fixed filter.

    Attributes:
        module: name of the module whose code calls it.
        macs: multiply-accumulates for one image.
        by_group: group name -> how many of them each of its channels has a part in.
    """

    module: str
    macs: int
    by_group: Mapping[str, int]
