"""What an ETag promises: all versions of one archive, computed without the mount."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bench.web import Server
from tests.e2e import expected
from tests.e2e.matrix.client import Received, fetch, head
from tests.support import libraries


@dataclass(frozen=True, eq=False, slots=True)
class Version:
    data: bytes
    etag: str
    """As the server in question forms it."""
    modified: str
    """Its ``Last-Modified``."""

    @property
    def size(self) -> int:
        return len(self.data)


State = tuple[bytes, int]
"""All bytes of an archive, and its date in nanoseconds."""


def state_of(game: Path) -> State:
    """The archive of the files in *game*, as they are now."""
    hidden = {str(path.relative_to(game)) for path in game.rglob(f"{expected.HIDDEN}*")}
    mtime_ns = libraries.expected(game, leave_out=hidden).mtime_ns
    return expected.Expected(game)[:], mtime_ns


class Versions:
    """The versions that a game has had so far, by the ETag that *server* gives each.

    The bytes come from :mod:`tests.e2e.expected`, which shares no code with zipfs. How a server
    makes an ETag of a file isn't computed at all: beside the mount it serves *stored*, and there
    a sparse file of the expected size and date is put, as if the archive were a stored one.
    """

    def __init__(self, server: Server, stored: Path) -> None:
        self._server = server
        self._stored = stored
        self._known: dict[str, Version] = {}
        self.stand_in = ""
        """URL of the latest stored file."""

    def add(self, game: Path) -> Version:
        """The version that the files in *game* make, as they are now."""
        return self.add_state(state_of(game))

    def add_state(self, state: State) -> Version:
        data, mtime_ns = state
        name = f"{len(os.listdir(self._stored))}.stand-in"
        file = self._stored / name
        with file.open("xb") as stream:
            stream.truncate(len(data))
        os.utime(file, ns=(mtime_ns, mtime_ns))
        self.stand_in = self._server.url_of(f"{self._stored.name}/{name}")
        headers = head(self.stand_in).headers
        assert headers["content-length"] == str(len(data))
        version = Version(data, headers["etag"], headers["last-modified"])
        same = self._known.setdefault(version.etag, version)
        assert same.data == version.data, "two versions, and one ETag (DESIGN.md V1)"
        return same

    def knows(self, etag: str) -> bool:
        return etag in self._known

    def check(self, received: Received) -> None:
        """The invariant of these tests, and of zipfs.

        Each 200 and 206 whose body is complete equals the version that its ETag names, or the
        part of it that its Content-Range names. One that was cut off is the beginning of that.
        """
        response = received.response
        if response.status not in (200, 206):
            return
        version = self._known.get(response.headers["etag"])
        assert version, f"an ETag of no version: {response.headers}"
        if response.headers.get("content-type", "").startswith("multipart/byteranges"):
            if received.whole:
                for (start, stop, size), body in response.parts():
                    assert size == version.size
                    assert body == version.data[start:stop]
            return
        start, stop, size = 0, version.size, version.size
        if response.status == 206:
            start, stop, size = response.content_range
        assert size == version.size
        assert response.headers["content-length"] == str(stop - start)
        if received.has_body:
            assert received.whole == (len(response.body) == stop - start)
            assert response.body == version.data[start : start + len(response.body)], (
                f"other bytes than {response.headers['etag']} has"
            )


class Line:
    """Requests for one archive to one server, each response of which is checked."""

    def __init__(self, server: Server, path: str, stored: Path) -> None:
        self.url = server.url_of(path)
        self.versions = Versions(server, stored)

    def get(self, *headers: str) -> Received:
        received = fetch(self.url, *headers)
        self.versions.check(received)
        return received

    def head(self) -> Received:
        response = head(self.url)
        received = Received(response, whole=True, has_body=False)
        self.versions.check(received)
        return received
