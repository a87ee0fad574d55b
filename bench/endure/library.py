"""The library that `make endure` works on, and what may be seen of it at any moment.

Games that stay as they are::

    roms/scummvm, roms/doom     real ones (bench/games.py)
    roms/bench                  one of three large files, one of 8000 small ones
    roms/platform000            hundreds of tiny ones
    roms/psx                    of some ten files and some ten MB each

and `roms/homebrew`, whose games change: members replaced or rewritten in place, games renamed,
added and removed. Of those each state is noted *before* it is there, so that whoever downloads
one knows what may be in it: exactly one of those states, never a mixture.

An archive may be missing for :data:`EXCUSED` seconds after something was done to its game, or if
the game is gone. Otherwise it has to be there.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import xxhash

from bench import games, synthetic
from bench.scale import many
from bench.session import Stop

MIB: Final = 1 << 20
EXCUSED: Final = 60.0
TINY: Final = 400
TINY_FILES: Final = 3
LARGE_MIB: Final = 384
CHANGING: Final = 60
LARGE_CHANGING: Final = 8
FEWEST: Final = 40
"""Changing games that are always left."""
PSX: Final = 20
HOMEBREW: Final = "roms/homebrew"
TREE: Final = "roms/psx"
"""The platform that is copied as a whole."""

State = frozenset[tuple[str, bytes]]
"""The members of an archive: names, and XXH3-128 of contents."""


class Shelf:
    """The library at *root*; *place* is a folder for what isn't in it yet, on the same disk."""

    def __init__(self, root: Path, place: Path) -> None:
        self.root = root
        self.lock = threading.RLock()
        """Held while something is changed."""
        self._place = place
        place.mkdir(parents=True, exist_ok=True)
        self._groups: dict[str, list[str]] = {}
        self._states: dict[str, list[State]] = {}
        self._members: dict[str, dict[str, bytes]] = {}
        self._touched: dict[str, float] = {}
        self._large: set[str] = set()
        self._all_touched = 0.0
        self._number = 0

    # -- What is there -----------------------------------------------------------

    def make(self, stop: Stop) -> None:
        """Make all games."""
        rng = random.Random(7)
        real = games.build(self.root)
        synthetic.build(self.root, LARGE_MIB * MIB, stop)
        many.make_games(self.root, TINY, TINY_FILES, stop, platform_games=TINY)
        for number in range(PSX):
            folder = self.root / TREE / f"Game {number:02} (Europe)"
            for track in range(rng.randint(3, 20)):
                stop.check()
                size = rng.choice([rng.randint(1, 64) << 10, rng.randint(1, 10) * MIB])
                _write(folder / f"Track {track + 1:02}.bin", rng.randbytes(size))
        for number in range(CHANGING):
            stop.check()
            self._add(rng, large=number < LARGE_CHANGING)
        # A game of a single file is shown as the folder it is.
        several = [
            folder for folder in real if sum(path.is_file() for path in folder.rglob("*")) > 1
        ]
        self._groups = {
            "tiny": [f"{many.game_path(number, TINY)}.zip" for number in range(TINY)],
            "real": [f"{folder.relative_to(self.root)}.zip" for folder in several],
            "large": [f"roms/bench/{name}.zip" for name in (synthetic.BIG, synthetic.SMALL)],
            "psx": [f"{path.relative_to(self.root)}.zip" for path in (self.root / TREE).iterdir()],
        }
        os.sync()

    def stable(self, *groups: str) -> list[str]:
        """Archives of games that stay as they are; of these *groups*, or all."""
        return [path for group in groups or self._groups for path in self._groups[group]]

    def changing(self, *, large: bool = False) -> list[str]:
        """Archives of games that change, as of now; *large*: those of some ten MB alone."""
        with self.lock:
            return sorted(self._large if large else self._members)

    def any(self, rng: random.Random) -> str:
        """An archive that somebody may want: small ones more often."""
        group = rng.choices(["tiny", "changing", "psx", "real", "large"], [35, 30, 25, 8, 2])[0]
        return rng.choice(self.changing() if group == "changing" else self.stable(group))

    def folder(self, archive: str) -> Path:
        return self.root / archive.removesuffix(".zip")

    def states(self, archive: str) -> list[State]:
        """What may be in *archive*."""
        with self.lock:
            if archive in self._states:
                return list(self._states[archive])
        folder = self.folder(archive)
        state = frozenset(
            (os.fspath(path.relative_to(folder)), digest(path)) for path in _files(folder)
        )
        with self.lock:
            return list(self._states.setdefault(archive, [state]))

    def is_excused(self, archive: str) -> bool:
        """Whether *archive* may be missing, or broken off, just now."""
        with self.lock:
            last = max(self._touched.get(archive, 0.0), self._all_touched)
            return time.monotonic() - last < EXCUSED or (
                archive.startswith(HOMEBREW) and archive not in self._members
            )

    # -- What changes ------------------------------------------------------------

    def replace(self, rng: random.Random) -> str:
        """Another file in the place of a member, by rename."""
        with self.lock:
            archive = rng.choice(self.changing())
            name, data = self._changed(rng, archive)
            draft = self._place / f"draft-{self._next()}"
            draft.write_bytes(data)
            draft.replace(self.folder(archive) / name)
            return archive

    def rewrite(self, rng: random.Random, archive: str | None = None) -> str:
        """Other bytes in a member, the largest if *archive* is given; in place."""
        with self.lock:
            largest = archive is not None
            archive = archive or rng.choice(self.changing())
            name, data = self._changed(rng, archive, largest=largest)
            with (self.folder(archive) / name).open("r+b") as file:
                file.write(data)
                file.truncate()
            return archive

    def rename(self, rng: random.Random) -> str:
        """Another name for a game; its old archive is gone."""
        with self.lock:
            old = rng.choice(self.changing())
            new = f"{HOMEBREW}/Renamed {self._next():06}.zip"
            self._members[new] = self._members.pop(old)
            self._states[new] = [self._states[old][-1]]
            self._touch(old, new)
            if old in self._large:
                self._large.remove(old)
                self._large.add(new)
            self.folder(old).rename(self.folder(new))
            return new

    def add(self, rng: random.Random) -> str:
        """A new game, written where it will be."""
        return self._add(rng)

    def remove(self, rng: random.Random) -> str | None:
        """One game less; none if there would be too few."""
        with self.lock:
            small = [archive for archive in self.changing() if archive not in self._large]
            if len(small) <= FEWEST:
                return None
            archive = rng.choice(small)
            del self._members[archive]
            self._touch(archive)
            shutil.rmtree(self.folder(archive))
            return archive

    def touch_all(self) -> None:
        """Note that something is being done to all games."""
        with self.lock:
            self._all_touched = time.monotonic()

    def _add(self, rng: random.Random, *, large: bool = False) -> str:
        with self.lock:
            archive = f"{HOMEBREW}/Made {self._next():06}.zip"
            files = {}
            for number in range(rng.randint(2, 6)):
                size = rng.choice([rng.randint(1, 64) << 10, rng.randint(64, 2048) << 10])
                if large and not number:
                    size = 16 * MIB
                files[f"part{number}.bin"] = rng.randbytes(size)
            members = {name: xxhash.xxh3_128_digest(data) for name, data in files.items()}
            self._members[archive] = members
            self._states[archive] = [frozenset(members.items())]
            self._touch(archive)
            if large:
                self._large.add(archive)
            for name, data in files.items():
                _write(self.folder(archive) / name, data)
            return archive

    def _changed(
        self, rng: random.Random, archive: str, *, largest: bool = False
    ) -> tuple[str, bytes]:
        """Another content for a member of *archive*, noted as one that may be there."""
        members = self._members[archive]
        folder = self.folder(archive)
        name = rng.choice(sorted(members))
        if largest:
            name = max(members, key=lambda one: (folder / one).stat().st_size)
        size = (folder / name).stat().st_size
        # Often of the same size, when only the date shows the change.
        data = rng.randbytes(size if rng.random() < 0.5 or largest else rng.randint(1, 2 * MIB))
        members[name] = xxhash.xxh3_128_digest(data)
        self._states[archive].append(frozenset(members.items()))
        self._touch(archive)
        return name, data

    def _touch(self, *archives: str) -> None:
        for archive in archives:
            self._touched[archive] = time.monotonic()

    def _next(self) -> int:
        self._number += 1
        return self._number


def digest(path: Path) -> bytes:
    """XXH3-128 of a file."""
    hasher = xxhash.xxh3_128()
    with path.open("rb") as file:
        while data := file.read(MIB):
            hasher.update(data)
    return hasher.digest()


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
