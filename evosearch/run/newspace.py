"""A space file for a model: traced, proven, and left to a person to review."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evosearch.errors import InputError
from evosearch.files import write_text
from evosearch.models.build import ModelConfig, build_model
from evosearch.run.subject import BASE_SEED, example_input
from evosearch.space.space import SearchSpace
from evosearch.space.text import space_to_toml
from evosearch.surgery.discovery import GroupRules, discover

_HEAD = """\
# Written by `evosearch space new`. [data] is noise to try the space with: put your own there, and
# weights under [model]. [traced] is what was found and proven, for review; a search refuses the
# file when the model no longer has these groups.
"""


def write_space(path: Path, build: str, inputs: Sequence[str]) -> SearchSpace:
    """Traces and proves a model, and writes its space file.

    Args:
        path: of the file; must not exist.
        build: "torchvision:name", "module:callable", or "file.py:callable" beside the file.
        inputs: shape of each input for one image, such as "3x224x224".

    Raises:
        InputError: the file exists, a shape is malformed, or the model cannot be traced.
    """
    if path.exists():
        raise InputError(f"{path}: exists already; name another with --out")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder")
    shapes = tuple(_parse_shape(text) for text in inputs)
    config = ModelConfig(build=build, input=shapes[0] if len(shapes) == 1 else shapes)
    model = build_model(config, path.parent, seed=BASE_SEED)
    found = discover(model, example_input(config), GroupRules(), BASE_SEED).space
    reference = {
        "model": config.model_dump(mode="json", exclude_none=True, exclude_defaults=True),
        "data": {"name": "fake", "calibration": 64, "search": 256},
        "groups": {"exclude": [], "multiple_of": 1, "min_keep": 1},
    }
    space = replace(found, reference=reference)
    write_text(path, f"{_HEAD}\n{space_to_toml(space)}")
    return space


def _parse_shape(text: str) -> tuple[int, ...]:
    parts = text.lower().split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--input {text!r}: expected sizes such as 3x224x224")
    return tuple(int(part) for part in parts)
