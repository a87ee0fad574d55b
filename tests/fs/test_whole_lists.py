"""Lists that are complete as they come (DESIGN S1): they don't settle, what isn't hashed does."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import trio

from tests.fs.conftest import Tree, sealed
from tests.fs.lab import FakeTime, until
from tests.support.libraries import content, make_file, make_game
from tests.support.lists import Wanted, text_of, write_list
from zipfs.catalog import game as game_module
from zipfs.index.index import Index
from zipfs.library.decorators.lists import WithLists
from zipfs.library.decorators.variants import WithVariants
from zipfs.library.library import Library
from zipfs.library.rules.variants import Variant
from zipfs.sealing.outcomes import Outcome, Sealed, Unhashed, Unsettled
from zipfs.sealing.sealer import Sealer
from zipfs.system.events.changes import Change

SETTLE = 3600.0
"""So that nothing settles in these tests but what they say."""
MEMBERS: list[Wanted] = [
    ("disc 2.bin", "roms/final/disc 2.bin"),
    ("disc 1.bin", "roms/final/disc 1.bin"),
    ("final.m3u", b"disc 1.bin\ndisc 2.bin"),
]


@pytest.fixture
def lists(place: Path, library: Path) -> Path:
    make_game(library, "roms/final", {f"disc {n}.bin": content(3000 + n, n) for n in (1, 2)})
    folder = place / "lists"
    folder.mkdir()
    return folder


@pytest.fixture
def view(library: Path, lists: Path) -> WithLists:
    return WithLists(Library(str(library)), str(lists), shown_in=b".lists", prefix=b"/library/")


@pytest.fixture
def sealer(view: WithLists, index: Index, clock: FakeTime) -> Sealer:
    """All files are hashed, and everything that comes from now on is new."""
    sealer = Sealer(view, index, globs=(b"roms/*",), settle=SETTLE)
    clock.ahead_ns = 2 * 3600 * 10**9
    sealed(sealer, b"roms/final")
    clock.ahead_ns = 0
    return sealer


def outcome_of(sealer: Sealer, name: str) -> Outcome:
    game = f".lists/{name}".encode()
    return sealer.examine(game, game)[0].outcome


def digest_of(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize("digits", [64, 32, 16])
def test_called_after_its_content(library: Path, lists: Path, sealer: Sealer, digits: int) -> None:
    """However it came to be there; half of it doesn't have its name."""
    text = text_of(library, MEMBERS)
    name = digest_of(text)[:digits]
    path = lists / f"{name}.list"
    for part in (b"", text[: text.rindex(b"\n")]):
        path.write_bytes(part)
        assert isinstance(outcome_of(sealer, name), Unsettled)
    path.write_bytes(text)
    assert isinstance(outcome_of(sealer, name), Sealed)


@pytest.mark.parametrize("change", ["short", "upper", "longer", "other"])
def test_not_called_after_its_content(
    library: Path, lists: Path, sealer: Sealer, change: str
) -> None:
    text = text_of(library, MEMBERS)
    digest = digest_of(text)
    name = {
        "short": digest[:15],
        "upper": "ABCDEF" + digest.upper(),
        "longer": digest + "0",
        "other": digest_of(b"other"),
    }[change]
    (lists / f"{name}.list").write_bytes(text)
    assert isinstance(outcome_of(sealer, name), Unsettled)


def test_its_files_settle(library: Path, lists: Path, sealer: Sealer, clock: FakeTime) -> None:
    """S1: those that aren't hashed as they are now, and nothing else."""
    text = text_of(library, MEMBERS)
    name = digest_of(text)
    (lists / f"{name}.list").write_bytes(text)
    member = library / "roms/final/disc 1.bin"
    member.write_bytes(content(member.stat().st_size, "another"))
    found = outcome_of(sealer, name)
    assert isinstance(found, Unsettled)
    assert 0 < found.seconds <= SETTLE
    clock.ahead_ns = 2 * 3600 * 10**9
    found = outcome_of(sealer, name)
    assert isinstance(found, Unhashed)
    assert [file.source for file in found.missing] == [b"roms/final/disc 1.bin"]


def test_a_wrong_one_settles(library: Path, lists: Path, sealer: Sealer) -> None:
    """Nothing is said of it as long as what it names may be on its way."""
    text = text_of(library, MEMBERS).replace(b"disc%202", b"disc%203")
    name = digest_of(text)
    (lists / f"{name}.list").write_bytes(text)
    assert isinstance(outcome_of(sealer, name), Unsettled)


def test_renamed_into_place(library: Path, lists: Path, view: WithLists, sealer: Sealer) -> None:
    path = lists / "x.list"
    text = text_of(library, MEMBERS)

    def hear(change: Change, name: bytes = b"x.list") -> Outcome:
        # By the outermost view, as the daemon does.
        outer = WithVariants(view, [Variant(name=b"v", only=frozenset((b"dlc",)))])
        outer.heard(view.lists, name, change)
        assert outer.came_whole(b".lists/x") == view.came_whole(b".lists/x")
        return outcome_of(sealer, "x")

    write_list(path, text)
    assert isinstance(outcome_of(sealer, "x"), Unsettled)  # nothing has been heard of it
    assert isinstance(hear(Change.RENAMED), Sealed)
    assert isinstance(hear(Change.CLOSED), Sealed)
    path.chmod(0o600)
    assert isinstance(outcome_of(sealer, "x"), Unsettled)
    assert isinstance(hear(Change.ATTRIBUTES), Sealed)
    # Written to afterwards, whether that has been heard or not.
    before = path.stat().st_mtime_ns
    while path.stat().st_mtime_ns == before:  # the clock has ticks
        path.write_bytes(text)
    assert isinstance(outcome_of(sealer, "x"), Unsettled)
    assert isinstance(hear(Change.ANY), Unsettled)
    assert isinstance(hear(Change.ATTRIBUTES), Unsettled)
    # Events are lost; of another folder; of a list that is gone.
    assert isinstance(hear(Change.RENAMED), Sealed)
    assert isinstance(hear(Change.ANY, b""), Unsettled)
    view.heard(os.fsencode(library), b"x.list", Change.RENAMED)
    assert isinstance(outcome_of(sealer, "x"), Unsettled)
    path.unlink()
    hear(Change.RENAMED)
    assert not view.came_whole(b".lists/x")


async def test_asked_for_before_it_is_heard_of(
    library: Path,
    lists: Path,
    view: WithLists,
    tree: Tree,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A lookup finds it unsettled; what is heard then counts at once, and not in a while."""
    monkeypatch.setattr(game_module, "FRESH", SETTLE)
    tree.catalog.hearing.begin()  # nor by the next scan
    nursery.start_soon(tree.catalog.run)
    await until(lambda: tree.catalog.is_surveyed)
    write_list(lists / "x.list", text_of(library, MEMBERS))
    assert not await tree.is_there(".lists/x.zip")
    view.heard(view.lists, b"x.list", Change.RENAMED)
    tree.catalog.changed({b".lists/x"})
    await until(lambda: tree.games.by_archive(b".lists/x.zip"))


def test_a_file_beside_the_lists(lists: Path, sealer: Sealer) -> None:
    make_file(lists / "notes.txt", b"")
    sealer.library.heard(os.fsencode(lists), b"notes.txt", Change.RENAMED)
    assert not sealer.library.came_whole(b".lists/notes.txt")
