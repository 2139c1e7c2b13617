"""The precision and the memory layout that networks compute in."""

from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor, nn

Precision = Literal["auto", "float32", "bfloat16"]


def resolve_precision(precision: Precision, device: str) -> Precision:
    """Returns what "auto" stands for: bfloat16 where the device multiplies it faster."""
    if precision != "auto":
        return precision
    if torch.device(device).type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.device(device).type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return "bfloat16" if fast else "float32"


def computing_in(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Returns a context in which convolutions and products take bfloat16, where that is asked.

    Weights stay float32; sums, normalisation and losses do too.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def channels_last(network: nn.Module) -> nn.Module:
    """Puts the channels of a network's two-dimensional weights last in memory, in place.

    Their convolutions run faster so, and their outputs have the layout of their inputs. Weights of
    other convolutions have no such layout, and stay as they are.

    Returns:
        The network.
    """
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim == 4:
            tensor.data = images_last(tensor.data)
    return network


def images_last(images: Tensor) -> Tensor:
    """Returns images with their channels last in memory, other tensors as they are."""
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images
