"""What the kernel tells of changes below a folder."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.waiting import SECONDS, poll
from zipfs.system.events import inotify as module
from zipfs.system.events.changes import Change
from zipfs.system.events.inotify import Inotify


class Told:
    """Runs an :class:`Inotify` on *root*, and gathers what it tells."""

    def __init__(self, root: Path) -> None:
        self.paths: set[str] = set()
        self.inotify = Inotify(os.fsencode(root))
        self.inotify.add()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for paths in self.inotify.changes(0.01, 0.1):
            self.paths |= {os.fsdecode(path) for path in paths}

    def wait(self, *paths: str) -> None:
        poll(f"{paths} to be told, not only {self.paths}", lambda: self.paths >= set(paths))
        self.paths.clear()

    def close(self) -> None:
        self.inotify.stop()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        self.inotify.close()


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_bytes(b"x")
    before = set(os.listdir("/proc/self/fd"))
    with contextlib.closing(Told(tmp_path)) as told:
        yield told
    assert set(os.listdir("/proc/self/fd")) <= before


def test_files(told: Told, tmp_path: Path) -> None:
    file = tmp_path / "a/b/file"
    file.write_bytes(b"y")
    told.wait("a/b/file")
    file.chmod(0o600)
    told.wait("a/b/file")
    file.rename(tmp_path / "a/b/other")
    told.wait("a/b/file", "a/b/other")
    (tmp_path / "a/b/other").unlink()
    told.wait("a/b/other")
    (tmp_path / "top").symlink_to("nothing")
    told.wait("top")
    odd = os.path.join(os.fsencode(tmp_path), b"a/\xff\n\t ")
    os.close(os.open(odd, os.O_WRONLY | os.O_CREAT))
    told.wait(os.fsdecode(b"a/\xff\n\t "))


def test_new_folders(told: Told, tmp_path: Path) -> None:
    """Also what came to be in them before they were watched."""
    (tmp_path / "n/e/w").mkdir(parents=True)
    (tmp_path / "n/e/w/file").write_bytes(b"x")
    told.wait("n", "n/e", "n/e/w", "n/e/w/file")
    (tmp_path / "n/e/w/file").write_bytes(b"y")
    told.wait("n/e/w/file")


def test_renamed_folder(told: Told, tmp_path: Path) -> None:
    (tmp_path / "a").rename(tmp_path / "c")
    told.wait("a", "c", "c/b", "c/b/file")
    (tmp_path / "c/b/file").write_bytes(b"y")
    told.wait("c/b/file")


def test_folder_moved_away(
    told: Told, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (tmp_path / "a").rename(elsewhere / "a")
    told.wait("a")
    (elsewhere / "a/b/file").write_bytes(b"y")
    (tmp_path / "last").touch()
    poll("the last", lambda: "last" in told.paths)
    assert told.paths == {"last"}
    assert list(told.inotify._folders.values()) == [b""]


def test_removed_folders(told: Told, tmp_path: Path) -> None:
    (tmp_path / "a/b/file").unlink()
    (tmp_path / "a/b").rmdir()
    (tmp_path / "a").rmdir()
    told.wait("a", "a/b", "a/b/file")
    poll("no watch to be left", lambda: list(told.inotify._folders.values()) == [b""])


def test_links_are_not_followed(
    told: Told, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (tmp_path / "link").symlink_to(elsewhere)
    told.wait("link")
    (elsewhere / "file").touch()
    (tmp_path / "last").touch()
    poll("the last", lambda: "last" in told.paths)
    assert told.paths == {"last"}


def test_too_many_at_once(tmp_path: Path) -> None:
    """The kernel keeps a limited number of events; then anything may have changed."""
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with contextlib.closing(Inotify(os.fsencode(tmp_path))) as inotify:
        inotify.add()
        names = [tmp_path / "a", tmp_path / "b"]
        names[0].touch()
        for number in range(most):  # two events each; equal ones in a row would be one
            names[number % 2].rename(names[1 - number % 2])
        changes = inotify.changes(0.01, 10)
        assert b"" in next(changes)


def test_too_many_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def inotify_add_watch(self, *_: object) -> int:
            ctypes.set_errno(28)  # ENOSPC
            return -1

    with contextlib.closing(Inotify(os.fsencode(tmp_path))) as inotify:
        monkeypatch.setattr(module, "_libc", Full())
        with pytest.raises(OSError, match="No space left"):
            inotify.add()


def test_what_is_heard_of_each_path(tmp_path: Path) -> None:
    """In the order of the events, and before they are told."""
    heard: list[tuple[str, Change]] = []
    inotify = Inotify(
        os.fsencode(tmp_path),
        deep=False,
        heard=lambda path, change: heard.append((os.fsdecode(path), change)),
    )
    with contextlib.closing(inotify):
        inotify.add()
        changes = inotify.changes(0.01, 0.1)
        file = tmp_path / "aside"
        file.write_bytes(b"x")
        file.rename(tmp_path / "name")
        (tmp_path / "name").chmod(0o600)
        (tmp_path / "name").open("ab").close()
        (tmp_path / "name").unlink()
        told: set[bytes] = set()
        while told < {b"aside", b"name"} or heard[-1] != ("name", Change.ANY):
            told |= next(changes)
    aside = [change for path, change in heard if path == "aside"]
    assert set(aside[:-2]) == {Change.ANY}
    assert aside[-2:] == [Change.CLOSED, Change.ANY]
    name = [change for path, change in heard if path == "name"]
    assert name[0] is Change.RENAMED
    assert name[1:] == [Change.ATTRIBUTES, Change.CLOSED, Change.ANY]
