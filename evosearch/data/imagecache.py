"""A cache of decoded images: bytes in memory or in a file, made once for all runs."""

import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from evosearch.data.images import Images, Indices, LazyPixels, StoredPixels
from evosearch.errors import InputError
from evosearch.files import cache_folder

CACHE_BYTES = 4 * 2**30
"""Decoded images that take more than this are not kept, but read whenever they are asked for."""
CHUNK = 1024
"""Images that are decoded between two writes."""
HASH_BYTES = 16


def kept(images: Images) -> Images:
    """Returns images decoded, where they take at most `CACHE_BYTES`; else as they are.

    Those that come from files are decoded once into `$EVOSEARCH_CACHE/images` and mapped from
    there, so that processes share them and the system may drop them from memory. Its name is a
    digest of the files (path, size, time of change) and of what is done to them.

    Raises:
        InputError: an image cannot be read, or the cache cannot be written.
    """
    pixels = images.pixels
    if not isinstance(pixels, LazyPixels) or len(images) * pixels.image_bytes > CACHE_BYTES:
        return images
    load = _on_disk if pixels.files else _in_memory
    array = load(pixels, images.positions)
    return replace(images, pixels=StoredPixels(array), positions=np.arange(len(images)))


def image_hashes(images: Images) -> NDArray[np.uint8]:
    """Returns 16 bytes for each image, which only images of equal pixels share, `(images, 16)`.

    Those of images that come from files are kept beside the decoded images.

    Raises:
        InputError: an image cannot be read, or the cache cannot be written.
    """
    pixels, shape = images.pixels, (len(images), HASH_BYTES)
    if not isinstance(pixels, LazyPixels) or not pixels.files:
        return np.concatenate([chunk.numpy() for chunk in _hashed(images)])
    path = cache_folder() / "images" / f"{_digest(pixels, images.positions)}.hashes.npy"
    return _cached(path, shape, lambda: _hashed(kept(images)))


def _hashed(images: Images) -> Iterator[Tensor]:
    for start in range(0, len(images), CHUNK):
        raw = images.raw(slice(start, start + CHUNK)).numpy()
        hashes = [hashlib.blake2b(image.tobytes(), digest_size=HASH_BYTES) for image in raw]
        rows = [np.frombuffer(found.digest(), dtype=np.uint8) for found in hashes]
        yield torch.from_numpy(np.stack(rows))


def _decoded(pixels: LazyPixels, positions: Indices) -> Iterator[Tensor]:
    for start in range(0, len(positions), CHUNK):
        yield pixels.read(positions[start : start + CHUNK])


def _in_memory(pixels: LazyPixels, positions: Indices) -> NDArray[Any]:
    images = torch.empty((len(positions), *pixels.shape), dtype=pixels.dtype)
    for part, chunk in zip(torch.split(images, CHUNK), _decoded(pixels, positions), strict=True):
        part.copy_(chunk)
    return images.numpy()


def _on_disk(pixels: LazyPixels, positions: Indices) -> NDArray[Any]:
    path = cache_folder() / "images" / f"{_digest(pixels, positions)}.npy"
    shape = (len(positions), *pixels.shape)
    return _cached(path, shape, lambda: _decoded(pixels, positions))


def _cached(
    path: Path, shape: tuple[int, ...], make: Callable[[], Iterator[Tensor]]
) -> NDArray[Any]:
    """Returns bytes from a file, which is made first where it is not there or not whole."""
    if not _holds(path, shape):
        try:
            _write(path, shape, make())
        except OSError as error:
            raise InputError(
                f"{path}: cannot keep {math.prod(shape) / 2**20:.0f} MiB of decoded images"
                f" ({error.strerror}); set $EVOSEARCH_CACHE to a folder with room"
            ) from error
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _digest(pixels: LazyPixels, positions: Indices) -> str:
    digest = hashlib.sha256(f"{pixels.recipe}\n".encode())
    for position in positions:
        file = pixels.files[position]
        status = file.stat()
        digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _holds(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return False
    return (array.shape, array.dtype) == (shape, np.dtype(np.uint8))


def _write(path: Path, shape: tuple[int, ...], chunks: Iterator[Tensor]) -> None:
    """Writes bytes as `.npy` by way of a temporary name of this process alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"descr": npy.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False}
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        try:
            npy.write_array_header_1_0(file, {**header, "shape": shape})
            for chunk in chunks:
                file.write(chunk.numpy().tobytes())
            file.flush()
            os.replace(file.name, path)
        finally:
            Path(file.name).unlink(missing_ok=True)
