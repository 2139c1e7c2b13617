"""Kernels: weights that are something else while they train, each a parametrisation of torch's.

The forward pass reads what a kernel makes of a weight (`torch.nn.utils.parametrize`). What that
gains is better training (`Branches`) or zeros (`Sparse`, `HeldZeros`), never FLOPs.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

DECAY = 2e-4
"""Weight of what pulls a dropped weight towards zero (SR-STE's lambda)."""


class Kernel(nn.Module, ABC):
    """A parametrisation of a weight."""

    @abstractmethod
    def forward(self, weight: Tensor) -> Tensor:
        """Returns what the forward pass reads in place of a weight."""


@final
class Branches(Kernel):
    """A kernel as a sum of branches that training tells apart: `W = sum_b v_b * W_b`.

    Online convolutional reparametrisation (OREPA, Hu et al. 2022, arXiv 2204.00826): branches
    add up before the convolution, not after it, each with a factor v for each output and no
    BatchNorm. Of the paper's branches there are four: the kernel itself; a 1x1 kernel spread over
    all positions; a 1x1 kernel at the centre; and a 1x1 kernel `I + A` before a full one, which
    is all that a 1x1 kernel gets. Here v is 1 for the kernel itself and 0 for the others, so that
    a trained network begins as what it is; the others' weights are drawn (He), else they would
    never move.
    """

    def __init__(self, weight: Tensor, rng: torch.Generator) -> None:
        """Draws the branches of a kernel `(outputs, inputs, ...)`."""
        super().__init__()
        outputs, inputs, *positions = weight.shape
        self._wide = max(positions) > 1
        self.inner = nn.Parameter(torch.zeros(inputs, inputs).to(weight))
        self.full = _drawn((outputs, inputs, *positions), weight, rng)
        if self._wide:
            pointwise = (outputs, inputs, *(1 for _ in positions))
            self.spread = _drawn(pointwise, weight, rng)
            self.centre = _drawn(pointwise, weight, rng)
        scales = torch.zeros(4 if self._wide else 2, outputs, *(1 for _ in weight.shape[1:]))
        scales[0] = 1
        self.scales = nn.Parameter(scales.to(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """See `Kernel.forward`."""
        identity = torch.eye(len(self.inner), dtype=weight.dtype, device=weight.device)
        with torch.autocast(weight.device.type, enabled=False):  # what is folded has no autocast
            mixed = torch.einsum("om...,mi->oi...", self.full, identity + self.inner)
        branches = [weight, mixed]
        if self._wide:
            branches.append((self.spread / weight[0, 0].numel()).expand_as(weight))
            middle = torch.zeros_like(weight[0, 0])
            middle[tuple(size // 2 for size in middle.shape)] = 1
            branches.append(self.centre * middle)
        return torch.stack([v * w for v, w in zip(self.scales, branches, strict=True)]).sum(0)


@final
class Sparse(Kernel):
    """N of M consecutive inputs at each kernel position, the largest by magnitude.

    Zhou et al. 2021 (arXiv 2102.04010), SR-STE: chosen anew at each step; gradients reach all
    weights as if none were dropped, plus `DECAY` times those that are.
    """

    def __init__(self, keep: int, of: int, dim: int) -> None:
        """Takes N, M, and the dimension that inputs run along, whose size M divides."""
        super().__init__()
        self._keep, self._of, self._dim = keep, of, dim

    def forward(self, weight: Tensor) -> Tensor:
        """See `Kernel.forward`."""
        kept = largest(weight.detach(), self._keep, self._of, self._dim)
        found: Tensor = _StraightThrough.apply(weight, kept)
        return found


def largest(weight: Tensor, keep: int, of: int, dim: int) -> Tensor:
    """Returns where the N largest of each M consecutive weights are, as ones among zeros.

    Of equal ones the first are kept.

    Args:
        weight: of any shape.
        keep: N.
        of: M.
        dim: along which M are taken; M divides its size.
    """
    last = weight.abs().movedim(dim, -1)
    blocks = last.reshape(*last.shape[:-1], -1, of)
    order = blocks.argsort(dim=-1, descending=True, stable=True)
    kept = torch.zeros_like(blocks).scatter_(-1, order[..., :keep], 1.0)
    return kept.flatten(-2).movedim(-1, dim)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, kept: Tensor) -> Tensor:
        ctx.save_for_backward(weight, kept)
        return weight * kept

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        weight, kept = ctx.saved_tensors
        return gradients[0] + DECAY * (1 - kept) * weight, None


@final
class HeldZeros(Kernel):
    """Weights of which some are zero and stay so, for hardware that skips zeros.

    Woo et al. 2021 (doi 10.3390/electronics10111238), whose body could not be read: weights under
    tau are zero, and recovery leaves them so. Here tau is the median of all weights that write
    prunable channels, as for the criterion `zero_keep`.
    """

    kept: Tensor

    def __init__(self, weight: Tensor, tau: float) -> None:
        """Settles which weights are zero."""
        super().__init__()
        self.register_buffer("kept", (weight.detach().abs() >= tau).to(weight.dtype))

    def forward(self, weight: Tensor) -> Tensor:
        """See `Kernel.forward`."""
        return weight * self.kept


def _drawn(shape: Sequence[int], like: Tensor, rng: torch.Generator) -> nn.Parameter:
    """Returns a weight drawn as He et al. 2015 do: of variance 2 over the inputs of a filter."""
    drawn = torch.randn(*shape, generator=rng) * (2 / math.prod(shape[1:])) ** 0.5
    return nn.Parameter(drawn.to(like))
