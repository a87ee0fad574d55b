"""Clients that go by an archive's date, which goes back with its content (DESIGN V2, V3)."""

from __future__ import annotations

from email.utils import formatdate
from pathlib import Path
from typing import Final

import pytest

from tests.e2e import curl
from tests.e2e.programs import WGET, run
from tests.e2e.site import SERVERS, Serve
from tests.support.libraries import content, expected, make_game
from tests.support.mounting import Mounts
from tests.support.waiting import poll

GAME: Final = "roms/psx/Game"
LATE, EARLY = 1_600_000_000, 1_500_000_000
SEES_ANY_OTHER_DATE: Final = {"nginx": True, "caddy": False}
"""Whether ``If-Modified-Since`` with a later date than the archive's gets the archive: nginx
compares for equality (``if_modified_since exact``), the others send 304."""


@pytest.mark.parametrize("name", SERVERS)
def test_if_modified_since(
    library: Path, mount: Mounts, serve: Serve, place: Path, name: str
) -> None:
    """What is newer is seen. What has gone back isn't by ``wget -N``, whatever the server says."""

    def put(number: int, mtime: int) -> None:
        files = {"1": content(3000, number), "2": content(500, 2)}
        inode = expected(make_game(library, GAME, files, mtime=mtime)).inode(f"{GAME}.zip")
        archive = mounted.archive(GAME)
        poll("the archive", lambda: archive.exists() and archive.stat().st_ino == inode)
        # nginx goes on for a moment with the file that it has open.
        poll("the server's", lambda: curl.get(url).body == archive.read_bytes())

    mounted = mount(library)
    url = serve(mounted, name).url_of(f"{GAME}.zip")
    put(1, EARLY)
    local = place / "Game.zip"
    fetch = (*WGET, "-N", "-P", place, url)
    run(*fetch)
    early = mounted.archive(GAME).read_bytes()
    assert local.read_bytes() == early
    run(*fetch)
    assert local.read_bytes() == early
    put(2, LATE)
    late = mounted.archive(GAME).read_bytes()
    run(*fetch)
    assert local.read_bytes() == late
    since = formatdate(mounted.archive(GAME).stat().st_mtime, usegmt=True)
    etag = curl.head(url).headers["etag"]
    put(1, EARLY)
    run(*fetch)
    assert local.read_bytes() == late
    answer = curl.get(url, "-H", f"If-Modified-Since: {since}")
    assert answer.status == (200 if SEES_ANY_OTHER_DATE[name] else 304)
    # By the ETag, which comes first where there is one, every server sees it.
    answer = curl.get(url, "-H", f"If-None-Match: {etag}", "-H", f"If-Modified-Since: {since}")
    assert (answer.status, answer.body) == (200, early)
