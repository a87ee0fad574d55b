"""The daemon ends, asked to or killed, while somebody downloads; and comes again."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Final

import pytest

from bench.mount import is_mounted
from tests.e2e import curl
from tests.e2e.expected import Expected, sha256_of
from tests.e2e.programs import ARIA2C, WGET, run, running
from tests.e2e.site import SERVERS, Serve, reload
from tests.support.libraries import content, make_game
from tests.support.mounting import Mounts
from tests.support.waiting import SECONDS, poll

GAME: Final = "roms/ps2/Game"
# Much more than all buffers between the mount and the reader of a pipe hold.
SIZE: Final = 100_000_000
BEGINNING: Final = 1_000_000


@pytest.fixture
def game(library: Path) -> Path:
    return make_game(library, GAME, {"disc.bin": content(SIZE), "disc.cue": b"FILE"})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", SERVERS)
def test_stopped_during_a_download(
    game: Path, library: Path, mount: Mounts, serve: Serve, name: str, number: int
) -> None:
    expected = Expected(game)
    mounted = mount(library)
    mounted.wait_archive(GAME)
    mounted.expect_log("reading .* ended in an error")
    url = serve(mounted, name).url_of(f"{GAME}.zip")
    with curl.streaming(url) as download:
        received = download.read(BEGINNING)
        # Sees also that nothing is mounted any more, and that the log is clean.
        assert mounted.stop(number) == 0
        assert not is_mounted(mounted.path)
        received += download.read()
        assert download.wait() == curl.PARTIAL
    # Cut off, and right as far as it came.
    assert BEGINNING <= len(received) < expected.size
    assert received == expected[: len(received)]
    # nginx may hold on to the file for `open_file_cache_valid`.
    poll("404", lambda: _status(url) == 404)


@pytest.mark.parametrize("name", SERVERS)
def test_killed_during_a_download(
    game: Path, library: Path, mount: Mounts, serve: Serve, place: Path, name: str
) -> None:
    expected = Expected(game)
    mounted = mount(library)
    mounted.wait_archive(GAME)
    server = serve(mounted, name)
    url = server.url_of(f"{GAME}.zip")
    etag = curl.head(url).headers["etag"]

    # Three clients that each have a part. aria2c keeps its own account of what it has.
    by_curl, by_wget, by_aria2c = (place / f"{client}.zip" for client in ("curl", "wget", "aria2c"))
    aria2c = (*ARIA2C, "-d", place, "-o", by_aria2c.name)
    with running(*aria2c, "--max-overall-download-limit=4M", url) as client:
        poll("aria2c to begin", lambda: by_aria2c.exists() and by_aria2c.stat().st_size > 0)
        with curl.streaming(url) as download:
            received = download.read(BEGINNING)
            mounted.kill()
            # Dead, and still mounted.
            assert is_mounted(mounted.path)
            received += download.read()
            assert download.wait() == curl.PARTIAL
        # It need not come to the end of what is on its way to it; what it has, it notes down.
        client.send_signal(signal.SIGINT)
        assert client.wait(SECONDS) != 0
        assert by_aria2c.with_name(f"{by_aria2c.name}.aria2").exists()
    assert BEGINNING <= len(received) < expected.size
    by_curl.write_bytes(received)
    by_wget.write_bytes(received)

    # On the same place, and the same server goes on.
    mount(library, mountpoint=mounted.path).wait_archive(GAME)
    if name == "nginx":
        reload(server)
    assert _status(url) == 200

    run(*curl.QUIET, "-C", "-", "-H", f"If-Range: {etag}", "-o", by_curl, url)
    run(*WGET, "-c", "-O", by_wget, url)
    run(*aria2c, "-c", url)
    for file in (by_curl, by_wget, by_aria2c):
        assert file.stat().st_size == expected.size
        assert sha256_of(file) == expected.sha256(), file.name


def _status(url: str) -> int | None:
    response = curl.get_if_whole(url)
    return response.status if response else None
