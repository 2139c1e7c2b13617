"""The numerics of networks: the precision and the memory layout that they compute in."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from evosearch.callables import one_line
from evosearch.calling import Inputs, each

Precision = Literal["auto", "float32", "bfloat16"]
Layout = Literal["auto", "channels_last", "contiguous"]


@final
@dataclass(frozen=True, kw_only=True)
class Numerics:
    """What networks compute in; nothing of it is "auto".

    Attributes:
        precision: of convolutions and products. Weights stay float32; sums, normalisation and
            losses do too.
        layout: of images and two-dimensional kernels in memory. Convolutions run faster with
            channels last, and their outputs have the layout of their inputs; code that takes
            memory to be contiguous, such as `x.view(len(x), -1)`, fails on it.
    """

    precision: Precision
    layout: Layout

    def __str__(self) -> str:
        """Returns it as people read it: "float32, channels last"."""
        return f"{self.precision}, {self.layout.replace('_', ' ')}"

    def computing(self, device: torch.device) -> AbstractContextManager[object]:
        """Returns a context in which convolutions and products have this precision."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def images(self, images: Inputs) -> Inputs:
        """Returns images in this layout; tensors that are no images, as they are."""
        return each(self._laid, images)

    def _laid(self, tensor: Tensor) -> Tensor:
        if self.layout == "contiguous" or tensor.ndim != 4:
            return tensor
        return tensor.contiguous(memory_format=torch.channels_last)

    def network(self, network: nn.Module) -> nn.Module:
        """Puts the two-dimensional kernels of a network into this layout, in place.

        Other weights have no such layout, and stay as they are.

        Returns:
            The network.
        """
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.data = self._laid(tensor.data)
        return network


PLAIN = Numerics(precision="float32", layout="contiguous")
"""What every network works in: it is what people train and deploy networks in."""


def resolve_precision(precision: Precision, device: str) -> Precision:
    """Returns what "auto" stands for: bfloat16 where the device multiplies it faster."""
    if precision != "auto":
        return precision
    if torch.device(device).type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.device(device).type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return "bfloat16" if fast else "float32"


def fastest_numerics(
    device: torch.device, *, precision: Precision = "auto", layout: Layout = "auto"
) -> Numerics:
    """Returns numerics with what "auto" stands for: what is fastest on a device."""
    return Numerics(
        precision=resolve_precision(precision, str(device)),
        layout="channels_last" if layout == "auto" else layout,
    )


def first_working(
    wanted: Numerics, attempt: Callable[[Numerics], object]
) -> tuple[Numerics, str | None]:
    """Returns the first numerics that a network works in: those wanted, or a fallback.

    The layout falls back before the precision does, and `PLAIN` is last.

    Args:
        wanted: tried first.
        attempt: computes with the network, and raises where that fails.

    Returns:
        The numerics, and what the wanted ones failed with; None where these work.

    Raises:
        Exception: what the attempt raises in `PLAIN`.
    """
    *faster, plain = dict.fromkeys(
        Numerics(precision=precision, layout=layout)
        for precision in (wanted.precision, PLAIN.precision)
        for layout in (wanted.layout, PLAIN.layout)
    )
    failed = None
    for numerics in faster:
        try:
            attempt(numerics)
        except Exception as error:  # whatever the code of a network raises
            failed = failed or one_line(error)
        else:
            return numerics, failed
    attempt(plain)
    return plain, failed
