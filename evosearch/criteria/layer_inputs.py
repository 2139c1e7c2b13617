"""Hooks on the inputs of the layers that read channels: there a dropped channel is missing."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from evosearch.criteria.scored_network import ScoredNetwork
from evosearch.errors import InputError
from evosearch.models.modes import evaluating
from evosearch.surgery.cut_attention import projections_called
from evosearch.surgery.reach import require_in_sight

OnInput = Callable[[str, Tensor], Tensor | None]
"""Module name and its input -> the input that it gets in place of that, or None."""


@contextmanager
def input_hooks(network: ScoredNetwork, on_input: OnInput) -> Iterator[nn.Module]:
    """Gives the model in eval mode, with a hook before each layer that reads scored channels.

    Modes are back and the hooks gone afterwards, whatever happens inside.

    Raises:
        InputError: a layer's weight does not belong to a linear or convolution module.
    """
    with ExitStack() as stack:
        stack.enter_context(evaluating(network.model))
        stack.enter_context(projections_called(network.model))
        for name in network.inputs:
            module = network.model.get_submodule(name)
            require_in_sight(name, module)
            handle = module.register_forward_pre_hook(partial(_call, name, on_input))
            stack.callback(handle.remove)
        yield network.model


def _call(
    name: str, on_input: OnInput, _module: nn.Module, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...] | None:
    replaced = on_input(name, inputs[0])
    return None if replaced is None else (replaced, *inputs[1:])


def stacked(group: str, calls: Sequence[Tensor]) -> Tensor:
    """Returns what was found at each call of a group's readers, in one tensor.

    Raises:
        InputError: no reader was called.
    """
    if not calls:
        raise InputError(
            f"group {group!r}: none of the modules that read it was called; exclude what writes it"
        )
    return torch.stack([*calls])
