"""Libraries on file systems that programs show: mounted again, caches dropped, hanging.

Inodes of some of them are numbers of nodes in memory, so they change by themselves; that is no
change of the library (DESIGN.md S1, S3). A source that hangs harms its own readers (R3).
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.test_status import status
from tests.support.libraries import content, expected, make_file, make_game
from tests.support.mounting import Mounted, Mounts
from tests.support.sources import SOURCES, Source, evict, source
from tests.support.users import needs_root
from tests.support.waiting import poll

GAMES = [f"roms/x/Game {number}" for number in range(3)]
SIZE = 300_000
SINGLES = 20
CHANGING = [kind for kind, made_by in SOURCES.items() if not made_by.lasting_inodes]
"""Sources whose inodes change by themselves."""


@pytest.fixture(params=SOURCES)
def share(
    fuse: None, _clean_up: None, place: Path, request: pytest.FixtureRequest
) -> Iterator[Source]:
    """A library of some games on each source. Whoever mounts it asks for this first."""
    with source(request.param, place, place / "share") as made:
        for number, game in enumerate(GAMES):
            files = {name: content(SIZE, f"{number} {name}") for name in ("a", "b")}
            make_game(made.at_server, game, files)
        # As many names as are looked up before, or not, decide on the number of the next.
        for number in range(SINGLES):
            make_file(made.at_server / f"roms/y/{number}.rom", b"rom")
        yield made


def _inodes(library: Path) -> dict[Path, int]:
    return {path: path.stat().st_ino for path in library.rglob("*")}


def _check_inodes(share: Source, before: dict[Path, int]) -> None:
    """Fail if they have not changed where they should: these tests would show nothing."""
    if share.lasting_inodes is not None:
        assert (_inodes(share.library) == before) == share.lasting_inodes


def _archives(mounted: Mounted) -> dict[str, tuple[int, int, int]]:
    """What each archive is known by."""
    states = {game: mounted.archive(game).stat() for game in GAMES}
    return {game: (s.st_ino, s.st_size, s.st_mtime_ns) for game, s in states.items()}


def _hashed(mounted: Mounted) -> int:
    """Bytes that this daemon has hashed."""
    found = status(mounted)["pending"]["hashed_bytes"]
    assert isinstance(found, int)
    return found


def _wait_singles(mounted: Mounted, count: int) -> None:
    """Wait until nothing is left to hash, and this daemon has hashed *count* single files."""
    wanted = {"waiting": 0, "hashed": count}
    poll(f"{count} single files", lambda: status(mounted)["singles"] == wanted)


def _scan(mounted: Mounted) -> None:
    """Have everything looked at again, to the end."""
    before = mounted.log_text().count("everything is sealed")
    mounted.process.send_signal(signal.SIGHUP)
    poll("a scan", lambda: mounted.log_text().count("everything is sealed") > before)


def test_mounted_again(share: Source, mount: Mounts) -> None:
    before = _inodes(share.library)
    mounted = mount(share.library)
    mounted.wait_sealed(len(GAMES))
    _wait_singles(mounted, SINGLES)
    assert _hashed(mounted) == len(GAMES) * 2 * SIZE + SINGLES * len(b"rom")
    archives = _archives(mounted)
    mounted.stop()
    share.remount()
    _check_inodes(share, before)
    mounted = mount(share.library)
    mounted.wait_sealed(len(GAMES))
    _wait_singles(mounted, 0)
    assert _archives(mounted) == archives
    assert _hashed(mounted) == 0


@needs_root
@pytest.mark.parametrize("share", CHANGING, indirect=True)
def test_caches_dropped(share: Source, mount: Mounts) -> None:
    mounted = mount(share.library)
    mounted.wait_sealed(len(GAMES))
    _wait_singles(mounted, SINGLES)
    archives, hashed = _archives(mounted), _hashed(mounted)
    before = _inodes(share.library)
    # Files stay open for a few seconds after they were read, and keep their inodes.
    poll("files to be closed", lambda: not mounted.library_descriptors())
    share.drop_caches()
    _check_inodes(share, before)
    _scan(mounted)
    assert _archives(mounted) == archives
    assert _hashed(mounted) == hashed
    for game in GAMES:
        wanted = expected(share.at_server / game)
        assert mounted.archive(game).read_bytes() == wanted.read(0, wanted.size)


@pytest.fixture
def beside(
    fuse: None, _clean_up: None, place: Path, library: Path, request: pytest.FixtureRequest
) -> Iterator[Source]:
    """A source that is mounted inside a library on the local disk."""
    with source(request.param, place, library / "roms/far") as made:
        yield made


@pytest.mark.parametrize("beside", SOURCES, indirect=True)
def test_hangs_and_is_back(beside: Source, library: Path, mount: Mounts) -> None:
    files = {"a": content(SIZE, 1), "b": content(SIZE, 2)}
    near, far = "roms/near/Game", "roms/far/Game"
    wanted = {
        far: expected(make_game(beside.at_server, "Game", files)),
        near: expected(make_game(library, near, files)),
    }
    bytes_of = {game: archive.read(0, archive.size) for game, archive in wanted.items()}
    mounted = mount(library, "--read-timeout", "1")
    mounted.expect_log(r"reading .* ended in an error|can't (read|look|list)|no answer")
    mounted.wait_sealed(2)

    # What is in the kernel's memory would be read from there.
    for file in (beside.library / "Game").iterdir():
        evict(file)
    beside.hang()
    seen: list[bytes | int | None] = []

    def read() -> None:
        try:
            seen.append(mounted.archive(far).read_bytes())
        except OSError as error:
            seen.append(error.errno)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(3):
            assert mounted.archive(near).read_bytes() == bytes_of[near]
            assert sorted(os.listdir(mounted.path)) == ["roms"]
        make_game(library, "roms/near/Another", files)
        mounted.wait_archive("roms/near/Another")
    finally:
        beside.go_on()
        reader.join()
    assert seen[0] == bytes_of[far] or isinstance(seen[0], int)

    def back() -> bool:
        try:
            return mounted.archive(far).read_bytes() == bytes_of[far]
        except OSError:
            return False

    poll("the source's archive to be back", back)
    mounted.check_runs()
