"""The same game gives the same bytes and the same ETag: later, anew, elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.web import Server
from tests.e2e import curl
from tests.e2e.expected import Expected
from tests.e2e.games import make_mixed
from tests.e2e.programs import run
from tests.e2e.site import SERVERS, Serve, reload
from tests.support.mounting import Mounted, Mounts

Look = tuple[bytes, list[str], tuple[int, int, int]]


def _look(mounted: Mounted, server: Server, game: str) -> Look:
    """All that must stay the same: bytes, validators in HTTP, and in the file system."""
    mounted.wait_archive(game)
    response = curl.get(server.url_of(f"{game}.zip"))
    assert response.status == 200
    status = mounted.archive(game).stat()
    return (
        response.body,
        [response.headers[name] for name in ("etag", "last-modified", "content-length")],
        (status.st_mtime_ns, status.st_size, status.st_ino),
    )


@pytest.mark.parametrize("name", SERVERS)
def test_same_bytes_and_validators(
    library: Path, mount: Mounts, serve: Serve, place: Path, name: str
) -> None:
    game = make_mixed(library)
    first = mount(library)
    server = serve(first, name)
    look = _look(first, server, game)
    assert look[0] == Expected(library / game)[:]

    # Elsewhere at the same time: another path, index, server, time zone and locale.
    copy = place / "replica/of the library"
    copy.parent.mkdir()
    run("cp", "-a", library, copy)
    replica = mount(copy, env={"TZ": "<-0930>9:30", "LC_ALL": "C"})
    assert _look(replica, serve(replica, name), game) == look

    # After a restart; the server goes on, and sees one mount go and another come.
    assert first.stop() == 0
    second = mount(library, mountpoint=first.path)
    if name == "nginx":
        reload(server)
    assert _look(second, server, game) == look

    # Without the index.
    assert second.stop() == 0
    for file in second.index.parent.glob(f"{second.index.name}*"):
        file.unlink()
    third = mount(library, mountpoint=first.path)
    if name == "nginx":
        reload(server)
    assert _look(third, server, game) == look


def test_a_download_goes_on_after_a_restart(
    library: Path, mount: Mounts, serve: Serve, place: Path
) -> None:
    game = make_mixed(library)
    expected = Expected(library / game)
    first = mount(library)
    first.wait_archive(game)
    server = serve(first, "nginx")
    url = server.url_of(f"{game}.zip")
    file = place / "game.zip"
    file.write_bytes(curl.get_range(url, "0-9999999").body)
    assert first.stop() == 0
    mount(library, mountpoint=first.path).wait_archive(game)
    reload(server)
    run(*curl.QUIET, "-C", "-", "-o", file, url)
    assert file.read_bytes() == expected[:]
