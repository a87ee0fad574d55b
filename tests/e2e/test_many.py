"""More downloads at once than files may be open (DESIGN.md R4)."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self

from bench.mount import zipfs_program
from tests.e2e import curl
from tests.e2e.conftest import Serve
from tests.support.libraries import content, expected, make_game
from tests.support.mounting import Mounted, Mounts

DOWNLOADS: Final = 300
DESCRIPTORS: Final = 64
# So that no archive fits into what the kernel reads ahead: each is opened, read and read again.
SIZE: Final = 700_000


def _make_games(library: Path) -> dict[str, str]:
    """Many games of three or four files; their archives' SHA-256."""
    digests = {}
    for number in range(DOWNLOADS):
        game = f"roms/psx/Game {number:03}"
        files = {
            f"track {track}.bin": content(SIZE, f"{number} {track}")
            for track in range(2 + number % 2)
        }
        folder = make_game(library, game, {**files, "game.cue": game.encode()})
        digests[game] = expected(folder).sha256()
    return digests


class _Watch:
    """Counts the descriptors of a process, all the time."""

    def __init__(self, mounted: Mounted) -> None:
        self.most = 0
        self.samples = 0
        self._folder = f"/proc/{mounted.process.pid}/fd"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.002):
            self.most = max(self.most, len(os.listdir(self._folder)))
            self.samples += 1


def test_many_downloads_and_few_descriptors(library: Path, mount: Mounts, serve: Serve) -> None:
    digests = _make_games(library)
    limited = ["sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh", zipfs_program()]
    mounted = mount(library, program=limited)
    with _Watch(mounted) as watch:
        mounted.wait_sealed(DOWNLOADS)
        server = serve(mounted, "nginx")
        with ThreadPoolExecutor(DOWNLOADS) as clients:
            urls = {game: server.url_of(f"{game}.zip") for game in digests}
            # Slow enough that all are there at the same time.
            got = dict(
                zip(
                    urls,
                    clients.map(
                        lambda url: curl.sha256(url, "--limit-rate", "300k"), urls.values()
                    ),
                    strict=True,
                )
            )
    assert got == digests
    assert watch.samples > 100
    # EMFILE would show as a wrong answer or in the log; this shows how far away it was.
    assert watch.most <= DESCRIPTORS
