"""A damaged download doesn't go unnoticed, whichever way it came (:mod:`tests.e2e.downloads`)."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest

from tests.e2e import curl, readers
from tests.e2e.downloads import DamagedDownloadError, check_folder, declare_partial
from tests.e2e.matrix.client import Download, fetch
from tests.e2e.programs import ARIA2C, WGET, environment, run
from tests.reference import File, archive
from tests.support.libraries import content

FILES: Final = (File(name=b"a", data=content(300_000)), File(name=b"b", data=b"b"))
WHOLE: Final = archive(FILES).tobytes()
DATA: Final = 200_000
"""Where there is data, of which no header tells more than the CRC-32."""
ROOT: Final = Path(__file__).parents[2]


def _flipped(at: int) -> bytes:
    return WHOLE[:at] + bytes([WHOLE[at] ^ 1]) + WHOLE[at + 1 :]


DAMAGED: Final = {
    "data": _flipped(DATA),
    "local header": _flipped(14),
    "end record": _flipped(len(WHOLE) - 1),
    "cut": WHOLE[:-1],
    "longer": WHOLE + b"\0",
    "page": b"<html>Something else</html>",
    "empty": b"",
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        assert isinstance(self.server, _Server)
        self.send_response(self.server.status)
        # As if there were more to come: a download that breaks off.
        self.send_header("Content-Length", str(len(self.server.body) + self.server.missing))
        if self.server.status == 206:
            end = len(self.server.body)
            self.send_header("Content-Range", f"bytes 0-{end - 1}/{end}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(self.server.body)
        self.close_connection = bool(self.server.missing)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    status = 200
    body = WHOLE
    missing = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/game.zip"

    def handle_error(self, *_: object) -> None:
        pass  # a client that has gone


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _stream(url: str) -> None:
    with curl.streaming(url) as download:
        download.read(100)
        download.read()
        download.wait()


WAYS: Final[dict[str, Callable[[str, Path], object]]] = {
    "curl to a file": lambda url, place: run(
        *curl.QUIET, "-o", place / "game", url, status=(0, curl.PARTIAL)
    ),
    "wget": lambda url, place: run(*WGET, "-O", place / "game", url, status=(0, 4)),
    "aria2c": lambda url, place: run(*ARIA2C, "-d", place, "-o", "game", url, status=(0, 1, 8)),
    "get": lambda url, _: curl.get_if_whole(url),
    "streaming": lambda url, _: _stream(url),
    "through a pipe": lambda url, place: readers.read_from_pipe(url, "head", "-c", "10", cwd=place),
    "client": lambda url, _: fetch(url),
}


@pytest.mark.parametrize("way", WAYS)
def test_whole(server: _Server, place: Path, way: str) -> None:
    WAYS[way](server.url, place)


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("way", WAYS)
def test_damaged(server: _Server, place: Path, way: str, damage: str) -> None:
    server.body = DAMAGED[damage]
    with pytest.raises(DamagedDownloadError, match=r"game"):
        WAYS[way](server.url, place)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "through a pipe"])
def test_broken_off(server: _Server, place: Path, way: str) -> None:
    server.body, server.missing = WHOLE[:DATA], 1000
    WAYS[way](server.url, place)


def test_damaged_sha256(server: _Server) -> None:
    server.body = DAMAGED["data"]
    with pytest.raises(DamagedDownloadError):
        curl.sha256(server.url)


def test_a_part_is_none(server: _Server) -> None:
    server.status, server.body = 206, WHOLE[:DATA]
    assert curl.get(server.url).body == fetch(server.url).response.body == WHOLE[:DATA]


def test_who_leaves_early_has_none(server: _Server) -> None:
    server.body = DAMAGED["data"]
    with curl.streaming(server.url) as download:
        download.read(100)
    with Download(server.url) as other:
        other.read(100)


@pytest.mark.parametrize("damage", DAMAGED)
def test_left_in_a_folder(place: Path, damage: str) -> None:
    file = place / "deep/er/copy.zip"
    file.parent.mkdir(parents=True)
    file.write_bytes(WHOLE)
    check_folder(place)
    file.write_bytes(DAMAGED[damage])
    with pytest.raises(DamagedDownloadError, match=r"deep/er/copy\.zip: "):
        check_folder(place)
    declare_partial(file)
    check_folder(place)


LEAVES: Final = """
def test_leaves(place):
    (place / "game.zip").write_bytes({data!r})
"""


@pytest.mark.parametrize("damage", [None, "data"])
def test_each_test_is_followed_by_the_check(place: Path, damage: str | None) -> None:
    """In a run of its own, with the fixtures of these tests."""
    inner = place / "test_inner.py"
    inner.write_text(LEAVES.format(data=DAMAGED[damage] if damage else WHOLE))
    plugins = ("-p", "tests.conftest", "-p", "tests.e2e.conftest", "-p", "no:cacheprovider")
    done = run(
        *(sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", place),
        *(*plugins, inner),
        status=(1 if damage else 0,),
        cwd=ROOT,
        env=environment(TMPDIR=str(place)),
    )
    assert ("game.zip: data: 'a' has the CRC-32" in done.stdout.decode()) == bool(damage)
