"""Lists behind web servers: a front end writes a kilobyte, and its users resume."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.e2e.curl import QUIET, get, get_range, head
from tests.e2e.programs import run
from tests.e2e.site import SERVERS, Serve
from tests.support.libraries import content, make_game
from tests.support.lists import Wanted, expected_of, text_of, write_list
from tests.support.mounting import Mounts, run_zipfs
from tests.support.waiting import poll

MEMBERS: list[Wanted] = [
    ("Final Fantasy IX/disc 1.chd", "roms/psx/Final Fantasy IX (Disc 1-2)/disc 1.chd"),
    ("Ikaruga/ikaruga.gdi", "roms/dc/Ikaruga/ikaruga.gdi"),
    ("Ikaruga/Ikaruga.m3u", b"ikaruga.gdi\n"),
    ("Final Fantasy IX/disc 2.chd", "roms/psx/Final Fantasy IX (Disc 1-2)/disc 2.chd"),
]


@pytest.mark.parametrize("name", SERVERS)
def test_downloaded_in_every_way(
    library: Path, place: Path, mount: Mounts, serve: Serve, name: str
) -> None:
    make_game(
        library,
        "roms/psx/Final Fantasy IX (Disc 1-2)",
        {f"disc {n}.chd": content(3_000_000, n) for n in (1, 2)},
    )
    make_game(library, "roms/dc/Ikaruga", {"ikaruga.gdi": b"gdi", "track.bin": b"track"})
    lists = place / "lists"
    lists.mkdir()
    mounted = mount(library, "--lists", lists)
    server = serve(mounted, name)
    url = server.url_of(".lists/wanted.zip")
    assert head(url).status == 404
    write_list(lists / "wanted.list", text_of(library, MEMBERS))
    poll("the archive", lambda: head(url).status == 200)
    wanted = expected_of(library, MEMBERS)
    whole = wanted.read(0, wanted.size)

    response = get(url)
    assert response.body == whole
    assert response.headers["content-length"] == str(len(whole))
    etag = response.headers["etag"]
    chance = random.Random(1)
    for _ in range(20):
        start = chance.randrange(len(whole))
        end = min(len(whole) - 1, start + chance.choice([0, 10, 5000, 1 << 20]))
        response = get_range(url, f"{start}-{end}", "-H", f"If-Range: {etag}")
        assert (response.status, response.body) == (206, whole[start : end + 1])

    file = place / "wanted.zip"
    file.write_bytes(whole[:4_000_000])
    done = run(*QUIET, "-C", "-", "-o", file, "-w", "%{http_code} %{size_download}", url)
    assert done.stdout.decode() == f"206 {len(whole) - 4_000_000}"
    assert file.read_bytes() == whole

    inspected = run_zipfs(
        "inspect", library, ".lists/wanted.zip", "--json", "--lists", lists, "--index", place / "i"
    )
    assert etag in json.loads(inspected.stdout)["etag"].values()
    if name == "nginx":
        # Who looks around isn't shown what others have asked for. (Caddy shows dots.)
        assert b".lists" not in get(server.url_of("")).body

    # Another list of that name: the rest of the old one isn't to be had any more.
    write_list(lists / "wanted.list", text_of(library, MEMBERS[:2]))
    shorter = expected_of(library, MEMBERS[:2])
    poll("the other one", lambda: head(url).headers.get("etag") not in (None, etag))
    response = get_range(url, "1000-", "-H", f"If-Range: {etag}")
    assert (response.status, response.body) == (200, shorter.read(0, shorter.size))
    (lists / "wanted.list").unlink()
    poll("none", lambda: head(url).status == 404)
