"""``zipfs.open_archive`` behind web frameworks: ranges, validators, resuming, and a change."""

from __future__ import annotations

import re
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, IncompleteRead
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from flask import Flask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

import zipfs
from tests.support.documents import block
from tests.support.libraries import content, expected, make_game
from tests.support.waiting import SECONDS, poll

FILES = {"a.bin": content(2_500_000, 1), "music/b.bin": content(100_000, 2), "c": b"c"}
Get = Callable[..., tuple[int, dict[str, str], bytes]]
"""Path-less: headers as keywords, ``_`` for ``-``; gives status, headers and body."""


@pytest.fixture
def game(library: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one that the example in the manual is about."""
    game = make_game(library, "games/Drascula", FILES)
    monkeypatch.chdir(library)
    return game


@pytest.fixture
def flask_app(game: Path) -> Flask:
    """The example itself."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(block("library-use"), names)  # noqa: S102 - our own
    app = names["app"]
    assert isinstance(app, Flask)
    return app


@pytest.fixture
def get_flask(flask_app: Flask) -> Get:
    def get(**headers: str) -> tuple[int, dict[str, str], bytes]:
        with (
            flask_app.test_client() as client,
            client.get(
                "/drascula.zip", headers={key.replace("_", "-"): headers[key] for key in headers}
            ) as response,
        ):
            found = {key.lower(): value for key, value in response.headers.items()}
            return response.status_code, found, response.data

    return get


def _starlette(archive: zipfs.ArchiveFile) -> Starlette:
    """One archive for all requests; each reads its range by position, in threads."""

    def pieces(start: int, end: int) -> Iterator[bytes]:
        for offset in range(start, end, 1 << 16):
            yield archive.read_at(offset, min(1 << 16, end - offset))

    def answer(request: Request) -> Response:
        headers = {"ETag": archive.etag, "Accept-Ranges": "bytes"}
        if request.headers.get("if-none-match") == archive.etag:
            return Response(status_code=304, headers=headers)
        start, end, status = 0, archive.size, 200
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
        if asked and request.headers.get("if-range", archive.etag) == archive.etag:
            first, last = asked.groups()
            start = int(first) if first else max(0, archive.size - int(last))
            end = min(int(last) + 1, archive.size) if first and last else archive.size
            if start >= archive.size:
                headers["Content-Range"] = f"bytes */{archive.size}"
                return Response(status_code=416, headers=headers)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{archive.size}"
            status = 206
        headers["Content-Length"] = str(end - start)
        return StreamingResponse(pieces(start, end), status, headers, "application/zip")

    return Starlette(routes=[Route("/", answer)])


@contextmanager
def _serving(app: Starlette) -> Iterator[int]:
    """A real server in a thread; its port."""
    config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=[[listening]])
        thread.start()
        try:
            poll("uvicorn to have started", lambda: server.started or not thread.is_alive())
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def get_starlette(game: Path) -> Iterator[Get]:
    with zipfs.open_archive(game) as archive, _serving(_starlette(archive)) as port:

        def get(**headers: str) -> tuple[int, dict[str, str], bytes]:
            named = {key.replace("_", "-"): value for key, value in headers.items()}
            with closing(HTTPConnection("127.0.0.1", port, timeout=SECONDS)) as connection:
                connection.request("GET", "/", headers=named)
                with connection.getresponse() as response:
                    found = {key.lower(): value for key, value in response.getheaders()}
                    return response.status, found, response.read()

        yield get


@pytest.mark.parametrize("framework", ["flask", "starlette"])
def test_ranges(framework: str, request: pytest.FixtureRequest, game: Path) -> None:
    get: Get = request.getfixturevalue(f"get_{framework}")
    wanted = expected(game)
    whole = wanted.read(0, wanted.size)
    etag = f'"{wanted.mtime_ns // 10**9:x}-{wanted.size:x}"'

    status, headers, body = get()
    assert (status, headers["etag"], headers["content-length"]) == (200, etag, str(len(whole)))
    assert headers["accept-ranges"] == "bytes"
    assert body == whole
    assert zipfile.ZipFile(BytesIO(body)).testzip() is None

    half = len(whole) // 2
    for asked, first, behind in [
        ("bytes=0-0", 0, 1),
        ("bytes=100-200099", 100, 200_100),
        (f"bytes={half}-", half, len(whole)),
        ("bytes=-22", len(whole) - 22, len(whole)),
    ]:
        status, headers, body = get(Range=asked, If_Range=etag)
        assert (status, headers["etag"]) == (206, etag)
        assert headers["content-range"] == f"bytes {first}-{behind - 1}/{len(whole)}"
        assert body == whole[first:behind]
    status, headers, _ = get(Range=f"bytes={len(whole)}-")
    assert (status, headers["content-range"]) == (416, f"bytes */{len(whole)}")
    status, _, body = get(Range="bytes=0-0", If_Range='"another"')
    assert (status, body) == (200, whole)
    status, _, body = get(If_None_Match=etag)
    assert (status, body) == (304, b"")


def test_the_next_request_gets_the_new_version(get_flask: Get, game: Path) -> None:
    """Half of the old one is never completed by the new one."""
    _, headers, half = get_flask(Range="bytes=0-1999999")
    (game / "a.bin").write_bytes(content(2_500_000, "new"))
    status, new, body = get_flask(Range="bytes=2000000-", If_Range=headers["etag"])
    assert (status, len(body)) == (200, int(headers["content-range"].partition("/")[2]))
    assert new["etag"] != headers["etag"]
    assert body == expected(game).read(0, len(body))
    assert body[: len(half)] != half


def test_a_download_of_a_changed_game_is_cut(get_starlette: Get, game: Path) -> None:
    """No wrong byte, and none that is made up: the client sees that it isn't all."""
    whole = expected(game).read(0, 1 << 30)
    (game / "music/b.bin").write_bytes(content(100_000, "new"))
    with pytest.raises(IncompleteRead) as caught:
        get_starlette(Range="bytes=100-")
    assert caught.value.partial
    assert caught.value.partial == whole[100:][: len(caught.value.partial)]
    status, _, body = get_starlette(Range="bytes=-22")
    assert (status, len(body)) == (206, 22)
