"""An HTTP client that reads as slowly as a test likes, and tells how a response ended."""

from __future__ import annotations

import http.client
import socket
import urllib.parse
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from tests.e2e import downloads
from tests.e2e.curl import Response

SECONDS: Final = 240.0
"""How long to wait for the next bytes; only a defect comes near it."""
RECEIVE_BUFFER: Final = 16 << 10
"""Bytes that may wait for a client that doesn't read. The server's side of the connection then
stays small as well: it grows with what the client takes."""
_PIECE: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Received:
    response: Response
    """With as much of the body as came."""
    whole: bool
    """Whether that is all that the server announced."""
    has_body: bool = True
    """False for an answer to HEAD."""

    @property
    def status(self) -> int:
        return self.response.status

    @property
    def etag(self) -> str | None:
        """None unless it is a success."""
        return self.response.headers["etag"] if self.status in (200, 206) else None


class Download:
    """A GET (or *method*) of *url* under way: the head has come, the body comes as it is read.

    On the same connection a second request follows at once. Should a server that can't read on
    leave the connection open, the answer to it takes the place of the missing bytes, and the
    body is complete and wrong.
    """

    def __init__(self, url: str, *headers: str, method: str = "GET") -> None:
        self._archive = url if method == "GET" and downloads.is_archive(url) else None
        parts = urllib.parse.urlsplit(url)
        assert parts.hostname
        self._socket = socket.socket()
        try:
            self._socket.settimeout(SECONDS)
            # Before connecting: the window is negotiated then.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            self._socket.connect((parts.hostname, parts.port or 80))
            host = f"HTTP/1.1\r\nHost: {parts.netloc}"
            first = "\r\n".join([f"{method} {parts.path} {host}", *headers, "", ""])
            self._socket.sendall(f"{first}HEAD / {host}\r\n\r\n".encode())
            self._answer = http.client.HTTPResponse(self._socket, method=method)
            self._answer.begin()
        except BaseException:
            self._socket.close()
            raise
        self._body = bytearray()
        self._broken = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._answer.close()
        self._socket.close()

    def read(self, size: int) -> None:
        """Read on until *size* bytes of the body are there, or no more come."""
        while len(self._body) < size and not self._broken:
            try:
                piece = self._answer.read(min(_PIECE, size - len(self._body)))
            except (ConnectionError, http.client.IncompleteRead):
                piece = b""
            if not piece:
                self._broken = True
            self._body += piece

    def rest(self) -> Received:
        """Read on to the end."""
        headers = {}
        for name, value in self._answer.getheaders():
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value
        length = int(headers.get("content-length", 0))
        if self._answer.length is not None:
            self.read(length)
        response = Response(self._answer.status, headers, bytes(self._body))
        whole = len(self._body) == length
        if self._archive and whole and response.status == 200:
            downloads.check(response.body, length, self._archive)
        return Received(response, whole=whole)


def fetch(url: str, *headers: str) -> Received:
    """GET with *headers*, such as ``Range: bytes=0-9``."""
    with Download(url, *headers) as download:
        return download.rest()


def head(url: str) -> Response:
    with Download(url, method="HEAD") as download:
        return download.rest().response
