"""Losses that networks compute themselves, as torchvision's detectors do while they train."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from evosearch.errors import InputError
from evosearch.machine import device_of, torch_seeded
from evosearch.models.modes import training_structure

Network = Callable[..., Any]
"""A network, or what stands for one."""
TrainingLoss = Callable[[Network, Any, Any], Any]
"""Network, images and target -> the loss of the batch, one number, or that of each image."""

SEED = 0
"""Of what a network draws for its loss on an image: the same for all networks and images."""


def summed_losses(network: Network, images: Tensor, target: Any) -> Tensor:
    """Returns the sum of the losses that a network in training mode returns by name.

    It is called as torchvision's detectors are: with a list of images and a list of targets.

    Raises:
        InputError: it returns something else.
    """
    returned = network(list(images), list(target))
    losses = list(returned.values()) if isinstance(returned, Mapping) else []
    if not losses or not all(isinstance(one, Tensor) and one.numel() == 1 for one in losses):
        raise InputError(
            "expected losses by name of the network in training mode, as torchvision's detectors"
            f" return them, got a {type(returned).__name__}; give [task] loss and predictions for"
            " one that returns raw outputs, or training_loss"
        )
    return torch.stack([one.reshape(()) for one in losses]).sum()


@contextmanager
def called_alone(network: nn.Module) -> Iterator[None]:
    """Makes calls of a network inside the block compute the losses of evaluation.

    Modules that hold others are in training mode, so that the network computes its losses; layers
    are not, so that BatchNorm has the statistics of evaluation and dropout drops nothing. What the
    network draws, such as the boxes that count, is drawn anew from one seed.

    Args:
        network: left in the mode that it was in.
    """
    with training_structure(network), torch_seeded(SEED, device_of(network)):
        yield
