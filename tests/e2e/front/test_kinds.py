"""Each kind of download that a front end has, as clients see it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import pytest

from tests.e2e import downloads
from tests.e2e.curl import QUIET, get, get_range, head
from tests.e2e.expected import Expected
from tests.e2e.front.conftest import HUNDRED, ONE_IN_A_FOLDER, SINGLE
from tests.e2e.front.stand import Stand
from tests.e2e.games import MIXED
from tests.e2e.programs import ARIA2C, WGET, run

PART: Final = ("disc 1.bin", "disc 1.cue", "extras/Приключение/地図.png")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    url: Callable[[Stand, str], str]
    """Of the stand, behind the server of that name."""
    check: Callable[[Stand, bytes, str], None]
    """That these bytes are what was to come from this URL."""


def _is_archive_of_mixed(stand: Stand, body: bytes, _url: str) -> None:
    assert body == Expected(stand.mounted.library / MIXED)[:]


def _is_file(path: str) -> Callable[[Stand, bytes, str], None]:
    def check(stand: Stand, body: bytes, _url: str) -> None:
        assert body == (stand.mounted.library / path).read_bytes()

    return check


def _is_what_was_asked_for(stand: Stand, body: bytes, url: str) -> None:
    downloads.check(body, len(body), url)
    entries = stand.front.answer(url.removeprefix(_base(stand, url))).entries
    with zipfile.ZipFile(BytesIO(body)) as archive:
        assert archive.namelist() == [os.fsdecode(entry.name) for entry in entries]
        for info, entry in zip(archive.infolist(), entries, strict=True):
            data = entry.content
            if data is None:
                data = (stand.mounted.library / os.fsdecode(entry.path)).read_bytes()
            assert archive.read(info) == data


def _base(stand: Stand, url: str) -> str:
    (base,) = [server.url for server in stand.servers.values() if url.startswith(server.url + "/")]
    return base


KINDS: Final = {
    "whole": Kind(url=lambda stand, server: stand.game(server, MIXED), check=_is_archive_of_mixed),
    "all files": Kind(
        url=lambda stand, server: stand.game(
            server,
            MIXED,
            "file_ids=" + ",".join(str(file.number) for file in stand.front.game(MIXED).files),
        ),
        check=_is_archive_of_mixed,
    ),
    "one file": Kind(
        url=lambda stand, server: stand.game(server, MIXED, stand.files(MIXED, "disc 2.bin")),
        check=_is_file(f"{MIXED}/disc 2.bin"),
    ),
    "single file": Kind(
        url=lambda stand, server: stand.game(server, SINGLE), check=_is_file(SINGLE)
    ),
    "one in a folder": Kind(
        url=lambda stand, server: stand.game(server, ONE_IN_A_FOLDER),
        check=_is_file(f"{ONE_IN_A_FOLDER}/one.nes"),
    ),
    "subset": Kind(
        url=lambda stand, server: stand.game(server, MIXED, stand.files(MIXED, *PART)),
        check=_is_what_was_asked_for,
    ),
    "hidden folder": Kind(
        url=lambda stand, server: stand.game(server, MIXED, "hidden_folder=true"),
        check=_is_what_was_asked_for,
    ),
    "bulk of 100 games": Kind(
        url=lambda stand, server: stand.bulk(server, [*HUNDRED, MIXED][-100:]),
        check=_is_what_was_asked_for,
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def url(stand: Stand, kind: Kind, server: str) -> str:
    return kind.url(stand, server)


@pytest.fixture(autouse=True)
def _nothing_is_built(stand: Stand) -> Iterator[None]:
    """What is there is never built the old way."""
    before = stand.front.built
    yield
    assert stand.front.built == before


def test_whole(stand: Stand, kind: Kind, url: str) -> None:
    response = get(url)
    assert response.status == 200
    kind.check(stand, response.body, url)
    headers = response.headers
    assert headers["content-length"] == str(len(response.body))
    assert headers["accept-ranges"] == "bytes"
    assert headers["content-disposition"].startswith("attachment; filename=")
    # Not those of the application's page.
    assert headers["etag"].strip('"').isalnum() or "-" in headers["etag"]
    assert "application" not in headers["etag"]
    assert "1970" not in headers["last-modified"]
    is_zip = response.body.startswith(b"PK")
    assert headers["content-type"] == f"application/{'zip' if is_zip else 'octet-stream'}"
    assert "x-accel-redirect" not in headers


def test_head_says_what_get_says(url: str) -> None:
    response, whole = head(url), get(url)
    assert (response.status, response.body) == (200, b"")
    for name in (
        *("content-length", "accept-ranges", "etag", "last-modified"),
        *("content-type", "content-disposition"),
    ):
        assert response.headers[name] == whole.headers[name]


def test_ranges(url: str) -> None:
    whole = get(url)
    size = len(whole.body)
    for wanted, part in (
        ("0-0", slice(0, 1)),
        ("1000-99999", slice(1000, 100_000)),
        ("-70000", slice(max(size - 70_000, 0), size)),
        (f"{size - 10}-", slice(size - 10, size)),
    ):
        response = get_range(url, wanted)
        assert response.status == 206
        assert response.body == whole.body[part]
        assert response.content_range == (*part.indices(size)[:2], size)
        assert response.headers["etag"] == whole.headers["etag"]
    assert get_range(url, f"{size}-").status == 416


def test_a_plain_get_and_its_resume_are_the_same(url: str) -> None:
    """By what browsers send, and by what is sent without asking first."""
    whole = get(url)
    middle = len(whole.body) // 2
    for condition in ([], ["-H", f"If-Range: {whole.headers['etag']}"]):
        rest = get_range(url, f"{middle}-", *condition)
        assert rest.status == 206
        assert whole.body[:middle] + rest.body == whole.body
    other = get_range(url, f"{middle}-", "-H", 'If-Range: "5f5e0b00-1"')
    assert (other.status, other.body) == (200, whole.body)
    assert get(url, "-H", f"If-None-Match: {whole.headers['etag']}").status == 304


def test_clients_resume(url: str, place: Path) -> None:
    whole = get(url).body
    there = len(whole) // 3
    file = place / "file"
    file.write_bytes(whole[:there])
    done = run(*QUIET, "-C", "-", "-o", file, "-w", "%{http_code} %{size_download}", url)
    assert done.stdout.decode() == f"206 {len(whole) - there}"
    assert file.read_bytes() == whole
    os.truncate(file, there)
    said = run(*WGET, "-S", "-c", "-O", file, url).stderr.decode()
    assert "206 Partial Content" in said
    assert file.read_bytes() == whole


def test_16_connections(url: str, place: Path) -> None:
    whole = get(url).body
    run(*ARIA2C, "-d", place, "-o", "file", url)
    assert (place / "file").read_bytes() == whole
    assert not (place / "file.aria2").exists()


def test_both_servers_send_the_same(stand: Stand, kind: Kind) -> None:
    first, second = (get(kind.url(stand, name)) for name in stand.servers)
    assert first.body == second.body
    for name in ("last-modified", "content-disposition", "content-type"):
        assert first.headers[name] == second.headers[name]
