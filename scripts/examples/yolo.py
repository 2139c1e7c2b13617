"""Prune Ultralytics' YOLO11n or YOLOv8n, and train the pruned network in Ultralytics' own trainer.

Needs the package `ultralytics`, which evosearch neither has nor imports: its licence is the AGPL.
Networks are built from their yaml, without weights, and images are noise, so that nothing is
downloaded; with weights and data of your own the rest stays as it is.

.venv/bin/python scripts/examples/yolo.py [--name yolov8n] [--trials 10] [--out runs/yolo]
"""

import argparse
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import batched_nms, box_convert
from ultralytics.cfg import get_cfg
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.modules import Detect
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.events import events

import evosearch

SPACES = {name: Path(__file__).with_name(f"{name}.toml") for name in ("yolo11n", "yolov8n")}
CLASSES = 4
SIDE = 64
SCORED = 0.05
"""Least score of a box."""

Boxes = Sequence[dict[str, Tensor]]
Raw = dict[str, Tensor]


class RawDetect(Detect):
    """A head that gives raw boxes and scores in every mode, and nothing else.

    Theirs gives the feature maps that it reads as well, of which the loss needs but the sizes; as
    outputs of the network they would have to keep their channels.
    """

    def forward(self, features: list[Tensor]) -> Raw:
        found = self.forward_head(features, **self.one2many)
        return {"boxes": found["boxes"], "scores": found["scores"]}


def make_model(name: str) -> nn.Module:
    """Returns a network without trained weights."""
    model = DetectionModel(f"{name}.yaml", nc=CLASSES, verbose=False)
    model.args = get_cfg()  # the gains of the loss
    norms = [own for own in model.modules() if isinstance(own, nn.BatchNorm2d)]
    momenta = [own.momentum for own in norms]
    for own in norms:
        own.momentum = 1.0  # statistics of one batch: a network with weights has its own
    with torch.no_grad():
        model.train()(torch.rand(32, 3, SIDE, SIDE))
    for own, momentum in zip(norms, momenta, strict=True):
        own.momentum = momentum
    model.model[-1].__class__ = RawDetect
    return model.eval()


def plain(model: nn.Module) -> nn.Module:
    """Returns a network as Ultralytics' trainer knows it: its head gives all again."""
    model.model[-1].__class__ = Detect
    return model


@cache
def model_of_loss() -> nn.Module:
    """Returns a network of which the loss reads strides and gains; its weights do not matter."""
    model = make_model("yolov8n")
    model.criterion = model.init_criterion()
    return model


def feature_maps(output: Raw) -> list[Tensor]:
    """Returns maps of the sizes of the head's; the loss reads no more of them."""
    strides = model_of_loss().stride.int().tolist()
    return [output["scores"].new_empty(1, 1, SIDE // s, SIDE // s) for s in strides]


def batch_of(target: Boxes) -> Raw:
    """Returns the true boxes of images as Ultralytics has them, in shares of the image's side."""
    return {
        "batch_idx": torch.cat([torch.full((len(t["labels"]),), i) for i, t in enumerate(target)]),
        "cls": torch.cat([t["labels"] for t in target]).float(),
        "bboxes": torch.cat([box_convert(t["boxes"], "xyxy", "cxcywh") for t in target]) / SIDE,
    }


def loss(output: Raw, target: Boxes) -> Tensor:
    """Ultralytics' loss of each image: of boxes, classes and the distributions of sides."""
    losses = []
    for image, true in enumerate(target):
        own = {name: values[image : image + 1] for name, values in output.items()}
        own["feats"] = feature_maps(own)
        losses.append(model_of_loss().criterion(own, batch_of([true]))[0].sum())
    return torch.stack(losses)


def predictions(output: Raw) -> Boxes:
    """Of each place the best class, and of boxes that overlap by 0.7 the best one."""
    head = model_of_loss().model[-1]
    boxes = head._get_decode_boxes({**output, "feats": feature_maps(output)}).transpose(1, 2)
    found = []
    for own, each in zip(boxes, output["scores"].sigmoid().transpose(1, 2), strict=True):
        scores, labels = each.max(1)
        chosen = (scores > SCORED).nonzero().flatten()
        corners = box_convert(own[chosen], "cxcywh", "xyxy")
        best = batched_nms(corners, scores[chosen], labels[chosen], 0.7)
        rows = chosen[best]
        found.append({"boxes": corners[best], "scores": scores[rows], "labels": labels[rows]})
    return found


def noise() -> dict[str, tuple[Any, Any]]:
    """Images of noise with two boxes each."""
    rng = np.random.default_rng(0)

    def part(count: int) -> tuple[Any, Any]:
        corners = rng.uniform(0, SIDE / 2, (count, 2, 2))
        sizes = rng.uniform(8, SIDE / 2, corners.shape)
        boxes = np.concatenate([corners, corners + sizes], axis=2).astype(np.float32)
        labels = rng.integers(0, CLASSES, (count, 2))
        images = rng.integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)
        targets = zip(boxes, labels, strict=True)
        return images, [{"boxes": own, "labels": kinds} for own, kinds in targets]

    return {"train": part(24), "search": part(8), "test": part(8)}


class Trainer(DetectionTrainer):
    """Ultralytics' trainer of a network that it is handed, on a folder of images and labels.

    It neither looks for a font to plot with nor pickles the network: `export` has written it.
    """

    def get_dataset(self) -> dict[str, Any]:
        images = str(Path(self.args.data) / "images")
        names = {label: str(label) for label in range(CLASSES)}
        return {"train": images, "val": images, "nc": CLASSES, "names": names, "channels": 3}

    def save_model(self) -> bool:
        return False


def write(folder: Path, images: Any, targets: Any) -> None:
    """Writes images and, beside them, a line of text for each box, as Ultralytics reads them."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for number, (image, target) in enumerate(zip(images, targets, strict=True)):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / "images" / f"{number}.png")
        boxes = box_convert(torch.from_numpy(target["boxes"]), "xyxy", "cxcywh") / SIDE
        rows = np.column_stack([target["labels"], boxes])
        np.savetxt(folder / "labels" / f"{number}.txt", rows, fmt=["%d", *4 * ["%.6f"]])


def step(model: nn.Module) -> tuple[float, int, int]:
    """Trains a network for one step in Ultralytics' trainer.

    Without decay, a weight that moved has a gradient. Boxes of noise may be answered for at some
    sizes of feature maps only.

    Returns:
        The loss, how many of the tensors that learn were moved, and of how many.
    """
    events.enabled = False  # no statistics are sent
    before = {name: own.detach().clone() for name, own in model.named_parameters()}
    images, targets = noise()["train"]
    with TemporaryDirectory() as folder:
        write(Path(folder), images, targets)
        settings = {
            "model": "pruned",
            "data": folder,
            "project": folder,
            "device": "cpu",
            "imgsz": SIDE,
            "epochs": 1,
            "batch": len(images),
            "optimizer": "SGD",
            "lr0": 1e-3,
            "weight_decay": 0.0,
            "amp": False,  # whose check fetches weights
            "plots": False,
        }
        trainer = Trainer(overrides=settings)
        trainer.model = model
        trainer.train()
    after = {name: own for name, own in trainer.model.named_parameters() if own.requires_grad}
    moved = sum(not torch.equal(own, before[name]) for name, own in after.items())
    return trainer.loss.item(), moved, len(after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", choices=SPACES, default="yolo11n")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("runs/yolo"))
    options = parser.parse_args()
    found = evosearch.inspect(SPACES[options.name]).discovery.space
    failed = [own for own in found.frozen if own.reason.startswith("unproven")]
    print(
        f"{len(found.groups)} groups, {found.prunable_share:.1%} of the MACs;"
        f" {len(failed)} failed the proof"
    )
    run = evosearch.search(
        SPACES[options.name], flops="50%", trials=options.trials, seed=0, out=options.out
    )
    print(f"{len(run.study.trials)} trials; the best: {run.pick('best').evaluation.score}")
    done = evosearch.finetune(run.folder, at="flops=50%", epochs=0)
    evosearch.export_artifact(done.artifact.folder, to=options.out / "exported")
    network = plain(done.artifact.load(lambda: make_model(options.name)))
    value, moved, count = step(network)
    whole, cut = (own.cost.params for own in (done.networks[0], done.networks[-1]))
    left = sum(own.numel() for own in network.parameters())
    print(f"{cut} params, {cut / whole:.1%} of all")
    print(f"a step in Ultralytics' trainer: {left} params, loss {value:.3f}")
    print(f"moved {moved} of {count} tensors")


if __name__ == "__main__":
    main()
