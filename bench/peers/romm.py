"""What RomM's backend answers for one game of several files, in its two ways: run by gunicorn.

As of 5.2.0, with nothing around it: without `Range` a list for nginx's ZIP module, which builds
the archive while sending; with `Range` a copy on the disk, which nginx sends then. (`zipfile`
copies here as there.) With zipfs' hook beside it, neither happens.

Settings by environment: ``BENCH_GAME``, the folder of the game; ``BENCH_CACHE``, the folder of
copies.
"""

from __future__ import annotations

import asyncio
import os
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

COPY = "game.zip"
"""The name of the copy."""
_Send = Callable[[dict[str, Any]], Awaitable[None]]


def list_of(game: Path) -> bytes:
    """The list of all files in *game*, which nginx has as ``/library/``."""
    names = sorted(file.name for file in game.iterdir())
    lines = (f"- {(game / name).stat().st_size} /library/{quote(name)} {name}" for name in names)
    return "\n".join(lines).encode()


def _copy(game: Path, cache: Path) -> None:
    file = cache / COPY
    if not file.exists():
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(game.iterdir()):
                archive.write(path, path.name)
        file.chmod(0o644)


async def app(scope: dict[str, Any], _receive: object, send: _Send) -> None:
    if scope["type"] != "http":
        # ASGI's way to say that there is no "lifespan": any exception.
        raise ValueError(f"{scope['type']} isn't for us")
    game, cache = Path(os.environ["BENCH_GAME"]), Path(os.environ["BENCH_CACHE"])
    headers = [(b"content-disposition", b'attachment; filename="game.zip"')]
    body = b""
    if any(name == b"range" for name, _ in scope["headers"]):
        await asyncio.to_thread(_copy, game, cache)
        headers.append((b"x-accel-redirect", f"/cache/{COPY}".encode()))
    else:
        headers += [(b"x-archive-files", b"zip"), (b"x-archive-charset", b"UTF-8")]
        body = list_of(game)
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
