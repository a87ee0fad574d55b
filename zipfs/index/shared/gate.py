"""Which files of the hash queue this head hashes: those that it has claimed.

What the queue would hash next is offered to all heads, and waits until one of them has hashed it,
or this one has claimed it. So the order is that of the most urgent offer of all heads. Of what the
queue holds only the first :data:`WINDOW` files are offered at a time, since each head has about
the same ones.

While there is nobody to share with, everything is hashed here (:meth:`SharedGate.admits`).

All methods belong to trio's thread, but those of a :class:`zipfs.index.shared.session.Listener`.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeVar

import trio

from zipfs.index.hash_file import SLICE
from zipfs.index.hash_jobs import Rank
from zipfs.index.hash_queue import Hasher
from zipfs.index.shared.desk import Key
from zipfs.index.shared.head import Head
from zipfs.library.filestate import Checksums, FileState
from zipfs.library.scan import SourceFile

log = logging.getLogger(__name__)

T = TypeVar("T")

WINDOW: Final = 4096
"""Number of files that are offered and wait."""
COUNT: Final = 256
"""Number of files that are claimed at once."""
_SECONDS: Final = 0.5
"""Seconds for which there is work in what is claimed at once: what one head has claimed, no other
one does, who may have nothing to do at the end."""
_LEAST: Final = 1 << 16
_FIRST: Final = 8 << 20
"""Bytes that are claimed at once, at least; and while it isn't known how fast it goes."""
_LOOK: Final = 0.5
"""Seconds between two looks at whether the database answers."""
_OFFER: Final = 30.0
"""Seconds after which what still waits is offered again."""
_SAVE: Final = 0.05
"""Seconds in which results are collected before they are saved, and told."""


def bytes_at_once(rate: float | None) -> int:
    """How much to claim at once, where *rate* bytes a second are hashed; None: not known yet."""
    return max(_LEAST, min(SLICE, int(rate * _SECONDS))) if rate else _FIRST


class SharedGate:
    """The gate of the hash queue of *head*; the files of which *is_own* holds aren't shared."""

    def __init__(self, head: Head, is_own: Callable[[bytes], bool]) -> None:
        self._head = head
        self._is_own = is_own
        self._token: trio.lowlevel.TrioToken | None = None
        self._hasher: Hasher | None = None
        """Not to be asked for its truth: it is false while it is empty."""
        self._reissued: Callable[[Iterable[bytes]], object] = lambda _: None
        self._is_open = False
        self._parked: dict[Key, tuple[SourceFile, Rank]] = {}
        """What the queue would hash, and waits."""
        self._claimed: dict[Key, SourceFile] = {}
        self._size = 0
        """Bytes of what is claimed."""
        self._hashed = trio.Event()
        self._offered_at = 0.0

    # -- For the queue ----------------------------------------------------------------

    def is_full(self, rank: Rank) -> bool:
        """Whether nothing of that rank is offered at present."""
        return not self._is_open and rank > Rank.ASKED and len(self._parked) >= WINDOW

    def admits(self, file: SourceFile, rank: Rank) -> bool:
        """Whether *file* is to be hashed here now; if not, it waits until it is.

        :meth:`Hasher.admit` ends the wait, or :meth:`Hasher.known`.
        """
        key = file.source, file.state
        if self._is_open or key in self._claimed or self._is_own(file.source):
            return True
        self._parked[key] = file, rank
        self._head.desk.offer(file, int(rank))
        return False

    def hurry(self, file: SourceFile) -> None:
        """Somebody asks for *file*: it comes first on all heads."""
        key = file.source, file.state
        if not (self._is_open or key in self._claimed or self._is_own(file.source)):
            self._parked[key] = file, Rank.ASKED
            self._head.desk.offer(file, int(Rank.ASKED))

    def finished(self, file: SourceFile, result: Checksums | Exception) -> None:
        """*file* was hashed here, with that *result*."""
        key = file.source, file.state
        self._parked.pop(key, None)
        if self._claimed.pop(key, None):
            self._size -= file.state.size
            self._head.desk.release(file, refuse=isinstance(result, Exception))
            self._want()
        if not isinstance(result, Exception):
            self._hashed.set()

    # -- In trio ------------------------------------------------------------------------

    async def run(
        self,
        hasher: Hasher,
        save: Callable[[], Awaitable[None]],
        reissued: Callable[[Iterable[bytes]], object],
    ) -> None:
        """Share, for ever. *save* saves what was hashed; *reissued* is called with archives whose
        modification times are others now."""
        self._hasher = hasher
        self._reissued = reissued
        self._token = trio.lowlevel.current_trio_token()
        self._head.state.changed = self._changed
        self._head.start(self)
        self._want()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            while True:
                await self._hashed.wait()
                await trio.sleep(_SAVE)
                self._hashed = trio.Event()
                # Others wait for it, and maybe none here.
                await save()

    async def _watch(self) -> None:
        """Open and close the gate: also when the head's thread itself waits for an answer."""
        while True:
            self._set_open(open_=self._head.state.hashes_all())
            now = trio.current_time()
            if self._parked and now - self._offered_at > _OFFER:
                self._offered_at = now
                for file, rank in self._parked.values():
                    self._head.desk.offer(file, int(rank))
            await trio.sleep(_LOOK)

    def _set_open(self, *, open_: bool) -> None:
        if open_ == self._is_open:
            return
        self._is_open = open_
        if open_ and self._hasher is not None:
            parked = list(self._parked.values())
            self._parked.clear()
            for file, _ in parked:
                self._hasher.admit(file)

    def _want(self) -> None:
        """Claim more before all is done, so that the process that hashes isn't idle."""
        rate: float | None = None
        if self._hasher is not None:
            rate = self._hasher.rate or self._hasher.speed.now(time.monotonic())
        size = bytes_at_once(rate)
        hungry = len(self._claimed) < COUNT // 2 and self._size < size // 2
        self._head.desk.want(COUNT if hungry else 0, size)

    def _take(self, files: Sequence[tuple[SourceFile, int]]) -> None:
        for file, rank in files:
            key = file.source, file.state
            self._parked.pop(key, None)
            if key not in self._claimed:
                self._claimed[key] = file
                self._size += file.state.size
            if self._hasher is not None:
                self._hasher.admit(file, Rank(rank))
        self._want()

    def _know(self, files: Sequence[Key]) -> None:
        for key in files:
            self._parked.pop(key, None)
            if file := self._claimed.pop(key, None):  # another one thought this head dead
                self._size -= file.state.size
                self._head.desk.release(file, refuse=False)
        if self._hasher is not None:
            self._hasher.known(files)
        self._want()

    def _hurry(self, files: Sequence[Key]) -> None:
        for key in files:
            if self._hasher is not None and (file := self._claimed.get(key)):
                self._hasher.admit(file, Rank.ASKED)

    def _reissue(self, archives: Sequence[bytes]) -> None:
        self._reissued(archives)

    # -- In the head's thread -------------------------------------------------------------

    def claimed(self, files: Sequence[tuple[SourceFile, int]]) -> None:
        self._later(self._take, files)

    def asked(self, files: Sequence[Key]) -> None:
        self._later(self._hurry, files)

    def known(self, files: Sequence[tuple[bytes, FileState]]) -> None:
        self._later(self._know, files)

    def reissued(self, archives: Sequence[bytes]) -> None:
        self._later(self._reissue, archives)

    def _changed(self) -> None:
        self._later(lambda _: self._set_open(open_=self._head.state.hashes_all()), ())

    def _later(self, call: Callable[[Sequence[T]], object], items: Sequence[T]) -> None:
        """Call it in trio's thread, if there is one."""
        if self._token is None:
            return

        def work() -> None:
            try:
                call(items)
            except Exception:
                # H4: nothing unexpected ends the mount.
                log.exception("unexpected error about the shared index")

        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(work)
