"""What the index knows of archives: a warm start only finds out whether they still are that."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from tests.fs.conftest import SETTLE, Tree, sealed
from tests.fs.lab import FakeTime, until
from tests.support.libraries import make_file, make_game
from zipfs.catalog import game
from zipfs.catalog.background.turns import Turns
from zipfs.catalog.nodes import Archive, Folder
from zipfs.catalog.tree import Catalog
from zipfs.index.index import Index
from zipfs.library.library import Library
from zipfs.library.rules.globs import Patterns
from zipfs.library.rules.playlists import Playlists
from zipfs.library.view import find_games
from zipfs.mount import watcher
from zipfs.sealing.members import Style
from zipfs.sealing.offline import FoundGame, seal_all
from zipfs.sealing.outcomes import Sealed
from zipfs.sealing.remembered import canonical
from zipfs.sealing.sealer import Sealer
from zipfs.system.process import Limits

GAMES = [b"roms/a", b"roms/b", b"roms/c"]


class Starts:
    """One daemon after the other, with the same index."""

    def __init__(self, library: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
        self.library = library
        self.index = index
        self.made: list[bytes] = []
        """Archives that were put together since the start."""
        version = Sealer._version

        def counted(sealer: Sealer, archive: bytes, *rest: object) -> object:
            self.made.append(archive)
            return version(sealer, archive, *rest)  # type: ignore[arg-type]  # passed on as they came

        monkeypatch.setattr(Sealer, "_version", counted)
        self.scans: list[bytes] = []
        scan = Library.scan

        def scanned(view: Library, source: bytes, *rest: object, **others: object) -> object:
            self.scans.append(source)
            return scan(view, source, *rest, **others)  # type: ignore[arg-type]  # likewise

        monkeypatch.setattr(Library, "scan", scanned)

    def start(self, **settings: object) -> Tree:
        self.made.clear()
        self.scans.clear()
        sealer = Sealer(
            Library(str(self.library)),
            self.index,
            globs=(b"roms/*",),
            settle=SETTLE,
            **settings,  # type: ignore[arg-type]  # each test has its own
        )
        return Tree(Catalog(sealer, Limits(64, 8)))

    def offline(self) -> tuple[Sealer, list[FoundGame]]:
        """A sealer and its games for what `zipfs index` does."""
        library = Library(str(self.library))
        sealer = Sealer(library, self.index, globs=(b"roms/*",), settle=SETTLE)
        return sealer, list(find_games(library, sealer.policy))

    async def run_until_sealed(self, count: int, **settings: object) -> dict[str, Archive]:
        """Start, seal all, and end."""
        tree = self.start(**settings)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.catalog.run)
            await until(lambda: tree.catalog.totals().archives == count)
            await until(lambda: tree.catalog.is_surveyed)
            found = {name: await tree.archive(f"roms/{name}.zip") for name in "abc"[:count]}
            await tree.catalog.save()
            nursery.cancel_scope.cancel()
        return found


@pytest.fixture
def starts(library: Path, index: Index, clock: FakeTime, monkeypatch: pytest.MonkeyPatch) -> Starts:
    for name in "abc":
        make_game(library, f"roms/{name}", {"1": b"1", "sub/2": name.encode()})
    return Starts(library, index, monkeypatch)


async def test_a_warm_start_puts_no_archive_together(starts: Starts) -> None:
    first = await starts.run_until_sealed(3)
    assert len(starts.made) >= 3
    again = await starts.run_until_sealed(3)
    assert again == first
    assert starts.made == []
    assert starts.scans == []


async def test_what_was_made_can_be_opened(starts: Starts) -> None:
    await starts.run_until_sealed(3)
    tree = starts.start()
    node = await tree.archive("roms/a.zip")
    version = await tree.catalog.open(node)
    assert version.sealed.inode == node.attributes.inode
    assert starts.made == [b"roms/a.zip"]


def _write(game: Path) -> None:
    (game / "1").write_bytes(b"!")


def _write_with_old_date(game: Path) -> None:
    before = (game / "sub/2").stat()
    (game / "sub/2").write_bytes(b"!")
    os.utime(game / "sub/2", ns=(before.st_mtime_ns, before.st_mtime_ns))


def _add(game: Path) -> None:
    make_file(game / "sub/3", b"3")


def _rename(game: Path) -> None:
    (game / "1").rename(game / "one")


def _chmod_file(game: Path) -> None:
    (game / "1").chmod(0o400)


def _chmod_folder(game: Path) -> None:
    (game / "sub").chmod(0o700)


def _link(game: Path) -> None:
    (game / "3").symlink_to("1")


def _empty_folder(game: Path) -> None:
    (game / "empty").mkdir()


def _take_its_name(game: Path) -> None:
    make_file(game.with_name("a.zip"), b"")


@pytest.mark.parametrize(
    "change",
    [_write, _write_with_old_date, _add, _rename, _chmod_file, _chmod_folder, _link,
     _empty_folder, _take_its_name],
)  # fmt: skip
async def test_what_changed_meanwhile_is_found(
    library: Path, starts: Starts, change: Callable[[Path], None]
) -> None:
    """It is what it would be without the index, and the others are as they were."""
    before = await starts.run_until_sealed(3)
    change(library / "roms/a")
    tree = starts.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.catalog.run)
        await until(lambda: tree.catalog.totals().archives == 3 and tree.catalog.is_surveyed)
        game = tree.game("roms/a")
        assert game
        found = game.outcome
        nursery.cancel_scope.cancel()
    assert isinstance(found, Sealed)
    examination, _ = sealed(starts.start().catalog._sealer, b"roms/a")
    assert examination.outcome == found
    assert b"roms/a" in starts.scans
    after = await starts.run_until_sealed(3) if change is not _take_its_name else before
    assert (after["b"], after["c"]) == (before["b"], before["c"])


@pytest.mark.parametrize(
    "settings",
    [
        {"style": Style(fixed_times=True)},
        {"style": Style(portable_names=True)},
        {"playlists": Playlists(mode="off")},
        {"playlists": Playlists(platforms=frozenset([b"x", b"y"]))},
    ],
)
async def test_other_settings_make_other_archives(
    starts: Starts, settings: dict[str, object]
) -> None:
    await starts.run_until_sealed(3)
    await starts.run_until_sealed(3, **settings)
    assert {b"roms/a.zip", b"roms/b.zip", b"roms/c.zip"} <= set(starts.made)


async def test_another_policy_scans(starts: Starts) -> None:
    """And finds the same, of which no archive has to be put together."""
    await starts.run_until_sealed(3)
    await starts.run_until_sealed(3, patterns=Patterns(exclude=(b"*.none",)))
    assert set(GAMES) <= set(starts.scans)
    assert starts.made == []


async def test_before_it_is_looked_at_it_is_told_as_it_was(library: Path, starts: Starts) -> None:
    """With no time to live: who asks for it gets it as it is."""
    before = await starts.run_until_sealed(3)
    _write(library / "roms/a")
    tree = starts.start()
    folder = await tree.folder("roms")
    listing = await tree.catalog.open_folder(folder)
    await tree.catalog.look_at(listing, 0)
    told = [listing.at(number) for number in range(len(listing))]
    nodes = {seen.name: seen for seen in told if seen and seen.node}
    assert set(nodes) == {b"a.zip", b"b.zip", b"c.zip"}
    assert all(seen.is_provisional for seen in nodes.values())
    assert nodes[b"a.zip"].node == before["a"]
    assert starts.scans == []
    assert not await tree.is_there("roms/a.zip")  # its file isn't hashed
    assert await tree.archive("roms/b.zip") == before["b"]
    # What was looked at is told as it is: that one, and those that were listed behind it.
    order = [seen.name for seen in told if seen and seen.node]
    listing = await tree.catalog.open_folder(folder)
    found = []
    for number in range(len(listing)):
        if listing.at(number) is None:
            await tree.catalog.look_at(listing, number)
        found.append(listing.at(number))
    by_name = {seen.name: seen.is_provisional for seen in found if seen and seen.node}
    is_before = order.index(b"c.zip") < order.index(b"b.zip")
    assert by_name == {b"b.zip": False, b"c.zip": is_before}


async def test_what_is_gone_isnt_told(library: Path, starts: Starts) -> None:
    await starts.run_until_sealed(3)
    (library / "roms/a").rename(library / "elsewhere")
    tree = starts.start()
    assert await tree.names("roms") == ["b.zip", "c.zip"]


async def test_checksums_that_are_forgotten(starts: Starts) -> None:
    """Nothing that was made of them is taken as it was."""
    await starts.run_until_sealed(3)
    digest = starts.index.files([b"roms/a/1"])[b"roms/a/1"][1].digest
    starts.index.forget_files({b"roms/a/1": bytes(16)})
    assert starts.index.game(b"roms/a")
    starts.index.forget_files({b"roms/a/1": digest})
    assert starts.index.game(b"roms/a") is None
    assert starts.index.games(b"roms") == {}
    await starts.run_until_sealed(3)
    assert len(starts.made) >= 3


async def test_a_game_that_goes_is_forgotten(library: Path, starts: Starts) -> None:
    await starts.run_until_sealed(3)
    assert starts.index.game(b"roms/a")
    tree = starts.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.catalog.run)
        await until(lambda: tree.catalog.totals().archives == 3 and tree.catalog.is_surveyed)
        (library / "roms/a").rename(library / "elsewhere")
        tree.catalog.rescan()
        await until(lambda: tree.catalog.totals().archives == 2)
        await tree.catalog.save()
        nursery.cancel_scope.cancel()
    assert set(starts.index.games(b"roms")) == {b"b", b"c"}


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.EIO, errno.ESTALE])
async def test_a_game_that_goes_right_after_it_was_looked_at(
    starts: Starts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """What was found of it holds as of then: it is no error, and nobody trusts it at a start."""
    remember, scan = Sealer.remember, Library.scan
    late = threading.local()

    def scanned(*rest: object, **others: object) -> object:
        if getattr(late, "is_gone", False):
            raise OSError(number, os.strerror(number))
        return scan(*rest, **others)  # type: ignore[arg-type]  # passed on as they came

    def remembered(*rest: object) -> object:
        late.is_gone = True
        try:
            return remember(*rest)  # type: ignore[arg-type]  # likewise
        finally:
            late.is_gone = False

    monkeypatch.setattr(Library, "scan", scanned)
    monkeypatch.setattr(Sealer, "remember", remembered)
    await starts.run_until_sealed(3)
    assert caplog.messages == []
    assert [made.tree for made, _ in starts.index.games(b"roms").values()] == [b""] * 3
    summary = seal_all(*starts.offline())
    assert (summary.archives, summary.problems) == (3, [])


async def test_a_damaged_row_counts_as_missing(starts: Starts, index: Index) -> None:
    first = await starts.run_until_sealed(3)
    store = index._disk
    assert store
    for change in ("size = 1", "content = zeroblob(16)", "archive = CAST('x' AS BLOB)", "uid = 7"):
        store._db.execute(f"UPDATE games SET {change} WHERE name = CAST('a' AS BLOB)")  # noqa: S608 - constants
        assert set(index.games(b"roms")) == {b"b", b"c"}
        assert await starts.run_until_sealed(3) == first
        assert set(index.games(b"roms")) == {b"a", b"b", b"c"}


# -- Settings as text --------------------------------------------------------------------------


def test_canonical() -> None:
    assert canonical(frozenset([b"b", b"a"])) == canonical({b"a", b"b"}) == "{b'a', b'b'}"
    assert canonical({"x": {2, 1}, "a": None}) == canonical({"a": None, "x": {1, 2}})
    assert canonical((1, [2, 3])) == "[1, [2, 3]]"
    assert canonical(Style()) != canonical(Style(fixed_times=True))
    assert canonical({"a": 1}) != canonical({"a": 2}) != canonical(["a", 2])
    assert "0x" not in canonical(Playlists())


async def test_a_warm_start_asks_for_little_of_each_game(
    starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is known from the listing above it, and so is whether its name is taken."""
    await starts.run_until_sealed(3)
    asked: list[bytes] = []
    for name in ("entry", "exists"):
        ask = getattr(Library, name)

        def counted(
            view: Library, source: bytes, *rest: object, ask: Callable[..., object] = ask
        ) -> object:
            asked.append(source)
            return ask(view, source, *rest)

        monkeypatch.setattr(Library, name, counted)
    tree = starts.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.catalog.run)
        await until(lambda: tree.catalog.is_surveyed)
        nursery.cancel_scope.cancel()
    assert tree.catalog.totals().archives == 3
    own = [*GAMES, *(game + b".zip" for game in GAMES)]
    assert not set(own) & set(asked)
    assert starts.scans == []


async def test_games_that_are_asked_for_in_turn_are_looked_at_together(
    starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `ls -l` does it right after a start: names from the index, then a stat of each."""
    monkeypatch.setattr(game, "FRESH", 3600.0)  # the machine may be busy
    first = await starts.run_until_sealed(3)
    tree = starts.start()
    root = await tree.catalog.root()
    roms = await tree.catalog.lookup(root, b"roms")
    assert isinstance(roms, Folder)
    listing = await tree.catalog.open_folder(roms)
    assert await tree.catalog.look_at(listing, 0)
    told = [seen for number in range(len(listing)) if (seen := listing.at(number)) and seen.node]
    assert [seen.is_provisional for seen in told] == [True] * 3
    assert not [path for path in GAMES if tree.catalog._games.get(path)]
    found: list[bytes] = []
    find = tree.catalog._finder.find_and_examine

    def counted(folder: Folder, name: bytes) -> object:
        found.append(name)
        return find(folder, name)

    monkeypatch.setattr(tree.catalog._finder, "find_and_examine", counted)
    for seen in told:
        assert await tree.catalog.lookup(roms, seen.name) == first[os.fsdecode(seen.name[:1])]
    assert found == []


async def test_whoever_asks_goes_before_the_walk(autojump_clock: trio.testing.MockClock) -> None:
    turns = Turns()
    began = trio.current_time()
    await turns.give_way()
    assert trio.current_time() == began
    with turns.asking():
        await turns.give_way()
    assert trio.current_time() - began == pytest.approx(0.25)
    await trio.sleep(0.25)
    began = trio.current_time()

    async def ask() -> None:
        while True:
            turns.asked()
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.sleep(0.005)
        for _ in range(2):
            await turns.give_way()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began == pytest.approx(0.005 + 2 * 0.25)
    await turns.give_way()
    began = trio.current_time()
    await turns.give_way()
    assert trio.current_time() == began


async def test_whoever_asks_goes_before_watches_are_set(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = Turns()
    naps: list[float] = []
    monkeypatch.setattr(watcher, "time", SimpleNamespace(sleep=naps.append))
    monkeypatch.setattr(watcher, "_GIVEN", 0.1)
    give_way = watcher._GivingWay(turns.is_asked)
    give_way()
    assert naps == []
    with turns.asking():
        give_way()
    assert 0.1 <= sum(naps) < 0.12
    naps.clear()
    with turns.asking():  # that was all
        give_way()
    assert naps == []
    assert turns.is_asked()  # the next question is expected
    await until(lambda: not turns.is_asked())
