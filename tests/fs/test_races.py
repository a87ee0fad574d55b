"""A folder becomes a link between the look and the open (DESIGN H2): nothing outside is read."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.fs.lab import open_below
from tests.support.libraries import make_file
from tests.support.swapping import OPEN, SECRET, follow_links, make_library, swapping
from zipfs.errors import ChangedError
from zipfs.index.hash_file import hash_file
from zipfs.library.files import open_file, read_source
from zipfs.library.filestate import FileState
from zipfs.library.library import Library
from zipfs.library.proven import ProvenBlocks
from zipfs.library.rules.general import Selection
from zipfs.library.scan import Entry, LeftOut, SourceFile
from zipfs.system import syscalls
from zipfs.system.events.inotify import Inotify

ALL: Final = Selection((b"*/*",))
SECONDS: Final = 1.0
PATIENCE: Final = 200.0
"""For how much longer, if nothing was seen at all."""


@pytest.fixture(params=["openat2", "step by step"])
def _ways_to_open(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "step by step":
        monkeypatch.setattr(syscalls, "openat2", None)


def read(library: Library, source: SourceFile) -> bytes:
    """All of a file, as a reader of the mount gets it."""
    descriptor = open_file(library.absolute, source)
    with open(descriptor, "rb"):
        data = bytearray(source.state.size)
        nothing = ProvenBlocks(lambda _: None)
        read_source(lambda: descriptor, source, None, nothing, 0, memoryview(data))
        return bytes(data)


def by_scan(library: Library) -> list[bytes]:
    scan = library.scan(b"roms/psx/Game", ALL)
    return [read(library, file) for file in scan.files]


def by_lookup(library: Library) -> list[bytes]:
    found = library.entry(b"roms/psx/single")
    if not isinstance(found, Entry):
        return []
    return [read(library, SourceFile(b"x", found.source, FileState.of(found.status)))]


def by_hashing(library: Library) -> list[bytes]:
    """What the checksums say of the content."""
    found = []
    for file in library.scan(b"roms/psx/Game", ALL).files:
        checksums = hash_file(library.absolute(file.source), file.state)
        found.append(checksums.digest)
    return found


def digest_of(data: bytes, place: Path) -> bytes:
    (place / "x").write_bytes(data)
    path = place / "x"
    return hash_file(bytes(path), FileState.of(path.stat())).digest


WAYS: Final[dict[str, Callable[[Library], list[bytes]]]] = {
    "scanned": by_scan,
    "looked up": by_lookup,
    "hashed": by_hashing,
}


def gather(
    library: Library, way: Callable[[Library], list[bytes]], wanted: bytes | None = None
) -> set[bytes]:
    """What comes out within some time, or until *wanted* does."""
    seen: set[bytes] = set()
    start = time.monotonic()
    while (lasted := time.monotonic() - start) < SECONDS + PATIENCE:
        if wanted in seen or (wanted is None and seen and lasted > SECONDS):
            break
        try:
            seen.update(way(library))
        except (ChangedError, OSError):
            continue
    return seen


@pytest.mark.usefixtures("_ways_to_open")
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_nothing_outside_comes_in(
    way: Callable[[Library], list[bytes]], library: Path, place: Path
) -> None:
    one, two = make_library(library, place / "outside")
    wanted = digest_of(OPEN, place) if way is by_hashing else OPEN
    with swapping(one, two):
        seen = gather(Library(str(library)), way)
    assert seen == {wanted}  # at times it is there
    assert open_below(place) == []


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_otherwise_it_would(
    way: Callable[[Library], list[bytes]],
    library: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The race is there: with paths that are followed, the secret does come out."""
    one, two = make_library(library, place / "outside")
    wanted = digest_of(SECRET, place) if way is by_hashing else SECRET
    follow_links(monkeypatch.setattr)
    with swapping(one, two):
        seen = gather(Library(str(library)), way, wanted)
    assert wanted in seen


def test_a_link_to_a_folder_that_becomes_another(library: Path, place: Path) -> None:
    """What a link inside leads to is resolved, and opened without links from then on."""
    one, two = make_library(library, place / "outside")
    (library / "link").symlink_to("roms/psx/single")

    def follow(library: Library) -> list[bytes]:
        found = library.entry_at(b"link", b"link")
        if not isinstance(found, Entry):
            return []
        return [read(library, SourceFile(b"x", found.source, FileState.of(found.status)))]

    with swapping(one, two):
        seen = gather(Library(str(library)), follow)
    assert seen == {OPEN}


def test_no_folder_outside_is_watched(library: Path, place: Path) -> None:
    one, two = make_library(library, place / "outside")
    for number in range(20):
        (place / f"outside/only {number}").mkdir()
    told: set[bytes] = set()
    with swapping(one, two):
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            inotify = Inotify(bytes(library))
            try:
                inotify._folders[0] = b""
                told.update(inotify._added(b"roms/psx"))
            finally:
                inotify.close()
    assert b"roms/psx/single" in told
    assert not [path for path in told if b"only" in path]


def test_a_folder_with_a_link_to_what_becomes_one(
    library: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way to a link's target is asked for its permissions; a link there is no error."""
    one, two = make_library(library, place / "outside")
    (library / "here").mkdir()
    (library / "here/link").symlink_to("../roms/psx/single")
    make_file(library / "here/file", b"x")
    found = Library(str(library))
    judge = found._judge

    def swapped(path: bytes, entry: Entry) -> Entry | LeftOut:
        if entry.source.startswith(b"roms") and not one.is_symlink():
            one.rename(place / "aside")
            two.rename(one)
        return judge(path, entry)

    monkeypatch.setattr(found, "_judge", swapped)
    assert [name for name, _ in found.folder(b"here")] == [b"file"]
    assert one.is_symlink()
    one.unlink()
    two.symlink_to(place / "outside")
    (place / "aside").rename(one)
    assert found.entry_at(b"link", b"roms/psx/single") is None
    assert one.is_symlink()


def test_a_library_that_is_mounted_again(library: Path, place: Path) -> None:
    """No folder is held open, neither to unmount a disk nor to find it again."""
    make_library(library, place / "outside")
    found = Library(str(library))
    library.rename(place / "taken away")
    assert found.entry(b"roms/psx/single") is None
    library.mkdir()
    (place / "taken away/roms").rename(library / "roms")
    assert len(by_scan(found)) == 2


def test_a_library_that_is_a_link_by_now(library: Path, place: Path) -> None:
    """The folder counts that it was at the start: a link in its place leads to nothing."""
    make_library(library, place / "outside")
    found = Library(str(library))
    library.rename(place / "moved")
    library.symlink_to(place / "moved")
    assert found.entry(b"roms/psx/single") is None
    with pytest.raises(NotADirectoryError):
        found.folder(b"")
    assert len(by_scan(Library(str(library)))) == 2  # until zipfs is started again
