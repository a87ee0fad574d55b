"""A library with a sealer and a catalog over it, in a time that the test can move."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from tests.fs.inthread import ThreadChild
from tests.fs.lab import FakeTime, in_memory, until
from zipfs.catalog import game as game_module
from zipfs.catalog.game import Game
from zipfs.catalog.nodes import Archive, Folder, Node
from zipfs.catalog.tree import Catalog
from zipfs.index import hash_client
from zipfs.index.hash_file import hash_file
from zipfs.index.index import Index
from zipfs.library.library import Library
from zipfs.sealing import sealer as sealing
from zipfs.sealing.outcomes import Examination, Unhashed, Version
from zipfs.sealing.sealer import Sealer
from zipfs.system.process import Limits

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


class Tree:
    """A catalog, asked by paths."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.games = catalog._games

    async def find(self, path: str) -> Node:
        node: Node = await self.catalog.root()
        for name in path.split("/"):
            assert isinstance(node, Folder)
            node = await self.catalog.lookup(node, os.fsencode(name))
        return node

    async def archive(self, path: str) -> Archive:
        node = await self.find(path)
        assert isinstance(node, Archive)
        return node

    async def folder(self, path: str) -> Folder:
        node = await self.find(path) if path else await self.catalog.root()
        assert isinstance(node, Folder)
        return node

    async def is_there(self, path: str) -> bool:
        try:
            await self.find(path)
        except FileNotFoundError:
            return False
        return True

    async def names(self, path: str) -> list[str]:
        nodes = await self.catalog.children(await self.folder(path))
        return sorted(os.fsdecode(name) for name, _ in nodes)

    async def sealed(self, path: str) -> Archive:
        """The archive at *path*, which is being sealed, and isn't asked for meanwhile."""
        await until(lambda: self.games.by_archive(os.fsencode(path)))
        return await self.archive(path)

    def was_looked_at(self, path: str) -> bool:
        """Whether the game at *path* was, after it was invalidated."""
        game = self.game(path)
        last = game and game.examination
        return bool(game and last and last.started >= game.invalidated)

    def game(self, path: str) -> Game | None:
        return self.games.get(os.fsencode(path))


@pytest.fixture
def tree(sealer: Sealer) -> Tree:
    return Tree(Catalog(sealer, Limits(64, 8)))


@pytest.fixture
async def running(tree: Tree, nursery: trio.Nursery) -> Tree:
    """The same with its work in the background."""
    nursery.start_soon(tree.catalog.run)
    return tree


@pytest.fixture
def stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every examination of a game is out of date at once."""
    monkeypatch.setattr(game_module, "FRESH", 0.0)
    monkeypatch.setattr(game_module, "_SHARE", 0.0)
