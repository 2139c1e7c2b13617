"""Optimizers: SGD for all weights, or Muon for the kernels of convolutions."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from evosearch.models.precision import resolve_precision
from evosearch.surgery.compaction import Replacement

Optimizer = Literal["auto", "muon", "sgd"]

MUON_SHARE = 0.2
"""Muon's learning rate, as a share of SGD's: the size of its steps is not the gradients'."""


def resolve_optimizer(optimizer: Optimizer, device: str) -> Optimizer:
    """Returns what "auto" stands for: Muon where the device is fast with bfloat16, else SGD.

    torch's Muon computes its steps in bfloat16, which takes a processor without it seconds for
    one large kernel.
    """
    if optimizer != "auto":
        return optimizer
    return "muon" if resolve_precision("auto", device) == "bfloat16" else "sgd"


@final
class KernelMuon(torch.optim.Muon):
    """Muon (Jordan et al. 2024) on kernels, each a matrix `(outputs, inputs x positions)`.

    A step moves a kernel along the orthogonal matrix nearest to its momentum, so that all
    directions of its output change alike. Gradients are the model's to clear.
    """

    def __init__(self, kernels: Sequence[Tensor], *, lr: float, weight_decay: float) -> None:
        """Takes the kernels, which are updated in place.

        Args:
            kernels: `(outputs, inputs, ...)` each.
            lr: learning rate.
            weight_decay: share of the weights that a step of learning rate 1 takes away.
        """
        self._kernels = tuple(kernels)
        matrices = [nn.Parameter(kernel.detach().flatten(1).clone()) for kernel in kernels]
        super().__init__(matrices, lr=lr, weight_decay=weight_decay, momentum=0.9)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Makes one step; a kernel without a gradient stays."""
        matrices = self.param_groups[0]["params"]
        for kernel, matrix in zip(self._kernels, matrices, strict=True):
            matrix.copy_(kernel.flatten(1))
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        super().step()  # type: ignore[no-untyped-call]
        for kernel, matrix in zip(self._kernels, matrices, strict=True):
            kernel.copy_(matrix.view_as(kernel))
            matrix.grad = None

    def follow(self, replaced: Mapping[Tensor, Replacement]) -> None:
        """Goes on with the kernels that were put in place of its own, and their momentum.

        The direction of a step is then that of the whole kernel with its dropped rows and columns
        and their momentum at zero, but for rounding to bfloat16. Its length is Muon's for the
        smaller matrix, which differs where that has more rows than columns.

        Args:
            replaced: by the old tensor.
        """
        matrices = self.param_groups[0]["params"]
        kernels = list(self._kernels)
        for place, kernel in enumerate(self._kernels):
            if kernel not in replaced:
                continue
            cut, state = replaced[kernel], self.state.pop(matrices[place], {})
            kernels[place] = cut.new
            matrices[place] = nn.Parameter(cut.new.detach().flatten(1).clone())
            if state:
                momentum = cut.follow(state["momentum_buffer"].view_as(kernel)).flatten(1)
                self.state[matrices[place]] = {**state, "momentum_buffer": momentum}
        self._kernels = tuple(kernels)


def follow(optimizer: torch.optim.Optimizer, replacements: Iterable[Replacement]) -> None:
    """Has an optimizer go on with the parameters of a network that was cut, in place.

    What it remembers of a parameter in that one's shape is cut alike. Its groups of parameters
    stay the same objects, so that schedules go on.
    """
    replaced = {replacement.old: replacement for replacement in replacements}
    if isinstance(optimizer, KernelMuon):
        optimizer.follow(replaced)
        return
    for group in optimizer.param_groups:
        for place, parameter in enumerate(group["params"]):
            if parameter not in replaced:
                continue
            cut = replaced[parameter]
            group["params"][place] = cut.new
            state = optimizer.state.pop(parameter, {})
            if state:
                optimizer.state[cut.new] = {
                    key: cut.follow(value)
                    if isinstance(value, Tensor) and value.shape == parameter.shape
                    else value
                    for key, value in state.items()
                }


@torch.no_grad()
def clear(
    weight: Tensor, optimizers: Iterable[torch.optim.Optimizer], dim: int, positions: Tensor
) -> None:
    """Puts positions of a weight that SGD updates at zero, with their momentum."""
    states = [own.state[weight] for own in optimizers if weight in own.state]
    for tensor in (weight, *(state["momentum_buffer"] for state in states)):
        tensor.index_fill_(dim, positions.to(weight.device), 0)


def spare(optimizer: torch.optim.Optimizer, parameters: Collection[Tensor]) -> None:
    """Has an optimizer leave some of its parameters to themselves: without weight decay, in place.

    They get a group of their own, so it comes before a schedule takes the optimizer.
    """
    spared = {id(parameter) for parameter in parameters}
    for group in list(optimizer.param_groups):
        own = [parameter for parameter in group["params"] if id(parameter) in spared]
        if own:
            group["params"] = [p for p in group["params"] if id(p) not in spared]
            optimizer.add_param_group({**group, "params": own, "weight_decay": 0.0})


def _sgd(model: nn.Module, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """SGD with Nesterov momentum 0.9 and an L2 penalty."""
    return _sgd_on([p for p in model.parameters() if p.requires_grad], lr, weight_decay)


def _muon(model: nn.Module, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the kernels of convolutions, SGD for all else.

    Grouped convolutions, whose outputs read different channels, and transposed ones count as no
    kernels. Muon's weight decay is apart from the gradients, and next to nothing at values that
    are usual for SGD.
    """
    kernels = [
        kernel
        for module in model.modules()
        if isinstance(module, nn.modules.conv._ConvNd)
        and module.groups == 1
        and not module.transposed
        and (kernel := _learned(module)).requires_grad
    ]
    taken = {id(kernel) for kernel in kernels}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    found = _sgd_on(rest, lr, weight_decay)
    if not kernels:
        return found
    return [KernelMuon(kernels, lr=MUON_SHARE * lr, weight_decay=weight_decay), *found]


def _learned(module: nn.modules.conv._ConvNd) -> Tensor:
    """Returns the parameter behind a convolution's weight, also where that is parametrised."""
    if parametrize.is_parametrized(module, "weight"):
        return module.get_parameter("parametrizations.weight.original")
    return module.weight


def _sgd_on(
    parameters: Sequence[nn.Parameter], lr: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    if not parameters:
        return []
    return [
        torch.optim.SGD(parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    ]


OPTIMIZERS: dict[str, Callable[[nn.Module, float, float], list[torch.optim.Optimizer]]] = {
    "sgd": _sgd,
    "muon": _muon,
}
"""Name -> model, learning rate and weight decay -> what updates the parameters that learn."""
