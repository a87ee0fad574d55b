"""An index of which others have a share: the local one is a cache of what is in PostgreSQL.

All is read from the local index, and saved to it first, so nothing here waits for the database.
What is saved is told by the head's thread (:mod:`zipfs.index.shared.head`), and what others have
saved comes in by it. Only a modification time that is new needs an answer (DESIGN V3): until then
an archive isn't sealed (:exc:`zipfs.index.index.UnissuedError`).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from zipfs.index.gate import Claims
from zipfs.index.index import Index, UnissuedError
from zipfs.index.rows import Record
from zipfs.index.shared.claims import SharedClaims
from zipfs.index.shared.exchange import Choose
from zipfs.index.shared.gate import SharedGate
from zipfs.index.shared.head import Head
from zipfs.index.shared.ledger import Ledger
from zipfs.index.shared.postgresql.rows import PRUNED, Issued, Row
from zipfs.index.shared.state import HeadFacts, Mode
from zipfs.library.filestate import BLOCK, FileState
from zipfs.library.view import LibraryView

_SOON: Final = 0.1
"""Seconds after which a modification time is probably issued."""
_WAIT: Final = 5.0
"""Seconds for which a command waits for one."""
_FLIPS: Final = 2
"""Number of times that a file may get another inode or ctime by another head, with the same size
and mtime, and then the one that it had before by this head. After that it isn't shared any more: on
that head's disk it is another one. (A file that has changed never has an earlier ctime again.)"""
_REPLACED: Final = 100_000
"""Number of states that may be remembered for that."""


class SharedIndex(Index):
    """The index at *file*, shared at *address* as that of the library *name*.

    *library* is the library itself. Nothing is shared before :meth:`join`, or its gate runs.
    """

    def __init__(self, file: str, address: str, name: str, library: LibraryView) -> None:
        super().__init__(file)
        self._ledger = Ledger(file)
        self._head = Head(address, name, library, self, self._ledger)
        self._wait = 0.0
        self._replaced: dict[int, None] = {}
        """Hashes of paths with states in place of which others have told another one."""
        self._flips: Counter[bytes] = Counter()
        self._unlike: set[bytes] = set()
        self._lock_unlike = threading.Lock()
        self._lock_taking = threading.Lock()
        """Held by who changes files here or takes over what others say of them: what is forgotten
        in the middle of that would come back, and be told to all again."""
        self._gate = SharedGate(self._head, self._unlike.__contains__)
        self._claims: SharedClaims | None = None

    @property
    def gate(self) -> SharedGate:
        return self._gate

    @property
    def claims(self) -> Claims:
        return self._claims or super().claims

    def join(self) -> None:
        self._wait = _WAIT
        self._claims = SharedClaims(self._head, self._unlike.__contains__)
        self._head.start(self._claims)
        while self._head.state.is_joining():
            time.sleep(_SOON)

    def head_facts(self) -> HeadFacts:
        """Figures of what is shared."""
        return self._head.state.facts(self._ledger.count(), len(self._unlike))

    def close(self) -> None:
        self._head.stop()
        super().close()
        self._ledger.close()

    # -- What is hashed and issued here ---------------------------------------------

    def put_files(self, records: Mapping[bytes, Record]) -> None:
        with self._lock_taking:
            self._find_unlike(records)
            is_alone = self._head.state.mode is Mode.ALONE
            paths = set() if is_alone else records.keys() - self._unlike
            # Noted down before, so that a crash in between leaves nothing unsaid; and once more,
            # since the head may have told meanwhile what was here before.
            now = time.time_ns()
            self._ledger.add(paths, now)
            super().put_files(records)
            self._ledger.add(paths, max(now + 1, time.time_ns()))
        self._head.desk.wake()

    def _find_unlike(self, records: Mapping[bytes, Record]) -> None:
        """Find files that have been given other states by others, and are as they were before."""
        with self._lock_unlike:
            for path, (state, _) in records.items():
                if (key := hash((path, state))) in self._replaced:
                    del self._replaced[key]
                    self._flips[path] += 1
                    if self._flips[path] > _FLIPS:
                        self._unlike.add(path)

    def _replace(self, path: bytes, state: FileState) -> None:
        """Others have told another state of the file at *path*, which had *state*."""
        with self._lock_unlike:
            self._replaced[hash((path, state))] = None
            if len(self._replaced) > _REPLACED:
                del self._replaced[next(iter(self._replaced))]

    def forget_files(self, digests: Mapping[bytes, bytes]) -> None:
        with self._lock_taking:
            if self._head.state.mode is not Mode.ALONE:
                # What has been hashed since stays, and may have to be told still.
                since = {
                    path
                    for path, (_, checksums) in self.files(list(digests)).items()
                    if checksums.digest != digests[path]
                }
                forgotten = {path: digest for path, digest in digests.items() if path not in since}
                self._ledger.forget(forgotten, time.time_ns())
            super().forget_files(digests)
        self._head.desk.wake()

    def prune(self, paths: Collection[bytes], *, blocks: bool = True) -> None:
        """Forget the files at *paths* here; and so do all, unless another head has them."""
        with self._lock_taking:
            super().prune(paths, blocks=blocks)
            if self._head.state.mode is not Mode.ALONE:
                self._ledger.forget(dict.fromkeys(paths, PRUNED), time.time_ns())
        self._head.desk.wake()

    def issue(self, path: bytes, content: int, choose: Choose) -> int:
        known = self.issued(path)
        if content in known:
            return known[content]
        state = self._head.state
        if state.is_joining():
            raise UnissuedError(_SOON)
        if state.answers() and state.issues:
            taken = frozenset(known.values())

            def free(elsewhere: Callable[[int], bool]) -> int:
                return choose(lambda seconds: seconds in taken or elsewhere(seconds))

            if self._head.desk.issue(path, content, free, self._wait):
                known = self.issued(path)
                if content in known:
                    return known[content]
                raise UnissuedError(_SOON)
        seconds = super().issue(path, content, choose)
        self._ledger.add_issued([(path, content)])
        return seconds

    # -- For the head's thread --------------------------------------------------------

    def is_empty(self) -> bool:
        return not self.has_files()

    def records(self, paths: Sequence[bytes]) -> dict[bytes, Record]:
        found = self.files(paths)
        for path, (state, checksums) in found.items():
            if state.size > BLOCK and (blocks := self.blocks(checksums.digest)) is not None:
                found[path] = state, checksums._replace(blocks=blocks)
        return {path: record for path, record in found.items() if record[0].size >= 0}

    # By the connection that all use: SQLite keeps the descriptor of another one to the same file
    # after that was closed, since closing it would drop the locks of both (POSIX).

    def all_files(self) -> Iterator[bytes]:
        after: bytes | None = b""
        while after is not None:
            files, after = self.files_after(after)
            yield from (path for path, _ in files)

    def all_issued(self) -> Iterator[tuple[bytes, int]]:
        after: tuple[bytes, bytes] | None = (b"", b"")
        while after is not None:
            issued, after = self.issued_after(after)
            yield from issued

    def issued_to(self, path: bytes, content: int) -> int | None:
        return self.issued(path).get(content)

    def take(self, rows: Sequence[Row]) -> list[tuple[bytes, FileState]]:
        with self._lock_taking:
            return self._take(rows)

    def _take(self, rows: Sequence[Row]) -> list[tuple[bytes, FileState]]:
        waiting = self._ledger.waits(row.path for row in rows)
        mine = self.files([row.path for row in rows])
        new: dict[bytes, Record] = {}
        forgotten: dict[bytes, bytes] = {}
        known = []
        pruned: list[bytes] = []
        for row in rows:
            path = row.path
            if path in waiting or path in self._unlike:
                continue
            state, checksums = mine.get(path, (None, None))
            if row.forgets:
                if checksums and row.checksums.digest == PRUNED:
                    pruned.append(path)
                elif checksums and checksums.digest == row.checksums.digest:
                    forgotten[path] = row.checksums.digest
                continue
            known.append((path, row.state))
            if state == row.state and checksums and checksums.digest == row.checksums.digest:
                continue
            if state and state != row.state and state.has_content_of(row.state):
                self._replace(path, state)
            new[path] = row.record
        if new:
            super().put_files(new)
        if forgotten:
            super().forget_files(forgotten)
        if kept := set(pruned) - self.missing(pruned).keys():
            # Another head misses them, and here they are: they are told again.
            self._ledger.add(kept, time.time_ns())
            self._head.desk.wake()
        return known

    def take_issued(self, issued: Iterable[Issued]) -> list[bytes]:
        changed = []
        new = []
        for one in issued:
            before = self.issued(one.path).get(one.content)
            if before != one.seconds:
                new.append(one)
                if before is not None:
                    changed.append(one.path)
        if new:
            self.put_issued(new)
        return changed
