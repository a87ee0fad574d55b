"""What is far away: a game of many small files, one of a few large ones, and many games."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.session import Stop

PLATFORM: Final = "roms/bench"
# As in real games: no folder with thousands of files.
IN_A_FOLDER: Final = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A library of *games* games, each of *files* files of *size* bytes."""

    key: str
    what: str
    games: int = 1
    files: int
    size: int

    @property
    def all_files(self) -> int:
        return self.games * self.files

    @property
    def all_bytes(self) -> int:
        return self.all_files * self.size

    def game(self, number: int = 0) -> str:
        """Its folder, relative to the library."""
        return f"{PLATFORM}/Game {number:04}"

    def make(self, library: Path, stop: Stop) -> None:
        """Random bytes: neither holes nor compression make them quicker to read."""
        data = random.Random(1)
        for game in range(self.games):
            for number in range(self.files):
                stop.check()
                folder = library / self.game(game)
                if self.files > IN_A_FOLDER:
                    folder /= f"{number // IN_A_FOLDER:02}"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{number:04}.bin").write_bytes(data.randbytes(self.size))
        # Written out now, and not while something is measured.
        os.sync()


SMALL: Final = Kind(key="small", what="1,500 files of 40 KB", files=1500, size=40_000)
LARGE: Final = Kind(key="large", what="2 files of 30 MB", files=2, size=30_000_000)
GAMES: Final = Kind(key="games", what="300 games of 3 files", games=300, files=3, size=1000)
KINDS: Final = (SMALL, LARGE, GAMES)
