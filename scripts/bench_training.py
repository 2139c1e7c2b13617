"""Measures images per second of a training against a plain loop on the same device, in turn.

ResNet-20 on images of noise, with crops and flips, SGD and a cosine. The plain loop is what people
write with torchvision: a DataLoader whose dataset transforms each image, and a step. A turn is an
epoch of each, with and without a teacher to distil from; ours then measures BatchNorm statistics
anew, on 4,096 images at most, which the plain loop does not. Seconds are of the wall clock, of the
processor where the device is one: there other work beside it hardly moves them. Prints a Markdown
table of ratios to the plain loop in the same turn; over 1 is faster than it.

    .venv/bin/python scripts/bench_training.py [--device cpu] [--turns 5] [--images 2560]
        [--batch 64] [--workers 0]
"""

import argparse
import copy
import platform
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from evosearch.data.config import DataConfig
from evosearch.data.splits import TrainSplit, load_search_data
from evosearch.machine import environment
from evosearch.models.precision import fastest_numerics
from evosearch.models.zoo import cifar_resnet
from evosearch.training.base_training import TrainConfig, train_base
from evosearch.training.distillation import FinetuneConfig, distil_blindly

LR, DECAY, TEMPERATURE, ALPHA = 0.05, 5e-4, 4.0, 0.9


class Transformed(Dataset[tuple[Tensor, int]]):
    """Images as bytes, transformed one by one."""

    def __init__(self, train: TrainSplit) -> None:
        raw = torch.rand(len(train), *train.images[:1].shape[1:])
        self._images = (255 * raw).to(torch.uint8)
        self._labels = train.labels
        self._transform = v2.Compose(
            [
                v2.RandomCrop(32, padding=4),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5] * 3, [0.25] * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._images[index]), int(self._labels[index])


def plain_epoch(
    model: nn.Module, teacher: nn.Module | None, train: TrainSplit, given: argparse.Namespace
) -> Callable[[], None]:
    """Returns an epoch of the loop that people write."""
    loader = DataLoader(
        Transformed(train),
        batch_size=given.batch,
        shuffle=True,
        num_workers=given.workers,
        pin_memory=given.device != "cpu",
        drop_last=True,
    )

    def epoch() -> None:
        optimizer = torch.optim.SGD(
            model.parameters(), lr=LR, momentum=0.9, weight_decay=DECAY, nesterov=True
        )
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(loader))
        model.train()
        for images, labels in loader:
            images = images.to(given.device, non_blocking=True)
            output, target = model(images), labels.to(given.device, non_blocking=True)
            loss = functional.cross_entropy(output, target)
            if teacher is not None:
                with torch.no_grad():
                    soft = (teacher(images) / TEMPERATURE).softmax(1)
                log = (output / TEMPERATURE).log_softmax(1)
                divergence = functional.kl_div(log, soft, reduction="batchmean") * TEMPERATURE**2
                loss = (1 - ALPHA) * loss + ALPHA * divergence
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cosine.step()

    return epoch


def our_epoch(
    model: nn.Module, teacher: nn.Module | None, train: TrainSplit, given: argparse.Namespace
) -> Callable[[], None]:
    """Returns an epoch of base training, or of fine-tuning where there is a teacher."""
    if teacher is None:
        config = TrainConfig(epochs=1, batch_size=given.batch, lr=LR, weight_decay=DECAY)
        return lambda: train_base(model, train, None, config, 0) and None
    finetune = FinetuneConfig(
        epochs=1, batch_size=given.batch, lr=LR, weight_decay=DECAY, optimizer="sgd"
    )
    numerics = fastest_numerics(torch.device(given.device), precision="float32")
    return lambda: distil_blindly(teacher, model, train, finetune, 0, numerics=numerics)


def seconds(epoch: Callable[[], None], device: str) -> float:
    """Returns how long an epoch takes: of the processor, or until the device is done."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    began = clock()
    epoch()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return clock() - began


def ratios(train: TrainSplit, given: argparse.Namespace) -> Iterator[tuple[str, list[float]]]:
    """Yields what is trained, and how much faster than the plain loop in each turn."""
    torch.manual_seed(0)
    network = cifar_resnet(depth=20).to(given.device)
    for name, teacher in {
        "base training": None,
        "distillation": copy.deepcopy(network).eval(),
    }.items():
        ours = our_epoch(copy.deepcopy(network), teacher, train, given)
        plain = plain_epoch(copy.deepcopy(network), teacher, train, given)
        for epoch in (ours, plain):
            epoch()  # code is generated, memory touched
        yield (
            name,
            [
                1 / (seconds(ours, given.device) / seconds(plain, given.device))
                for _ in range(given.turns)
            ],
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--images", type=int, default=2560)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0, help="of the plain loop's DataLoader")
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = DataConfig.model_validate(
        {
            "name": "fake",
            "kwargs": {"size": given.images + 128, "image_size": [3, 32, 32], "num_classes": 10},
            "augment": ["crop", "flip"],
            "calibration": 64,
            "search": 64,
        }
    )
    train = load_search_data(data).train
    machine = environment(1)
    print(f"{machine['processor']}, {given.device}, Python {platform.python_version()},", end=" ")
    print(
        f"torch {torch.__version__}; ResNet-20, batches of {given.batch}, {given.turns} turns.\n"
    )
    print("| training | images per second / plain loop's: median (least to most) |\n|---|--:|")
    for name, found in ratios(train, given):
        spread = f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"
        print(f"| {name} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
