"""Space files of the five networks that users bring, on noise."""

import shutil
from pathlib import Path

import tomli_w
import torch

from tests.run import ownnetworks

NAMES = ("vgg", "mobilenet", "squeeze", "densenet", "shufflenet")
SIDE = 16
IMAGES = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def write_space(folder: Path, name: str) -> Path:
    """Writes a space file of a network of one's own, and its code beside it."""
    shutil.copy(ownnetworks.__file__, folder / "nets.py")
    images = {"size": 120, "image_size": [3, SIDE, SIDE], "num_classes": 5}
    space = {
        "model": {"build": f"nets.py:{name}", "input": [3, SIDE, SIDE], "weights": "built"},
        "data": {"name": "fake", "calibration": 32, "search": 48, "kwargs": images},
        "search": {"device": "cpu", "strategy": "random"},
        "finetune": {"epochs": 1},
    }
    path = folder / f"{name}.toml"
    path.write_text(tomli_w.dumps(space))
    return path
