"""A space file for a model: traced, proven, and left to a person to review."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from torch import nn

from evosearch.config import validated
from evosearch.errors import InputError
from evosearch.files import write_text
from evosearch.models.build import ModelConfig, build_model
from evosearch.run.spacefile import SpaceFile, Traced
from evosearch.run.subject import BASE_SEED, discover_space
from evosearch.space.space import SearchSpace

_SECTIONS = """\
# Written by `evosearch space new`, for review; `evosearch inspect` on this file shows its groups.

[model]
{build}
input = {input}{part}
# weights = "weights.safetensors"   # or a checkpoint, or "built" where build returns it trained;
#                                     without this key the network is trained here

[data]
name = "fake"   # noise, to try the space with: put your own here, such as "imagefolder"
{normalisation}calibration = 64
search = 256

[groups]
exclude = []   # modules whose output channels stay, such as "stem" or "layer1.*"
multiple_of = 1   # of every width below the full one
min_keep = 1
"""
_TRACED = """
# What was found and proven: a search refuses a model, or [groups], that has another space.
[traced]
"""


def write_space(
    path: Path, build: str, inputs: Sequence[str] | None, parts: Sequence[str] = ()
) -> SearchSpace:
    """Traces and proves a model, and writes its space file.

    Args:
        path: of the file; must not exist.
        build: "torchvision:name", "timm:name", "module:callable", or "file.py:callable" beside
            the file.
        inputs: shape of each input for one image, such as "3x224x224", or "image=3x224x224" where
            it has a name; None for a model that says which it was trained on, as timm's do.
        parts: modules that alone are to be traced; none is the whole model.

    Raises:
        InputError: the file exists, a shape is malformed, or the model cannot be traced.
    """
    if path.exists():
        raise InputError(f"{path}: exists already; name another with --out")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder")
    # A model is built before it can say what goes into it.
    given = _parse_shapes(inputs) if inputs else [1]
    unreviewed = ModelConfig.model_validate({"build": build, "input": given})
    model = build_model(unreviewed, path.parent, seed=BASE_SEED)
    trained = _trained_on(model)
    if not inputs:
        if "input_size" not in trained:
            raise InputError("give --input, the shape of one image: this model does not say it")
        given = list(trained["input_size"])
    norms = {key: list(trained[key]) for key in ("mean", "std") if key in trained}
    sections = _SECTIONS.format(
        build=tomli_w.dumps({"build": build}).strip(),
        input=_as_toml(given),
        part=f"\npart = {json.dumps(list(parts))}   # these modules alone" if parts else "",
        normalisation="".join(f"{key} = {value}\n" for key, value in norms.items()),
    )
    file = validated(SpaceFile, tomllib.loads(sections), str(path))
    space = discover_space(file, model).space
    write_text(path, f"{sections}{_TRACED}{tomli_w.dumps(Traced.of(space).model_dump())}")
    return space


def _trained_on(model: nn.Module) -> Mapping[str, Any]:
    """Returns what timm's networks say of the images that they were trained on."""
    said = getattr(model, "pretrained_cfg", None)
    return said if isinstance(said, Mapping) else {}


def _parse_shapes(texts: Sequence[str]) -> Any:
    """Returns a shape, several, or several by name, as a space file has them."""
    names = [text.rpartition("=")[0] for text in texts]
    shapes = [_parse_shape(text) for text in texts]
    if any(names):
        if not all(names) or len(set(names)) < len(names):
            raise InputError("--input: expected a name for each of several, such as image=3x64x64")
        return dict(zip(names, shapes, strict=True))
    return shapes[0] if len(shapes) == 1 else shapes


def _parse_shape(text: str) -> list[int]:
    sizes = text.rpartition("=")[2].lower().split("x")
    if not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise InputError(f"--input {text!r}: expected sizes such as 3x224x224")
    return [int(size) for size in sizes]


def _as_toml(shapes: Any) -> str:
    """Returns shapes as the value of a key, in one line."""
    if isinstance(shapes, dict):
        return f"{{ {', '.join(f'{json.dumps(name)} = {own}' for name, own in shapes.items())} }}"
    return str(shapes)
