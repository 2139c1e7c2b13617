"""Implants: dropped filters of a plan that come back as 1x1 convolutions, within a budget.

Hessian-aware pruning and implant (HAP, Yu et al. 2021, arXiv 2101.08940) sorts all filters by
their sensitivity. The least sensitive ones leave; of these the most sensitive come back as 1x1
kernels at zero, with their BatchNorm. Here the order is that of the run's importance criterion;
what comes back is a channel of a group, with all filters that make it, of which those that are 1x1
already are as they were. Of `multiple_of` implants know nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from torch import nn

from evosearch.errors import InputError
from evosearch.export.rebuild import implant
from evosearch.machine import device_of
from evosearch.refit.norms import recalibrate
from evosearch.run.compared import Compared
from evosearch.run.preparation import Prepared
from evosearch.space.budget import Budget
from evosearch.space.cost import Cost
from evosearch.space.knowledge import ImportanceScores
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import compact, dropped_positions
from evosearch.surgery.discovery import Discovery
from evosearch.surgery.narrowing import narrow
from evosearch.surgery.tracing.layer import Layer

COUNTED = frozenset({"macs", "params"})
"""The resources that are known of a network with implants."""
BATCH = 128
"""Calibration images in one pass, at most."""


def implanted(prepared: Prepared, cut: Compared, budget: Budget, share: float) -> Compared:
    """Returns the network of a plan with the most important of its dropped channels as implants.

    Args:
        prepared: what a run works with.
        cut: the network of the plan, as it was cut; not changed.
        budget: its upper end is met, by the network as it is built.
        share: of the dropped channels that come back at most, in (0, 1].

    Raises:
        InputError: the budget leaves room for none.
    """
    subject, search = prepared.subject, prepared.config.search
    place = Implanting(model=subject.model, discovery=subject.discovery, plan=cut.mask)
    order = place.order(prepared.knowledge.comparable[search.criterion])
    dropped = sum(int((~bits).sum()) for bits in cut.mask.values())
    count = _most(
        min(int(share * dropped), len(order)),
        lambda n: budget.violation(place.cost(place.with_first(order, n))) == 0,
    )
    if not count:
        raise InputError(
            f"[finetune] implants = {share:g}: {cut.name} leaves no room within the run's budget"
            " for a filter that could come back; pick a smaller network (--at flops=40%)"
        )
    mask = place.with_first(order, count)
    network = place.build(cut.network, mask)
    device, batches = device_of(network), subject.data.calibration.batches(BATCH)
    recalibrate(network, [images.to(device) for images, _ in batches if len(images) > 1])
    name = f"{cut.name} and {count} implants"
    return Compared(name=name, mask=mask, network=network.eval(), cost=place.cost(mask))


def require_counted(budget: Budget, *, timed: bool) -> None:
    """Checks that a network with implants can be held to a budget.

    Raises:
        InputError: the budget is none that is counted, or the network is to be timed.
    """
    counted = budget.bounds and budget.least_accuracy is None
    if timed or not counted or not COUNTED.issuperset(budget.bounds):
        raise InputError(
            "[finetune] implants keep a run's budget of FLOPs or params alone, and are not timed:"
            " they take a search with --flops or --params, and nothing else"
        )


def _most(limit: int, fits: Callable[[int], bool]) -> int:
    """Returns the largest number up to a limit that fits, where all smaller ones do."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


@final
@dataclass(frozen=True, kw_only=True)
class Implanting:
    """A plan whose dropped channels may come back.

    Attributes:
        model: the whole network.
        discovery: of the whole network.
        plan: the channels that stay.
    """

    model: nn.Module
    discovery: Discovery
    plan: Mask

    def order(self, scores: ImportanceScores) -> list[tuple[str, int]]:
        """Returns the channels that can come back, group and number, the most important first."""
        able = [
            (group, int(channel))
            for group in self.writers
            for channel in np.flatnonzero(~self.plan[group])
        ]
        return sorted(able, key=lambda channel: -scores[channel[0]][channel[1]])

    def with_first(self, order: Sequence[tuple[str, int]], count: int) -> Mask:
        """Returns the plan with the first channels of an order."""
        bits = {name: own.copy() for name, own in self.plan.items()}
        for group, channel in order[:count]:
            bits[group][channel] = True
        return Mask(bits)

    def cost(self, mask: Mask) -> Cost:
        """Returns the cost of the network in which what a mask adds to the plan is implants."""
        full = self.discovery.space.cost(mask)
        if mask == self.plan:
            return full
        drops = dropped_positions(self.discovery.space.groups, mask)
        macs, params = full.macs, full.params
        for group, layers in self.writers.items():
            back = int((mask[group] & ~self.plan[group]).sum())
            for layer in layers:
                assert layer.geometry is not None
                assert layer.reads is not None
                reads = self.model.get_parameter(layer.weight).shape[layer.reads]
                reads -= len(drops.get(layer.weight, {}).get(layer.reads, ()))
                saved = back * reads * (int(np.prod(layer.geometry.kernel)) - 1)
                macs, params = macs - saved * layer.positions, params - saved
        return replace(full, macs=macs, params=params, memory=0, size=0)  # which are not known

    def build(self, cut: nn.Module, mask: Mask) -> nn.Module:
        """Returns the network in which what a mask adds to the plan is implants.

        Args:
            cut: the network of the plan; its weights stay.
            mask: the plan and what comes back.
        """
        here = narrow(self.discovery, mask)
        network = compact(self.model, self.discovery.space.groups, mask)
        inner = Mask({name: self.plan[name][bits] for name, bits in mask.items()})
        added = dropped_positions(here.space.groups, inner)
        sources = {**dict(cut.named_parameters()), **dict(cut.named_buffers())}
        with torch.no_grad():
            for name, tensor in (*network.named_parameters(), *network.named_buffers()):
                stays = torch.ones(tensor.shape, dtype=torch.bool, device=tensor.device)
                for dim, positions in added.get(name, {}).items():
                    stays.index_fill_(dim, torch.from_numpy(positions).to(tensor.device), False)
                tensor[stays] = sources[name].flatten()
        places: dict[str, list[int]] = defaultdict(list)
        for group, layers in self.writers.items():
            if mask[group].sum() > self.plan[group].sum():
                for layer in layers:
                    places[layer.module] = added[layer.weight][layer.writes].tolist()
        implant(network, places)
        return network

    @property
    def writers(self) -> Mapping[str, Sequence[Layer]]:
        """The convolutions whose filters can come back as 1x1, by the group that they make."""
        calls = Counter(layer.weight for layer in self.discovery.layers)
        able = {
            (layer.weight, layer.writes): layer
            for layer in self.discovery.layers
            if calls[layer.weight] == 1 and _is_centred(self.model, layer)
        }
        found = {
            group.name: [able[m.tensor, m.dim] for m in group.members if (m.tensor, m.dim) in able]
            for group in self.discovery.space.groups
        }
        return {name: layers for name, layers in found.items() if layers}


def _is_centred(model: nn.Module, layer: Layer) -> bool:
    """Returns whether a 1x1 kernel can read where the centre of a layer's kernels does."""
    module = model.get_submodule(layer.module)
    if type(module) is not nn.Conv2d or module.groups > 1 or isinstance(module.padding, str):
        return False
    sides = zip(module.kernel_size, module.padding, module.dilation, strict=True)
    return module.kernel_size != (1, 1) and all(
        side % 2 == 1 and padding == dilation * (side // 2) for side, padding, dilation in sides
    )
