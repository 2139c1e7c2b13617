"""Gates by kind: squeeze-and-excitation of what is written, consensus on what is read."""

from collections.abc import Sequence
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from evosearch.surgery.gating import (
    REDUCTION,
    Excitation,
    Gates,
    Share,
    key_of,
    pooled,
    scaled,
)
from evosearch.surgery.reach import Reached

OPEN = (0.5, 2.0)
"""Logits of consensus gates at first: from, to."""
AGREEMENT = 1.0
"""Weight of `disagreement` beside the task's loss."""
EXCESS = 1.0
"""Weight of `excess` beside the task's loss."""


@final
class ExcitationGates(Gates):
    """A squeeze-and-excitation block behind each layer that writes channels.

    Chang et al. 2020 (UCP, arXiv 2010.01251), its MSEB: between a convolution and its BatchNorm;
    mean over positions, c channels to max(1, c / 16) units, ReLU, back to c, sigmoid; biases only
    up to 16 channels. For linear layers ours.
    """

    along = "writes"
    decays = True

    def drawn(self, places: Reached, rng: torch.Generator) -> nn.ModuleDict:
        """See `Gates.drawn`: one for each layer."""
        blocks = nn.ModuleDict()
        for name, groups in places.items():
            channels = sum(index.size for _, index in groups)
            bias = torch.zeros(channels) if channels <= REDUCTION else None
            blocks[key_of(name)] = Excitation(channels, rng, bias)
        return blocks

    def hang(self, module: nn.Module, name: str) -> torch.utils.hooks.RemovableHandle:
        """See `Gates.hang`."""
        return module.register_forward_hook(partial(self._excite, name))

    def _excite(self, name: str, module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        sections = [(group, torch.from_numpy(index)) for group, index in self._places[name]]
        positions = torch.cat([index.flatten() for _, index in sections]).to(output.device)
        features = pooled(module, output, self._images)[:, positions]
        logits = self.blocks[key_of(name)](features, self._slots(sections).to(output.device))
        factors = logits.sigmoid()
        parts = factors.split([index.numel() for _, index in sections], dim=1)
        for (group, index), own in zip(sections, parts, strict=True):
            self._factors.setdefault(group, []).append(own.reshape(len(own), *index.shape).mean(2))
        return scaled(module, output, positions, factors)

    def _slots(self, sections: Sequence[tuple[str, Tensor]]) -> Tensor:
        """Returns which of a block's channels are left."""
        slots, before = [], 0
        for group, index in sections:
            each = index.shape[1]
            own = self._kept[group][:, None] * each + torch.arange(each)
            slots.append(before + own.flatten())
            before += self._whole[group] * each
        return torch.cat(slots)


@final
class ConsensusGates(Gates):
    """A binary gate on each channel of a group, the same one wherever the channel is read.

    `g_j(x) = 1[sigmoid(z_j(x)) > 0.5]`, whose gradient is that of the sigmoid (straight through),
    z from what the first layer that reads the group gets, through which no gradient goes back.
    All are open at first, so that the network begins as what it is, by margins that are drawn:
    else those of a group would close together. Where the gates of all images agree, a gate of 0
    is a dropped channel and one of 1 a kept one.

    Zhi et al. 2023 (consensus sub-network), arXiv 2302.10798, by its abstract: binary gates, found
    from the image, and a polarizing loss on them. The losses and what z is computed by are ours.
    """

    along = "reads"
    decays = False

    def drawn(self, places: Reached, rng: torch.Generator) -> nn.ModuleDict:
        """See `Gates.drawn`: one for each group."""
        blocks, (least, most) = nn.ModuleDict(), OPEN
        sizes = {group: len(index) for groups in places.values() for group, index in groups}
        for group, size in sizes.items():
            logits = least + (most - least) * torch.rand(size, generator=rng)
            blocks[key_of(group)] = Excitation(size, rng, logits)
        return blocks

    def hang(self, module: nn.Module, name: str) -> torch.utils.hooks.RemovableHandle:
        """See `Gates.hang`."""
        return module.register_forward_pre_hook(partial(self._gate, name))

    def _gate(self, name: str, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        read, *rest = inputs
        positions, gates = [], []
        for group, places in self._places[name]:
            index = torch.from_numpy(places).to(read.device)
            if group not in self._factors:
                features = pooled(module, read.detach(), self._images)[:, index].mean(2)
                logits = self.blocks[key_of(group)](features, self._kept[group].to(read.device))
                self._factors[group] = [logits.sigmoid()]
            (chances,) = self._factors[group]
            positions.append(index.flatten())
            gates.append(rounded(chances).repeat_interleave(index.shape[1], dim=1))
        return (scaled(module, read, torch.cat(positions), torch.cat(gates, dim=1)), *rest)

    def term(self, share: Share) -> Tensor:
        """See `Gates.term`: gates that disagree cost, and the part of the cost over the budget.

        The cost is that of the mean gates of the batch: of widths that need not be whole.
        """
        means = {group: rounded(chances).mean(0) for group, chances in self.factors.items()}
        widths = {group: own.sum() for group, own in means.items()}
        return AGREEMENT * disagreement(torch.cat([*means.values()])) + EXCESS * excess(
            share(widths)
        )


def disagreement(means: Tensor) -> Tensor:
    """Returns `mean_j m_j (1 - m_j)`: 0 where the gates of all images agree, at most 1/4.

    Args:
        means: of each channel's gates over the images of a batch, `(channels,)`.
    """
    return (means * (1 - means)).mean()


def excess(share: Tensor) -> Tensor:
    """Returns `max(0, share - 1)`, of a cost as a share of its budget.

    Not its square, which pushes hardest before the network has learned anything, and next to
    nothing where the budget is nearly met.
    """
    return (share - 1).relu()


def rounded(chances: Tensor) -> Tensor:
    """Returns 1 where chances are over a half, else 0; with the gradient of the chances."""
    # What is added is zero exactly, so that gates are 0 and 1 exactly.
    return (chances > 0.5).to(chances) + (chances - chances.detach())
