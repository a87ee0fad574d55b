"""A game changes while somebody downloads it (DESIGN.md R1, R2)."""

from __future__ import annotations

import os
from email.utils import formatdate
from pathlib import Path
from typing import Final

import pytest

from tests.e2e import curl, readers
from tests.e2e.expected import Expected
from tests.e2e.site import SERVERS, Serve
from tests.support.libraries import MTIME, content, make_file, make_game
from tests.support.mounting import Mounts
from tests.support.waiting import poll

GAME: Final = "roms/ps2/Game"
# Much more than all buffers between the mount and the reader of a pipe hold.
SIZE: Final = 100_000_000
BEGINNING: Final = 1_000_000


@pytest.fixture
def game(library: Path) -> Path:
    # "b" comes behind "a" in the archive: when it changes, the server hasn't read of it yet.
    return make_game(
        library, GAME, {"a": content(SIZE // 2, 1), "b": content(SIZE // 2, 2), "c": b"c"}
    )


@pytest.mark.parametrize("name", SERVERS)
def test_replaced_by_rename(
    game: Path, library: Path, mount: Mounts, serve: Serve, place: Path, name: str
) -> None:
    old = Expected(game)
    old_bytes = old[:]
    mounted = mount(library)
    mounted.wait_archive(GAME)
    url = serve(mounted, name).url_of(f"{GAME}.zip")
    etag = curl.head(url).headers["etag"]
    with curl.streaming(url) as download:
        received = download.read(BEGINNING)
        # Same size and date: nothing but the content tells the two apart.
        make_file(place / "new", content(SIZE // 2, 3))
        os.rename(place / "new", game / "b")
        # We read on when the new version is there, so nothing of the old one is looked up again.
        new = Expected(game)
        poll("the new version", lambda: _etag(url) not in (None, etag))
        received += download.read()
        assert download.wait() == 0
    assert received == old_bytes
    file = place / "old.zip"
    file.write_bytes(received)
    readers.check_all_on_disk(file, old)
    response = curl.get(url)
    assert response.headers["etag"] != etag
    assert response.body == new[:]
    # Who has a part of the old one gets the new one whole.
    response = curl.get_range(url, "1000-", "-H", f"If-Range: {etag}")
    assert (response.status, response.body) == (200, new[:])


@pytest.mark.parametrize("name", SERVERS)
def test_rewritten_in_place(
    game: Path, library: Path, mount: Mounts, serve: Serve, name: str
) -> None:
    old = Expected(game)[:]
    mounted = mount(library)
    mounted.wait_archive(GAME)
    mounted.expect_log("reading .* ended in an error: a file of it has changed")
    url = serve(mounted, name).url_of(f"{GAME}.zip")
    etag = curl.head(url).headers["etag"]
    with curl.streaming(url) as download:
        received = download.read(BEGINNING)
        with (game / "b").open("r+b") as stream:
            stream.write(content(SIZE // 2, 3))
        received += download.read()
        assert download.wait() == curl.PARTIAL
    assert BEGINNING <= len(received) < len(old)
    assert received == old[: len(received)]

    # Until the new version is there, whatever comes whole is the new version.
    new = Expected(game)[:]
    response: curl.Response | None = None

    def whole() -> bool:
        nonlocal response
        response = curl.get_if_whole(url)
        return response is not None and response.status == 200

    poll("the new version", whole)
    assert response
    assert response.headers["etag"] != etag
    assert response.body == new


def _etag(url: str) -> str | None:
    response = curl.head(url)
    return response.headers["etag"] if response.status == 200 else None


@pytest.mark.parametrize("name", SERVERS)
def test_an_etag_goes_with_its_bytes(
    library: Path, mount: Mounts, serve: Serve, place: Path, name: str
) -> None:
    # Caddy, like Apache, asks a path for date and size, and opens it then. What the kernel
    # remembers of a path must not be of another version than what it opens there (DESIGN.md V1).
    single = "roms/nes/single.nes"
    old, new = content(40_000, 1), content(40_000, 2)
    make_file(library / single, old, mtime=MTIME)
    make_file(place / "new", new, mtime=MTIME + 2)
    mounted = mount(library)
    url = serve(mounted, name).url_of(single)
    (mounted.path / single).stat()
    os.replace(place / "new", library / single)
    dated = {
        formatdate(MTIME, usegmt=True): old,
        formatdate(MTIME + 2, usegmt=True): new,
    }

    def changed() -> bool:
        response = curl.get(url)
        if response.status != 200:  # better no answer than a wrong one
            return False
        same = response.body == dated[response.headers["last-modified"]]
        assert same  # by itself: a difference of 40,000 bytes takes pytest minutes to show
        return response.body == new

    poll("the new version", changed)
