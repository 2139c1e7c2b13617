"""A run of a detector of torchvision's, cut in part, trained by the losses that it returns."""

from pathlib import Path

import pytest

import evosearch
from evosearch.errors import InputError

CODE = '''
import numpy as np
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead

class Body(nn.Module):
    out_channels = 16

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(16, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.put = nn.Conv2d(16, 16, 1)

    def forward(self, images):
        return {"0": self.put(self.second(self.first(images)))}

def detector():
    return RetinaNet(
        Body(), num_classes=2, min_size=24, max_size=24, image_mean=[0.5], image_std=[1.0],
        head=RetinaNetHead(16, 1, 2, norm_layer=nn.BatchNorm2d), topk_candidates=20,
        anchor_generator=AnchorGenerator(((8,),), ((1.0,),)), detections_per_img=5,
    )

def squares():
    """Squares of one of two brightnesses on a dark ground."""
    rng = np.random.default_rng(0)
    def part(count):
        images, boxes = rng.normal(0, 0.2, (count, 1, 24, 24)).astype(np.float32), []
        for image in images:
            label, (top, left) = int(rng.integers(2)), rng.integers(0, 16, 2)
            image[0, top : top + 8, left : left + 8] += 1 + label
            boxes.append({"boxes": np.array([[left, top, left + 8, top + 8]], np.float32),
                          "labels": np.array([label])})
        return images, boxes
    return {"train": part(120), "test": part(30)}
'''
SPACE = """
[model]
build = "own.py:detector"
input = [1, 24, 24]
part = ["backbone", "head"]

[data]
name = "own.py:squares"
calibration = 16
search = 24

[task]
name = "detection"

[train]
epochs = 20
batch_size = 16
lr = 0.05

[search]
device = "cpu"

[finetune]
epochs = 2
lr = 0.02
alpha = {alpha}
attention = 1.0
"""


def write(folder: Path, *, alpha: float = 0.0) -> Path:
    (folder / "own.py").write_text(CODE)
    path = folder / "space.toml"
    path.write_text(SPACE.format(alpha=alpha))
    return path


@pytest.mark.slow
def test_softened_outputs_are_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evosearch.run.subject.train_base", None)
    message = r"^\[finetune\] alpha = 0.9: networks that compute their own loss give no outputs"
    with pytest.raises(InputError, match=message):
        evosearch.search(write(tmp_path, alpha=0.9), flops="70%", out=tmp_path / "run")


@pytest.mark.slow
def test_a_detector_is_searched_and_finished(tmp_path: Path) -> None:
    run = evosearch.search(write(tmp_path), flops="60%", trials=6, seed=0, out=tmp_path / "run")
    base = run.study.header.base.search
    assert base.metric == "mAP"
    assert base.accuracy > 0.3
    assert all(trial.evaluation is not None for trial in run.study.trials)
    done = evosearch.finetune(run.folder, at="flops=60%")
    whole, cut = done.networks[0], done.networks[-1]
    assert cut.cost.macs <= 0.6 * whole.cost.macs
    assert cut.test.accuracy > whole.test.accuracy - 0.15
