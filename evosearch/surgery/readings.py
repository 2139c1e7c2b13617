"""Readings of operators whose sizes the code may fix: the loosest that the proof bears.

Every operator call that may cut channels at a size in the code is first read loosely. Where a
group then fails its proof, the compacted network is run beside the exported graph, and the first
operator whose result has other sizes than the labels foretell is read more strictly.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from evosearch.calling import call
from evosearch.space.mask import ChannelGroup
from evosearch.space.space import FrozenGroup
from evosearch.surgery.proof import TOLERANCE, Checker
from evosearch.surgery.tracing.export import Export, Reading, Trace
from evosearch.surgery.tracing.graph import EVALUATION

Shape = tuple[int, ...]


def settle(export: Export, checker: Checker) -> Reading:
    """Returns the loosest readings of all choices that the groups' proofs bear."""
    readings: dict[str, int] = {}
    while True:
        current = export.read(readings)
        stuck = _first_failure(current, checker)
        if stuck is not None:
            readings |= _stricter(export, checker, current, stuck)
            continue
        freed = _freeing(export, checker, current, readings)
        if freed is None:
            return current
        readings |= freed


def without_collapsed(current: Reading) -> Trace:
    """Returns the trace of a reading; groups that operators tie into one channel are frozen."""
    trace = current.trace
    axes = {(layer.weight, layer.writes) for layer in trace.layers}
    groups, frozen = [], list(trace.frozen)
    for group in trace.groups:
        names = {current.walk.choices[name].operator for name in _touching(current, group)}
        if group.size > 1 or not names:
            groups.append(group)
            continue
        written = (len(m.positions) for m in group.members if (m.tensor, m.dim) in axes)
        reason = f"operator {', '.join(sorted(names))} ties its channels into one"
        frozen.append(FrozenGroup(name=group.name, size=max(written), reason=reason))
    return replace(trace, groups=tuple(groups), frozen=tuple(frozen))


def _touching(current: Reading, group: ChannelGroup) -> list[str]:
    return [name for name, groups in current.open_choices.items() if group.name in groups]


def _first_failure(current: Reading, checker: Checker) -> ChannelGroup | None:
    """Returns a group that fails its proof and that a stricter reading might mend."""
    layers = [*chain.from_iterable(current.walk.layers.values())]
    touched = frozenset().union(*current.open_choices.values())
    for group in current.grouping.groups:
        if (
            group.size > 1
            and group.name in touched
            and checker.alone(group, layers).error > TOLERANCE
        ):
            return group
    return None


def _stricter(
    export: Export, checker: Checker, current: Reading, group: ChannelGroup
) -> dict[str, int]:
    """Returns the next reading of the operator that is to blame for a group's failure.

    Where none can be named, all that touch the group are read strictly.
    """
    choices = current.walk.choices
    culprit = _culprit(export, checker, current, group)
    if culprit is not None:
        return {culprit: choices[culprit].reading + 1}
    return {name: choices[name].readings - 1 for name in _touching(current, group)}


def _freeing(
    export: Export, checker: Checker, current: Reading, readings: Mapping[str, int]
) -> dict[str, int] | None:
    """Returns stricter readings that leave more channels to choose from; None if there are none.

    A loose reading can tie all channels into one, or to frozen ones, where a strict one freezes a
    few of them only.
    """
    choices = current.walk.choices
    useful = {group.name for group in current.grouping.groups if group.size > 1}
    idle = [name for name, groups in current.open_choices.items() if not groups & useful]
    if not idle:
        return None
    strictest = max(choices[name].readings for name in idle)
    for step in (1, strictest):
        stricter = {name: choices[name].reading + step for name in idle}
        trial = export.read({**readings, **stricter})
        if _prunable(trial) > _prunable(current) and _first_failure(trial, checker) is None:
            return stricter
    return None


def _prunable(reading: Reading) -> int:
    return sum(group.size for group in reading.grouping.groups if group.size > 1)


def _culprit(
    export: Export, checker: Checker, current: Reading, group: ChannelGroup
) -> str | None:
    """Returns the first operator whose result differs in size from what its labels foretell.

    None where that is no open choice, or where the two runs cannot be aligned.
    """
    mask = checker.some(group)
    dropped = current.grouping.roots[group.name][~mask[group.name]]
    whole = _Recorder()
    try:
        with torch.enable_grad(), whole:
            ranges = _Replay(export, checker, whole).ranges
        network = checker.compacted([group], mask)
    except Exception:  # the graph holds types as they were exported, and code may fix them
        return None
    compacted = _Recorder()
    with torch.enable_grad(), compacted, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call(network, checker.example)
        except Exception:  # whatever the user's code raises: it broke at the last call
            compacted.calls.append((None, []))
    for node, calls in ranges.items():
        made = compacted.calls[calls.start : calls.stop]
        if [call[0] for call in made] != [
            call[0] for call in whole.calls[calls.start : calls.stop]
        ]:
            break
        expected = _foretold(current, node, dropped)
        actual = [shape for _, shapes in made for shape in shapes]
        if made and expected is not None and actual[-len(expected) :] != expected:
            break
    else:
        return None
    name = f"{EVALUATION}.{node.name}"
    choice = current.walk.choices.get(name)
    return None if choice is None or choice.strict else name


def _foretold(current: Reading, node: fx.Node, dropped: NDArray[np.int64]) -> list[Shape] | None:
    """Returns the sizes of a node's results without the channels dropped."""
    value = current.walk.values.get(node)
    parts = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(part, Tensor) for part in parts):
        return None
    gone = torch.from_numpy(dropped)
    shapes = []
    for labels in parts:
        stays = ~torch.isin(current.walk.labels.roots(labels), gone)
        others = [tuple(o for o in range(labels.ndim) if o != dim) for dim in range(labels.ndim)]
        shapes.append(tuple(int(stays.sum(o).count_nonzero()) for o in others))
    return shapes


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operator that runs, and the sizes of its results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, list[Shape]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        leaves = pytree.tree_leaves(result)
        self.calls.append((func, [tuple(x.shape) for x in leaves if isinstance(x, Tensor)]))
        return result


class _Replay(fx.Interpreter):
    """Runs an exported graph, and notes which recorded calls each of its nodes makes."""

    def __init__(self, export: Export, checker: Checker, recorder: _Recorder) -> None:
        super().__init__(export.program.graph_module)
        self.ranges: dict[fx.Node, range] = {}
        self._recorder = recorder
        self.run(*export.inputs(checker.model, checker.example))

    def run_node(self, n: fx.Node) -> Any:
        start = len(self._recorder.calls)
        result = super().run_node(n)
        if n.op == "call_function":
            self.ranges[n] = range(start, len(self._recorder.calls))
        return result
