"""Folders that are kept open: few, for a moment, and never the way to a wrong file (DESIGN H2)."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from zipfs.system import folders as module
from zipfs.system import syscalls
from zipfs.system.folders import Folders
from zipfs.system.syscalls import ENTER_FOLDER, READ_FILE

LIMIT = 3

pytestmark = pytest.mark.skipif(not ENTER_FOLDER, reason="folders can't be opened for this here")


@pytest.fixture
def folders() -> Iterator[Folders]:
    folders = Folders(LIMIT)
    yield folders
    for descriptor in folders.idle(-1):
        os.close(descriptor)
    assert len(folders) == 0


def content(folders: Folders, path: Path) -> bytes:
    descriptor = folders.open(os.fsencode(path), READ_FILE)
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


def at_once(folders: Folders, path: Path) -> bytes | None:
    descriptor = folders.open_at_once(os.fsencode(path), READ_FILE)
    if descriptor is None:
        return None
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


def folders_open_below(path: Path) -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith(f"{path}/") and stat.S_ISDIR(
                os.stat(f"/proc/self/fd/{name}").st_mode
            ):
                found.append(target)
        except FileNotFoundError:
            continue
    return sorted(found)


def test_a_folder_is_walked_to_once(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked = []
    open_path = module.open_path

    def counted(path: bytes, flags: int) -> int:
        walked.append(path)
        return open_path(path, flags)

    monkeypatch.setattr(module, "open_path", counted)
    for number in range(10):
        (tmp_path / f"{number}").write_bytes(b"%d" % number)
    for number in range(10):
        assert content(folders, tmp_path / f"{number}") == b"%d" % number
    assert walked == [os.fsencode(tmp_path)]


def test_few_stay_open(folders: Folders, tmp_path: Path) -> None:
    for name in "abcdef":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(name.encode())
        assert content(folders, tmp_path / name / "file") == name.encode()
        assert len(folders) <= LIMIT
        assert len(folders_open_below(tmp_path)) == len(folders)
    assert folders_open_below(tmp_path) == [str(tmp_path / name) for name in "def"]
    assert folders.idle(60) == []
    for descriptor in folders.idle(-1):
        os.close(descriptor)
    assert folders_open_below(tmp_path) == []


def test_no_link_is_followed(folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/link").symlink_to(tmp_path / "secret")
    (tmp_path / "way").symlink_to(tmp_path / "folder")
    (tmp_path / "folder/file").write_bytes(b"file")
    assert content(folders, tmp_path / "folder/file") == b"file"
    folders.answers(os.fsencode(tmp_path / "folder/file"))
    with pytest.raises(OSError, match="symbolic links") as caught:
        content(folders, tmp_path / "folder/link")
    assert caught.value.errno == errno.ELOOP
    assert at_once(folders, tmp_path / "folder/link") is None
    with pytest.raises(NotADirectoryError):
        content(folders, tmp_path / "way/file")


def test_a_folder_that_was_replaced_is_found_by_its_path_again(
    folders: Folders, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_bytes(b"old")
    assert content(folders, tmp_path / "folder/file") == b"old"
    (tmp_path / "folder").rename(tmp_path / "other")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_bytes(b"new")
    # The caller compares what he gets; it isn't what he looks for.
    assert content(folders, tmp_path / "folder/file") == b"old"
    assert folders.forget(os.fsencode(tmp_path / "folder/file"))
    assert content(folders, tmp_path / "folder/file") == b"new"
    assert folders.forget(os.fsencode(tmp_path / "folder/file"))
    assert not folders.forget(os.fsencode(tmp_path / "folder/file"))


def test_one_in_use_is_closed_by_who_uses_it(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descriptor that was closed can be that of another file a moment later."""
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow/file").write_bytes(b"slow")
    open_it, begun, go_on = os.open, threading.Event(), threading.Event()

    def slow(path: bytes, flags: int, *rest: int, dir_fd: int | None = None) -> int:
        if path == b"file" and threading.current_thread() is not threading.main_thread():
            begun.set()
            assert go_on.wait(30)
        return open_it(path, flags, *rest, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", slow)
    got = []
    thread = threading.Thread(target=lambda: got.append(content(folders, tmp_path / "slow/file")))
    thread.start()
    try:
        assert begun.wait(30)
        assert folders.idle(-1) == []
        assert folders.forget(os.fsencode(tmp_path / "slow/file"))
        assert folders_open_below(tmp_path) == [str(tmp_path / "slow")]
    finally:
        go_on.set()
        thread.join()
    assert got == [b"slow"]
    assert folders_open_below(tmp_path) == []


def test_many_threads(folders: Folders, tmp_path: Path) -> None:
    names = "abcdefgh"
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(name.encode())
    wrong: list[object] = []

    def read(seed: int) -> None:
        try:
            for number in range(200):
                name = names[(seed + number) % len(names)]
                if content(folders, tmp_path / name / "file") != name.encode():
                    wrong.append(name)
                if number % 7 == 0:
                    folders.forget(os.fsencode(tmp_path / name / "file"))
        except OSError as error:
            wrong.append(error)

    threads = [threading.Thread(target=read, args=[seed]) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(folders) <= LIMIT
    assert len(folders_open_below(tmp_path)) == len(folders)


@pytest.mark.skipif(syscalls.open_known is None, reason="no RESOLVE_CACHED here")
def test_at_once_only_where_a_folder_is_known_to_answer(folders: Folders, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"file")
    path.stat()  # now the kernel knows the name
    assert at_once(folders, path) is None
    assert content(folders, path) == b"file"
    assert at_once(folders, path) is None
    folders.answers(os.fsencode(path))
    assert at_once(folders, path) == b"file"
    assert at_once(folders, tmp_path / "missing") is None
    folders.forget(os.fsencode(path))
    assert at_once(folders, path) is None


def test_without_the_call_nothing_is_opened_at_once(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syscalls, "open_known", None)
    path = tmp_path / "file"
    path.write_bytes(b"file")
    assert content(folders, path) == b"file"
    folders.answers(os.fsencode(path))
    assert at_once(folders, path) is None
    assert content(folders, path) == b"file"


def test_none_are_kept_if_none_may_be(tmp_path: Path) -> None:
    folders = Folders(0)
    (tmp_path / "file").write_bytes(b"file")
    assert content(folders, tmp_path / "file") == b"file"
    assert len(folders) == 0
