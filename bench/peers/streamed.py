"""A ZIP built while it is sent, by zipstream-ng in an ASGI server: what front ends do for a GET.

In two ways, both by uvicorn with uvloop and httptools, its fastest parts, and without a proxy:

- by Starlette's StreamingResponse, as in whatever is made with FastAPI: that fetches each block of
  64 KiB in a thread, so that no disk holds up other requests;
- by a bare ASGI application that reads in the event loop: the fastest that is possible, and a
  server that does nothing else meanwhile.

The size is known beforehand, so a client at least sees progress; ranges aren't possible.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from bench import BenchError
from bench.speed.results import About
from bench.web import ADDRESS, Server, serving

NEEDED: Final = ("zipstream-ng", "uvicorn", "uvloop", "httptools", "starlette")


_Application = Callable[..., Awaitable[None]]


def about(*, bare: bool) -> About:
    """Raises :exc:`BenchError` if something isn't installed."""
    try:
        versions = {name: version(name) for name in NEEDED}
    except PackageNotFoundError as error:
        raise BenchError(f"{error.name} is not installed: .ci/venv bench") from None
    if bare:
        del versions["starlette"]
    way = "a bare ASGI application, read in the loop" if bare else "StreamingResponse"
    return About(
        name=f"a ZIP built while sending{', bare' if bare else ''}",
        version=", ".join(f"{name} {number}" for name, number in versions.items()),
        settings=f"{way}; sized, stored; one worker, no access log, no proxy",
    )


@contextlib.contextmanager
def streamed(folder: Path, *, bare: bool, workdir: Path) -> Iterator[Server]:
    """Send *folder* as a ZIP, under any URL of the server, until the block ends."""

    def command(_prefix: Path, port: int) -> list[str | Path]:
        options = ["--bare"] if bare else []
        return [sys.executable, "-m", __name__, *options, folder, str(port)]

    with serving("streamed", command, None, workdir) as server:
        yield server


# What follows runs in the server, which alone has the extra `bench`.


def _zip(folder: str) -> tuple[Any, dict[str, str]]:
    """The ZIP of *folder*, and the header to send it with."""
    from zipstream import ZipStream  # noqa: PLC0415 - of the extra `bench`

    stream = ZipStream(sized=True)
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            stream.add_path(entry.path)
    return stream, {"content-type": "application/zip", "content-length": str(len(stream))}


def _starlette(folder: str) -> _Application:
    from starlette.applications import Starlette  # noqa: PLC0415 - of the extra `bench`
    from starlette.responses import StreamingResponse  # noqa: PLC0415 - of the extra `bench`
    from starlette.routing import Route  # noqa: PLC0415 - of the extra `bench`

    async def answer(_request: object) -> Any:
        stream, headers = _zip(folder)
        return StreamingResponse(stream, headers=headers)

    application: _Application = Starlette(routes=[Route("/{path:path}", answer)])
    return application


def _bare(folder: str) -> _Application:
    async def application(
        scope: dict[str, Any], _receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            # ASGI's way to say that there is no "lifespan": any exception.
            raise ValueError(f"{scope['type']} isn't for us")
        stream, headers = _zip(folder)
        pairs = [(key.encode(), value.encode()) for key, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": pairs})
        for block in stream:
            await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body"})

    return application


def _main() -> None:
    import uvicorn  # noqa: PLC0415 - of the extra `bench`

    parser = argparse.ArgumentParser()
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("folder")
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    uvicorn.run(
        (_bare if arguments.bare else _starlette)(arguments.folder),
        host=ADDRESS,
        port=arguments.port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="warning",
        access_log=False,
        # Ctrl-C in the middle of a download shouldn't wait for its end.
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    _main()
