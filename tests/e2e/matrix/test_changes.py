"""A game changes while it is downloaded, or between two parts of it (DESIGN.md R1, R2, V1, V2)."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Seen
from tests.e2e.curl import QUIET
from tests.e2e.matrix.changes import CHANGES, SIZE, After, Change, make
from tests.e2e.matrix.client import Download
from tests.e2e.matrix.stand import (
    BEGINNING,
    Stand,
    check_resuming,
    wait_announced,
    wait_answer,
    wait_for,
    wait_gone,
)
from tests.e2e.matrix.versions import Line
from tests.e2e.programs import run
from tests.support.libraries import MTIME, content, make_file


@pytest.fixture
def game(stand: Stand, request: pytest.FixtureRequest) -> Iterator[Path]:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    # Bytes of its own: what zipfs has proven of another game would do for this one.
    game = make(stand.mounted.library, f"roms/x/{name}", seed=name)
    yield game
    if game.is_symlink():
        game.unlink()
    shutil.rmtree(game, ignore_errors=True)


@pytest.fixture
def spare(stand: Stand) -> Iterator[Path]:
    folder = stand.place / "spare"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def _line(stand: Stand, server_name: str, game: Path) -> Line:
    return stand.line(server_name, os.path.relpath(game, stand.mounted.library))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_while_a_download_runs(
    stand: Stand, server_name: str, game: Path, spare: Path, change: Change, seen: Seen
) -> None:
    seen(change.text, server_name)
    line = _line(stand, server_name, game)
    old = line.versions.add(game)
    wait_announced(line, old)
    with Download(line.url) as early, Download(line.url) as late:
        early.read(BEGINNING)
        late.read(BEGINNING)
        change.apply(game, spare)
        if not change.completes:
            # At once, and again when the new version is there. What completes would have all
            # of the old one in the kernel's memory then, so it is done once only.
            received = early.rest()
            line.versions.check(received)
            assert not received.whole
        if change.after is After.NONE:
            wait_gone(line)
            new = None
        else:
            new = line.versions.add(game)
            wait_for(line, new)
        received = late.rest()
    line.versions.check(received)
    assert received.etag == old.etag
    assert len(received.response.body) >= BEGINNING
    assert received.whole == change.completes
    if received.whole:
        file = spare / "downloaded.zip"
        file.write_bytes(received.response.body)
        run("unzip", "-tq", file)
    assert (new is old) == (change.after is After.SAME)
    check_resuming(line, server_name, old, new)


@pytest.mark.parametrize("in_place", [False, True], ids=["by rename", "in place"])
def test_there_and_back(
    stand: Stand, server_name: str, game: Path, spare: Path, in_place: bool, seen: Seen
) -> None:
    seen(f"A -> B -> A {'in place' if in_place else 'by rename'}", server_name)
    line = _line(stand, server_name, game)
    first = line.versions.add(game)
    wait_for(line, first)
    half = spare / "half.zip"
    half.write_bytes(line.get(f"Range: bytes=0-{SIZE - 1}").response.body)
    assert half.stat().st_size == SIZE

    before = (game / "b").read_bytes()

    def put(data: bytes) -> None:
        path = game / "b" if in_place else spare / "b"
        make_file(path, data, mtime=MTIME)
        os.rename(path, game / "b")

    put(content(SIZE, 3))
    second = line.versions.add(game)
    wait_for(line, second)
    wait_answer(line, second, 200, f"Range: bytes={SIZE}-", f"If-Range: {first.etag}")
    put(before)
    assert line.versions.add(game) is first
    wait_for(line, first)
    wait_answer(line, first, 206, f"Range: bytes={SIZE}-", f"If-Range: {first.etag}")
    if server_name == "nginx":
        # Each of its workers may go on with what it has open for that long (open_file_cache_valid).
        time.sleep(2.5)
    run(*QUIET, "-C", "-", "-H", f"If-Range: {first.etag}", "-o", half, line.url)
    assert half.read_bytes() == first.data
