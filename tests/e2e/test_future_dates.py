"""A member dated in the future, behind Apache: no resume before that date, and the remedy."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.web import apache, caddy, lighttpd, nginx
from tests.e2e import curl
from tests.e2e.site import Serve
from tests.support.libraries import content, expected_archive, make_game
from tests.support.mounting import Mounts

GAME = "roms/psx/Game"
DAY = 86_400


@pytest.fixture
def game(library: Path) -> Path:
    game = make_game(library, GAME, {"a": content(300_000, 1), "b": content(70_000, 2)})
    future = int(time.time()) + 30 * DAY
    os.utime(game / "b", (future, future))
    return game


@pytest.fixture
def serve(mount: object, place: Path) -> Iterator[Serve]:
    """As everywhere, with all four servers."""
    servers = {"apache": apache, "caddy": caddy, "lighttpd": lighttpd, "nginx": nginx}
    with contextlib.ExitStack() as running:
        yield lambda mounted, name: running.enter_context(
            servers[name](mounted.path, workdir=place)
        )


def test_apache_sends_a_weak_etag(game: Path, library: Path, mount: Mounts, serve: Serve) -> None:
    """As long as a date is newer than a second ago, to Apache the file may change within it.

    V2: the archive's date depends on its members alone, so it can't be brought back to today.
    """
    mounted = mount(library, "--allow-other")
    mounted.wait_sealed(1)
    url = serve(mounted, "apache").url_of(f"{GAME}.zip")
    etag = curl.head(url).headers["etag"]
    assert etag.startswith('W/"')
    # RFC 9110, 13.1.5: If-Range wants a strong one. The download begins anew, and is right.
    response = curl.get(url, "-r", "1000-", "-H", f"If-Range: {etag}")
    assert (response.status, response.body) == (200, expected_archive(game))
    assert curl.get_range(url, "1000-").status == 206  # without a validator


def test_other_servers_send_a_strong_one(
    game: Path, library: Path, mount: Mounts, serve: Serve
) -> None:
    mounted = mount(library, "--allow-other")
    mounted.wait_sealed(1)
    for name in ("nginx", "caddy", "lighttpd"):
        url = serve(mounted, name).url_of(f"{GAME}.zip")
        etag = curl.head(url).headers["etag"]
        assert etag.startswith('"'), name
        response = curl.get(url, "-r", "1000-", "-H", f"If-Range: {etag}")
        assert (response.status, response.body) == (206, expected_archive(game)[1000:]), name


@pytest.mark.parametrize("remedy", ["fixed", "touch"])
def test_the_remedies(remedy: str, game: Path, library: Path, mount: Mounts, serve: Serve) -> None:
    if remedy == "touch":
        past = int(time.time()) - 2 * DAY
        os.utime(game / "b", (past, past))
    options = ["--timestamps", "fixed"] if remedy == "fixed" else []
    mounted = mount(library, "--allow-other", *options)
    mounted.wait_sealed(1)
    url = serve(mounted, "apache").url_of(f"{GAME}.zip")
    whole = curl.get(url)
    etag = whole.headers["etag"]
    assert etag.startswith('"')
    response = curl.get(url, "-r", "1000-", "-H", f"If-Range: {etag}")
    assert (response.status, response.body) == (206, whole.body[1000:])
