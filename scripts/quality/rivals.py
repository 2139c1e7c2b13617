"""torch-pruning's choice of channels, as masks that fit a MACs budget.

Only channels inside residual blocks are offered to it. On the stream of an option-A ResNet its
graph takes the padded shortcuts for plain ones: the pruned network runs, and computes something
else than the base network without the channels.
"""

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import ModuleType
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from evosearch.errors import EvaluationError, InputError
from evosearch.run.subject import Subject
from evosearch.seeding import Stream, generator
from evosearch.space.mask import Mask
from evosearch.space.space import SearchSpace
from evosearch.surgery.compaction import compact
from evosearch.surgery.counting import count_macs

IMAGES = 1000
"""Train images that gradients are taken on, drawn by the seed."""
BATCH = 100
STRIDE, HALVINGS = 0.05, 12
"""The pruning ratio climbs in such steps until the network fits; the last step is halved."""
CRITERIA: Mapping[str, Callable[[Any], Any]] = {
    "l1filter": lambda importance: importance.MagnitudeImportance(p=1, group_reduction="first"),
    "l1": lambda importance: importance.MagnitudeImportance(p=1),
    "l2": lambda importance: importance.MagnitudeImportance(p=2),
    "bn": lambda importance: importance.BNScaleImportance(),
    "fpgm": lambda importance: importance.FPGMImportance(),
    "lamp": lambda importance: importance.LAMPImportance(),
    "taylor": lambda importance: importance.TaylorImportance(),
    "hessian": lambda importance: importance.HessianImportance(),
}
"""At torch-pruning's defaults, which take the mean over the layers of a group; only `l1filter` is
the L1 norm of the filters alone, by which Li et al. 2017 (arXiv 1608.08710) rank them."""
ON_GRADIENTS = ("taylor", "hessian")
SCOPES: Mapping[str, Mapping[str, bool]] = {
    "uniform": {},
    "global": {"global_pruning": True},
    "isomorphic": {"global_pruning": True, "isomorphic": True},
}


@final
class TorchPruning:
    """Chooses channels of one network with torch-pruning's criteria."""

    def __init__(self, subject: Subject, space: SearchSpace) -> None:
        """Takes the network and its groups, each written by one convolution that names it.

        Raises:
            InputError: torch-pruning is not installed.
        """
        self._library = _library()
        self._subject, self._space = subject, space
        self._gradients = cache(self._measured_gradients)

    def mask(self, criterion: str, scope: str, macs: int, seed: int) -> tuple[Mask, float]:
        """Returns the mask at the least pruning ratio that fits, and the seconds it took.

        Args:
            criterion: one of `CRITERIA`.
            scope: one of `SCOPES`.
            macs: the budget.
            seed: draws the images of the criteria that take gradients.

        Raises:
            InputError: no pruning ratio fits.
            EvaluationError: torch-pruning's own network is not the one that the mask means.
        """
        model, spent = copy.deepcopy(self._subject.model), 0.0
        if criterion in ON_GRADIENTS:
            gradients, spent = self._gradients(criterion, seed)
            for name, parameter in model.named_parameters():
                parameter.grad = gradients[name].clone()
        began = time.perf_counter()

        def pruner(ratio: float) -> Any:
            inner = {group.name for group in self._space.groups}
            layers = (nn.Conv2d, nn.Linear)
            return self._library.pruner.BasePruner(
                model,
                self._subject.example[0],
                importance=CRITERIA[criterion](self._library.pruner.importance),
                pruning_ratio=ratio,
                ignored_layers=[
                    module
                    for name, module in model.named_modules()
                    if isinstance(module, layers) and name not in inner
                ],
                **SCOPES[scope],
            )

        def chosen(ratio: float) -> Mask:
            names = {module: name for name, module in model.named_modules()}
            bits = {
                group.name: np.ones(group.size, dtype=np.bool_) for group in self._space.groups
            }
            for group in pruner(ratio).step(interactive=True):
                bits[names[group[0].dep.target.module]][group[0].idxs] = False
            return Mask(bits)

        def fits(ratio: float) -> bool:
            return self._space.cost(chosen(ratio)).macs <= macs

        # A group that would lose every channel is spared, so the MACs may rise with the ratio:
        # the first ratio that fits is the one meant.
        ratios = np.arange(STRIDE, 1, STRIDE)
        high = next((float(ratio) for ratio in ratios if fits(float(ratio))), None)
        if high is None:
            raise InputError(f"torch-pruning, {criterion} {scope}: no ratio gives {macs} MACs")
        low = high - STRIDE
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if fits(middle) else (middle, high)
        mask = chosen(high)
        spent += time.perf_counter() - began
        pruner(high).step()
        self._require_equal(model, mask)
        return mask, spent

    def _require_equal(self, pruned: nn.Module, mask: Mask) -> None:
        """Checks torch-pruning's network against the proven compaction of the same channels."""
        example = self._subject.example
        compacted = compact(self._subject.model, self._space.groups, mask).eval()
        with torch.inference_mode():
            theirs, ours = pruned.eval()(*example), compacted(*example)
        counted = count_macs(pruned, example)
        same = theirs.shape == ours.shape and torch.allclose(theirs, ours, rtol=1e-4, atol=1e-4)
        if not same or counted != self._space.cost(mask).macs:
            raise EvaluationError(
                "torch-pruning's network is not the base network without the channels that it"
                " chose"
            )

    def _measured_gradients(self, criterion: str, seed: int) -> tuple[dict[str, Tensor], float]:
        """Returns what a criterion reads as gradients, by parameter, and the seconds it took.

        For Taylor the gradient of the mean loss. For Hessian the mean over images of the squared
        gradient: `HessianImportance.accumulate_grad` of 1.6.1 keeps the last image only (it
        looks for names among parameters), so the mean is formed here.
        """
        began = time.perf_counter()
        train, model = self._subject.data.train, self._subject.model
        drawn = generator(seed, Stream.STATISTICS, "order").permutation(len(train))[:IMAGES]
        split = train.take(drawn)
        power, size = (2, 1) if criterion == "hessian" else (1, BATCH)
        parameters = dict(model.named_parameters())
        total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        for gradient, images in _batch_gradients(model, split.batches(size)):
            for own, value in zip(total.values(), gradient, strict=True):
                own += value**power * images / len(split)
        return total, time.perf_counter() - began


def _batch_gradients(
    model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]]
) -> Iterator[tuple[tuple[Tensor, ...], int]]:
    """Yields the gradient of each batch's mean loss in all parameters, and its images."""
    for images, labels in batches:
        loss = functional.cross_entropy(model(images), labels)
        yield torch.autograd.grad(loss, list(model.parameters())), len(labels)


def _library() -> ModuleType:
    try:
        import torch_pruning
    except ImportError as error:
        raise InputError(
            "torch-pruning is not installed; pip install 'evosearch[bench]', or leave its methods"
            " (tp-...) out with --methods"
        ) from error
    library: ModuleType = torch_pruning
    return library
