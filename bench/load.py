"""What clients do to a server, and how fast it answers."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import BenchError
from bench.process import find_program
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

    @classmethod
    def find(cls) -> Clients:
        """Raises :exc:`BenchError` if one isn't installed."""
        return cls(
            curl=find_program("curl", package="curl"), wrk=find_program("wrk", package="wrk")
        )


def download(clients: Clients, stop: Stop, url: str, size: int) -> float:
    """Bytes per second of a whole download."""
    said = stop.run(
        *(clients.curl, "-sS", "--fail", "-o", "/dev/null"),
        *("-w", "%{size_download} %{time_total}", url),
    )
    received, seconds = said.split()
    if int(received) != size:
        raise BenchError(f"{url} gave {received} bytes instead of {size}")
    return size / float(seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """So many, and so many a second."""

    count: int
    rate: float


def ranges(clients: Clients, stop: Stop, url: str, size: int, length: int) -> Answers:
    """Ask for *length* bytes at random places, as fast as answers come."""
    # One thread: wrk's work is small, and it shares the machine with the server.
    said = stop.run(
        *(clients.wrk, "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", str(SCRIPT), url),
        *("--", str(size), str(length), str(random.getrandbits(30))),
    )
    line = next((line for line in said.splitlines() if line.startswith("= ")), None)
    if line is None:
        raise BenchError(f"wrk said nothing of its requests: {said.strip()}")
    microseconds, requests, received, failures = map(int, line[2:].split())
    # Whole files instead of ranges, or answers cut short, would show here. When the time is up,
    # part of an answer has come on each connection.
    most = (length + HEADER) * (requests + CONNECTIONS)
    if failures or not length * requests <= received <= most:
        raise BenchError(
            f"{url} gave {received} bytes for {requests} ranges of {length},"
            f" and {failures} requests failed"
        )
    return Answers(count=requests, rate=requests / microseconds * 1e6)
