"""The search space of a model: traced, left to the search by the user's rules, proven, counted."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from evosearch.calling import Example
from evosearch.errors import InputError
from evosearch.space.mask import ChannelGroup
from evosearch.space.space import FrozenGroup, SearchSpace
from evosearch.surgery.counting import cost_terms
from evosearch.surgery.filesize import file_terms
from evosearch.surgery.peakmemory import peak_terms
from evosearch.surgery.proof import Checker, GroupProof, Proof, prove
from evosearch.surgery.readings import settle, without_collapsed
from evosearch.surgery.tracing.export import Export, Reading, Trace
from evosearch.surgery.tracing.parts import Scope, scopes_of
from evosearch.surgery.tracing.walk import Layer


class WidthRules(BaseModel):
    """Which widths a group may have.

    Attributes:
        multiple_of: widths are multiples of this, but for a group's full size.
        min_keep: fewest channels; smaller groups stay whole.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    multiple_of: int = Field(default=1, ge=1)
    min_keep: int = Field(default=1, ge=1)


class GroupRules(WidthRules):
    """What the user says about channel groups ([groups] in a space file).

    Attributes:
        exclude: module name patterns (`*`, `?`, `[...]`) whose output channels stay.
        only: module name pattern -> the widths of groups that a matching module writes, in
            place of the rules for all; of several that match, the last one holds.
    """

    exclude: tuple[str, ...] = ()
    only: dict[str, WidthRules] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """A proven search space and what the torch side needs to work in it."""

    space: SearchSpace
    layers: tuple[Layer, ...]
    proofs: tuple[GroupProof, ...]

    def __repr__(self) -> str:
        return f"Discovery({self.space}, {len(self.layers)} layers)"


def discover(
    model: nn.Module,
    example: Example,
    rules: GroupRules,
    seed: int,
    reference: Mapping[str, Any] | None = None,
    parts: Sequence[str] = (),
) -> Discovery:
    """Finds and proves what can be pruned in a model.

    Args:
        model: not changed.
        example: its arguments, with a batch of at least 2.
        rules: the user's exclusions and width rules.
        seed: of the proof's random parameters and masks.
        reference: the space file's sections, kept in the space.
        parts: names of modules, where these alone are to be traced and proven: their outputs and
            all that is outside them stay.

    Raises:
        TracingError: the model, or a part, cannot be traced.
        InputError: a pattern in `exclude` matches no module, a part is none that can be traced
            (see `scopes_of`), or nothing can be pruned.
    """
    _require_matches(rules, model)
    scopes = scopes_of(model, example, parts)
    with _one_thread():
        found = [_proven(scope, rules, seed) for scope in scopes]
    groups = tuple(group for own in found for group in own.proof.groups)
    layers = tuple(layer for own in found for layer in own.trace.layers)
    products = [product for own in found for product in own.trace.products]
    frozen = tuple(part for own in found for part in own.frozen)
    if not groups:
        reasons = sorted({part.reason for part in frozen})
        raise InputError(f"nothing can be pruned: {'; '.join(reasons) or 'no layers found'}")
    traced_alone = scopes if parts else ()
    space = SearchSpace(
        groups=groups,
        terms=cost_terms(model, example, groups, layers, products, traced_alone),
        frozen=frozen,
        size=file_terms(model, groups),
        # Of a model of which parts alone are traced, what is alive outside them is not known.
        memory=() if parts else peak_terms(found[0].export, found[0].reading, groups),
        reference=dict(reference or {}),
    )
    proofs = tuple(measured for own in found for measured in own.proof.measured)
    return Discovery(space=space, layers=layers, proofs=proofs)


@dataclass(frozen=True, kw_only=True)
class _Proven:
    export: Export
    reading: Reading
    trace: Trace
    proof: Proof
    frozen: tuple[FrozenGroup, ...]


def _proven(scope: Scope, rules: GroupRules, seed: int) -> _Proven:
    """Returns what is found in a model, or in a part of one, and its proof."""
    export = Export(scope.model, scope.example, scope.images)
    checker = Checker(scope.model, scope.example, seed, training=export.training)
    reading = settle(export, checker)
    trace = without_collapsed(reading)
    groups, excluded = _apply_rules(trace.groups, trace.layers, rules)
    proof = prove(checker, replace(trace, groups=groups))
    frozen = (*trace.frozen, *excluded, *proof.frozen)
    return _Proven(export=export, reading=reading, trace=trace, proof=proof, frozen=frozen)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keeps torch to one thread: a proof is thousands of small operations.

    Threads hardly speed them up, and slow them down badly where others use the cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _require_matches(rules: GroupRules, model: nn.Module) -> None:
    modules = [name for name, _ in model.named_modules()]
    for key, patterns in (("exclude", rules.exclude), ("only", tuple(rules.only))):
        for pattern in patterns:
            if not any(fnmatchcase(module, pattern) for module in modules):
                raise InputError(f"[groups] {key}: pattern {pattern!r} matches no module")


def _apply_rules(
    groups: Sequence[ChannelGroup], layers: Sequence[Layer], rules: GroupRules
) -> tuple[tuple[ChannelGroup, ...], tuple[FrozenGroup, ...]]:
    """Returns the groups that the user leaves to the search, and those frozen by a rule."""
    left: list[ChannelGroup] = []
    frozen: list[FrozenGroup] = []
    for group in groups:
        excluding = _matching(group, layers, rules.exclude)
        special = _matching(group, layers, tuple(rules.only))
        widths = rules.only[special[-1]] if special else rules
        if excluding:
            reason = f"excluded by {excluding[0]!r}"
        elif group.size > 1 and widths.min_keep >= group.size:
            reason = f"min_keep = {widths.min_keep}"
        else:
            least = min(widths.min_keep, group.size)
            left.append(replace(group, min_keep=least, multiple_of=widths.multiple_of))
            continue
        frozen.append(FrozenGroup(name=group.name, size=group.size, reason=reason))
    return tuple(left), tuple(frozen)


def _matching(group: ChannelGroup, layers: Sequence[Layer], patterns: Sequence[str]) -> list[str]:
    """Returns the patterns that match a module which writes the group's channels."""
    axes = {(member.tensor, member.dim) for member in group.members}
    writers = {layer.module for layer in layers if (layer.weight, layer.writes) in axes}
    return [p for p in patterns if any(fnmatchcase(writer, p) for writer in writers)]
