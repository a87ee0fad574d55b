"""What vouches for a byte: the decision for each file system, and what is part of a state."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from zipfs.library import vouching
from zipfs.library.filestate import FileState
from zipfs.library.vouching import Prove, Vouchers, decide, report
from zipfs.system.filesystems import file_system
from zipfs.system.mounts import Mount


@pytest.mark.parametrize(
    ("kind", "options", "by_content"),
    [
        ("ext4", "rw,noatime", False),
        ("btrfs", "rw", False),
        ("xfs", "rw", False),
        ("ntfs3", "rw", False),
        ("squashfs", "ro", False),
        ("overlay", "rw", False),
        ("tmpfs", "rw", False),
        ("nfs", "rw,vers=3,noatime", False),
        ("nfs4", "rw,relatime,vers=4.2", False),
        ("nfs4", "rw,noatime,vers=4.2", True),
        ("nfs4", "rw,noatime,vers=4.0,acregmax=3", True),
        ("nfs4", "rw,noatime,noac,vers=4.2", False),
        ("nfs4", "rw,noatime", True),
        ("cifs", "rw,vers=3.1.1,cache=none,serverino", True),
        ("smb3", "rw", True),
        ("fuse.sshfs", "rw", True),
        ("fuse.rclone", "rw", True),
        ("fuse.never.heard.of", "rw", True),
        ("fuseblk", "rw", True),
        ("vfat", "rw,tz=UTC", True),
        ("exfat", "rw", True),
        ("9p", "rw", True),
        ("neverheardof", "rw", True),
    ],
)
def test_the_decision(kind: str, options: str, *, by_content: bool) -> None:
    row = file_system(kind, frozenset(options.split(",")))
    found = decide(row)
    assert found.by_content is by_content
    assert found.why
    assert decide(row, "always").by_content
    assert not decide(row, "never").by_content
    assert "--prove" in decide(row, "never").why


@pytest.mark.parametrize(
    ("kind", "options", "inode", "ctime"),
    [
        ("ext4", "", True, True),
        ("nfs4", "noatime", True, True),
        ("cifs", "serverino", True, True),
        ("cifs", "noperm", False, True),
        ("fuse.mergerfs", "", False, True),
        ("exfat", "", False, False),
        ("vfat", "", False, False),
        ("neverheardof", "", False, True),
    ],
)
def test_what_lasts_is_in_the_state(kind: str, options: str, *, inode: bool, ctime: bool) -> None:
    here = Path(__file__).stat()
    for prove in ("auto", "always", "never"):
        state = decide(file_system(kind, frozenset(options.split(","))), prove).state(here)  # type: ignore[arg-type]  # mypy takes them for strings
        assert state.inode == (here.st_ino if inode else 0)
        assert state.ctime_ns == (here.st_ctime_ns if ctime else 0)
        assert (state.size, state.mtime_ns) == (here.st_size, here.st_mtime_ns)
        assert state.is_of(here)
        assert state.now(here) == state
        assert state.changed_ns >= state.mtime_ns


def test_states_are_compared_by_what_both_have() -> None:
    whole = FileState(5, 10, 20, 30)
    bare = whole.without(inode=True, ctime=True)
    assert bare == FileState(0, 10, 20, 0)
    assert bare.measure(whole) == bare
    assert bare.measure(FileState(6, 10, 20, 31)) == bare
    assert bare.measure(FileState(6, 10, 21, 31)) != bare
    assert whole.measure(whole) == whole
    assert whole.measure(bare) != whole  # what has less doesn't show more
    assert whole.has_content_of(FileState(6, 10, 20, 31))
    assert not whole.has_content_of(FileState(5, 10, 21, 30))
    assert not whole.has_content_of(FileState(5, 11, 20, 30))


def test_a_system_without_ctime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vouching, "PLATFORM_VOUCHES", False)
    assert decide(file_system("ext4")).by_content
    assert not decide(file_system("ext4"), "never").by_content


class Table:
    def __init__(self, *mounts: Mount) -> None:
        self.mounts = mounts
        self.read = 0

    def __call__(self) -> Iterator[Mount]:
        self.read += 1
        return iter(self.mounts)


def test_one_decision_a_device() -> None:
    """The table of mounts is read once a device, and again when it has changed."""
    table = Table(Mount("8:1", "/", "ext4"), Mount("0:50", "/srv/roms", "cifs"))
    vouchers = Vouchers(table=table)
    assert not vouchers.of(b"/srv/other", 1).by_content
    for _ in range(3):
        assert vouchers.of(b"/srv/roms/psx/a", 2).by_content
        assert not vouchers.of(b"/srv/other", 1).by_content
    assert table.read == 2
    table.mounts = (Mount("8:1", "/", "ext4"), Mount("0:50", "/srv/roms", "btrfs"))
    assert vouchers.of(b"/srv/roms/psx/a", 2).by_content
    vouchers.forget()
    assert not vouchers.of(b"/srv/roms/psx/a", 2).by_content


@pytest.mark.parametrize(("has_table", "by_content"), [(True, True), (False, False)])
def test_without_a_table_of_mounts(
    monkeypatch: pytest.MonkeyPatch, *, has_table: bool, by_content: bool
) -> None:
    def none() -> Iterator[Mount]:
        raise FileNotFoundError

    monkeypatch.setattr(vouching, "_HAS_TABLE", has_table)
    assert Vouchers(table=none).of(b"/srv", 1).by_content is by_content


@pytest.mark.parametrize("prove", ["auto", "always", "never"])
def test_the_report_names_each_file_system(prove: Prove) -> None:
    found = report(b"/", prove)
    assert found[0][0].path == "/"
    assert any(mount.kind == "proc" for mount, _ in found)
    assert all(why.why for _, why in found)
    assert not report(os.fsencode("/proc"), "never")[0][1].by_content
