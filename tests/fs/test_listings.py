"""Listings that are told once more, and when they aren't."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.fs.lab import until
from tests.support.libraries import make_file, make_game
from zipfs.catalog import dir_cache as listings_module
from zipfs.catalog import game as game_module
from zipfs.catalog.dir_cache import Listing
from zipfs.catalog.nodes import Archive, Folder, Node
from zipfs.catalog.tree import Catalog
from zipfs.sealing.sealer import Sealer
from zipfs.system.process import Limits


class Shelf:
    """A catalog with the folder `roms`, in which all games are sealed, and its listings."""

    def __init__(self, sealer: Sealer) -> None:
        self.catalog = Catalog(sealer, Limits(64, 8))
        self.games = self.catalog._games

    async def folder(self) -> Folder:
        node: Node = await self.catalog.lookup(await self.catalog.root(), b"roms")
        assert isinstance(node, Folder)
        return node

    async def listing(self) -> Listing:
        return await self.catalog.children(await self.folder())

    def invalidate(self, path: bytes) -> None:
        game = self.games.get(path)
        assert game
        self.catalog._resealer.invalidate(game, 0)

    async def names(self) -> list[str]:
        return sorted(os.fsdecode(name) for name, _ in await self.listing())


@pytest.fixture
async def shelf(
    library: Path, sealer: Sealer, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> Shelf:
    """Two games and a single file. What was seen is taken as it is for ever."""
    monkeypatch.setattr(game_module, "FRESH", 3600.0)
    monkeypatch.setattr(game_module, "_STALE", 3600.0)
    monkeypatch.setattr(listings_module, "_SETTLED_NS", 0)
    make_game(library, "roms/a", {"1": b"1", "2": b"2"})
    make_game(library, "roms/b", {"1": b"1", "2": b"2"})
    make_file(library / "roms/single.iso", b"iso")
    found = Shelf(sealer)
    nursery.start_soon(found.catalog.run)
    await until(lambda: found.catalog.totals().archives == 2)
    await trio.sleep(0.05)  # more than a tick of the clock
    return found


async def test_a_listing_is_told_again(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a look at the games in it: for 20,000 of them that is the most of it."""
    first = await shelf.listing()
    looked: Counter[bytes] = Counter()
    entry = shelf.catalog._library.entry

    def counted(source: bytes, *rest: object) -> object:
        looked[source] += 1
        return entry(source, *rest)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(shelf.catalog._library, "entry", counted)
    assert await shelf.listing() is first
    assert sorted(name for name, _ in first) == [b"a.zip", b"b.zip", b"single.iso"]
    assert set(looked) == {b"", b"roms", b"roms/single.iso"}


async def test_what_is_too_old_is_not_told(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(game_module, "FRESH", 0.0)
    monkeypatch.setattr(game_module, "_SHARE", 0.0)
    first = await shelf.listing()
    assert await shelf.listing() is not first
    shelf.catalog._listings.tidy()
    assert not shelf.catalog._listings._kept
    assert not first.is_true


def _add_file(library: Path) -> None:
    make_file(library / "roms/z", b"z")


def _grow_file(library: Path) -> None:
    with (library / "roms/single.iso").open("ab") as file:
        file.write(b"more")


def _remove_game(library: Path) -> None:
    shutil.rmtree(library / "roms/b")


def _rename_game(library: Path) -> None:
    (library / "roms/b").rename(library / "roms/c")


def _chmod_folder(library: Path) -> None:
    (library / "roms").chmod(0o711)


@pytest.mark.parametrize(
    "change", [_add_file, _grow_file, _remove_game, _rename_game, _chmod_folder]
)
async def test_a_change_of_the_folder_shows_at_once(
    library: Path, shelf: Shelf, change: Callable[[Path], None]
) -> None:
    """Also where nobody tells of it."""
    first = await shelf.listing()
    change(library)
    second = await shelf.listing()
    assert second is not first
    sizes = {name: node.attributes.size for name, node in second}
    assert sizes[b"single.iso"] == (library / "roms/single.iso").stat().st_size
    assert (b"z" in sizes) == (library / "roms/z").exists()


@pytest.mark.parametrize(
    "tell",
    [
        lambda shelf: shelf.catalog.changed([b"roms/a/1"]),
        lambda shelf: shelf.catalog.changed([b"roms/single.iso"]),
        lambda shelf: shelf.invalidate(b"roms/a"),
        lambda shelf: shelf.catalog.rescan(),
    ],
)
async def test_being_told_of_a_change_ends_a_listing(
    shelf: Shelf, tell: Callable[[Shelf], None]
) -> None:
    first = await shelf.listing()
    tell(shelf)
    assert not first.is_true
    assert await shelf.listing() is not first


async def test_a_change_while_it_is_made(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is told to those who have asked for it, and to nobody else."""
    child = shelf.catalog._finder.child

    def slow(folder: Folder, name: bytes) -> object:
        if name == b"b":
            trio.from_thread.run_sync(shelf.invalidate, b"roms/a")
        return child(folder, name)

    with monkeypatch.context() as patched:
        patched.setattr(shelf.catalog._finder, "child", slow)
        first = await shelf.listing()
    assert not first.is_true
    assert await shelf.listing() is not first


async def test_a_game_that_becomes_another_ends_it(library: Path, shelf: Shelf) -> None:
    """V1: an archive that has changed is told of in no old listing, not even an open one."""
    first = await shelf.listing()
    (library / "roms/b/2").write_bytes(b"two")
    shelf.catalog.changed([b"roms/b/2"])
    await until(lambda: shelf.games.by_archive(b"roms/b.zip") is None)
    there = {name: shelf.catalog.is_there(node) for name, node in first}
    assert there == {b"a.zip": True, b"b.zip": False, b"single.iso": True}
    await until(lambda: shelf.games.by_archive(b"roms/b.zip") is not None)
    assert not shelf.catalog.is_there(dict(first)[b"b.zip"])  # it is another one
    new = dict(await shelf.listing())[b"b.zip"]
    assert isinstance(new, Archive)
    assert shelf.catalog.is_there(new)


async def test_many_who_list_are_one_look(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = 0
    names = shelf.catalog._finder.names

    def counted(source: bytes) -> object:
        nonlocal listed
        listed += 1
        return names(source)

    monkeypatch.setattr(shelf.catalog._finder, "names", counted)
    async with trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(shelf.listing)
    assert listed == 1


async def test_listings_are_bounded(
    library: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await shelf.listing()
    monkeypatch.setattr(listings_module, "MEMORY", 3)
    make_file(library / "other/x", b"x")
    await trio.sleep(0.05)
    other = await shelf.catalog.lookup(await shelf.catalog.root(), b"other")
    assert isinstance(other, Folder)
    second = await shelf.catalog.children(other)
    assert (first.is_true, second.is_true) == (False, True)


async def test_totals_are_those_of_what_is_there(library: Path, shelf: Shelf) -> None:
    """They are counted as it comes and goes."""
    assert (shelf.catalog.totals().archives, shelf.catalog.totals().members) == (2, 4)
    make_game(library, "roms/c", {"1": b"1", "2": b"2", "3": b"3"})
    shelf.catalog.changed([b"roms/c"])
    await until(lambda: shelf.catalog.totals().archives == 3)
    assert shelf.catalog.totals().members == 7
    (library / "roms/c/3").unlink()
    shelf.catalog.changed([b"roms/c"])
    await until(lambda: shelf.catalog.totals().members == 6)
    shutil.rmtree(library / "roms/c")
    shelf.catalog.changed([b"roms/c"])
    await until(lambda: shelf.catalog.totals().archives == 2)
    assert shelf.catalog.totals().members == 4
    sealed = [node for _, node in await shelf.listing() if isinstance(node, Archive)]
    assert shelf.catalog.totals().size == sum(node.attributes.size for node in sealed)


async def test_a_rescan_that_was_asked_for_says_when_it_is_done(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    shelf.catalog.rescan()
    await until(lambda: "everything is sealed: 2 archives" in caplog.text)
