"""One library, mounted behind an application and both servers, for tests that change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from tests.e2e.front.stand import Stand, stand_before
from tests.e2e.games import MIXED, make_mixed
from tests.support.libraries import content, make_file, make_game
from tests.support.mounting import Mounts, temporary_folder

HUNDRED: Final = [f"roms/nes/Game {number:03}" for number in range(100)]
SINGLE: Final = "roms/nes/Single (ü).nes"
ONE_IN_A_FOLDER: Final = "roms/nes/One in a folder"


@pytest.fixture(scope="package")
def stand(fuse: None) -> Iterator[Stand]:
    with temporary_folder() as place:
        library = place / "library"
        make_mixed(library)
        for number, path in enumerate(HUNDRED):
            make_game(library, path, {"a.nes": content(3000, number), "b/ü.sav": b"%d" % number})
        make_file(library / SINGLE, content(400_000, 1))
        make_game(library, ONE_IN_A_FOLDER, {"one.nes": content(500_000, 2)})
        lists = place / "lists"
        lists.mkdir()
        options = ["--allow-other", "--selection=romm", "--playlists=off", "--lists", lists]
        mounts = Mounts(place)
        try:
            mounted = mounts(library, *options)
            for path in (MIXED, *HUNDRED):
                mounted.wait_archive(path)
            with stand_before(mounted, place, lists=lists) as stand:
                yield stand
        finally:
            mounts.end()


@pytest.fixture(params=["nginx", "caddy"])
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name
