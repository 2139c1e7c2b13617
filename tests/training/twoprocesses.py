"""Trainings with a cut on their way, for torchrun or alone; writes what came of them.

torchrun --standalone --nproc-per-node 2 -m tests.training.twoprocesses FOLDER
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from evosearch.data.labels import Labels
from evosearch.data.splits import TrainSplit
from evosearch.models.weights import weights_digest
from evosearch.space.mask import Mask
from evosearch.surgery.discovery import GroupRules, discover
from evosearch.training.base_training import TrainConfig
from evosearch.training.distributed import joined_processes
from evosearch.training.parts import Host, Moment, Part
from evosearch.training.trainer import Training
from tests.data.helpers import split_of

RANK = int(os.environ.get("RANK", "0"))
LAUNCH = "torch.distributed.run", "--standalone", "--nproc-per-node", "2"
IN_TWO = (sys.executable, "-m", *LAUNCH, "-m")
"""What starts a module in two processes, on a port that is free."""


class Network(nn.Module):
    """Two norms, one of which averages all batches, and a layer that no loss reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 4, 3, padding=1)
        self.bn2, self.linear = nn.BatchNorm2d(4, momentum=None), nn.Linear(64, 3)
        self.unread = nn.Linear(2, 2)

    def forward(self, images: Tensor) -> Tensor:
        found = self.bn1(self.conv1(images)).relu()
        found = self.bn2(self.conv2(found)).relu()
        return self.linear(found.flatten(1))  # type: ignore[no-any-return]


class CutOnce(Part):
    """Drops a channel of each group before the fourth step; each process would drop another."""

    def joined(self, training: Host) -> None:
        self._training = training

    def before_step(self, moment: Moment) -> None:
        if moment.step == 3:
            mask = self._training.mask
            assert mask is not None
            bits = {name: [i != RANK for i in range(own.size)] for name, own in mask.items()}
            self._training.cut(Mask(bits))

    def term(self) -> Tensor:
        weights = [p for p in self._training.model.parameters() if p.ndim > 1]
        return 1e-3 * torch.stack([weight.square().sum() for weight in weights]).sum()


def trained(accumulate: int | None) -> dict[str, Any]:
    """Returns what comes of it with batches that go through the network in so many pieces."""
    torch.manual_seed(0)
    model = Network()
    images = torch.randn(50, 1, 4, 4)
    split = split_of(TrainSplit, images, torch.randint(3, (50,)).tolist())
    found = discover(model.eval(), (images[:2],), GroupRules(), seed=0)

    def loss(images: Tensor, labels: Labels) -> Tensor:
        assert isinstance(labels, Tensor)
        return functional.cross_entropy(model(images), labels)

    config = TrainConfig(epochs=2, batch_size=11, lr=0.05, accumulate=accumulate)
    rng = torch.Generator().manual_seed(1)
    training = Training(model, split, config, loss, rng, discovery=found, parts=[CutOnce()])
    losses = list(training.epochs())
    sizes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    return {"losses": losses, "digest": weights_digest(model), "sizes": sizes}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with joined_processes():
        told = {name: trained(pieces) for name, pieces in (("whole", None), ("pieces", 2))}
    (folder / f"{RANK}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
