"""Search a detector: a small one without anchors on scenes of digits, judged by mAP.

.venv/bin/python scripts/examples/detect_digits.py [--trials 30] [--epochs 10] [--out RUN]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms, generalized_box_iou_loss, sigmoid_focal_loss

import evosearch

SPACE = Path(__file__).with_suffix(".toml")
STRIDE = 4
"""Pixels from one cell of the output to the next."""
REACH = 6.0
"""Pixels from a box's centre within which cells answer for it."""
CLASSES = 10
SCORED = 0.05
"""Least score of a box."""

Boxes = Sequence[dict[str, Tensor]]


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(width)])

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norms[0](self.first(x)).relu()
        return (x + self.norms[1](self.second(inner))).relu()


class Detector(nn.Module):
    """Each cell has a logit of every class, and how far its box reaches to the four sides."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width // 2, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width // 2),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.body = nn.Sequential(*(Residual(width) for _ in range(4)))
        self.classes = nn.Conv2d(width, CLASSES, 1)
        self.sides = nn.Conv2d(width, 4, 1)
        nn.init.constant_(self.classes.bias, -4.0)  # nearly all cells answer for nothing

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.body(self.stem(images))
        return {"classes": self.classes(features), "sides": self.sides(features)}


def make_model() -> nn.Module:
    return Detector()


def cells(output: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns logits `(images, cells, classes)`, boxes and the centres of cells `(cells, 2)`."""
    logits = output["classes"].flatten(2).transpose(1, 2)
    sides = STRIDE * functional.softplus(output["sides"].flatten(2).transpose(1, 2))
    height, width = output["classes"].shape[2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centres = (torch.stack([columns, rows], 2).reshape(-1, 2) + 0.5).to(sides) * STRIDE
    return logits, torch.cat([centres - sides[..., :2], centres + sides[..., 2:]], 2), centres


def loss(output: dict[str, Tensor], target: Boxes) -> Tensor:
    """The focal loss of all cells and one minus the generalised IoU of those with a box."""
    logits, boxes, centres = cells(output)
    losses = []
    for own_logits, own_boxes, true in zip(logits, boxes, target, strict=True):
        middles = (true["boxes"][:, :2] + true["boxes"][:, 2:]) / 2
        far = (centres[:, None] - middles).abs().amax(2)
        nearest, which = far.min(1)
        inside = nearest < REACH
        wanted = torch.zeros_like(own_logits)
        wanted[inside, true["labels"][which[inside]]] = 1
        focal = sigmoid_focal_loss(own_logits, wanted, alpha=0.25, gamma=2.0, reduction="sum")
        apart = generalized_box_iou_loss(own_boxes[inside], true["boxes"][which[inside]])
        losses.append((focal + apart.sum()) / inside.sum().clamp(min=1))
    return torch.stack(losses)


def predictions(output: dict[str, Tensor]) -> Boxes:
    """Of each cell the best class, and of boxes that overlap by a half the best one."""
    logits, boxes, _ = cells(output)
    found = []
    for own_scores, own_boxes in zip(logits.sigmoid(), boxes, strict=True):
        scores, labels = own_scores.max(1)
        chosen = (scores > SCORED).nonzero().flatten()
        kept = batched_nms(own_boxes[chosen], scores[chosen], labels[chosen], 0.5)
        best = chosen[kept]
        found.append({"boxes": own_boxes[best], "scores": scores[best], "labels": labels[best]})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = evosearch.search(SPACE, flops="50%", trials=options.trials, seed=0, out=options.out)
    done = evosearch.finetune(run.folder, at="flops=50%", epochs=options.epochs, baselines=True)
    for network in done.networks:
        size = network.cost.macs / done.networks[0].cost.macs
        test = network.test
        print(f"{network.name}: {size:.1%} of the FLOPs, {test.metric} {test.accuracy_text} %")


if __name__ == "__main__":
    main()
