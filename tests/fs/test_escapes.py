"""Nothing outside the library is opened for a list, whatever it asks for (DESIGN H2)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.fs.conftest import SETTLE
from tests.fs.lab import FakeTime, until
from tests.fs.test_catalog import Tree
from tests.support.escapes import NAME, make_library, write_escapes
from zipfs.catalog.tree import Catalog
from zipfs.index.index import Index
from zipfs.library.decorators.lists import WithLists
from zipfs.library.library import Library
from zipfs.sealing.outcomes import Impossible
from zipfs.sealing.sealer import Sealer
from zipfs.system.folders import Folders
from zipfs.system.process import Limits


class Opens:
    """What this process opens while it is watched: where it really is."""

    def __init__(self) -> None:
        self.watching = False
        self.seen: set[str] = set()
        sys.addaudithook(self._hear)  # for ever, so but one

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.watching and event in ("open", "os.listdir", "os.scandir"):
            path = arguments[0]
            if isinstance(path, int):
                path = f"/proc/self/fd/{path}"
            if isinstance(path, str | bytes):
                self.seen.add(os.path.realpath(os.fsdecode(path)))


_OPENS = Opens()


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Iterator[Opens]:
    open_below = Folders.open

    def heard(self: Folders, path: bytes, flags: int) -> int:
        """A name below an open folder: the audit event doesn't have that."""
        descriptor = open_below(self, path, flags)
        _OPENS.seen.add(os.path.realpath(f"/proc/self/fd/{descriptor}"))
        return descriptor

    monkeypatch.setattr(Folders, "open", heard)
    _OPENS.seen.clear()
    _OPENS.watching = True
    yield _OPENS
    _OPENS.watching = False


async def test_no_escape(
    place: Path, library: Path, index: Index, clock: FakeTime, opens: Opens, nursery: trio.Nursery
) -> None:
    outside, lists = place / "outside", place / "lists"
    make_library(library, outside)
    lists.mkdir()
    names = write_escapes(lists, library, outside)
    opens.seen.clear()
    listed = WithLists(Library(str(library)), str(lists), shown_in=b".lists", prefix=b"/library/")
    tree = Tree(Catalog(Sealer(listed, index, globs=(b"*/*",), settle=SETTLE), Limits(64, 8)))
    nursery.start_soon(tree.catalog.run)
    node = await tree.sealed(".lists/control.zip")
    await until(lambda: tree.games.is_scanned)
    assert await tree.names(".lists") == ["control.zip"]
    for name in names:
        assert not await tree.is_there(f".lists/{name}.zip")
        game = tree.game(f".lists/{name}")
        assert game
        assert isinstance(game.outcome, Impossible), name
    version = await tree.catalog.open(node)
    assert [file.source for file in version.files] == [b"roms/psx/inside"]
    opened = {path for path in opens.seen if path.startswith(f"{place}/")}
    # It would have been seen, had it been opened.
    assert f"{library}/roms/psx/inside" in opened
    assert f"{lists}/{names[0]}.list" in opened
    assert not {path for path in opened if not path.startswith((f"{library}/", f"{lists}/"))} - {
        str(library),
        str(lists),
    }
    assert not {path for path in opens.seen if path.endswith(f"/{NAME}") or path == "/etc/passwd"}
