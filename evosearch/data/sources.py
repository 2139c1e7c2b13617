"""Data sources: the names that `[data] name` knows, and a user's own callables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from evosearch.callables import one_line, resolve_callable
from evosearch.data.config import DataConfig
from evosearch.data.images import Files, LazyPixels
from evosearch.data.labels import class_numbers
from evosearch.data.pools import Pool, Pools, array_pixels, pool_of, pools_of
from evosearch.data.provided import parts_of
from evosearch.data.splitting import draw
from evosearch.data.transforms import build_transform
from evosearch.errors import InputError, unknown_name
from evosearch.files import find

DIGITS_TEST = 450
"""Images of the digits that no search sees: a quarter, as no official split ships with them."""


@final
@dataclass(frozen=True, kw_only=True)
class Source:
    """Data that `[data] name` knows by a name.

    Attributes:
        load: the section, and the folder of the space file -> "train" and "test".
        takes_root: whether `[data] root` says where its files lie.
        takes_kwargs: whether `[data] kwargs` go into it.
        noise: whether no network can tell its classes apart.
    """

    load: Callable[[DataConfig, Path], Pools]
    takes_root: bool = False
    takes_kwargs: bool = False
    noise: bool = False


def load_pools(config: DataConfig, folder: Path) -> Pools:
    """Returns the images of a `[data]` section.

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


def _digits(config: DataConfig, folder: Path) -> Pools:  # noqa: ARG001
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images[:, None].astype(np.float32) / 16
    transform = build_transform(config.transforms, "[data] transforms")
    everything = pool_of(array_pixels(images, transform), digits.target, 0, config)
    positions = everything.indices.numpy()
    test = draw(class_numbers(everything.labels), positions, DIGITS_TEST, config.seed, "test")
    train = np.setdiff1d(positions, test)
    return {"train": lambda: everything.take(train), "test": lambda: everything.take(test)}


def _cifar(config: DataConfig, folder: Path) -> Pools:
    from torchvision import datasets

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[config.name]
    root = _torchvision_root(config, folder, kind.__name__, kind.base_folder)

    def part(*, train: bool) -> tuple[Any, Any]:
        files = _construct(config, kind, root=root, train=train)
        return files.data.transpose(0, 3, 1, 2), files.targets

    return pools_of({"train": part(train=True), "test": part(train=False)}, config)


def _svhn(config: DataConfig, folder: Path) -> Pools:
    from torchvision.datasets import SVHN

    root = _torchvision_root(config, folder, "SVHN", "train_32x32.mat")
    files = {name: _construct(config, SVHN, root=root, split=name) for name in ("train", "test")}
    return pools_of({name: (part.data, part.labels) for name, part in files.items()}, config)


def _fake(config: DataConfig, folder: Path) -> Pools:  # noqa: ARG001
    from torchvision.datasets import FakeData

    train = _construct(config, FakeData, **config.kwargs)
    later = {"random_offset": train.random_offset + len(train)}
    test = _construct(config, FakeData, **{**config.kwargs, **later})
    return pools_of({"train": train, "test": test}, config)


def _imagefolder(config: DataConfig, folder: Path) -> Pools:
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
        return pool_of(pixels, part.targets, first, config)

    first = len(parts[0])
    return {"train": lambda: pool(parts[0], 0), "test": lambda: pool(parts[1], first)}


SOURCES: Mapping[str, Source] = {
    "digits": Source(load=_digits),
    "cifar10": Source(load=_cifar, takes_root=True),
    "cifar100": Source(load=_cifar, takes_root=True),
    "svhn": Source(load=_svhn, takes_root=True),
    "imagefolder": Source(load=_imagefolder, takes_root=True),
    "fake": Source(load=_fake, takes_kwargs=True, noise=True),
}
"""Every source by name."""


def is_noise(config: DataConfig) -> bool:
    """Returns whether the labels of a `[data]` section are noise, so that all networks guess."""
    return config.name in SOURCES and SOURCES[config.name].noise


def _from_callable(config: DataConfig, folder: Path) -> Pools:
    load = resolve_callable(config.name, folder, "[data] name")
    arguments = dict(config.kwargs)
    if config.root is not None:
        advice = f"put there what {config.name} reads"
        arguments["root"] = find(config.root, folder, "[data] root", advice)
    try:
        parts = parts_of(load(**arguments))
    except Exception as error:
        raise InputError(f"[data] name = {config.name!r}: {one_line(error)}") from error
    return pools_of(parts, config)


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
