"""Reads everything again and compares it with the index: what ``zipfs verify`` does.

A file whose state (inode, size, mtime, ctime) is the one that it was hashed in, and whose bytes
aren't those any more, has not been written: its disk, controller or memory has changed it.

- Bytes are read from the disk, whatever the page cache has (:mod:`zipfs.ops.verify.diskfile`).
- A file that is in another state, before or after it was read, is none of our business: whoever
  changed it meant to, and a mount hashes it anew. So are files that are gone.
- A file that differs is read once more, as far as it differs. If it is right then, the disk isn't
  what is failing: *unstable*. One that the disk won't give is *unreadable*.
- The index is only read. A record stays as it is where a file is damaged: it says what the bytes
  have to be. Without it a mount would hash the damaged file, and hand it out as a new and valid
  version. As it is, the mount hands it out under the checksum of the right bytes, and each program
  that unpacks the archive says so. The remedy is a backup: a file that is put back is in another
  state, and is hashed anew.
- How far it is, and what it has found, is kept beside the index (:mod:`zipfs.ops.verify.verified`),
  some seconds at most behind.

tmpfs and overlayfs tell nothing of what a program writes through a map after the first store
(``zipfs help http``): there such a file is taken for a damaged one, and rightly so, for a mount
would give the same wrong bytes.

Blocking, in the caller's thread.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from zipfs.errors import ChangedError, DamageError, IndexFileError, LibraryError
from zipfs.index.tables import Record, Store
from zipfs.library.filestate import BLOCK, FileState
from zipfs.ops.verify import verified
from zipfs.ops.verify.belonging import Belonging
from zipfs.ops.verify.comparing import Comparison, knows_blocks
from zipfs.ops.verify.rereading import reread
from zipfs.ops.verify.verified import Finding, Memory, Partial, Round
from zipfs.sealing.sealer import Sealer
from zipfs.system.paths import lstat
from zipfs.system.rates import Pace
from zipfs.text import shown

log = logging.getLogger(__name__)

_SAVE_SECONDS: Final = 2.0
_SAVE_SHARE: Final = 20
"""Saving takes at most one second in so many."""
_MOST_IN_A_ROW: Final = 100
"""Files without a readable one between them: then it is the disk that isn't there."""
_MOST_FINDINGS: Final = 10_000
"""More than that, and no list of files is of help any more."""


class Progress(Protocol):
    """Who shows how far it is."""

    def total(self, size: int) -> None:
        """So many bytes are known altogether."""

    def advance(self, size: int) -> None:
        """So many more are done, or needn't be."""


@dataclass
class Run:
    """What one run did."""

    verified: int = 0
    """Files that it read to their end, right or not."""
    size: int = 0
    """Bytes that it read, those of other files included."""
    seconds: float = 0.0
    found: set[bytes] = field(default_factory=set)
    """Paths of what it found."""


class Verifier:
    """Verifies the files of *sealer*'s library that *store*, its index, knows.

    *memory* is kept in *file*. *pace* is told of each byte read, *deadline* is a time of
    *clock* and of the pace's. *tell* hears of each finding at once.
    """

    def __init__(  # noqa: PLR0913 - each is a choice of its own
        self,
        sealer: Sealer,
        store: Store,
        memory: Memory,
        file: str,
        *,
        pace: Pace,
        progress: Progress,
        tell: Callable[[Finding], None],
        deadline: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._library = sealer.library
        self._belonging = Belonging(sealer)
        self._store = store
        self.memory = memory
        self._file = file
        self._pace = pace
        self._progress = progress
        self._tell = tell
        self._deadline = deadline
        self._clock = clock
        self.known, self.known_size = store.totals()
        """Files that the index knows, and their bytes."""
        self.this_run = Run()
        self._started = self._saved_at = clock()
        self._seconds_before = 0.0
        self._save_took = 0.0
        self._saves = True
        self._compared = False  # anything, with a file in the state that the index knows
        self._row: list[bytes] = []
        """Files that couldn't be read, one after the other."""
        self._before_row: Round | None = None
        self._root = self._root_now()

    # -- A run -----------------------------------------------------------------

    def run(self) -> bool:
        """Begin a round, or carry on with the one under way; whether it has ended.

        It hasn't if the deadline came first. Raises :exc:`IndexFileError` or :exc:`LibraryError`
        if there is nothing to compare (any more), and what
        :class:`zipfs.index.tables.Store` raises.
        """
        if not self.known:
            raise IndexFileError(
                "the index knows no file yet, so there is nothing to compare with;"
                " `zipfs index` hashes them"
            )
        memory = self.memory
        if memory.round is None:
            memory.round, memory.partial = Round(began=int(time.time())), None
        round_ = memory.round
        self._seconds_before = round_.seconds
        self._progress.total(self.known_size)
        self._progress.advance(round_.passed + (memory.partial.offset if memory.partial else 0))
        refused = True
        try:
            ended = self._go_on(round_)
            self._forget_mended()
            unhashed = self._look_through(count=ended) if ended or self.this_run.found else 0
            if ended:
                self._see_that_something_was_compared(round_)
                self._save()  # with its seconds
                round_.unhashed = unhashed
                round_.ended = int(time.time())
                memory.last, memory.round, memory.partial = round_, None, None
            refused = False
        finally:
            # However it ends, what was done is kept; but not that nothing could be compared:
            # this may be another library's index, or its disk may be missing.
            if self._may_save() or not (refused or memory.replaces_another):
                self._save(durably=True)
        return ended

    def _may_save(self) -> bool:
        """Whether this run knows better than what is remembered."""
        return self._compared or (self.this_run.verified > 0 and not self.memory.replaces_another)

    def _go_on(self, round_: Round) -> bool:
        """Through all files that are left; whether all of them are done."""
        position: bytes | None = round_.position
        while position is not None:
            records, position = self._store.files_after(position)
            for path, record in records:
                if self._is_late():
                    return False
                try:
                    self._verify(round_, path, record)
                except _LateError:
                    return False
                round_.position = path
                round_.passed += record[0].size
                self.memory.partial = None
                self._save_now_and_then()
            if position is not None:  # the last rows may have been damaged ones
                round_.position = position
        return True

    def _is_late(self) -> bool:
        return self._deadline is not None and self._clock() >= self._deadline

    # -- A file ----------------------------------------------------------------

    def _verify(self, round_: Round, path: bytes, record: Record) -> None:
        state, known = record
        if state.size > BLOCK:
            known = known._replace(blocks=self._store.blocks(known.digest) or b"")
        comparison = Comparison(state.size, known)
        partial = self.memory.partial
        if (
            partial
            and (partial.path, partial.state, partial.digest) == (path, state, known.digest)
            and knows_blocks(state.size, known)
        ):
            comparison = Comparison(
                state.size,
                known,
                offset=partial.offset,
                crc32=partial.crc32,
                bad=partial.bad,
                unread=partial.unread,
            )

        def after(comparison: Comparison, count: int) -> None:
            self._after(path, state, known.digest, comparison, count)

        try:
            verdict = reread(self._library.absolute(path), state, known, comparison, after)
        except FileNotFoundError:
            self._see_that_the_library_is_there()
            round_.gone += 1
            self.memory.findings.pop(path, None)
        except ChangedError:
            round_.changed += 1
            self.memory.findings.pop(path, None)
        except PermissionError:
            round_.refused += 1
        else:
            if verdict is None:
                self.memory.findings.pop(path, None)
                self._row.clear()
            else:
                self._note(
                    Finding(
                        path=path,
                        kind=verdict.kind,
                        state=state,
                        crc32=known.crc32,
                        digest=known.digest,
                        found_crc32=verdict.crc32,
                        found_digest=verdict.digest,
                        blocks=verdict.blocks,
                        error=verdict.error,
                        seconds=int(time.time()),
                        archives=self._belonging.by_place(path),
                    )
                )
            self._compared |= verdict is None or verdict.kind != "unreadable"  # empty ones, too
            round_.verified += 1
            round_.size += state.size
            self.this_run.verified += 1
        self._progress.advance(state.size - comparison.offset)

    def _after(
        self, path: bytes, state: FileState, digest: bytes, comparison: Comparison, count: int
    ) -> None:
        self.this_run.size += count
        self._progress.advance(count)
        self._compared = True
        resumable = comparison.has_blocks and not comparison.is_done
        if resumable:
            self.memory.partial = Partial(
                path=path,
                state=state,
                digest=digest,
                offset=comparison.offset,
                crc32=comparison.crc32,
                bad=tuple(comparison.bad),
                unread=tuple(comparison.unread),
            )
            self._save_now_and_then()
        self._pace.took(count, self._deadline)
        # What can't be carried on is read to its end: else it would never be.
        if resumable and self._is_late():
            raise _LateError

    def _note(self, finding: Finding) -> None:
        """*finding* is new, or known and still true."""
        found = self.memory.findings
        if finding.kind == "unreadable":
            self._see_that_the_library_is_there()
            if not self._row and self.memory.round:
                self._before_row = dataclasses.replace(self.memory.round)
            self._row.append(finding.path)
        else:
            self._row.clear()
        found[finding.path] = finding
        self.this_run.found.add(finding.path)
        self._tell(finding)
        self._saved_at = float("-inf")  # to be saved at once
        if len(self._row) >= _MOST_IN_A_ROW:
            # Not their fault: they are to be read again, when the disk is there.
            for path in self._row:
                found.pop(path, None)
            self.memory.round, self.memory.partial = self._before_row, None
            raise LibraryError(
                f"{len(self._row)} files in a row can't be read, the last is"
                f" {shown(finding.path)}: {finding.error}; is the library's disk still there?"
            )
        if len(found) > _MOST_FINDINGS:
            raise DamageError(
                f"more than {_MOST_FINDINGS} files are damaged: this disk, or this machine, can't"
                " be relied on; stopped there"
            )

    # -- The library -----------------------------------------------------------

    def _root_now(self) -> tuple[int, int]:
        try:
            status = lstat(self._library.root)
        except OSError as error:
            raise LibraryError(
                f"can't read the library {shown(self._library.root)}: {error.strerror}"
            ) from None
        return status.st_dev, status.st_ino

    def _see_that_the_library_is_there(self) -> None:
        if self._root_now() != self._root:
            raise LibraryError(
                f"the library {shown(self._library.root)} is another folder than a moment ago;"
                " was its disk unmounted?"
            )

    def _see_that_something_was_compared(self, round_: Round) -> None:
        if round_.verified:
            return
        self.memory.round = self.memory.partial = None
        root = shown(self._library.root)
        if round_.refused:
            raise LibraryError(
                f"none of the {self.known} files that the index knows may be read in {root};"
                " verify them as the user that mounts them"
            )
        if not round_.changed:
            raise LibraryError(
                f"none of the {self.known} files that the index knows is in {root}; is its disk"
                " mounted, and is this its index?"
            )
        raise IndexFileError(
            f"none of the {self.known} files that the index knows is in {root} as it was hashed, so"
            " there is nothing to compare with; is this its index? `zipfs index` hashes them anew"
        )

    def _forget_mended(self) -> None:
        """Forget what was found of files that are gone, or in another state by now."""
        for path, finding in list(self.memory.findings.items()):
            try:
                status = lstat(self._library.absolute(path))
            except (FileNotFoundError, NotADirectoryError):
                del self.memory.findings[path]
            except OSError:
                continue  # it's no better, then
            else:
                if FileState.of(status) != finding.state:
                    del self.memory.findings[path]

    def _look_through(self, *, count: bool) -> int:
        """Find out all archives that the findings are in; how many files aren't hashed yet."""
        found = self.memory.findings

        def known(paths: Sequence[bytes]) -> Collection[bytes]:
            return dict(self._store.files(paths))

        archives, unhashed = self._belonging.look_through(found.keys(), known if count else None)
        for path, names in archives.items():
            found[path] = dataclasses.replace(found[path], archives=names)
        return unhashed

    # -- What is remembered ----------------------------------------------------

    def _save_now_and_then(self) -> None:
        since = self._clock() - self._saved_at
        if since > max(_SAVE_SECONDS, _SAVE_SHARE * self._save_took) and self._may_save():
            self._save()

    def _save(self, *, durably: bool = False) -> None:
        started = self._clock()
        self.this_run.seconds = started - self._started
        if self.memory.round:
            self.memory.round.seconds = self._seconds_before + self.this_run.seconds
        try:
            verified.save(self._file, self.memory, durably=durably)
            self.memory.replaces_another = False
        except OSError as error:
            if self._saves:
                log.warning(
                    "can't keep in %s how far it is: %s; the next run begins where this one did",
                    self._file,
                    error.strerror,
                )
            self._saves = False
        self._saved_at = self._clock()
        self._save_took = self._saved_at - started


class _LateError(Exception):
    """The deadline has passed in the middle of a file."""
