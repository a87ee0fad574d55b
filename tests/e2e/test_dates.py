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

    def fetched() -> bool:
        run(*fetch)
        return local.read_bytes() == late

    # Another worker of nginx may go on for a moment as well, here and below.
    poll("what is newer", fetched)
    since = formatdate(mounted.archive(GAME).stat().st_mtime, usegmt=True)
    told: dict[str, str] = {}

    def dated() -> bool:
        told.update(curl.head(url).headers)
        return told["last-modified"] == since

    poll("its date", dated)
    etag = told["etag"]
    put(1, EARLY)
    run(*fetch)
    assert local.read_bytes() == late
    modified = ("-H", f"If-Modified-Since: {since}")
    status = 200 if SEES_ANY_OTHER_DATE[name] else 304
    poll(f"a {status}", lambda: curl.get(url, *modified).status == status)

    # By the ETag, which comes first where there is one, every server sees it.
    def seen() -> bool:
        answer = curl.get(url, "-H", f"If-None-Match: {etag}", *modified)
        return (answer.status, answer.body) == (200, early)

    poll("what was there before", seen)
