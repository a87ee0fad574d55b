"""What is done to the mount and the library of `make endure` by people, programs and timers."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.endure.clients import Visits
from bench.endure.day import WrongError
from bench.endure.library import EXCUSED, TREE, Shelf
from bench.endure.oracle import Oracle, etag_of
from bench.endure.programs import Programs
from bench.mount import Mount, zipfs_program

THUMBNAIL: Final = 64 << 10
MODES: Final = ("u=rwX,go=rX", "u=rwX,go=rwX")


class Chores:
    """All that doesn't come over HTTP."""

    def __init__(
        self, mount: Mount, shelf: Shelf, oracle: Oracle, programs: Programs, visits: Visits
    ) -> None:
        self.marks: list[tuple[float, str]] = []
        """When the large ones began, by `time.monotonic`."""
        self._mount = mount
        self._top = mount.mountpoint
        self._shelf = shelf
        self._oracle = oracle
        self._programs = programs
        self._visits = visits
        # A copy of a platform, and a chmod of it, one after the other.
        self._large = threading.Lock()

    # -- Reading -----------------------------------------------------------------

    def stats(self, rng: random.Random, count: int) -> int:
        """`stat` of archives."""
        for _ in range(count):
            archive = self._shelf.any(rng)
            try:
                status = (self._top / archive).stat()
            except FileNotFoundError:
                self._missing(archive)
                continue
            good = self._oracle.good(archive, etag_of(status))
            if good and good.size != status.st_size:
                raise WrongError(f"{archive}: {status.st_size} bytes, and not {good.size}")
        return count

    def listings(self, rng: random.Random, count: int) -> int:
        """Folders, listed with a `stat` of each entry."""
        folders = [path.parent for path in map(Path, self._shelf.stable() + self._shelf.changing())]
        for _ in range(count):
            with os.scandir(self._top / rng.choice(folders)) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        entry.stat()
        return count

    def reads(self, rng: random.Random, count: int) -> int:
        """Archives opened through the mount and read here and there."""
        for _ in range(count):
            archive = self._shelf.any(rng)
            self._read(archive, [rng.random() for _ in range(8)], rng.randint(1, 256 << 10))
        return count

    def thumbnails(self, _rng: random.Random, count: int) -> int:
        """A thumbnailer, which reads the first 64 KiB of each archive."""
        for _ in range(count):
            with self._alone("thumbnails"):
                for archive in self._shelf.stable() + self._shelf.changing():
                    if self._programs.ending:
                        break
                    self._read(archive, [0.0], THUMBNAIL)
        return count

    def _read(self, archive: str, places: list[float], length: int) -> None:
        try:
            with (self._top / archive).open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                for place in places:
                    offset = int(place * status.st_size)
                    data = os.pread(file.fileno(), length, offset)
                    if len(data) != min(length, status.st_size - offset):
                        raise WrongError(f"{archive}: a short read at {offset}")
                    self._oracle.compare(archive, etag_of(status), offset, data)
        except FileNotFoundError:
            self._missing(archive)
        except OSError:
            if not self._shelf.is_excused(archive):
                raise
            self._oracle.count("reads that failed, after a change")

    def find(self, _rng: random.Random, count: int) -> int:
        """`find` over everything."""
        for _ in range(count):
            with self._alone("find"):
                # 1: a game was renamed under it.
                if self._programs.run("find", str(self._top), "-size", "+1") not in (0, 1):
                    raise WrongError("find failed")
        return count

    def list_all(self, _rng: random.Random, count: int) -> int:
        """`ls -lR` over everything."""
        for _ in range(count):
            with self._alone("ls -lR"):
                if self._programs.run("ls", "-lR", str(self._top)) not in (0, 1):
                    raise WrongError("ls failed")
        return count

    def copy(self, _rng: random.Random, count: int) -> int:
        """A whole platform, copied out of the mount by rsync."""
        for _ in range(count):
            target = self._oracle.draft().with_suffix("")
            with self._alone("rsync"):
                try:
                    status = self._programs.run("rsync", "-a", f"{self._top / TREE}/", str(target))
                    if self._programs.ending:
                        return 0
                    if status:
                        raise WrongError(f"rsync ended with status {status}")
                    for archive in self._shelf.stable("psx"):
                        copied = target / Path(archive).name
                        if not copied.exists():
                            raise WrongError(f"rsync has no {archive}")
                        self._oracle.check_file(archive, copied)
                finally:
                    shutil.rmtree(target, ignore_errors=True)
        return count

    # -- Changing ----------------------------------------------------------------

    def replace(self, rng: random.Random, count: int) -> int:
        for _ in range(count):
            self._visits.asked_at_once(self._shelf.replace(rng))
        return count

    def rewrite(self, rng: random.Random, count: int) -> int:
        for _ in range(count):
            self._visits.asked_at_once(self._shelf.rewrite(rng))
        return count

    def rename(self, rng: random.Random, count: int) -> int:
        for _ in range(count):
            self._visits.asked_at_once(self._shelf.rename(rng))
        return count

    def add(self, rng: random.Random, count: int) -> int:
        for _ in range(count):
            self._visits.asked_at_once(self._shelf.add(rng))
        return count

    def remove(self, rng: random.Random, count: int) -> int:
        done = 0
        for _ in range(count):
            if archive := self._shelf.remove(rng):
                self._visits.asked_at_once(archive)
                done += 1
        return done

    def chmod(self, rng: random.Random, count: int) -> int:
        """`chmod -R` of the whole library: each file has to be hashed again."""
        for _ in range(count):
            with self._alone("chmod -R"):
                self._shelf.touch_all()
                with self._shelf.lock:  # nothing is renamed under it
                    status = self._programs.run(
                        "chmod", "-R", rng.choice(MODES), str(self._shelf.root)
                    )
                self._shelf.touch_all()
                if status:
                    raise WrongError(f"chmod ended with status {status}")
                self.wait_sealed()
        return count

    def wait_sealed(self) -> None:
        """Wait until each archive is there; raises :exc:`WrongError` if one doesn't come."""
        until = time.monotonic() + EXCUSED
        for archive in self._shelf.stable() + self._shelf.changing():
            while not (self._top / archive).exists() and not self._programs.ending:
                if archive not in self._shelf.stable() + self._shelf.changing():
                    break  # renamed
                if time.monotonic() > until:
                    raise WrongError(f"{archive} isn't there after {EXCUSED:.0f} s")
                time.sleep(0.1)

    # -- The daemon itself -------------------------------------------------------

    def reload(self, _rng: random.Random, count: int) -> int:
        """SIGHUP: look through the library again."""
        for _ in range(count):
            self.marks.append((time.monotonic(), "SIGHUP"))
            self._mount.process.send_signal(signal.SIGHUP)
        return count

    def status(self, _rng: random.Random, count: int) -> int:
        """`zipfs status`."""
        for _ in range(count):
            status = self._programs.run(zipfs_program(), "status", str(self._top))
            if status:
                raise WrongError(f"zipfs status ended with status {status}")
        return count

    @contextlib.contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        with self._large:
            self.marks.append((time.monotonic(), what))
            yield

    def _missing(self, archive: str) -> None:
        if not self._shelf.is_excused(archive):
            raise WrongError(f"{archive} isn't there, and nothing was done to it")
        self._oracle.count("not there: not sealed yet, or gone")


def has_status() -> bool:
    """Whether this zipfs has the command `status`."""
    shown = subprocess.run(
        [zipfs_program(), "--help"], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    return any(line.split()[:1] == ["status"] for line in shown.splitlines())
