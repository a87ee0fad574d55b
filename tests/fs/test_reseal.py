"""What a game that isn't quiet waits for, what ends a wait, and that it ends itself."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, TypeVar
from unittest.mock import AsyncMock, Mock

import pytest
import trio

from tests.fs.conftest import Tree
from tests.fs.lab import FakeTime, until
from tests.support.libraries import make_game
from zipfs.catalog import game as game_module
from zipfs.catalog.background import scanner
from zipfs.catalog.game import Game, Reseal
from zipfs.catalog.tree import Catalog
from zipfs.index import unsaved
from zipfs.index.hash_jobs import Request
from zipfs.index.hash_queue import Hasher
from zipfs.index.index import Index
from zipfs.library.library import Library
from zipfs.library.scan import Place
from zipfs.sealing.outcomes import Examination, Sealed, Unhashed
from zipfs.sealing.sealer import Sealer
from zipfs.system.process import Limits
from zipfs.system.threads import retries
from zipfs.system.threads.agenda import WORKERS, Agenda, Stage

T = TypeVar("T")

GAME = b"roms/game"
TWO = {"1": b"1", "2": b"22"}


def at_work(tree: Tree) -> int:
    """How many games aren't quiet."""
    return len(tree.catalog._resealer._agenda)


@pytest.fixture
def nothing_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def idle(self: Hasher) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(Hasher, "run", idle)


async def to_be_hashed(library: Path, running: Tree) -> tuple[Path, Game, Request]:
    """The folder of a game, itself, and its files in the hash queue."""
    folder = make_game(library, "roms/game", TWO)
    running.catalog.rescan()
    await until(lambda: running.catalog.totals().pending_bytes == 3)
    game = running.game("roms/game")
    assert game
    assert game.reseal
    assert game.reseal.request
    return folder, game, game.reseal.request


async def sealed_and_quiet(running: Tree) -> None:
    """Wait until the game has its archive, and nothing is to be done for it."""
    await until(lambda: running.games.by_archive(b"roms/game.zip"))
    await until(lambda: at_work(running) == 0)


async def test_quiet_games_have_no_state(library: Path, running: Tree) -> None:
    """There may be 100,000 of them."""
    for number in range(20):
        make_game(library, f"roms/{number}", TWO)
    running.catalog.rescan()
    await until(lambda: running.catalog.totals().archives == 20)
    await until(lambda: at_work(running) == 0)
    assert all(game.reseal is None for game in running.games)
    # And none is left of those that are only looked at.
    await running.names("roms")
    await running.archive("roms/1.zip")
    assert at_work(running) == 0


async def test_whatever_waits_has_no_coroutine(
    library: Path, running: Tree, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be 20,000 of them, when all of a library changes at once; each would take 15 KB."""
    count = 200
    folders = [make_game(library, f"roms/{number}", TWO) for number in range(count)]
    running.catalog.rescan()
    await until(lambda: running.catalog.totals().archives == count)
    await until(lambda: at_work(running) == 0)
    task = trio.lowlevel.current_root_task()
    assert task
    before = tasks_below(task)
    answers = threading.Event()
    examine = sealer.examine

    def slow(*arguments: object, **keywords: object) -> object:
        answers.wait(30)
        return examine(*arguments, **keywords)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(sealer, "examine", slow)
    try:
        for folder in folders:
            (folder / "1").chmod(0o600)
        running.catalog.changed({b"roms/" + os.fsencode(folder.name) for folder in folders})
        await until(lambda: at_work(running) == count)
        await until(lambda: running.catalog._resealer._agenda.workers == WORKERS)
        # Each with those that watch how long it waits for its thread.
        assert tasks_below(task) - before <= 3 * WORKERS
    finally:
        answers.set()
    await until(lambda: at_work(running) == 0)
    assert running.catalog.totals().archives == count


def tasks_below(task: trio.lowlevel.Task) -> int:
    """How many tasks there are."""
    return 1 + sum(
        tasks_below(child) for each in task.child_nurseries for child in each.child_tasks
    )


@pytest.mark.usefixtures("nothing_is_hashed")
async def test_it_ends_with_the_game(library: Path, running: Tree) -> None:
    folder, _, _ = await to_be_hashed(library, running)
    assert at_work(running) == 1
    shutil.rmtree(folder)
    assert await running.names("roms") == []
    await until(lambda: at_work(running) == 0)
    assert running.catalog.totals().unsealed == 0


@pytest.mark.usefixtures("nothing_is_hashed", "stale")
async def test_another_outcome_is_what_it_goes_by(library: Path, running: Tree) -> None:
    """Whoever has found it: what was to be hashed isn't there any more, and the rest is new."""
    folder, game, first = await to_be_hashed(library, running)
    (folder / "2").rename(folder / "3")
    (folder / "1").unlink()
    make_game(library, "roms/game", {"4": b"4444"})
    assert not await running.is_there("roms/game.zip")
    await until(lambda: game.reseal and game.reseal.request not in (None, first))
    assert game.reseal.request
    assert {file.path for file in game.reseal.request.files} == {b"3", b"4"}
    assert game.reseal.asked
    assert at_work(running) == 1
    assert all(first not in job.requests for job in running.catalog.hasher._jobs.values())


@pytest.mark.usefixtures("nothing_is_hashed")
async def test_whoever_polls_leaves_the_processor_to_hashing(
    library: Path, running: Tree, sealer: Sealer, monkeypatch: pytest.MonkeyPatch, clock: FakeTime
) -> None:
    """A look at a list of half a million files takes long, and says nothing new before the end."""
    folder, game, _ = await to_be_hashed(library, running)
    assert game.examination
    game.examination = replace(game.examination, took=20.0)
    looks = []
    examine = sealer.examine

    def counted(game: bytes, *rest: object, **keywords: object) -> object:
        looks.append(game)
        return examine(game, *rest, **keywords)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(sealer, "examine", counted)
    monkeypatch.setattr(game_module, "time", clock)
    for _ in range(4):
        clock.ahead += 20.0
        assert not await running.is_there("roms/game.zip")
    assert looks == []
    assert game.reseal
    assert game.reseal.asked
    clock.ahead += 20.0  # five times as long as it took
    assert not await running.is_there("roms/game.zip")
    assert looks == [GAME]
    # Whatever is told of a change is looked at all the same.
    game.examination = replace(game.examination, took=20.0)
    (folder / "1").unlink()
    running.catalog.changed({GAME})
    assert not await running.is_there("roms/game.zip")
    assert looks == [GAME] * 2


async def test_a_state_that_ends_while_another_thread_asks() -> None:
    """Whether what is known is valid is asked in worker threads."""

    class Ending(Game):
        states: ClassVar[list[Reseal | None]] = []

        @property
        def reseal(self) -> Reseal | None:
            return self.states.pop(0)

        @reseal.setter
        def reseal(self, state: Reseal | None) -> None:
            pass

    game = Ending(GAME, Place(GAME, frozenset()))
    game.states[:] = [Reseal(game, Agenda(Mock(), AsyncMock(), Mock())), None]
    started = time.monotonic()
    game.examination = Examination(started, b"", started, Unhashed(()))
    assert game.is_fresh()


async def test_an_examination_that_fails_is_repeated(
    library: Path, running: Tree, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a file isn't hashed again for it."""
    monkeypatch.setattr(retries, "SHORTEST", 0.02)
    examine = sealer.examine
    failed = 0

    def failing(game: bytes, *rest: object, **keywords: object) -> object:
        nonlocal failed
        known = running.games.get(game)
        if known and isinstance(known.outcome, Unhashed) and failed < 3:
            failed += 1
            raise OSError(errno.EIO, "Input/output error")
        return examine(game, *rest, **keywords)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(sealer, "examine", failing)
    make_game(library, "roms/game", TWO)
    running.catalog.rescan()
    await until(lambda: running.catalog.totals().archives == 1)
    assert failed == 3
    assert running.catalog.hasher.speed.total == 3  # bytes
    assert len(running.catalog.skipped) == 0
    await until(lambda: at_work(running) == 0)


def failing(what: Callable[..., T], of: bytes, times: int) -> tuple[Callable[..., T], list[bytes]]:
    """*what*, a function of a path in the library, that fails so many *times* for the path *of*.

    And when it did.
    """
    failed: list[bytes] = []

    def call(source: bytes, *rest: object, **keywords: object) -> T:
        if source == of and len(failed) < times:
            failed.append(source)
            raise OSError(errno.EIO, "Input/output error")
        return what(source, *rest, **keywords)

    return call, failed


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried again at once, and no scan comes by itself."""
    monkeypatch.setattr(retries, "SHORTEST", 0.02)
    monkeypatch.setattr(retries, "LONGEST", 3600.0)
    monkeypatch.setattr(scanner, "POLL", 3600.0)


@pytest.mark.usefixtures("soon")
async def test_a_game_that_cant_be_listed_for_a_moment(
    library: Path, running: Tree, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It isn't gone: nobody has to ask for it, and no event has to come."""
    folder, failed = failing(sealer.library.listed, b"roms/game", 3)
    monkeypatch.setattr(sealer.library, "listed", folder)
    make_game(library, "roms/game", TWO)
    running.catalog.rescan()
    await sealed_and_quiet(running)
    assert len(failed) == 3
    assert len(running.catalog.skipped) == 0


@pytest.mark.usefixtures("soon")
async def test_a_folder_of_games_that_cant_be_listed_for_a_moment(
    library: Path, running: Tree, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was in it stays, and what is new is found as soon as it can be listed."""
    make_game(library, "roms/game", TWO)
    running.catalog.rescan()
    node = await running.sealed("roms/game.zip")
    kinds, failed = failing(sealer.library.kinds, b"roms", 3)
    monkeypatch.setattr(sealer.library, "kinds", kinds)
    running.catalog.rescan()
    await until(lambda: failed)
    make_game(library, "roms/new", TWO)
    game = running.game("roms/game")
    assert game
    assert isinstance(game.outcome, Sealed)
    await until(lambda: running.games.by_archive(b"roms/new.zip"))
    assert len(failed) == 3
    assert running.game("roms/game") is game
    assert (await running.archive("roms/game.zip")).attributes == node.attributes


@pytest.mark.usefixtures("soon")
async def test_a_new_game_that_cant_be_looked_at_for_a_moment(
    library: Path, running: Tree, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event tells of it once."""
    await until(lambda: running.catalog.is_surveyed)
    entry, failed = failing(sealer.library.entry, GAME, 3)
    monkeypatch.setattr(sealer.library, "entry", entry)
    make_game(library, "roms/game", TWO)
    running.catalog.changed([GAME])
    await until(lambda: running.games.by_archive(b"roms/game.zip"))
    assert len(failed) == 3


@pytest.mark.parametrize("step", ["_hash", "_take_hashed", "_look"])
async def test_a_defect_ends_it_and_nothing_else(
    library: Path,
    running: Tree,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    step: str,
) -> None:
    """H4; the next look begins anew."""
    make_game(library, "roms/good", TWO)
    make_game(library, "roms/game", TWO)
    resealer = running.catalog._resealer
    method = getattr(resealer, step)
    failed = 0

    def odd(*arguments: object) -> object:
        nonlocal failed
        for one in arguments:
            game = getattr(one, "game", one)
            if game is running.game("roms/game") and not failed:
                failed += 1
                raise LookupError
        return method(*arguments)

    monkeypatch.setattr(resealer, step, odd)
    running.catalog.rescan()
    await until(lambda: failed and running.game("roms/good"))
    await until(lambda: running.games.by_archive(b"roms/good.zip"))
    assert [bool(line.exc_info) for line in caplog.records] == [True]
    running.catalog.rescan()
    await until(lambda: running.catalog.totals().archives == 2)


async def test_unsure_checksums_are_made_anew(
    library: Path, index: Index, nursery: trio.Nursery
) -> None:
    """``--trust mtime``: the archive is there all the while."""
    folder = make_game(library, "roms/game", TWO)
    sealer = Sealer(Library(str(library)), index, globs=(b"roms/*",), settle=0.05, trust_mtime=True)
    tree = Tree(Catalog(sealer, Limits(64, 8)))
    nursery.start_soon(tree.catalog.run)
    node = await tree.sealed("roms/game.zip")
    await until(lambda: at_work(tree) == 0)
    hashed = tree.catalog.hasher.speed.total
    os.link(folder / "2", library / "other")  # a new ctime, and nothing else
    tree.catalog.changed([GAME])
    await until(lambda: tree.catalog.hasher.speed.total == hashed + 2)
    await until(lambda: at_work(tree) == 0)
    game = tree.game("roms/game")
    assert game
    assert isinstance(game.outcome, Sealed)
    assert game.outcome.inode == node.attributes.inode
    assert game.examination
    assert game.examination.unsure == ()


@pytest.fixture
async def held(monkeypatch: pytest.MonkeyPatch) -> trio.Event:
    """Nothing is hashed until it is set."""
    event = trio.Event()
    run = Hasher.run

    async def later(self: Hasher) -> None:
        await event.wait()
        await run(self)

    monkeypatch.setattr(Hasher, "run", later)
    return event


@pytest.mark.usefixtures("soon")
async def test_one_that_fails_and_the_next_that_says_the_same_while_hashing(
    library: Path,
    running: Tree,
    sealer: Sealer,
    monkeypatch: pytest.MonkeyPatch,
    held: trio.Event,
) -> None:
    """A game whose examination failed once waited for ever, if the next said what was known."""
    _, game, _ = await to_be_hashed(library, running)
    look, failed = failing(sealer.examine, GAME, 1)
    monkeypatch.setattr(sealer, "examine", look)
    running.catalog._resealer.invalidate(game, 0)
    await until(lambda: failed and running.was_looked_at("roms/game"))
    held.set()
    await sealed_and_quiet(running)


@pytest.mark.usefixtures("soon")
async def test_one_that_fails_and_the_next_that_says_the_same_of_an_archive(
    library: Path, running: Tree, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_game(library, "roms/game", TWO)
    running.catalog.rescan()
    await running.sealed("roms/game.zip")
    await until(lambda: at_work(running) == 0)
    game = running.game("roms/game")
    assert game
    look, failed = failing(sealer.examine, GAME, 2)
    monkeypatch.setattr(sealer, "examine", look)
    running.catalog._resealer.invalidate(game, 0)
    await until(lambda: len(failed) == 2 and running.was_looked_at("roms/game"))
    await until(lambda: at_work(running) == 0)


@pytest.mark.usefixtures("soon")
async def test_one_that_fails_and_the_next_that_says_the_same_of_an_absent_one(
    library: Path, running: Tree, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can't be listed, then not even be looked at, then not be listed again."""
    examine, listed = sealer.examine, sealer.library.listed
    looks = 0

    def look(game: bytes, *rest: object, **keywords: object) -> object:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise OSError(errno.EIO, "Input/output error")
        return examine(game, *rest, **keywords)  # type: ignore[arg-type]  # passed on as they came

    def unlisted(source: bytes, *rest: object) -> object:
        if source == GAME and looks in {1, 3}:
            raise OSError(errno.EIO, "Input/output error")
        return listed(source, *rest)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(sealer, "examine", look)
    monkeypatch.setattr(sealer.library, "listed", unlisted)
    make_game(library, "roms/game", TWO)
    running.catalog.rescan()
    await sealed_and_quiet(running)
    assert looks > 3


async def test_the_library_was_away_when_its_files_were_to_be_hashed(
    library: Path, running: Tree, held: trio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanner, "POLL", 3600.0)
    await to_be_hashed(library, running)
    away = library.with_name("away")
    os.rename(library, away)
    held.set()
    await until(lambda: running.catalog.presence.gone)
    await until(lambda: len(running.catalog.hasher) == 0)
    game = running.game("roms/game")
    assert game
    await until(lambda: game.reseal and game.reseal.has_failed)
    os.rename(away, library)
    await sealed_and_quiet(running)


@pytest.mark.usefixtures("nothing_is_hashed")
async def test_what_another_outcome_asks_for_needs_no_thread(
    library: Path, running: Tree, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R3: others of its lane may hang in a disk, or be very many."""
    folder, game, first = await to_be_hashed(library, running)
    for number in range(2 * WORKERS):
        make_game(library, f"roms/hung{number}", TWO)
    running.catalog.rescan()
    await until(lambda: at_work(running) == 1 + 2 * WORKERS)
    others = [one for one in running.games if one is not game]
    await until(lambda: all(one.reseal and one.reseal.request for one in others))
    answers = threading.Event()
    examine = sealer.examine

    def hung(path: bytes, *rest: object, **keywords: object) -> object:
        if path != GAME:
            answers.wait(30)
        return examine(path, *rest, **keywords)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(sealer, "examine", hung)
    resealer = running.catalog._resealer
    try:
        for one in others:
            resealer.invalidate(one, 0)
        await until(lambda: resealer._agenda.workers == WORKERS)
        make_game(folder.parent, folder.name, {"3": b"333"})
        game.invalidate()
        # As a scan does, which has threads of its own.
        look = await trio.to_thread.run_sync(resealer.examine, GAME, game.place)
        resealer.install(look, asked=False)
        await until(lambda: game.reseal and game.reseal.request not in (None, first))
        assert not answers.is_set()
        assert resealer._agenda.workers == WORKERS
    finally:
        answers.set()


@pytest.mark.usefixtures("nothing_is_hashed")
async def test_a_request_that_was_withdrawn_ends_no_later_wait(
    library: Path, running: Tree
) -> None:
    """What was hashed is just being saved, and its request is done after that."""
    _, game, request = await to_be_hashed(library, running)
    state = game.reseal
    assert state
    hasher = running.catalog.hasher
    jobs = [*hasher._jobs.values()]
    hasher._jobs.clear()  # so it is while they are saved
    running.catalog._resealer._withdraw(state)
    for job in jobs:
        for one in job.requests:
            one.finish(job.file, None)
    assert request.is_done
    assert state.stage is Stage.WAITING


async def test_what_was_hashed_for_a_game_that_is_gone_is_saved(
    library: Path, running: Tree, index: Index, held: trio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files may be elsewhere by now; nobody else might save it until the end."""
    monkeypatch.setattr(unsaved, "_SAVE_SECONDS", 3600.0)
    folder, _, _ = await to_be_hashed(library, running)
    # It hasn't heard of it yet.
    monkeypatch.setattr(running.catalog._resealer._agenda, "ready", lambda _: None)
    held.set()
    await until(lambda: len(running.catalog.hasher) == 0)
    sources = [b"roms/game/1", b"roms/game/2"]
    assert index.files(sources) == {}
    shutil.rmtree(folder)
    assert await running.names("roms") == []
    await until(lambda: len(index.files(sources)) == 2)
