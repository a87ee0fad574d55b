"""Every kind of request that downloads are made of, behind nginx and behind Caddy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from tests.e2e.curl import QUIET, get, get_range, head
from tests.e2e.games import make_mixed
from tests.e2e.programs import ARIA2C, WGET, Argument, run, running
from tests.e2e.site import Site, site_of
from tests.support.mounting import run_zipfs
from tests.support.waiting import poll

SLOW = ("--limit-rate", "1M")


@pytest.fixture(scope="module")
def site(fuse: None) -> Iterator[Site]:
    with site_of(make_mixed) as site:
        yield site


@pytest.fixture(scope="module")
def archive(site: Site) -> bytes:
    return site.expected[:]


@pytest.fixture
def etag(url: str) -> str:
    return head(url).headers["etag"]


def test_whole(url: str, site: Site, archive: bytes) -> None:
    response = get(url)
    assert response.status == 200
    assert response.body == archive
    headers = response.headers
    assert headers["content-length"] == str(len(archive))
    assert headers["accept-ranges"] == "bytes"
    assert headers["content-type"] == "application/zip"
    # A strong one: a weak one (W/"...") is no good for ranges.
    assert headers["etag"].startswith('"')
    assert headers["etag"].endswith('"')
    assert headers["last-modified"] == formatdate(int(site.path.stat().st_mtime), usegmt=True)
    assert "content-encoding" not in headers


def test_head_says_what_get_says(url: str, archive: bytes) -> None:
    response = head(url)
    assert (response.status, response.body) == (200, b"")
    whole = get(url).headers
    for name in ("content-length", "accept-ranges", "etag", "last-modified", "content-type"):
        assert response.headers[name] == whole[name]


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        pytest.param("0-0", 0, 1, id="first byte"),
        pytest.param("0-99", 0, 100, id="first"),
        pytest.param("5000000-5999999", 5_000_000, 6_000_000, id="middle"),
        pytest.param("1-", 1, None, id="all but the first"),
        pytest.param("24000000-99999999999", 24_000_000, None, id="beyond the end"),
        pytest.param("-1", -1, None, id="last byte"),
        pytest.param("-70000", -70_000, None, id="suffix"),
        pytest.param("-99999999999", 0, None, id="suffix longer than all"),
    ],
)
def test_range(url: str, archive: bytes, wanted: str, start: int, stop: int | None) -> None:
    response = get_range(url, wanted)
    first, behind, _ = slice(start, stop).indices(len(archive))
    assert response.status == 206
    assert response.body == archive[first:behind]
    assert response.content_range == (first, behind, len(archive))
    assert response.headers["content-length"] == str(behind - first)
    assert response.headers["etag"] == head(url).headers["etag"]


def test_ranges_across_all_boundaries(url: str, site: Site, archive: bytes) -> None:
    for boundary in (*site.expected.boundaries, len(archive)):
        start, stop = max(boundary - 3, 0), min(boundary + 3, len(archive))
        response = get_range(url, f"{start}-{stop - 1}")
        assert (response.status, response.body) == (206, archive[start:stop])


def test_several_ranges_at_once(url: str, site: Site, archive: bytes) -> None:
    directory = site.expected.directory_offset
    wanted = [(0, 10), (1000, 2000), (14_999_990, 15_100_000), (directory - 5, directory + 50)]
    ranges = ",".join(f"{start}-{stop - 1}" for start, stop in wanted)
    response = get_range(url, f"{ranges},-22")
    assert response.status == 206
    assert response.parts() == [
        ((start, stop, len(archive)), archive[start:stop])
        for start, stop in [*wanted, (len(archive) - 22, len(archive))]
    ]


def test_range_behind_the_end(url: str, archive: bytes) -> None:
    response = get_range(url, f"{len(archive)}-")
    assert response.status == 416
    assert response.headers["content-range"] == f"bytes */{len(archive)}"


def test_if_range(url: str, archive: bytes, etag: str) -> None:
    right = get_range(url, "100-199", "-H", f"If-Range: {etag}")
    assert (right.status, right.body) == (206, archive[100:200])
    wrong = get_range(url, "100-199", "-H", 'If-Range: "5f5e0b00-1"')
    assert (wrong.status, wrong.body) == (200, archive)


def test_if_range_with_a_date(url: str, archive: bytes) -> None:
    date = head(url).headers["last-modified"]
    right = get_range(url, "100-199", "-H", f"If-Range: {date}")
    assert (right.status, right.body) == (206, archive[100:200])
    wrong = get_range(url, "100-199", "-H", f"If-Range: {formatdate(0, usegmt=True)}")
    assert (wrong.status, wrong.body) == (200, archive)


def test_not_modified(url: str, archive: bytes, etag: str) -> None:
    date = head(url).headers["last-modified"]
    for condition in (f"If-None-Match: {etag}", f"If-Modified-Since: {date}"):
        same = get(url, "-H", condition)
        assert (same.status, same.body) == (304, b"")
    other = get(url, "-H", 'If-None-Match: "5f5e0b00-1"')
    assert (other.status, other.body) == (200, archive)


def test_if_match(url: str, archive: bytes, etag: str) -> None:
    right = get_range(url, "100-199", "-H", f"If-Match: {etag}")
    assert (right.status, right.body) == (206, archive[100:200])
    wrong = get_range(url, "100-199", "-H", 'If-Match: "5f5e0b00-1"')
    assert wrong.status == 412
    assert archive[100:200] not in wrong.body


def test_nothing_there(url: str) -> None:
    assert get(url.replace(".zip", "2.zip")).status == 404


@pytest.mark.parametrize("own_index", [False, True], ids=["the mount's index", "its own index"])
def test_inspect_tells_the_etag(site: Site, place: Path, own_index: bool) -> None:
    index = place / "index" if own_index else site.mounted.index
    done = run_zipfs("inspect", site.mounted.library, site.game, "--json", "--index", index)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    response = head(site.nginx.url_of(site.archive))
    assert response.headers["etag"] == said["etag"]["nginx"]
    assert response.headers["content-length"] == str(said["size"])
    # Debian 12 has Caddy 2.6; since 2.8 the nanoseconds are in it.
    version = run("caddy", "version").stdout.decode().removeprefix("v").split(".")
    kind = "caddy 2.7 and older" if int(version[1]) < 8 else "caddy 2.8 and newer"
    assert head(site.caddy.url_of(site.archive)).headers["etag"] == said["etag"][kind]


# ---------------------------------------------------------------- clients that resume


def _cut_short(file: Path, *argv: Argument) -> None:
    """Kill a slow download into *file* after its first part has arrived."""
    with running(*argv) as client:

        def begun() -> bool:
            assert client.poll() is None, "it ended too early"
            return file.exists() and file.stat().st_size > 1_000_000

        poll("the first part of the download", begun)
        client.kill()
        client.wait()


def test_curl_resumes(url: str, archive: bytes, place: Path) -> None:
    file = place / "game.zip"
    _cut_short(file, *QUIET, *SLOW, "-o", file, url)
    there = file.stat().st_size
    assert 0 < there < len(archive)
    done = run(*QUIET, "-C", "-", "-o", file, "-w", "%{http_code} %{size_download}", url)
    assert done.stdout.decode() == f"206 {len(archive) - there}"
    assert file.read_bytes() == archive


def test_curl_after_a_time_limit(url: str, archive: bytes, place: Path) -> None:
    file = place / "game.zip"
    timed_out = 28
    run(*QUIET, *SLOW, "--max-time", "1", "-o", file, url, status=(timed_out,))
    assert file.stat().st_size < len(archive)
    run(*QUIET, "-C", "-", "-o", file, url)
    assert file.read_bytes() == archive


def test_wget_resumes(url: str, archive: bytes, place: Path) -> None:
    file = place / "game.zip"
    _cut_short(file, *WGET, "--limit-rate=1m", "-O", file, url)
    there = file.stat().st_size
    assert 0 < there < len(archive)
    said = run(*WGET, "-S", "-c", "-O", file, url).stderr.decode()
    assert "206 Partial Content" in said
    assert f"Content-Length: {len(archive) - there}\n" in said
    assert file.read_bytes() == archive


def test_aria2c_in_16_connections(url: str, archive: bytes, place: Path) -> None:
    run(*ARIA2C, "-d", place, "-o", "game.zip", url)
    assert (place / "game.zip").read_bytes() == archive
    assert not (place / "game.zip.aria2").exists()
