"""The tree as it is now, and the work that makes it known (DESIGN S1, S2, R2, H4)."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.fs.conftest import SETTLE, Tree
from tests.fs.lab import FakeTime, open_below, until
from tests.support.libraries import content, expected, make_file, make_game
from tests.support.waiting import SECONDS
from zipfs.catalog import game as game_module
from zipfs.catalog.nodes import Archive, File, Folder
from zipfs.catalog.tree import Catalog
from zipfs.errors import ChangedError, StaleError
from zipfs.index.hash_file import FileHasher
from zipfs.index.index import Index
from zipfs.library.filestate import BLOCK, FileState
from zipfs.library.library import Library
from zipfs.library.proven import DisprovedError
from zipfs.library.rules.romm import Rules
from zipfs.sealing.outcomes import Examination, Sealed, Version
from zipfs.sealing.sealer import Sealer
from zipfs.system.process import Limits
from zipfs.system.threads import retries


class Looks:
    """Counts how often each game is looked at."""

    def __init__(self, sealer: Sealer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counts: Counter[bytes] = Counter()
        examine = sealer.examine

        def counted(game: bytes, *rest: object, **keywords: object) -> object:
            self.counts[game] += 1
            return examine(game, *rest, **keywords)  # type: ignore[arg-type]  # passed on as they came

        monkeypatch.setattr(sealer, "examine", counted)

    @property
    def total(self) -> int:
        return self.counts.total()


@pytest.fixture
def looks(sealer: Sealer, monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(sealer, monkeypatch)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the hashing of each file was begun, by name."""
    counts: Counter[str] = Counter()
    start = FileHasher.__init__

    def counted(self: FileHasher, path: bytes, *rest: object, **others: object) -> None:
        counts[os.fsdecode(os.path.basename(path))] += 1
        start(self, path, *rest, **others)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(FileHasher, "__init__", counted)
    return counts


async def a_moment() -> None:
    """Long enough for something that goes round in circles to be noticed by its counts."""
    await trio.sleep(0.2)
    await trio.testing.wait_all_tasks_blocked()


# -- What is there -----------------------------------------------------------------------


async def test_the_tree(library: Path, running: Tree) -> None:
    game = make_game(library, "roms/game", {"1": b"1", "sub/2": content(3000)})
    make_game(library, "roms/one file", {"1": b"1"})
    make_file(library / "roms/single.iso", b"iso")
    make_file(library / "readme", b"read me")
    (library / "roms/out").symlink_to("/etc")
    node = await running.sealed("roms/game.zip")
    wanted = expected(game)
    assert node.attributes.inode == wanted.inode("roms/game.zip")
    assert node.attributes.size == wanted.size
    assert node.attributes.mtime_ns == wanted.mtime_ns
    assert node.attributes.mode == 0o100444
    version = await running.catalog.open(node)
    assert version.sealed.content == wanted.content_id

    assert await running.names("") == ["readme", "roms"]
    assert await running.names("roms") == ["game.zip", "one file", "single.iso"]
    assert await running.names("roms/one file") == ["1"]
    assert isinstance(await running.find("roms/one file"), Folder)
    file = await running.find("roms/single.iso")
    assert isinstance(file, File)
    assert (file.size, file.attributes.mode) == (3, 0o100444)
    assert file.digests == ()
    for missing in ("roms/game", "roms/out", "roms/none.zip", "roms/.zip", "roms/one file.zip"):
        assert not await running.is_there(missing)
    nodes = dict(await running.catalog.children(await running.folder("roms")))
    assert nodes[b"game.zip"] == node
    assert nodes[b"single.iso"] == file


async def test_before_it_is_sealed_it_isnt_there(
    library: Path, tree: Tree, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1; nothing here works in the background, so nothing waits for it either."""
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    assert not await tree.is_there("roms/game.zip")
    assert not await tree.is_there("roms/game")
    assert await tree.names("roms") == []
    assert tree.catalog.totals().unsealed == 1
    monkeypatch.setattr(tree.catalog.hasher, "run", trio.sleep_forever)
    nursery.start_soon(tree.catalog.run)
    await until(lambda: tree.catalog.totals().pending_bytes == 2)
    assert tree.catalog.totals().unsealed == 1


async def test_what_is_asked_for_is_sealed_first(
    library: Path,
    tree: Tree,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S2."""
    order: list[str] = []
    start = FileHasher.__init__

    def watched(self: FileHasher, path: bytes, *rest: object, **others: object) -> None:
        order.append(os.fsdecode(path).split("/")[-2])
        start(self, path, *rest, **others)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(FileHasher, "__init__", watched)
    run, go_on = tree.catalog.hasher.run, trio.Event()

    async def later() -> None:
        await go_on.wait()
        await run()

    monkeypatch.setattr(tree.catalog.hasher, "run", later)
    for number in range(5):
        make_game(library, f"roms/{number}", {"1": b"x" * (number + 1), "2": b"x"})
    nursery.start_soon(tree.catalog.run)
    await until(lambda: len(tree.catalog.hasher) == 10)
    assert not await tree.is_there("roms/3.zip")
    go_on.set()
    await tree.sealed("roms/4.zip")
    assert order[:2] == ["3", "3"]
    assert len(order) == 10


async def test_games_with_other_names(library: Path, running: Tree) -> None:
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    make_file(library / "roms/game.zip", b"a real one")
    node = await running.sealed("roms/game (folder).zip")
    assert isinstance(await running.find("roms/game.zip"), File)
    assert await running.names("roms") == ["game (folder).zip", "game.zip"]
    assert not await running.is_there("roms/game (folder 2).zip")
    version = await running.catalog.open(node)
    assert version.sealed.path == b"roms/game (folder).zip"


async def test_a_game_behind_a_link(library: Path, running: Tree) -> None:
    make_game(library, "store/x", {"1": b"1", "2": b"2"})
    (library / "roms").mkdir()
    (library / "roms/game").symlink_to("../store/x")
    node = await running.sealed("roms/game.zip")
    assert (await running.catalog.open(node)).sealed.count == 2
    # And when the link leads elsewhere, the old archive is gone at once, also while it is fresh.
    make_game(library, "store/y", {"1": b"1", "2": b"2", "3": b"3"})
    (library / "roms/game").unlink()
    (library / "roms/game").symlink_to("../store/y")
    await running.catalog.open(node)
    assert not await running.is_there("roms/game.zip")
    other = await running.sealed("roms/game.zip")
    assert (await running.catalog.open(other)).sealed.count == 3
    with pytest.raises(StaleError):
        await running.catalog.open(node)


async def test_two_games_share_a_file(library: Path, running: Tree, reads: Counter[str]) -> None:
    make_game(library, "roms/a", {"1": content(5 * BLOCK)})
    make_game(library, "roms/b", {"2": b"2"})
    (library / "roms/a/2").symlink_to("../b/2")
    (library / "roms/b/1").symlink_to("../a/1")
    a, b = await running.sealed("roms/a.zip"), await running.sealed("roms/b.zip")
    assert (await running.catalog.open(a)).sealed.content == (
        await running.catalog.open(b)
    ).sealed.content
    assert reads == {"1": 1, "2": 1}


async def test_a_folder_that_is_gone(library: Path, tree: Tree) -> None:
    make_file(library / "other/file", b"x")
    folder = await tree.folder("other")
    assert await tree.catalog.refresh(folder) == folder
    (library / "other").chmod(0o711)
    refreshed = await tree.catalog.refresh(folder)
    assert refreshed.attributes.mode == 0o40511
    shutil.rmtree(library / "other")
    with pytest.raises(FileNotFoundError):
        await tree.catalog.refresh(folder)
    with pytest.raises(FileNotFoundError):
        await tree.catalog.children(folder)
    with pytest.raises(FileNotFoundError):
        await tree.catalog.lookup(folder, b"file")
    shutil.rmtree(library)
    with pytest.raises(FileNotFoundError):
        await tree.catalog.root()


async def test_links_that_lead_in_circles_have_an_end(library: Path, tree: Tree) -> None:
    make_file(library / "a/file", b"")
    (library / "a/up").symlink_to("..")
    (library / "a/b").symlink_to("../b")
    make_file(library / "b/file", b"")
    (library / "b/a").symlink_to("../a")
    found = []
    todo = [""]
    while todo:
        path = todo.pop()
        for name, node in await tree.catalog.children(await tree.folder(path)):
            below = f"{path}/{os.fsdecode(name)}".lstrip("/")
            found.append(below)
            if isinstance(node, Folder):
                todo.append(below)
        assert len(found) < 100
    assert "a/b/file" in found
    assert "a/up" not in found
    assert "a/b/a" not in found


async def test_the_file_system_that_the_library_is_on(library: Path, tree: Tree) -> None:
    assert (await tree.catalog.statvfs()).f_blocks == os.statvfs(library).f_blocks


# -- Being looked at ---------------------------------------------------------------------


async def test_what_was_looked_at_a_moment_ago_is_taken_as_it_is(
    library: Path, running: Tree, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(game_module, "FRESH", 3600.0)
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    node = await running.sealed("roms/game.zip")
    await running.catalog.open(node)  # what isn't open has no version at hand
    before = looks.total
    for _ in range(50):
        assert await running.archive("roms/game.zip") == node
        assert await running.names("roms") == ["game.zip"]
        await running.catalog.open(node)
    assert looks.total == before
    monkeypatch.setattr(game_module, "FRESH", 0.0)
    monkeypatch.setattr(game_module, "_SHARE", 0.0)
    running.catalog._listings.clear()  # one that was made meanwhile lasts for as long as then
    await running.archive("roms/game.zip")
    await running.names("roms")
    await running.catalog.open(node)
    assert looks.total == before + 3


async def test_many_clients_are_one_look(
    library: Path, running: Tree, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    await running.sealed("roms/game.zip")
    monkeypatch.setattr(game_module, "FRESH", 3600.0)
    game = running.game("roms/game")
    assert game
    game.invalidated = time.monotonic()
    before = looks.total
    async with trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(running.archive, "roms/game.zip")
    assert looks.total == before + 1


async def test_a_change_shows(library: Path, running: Tree, stale: None) -> None:
    """V4, R1: the old version can't be opened any more, the new one has another inode."""
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    old = await running.sealed("roms/game.zip")
    version = await running.catalog.open(old)
    (game / "2").write_bytes(b"two")
    with pytest.raises(StaleError):
        await running.catalog.open(old)
    new = await running.sealed("roms/game.zip")
    assert new.attributes.inode != old.attributes.inode
    assert (await running.catalog.open(new)).sealed.count == 2
    with pytest.raises(StaleError):
        await running.catalog.open(old)
    assert version.size == old.attributes.size  # whoever has it open still has it

    (game / "2").unlink()
    assert not await running.is_there("roms/game.zip")
    assert isinstance(await running.find("roms/game"), Folder)
    with pytest.raises(StaleError):
        await running.catalog.open(new)
    shutil.rmtree(game)
    assert await running.names("roms") == []
    assert running.catalog.totals().archives == 0


async def test_a_new_game_settles_without_being_asked_for(
    library: Path, index: Index, nursery: trio.Nursery
) -> None:
    """By the real clock: nobody but the timer looks again."""
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    sealer = Sealer(Library(str(library)), index, globs=(b"roms/*",), settle=0.1)
    tree = Tree(Catalog(sealer, Limits(64, 8)))
    nursery.start_soon(tree.catalog.run)
    await until(lambda: tree.catalog.totals().archives == 1)


async def test_doubt(library: Path, running: Tree, looks: Looks) -> None:
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    node = await running.sealed("roms/game.zip")
    (game / "1").write_bytes(b"other")
    running.catalog.failed(node, ChangedError())
    running.catalog.failed(
        await running.folder("roms"), ChangedError()
    )  # only archives can be doubted
    await until(lambda: running.was_looked_at("roms/game"))
    assert (await running.sealed("roms/game.zip")).attributes.inode != node.attributes.inode


async def test_changes_told_of_while_it_ends(library: Path, tree: Tree) -> None:
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    (library / "roms/out").symlink_to("/etc")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.catalog.run)
        node = await tree.sealed("roms/game.zip")
        await until(lambda: tree.catalog.skipped.is_known(b"roms/out"))
        nursery.cancel_scope.cancel()
    (game / "1").write_bytes(b"other")
    make_game(library, "roms/new", {"1": b"1", "2": b"2"})
    tree.catalog.changed({b"roms/game/1", b"roms/out", b"roms/new"})
    tree.catalog.failed(node, ChangedError())


def validators_of(node: Archive) -> tuple[int, int, int]:
    """All that is the same when a version is there again."""
    return node.attributes.inode, node.attributes.size, node.attributes.mtime_ns


async def test_disproved(
    library: Path, running: Tree, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file has other bytes in the state in which it was hashed."""
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    node = await running.sealed("roms/game.zip")
    version = await running.catalog.open(node)
    number = [file.path for file in version.files].index(b"1")
    error = DisprovedError(version.files[number], version.digests[number])
    # What was right, but for one read, is there again as it was.
    running.catalog.failed(node, error)
    await until(lambda: reads["1"] == 2)
    assert validators_of(await running.sealed("roms/game.zip")) == validators_of(node)
    assert reads["2"] == 1
    of = FileState.of
    state = version.files[number].state

    def as_before(status: os.stat_result) -> FileState:
        found = of(status)
        return state if found.inode == state.inode else found

    monkeypatch.setattr(FileState, "of", as_before)
    (game / "1").write_bytes(b"!")
    os.utime(game / "1", ns=(state.mtime_ns, state.mtime_ns))
    assert validators_of(await running.sealed("roms/game.zip")) == validators_of(node)
    running.catalog.failed(node, error)
    await until(lambda: reads["1"] == 3)
    found = await running.sealed("roms/game.zip")
    assert found.attributes.inode == expected(game).inode("roms/game.zip")
    assert found.attributes.inode != node.attributes.inode
    # The other archives of the file, if there are some, have the old bytes; the new ones stay.
    running.catalog.failed(found, error)
    await until(lambda: running.was_looked_at("roms/game"))
    assert validators_of(await running.sealed("roms/game.zip")) == validators_of(found)
    assert reads["1"] == 3


async def test_all_that_may_have_changed_together_is_hashed_again(
    library: Path, running: Tree, reads: Counter[str]
) -> None:
    """Though others have taken the place of its version in the cache meanwhile."""
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    node = await running.sealed("roms/game.zip")
    version = await running.catalog.open(node)
    files = tuple(replace(file, by_content=True) for file in version.files)
    running.catalog._games.versions.drop(node.attributes.inode)
    error = DisprovedError(version.files[0], version.digests[0])
    running.catalog.failed(node, error, replace(version, files=files))
    await until(lambda: reads["1"] == reads["2"] == 2)
    assert validators_of(await running.sealed("roms/game.zip")) == validators_of(node)


async def test_a_look_that_began_before_the_doubt_is_no_answer(
    library: Path, running: Tree, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    node = await running.sealed("roms/game.zip")
    monkeypatch.setattr(game_module, "FRESH", 3600.0)
    examine = sealer.examine
    looked, go_on = threading.Event(), threading.Event()

    def slow(*arguments: object, **keywords: object) -> tuple[Examination, Version | None]:
        found = examine(*arguments, **keywords)  # type: ignore[arg-type]  # passed on as they came
        if not looked.is_set():
            looked.set()
            assert go_on.wait(SECONDS)
        return found

    monkeypatch.setattr(sealer, "examine", slow)
    running.catalog.failed(node, ChangedError())
    await until(looked.is_set)
    (game / "1").write_bytes(b"other")
    running.catalog.failed(node, ChangedError())
    go_on.set()
    await until(lambda: running.was_looked_at("roms/game"))
    found = running.game("roms/game")
    outcome = found and found.outcome
    assert not isinstance(outcome, Sealed) or outcome.inode != node.attributes.inode


# -- In the background -------------------------------------------------------------------


async def test_everything_is_sealed_is_said_once(
    library: Path, running: Tree, caplog: pytest.LogCaptureFixture, stale: None
) -> None:
    caplog.set_level(logging.INFO, logger="zipfs.catalog.games")

    def said() -> list[str]:
        return [line for line in caplog.messages if line.startswith("everything is sealed")]

    sizes = []
    for number in range(3):
        game = make_game(library, f"roms/{number}", {"1": b"1", "2": b"2"})
        sizes.append(expected(game).size)
    running.catalog.rescan()
    await until(lambda: running.catalog.totals().archives == 3)
    await until(said)
    for _ in range(3):
        await running.names("roms")
        running.catalog.rescan()
        await a_moment()
    assert said()[-1] == f"everything is sealed: 3 archives, 6 members, {sum(sizes)} bytes"
    count = len(said())
    make_file(library / "roms/1/3", b"3")
    await running.names("roms")
    await until(lambda: running.catalog.totals().members == 7)
    await until(lambda: len(said()) == count + 1)
    assert "7 members" in said()[-1]


async def test_a_survey_forgets_what_is_gone(
    library: Path, running: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        make_game(library, f"roms/{number}", {"1": b"1", "2": b"2"})
    for number in range(4):
        await running.sealed(f"roms/{number}.zip")
    shutil.rmtree(library / "roms/1")
    (library / "roms/2").rename(library / "2")
    running.catalog.rescan()
    await until(lambda: running.catalog.totals().archives == 2)
    games = running.games
    assert sorted(games._games) == [b"roms/0", b"roms/3"]
    assert sorted(games._by_archive) == [b"roms/0.zip", b"roms/3.zip"]
    shutil.rmtree(library / "roms")
    running.catalog.rescan()
    await until(lambda: not games._games)
    assert (games._by_archive, games._unsealed, games.versions._versions) == ({}, set(), {})
    assert games.versions._memory == 0


async def test_one_bad_game_doesnt_hide_the_others(
    library: Path,
    tree: Tree,
    sealer: Sealer,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """H4."""
    examine = sealer.examine

    def odd(game: bytes, *rest: object, **keywords: object) -> object:
        if game == b"roms/1":
            raise LookupError("a defect")
        return examine(game, *rest, **keywords)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(sealer, "examine", odd)
    for number in range(3):
        make_game(library, f"roms/{number}", {"1": b"1", "2": b"2"})
    nursery.start_soon(tree.catalog.run)
    await until(lambda: tree.catalog.totals().archives == 2)
    await until(lambda: any(line.exc_info for line in caplog.records))


async def test_only_so_many_versions_are_kept(
    library: Path, running: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running.games.versions, "_limit", 10_000)
    for number in range(12):
        make_game(library, f"roms/{number}", {"1": b"1", "2": b"2"})
    running.catalog.rescan()
    nodes = [await running.sealed(f"roms/{number}.zip") for number in range(12)]
    kept = running.games.versions
    for _ in range(2):
        for node in nodes:
            version = await running.catalog.open(node)
            assert version.sealed.inode == node.attributes.inode
            assert kept._memory <= 10_000
            assert kept._memory == sum(v.memory for v in kept._versions.values())
    assert 1 < len(kept) < 6
    monkeypatch.setattr(running.games.versions, "_limit", 0)
    await running.catalog.open(nodes[0])
    await running.catalog.open(nodes[1])
    assert len(kept) == 1  # one may be larger than all memory


async def test_what_was_hashed_is_kept(
    library: Path, running: Tree, index: Index, reads: Counter[str]
) -> None:
    """S3."""
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    await running.sealed("roms/game.zip")
    await running.catalog.save()
    assert set(index.files([b"roms/game/1", b"roms/game/2"])) == {b"roms/game/1", b"roms/game/2"}
    sealer = Sealer(running.catalog._library, index, globs=(b"roms/*",), settle=SETTLE)
    assert await Tree(Catalog(sealer, Limits(64, 8))).is_there("roms/game.zip")
    assert reads == {"1": 1, "2": 1}


async def test_its_end_saves_what_was_hashed_so_far(
    library: Path, tree: Tree, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_game(library, "roms/game", {"1": b"1", "2": b"22"})
    advance = FileHasher.advance
    reading, go_on = threading.Event(), threading.Event()

    def slow(self: FileHasher, limit: int) -> object:
        if self._state.size == 2:
            reading.set()
            assert go_on.wait(SECONDS)
        return advance(self, limit)

    monkeypatch.setattr(FileHasher, "advance", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.catalog.run)
        await until(reading.is_set)
        await until(lambda: tree.catalog.totals().pending_bytes == 2)  # it has heard of the other
        nursery.cancel_scope.cancel()
    await tree.catalog.save()
    assert set(index.files([b"roms/game/1", b"roms/game/2"])) == {b"roms/game/1"}
    go_on.set()
    await until(lambda: not open_below(library))


# -- What can't be hashed ----------------------------------------------------------------


Preadv = Callable[[int, list[memoryview], int], int]


class BadDisk:
    """Reading the files named ``bad`` gives what *then* says."""

    def __init__(self, then: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
        self.attempts = 0
        self.broken = True
        preadv = os.preadv

        def read(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
            if not os.readlink(f"/proc/self/fd/{descriptor}").endswith("/bad") or not self.broken:
                return preadv(descriptor, buffers, offset, flags)
            self.attempts += not flags
            return then()

        monkeypatch.setattr(os, "preadv", read)


def unreadable() -> int:
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("then", [unreadable, lambda: 0], ids=["an I/O error", "no bytes"])
async def test_a_file_that_cant_be_hashed_is_tried_now_and_then(
    then: Callable[[], int],
    library: Path,
    tree: Tree,
    looks: Looks,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    stale: None,
) -> None:
    """It must neither spin by itself nor with everybody who asks; nor hold up the others."""
    monkeypatch.setattr(retries, "SHORTEST", retries.LONGEST)
    disk = BadDisk(then, monkeypatch)
    make_game(library, "roms/game", {"1": b"1", "bad": b"2"})
    make_game(library, "roms/good", {"1": b"1", "2": b"2"})
    nursery.start_soon(tree.catalog.run)
    await tree.sealed("roms/good.zip")
    await until(lambda: disk.attempts)
    await a_moment()
    assert disk.attempts == 1
    assert looks.counts[b"roms/game"] < 10
    for _ in range(100):
        assert not await tree.is_there("roms/game.zip")
    await a_moment()
    assert disk.attempts == 1
    if then is unreadable:
        said = [line for line in caplog.messages if "roms/game/bad" in line]
        assert len(said) == 1
        assert "Input/output error" in said[0]


@pytest.mark.parametrize("then", [unreadable, lambda: 0], ids=["an I/O error", "no bytes"])
async def test_it_is_there_when_the_disk_is_well_again(
    then: Callable[[], int],
    library: Path,
    tree: Tree,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retries, "SHORTEST", 0.05)
    disk = BadDisk(then, monkeypatch)
    make_game(library, "roms/game", {"1": b"1", "bad": b"2"})
    nursery.start_soon(tree.catalog.run)
    await until(lambda: disk.attempts >= 3)
    assert not tree.games.by_archive(b"roms/game.zip")
    disk.broken = False
    await tree.sealed("roms/game.zip")


@pytest.mark.parametrize("then", [unreadable, lambda: 0], ids=["an I/O error", "no bytes"])
async def test_it_is_there_when_the_file_is_another(
    then: Callable[[], int],
    library: Path,
    tree: Tree,
    sealer: Sealer,
    clock: FakeTime,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    stale: None,
) -> None:
    """Mended by hand, it is seen as soon as any change, not when the retry is due."""
    monkeypatch.setattr(retries, "SHORTEST", retries.LONGEST)
    disk = BadDisk(then, monkeypatch)
    game = make_game(library, "roms/game", {"1": b"1", "bad": b"2"})
    nursery.start_soon(tree.catalog.run)
    await until(lambda: disk.attempts)
    await a_moment()
    (game / "bad").unlink()
    make_file(game / "good", b"2")
    clock.ahead_ns = -(10**15)  # so that it has to settle, and somebody to look again
    monkeypatch.setattr(sealer, "settle", 0.2)
    assert not await tree.is_there("roms/game.zip")
    await until(lambda: tree.games.by_archive(b"roms/game.zip"))
    assert disk.attempts == 1


async def test_a_file_that_is_refused_is_left_out(
    library: Path,
    running: Tree,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its bits say that it can be read, its server doesn't agree."""
    open_it = FileHasher._open
    attempts = []

    def refused(self: FileHasher) -> None:
        if self._path.endswith(b"/refused"):
            attempts.append(self._path)
            raise PermissionError(errno.EACCES, "Permission denied")
        open_it(self)

    monkeypatch.setattr(FileHasher, "_open", refused)
    make_game(library, "roms/game", {"1": b"1", "2": b"2", "refused": b"3"})
    node = await running.sealed("roms/game.zip")
    assert (await running.catalog.open(node)).sealed.count == 2
    await a_moment()
    assert len(attempts) == 1
    assert caplog.messages == ["roms/game/refused is left out: a file that can't be read"]


@pytest.mark.parametrize("refused", [True, False])
async def test_many_files_that_fail_are_few_looks(
    refused: bool,
    library: Path,
    running: Tree,
    looks: Looks,
    reads: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A look takes as long as the game is large; one for each file of a dead disk has no end."""
    open_it = FileHasher._open

    def failing(self: FileHasher) -> None:
        if self._path.endswith(b".bad"):
            raise OSError(errno.EACCES if refused else errno.EIO, "no")
        open_it(self)

    monkeypatch.setattr(FileHasher, "_open", failing)
    files = {f"{number}.bad": b"x" for number in range(200)}
    make_game(library, "roms/game", files | {"good": b"x" * 10, "fine": b"x" * 5})
    running.catalog.rescan()
    await until(lambda: len(reads) == 202)
    await a_moment()
    assert looks.total < 10
    assert set(reads.values()) == {1}
    assert await running.is_there("roms/game.zip") == refused
    if refused:
        node = await running.archive("roms/game.zip")
        assert (await running.catalog.open(node)).sealed.count == 2


async def test_a_file_that_keeps_changing(
    library: Path,
    index: Index,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is written to each time that it is hashed; the rest of the library doesn't suffer."""
    sealer = Sealer(Library(str(library)), index, globs=(b"roms/*",), settle=0.05)
    tree = Tree(Catalog(sealer, Limits(64, 8)))
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    make_game(library, "roms/good", {"1": b"11", "2": b"22"})
    advance = FileHasher.advance
    changing = True

    def written(self: FileHasher, limit: int) -> object:
        if changing and self._state.size == 1:
            (game / "1").write_bytes(b"1")
            (game / "2").write_bytes(b"2")
        return advance(self, limit)

    monkeypatch.setattr(FileHasher, "advance", written)
    nursery.start_soon(tree.catalog.run)
    await tree.sealed("roms/good.zip")
    changing = False
    await tree.sealed("roms/game.zip")


async def test_clients_that_poll_cost_nothing(
    library: Path,
    tree: Tree,
    nursery: trio.Nursery,
    reads: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """try_files asks for each request; no file is hashed twice for it."""
    files = {f"{number:03}": b"x" * (number + 1) for number in range(100)}
    make_game(library, "roms/game", files)
    advance = FileHasher.advance
    step = threading.Semaphore(0)

    def stepwise(self: FileHasher, limit: int) -> object:
        assert step.acquire(timeout=SECONDS)
        return advance(self, limit)

    monkeypatch.setattr(FileHasher, "advance", stepwise)
    nursery.start_soon(tree.catalog.run)
    for number in range(100):
        assert not await tree.is_there("roms/game.zip")
        if number % 10 == 0:
            game = tree.game("roms/game")
            assert game
            game.invalidated = time.monotonic()
        step.release()
    await tree.sealed("roms/game.zip")
    assert set(reads.values()) == {1}
    assert len(reads) == 100


# -- Slow disks --------------------------------------------------------------------------


async def test_a_stuck_game_delays_nobody_else(
    library: Path, running: Tree, sealer: Sealer, monkeypatch: pytest.MonkeyPatch, stale: None
) -> None:
    """R3, for looking: a dead disk under one game."""
    make_game(library, "roms/stuck", {"1": b"1", "2": b"2"})
    make_game(library, "roms/good", {"1": b"1", "2": b"2"})
    await running.sealed("roms/stuck.zip")
    await running.sealed("roms/good.zip")
    examine = sealer.examine
    go_on = threading.Event()

    def stuck(game: bytes, *rest: object, **keywords: object) -> object:
        if game == b"roms/stuck":
            assert go_on.wait(SECONDS)
        return examine(game, *rest, **keywords)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(sealer, "examine", stuck)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(running.archive, "roms/stuck.zip")
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(20):
            assert isinstance(await running.archive("roms/good.zip"), Archive)
        go_on.set()


# -- Other rules ---------------------------------------------------------------------------


@pytest.mark.parametrize("hanging", [False, True])
async def test_other_rules_hold_for_each_game(
    library: Path,
    index: Index,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    hanging: bool,
) -> None:
    """Also for those looked at a moment ago, and if finding out about them took too long."""
    monkeypatch.setattr(game_module, "FRESH", 3600.0)
    make_game(library, "roms/psx/one", {"1": b"1", "2": b"2", "3.nfo": b"3"})
    make_game(library, "roms/psx/two", {"1": b"1", "2": b"2"})
    make_game(library, "roms/ps2/game", {"1": b"1", "2": b"2"})
    sealer = Sealer(Library(str(library)), index, rules=Rules(), settle=0.1)
    tree = Tree(Catalog(sealer, Limits(64, 8)))
    nursery.start_soon(tree.catalog.run)
    old = [await tree.sealed(f"roms/psx/{name}.zip") for name in ("one", "two")]
    await tree.sealed("roms/ps2/game.zip")
    adopt = sealer.adopt

    def slow(rules: Rules) -> None:
        adopt(rules)
        if hanging:
            raise TimeoutError

    monkeypatch.setattr(sealer, "adopt", slow)
    await tree.catalog.reselect(Rules(extensions=("nfo",), platforms=("ps2",)))
    await until(lambda: tree.catalog.totals().archives == 2 and tree.game("roms/ps2/game") is None)
    await until(lambda: tree.catalog.totals().members == 4)
    new = [await tree.sealed(f"roms/psx/{name}.zip") for name in ("one", "two")]
    assert new[0].attributes.inode != old[0].attributes.inode
    assert new[1] == old[1]
    assert isinstance(await tree.find("roms/ps2/game"), Folder)
