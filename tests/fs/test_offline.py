"""``zipfs index`` and ``inspect`` without their command lines: sealing here and now (S3)."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.fs.conftest import SETTLE
from tests.fs.lab import FakeTime, Progress
from tests.support.libraries import content, expected, make_file, make_game
from zipfs.index.hash_file import hash_file
from zipfs.index.index import Index
from zipfs.library.view import find_games
from zipfs.sealing import offline
from zipfs.sealing.offline import FoundGame, Summary, seal_all, seal_one
from zipfs.sealing.outcomes import Plain, Sealed, Unhashed
from zipfs.sealing.sealer import Sealer


def games(sealer: Sealer) -> list[FoundGame]:
    return list(find_games(sealer.library, sealer.policy))


def test_all_games_are_sealed(library: Path, sealer: Sealer) -> None:
    wanted = []
    for number in range(5):
        game = make_game(library, f"roms/{number}", {"1": content(number * 9999), "2": b"2"})
        wanted.append(expected(game))
    make_game(library, "roms/plain", {"1": b"1"})
    bar = Progress()
    summary = seal_all(sealer, games(sealer), bar)
    size = sum(number * 9999 + 1 for number in range(5))
    assert summary == Summary(
        archives=5, members=10, size=sum(archive.size for archive in wanted), hashed=size
    )
    assert (bar.size, bar.done) == (size, size)
    again = seal_all(sealer, games(sealer))
    assert (again.archives, again.hashed) == (5, 0)


def test_one_game(library: Path, sealer: Sealer) -> None:
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    make_game(library, "roms/plain", {"1": b"1"})
    found, plain = games(sealer)
    examination, version = seal_one(sealer, found)
    assert isinstance(examination.outcome, Sealed)
    assert version
    assert version.sealed.content == expected(game).content_id
    examination, version = seal_one(sealer, plain)
    assert (examination.outcome, version) == (Plain(os.stat(".")), None)


def test_an_interrupted_run_is_carried_on(
    library: Path, sealer: Sealer, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_game(library, "roms/game", {"small": b"1", "medium": b"22", "large": b"333"})

    def interrupted(path: bytes, *rest: object, **others: object) -> object:
        if path.endswith(b"/large"):
            raise KeyboardInterrupt
        return hash_file(path, *rest, **others)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(offline, "hash_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            seal_all(sealer, games(sealer))
    names = [b"roms/game/" + name for name in (b"small", b"medium", b"large")]
    assert set(index.files(names)) == set(names[:2])
    assert seal_all(sealer, games(sealer)).hashed == 3


def test_it_waits_for_what_has_to_settle(library: Path, sealer: Sealer, clock: FakeTime) -> None:
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    clock.ahead_ns = -(10**15)
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.ahead += seconds

    summary = seal_all(sealer, games(sealer), sleep=sleep)
    assert summary.archives == 1
    assert 0 < sum(slept) <= 2 * SETTLE


def test_a_game_that_never_holds_still(
    library: Path, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    make_game(library, "roms/still", {"1": b"11", "2": b"22"})

    def changing(path: bytes, *rest: object, **others: object) -> object:
        if path.endswith(b"game/1"):
            make_file(game / "1", os.urandom(1), mtime=int.from_bytes(os.urandom(3)))
        return hash_file(path, *rest, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(offline, "hash_file", changing)
    summary = seal_all(sealer, games(sealer))
    assert summary.changing == [b"roms/game"]
    assert summary.archives == 1
    assert summary.problems == []


def refused() -> OSError:
    return PermissionError(errno.EACCES, "Permission denied")


def broken() -> OSError:
    return OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("error", [refused, broken])
def test_problems_are_told_once(
    error: Callable[[], OSError],
    library: Path,
    sealer: Sealer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_game(library, "roms/game", {"1": b"1", "2": b"2", "bad": b"3"})

    def bad(path: bytes, *rest: object, **others: object) -> object:
        if path.endswith(b"/bad"):
            raise error()
        return hash_file(path, *rest, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(offline, "hash_file", bad)
    summary = seal_all(sealer, games(sealer))
    assert len(summary.problems) == 1
    assert "roms/game/bad" in summary.problems[0]
    if error is refused:  # the rest is an archive
        assert (summary.archives, summary.members, summary.changing) == (1, 2, [])
    else:
        assert (summary.archives, summary.changing) == (0, [b"roms/game"])
        examination, version = seal_one(sealer, games(sealer)[0])
        assert isinstance(examination.outcome, Unhashed)
        assert version is None


def test_what_was_hashed_in_one_place_counts_in_another(library: Path, sealer: Sealer) -> None:
    """A second process at the same index: the mount, after ``zipfs index``."""
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    with closing(Index(sealer.index.file)) as other:
        hashing = Sealer(sealer.library, other, globs=(b"roms/*",), settle=SETTLE)
        assert seal_all(hashing, games(hashing)).hashed == 2
    assert seal_all(sealer, games(sealer)).hashed == 0


def test_files_that_are_gone_are_forgotten(
    library: Path, sealer: Sealer, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = content(3 << 20)
    make_game(library, "roms/a", {"1": large, "2": b"2"})
    make_game(library, "roms/b", {"1": b"other", "2": large})
    make_game(library, "roms/c", {"1": content(2 << 20), "2": b"2"})
    seal_all(sealer, games(sealer))
    names = [b"roms/%s/%s" % (game, file) for game in (b"a", b"b", b"c") for file in (b"1", b"2")]
    digests = {path: record[1].digest for path, record in index.files(names).items()}
    assert offline.prune(sealer) == 0
    for game in "ac":
        shutil.rmtree(library / f"roms/{game}")
    look = sealer.library.entry

    def failing(source: bytes, *rest: frozenset[bytes]) -> object:
        if source == b"roms/c/2":
            raise OSError(errno.EIO, "x")
        return look(source, *rest)

    monkeypatch.setattr(sealer.library, "entry", failing)
    assert offline.prune(sealer) == 3
    assert set(index.files(names)) == {b"roms/b/1", b"roms/b/2", b"roms/c/2"}
    assert index.blocks(digests[b"roms/a/1"])  # of roms/b/2 as well
    assert index.blocks(digests[b"roms/c/1"]) is None


def test_an_empty_library_forgets_nothing(library: Path, sealer: Sealer, index: Index) -> None:
    """Its disk may not be mounted (DESIGN H6)."""
    make_game(library, "roms/a", {"1": b"1", "2": b"2"})
    seal_all(sealer, games(sealer))
    shutil.rmtree(library / "roms")
    assert offline.prune(sealer) == 0
    assert index.has_files()
