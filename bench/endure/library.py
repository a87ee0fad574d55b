"""The library that `make endure` works on, and what may be seen of it.

Games that stay as they are::

    roms/scummvm, roms/doom     real ones (bench/games.py)
    roms/bench                  one of three large files, one of 8000 small ones
    roms/platform000            hundreds of tiny ones
    roms/psx                    of some ten files and some ten MB each

and `roms/homebrew`, whose games change (:mod:`tests.model.shelf`). What is right is known of each
of them before zipfs shows it: every version that a game has had, byte by byte.

An archive may be missing for :data:`EXCUSED` seconds after its game was changed, or if the game
is gone. Otherwise it has to be there.
"""

from __future__ import annotations

import os
import random
import threading
import time
from functools import cache
from pathlib import Path
from typing import Final, cast

from bench import games
from bench.session import Stop
from tests.model.shelf import Game, Shelf
from tests.model.versions import Blob, ModelError, Source, Version

MIB: Final = 1 << 20
EXCUSED: Final = 60.0
TINY: Final = 400
LARGE_MIB: Final = 128
"""Of each of the three large files."""
SMALL: Final = 8000
CHANGING: Final = 60
LARGE_CHANGING: Final = 8
FEWEST: Final = 40
"""Changing games that are always left."""
PSX: Final = 20
HOMEBREW: Final = "roms/homebrew"
TREE: Final = "roms/psx"
"""The platform that is copied as a whole."""
GROUPS: Final = {"tiny": 35, "changing": 30, "psx": 25, "real": 8, "large": 2}
"""How often an archive of each is asked for."""


class Library(Shelf):
    """The library at *root*; *aside* is for what isn't in it, on the same disk."""

    platform = HOMEBREW

    def __init__(self, root: Path, aside: Path) -> None:
        self.all: dict[str, Game] = {}
        """By the path of the archive."""
        self.lock = threading.RLock()
        """Held while something is changed, and while the versions of a game are looked at."""
        super().__init__(root, aside, 0)
        self._groups: dict[str, list[str]] = {}
        self._large: set[str] = set()
        self._chosen = ""
        """The archive of the game that was changed last."""
        self._all_touched = 0.0

    def make(self, stop: Stop) -> None:
        """Make all games."""
        rng = random.Random(7)
        # A game of a single file is shown as the folder it is.
        for folder in games.build(self.root):
            if len(paths := [path for path in folder.rglob("*") if path.is_file()]) > 1:
                self._stays("real", folder, {path: Blob(path.read_bytes()) for path in paths})
        for number in range(TINY):
            files = {f"part{part:06}.bin": self.blob(rng, 16) for part in range(3)}
            self._make("tiny", f"roms/platform000/Game {number:06} (Europe) (En,Fr,De)", files)
        files = {f"disc{disc + 1}.bin": self.blob(rng, LARGE_MIB * MIB) for disc in range(3)}
        self._make("large", "roms/bench/Three Discs", files)
        files = {f"{n // 100:02}/{n:04}.dat": self.blob(rng, 32 << 10) for n in range(SMALL)}
        self._make("large", "roms/bench/Many Small Files", files)
        for number in range(PSX):
            stop.check()
            files = {}
            for track in range(rng.randint(3, 20)):
                size = rng.choice([rng.randint(1, 64) << 10, rng.randint(1, 10) * MIB])
                files[f"Track {track + 1:02}.bin"] = self.blob(rng, size)
            self._make("psx", f"{TREE}/Game {number:02} (Europe)", files)
        for number in range(CHANGING):
            stop.check()
            self.add_game(rng, large=number < LARGE_CHANGING)
        os.sync()

    def _make(self, group: str, path: str, files: dict[str, Blob]) -> None:
        made = {self.root / path / name: blob for name, blob in files.items()}
        for file, blob in made.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(blob.data)
        self._stays(group, self.root / path, made)

    def _stays(self, group: str, folder: Path, files: dict[Path, Blob]) -> None:
        """Note a game of *group* with these *files*, which isn't changed."""
        self._sources |= {file.stat().st_ino: Source(blob) for file, blob in files.items()}
        self._new_game(str(folder.relative_to(self.root)))
        self.look()
        self._groups.setdefault(group, []).append(self.games.pop().history.path)

    def _new_game(self, path: str) -> Game:
        game = super()._new_game(path)
        self._chosen = game.history.path
        self.all[self._chosen] = game
        return game

    # -- Which archives there are --------------------------------------------------

    def stable(self, *groups: str) -> list[str]:
        """Archives of games that stay as they are; of these *groups*, or all."""
        return [path for group in groups or self._groups for path in self._groups[group]]

    def changing(self) -> list[str]:
        """Archives of games that change, as of now."""
        with self.lock:
            return [game.history.path for game in self.games if game.history.now.version]

    def any(self, rng: random.Random) -> str:
        """An archive that somebody may want: small ones more often."""
        group = rng.choices(list(GROUPS), list(GROUPS.values()))[0]
        return rng.choice(self.changing() if group == "changing" else self.stable(group))

    # -- What is right ---------------------------------------------------------------

    def identify_http(self, path: str, etag: str) -> Version:
        """The version of the archive at *path* with this ETag, as nginx makes it."""
        seconds, size = (int(part, 16) for part in etag.strip('"').split("-"))
        with self.lock:
            history = self.all[path].history
            return history.identify_http(seconds, size, time.monotonic(), EXCUSED)

    def identify(self, path: str, status: os.stat_result) -> Version:
        """The version with this stat result."""
        with self.lock:
            return self.all[path].history.identify(
                status.st_ino, status.st_size, status.st_mtime_ns, time.monotonic(), EXCUSED
            )

    def check_file(self, path: str, file: Path) -> None:
        """Raise :exc:`ModelError` unless *file*, a copy of the archive at *path*, is a version."""
        size = file.stat().st_size
        with self.lock:
            versions = [one for one in self.all[path].history.known if one.size == size]
        with file.open("rb") as opened:
            for offset in range(0, size, MIB):
                data = opened.read(MIB)
                versions = [one for one in versions if one.read(offset, MIB) == data]
        if not versions:
            raise ModelError(f"{path}: the copy {file} is no version of it")

    def is_excused(self, path: str) -> bool:
        """Whether the archive at *path* may be missing, or broken off, just now."""
        with self.lock:
            now = self.all[path].history.now
            last = max(now.began, self._all_touched)
            return now.version is None or time.monotonic() - last < EXCUSED

    # -- What changes ----------------------------------------------------------------

    def change(self, kind: str, rng: random.Random) -> str | None:
        """Do what the method *kind* does; the path of the archive. None: nothing was done."""
        with self.lock:
            if kind == "remove_game" and len(self.changing()) <= FEWEST:
                return None
            getattr(self, kind)(rng)
            return self._chosen

    def add_game(self, rng: random.Random, *, large: bool = False) -> None:
        with self.lock:
            files = {
                f"part{number}.bin": self._any_blob(rng) for number in range(rng.randint(2, 6))
            }
            if large:
                files["part0.bin"] = self.blob(rng, 16 * MIB)
            game = self.make_game(f"{HOMEBREW}/Made {self._next():06}", files)
            if large:
                self._large.add(game.history.path)

    def change_large(self, rng: random.Random, path: str) -> None:
        """Other bytes in the largest member of a game, in place."""
        with self.lock:
            members = self._members(self.all[path])
            self.rewrite_member(rng, max(members, key=lambda member: member.stat().st_size))

    def large(self) -> list[str]:
        """Archives of the changing games that :meth:`change_large` is for."""
        return sorted(self._large)

    def touch_all(self) -> None:
        """Note that something is being done to all games."""
        with self.lock:
            self._all_touched = time.monotonic()

    def _game(self, rng: random.Random) -> Game:
        there = [path for path in self.changing() if path not in self._large]
        self._chosen = rng.choice(there)
        return self.all[self._chosen]

    def _any_blob(self, rng: random.Random, size: int | None = None) -> Blob:
        if size is None:
            size = rng.choice([rng.randint(1, 64) << 10, rng.randint(64, 2048) << 10])
        return self.blob(rng, size)

    def blob(self, rng: random.Random, size: int) -> Blob:
        """Another content of so many bytes: a slice of random ones, which needs no memory."""
        start = rng.randrange((LARGE_MIB + 1) * MIB - size)
        # A memoryview does all that is asked of a content.
        return Blob(cast(bytes, _random_bytes()[start : start + size]))


@cache
def _random_bytes() -> memoryview:
    return memoryview(random.Random(7).randbytes((LARGE_MIB + 1) * MIB))
