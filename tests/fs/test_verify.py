"""Rounds of verifying: their order, their memory, and what they say of each file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fs.lab import unprivileged
from tests.support.libraries import content, make_file, make_game
from zipfs.errors import DamageError, IndexFileError, LibraryError
from zipfs.index.index import Index
from zipfs.index.tables import Store
from zipfs.library.filestate import BLOCK
from zipfs.library.view import find_games
from zipfs.ops.verify import rereading, verified, verify
from zipfs.ops.verify.diskfile import SPAN, DiskFile
from zipfs.ops.verify.verified import BadFile, Memory
from zipfs.ops.verify.verify import Verifier
from zipfs.sealing.offline import seal_all
from zipfs.sealing.sealer import Sealer
from zipfs.system.rates import Pace

SIZE = 2 * SPAN + 3 * BLOCK + 5
"""Of the large file; it is read in three goes."""
LARGE = b"roms/b/large"


class Bar:
    def __init__(self) -> None:
        self.size = 0
        self.done = 0

    def total(self, size: int) -> None:
        self.size = size

    def advance(self, size: int) -> None:
        assert size >= 0
        self.done += size


class Clock:
    """A second for each byte that is read, as far as a :class:`Pace` of it is asked."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Lab:
    """A library that is hashed, and runs of verifying it."""

    def __init__(self, library: Path, sealer: Sealer) -> None:
        self.library = library
        self.sealer = sealer
        self.file = sealer.index.file + verified.SUFFIX
        self.told: list[BadFile] = []
        self.bar = Bar()
        self.clock = Clock()
        self.read: list[tuple[bytes, int]] = []
        self.rotten: dict[tuple[bytes, int], int] = {}
        """Bytes that differ, by file and offset: how often they will."""
        self.broken: dict[tuple[bytes, int], int] = {}
        """The same of those that can't be read."""

    def hash(self) -> None:
        seal_all(self.sealer, list(find_games(self.sealer.library, self.sealer.policy)))

    def load(self) -> Memory:
        root = self.sealer.library.root
        return verified.load(self.file, (root, os.stat(root).st_ino))

    def run(self, *, seconds: float | None = None) -> tuple[bool, Verifier]:
        """A run, by the memory that the last one left; a byte takes a second."""
        self.told, self.bar, self.read = [], Bar(), []
        with closing(Store(self.sealer.index.file, reading=True)) as store:
            verifier = Verifier(
                self.sealer,
                store,
                self.load(),
                self.file,
                pace=Pace(1.0, self.clock, self.clock.sleep),
                progress=self.bar,
                report=self.told.append,
                deadline=None if seconds is None else self.clock.now + seconds,
                clock=self.clock,
            )
            return verifier.run(), verifier

    def serve(self, path: bytes, offset: int, data: memoryview) -> memoryview:
        """What the disk gives instead of *data*."""
        name = os.path.relpath(path, self.sealer.library.root)
        self.read.append((name, offset))
        for (other, at), times in list(self.broken.items()):
            if other == name and offset <= at < offset + len(data) and times:
                self.broken[other, at] -= 1
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        for (other, at), times in list(self.rotten.items()):
            if other == name and offset <= at < offset + len(data) and times:
                self.rotten[other, at] -= 1
                changed = bytearray(data)
                changed[at - offset] ^= 4
                data = memoryview(changed)
        return data


@pytest.fixture
def lab(library: Path, sealer: Sealer, monkeypatch: pytest.MonkeyPatch) -> Lab:
    make_game(library, "roms/a", {"1": content(1000, 1), "2": content(BLOCK + 1, 2)})
    make_game(library, "roms/b", {"large": content(SIZE, 3), "small": b"small"})
    make_game(library, "roms/\udcff", {"empty": b"", "\udcfe": b"\xfe"})
    made = Lab(library, sealer)
    made.hash()

    class Disk(DiskFile):
        def __init__(self, path: bytes, *rest: Any) -> None:
            self.path = path
            super().__init__(path, *rest)

        def read(self, offset: int, length: int, *, again: bool = False) -> memoryview:
            return made.serve(self.path, offset, super().read(offset, length, again=again))

    monkeypatch.setattr(rereading, "DiskFile", Disk)
    return made


FILES = [b"roms/a/1", b"roms/a/2", LARGE, b"roms/b/small", b"roms/\xff/empty", b"roms/\xff/\xfe"]
TOTAL = 1000 + BLOCK + 1 + SIZE + 5 + 1
FOREVER = 1 << 30


def test_all_is_well(lab: Lab) -> None:
    before = Path(lab.sealer.index.file).read_bytes()
    ended, verifier = lab.run()
    assert ended
    assert lab.told == []
    assert verifier.memory.bad_files == {}
    last = verifier.memory.last
    assert last
    assert (last.verified, last.size, last.passed) == (6, TOTAL, TOTAL)
    assert (last.changed, last.gone, last.refused, last.unhashed) == (0, 0, 0, 0)
    assert last.ended is not None
    assert (verifier.this_run.verified, verifier.this_run.size) == (6, TOTAL)
    assert (lab.bar.size, lab.bar.done) == (TOTAL, TOTAL)
    assert list(dict.fromkeys(path for path, _ in lab.read)) == [
        path for path in FILES if path != b"roms/\xff/empty"
    ]
    assert Path(lab.sealer.index.file).read_bytes() == before
    assert lab.run()[1].this_run.verified == 6  # the next round


def test_damage_is_named(lab: Lab) -> None:
    lab.rotten = {
        (LARGE, 0): FOREVER,
        (LARGE, SPAN + 3 * BLOCK): FOREVER,
        (LARGE, SIZE - 1): FOREVER,
        (b"roms/a/1", 7): FOREVER,
    }
    ended, verifier = lab.run()
    assert ended
    small, large = lab.told
    assert (small.path, small.kind, small.blocks) == (b"roms/a/1", "damaged", ())
    assert (large.path, large.kind, large.blocks) == (LARGE, "damaged", (0, 7, 11))
    assert large.archives == (b"roms/b.zip",)
    record = lab.sealer.index.files([LARGE])[LARGE]
    assert (large.state, large.crc32, large.digest) == (
        record[0],
        record[1].crc32,
        record[1].digest,
    )
    assert large.found_crc32 not in (None, large.crc32)
    assert large.found_digest not in (None, large.digest)
    assert list(verifier.memory.bad_files.values()) == lab.told
    assert verifier.this_run.verified == 6
    assert lab.load() == verifier.memory
    # It stands, and is found again, until it is right or another file.
    lab.rotten = {(LARGE, 0): FOREVER}
    assert [found.blocks for found in lab.run()[1].memory.bad_files.values()] == [(0,)]
    lab.rotten = {}
    make_file(os.fsencode(lab.library) + b"/" + LARGE, content(SIZE, 3), mtime=1)
    ended, verifier = lab.run()
    assert verifier.memory.bad_files == {}
    assert verifier.memory.last
    assert verifier.memory.last.changed == 1


def test_a_file_that_is_put_back_is_forgotten_at_once(lab: Lab) -> None:
    """Also if the round is past it."""
    lab.rotten = {(b"roms/a/1", 7): FOREVER}
    ended, verifier = lab.run(seconds=SPAN)
    assert not ended
    assert list(verifier.memory.bad_files) == [b"roms/a/1"]
    make_file(lab.library / "roms/a/1", content(1000, 1))
    ended, verifier = lab.run(seconds=10)
    assert not ended
    assert verifier.memory.bad_files == {}


def test_damage_that_is_gone_when_it_is_read_again(lab: Lab) -> None:
    lab.rotten = {(LARGE, SPAN): 1, (b"roms/a/1", 1): 1}
    _, verifier = lab.run()
    small, large = lab.told
    assert (small.kind, small.blocks) == ("unstable", ())
    assert (large.kind, large.blocks) == ("unstable", (4,))
    assert set(verifier.memory.bad_files) == {b"roms/a/1", LARGE}
    assert lab.run()[1].memory.bad_files == {}


def test_what_can_not_be_read_is_named_block_by_block(lab: Lab) -> None:
    lab.broken = {(LARGE, SPAN + 5): FOREVER, (LARGE, SIZE - 1): FOREVER}
    lab.rotten = {(LARGE, 1): FOREVER}
    assert lab.run()[0]
    (found,) = lab.told
    assert (found.kind, found.blocks) == ("unreadable", (0, 4, 11))
    assert found.error == "Input/output error"
    assert (found.found_crc32, found.found_digest) == (None, None)
    assert lab.bar.done == TOTAL


def test_a_few_bad_blocks_are_enough(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rereading, "_MOST_UNREAD", 2)
    lab.broken = {(LARGE, number * BLOCK): FOREVER for number in range(12)}
    lab.run()
    assert len([path for path, _ in lab.read if path == LARGE]) == 3
    assert lab.told[0].blocks == tuple(range(12))


def test_the_disk_that_is_not_there_is_not_a_hundred_bad_files(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "_MOST_IN_A_ROW", 3)
    broken = {(path, 0): FOREVER for path in FILES[1:4]}
    lab.broken = dict(broken)
    with pytest.raises(LibraryError, match=r"3 files in a row can't be read, the last is roms/b/s"):
        lab.run()
    memory = lab.load()
    assert memory.bad_files == {}
    assert memory.round
    assert (memory.round.position, memory.round.verified) == (b"roms/a/1", 1)
    lab.broken = {}
    ended, verifier = lab.run()
    assert ended
    assert verifier.this_run.verified == 5


def test_too_much_damage_to_list(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_MOST_BAD", 1)
    lab.rotten = {(path, 0): FOREVER for path in FILES[:2]}
    with pytest.raises(DamageError, match="more than 1 files"):
        lab.run()


def test_what_is_not_as_it_was_is_not_damaged(lab: Lab) -> None:
    """Changed before, changed while it is read, gone, refused, new: counted, and no more."""
    make_file(lab.library / "roms/a/1", content(1000, 9))
    make_file(lab.library / "roms/b/new", b"new")
    (lab.library / "roms/b/small").unlink()
    make_game(lab.library, "roms/plain", {"alone": b"1"})
    lab.rotten = {(LARGE, 5): FOREVER}
    whole = lab.serve

    def serve(path: bytes, offset: int, data: memoryview) -> memoryview:
        if path.endswith(LARGE) and offset == SPAN:
            os.utime(path)
        return whole(path, offset, data)

    lab.serve = serve  # type: ignore[method-assign]
    ended, verifier = lab.run()
    assert ended
    assert lab.told == []
    last = verifier.memory.last
    assert last
    assert (last.verified, last.changed, last.gone, last.unhashed) == (3, 2, 1, 1)
    assert lab.bar.done == TOTAL


def test_a_file_that_may_not_be_read(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    (lab.library / "roms/a/1").chmod(0)
    lab.hash()
    os.chmod(Path(lab.file).parent, 0o777)  # noqa: S103 - a test's own
    for name in os.listdir(Path(lab.file).parent):
        os.chmod(Path(lab.file).parent / name, 0o666)  # noqa: S103
    # Hashed while we were root.
    path = os.fsencode(lab.library / "roms/a/1")
    from zipfs.index.hash_file import hash_file  # noqa: PLC0415
    from zipfs.library.filestate import FileState  # noqa: PLC0415

    state = FileState.of(os.stat(path))
    lab.sealer.index.put_files({b"roms/a/1": (state, hash_file(path, state))})
    with unprivileged():
        ended, verifier = lab.run()
    assert ended
    assert verifier.memory.last
    assert (verifier.memory.last.verified, verifier.memory.last.refused) == (5, 1)


def test_nothing_to_compare_with(lab: Lab, library: Path) -> None:
    os.rename(library / "roms", library.parent / "away")
    with pytest.raises(LibraryError, match=r"none of the 6 files .* is its disk mounted"):
        lab.run()
    assert lab.load().round is None
    (library / "roms").mkdir()
    for game in ("a", "b"):
        for file in (library.parent / "away" / game).iterdir():
            make_file(library / "roms" / game / file.name, file.read_bytes())
    with pytest.raises(IndexFileError, match=r"none of the 6 files .* as it was hashed"):
        lab.run()


def test_where_nothing_could_be_compared_what_was_found_still_stands(
    lab: Lab, library: Path
) -> None:
    """And how far it was; also if there is another library in its place."""
    lab.rotten = {(b"roms/a/1", 5): FOREVER}
    lab.run()
    lab.run(seconds=2000)
    before = Path(lab.file).read_bytes()
    assert lab.load().bad_files
    assert lab.load().round
    os.rename(library / "roms", library.parent / "away")
    with closing(Store(lab.sealer.index.file, reading=True)) as store:
        verifier = Verifier(
            lab.sealer, store, verified.load(lab.file, (b"/other", 7)), lab.file,
            pace=Pace(0), progress=Bar(), report=lab.told.append,
        )  # fmt: skip
        with pytest.raises(LibraryError, match="is this its index"):
            verifier.run()
    assert Path(lab.file).read_bytes() == before
    os.unlink(lab.file)
    os.rename(library.parent / "away", library / "roms")
    lab.run()
    before = Path(lab.file).read_bytes()
    os.rename(library / "roms", library.parent / "away")
    with pytest.raises(LibraryError, match="is this its index"):
        lab.run()
    assert Path(lab.file).read_bytes() == before


def test_the_memory_of_another_library_gives_way_to_what_was_verified(lab: Lab) -> None:
    verified.save(lab.file, Memory((b"/other", 7)))
    assert lab.load().replaces_another
    lab.run(seconds=10)
    memory = lab.load()
    assert not memory.replaces_another
    assert memory.round
    assert memory.round.position == FILES[0]


def test_the_deadline_comes_before_the_rate(lab: Lab) -> None:
    """A byte takes a second, and the first file has a thousand."""
    assert not lab.run(seconds=10)[0]
    assert lab.clock.now == 10


def test_an_empty_index(sealer: Sealer, library: Path) -> None:
    (library / "roms").mkdir()
    with pytest.raises(IndexFileError, match="knows no file yet"):
        Lab(library, sealer).run()


def test_a_library_that_is_unmounted_meanwhile(lab: Lab, library: Path) -> None:
    whole = lab.serve

    def serve(path: bytes, offset: int, data: memoryview) -> memoryview:
        if path.endswith(b"roms/a/2"):
            os.rename(library, library.parent / "away")
            library.mkdir()
        return whole(path, offset, data)

    lab.serve = serve  # type: ignore[method-assign]
    with pytest.raises(LibraryError, match="another folder than a moment ago"):
        lab.run()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(parts=st.lists(st.integers(1, TOTAL), max_size=8), rotten=st.sets(st.integers(0, SIZE - 1)))
def test_in_however_many_parts(lab: Lab, parts: list[int], rotten: set[int]) -> None:
    """The runs of a round verify each file once, and find what one run would."""
    Path(lab.file).unlink(missing_ok=True)
    lab.rotten = {(LARGE, offset): FOREVER for offset in rotten}
    total = given_up = verified_files = 0
    ended = False
    for seconds in [*parts, None]:
        before = lab.load().round
        started = lab.clock.now
        ended, verifier = lab.run(seconds=seconds)
        total += verifier.this_run.size
        verified_files += verifier.this_run.verified
        assert lab.bar.done <= lab.bar.size == TOTAL
        if ended:
            assert lab.bar.done == TOTAL
            break
        assert seconds is not None
        took = lab.clock.now - started
        if before and before.given_up:  # its file was read to its end
            assert took <= max(seconds, SIZE)
        else:
            assert took <= seconds
        now = verifier.memory.round
        assert now
        assert lab.bar.done == now.passed + (
            verifier.this_run.size - (now.size - (before.size if before else 0))
        )
        assert now.given_up in (b"", LARGE)
        if now.given_up:
            assert not (before and before.given_up), "given up twice"
            given_up += verifier.this_run.size - (now.size - (before.size if before else 0))
        assert lab.load() == verifier.memory
    assert ended
    assert total == TOTAL + given_up
    assert verified_files == 6
    bad = {offset // BLOCK for offset in rotten}
    last = verifier.memory.last
    assert last
    assert (last.verified, last.size, last.passed) == (6, TOTAL, TOTAL)
    found = verifier.memory.bad_files
    assert set(found) == ({LARGE} if bad else set())
    if bad:
        assert set(found[LARGE].blocks) == bad
        assert found[LARGE].archives == (b"roms/b.zip",)


def test_a_file_that_no_deadline_is_long_enough_for(lab: Lab) -> None:
    """It is given up once, and read to its end by the next run, at the same rate."""
    before_it = 1000 + BLOCK + 1
    ended, verifier = lab.run(seconds=before_it + SPAN + 5)
    round_ = verifier.memory.round
    assert not ended
    assert round_
    assert (round_.position, round_.given_up) == (b"roms/a/2", LARGE)
    assert verifier.this_run.size == before_it + 2 * SPAN
    started = lab.clock.now
    lab.rotten = {(LARGE, SIZE - 1): FOREVER}
    ended, verifier = lab.run(seconds=1)
    assert not ended
    assert [(path, offset) for path, offset in lab.read if path == LARGE][:3] == [
        (LARGE, 0), (LARGE, SPAN), (LARGE, 2 * SPAN),
    ]  # fmt: skip
    assert lab.clock.now - started == pytest.approx(SIZE, abs=1)
    assert list(verifier.memory.bad_files) == [LARGE]
    round_ = verifier.memory.round
    assert round_
    assert (round_.position, round_.given_up) == (LARGE, b"")
    assert lab.run()[0]


def test_a_file_that_was_given_up_and_is_gone(lab: Lab) -> None:
    assert not lab.run(seconds=1000 + BLOCK + 1 + SPAN)[0]
    (lab.library / os.fsdecode(LARGE)).unlink()
    ended, verifier = lab.run(seconds=FOREVER)
    assert ended
    assert verifier.memory.last
    assert (verifier.memory.last.verified, verifier.memory.last.gone) == (5, 1)


@pytest.mark.parametrize("interrupted_at", range(8))
def test_killed_at_any_read(lab: Lab, interrupted_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the file in work is read again, and no file is left out."""
    whole = lab.serve
    monkeypatch.setattr(verify, "_SAVE_SECONDS", 0.0)
    monkeypatch.setattr(Verifier, "_save", _save_unless_killed(Verifier._save))

    def serve(path: bytes, offset: int, data: memoryview) -> memoryview:
        if len(lab.read) == interrupted_at:
            raise _Killed
        return whole(path, offset, data)

    lab.serve = serve  # type: ignore[method-assign]
    try:
        lab.run()
    except _Killed:
        pass
    else:
        assert interrupted_at == 7  # all reads that there are
        return
    first = lab.read
    lab.serve = whole  # type: ignore[method-assign]
    ended, verifier = lab.run()
    assert ended
    again = set(first) & set(lab.read)
    assert len(first) + len(lab.read) == 7 + len(again)
    assert len({path for path, _ in again}) <= 1, "more than the file in work"
    assert verifier.memory.last
    assert verifier.memory.last.verified == 6


class _Killed(BaseException):
    pass


def _save_unless_killed(save: Callable[..., None]) -> Callable[..., None]:
    """A process that is killed saves nothing at last."""

    def saving(self: Verifier, *, durably: bool = False) -> None:
        if not durably:
            save(self)

    return saving


def test_where_nothing_can_be_kept(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    os.mkdir(lab.file + ".new")
    ended, _ = lab.run()
    assert ended
    assert caplog.text.count("can't save the position") == 1


def test_a_damaged_row_is_passed_over(lab: Lab) -> None:
    """It is as if it weren't there; its file isn't hashed, then."""
    import sqlite3  # noqa: PLC0415

    with closing(sqlite3.connect(lab.sealer.index.file)) as db:
        db.execute("UPDATE files SET crc32 = crc32 + 1 WHERE path = ?", (b"roms/a/1",))
        db.execute("INSERT INTO files VALUES ('text', 1, 2, 3, 4, 5, x'00', 6)")
        db.commit()
    _, verifier = lab.run()
    assert lab.told == []
    assert verifier.memory.last
    assert (verifier.memory.last.verified, verifier.memory.last.unhashed) == (5, 1)


def test_many_files_in_order(sealer: Sealer, library: Path) -> None:
    """More than one query gives."""
    names = [f"{number:x}" for number in range(1203)]
    make_game(library, "roms/many", {name: name.encode() for name in names})
    lab = Lab(library, sealer)
    lab.hash()
    with closing(Index(sealer.index.file)), closing(Store(sealer.index.file, reading=True)) as st_:
        found: list[bytes] = []
        at: bytes | None = b""
        while at is not None:
            records, at = st_.files_after(at)
            found += [path for path, _ in records]
        assert found == sorted(b"roms/many/" + name.encode() for name in names)
        assert st_.totals() == (1203, sum(map(len, names)))
    ended, verifier = lab.run()
    assert ended
    assert verifier.this_run.verified == 1203
