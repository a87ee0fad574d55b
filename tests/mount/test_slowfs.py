"""bench/peers/slowfs.c: what it passes through is the source, it waits as told, and it counts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from bench.peers.fusefs import read_ahead
from bench.peers.slowfs import Calls, Slow, build, slowfs
from bench.session import Stop
from tests.support.libraries import make_game
from tests.support.mounting import Mounts, run_zipfs

Start = Callable[..., AbstractContextManager[Slow]]


@pytest.fixture
def shown(place: Path) -> Path:
    folder = place / "shown"
    folder.mkdir()
    return folder


@pytest.fixture
def start(fuse: None, stop: Stop, library: Path, place: Path, shown: Path) -> Start:
    """Shows the library at *shown*."""
    program, _ = build(place, stop)
    return partial(slowfs, program, library, shown, place / "control")


def make_files(folder: Path, count: int = 8) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number}.bin").write_bytes(os.urandom(100_000 + number))


def test_everything_is_passed_through(start: Start, library: Path, shown: Path) -> None:
    make_files(library / "a/b", 300)
    (library / "link").symlink_to("a/b/0.bin")
    (library / "a/empty").mkdir()
    with start():
        for name, folders, files in os.walk(library):
            folder = Path(name)
            seen = shown / folder.relative_to(library)
            assert sorted(os.listdir(seen)) == sorted([*folders, *files])
            for each in [*folders, *files]:
                mine, its = (folder / each).lstat(), (seen / each).lstat()
                fields = ("st_ino", "st_mode", "st_size", "st_mtime_ns", "st_ctime_ns", "st_uid")
                assert [getattr(mine, f) for f in fields] == [getattr(its, f) for f in fields]
            for each in files:
                assert (seen / each).read_bytes() == (folder / each).read_bytes()
        assert os.readlink(shown / "link") == "a/b/0.bin"
        with pytest.raises(OSError, match="Read-only"):
            (shown / "new").write_text("x")
        with pytest.raises(FileNotFoundError):
            (shown / "none").stat()


def test_what_is_kept_is_not_asked_for_again(start: Start, library: Path, shown: Path) -> None:
    make_files(library / "a")
    with start(name_seconds=60) as slow:
        first = all_calls(slow, shown / "a")
        assert (first.open, first.opendir) == (8, 1)
        assert first.read >= 8
        # The listing has brought the attributes along.
        assert first.stat <= 2
        again = all_calls(slow, shown / "a")
        assert (again.stat, again.open, again.read) == (0, 8, 0)


def test_names_that_are_not_kept_are_asked_for_each_time(
    start: Start, library: Path, shown: Path
) -> None:
    make_files(library / "a")
    with start(name_seconds=0, data="direct") as slow:
        for _ in range(2):
            calls = all_calls(slow, shown / "a")
            assert calls.stat >= 2 * 8
            assert calls.read >= 8


def all_calls(slow: Slow, folder: Path) -> Calls:
    """Those for listing *folder*, looking at each file and reading it."""
    before = slow.calls()
    for path in folder.iterdir():
        path.stat()
        path.read_bytes()
    return slow.calls() - before


def test_a_change_is_seen_when_names_are_asked_for(
    start: Start, library: Path, shown: Path
) -> None:
    make_files(library / "a")
    with start(name_seconds=0):
        assert (shown / "a/0.bin").read_bytes() == (library / "a/0.bin").read_bytes()
        (library / "a/0.bin").write_bytes(b"other")
        assert (shown / "a/0.bin").read_bytes() == b"other"


def test_each_kind_waits_as_told(start: Start, library: Path, shown: Path) -> None:
    make_files(library / "a")
    wait = 0.2
    with start(name_seconds=60) as slow:
        list((shown / "a").iterdir())
        # Bounds from below: what else the machine does can't break them.
        slow.wait(Calls(open=round(wait * 1e6)))
        assert timed(lambda: (shown / "a/0.bin").open("rb").close()) >= wait
        slow.wait(Calls(read=round(wait * 1e6)))
        assert timed((shown / "a/1.bin").read_bytes) >= wait
        slow.wait(Calls(opendir=round(wait * 1e6), readdir=round(wait * 1e6)))
        assert timed(lambda: os.listdir(shown / "a")) >= 2 * wait
        slow.wait(Calls(stat=round(wait * 1e6)))
        assert timed((shown / "none").exists) >= wait


@pytest.mark.parametrize("at_once", [1, 8])
def test_no_more_than_so_many_at_once(
    start: Start, library: Path, shown: Path, at_once: int
) -> None:
    make_files(library / "a")
    wait = 0.2
    with start(name_seconds=0, calls_at_once=at_once, data="direct") as slow:
        list((shown / "a").iterdir())
        files = [path.open("rb", buffering=0) for path in (shown / "a").iterdir()]
        slow.wait(Calls(read=round(wait * 1e6)))

        with ThreadPoolExecutor(8) as threads:
            took = timed(lambda: list(threads.map(lambda file: file.read(10), files)))
        for file in files:
            file.close()
        assert took >= wait * 8 / at_once
        assert len(os.listdir(f"/proc/{slow.process.pid}/task")) <= at_once + 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set it")
def test_the_kernel_reads_ahead_of_a_mount_as_far_as_its_source_needs(
    start: Start, library: Path, shown: Path, mount: Mounts
) -> None:
    make_game(library, "roms/psx/Game", {"a.bin": b"a", "b.bin": b"b"})
    with start() as slow:
        slow.wait(Calls(statfs=2000))
        mounted = mount(shown)
        mounted.wait_sealed(1)
        try:
            assert read_ahead(mounted.path) == 4096
            # As for a daemon that may not: here the library isn't known, or is said.
            assert run_zipfs("tune", mounted.path).returncode == 0
            assert read_ahead(mounted.path) == 1024
            given = ("--read-ahead", "512", "--library", shown)
            assert run_zipfs("tune", mounted.path, *given).returncode == 0
            assert read_ahead(mounted.path) == 2048
        finally:
            mounted.unmount()


def timed(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started
