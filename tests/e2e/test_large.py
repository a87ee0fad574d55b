"""Beyond all 32- and 16-bit fields: the same as with any other archive.

The files are sparse, with random data where it matters, and what is downloaded goes into pipes
where it can: an archive beyond 4 GiB takes its space on the disk once, for a moment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e import curl, readers
from tests.e2e.expected import sha256_of
from tests.e2e.programs import ARIA2C, WGET, run
from tests.e2e.site import Site, site_of
from tests.support.libraries import MTIME, content, make_file, make_game

GIB: Final = 1 << 30
SECONDS: Final = 500.0


def _sparse(path: Path, size: int, *offsets: int) -> None:
    """A file of zeros with 2 MB of random data at its ends and around some offsets."""
    half = 1_000_000
    make_file(path, size)
    with path.open("r+b") as stream:
        for number, offset in enumerate((0, *offsets, size)):
            stream.seek(max(0, min(offset - half, size - 2 * half)))
            stream.write(content(2 * half, f"{path.name} {number}"))
    os.utime(path, (MTIME + 1, MTIME + 1))


def one_member_beyond_4_gib(library: Path) -> str:
    game = "roms/ps3/One file beyond 4 GiB"
    make_game(library, game, {"a readme.txt": b"Hello\n", "z update.pkg": content(500_000, 1)})
    _sparse(library / game / "game.iso", 4 * GIB + 234_567_890, 2 * GIB, 4 * GIB)
    return game


def members_beyond_4_gib(library: Path) -> str:
    # None needs ZIP64 for its size, the last ones for their offset.
    game = "roms/wii/Three discs"
    for number in (1, 2, 3):
        path = library / game / f"disc {number}.wbfs"
        path.parent.mkdir(parents=True, exist_ok=True)
        _sparse(path, 3 * GIB // 2 + number)
    make_game(library, game, {"z manual.pdf": content(300_000, 1), "zz empty": b""})
    return game


def members_70_000(library: Path) -> str:
    game = "roms/pc/70,000 files"
    folder = library / game
    for number in range(70_000):
        parent = f"{folder}/level {number // 1000:02}"
        path = f"{parent}/tile {number:05}.dat"
        if number < 1000:
            make_file(Path(path), b"%d" % number * (number % 50), mtime=MTIME + number)
            continue
        if number % 1000 == 0:
            os.makedirs(parent)
        # A link: to make and to remove so many files takes longer than all else here.
        os.link(f"{folder}/level 00/tile {number % 1000:05}.dat", path)
    return game


pytestmark = pytest.mark.timeout(1200)  # 70,000 files are half a minute's work for a processor


@pytest.fixture(
    scope="module", params=[one_member_beyond_4_gib, members_beyond_4_gib, members_70_000]
)
def site(fuse: None, request: pytest.FixtureRequest) -> Iterator[Site]:
    with site_of(request.param) as site:
        yield site


@pytest.fixture(scope="module")
def sha256(site: Site) -> str:
    return site.expected.sha256()


def test_whole(site: Site, sha256: str) -> None:
    url = site.nginx.url_of(site.archive)
    assert curl.sha256(url) == sha256
    headers = curl.head(url).headers
    assert headers["content-length"] == str(site.expected.size)
    assert headers["accept-ranges"] == "bytes"


def test_ranges(url: str, site: Site) -> None:
    expected = site.expected
    places = {0, expected.size // 2, expected.directory_offset, expected.size}
    places |= set(expected.boundaries[:10]) | set(expected.boundaries[-10:])
    places |= {n for n in (2 * GIB, 4 * GIB - 1, 4 * GIB) if n < expected.size}
    wanted = sorted((max(n - 50, 0), min(n + 50, expected.size)) for n in places)
    for start, stop in wanted:
        response = curl.get_range(url, f"{start}-{stop - 1}")
        assert (response.status, response.body) == (206, expected[start:stop])
        assert response.content_range == (start, stop, expected.size)
    suffix = curl.get_range(url, "-3000000")
    assert (suffix.status, suffix.body) == (206, expected[expected.size - 3_000_000 :])
    several = curl.get_range(url, ",".join(f"{start}-{stop - 1}" for start, stop in wanted[::4]))
    assert several.parts() == [
        ((start, stop, expected.size), expected[start:stop]) for start, stop in wanted[::4]
    ]
    assert curl.get_range(url, f"{expected.size}-").status == 416


def test_conditions(url: str, site: Site) -> None:
    etag = curl.head(url).headers["etag"]
    size, data = site.expected.size, site.expected[site.expected.size - 1000 :]
    same = curl.get_range(url, f"{size - 1000}-", "-H", f"If-Range: {etag}")
    assert (same.status, same.body) == (206, data)
    assert curl.head(url, "-H", f"If-None-Match: {etag}").status == 304
    assert curl.head(url, "-H", 'If-Match: "0-0"').status == 412
    # Only the beginning: a wrong If-Range means the whole archive.
    other = curl.head(url, "-r", "1000-", "-H", 'If-Range: "0-0"')
    assert (other.status, other.headers["content-length"]) == (200, str(size))


def test_curl_resumes_across_4_gib(site: Site, sha256: str, place: Path) -> None:
    expected, url = site.expected, site.nginx.url_of(site.archive)
    file = place / "game.zip"
    # What an earlier download left, cut off shortly before 4 GiB (or in the middle).
    there = 4 * GIB - 1_000_000 if expected.size > 4 * GIB else expected.size // 2
    expected.write(file, there)
    done = run(*curl.QUIET, "-C", "-", "-o", file, "-w", "%{http_code} %{size_download}", url)
    assert done.stdout.decode() == f"206 {expected.size - there}"
    assert file.stat().st_size == expected.size
    assert sha256_of(file) == sha256


def test_wget_resumes_behind_4_gib(site: Site, sha256: str, place: Path) -> None:
    expected, url = site.expected, site.caddy.url_of(site.archive)
    file = place / "game.zip"
    there = max(expected.size - GIB // 5, expected.size // 2)
    expected.write(file, there)
    said = run(*WGET, "-S", "-c", "-O", file, url).stderr.decode()
    assert "206 Partial Content" in said
    assert f"Content-Length: {expected.size - there}\n" in said
    assert sha256_of(file) == sha256


def test_aria2c_and_readers_of_files(site: Site, sha256: str, place: Path) -> None:
    url = site.nginx.url_of(site.archive)
    run(*ARIA2C, "-d", place, "-o", "game.zip", url, seconds=SECONDS)
    file = place / "game.zip"
    assert sha256_of(file) == sha256
    readers.check_all_on_disk(file, site.expected, seconds=SECONDS)


def test_bsdtar_from_a_pipe(site: Site) -> None:
    url = site.nginx.url_of(site.archive)
    readers.check_bsdtar_from_pipe(url, site.expected, seconds=SECONDS)


def test_java_from_a_pipe(site: Site, java_reader: Path) -> None:
    url = site.caddy.url_of(site.archive)
    readers.check_java_from_pipe(url, site.expected, java_reader, seconds=SECONDS)


def test_extracts_to_the_source(site: Site, place: Path) -> None:
    # bsdtar leaves out zeros on the disk.
    target = place / "extracted"
    target.mkdir()
    url = site.caddy.url_of(site.archive)
    readers.read_from_pipe(url, "bsdtar", "--read-sparse", "-xSf", "-", cwd=target, seconds=SECONDS)
    assert readers.files_of(target) == readers.files_of(site.source)
