"""Loads a compact network into its original constructor's model. Needs torch and safetensors only.

`evosearch export` copies this file beside an artifact as `load.py`:

    from load import rebuild
    network = rebuild(build_model(), "path/to/artifact")
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open


def rebuild(model: torch.nn.Module, folder: str | Path) -> torch.nn.Module:
    """Turns the original, unpruned model into the compact network of an artifact, in place.

    Args:
        model: as its constructor makes it; its weights do not matter.
        folder: holds `plan.json` and `weights.safetensors`.

    Returns:
        The same model, compact, with the artifact's weights, in eval mode.

    Raises:
        ValueError: a module or tensor of the artifact is not in the model, or one is missing.
    """
    folder = Path(folder)
    plan: dict[str, Any] = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    with safe_open(folder / "weights.safetensors", framework="pt") as file:
        names = file.keys()
        weights = {name: file.get_tensor(name) for name in names}
        # Buffers that no state dict has; files of format 1 have none of them.
        transient = set(json.loads((file.metadata() or {}).get("not_in_state_dict", "[]")))
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
    return model.eval()
