"""A disk that comes and goes, as those see it who download (DESIGN H6)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e import curl
from tests.e2e.expected import Expected
from tests.e2e.games import make_mixed
from tests.e2e.site import SERVERS, Serve
from tests.support.disks import disk
from tests.support.mounting import Mounts
from tests.support.users import needs_root
from tests.support.waiting import poll


@needs_root
@pytest.mark.parametrize("name", SERVERS)
def test_while_the_disk_is_gone_and_afterwards(
    name: str, mount: Mounts, serve: Serve, place: Path
) -> None:
    with disk(place) as stick:
        game = make_mixed(stick.folder)
        expected = Expected(stick.folder / game)[:]
        mounted = mount(stick.folder)
        mounted.expect_log("is gone")
        mounted.expect_log("ended in an error")
        mounted.wait_archive(game)
        server = serve(mounted, name)
        url = server.url_of(f"{game}.zip")
        before = curl.get(url)
        assert (before.status, before.body) == (200, expected)
        part = curl.get_range(url, "0-999999").body

        stick.unmount(lazily=True)  # the server has the archive open
        mounted.wait_log("the library is gone")
        # nginx answers from its cache of open files for a moment.
        poll("an error", lambda: curl.head(server.url_of("roms/no.zip")).status >= 500)
        poll("an error", lambda: curl.head(url).status >= 500)

        stick.mount()
        poll("its return", lambda: curl.head(url).status == 200)
        after = curl.get(url, "-H", f"If-Range: {before.headers['etag']}", "-r", "1000000-")
        assert (after.status, part + after.body) == (206, expected)
        assert after.headers["etag"] == before.headers["etag"]
        assert os.listdir(mounted.path)
