"""The group's bits of a file that has an access control list (DESIGN H3)."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.support.acls import set_list
from tests.support.libraries import make_file, make_game
from zipfs.library.filestate import FileState
from zipfs.library.library import Library
from zipfs.library.rules.general import Selection
from zipfs.library.scan import Entry
from zipfs.system import permissions
from zipfs.system.paths import entries, lstat

LISTS: dict[str, tuple[dict[str, Any], int]] = {
    "the mask is somebody else's": ({"users": {33: 4}, "group": 0}, 0o600),
    "the group's own": ({"users": {33: 4}, "group": 4}, 0o640),
    "more than the mask": ({"users": {33: 7}, "group": 7, "mask": 4}, 0o640),
    "one who has less than his group": ({"users": {33: 4, 34: 0}, "group": 4}, 0o600),
    "another group": ({"groups": {33: 4}, "group": 0}, 0o600),
    "another group, which has nothing": ({"groups": {33: 0}, "group": 4}, 0o640),
}


@pytest.mark.parametrize(("entry", "wanted"), LISTS.values(), ids=LISTS)
def test_what_the_group_has(entry: dict[str, Any], wanted: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    set_list(path, **entry)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640  # what stat says of each of them
    found = lstat(bytes(path))
    assert stat.S_IMODE(found.st_mode) == wanted
    assert FileState.of(found) == FileState.of(path.stat())
    assert stat.S_ISREG(found.st_mode)
    assert dict(entries(bytes(tmp_path))[0])[b"file"] == found


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    set_list(tmp_path / "folder", owner=7, users={33: 5}, group=0, mask=5)
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750
    assert stat.S_IMODE(lstat(bytes(tmp_path / "folder")).st_mode) == 0o700


def test_without_a_list_the_bits_are_true(tmp_path: Path) -> None:
    for mode in (0o640, 0o644, 0o750, 0o400, 0o070):
        path = tmp_path / f"{mode:o}"
        path.touch()
        path.chmod(mode)
        assert lstat(bytes(path)) == path.stat()
    (tmp_path / "link").symlink_to("640")
    assert lstat(bytes(tmp_path / "link")) == (tmp_path / "link").lstat()
    assert len(entries(bytes(tmp_path))[0]) == 6


@pytest.mark.parametrize("said", [b"", b"\2\0\0\0", b"\1\0\0\0" + bytes(8), b"\2\0\0\0" + bytes(7)])
def test_a_list_that_cant_be_read_grants_little(
    said: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch(0o640)
    (tmp_path / "file").chmod(0o640)
    monkeypatch.setattr(os, "getxattr", lambda *_: said)
    granted = stat.S_IMODE(lstat(bytes(tmp_path / "file")).st_mode)
    assert granted == (0o640 if said == b"\2\0\0\0" else 0o600)  # an empty one says nothing

    def failing(*_: object) -> bytes:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(os, "getxattr", failing)
    assert stat.S_IMODE(lstat(bytes(tmp_path / "file")).st_mode) == 0o600


def test_an_archive_of_such_a_file(library: Path) -> None:
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    make_file(library / "single", b"x")
    for path in (game / "1", library / "single"):
        set_list(path, users={33: 4}, group=0)
    found = Library(str(library))
    scan = found.scan(b"roms/game", Selection((b"*/*",)))
    assert scan.access.mode == 0o400
    single = found.entry(b"single")
    assert isinstance(single, Entry)
    assert stat.S_IMODE(single.status.st_mode) == 0o600


def test_where_there_are_no_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(0o640)
    monkeypatch.delattr(os, "getxattr")
    assert not permissions.may_mislead((tmp_path / "file").stat())
    assert lstat(bytes(tmp_path / "file")) == (tmp_path / "file").stat()
