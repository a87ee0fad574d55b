"""Slow re-reading: changes that no date tells of, and that nobody reads, are found all the same.

Where content vouches for bytes (:mod:`zipfs.library.vouching`), a change that moves no date is
found by the first read of what changed. Until then the old archive is *offered*: listed, with its
old validators. So all archives, and all single files with checksums, are read again, slowly, in
rounds, and compared with the checksums of their blocks. What differs is treated as a failed proof.

Each archive or file counts as its bytes and :data:`OVERHEAD` more, read at *rate*. What is opened
most is read out of turn, for half a byte of each that is read in turn, if it isn't more than an
eighth of all. So a round takes at most twice as long as its bytes, and that is the bound of how
long something stale can be offered. A round begins anywhere, as a restart must not leave the same
things for the end.

Files are read from the disk, not from the page cache, and leave nothing in it. One is open only
while a block is read. While the library is gone, nothing is read. Where reading costs money,
nothing is read unless the user gives a rate.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final, NamedTuple

import trio

from zipfs.catalog.game import Game, Look
from zipfs.catalog.games import Games
from zipfs.catalog.reseal import Resealer
from zipfs.catalog.singles import Singles
from zipfs.errors import ChangedError
from zipfs.library.files import close_all, open_file
from zipfs.library.filestate import BLOCK
from zipfs.library.proven import DisprovedError, is_right
from zipfs.library.scan import Entry, SourceFile
from zipfs.library.vouching import report
from zipfs.sealing.outcomes import Sealed, Version
from zipfs.sealing.sealer import Sealer
from zipfs.system.page_cache import fill
from zipfs.system.syscalls import is_cached, uncache
from zipfs.system.threads.lanes import Threads
from zipfs.text import shown

log = logging.getLogger(__name__)

DEFAULT_RATE: Final = 1.0
"""MiB per second, unless the user gives another rate."""
OVERHEAD: Final = 64 << 10
"""Bytes that looking at an archive, or opening a file, counts as."""
_REST: Final = 10.0
"""Seconds between two rounds."""
_IDLE: Final = 60.0
"""Seconds between two looks at the table of mounts, while there is nothing to read again."""
_GONE: Final = 1.0
"""Seconds between two looks whether the library is back."""
_AT_A_TIME: Final = 16
"""Most blocks for which a thread is sent once."""
_ASKED: Final = 1000
"""Number of games whose opens are counted."""


class Item(NamedTuple):
    """What is read again: an archive, or a single file."""

    path: bytes
    files: Sequence[SourceFile]
    digests: Sequence[bytes]
    game: Game | None = None
    version: Version | None = None


class _Block(NamedTuple):
    file: SourceFile
    digest: bytes
    start: int
    length: int


class Rechecker:
    """Reads again what *games* and *singles* offer, at *rate* MiB per second.

    None: at :data:`DEFAULT_RATE`, except where reading costs money; 0: never.
    """

    def __init__(
        self,
        sealer: Sealer,
        games: Games,
        resealer: Resealer,
        singles: Singles,
        rate: float | None,
        patience: float | None,
    ) -> None:
        self._sealer = sealer
        self._library = sealer.library
        self._games = games
        self._resealer = resealer
        self._singles = singles
        self._rate = (DEFAULT_RATE if rate is None else rate) * (1 << 20)
        self._may_cost = rate is not None
        # Threads of their own, one at a time: never in the way of who asks for something.
        self._threads = Threads(1, patience)
        self._opened: Counter[bytes] = Counter()
        self._credit = 0.0
        """Bytes that may be read out of turn."""
        self._due = 0.0
        self.read_bytes = 0
        """Bytes that were read again since the start."""

    @property
    def stuck(self) -> int:
        """Number of its threads that hang in a disk that doesn't answer."""
        return self._threads.stuck

    def opened(self, game: bytes) -> None:
        """The archive of *game* is opened."""
        self._opened[game] += 1
        if len(self._opened) > 2 * _ASKED:
            self._opened = Counter({game: n // 2 for game, n in self._opened.most_common(_ASKED)})

    async def run(self) -> None:
        """Read again, for ever."""
        while self._rate > 0:
            pause = _IDLE
            try:
                if await self._threads.run(self._is_wanted):
                    pause = _REST
                    async for item in self._round():
                        await self._check(item)
                        self._credit += self._charge(item) / 2
                        if hot := await self._hot():
                            await self._check(hot)
            except OSError as error:
                log.debug("can't read again: %s", error.strerror)
            except Exception:
                # H4: nothing unexpected ends the mount.
                log.exception("unexpected error while reading again")
            await trio.sleep(pause)

    def _is_wanted(self) -> bool:
        """In a worker thread: whether anything below the library is to be read again."""
        if self._library.presence.gone:
            return False
        found = report(self._library.root, self._library.vouchers.prove)
        return any(self._reads(vouching.by_content, vouching.costs) for _, vouching in found)

    def _reads(self, by_content: bool, costs: bool) -> bool:
        return by_content and (self._may_cost or not costs)

    # -- What to read ------------------------------------------------------------------

    async def _round(self) -> AsyncIterator[Item]:
        """Everything once, from some place on."""
        games = sorted(game.path for game in self._games if isinstance(game.outcome, Sealed))
        start = random.randrange(len(games)) if games else 0  # noqa: S311 - no secret
        for path in games[start:] + games[:start]:
            if item := await self._archive(path):
                yield item
        # Known before the round: what is looked up meanwhile isn't older than that.
        for path, file, digest in self._singles.proven():
            yield Item(path, [file], [digest])

    async def _archive(self, path: bytes) -> Item | None:
        """The files of an archive that are to be read again, as it is now."""
        while self._library.presence.gone:  # noqa: ASYNC110 - it has no event
            await trio.sleep(_GONE)
        game = self._games.get(path)
        if game is None or not isinstance(game.outcome, Sealed):
            return None
        try:
            look = await self._threads.run(self._look, game)
        except OSError:
            return None
        if look is None:
            return None
        self._resealer.install(look, asked=False)
        outcome = game.outcome
        if self._games.get(path) is not game or not isinstance(outcome, Sealed):
            return None
        version = look.version or self._games.versions.get(outcome.inode)
        if version is None or version.sealed != outcome:
            return None
        return Item(path, version.files, version.digests, game, version)

    def _look(self, game: Game) -> Look | None:
        """In a worker thread: *game* with its version; None if its state vouches for it."""
        entry = self._library.entry(game.place.source)
        if isinstance(entry, Entry) and self._library.list_of(game.path) is None:
            vouching = self._library.vouchers.of(
                self._library.absolute(game.place.source), entry.status.st_dev
            )
            if not self._reads(vouching.by_content, vouching.costs):
                return None
        return self._resealer.examine(game.path, game.place, whole=True)

    async def _hot(self) -> Item | None:
        """What is opened most, once there is room for it."""
        for path, count in self._opened.most_common(1):
            game = self._games.get(path)
            outcome = game.outcome if game else None
            if not isinstance(outcome, Sealed) or outcome.size > self._games.sums.size / 8:
                del self._opened[path]
            elif outcome.size + OVERHEAD <= self._credit:
                self._opened[path] = count // 2  # and now the others
                self._opened = +self._opened
                self._credit = 0.0
                return await self._archive(path)
            return None
        self._credit = 0.0
        return None

    @staticmethod
    def _charge(item: Item) -> int:
        return OVERHEAD + sum(file.state.size for file in item.files if file.by_content)

    # -- Reading -------------------------------------------------------------------------

    async def _check(self, item: Item) -> None:
        """Read *item*; what differs is treated as if a reader had met it."""
        await self._pace(OVERHEAD)
        for blocks in _batches(item):
            if any(self._library.presence.gone_at(block.file.source) for block in blocks):
                return
            await self._pace(sum(block.length for block in blocks))
            try:
                await self._threads.run(self._read_all, blocks)
            except DisprovedError as error:
                log.warning(
                    "%s is withdrawn, and hashed again: %s has other bytes of the same size"
                    " and date",
                    shown(item.path),
                    shown(error.source.source),
                )
                if item.game:
                    self._resealer.distrust(item.game, error, item.version)
                else:
                    self._singles.disproved(item.path, error.source, error.digest)
                return
            except ChangedError:
                if item.game:
                    self._resealer.invalidate(item.game, 0)
                return
            except OSError:  # who reads it is told
                return

    async def _pace(self, size: int) -> None:
        """Sleep until *size* bytes more are within the rate."""
        now = time.monotonic()
        self._due = max(self._due, now) + size / self._rate
        await trio.sleep(max(0.0, self._due - now))

    def _read_all(self, blocks: Sequence[_Block]) -> None:
        for block in blocks:
            self._read(*block)

    def _read(self, file: SourceFile, digest: bytes, start: int, length: int) -> None:
        """In a worker thread: compare a block of *file*. Raises :exc:`DisprovedError`."""
        descriptor = open_file(self._library.absolute, file)
        try:
            vouching = self._library.vouchers.of(
                self._library.absolute(file.source), os.fstat(descriptor).st_dev
            )
            if not self._may_cost and vouching.costs:
                return
            was_cached = length > 0 and is_cached(descriptor, start + length - 1)
            uncache(descriptor, start, length)
            block = memoryview(bytearray(length))
            fill(descriptor, block, start, length)
            if not was_cached:
                uncache(descriptor, start, length)
        finally:
            close_all([descriptor])
        self.read_bytes += length
        checksums = b""
        if file.state.size > BLOCK:
            checksums = self._sealer.index.blocks(digest) or b""
        if not is_right(digest, file.state.size, start, block, checksums):
            raise DisprovedError(file, digest)


def _batches(item: Item) -> Iterator[list[_Block]]:
    """The blocks of *item*, small ones together: to send a thread costs more than to read those.

    No more of them than can be read in a thread's time from a source that answers slowly.
    """
    batch: list[_Block] = []
    left = BLOCK
    for file, digest in zip(item.files, item.digests, strict=True):
        if not file.by_content:
            continue
        for start in range(0, max(file.state.size, 1), BLOCK):
            block = _Block(file, digest, start, min(BLOCK, file.state.size - start))
            if batch and (block.length > left or len(batch) == _AT_A_TIME):
                yield batch
                batch, left = [], BLOCK
            batch.append(block)
            left -= block.length
    if batch:
        yield batch
