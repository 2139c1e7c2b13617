"""Proof that the channel groups of a model are right, on the user's own model."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evosearch.mask import ChannelGroup, Mask
from evosearch.seeding import Stream, generator, integer
from evosearch.space import FrozenGroup
from evosearch.surgery.compaction import compact, masked
from evosearch.surgery.tracing import Layer, Trace

TOLERANCE = 1e-9
"""Largest relative difference between the compacted and the masked network, in float64."""
MOVES = 1e-3
"""Smallest relative change of the output by which dropping channels counts as real."""
JOINT_MASKS = 5
"""Random masks over all groups together, after each group was proven alone."""


@dataclass(frozen=True, kw_only=True)
class GroupProof:
    """What was measured when one group lost a random half of its channels.

    Attributes:
        group: its name.
        error: relative difference of the compacted and the masked network's outputs.
        effect: relative difference of the masked and the whole network's outputs.
    """

    group: str
    error: float
    effect: float

    @property
    def failure(self) -> str | None:
        """Why the group is unproven; None where it is proven."""
        if not self.error <= TOLERANCE:
            return f"proof failed: compacted and masked network differ by {self.error:.1e}"
        if not self.effect > MOVES:
            return f"unproven: dropping channels moves the output by only {self.effect:.1e}"
        return None


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The groups that hold, what was measured on each, and those that are frozen."""

    groups: tuple[ChannelGroup, ...]
    measured: tuple[GroupProof, ...]
    frozen: tuple[FrozenGroup, ...]


def prove(model: nn.Module, example: tuple[Any, ...], trace: Trace, seed: int) -> Proof:
    """Checks every group alone, then random masks over all of them together.

    For each group, on a float64 copy with unit-gain random parameters and random BatchNorm
    statistics (trained weights can hide an error), the compacted network must equal the network
    whose dropped channels are zeroed where their consumers read them, and dropping must move the
    output. A group that fails is frozen and named.
    """
    checker = _Checker(model, example, trace.layers, seed)
    proven: list[ChannelGroup] = []
    measured: list[GroupProof] = []
    frozen: list[FrozenGroup] = []

    def freeze(group: ChannelGroup, reason: str) -> None:
        frozen.append(FrozenGroup(name=group.name, size=group.size, reason=reason))

    for group in trace.groups:
        if group.size == 1:
            freeze(group, "a single channel")
            continue
        proof = checker.check_alone(group)
        if proof.failure is None:
            proven.append(group)
            measured.append(proof)
        else:
            freeze(group, proof.failure)

    for round_ in range(JOINT_MASKS):
        while proven and (error := checker.joint_error(proven, round_)) > TOLERANCE:
            culprit = checker.bisect(proven, round_)
            proven.remove(culprit)
            freeze(
                culprit, f"proof failed together with other groups: outputs differ by {error:.1e}"
            )
    names = {group.name for group in proven}
    return Proof(
        groups=tuple(proven),
        measured=tuple(proof for proof in measured if proof.group in names),
        frozen=tuple(frozen),
    )


class _Checker:
    """A float64 copy of the model with random parameters, and the comparisons made on it."""

    def __init__(
        self, model: nn.Module, example: tuple[Any, ...], layers: Sequence[Layer], seed: int
    ) -> None:
        self._seed = seed
        self._layers = layers
        self._model = copy.deepcopy(model).to(device="cpu", dtype=torch.float64).eval()
        random = torch.Generator().manual_seed(integer(seed, Stream.PROOF, "parameters"))
        self._example = tuple(
            torch.randn(part.shape, generator=random, dtype=torch.float64)
            if isinstance(part, Tensor) and part.is_floating_point()
            else part
            for part in example
        )
        randomize(self._model, self._example, random)
        self._whole = self._output(self._model)

    def _output(self, model: nn.Module) -> Tensor:
        with torch.inference_mode():
            return torch.cat([part.flatten() for part in _tensors(model(*self._example))])

    def _error(self, groups: Sequence[ChannelGroup], mask: Mask) -> tuple[float, float]:
        """Returns the relative error of compaction under a mask, and the mask's effect."""
        with masked(self._model, groups, self._layers, mask) as reference:
            expected = self._output(reference)
        effect = _relative(expected, self._whole)
        try:
            actual = self._output(compact(self._model, groups, mask))
        except (RuntimeError, ValueError, IndexError, TypeError):
            return float("inf"), effect  # sizes do not fit: the groups are wrong
        return _relative(actual, expected), effect

    def check_alone(self, group: ChannelGroup) -> GroupProof:
        error, effect = self._error([group], self._random_mask([group], group.name, 0.5))
        return GroupProof(group=group.name, error=error, effect=effect)

    def joint_error(self, groups: Sequence[ChannelGroup], round_: int) -> float:
        return self._error(groups, self._random_mask(groups, f"joint {round_}", None))[0]

    def bisect(self, groups: list[ChannelGroup], round_: int) -> ChannelGroup:
        """Returns the group whose addition to those before it first breaks the equality."""
        mask = self._random_mask(groups, f"joint {round_}", None)
        low, high = 0, len(groups)  # groups[:low] holds, groups[:high] fails
        while high - low > 1:
            middle = (low + high) // 2
            if self._error(groups[:middle], mask)[0] > TOLERANCE:
                high = middle
            else:
                low = middle
        return groups[high - 1]

    def _random_mask(
        self, groups: Sequence[ChannelGroup], purpose: str, ratio: float | None
    ) -> Mask:
        """Drops a share of each group, drawn where none is given, always leaving one channel."""
        bits = {}
        for group in groups:
            rng = generator(self._seed, Stream.PROOF, purpose, group.name)
            share = rng.uniform(0.1, 0.9) if ratio is None else ratio
            count = min(group.size - 1, max(1, round(share * group.size)))
            bits[group.name] = rng.permutation(group.size) >= count
        return Mask(bits)


def randomize(model: nn.Module, example: tuple[Any, ...], random: torch.Generator) -> None:
    """Gives a model random parameters and BatchNorm statistics at unit gain, in place.

    One forward pass scales every layer's output to unit variance within its channels as it comes
    by, and puts every BatchNorm's statistics near those of its input. So what tells one image or
    position from another neither fades nor explodes, and each channel counts, however deep the
    network is.
    """
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.uniform_(0.5, 1.5, generator=random)
            else:
                tensor.normal_(0, 1 if tensor.ndim > 1 else 0.3, generator=random)

    def unit_gain(module: nn.Module, _: Any, output: Any) -> Any:
        by_channel = output if isinstance(module, nn.Linear) else output.movedim(1, -1)
        scale = _spread(by_channel)
        for parameter in module.parameters(recurse=False):
            parameter.div_(scale)
        return output / scale

    def near_input(module: nn.modules.batchnorm._BatchNorm, inputs: tuple[Tensor]) -> None:
        by_channel = inputs[0].movedim(1, -1).flatten(0, -2)
        scale = _spread(by_channel)
        if module.running_mean is not None and module.running_var is not None:
            module.running_mean.mul_(scale).add_(by_channel.mean(dim=0))
            module.running_var.mul_(scale**2)

    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            hooks.append(module.register_forward_hook(unit_gain))
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            hooks.append(module.register_forward_pre_hook(near_input))
    with torch.no_grad():
        model(*example)
    for hook in hooks:
        hook.remove()


def _spread(values: Tensor) -> float:
    """Returns the standard deviation within channels, averaged over them; `(..., channels)`."""
    return float(values.flatten(0, -2).std(dim=0).mean()) or 1.0


def _tensors(output: Any) -> list[Tensor]:
    """Returns the tensors in a network's output, whatever holds them, in order."""
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output
    return [tensor for part in parts for tensor in _tensors(part)]


def _relative(actual: Tensor, expected: Tensor) -> float:
    if actual.shape != expected.shape:
        return float("inf")
    scale = float(expected.abs().max())
    difference = float((actual - expected).abs().max())
    return difference / scale if scale > 0 else float(np.inf if difference > 0 else 0)
