"""What is done to the mount and the library of `make endure` by people, programs and timers."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from bench.endure.clients import Clients
from bench.endure.library import EXCUSED, TREE, Library
from bench.endure.programs import Programs
from bench.mount import Mount, zipfs_program
from tests.model.versions import check

THUMBNAIL: Final = 64 << 10
MODES: Final = ("u=rwX,go=rX", "u=rwX,go=rwX")
MARKS: Final = {"chmod_all": "chmod -R", "copy": "rsync", "list_all": "ls -lR", "reload": "SIGHUP"}
"""What some of these are called in the results."""


class Chores:
    """All that doesn't come over HTTP."""

    def __init__(
        self, mount: Mount, library: Library, programs: Programs, clients: Clients, drafts: Path
    ) -> None:
        self.marks: list[tuple[float, str]] = []
        """When the large ones began, by `time.monotonic`."""
        self._mount = mount
        self._top = mount.mountpoint
        self._library = library
        self._programs = programs
        self._clients = clients
        self._drafts = drafts
        # A copy of a platform, and a chmod of it, one after the other.
        self._large = threading.Lock()

    # -- Reading -----------------------------------------------------------------

    def stats(self, rng: random.Random, count: int) -> int:
        """`stat` of archives."""
        for _ in range(count):
            path = self._library.any(rng)
            try:
                self._library.identify(path, (self._top / path).stat())
            except FileNotFoundError:
                self._missing(path)
        return count

    def listings(self, rng: random.Random, count: int) -> int:
        """Folders, listed with a `stat` of each entry."""
        folders = [Path(path).parent for path in self._paths()]
        for _ in range(count):
            with os.scandir(self._top / rng.choice(folders)) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        entry.stat()
        return count

    def reads(self, rng: random.Random, count: int) -> int:
        """Archives opened through the mount and read here and there."""
        for _ in range(count):
            places = [rng.random() for _ in range(8)]
            self._read(self._library.any(rng), places, rng.randint(1, 256 << 10))
        return count

    def thumbnails(self) -> None:
        """A thumbnailer, which reads the first 64 KiB of each archive."""
        for path in self._paths():
            if self._programs.ending:
                break
            self._read(path, [0.0], THUMBNAIL)

    def _read(self, path: str, places: list[float], length: int) -> None:
        try:
            with (self._top / path).open("rb", buffering=0) as file:
                version = self._library.identify(path, os.fstat(file.fileno()))
                for place in places:
                    offset = int(place * version.size)
                    data = os.pread(file.fileno(), length, offset)
                    check(
                        data == version.read(offset, length),
                        f"WRONG BYTES: {path}, {length} at {offset}: {version}",
                    )
                    self._clients.count("reads compared")
        except FileNotFoundError:
            self._missing(path)
        except OSError:
            self._clients.excuse(path, "reads that failed, after a change")

    def copy(self) -> None:
        """A whole platform, copied out of the mount by rsync."""
        target = self._drafts / "copy"
        try:
            self._run("rsync", "-a", f"{self._top / TREE}/", str(target))
            for path in self._library.stable("psx"):
                if self._programs.ending:
                    break
                copied = target / Path(path).name
                check(copied.exists(), f"rsync has no {path}")
                self._library.check_file(path, copied)
                self._clients.count("bodies compared")
        finally:
            shutil.rmtree(target, ignore_errors=True)

    def find(self) -> None:
        """`find` over everything; 1: a game was renamed under it."""
        self._run("find", str(self._top), "-size", "+1", good=(0, 1))

    def list_all(self) -> None:
        """`ls -lR` over everything."""
        self._run("ls", "-lR", str(self._top), good=(0, 1))

    # -- Changing ----------------------------------------------------------------

    def change(self, kind: str, rng: random.Random, count: int) -> int:
        """Change games; ask for each of them at once, while it isn't sealed."""
        done = 0
        for _ in range(count):
            if path := self._library.change(kind, rng):
                self._clients.fetch(path)
                done += 1
        return done

    def chmod_all(self, rng: random.Random) -> None:
        """`chmod -R` of the whole library: each file has to be hashed again."""
        self._library.touch_all()
        with self._library.lock:  # nothing is renamed under it
            self._run("chmod", "-R", rng.choice(MODES), str(self._library.root))
        self._library.touch_all()
        self.wait_sealed()

    def wait_sealed(self) -> None:
        """Wait until each archive is there; raises :exc:`ModelError` if one doesn't come."""
        until = time.monotonic() + EXCUSED
        for path in self._paths():
            while not (self._top / path).exists() and not self._programs.ending:
                if path not in self._paths():
                    break  # renamed
                check(time.monotonic() < until, f"{path} isn't there after {EXCUSED:.0f} s")
                time.sleep(0.1)

    # -- The daemon itself -------------------------------------------------------

    def reload(self) -> None:
        """SIGHUP: look through the library again."""
        self._mount.process.send_signal(signal.SIGHUP)

    def status(self) -> None:
        """`zipfs status`."""
        self._run(zipfs_program(), "status", str(self._top))

    # -- Which of them by what key --------------------------------------------------

    def job(self, key: str) -> Callable[[random.Random, int], int]:
        """What does so many of the kind *key* of :data:`.__main__.KINDS`."""
        if hasattr(self._library, key):
            return partial(self.change, key)
        if key in ("stats", "listings", "reads"):
            method: Callable[[random.Random, int], int] = getattr(self, key)
            return method
        return partial(self._one_by_one, key)

    def _one_by_one(self, key: str, rng: random.Random, count: int) -> int:
        for _ in range(count):
            with contextlib.nullcontext() if key in ("reload", "status") else self._large:
                self.marks.append((time.monotonic(), MARKS.get(key, key)))
                self.chmod_all(rng) if key == "chmod_all" else getattr(self, key)()
        return count

    def _run(self, *command: str, good: tuple[int, ...] = (0,)) -> None:
        status = self._programs.run(*command)
        check(status in good, f"{command[0]} ended with status {status}")

    def _paths(self) -> list[str]:
        return self._library.stable() + self._library.changing()

    def _missing(self, path: str) -> None:
        self._clients.excuse(path, "not there: not sealed yet, or gone")
