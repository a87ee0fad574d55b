"""An archive that isn't sealed isn't there, and saying so waits for nothing (DESIGN.md S1)."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.e2e import curl
from tests.e2e.expected import Expected
from tests.e2e.site import SERVERS, Serve
from tests.support.libraries import content, make_game
from tests.support.mounting import Mounted, Mounts
from tests.support.waiting import SECONDS, poll

HUGE: Final = 20 << 30


@pytest.mark.parametrize("name", SERVERS)
def test_not_there_before_it_has_settled(
    library: Path, mount: Mounts, serve: Serve, name: str
) -> None:
    folder = make_game(library, "roms/x/Game", {"a": content(200_000), "b": b"b"})
    # With an hour of settle time it stays unsealed for as long as we look.
    mounted = mount(library, settle=3600)
    server = serve(mounted, name)
    url = server.url_of("roms/x/Game.zip")
    for _ in range(3):
        assert curl.get(url).status == 404
        assert curl.head(url).status == 404
    assert b"Game" not in curl.get(server.url_of("roms/x/")).body
    assert mounted.stop() == 0

    # The same server, which must not have learned that there is nothing.
    mount(library, mountpoint=mounted.path)
    poll("the archive", partial(_is_served, url))
    assert curl.get(url).body == Expected(folder)[:]


@pytest.mark.timeout(1200)
def test_while_20_gib_are_hashed(library: Path, mount: Mounts, serve: Serve) -> None:
    make_game(library, "roms/x/Huge", {"disc.bin": HUGE, "disc.cue": b"FILE"})
    mounted = mount(library)
    servers = [serve(mounted, name) for name in SERVERS]
    poll("the huge file to be hashed", lambda: _is_open(mounted, "disc.bin"))

    # An answer after which the file is still being hashed didn't wait for it.
    for server in servers:
        assert curl.get(server.url_of("roms/x/Huge.zip")).status == 404
        assert _is_open(mounted, "disc.bin")

    # A game that comes only now need not wait for it either.
    folder = make_game(library, "roms/x/Late", {"a": content(200_000), "b": b"b"})
    for server in servers:
        late = server.url_of("roms/x/Late.zip")
        poll("the game that came later", partial(_is_served, late))
        # Closed for a moment by then: one file is open at a time.
        poll("the huge file to be hashed on", lambda: _is_open(mounted, "disc.bin"))
        assert curl.get(late).body == Expected(folder)[:]

    mounted.wait_archive("roms/x/Huge", timeout=2 * SECONDS)
    for server in servers:
        huge = server.url_of("roms/x/Huge.zip")
        assert int(curl.head(huge).headers["content-length"]) > HUGE
        assert curl.get_range(huge, f"{HUGE - 10}-{HUGE}").body == bytes(11)
        assert curl.get_range(huge, "-22").body.startswith(b"PK\5\6")


def _is_served(url: str) -> bool:
    return curl.head(url).status == 200


def _is_open(mounted: Mounted, name: str) -> bool:
    """Whether a file of the library is being read; nobody but the hashing does that here."""
    return any(os.path.basename(path) == name for path in mounted.library_descriptors().values())
