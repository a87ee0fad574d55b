"""Listings that are told once more, and when they aren't."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.fs.lab import until
from tests.support.libraries import make_file, make_game
from zipfs.catalog import game as game_module
from zipfs.catalog.listing import hearing, lister
from zipfs.catalog.listing import listing as listings_module
from zipfs.catalog.listing.listing import Listing
from zipfs.catalog.nodes import Archive, Folder, Node
from zipfs.catalog.tree import Catalog
from zipfs.config import Settings
from zipfs.mount.watcher import follow
from zipfs.sealing.outcomes import Sealed
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
        """What is kept once all of it was told."""
        folder = await self.folder()
        await self.catalog.children(folder)
        kept = self.catalog._listings.get(folder)
        assert kept
        return kept

    async def nodes(self) -> dict[bytes, Node]:
        return dict(await self.catalog.children(await self.folder()))

    def invalidate(self, path: bytes) -> None:
        game = self.games.get(path)
        assert game
        self.catalog._resealer.invalidate(game, 0)

    async def names(self) -> list[str]:
        return sorted(os.fsdecode(name) for name in await self.nodes())


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


class Looks(Counter[bytes]):
    """How often each source is looked at."""

    def __init__(self, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        entry = shelf.catalog._library.entry

        def counted(source: bytes, *rest: object) -> object:
            self[source] += 1
            return entry(source, *rest)  # type: ignore[arg-type]  # passed on as they came

        monkeypatch.setattr(shelf.catalog._library, "entry", counted)


async def test_a_listing_is_told_again(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a look at the games in it: for 20,000 of them that is the most of it."""
    first = await shelf.nodes()
    looks = Looks(shelf, monkeypatch)
    assert await shelf.nodes() == first
    assert sorted(first) == [b"a.zip", b"b.zip", b"single.iso"]
    assert set(looks) == {b"", b"roms", b"roms/single.iso"}


async def test_what_is_too_old_is_not_told(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    await shelf.nodes()
    monkeypatch.setattr(game_module, "FRESH", 0.0)
    monkeypatch.setattr(game_module, "_SHARE", 0.0)
    looks = Looks(shelf, monkeypatch)
    await shelf.nodes()
    assert set(looks) == {b"", b"roms", b"roms/a", b"roms/b", b"roms/single.iso"}


# -- Where changes are told of -----------------------------------------------------------------


@pytest.fixture
async def heard(
    library: Path, shelf: Shelf, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> Shelf:
    """The same with the kernel's events; all that was seen is too old at once."""
    monkeypatch.setattr(game_module, "FRESH", 0.0)
    monkeypatch.setattr(game_module, "_SHARE", 0.0)
    settings = Settings.load(None, {"library": str(library)})
    nursery.start_soon(follow, settings, shelf.catalog._library, shelf.catalog)
    await until(lambda: shelf.catalog.hearing.is_complete)
    await shelf.nodes()
    return shelf


async def test_it_is_told_from_memory_however_long_ago_it_was_made(
    heard: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await heard.listing()
    looks = Looks(heard, monkeypatch)
    assert await heard.listing() is first
    assert set(looks) == {b"", b"roms"}


def _link_file(library: Path) -> None:
    (library / "roms/y").symlink_to("single.iso")


def _change_game(library: Path) -> None:
    (library / "roms/a/1").write_bytes(b"one")


@pytest.mark.parametrize("times", range(5))
async def test_each_change_shows_at_once(library: Path, heard: Shelf, times: int) -> None:
    """With no pause between the change and the question: events are caught up with."""
    before = await heard.nodes()
    for change in (_grow_file, _link_file, _change_game, _add_file, _remove_game):
        change(library)
        now = await heard.nodes()
        assert now != before, change
        before = now
    assert before[b"single.iso"].attributes.size == len(b"isomore")
    assert sorted(before) == [b"single.iso", b"y", b"z"]


async def test_what_a_link_leads_to_shows_at_once(library: Path, heard: Shelf) -> None:
    """Of which no event tells: neither of a file, nor of a file of a game."""
    make_file(library / "store/x", b"1")
    make_file(library / "store/y", b"2")
    (library / "roms/link").symlink_to("../store/x")
    (library / "roms/a/3").symlink_to("../../store/y")
    await until(lambda: _size(heard, b"roms/a.zip"))
    before = await heard.nodes()
    assert {b"a.zip", b"link"} <= before.keys()
    for name in "xy":
        with (library / "store" / name).open("ab") as file:
            file.write(b"more")
    after = await heard.nodes()
    assert after[b"link"].attributes.size == 5
    assert b"a.zip" not in after


def _size(shelf: Shelf, archive: bytes) -> bool:
    game = shelf.games.by_archive(archive)
    return bool(game and isinstance(game.outcome, Sealed) and game.outcome.count == 3)


async def test_it_is_checked_behind(
    library: Path, heard: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a name outside the library it can be changed without any event."""
    outside = library.parent / "outside"
    os.link(library / "roms/single.iso", outside)
    os.link(library / "roms/b/1", library.parent / "other")
    before = await heard.nodes()
    outside.write_bytes(b"another one")
    (library.parent / "other").write_bytes(b"another one")
    assert await heard.nodes() == before
    monkeypatch.setattr(lister, "_PAUSE", -1.0)
    monkeypatch.setattr(lister, "_SHARE", 0)
    await heard.nodes()
    await until(lambda: heard.games.by_archive(b"roms/b.zip") is None)
    monkeypatch.undo()
    after = await heard.nodes()
    assert after[b"single.iso"].attributes.size == len(b"another one")
    assert b"b.zip" not in after


async def test_events_that_were_lost(library: Path, heard: Shelf) -> None:
    first = await heard.listing()
    heard.catalog.changed({b""})
    assert not first.is_true
    assert await heard.listing() is not first


async def test_a_folder_that_comes_back_under_its_name(library: Path, heard: Shelf) -> None:
    """What changed while it had another one shows."""
    make_file(library / "more/sub/deep/x", b"x")
    roms = await heard.catalog.root()
    for name in (b"more", b"sub", b"deep"):
        node = await heard.catalog.lookup(roms, name)
        assert isinstance(node, Folder)
        roms = node
    before = dict(await heard.catalog.children(roms))
    (library / "more").rename(library / "others")
    with (library / "others/sub/deep/x").open("ab") as file:
        file.write(b"more")
    (library / "others").rename(library / "more")
    after = dict(await heard.catalog.children(roms))
    assert (before[b"x"].attributes.size, after[b"x"].attributes.size) == (1, 5)


async def test_events_that_cannot_be_read_in_time(
    heard: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then all is looked at, as where there are none."""
    monkeypatch.setattr(hearing, "CATCH_UP", 0.01)
    heard.catalog.hearing._hurries = (lambda _: None,)
    looks = Looks(heard, monkeypatch)
    await heard.nodes()
    assert set(looks) == {b"", b"roms", b"roms/a", b"roms/b", b"roms/single.iso"}


async def test_a_listing_is_looked_at_as_it_is_told(
    library: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lister, "_FIRST", 8)
    monkeypatch.setattr(lister, "_MOST", 8)
    for number in range(100):
        make_file(library / f"roms/{number}", b"x")
    folder = await shelf.folder()
    looks = Looks(shelf, monkeypatch)
    listing = await shelf.catalog.open_folder(folder)
    assert not looks
    assert listing.at(0) is None
    await shelf.catalog.look_at(listing, 0)
    assert looks.total() == 8
    assert listing.at(0) is not None
    told: dict[bytes, Node] = {}
    for number in range(len(listing)):
        if (seen := listing.at(number)) is None:
            await shelf.catalog.look_at(listing, number)
            seen = listing.at(number)
        assert seen
        if seen.node:
            assert seen.name not in told
            told[seen.name] = seen.node
    assert told == await shelf.nodes()
    assert len(told) == 103


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
    first = await shelf.nodes()
    folder = await shelf.folder()
    change(library)
    second = await shelf.nodes()
    assert second != first or await shelf.folder() != folder
    sizes = {name: node.attributes.size for name, node in second.items()}
    assert sizes[b"single.iso"] == (library / "roms/single.iso").stat().st_size
    assert (b"z" in sizes) == (library / "roms/z").exists()


@pytest.mark.parametrize(
    "tell",
    [
        lambda shelf: shelf.catalog.changed({b"roms/a/1"}),
        lambda shelf: shelf.catalog.changed({b"roms/single.iso"}),
        lambda shelf: shelf.invalidate(b"roms/a"),
        lambda shelf: shelf.catalog.rescan(),
    ],
)
async def test_being_told_of_a_change_ends_a_listing(
    shelf: Shelf, tell: Callable[[Shelf], None]
) -> None:
    first = await shelf.listing()
    assert first.is_true
    assert first.is_complete
    tell(shelf)
    assert not (first.is_true and first.is_complete)


async def test_a_change_while_it_is_made(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is told to those who have asked for it, and to nobody else."""
    child = shelf.catalog._finder.child

    def slow(folder: Folder, name: bytes) -> object:
        if name == b"b":
            trio.from_thread.run_sync(shelf.invalidate, b"roms/a")
        return child(folder, name)

    with monkeypatch.context() as patched:
        patched.setattr(shelf.catalog._finder, "child", slow)
        listing = await shelf.listing()
    assert {name for name, seen in listing.seen.items() if seen.is_provisional} == {b"a"}
    looks = Looks(shelf, monkeypatch)
    await shelf.nodes()
    assert b"roms/a" in looks


async def test_a_game_that_becomes_another_ends_it(library: Path, shelf: Shelf) -> None:
    """V1: an archive that has changed is told of in no old listing, not even an open one."""
    first = await shelf.nodes()
    (library / "roms/b/2").write_bytes(b"two")
    shelf.catalog.changed({b"roms/b/2"})
    await until(lambda: shelf.games.by_archive(b"roms/b.zip") is None)
    there = {name: shelf.catalog.is_there(node) for name, node in first.items()}
    assert there == {b"a.zip": True, b"b.zip": False, b"single.iso": True}
    await until(lambda: shelf.games.by_archive(b"roms/b.zip") is not None)
    assert not shelf.catalog.is_there(first[b"b.zip"])  # it is another one
    new = (await shelf.nodes())[b"b.zip"]
    assert isinstance(new, Archive)
    assert shelf.catalog.is_there(new)


async def test_many_who_list_are_one_look(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = 0
    names = shelf.catalog._finder.names

    def counted(*arguments: Any, **keywords: Any) -> object:
        nonlocal listed
        listed += 1
        return names(*arguments, **keywords)

    monkeypatch.setattr(shelf.catalog._finder, "names", counted)
    async with trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(shelf.nodes)
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
    await shelf.catalog.children(other)
    second = shelf.catalog._listings.get(other)
    assert second
    assert (first.is_true, second.is_true) == (False, True)


async def test_totals_are_those_of_what_is_there(library: Path, shelf: Shelf) -> None:
    """They are counted as it comes and goes."""
    assert (shelf.catalog.totals().archives, shelf.catalog.totals().members) == (2, 4)
    make_game(library, "roms/c", {"1": b"1", "2": b"2", "3": b"3"})
    shelf.catalog.changed({b"roms/c"})
    await until(lambda: shelf.catalog.totals().archives == 3)
    assert shelf.catalog.totals().members == 7
    (library / "roms/c/3").unlink()
    shelf.catalog.changed({b"roms/c"})
    await until(lambda: shelf.catalog.totals().members == 6)
    shutil.rmtree(library / "roms/c")
    shelf.catalog.changed({b"roms/c"})
    await until(lambda: shelf.catalog.totals().archives == 2)
    assert shelf.catalog.totals().members == 4
    sealed = [node for node in (await shelf.nodes()).values() if isinstance(node, Archive)]
    assert shelf.catalog.totals().size == sum(node.attributes.size for node in sealed)


async def test_a_rescan_that_was_asked_for_says_when_it_is_done(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    shelf.catalog.rescan()
    await until(lambda: "everything is sealed: 2 archives" in caplog.text)


async def test_a_first_scan_that_finds_all_looked_at(
    library: Path, sealer: Sealer, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """By those who asked before: then it looks at nothing again."""
    make_game(library, "roms/a", {"1": b"1", "2": b"2"})
    found = Shelf(sealer)
    found.catalog.hearing.begin()
    folder = await found.folder()
    await found.catalog.children(folder)
    game = found.games.get(b"roms/a")
    assert game
    looked = game.examination
    nursery.start_soon(found.catalog._scanner.run)
    await until(lambda: found.catalog.is_surveyed)
    assert game.examination is looked
    assert "unexpected" not in caplog.text
