"""The middleware for WSGI: the same answers, and the protocol kept on both sides."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import flask
import pytest

from zipfs.front import wsgi
from zipfs.front.archives import HANGS, Archives, name_of
from zipfs.front.settings import Settings
from zipfs.front.wsgi import FromZipfs

LIST: Final = b"- 3 /library/roms/x/Game/a a\n- 3 /library/roms/x/Game/b b"
MARKED: Final = [("X-Archive-Files", "zip"), ("Content-Type", "text/plain")]
COOKIE: Final = ("Set-Cookie", "a=b")
Wsgi = Callable[..., Iterable[bytes]]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(Archives, "LEAST", 100)  # our disk never hangs, but may be busy
    (tmp_path / "lists").mkdir()
    (tmp_path / "shown").mkdir()
    return Settings(lists=str(tmp_path / "lists"), shown=str(tmp_path / "shown"), wait=0)


def show(settings: Settings) -> str:
    Path(settings.shown, f"{name_of(LIST)}.zip").touch()
    return f"{settings.location}/{name_of(LIST)}.zip"


class Lists:
    """An application that answers with a list; *begin* says when: called, iterated, writing."""

    def __init__(self, begin: str = "called", status: str = "200 OK") -> None:
        self.asked: list[dict[str, Any]] = []
        self.closed = 0
        self._begin = begin
        self._status = status
        self.headers = [*MARKED, COOKIE, ("ETag", '"x"')]

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.asked.append(environ)
        middle = len(LIST) // 2
        if self._begin == "iterated":
            return _Closing(self, self._generated(start_response, middle))
        write = start_response(self._status, self.headers)
        if environ["REQUEST_METHOD"] == "HEAD":
            return []
        if self._begin == "writing":
            write(LIST[:middle])
            return [LIST[middle:]]
        return _Closing(self, iter([LIST[:middle], LIST[middle:]]))

    def _generated(self, start_response: Any, middle: int) -> Iterator[bytes]:
        start_response(self._status, self.headers)
        yield LIST[:middle]
        yield LIST[middle:]


class _Closing:
    def __init__(self, application: Lists, pieces: Iterator[bytes]) -> None:
        self._application = application
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        self._application.closed += 1


def fetch(
    app: Wsgi, method: str = "GET", path: str = "/download", **environ: str
) -> tuple[str, dict[str, str], bytes]:
    """As a server does it, which looks at each step of the protocol."""
    asked = {"REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path, **environ}
    asked.setdefault("QUERY_STRING", "")
    setup_testing_defaults(asked)
    started: list[tuple[str, list[tuple[str, str]]]] = []
    written: list[bytes] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        started.append((status, headers))
        return written.append

    result = validator(app)(asked, start_response)
    pieces = list(result)
    result.close()  # type: ignore[attr-defined]
    ((status, headers),) = started
    return status, dict(headers), b"".join([*written, *pieces])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("begin", ["called", "iterated", "writing"])
def test_the_list_becomes_an_archive(settings: Settings, method: str, begin: str) -> None:
    application = Lists(begin)
    app = FromZipfs(application, paths="/download", settings=settings)
    target = show(settings)
    status, headers, body = fetch(
        app, method, HTTP_RANGE="bytes=5-", HTTP_IF_RANGE='"x"', HTTP_COOKIE="q=1"
    )
    assert (status, body) == ("200 OK", b"")
    assert headers == {
        "Set-Cookie": "a=b",
        "Content-Type": "application/zip",
        "X-Accel-Redirect": target,
        "Content-Length": "0",
    }
    (asked,) = application.asked
    assert asked["REQUEST_METHOD"] == "GET"
    assert not {"HTTP_RANGE", "HTTP_IF_RANGE"} & asked.keys()
    assert application.closed == (begin != "writing")
    (written,) = Path(settings.lists).iterdir()
    assert written.read_bytes() == LIST


def test_an_answer_serves_again_but_nobody_else(settings: Settings) -> None:
    application = Lists()
    app = FromZipfs(application, paths="/download", settings=settings)
    show(settings)
    assert "Set-Cookie" in fetch(app, HTTP_COOKIE="q=1")[1]
    assert "Set-Cookie" not in fetch(app, HTTP_COOKIE="q=1")[1]
    assert len(application.asked) == 1
    others: list[dict[str, str]] = [{}, {"HTTP_COOKIE": "q=2"}, {"REMOTE_USER": "x"}]
    for count, other in enumerate(others, 2):
        fetch(app, **other)
        assert len(application.asked) == count


@pytest.mark.parametrize("begin", ["called", "iterated", "writing"])
@pytest.mark.parametrize("fallback", ["list", "503"])
def test_without_an_archive(settings: Settings, begin: str, fallback: str) -> None:
    app = FromZipfs(
        Lists(begin),
        paths="/download",
        settings=Settings(lists=settings.lists, shown=settings.shown, wait=0, fallback=fallback),
    )
    for method in ("GET", "HEAD"):
        status, headers, body = fetch(app, method, HTTP_RANGE="bytes=5-")
        assert headers["X-Zipfs"] == "no archive yet"
        if fallback == "503":
            assert (status, headers["Retry-After"], body) == ("503 Service Unavailable", "5", b"")
        else:
            assert (status, headers["Accept-Ranges"]) == ("200 OK", "none")
            assert headers["X-Archive-Files"] == "zip"
            if method == "GET":
                assert body == LIST


@pytest.mark.parametrize("begin", ["called", "iterated", "writing"])
def test_other_answers_pass(settings: Settings, begin: str) -> None:
    application = Lists(begin, "401 Unauthorized")
    app = FromZipfs(application, paths="/download", settings=settings)
    status, headers, body = fetch(app)
    assert (status, headers, body) == ("401 Unauthorized", dict(application.headers), LIST)
    assert fetch(app, "HEAD")[0] == "401 Unauthorized"
    assert application.closed == 2 * (begin != "writing")
    assert not list(Path(settings.lists).iterdir())


def test_what_is_no_download_is_not_touched(settings: Settings) -> None:
    given: list[object] = []
    result: list[bytes] = []

    def application(*what: object) -> list[bytes]:
        given.extend(what)
        return result

    app = FromZipfs(application, paths="/download", settings=settings)

    def start_response(*_: object) -> None: ...

    for method, path in (("POST", "/download"), ("GET", "/x"), ("GET", "/download/x")):
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path}
        assert app(environ, start_response) is result  # type: ignore[arg-type]
        assert given[-2] is environ
        assert given[-1] is start_response


@pytest.mark.parametrize("begin", ["called", "iterated", "writing"])
def test_a_list_that_is_too_large(
    settings: Settings, begin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wsgi, "LARGEST", 10)
    show(settings)
    status, headers, body = fetch(FromZipfs(Lists(begin), paths="/download", settings=settings))
    assert (status, headers["X-Archive-Files"], body) == ("200 OK", "zip", LIST)


def test_a_mount_that_hangs_is_waited_for_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    real = os.path.lexists

    def lexists(path: str) -> bool:
        answers.wait()
        return real(path)

    def look(*_: object) -> str:
        answers.wait()
        return ""

    monkeypatch.setattr(os.path, "lexists", lexists)
    monkeypatch.setattr("zipfs.front.archives.look", look)
    monkeypatch.setattr(Archives, "LEAST", 0.1)
    app = FromZipfs(Lists(), paths="/download", settings=settings)
    try:
        assert fetch(app)[1]["X-Zipfs"] == HANGS
        app.settings = Settings(lists=settings.lists, shown=settings.shown, wait=3600)
        for _ in range(20):
            assert fetch(app)[1]["X-Zipfs"] == HANGS
    finally:
        answers.set()


def test_flask(settings: Settings) -> None:
    """A framework's own ways: what it sets by itself isn't the archive's."""
    application = flask.Flask("front")

    @application.get("/download")
    def download() -> flask.Response:
        response = flask.Response(LIST, headers={"X-Archive-Files": "zip"})
        response.add_etag()
        return response.make_conditional(flask.request)

    application.wsgi_app = FromZipfs(  # type: ignore[method-assign]
        application.wsgi_app, paths="/download", settings=settings
    )
    target = show(settings)
    answer = application.test_client().get("/download", headers={"Range": "bytes=0-1"})
    assert (answer.status_code, answer.headers["X-Accel-Redirect"]) == (200, target)
    assert answer.headers["Content-Type"] == "application/zip"
    assert "ETag" not in answer.headers
