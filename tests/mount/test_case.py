"""A name is there only as the library lists it, whatever its disk finds (DESIGN H7)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.disks import case_blind
from tests.support.libraries import make_file, make_game
from tests.support.mounting import Mounts
from tests.support.users import needs_root

pytestmark = needs_root


@pytest.fixture
def blind(place: Path) -> Iterator[Path]:
    with case_blind(place) as folder:
        make_game(folder, "roms/psx/Game", {"1.bin": b"1", "2.bin": b"2"})
        make_file(folder / "roms/psx/Single.chd", b"single")
        make_file(folder / "roms/psx/12.chd", b"no letter before the dot")
        yield folder


def test_names_are_those_that_are_listed(blind: Path, mount: Mounts) -> None:
    assert (blind / "ROMS/PSX/game/1.BIN").exists()
    mounted = mount(blind)
    mounted.wait_sealed(1)
    for there in ("roms", "roms/psx", "roms/psx/Game.zip", "roms/psx/Single.chd"):
        assert (mounted.path / there).exists()
    for other in (
        "Roms", "ROMS/psx", "Roms/psx/Game/1.bin", "roms/Psx", "roms/psx/game.zip",
        "roms/psx/GAME.zip", "roms/psx/single.chd", "roms/psx/Single.CHD", "roms/psx/12.CHD",
    ):  # fmt: skip
        assert not (mounted.path / other).exists()
    # What is renamed, in its case alone, is found by its new name, and by no other.
    (blind / "roms/psx/Single.chd").rename(blind / "roms/psx/aside")
    (blind / "roms/psx/aside").rename(blind / "roms/psx/SINGLE.chd")
    mounted.wait_for("roms/psx/SINGLE.chd")
    mounted.wait_gone("roms/psx/Single.chd")
    assert sorted(os.listdir(mounted.path / "roms/psx")) == ["12.chd", "Game.zip", "SINGLE.chd"]


def test_the_structure_goes_by_listed_names(place: Path, mount: Mounts) -> None:
    """As on any other disk: ``Roms`` isn't ``roms``."""
    with case_blind(place) as folder:
        make_game(folder, "Roms/Game", {"1.bin": b"1", "2.bin": b"2"})
        mounted = mount(folder)
        mounted.wait_archive("Roms/Game")
        mounted.unmount()
