"""Paths without links on the way, and longer than the kernel takes in one piece; on a real disk."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fs.lab import unprivileged
from zipfs.system import syscalls
from zipfs.system.paths import PATH_MAX, entries, lstat, may_read, named, open_path
from zipfs.system.syscalls import LOOK_AT, READ_FILE, READ_FOLDER

FOLDER = b"f" * 250


@pytest.fixture(params=["openat2", "step by step"], autouse=True)
def _ways_to_open(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With openat2(2), and as without: Linux before 5.6, or a sandbox that doesn't know it."""
    if request.param == "step by step":
        monkeypatch.setattr(syscalls, "openat2", None)
    elif syscalls.openat2 is None:
        pytest.skip("no openat2 here")


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


def test_named_is_short(deep: bytes) -> None:
    before = descriptors()
    with named(deep + b"/file") as short:
        assert len(short) < PATH_MAX
        assert Path(os.fsdecode(short)).read_bytes() == b"deep"
    assert descriptors() == before


def test_a_name_that_is_too_long_stays_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="name too long") as caught:
        lstat(os.fsencode(tmp_path) + b"/" + b"x" * 256)
    assert caught.value.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize("length", [256, PATH_MAX - 1, PATH_MAX, 3 * PATH_MAX])
@pytest.mark.parametrize("below", [b"", b"/x"])
def test_a_name_of_any_length(length: int, below: bytes, deep: bytes) -> None:
    """A list may ask for one; that must end, and leave nothing open."""
    before = descriptors()
    with pytest.raises(OSError, match="name too long") as caught:
        lstat(deep + b"/" + b"x" * length + below)
    assert caught.value.errno == errno.ENAMETOOLONG
    assert descriptors() == before


# -- Links -------------------------------------------------------------------------------


LINKED = {
    "the last folder": "there/linked",
    "a folder above": "linked/real",
    "several": "linked/linked",
}


@pytest.mark.parametrize("way", LINKED.values(), ids=LINKED)
def test_a_link_on_the_way(way: str, tmp_path: Path) -> None:
    """H2: whatever leads there, nothing behind it is opened, looked at, or asked for."""
    (tmp_path / "there/real").mkdir(parents=True)
    (tmp_path / "there/real/file").write_bytes(b"secret")
    (tmp_path / "there/linked").symlink_to("real")
    (tmp_path / "linked").symlink_to("there")
    folder = os.fsencode(tmp_path / way)
    assert Path(os.fsdecode(folder), "file").read_bytes() == b"secret"  # it does lead there
    before = descriptors()
    file = folder + b"/file"
    assert not may_read(file)
    with pytest.raises(NotADirectoryError):
        lstat(file)
    with pytest.raises(NotADirectoryError):
        entries(folder)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links") as caught:
        open_path(file, READ_FILE)
    assert caught.value.errno in (errno.ENOTDIR, errno.ELOOP)
    for flags in (READ_FOLDER, LOOK_AT):
        with pytest.raises(NotADirectoryError):
            open_path(folder + b"/.", flags)
    with pytest.raises(NotADirectoryError):
        lstat(folder + b"/")
    assert descriptors() == before


def test_a_link_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "linked folder").symlink_to(tmp_path)
    path = os.fsencode(tmp_path)
    assert lstat(path + b"/link").st_size == len("file")
    with pytest.raises(OSError, match="symbolic links"):
        open_path(path + b"/link", os.O_RDONLY)  # said or not, O_NOFOLLOW
    with pytest.raises(NotADirectoryError):
        entries(path + b"/linked folder")
    assert lstat(b"/") == os.lstat("/")
    assert lstat(path + b"/") == os.lstat(path)


def test_a_nul_ends_no_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="embedded null"):
        open_path(os.fsencode(tmp_path) + b"/file\0.zip", os.O_RDONLY)


def test_what_is_opened_is_inherited_by_none(tmp_path: Path) -> None:
    descriptor = open_path(os.fsencode(tmp_path), os.O_RDONLY)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_a_folder_that_may_only_be_entered(place: Path) -> None:
    (place / "closed").mkdir()
    (place / "closed/file").write_bytes(b"x")
    (place / "closed").chmod(0o711)
    with unprivileged():
        descriptor = open_path(os.fsencode(place / "closed/file"), READ_FILE)
        assert os.read(descriptor, 2) == b"x"
        os.close(descriptor)
