"""Many clients at once, each of whom checks what it gets against the game's own files."""

from __future__ import annotations

import asyncio
import io
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from bench import BenchError

Wanted = tuple[str, Path]
"""The URL of an archive, and the folder that it is of."""


def fetch_all(wanted: Sequence[Wanted], seconds: float) -> float:
    """Ask for all of *wanted* at the same moment; the seconds until the last answer was whole.

    Raises :exc:`BenchError` if one of them is wrong, or the time is up.
    """
    return asyncio.run(_fetch_all(wanted, seconds))


async def _fetch_all(wanted: Sequence[Wanted], seconds: float) -> float:
    ready = asyncio.Barrier(len(wanted))
    started: list[float] = []
    try:
        async with asyncio.timeout(seconds):
            answers = await asyncio.gather(*(_fetch(url, ready, started) for url, _ in wanted))
    except TimeoutError:
        raise BenchError(f"{len(wanted)} clients: not answered in {seconds:.0f} s") from None
    except OSError as error:
        raise BenchError(f"{len(wanted)} clients: {error}") from None
    took = time.monotonic() - min(started)
    for (url, folder), answer in zip(wanted, answers, strict=True):
        _check(url, folder, answer)
    return took


async def _fetch(url: str, ready: asyncio.Barrier, started: list[float]) -> bytes:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        await ready.wait()  # for all to be connected
        started.append(time.monotonic())
        lines = f"GET {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close", "", ""
        writer.write("\r\n".join(lines).encode())
        return await reader.read()
    finally:
        writer.close()


def _check(url: str, folder: Path, answer: bytes) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *_ = head.split(b"\r\n", 1)
    if b" 200 " not in status:
        raise BenchError(f"{url}: {status.decode(errors='replace')}")
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            got = {name: archive.read(name) for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise BenchError(f"{url}: {error}") from None
    files = (path for path in folder.rglob("*") if path.is_file())
    if got != {str(path.relative_to(folder)): path.read_bytes() for path in files}:
        raise BenchError(f"{url}: not the files of {folder.name}: a defect of zipfs")
