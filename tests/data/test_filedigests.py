"""Files are read once, and again whenever they were touched."""

import os
import time

import pytest

from evosearch.data import filedigests
from evosearch.errors import InputError

NAMES = ["a/one", "a/two", "b/one"]


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 100)
    return tmp_path / "data"


@pytest.fixture
def read(monkeypatch):
    """The names of the files that were read, in any order."""
    seen = []

    def digest(path):
        seen.append("/".join(path.parts[-2:]))
        return original(path)

    original = filedigests._digest
    monkeypatch.setattr(filedigests, "_digest", digest)
    return seen


@pytest.fixture
def settled(monkeypatch):
    """Files made just now count as settled."""
    monkeypatch.setattr(filedigests, "SETTLED_NS", 0)


def replace_in_place(path):
    """Changes one byte of a file, and sets back all that a program can set back."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"#")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (before.st_size, before.st_mtime_ns, before.st_ino) == (
        after.st_size,
        after.st_mtime_ns,
        after.st_ino,
    )


def test_digests_are_of_contents(folder):
    (folder / "b" / "one").write_bytes((folder / "a" / "two").read_bytes())
    one, two, three = filedigests.file_digests(folder, NAMES)
    assert one != two == three
    assert all(len(digest) == 32 for digest in (one, two, three))


def test_files_are_read_once(folder, read, settled):
    first = filedigests.file_digests(folder, NAMES[:2])
    assert sorted(read) == NAMES[:2]
    assert filedigests.file_digests(folder, NAMES)[:2] == first
    assert sorted(read) == NAMES
    read.clear()
    assert filedigests.file_digests(folder, NAMES[::-1])[1:] == first[::-1]
    assert read == []


def test_a_file_changed_in_place_with_its_size_and_time_restored_is_read_anew(
    folder, read, settled
):
    before = filedigests.file_digests(folder, NAMES)
    read.clear()
    time.sleep(0.02)  # some ticks of the file system's clock
    replace_in_place(folder / "a" / "two")
    after = filedigests.file_digests(folder, NAMES)
    assert read == ["a/two"]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]


def test_a_file_touched_just_now_is_not_remembered(folder, read):
    """A change within one tick of the clock leaves no trace in any time."""
    for _ in range(2):
        filedigests.file_digests(folder, NAMES)
    assert sorted(read) == sorted(NAMES * 2)


def test_another_time_alone_changes_no_digest(folder, read, settled):
    before = filedigests.file_digests(folder, NAMES)
    os.utime(folder / "a" / "one", ns=(1, 1))
    assert filedigests.file_digests(folder, NAMES) == before
    assert sorted(read) == ["a/one", *NAMES]


def test_what_is_remembered_may_be_broken_or_impossible_to_write(folder, read, settled, tmp_path):
    before = filedigests.file_digests(folder, NAMES)
    (store,) = (tmp_path / "cache" / "files").iterdir()
    for content in ("{", "[]", '{"a/one": 3}', '{"a/one": [1]}'):
        store.write_text(content)
        assert filedigests.file_digests(folder, NAMES) == before
    store.unlink()
    store.parent.rmdir()
    store.parent.write_text("a file, no folder")
    assert filedigests.file_digests(folder, NAMES) == before
    assert len(read) == 6 * len(NAMES)


def test_a_file_that_cannot_be_read(folder):
    with pytest.raises(InputError, match=r"a/three: cannot be read \(No such file"):
        filedigests.file_digests(folder, ["a/three"])
