"""A folder that changes while it is looked at is never taken for what it never was (S1)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.libraries import content, make_game
from zipfs.index.hash_file import hash_file
from zipfs.index.index import Index
from zipfs.library.library import Library
from zipfs.library.scan import Entry, LeftOut, Origins
from zipfs.sealing.outcomes import Sealed, Unhashed, Unsettled
from zipfs.sealing.sealer import Sealer

SETTLE = 0.05
GAME = b"roms/psx/Game"


class Changing(Library):
    """A library in which two files go away, one after the other, during one look at it."""

    def __init__(self, root: Path, pause: float) -> None:
        super().__init__(os.fspath(root))
        self.doomed: list[bytes] = []
        self._pause = pause

    def tree(self, source: bytes) -> bytes:
        return b""  # as if there were links, so that the scan has to tell

    def listed(
        self, source: bytes, origins: Origins = frozenset()
    ) -> tuple[list[tuple[bytes, Entry | LeftOut]], os.stat_result]:
        if self.doomed and source == os.path.dirname(self.doomed[-1]):
            # The first one's folder has been listed; the second one's is about to be.
            while self.doomed:
                os.unlink(self.absolute(self.doomed.pop(0)))
            time.sleep(self._pause)
        return super().listed(source, origins)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with closing(Index(os.fspath(tmp_path / "index"))) as index:
        yield index


@pytest.mark.parametrize("pause", [0.0, 4 * SETTLE])
@pytest.mark.parametrize("order", [("x/one", "y/two"), ("y/two", "x/one")])
def test_files_removed_during_the_look(
    library: Path, index: Index, pause: float, order: tuple[str, str]
) -> None:
    """All checksums are known, so that only the times of folders tell; also of a slow look."""
    folder = make_game(
        library, os.fsdecode(GAME), {"x/one": b"1", "y/two": b"2", "z/a": content(9)}
    )
    make_game(library, os.fsdecode(GAME), {"z/b": b"b"})
    shown = Changing(library, pause)
    sealer = Sealer(shown, index, settle=SETTLE)
    time.sleep(2 * SETTLE)
    first, _ = sealer.examine(GAME, GAME)
    assert isinstance(first.outcome, Unhashed)
    index.put_files(
        {
            file.source: (file.state, hash_file(shown.absolute(file.source), file.state))
            for file in first.outcome.missing
        }
    )
    whole, _ = sealer.examine(GAME, GAME, first)
    assert isinstance(whole.outcome, Sealed)
    assert whole.outcome.count == 4

    shown.doomed = [GAME + b"/" + name.encode() for name in order]
    during, _ = sealer.examine(GAME, GAME, whole)
    assert isinstance(during.outcome, Unsettled)
    assert not (folder / order[0]).exists()

    time.sleep(2 * SETTLE)
    after, _ = sealer.examine(GAME, GAME, during)
    assert isinstance(after.outcome, Sealed)
    assert after.outcome.count == 4  # the others, and the two folders, which are empty now
    assert after.outcome.content != whole.outcome.content
