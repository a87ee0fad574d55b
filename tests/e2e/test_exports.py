"""A mount that file servers show to others: Samba by SMB, Ganesha by NFSv4 (DESIGN.md R1)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.expected import Expected
from tests.support.exports import EXPORTS, Export
from tests.support.libraries import content, make_file, make_game
from tests.support.mounting import Mounted, Mounts
from tests.support.users import needs_root
from tests.support.waiting import poll

pytestmark = needs_root

GAMES = ("roms/psx/Game", "roms/psx/Game, the second", "roms/ps2/Größer")
SIZE = 3_000_000


@pytest.fixture
def mounted(library: Path, mount: Mounts) -> Mounted:
    for number, game in enumerate(GAMES):
        files = {name: content(SIZE, f"{number} {name}") for name in ("a", "b")}
        make_game(library, game, {**files, "c": b"c"})
    make_file(library / "roms/nes/single.nes", content(40_000, 1))
    mounted = mount(library, "--allow-other")
    mounted.wait_sealed(len(GAMES))
    return mounted


@pytest.fixture(params=EXPORTS)
def export(mounted: Mounted, place: Path, request: pytest.FixtureRequest) -> Iterator[Export]:
    with EXPORTS[request.param](mounted.path, place) as export:
        yield export


def test_all_is_listed_and_read(export: Export, library: Path) -> None:
    wanted = {f"{game}.zip": Expected(library / game)[:] for game in GAMES}
    wanted["roms/nes/single.nes"] = (library / "roms/nes/single.nes").read_bytes()
    assert export.files() == {path: len(data) for path, data in wanted.items()}
    for path, data in wanted.items():
        assert export.read(path) == data, path


def test_a_member_changes(export: Export, mounted: Mounted, library: Path) -> None:
    mounted.expect_log("reading .* ended in an error: a file of it has changed")
    game, path = library / GAMES[0], f"{GAMES[0]}.zip"
    old = Expected(game)[:]
    assert export.read(path) == old
    with (game / "b").open("r+b") as stream:
        stream.write(content(SIZE, "other"))
    new = Expected(game)[:]

    def changed() -> bool:
        try:
            data = export.read(path)
        except subprocess.CalledProcessError:  # better none than a wrong one
            return False
        assert data in (old, new)
        return data == new

    poll("the new version", changed)
    os.rename(game, library / "roms/psx/Renamed")
    poll("the new name", lambda: "roms/psx/Renamed.zip" in export.files())
    assert path not in export.files()
