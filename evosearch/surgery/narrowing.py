"""The search space of a network that was cut, by arithmetic on the positions of the uncut one."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from evosearch.space.mask import Bits, ChannelGroup, Mask
from evosearch.surgery.compaction import Cut, dropped_positions
from evosearch.surgery.discovery import Discovery
from evosearch.surgery.tracing.layer import Layer


def narrow(discovery: Discovery, mask: Mask) -> Discovery:
    """Returns what `discover` would find in the network that a mask leaves, without tracing it.

    Along each dimension of a tensor a kept position moves down by the number of dropped ones
    before it, whichever group they belong to. Costs are forms in the widths, and stay; so do the
    proofs, which hold for every mask. Groups keep their names and layers what they read: a
    depthwise convolution with one channel left is still read as one.

    Args:
        discovery: of the whole network; not changed.
        mask: the channels that stay; in each group at least `min_keep`.
    """
    space = discovery.space
    drops = dropped_positions(space.groups, mask)
    groups = tuple(_narrowed(group, mask[group.name], drops) for group in space.groups)
    return replace(
        discovery,
        space=replace(space, groups=groups),
        layers=tuple(_with_fewer_groups(layer, drops) for layer in discovery.layers),
    )


def _narrowed(group: ChannelGroup, kept: Bits, drops: Mapping[str, Cut]) -> ChannelGroup:
    members = []
    for member in group.members:
        positions = group.index(member)[kept].flatten()
        gone = drops.get(member.tensor, {}).get(member.dim)
        if gone is not None:
            positions = positions - np.searchsorted(gone, positions)
        members.append(replace(member, positions=tuple(positions.tolist())))
    return replace(group, size=int(kept.sum()), members=tuple(members))


def _with_fewer_groups(layer: Layer, drops: Mapping[str, Cut]) -> Layer:
    """Returns a layer with the conv groups that are left of its own."""
    gone = drops.get(f"{layer.module}.groups")
    return layer if gone is None else replace(layer, groups=layer.groups - len(gone[0]))
