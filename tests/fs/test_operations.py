"""The FUSE handlers, called directly (DESIGN H1, H4, V4): nodes, handles, errno."""

from __future__ import annotations

import contextlib
import errno
import inspect
import logging
import os
import shutil
import sqlite3
import stat
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import pyfuse3
import pytest
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fs.lab import open_below, until, wait_for
from tests.support.libraries import content, expected, make_file, make_game
from zipfs.archive.validators import ROOT_INODE
from zipfs.catalog import finder as finder_module
from zipfs.catalog import game as game_module
from zipfs.catalog.listing.listing import Listings
from zipfs.catalog.nodes import Folder
from zipfs.catalog.tree import Catalog
from zipfs.errors import ChangedError, FuseError, LayoutError, StaleError, ZipfsError
from zipfs.mount import fd_pool as pool_module
from zipfs.mount import fs as fs_module
from zipfs.mount.errnos import to_errno
from zipfs.mount.fs import Operations
from zipfs.mount.reader import PendingRead, Reader
from zipfs.sealing.sealer import Sealer
from zipfs.system.process import Limits

T = TypeVar("T")

NOBODY_ASKS = cast("pyfuse3.RequestContext", None)


class Fuse:
    """The kernel's part: looks names up, forgets, opens, lists."""

    def __init__(self, sealer: Sealer) -> None:
        self.catalog = Catalog(sealer, Limits(64, 8))
        self.reader = Reader(sealer.library.absolute, sealer.index.blocks, Limits(64, 4))
        self.operations: Operations
        self.listed: list[tuple[bytes, pyfuse3.EntryAttributes, int]] = []
        self.room = 1 << 30
        """How many entries fit into the next answer to readdir."""

    async def start(self) -> None:
        self.operations = Operations(self.catalog, self.reader, await self.catalog.root())

    async def lookup(self, parent: int, name: str | bytes) -> pyfuse3.EntryAttributes:
        return await self.operations.lookup(
            pyfuse3.InodeT(parent), pyfuse3.FileNameT(os.fsencode(name)), NOBODY_ASKS
        )

    async def find(self, path: str) -> pyfuse3.EntryAttributes:
        entry = await self.getattr(ROOT_INODE)
        for name in path.split("/"):
            entry = await self.lookup(entry.st_ino, name)
        return entry

    async def getattr(self, inode: int) -> pyfuse3.EntryAttributes:
        return await self.operations.getattr(pyfuse3.InodeT(inode), NOBODY_ASKS)

    async def forget(self, *counts: tuple[int, int]) -> None:
        await self.operations.forget([(pyfuse3.InodeT(inode), n) for inode, n in counts])

    async def open(self, inode: int) -> int:
        info = await self.operations.open(pyfuse3.InodeT(inode), os.O_RDONLY, NOBODY_ASKS)
        assert info.keep_cache
        assert not info.direct_io
        return info.fh

    async def read(self, handle: int, offset: int, size: int) -> bytes:
        return bytes(await self.operations.read(pyfuse3.FileHandleT(handle), offset, size))

    async def release(self, handle: int) -> None:
        await self.operations.release(pyfuse3.FileHandleT(handle))

    async def opendir(self, inode: int) -> int:
        return await self.operations.opendir(pyfuse3.InodeT(inode), NOBODY_ASKS)

    async def readdir(self, handle: int, start: int) -> list[tuple[bytes, int]]:
        """Names told by one answer, each with where to go on from."""
        self.listed = []
        token = cast("pyfuse3.ReaddirToken", None)
        await self.operations.readdir(pyfuse3.FileHandleT(handle), start, token)
        return [(name, following) for name, _, following in self.listed]

    async def releasedir(self, handle: int) -> None:
        await self.operations.releasedir(pyfuse3.FileHandleT(handle))

    async def sealed(self, path: str) -> pyfuse3.EntryAttributes:
        folder, _, _ = path.rpartition("/")
        await until(lambda: self.catalog._games.by_archive(os.fsencode(path)))
        assert folder
        return await self.find(path)


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, sealer: Sealer, library: Path) -> Iterator[Fuse]:
    """A file system without background work, that can't be asked yet."""
    fuse = Fuse(sealer)

    def reply(
        token: object, name: bytes, attributes: pyfuse3.EntryAttributes, following: int
    ) -> bool:
        if len(fuse.listed) >= fuse.room:
            return False
        fuse.listed.append((name, attributes, following))
        return True

    # The real one needs a request of the kernel's.
    monkeypatch.setattr(pyfuse3, "readdir_reply", reply)
    yield fuse
    files = fuse.reader._pool._files
    wait_for(lambda: len(open_below(library)) == len(files))  # some threads were left behind
    pool_module.close_all([files.pop(key).descriptor for key in list(files)])


@pytest.fixture
async def fuse(nobody: Fuse, nursery: trio.Nursery) -> Fuse:
    await nobody.start()
    nursery.start_soon(nobody.catalog.run)
    return nobody


async def refused(number: int, call: Coroutine[Any, Any, object]) -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await call
    assert errno.errorcode[caught.value.errno] == errno.errorcode[number]


# -- Nodes ---------------------------------------------------------------------------------


async def test_what_stat_tells(library: Path, fuse: Fuse) -> None:
    game = make_game(library, "roms/game", {"1": b"1" * 1000, "2": b"2"})
    make_file(library / "roms/run", b"x" * 513)
    (library / "roms/run").chmod(0o6755)
    wanted = expected(game)
    archive = await fuse.sealed("roms/game.zip")
    assert archive.st_ino == wanted.inode("roms/game.zip")
    assert archive.st_size == wanted.size
    assert archive.st_mtime_ns == archive.st_atime_ns == wanted.mtime_ns
    assert archive.st_ctime_ns > (game / "2").stat().st_ctime_ns
    assert archive.st_mode == stat.S_IFREG | 0o444
    assert archive.st_nlink == 1
    assert archive.st_blocks == -(-wanted.size // 512)
    assert archive.entry_timeout == archive.attr_timeout == 1
    root = await fuse.getattr(ROOT_INODE)
    assert (root.st_ino, root.st_mode) == (ROOT_INODE, stat.S_IFDIR | 0o555)
    assert root.st_mtime_ns == os.stat(library).st_mtime_ns
    file = await fuse.find("roms/run")
    assert file.st_mode == stat.S_IFREG | 0o555  # not what makes it run as somebody else
    assert (file.st_size, file.st_blocks) == (513, 2)
    assert file.st_ino not in (0, ROOT_INODE, archive.st_ino)


async def test_dates_from_all_times(library: Path, fuse: Fuse) -> None:
    for number, seconds in enumerate((-(1 << 31), -1, 0, 1 << 31, 1 << 33, 14_000_000_000)):
        make_file(library / f"{number}", b"")
        os.utime(library / f"{number}", (0, seconds))
        entry = await fuse.find(f"{number}")
        assert entry.st_mtime_ns == (library / f"{number}").stat().st_mtime_ns
    handle = await fuse.opendir(ROOT_INODE)
    assert len(await fuse.readdir(handle, 0)) == 6


async def test_another_state_is_another_inode(library: Path, fuse: Fuse) -> None:
    """V4: the kernel's pages of one must never be taken for the other's."""
    make_file(library / "file", b"one")
    first = await fuse.find("file")
    assert (await fuse.find("file")).st_ino == first.st_ino
    (library / "file").write_bytes(b"two")
    second = await fuse.find("file")
    assert second.st_ino != first.st_ino
    assert (await fuse.getattr(first.st_ino)).st_mtime_ns == first.st_mtime_ns


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_TRUNC])
async def test_nothing_is_opened_for_writing(fuse: Fuse, library: Path, flags: int) -> None:
    """H1: also where root has remounted it for writing, and the kernel lets such calls through."""
    make_game(library, "files", {"1": b"1"})
    entry = await fuse.find("files/1")
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await fuse.operations.open(pyfuse3.InodeT(entry.st_ino), flags, NOBODY_ASKS)
    assert caught.value.errno == errno.EROFS


async def test_what_isnt_there(library: Path, fuse: Fuse) -> None:
    make_file(library / "file", b"")
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    file = await fuse.find("file")
    for name in (
        "none",
        "none.zip",
        "",
        "roms/game.zip",
        "../library",
        "file\0",
        "x" * 300,
    ):
        await refused(errno.ENAMETOOLONG if len(name) > 255 else errno.ENOENT,
                      fuse.lookup(ROOT_INODE, name))  # fmt: skip
    await refused(errno.ENOTDIR, fuse.lookup(file.st_ino, "below"))
    await refused(errno.ENOTDIR, fuse.opendir(file.st_ino))
    await refused(errno.EISDIR, fuse.open(ROOT_INODE))
    for call in (fuse.lookup(99, "x"), fuse.getattr(99), fuse.open(99), fuse.opendir(99)):
        await refused(errno.ESTALE, call)
    for name in (".", ".."):
        await refused(errno.ESTALE, fuse.lookup(99, name))


async def test_nodes_are_kept_as_long_as_the_kernel_knows_them(library: Path, fuse: Fuse) -> None:
    make_file(library / "folder/file", b"")
    nodes, lookups = fuse.operations.nodes._nodes, fuse.operations.nodes._lookups
    folder = (await fuse.find("folder")).st_ino
    file = (await fuse.lookup(folder, "file")).st_ino
    for _ in range(2):
        await fuse.lookup(folder, "file")
    assert lookups == {folder: 1, file: 3}
    await fuse.forget((file, 1))
    await fuse.getattr(file)
    await fuse.forget((file, 2), (folder, 1))
    assert (set(nodes), lookups) == ({ROOT_INODE}, {})
    await refused(errno.ESTALE, fuse.getattr(file))
    await fuse.forget((ROOT_INODE, 1000), (file, 1), (12345, 7))
    assert (set(nodes), set(lookups)) == ({ROOT_INODE}, set())
    await fuse.getattr(ROOT_INODE)


async def test_a_handle_is_found_again(library: Path, fuse: Fuse) -> None:
    """By NFS servers, and open_by_handle_at(2), when the kernel has forgotten the node."""
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    make_game(library, "roms/one file", {"1": b"1"})
    await fuse.sealed("roms/game.zip")
    paths = ["roms", "roms/game.zip", "roms/one file", "roms/one file/1"]
    entries = {path: await fuse.find(path) for path in paths}
    for path in paths:
        inode = entries[path].st_ino
        parent = entries.get(path.rpartition("/")[0])
        found = await fuse.lookup(inode, "..")  # known
        assert found.st_ino == (parent.st_ino if parent else ROOT_INODE)
    counts = dict(fuse.operations.nodes._lookups)
    await fuse.forget(*counts.items())
    assert set(fuse.operations.nodes._nodes) == {ROOT_INODE}
    for path in paths:
        entry = entries[path]
        found = await fuse.lookup(entry.st_ino, ".")
        assert (found.st_ino, found.st_mode) == (entry.st_ino, entry.st_mode)
        assert fuse.operations.nodes._lookups[entry.st_ino] == 1
        await fuse.getattr(entry.st_ino)
    for name in (".", ".."):
        assert (await fuse.lookup(ROOT_INODE, name)).st_ino == ROOT_INODE
    # What was never told is found if it has to do with games; also after a restart.
    await fuse.forget(*((entries[path].st_ino, 1) for path in paths))
    fuse.catalog.handles._paths.clear()
    for path in paths[:3]:
        assert (await fuse.lookup(entries[path].st_ino, ".")).st_ino == entries[path].st_ino
    await refused(errno.ESTALE, fuse.lookup(entries[paths[3]].st_ino, "."))


async def test_a_handle_of_what_is_gone(library: Path, fuse: Fuse, stale: None) -> None:
    """A file, a folder and an archive that are others by now, or a file in place of a folder."""
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    make_file(library / "single", b"x")
    make_file(library / "folder/file", b"x")
    await fuse.sealed("roms/game.zip")
    entries = [await fuse.find(path) for path in ("roms/game.zip", "single", "folder/file")]
    await fuse.forget(*dict(fuse.operations.nodes._lookups).items())
    make_file(library / "roms/game/1", b"another")
    make_file(library / "single", b"another")
    shutil.rmtree(library / "folder")
    make_file(library / "folder", b"")
    for entry in entries:
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await fuse.lookup(entry.st_ino, ".")
        assert caught.value.errno in (errno.ESTALE, errno.ENOENT)  # both are ESTALE to a client


async def test_paths_are_kept_of_those_forgotten_last(
    library: Path, fuse: Fuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zipfs.catalog.handles.MEMORY", 3)
    inodes = []
    for number in range(5):
        make_file(library / f"{number}", b"x")
        inodes.append((await fuse.find(f"{number}")).st_ino)
    await fuse.forget(*((inode, 1) for inode in inodes))
    assert list(fuse.catalog.handles._paths) == inodes[2:]
    await refused(errno.ESTALE, fuse.lookup(inodes[1], "."))
    assert (await fuse.lookup(inodes[2], ".")).st_ino == inodes[2]


async def test_a_folder_forgotten_while_it_is_looked_at(
    library: Path, fuse: Fuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_file(library / "folder/file", b"")
    folder = (await fuse.find("folder")).st_ino
    refresh = fuse.catalog.refresh

    async def slow(node: Folder) -> object:
        await fuse.forget((folder, 1))
        return await refresh(node)

    monkeypatch.setattr(fuse.catalog, "refresh", slow)
    await fuse.getattr(folder)
    assert set(fuse.operations.nodes._nodes) == {ROOT_INODE}


async def test_two_nodes_of_one_number(
    library: Path, fuse: Fuse, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once in 2**63: rather none than the wrong one."""
    for name in ("a", "b"):
        make_file(library / name, name.encode())
    monkeypatch.setattr("zipfs.archive.validators.inode", lambda *_: 77)
    first = await fuse.lookup(ROOT_INODE, "a")
    await refused(errno.EIO, fuse.lookup(ROOT_INODE, "b"))
    assert [line.levelname for line in caplog.records] == ["ERROR"]
    assert await fuse.read(await fuse.open(first.st_ino), 0, 10) == b"a"
    await fuse.forget((77, 1))
    await fuse.lookup(ROOT_INODE, "b")


async def test_a_folder_that_is_gone(library: Path, fuse: Fuse) -> None:
    make_file(library / "folder/file", b"")
    folder = (await fuse.find("folder")).st_ino
    shutil.rmtree(library / "folder")
    await refused(errno.ENOENT, fuse.getattr(folder))
    await refused(errno.ENOENT, fuse.opendir(folder))
    await refused(errno.ENOENT, fuse.lookup(folder, "file"))


# -- Listings ------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [1, 2, 3, 7, 100])
async def test_a_listing_in_pieces(room: int, library: Path, fuse: Fuse) -> None:
    names = sorted(f"{number}" for number in range(10))
    for name in names:
        make_file(library / name, b"")
    handle = await fuse.opendir(ROOT_INODE)
    fuse.room = room
    told: list[bytes] = []
    places: list[int] = []
    start = 0
    while part := await fuse.readdir(handle, start):
        assert len(part) <= room
        told += [name for name, _ in part]
        places += [place for _, place in part]
        start = places[-1]
        # What changes meanwhile shifts nothing.
        make_file(library / f"new {len(told)}", b"")
    assert sorted(told) == [os.fsencode(name) for name in names]
    # Each entry told counts as looked up, and only those told.
    assert sum(fuse.operations.nodes._lookups.values()) == 10
    assert told[7 : 7 + room] == [name for name, _ in await fuse.readdir(handle, places[6])]
    # Behind a place that no entry has.
    assert told[7 : 7 + room] == [name for name, _ in await fuse.readdir(handle, places[6] + 1)]
    # From the beginning, it is told as it is by now.
    fuse.room = 1000
    assert len(await fuse.readdir(handle, 0)) == len(os.listdir(library)) > 10
    await fuse.releasedir(handle)
    assert fuse.operations._listings == {}
    await refused(errno.EBADF, fuse.readdir(handle, 0))


@pytest.fixture
def read(sealer: Sealer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many names of `roms` were read, each time; large are folders of 20 names."""
    monkeypatch.setattr(finder_module, "_FEW", 20)
    kinds, numbers = sealer.library.kinds, []
    names, of_a_listing = finder_module.Finder.names, threading.local()

    def listed(*arguments: Any, **keywords: Any) -> Any:
        of_a_listing.reads = True
        try:
            return names(*arguments, **keywords)
        finally:
            of_a_listing.reads = False

    def counted(source: bytes, most: int | None = None) -> Any:
        found = kinds(source, most)
        # The scan reads folders, too.
        if source == b"roms" and getattr(of_a_listing, "reads", False):
            numbers.append(len(found))
        return found

    monkeypatch.setattr(finder_module.Finder, "names", listed)
    monkeypatch.setattr(sealer.library, "kinds", counted)
    return numbers


async def test_first_names_of_a_large_folder(library: Path, fuse: Fuse, read: list[int]) -> None:
    """They are told before its last name was read; looked at are those that are told."""
    for number in range(300):
        make_file(library / f"roms/{number}", b"")
    roms = (await fuse.find("roms")).st_ino
    handle = await fuse.opendir(roms)
    assert read == [20]
    fuse.room = 15
    told = await fuse.readdir(handle, 0)
    assert len(told) == 15
    assert read == [20]
    fuse.room = 1000
    while some := await fuse.readdir(handle, told[-1][1]):
        told += some
        # Nobody who has some names waits until the others are read.
        assert read == ([20] if len(told) == 20 else [20, 300])
    assert len({name for name, _ in told}) == len(told) == 300
    # They are the same ones the next time.
    fuse.catalog._listings.clear()
    again = await fuse.opendir(roms)
    assert await fuse.readdir(again, 0) == told[:20]
    assert read == [20, 300, 20]
    assert (await fuse.readdir(again, told[150][1]))[:64] == told[151 : 151 + 64]
    assert read == [20, 300, 20, 300]


@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.parametrize("room", [1, 7, 25])
async def test_a_large_folder_that_is_opened_for_each_page(
    room: int, library: Path, fuse: Fuse, read: list[int], *, forgotten: bool
) -> None:
    """Whatever goes and comes meanwhile, and also by another daemon."""
    for number in range(60):
        make_file(library / f"roms/{number}", b"")
    staying = {b"%d" % number for number in range(60)}
    roms = (await fuse.find("roms")).st_ino
    fuse.room = room
    told: list[bytes] = []
    cookie = 0
    while some := await fuse.readdir(handle := await fuse.opendir(roms), cookie):
        await fuse.releasedir(handle)
        told += [name for name, _ in some]
        cookie = some[-1][1]
        if forgotten:
            fuse.catalog._listings = fuse.catalog._lister._listings = Listings()
        elif room > 1:  # the last one, whose cookie it goes on with
            (library / os.fsdecode(b"roms/" + some[-1][0])).unlink()
            staying.discard(some[-1][0])
            make_file(library / f"roms/new {len(told)}", b"")
    assert len(told) == len(set(told))
    assert staying <= set(told)
    assert 20 in read


async def test_a_listing_has_what_lookups_find(library: Path, fuse: Fuse) -> None:
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    make_game(library, "roms/plain", {"1": b"1"})
    make_game(library, "roms/both", {"1": b"1", "2": b"2"})
    make_file(library / "roms/both.zip", b"")
    make_file(library / b"roms/\xff".decode("utf-8", "surrogateescape"), b"")
    await fuse.sealed("roms/game.zip")
    await fuse.sealed("roms/both (folder).zip")
    roms = (await fuse.find("roms")).st_ino
    handle = await fuse.opendir(roms)
    await fuse.readdir(handle, 0)
    listed = {name: entry.st_ino for name, entry, _ in fuse.listed}
    assert sorted(listed) == [
        b"both (folder).zip", b"both.zip", b"game.zip", b"plain", b"\xff",
    ]  # fmt: skip
    for name, inode in listed.items():
        assert (await fuse.lookup(roms, name)).st_ino == inode


# -- Reading -------------------------------------------------------------------------------


async def test_reading(library: Path, fuse: Fuse) -> None:
    game = make_game(library, "roms/game", {"1": content(5000), "2": b"2"})
    entry = await fuse.sealed("roms/game.zip")
    whole = expected(game).read(0, entry.st_size)
    handles = [await fuse.open(entry.st_ino) for _ in range(3)]
    assert set(handles) == {entry.st_ino}  # the next daemon has to know what they are
    for handle in handles:
        assert await fuse.read(handle, 0, 1 << 20) == whole
        assert await fuse.read(handle, 100, 50) == whole[100:150]
        assert await fuse.read(handle, entry.st_size, 50) == b""
    assert fuse.operations.open_handles == 3
    for handle in handles:
        assert await fuse.read(handle, 0, 1) == whole[:1]
        await fuse.release(handle)
    await refused(errno.EBADF, fuse.read(handles[0], 0, 1))
    await refused(errno.EBADF, fuse.release(handles[0]))
    assert fuse.operations.open_handles == 0


async def test_a_version_that_is_gone_is_stale(
    library: Path, fuse: Fuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """open(2) then looks the path up again by itself, and finds the new version."""
    monkeypatch.setattr(game_module, "FRESH", 0.0)
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    make_file(library / "file", b"one")
    archive, file = await fuse.sealed("roms/game.zip"), await fuse.find("file")
    (game / "1").write_bytes(b"one")
    (library / "file").write_bytes(b"two")
    await refused(errno.ESTALE, fuse.open(archive.st_ino))
    # A single file is another one at once, which a server may have asked for its date before.
    await refused(errno.ENOENT, fuse.open(file.st_ino))
    assert await fuse.read(await fuse.open((await fuse.find("file")).st_ino), 0, 9) == b"two"
    new = await fuse.sealed("roms/game.zip")
    handle = await fuse.open(new.st_ino)
    assert await fuse.read(handle, 0, 4) == b"PK\x03\x04"


async def test_a_change_under_a_handle(
    library: Path, fuse: Fuse, caplog: pytest.LogCaptureFixture
) -> None:
    """R1: `EIO` to its readers, said once, and the game is looked at again."""
    game = make_game(library, "roms/game", {"1": b"1" * 100, "2": b"2"})
    entry = await fuse.sealed("roms/game.zip")
    handle = await fuse.open(entry.st_ino)
    (game / "1").write_bytes(b"other")
    for _ in range(3):
        await refused(errno.EIO, fuse.read(handle, 0, entry.st_size))
    assert len([line for line in caplog.messages if "roms/game.zip" in line]) == 1
    await until(lambda: fuse.catalog._games.versions.get(entry.st_ino) is None)
    await fuse.release(handle)


async def test_an_error_of_the_disk(
    library: Path,
    fuse: Fuse,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever it is, to a reader it is `EIO`: no other errno makes sense to a web server."""
    make_file(library / "broken", b"data")
    handle = await fuse.open((await fuse.find("broken")).st_ino)
    for number in (errno.ENOTCONN, errno.ESTALE, errno.EAGAIN, errno.ENOENT, errno.ENOSYS):

        def broken(*_: object, number: int = number) -> int:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, "preadv", broken)
            await refused(errno.EIO, fuse.read(handle, 0, 10))
    assert all("Traceback" not in line for line in caplog.messages)


async def test_any_name_is_one_line_of_the_log(
    library: Path,
    fuse: Fuse,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = "two\nlines\x1b[31m\udcff"
    make_file(library / name, b"data")
    handle = await fuse.open((await fuse.find(name)).st_ino)
    with open(library / name, "wb") as file:  # noqa: ASYNC230
        file.write(b"other")
    await refused(errno.EIO, fuse.read(handle, 0, 10))
    assert caplog.messages == [
        r"reading two\nlines\x1b[31m\xff ended in an error: a file of it has changed"
    ]


async def test_the_size_of_the_file_system(library: Path, fuse: Fuse) -> None:
    found = await fuse.operations.statfs(NOBODY_ASKS)
    source = os.statvfs(library)
    assert (found.f_blocks, found.f_frsize) == (source.f_blocks, source.f_frsize)
    assert found.f_namemax == 255


# -- Errors (H4) ---------------------------------------------------------------------------

ERRORS: list[tuple[Exception, int | None]] = [
    (pyfuse3.FUSEError(errno.EISDIR), errno.EISDIR),
    (StaleError(), errno.ESTALE),
    (ChangedError(), errno.EIO),
    (FileNotFoundError(errno.ENOENT, "x"), errno.ENOENT),
    (PermissionError(errno.EACCES, "x"), errno.EACCES),
    (PermissionError(errno.EPERM, "x"), errno.EPERM),
    (NotADirectoryError(errno.ENOTDIR, "x"), errno.ENOTDIR),
    (IsADirectoryError(errno.EISDIR, "x"), errno.EISDIR),
    (TimeoutError(errno.ETIMEDOUT, "x"), errno.EIO),
    (OSError(errno.EIO, "x"), errno.EIO),
    (OSError(errno.ENOTCONN, "x"), errno.ENOTCONN),
    (OSError(errno.EMFILE, "x"), errno.EMFILE),
    (OSError(errno.ENAMETOOLONG, "x"), errno.ENAMETOOLONG),
    # The kernel would never ask again, of the whole mount.
    (OSError(errno.ENOSYS, "x"), errno.EIO),
    (OSError("without a number"), None),
    (ValueError("x"), None),
    (KeyError("x"), None),
    (RecursionError(), None),
    (MemoryError(), None),
    (AssertionError(), None),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), None),
    (sqlite3.OperationalError("x"), None),
    (trio.BrokenResourceError(), None),
    (ExceptionGroup("x", [ValueError("x")]), None),
    (ZipfsError("x"), None),
    (LayoutError("x"), None),
    (FuseError("x"), None),
]


@pytest.mark.parametrize(("error", "number"), ERRORS, ids=repr)
def test_the_table_of_errno(error: Exception, number: int | None) -> None:
    assert to_errno(error) == number


def test_every_errno_of_the_source_is_passed_on() -> None:
    for number in errno.errorcode:
        # OSError makes TimeoutError of ETIMEDOUT: the source doesn't answer.
        wanted = errno.EIO if number in (errno.ENOSYS, errno.ETIMEDOUT) else number
        assert to_errno(OSError(number, "x")) == wanted


Call = Callable[[Fuse, int, int], Coroutine[Any, Any, object]]


# What each handler asks of others, by name, and how it is called.
def read_slowly(fuse: Fuse, _node: int, handle: int) -> Any:
    """A read for which the disk has to be waited for."""
    content = fuse.operations._handles[handle][0][1]
    pending = PendingRead(fuse.reader, content, 0, memoryview(bytearray(1)), 0)
    fuse.reader.read_now = lambda *_: pending  # type: ignore[method-assign]  # gone with the test
    return fuse.read(handle, 0, 1)


HANDLERS: dict[str, tuple[str, Call]] = {
    "lookup": ("catalog.lookup", lambda fuse, node, handle: fuse.lookup(ROOT_INODE, "file")),
    "getattr": ("catalog.refresh", lambda fuse, node, handle: fuse.getattr(node)),
    "opendir": ("catalog.open_folder", lambda fuse, node, handle: fuse.opendir(ROOT_INODE)),
    "open": ("reader.open", lambda fuse, node, handle: fuse.open(node)),
    "read": ("reader.read_now", lambda fuse, node, handle: fuse.read(handle, 0, 1)),
    "read, waiting": ("PendingRead.finish", read_slowly),
    "release": ("reader.release", lambda fuse, node, handle: fuse.release(handle)),
    "statfs": (
        "catalog.statvfs",
        lambda fuse, node, handle: fuse.operations.statfs(NOBODY_ASKS),
    ),
}


@pytest.mark.parametrize("name", HANDLERS)
async def test_no_exception_but_one_leaves_a_handler(
    name: str,
    library: Path,
    fuse: Fuse,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Any other would end the mount: pyfuse3 catches :exc:`pyfuse3.FUSEError` alone."""
    make_file(library / "file", b"data")
    node = (await fuse.find("file")).st_ino
    where, call = HANDLERS[name]
    owner, _, attribute = where.partition(".")
    owned = PendingRead if owner == "PendingRead" else getattr(fuse, owner)
    original = getattr(owned, attribute)
    for error, number in ERRORS:
        handle = await fuse.open(node)
        caplog.clear()

        def failing(*_: object, error: Exception = error, **__: object) -> Any:
            raise error

        async def failing_later(*_: object, error: Exception = error, **__: object) -> Any:
            await trio.lowlevel.checkpoint()
            raise error

        later = inspect.iscoroutinefunction(original)
        with monkeypatch.context() as patch:
            patch.setattr(owned, attribute, failing_later if later else failing)
            with pytest.raises(pyfuse3.FUSEError) as caught:
                await call(fuse, node, handle)
        logged = [line for line in caplog.records if line.exc_info]
        reading = name.startswith("read")
        if reading and isinstance(error, OSError):
            assert caught.value.errno == errno.EIO
            assert logged == []
        elif number is None:
            assert caught.value.errno == errno.EIO
            assert len(logged) == 1
            assert logged[0].levelno == logging.ERROR
            assert name.partition(",")[0] in logged[0].getMessage()
        else:
            gone = name == "open" and isinstance(error, ChangedError)
            assert caught.value.errno == (errno.ENOENT if gone else number)  # it is a single file
            assert logged == []
        if name != "release":
            await fuse.release(handle)
    assert (await fuse.find("file")).st_size == 4  # and it goes on


def test_all_handlers_are_guarded() -> None:
    """Those that pyfuse3 calls; ``forget`` is the one that may not fail at all, and ``read``
    guards itself, for speed."""
    own = {
        name: method
        for name, method in vars(Operations).items()
        if inspect.iscoroutinefunction(inspect.unwrap(method)) and not name.startswith("_")
    }
    assert set(own) == {
        "lookup", "forget", "getattr", "opendir", "readdir", "releasedir",
        "open", "read", "release", "statfs",
    }  # fmt: skip
    for name, method in own.items():
        assert (inspect.unwrap(method) is not method) == (name not in ("forget", "read"))


def test_what_is_left_undefined() -> None:
    """The kernel asks once, hears ``ENOSYS`` and never asks again; or it is read-only."""
    for name in (
        "getxattr", "listxattr", "setxattr", "removexattr", "flush", "access",
        "create", "mkdir", "mknod", "unlink", "rmdir", "rename", "link", "symlink",
        "setattr", "write", "fsync", "fsyncdir",
    ):  # fmt: skip
        assert name not in vars(Operations)
    assert not Operations.enable_writeback_cache
    assert Operations.supports_dot_lookup


async def test_the_mount_is_ready_when_the_kernel_says_so(library: Path, fuse: Fuse) -> None:
    assert not fuse.operations.mounted.is_set()
    fuse.operations.init()
    assert fuse.operations.mounted.is_set()


# -- Anything in any order -------------------------------------------------------------------


class Step(Protocol):
    def __call__(self, fuse: Fuse, inode: int, handle: int) -> Coroutine[Any, Any, object]: ...


STEPS: dict[str, Step] = {
    "lookup": lambda fuse, inode, handle: fuse.lookup(inode, NAMES[handle % len(NAMES)]),
    "getattr": lambda fuse, inode, handle: fuse.getattr(inode),
    "forget": lambda fuse, inode, handle: fuse.forget((inode, handle % 3)),
    "opendir": lambda fuse, inode, handle: fuse.opendir(inode),
    "readdir": lambda fuse, inode, handle: fuse.readdir(handle, inode % 5),
    "releasedir": lambda fuse, inode, handle: fuse.releasedir(handle),
    "open": lambda fuse, inode, handle: fuse.open(inode),
    "read": lambda fuse, inode, handle: fuse.read(handle, inode % 3000, 1000),
    "release": lambda fuse, inode, handle: fuse.release(handle),
    "statfs": lambda fuse, inode, handle: fuse.operations.statfs(NOBODY_ASKS),
}
NAMES: list[str | bytes] = [
    "roms", "file", "game.zip", "game", "none", "..", "out", b"\xff\xfe", "x" * 256, "one",
]  # fmt: skip
CHANGES: dict[str, Callable[[Path], object]] = {
    "rewrite": lambda library: make_file(library / "roms/game/1", b"rewritten"),
    "unlink": lambda library: (library / "file").unlink(missing_ok=True),
    "create": lambda library: replace(library / "file", lambda path: make_file(path, b"again")),
    "remove": lambda library: shutil.rmtree(library / "roms/game", ignore_errors=True),
    "make": lambda library: make_game(library, "roms/game", {"1": b"1", "2": b"2"}),
    "fifo": lambda library: replace(library / "file", os.mkfifo),
}


def replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink(missing_ok=True)
    make(path)


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # what fails shows in the log already
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*STEPS, *STEPS, *CHANGES]), st.integers(0, 12), st.integers(0, 12)
        ),
        max_size=40,
    )
)
def test_only_one_exception_ever_escapes(
    nobody: Fuse, library: Path, steps: list[tuple[str, int, int]]
) -> None:
    """H4, for calls that no kernel would make, in a library that changes."""
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    make_game(library, "roms/one", {"1": b"1"})
    if not (library / "roms/out").is_symlink():
        (library / "roms/out").symlink_to("/etc")

    async def scenario() -> None:
        nobody.catalog = Catalog(nobody.catalog._sealer, Limits(64, 8))
        await nobody.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nobody.catalog.run)
            inodes = [ROOT_INODE, 0]
            for name, number, handle in steps:
                if name in CHANGES:
                    CHANGES[name](library)
                    continue
                with contextlib.suppress(pyfuse3.FUSEError):
                    result = await STEPS[name](nobody, inodes[number % len(inodes)], handle)
                    if isinstance(result, pyfuse3.EntryAttributes):
                        inodes.append(result.st_ino)
            nursery.cancel_scope.cancel()
        for handle in list(nobody.operations._handles):
            await nobody.release(handle)

    logging.getLogger(fs_module.__name__).disabled = True  # unknown handles are told, each
    try:
        trio.run(scenario)
    finally:
        logging.getLogger(fs_module.__name__).disabled = False
