"""From a model to its search space: trace, apply the user's rules, prove, count."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from evosearch.errors import InputError
from evosearch.mask import ChannelGroup
from evosearch.space import FrozenGroup, SearchSpace
from evosearch.surgery.counting import cost_terms
from evosearch.surgery.proof import GroupProof, prove
from evosearch.surgery.tracing import Layer, Trace, trace


class GroupRules(BaseModel):
    """What the user says about channel groups ([groups] in a space file).

    Attributes:
        exclude: module name patterns (`*`, `?`, `[...]`) whose output channels stay.
        multiple_of: widths are multiples of this, but for a group's full size.
        min_keep: fewest channels of any group; smaller groups stay whole.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    exclude: tuple[str, ...] = ()
    multiple_of: int = Field(default=1, ge=1)
    min_keep: int = Field(default=1, ge=1)


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """A proven search space and what the torch side needs to work in it."""

    space: SearchSpace
    layers: tuple[Layer, ...]
    proofs: tuple[GroupProof, ...]


def discover(
    model: nn.Module,
    example: tuple[Any, ...],
    rules: GroupRules,
    seed: int,
    reference: Mapping[str, Any] | None = None,
) -> Discovery:
    """Finds and proves what can be pruned in a model.

    Args:
        model: not changed.
        example: its arguments, with a batch of at least 2.
        rules: the user's exclusions and width rules.
        seed: of the proof's random parameters and masks.
        reference: the space file's sections, kept in the space.

    Raises:
        TracingError: the model cannot be traced.
        InputError: a pattern in `exclude` matches no module, or nothing can be pruned.
    """
    found = _apply_rules(trace(model, example), rules, [name for name, _ in model.named_modules()])
    proof = prove(model, example, found, seed)
    frozen = (*found.frozen, *proof.frozen)
    if not proof.groups:
        reasons = sorted({part.reason for part in frozen})
        raise InputError(f"nothing can be pruned: {'; '.join(reasons) or 'no layers found'}")
    space = SearchSpace(
        groups=proof.groups,
        terms=cost_terms(model, example, proof.groups, found.layers),
        frozen=frozen,
        reference=dict(reference or {}),
    )
    return Discovery(space=space, layers=found.layers, proofs=proof.measured)


def _apply_rules(found: Trace, rules: GroupRules, modules: Sequence[str]) -> Trace:
    for pattern in rules.exclude:
        if not any(fnmatchcase(module, pattern) for module in modules):
            raise InputError(f"[groups] exclude: pattern {pattern!r} matches no module")
    groups: list[ChannelGroup] = []
    frozen = list(found.frozen)
    for group in found.groups:
        excluding = _excluded_by(group, found.layers, rules.exclude)
        if excluding is not None:
            reason = f"excluded by {excluding!r}"
        elif rules.min_keep >= group.size:
            reason = f"min_keep = {rules.min_keep}"
        else:
            groups.append(replace(group, min_keep=rules.min_keep, multiple_of=rules.multiple_of))
            continue
        frozen.append(FrozenGroup(name=group.name, size=group.size, reason=reason))
    return replace(found, groups=tuple(groups), frozen=tuple(frozen))


def _excluded_by(
    group: ChannelGroup, layers: Sequence[Layer], patterns: Sequence[str]
) -> str | None:
    """Returns the first pattern that matches a module which writes the group's channels."""
    tensors = {member.tensor for member in group.members if member.dim == 0}
    writers = {layer.module for layer in layers if layer.weight in tensors}
    for pattern in patterns:
        if any(fnmatchcase(writer, pattern) for writer in writers):
            return pattern
    return None


def prunable_share(discovery: Discovery) -> float:
    """Returns the share of the base network's MACs in layers with a prunable side."""
    space = discovery.space
    widths = space.sizes
    total = prunable = 0
    for term in space.terms:
        macs = term.evaluate(widths).macs
        total += macs
        if any(monomial.groups for monomial in term.macs):
            prunable += macs
    return prunable / total
