"""Weight files that hold tensors and nothing else, and a digest of weights."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from evosearch.errors import InputError
from evosearch.files import replacing

TRANSIENT = "not_in_state_dict"
"""Key of a file's metadata: the buffers in it that a state dict leaves out, as a JSON list."""
_KEYS = ("state_dict", "model_state_dict", "model")


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Returns every parameter and buffer by each of its names, also those of no state dict."""
    state = model.state_dict(keep_vars=True)
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    return tensors | dict(model.named_buffers(remove_duplicate=False))


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads every parameter and buffer of a model from a file; nothing is unpickled.

    Args:
        model: changed in place, only where all of the file fits.
        path: a `.safetensors` file, or what `torch.save` wrote for a state dict, also one under
            the key "state_dict", "model_state_dict" or "model" of a checkpoint. A prefix
            "module." of all names, which `DataParallel` makes, is taken off. What `save_weights`
            wrote holds also the buffers that a state dict leaves out.

    Raises:
        InputError: the file is missing, broken or holds more than tensors, or its tensors are
            not the model's; names those that are missing, unexpected or of another shape.
    """
    tensors, transient = _read_tensors(path)
    buffers = {name: tensors.pop(name) for name in transient}
    expected = model.state_dict()
    problems = []
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    for kind, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            problems.append(f"{kind} {_listed(names)}")
    shapes = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if shapes:
        problems.append(f"other shapes: {_listed(shapes)}")
    if problems:
        raise InputError(f"{path}: the weights do not fit the model: {'; '.join(problems)}")
    load_state(model, tensors)
    for name, original in model.named_buffers(remove_duplicate=False):
        if name in buffers:  # of whatever size: a forward pass may have grown it
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, buffers[name].to(original))


def load_state(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Loads all of a model's state from tensors by name, as modules of its own versions have it.

    Some modules ask for the version of what they load, which a plain mapping does not have.

    Args:
        model: changed in place.
        tensors: one for every name of its state dict.
    """
    state = OrderedDict(tensors)
    state._metadata = model.state_dict()._metadata  # type: ignore[attr-defined]
    model.load_state_dict(state)


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Returns a file's tensors by name, and which of them no state dict has."""
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    content: Any
    transient: list[str] = []
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                names = file.keys()
                content = {name: file.get_tensor(name) for name in names}
                listed = json.loads((file.metadata() or {}).get(TRANSIENT, "[]"))
            transient = [name for name in listed if name in content]
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    # A broken archive or pickle raises nearly anything.
    except (SafetensorError, Exception) as error:
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise InputError(
            f"{path}: no weights file; expected safetensors or a checkpoint of nothing but"
            f" tensors ({type(error).__name__}: {reason})"
        ) from error
    for key in _KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise InputError(
            f"{path}: no state dict: expected names with one tensor each, or that under one of"
            f" the keys {', '.join(_KEYS)}"
        )
    prefix = "module." if all(name.startswith("module.") for name in content) else ""
    tensors = {name.removeprefix(prefix): tensor for name, tensor in content.items()}
    return tensors, [name.removeprefix(prefix) for name in transient]


def _listed(items: list[str]) -> str:
    shown = ", ".join(items[:3])
    return shown if len(items) <= 3 else f"{shown} and {len(items) - 3} more"


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes every parameter and buffer as safetensors, also those that a state dict leaves out.

    Raises:
        OSError: it cannot be written.
    """
    # Clones, because safetensors refuses tensors that share memory.
    tensors = {name: t.detach().cpu().clone() for name, t in tensors_of(model).items()}
    transient = json.dumps(sorted(tensors.keys() - model.state_dict().keys()))
    with replacing(path) as temporary:
        # As bytes: safetensors' own files may be read by their owner alone.
        laid = {name: tensor.contiguous() for name, tensor in tensors.items()}
        temporary.write_bytes(save(laid, metadata={TRANSIENT: transient}))


def weights_digest(model: nn.Module) -> str:
    """Returns 32 hexadecimal digits that change with any name, shape, type or value of weight.

    Weights are parameters and buffers, also those buffers that no state dict holds.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors_of(model).items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(flat.numpy().tobytes())
    return digest.hexdigest()[:32]
