"""One machine with engines for all tests here, and zipfs' image built on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.engine import Engine, engine
from tests.containers.machine import missing
from tests.e2e.expected import Expected
from tests.support.libraries import content, make_game
from zipfs import __version__

GAME = "roms/psx/Game"


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if why := missing():
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    with engine(tmp_path_factory.mktemp("machine") / "console.log") as made:
        yield made


@pytest.fixture(scope="session")
def image(machine: Engine) -> str:
    """zipfs' image, of the repository's files as they are now."""
    said = machine.type("containers#the-image", "docker build")
    assert said.splitlines()[-1] == f"zipfs, version {__version__}"
    return "zipfs"


@pytest.fixture(scope="session")
def games(machine: Engine) -> Expected:
    """A library in /srv/games of the machine, and what its archive has to be."""
    machine.shell("rm -rf /srv/games; mkdir -p /srv/games /srv/www/games; chmod 755 /srv/games")
    folder = machine.folder / "srv/games"
    game = make_game(folder, GAME, {"a.bin": content(48_000_000, 1), "b.bin": content(70_000, 2)})
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return Expected(Path(game))
