"""--parallel-looks: so many calls at a time, whatever a source is found to be.

The source is :mod:`tests.support.faultfs`, whose calls hang until they are counted.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import pytest

from tests.support.faultfs import Faults, Op
from tests.support.libraries import make_game
from tests.support.mounting import Mounts
from tests.support.waiting import poll

Source = tuple[Path, Faults]

GAMES: Final = 200
FOLDER: Final = "roms/dos"


@pytest.fixture
def games(library: Path) -> None:
    """Each of two small files."""
    for number in range(GAMES):
        files = {"1.dat": b"%d" % number, "2.dat": b"."}
        make_game(library, f"{FOLDER}/game {number:03}", files)


def check_at_once(faults: Faults, path: str, op: Op, wanted: int) -> None:
    """That so many calls wait at a time for what hangs, and no more come."""
    poll(f"{wanted} calls at a time", lambda: faults.waiting(path, op) >= wanted)
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        assert faults.waiting(path, op) == wanted


@pytest.mark.parametrize("option", [1, 5, 32])
def test_games_looked_at(option: int, games: None, faulty: Source, mount: Mounts) -> None:
    source, faults = faulty
    path = f"{FOLDER}/game *"
    faults.hang(path, "open")
    # Not of events: to have them, the folders are opened as well.
    mount(source, f"--parallel-looks={option}", "--read-timeout=0", "--watch=poll")
    check_at_once(faults, path, "open", option)
    faults.clear()


@pytest.mark.parametrize("option", [1, 5, 32])
def test_files_hashed(option: int, games: None, faulty: Source, mount: Mounts) -> None:
    source, faults = faulty
    path = f"{FOLDER}/*.dat"
    faults.hang(path, "read")
    mounted = mount(source, f"--parallel-looks={option}", "--read-timeout=0")
    check_at_once(faults, path, "read", option)
    faults.clear()
    mounted.wait_sealed(GAMES)
