"""The checkpoint of a training: its whole state in one file, replaced after each epoch."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch

from evosearch.files import replacing, writing

_FORMAT = 3


@final
class Checkpoint:
    """One file with the state of one training; nothing in it is unpickled but tensors."""

    def __init__(self, path: Path, about: str) -> None:
        """Takes the file, and a digest of all that the training depends on."""
        self._path, self._about = path, about

    def load(self) -> Mapping[str, Any] | None:
        """Returns the state of this training; None where the file has none that is whole."""
        try:
            saved = torch.load(self._path, map_location="cpu", weights_only=True)
            known = saved["format"] == _FORMAT and saved["about"] == self._about
            return saved["state"] if known else None
        # A damaged archive raises nearly anything; the training begins anew.
        except Exception:
            return None

    def save(self, state: Mapping[str, Any]) -> None:
        """Writes the state in place of the one before.

        Raises:
            StorageError: it cannot be written; the one before is whole.
        """
        content = io.BytesIO()
        torch.save({"format": _FORMAT, "about": self._about, "state": dict(state)}, content)
        with writing(self._path), replacing(self._path) as temporary:
            temporary.write_bytes(content.getbuffer())
