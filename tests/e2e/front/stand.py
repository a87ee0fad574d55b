"""A library, its mount, the application, and a web server in front of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from bench.web import Server
from tests.e2e.front.application import Front, serving
from tests.e2e.front.servers import IN_FRONT
from tests.support.mounting import Mounted


@dataclass(frozen=True, kw_only=True, slots=True)
class Stand:
    mounted: Mounted
    front: Front
    servers: Mapping[str, Server]

    def game(self, server: str, path: str | bytes, arguments: str = "") -> str:
        """The URL for the game at *path* in the library."""
        game = self.front.game(path)
        name = quote(game.name)
        url = f"{self.servers[server].url}/api/roms/{game.number}/content/{name}"
        return f"{url}?{arguments}" if arguments else url

    def bulk(self, server: str, paths: list[str]) -> str:
        """The URL for the games at *paths* in one archive."""
        numbers = ",".join(str(self.front.game(path).number) for path in paths)
        return f"{self.servers[server].url}/api/roms/download?rom_ids={numbers}"

    def files(self, path: str, *names: str) -> str:
        """The argument for these files of a game."""
        wanted = {os.fsencode(name) for name in names}
        files = [file for file in self.front.game(path).files if file.name in wanted]
        assert len(files) == len(wanted)
        return "file_ids=" + ",".join(str(file.number) for file in files)


def paths_of(front: Front, mounted: Mounted) -> dict[str, str]:
    """What the manual has at other places."""
    return {
        "127.0.0.1:8000": f"127.0.0.1:{front.server_port}",
        "/srv/www/games": str(mounted.path),
        "/srv/romm/library": str(mounted.library),
    }


@contextlib.contextmanager
def stand_before(
    mounted: Mounted, place: Path, *, lists: Path | None = None, seconds: float = 30
) -> Iterator[Stand]:
    """nginx and Caddy, each with the application, before a mount that is there."""
    front = Front(mounted.library, mount=mounted.path, lists=lists, seconds=seconds)
    with serving(front), contextlib.ExitStack() as servers:
        paths = paths_of(front, mounted)
        yield Stand(
            mounted=mounted,
            front=front,
            servers={
                name: servers.enter_context(start(paths, workdir=place))
                for name, start in IN_FRONT.items()
            },
        )
