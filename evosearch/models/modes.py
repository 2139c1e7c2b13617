"""Training and evaluation mode of a model, put back afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def _modes_kept(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a model into eval mode inside the block, and every module's own mode back after it."""
    with in_mode(model, training=False):
        yield


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Puts a model into a mode inside the block, and every module's own mode back after it."""
    with _modes_kept(model):
        model.train(training)
        yield


@contextmanager
def training_structure(model: nn.Module) -> Iterator[None]:
    """Puts modules that hold others into training mode inside the block, and all others not."""
    with _modes_kept(model):
        for module in model.modules():
            module.training = next(module.children(), None) is not None
        yield
