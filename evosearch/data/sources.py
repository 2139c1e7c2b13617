"""Data sources: the names that `[data] name` knows, and a user's own callables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, final

import numpy as np
import torch
from torch import Tensor

from evosearch.callables import one_line, resolve_callable
from evosearch.data.config import DataConfig
from evosearch.data.images import Files, Images, LazyPixels, Pixels, Positions, StoredPixels
from evosearch.data.splitting import draw
from evosearch.data.transforms import build_transform
from evosearch.errors import InputError, unknown_name
from evosearch.files import find

DIGITS_TEST = 450
"""Images of the digits that no search sees: a quarter, as no official split ships with them."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """Images that splits are taken out of.

    Attributes:
        images: normalised as they are read.
        labels: `(images,)` int64 from 0 for classes; `(images, ...)` for a task of one's own.
        indices: int64, `(images,)`: positions in the data as their source orders them.
    """

    images: Images
    labels: Tensor
    indices: Tensor

    def take(self, chosen: Positions) -> Self:
        """Returns the images at positions of this pool."""
        return replace(
            self,
            images=self.images.select(chosen),
            labels=self.labels[chosen],
            indices=self.indices[chosen],
        )


@final
@dataclass(frozen=True, kw_only=True)
class Source:
    """Data that `[data] name` knows by a name.

    Attributes:
        load: the section, and the folder of the space file -> training and test images.
        takes_root: whether `[data] root` says where its files lie.
        takes_kwargs: whether `[data] kwargs` go into it.
    """

    load: Callable[[DataConfig, Path], tuple[Pool, Pool]]
    takes_root: bool = False
    takes_kwargs: bool = False


def load_pools(config: DataConfig, folder: Path) -> tuple[Pool, Pool]:
    """Returns the training images and the test images of a `[data]` section.

    Args:
        config: the section.
        folder: where the space file lies.

    Raises:
        InputError: there is no such data, or it is not what it should be.
    """
    if ":" in config.name:
        return _from_callable(config, folder)
    if config.name not in SOURCES:
        raise unknown_name("[data] name", config.name, [*SOURCES, "module:callable"])
    source = SOURCES[config.name]
    if config.kwargs and not source.takes_kwargs:
        raise InputError(f"[data] name = {config.name!r} takes no kwargs")
    if config.root is not None and not source.takes_root:
        raise InputError(f"[data] name = {config.name!r} takes no root")
    return source.load(config, folder)


# Sources


def _digits(config: DataConfig, folder: Path) -> tuple[Pool, Pool]:  # noqa: ARG001
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images[:, None].astype(np.float32) / 16
    everything = _pool(_array_pixels(images, config), digits.target, 0, config)
    positions = everything.indices.numpy()
    test = draw(everything.labels.numpy(), positions, DIGITS_TEST, config.seed, "test")
    return everything.take(np.setdiff1d(positions, test)), everything.take(test)


def _cifar(config: DataConfig, folder: Path) -> tuple[Pool, Pool]:
    from torchvision import datasets

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[config.name]
    root = _torchvision_root(config, folder, kind.__name__, kind.base_folder)
    parts = [_construct(config, kind, root=root, train=train) for train in (True, False)]
    return _both([(part.data.transpose(0, 3, 1, 2), part.targets) for part in parts], config)


def _svhn(config: DataConfig, folder: Path) -> tuple[Pool, Pool]:
    from torchvision.datasets import SVHN

    root = _torchvision_root(config, folder, "SVHN", "train_32x32.mat")
    parts = [_construct(config, SVHN, root=root, split=split) for split in ("train", "test")]
    return _both([(part.data, part.labels) for part in parts], config)


def _fake(config: DataConfig, folder: Path) -> tuple[Pool, Pool]:  # noqa: ARG001
    from torchvision.datasets import FakeData

    train = _construct(config, FakeData, **config.kwargs)
    later = {"random_offset": train.random_offset + len(train)}
    return _both([train, _construct(config, FakeData, **{**config.kwargs, **later})], config)


def _imagefolder(config: DataConfig, folder: Path) -> tuple[Pool, Pool]:
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import default_loader

    advice = "unpack the images there as train/CLASS/*.jpg and test/CLASS/*.jpg"
    root = find(config.root or ".", folder, "[data] root", advice, holding="train").resolve()
    test = next((name for name in ("test", "val") if (root / name).is_dir()), None)
    if test is None:
        raise InputError(f"[data] root: {root} has train but neither test nor val; {advice}")
    parts = [_construct(config, ImageFolder, root=root / name) for name in ("train", test)]
    if parts[0].classes != parts[1].classes:
        odd = sorted(set(parts[0].classes) ^ set(parts[1].classes))
        raise InputError(f"{root}: train and {test} differ in their classes: {', '.join(odd[:5])}")

    def pool(part: Any, first: int) -> Pool:
        names = (Path(path).relative_to(root).as_posix() for path, _ in part.samples)
        files = Files(root=root, names=tuple(names))
        pixels = LazyPixels(
            lambda position: default_loader(files[position]),
            len(files),
            build_transform(config.transforms, "[data] transforms"),
            recipe="\n".join(entry.model_dump_json() for entry in config.transforms),
            files=files,
        )
        return _pool(pixels, part.targets, first, config)

    return pool(parts[0], 0), pool(parts[1], len(parts[0]))


SOURCES: Mapping[str, Source] = {
    "digits": Source(load=_digits),
    "cifar10": Source(load=_cifar, takes_root=True),
    "cifar100": Source(load=_cifar, takes_root=True),
    "svhn": Source(load=_svhn, takes_root=True),
    "imagefolder": Source(load=_imagefolder, takes_root=True),
    "fake": Source(load=_fake, takes_kwargs=True),
}
"""Every source by name."""


def _from_callable(config: DataConfig, folder: Path) -> tuple[Pool, Pool]:
    load = resolve_callable(config.name, folder, "[data] name")
    arguments = dict(config.kwargs)
    if config.root is not None:
        advice = f"put there what {config.name} reads"
        arguments["root"] = find(config.root, folder, "[data] root", advice)
    try:
        train, test = load(**arguments)
        return _both([train, test], config)
    except Exception as error:
        raise InputError(f"[data] name = {config.name!r}: {one_line(error)}") from error


def _torchvision_root(config: DataConfig, folder: Path, name: str, holding: str) -> Path:
    advice = (
        f"download it with torchvision.datasets.{name}(root, download=True), as evosearch itself"
        " downloads nothing"
    )
    return find(config.root or ".", folder, "[data] root", advice, holding=holding)


def _construct(config: DataConfig, kind: Callable[..., Any], **arguments: Any) -> Any:
    try:
        return kind(**arguments)
    except Exception as error:
        raise InputError(f"[data] name = {config.name!r}: {one_line(error)}") from error


# From arrays and datasets to pools


def _both(parts: list[Any], config: DataConfig) -> tuple[Pool, Pool]:
    """Returns two pools of arrays `(images, labels)` or datasets, the second indexed on."""
    pools: list[Pool] = []
    for part in parts:
        first = sum(len(pool.labels) for pool in pools)
        if isinstance(part, tuple | list):
            images, labels = part
            pixels = _array_pixels(images, config)
        else:
            labels = _dataset_labels(part)
            transform = build_transform(config.transforms, "[data] transforms")
            load = _loader(part)
            pixels = LazyPixels(load, len(part), transform)
        pools.append(_pool(pixels, labels, first, config))
    train, test = pools
    return train, test


def _loader(dataset: Any) -> Callable[[int], Any]:
    return lambda position: dataset[position][0]


def _dataset_labels(dataset: Any) -> Any:
    """Returns a dataset's `targets` or `labels`; where it has neither, those of its items."""
    for name in ("targets", "labels"):
        found = getattr(dataset, name, None)
        if found is not None:
            return found
    labels = [torch.as_tensor(dataset[position][1]) for position in range(len(dataset))]
    return torch.stack(labels)


def _array_pixels(images: Any, config: DataConfig) -> Pixels:
    """Returns what a callable gave: bytes as they are, other numbers as float32."""
    tensor = torch.as_tensor(images).detach().cpu()
    if tensor.ndim != 4 or len(tensor) == 0:
        raise InputError(
            "expected images (images, channels, height, width) and labels (images, ...), got"
            f" images {tuple(tensor.shape)}"
        )
    if tensor.dtype != torch.uint8:
        tensor = tensor.to(torch.float32)
    transform = build_transform(config.transforms, "[data] transforms")
    if transform is None:
        return StoredPixels(tensor.numpy())
    return LazyPixels(lambda position: tensor[position], len(tensor), transform)


def _pool(pixels: Pixels, labels: Any, first_index: int, config: DataConfig) -> Pool:
    targets = torch.as_tensor(labels)
    count = len(pixels)
    if targets.ndim == 0 or len(targets) != count:
        raise InputError(f"{count} images, but labels of shape {tuple(targets.shape)}")
    if count < 2:
        raise InputError(f"expected two or more images, got {count}")
    if targets.ndim == 1 and not targets.is_floating_point():
        targets = targets.to(torch.int64)
        if int(targets.min()) < 0:
            raise InputError(f"expected labels that are integers from 0, got {int(targets.min())}")
    if targets.ndim > 2 and (config.augment or config.transforms):
        raise InputError(
            f"[data] augment and transforms change images but not their labels of shape"
            f" {tuple(targets.shape[1:])}; leave both empty"
        )
    if config.mean and len(config.mean) != pixels.shape[0]:
        raise InputError(
            f"[data] mean and std have {len(config.mean)} values, the images {pixels.shape[0]}"
            " channels"
        )
    return Pool(
        images=Images(pixels=pixels, positions=np.arange(count), mean=config.mean, std=config.std),
        labels=targets,
        indices=torch.arange(first_index, first_index + count),
    )
