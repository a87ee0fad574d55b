"""When archives came to be here, and when listings changed (DESIGN F1)."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path

import pytest
import trio

from tests.fs.conftest import SETTLE, Tree
from tests.fs.lab import FakeTime, until
from tests.support.libraries import make_file, make_game
from tests.support.lists import text_of, write_list
from zipfs.catalog import dates as dates_module
from zipfs.catalog.background import scanner as scanner_module
from zipfs.catalog.background.survey import Found, Skips
from zipfs.catalog.nodes import Attributes
from zipfs.catalog.tree import Catalog
from zipfs.index.index import Index
from zipfs.index.rows import NONE, Published
from zipfs.library.decorators.lists import WithLists
from zipfs.library.decorators.variants import WithVariants
from zipfs.library.library import Library
from zipfs.library.rules.variants import Variant
from zipfs.sealing.sealer import Sealer
from zipfs.system.process import Limits

A, B = {"1": b"one", "2": b"two"}, {"1": b"ONE", "2": b"two"}
HOUR = 3600 * 10**9
GAME, ARCHIVE = "roms/game", "roms/game.zip"


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """The clock that dates are taken from: an hour ahead of that of the library's disk."""
    clock = FakeTime()
    clock.ahead_ns = HOUR
    monkeypatch.setattr(dates_module, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def _no_gap(monkeypatch: pytest.MonkeyPatch, stale: None) -> None:
    monkeypatch.setattr("zipfs.catalog.versions.Gaps.left", lambda *_: 0.0)


class Life:
    """One life of a daemon: a catalog with its work in the background."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    async def archive(self, path: str = ARCHIVE, *, after: Attributes | None = None) -> Attributes:
        """Of the archive, once it is there in another version than *after*."""
        while True:
            with contextlib.suppress(FileNotFoundError):
                found = (await self.tree.sealed(path)).attributes
                if after is None or found.inode != after.inode:
                    return found
            await trio.sleep(0.002)

    async def until_gone(self, path: str = ARCHIVE) -> None:
        while await self.tree.is_there(path):  # noqa: ASYNC110 - threads do it
            await trio.sleep(0.002)

    async def folder(self, path: str = "roms") -> Attributes:
        """Its attributes by getattr, which are those by lookup and readdir as well."""
        while True:
            node = await self.tree.folder(path)
            found = (await self.tree.catalog.refresh(node)).attributes
            ways = [node.attributes]
            if path:
                above, _, name = path.rpartition("/")
                listing = dict(await self.tree.catalog.children(await self.tree.folder(above)))
                ways.append(listing[os.fsencode(name)].attributes)
            # Another archive may have come between two of these calls.
            if (await self.tree.folder(path)).attributes == node.attributes:
                break
        assert ways == [found] * len(ways)
        assert found.mtime_ns == found.ctime_ns
        return found

    async def scanned(self) -> None:
        await until(lambda: self.tree.catalog.is_surveyed)
        await until(lambda: not self.tree.catalog.totals().unsealed)


class Lives:
    """Daemons one after another, with one index."""

    def __init__(self, nursery: trio.Nursery, sealer: Sealer) -> None:
        self._nursery = nursery
        self.sealer = sealer
        self._scope: trio.CancelScope | None = None
        self._catalog: Catalog | None = None

    async def begin(self) -> Life:
        await self.end()
        self._catalog = Catalog(self.sealer, Limits(64, 8))
        await self._catalog.root()
        self._scope = trio.CancelScope()
        self._nursery.start_soon(self._run, self._catalog, self._scope)
        return Life(Tree(self._catalog))

    async def end(self) -> None:
        if self._scope and self._catalog:
            self._scope.cancel()
            await self._catalog.save()

    async def _run(self, catalog: Catalog, scope: trio.CancelScope) -> None:
        with scope:
            await catalog.run()


@pytest.fixture
def lives(nursery: trio.Nursery, sealer: Sealer, now: FakeTime) -> Lives:
    return Lives(nursery, sealer)


def rewrite(library: Path, files: Mapping[str, bytes], game: str = GAME) -> None:
    """The game, with *files* that always have the same date; there from one moment to the next."""
    aside = make_game(library.parent, "aside", files, mtime=1_600_000_000)
    shutil.rmtree(library / game, ignore_errors=True)
    (library / game).parent.mkdir(exist_ok=True)
    aside.rename(library / game)


# -- Archives ----------------------------------------------------------------------------------


async def test_ctime_is_when_an_archive_came_to_be_here(
    library: Path, lives: Lives, now: FakeTime
) -> None:
    rewrite(library, A)
    before = now.time_ns()
    found = await (await lives.begin()).archive()
    assert before < found.ctime_ns < now.time_ns()
    assert found.mtime_ns < 1_600_000_001 * 10**9


async def test_content_that_comes_back_is_new_once_more(library: Path, lives: Lives) -> None:
    """``tar -g`` goes by ctime; mtime is A's again (V2)."""
    life = await lives.begin()
    rewrite(library, A)
    first = await life.archive()
    rewrite(library, B)
    second = await life.archive(after=first)
    rewrite(library, A)
    third = await life.archive(after=second)
    assert (first.mtime_ns, first.inode) == (third.mtime_ns, third.inode)
    assert first.inode != second.inode
    assert first.ctime_ns < second.ctime_ns < third.ctime_ns


async def test_what_was_away_for_a_moment_is_new(library: Path, lives: Lives) -> None:
    """A backup may have been made in that moment, and has it as deleted."""
    rewrite(library, A)
    life = await lives.begin()
    before = await life.archive()
    (library / GAME).rename(library / "roms/.away")
    await life.until_gone()
    (library / "roms/.away").rename(library / GAME)
    after = await life.archive()
    assert before.inode == after.inode
    assert before.ctime_ns < after.ctime_ns


@pytest.mark.parametrize("hours", [-1, -24 * 365])
async def test_ctime_never_goes_back(
    library: Path, lives: Lives, now: FakeTime, hours: int
) -> None:
    """Also if the clock was set back, and in another life."""
    archive, archives, folders = None, [], []
    life = await lives.begin()
    for files in (A, B, A, B):
        rewrite(library, files)
        archive = await life.archive(after=archive)
        archives.append(archive.ctime_ns)
        folders.append((await life.folder()).mtime_ns)
        now.ahead_ns = HOUR + hours * HOUR
        if files is B:
            life = await lives.begin()
    assert archives == sorted(set(archives))
    assert folders == sorted(set(folders))


async def test_a_restart_is_no_change(library: Path, lives: Lives) -> None:
    rewrite(library, A)
    make_file(library / "roms/single.iso", b"x")
    life = await lives.begin()
    await life.scanned()
    before = await life.archive(), await life.folder(), await life.folder("")
    life = await lives.begin()
    assert (await life.archive(), await life.folder(), await life.folder("")) == before
    await life.scanned()
    assert (await life.archive(), await life.folder(), await life.folder("")) == before


async def test_what_changed_meanwhile_is_new(library: Path, lives: Lives) -> None:
    rewrite(library, A)
    life = await lives.begin()
    before, folder = await life.archive(), await life.folder()
    await lives.end()
    rewrite(library, B)
    life = await lives.begin()
    assert (await life.archive()).ctime_ns > before.ctime_ns
    assert (await life.folder()).mtime_ns > folder.mtime_ns


async def test_what_went_meanwhile_went_now(library: Path, lives: Lives, index: Index) -> None:
    """So what comes back is new, in the next life too; other archives stay as they are."""
    rewrite(library, A)
    rewrite(library, A, "roms/other")
    life = await lives.begin()
    before, other = await life.archive(), await life.archive("roms/other.zip")
    await lives.end()
    (library / GAME).rename(library / "roms/.away")
    status = (library / "roms").stat()
    life = await lives.begin()
    await life.scanned()
    await until(lambda: life.tree.catalog._dates._withdrawn)
    assert (await life.folder()).mtime_ns > max(before.ctime_ns, status.st_mtime_ns)
    assert await life.archive("roms/other.zip") == other
    await lives.end()
    gone = index.archive(os.fsencode(ARCHIVE))
    assert gone
    assert gone.inode == NONE
    (library / "roms/.away").rename(library / GAME)
    life = await lives.begin()
    assert (await life.archive()).ctime_ns > gone.since_ns > before.ctime_ns


async def test_what_does_not_answer_has_not_gone(
    library: Path, lives: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is compared after the first scan in which all answers."""
    rewrite(library, A)
    before = await (await lives.begin()).archive()
    await lives.end()
    scans = 0
    survey = scanner_module.survey

    async def silent(*arguments: object) -> AsyncGenerator[Found | Skips, None]:
        nonlocal scans
        scans += 1
        if scans == 1:
            yield Found([], [os.fsencode(GAME)])
            return
        async for step in survey(*arguments):  # type: ignore[arg-type]  # passed on as they came
            yield step

    monkeypatch.setattr(scanner_module, "survey", silent)
    life = await lives.begin()
    await life.scanned()
    life.tree.catalog.rescan()
    await until(lambda: life.tree.catalog._dates._is_compared)
    assert scans == 2
    assert await life.archive() == before


async def test_the_index_is_lost(library: Path, lives: Lives, now: FakeTime) -> None:
    """Only the date is another."""
    rewrite(library, A)
    before = await (await lives.begin()).archive()
    await lives.end()
    with contextlib.closing(Index(":memory:")) as lost:
        sealer = Sealer(Library(str(library)), lost, globs=(b"roms/*",), settle=SETTLE)
        lives.sealer = sealer
        after = await (await lives.begin()).archive()
        assert after.ctime_ns > before.ctime_ns
        assert (after.inode, after.mtime_ns) == (before.inode, before.mtime_ns)
        await lives.end()


async def test_access_that_changes_moves_ctime(library: Path, lives: Lives) -> None:
    """As chmod(2) does. The node that the kernel has shows it, too."""
    rewrite(library, A)
    life = await lives.begin()
    node = await life.tree.sealed(ARCHIVE)
    (library / GAME / "1").chmod(0o600)
    while (after := await life.archive()).mode == node.attributes.mode:  # noqa: ASYNC110 - threads do it
        await trio.sleep(0.002)
    assert after.ctime_ns > node.attributes.ctime_ns
    assert (await life.tree.catalog.refresh(node)).attributes == after


async def test_a_file_that_is_passed_through_has_its_own(library: Path, lives: Lives) -> None:
    path = library / "roms/single.iso"
    make_file(path, b"x")
    life = await lives.begin()
    node = await life.tree.find("roms/single.iso")
    status = path.stat()
    assert node.attributes.mtime_ns == status.st_mtime_ns
    assert node.attributes.ctime_ns == status.st_ctime_ns


# -- Folders -----------------------------------------------------------------------------------


def _come(library: Path) -> None:
    rewrite(library, A, "roms/second")


def _go(library: Path) -> None:
    shutil.rmtree(library / GAME)


def _change(library: Path) -> None:
    (library / GAME / "1").write_bytes(b"another")


def _become_a_folder(library: Path) -> None:
    (library / GAME / "1").unlink()


def _lose_a_file(library: Path) -> None:
    (library / "roms/single.iso").unlink()


@pytest.mark.parametrize("change", [_come, _go, _change, _become_a_folder, _lose_a_file])
async def test_a_folder_moves_with_its_listing(
    library: Path, lives: Lives, now: FakeTime, change: Callable[[Path], object]
) -> None:
    """Though the folder of the library has another date, or none of today."""
    now.ahead_ns = 0
    rewrite(library, A)
    make_file(library / "roms/single.iso", b"x")
    life = await lives.begin()
    await life.scanned()
    archive, listed = await life.archive(), await life.tree.names("roms")
    before, root = await life.folder(), await life.folder("")
    await trio.sleep(0.05)  # more than a tick of the disk's clock
    change(library)
    if change in (_come, _go):
        os.utime(library / "roms", (0, 0))
    if change is _change:
        await life.archive(after=archive)
    else:
        while await life.tree.names("roms") == listed:  # noqa: ASYNC110 - threads do it
            await trio.sleep(0.002)
    after = await life.folder()
    assert after.mtime_ns > before.mtime_ns
    assert (await life.folder("")).mtime_ns == root.mtime_ns  # nothing came or went there


async def test_a_folder_with_one_file_becomes_an_archive(library: Path, lives: Lives) -> None:
    """The folder goes, which the times of the folder above don't show, and the archive comes."""
    rewrite(library, {"1": b"alone"})
    life = await lives.begin()
    await life.scanned()
    assert await life.tree.names("roms") == ["game"]
    before = await life.folder()
    status = (library / "roms").stat()
    make_file(library / GAME / "2", b"another")
    await life.archive()
    assert (await life.folder()).mtime_ns > before.mtime_ns
    assert (library / "roms").stat().st_mtime_ns == status.st_mtime_ns


async def test_a_date_in_the_future_hides_nothing(library: Path, lives: Lives) -> None:
    rewrite(library, A)
    os.utime(library / "roms", (4_000_000_000, 4_000_000_000))
    life = await lives.begin()
    await life.archive()
    before = await life.folder()
    assert before.mtime_ns < 4_000_000_000 * 10**9
    rewrite(library, A, "roms/second")
    os.utime(library / "roms", (4_000_000_000, 4_000_000_000))
    await life.archive("roms/second.zip")
    assert (await life.folder()).mtime_ns > before.mtime_ns


async def test_games_in_the_root(library: Path, nursery: trio.Nursery, index: Index) -> None:
    sealer = Sealer(Library(str(library)), index, globs=(b"*",), settle=SETTLE)
    lives = Lives(nursery, sealer)
    rewrite(library, A, "one")
    life = await lives.begin()
    await life.archive("one.zip")
    before = await life.folder("")
    rewrite(library, A, "two")
    os.utime(library, (0, 0))
    await life.archive("two.zip")
    assert (await life.folder("")).mtime_ns > before.mtime_ns


async def test_variants_and_lists(
    library: Path, place: Path, nursery: trio.Nursery, index: Index, now: FakeTime
) -> None:
    lists = place / "lists"
    lists.mkdir()
    rewrite(library, A)
    view = WithVariants(
        WithLists(Library(str(library)), str(lists), shown_in=b".lists", prefix=b"/library/"),
        [Variant(name=b"small", without=frozenset([b"manual"]))],
    )
    lives = Lives(nursery, Sealer(view, index, globs=(b"roms/*",), settle=SETTLE))
    life = await lives.begin()
    await life.archive()
    before = await life.folder(), await life.folder(".lists")
    make_file(library / GAME / "manual/en.pdf", b"read me")
    write_list(lists / "list.list", text_of(library, [("x", f"{GAME}/1")]))
    os.utime(lists, (0, 0))
    variant = await life.archive("roms/game [small].zip")
    listed = await life.archive(".lists/list.zip")
    after = await life.folder(), await life.folder(".lists")
    assert after[0].mtime_ns >= variant.ctime_ns > before[0].mtime_ns
    assert after[1].mtime_ns >= listed.ctime_ns > before[1].mtime_ns


# -- Saving ------------------------------------------------------------------------------------


async def test_dates_are_saved_in_batches(
    library: Path, lives: Lives, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by each lookup; those that ask again cause no write at all."""
    saved: list[int] = []
    put_dates = index.put_dates

    def counted(archives: Mapping[bytes, Published], folders: Mapping[bytes, int]) -> None:
        saved.append(len(archives))
        put_dates(archives, folders)

    monkeypatch.setattr(index, "put_dates", counted)
    monkeypatch.setattr(dates_module, "_SAVE_SECONDS", 3600.0)
    for number in range(50):
        rewrite(library, A, f"roms/{number}")
    life = await lives.begin()
    await until(lambda: life.tree.catalog.totals().archives == 50)
    for number in range(50):
        await life.archive(f"roms/{number}.zip")
    await life.tree.names("roms")
    await until(lambda: saved)  # the first change is saved at once
    assert len(saved) == 1
    await lives.end()
    assert len(saved) == 2
    assert sum(saved) >= 50
    assert len([path for path, _ in index.archives_after(b"")[0]]) == 50
    life = await lives.begin()
    await life.scanned()
    await life.tree.names("roms")
    await lives.end()
    assert len(saved) == 2


async def test_what_changes_while_it_is_saved_is_saved_after(
    library: Path, lives: Lives, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    dates = Catalog(lives.sealer, Limits(64, 8))._dates
    dates.published(b"a.zip", 5, None)
    put_dates = index.put_dates

    def slow(archives: Mapping[bytes, Published], folders: Mapping[bytes, int]) -> None:
        put_dates(archives, folders)
        trio.from_thread.run_sync(dates.withdrawn, b"a.zip", archives[b"a.zip"].since_ns)

    monkeypatch.setattr(index, "put_dates", slow)
    await dates.save()
    monkeypatch.setattr(index, "put_dates", put_dates)
    saved = index.archive(b"a.zip")
    assert saved
    assert saved.inode == 5
    await dates.save()
    withdrawn = index.archive(b"a.zip")
    assert withdrawn
    assert withdrawn.inode == NONE
    assert withdrawn.since_ns > saved.since_ns


# -- Memory ------------------------------------------------------------------------------------


async def test_what_went_is_remembered_in_bounds(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dates_module, "_MEMORY", 3)
    dates = dates_module.Dates(index, lambda _: None)
    paths = [b"roms/%d.zip" % number for number in range(7)]
    since = {path: dates.published(path, 5, None) for path in paths}
    for path in paths:
        dates.withdrawn(path, since[path])
    # Only what is saved may be forgotten.
    assert set(dates._withdrawn) == set(paths)
    await dates.save()
    assert list(dates._withdrawn) == paths[-3:]
    for path in paths:
        # The same content is new once more, whoever remembers that it went.
        last = dates.last(path)
        assert last is not None
        assert last.inode == NONE
        assert dates.published(path, 5, last) > last.since_ns > since[path]


async def test_what_goes_while_it_is_saved_is_not_forgotten(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dates_module, "_MEMORY", 0)
    dates = dates_module.Dates(index, lambda _: None)
    put_dates = index.put_dates

    def put(archives: Mapping[bytes, Published], folders: Mapping[bytes, int]) -> None:
        put_dates(archives, folders)
        if b"roms/a.zip" in archives:
            trio.from_thread.run_sync(dates.withdrawn, b"roms/b.zip", 7)

    monkeypatch.setattr(index, "put_dates", put)
    dates.withdrawn(b"roms/a.zip", 7)
    await dates.save()
    assert list(dates._withdrawn) == [b"roms/b.zip"]
    await dates.save()
    assert not dates._withdrawn
