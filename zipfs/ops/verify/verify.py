"""Reads every hashed file again and compares it with the index: ``zipfs verify``.

A file with the same state (inode, size, mtime, ctime) as when it was hashed, but other bytes, was
not written by a program: its disk, controller or memory has damaged it.

- Bytes are read from the disk, not from the page cache (:mod:`zipfs.ops.verify.diskfile`).
- A file whose state has changed, before or while it is read, is skipped: a program has written
  it, and a mount hashes it again. So is a file that doesn't exist any more.
- Where a file differs it is read a second time. If it is right then, the fault isn't on the disk,
  and the file is *unstable*. One that the disk doesn't return is *unreadable*.
- The index is only read. It keeps the checksums of the right bytes of a damaged file. Without
  them a mount would hash the damaged file and serve it as a new and valid version. With them, the
  mount serves it under the checksum of the right bytes, and each program that unpacks the archive
  reports the error. The remedy is a backup: a restored file has another state, and is hashed
  again.
- The position and the bad files are saved beside the index (:mod:`zipfs.ops.verify.verified`),
  every few seconds.

A file is read in one run: the run after an interrupted one begins the file again. At its deadline
a run abandons the current file, unless the last run has abandoned the same one: that file is read
to its end, at the given rate, however long it takes. So a round ends whatever the deadline is. The
limit: such a run exceeds its deadline by at most the time for this file (100 GiB at 50 MiB/s: 34
minutes), and the bytes of it that the run before has read are read twice.

On tmpfs and overlayfs a file's times don't change when a program writes through a map, after its
first store (``zipfs help http``). Such a file is reported as damaged, and correctly so, as a mount
would serve the same wrong bytes.

Blocking, in the caller's thread.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from zipfs.errors import ChangedError, DamageError, IndexFileError, LibraryError
from zipfs.index.rows import Record
from zipfs.index.tables import Store
from zipfs.library.filestate import BLOCK
from zipfs.ops.verify import verified
from zipfs.ops.verify.belonging import Belonging
from zipfs.ops.verify.rereading import reread
from zipfs.ops.verify.verified import BadFile, Memory, Round
from zipfs.sealing.offline import Progress
from zipfs.sealing.sealer import Sealer
from zipfs.system.paths import lstat
from zipfs.system.rates import Pace
from zipfs.text import shown

log = logging.getLogger(__name__)

_SAVE_SECONDS: Final = 2.0
_SAVE_SHARE: Final = 20
"""A run spends at most one part in this many of its time on saving."""
_MOST_IN_A_ROW: Final = 100
"""Unreadable files in a row after which the disk counts as gone."""
_MOST_BAD: Final = 10_000
"""Bad files after which a run stops: a longer list helps nobody."""


@dataclass
class Run:
    """Results of one run."""

    verified: int = 0
    """Number of files read to their end, right or not."""
    size: int = 0
    """Bytes read, also of other files."""
    seconds: float = 0.0
    found: set[bytes] = field(default_factory=set)
    """Paths of the bad files that it found."""


class Verifier:
    """Verifies the files of *sealer*'s library that *store*, its index, knows.

    *memory* is saved to *file*. *pace* limits the bytes read per second; *deadline* is a time of
    *clock*, which must be the clock of *pace*. *report* is called with each bad file at once.
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
        report: Callable[[BadFile], None],
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
        self._report = report
        self._deadline = deadline
        self._clock = clock
        self.known, self.known_size = store.totals()
        """Number of files in the index, and their bytes."""
        self.this_run = Run()
        self._started = self._saved_at = clock()
        self._seconds_before = 0.0
        self._save_took = 0.0
        self._saves = True
        self._compared = False
        """Whether any byte was compared, of a file that is in its recorded state."""
        self._row: list[bytes] = []
        """Unreadable files since the last readable one."""
        self._before_row: Round | None = None
        self._root = self._root_now()

    # -- A run -----------------------------------------------------------------

    def run(self) -> bool:
        """Begin a round or continue the current one; False if the deadline came before its end.

        Raises :exc:`IndexFileError` or :exc:`LibraryError` if there is nothing to compare (any
        more), and the errors of :class:`zipfs.index.tables.Store`.
        """
        if not self.known:
            raise IndexFileError(
                "the index knows no file yet, so there is nothing to compare with;"
                " `zipfs index` hashes them"
            )
        memory = self.memory
        if memory.round is None:
            memory.round = Round(began=datetime.now(UTC))
        round_ = memory.round
        self._seconds_before = round_.seconds
        self._progress.total(self.known_size)
        self._progress.advance(round_.passed)
        refused = True
        try:
            ended = self._verify_all(round_)
            self._drop_restored()
            unhashed = self._find_archives(count=ended) if ended or self.this_run.found else 0
            if ended:
                self._require_compared(round_)
                self._save()  # sets the round's seconds
                round_.unhashed = unhashed
                round_.ended = datetime.now(UTC)
                memory.last, memory.round = round_, None
            refused = False
        finally:
            # Saved however the run ends, unless no file could be compared: then this may be
            # another library's index, or the library's disk may be missing.
            if self._may_save() or not (refused or memory.replaces_another):
                self._save(durably=True)
        return ended

    def _may_save(self) -> bool:
        """Whether this run's results may replace the saved ones."""
        return self._compared or (self.this_run.verified > 0 and not self.memory.replaces_another)

    def _verify_all(self, round_: Round) -> bool:
        """Verify the remaining files of the round; False if the deadline came before its end."""
        position: bytes | None = round_.position
        while position is not None:
            records, position = self._store.files_after(position)
            for path, record in records:
                insist = path == round_.given_up
                if self._is_late() and not insist:
                    return False
                try:
                    self._verify(round_, path, record, None if insist else self._deadline)
                except _LateError:
                    round_.given_up = path
                    return False
                round_.position = path
                round_.given_up = b""
                round_.passed += record[0].size
                self._save_now_and_then()
            if position is not None:  # the last rows read may be damaged, and not in *records*
                round_.position = position
        return True

    def _is_late(self) -> bool:
        return self._deadline is not None and self._clock() >= self._deadline

    # -- A file ----------------------------------------------------------------

    def _verify(self, round_: Round, path: bytes, record: Record, deadline: float | None) -> None:
        """Verify one file. Raises :exc:`_LateError` at the *deadline*."""
        state, known = record
        if state.size > BLOCK:
            known = known._replace(blocks=self._store.blocks(known.digest) or b"")
        done = 0

        def after(offset: int, count: int) -> None:
            nonlocal done
            done = offset
            self.this_run.size += count
            self._progress.advance(count)
            self._compared = True
            self._save_now_and_then()  # the files before this one
            self._pace.took(count, deadline)
            if deadline is not None and done < state.size and self._is_late():
                raise _LateError

        bad_files = self.memory.bad_files
        try:
            verdict = reread(self._library.absolute(path), state, known, after)
        except FileNotFoundError:
            self._require_library()
            round_.gone += 1
            bad_files.pop(path, None)
        except ChangedError:
            round_.changed += 1
            bad_files.pop(path, None)
        except PermissionError:
            round_.refused += 1
        else:
            if verdict is None:
                bad_files.pop(path, None)
                self._row.clear()
            else:
                self._add(
                    BadFile(
                        path=path,
                        kind=verdict.kind,
                        state=state,
                        crc32=known.crc32,
                        digest=known.digest,
                        found_crc32=verdict.crc32,
                        found_digest=verdict.digest,
                        blocks=verdict.blocks,
                        error=verdict.error,
                        found_at=datetime.now(UTC),
                        archives=self._belonging.by_place(path),
                    )
                )
            self._compared |= verdict is None or verdict.kind != "unreadable"  # empty ones, too
            round_.verified += 1
            round_.size += state.size
            self.this_run.verified += 1
        self._progress.advance(state.size - done)

    def _add(self, bad_file: BadFile) -> None:
        """Record and report *bad_file*, whether or not it was known before."""
        bad_files = self.memory.bad_files
        if bad_file.kind == "unreadable":
            self._require_library()
            if not self._row and self.memory.round:
                self._before_row = dataclasses.replace(self.memory.round)
            self._row.append(bad_file.path)
        else:
            self._row.clear()
        bad_files[bad_file.path] = bad_file
        self.this_run.found.add(bad_file.path)
        self._report(bad_file)
        self._saved_at = float("-inf")  # to be saved at once
        if len(self._row) >= _MOST_IN_A_ROW:
            # The disk is gone: the next run reads these files again.
            for path in self._row:
                bad_files.pop(path, None)
            self.memory.round = self._before_row
            raise LibraryError(
                f"{len(self._row)} files in a row can't be read, the last is"
                f" {shown(bad_file.path)}: {bad_file.error}; is the library's disk still there?"
            )
        if len(bad_files) > _MOST_BAD:
            raise DamageError(
                f"more than {_MOST_BAD} files are damaged: this disk, or this machine, can't"
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

    def _require_library(self) -> None:
        if self._root_now() != self._root:
            raise LibraryError(
                f"the library {shown(self._library.root)} is another folder than a moment ago;"
                " was its disk unmounted?"
            )

    def _require_compared(self, round_: Round) -> None:
        if round_.verified:
            return
        self.memory.round = None
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

    def _drop_restored(self) -> None:
        """Drop the bad files that don't exist any more, or whose state has changed."""
        for path, bad_file in list(self.memory.bad_files.items()):
            try:
                status = lstat(self._library.absolute(path))
            except (FileNotFoundError, NotADirectoryError):
                del self.memory.bad_files[path]
            except OSError:
                continue  # it can't be read, so it stays listed
            else:
                if bad_file.state.now(status) != bad_file.state:
                    del self.memory.bad_files[path]

    def _find_archives(self, *, count: bool) -> int:
        """Set the archives of all bad files; returns the number of unhashed files if *count*."""
        bad_files = self.memory.bad_files

        def known(paths: Sequence[bytes]) -> Collection[bytes]:
            return dict(self._store.files(paths))

        archives, unhashed = self._belonging.look_through(bad_files, known if count else None)
        for path, names in archives.items():
            bad_files[path] = dataclasses.replace(bad_files[path], archives=names)
        return unhashed

    # -- Saving ----------------------------------------------------------------

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
                    "can't save the position to %s: %s; the next run begins where this one did",
                    self._file,
                    error.strerror,
                )
            self._saves = False
        self._saved_at = self._clock()
        self._save_took = self._saved_at - started


class _LateError(Exception):
    """The deadline has passed in the middle of a file."""
