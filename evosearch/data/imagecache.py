"""A cache of decoded images: bytes in memory or in a file, made once for all runs."""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from evosearch.data.filedigests import file_digests
from evosearch.data.images import Files, Images, LazyPixels, StoredPixels
from evosearch.data.several import AnyImages, SeveralImages
from evosearch.errors import InputError
from evosearch.files import cache_folder
from evosearch.machine import library_versions

CACHE_BYTES = 4 * 2**30
"""Decoded images that take more than this are not kept, but read whenever they are asked for."""
CHUNK = 1024
"""Images that are decoded between two writes."""
HASH_BYTES = 16


def kept(images: AnyImages) -> AnyImages:
    """Returns images decoded, where they take at most `CACHE_BYTES`; else as they are.

    Those that come from files are decoded once into `$EVOSEARCH_CACHE/images` and mapped from
    there, so that processes share them and the system may drop them from memory. Its name is a
    digest of what is in the files, of what is done to them, and of the libraries that do it.

    Raises:
        InputError: an image cannot be read, or the cache cannot be written.
    """
    if isinstance(images, SeveralImages):
        return images.map(_kept)
    return _kept(images)


def _kept(images: Images) -> Images:
    pixels = images.pixels
    size = len(images) * pixels.image_bytes if isinstance(pixels, LazyPixels) else 0
    if not isinstance(pixels, LazyPixels) or not 0 < size <= CACHE_BYTES:
        return images
    files = images.files
    if files is None:
        array = _in_memory(images, pixels.dtype)
    else:
        array = _on_disk(images, files, pixels.recipe)
    return replace(images, pixels=StoredPixels(array, files), positions=np.arange(len(images)))


def image_hashes(images: AnyImages) -> NDArray[np.uint8]:
    """Returns 16 bytes for each image, which only one of equal pixels shares, `(images, 16)`.

    Those of images that come from files are kept beside the decoded images.

    Raises:
        InputError: an image cannot be read, or the cache cannot be written.
    """
    if isinstance(images, SeveralImages):
        parts = images.parts  # by name they are the same in whatever order
        ordered = [parts[n] for n in sorted(parts)] if isinstance(parts, Mapping) else parts
        rows = np.concatenate([image_hashes(own) for own in ordered], axis=1)
        return _hashes(row.tobytes() for row in rows)
    pixels, files = images.pixels, images.files
    if not isinstance(pixels, LazyPixels) or files is None:
        none = np.empty((0, HASH_BYTES), dtype=np.uint8)
        return np.concatenate([none, *(chunk.numpy() for chunk in _hashed(images))])
    path = cache_folder() / "images" / f"{_digest(files, pixels.recipe)}.hashes.npy"
    return _cached(path, (len(images), HASH_BYTES), lambda: _hashed(_kept(images)))


def _hashed(images: Images) -> Iterator[Tensor]:
    for start in range(0, len(images), CHUNK):
        raw = images.raw(slice(start, start + CHUNK)).numpy()
        kind = f"{raw.dtype} {raw.shape[1:]} ".encode()
        yield torch.from_numpy(_hashes(kind + image.tobytes() for image in raw))


def _hashes(contents: Iterable[bytes]) -> NDArray[np.uint8]:
    found = [hashlib.blake2b(content, digest_size=HASH_BYTES).digest() for content in contents]
    return np.array([list(digest) for digest in found], dtype=np.uint8).reshape(-1, HASH_BYTES)


def _decoded(images: Images) -> Iterator[Tensor]:
    for start in range(0, len(images), CHUNK):
        yield images.raw(slice(start, start + CHUNK))


def _in_memory(images: Images, dtype: torch.dtype) -> NDArray[Any]:
    whole = torch.empty((len(images), *images.pixels.shape), dtype=dtype)
    for part, chunk in zip(torch.split(whole, CHUNK), _decoded(images), strict=True):
        part.copy_(chunk)
    return whole.numpy()


def _on_disk(images: Images, files: Files, recipe: str) -> NDArray[Any]:
    path = cache_folder() / "images" / f"{_digest(files, recipe)}.npy"
    shape = (len(images), *images.pixels.shape)
    return _cached(path, shape, lambda: _decoded(images))


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


def _digest(files: Files, recipe: str) -> str:
    contents = file_digests(files.root, files.names)
    text = json.dumps([recipe, library_versions(), contents], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


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
