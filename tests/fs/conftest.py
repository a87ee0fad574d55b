"""A library with a sealer over it, in a time that the test can move."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.fs.inthread import ThreadChild
from tests.fs.lab import FakeTime, in_memory
from zipfs.index import hash_client
from zipfs.index.hash_file import hash_file
from zipfs.index.index import Index
from zipfs.library.library import Library
from zipfs.sealing import sealer as sealing
from zipfs.sealing.outcomes import Examination, Unhashed, Version
from zipfs.sealing.sealer import Sealer

SETTLE = 2.0


@pytest.fixture(autouse=True)
def _hash_in_thread() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:  # not a test's own, which is to end first
        patch.setattr(hash_client, "start", ThreadChild)
        yield


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """The time by which games settle; an hour ahead, so that all have."""
    clock = FakeTime()
    clock.ahead_ns = 3600 * 10**9
    monkeypatch.setattr(sealing, "time", clock)
    return clock


@pytest.fixture
def index() -> Iterator[Index]:
    with in_memory() as folder, closing(Index(f"{folder}/index.sqlite3")) as index:
        yield index


@pytest.fixture
def sealer(library: Path, index: Index, clock: FakeTime) -> Sealer:
    """Sees games in ``roms/*``, what is in the library by then and what comes later."""
    return Sealer(Library(str(library)), index, globs=(b"roms/*",), settle=SETTLE)


def sealed(
    sealer: Sealer, game: bytes, before: Examination | None = None
) -> tuple[Examination, Version | None]:
    """The game as it is once all that was missing is hashed."""
    examination, version = sealer.examine(game, game, before)
    if isinstance(examination.outcome, Unhashed):
        for file in examination.outcome.missing:
            path = sealer.library.absolute(file.source)
            sealer.index.put_files({file.source: (file.state, hash_file(path, file.state))})
        examination, version = sealer.examine(game, game, examination)
    return examination, version
