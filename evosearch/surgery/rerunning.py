"""Runs of one network after another that differ in a few channels, what they share computed once.

Nearly all of a network's time goes into convolutions and matrix products. When the same call of
one has the same weights and gets the same input as in a run before, its result is taken from that
run. All else runs as it is, whatever the code does, and inputs are compared by their values, so
that code which changes tensors in place or goes another way is followed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

SAME = 1e-12
"""Relative difference up to which float64 inputs are the same but for rounding."""
ROOM = 512 * 2**20
"""Bytes of inputs and results that one run keeps; what comes later is computed every time."""
_LINEAR = {
    getattr(torch.ops.aten, name)
    for name in (
        *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"),
        *("conv_transpose3d", "convolution", "linear", "addmm", "mm", "bmm", "matmul"),
    )
}
"""Operators that are linear in each of their tensors: inputs alike give results alike."""


@dataclass(frozen=True, eq=False)
class _Held:
    """A tensor of the network, or a view of one."""

    storage: int
    layout: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of an operator: what went in, in copies, and what came out."""

    operator: Any
    arguments: tuple[Any, ...]
    result: Tensor


@final
class Rerun(TorchDispatchMode):
    """Runs a network inside the block, with the results of a run before where they are the same.

    Attributes:
        calls: of this run, for one after it; None where there was no room.
        reused: how many of them were not computed.
    """

    def __init__(
        self,
        model: nn.Module,
        before: Sequence[Call | None] = (),
        changed: Iterable[Tensor] = (),
        *,
        keeping: bool = True,
    ) -> None:
        """Sets out from a run before.

        Args:
            model: its tensors are held to be what they were in that run.
            before: the calls of that run.
            changed: the tensors of the model that are not.
            keeping: whether calls are kept for a run after this one.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call | None] = []
        self.reused = 0
        self._before = before
        self._room = ROOM if keeping else 0
        self._held = {_storage(t) for t in (*model.parameters(), *model.buffers())}
        self._changed = {_storage(tensor) for tensor in changed}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Computes a call, or takes the result of the one in its place in the run before."""
        if func.overloadpacket not in _LINEAR or kwargs:  # these scale a product, or give its type
            return func(*args, **(kwargs or {}))
        place = len(self.calls)
        earlier = self._before[place] if place < len(self._before) else None
        if earlier is not None and self._same(func, args, earlier):
            self.calls.append(earlier)
            self.reused += 1
            return earlier.result.clone()
        result = func(*args)
        self.calls.append(self._kept(func, args, result))
        return result

    def _same(self, func: Any, args: Sequence[Any], earlier: Call) -> bool:
        return (
            func is earlier.operator
            and len(args) == len(earlier.arguments)
            and all(map(self._alike, args, earlier.arguments))
        )

    def _alike(self, argument: Any, earlier: Any) -> bool:
        if not isinstance(argument, Tensor):
            return not isinstance(earlier, Tensor | _Held) and bool(argument == earlier)
        if isinstance(earlier, _Held):
            storage = _storage(argument)
            return (
                storage == earlier.storage
                and storage not in self._changed
                and _layout(argument) == earlier.layout
            )
        return isinstance(earlier, Tensor) and _close(argument, earlier)

    def _kept(self, func: Any, args: Sequence[Any], result: Tensor) -> Call | None:
        """Returns a call in copies, which code that goes on with its tensors leaves alone."""
        if self._room <= 0:
            return None
        arguments, copy = tuple(map(self._copied, args)), result.clone()
        self._room -= sum(t.nbytes for t in (*arguments, copy) if isinstance(t, Tensor))
        return Call(func, arguments, copy) if self._room >= 0 else None

    def _copied(self, argument: Any) -> Any:
        if not isinstance(argument, Tensor):
            return argument
        if _storage(argument) in self._held:
            return _Held(_storage(argument), _layout(argument))
        return argument.clone()


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tensor.storage_offset(), tensor.shape, tensor.stride()


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if torch.equal(one, other):
        return True
    scale = other.abs().max()
    return bool((one - other).abs().max() <= SAME * scale) and bool(scale.isfinite())
