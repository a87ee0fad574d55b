"""Files that are passed through alone: their checksums, and what follows when one is wrong.

Where the state of a file can't vouch for its bytes (:mod:`zipfs.library.vouching`), a file that is
passed through needs checksums just as members of archives do. They are computed in the background,
after those of all members, and are in the same table of the index. A file is there before: as it
is, *unproven*. Once it has checksums it is *proven*, and each block is compared before any byte of
it is handed out.

    state of a file      inode                          an open of it
    unproven             of path and state              reads what is there
    proven               of path, state and XXH3-128    reads what the checksums prove
    disproved            that of the unproven one       ends in EIO, until it was hashed again

So the kernel never mixes pages of two of them (DESIGN V4). Who opens what the kernel still has
under an earlier inode is sent to the right one.

A file that fails its proof has other bytes than it had, in a state that may be the same, its date
included. Web servers make their ETag of date and size (DESIGN V1). So of a file that was disproved
the index remembers which content had which date (the table of archives' dates, under the file's
source and a slash), and the next content with the same date gets the next free second.

Files are found by scans (:mod:`zipfs.catalog.background.scanner`), in games that are shown as
folders, and when somebody looks one up. What is known and what waits is limited (:data:`MEMORY`):
the checksums of a file that was dropped are read from the index, and one that waits no more is
found by the next scan. Only files that are disproved aren't limited: each has failed a read.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import trio
import xxhash

from zipfs.catalog.nodes import File, Proof, file_node
from zipfs.errors import ChangedError, StaleError
from zipfs.index.hash_jobs import Rank
from zipfs.index.hash_queue import Hasher
from zipfs.index.unsaved import Unsaved
from zipfs.library.filestate import FileState
from zipfs.library.proven import DisprovedError
from zipfs.library.scan import Entry, SourceFile
from zipfs.library.vouching import HashSingles
from zipfs.sealing.outcomes import Examination, Plain
from zipfs.sealing.sealer import Sealer
from zipfs.system.threads.lanes import Threads
from zipfs.system.threads.retries import Retries
from zipfs.text import shown

log = logging.getLogger(__name__)

MEMORY: Final = 20_000
"""Maximum number of files whose checksums are in memory, and of files that wait for theirs: of
each, about ten megabytes."""
_BATCH: Final = 256
"""Maximum number of files that are in the hash queue at a time."""
_PAUSE: Final = 60.0
"""Seconds before a file that couldn't be read is read again."""
_NANOSECONDS: Final = 1_000_000_000


class _Known(NamedTuple):
    state: FileState
    proof: Proof
    path: bytes
    """In the mount, or one of its paths there."""
    by_content: bool


class _Waiting(NamedTuple):
    path: bytes
    """In the mount."""
    file: SourceFile
    ready: float
    """When its state has settled; time.monotonic."""


class Singles:
    """The single files of the library of *sealer*, hashed by *hasher* into *unsaved*.

    *invalidated* is called, in trio's thread, with the path of each that is another node now.
    Methods belong to trio's thread unless they say otherwise.
    """

    def __init__(
        self,
        sealer: Sealer,
        hasher: Hasher,
        unsaved: Unsaved,
        which: HashSingles,
        invalidated: Callable[[bytes], None],
    ) -> None:
        self._library = sealer.library
        self._index = sealer.index
        self._settle = sealer.settle
        self._hasher = hasher
        self._unsaved = unsaved
        self._which = which
        self._invalidated = invalidated
        # Threads of their own: looking at one file must not wait for the games of a whole scan.
        self._in_thread = Threads(4).run
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._waiting: dict[bytes, _Waiting] = {}
        self._disproved: set[bytes] = set()
        self._wake = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self.hashed = 0
        """Number of files that were hashed since the start."""

    @property
    def waiting(self) -> int:
        """Number of files that are known and not hashed yet."""
        return len(self._waiting)

    def proven(self) -> Iterator[tuple[bytes, SourceFile, bytes]]:
        """Those in memory that are proven by their content: path, file, and XXH3-128."""
        with self._lock:
            known = list(self._known.items())
        for source, one in known:
            if self._known.get(source) is one and one.by_content:
                file = SourceFile(b"", source, one.state, by_content=True)
                yield one.path, file, one.proof.digest

    # -- Nodes, in worker threads --------------------------------------------------

    def node(self, path: bytes, entry: Entry) -> File:
        """In a worker thread: the node of the file *entry*, shown at *path*."""
        file = self._library.file(b"", entry)
        return file_node(path, file, entry.status, self._proof(path, file))

    def found(self, files: Iterable[tuple[bytes, Entry]]) -> None:
        """In a worker thread: a scan has found *files*, each with its path."""
        if self._which != "never":
            for path, entry in files:
                self._proof(path, self._library.file(b"", entry))

    def without_files(self, game: bytes, examination: Examination) -> Examination:
        """In a worker thread: *examination* of *game* to be kept, single files taken out of it."""
        outcome = examination.outcome
        if not isinstance(outcome, Plain) or not outcome.files:
            return examination
        for file in outcome.files:
            self._proof(game + b"/" + file.path, dataclasses.replace(file, path=b""))
        return dataclasses.replace(examination, outcome=Plain(outcome.status))

    def _proof(self, path: bytes, file: SourceFile) -> Proof | None:
        """What proves *file*; None if nothing does, and then it is hashed if it has to be."""
        if not self._concerns(file):
            return None
        source = file.source
        with self._lock:
            known = self._known.get(source)
            if known and known.state == file.state:
                self._known.move_to_end(source)
                return known.proof
            waiting = self._waiting.get(source)
            if source in self._disproved or (waiting and waiting.file.state == file.state):
                return None
        if found := self._saved(path, file):
            self._learn({source: found})
            return found.proof
        self._want(path, file)
        return None

    def _concerns(self, file: SourceFile) -> bool:
        return self._which == "always" or (self._which == "auto" and file.by_content)

    def _saved(self, path: bytes, file: SourceFile) -> _Known | None:
        """What the index has of *file*, shown at *path*, in its state."""
        record = self._index.files([file.source]).get(file.source)
        if record is None:
            return None
        hashed, state = file.state.measure(record[0]), file.state
        if file.by_content:  # an inode that doesn't last says nothing of the content
            hashed, state = hashed.without(inode=True), state.without(inode=True)
        if hashed != state:
            return None
        digest = record[1].digest
        seconds = file.state.mtime_ns // _NANOSECONDS
        later = 0
        if self._index.issued(_dated(file.source)):  # it was disproved once
            later = self._issue(file.source, digest, seconds) - seconds
        return _Known(file.state, Proof(digest, later), path, file.by_content)

    def _issue(self, source: bytes, digest: bytes, seconds: int) -> int:
        """The date of that content of *source*, told to be of *seconds*; both Unix seconds."""
        content = xxhash.xxh3_128_intdigest(b"%s%d" % (digest, seconds))

        def choose(taken: Callable[[int], bool]) -> int:
            free = seconds
            while taken(free):
                free += 1
            return free

        return self._index.issue(_dated(source), content, choose)

    def _learn(self, found: dict[bytes, _Known]) -> None:
        with self._lock:
            for source, known in found.items():
                if source not in self._disproved:
                    self._known[source] = known
                    self._known.move_to_end(source)
            while len(self._known) > MEMORY:
                self._known.popitem(last=False)

    def _want(self, path: bytes, file: SourceFile, after: float = 0.0) -> None:
        """Have *file* hashed once it has settled, and in *after* seconds at the earliest."""
        # By the clock, or from now on: dates may be in the future.
        age = (time.time_ns() - file.state.changed_ns) / _NANOSECONDS
        left = max(0.0, self._settle - age) if age >= 0 else self._settle
        with self._lock:
            if file.source in self._disproved:  # it has a task of its own
                return
            if file.source not in self._waiting and len(self._waiting) >= MEMORY:
                return
            self._waiting[file.source] = _Waiting(
                path, file, time.monotonic() + max(after, min(left, self._settle))
            )
        if self._token:
            self._token.run_sync_soon(self._awake)

    def _awake(self) -> None:
        self._wake.set()

    # -- What is opened and read ---------------------------------------------------

    def check(self, node: File) -> None:
        """Raise an error unless *node* may be opened.

        :exc:`OSError` if it is disproved, :exc:`StaleError` if it is another node by now, and
        :exc:`ChangedError` if that one has another date.
        """
        if node.file.source in self._disproved:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        known = self._known.get(node.file.source)
        if known is None or known.state != node.file.state or node.digests == (known.proof.digest,):
            return
        # Upon StaleError the kernel opens the other one by itself: that has to be the same file
        # to a server that has asked for its date before.
        raise ChangedError if node.digests or known.proof.later else StaleError

    def failed(self, node: File, error: Exception) -> None:
        """Reading *node* ended in *error*: if that disproved it, have it hashed again."""
        if isinstance(error, DisprovedError):
            self.disproved(node.path, node.file, error.digest)

    def disproved(self, path: bytes, file: SourceFile, digest: bytes) -> None:
        """*file*, shown at *path*, hasn't the bytes that *digest* is the XXH3-128 of."""
        source = file.source
        with self._lock:
            known = self._known.get(source)
            if self._nursery is None or source in self._disproved:
                return
            if known and known.proof.digest != digest:  # of what it was before
                return
            self._disproved.add(source)
            self._known.pop(source, None)
            self._waiting.pop(source, None)
        self._nursery.start_soon(self._renew, path, file, digest)
        self._invalidated(path)

    async def _renew(self, path: bytes, file: SourceFile, digest: bytes) -> None:
        """Hash *file* again, in whatever state it is; until then it can't be opened."""
        source = file.source
        retries = Retries()
        try:
            seconds = file.state.mtime_ns // _NANOSECONDS
            await self._in_thread(self._issue, source, digest, seconds)
            await self._unsaved.forget({source: digest})
            while True:
                await trio.sleep(self._settle)
                try:
                    entry = await self._in_thread(self._library.entry, source)
                except OSError:
                    entry = None
                if isinstance(entry, Entry) and not entry.is_folder:
                    waiting = _Waiting(path, self._library.file(b"", entry), 0.0)
                    if not await self._hash([waiting], Rank.ASKED):
                        return
                elif not self._library.presence.gone:
                    return
                await trio.sleep(retries.after_failure())
        except Exception:
            # H4: nothing unexpected ends the mount.
            log.exception("unexpected error about the file %s", shown(source))
        finally:
            self._disproved.discard(source)

    # -- Hashing ---------------------------------------------------------------------

    async def run(self) -> None:
        """Hash what waits, for ever."""
        async with trio.open_nursery() as nursery:
            self._token = trio.lowlevel.current_trio_token()
            self._nursery = nursery
            try:
                while True:
                    self._wake = trio.Event()
                    batch, pause = self._ready()
                    if batch:
                        await self._hash_all(batch)
                    else:
                        with trio.move_on_after(pause):
                            await self._wake.wait()
            finally:
                self._nursery = None

    def _ready(self) -> tuple[list[_Waiting], float]:
        """Some that can be hashed now; and in how many seconds there is one, if there is none."""
        now = time.monotonic()
        with self._lock:
            ready = [one for one in self._waiting.values() if one.ready <= now][:_BATCH]
            soonest = min((one.ready for one in self._waiting.values()), default=math.inf)
        return ready, max(0.0, soonest - now)

    async def _hash_all(self, batch: Sequence[_Waiting]) -> None:
        try:
            failures = await self._hash(batch, Rank.SINGLE)
        except Exception as unexpected:
            # H4: nothing unexpected ends the mount.
            log.exception("unexpected error while hashing single files")
            failures = [(one, unexpected) for one in batch]
        with self._lock:
            for one in batch:
                if self._waiting.get(one.file.source) is one:
                    del self._waiting[one.file.source]
        for one, error in failures:
            if not isinstance(error, ChangedError):  # then it is found in its new state
                self._want(one.path, one.file, after=_PAUSE)

    async def _hash(
        self, batch: Sequence[_Waiting], rank: Rank
    ) -> list[tuple[_Waiting, Exception]]:
        """Hash *batch*, which is proven from now on; those that couldn't be, and why."""
        done_with = [trio.Event() for _ in batch]
        requests = [
            self._hasher.request([one.file], event.set, rank=rank)
            for one, event in zip(batch, done_with, strict=True)
        ]
        for event in done_with:
            await event.wait()
        await self._unsaved.save()
        of = list(zip(batch, requests, strict=True))
        done = [one for one, request in of if not request.failures]
        found = await self._in_thread(self._load, done)
        with self._lock:
            self._disproved.difference_update(found)
        self._learn(found)
        self.hashed += len(found)
        for one in done:
            self._invalidated(one.path)
        return [(one, request.failures[0][1]) for one, request in of if request.failures]

    def _load(self, hashed: Sequence[_Waiting]) -> dict[bytes, _Known]:
        found = ((one.file.source, self._saved(one.path, one.file)) for one in hashed)
        return {source: known for source, known in found if known}


def _dated(source: bytes) -> bytes:
    """The path in the index under which dates of the file *source* are; no archive has it."""
    return source + b"/"
