"""What clients do to a server, and how fast it answers."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bench import BenchError
from bench.process import find_program, start
from bench.process import stop as end
from bench.session import Stop

SCRIPT: Final = Path(__file__).with_name("ranges.lua")
CONNECTIONS: Final = 32
SECONDS: Final = 1  # wrk takes whole ones
# More than an answer's header has: about 400 bytes.
HEADER: Final = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Clients:
    """The programs that ask."""

    curl: str
    wrk: str
    aria2c: str

    @classmethod
    def find(cls) -> Clients:
        """Raises :exc:`BenchError` if one isn't installed."""
        return cls(
            curl=find_program("curl", package="curl"),
            wrk=find_program("wrk", package="wrk"),
            aria2c=find_program("aria2c", package="aria2"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """A whole one."""

    size: int
    seconds: float


def download(clients: Clients, stop: Stop, url: str, size: int | None, *options: str) -> Download:
    """Have curl download it all, and see that it has *size* (None: any)."""
    said = stop.run(
        *(clients.curl, "-sS", "--fail", "-o", "/dev/null", *options),
        *("-w", "%{size_download} %{time_total}", url),
    )
    received, seconds = said.split()
    if size is not None and int(received) != size:
        raise BenchError(f"{url} gave {received} bytes instead of {size}")
    return Download(size=int(received), seconds=float(seconds))


def download_in_parts(clients: Clients, stop: Stop, url: str, size: int, folder: Path) -> Download:
    """Have aria2c download it over 16 connections into *folder*, and remove it again."""
    file = folder / "download"
    before = time.monotonic()
    try:
        stop.run(
            *(clients.aria2c, "-q", "-x16", "-s16", "-k1M", "--file-allocation=none"),
            *("--no-conf", "-d", str(folder), "-o", file.name, url),
        )
        seconds = time.monotonic() - before
        received = file.stat().st_size
    finally:
        for path in (file, file.with_name(f"{file.name}.aria2")):
            path.unlink(missing_ok=True)
    if received != size:
        raise BenchError(f"{url} gave {received} bytes instead of {size}")
    return Download(size=size, seconds=seconds)


def first_byte(stop: Stop, url: str, start: int = 0) -> float:
    """Seconds from connecting until the first byte of the content is there.

    (curl's time_starttransfer is that of the header, which a server may send long before.)
    *start*: resume there, and see that the server does.
    """
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    request = f"GET {parts.path}{query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    if start:
        request += f"Range: bytes={start}-\r\n"
    before = time.monotonic()
    with socket.create_connection((parts.hostname or "", parts.port or 80)) as connection:
        connection.settimeout(0.1)
        connection.sendall(f"{request}Connection: close\r\n\r\n".encode())
        answer = b""
        while not (separator := answer.find(b"\r\n\r\n") + 4) > 3 or len(answer) == separator:
            try:
                piece = connection.recv(65536)
            except TimeoutError:
                stop.check()
                continue
            if not piece:
                raise BenchError(f"{url} gave no content")
            answer += piece
    seconds = time.monotonic() - before
    status = answer.split(None, 2)[1]
    if status != (b"206" if start else b"200"):
        raise BenchError(f"{url} answers with status {status.decode(errors='replace')}")
    return seconds


@contextmanager
def downloads(clients: Clients, url: str, count: int) -> Iterator[subprocess.Popen[bytes]]:
    """*count* downloads at any time, again and again, until the block ends."""
    # One process: on the machine of a server, fifty clients would only compete for its CPUs.
    # The rest of the URL is there to have it asked for so often: curl counts, nginx ignores it.
    process = start(
        [
            *(clients.curl, "-sS", "-Z", "--parallel-immediate", "--parallel-max", str(count)),
            *("--fail", "--no-progress-meter", "-o", "/dev/null", f"{url}?[1-{200 * count}]"),
        ]
    )
    try:
        yield process
    finally:
        end(process)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """So many, and so many a second, 99 % of them within *p99* seconds."""

    count: int
    rate: float
    p99: float


def ranges(
    clients: Clients, stop: Stop, url: str, size: int, *, length: int, seconds: int = SECONDS
) -> Answers:
    """Ask for *length* bytes at random places, as fast as answers come."""
    # One thread: wrk's work is small, and it shares the machine with the server.
    said = stop.run(
        *(clients.wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(SCRIPT), url),
        *("--", str(size), str(length), str(random.getrandbits(30))),
    )
    line = next((line for line in said.splitlines() if line.startswith("= ")), None)
    if line is None:
        raise BenchError(f"wrk said nothing of its requests: {said.strip()}")
    microseconds, requests, received, failures, p99 = map(int, line[2:].split())
    # Whole files instead of ranges, or answers cut short, would show here. When the time is up,
    # part of an answer has come on each connection.
    most = (length + HEADER) * (requests + CONNECTIONS)
    if failures or not length * requests <= received <= most:
        raise BenchError(
            f"{url} gave {received} bytes for {requests} ranges of {length},"
            f" and {failures} requests failed"
        )
    return Answers(count=requests, rate=requests / microseconds * 1e6, p99=p99 / 1e6)
