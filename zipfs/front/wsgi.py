"""The middleware for WSGI applications: Flask, Django, Galaxy."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import chain
from typing import TYPE_CHECKING, Any

from zipfs.front.archives import HANGS, LARGEST, AnswerCache, Archives, Notes, Outcome, log, name_of
from zipfs.front.headers import (
    CONDITIONS,
    Headers,
    archive_headers,
    is_list,
    key_of,
    list_headers,
    unavailable,
    without_cookies,
)
from zipfs.front.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class FromZipfs:
    """*app*, whose downloads of several files come from zipfs: see :mod:`zipfs.front.asgi`.

    Requests that come at once each ask *app* by themselves, until the first is answered.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        paths: str,
        settings: Settings | None = None,
        logger: Any = log,
    ) -> None:
        self.app = app
        self.settings = settings or Settings()
        self._paths = re.compile(paths)
        self._archives = Archives(self.settings)
        self._notes = Notes(logger)
        self._cache = AnswerCache(self.settings.reuse)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = _path(environ)
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD") or not self._paths.fullmatch(
            path.decode("utf-8", "surrogateescape")
        ):
            return self.app(environ, start_response)
        key = key_of(path, environ.get("QUERY_STRING", "").encode("latin-1"), _headers(environ))
        outcome = self._cache.get(key) if self.settings.reuse else None
        if outcome is not None and not self._archives.breaker.is_open():
            limit = self._archives.limit(time.monotonic() + self.settings.wait)
            if not self._call(self._archives.look(outcome.name), limit):
                return self._answer(outcome, environ, start_response)
            self._cache.drop(key)

        answer = _Answer(start_response)
        asked = {**_unconditional(environ), "REQUEST_METHOD": "GET"}
        result = self.app(asked, answer.send)
        is_head = environ["REQUEST_METHOD"] == "HEAD"
        if answer.is_passed_on and not is_head:
            return result  # as it is: the server may know how to send it
        rest = _Body(answer, result)
        if is_head and answer.is_passed_on:
            rest.close()
            return []
        text = rest.whole()
        if text is None:
            return rest
        rest.close()
        name = name_of(text)
        reason = self._wait_for_archive(name, text)
        outcome = Outcome(name, reason, answer.headers, text if reason else b"")
        if reason:
            self._notes.fallback(outcome)
        elif self.settings.reuse:
            self._cache.put(key, outcome._replace(start=without_cookies(answer.headers)))
        return self._answer(outcome, environ, start_response)

    def _wait_for_archive(self, name: str, text: bytes) -> str:
        """Have an archive of the list *text*; empty, or the reason why there is none."""
        if self._archives.breaker.is_open():
            return HANGS
        wait, pause = self.settings.wait, Archives.FIRST_PAUSE
        limit = self._archives.limit(time.monotonic() + wait)
        reason = self._call(self._archives.write(name, text), limit)
        end = time.monotonic() + wait
        while not reason:
            is_last = time.monotonic() >= end
            reason = self._call(self._archives.look(name), self._archives.limit(end))
            if not reason or is_last or reason == HANGS:
                break
            reason = ""
            time.sleep(pause)
            pause = min(pause * 1.5, Archives.LONGEST_PAUSE)
        return reason

    def _call(self, future: Future[str], seconds: float) -> str:
        """The result of a call, or that it hangs."""
        try:
            return future.result(seconds)
        except TimeoutError:
            future.cancel()
            self._archives.breaker.trip()
            return HANGS

    def _answer(
        self, outcome: Outcome, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        if not outcome.reason:
            headers = archive_headers(outcome.start, outcome.name, self.settings)
            start_response("200 OK", _as_text(headers))
            return []
        if self.settings.fallback == "503":
            start_response("503 Service Unavailable", _as_text(unavailable(outcome)))
            return []
        if environ["REQUEST_METHOD"] == "HEAD":

            def marked(status: str, headers: Any, exc_info: Any = None) -> Any:
                told = _as_text(list_headers(_as_bytes(headers), outcome))
                return start_response(status, told, exc_info)

            return self.app(_unconditional(environ), marked)
        start_response("200 OK", _as_text(list_headers(outcome.start, outcome)))
        return [outcome.text]


class _Answer:
    """How the application's answer begins: held back if it is a list, else passed on."""

    def __init__(self, start_response: StartResponse) -> None:
        self._start_response = start_response
        self._given: tuple[Any, ...] = ()
        self.written: list[bytes] = []
        self.is_passed_on = False

    @property
    def headers(self) -> Headers:
        return _as_bytes(self._given[1])

    def send(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        self._given = status, headers, exc_info
        if is_list(int(status[:3]), _as_bytes(headers)):
            self.is_passed_on = False
            return self.written.append
        return self.pass_on()

    def pass_on(self) -> Callable[[bytes], object]:
        self.is_passed_on = True
        return self._start_response(*self._given)


class _Body:
    """What the application's answer consists of, as it is iterated over."""

    def __init__(self, answer: _Answer, result: Iterable[bytes]) -> None:
        self._answer = answer
        self._result = result
        self._pieces = iter(result)

    def whole(self) -> bytes | None:
        """All of it, if it is a list that isn't too large; else it is there to be passed on."""
        found, size = [], 0
        for piece in self._pieces:
            found.append(piece)
            size += len(piece)
            # A generator begins its answer with the first piece.
            if self._answer.is_passed_on or size > LARGEST:
                break
        else:
            if not self._answer.is_passed_on:
                return b"".join([*self._answer.written, *found])
        if not self._answer.is_passed_on:
            self._answer.pass_on()
            found = [*self._answer.written, *found]
        self._pieces = chain(found, self._pieces)
        return None

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        if hasattr(self._result, "close"):
            self._result.close()


def _path(environ: WSGIEnvironment) -> bytes:
    path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return path.encode("latin-1")


def _headers(environ: WSGIEnvironment) -> Headers:
    """Those of the request, and whom the server has let in."""
    found = {
        name.removeprefix("HTTP_"): value
        for name, value in environ.items()
        if name.startswith("HTTP_") or name in ("REMOTE_USER", "REMOTE_ADDR")
    }
    return [
        (name.lower().replace("_", "-").encode("latin-1"), str(value).encode("latin-1"))
        for name, value in found.items()
    ]


def _unconditional(environ: WSGIEnvironment) -> WSGIEnvironment:
    return {
        name: value
        for name, value in environ.items()
        if not CONDITIONS.fullmatch(name.removeprefix("HTTP_").replace("_", "-").encode())
    }


def _as_bytes(headers: Iterable[tuple[str, str]]) -> Headers:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _as_text(headers: Headers) -> list[tuple[str, str]]:
    return [(name.decode("latin-1").title(), value.decode("latin-1")) for name, value in headers]
