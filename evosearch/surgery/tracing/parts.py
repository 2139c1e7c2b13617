"""Parts of a model that are traced by themselves, on what the whole model hands them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from evosearch.callables import one_line
from evosearch.calling import Arguments, Example, arguments, call
from evosearch.errors import InputError, unknown_name
from evosearch.machine import torch_seeded
from evosearch.models.copying import copied
from evosearch.surgery.tracing.export import batch_size

_PLAIN = Tensor | bool | int | float | str | None
"""What a part may be handed, in any nest."""


@final
@dataclass(frozen=True, kw_only=True)
class Scope:
    """What is traced and proven: a whole model, or a part of one.

    Attributes:
        model: its modules have the names that they have in the whole.
        example: what it is called with, batched.
        images: that the example is of.
        part: its name; empty for the whole.
    """

    model: nn.Module
    example: Arguments
    images: int
    part: str = ""


def scopes_of(model: nn.Module, example: Example, parts: Sequence[str] = ()) -> tuple[Scope, ...]:
    """Returns what is traced of a model: all of it, or parts, in the order in which they run.

    Args:
        model: in any mode; it is not changed.
        example: its arguments, batched.
        parts: names of modules; none is the whole.

    Raises:
        InputError: a part is no module, in another one, or not called exactly once in a forward
            pass in evaluation; it is handed other things than tensors and plain values; or its
            weights, or what it computes and does not return, are read outside it.
        TracingError: the example has no images.
    """
    images = batch_size(example)
    if not parts:
        return (Scope(model=model, example=arguments(model, example), images=images),)
    _require_names(model, parts)
    whole = copied(model).cpu().eval()
    calls = _watched(whole, pytree.tree_map_only(Tensor, Tensor.cpu, example), parts)
    for name, own in calls.items():
        _require_rows(name, own, images)
    return tuple(
        Scope(
            model=_Window(name, whole.get_submodule(name)), example=own, images=images, part=name
        )
        for name, own in calls.items()
    )


class _Window(nn.Module):
    """A part of a model by itself, under the name that it has in the whole."""

    def __init__(self, name: str, part: nn.Module) -> None:
        super().__init__()
        self._part_name = name
        *holders, leaf = name.split(".")
        place: nn.Module = self
        for holder in holders:
            place.add_module(holder, nn.Module())
            place = place.get_submodule(holder)
        place.add_module(leaf, part)

    def _get_name(self) -> str:
        part = self.get_submodule(self._part_name)
        return f"part {self._part_name!r} ({type(part).__name__})"

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.get_submodule(self._part_name)(*args, **kwargs)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what parts are called with, and what of theirs is read outside them.

    That is a parameter or buffer, or what a part computes of them and does not return, such as
    features that it keeps in an attribute or gives to a hook.
    """

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: dict[str, list[Arguments]] = {}
        self.read_outside: dict[str, str] = {}
        self._running: list[str] = []
        self._inner: dict[int, tuple[str, ReferenceType[Tensor]]] = {}
        self._owned = {
            id(tensor): (part, name)
            for part, module in parts.items()
            for name, tensor in (*module.named_parameters(part), *module.named_buffers(part))
        }

    def begin(
        self, part: str, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        # Clones, because the part may work in place.
        own = pytree.tree_map_only(Tensor, lambda t: t.detach().clone(), Arguments(args, kwargs))
        self.calls.setdefault(part, []).append(own)
        self._running.append(part)

    def end(self, _: nn.Module, args: tuple[Any, ...], kwargs: Any, outputs: Any) -> None:
        self._running.pop()
        for leaf in pytree.tree_leaves((args, kwargs, outputs)):
            self._inner.pop(id(leaf), None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read = [self._owner(leaf) for leaf in pytree.tree_leaves((args, kwargs))]
        inside = False
        for part, name in filter(None, read):
            inside |= part in self._running
            if part not in self._running:
                self.read_outside.setdefault(part, name)
        found = func(*args, **(kwargs or {}))
        if inside:
            for leaf in pytree.tree_leaves(found):
                if isinstance(leaf, Tensor):
                    self._inner[id(leaf)] = self._running[-1], ref(leaf)
        return found

    def _owner(self, leaf: Any) -> tuple[str, str] | None:
        """Returns the part that a tensor is of, and the tensor's name."""
        if id(leaf) in self._owned:
            return self._owned[id(leaf)]
        part, made = self._inner.get(id(leaf), ("", None))
        # Another tensor may lie where one that is gone did.
        return (part, "inner tensor") if made is not None and made() is leaf else None


def _watched(model: nn.Module, example: Example, parts: Sequence[str]) -> dict[str, Arguments]:
    """Returns what each part is called with in a forward pass, in the order of the calls."""
    modules = {name: model.get_submodule(name) for name in parts}
    watch = _Watch(modules)
    handles = []
    for name, module in modules.items():
        begin = partial(watch.begin, name)
        handles.append(module.register_forward_pre_hook(begin, with_kwargs=True))
        handles.append(module.register_forward_hook(watch.end, with_kwargs=True))
    try:
        with torch.no_grad(), torch_seeded(0), watch:
            call(model, example)
    except Exception as error:  # whatever the user's code raises
        raise InputError(
            f"[model] the network fails on random inputs of the shapes in input: {one_line(error)}"
        ) from error
    for handle in handles:
        handle.remove()
    for name in parts:
        count = len(watch.calls.get(name, ()))
        if count != 1:
            raise InputError(
                f"[model] part = {name!r}: called {count} times in a forward pass; expected a"
                " module that is called once" + ("" if count else ", such as one inside it")
            )
        if name in watch.read_outside:
            raise InputError(
                f"[model] part = {name!r}: its {watch.read_outside[name]} is read outside it as"
                " well, where channels would be missing; name a part that holds all that reads it"
            )
    return {name: calls[0] for name, calls in watch.calls.items()}


def _require_names(model: nn.Module, parts: Sequence[str]) -> None:
    names = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    for part in parts:
        if part not in names:
            raise unknown_name("[model] part", part, names)
    for part in parts:
        for other in parts:
            if part.startswith(f"{other}.") or (part == other and parts.count(part) > 1):
                raise InputError(
                    f"[model] part: {part!r} is in {other!r}, which is named as well; leave one of"
                    " the two out"
                )


def _require_rows(name: str, handed: Arguments, images: int) -> None:
    odd = [leaf for leaf in pytree.tree_leaves(handed) if not isinstance(leaf, _PLAIN)]
    if odd:
        raise InputError(
            f"[model] part = {name!r}: it is handed a {type(odd[0]).__name__}; expected tensors,"
            " plain values, and nests of these"
        )
    tensors = [leaf for leaf in pytree.tree_leaves(handed) if isinstance(leaf, Tensor)]
    rows = [tensor.shape[0] if tensor.ndim else 0 for tensor in tensors[:1]]
    if rows == [] or rows[0] == 0 or rows[0] % images:
        came = f"{rows[0]} rows" if rows else "no tensor"
        raise InputError(
            f"[model] part = {name!r}: it is handed {came} for {images} images; expected as many"
            " rows for each image"
        )
