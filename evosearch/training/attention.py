"""Attention transfer: the loss between attention maps, and the layers that have them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from evosearch.calling import Inputs, call
from evosearch.errors import InputError
from evosearch.machine import device_of
from evosearch.models.modes import evaluating


def attention_map(features: Tensor) -> Tensor:
    """Returns where a layer looks: the sum over channels of its squares, of unit length.

    Zagoruyko and Komodakis 2017, section 3.1 (`F_sum^2`). Its size does not depend on the number
    of channels, so a pruned layer can be compared with the layer that it came from.

    Args:
        features: `(images, channels, height, width)`.

    Returns:
        `(images, height * width)`.
    """
    return functional.normalize(features.float().square().sum(1).flatten(1), dim=1)


def attention_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Returns half the squared distance of attention maps, summed over layers, mean over images.

    Zagoruyko and Komodakis 2017, eq. 2, with the distance squared as in their code; Hu et al.
    2018 fine-tune pruned networks with it.

    Args:
        student: one map per layer, `(images, positions)`.
        teacher: likewise.
    """
    pairs = zip(student, teacher, strict=True)
    return torch.stack([0.5 * (s - t).square().sum(1).mean() for s, t in pairs]).sum()


def attention_layers(
    teacher: nn.Module, student: nn.Module, images: Inputs, patterns: Sequence[str]
) -> tuple[str, ...]:
    """Returns the modules whose attention maps are to be matched, in the teacher's order.

    Args:
        teacher: not changed.
        student: not changed.
        images: at least one.
        patterns: of module names; empty takes the last module of each image size.

    Raises:
        InputError: a pattern matches no feature maps of one size in both networks, or there
            are none.
    """
    sizes = _image_sizes(teacher, images)
    shared = {n: size for n, size in _image_sizes(student, images).items() if sizes.get(n) == size}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in shared):
            raise InputError(
                f"[finetune] attention_layers: {pattern!r} matches no module that gives feature"
                " maps of one size in both networks"
            )
    if patterns:
        return tuple(
            name
            for name in sizes
            if name in shared and any(fnmatchcase(name, p) for p in patterns)
        )
    last = {size: name for name, size in sizes.items() if name in shared}
    if not last:
        raise InputError("[finetune] attention: the networks share no feature maps; set it to 0")
    return tuple(last.values())


def _image_sizes(model: nn.Module, images: Inputs) -> dict[str, tuple[int, ...]]:
    """Returns the height and width of every module's feature maps, in the order of their end."""
    names = [name for name, _ in model.named_modules() if name]
    with evaluating(model), torch.no_grad(), module_outputs(model, names) as outputs:
        call(model, images.to(device_of(model)))
    return {
        name: tuple(output.shape[2:])
        for name, output in outputs.items()
        if output.ndim == 4 and output.shape[2:].numel() > 1
    }


@contextmanager
def module_outputs(model: nn.Module, names: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
    """Yields what the named modules gave in the latest forward pass, in the order of their end."""
    outputs: dict[str, Tensor] = {}

    def watch(name: str) -> RemovableHandle:
        def keep(_module: nn.Module, _inputs: object, output: object) -> None:
            outputs.pop(name, None)
            if isinstance(output, Tensor):
                # A clone, because the next module may work in place.
                outputs[name] = output.clone()

        return model.get_submodule(name).register_forward_hook(keep)

    handles = [watch(name) for name in names]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
