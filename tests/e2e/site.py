"""A mount behind nginx and Caddy at once, for tests that change nothing."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.web import Server, caddy, nginx
from tests.e2e.expected import Expected
from tests.support.mounting import Mounted, Mounts, temporary_folder
from tests.support.waiting import SECONDS, poll

SERVERS: Final = {"nginx": nginx, "caddy": caddy}

Serve = Callable[[Mounted, str], Server]
"""Starts one of :data:`SERVERS`, by its name, in front of a mount."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    place: Path
    """For files of the tests; gone with the site."""
    mounted: Mounted
    game: str
    """The folder of the game, relative to the library."""
    expected: Expected
    nginx: Server
    caddy: Server

    @property
    def source(self) -> Path:
        return self.mounted.library / self.game

    @property
    def archive(self) -> str:
        """Relative to the mount."""
        return f"{self.game}.zip"

    @property
    def path(self) -> Path:
        return self.mounted.path / self.archive


@contextlib.contextmanager
def site_of(make: Callable[[Path], str]) -> Iterator[Site]:
    """A site of the library that *make* builds in a folder; it says which game is looked at."""
    with temporary_folder() as place:
        library = place / "library"
        library.mkdir()
        game = make(library)
        mounts = Mounts(place)
        try:
            mounted = mounts(library)
            mounted.wait_archive(game, timeout=2 * SECONDS)
            with (
                nginx(mounted.path, workdir=place) as first,
                caddy(mounted.path, workdir=place) as second,
            ):
                yield Site(
                    place=place,
                    mounted=mounted,
                    game=game,
                    expected=Expected(library / game),
                    nginx=first,
                    caddy=second,
                )
        finally:
            mounts.end()


def reload(server: Server) -> None:
    """What nginx needs when a mount was replaced by another one: ``nginx -s reload``.

    Its cache of open files looks at nothing but a path's inode, every other second. That is the
    same after a restart (DESIGN.md V2), so a worker would stay with a file of the mount that is
    gone for as long as somebody asks for it.
    """
    workers = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    before = workers.read_text().split()
    server.process.send_signal(signal.SIGHUP)
    poll("new workers", lambda: not set(before) & set(workers.read_text().split()))
