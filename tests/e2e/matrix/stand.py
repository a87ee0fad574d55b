"""A mount behind several web servers at once, whose root is the folder above the mount."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.web import Server
from tests.e2e.matrix.versions import Line, Version
from tests.support.mounting import Mounted
from tests.support.waiting import poll

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
