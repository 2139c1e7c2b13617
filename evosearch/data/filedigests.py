"""Content digests of files, remembered for as long as the files are not touched."""

import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b, file_digest, sha256
from pathlib import Path

from evosearch.errors import InputError
from evosearch.files import cache_folder

SETTLED_NS = 2 * 10**9
"""A file that was touched less than this ago is not remembered: it may be touched again within
one tick of the file system's clock, and would then look as it did before."""


def file_digests(root: Path, names: Sequence[str]) -> list[str]:
    """Returns 32 hexadecimal digits for the content of each file.

    A file whose size, time of change, time of status change and inode are those it had when it
    was read last is not read again. An edit that keeps the size and sets the time of change back
    is seen by the time of status change, which programs cannot set. What none of the four shows
    (a clock set back, the disk written to below the file system, a file system that does not
    keep these times) is not seen; deleting `$EVOSEARCH_CACHE/files` has everything read anew.

    Args:
        root: a folder; what is remembered is remembered for it.
        names: of files in it.

    Raises:
        InputError: a file cannot be read.
    """
    store = cache_folder() / "files" / f"{sha256(str(root).encode()).hexdigest()[:16]}.json"
    known = _read(store)
    clock = time.time_ns()
    try:
        states = [os.stat(root / name) for name in names]
        stamps = [_stamp(state) for state in states]
        unknown = [
            position
            for position, (name, stamp) in enumerate(zip(names, stamps, strict=True))
            if known.get(name, ("", ""))[0] != stamp
        ]
        with ThreadPoolExecutor() as pool:
            paths = [root / names[position] for position in unknown]
            fresh = dict(zip(unknown, pool.map(_digest, paths), strict=True))
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error
    settled = {
        names[position]: (stamps[position], digest)
        for position, digest in fresh.items()
        if states[position].st_ctime_ns < clock - SETTLED_NS
    }
    if settled:
        _write(store, {**known, **settled})
    return [
        fresh[position] if position in fresh else known[name][1]
        for position, name in enumerate(names)
    ]


def _stamp(state: os.stat_result) -> str:
    return f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {state.st_ino}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, lambda: blake2b(digest_size=16)).hexdigest()


def _read(store: Path) -> dict[str, tuple[str, str]]:
    """Returns what is remembered: name -> stamp and digest; nothing where that cannot be read."""
    try:
        content = json.loads(store.read_bytes())
        return {str(name): (str(stamp), str(digest)) for name, (stamp, digest) in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(store: Path, content: Mapping[str, tuple[str, str]]) -> None:
    """Remembers digests; where the cache cannot be written, the files are read again next time."""
    with suppress(OSError):
        store.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=store.parent, delete=False) as file:
            try:
                json.dump(content, file)
                file.flush()
                os.replace(file.name, store)
            finally:
                Path(file.name).unlink(missing_ok=True)
