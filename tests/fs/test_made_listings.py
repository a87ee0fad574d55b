"""Listings right after a start: of what the index knows, and then of what is."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.fs.conftest import Tree
from tests.fs.lab import FakeTime, until
from tests.fs.test_made import Starts
from tests.support.libraries import make_game
from zipfs.catalog import game
from zipfs.catalog.listing.listing import Listing
from zipfs.catalog.nodes import Folder
from zipfs.index.index import Index


@pytest.fixture
async def many(
    library: Path, index: Index, clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> Tree:
    """After a start with more games than are told at first."""
    for number in range(100):
        make_game(library, f"roms/{number:02}", {"1": b"1", "2": b"%d" % number})
    starts = Starts(library, index, monkeypatch)
    tree = starts.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.catalog.run)
        await until(lambda: tree.catalog.totals().archives == 100 and tree.catalog.is_surveyed)
        await tree.catalog.save()
        nursery.cancel_scope.cancel()
    return starts.start()


async def _told_first(tree: Tree) -> tuple[Folder, Listing, bytes, int]:
    """The folder of games, listed; the first archive told of it, and the first unknown place."""
    roms = await tree.catalog.lookup(await tree.catalog.root(), b"roms")
    assert isinstance(roms, Folder)
    listing = await tree.catalog.open_folder(roms)
    assert await tree.catalog.look_at(listing, 0)
    seen = [listing.at(number) for number in range(len(listing))]
    told = [found for found in seen if found and found.node]
    assert len(told) < 100
    assert all(found.is_provisional for found in told)
    return roms, listing, told[0].name, seen.index(None)


async def _told_next(tree: Tree, listing: Listing, number: int) -> list[bool]:
    """Whether each archive that was unknown is told from the index, from the place *number* on."""
    before = {seen.name for seen in listing.seen.values()}
    told = []
    for place in range(number, len(listing)):
        if listing.at(place) is None:
            await tree.catalog.look_at(listing, place)
        seen = listing.at(place)
        if seen and seen.node and seen.name not in before:
            told.append(seen.is_provisional)
    return told


async def test_who_asks_for_what_he_was_told_is_told_what_is(many: Tree) -> None:
    """The next games are looked at before they are told: then he needn't ask for each."""
    roms, listing, name, following = await _told_first(many)
    await many.catalog.lookup(roms, name)
    told = await _told_next(many, listing, following)
    assert told
    assert not any(told)
    # Whoever wants the names alone doesn't wait for that.
    listing = await many.catalog.open_folder(roms)
    assert not listing.is_followed


async def test_who_asks_for_names_alone_is_told_what_was(many: Tree) -> None:
    _, listing, _, following = await _told_first(many)
    told = await _told_next(many, listing, following)
    assert told
    assert all(told)


async def test_a_listing_goes_on_when_changes_begin_to_be_told_of(
    many: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That takes seconds in a large library, and `ls -l` has begun by then."""
    monkeypatch.setattr(game, "FRESH", 3600.0)  # the machine may be busy
    roms, listing, _, following = await _told_first(many)
    many.catalog.hearing.begin()
    found: list[bytes] = []
    find = many.catalog._finder.find_and_examine

    def counted(folder: Folder, name: bytes) -> object:
        found.append(name)
        return find(folder, name)

    monkeypatch.setattr(many.catalog._finder, "find_and_examine", counted)
    told = [seen for number in range(following) if (seen := listing.at(number)) and seen.node]
    for seen in told:
        assert await many.catalog.lookup(roms, seen.name) == seen.node
    assert found == []
    # What somebody else has looked at since then needn't be looked at once more.
    looked: list[bytes] = []
    child = many.catalog._finder.child

    def counted_too(folder: Folder, name: bytes) -> object:
        looked.append(name)
        return child(folder, name)

    monkeypatch.setattr(many.catalog._finder, "child", counted_too)
    await many.catalog._scanner._scan()
    assert not any(await _told_next(many, listing, following))
    assert looked == []
