"""A library that changes, its mounts, and readers that hold what they opened.

Every step is a name and the seed of all that is random in it, so that a list of steps can be
taken again. What may be seen:

- What is opened or shown is a version that the game had a moment ago at most, with that
  version's validators (V1, V2, V4). Or nothing is there (S1).
- A handle gives the bytes of the one version that it was opened as. It may give ``EIO``
  instead once a file of that version was changed in place; not if files were renamed,
  deleted, linked, replaced by rename, or given another mode: they are pinned (R1, R2).
- When nothing changes any more, each game is shown as what it is (:meth:`World.settle`).

A read of several pages may come back short if a later page fails: the kernel then tells of the
bytes first and of the error at the next call. So reading goes on to the end of the range.

With *supervised*, daemons are killed and replaced all the time, and the mount outlives them (F2).
What a daemon has pinned is lost with it: who reads a version on that the game hasn't any more may
get an error then. Never another version's bytes, and who reads what the game is goes on.

Several *heads* mount the library with a shared index (K1, K2). What one of them has shown, with
whatever validators, counts for all: no two contents with one ETag, and none with two.

The mount always runs with ``--trust state``. With ``--trust mtime`` a rewrite that puts the
old mtime back is taken for a ``chmod``, and wrong bytes *are* served, knowingly, until the
file has been hashed anew; there is nothing to be strict about.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.model.head import Head
from tests.model.mapped import Mapped
from tests.model.shelf import CHANGES, Game, Shelf
from tests.model.versions import RECENT, Epoch, History, ModelError, Version, check
from tests.support.libraries import tree
from tests.support.mounting import Mounts
from tests.support.waiting import poll
from zipfs.archive.validators import DAY

MAX_HANDLES: Final = 12
MAX_MAPPINGS: Final = 3
CROWDED: Final = 3
"""So few times of a day for contents that many clash: which of them has its time first, and which
one has to move, is then between heads, too (DESIGN V3)."""
SETTLE_SECONDS: Final = 200.0
"""For all games to be shown as they are: usually it takes one or two."""
_ALIGNMENT: Final = 4096  # of what is read with O_DIRECT


@dataclass(eq=False)
class Reader:
    """An open handle, or a mapping, and what it has to give."""

    head: Head
    what: int | Mapped
    version: Version
    pins: list[Epoch]
    history: History
    opened: float = field(default_factory=time.monotonic)
    errors: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while it is read, and when it is closed."""

    @property
    def path(self) -> str:
        return self.history.path

    def was_changed_in_place(self) -> bool:
        return not all(epoch.is_untouched() for epoch in self.pins)

    def may_be_lost(self) -> bool:
        """Whether a daemon that has come since had to find it anew, and perhaps couldn't."""
        now, restart = self.history.now, self.head.restart
        return self.opened < restart.ended and (
            now.version is not self.version or now.began > restart.began - RECENT
        )


class World:
    """A library in *place* with so many *games*, mounted by *mounts*.

    *readers* threads read all the time, beside the steps. *counts* are added to. A mount outlives
    its daemon if it is *supervised*. There are so many *heads*; with more than one, or if it is
    given, they have the shared index at the address *shared*. *times* is that of
    :class:`tests.model.head.Head`.
    """

    def __init__(
        self,
        place: Path,
        mounts: Mounts,
        *,
        games: int = 3,
        watch: str = "auto",
        settle: float = 0.1,
        readers: int = 0,
        supervised: bool = False,
        heads: int = 1,
        shared: str = "",
        times: int = DAY,
        counts: Counter[str] | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter() if counts is None else counts
        told = f"games={games} watch={watch} settle={settle} readers={readers} "
        self.trace: list[str] = [f"{told}supervised={supervised} heads={heads} times={times}"]
        library = place / "library"
        library.mkdir()
        self.shelf = Shelf(library, place / "aside", games, times)
        options = [f"--watch={watch}", "--log-level=info"]
        if shared:
            options += [f"--shared-index={shared}", f"--shared-name={place.name}"]
        self._supervised = supervised
        self.progress: Callable[[], object] = lambda: None
        """Called whenever something has answered: also where a step, or the end, takes long."""
        self._handles: list[Reader] = []
        self._mappings: list[Reader] = []
        self._failures: list[Exception] = []
        self._began = time.monotonic()
        self._stop = threading.Event()
        self.heads: Final = [
            Head(
                mounts,
                library,
                place / f"head-{number}",
                options,
                settle=settle,
                times=times,
                supervised=supervised,
                shares=bool(shared),
            )
            for number in range(heads)
        ]
        self._threads = [
            threading.Thread(target=self._read_on, args=(number,)) for number in range(readers)
        ]
        for thread in self._threads:
            thread.start()

    def do(self, name: str, seed: int) -> None:
        """Take a step; fails if the mount did what it must not do, now or meanwhile."""
        at = time.monotonic() - self._began
        self.trace.append(f"{at:8.3f}  {name} {seed}")
        self.counts["steps"] += 1
        rng = random.Random(f"{name} {seed}")
        if change := CHANGES.get(name):
            self.shelf.last = "nothing"
            change[1](self.shelf, rng)
            self.trace[-1] += f": {self.shelf.last}"
        else:
            {**READS, **RESTARTS}[name][1](self, rng)
        self.check()

    @property
    def clashes(self) -> int:
        """How many contents were seen with another time than their first, as that was taken."""
        return sum(game.history.moved for game in self.shelf.games)

    def check(self) -> None:
        """Fails if a reader in the background did."""
        if self._failures:
            raise self._failures[0]
        for head in self.heads:
            head.check()

    def close(self) -> None:
        """The end: nothing is left open, and zipfs ends as it should."""
        self.counts["versions"] += sum(game.history.seen for game in self.shelf.games)
        self.counts["clashes"] += self.clashes
        self.counts["states"] += sum(len(game.history.epochs) for game in self.shelf.games)
        self._stop.set()
        for thread in self._threads:
            thread.join()
            self.progress()
        self._close_all()
        try:
            for head in self.heads:
                self._wait_served(head)
                mounted = head.mounted
                if self._threads:  # worth the seconds that files stay open after their last reader
                    poll("files to be closed", lambda h=head: self._are_closed(h))  # type: ignore[misc]
                self.progress()
                mounted.unmount()
        except BaseException:
            for head in self.heads:
                head.mounted.force()
            raise
        self.shelf.verify()
        self.shelf.close()
        if self._failures:
            raise self._failures[0]

    def _are_closed(self, head: Head) -> bool:
        self.progress()  # no access to the mount, so it hasn't hung; and poll() has its own end
        return not head.mounted.library_descriptors()

    def log_text(self) -> str:
        return "\n".join(head.mounted.log_text() for head in self.heads)

    def _close_all(self) -> None:
        for readers in (self._handles, self._mappings):
            while readers:
                _close(readers.pop())

    # -- Steps: reading --------------------------------------------------------

    def open(self, rng: random.Random) -> None:
        """Open an archive, wait a little for it to be there if need be, and keep it open."""
        head, game = self._head(rng), rng.choice(self.shelf.games)
        flags = os.O_RDONLY | (os.O_DIRECT if rng.random() < 0.3 else 0)
        deadline = time.monotonic() + rng.choice([0.0, 0.5, 2.0])
        while (descriptor := self._open(head, game, flags)) is None:
            if time.monotonic() >= deadline:
                return
            time.sleep(0.02)
        try:
            status = os.fstat(descriptor)
            reader = self._reader(
                head, game, descriptor, status.st_ino, status.st_size, status.st_mtime_ns
            )
        except BaseException:
            os.close(descriptor)
            raise
        self._keep(reader, self._handles, MAX_HANDLES, rng)
        self._read_somewhere(reader, rng)

    def _head(self, rng: random.Random) -> Head:
        return rng.choice(self.heads)

    def _open(self, head: Head, game: Game, flags: int) -> int | None:
        self.check()
        try:
            return os.open(head.path / game.history.path, flags)
        except FileNotFoundError:
            return None

    def map(self, rng: random.Random) -> None:
        """Map an archive, if it is there."""
        head, game = self._head(rng), rng.choice(self.shelf.games)
        try:
            mapped = Mapped(head.path / game.history.path)
        except FileNotFoundError:
            return
        try:
            reader = self._reader(head, game, mapped, mapped.inode, mapped.size, mapped.mtime_ns)
        except BaseException:
            mapped.close()
            raise
        self._keep(reader, self._mappings, MAX_MAPPINGS, rng)
        self._read_somewhere(reader, rng)

    def _reader(
        self, head: Head, game: Game, what: int | Mapped, inode: int, size: int, mtime_ns: int
    ) -> Reader:
        now = time.monotonic()
        version = game.history.identify(inode, size, mtime_ns, now)
        self.trace[-1] += f": {game.history.path} is {version}"
        return Reader(head, what, version, game.history.pins(version, now), game.history)

    def _keep(self, reader: Reader, among: list[Reader], limit: int, rng: random.Random) -> None:
        among.append(reader)
        if len(among) > limit:
            _close(among.pop(rng.randrange(len(among))))

    def read(self, rng: random.Random) -> None:
        """A few random ranges of what is open."""
        for _ in range(8):
            if readers := [*self._handles, *self._mappings]:
                self._read_somewhere(rng.choice(readers), rng)

    def release(self, rng: random.Random) -> None:
        among = self._mappings if rng.random() < 0.2 else self._handles
        if among:
            _close(among.pop(rng.randrange(len(among))))

    def stat(self, rng: random.Random) -> None:
        """All archives, by name, on all heads."""
        for head in self.heads:
            for game in self.shelf.games:
                with contextlib.suppress(FileNotFoundError):
                    status = self._stat(head, game)
                    head.follow(game.history.path, status.st_ctime_ns, status.st_ino)
            folder = os.stat(head.path / self.shelf.platform)
            head.follow(self.shelf.platform, folder.st_ctime_ns)
            check(folder.st_mtime_ns == folder.st_ctime_ns, "a folder has two dates")

    def _stat(self, head: Head, game: Game) -> os.stat_result:
        return self._identify(game, os.stat(head.path / game.history.path))

    def list(self, rng: random.Random) -> None:
        """The folder of the games: nothing in it that was never there."""
        games = {Path(game.history.path).name: game for game in self.shelf.games}
        with os.scandir(self._head(rng).path / self.shelf.platform) as entries:
            for entry in entries:
                game = games.get(entry.name)
                if game is None:
                    check(f"{entry.name}.zip" in games, f"{entry.name} is listed")
                    continue
                check(entry.inode() in game.history.versions, f"{entry.name}: no such version")
                with contextlib.suppress(FileNotFoundError):
                    self._identify(game, entry.stat())

    def restart(self, rng: random.Random) -> None:
        """End zipfs, well or badly, and start it again: the same content is the same (S3, H5)."""
        head = self._head(rng)
        self._close_all()
        self._wait_served(head)
        head.mount_again(killed=rng.random() < 0.5)

    def kill(self, rng: random.Random) -> None:
        """Have another daemon of a head go on (F2)."""
        head = self._head(rng)
        done = head.kill(rng)
        self.trace[-1] += f": head {self.heads.index(head)}, {done}"
        if done:
            self.counts["kills" if done.startswith("killed") else "hand-overs"] += 1

    def _wait_served(self, head: Head) -> None:
        """Wait until a single daemon is there, and serves."""
        if self._supervised:
            self._poll("a daemon", lambda: len(head.mounted.daemons) == 1)
            os.statvfs(head.path)
            self._poll("one daemon", lambda: len(head.mounted.daemons) == 1)

    def pause(self, rng: random.Random) -> None:
        """So that zipfs can seal, or is interrupted while it does."""
        time.sleep(rng.choice([0.02, 0.1, 0.3]))

    def store_twice(self, rng: random.Random) -> None:
        """Store into a mapped member, and again when the first store's version is shown.

        By chance that is seldom: events tell of neither, and other changes come between.
        """
        self.shelf.keep_mapped(rng)
        deadline = time.monotonic() + 3
        while not all(map(self._is_shown, self.shelf.games)) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.shelf.store(rng)
        self.trace[-1] += f": {self.shelf.last}"

    def _is_shown(self, game: Game) -> bool:
        wanted = game.history.now.version
        try:
            return wanted is not None and all(
                self._stat(head, game).st_ino == wanted.inode for head in self.heads
            )
        except FileNotFoundError:
            return wanted is None

    def settle(self, rng: random.Random) -> None:
        """Nothing changes any more: what is shown becomes what is there, whole, and stays it."""
        before = tree(self.shelf.root)
        for head in self.heads:
            for game in self.shelf.games:
                self._see(head, game)
        check(tree(self.shelf.root) == before, "the library was changed")
        self.shelf.verify()
        self.counts["settled"] += 1

    def _see(self, head: Head, game: Game) -> None:
        path = head.path / game.history.path
        folder = path.with_suffix("")
        wanted = game.history.now.version

        def shown() -> bool:
            try:
                status = path.stat()
                if wanted is None or status.st_ino != wanted.inode:
                    return False
                if not self._read_whole(head, game, wanted):
                    return False
                # Now nobody has another idea of it, the kernel included. (It may be gone once
                # more: what was read came from the page cache, and that its files are in other
                # states now, after an earlier version was restored, was noticed afterwards.)
                now = self._identify(game, path.stat())
                check(now.st_ino == wanted.inode, f"not {wanted} any more")
                return True
            except FileNotFoundError:
                return wanted is None and folder.exists() == game.folder.exists()

        self._poll(f"{game.history.path} to be {wanted}", shown)

    def _read_whole(self, head: Head, game: Game, wanted: Version) -> bool:
        """Whether all of *wanted* can be read by its name.

        Not yet, perhaps, even if that version is shown: if it was there before, and then another
        one, its files are in other states now, and that may not have been noticed.
        """
        with (head.path / game.history.path).open("rb", buffering=0) as file:
            if self._identify(game, os.fstat(file.fileno())).st_ino != wanted.inode:
                return False
            pins = game.history.pins(wanted, time.monotonic())
            reader = Reader(head, file.fileno(), wanted, pins, game.history)
            if not self._read(reader, 0, wanted.size):
                return False
            check(not os.pread(file.fileno(), 1, wanted.size), "bytes beyond the end")
        return True

    def _identify(self, game: Game, status: os.stat_result) -> os.stat_result:
        self.counts["stats"] += 1
        game.history.identify(status.st_ino, status.st_size, status.st_mtime_ns, time.monotonic())
        return status

    def _poll(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while not condition():
            self.check()
            check(time.monotonic() < deadline, f"waited in vain for {what}")
            self.progress()
            time.sleep(0.02)

    # -- Reading ---------------------------------------------------------------

    def _read_on(self, number: int) -> None:
        """In a thread: read from whatever is open."""
        rng = random.Random(number)
        while not self._stop.is_set():
            # One that fails will go on failing; asking it a few times is enough.
            handles = [reader for reader in list(self._handles) if reader.errors < 5]
            if not handles:
                time.sleep(0.01)
                continue
            try:
                self._read_somewhere(rng.choice(handles), rng)
            except Exception as error:  # noqa: BLE001 - the next step of the main thread raises it
                self._failures.append(error)
                return
            time.sleep(0.002)  # the machine isn't ours alone

    def _read_somewhere(self, reader: Reader, rng: random.Random) -> None:
        size = reader.version.size
        length = rng.choice([1, 4096, 70_000, 300_000, size])
        offset = rng.choice([0, max(0, size - length), rng.randrange(size)])
        if isinstance(reader.what, int) and rng.random() < 0.5:
            with reader.lock, contextlib.suppress(OSError):
                # Out of the kernel's cache, so that it has to ask again.
                os.posix_fadvise(reader.what, 0, 0, os.POSIX_FADV_DONTNEED)
        self._read(reader, offset, length)

    def _read(self, reader: Reader, offset: int, length: int) -> bool:
        """Read a range to its end, or to an error, if that is allowed; whether to its end."""
        with reader.lock:
            if reader.what == _CLOSED:
                return False
            wanted = reader.version.read(offset, length)
            got = b""
            failed = False
            while len(got) < len(wanted):
                part = _part(reader.what, offset + len(got), len(wanted) - len(got))
                if part is None:
                    failed = True
                    break
                check(part, f"{reader.path} ended at {offset + len(got)}: {reader.version}")
                got += part
            if failed and isinstance(reader.what, Mapped):
                reader.what.close()
                reader.what = _CLOSED
            changed = reader.was_changed_in_place()
            lost = reader.may_be_lost()
        self.counts["reads"] += 1
        self.counts["errors"] += failed
        self.counts["lost"] += failed and not changed
        reader.errors += failed
        where = f"{reader.path}, {length} bytes at {offset}: {reader.version}"
        if not wanted.startswith(got):
            raise ModelError(f"WRONG BYTES: {where}; {_difference(wanted, got)}")
        check(
            not failed or changed or lost,
            f"an error, though nothing was changed in place, nor lost by a restart: {where}",
        )
        return not failed


_CLOSED: Final = -1


def _part(what: int | Mapped, offset: int, length: int) -> bytes | None:
    """Bytes from *offset* on, up to *length*; None for ``EIO`` or SIGBUS."""
    if isinstance(what, Mapped):
        return what.read(offset, length)
    try:
        return os.pread(what, length, offset)
    except OSError as error:
        # ESTALE if the kernel asks for its attributes first.
        if error.errno not in (errno.EIO, errno.ESTALE):
            raise ModelError(f"a read answers {error}") from None
        return None


def _close(reader: Reader) -> None:
    with reader.lock:
        if isinstance(reader.what, Mapped):
            reader.what.close()
        elif reader.what != _CLOSED:
            os.close(reader.what)
        reader.what = _CLOSED


def _difference(wanted: bytes, got: bytes) -> str:
    wrong = [n for n, byte in enumerate(got) if byte != wanted[n]]
    return f"{len(wrong)} of {len(got)} differ, from {wrong[0]} to {wrong[-1]}"


READS: Final[dict[str, tuple[int, Callable[[World, random.Random], None]]]] = {
    "open": (12, World.open),
    "map": (1, World.map),
    "read": (12, World.read),
    "release": (3, World.release),
    "stat": (5, World.stat),
    "list": (2, World.list),
    "pause": (5, World.pause),
    "store_twice": (1, World.store_twice),
    "restart": (1, World.restart),
    "settle": (2, World.settle),
}
"""All other steps, by name, and how often each is taken."""

RESTARTS: Final[dict[str, tuple[int, Callable[[World, random.Random], None]]]] = {
    "kill": (8, World.kill),
}
"""The same for those that only a supervised world has."""
