"""Each download of RomM, in every way that a client has, and who may not have it (DESIGN B3)."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

from tests.e2e import downloads
from tests.e2e.curl import QUIET, get, get_range, head
from tests.e2e.programs import ARIA2C, run
from tests.e2e.romm.shelf import CUE, DOWNLOADS, SINGLE, Download
from tests.e2e.romm.stand import LOGIN, Stand
from tests.support.libraries import content
from tests.support.lists import expected_of

# The server before RomM asks each time, and leaves what is one file to RomM, with its range.
hooked = pytest.mark.parametrize("stand", ["hook"], indirect=True, scope="package")


@pytest.fixture(params=DOWNLOADS)
def download(request: pytest.FixtureRequest) -> Download:
    return DOWNLOADS[request.param]


def test_in_every_way(stand: Stand, download: Download, place: Path) -> None:
    wanted = expected_of(stand.mounted.library, download.members)
    whole = wanted.read(0, wanted.size)
    url = download.url(stand.romm)

    # The very first request is for a range, with which RomM would copy the game to its disk.
    first = get_range(url, "1000-1999", *LOGIN)
    assert (first.status, first.body) == (206, whole[1000:2000])
    assert first.content_range == (1000, 2000, len(whole))

    headers = head(url, *LOGIN).headers
    assert headers["content-length"] == str(len(whole))
    assert headers["accept-ranges"] == "bytes"
    assert headers["content-type"] == "application/zip"
    assert unquote(headers["content-disposition"]) == (
        f"attachment; filename*=UTF-8''{download.called}.zip; filename=\"{download.called}.zip\""
    )
    assert not {"x-archive-files", "x-archive-charset", "x-zipfs"} & headers.keys()
    etag = headers["etag"]

    got = get(url, *LOGIN)
    assert (got.status, got.body, got.headers["etag"]) == (200, whole, etag)

    file = place / "file"
    file.write_bytes(whole[: len(whole) // 3])
    done = run(*QUIET, "-C", "-", "-o", file, "-w", "%{http_code}", *LOGIN, url)
    assert done.stdout == b"206"
    assert file.read_bytes() == whole

    middle = len(whole) // 2
    assert get_range(url, f"{middle}-", *LOGIN, "-H", f"If-Range: {etag}").body == whole[middle:]
    other = get_range(url, f"{middle}-", *LOGIN, "-H", 'If-Range: "5f5e1000-1"')
    assert (other.status, other.body) == (200, whole)
    unchanged = get(url, *LOGIN, "-H", f"If-None-Match: {etag}")
    assert (unchanged.status, unchanged.body) == (304, b"")

    several = get_range(url, f"0-9,{middle}-{middle + 99},-22", *LOGIN)
    assert several.status == 206
    assert [part for _, part in several.parts()] == [
        whole[:10],
        whole[middle : middle + 100],
        whole[-22:],
    ]
    assert get_range(url, f"{len(whole)}-", *LOGIN).status == 416

    aria2c = [{"-x16": "-x8", "-s16": "-s8"}.get(word, word) for word in ARIA2C]
    run(*aria2c, "--header", LOGIN[1], "-d", place, "-o", "parallel.zip", url)
    assert (place / "parallel.zip").read_bytes() == whole


def test_content(stand: Stand, download: Download, place: Path) -> None:
    """As three programs read it, of which Python's refuses what RomM streams."""
    file = place / "file.zip"
    file.write_bytes(get(download.url(stand.romm), *LOGIN).body)
    downloads.check_file(file)
    run("unzip", "-tqq", file)
    run("7z", "t", file)
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            name: what if isinstance(what, bytes) else (stand.mounted.library / what).read_bytes()
            for name, what in download.members
        }


@hooked
def test_the_application_never_sees_a_range(stand: Stand) -> None:
    """Also of one file, which it leaves to nginx; there the range is kept."""
    assert get_range(stand.romm.game(CUE), "0-9").status == 401
    url = stand.romm.game(SINGLE)
    answer = get_range(url, "1000-1999", *LOGIN)
    assert (answer.status, answer.body) == (206, content(70_000, 10)[1000:2000])
    assert answer.headers["content-type"] == "application/octet-stream"
    assert head(url, *LOGIN).headers["content-length"] == "70000"
    one = stand.romm.game(CUE, stand.romm.files(CUE, "Vagrant Story.cue"))
    assert get(one, *LOGIN).body == b'FILE "Vagrant Story.bin" BINARY\n'


def test_who_may_not_have_it(stand: Stand) -> None:
    url = stand.romm.game(CUE)
    whole = get(url, *LOGIN)
    assert whole.status == 200
    for asked in (get(url), head(url), get(url, "-H", "Cookie: a=b")):
        assert asked.status == 401
    assert get(url).body == b'{"detail":"Unauthorized"}'
    assert get(f"{stand.romm.url}/api/roms/99/content/x", *LOGIN).status == 404
    assert head(f"{stand.romm.url}/api/roms/99/content/x", *LOGIN).status == 404
    (name,) = (one.name for one in stand.lists.glob("*.list") if _is_of(one, whole.body))
    archive = name.removesuffix(".list") + ".zip"
    assert (stand.mounted.path / ".lists" / archive).exists()
    for path in (f"cache/zipfs/.lists/{archive}", "cache/", "library/", quote(f"library/{SINGLE}")):
        assert get(f"{stand.romm.url}/{path}", *LOGIN).status == 404


def _is_of(path: Path, body: bytes) -> bool:
    """Whether *body* is an archive of the list at *path*."""
    with zipfile.ZipFile(BytesIO(body)) as archive:
        names = [line.split(" ", 3)[3] for line in path.read_text().split("\n")]
        return names == archive.namelist()


@hooked
def test_cookies_are_those_of_who_asked(stand: Stand) -> None:
    """RomM gives each client without one a cookie; what serves again gives none to others."""
    url = stand.romm.game(CUE, "again=1")
    asked = len(stand.romm.asked())
    first = get(url, *LOGIN)
    assert first.headers["set-cookie"].startswith("romm_csrftoken=")
    others = [get(url, *LOGIN) for _ in range(6)]
    assert {other.status for other in others} == {200}
    given = [other.headers["set-cookie"] for other in others if "set-cookie" in other.headers]
    # At most the other worker has asked as well.
    assert len(given) == len(stand.romm.asked()) - asked - 1 <= 1
    assert first.headers["set-cookie"] not in given


def test_one_file(stand: Stand) -> None:
    for url in (stand.romm.game(SINGLE), stand.romm.bulk(SINGLE)):
        answer = get(url, *LOGIN)
        assert (answer.status, answer.body) == (200, content(70_000, 10))
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment; filename*=UTF-8''Sing")
