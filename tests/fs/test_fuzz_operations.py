"""The FUSE handlers, asked for anything by a kernel that has gone mad (DESIGN H4).

Random calls, many at once, with inodes, handles, names, offsets and flags of which many
make no sense, while the library changes. Whatever comes, each call gives what it has to or
raises :exc:`pyfuse3.FUSEError` with an errno that says why. Nothing is logged with a
traceback, no byte is another version's, nothing stays open, and it goes on afterwards.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
import stat
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final, cast

import pyfuse3
import pytest
import trio

from tests.fs.lab import open_below, until, wait_for
from tests.support.libraries import content, expected, make_file, make_game
from tests.support.waiting import SECONDS
from zipfs.archive.validators import ROOT_INODE
from zipfs.catalog.tree import Catalog
from zipfs.mount import fd_pool as pool_module
from zipfs.mount.fs import Operations
from zipfs.mount.reader import LINGER, Reader
from zipfs.sealing.sealer import Sealer
from zipfs.system.process import Limits

TASKS: Final = 12
CALLS: Final = 250
"""Of each task."""
HUGE: Final = (1 << 31, 1 << 40, (1 << 63) - 1)
CONTEXT: Final = cast("pyfuse3.RequestContext", None)
TOKEN: Final = cast("pyfuse3.ReaddirToken", object())

NOT_THERE: Final = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE}
MAY: Final[dict[str, set[int]]] = {
    "lookup": NOT_THERE | {errno.ENAMETOOLONG},
    "getattr": NOT_THERE,
    "opendir": NOT_THERE,
    "readdir": {errno.EBADF, errno.EINVAL, errno.ENOENT},  # rewound, and the folder is gone
    "releasedir": {errno.EBADF},
    "open": NOT_THERE | {errno.EISDIR, errno.EROFS},
    "read": {errno.EBADF, errno.EINVAL, errno.EIO},
    "release": {errno.EBADF},
    "statfs": set(),
    "walk": NOT_THERE,
}

REAL: Final = (b"roms", b"run", b"single", b"game.zip", b"other.zip", b"steady.zip")
NAMES: Final = (
    *REAL, b"psx", b"game", b"other", b"steady", b"sub", b"1",
    b"", b".", b"..", b"/", b"roms/game", b"../outside", b"/etc/passwd", b"./roms",
    b"a\0b", b"\0", b"game.zip\0", b"\xff\xfe", b"\xc0\xaf", b"\n", b"\x1b[2J", b"x" * 255,
    b"x" * 256, b"x" * 5000, b"x" * 70_000, "\u202egpj".encode(), b".zip", b" ", b"\\", b"%s%n",
)  # fmt: skip


class Fuzz:
    """A kernel that has lost its mind; *seed* says what it comes up with."""

    def __init__(self, operations: Operations, library: Path, seed: int) -> None:
        self.operations = operations
        self.library = library
        self.random = random.Random(seed)
        self.inodes = [int(ROOT_INODE)]
        self.handles: list[int] = []
        self.folders: list[int] = []
        self.content: dict[int, bytes] = {}
        """What was read of each inode: one version for ever (V4)."""
        self.opened: dict[int, int] = {}
        self.counts = dict.fromkeys(MAY, 0)
        """How many calls have succeeded."""

    # -- What is asked for -----------------------------------------------------

    def inode(self) -> pyfuse3.InodeT:
        choice = self.random.random()
        if choice < 0.1:
            return pyfuse3.InodeT(self.random.choice([0, -1, 2, 12345, (1 << 64) - 1, *HUGE]))
        recent = self.inodes[-40:] if choice < 0.8 else self.inodes
        return pyfuse3.InodeT(self.random.choice([ROOT_INODE, *recent]))

    def handle(self, first: list[int], second: list[int]) -> pyfuse3.FileHandleT:
        """One of *first*, but at times of the other kind, or none at all."""
        choice = self.random.random()
        if choice < 0.1:
            number = self.random.choice([0, -1, 999_999, (1 << 64) - 1])
        else:
            from_ = second if choice < 0.2 and second else first
            recent = from_[-10:] if self.random.random() < 0.8 else from_
            number = self.random.choice(recent or [0])
        return pyfuse3.FileHandleT(number)

    def number(self) -> int:
        return self.random.choice(
            [0, 1, 7, 100, 4096, 10_000, 1 << 17, -1, -4096, *HUGE, self.random.randrange(30_000)]
        )

    def name(self) -> pyfuse3.FileNameT:
        name = self.random.choice(NAMES if self.random.random() < 0.5 else REAL)
        if self.random.random() < 0.1:
            name = self.random.randbytes(self.random.randrange(40))
        return pyfuse3.FileNameT(name)

    # -- Calls -----------------------------------------------------------------

    async def lookup(self) -> None:
        entry = await self.operations.lookup(self.inode(), self.name(), CONTEXT)
        assert isinstance(entry, pyfuse3.EntryAttributes)
        self.inodes.append(entry.st_ino)

    async def walk(self) -> None:
        """As a kernel in its right mind would go on."""
        inode = ROOT_INODE
        for name in self.random.choice(
            [
                b"run",
                b"roms/single",
                b"roms/game.zip",
                b"roms/steady.zip",
                b"roms/other.zip",
                b"roms",
            ]
        ).split(b"/"):
            entry = await self.operations.lookup(inode, pyfuse3.FileNameT(name), CONTEXT)
            inode = entry.st_ino
            self.inodes.append(inode)
        if stat.S_ISREG(entry.st_mode):
            info = await self.operations.open(inode, os.O_RDONLY, CONTEXT)
            self.handles.append(info.fh)
            self.opened[info.fh] = inode

    async def getattr(self) -> None:
        inode = self.inode()
        entry = await self.operations.getattr(inode, CONTEXT)
        assert isinstance(entry, pyfuse3.EntryAttributes)

    async def opendir(self) -> None:
        inode = self.inode()
        handle = await self.operations.opendir(inode, CONTEXT)
        assert handle == inode
        self.folders.append(handle)

    async def readdir(self) -> None:
        handle, start = self.handle(self.folders, self.handles), self.number()
        assert await self.operations.readdir(handle, start, TOKEN) is None

    async def releasedir(self) -> None:
        assert await self.operations.releasedir(self.handle(self.folders, self.handles)) is None

    async def open(self) -> None:
        flags = self.random.choice(
            [os.O_RDONLY] * 6
            + [os.O_WRONLY, os.O_RDWR, os.O_DIRECT, os.O_TRUNC | os.O_RDWR, -1, 3, *HUGE]
        )
        inode = self.inode()
        info = await self.operations.open(inode, flags, CONTEXT)
        assert isinstance(info, pyfuse3.FileInfo)
        assert not flags & os.O_WRONLY
        self.handles.append(info.fh)
        self.opened[info.fh] = inode

    async def read(self) -> None:
        handle, offset, size = self.handle(self.handles, self.folders), self.number(), self.number()
        if self.random.random() < 0.3:
            offset, size = 0, 1 << 17
        data = bytes(await self.operations.read(handle, offset, size))
        assert handle in self.opened
        assert offset >= 0
        assert size >= 0
        inode = self.opened[handle]
        if (offset, size) == (0, 1 << 17):
            assert self.content.setdefault(inode, data) == data
        if inode in self.content:
            assert data == self.content[inode][offset : offset + size]

    async def release(self) -> None:
        assert await self.operations.release(self.handle(self.handles, self.folders)) is None

    async def statfs(self) -> None:
        assert isinstance(await self.operations.statfs(CONTEXT), pyfuse3.StatvfsData)

    async def forget(self) -> None:
        counts = [(self.inode(), self.random.choice([1, 1, 1, 0, 1 << 63])) for _ in range(3)]
        assert await self.operations.forget(counts) is None

    async def call(self) -> None:
        """Anything; whatever comes of it is right."""
        name = self.random.choice([*MAY, "walk", "walk", "open", "read", "read"])
        method: Callable[[], Awaitable[None]] = getattr(self, name)
        try:
            with trio.fail_after(SECONDS):
                await method()
            self.counts[name] += 1
        except pyfuse3.FUSEError as error:
            assert error.errno in MAY[name], f"{name}: {os.strerror(error.errno)}"  # noqa: PT017 - or it succeeds
        if self.random.random() < 0.02:
            await self.forget()
        if self.random.random() < 0.02:
            self.operations.invalidate(self.name())

    async def calls(self) -> None:
        for _ in range(CALLS):
            await self.call()

    # -- The library meanwhile -------------------------------------------------

    def change(self) -> None:
        path = self.library / self.random.choice(
            ["roms/game/1", "roms/game/sub/2", "roms/other/1", "roms/new", "roms/single", "run"]
        )
        match self.random.randrange(5):
            case 0:
                make_file(path, self.random.randbytes(self.random.randrange(5000)))
            case 1:
                path.unlink(missing_ok=True)
            case 2 if path.exists():
                path.rename(path.with_name("moved"))
            case 3:
                make_game(self.library, "roms/other", {"1": b"1", "sub/2": b"2"})
            case _:
                shutil.rmtree(self.library / "roms/other", ignore_errors=True)

    async def changes(self) -> None:
        while True:
            self.change()
            await trio.sleep(0.003)


@pytest.fixture
def parts(sealer: Sealer) -> Iterator[tuple[Catalog, Reader]]:
    reader = Reader(sealer.library.absolute, sealer.index.blocks, Limits(64, 4))
    yield Catalog(sealer, Limits(64, 8)), reader
    files = reader._pool._files
    wait_for(lambda: len(open_below(sealer.library.root)) == len(files))
    pool_module.close_all([files.pop(key).descriptor for key in list(files)])


@pytest.mark.parametrize("seed", range(6))
async def test_random_calls(
    seed: int,
    library: Path,
    place: Path,
    parts: tuple[Catalog, Reader],
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def reply(token: object, name: object, entry: object, following: object) -> bool:
        assert token is TOKEN
        assert isinstance(name, bytes)
        assert isinstance(entry, pyfuse3.EntryAttributes)
        assert isinstance(following, int)
        return fuzz.random.random() < 0.8

    monkeypatch.setattr(pyfuse3, "readdir_reply", reply)
    make_file(place / "outside", b"secret")
    make_game(library, "roms/game", {"1": content(3000), "sub/2": content(20_000, 2)})
    make_game(library, "roms/other", {"1": b"1", "sub/2": b"2"})
    steady = make_game(library, "roms/steady", {"1": content(70_000, 8), "2": content(9)})
    make_file(library / "roms/single", content(9000, 3))
    make_file(library / "run", content(100, 4))
    catalog, reader = parts
    operations = Operations(catalog, reader, await catalog.root())
    nursery.start_soon(catalog.run)
    fuzz = Fuzz(operations, library, seed)
    await until(lambda: catalog._games.by_archive(b"roms/steady.zip"))
    async with trio.open_nursery() as changing:
        changing.start_soon(fuzz.changes)
        async with trio.open_nursery() as calling:
            for _ in range(TASKS):
                calling.start_soon(fuzz.calls)
        changing.cancel_scope.cancel()
    assert all(fuzz.counts.values()), fuzz.counts  # each kind has worked at times
    wanted = expected(steady)
    assert fuzz.content[wanted.inode("roms/steady.zip")] == wanted.read(0, wanted.size)
    tracebacks = [line.getMessage() for line in caplog.records if line.levelno >= logging.ERROR]
    assert tracebacks == []
    assert not any(b"secret" in data for data in fuzz.content.values())
    await _let_go(fuzz)
    await _still_right(fuzz)


async def _let_go(fuzz: Fuzz) -> None:
    """What the kernel does in the end; then there is nothing left."""
    operations = fuzz.operations
    for handle, opened in list(operations._handles.items()):
        for _ in list(opened):
            await operations.release(pyfuse3.FileHandleT(handle))
    for handle, folder in list(operations._listings.items()):
        for _ in range(folder.opens):
            await operations.releasedir(pyfuse3.FileHandleT(handle))
    assert not operations._listings
    await operations.forget([(pyfuse3.InodeT(inode), 1 << 62) for inode in fuzz.inodes])
    await operations.forget([(pyfuse3.InodeT(n), 1 << 62) for n in list(operations.nodes._nodes)])
    assert operations.open_handles == 0
    assert list(operations.nodes._nodes) == [ROOT_INODE]
    assert set(operations.nodes._lookups) <= {ROOT_INODE}
    assert all(handle.opened == 0 for handle in operations._reader._handles.values())
    assert LINGER > 0  # and what they had open is closed when that has passed


async def _still_right(fuzz: Fuzz) -> None:
    game = make_game(fuzz.library, "roms/game", {"1": content(5000, 5), "sub/2": content(100, 6)})
    wanted = expected(game)
    operations = fuzz.operations
    roms = await operations.lookup(ROOT_INODE, pyfuse3.FileNameT(b"roms"), CONTEXT)
    with trio.fail_after(SECONDS):
        while True:
            try:
                found = await operations.lookup(
                    roms.st_ino, pyfuse3.FileNameT(b"game.zip"), CONTEXT
                )
            except pyfuse3.FUSEError:
                found = None
            if found and found.st_size == wanted.size:
                break
            await trio.sleep(0.01)
    info = await operations.open(found.st_ino, os.O_RDONLY, CONTEXT)
    data = bytes(await operations.read(info.fh, 0, found.st_size + 100))
    assert data == wanted.read(0, wanted.size)
    await operations.release(info.fh)
