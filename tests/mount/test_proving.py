"""Where dates can't be relied on, content vouches for every byte (DESIGN R2).

The library is on :mod:`tests.support.faultfs`, a FUSE file system, whose `stat` can be made to say
what it once said, as shares do whose attributes come from a cache.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.test_status import status
from tests.support.faultfs import Faults
from tests.support.libraries import Expected, content, expected, make_game
from tests.support.mounting import Mounted, Mounts
from tests.support.waiting import poll
from zipfs.library.filestate import BLOCK

GAME = "roms/psx/A"
SIZE = 4 * BLOCK + 1000
Source = tuple[Path, Faults]


@pytest.fixture
def whole(library: Path) -> Expected:
    return expected(make_game(library, GAME, {"1.bin": content(SIZE, 1), "2.bin": b"second"}))


@pytest.fixture
def mount(faulty: Source, mount: Mounts) -> Iterator[Mounts]:
    """Mounts that end before the file system does that they show."""
    yield mount
    faulty[1].clear()


def rewrite(file: Path, data: bytes, offset: int = 0) -> None:
    """In place, with the date put back."""
    before = file.stat()
    with file.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def hashed(mounted: Mounted) -> int:
    """Bytes hashed since the start."""
    found = status(mounted)["pending"]["hashed_bytes"]
    assert isinstance(found, int)
    return found


def read(archive: Path) -> bytes | None:
    """All of it, or None if that ends in an error or there is none."""
    try:
        return archive.read_bytes()
    except OSError as error:
        if error.errno not in (errno.EIO, errno.ENOENT):
            raise
        return None


def test_other_bytes_in_the_same_state(
    library: Path, faulty: Source, whole: Expected, mount: Mounts
) -> None:
    shown, faults = faulty
    mounted = mount(shown)
    mounted.expect_log("reading roms/psx/A.zip ended in an error: .* has other bytes")
    archive = mounted.wait_archive(GAME)
    begin = whole.layout.data_offset(0)
    before = archive.stat()
    with archive.open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 100, begin) == whole.read(begin, 100)
        faults.freeze(f"{GAME}/1.bin")
        rewrite(library / GAME / "1.bin", b"other bytes", 2 * BLOCK + 17)
        # The rest is what it was, and this block isn't given, not even what is right in it.
        assert os.pread(file.fileno(), BLOCK, begin) == whole.read(begin, BLOCK)
        for offset in (2 * BLOCK, 3 * BLOCK - 1):
            with pytest.raises(OSError, match="Input/output error"):
                os.pread(file.fileno(), 1, begin + offset)
    # Its game is hashed again, though its state is the same, and is there with the new bytes.
    now = expected(library / GAME)
    assert now.sha256() != whole.sha256()
    poll("the new version", lambda: read(archive) == now.read(0, now.size))
    assert int(archive.stat().st_mtime) != int(before.st_mtime)
    assert archive.stat().st_ino != before.st_ino


def test_variants_are_proven(library: Path, faulty: Source, mount: Mounts, place: Path) -> None:
    """Their files are those of their game, with all that is known of them."""
    shown, faults = faulty
    make_game(library, GAME, {"1.bin": content(SIZE, 1), "2.bin": b"second", "manual/a.txt": b"a"})
    config = place / "zipfs.toml"
    config.write_text('[[variants]]\nname = "game"\nonly = ["game"]\n')
    mounted = mount(shown, "--config", config)
    archive = mounted.wait_archive(f"{GAME} [game]")
    wanted = archive.read_bytes()
    assert mounted.unmount() == 0  # and so forgets what it has proven
    mounted = mount(shown, "--config", config)
    mounted.expect_log(r"reading .* ended in an error: .* has other bytes")
    archive = mounted.wait_archive(f"{GAME} [game]")
    with archive.open("rb", buffering=0) as file:
        faults.freeze(f"{GAME}/1.bin")
        rewrite(library / GAME / "1.bin", b"other bytes", 2 * BLOCK + 17)
        with pytest.raises(OSError, match="Input/output error"):
            os.pread(file.fileno(), 1, wanted.index(content(SIZE, 1)[:100]) + 2 * BLOCK)


def test_files_that_changed_together(library: Path, faulty: Source, mount: Mounts) -> None:
    """One that fails its proof casts doubt on the others: a part of a change never was."""
    shown, faults = faulty
    names = ("1.bin", "2.bin")
    make_game(library, GAME, {name: content(SIZE, name) for name in names})
    old = expected(library / GAME)
    versions = [old.read(0, old.size)]
    mounted = mount(shown)
    mounted.expect_log("reading roms/psx/A.zip ended in an error: .* has other bytes")
    archive = mounted.wait_archive(GAME)
    for name in names:
        faults.freeze(f"{GAME}/{name}")
    for name, other in (names, names[::-1]):
        rewrite(library / GAME / name, content(SIZE, other))
    now = expected(library / GAME)
    versions.append(now.read(0, now.size))

    def there() -> bool:
        data = read(archive)
        assert data is None or data in versions
        return data == versions[1]

    poll("the new version", there)


def test_a_read_that_was_wrong_once_changes_nothing(
    library: Path, faulty: Source, whole: Expected, mount: Mounts
) -> None:
    """A bit that fell over on its way: the same version is there again."""
    shown, faults = faulty
    mounted = mount(shown)
    mounted.expect_log("reading roms/psx/A.zip ended in an error")
    archive = mounted.wait_archive(GAME)
    before = archive.stat()
    faults.rot(f"{GAME}/1.bin", BLOCK + 5, once=True)
    # The kernel itself may ask a second time, after its read-ahead.
    assert read(archive) in (None, whole.read(0, whole.size))
    mounted.wait_log("reading roms/psx/A.zip ended in an error")
    poll("the version", lambda: read(archive) == whole.read(0, whole.size))
    assert archive.stat().st_mtime_ns == before.st_mtime_ns
    assert archive.stat().st_ino == before.st_ino


@pytest.mark.parametrize("prove", ["auto", "never"])
def test_other_inodes_after_a_remount(
    faulty: Source, whole: Expected, mount: Mounts, place: Path, prove: str
) -> None:
    """Nothing is hashed again, and every archive is what it was."""
    shown, faults = faulty
    options = ["--index", str(place / "index"), "--prove", prove]
    mounted = mount(shown, *options)
    before = mounted.wait_archive(GAME).stat()
    assert hashed(mounted) == SIZE + 6
    faults.shift(1000)
    archive = mounted.archive(GAME)
    assert archive.read_bytes() == whole.read(0, whole.size)
    assert mounted.unmount() == 0
    faults.shift(2000)
    mounted = mount(shown, *options)
    archive = mounted.wait_archive(GAME)
    assert archive.read_bytes() == whole.read(0, whole.size)
    assert hashed(mounted) == 0
    after = archive.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_never_trusts_the_state(
    library: Path, faulty: Source, whole: Expected, mount: Mounts
) -> None:
    """What --prove never asks for: it is what the manual warns of."""
    shown, faults = faulty
    mounted = mount(shown, "--prove", "never")
    archive = mounted.wait_archive(GAME)
    before = whole.read(0, whole.size)
    faults.freeze(f"{GAME}/1.bin")
    rewrite(library / GAME / "1.bin", b"other bytes", 17)
    assert archive.read_bytes() != before


def test_always_proves_on_a_local_disk(library: Path, whole: Expected, mount: Mounts) -> None:
    mounted = mount(library, "--prove", "always")
    archive = mounted.wait_archive(GAME)
    assert archive.read_bytes() == whole.read(0, whole.size)
    assert status(mounted)["sources"][0]["vouches"] == "content"


def test_trust_mtime_means_size_and_mtime(
    library: Path, whole: Expected, mount: Mounts, place: Path
) -> None:
    """A copy with the same dates is the same library, and is there at once."""
    options = ["--index", str(place / "index")]
    mounted = mount(library, *options)
    before = mounted.wait_archive(GAME).stat()
    assert mounted.unmount() == 0
    for file in (library / GAME).iterdir():
        copy = file.with_name("copy")
        copy.write_bytes(file.read_bytes())
        os.utime(copy, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
        copy.rename(file)
    mounted = mount(library, *options, "--trust", "mtime", "--hash-rate", "0.1")
    archive = mounted.wait_archive(GAME)
    assert archive.stat().st_mtime_ns == before.st_mtime_ns
    assert archive.read_bytes() == whole.read(0, whole.size)
    assert status(mounted)["pending"]["hashed_bytes"] < SIZE
