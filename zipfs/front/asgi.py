"""The middleware for ASGI applications: FastAPI, Starlette, Django, and RomM by its hook."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Future
from typing import Any

from zipfs.front.archives import HANGS, LARGEST, AnswerCache, Archives, Notes, Outcome, log, name_of
from zipfs.front.headers import (
    archive_headers,
    is_list,
    key_of,
    list_headers,
    unavailable,
    unconditional,
    without_cookies,
)
from zipfs.front.settings import Settings

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class FromZipfs:
    """*app*, whose downloads of several files come from zipfs.

    *paths* is a regular expression: the URL paths of the downloads, whole. GET and HEAD of these
    ask *app* with GET, and without ranges and conditions, which the web server looks after. If
    the answer is a list for nginx's ZIP module, its archive is sent in its place. Everything else
    passes through untouched.
    """

    def __init__(
        self, app: App, *, paths: str, settings: Settings | None = None, logger: Any = log
    ) -> None:
        self.app = app
        self.settings = settings or Settings()
        self._paths = re.compile(paths)
        self._archives = Archives(self.settings)
        self._notes = Notes(logger)
        self._cache = AnswerCache(self.settings.reuse)
        self._pending: dict[bytes, asyncio.Future[Outcome | None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] == "http"
            and scope["method"] in ("GET", "HEAD")
            and self._paths.fullmatch(scope["path"])
        ):
            await self._download(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _download(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; those for the same, by the same client, ask *app* once."""
        if not self.settings.reuse:
            await self._ask(scope, receive, send, lambda _: None)
            return
        path = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogateescape")
        key = key_of(path, scope.get("query_string", b""), scope["headers"])
        outcome = await self._reused(key)
        if outcome is not None:
            await self._answer(outcome, scope, receive, send)
            return
        if key in self._pending:
            await self._ask(scope, receive, send, lambda _: None)
            return
        pending = self._pending[key] = asyncio.get_running_loop().create_future()

        def resolve(outcome: Outcome | None) -> None:
            if not pending.done():
                del self._pending[key]
                pending.set_result(outcome)
                if outcome is not None and not outcome.reason:
                    self._cache.put(key, outcome)

        try:
            await self._ask(scope, receive, send, resolve)
        finally:
            resolve(None)

    async def _reused(self, key: bytes) -> Outcome | None:
        """What another request has been answered, or is about to be; None: ask."""
        outcome = self._cache.get(key)
        if outcome is not None and not self._archives.breaker.is_open():
            limit = self._archives.limit(time.monotonic() + self.settings.wait)
            if not await self._call(self._archives.look(outcome.name), limit):
                return outcome
            self._cache.drop(key)
        pending = self._pending.get(key)
        # Shielded, as a client that goes away takes nothing from the others.
        return None if pending is None else await asyncio.shield(pending)

    async def _ask(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        resolve: Callable[[Outcome | None], None],
    ) -> None:
        answer = _Answer(send, resolve, is_head=scope["method"] == "HEAD")
        headers = unconditional(scope["headers"])
        await self.app({**scope, "method": "GET", "headers": headers}, receive, answer.send)
        if not answer.is_complete:
            await answer.pass_on()
            return
        text = b"".join(answer.body)
        name = name_of(text)
        reason = await self._wait_for_archive(name, text)
        start = answer.start
        others = {**start, "headers": without_cookies(start["headers"])}
        outcome = Outcome(name, reason, start, text if reason else b"")
        resolve(outcome._replace(start=others))
        if reason:
            self._notes.fallback(outcome)
        await self._answer(outcome, scope, receive, send)

    async def _wait_for_archive(self, name: str, text: bytes) -> str:
        """Have an archive of the list *text*; empty, or the reason why there is none."""
        if self._archives.breaker.is_open():
            return HANGS
        wait, pause = self.settings.wait, Archives.FIRST_PAUSE
        limit = self._archives.limit(time.monotonic() + wait)
        reason = await self._call(self._archives.write(name, text), limit)
        end = time.monotonic() + wait
        while not reason:
            # The application may block the loop for as long as the limit is: one look is left.
            is_last = time.monotonic() >= end
            reason = await self._call(self._archives.look(name), self._archives.limit(end))
            if not reason or is_last or reason == HANGS:
                break
            reason = ""
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, Archives.LONGEST_PAUSE)
        return reason

    async def _call(self, future: Future[str], seconds: float) -> str:
        """The result of a call, or that it hangs."""
        await asyncio.wait([asyncio.wrap_future(future)], timeout=seconds)
        if future.done():
            return future.result()
        future.cancel()
        self._archives.breaker.trip()
        return HANGS

    async def _answer(self, outcome: Outcome, scope: Scope, receive: Receive, send: Send) -> None:
        start, text = outcome.start, outcome.text
        if not outcome.reason:
            headers = archive_headers(start["headers"], outcome.name, self.settings)
            start = {**start, "headers": headers}
        elif self.settings.fallback == "503":
            start, text = {**start, "status": 503, "headers": unavailable(outcome)}, b""
        elif scope["method"] == "HEAD":
            await self._ask_as_it_was(outcome, scope, receive, send)
            return
        else:
            start = {**start, "headers": list_headers(start["headers"], outcome)}
        await send(start)
        await send({"type": "http.response.body", "body": text})

    async def _ask_as_it_was(
        self, outcome: Outcome, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """What *app* says to a HEAD, with the reason."""
        first = True

        async def receive_again() -> Message:
            nonlocal first
            if first:
                first = False
                return {"type": "http.request", "body": b"", "more_body": False}
            return await receive()

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": list_headers(message["headers"], outcome)}
            await send(message)

        headers = unconditional(scope["headers"])
        await self.app({**scope, "headers": headers}, receive_again, marked)


class _Answer:
    """What the application answers: held back if it is a list, else passed on as it comes."""

    def __init__(
        self, send: Send, resolve: Callable[[Outcome | None], None], *, is_head: bool
    ) -> None:
        self._send = send
        self._resolve = resolve
        self._is_head = is_head
        self._is_held = False
        self._size = 0
        self.start: Message = {}
        self.body: list[bytes] = []
        self.is_complete = False
        """Whether it is a list, and all of it is here."""

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start" and is_list(message["status"], message["headers"]):
            self.start = message
            self._is_held = True
        elif kind == "http.response.body" and self._is_held:
            self.body.append(message.get("body", b""))
            self._size += len(self.body[-1])
            self.is_complete = not message.get("more_body", False)
            if self._size > LARGEST:
                more = not self.is_complete
                self.is_complete = False
                await self.pass_on(more=more)
        else:
            await self.pass_on()
            await self._pass(message)

    async def pass_on(self, *, more: bool = True) -> None:
        """Pass on what was held back. *more*: the end of it hasn't come."""
        self._resolve(None)
        if self._is_held:
            self._is_held = False
            await self._pass(self.start)
            body, self.body = b"".join(self.body), []
            await self._pass({"type": "http.response.body", "body": body, "more_body": more})

    async def _pass(self, message: Message) -> None:
        if self._is_head and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)
