"""An open handle is one version: its bytes or ``EIO``, never others (DESIGN R1, R2).

Reads go past the page cache where it matters: what the kernel has is right, but proves
nothing. What isn't answered with ``EIO`` has to be the old bytes, all of them.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.libraries import Expected, content, expected, make_file, make_game
from tests.support.mounting import Mounted, Mounts
from tests.support.waiting import poll

GAME = "roms/psx/Game"
SMALL, LARGE = 300_000, 5_000_000
"""Within one block of checksums (1 MiB), and across several."""
SIZES = {"roms/psx/Small": SMALL, "roms/psx/Large": LARGE}


@dataclass
class Case:
    """A game with two members of *size* bytes, "a" and "b"."""

    game: str
    size: int
    folder: Path
    archive: Path
    wanted: Expected
    data: bytes


def two_games(library: Path, mount: Mounts) -> tuple[Mounted, list[Case]]:
    """A small and a large one, mounted and sealed."""
    for game, size in SIZES.items():
        make_game(library, game, {"a": content(size, 1), "b": content(size, 2)})
    mounted = mount(library)
    mounted.wait_sealed(len(SIZES))
    cases = []
    for game, size in SIZES.items():
        wanted = expected(library / game)
        data = wanted.read(0, wanted.size)
        cases.append(Case(game, size, library / game, mounted.archive(game), wanted, data))
    return mounted, cases


def wait_version(mounted: Mounted, game: str) -> None:
    """Wait for the version of *game* that is in the library now, and compare it all."""
    wanted = expected(mounted.library / game)
    archive = mounted.archive(game)
    inode = wanted.inode(f"{game}.zip")
    poll("the new version", lambda: archive.exists() and archive.stat().st_ino == inode)
    assert archive.read_bytes() == wanted.read(0, wanted.size)


@contextmanager
def opened(path: Path, *, direct: bool = True) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_range(descriptor: int, offset: int, length: int) -> bytes | None:
    """None stands for ``EIO``."""
    try:
        return os.pread(descriptor, length, offset)
    except OSError as error:
        if error.errno == errno.EIO:
            return None
        raise


def read_all(descriptor: int, data: bytes, step: int = 100_000) -> int:
    """Read everything piece by piece and compare it with *data*; how often it was ``EIO``."""
    refused = 0
    for start in range(0, len(data), step):
        offset, wanted = start, data[start : start + step]
        while wanted:
            got = read_range(descriptor, offset, len(wanted))
            if got is None:
                refused += 1
                break
            # Less than all is what the page cache has before a page that it can't get.
            assert got
            assert wanted.startswith(got), f"other bytes at {offset}"
            wanted = wanted[len(got) :]
            offset += len(got)
    return refused


def replace(path: Path) -> None:
    make_file(path.with_name("draft"), content(path.stat().st_size, "new"))
    os.replace(path.with_name("draft"), path)


def unlink(path: Path) -> None:
    path.unlink()


def remove_game(path: Path) -> None:
    shutil.rmtree(path.parent)


def rename(path: Path) -> None:
    path.rename(path.with_name("other"))


def rename_game(path: Path) -> None:
    path.parent.rename(path.parent.with_name(f"Other {path.parent.name}"))


def chmod(path: Path) -> None:
    path.chmod(0o640)


def hard_link(path: Path) -> None:
    os.link(path, path.with_name("second name"))


HARMLESS = [replace, unlink, remove_game, rename, rename_game, chmod, hard_link]


@pytest.mark.parametrize("change", HARMLESS, ids=lambda change: change.__name__)
def test_old_bytes_to_the_end(library: Path, mount: Mounts, change: Callable[[Path], None]) -> None:
    """Where the open file still has them."""
    mounted, cases = two_games(library, mount)
    for case in cases:
        with opened(case.archive) as descriptor:
            assert read_range(descriptor, 0, 1000) == case.data[:1000]
            change(case.folder / "b")
            assert read_all(descriptor, case.data) == 0
            # Also once the change has been noticed.
            os.listdir(mounted.path / "roms/psx")
            assert read_all(descriptor, case.data, 333_333) == 0


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(content(path.stat().st_size, "new"))


def rewrite_unnoticed(path: Path) -> None:
    """With the old date put back afterwards."""
    before = path.stat()
    rewrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def rewrite_and_replace(path: Path) -> None:
    """The file that is open is rewritten under another name."""
    moved = path.rename(path.with_name("moved"))
    rewrite_unnoticed(moved)


def rewrite_anew(path: Path) -> None:
    """As a shell's ``>`` does."""
    path.write_bytes(content(path.stat().st_size, "new"))


SPOILING = [rewrite, rewrite_unnoticed, rewrite_and_replace, rewrite_anew]


@pytest.mark.parametrize("change", SPOILING, ids=lambda change: change.__name__)
def test_rewritten_in_place(library: Path, mount: Mounts, change: Callable[[Path], None]) -> None:
    """``EIO`` for all of the member, and never its new bytes; the others are served."""
    mounted, cases = two_games(library, mount)
    mounted.expect_log(r"reading \S+ ended in an error: a file of it has changed")
    for case in cases:
        data, second = case.data, case.wanted.layout.data_offset(1)
        with opened(case.archive) as descriptor:
            assert read_range(descriptor, second, 1000) == data[second : second + 1000]
            change(case.folder / "b")
            for offset in range(second, second + case.size - 1000, 50_000):
                assert read_range(descriptor, offset, 1000) is None
            # A piece of both members can't be had; the first one can, and the directory.
            assert read_range(descriptor, second - 500, 1000) is None
            assert read_range(descriptor, 0, second) == data[:second]
            end = second + case.size
            assert read_range(descriptor, end, 1000) == data[end:]
            assert read_all(descriptor, data) > 0
        assert mounted.log_text().count(f"reading {case.game}.zip ended in an error") == 1
    # The next open gets the new version, whole.
    for case in cases:
        wait_version(mounted, case.game)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def touch(path: Path) -> None:
    os.utime(path)


@pytest.mark.parametrize("change", [truncate, empty, append, touch], ids=lambda c: c.__name__)
def test_other_size_or_date(library: Path, mount: Mounts, change: Callable[[Path], None]) -> None:
    mounted, cases = two_games(library, mount)
    mounted.expect_log("ended in an error: a file of it has changed")
    for case in cases:
        second = case.wanted.layout.data_offset(1)
        with opened(case.archive) as descriptor:
            change(case.folder / "b")
            assert read_range(descriptor, second, 1000) is None
            assert read_range(descriptor, second + case.size - 1000, 1000) is None
            assert read_all(descriptor, case.data) > 0
    for case in cases:
        wait_version(mounted, case.game)


def test_one_block_rewritten(library: Path, mount: Mounts) -> None:
    """With the old date put back, what is still right is served, block by block."""
    size = 5 << 20
    folder = make_game(library, GAME, {"a": b"a", "b": content(size, 2)})
    wanted = expected(folder)
    data = wanted.read(0, wanted.size)
    mounted = mount(library)
    mounted.expect_log("ended in an error: a file of it has changed")
    start = wanted.layout.data_offset(1)
    with opened(mounted.wait_archive(GAME)) as descriptor:
        before = (folder / "b").stat()
        with (folder / "b").open("r+b") as file:
            file.seek((2 << 20) + 12345)
            file.write(b"!")
        os.utime(folder / "b", ns=(before.st_atime_ns, before.st_mtime_ns))
        for block in range(5):
            offset = start + (block << 20)
            got = read_range(descriptor, offset, 1 << 20)
            assert got == (None if block == 2 else data[offset : offset + (1 << 20)]), block


def test_through_the_page_cache(library: Path, mount: Mounts) -> None:
    """As a web server reads: what is cached is the old version's, the rest is or is EIO."""
    changes = [*HARMLESS, *SPOILING, truncate]
    for change in changes:
        # Of its own: what was proven of one game is kept by its content.
        name = change.__name__
        files = {"a": content(LARGE, f"{name} 1"), "b": content(LARGE, f"{name} 2")}
        make_game(library, f"roms/psx/{name}", files)
    mounted = mount(library)
    mounted.expect_log("ended in an error: a file of it has changed")
    mounted.wait_sealed(len(changes))
    for change in changes:
        game = f"roms/psx/{change.__name__}"
        wanted = expected(library / game)
        data = wanted.read(0, wanted.size)
        with opened(mounted.archive(game), direct=False) as descriptor:
            assert read_range(descriptor, 0, 1000) == data[:1000]
            change(library / game / "b")
            refused = read_all(descriptor, data)
            assert bool(refused) == (change not in HARMLESS), game
    # Whatever the kernel has in its cache, the next version is its own.
    for change in changes:
        if change not in (unlink, remove_game, rename_game):
            wait_version(mounted, f"roms/psx/{change.__name__}")


def test_handles_of_two_versions(library: Path, mount: Mounts) -> None:
    folder = make_game(library, GAME, {"a": content(SMALL, 1), "b": content(SMALL, 2)})
    old = expected(folder)
    old_data = old.read(0, old.size)
    mounted = mount(library)
    archive = mounted.wait_archive(GAME)
    with opened(archive) as first:
        replace(folder / "b")
        new = expected(folder)
        inode = new.inode(f"{GAME}.zip")
        poll("the new version", lambda: archive.exists() and archive.stat().st_ino == inode)
        with opened(archive) as second:
            for offset in range(0, new.size, 70_000):
                assert read_range(first, offset, 70_000) == old_data[offset : offset + 70_000]
                assert read_range(second, offset, 70_000) == new.read(offset, 70_000)
        assert os.fstat(first).st_ino == old.inode(f"{GAME}.zip")
        assert os.fstat(first).st_size == old.size


def test_single_file(library: Path, mount: Mounts) -> None:
    """The same for a file that is passed through."""
    single = library / "roms/gb/Game.gb"
    data = content(LARGE, 1)
    for change in (replace, unlink, rewrite, truncate, append):
        make_file(single, data)
        mounted = mount(library)
        mounted.expect_log("ended in an error: a file of it has changed")
        with opened(mounted.wait_for("roms/gb/Game.gb")) as descriptor:
            assert read_range(descriptor, 0, 1000) == data[:1000]
            change(single)
            refused = read_all(descriptor, data)
            assert bool(refused) == (change in (rewrite, truncate, append)), change
        mounted.unmount()


def test_rewritten_again_and_again_while_it_is_read(library: Path, mount: Mounts) -> None:
    """A download is the whole of one version, or it breaks off."""
    folder = make_game(library, GAME, {"a": b"a", "b": content(SMALL, 0)})
    versions = []
    for number in range(2):
        make_file(folder / "b", content(SMALL, number))
        wanted = expected(folder)
        versions.append(wanted.read(0, wanted.size))
    mounted = mount(library, settle=0.05)
    mounted.expect_log("ended in an error: a file of it has changed")
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            before = (folder / "b").stat()
            with (folder / "b").open("r+b") as file:
                file.write(content(SMALL, number % 2))
            os.utime(folder / "b", ns=(before.st_atime_ns, before.st_mtime_ns))
            # Long enough for a version to be sealed now and then.
            stop.wait(0.15)

    writer = threading.Thread(target=write)
    writer.start()
    whole: set[int] = set()
    try:
        poll("both versions", lambda: _download(mounted, versions, whole))
    finally:
        stop.set()
        writer.join()


def _download(mounted: Mounted, versions: list[bytes], whole: set[int]) -> bool:
    """Download once; note which version it was, if it was whole; whether all were seen."""
    try:
        with opened(mounted.archive(GAME)) as descriptor:
            size = os.fstat(descriptor).st_size
            pieces = [read_range(descriptor, offset, 40_000) for offset in range(0, size, 40_000)]
    except FileNotFoundError:
        return False
    got = [piece for piece in pieces if piece is not None]
    if len(got) == len(pieces):
        data = b"".join(got)
        assert data in versions
        whole.add(versions.index(data))
    else:
        # Those that came before the end are of one version, too.
        prefix = b"".join(got[: pieces.index(None)])
        assert any(version.startswith(prefix) for version in versions)
    return len(whole) == len(versions)
