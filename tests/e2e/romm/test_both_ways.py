"""A game's archive, and that of RomM's list for all of it, are one (DESIGN V2)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.web import Server, nginx
from tests.e2e.curl import QUIET, get_range, head
from tests.e2e.programs import run
from tests.e2e.romm.shelf import CUE, DISCS, FOLDERS, OWN_PLAYLIST, make_shelf
from tests.e2e.romm.stand import LOGIN, Stand, standing
from tests.support.libraries import content, make_game
from tests.support.mounting import temporary_folder

EQUAL_NAMES = "roms/switch/The same name, twice"


@pytest.fixture(scope="module")
def both(fuse: None) -> Iterator[tuple[Stand, Server]]:
    """RomM, and a web server for the mount by its side."""
    with temporary_folder() as place:
        library = place / "library"
        make_shelf(library)
        names = ("b/Disc.bin", "a/Disc.bin", "ä/Disc.bin", "Z.bin", "a.bin", "é.bin")
        make_game(library, EQUAL_NAMES, {name: content(9000, name) for name in names})
        options = ("--selection", "romm", "--playlists", "romm")
        with (
            standing(library, place, options=options) as stand,
            nginx(stand.mounted.path, workdir=place) as direct,
        ):
            stand.mounted.wait_sealed()
            yield stand, direct


@pytest.mark.parametrize("game", [CUE, DISCS, OWN_PLAYLIST, FOLDERS, EQUAL_NAMES])
def test_one_archive(both: tuple[Stand, Server], place: Path, game: str) -> None:
    stand, direct = both
    before = set(os.listdir(stand.mounted.path / ".lists"))
    urls = stand.romm.game(game), direct.url_of(f"{game}.zip")
    found = [head(url, *LOGIN).headers for url in urls]
    assert found[0]["etag"] == found[1]["etag"]
    for name in ("last-modified", "content-length", "content-type"):
        assert found[0][name] == found[1][name]

    (name,) = set(os.listdir(stand.mounted.path / ".lists")) - before
    paths = stand.mounted.path / ".lists" / name, stand.mounted.path / f"{game}.zip"
    listed, sealed = (path.stat() for path in paths)
    assert (listed.st_mtime_ns, listed.st_size) == (sealed.st_mtime_ns, sealed.st_size)
    assert listed.st_ino != sealed.st_ino  # V4: by the path as well
    whole = paths[1].read_bytes()
    assert paths[0].read_bytes() == whole

    # What was begun on one is continued on the other.
    middle = len(whole) // 2
    for number, url in enumerate(urls):
        rest = get_range(url, f"{middle}-", *LOGIN, "-H", f"If-Range: {found[1 - number]['etag']}")
        assert (rest.status, rest.body) == (206, whole[middle:])
        file = place / f"file-{number}"
        file.write_bytes(whole[:middle])
        done = run(*QUIET, "-C", "-", "-o", file, "-w", "%{http_code}", *LOGIN, url)
        assert done.stdout == b"206"
        assert file.read_bytes() == whole


def test_another_name_is_another_archive(both: tuple[Stand, Server]) -> None:
    """RomM names the playlist after the last part of the URL."""
    stand, direct = both
    other = head(stand.romm.game(DISCS, name="Another"), *LOGIN).headers["etag"]
    assert other != head(direct.url_of(f"{DISCS}.zip")).headers["etag"]
    # A game with a playlist of its own gets none.
    own = head(stand.romm.game(OWN_PLAYLIST, name="Another"), *LOGIN).headers["etag"]
    assert own == head(direct.url_of(f"{OWN_PLAYLIST}.zip")).headers["etag"]
