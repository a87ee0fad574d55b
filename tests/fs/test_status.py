"""The document that the daemon makes of itself, and where what is left out comes from."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.fs.lab import root_only, source_file, unprivileged, until
from tests.support.libraries import make_game
from tests.support.waiting import SECONDS
from zipfs.catalog.skipped import NEWEST
from zipfs.catalog.tree import Catalog
from zipfs.config import Settings
from zipfs.library.scan import LeftOut
from zipfs.mount.fs import Operations
from zipfs.mount.reader import Reader
from zipfs.mount.status.document import Status
from zipfs.sealing.sealer import Sealer
from zipfs.system.process import Limits

GAME = b"roms/game"


@pytest.fixture
def catalog(sealer: Sealer) -> Catalog:
    return Catalog(sealer, Limits(64, 8))


@pytest.fixture
async def status(library: Path, sealer: Sealer, catalog: Catalog) -> Status:
    reader = Reader(sealer.library.absolute, sealer.index.blocks, Limits(64, 4))
    settings = Settings.load(None, {"library": str(library), "mountpoint": "/srv/www"})
    operations = Operations(catalog, reader, await catalog.root())
    return Status(settings, "/srv/www", sealer.index, catalog, reader, operations)


async def told(status: Status) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await status.document())
    return found


# -- The document ----------------------------------------------------------------------


async def test_an_index_that_doesnt_answer(status: Status, sealer: Sealer) -> None:
    """Its disk hangs: whoever asks is told of all the rest, and so are those who ask next."""
    assert (await told(status))["index"]["file"] == sealer.index.file
    hung = threading.Event()
    held = threading.Event()

    def hold() -> None:
        with sealer.index._lock:
            held.set()
            hung.wait(SECONDS)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        held.wait()
        with trio.fail_after(SECONDS):
            for _ in range(2):
                found = await told(status)
                assert found["index"] is None
                assert found["archives"]["sealed"] == 0
    finally:
        hung.set()
        thread.join()
    await until(lambda: not status._asking.borrowed_tokens)
    assert (await told(status))["index"]["saving"]


async def test_not_more_than_it_can_tell(
    library: Path, status: Status, catalog: Catalog, nursery: trio.Nursery
) -> None:
    for number in range(2 * NEWEST):
        (library / f"link {number}").symlink_to("nowhere")
    nursery.start_soon(catalog.run)
    await until(lambda: len(catalog.skipped) == 2 * NEWEST)
    found = (await told(status))["left_out"]
    assert found["count"] == 2 * NEWEST
    assert len(found["newest"]) == NEWEST


# -- What a look at a game says --------------------------------------------------------


@pytest.fixture
def game(library: Path) -> Path:
    return make_game(library, "roms/game", {"1": b"1", "2": b"2", "3": b"3"})


def left_out(sealer: Sealer, game: bytes = GAME) -> list[LeftOut]:
    return list(sealer.examine(game, game)[0].left_out)


def test_nothing(game: Path, sealer: Sealer) -> None:
    assert left_out(sealer) == []
    assert left_out(sealer, b"roms/missing") == []


def test_a_file_that_was_refused(game: Path, library: Path, sealer: Sealer) -> None:
    sealer.mark_unreadable(source_file(library, "roms/game/2"))
    assert left_out(sealer) == [LeftOut(b"roms/game/2", "a file that can't be read")]
    (game / "2").chmod(0o640)
    assert left_out(sealer) == []


def test_a_name_that_is_too_long(library: Path, sealer: Sealer) -> None:
    """The game is shown as a folder, which isn't what somebody expects."""
    name = "x" * 252
    make_game(library, f"roms/{name}", {"1": b"1", "2": b"2"})
    game = f"roms/{name}".encode()
    reason = "no archive: its name would have more than 255 bytes"
    assert left_out(sealer, game) == [LeftOut(game, reason)]


@root_only
def test_a_game_that_cant_be_listed(game: Path, sealer: Sealer) -> None:
    game.chmod(0o700)
    with unprivileged():
        assert left_out(sealer) == [LeftOut(GAME, "can't be listed: Permission denied")]


async def test_what_is_kept_of_a_game_is_small(
    game: Path, library: Path, catalog: Catalog, nursery: trio.Nursery
) -> None:
    """However much of it is skipped: that is listed elsewhere, and only so much of it."""
    for number in range(10):
        (game / f"link {number}").symlink_to("nowhere")
    nursery.start_soon(catalog.run)
    await until(lambda: len(catalog.skipped) == 10)
    known = catalog._games.get(GAME)
    assert known
    assert known.examination
    assert known.examination.left_out == ()
    os.rename(game, library / "elsewhere")
    catalog.rescan()
    await until(lambda: len(catalog.skipped) == 0)


@root_only
async def test_a_folder_of_games_that_cant_be_listed(
    library: Path, catalog: Catalog, nursery: trio.Nursery, game: Path
) -> None:
    (library / "roms").chmod(0o700)
    with unprivileged():
        nursery.start_soon(catalog.run)
        await until(lambda: len(catalog.skipped) == 1)
        (skip,) = catalog.skipped.newest
        assert (skip.path, skip.reason) == (b"roms", "can't be listed: Permission denied")
        nursery.cancel_scope.cancel()
