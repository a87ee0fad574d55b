"""curl, and what a web server answered."""

from __future__ import annotations

import contextlib
import hashlib
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.e2e import downloads
from tests.e2e.programs import Argument, run, running

# -q: no ~/.curlrc. curl ends by itself, so that reading from its pipe never blocks for ever.
QUIET: Final = ("curl", "-q", "-sS", "--max-time", "500", "--noproxy", "*")

PARTIAL: Final = 18
"""Exit status: the server closed before it had sent all it had announced."""
PIECE: Final = 1 << 20

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: dict[str, str]
    """By name in small letters."""
    body: bytes

    @property
    def content_range(self) -> tuple[int, int, int]:
        """First byte, the one behind the last, and the whole size."""
        return _content_range(self.headers["content-range"])

    def parts(self) -> list[tuple[tuple[int, int, int], bytes]]:
        """Content-Range and bytes of each part of a ``multipart/byteranges`` (RFC 9110, 14.6)."""
        kind, _, boundary = self.headers["content-type"].partition("; boundary=")
        assert kind == "multipart/byteranges"
        delimiter = b"--" + boundary.encode()
        # By length and not by searching: the data may hold anything.
        rest = self.body.removeprefix(b"\r\n")
        parts: list[tuple[tuple[int, int, int], bytes]] = []
        while True:
            assert rest.startswith(delimiter)
            rest = rest.removeprefix(delimiter)
            if rest.startswith(b"--"):
                assert rest.strip(b"-\r\n") == b""
                return parts
            head, _, rest = rest.partition(b"\r\n\r\n")
            start, stop, size = _content_range(_headers(head)["content-range"])
            parts.append(((start, stop, size), rest[: stop - start]))
            rest = rest[stop - start :]
            assert rest.startswith(b"\r\n")
            rest = rest[2:]


def _content_range(value: str) -> tuple[int, int, int]:
    match = _CONTENT_RANGE.fullmatch(value)
    assert match, value
    return int(match[1]), int(match[2]) + 1, int(match[3])


def _headers(head: bytes) -> dict[str, str]:
    headers = {}
    for line in head.decode("ascii").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        assert name.lower() not in headers, f"{name} twice"
        headers[name.lower()] = value.strip()
    return headers


def _parse(output: bytes) -> Response:
    head, _, body = output.partition(b"\r\n\r\n")
    return Response(int(head.split(b" ", 2)[1]), _headers(head), body)


def _checked(url: str, response: Response) -> Response:
    if response.status == 200 and downloads.is_archive(url):
        downloads.check(response.body, len(response.body), url)
    return response


def get(url: str, *options: Argument) -> Response:
    """GET, which must arrive whole."""
    return _checked(url, _parse(run(*QUIET, "-i", *options, url, seconds=110).stdout))


def get_if_whole(url: str) -> Response | None:
    """GET; None if it broke off."""
    done = run(*QUIET, "-i", url, status=(0, PARTIAL), seconds=110)
    return None if done.returncode else _checked(url, _parse(done.stdout))


def head(url: str, *options: Argument) -> Response:
    return _parse(run(*QUIET, "-I", *options, url).stdout)


def get_range(url: str, wanted: str, *options: Argument) -> Response:
    """GET with ``Range: bytes=`` *wanted*."""
    return get(url, "-r", wanted, *options)


class Stream:
    """curl writing the body into a pipe: it gets no further than its reader lets it."""

    def __init__(self, process: subprocess.Popen[bytes], kept: downloads.Kept | None) -> None:
        assert process.stdout
        self._process = process
        self._output = process.stdout
        self._kept = kept
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        """So many bytes, or all that come; fewer only at the end."""
        data = self._output.read(size)
        self._ended = size < 0 or len(data) < size
        if self._kept:
            self._kept.add(data)
        return data

    def wait(self) -> int:
        """Its exit status."""
        return self._process.wait()

    def check(self) -> None:
        """If all was read, and curl says that it is whole, it has to be."""
        if self._kept and self._ended and self.wait() == 0:
            self._kept.check()


@contextlib.contextmanager
def streaming(url: str, *options: Argument) -> Iterator[Stream]:
    with running(*QUIET, *options, url) as process, contextlib.ExitStack() as keeping:
        archive = downloads.is_archive(url)
        stream = Stream(process, keeping.enter_context(downloads.Kept(url)) if archive else None)
        yield stream
        stream.check()


def sha256(url: str, *options: Argument) -> str:
    """Of the body."""
    digest = hashlib.sha256()
    with streaming(url, *options) as download:
        while piece := download.read(PIECE):
            digest.update(piece)
        assert download.wait() == 0
    return digest.hexdigest()
