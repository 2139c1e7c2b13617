"""Loads a compact network into its original constructor's model. Needs torch and safetensors only.

`evosearch export` copies this file beside an artifact as `load.py`, with `calling.py` and
`cut_attention.py`:

    from load import rebuild
    network = rebuild(build_model(), "path/to/artifact")
"""

import copy
import json
import math
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch.utils import _pytree as pytree

if __package__ == "evosearch.export":
    from evosearch.calling import call
    from evosearch.surgery.cut_attention import fit_attention
else:  # the copy beside an artifact, which has copies of those files too
    from calling import call  # type: ignore[import-not-found,no-redef]
    from cut_attention import fit_attention  # type: ignore[import-not-found,no-redef]

CHECK = "check.safetensors"
"""The file of outputs that a compact network must give."""
IMAGES = 3
"""Images in the batch that they are of."""
KEPT = 4096
"""Numbers that are kept of each output, at most."""
TOLERANCE = 1e-5
"""Largest difference of outputs allowed, as a share of the largest output."""
_PRIME = 2**31 - 1


class OtherNetworkError(ValueError):
    """The outputs of a rebuilt network are not those of the network that was saved."""


class Implanted(torch.nn.Module):
    """A convolution of which some outputs are made by 1x1 kernels, where the others' centres are.

    Implants of Hessian-aware pruning (HAP, Yu et al. 2021, arXiv 2101.08940).
    """

    order: torch.Tensor

    def __init__(self, main: torch.nn.Conv2d, places: Sequence[int]) -> None:
        """Takes a convolution, which keeps the other filters, and the outputs that are made so.

        Their kernels are zero, and they keep their biases.
        """
        super().__init__()
        inner = set(places)
        others = [place for place in range(main.out_channels) if place not in inner]
        self.main = main
        down, across = main.stride
        self.implant = torch.nn.Conv2d(
            main.in_channels, len(places), 1, (down, across), bias=main.bias is not None
        ).to(main.weight)
        self.register_buffer("order", torch.tensor([*others, *places]).argsort())
        with torch.no_grad():
            self.implant.weight.zero_()
            if main.bias is not None and self.implant.bias is not None:
                self.implant.bias.copy_(main.bias[list(places)])
                main.bias = torch.nn.Parameter(main.bias[others].clone())
            main.weight = torch.nn.Parameter(main.weight[others].clone())
        main.out_channels = len(others)

    @property
    def places(self) -> list[int]:
        """The outputs that 1x1 kernels make."""
        made = self.order.tolist()
        return [place for place, source in enumerate(made) if source >= self.main.out_channels]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the outputs of both, in their order."""
        both = torch.cat([self.main(images), self.implant(images)], 1)
        return both.index_select(1, self.order)


def implant(model: torch.nn.Module, implants: Mapping[str, Sequence[int]]) -> None:
    """Puts implants into a model, in place.

    Args:
        model: changed.
        implants: name of a convolution -> the outputs that 1x1 kernels are to make.

    Raises:
        ValueError: the model has no such convolution.
    """
    modules = dict(model.named_modules())
    for name, places in implants.items():
        main = modules.get(name)
        if not isinstance(main, torch.nn.Conv2d) or not (
            places and set(places) < set(range(main.out_channels))
        ):
            raise ValueError(f"the artifact has implants in {name!r}, the model no room for them")
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, Implanted(main, places).to(main.weight.device))


def rebuild(model: torch.nn.Module, folder: str | Path) -> torch.nn.Module:
    """Turns the original, unpruned model into the compact network of an artifact, in place.

    Args:
        model: as its constructor makes it; its weights do not matter.
        folder: holds `plan.json` and `weights.safetensors`.

    Returns:
        The same model, compact, with the artifact's weights, in eval mode.

    Raises:
        ValueError: a module or tensor of the artifact is not in the model, or one is missing.
        OtherNetworkError: the model's code computes something else with them.
    """
    folder = Path(folder)
    plan: dict[str, Any] = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    with safe_open(folder / "weights.safetensors", framework="pt") as file:
        names = file.keys()
        weights = {name: file.get_tensor(name) for name in names}
        # Buffers that no state dict has; files of format 1 have none of them.
        transient = set(json.loads((file.metadata() or {}).get("not_in_state_dict", "[]")))
    implant(model, plan.get("implants", {}))
    modules = dict(model.named_modules())
    for name, attributes in plan["modules"].items():
        if name not in modules:
            raise ValueError(f"the artifact has a module {name!r}, the model has none")
        for attribute, value in attributes.items():
            if not hasattr(modules[name], attribute):
                raise ValueError(f"module {name!r} has no attribute {attribute!r}")
            setattr(modules[name], attribute, tuple(value) if isinstance(value, list) else value)

    state = {n: t for n, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
    if state.keys() != weights.keys() - transient:
        names = ", ".join(sorted(state.keys() ^ (weights.keys() - transient))[:3])
        raise ValueError(f"tensors of only one of artifact and model: {names}")
    made: dict[int, torch.Tensor] = {}  # a shared tensor stays shared
    originals: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
    originals.update(model.named_buffers(remove_duplicate=False))
    for name, original in originals.items():
        if name not in weights:
            continue
        if id(original) not in made:
            tensor = weights[name].to(original.device)
            if isinstance(original, torch.nn.Parameter):
                tensor = torch.nn.Parameter(tensor, requires_grad=original.requires_grad)
            made[id(original)] = tensor
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, made[id(original)])
    for module in model.modules():
        fit_attention(module)
    _require_outputs(model.eval(), folder)
    return model


def write_outputs(network: torch.nn.Module, folder: Path) -> None:
    """Keeps what a network gives for random images, which `rebuild` compares.

    Args:
        network: in eval mode; not changed.
        folder: of the artifact, with its plan.
    """
    # As bytes: the files of `save_file` may be read by their owner alone.
    (folder / CHECK).write_bytes(save(_outputs(network, folder)))


def _require_outputs(network: torch.nn.Module, folder: Path) -> None:
    if not (folder / CHECK).is_file():  # formats 1 and 2 have none
        return
    expected = load_file(folder / CHECK)
    if not expected:
        raise OtherNetworkError("it has no outputs that can be compared")
    try:
        found = _outputs(network, folder)
    except Exception as error:  # whatever the model's code raises
        reason = str(error).strip().partition("\n")[0]
        raise OtherNetworkError(f"it fails: {type(error).__name__}: {reason}") from error
    shapes = [[o[n].tolist() for n in sorted(o) if n.endswith("shape")] for o in (found, expected)]
    if shapes[0] != shapes[1]:
        raise OtherNetworkError(f"it has outputs of the shapes {shapes[0]}, not {shapes[1]}")
    for name, theirs in expected.items():
        if name not in found or found[name].shape != theirs.shape:
            raise ValueError(f"{CHECK} is not what was written")
        if torch.equal(found[name], theirs) or not theirs.numel():
            continue
        difference = float((found[name] - theirs).abs().max())
        largest = float(theirs.abs().max())
        if not difference <= TOLERANCE * largest:
            raise OtherNetworkError(
                f"its outputs differ by {difference:.1e}, of outputs up to {largest:.1e}, from"
                " those of the network that was saved"
            )


def _outputs(network: torch.nn.Module, folder: Path) -> dict[str, torch.Tensor]:
    """Returns the shape of each output, and some of its numbers, evenly spread.

    In float64, as float32 rounds otherwise where a network lies otherwise in memory.
    """
    plan: dict[str, Any] = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    shapes = plan["model"]["input"]
    # A forward pass may leave tensors on modules: the copy's, and those that hang on a graph.
    attributes = (value for module in network.modules() for value in vars(module).values())
    held = {id(v): v.detach() for v in attributes if isinstance(v, torch.Tensor) and not v.is_leaf}
    exact = copy.deepcopy(network, held).cpu().double()
    outputs: dict[str, torch.Tensor] = {}
    with _seeded(), torch.inference_mode():
        leaves = pytree.tree_leaves(call(exact, _inputs(shapes)))
        for number, leaf in enumerate(v for v in leaves if isinstance(v, torch.Tensor)):
            flat = leaf.flatten().double()
            count = min(KEPT, len(flat))
            places = torch.arange(count) * len(flat) // max(1, count)
            outputs[f"{number} shape"] = torch.tensor(leaf.shape, dtype=torch.int64)
            outputs[f"{number} numbers"] = flat[places].clone()
    return outputs


def _inputs(shapes: Any) -> Any:
    """Returns a batch of what a plan says of inputs: one, several, or several by name."""
    if isinstance(shapes, dict):
        return {name: _images(shape) for name, shape in shapes.items()}
    return tuple(map(_images, shapes if isinstance(shapes[0], list) else [shapes]))


def _images(shape: list[int]) -> torch.Tensor:
    """Returns numbers that look random, of mean 0 and variance 1: the same wherever it runs."""
    base = torch.arange(IMAGES * math.prod(shape)) + 2**16 + 1
    square = base * base % _PRIME
    shares = (square * square % _PRIME).double() / _PRIME
    return ((shares - 0.5) * math.sqrt(12)).reshape(IMAGES, *shape)


@contextmanager
def _seeded() -> Iterator[None]:
    """Seeds the generators that a forward pass may draw from, and puts them back."""
    numpy: Any = sys.modules.get("numpy")  # what is not imported draws nothing
    states = random.getstate(), numpy and numpy.random.get_state()
    random.seed(0)
    if numpy:
        numpy.random.seed(0)
    try:
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(0)
            yield
    finally:
        random.setstate(states[0])
        if numpy:
            numpy.random.set_state(states[1])
