"""Paths longer than the kernel takes in one piece, on a real disk."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from zipfs.paths import PATH_MAX, lstat, may_read, open_path, shortened

FOLDER = b"f" * 250


@pytest.fixture(params=[1, 17, 40], ids=lambda levels: f"{levels * 251} bytes")
def deep(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[bytes]:
    """A folder below many others, with a file in it."""
    path = os.fsencode(tmp_path)
    here = os.open(path, os.O_PATH | os.O_DIRECTORY)
    for _ in range(request.param):
        os.mkdir(FOLDER, dir_fd=here)
        below = os.open(FOLDER, os.O_PATH | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here, path = below, path + b"/" + FOLDER
    descriptor = os.open(b"file", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=here)
    os.write(descriptor, b"deep")
    os.close(descriptor)
    os.symlink(b"file", b"link", dir_fd=here)
    os.close(here)
    yield path
    shutil.rmtree(tmp_path)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_open(deep: bytes) -> None:
    before = descriptors()
    descriptor = open_path(deep + b"/file", os.O_RDONLY | os.O_NOFOLLOW)
    assert os.read(descriptor, 10) == b"deep"
    os.close(descriptor)
    assert descriptors() == before


def test_lstat(deep: bytes) -> None:
    assert lstat(deep + b"/file").st_size == 4
    assert lstat(deep + b"/link").st_size == len(b"file")
    assert lstat(deep).st_nlink == 2


def test_access(deep: bytes) -> None:
    assert may_read(deep + b"/file")
    assert not may_read(deep + b"/nothing")
    assert not may_read(deep + b"x/file")


def test_links_are_not_followed(deep: bytes) -> None:
    with pytest.raises(OSError, match="symbolic links") as caught:
        open_path(deep + b"/link", os.O_RDONLY | os.O_NOFOLLOW)
    assert caught.value.errno == errno.ELOOP


def test_what_is_not_there(deep: bytes) -> None:
    before = descriptors()
    for missing in (deep + b"/nothing", deep[:-1] + b"x/file", deep + b"/file/x"):
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            lstat(missing)
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            open_path(missing, os.O_RDONLY)
    assert descriptors() == before


def test_shortened_is_short(deep: bytes) -> None:
    with shortened(deep + b"/file") as short:
        assert len(short) < PATH_MAX
        assert Path(os.fsdecode(short)).read_bytes() == b"deep"


def test_a_name_that_is_too_long_stays_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="name too long") as caught:
        lstat(os.fsencode(tmp_path) + b"/" + b"x" * 256)
    assert caught.value.errno == errno.ENAMETOOLONG
