"""What RomM's backend answers, and nothing of what is around it: run by gunicorn as ``main``.

It is as strict as RomM 5.2.0 about what a hook gets wrong easily. A request with ``Range`` makes
RomM copy the game to its disk: here it is 500. HEAD has no length, or 405. What is one file is
left to nginx. Each game of many files costs a while in which nothing else is answered.

Settings by environment:

- ``ROMM_LIBRARY``: the folder that nginx has as ``/library/``, with games at ``roms/*/*``;
- ``ROMM_REQUESTS``: a file for a line a request that came this far, ``METHOD TARGET``;
- ``ROMM_GO``: a file; while it isn't there, ``/api/events`` doesn't come to its end.

It imports nothing of zipfs, and nothing of these tests.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import secrets
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

LIBRARY = os.environ["ROMM_LIBRARY"]
REQUESTS = os.environ["ROMM_REQUESTS"]
GO = os.environ["ROMM_GO"]
TOKEN = "a-token"  # noqa: S105 - known to all tests
SECONDS_A_FILE = 0.00015
"""For which the loop is blocked: half a second for 3,000 files, as seen."""
LARGE = 64 << 20

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class File(NamedTuple):
    number: int
    path: str
    """Relative to the library."""
    name: str
    """Relative to the game."""
    size: int


class Game(NamedTuple):
    number: int
    path: str
    files: list[File]


def games() -> list[Game]:
    """The games at roms/*/*, numbered in the order of their paths; a file's are 1000 times that."""
    found = []
    root = os.path.join(LIBRARY, "roms")
    for platform in sorted(os.listdir(root)):
        for name in sorted(os.listdir(os.path.join(root, platform))):
            found.append(_game(len(found) + 1, f"roms/{platform}/{name}"))
    return found


def _game(number: int, path: str) -> Game:
    whole = os.path.join(LIBRARY, path)
    paths = [os.path.join(top, name) for top, _, names in os.walk(whole) for name in names]
    paths = sorted(paths or [whole], key=lambda one: (os.path.basename(one), one))
    files = [
        File(
            number=10_000 * number + index,
            path=os.path.relpath(one, LIBRARY),
            name=os.path.basename(one) if one == whole else os.path.relpath(one, whole),
            size=os.stat(one).st_size,
        )
        for index, one in enumerate(paths)
    ]
    return Game(number, path, files)


# ---------------------------------------------------------------- downloads


def _numbers(request: Request, name: str) -> list[int]:
    return [int(word) for word in request.query_params.get(name, "").split(",") if word]


async def content(request: Request) -> Response:
    """``/api/roms/{id}/content/{name}?file_ids=…&hidden_folder=true``"""
    game = next((one for one in games() if one.number == request.path_params["id"]), None)
    if game is None:
        return JSONResponse({"detail": "Rom not found"}, 404)
    wanted = _numbers(request, "file_ids")
    files = [file for file in game.files if not wanted or file.number in wanted]
    if not files:
        return JSONResponse({"detail": "No files"}, 404)
    name = request.path_params["name"]
    if len(files) == 1:
        return _one(files[0])
    if request.method == "HEAD":
        return Response(headers={"content-length": "0", **_disposition(name)})
    time.sleep(len(files) * SECONDS_A_FILE)  # noqa: ASYNC251 - RomM's queries block its loop, too
    below = ".hidden/" if request.query_params.get("hidden_folder") == "true" else ""
    names = [below + file.name for file in files]
    lines = [_line(file, called) for file, called in zip(files, names, strict=True)]
    if not any(one.lower().endswith(".m3u") for one in names):
        cues = [one for one in names if one.lower().endswith(".cue")]
        playlist = "\n".join(cues or names).encode()
        value = base64.b64encode(playlist).decode()
        lines.append(f"{zlib.crc32(playlist):08x} {len(playlist)} /decode?value={value} {name}.m3u")
    return _list(lines, name)


async def bulk(request: Request) -> Response:
    """``/api/roms/download?rom_ids=…``"""
    if request.method == "HEAD":
        return JSONResponse({"detail": "Method Not Allowed"}, 405)
    wanted = _numbers(request, "rom_ids")
    found = [one for one in games() if one.number in wanted]
    files = [file for game in found for file in game.files]
    if not files:
        return JSONResponse({"detail": "No roms"}, 404)
    if len(files) == 1:
        return _one(files[0])
    time.sleep(len(files) * SECONDS_A_FILE)  # noqa: ASYNC251 - as above
    return _list([_line(file, file.path) for file in files], f"{len(found)} ROMs")


def _line(file: File, name: str) -> str:
    return f"- {file.size} {quote(f'/library/{file.path}')} {name}"


def _list(lines: list[str], name: str) -> Response:
    headers = {"x-archive-files": "zip", "x-archive-charset": "UTF-8", **_disposition(name)}
    return Response("\n".join(lines), headers=headers)


def _disposition(name: str) -> dict[str, str]:
    quoted = quote(f"{name}.zip")
    told = f"attachment; filename*=UTF-8''{quoted}; filename=\"{quoted}\""
    return {"content-disposition": told}


def _one(file: File) -> Response:
    quoted = quote(os.path.basename(file.path))
    return Response(
        media_type="application/octet-stream",
        headers={
            "content-disposition": f"attachment; filename*=UTF-8''{quoted}; filename=\"{quoted}\"",
            "x-accel-redirect": quote(f"/library/{file.path}"),
        },
    )


# ---------------------------------------------------------------- the rest of the API


async def heartbeat(_: Request) -> Response:
    return JSONResponse({"version": "5.2.0", "worker": os.getpid()})


async def upload(request: Request) -> Response:
    digest = hashlib.sha256()
    async for piece in request.stream():
        digest.update(piece)
    return JSONResponse({"sha256": digest.hexdigest()})


async def events(_: Request) -> Response:
    """Server-sent events: the first at once, the second when the test wants it."""

    async def told() -> AsyncIterator[str]:
        yield "data: first\n\n"
        while not os.path.exists(GO):  # noqa: ASYNC110, ASYNC240 - the test is another process
            await asyncio.sleep(0.01)
        yield "data: second\n\n"

    return StreamingResponse(told(), media_type="text/event-stream")


async def large(_: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        piece = bytes(range(256)) * 4096
        for _ in range(LARGE // len(piece)):
            yield piece

    return StreamingResponse(pieces(), media_type="application/octet-stream")


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        await socket.send_text(f"{message['text']} to you, too")


class Strict:
    """What happens to each request before a route has it: seen, refused, or given a cookie."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        with open(REQUESTS, "a") as file:  # noqa: ASYNC230 - a line
            file.write(f"{request.method} {request.url.path}?{request.url.query}\n")
        refused = self._refused(request)
        if refused is not None:
            await refused(scope, receive, send)
            return

        async def marked(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start" and not request.cookies.get(
                "romm_csrftoken"
            ):
                cookie = f"romm_csrftoken={secrets.token_hex(8)}; Path=/; SameSite=lax"
                headers = [*message["headers"], (b"set-cookie", cookie.encode())]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, marked)

    def _refused(self, request: Request) -> Response | None:
        if request.url.path == "/api/heartbeat":
            return None
        if "range" in request.headers:
            return JSONResponse({"detail": "the game would be copied now"}, 500)
        tokens = (request.headers.get("authorization"), request.cookies.get("romm_session"))
        if f"Bearer {TOKEN}" in tokens or TOKEN in tokens:
            return None
        return JSONResponse({"detail": "Unauthorized"}, 401)


app = Strict(
    Starlette(
        routes=[
            Route("/api/roms/download", bulk, methods=["GET", "HEAD"]),
            Route("/api/roms/{id:int}/content/{name}", content, methods=["GET", "HEAD"]),
            Route("/api/heartbeat", heartbeat),
            Route("/api/upload", upload, methods=["POST"]),
            Route("/api/events", events),
            Route("/api/large", large),
            WebSocketRoute("/ws/echo", echo),
        ]
    )
)
