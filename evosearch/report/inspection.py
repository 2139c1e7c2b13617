"""The view of a search space that `evosearch inspect` shows; imported without torch."""

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table

from evosearch.space.cost import Cost, format_count

if TYPE_CHECKING:
    from evosearch.surgery.discovery import Discovery


def discovery_json(discovery: "Discovery") -> dict[str, Any]:
    """Returns groups with members and proof, frozen parts with reasons, and costs."""
    space = discovery.space
    proofs = {proof.group: proof for proof in discovery.proofs}
    return {
        "groups": [
            {
                "name": group.name,
                "size": group.size,
                "members": [f"{m.tensor}[{m.dim}]" for m in group.members],
                "proof": {
                    "error": proofs[group.name].error,
                    "effect": proofs[group.name].effect,
                },
            }
            for group in space.groups
        ],
        "frozen": [vars(part) for part in space.frozen],
        "base_cost": _cost_json(space.base_cost),
        "smallest_cost": _cost_json(space.smallest_cost),
        "prunable_macs_share": space.prunable_share,
        "digest": space.digest,
    }


def _cost_json(cost: Cost) -> dict[str, int]:
    return {"flops": cost.flops, "params": cost.params, "activations": cost.activations}


def discovery_tables(discovery: "Discovery") -> RenderableType:
    """Returns the same for people."""
    space = discovery.space
    proofs = {proof.group: proof for proof in discovery.proofs}
    groups = Table(title="Channel groups, each proven on this model", title_justify="left")
    for name in ("group", "channels", "lives in", "compact = masked", "effect"):
        groups.add_column(name, justify="right" if name == "channels" else "left")
    for group in space.groups:
        proof = proofs[group.name]
        places = [f"{m.tensor}[{m.dim}]" for m in group.members]
        shown = ", ".join(places[:4]) + (f" and {len(places) - 4} more" if places[4:] else "")
        groups.add_row(
            group.name, str(group.size), shown, f"{proof.error:.0e}", f"{proof.effect:.2f}"
        )
    parts: list[RenderableType] = [groups]
    if space.frozen:
        frozen = Table(title="Frozen", title_justify="left")
        for name in ("channels of", "channels", "why"):
            frozen.add_column(name, justify="right" if name == "channels" else "left")
        for part in space.frozen:
            frozen.add_row(part.name, str(part.size), part.reason)
        parts.append(frozen)
    for name, cost in (("base", space.base_cost), ("smallest reachable", space.smallest_cost)):
        parts.append(
            f"{name}: {format_count(cost.flops)} FLOPs ({cost.macs / space.base_cost.macs:.1%}),"
            f" {format_count(cost.params)} params, {format_count(cost.activations)} activations"
        )
    parts.append(f"MACs in layers with a prunable side: {space.prunable_share:.1%}")
    return Group(*parts)
