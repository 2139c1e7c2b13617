"""The check of an exported file: run in a fresh process, on images whose outputs are known.

The file is run on batches of two sizes. Its hash is on the card: a `.pt2` can hold code, so a file
is run again only where it is the one that the card is of.
"""

import json
from collections.abc import Sequence
from hashlib import file_digest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evosearch.errors import EvosearchError, InputError
from evosearch.export.card import CARD
from evosearch.processes import ProcessError, run_fresh

BATCHES = (1, 7)
"""Sizes of the batches that an exported file is checked on."""
TOLERANCE = 1e-4
"""Largest difference of outputs allowed, as a share of the largest output, or of one."""
ALLOWED = "allowed_difference"
"""The key of a card that says otherwise."""
CHECK = "check.npz"
"""The file of these batches and their outputs, beside the exported one."""

_CHECK = """
import sys, numpy
path = sys.argv[1]
{load}
checks = numpy.load(sys.argv[2], allow_pickle=False)
pairs = [(run(checks[f"images{{n}}"]), checks[f"outputs{{n}}"]) for n in {batches}]
print(max(float(abs(mine - theirs).max()) for mine, theirs in pairs))
"""


def random_batches(shape: tuple[int, ...]) -> list[Tensor]:
    """Returns a batch of each size, of random images of a shape, of mean 0 and variance 1."""
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(size, *shape, generator=rng) for size in BATCHES]


def write_checks(network: nn.Module, batches: Sequence[Tensor], folder: Path) -> None:
    """Keeps images, and what a network answers to them.

    Args:
        network: in eval mode, on the CPU.
        batches: one of each size.
        folder: of the exported file.

    Raises:
        InputError: it answers with more than one tensor.
    """
    arrays: dict[str, Any] = {}
    for images in batches:
        with torch.inference_mode():
            outputs = network(images)
        if not isinstance(outputs, Tensor):
            raise InputError(
                "this format is of networks that return one tensor, and this one returns a"
                f" {type(outputs).__name__}; format 'safetensors' takes any"
            )
        size = len(images)
        arrays |= {f"images{size}": images.numpy(), f"outputs{size}": outputs.numpy()}
    np.savez(folder / CHECK, **arrays)


def compared(path: Path, load: str, *, allowed: float | None = None) -> tuple[float, float]:
    """Runs an exported file in a fresh process, and compares its outputs with those kept.

    The process imports what is installed alone: where it is started may be the file's folder.

    Args:
        path: of the file, with its checks beside it.
        load: code of its format; see `Format.load`.
        allowed: the largest difference that may be; None for `TOLERANCE`.

    Returns:
        The largest absolute difference, and the largest output.

    Raises:
        EvosearchError: the file does not run, or its outputs differ.
    """
    checks_path = path.with_name(CHECK)
    code = _CHECK.format(load=load, batches=BATCHES)
    try:
        difference = float(run_fresh("-c", code, path, checks_path, importing=False))
    except ProcessError as error:
        raise EvosearchError(f"{path}: does not run: {error}") from error
    with np.load(checks_path, allow_pickle=False) as checks:
        largest = max(float(np.abs(checks[f"outputs{size}"]).max()) for size in BATCHES)
    if allowed is None:
        allowed = TOLERANCE * max(1.0, largest)
    if not difference <= allowed:
        raise EvosearchError(
            f"{path}: outputs differ from the network's by {difference:.1e}; at most"
            f" {allowed:.1e} is allowed, of outputs up to {largest:.1e}"
        )
    return difference, largest


def allowed_difference(path: Path) -> float | None:
    """Returns by how much the outputs of an exported file may differ, once it is the card's.

    Returns:
        What the card says; None where it says nothing, for `TOLERANCE`.

    Raises:
        InputError: it is not, or the card does not say.
    """
    try:
        card = json.loads(path.with_name(CARD).read_text(encoding="utf-8"))
        expected = card["export"]["sha256"]
        allowed = card["export"].get(ALLOWED)
        allowed = None if allowed is None else float(allowed)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not run, as {CARD} has no hash of it; export the artifact anew"
        ) from error
    found = file_hash(path)
    if found != expected:
        raise InputError(
            f"{path}: not run, as it is not the file that was exported: its SHA-256 is"
            f" {found[:16]}..., in {CARD} {str(expected)[:16]}...; export the artifact anew"
        )
    return allowed


def file_hash(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
