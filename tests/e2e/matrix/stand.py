"""A mount behind several web servers at once, whose root is the folder above the mount."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.web import Server, apache, caddy, lighttpd, nginx
from tests.e2e.matrix.versions import Line, Version
from tests.support.mounting import Mounted, Mounts
from tests.support.waiting import poll

SERVERS: Final = {"nginx": nginx, "caddy": caddy, "apache": apache, "lighttpd": lighttpd}

BEGINNING: Final = 1_000_000
"""Bytes that a client has when something happens."""

IF_MATCH: Final = {"nginx": 412, "caddy": 412, "apache": 412, "lighttpd": 206}
"""What ``If-Match`` with another version's ETag gives. lighttpd doesn't know it: its answer is of
the new version, and says so in its ETag."""

NOT_SERVED: Final = (404, 403)
"""What servers say of an archive that isn't there. 403 is Apache's word for a file that was there
when it looked, and isn't when it opens it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stand:
    place: Path
    """What the servers serve, and where all files are."""
    mounted: Mounted
    servers: dict[str, Server]

    def line(self, server: str, game: str) -> Line:
        return line_to(self.servers[server], self.place, self.mounted, game)


@contextlib.contextmanager
def standing(place: Path, library: Path, servers: Iterable[str] = SERVERS) -> Iterator[Stand]:
    """A mount of *library* behind *servers*. *place* is for its files, and has all else in it."""
    mounts = Mounts(place)
    # Apache, started by root, serves as somebody else.
    mounted = mounts(library, "--allow-other", settle=0.1)
    mounted.expect_log("reading .* ended in an error: .*(has changed|other bytes)")
    try:
        with contextlib.ExitStack() as running:
            yield Stand(
                place=place,
                mounted=mounted,
                servers={
                    name: running.enter_context(SERVERS[name](place, workdir=place))
                    for name in servers
                },
            )
    finally:
        mounts.end()


def line_to(server: Server, place: Path, mounted: Mounted, game: str) -> Line:
    """Requests to *server*, which serves *place*, for the archive of *game* in *mounted*."""
    stored = place / "stored"
    stored.mkdir(exist_ok=True)
    return Line(server, os.path.relpath(mounted.archive(game), place), stored)


def wait_announced(line: Line, version: Version) -> None:
    """Until HEAD tells of *version*. Nothing of it is read, so the kernel has nothing of it."""

    def announced() -> bool:
        answer = line.head()
        assert answer.status in (200, *NOT_SERVED), answer
        return answer.etag == version.etag

    poll(f"the version {version.etag}", announced)


def wait_for(line: Line, version: Version) -> None:
    """Until the archive comes whole and as *version*; before, the old one, none, or a cut one."""

    def there() -> bool:
        wait_announced(line, version)
        answer = line.get()
        assert answer.status in (200, *NOT_SERVED), answer.response.headers
        return answer.whole and answer.etag == version.etag

    poll(f"the whole version {version.etag}", there)


def wait_answer(line: Line, version: Version, status: int, *headers: str) -> None:
    """Until a request with *headers* is answered by *status* and what it wants of *version*."""

    def answered() -> bool:
        answer = line.get(*headers)
        return answer.whole and (answer.status, answer.etag) == (status, version.etag)

    poll(f"{status} and {version.etag}", answered)


def wait_gone(line: Line) -> None:
    poll("the archive to be gone", lambda: line.head().status == 404)


def check_resuming(line: Line, server_name: str, old: Version, new: Version | None) -> None:
    """A client has the beginning of *old*, and asks for the rest when *new* is there."""
    wanted = f"Range: bytes={BEGINNING}-"
    if new is None:
        assert line.get(wanted, f"If-Range: {old.etag}").status == 404
        return
    # nginx has a process for each core, and each of them may hold the old version for 2 s more:
    # there the answer is of that one, and checked like all others.
    kept = 206 if new is old else 200
    for validator in (old.etag, old.modified):
        wait_answer(line, new, kept, wanted, f"If-Range: {validator}")
    refused = IF_MATCH[server_name]
    if new is not old and refused == 412:
        poll("412", lambda: line.get(wanted, f"If-Match: {old.etag}").status == 412)
    else:
        wait_answer(line, new, 206, wanted, f"If-Match: {old.etag}")
