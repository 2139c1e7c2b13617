"""Replicas of a run: under torchrun the first process writes its folder, the others copies."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch.distributed as dist

from evosearch.processes import is_first, shared_by
from evosearch.training.distributed import joined_processes


@contextmanager
def replica(folder: Path | None) -> Iterator[Path | None]:
    """Gives a process the folder that it may write, and joins it with the others.

    All of them do the same, but for the batches of trainings, which they share; so a run has one
    writer, and needs no other process to tell what comes of it.

    Args:
        folder: of a run that exists, or that is to be made; None leaves its name to the command.
    """
    if shared_by() == 1:
        yield folder
        return
    with joined_processes(), TemporaryDirectory() as place:
        own = folder
        if not is_first():
            own = Path(place) / "run"
            if folder is not None and folder.exists():
                shutil.copytree(folder, own)
        dist.barrier()  # nothing is written before all have their copies
        yield own
