"""Many heads over one library, with one shared index in a real PostgreSQL (DESIGN K1 to K4)."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.faultfs import Faults
from tests.support.libraries import content, expected, make_file, make_game
from tests.support.mounting import Mounted, Mounts, run_zipfs
from tests.support.postgresql import Server, Shared, database, server
from tests.support.users import needs_root
from tests.support.waiting import poll

Heads = Callable[..., Mounted]


@pytest.fixture
def heads(shared: Shared, mount: Mounts, place: Path, library: Path) -> Heads:
    """Makes heads of the library, each with an index of its own."""
    return heads_of(mount, shared, place, library)


def heads_of(mount: Mounts, shared: Shared, place: Path, library: Path) -> Heads:
    numbers = itertools.count()

    def make(*options: str, mode: str = "sharing", of: Path = library) -> Mounted:
        index = place / f"head-{next(numbers)}"
        index.mkdir()
        made = mount(
            of,
            f"--shared-index={shared.address}",
            "--shared-name=games",
            *options,
            index=index / "index",
        )
        made.expect_log("the shared index .* is away")
        wait_mode(made, mode)
        made.recount_descriptors()
        return made

    return make


def about(head: Mounted) -> dict[str, Any]:
    found: dict[str, Any] = head.status()["shared_index"]
    return found


def is_in_mode(head: Mounted, mode: str) -> bool:
    with contextlib.suppress(AssertionError):  # it may be too busy to answer
        return bool(about(head)["mode"] == mode)
    head.check_runs()
    return False


def two_of(heads: Heads, library: Path) -> list[Mounted]:
    """Two heads that have sealed the twenty games that are made in *library*."""
    games(library, 20)
    two = [heads(), heads()]
    for head in two:
        head.wait_sealed(20)
    return two


def wait_mode(head: Mounted, mode: str) -> None:
    poll(f"the head to be {mode}", lambda: is_in_mode(head, mode))


def wait_in_step(*heads: Mounted) -> None:
    for head in heads:
        poll("the head to be in step", lambda h=head: _is_in_step(h))  # type: ignore[misc]


def _is_in_step(head: Mounted) -> bool:
    return is_in_mode(head, "sharing") and not about(head)["waiting"]


def hashed(*heads: Mounted) -> int:
    """Bytes that were hashed by *heads*."""
    return sum(head.status()["pending"]["hashed_bytes"] for head in heads)


def games(library: Path, count: int, size: int = 1000, first: int = 0) -> int:
    """Make *count* games of two files; returns the bytes of all."""
    total = 0
    for number in range(first, first + count):
        sizes = {"a.bin": size + number, "b.bin": size // 2 + number}
        made = {name: content(length, f"{number}{name}") for name, length in sizes.items()}
        make_game(library, f"roms/psx/Game {number:04}", made)
        total += sum(sizes.values())
    return total


def game(number: int) -> str:
    return f"roms/psx/Game {number:04}"


def check_same(library: Path, number: int, *heads: Mounted) -> None:
    """All *heads* show that game's archive as one and the same."""
    wanted = expected(library / game(number))
    for head in heads:
        path = head.wait_archive(game(number))
        status = path.stat()
        assert (status.st_mtime_ns, status.st_size) == (wanted.mtime_ns, wanted.size)
        assert status.st_ino == wanted.inode(f"{game(number)}.zip")
        assert path.read_bytes() == wanted.read(0, wanted.size)


# ---------------------------------------------------------------- hashed once


def test_each_file_is_opened_once_in_all(
    faulty: tuple[Path, Faults], mount: Mounts, shared: Shared, place: Path, library: Path
) -> None:
    """Counted by the file system that the library is on."""
    seen, faults = faulty
    games(library, 40)
    heads = heads_of(mount, shared, place, seen)
    three = [heads("--prove=never") for _ in range(3)]
    for head in three:
        head.wait_sealed(40)
    for number in range(40):
        for name in ("a.bin", "b.bin"):
            assert faults.count(f"{game(number)}/{name}", "open") == 1
    check_same(library, 7, *three)


@pytest.mark.large
def test_two_thousand_games_on_three_heads(heads: Heads, library: Path) -> None:
    total = games(library, 2000)
    three = [heads() for _ in range(3)]
    for head in three:
        head.wait_sealed(2000)
    assert hashed(*three) == total
    for number in (0, 777, 1999):
        check_same(library, number, *three)
    later = heads()
    later.wait_sealed(2000)
    assert hashed(later) == 0
    check_same(library, 1234, later)


def test_a_change_is_hashed_once_and_seen_by_all(heads: Heads, library: Path) -> None:
    total = games(library, 5)
    three = [heads() for _ in range(3)]
    for head in three:
        head.wait_sealed(5)
    before = {head.path: head.archive(game(3)).stat().st_mtime_ns for head in three}
    make_file(library / game(3) / "b.bin", content(3000, "new"))
    for head in three:
        poll(
            "the new version",
            lambda h=head: (
                h.archive(game(3)).exists()  # type: ignore[misc]
                and h.archive(game(3)).stat().st_mtime_ns != before[h.path]
            ),
        )
    check_same(library, 3, *three)
    assert hashed(*three) == total + 3000


def test_a_large_file_is_proven_on_a_head_that_has_not_hashed_it(
    heads: Heads, library: Path
) -> None:
    """By the checksums of its blocks, which come with it (DESIGN R2)."""
    make_game(library, game(1), {"a.bin": content(3_500_000, 1), "b.bin": b"b"})
    first = heads()
    first.wait_sealed(1)
    second = heads("--prove=always")
    second.wait_sealed(1)
    # Only one MiB is read: its own checksum has to be known.
    with second.archive(game(1)).open("rb") as file:
        file.seek(2 << 20)
        data = file.read(4096)
    wanted = expected(library / game(1))
    assert data == wanted.read(2 << 20, 4096)
    assert hashed(second) == 0


def test_what_somebody_asks_for_comes_first_whichever_head_hashes_it(
    heads: Heads, library: Path, shared: Shared
) -> None:
    games(library, 60, 500_000)
    make_game(library, game(99), {"a.bin": content(2_000_000, 1), "b.bin": content(10, 2)})
    slow, other = heads("--hash-rate=1"), heads("--hash-rate=0.001")  # which hashes nothing
    poll("it to be found", lambda: slow.status()["pending"]["games"] == 61)
    busy = (
        "SELECT 1 FROM zipfs.queue WHERE size > 99999 AND head = (SELECT max(id) FROM zipfs.heads)"
    )
    poll("the other to be busy for minutes", lambda: shared.ask(busy))
    wanted = other.archive(game(99))
    poll("the archive", wanted.exists)
    assert other.status()["pending"]["games"] > 10  # all but this one are smaller
    slow.kill()
    other.kill()


def test_a_head_that_dies_gives_back_its_files(heads: Heads, library: Path, shared: Shared) -> None:
    games(library, 30, 200_000)
    first = heads("--hash-rate=0.001")
    poll("it to have claimed some", lambda: shared.ask("SELECT 1 FROM zipfs.queue WHERE head > 0"))
    second = heads()
    first.kill()
    second.wait_sealed(30)
    check_same(library, 3, second)


def test_a_head_that_ends_gives_back_its_files_at_once(
    heads: Heads, library: Path, shared: Shared
) -> None:
    games(library, 30, 200_000)
    first = heads("--hash-rate=0.001")
    poll("it to have claimed some", lambda: shared.ask("SELECT 1 FROM zipfs.queue WHERE head > 0"))
    # It ends in the middle of a file, whose folder is open for as long.
    first.process.send_signal(signal.SIGTERM)
    assert first.see_end() == 0
    assert shared.count("heads") == 0
    heads().wait_sealed(30)


def test_a_file_that_one_head_can_not_read_is_left_to_others(
    faulty: tuple[Path, Faults], mount: Mounts, shared: Shared, place: Path, library: Path
) -> None:
    seen, faults = faulty
    games(library, 6)
    faults.fail(f"{game(2)}/a.bin", "open", 5)
    heads = heads_of(mount, shared, place, library)
    first = heads("--prove=never", of=seen)
    first.expect_log("can't read")
    poll("it to have failed", lambda: "can't read" in first.log_text())
    faults.clear()
    second = heads("--prove=never", of=seen)
    second.wait_sealed(6)
    poll("the first to have it, too", lambda: first.status()["archives"]["sealed"] == 6)


# ---------------------------------------------------------------- the database is away


class Readers:
    """Read archives of heads all the time; nothing may fail, or be wrong."""

    def __init__(self, library: Path, heads: list[Mounted], numbers: range) -> None:
        self._wanted = {number: expected(library / game(number)).sha256() for number in numbers}
        self._bytes = {
            number: expected(library / game(number)).read(0, 1 << 20) for number in numbers
        }
        self._heads = heads
        self._over = threading.Event()
        self.failed: list[str] = []
        self.count = 0
        self._threads = [threading.Thread(target=self._read, args=[h]) for h in heads]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _read(self, head: Mounted) -> None:
        while not self._over.is_set():
            for number, wanted in self._bytes.items():
                try:
                    if head.archive(game(number)).read_bytes() != wanted:
                        self.failed.append(f"{number}: other bytes")
                except OSError as error:
                    self.failed.append(f"{number}: {error}")
                self.count += 1

    def wait(self, more: int = 100) -> None:
        """Until so many more were read."""
        until = self.count + more
        poll("archives to be read", lambda: self.count >= until)


def stop(server: Server) -> None:
    server.stop()


def crash(server: Server) -> None:
    server.kill()


@pytest.mark.parametrize("end", [stop, crash])
def test_postgresql_stops_under_load(
    heads: Heads, library: Path, shared: Shared, end: Callable[[Server], None]
) -> None:
    """No request fails; what is hashed meanwhile is told afterwards, and not hashed again."""
    two = two_of(heads, library)
    with Readers(library, two, range(20)) as readers:
        readers.wait()
        games(library, 300, 100_000, first=100)  # so that it ends amid commits
        poll("some to be hashed", lambda: shared.count("files") > 60)
        end(shared.server)
        try:
            for head in two:
                wait_mode(head, "away")
            games(library, 10, first=20)
            for head in two:
                head.wait_archive(game(25))
                head.wait_sealed(330)
            readers.wait()
        finally:
            shared.server.start()
        wait_in_step(*two)
        readers.wait()
    assert not readers.failed
    before = hashed(*two)
    third = heads()
    third.wait_sealed(330)
    assert hashed(third) == 0
    assert hashed(*two) == before
    check_same(library, 25, *two, third)
    check_same(library, 250, *two, third)


def test_postgresql_answers_nothing_under_load(heads: Heads, library: Path, shared: Shared) -> None:
    two = two_of(heads, library)
    with Readers(library, two, range(20)) as readers:
        with shared.server.frozen():
            readers.wait()
            games(library, 10, first=20)
            for head in two:
                head.wait_archive(game(25))
                wait_mode(head, "away")
            readers.wait()
        wait_in_step(*two)
    assert not readers.failed
    check_same(library, 25, *two)


def test_a_start_without_postgresql(heads: Heads, library: Path, shared: Shared) -> None:
    games(library, 5)
    shared.server.stop()
    try:
        first = heads(mode="away")
        first.wait_sealed(5)
        first.wait_log("is away: .*hashing here until it is back")
    finally:
        shared.server.start()
    wait_in_step(first)
    first.recount_descriptors()
    second = heads()
    second.wait_sealed(5)
    assert hashed(second) == 0
    check_same(library, 3, first, second)


def test_a_database_that_begins_anew_is_filled(heads: Heads, library: Path, shared: Shared) -> None:
    two = two_of(heads, library)
    before = hashed(*two)
    with Readers(library, two, range(20)) as readers:
        shared.begin_anew()
        poll("all to be there again", lambda: shared.count("files") == 40)
        readers.wait()
    assert not readers.failed
    wait_in_step(*two)
    third = heads()
    third.wait_sealed(20)
    assert hashed(third) == 0
    assert hashed(*two) == before
    check_same(library, 3, *two, third)


@pytest.fixture
def small(postgresql: Server, place: Path) -> Iterator[Shared]:
    """A shared index on a disk of 100 MB."""
    folder = place / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", folder], check=True)
    try:
        server = Server(folder / "postgresql")
        server.initialise()
        server.start()
        try:
            with database(server) as found:
                yield found
        finally:
            server.stop(signal.SIGQUIT)
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(file: Path) -> None:
    """Write into *file* until the disk is full."""
    with file.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        while out.write(bytes(1 << 12)):
            pass


@needs_root
def test_a_full_disk_below_postgresql(
    small: Shared, mount: Mounts, place: Path, library: Path
) -> None:
    heads = heads_of(mount, small, place, library)
    two = two_of(heads, library)
    filler = place / "small/filler"
    fill(filler)
    with Readers(library, two, range(20)) as readers:
        games(library, 500, first=20)
        for head in two:
            head.wait_sealed(520)
        readers.wait()
        filler.unlink()
        wait_in_step(*two)
    assert not readers.failed
    third = heads()
    third.wait_sealed(520)
    assert hashed(third) == 0
    check_same(library, 300, *two, third)


@pytest.fixture
def pair(postgresql: Server, place: Path) -> Iterator[Shared]:
    """A shared index on a server that has a standby."""
    standby = Server(place / "standby")
    with server(place / "primary") as primary, database(primary) as found:
        standby.follow(primary)
        standby.start()
        try:
            yield found._replace(standby=standby)
        finally:
            standby.stop(signal.SIGQUIT)
            if not primary.runs:
                primary.start()


def test_a_standby_takes_over(pair: Shared, mount: Mounts, place: Path, library: Path) -> None:
    """It hasn't got what came last. The heads tell it, and hash nothing again."""
    heads = heads_of(mount, pair, place, library)
    two = two_of(heads, library)
    assert pair.standby
    after = Shared(pair.standby, pair.name)
    poll("the standby to have it", lambda: after.count("files") == 40)
    pair.standby.unfollow()
    make_file(library / game(3) / "b.bin", content(3000, "new"))
    games(library, 10, first=20)
    for head in two:
        head.wait_sealed(30)
    check_same(library, 3, *two)
    wait_in_step(*two)
    before = hashed(*two)
    with Readers(library, two, range(20)) as readers:
        readers.wait()
        pair.server.kill()
        for head in two:
            wait_mode(head, "away")
        readers.wait()
        pair.standby.promote()
        wait_in_step(*two)
        readers.wait()
    assert not readers.failed
    assert after.count("files") == 60
    third = heads()
    third.wait_sealed(30)
    assert hashed(third) == 0
    assert hashed(*two) == before
    for number in (3, 7, 25):
        check_same(library, number, *two, third)


def test_a_standby_takes_over_under_load(
    pair: Shared, mount: Mounts, place: Path, library: Path
) -> None:
    heads = heads_of(mount, pair, place, library)
    two = two_of(heads, library)
    assert pair.standby
    after = Shared(pair.standby, pair.name)
    with Readers(library, two, range(20)) as readers:
        games(library, 300, 100_000, first=100)  # so that it ends amid commits
        poll("some to be hashed", lambda: pair.count("files") > 60)
        pair.server.kill()
        pair.standby.promote()
        for head in two:
            head.wait_sealed(320)
        wait_in_step(*two)
        readers.wait()
    assert not readers.failed
    poll("all to be there", lambda: after.count("files") == 640)
    third = heads()
    third.wait_sealed(320)
    assert hashed(third) == 0
    check_same(library, 250, *two, third)


def test_who_reads_a_standby_shares_once_it_is_promoted(
    pair: Shared, mount: Mounts, place: Path, library: Path
) -> None:
    games(library, 5)
    first = heads_of(mount, pair, place, library)()
    first.wait_sealed(5)
    assert pair.standby
    after = Shared(pair.standby, pair.name)
    poll("the standby to have it", lambda: after.count("files") == 10)
    (place / "other").mkdir()
    second = heads_of(mount, after, place / "other", library)(mode="reading")
    second.wait_sealed(5)
    assert hashed(second) == 0
    pair.server.kill()
    pair.standby.promote()
    wait_in_step(first, second)
    games(library, 2, first=5)
    for head in (first, second):
        head.wait_sealed(7)
    poll("all to be there", lambda: after.count("files") == 14)


# ---------------------------------------------------------------- what is told


def test_a_head_with_other_inodes_keeps_to_itself(
    faulty: tuple[Path, Faults], mount: Mounts, shared: Shared, place: Path, library: Path
) -> None:
    seen, faults = faulty
    total = games(library, 10)
    heads = heads_of(mount, shared, place, library)
    first = heads("--prove=never")
    first.wait_sealed(10)
    faults.shift(1000)
    second = heads("--prove=never", of=seen, mode="alone")
    second.expect_log("hashing alone")
    second.wait_sealed(10)
    second.wait_log("20 of 20 files have other inodes or times")
    assert hashed(second) == total
    check_same(library, 3, first, second)  # V2: the contents are the same
    assert shared.count("files") == 20


def test_status_metrics_and_doctor_tell(
    heads: Heads, library: Path, shared: Shared, place: Path
) -> None:
    games(library, 3)
    head = heads()
    head.wait_sealed(3)
    env = {"RUNTIME_DIRECTORY": str(head.runtime)}
    told = " ".join(run_zipfs("status", head.path, env=env).stdout.split())
    assert "games at " in told
    assert "in step" in told
    metrics = run_zipfs("status", "--prometheus", head.path, env=env).stdout
    assert 'mode="sharing",mountpoint=' in metrics
    assert "zipfs_shared_index_rows_shared_total" in metrics
    arguments = ["--shared-index", shared.address, "--shared-name", "games"]
    told = run_zipfs("doctor", library, *arguments).stdout
    assert "ok      shared index:" in told
    assert "1 other head" in told
    shared.ask("UPDATE zipfs.about SET version = 99")
    told = run_zipfs("doctor", library, *arguments).stdout
    assert "problem shared index:" in told
    assert "upgrade zipfs" in told
    shared.ask("UPDATE zipfs.about SET version = 1")


def test_the_command_index_shares(heads: Heads, library: Path, shared: Shared, place: Path) -> None:
    games(library, 5)
    arguments = ["--shared-index", shared.address, "--shared-name", "games"]
    time.sleep(2.1)  # so that they have settled
    done = run_zipfs("index", library, "--index", place / "own", *arguments)
    assert done.returncode == 0, done.stderr
    assert "5 archives sealed" in done.stdout
    head = heads()
    head.wait_sealed(5)
    assert hashed(head) == 0
    other = run_zipfs("index", library, "--index", place / "other", *arguments)
    assert "(0 bytes hashed now)" in other.stdout
    check_same(library, 3, head)


def test_the_command_index_says_that_nothing_was_shared(library: Path, place: Path) -> None:
    games(library, 2)
    time.sleep(2.1)  # so that they have settled
    arguments = ["--shared-index", "postgresql://127.0.0.1:1/none", "--shared-name", "games"]
    done = run_zipfs("index", library, "--index", place / "own", *arguments)
    assert done.returncode == 0, done.stderr
    assert "2 archives sealed" in done.stdout
    last = done.stderr.splitlines()[-1]
    assert last.startswith("zipfs: the shared index 127.0.0.1:1/none is away: ")
    modes = {path.name: path.stat().st_mode & 0o777 for path in place.glob("own*")}
    assert modes
    assert set(modes.values()) == {0o600}, modes


def test_no_password_is_shown(library: Path, place: Path) -> None:
    done = run_zipfs(
        "mount", library, place, "--shared-index", "postgresql://zipfs:hunter2@db/games"
    )
    assert done.returncode == 2
    assert "PGPASSFILE" in done.stderr
    assert "hunter2" not in done.stderr
    assert os.listdir(place) == ["library"]
