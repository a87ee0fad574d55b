"""`make endure`'s clients against a server that sends what it shouldn't: each of it is told."""

from __future__ import annotations

import http.server
import random
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from bench.endure import clients
from bench.endure.clients import BROKEN, MISSING, PREFIX, Clients
from bench.endure.library import HOMEBREW, Library
from bench.endure.programs import Programs
from bench.web import ADDRESS, Server
from tests.model.versions import ModelError
from zipfs.archive.validators import nginx_etag


class Served:
    """One archive; *spoil* changes an answer's body, *status* is sent instead of it if set."""

    def __init__(self, path: str, body: bytes, etag: str) -> None:
        self.path = path
        self.body = body
        self.etag = etag
        self.spoil: Callable[[bytes], bytes] = lambda data: data
        self.status = 0


def handler_of(served: Served) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(self.path).removeprefix(f"/{PREFIX}")
            folder = f"{HOMEBREW}/"
            if path == folder:
                self.answer(200, f'<a href="{Path(served.path).name}">'.encode())
            elif served.status or path != served.path:
                self.answer(served.status or 404, b"")
            elif self.headers["If-None-Match"] == served.etag:
                self.answer(304, b"")
            elif asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or ""):
                first, last = int(asked[1]), int(asked[2] or len(served.body) - 1)
                told = f"bytes {first}-{last}/{len(served.body)}"
                self.answer(206, served.body[first : last + 1], told)
            else:
                self.answer(200, served.body)

        def answer(self, status: int, body: bytes, content_range: str = "") -> None:
            self.send_response(status)
            self.send_header("ETag", served.etag)
            self.send_header("Content-Length", str(len(body)))
            if content_range:
                self.send_header("Content-Range", content_range)
            self.end_headers()
            sent = served.spoil(body) if status in (200, 206) else body
            if self.command != "HEAD":
                self.wfile.write(sent)
            self.close_connection = len(sent) != len(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class Web(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Clients that vanish are no error."""


class Stage:
    """A library of one game, its archive served, and clients."""

    def __init__(self, tmp_path: Path) -> None:
        (tmp_path / "library").mkdir()
        self.library = Library(tmp_path / "library", tmp_path / "aside")
        self.library.add_game(random.Random(5))
        [self.archive] = self.library.changing()
        version = self.library.all[self.archive].history.now.version
        assert version
        body = version.read(0, version.size)
        self.served = Served(self.archive, body, nginx_etag(version.first, version.size))
        self.web = Web((ADDRESS, 0), handler_of(self.served))
        threading.Thread(target=self.web.serve_forever, args=[0.01]).start()
        port = self.web.server_port
        with subprocess.Popen("true") as process:
            server = Server(
                url=f"http://{ADDRESS}:{port}", port=port, process=process, log=tmp_path / "log"
            )
        self.quiet, ended = threading.Event(), threading.Event()
        programs = Programs(tmp_path / "mount", self.quiet, ended)
        self.clients = Clients(server, self.library, programs, tmp_path / "drafts")

    def close(self) -> None:
        self.web.shutdown()
        self.web.server_close()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    monkeypatch.setattr(Library, "any", lambda self, rng: stage.archive)
    monkeypatch.setattr(Library, "stable", lambda self, *groups: [])
    try:
        yield stage
    finally:
        stage.close()


@pytest.fixture
def untouched(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """The same, long after the game was added."""
    monkeypatch.setattr(Library, "is_excused", lambda self, archive: archive != stage.archive)
    return stage


KINDS = ("whole", "resumed", "broken_off", "ranges", "checks")


@pytest.mark.parametrize("kind", KINDS)
def test_right_answers_are_taken(untouched: Stage, kind: str) -> None:
    assert getattr(untouched.clients, kind)(random.Random(1), 5) == 5
    assert untouched.clients.received > 0 or kind == "checks"
    assert untouched.clients.counts[MISSING] == 0


@pytest.mark.parametrize("kind", ["whole", "resumed", "ranges"])
def test_one_wrong_bit_is_told(untouched: Stage, kind: str) -> None:
    untouched.served.spoil = lambda data: data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(ModelError):
        getattr(untouched.clients, kind)(random.Random(1), 3)


def test_one_wrong_bit_is_told_at_first_sight(untouched: Stage) -> None:
    middle = len(untouched.served.body) // 2
    untouched.served.spoil = lambda data: (
        data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    )
    with pytest.raises(ModelError, match="WRONG BYTES"):
        untouched.clients.fetch(untouched.archive)


def test_an_etag_of_no_version_is_told(stage: Stage) -> None:
    stage.served.etag = stage.served.etag.replace("-", "-1")
    with pytest.raises(ModelError, match="was never this"):
        stage.clients.fetch(stage.archive)


@pytest.mark.parametrize("kind", KINDS)
def test_a_404_without_a_reason_is_told(untouched: Stage, kind: str) -> None:
    untouched.served.status = 404
    with pytest.raises(ModelError, match="404"):
        getattr(untouched.clients, kind)(random.Random(1), 1)


def test_a_404_after_a_change_is_counted(stage: Stage) -> None:
    stage.served.status = 404
    assert not stage.clients.fetch(stage.archive)
    assert stage.clients.counts[MISSING] == 1


@pytest.mark.parametrize("status", [403, 500])
def test_other_errors_are_told_also_after_a_change(stage: Stage, status: int) -> None:
    stage.served.status = status
    with pytest.raises(ModelError, match=str(status)):
        stage.clients.fetch(stage.archive)


def test_an_answer_that_breaks_off_without_a_reason_is_told(untouched: Stage) -> None:
    untouched.served.spoil = lambda data: data[: len(data) // 2]
    with pytest.raises(ModelError, match="broke off"):
        untouched.clients.fetch(untouched.archive)


def test_an_answer_that_breaks_off_after_a_change_is_counted(stage: Stage) -> None:
    stage.served.spoil = lambda data: data[: len(data) // 2]
    assert stage.clients.fetch(stage.archive)
    assert stage.clients.counts[BROKEN] == 1
    assert stage.clients.counts["bodies compared"] == 0


def test_a_page_without_a_game_is_told(untouched: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Library, "stable", lambda self, *groups: [untouched.archive])
    assert untouched.clients.pages(random.Random(1), 2) == 2
    untouched.served.path = f"{HOMEBREW}/another.zip"
    with pytest.raises(ModelError, match="a page without"):
        untouched.clients.pages(random.Random(1), 1)


def test_a_client_that_hangs_stops_doing_so_in_a_quiet_moment(
    untouched: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Library, "stable", lambda self, *groups: [untouched.archive])
    monkeypatch.setattr(clients, "HANG", (3600.0, 3600.0))
    threading.Timer(0.3, untouched.quiet.set).start()
    began = time.monotonic()
    assert untouched.clients.hang(random.Random(1), 1) == 1
    assert time.monotonic() - began > 0.2
