"""The middleware for ASGI, and so the hook for RomM, against applications that misbehave."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from zipfs.front import asgi
from zipfs.front.archives import HANGS, Archives, name_of
from zipfs.front.asgi import FromZipfs, Message, Receive, Scope, Send
from zipfs.front.settings import Settings

LIST: Final = b"- 3 /library/roms/x/Game/a a\n- 3 /library/roms/x/Game/b b"
MARKED: Final = [(b"x-archive-files", b"zip"), (b"x-archive-charset", b"UTF-8")]
DISPOSITION: Final = (b"content-disposition", b'attachment; filename="G.zip"')
COOKIE: Final = (b"set-cookie", b"a=b")
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(Archives, "LEAST", 100)  # our disk never hangs, but may be busy
    (tmp_path / "lists").mkdir()
    (tmp_path / "shown").mkdir()
    return Settings(lists=str(tmp_path / "lists"), shown=str(tmp_path / "shown"), wait=0)


def show(settings: Settings, text: bytes = LIST) -> str:
    """There is an archive of *text* from now on; where its name leads a web server."""
    name = name_of(text)
    Path(settings.shown, f"{name}.zip").touch()
    return f"{settings.location}/{name}.zip"


def listed(settings: Settings) -> list[Path]:
    return list(Path(settings.lists).iterdir())


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - files and threads have no event
        await asyncio.sleep(0.001)


def scope(method: str = "GET", path: str = "/download", query: str = "", **headers: str) -> Scope:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
    }


async def nothing_comes() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


class Client:
    """Collects what an application sends."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def send(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.messages[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def is_complete(self) -> bool:
        return not self.messages[-1].get("more_body", False)


class Lists:
    """An application that answers with a list, in pieces, and counts how often."""

    def __init__(self, *headers: tuple[bytes, bytes], text: bytes = LIST) -> None:
        self.asked: list[Scope] = []
        self._headers = [*MARKED, *headers]
        self._text = text
        self.go: asyncio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope)
        if self.go is not None:
            await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        middle = len(self._text) // 2
        if scope["method"] == "GET":
            for piece in (self._text[:middle], self._text[middle:]):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def fetch(app: FromZipfs, asked: Scope) -> Client:
    client = Client()
    await app(asked, nothing_comes, client.send)
    return client


def run(test: Awaitable[None]) -> None:
    async def within() -> None:
        await asyncio.wait_for(test, 100)

    asyncio.run(within())


# ---------------------------------------------------------------- from an archive


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_list_becomes_an_archive(settings: Settings, method: str) -> None:
    async def test() -> None:
        kept = [DISPOSITION, COOKIE, (b"set-cookie", b"c=d"), (b"Cache-Control", b"no-cache")]
        dropped = [(b"Content-Length", b"57"), (b"etag", b'"x"'), (b"Content-Type", b"text/html")]
        application = Lists(*kept, *dropped)
        app = FromZipfs(application, paths="/download", settings=settings)
        target = show(settings)
        client = await fetch(
            app,
            scope(method, Range="bytes=5-", if_range='"x"', Accept_Encoding="gzip", cookie="q=1"),
        )
        assert client.status == 200
        assert client.messages[0]["headers"] == [
            *kept,
            (b"content-type", b"application/zip"),
            (b"x-accel-redirect", target.encode()),
            (b"content-length", b"0"),
        ]
        assert client.body == b""
        assert client.is_complete
        (asked,) = application.asked
        assert (asked["method"], asked["headers"]) == ("GET", [(b"cookie", b"q=1")])
        (written,) = listed(settings)
        assert (written.name, written.read_bytes()) == (f"{name_of(LIST)}.list", LIST)
        assert written.stat().st_mode & 0o777 == 0o644

    run(test())


def test_another_server(settings: Settings) -> None:
    async def test() -> None:
        other = Settings(
            lists=settings.lists,
            shown=settings.shown,
            location=settings.shown,
            redirect="X-Sendfile",
        )
        show(settings)
        client = await fetch(FromZipfs(Lists(), paths="/download", settings=other), scope())
        assert client.headers[b"x-sendfile"].decode() == f"{settings.shown}/{name_of(LIST)}.zip"
        assert b"x-accel-redirect" not in client.headers

    run(test())


def test_it_appears_while_we_wait(settings: Settings) -> None:
    async def test() -> None:
        app = FromZipfs(
            Lists(),
            paths="/download",
            settings=Settings(lists=settings.lists, shown=settings.shown, wait=90),
        )
        fetching = asyncio.create_task(fetch(app, scope()))
        await until(lambda: any(one.name[0] != "." for one in listed(settings)))
        show(settings)
        assert b"x-accel-redirect" in (await fetching).headers

    run(test())


# ---------------------------------------------------------------- what passes through


def test_what_is_no_download_is_not_touched(settings: Settings) -> None:
    """Not even wrapped: the application has the server's own scope and calls."""

    async def test() -> None:
        seen: list[tuple[object, ...]] = []

        async def application(*given: Any) -> None:
            seen.append(given)

        app = FromZipfs(application, paths="/download", settings=settings)
        client = Client()
        asked: list[Scope] = [
            {"type": "websocket", "path": "/download"},
            {"type": "lifespan"},
            scope("POST"),
            scope("PUT"),
            scope(path="/download/x"),
            scope(path="/x/download"),
        ]
        for one in asked:
            given = (one, nothing_comes, client.send)
            await app(*given)
            assert all(a is b for a, b in zip(seen.pop(), given, strict=True))
            assert not seen

    run(test())


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, []),
        (200, [(b"x-archive-files", b"tar")]),
        (206, MARKED),
        (401, MARKED),
        (200, [*MARKED, (b"content-encoding", b"gzip")]),
        (200, [(b"x-accel-redirect", b"/library/x")]),
    ],
)
def test_other_answers_come_piece_by_piece(
    settings: Settings, status: int, headers: list[tuple[bytes, bytes]]
) -> None:
    async def test() -> None:
        client = Client()
        seen = []

        async def application(_: Scope, __: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            for number in range(3):
                await send(
                    {"type": "http.response.body", "body": b"%d" % number, "more_body": True}
                )
                seen.append(len(client.messages))
            await send({"type": "http.response.body", "body": b""})

        app = FromZipfs(application, paths="/download", settings=settings)
        await app(scope(), nothing_comes, client.send)
        assert (client.status, client.messages[0]["headers"]) == (status, headers)
        assert (client.body, client.is_complete) == (b"012", True)
        assert seen == [2, 3, 4]
        assert not listed(settings)

        headless = await fetch(app, scope("HEAD"))
        assert (headless.status, headless.body, headless.is_complete) == (status, b"", True)

    run(test())


def test_a_list_that_is_too_large(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        monkeypatch.setattr(asgi, "LARGEST", 10)
        show(settings)
        client = await fetch(FromZipfs(Lists(), paths="/download", settings=settings), scope())
        assert (client.body, client.is_complete) == (LIST, True)
        assert client.messages[0]["headers"] == MARKED
        assert not listed(settings)

    run(test())


def test_an_answer_that_breaks_off(settings: Settings) -> None:
    """Half a list is no list, and what came of it isn't complete."""

    async def test() -> None:
        async def half(_: Scope, __: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": MARKED})
            await send({"type": "http.response.body", "body": LIST, "more_body": True})

        async def raising(*given: Any) -> None:
            await half(*given)
            raise RuntimeError("the application's own")

        show(settings)
        client = await fetch(FromZipfs(half, paths="/download", settings=settings), scope())
        assert not client.is_complete
        app = FromZipfs(raising, paths="/download", settings=settings)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="own"):
                await fetch(app, scope())
        assert not listed(settings)

    run(test())


# ---------------------------------------------------------------- once for many


def test_what_is_asked_at_once_is_asked_once(settings: Settings) -> None:
    async def test() -> None:
        application = Lists(COOKIE)
        application.go = asyncio.Event()
        app = FromZipfs(application, paths="/download", settings=settings)
        show(settings)
        fetching = [
            asyncio.create_task(fetch(app, scope(method, Range=f"bytes={number}-")))
            for number in range(8)
            for method in ("GET", "HEAD")
        ]
        await until(lambda: application.asked)
        fetching[3].cancel()  # a client that goes away takes nothing from the others
        application.go.set()
        clients = await asyncio.gather(*fetching, return_exceptions=True)
        assert len(application.asked) == 1
        got = [client for client in clients if isinstance(client, Client)]
        assert len(got) == 15
        assert all(b"x-accel-redirect" in client.headers for client in got)
        # Only who has asked gets the cookie.
        assert [b"set-cookie" in client.headers for client in got].count(True) == 1

    run(test())


@pytest.mark.parametrize(
    "other",
    [
        scope(Cookie="session=2", authorization="A"),
        scope(Cookie="session=1", authorization="B"),
        scope(Cookie="session=1", authorization="A", x_api_key="1"),
        scope(Cookie="session=1", authorization="A", Remote_User="1"),
        scope(Cookie="session=1", authorization="A", x_forwarded_user="1"),
        scope(Cookie="session=1"),
        scope(query="a=2", Cookie="session=1", authorization="A"),
        scope(path="/download2", Cookie="session=1", authorization="A"),
    ],
)
def test_an_answer_serves_nobody_else(settings: Settings, other: Scope) -> None:
    async def test() -> None:
        application = Lists()
        app = FromZipfs(application, paths="/download2?", settings=settings)
        show(settings)
        mine = scope(Cookie="session=1", authorization="A")
        for asked, count in ((mine, 1), (mine, 1), (other, 2), (other, 2), (mine, 2)):
            assert b"x-accel-redirect" in (await fetch(app, asked)).headers
            assert len(application.asked) == count

    run(test())


def test_what_is_over_is_asked_anew(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time, the archive itself, and what wasn't an archive."""

    async def test() -> None:
        now = [100.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        application = Lists()
        app = FromZipfs(application, paths="/download", settings=settings)
        for _ in range(2):
            assert b"x-zipfs" in (await fetch(app, scope())).headers
        assert len(application.asked) == 2
        show(settings)
        for moment, count in ((100.0, 3), (109.9, 3), (110.1, 4), (110.2, 4)):
            now[0] = moment
            assert b"x-accel-redirect" in (await fetch(app, scope())).headers
            assert len(application.asked) == count
        os.unlink(f"{settings.shown}/{name_of(LIST)}.zip")
        assert b"x-zipfs" in (await fetch(app, scope())).headers
        assert len(application.asked) == 5

    run(test())


def test_never_again_if_so_set(settings: Settings) -> None:
    async def test() -> None:
        application = Lists()
        app = FromZipfs(
            application,
            paths="/download",
            settings=Settings(lists=settings.lists, shown=settings.shown, reuse=0),
        )
        show(settings)
        for count in (1, 2, 3):
            await fetch(app, scope())
            assert len(application.asked) == count

    run(test())


def test_who_waits_for_a_refusal_asks_himself(settings: Settings) -> None:
    async def test() -> None:
        asked = []
        go = asyncio.Event()

        async def application(scope: Scope, _: Receive, send: Send) -> None:
            asked.append(scope)
            await go.wait()
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"no"})

        app = FromZipfs(application, paths="/download", settings=settings)
        fetching = [asyncio.create_task(fetch(app, scope())) for _ in range(3)]
        await until(lambda: asked)
        go.set()
        assert [client.status for client in await asyncio.gather(*fetching)] == [401] * 3
        assert len(asked) == 3

    run(test())


# ---------------------------------------------------------------- without an archive


def test_the_list_goes_on_as_it_was(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        length = (b"content-length", b"%d" % len(LIST))
        application = Lists(DISPOSITION, length)
        app = FromZipfs(application, paths="/download", settings=settings)
        for _ in range(3):
            client = await fetch(app, scope(Range="bytes=5-"))
            told = [(b"accept-ranges", b"none"), (b"x-zipfs", b"no archive yet")]
            assert client.messages[0]["headers"] == [*MARKED, DISPOSITION, length, *told]
            assert (client.body, client.is_complete) == (LIST, True)
        headless = await fetch(app, scope("HEAD", Range="bytes=5-"))
        assert [asked["method"] for asked in application.asked] == ["GET"] * 4 + ["HEAD"]
        assert not any(asked["headers"] for asked in application.asked)
        assert headless.headers[b"x-zipfs"] == b"no archive yet"

    with caplog.at_level(logging.WARNING, "zipfs.front"):
        run(test())
    assert [record.levelname for record in caplog.records] == ["WARNING"], "once a minute"


@pytest.mark.parametrize("fault", ["missing", "file", "full", "unreadable", "no mount", "a defect"])
def test_what_keeps_an_archive_away(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    lists, shown = Path(settings.lists), Path(settings.shown)
    show(settings)
    match fault:
        case "missing":
            lists.rmdir()
            reason = f"there is no folder {lists}"
        case "file":
            lists.rmdir()
            lists.touch()
            reason = "the list can't be written: Not a directory"
        case "full":

            def full(*_: object) -> None:
                raise OSError(28, os.strerror(28))

            monkeypatch.setattr(os, "rename", full)
            reason = "the list can't be written: No space left on device"
        case "unreadable":
            (shown / f"{name_of(LIST)}.zip").chmod(0)
            reason = "the archive can't be read: Permission denied"
        case "a defect":

            def defect(*_: object) -> None:
                raise ZeroDivisionError("ours")

            monkeypatch.setattr(os, "utime", defect)
            (lists / f"{name_of(LIST)}.list").write_bytes(LIST)
            reason = "unexpected error: ZeroDivisionError('ours')"
        case _:
            (shown / f"{name_of(LIST)}.zip").unlink()
            shown.rmdir()
            reason = f"there is no folder {shown}"

    async def test() -> None:
        client = await fetch(FromZipfs(Lists(), paths="/download", settings=settings), scope())
        assert (client.headers[b"x-zipfs"].decode(), client.body) == (reason, LIST)

    run(test())
    if fault == "full":
        assert not listed(settings), "the draft is there still"


def test_a_reason_is_a_header_whatever_the_folder_is_called(tmp_path: Path) -> None:
    async def test() -> None:
        other = Settings(lists=f"{tmp_path}/ü", shown=str(tmp_path), wait=0)
        client = await fetch(FromZipfs(Lists(), paths="/download", settings=other), scope())
        assert client.headers[b"x-zipfs"].endswith(rb"/\xfc")

    run(test())


def test_who_asks_for_all_goes_away(settings: Settings) -> None:
    """While it waits for the archive: the others ask for themselves."""

    async def test() -> None:
        waiting = Settings(lists=settings.lists, shown=settings.shown, wait=90)
        application = Lists()
        app = FromZipfs(application, paths="/download", settings=waiting)
        first = asyncio.create_task(fetch(app, scope()))
        await until(lambda: any(one.name[0] != "." for one in listed(settings)))
        others = [asyncio.create_task(fetch(app, scope())) for _ in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        show(settings)
        for one in others:
            assert b"x-accel-redirect" in (await one).headers
        with pytest.raises(asyncio.CancelledError):
            await first

    run(test())


def test_later(settings: Settings) -> None:
    async def test() -> None:
        other = Settings(lists=settings.lists, shown=settings.shown, wait=0, fallback="503")
        app = FromZipfs(Lists(COOKIE), paths="/download", settings=other)
        for method in ("GET", "HEAD"):
            client = await fetch(app, scope(method))
            assert (client.status, client.body, client.is_complete) == (503, b"", True)
            assert client.headers == {
                b"retry-after": b"5",
                b"content-type": b"text/plain",
                b"content-length": b"0",
                b"x-zipfs": b"no archive yet",
            }

    run(test())


def test_a_mount_that_hangs_is_waited_for_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else waits, until it answers again; the threads are few, and the loop runs on."""

    async def test() -> None:
        answers = threading.Event()
        real_stat, real_lexists = os.stat, os.path.lexists

        def stat(path: str, *given: Any, **named: Any) -> os.stat_result:
            if str(path).startswith(settings.shown):
                answers.wait()
            return real_stat(path, *given, **named)

        def lexists(path: str) -> bool:
            if str(path).startswith(settings.shown):
                answers.wait()
            return real_lexists(path)

        monkeypatch.setattr(os, "stat", stat)
        monkeypatch.setattr(os.path, "lexists", lexists)
        show(settings)
        monkeypatch.setattr(Archives, "LEAST", 0.1)
        threads = threading.active_count()
        app = FromZipfs(Lists(), paths="/download", settings=settings)
        try:
            client = await fetch(app, scope(query="first"))
            assert client.headers[b"x-zipfs"].decode() == HANGS
            # An hour now; who comes next isn't made to wait for it.
            app.settings = Settings(lists=settings.lists, shown=settings.shown, wait=3600)
            for number in range(50):
                client = await fetch(app, scope(query=f"{number}"))
                assert client.headers[b"x-zipfs"].decode() == HANGS
            assert threading.active_count() - threads <= 3
        finally:
            answers.set()
            monkeypatch.setattr(Archives, "LEAST", 100)
        await until(lambda: not app._archives.breaker.is_open())
        assert b"x-zipfs" not in (await fetch(app, scope(query="again"))).headers

    run(test())
