"""Places that harm is done in: a full disk, a folder that cannot be written to."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def tmpfs(folder: Path, size: str = "1m") -> Iterator[Path]:
    """Mounts a small file system in memory, where this process may."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Takes the leave to write from a mounted folder."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)


def fill(folder: Path, but: int = 0) -> Path:
    """Fills a file system, but for so many bytes; returns the file to delete again."""
    room = os.statvfs(folder)
    path = folder / "filler"
    path.write_bytes(b"\0" * max(0, room.f_bavail * room.f_frsize - but))
    return path
