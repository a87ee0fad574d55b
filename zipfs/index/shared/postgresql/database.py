"""The statements of the shared index, for one library: :mod:`zipfs.index.shared.postgresql.schema`.

Blocking; for the thread of :class:`zipfs.index.shared.head.Head` alone. Raises psycopg's errors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, LiteralString, NamedTuple, TypeVar

from psycopg import Connection, errors
from psycopg.sql import SQL, Identifier

from zipfs.index.hash_jobs import Rank
from zipfs.index.shared.postgresql import statements
from zipfs.index.shared.postgresql.rows import (
    Issued,
    Row,
    columns_of,
    copied,
    copy_of,
    key_of,
    offered,
    packed_state,
    state_of,
    unpacked,
    unpacked_issued,
)
from zipfs.library.filestate import FileState
from zipfs.library.scan import SourceFile

T = TypeVar("T")

LEASE: Final = 15.0
"""Seconds after which a head that hasn't been heard of counts as dead."""
BATCH: Final = 1000
"""Most rows that are read or written at once: to save them here takes a hundredth of a second, for
which nobody else can ask the index."""
_RETRIES: Final = 5


class Library(NamedTuple):
    """The library's row."""

    id: int
    seq: int
    """The number of the last change."""
    era: int
    """Rows of files of earlier ones aren't comparable with what is on the disk."""


class Place(NamedTuple):
    """Which database it is, and what may be done in it."""

    database: str
    """Another one has another name: also one that was put back to an earlier state by a failover,
    as far as that shows."""
    may_write: bool
    may_listen: bool


class Database:
    """The shared index as one head sees it, through *connection*."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._db = connection
        self._library = 0
        self._temporary = False
        # All is found by an index, and read in its order. Without statistics, as after a million
        # rows were saved at once, the planner would read and sort them all for a few.
        connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off")

    # -- Beginning -----------------------------------------------------------------

    def place(self) -> Place:
        database, recovering, read_only, granted, timeline = self._row(statements.PLACE)
        may_write = granted and not (recovering or read_only)
        return Place(f"{database}/{timeline or ''}", bool(may_write), not recovering)

    def is_primary(self) -> bool:
        """Whether this is no standby, or not any more."""
        return not self._row("SELECT pg_is_in_recovery()")[0]

    def find(self, name: str, *, make: bool) -> Library | None:
        """The library called *name*; with *make* it is made if there is none."""
        if make:
            self._db.execute(
                "INSERT INTO zipfs.libraries (name) SELECT %(name)s WHERE NOT EXISTS"
                " (SELECT FROM zipfs.libraries WHERE name = %(name)s) ON CONFLICT DO NOTHING",
                {"name": name},
            )
        found = self._db.execute(
            "SELECT id, seq, era FROM zipfs.libraries WHERE name = %s", (name,)
        ).fetchone()
        if found is None:
            return None
        self._library = found[0]
        return Library(*found)

    def listen(self) -> None:
        """Be told of changes from now on."""
        self._db.execute(SQL("LISTEN {}").format(Identifier(self._channel)))

    @property
    def _channel(self) -> str:
        return f"zipfs_{self._library}"

    def library(self) -> Library:
        return Library(
            *self._row("SELECT id, seq, era FROM zipfs.libraries WHERE id = %s", self._library)
        )

    def new_era(self) -> int:
        """What was recorded of files until now is of other states; returns the new era."""
        update = "UPDATE zipfs.libraries SET era = era + 1 WHERE id = %s RETURNING era"
        return int(self._row(update, self._library)[0])

    def sample(self, count: int) -> list[tuple[bytes, FileState]]:
        """Paths and states of up to *count* files that were recorded in this era, at random."""
        found: dict[bytes, FileState] = {}
        values: dict[str, Any] = {"library": self._library, "count": count}
        for statement, first in (
            (statements.SAMPLE, os.urandom(16)),
            (statements.SAMPLE, bytes(16)),
            (statements.SAMPLE_LATEST, b""),
        ):
            rows = self._db.execute(statement, values | {"first": first}, binary=True)
            found.update((bytes(row[0]), state_of(*row[1:])) for row in rows)
            if len(found) >= count:
                break
        return list(found.items())[:count]

    # -- Heads ---------------------------------------------------------------------

    def enrol(self, name: str) -> int:
        """A head called *name* shares from now on; its number."""
        self._db.execute(
            "DELETE FROM zipfs.heads WHERE library = %s AND until < now() - interval '1 day'",
            (self._library,),
        )
        row = self._row(
            "INSERT INTO zipfs.heads (library, name, until)"
            " VALUES (%s, %s, now() + make_interval(secs => %s)) RETURNING id",
            self._library,
            name,
            LEASE,
        )
        return int(row[0])

    def renew(self, head: int) -> bool:
        """*head* is alive; False if it isn't known any more."""
        done = self._db.execute(
            "UPDATE zipfs.heads SET until = now() + make_interval(secs => %s) WHERE id = %s",
            (LEASE, head),
        )
        return done.rowcount == 1

    def alive(self) -> int:
        """Number of heads of this library that are alive."""
        row = self._row(
            "SELECT count(*) FROM zipfs.heads WHERE library = %s AND until > now()", self._library
        )
        return int(row[0])

    def leave(self, head: int) -> None:
        """*head* ends: what it has claimed is for the others."""
        with self._db.transaction():
            self._db.execute("DELETE FROM zipfs.heads WHERE id = %s", (head,))
            self._tell("queue")

    # -- Files ---------------------------------------------------------------------

    def changed_files(
        self, after: int, until: int, damaged: list[int]
    ) -> tuple[list[Row], int | None]:
        """The next rows after the change *after*, up to *until*, and the last of their numbers.

        The second value is None if there are no more.
        """
        count, last, rows = self._row(statements.CHANGED_FILES, self._library, after, until, BATCH)
        return list(unpacked(bytes(rows or b""), damaged)), last if count == BATCH else None

    def changed_issued(
        self, after: int, until: int, damaged: list[int]
    ) -> tuple[list[Issued], int | None]:
        """Likewise, of modification times."""
        count, last, rows = self._row(statements.CHANGED_ISSUED, self._library, after, until, BATCH)
        return list(unpacked_issued(bytes(rows or b""), damaged)), last if count == BATCH else None

    def put(self, rows: Sequence[Row], damaged: list[int]) -> list[Row]:
        """Save *rows*, one a path; returns the rows of those paths that say something else.

        Those were hashed later by another head.
        """

        def put() -> list[Row]:
            self._copy("zipfs_incoming", map(copied, rows))
            library = self._advance(len(rows))
            values = {"library": library.id, "era": library.era, "seq": library.seq - len(rows)}
            self._db.execute(statements.PUT, values)
            self._db.execute(statements.PUT_IN_QUEUE, values)
            lost = self._db.execute(statements.PUT_IN_VAIN, values, binary=True).fetchone()
            self._tell("files")
            return list(unpacked(bytes((lost and lost[0]) or b""), damaged))

        return self._repeat(put)

    # -- The queue -----------------------------------------------------------------

    def offer(
        self, files: Iterable[tuple[SourceFile, int]], head: int, damaged: list[int]
    ) -> list[Row]:
        """Have *files*, each with its rank, hashed by whoever comes first.

        Returns the rows of those that are known by now.
        """
        files = list(files)
        urgent = any(rank == Rank.ASKED for _, rank in files)

        def offer() -> list[Row]:
            known = self._offer(files, head, damaged)
            self._tell("asked" if urgent else "queue")
            return known

        return self._repeat(offer)

    def _offer(
        self, files: Iterable[tuple[SourceFile, int]], head: int, damaged: list[int]
    ) -> list[Row]:
        self._copy("zipfs_offered", sorted(offered(file, rank) for file, rank in files))
        # Waits for those who are saving: what they have saved isn't queued again.
        self._row("SELECT id FROM zipfs.libraries WHERE id = %s FOR SHARE", self._library)
        values = {"library": self._library, "head": head}
        known = self._db.execute(statements.OFFERED_KNOWN, values, binary=True).fetchone()
        self._db.execute(statements.OFFER, values)
        return list(unpacked(bytes((known and known[0]) or b""), damaged))

    def take(
        self, files: Sequence[SourceFile], head: int, damaged: list[int]
    ) -> tuple[list[Row], list[SourceFile]]:
        """Offer *files*, and claim those that no other head has claimed, nor hashed.

        Returns the rows of those that are known by now, and what is *head*'s to hash.
        """

        def take() -> tuple[list[Row], list[SourceFile]]:
            known = self._offer([(file, Rank.MEMBER) for file in files], head, damaged)
            values = {"library": self._library, "head": head}
            self._db.execute(statements.CLAIM_OFFERED, values)
            theirs = self._db.execute(statements.OFFERED_TO_OTHERS, values, binary=True)
            not_here = {bytes(key) for (key,) in theirs} | {key_of(row.path) for row in known}
            return known, [file for file in files if key_of(file.source) not in not_here]

        return self._repeat(take)

    def claim(self, head: int, count: int, size: int) -> list[tuple[SourceFile, int]]:
        """Claim up to *count* files of about *size* bytes in all, each with its rank.

        The most urgent ones that no living head has claimed, or was too long about, and that
        *head* hasn't refused.
        """
        rows = self._db.execute(
            statements.CLAIM,
            {"library": self._library, "head": head, "count": count, "size": size},
            binary=True,
        )
        claimed = [
            (SourceFile(b"", bytes(path), state_of(*state), by_content=by_content), rank)
            for path, by_content, rank, *state in rows
        ]
        # UPDATE returns rows in any order.
        return sorted(claimed, key=lambda one: (one[1], one[0].state.size))

    def asked(self, head: int) -> list[tuple[bytes, FileState]]:
        """What *head* has claimed that somebody asks for by now."""
        rows = self._db.execute(
            "SELECT path, inode, size, mtime_ns, ctime_ns FROM zipfs.queue"
            " WHERE library = %s AND head = %s AND rank = %s",
            (self._library, head, int(Rank.ASKED)),
            binary=True,
        )
        return [(bytes(path), state_of(*state)) for path, *state in rows]

    def keep_claims(self, head: int, claimed: Iterable[SourceFile]) -> None:
        """*head* has claimed nothing but *claimed*: an answer may have been lost."""
        self._db.execute(
            "UPDATE zipfs.queue SET head = NULL WHERE library = %s AND head = %s"
            " AND NOT (key = ANY (%s))",
            (self._library, head, [key_of(file.source) for file in claimed]),
        )

    def refuse(self, head: int, files: Iterable[SourceFile]) -> None:
        """*head* couldn't hash *files*, which it had claimed: another one may."""
        for file in files:
            values = (head, self._library, key_of(file.source), *packed_state(file.state))
            self._db.execute(statements.REFUSE, values)
        self._tell("queue")

    def tidy(self) -> None:
        """Drop from the queue what nobody wants any more."""
        self._db.execute(statements.TIDY, (self._library,))

    def tidy_files(self) -> None:
        """Drop the rows of files that are gone. Reads all of them."""
        self._db.execute(statements.TIDY_FILES, (self._library,))

    # -- Modification times ----------------------------------------------------------

    def issue(
        self, wanted: Mapping[tuple[bytes, int], Callable[[Callable[[int], bool]], int]]
    ) -> dict[tuple[bytes, int], int]:
        """The modification time of each path and content of *wanted*.

        The one that was issued to it before, or else what its function chooses, called with
        whether a time is taken by another content of the path (DESIGN V3).
        """

        def issue() -> dict[tuple[bytes, int], int]:
            library = self._advance(len(wanted))  # nobody else issues until the end
            known: dict[bytes, dict[int, int]] = {path: {} for path, _ in wanted}
            paths = {key_of(path): path for path in known}
            for key, content, seconds in self._db.execute(
                "SELECT key, content, seconds FROM zipfs.issued WHERE library = %s"
                " AND key = ANY (%s)",
                (library.id, list(paths)),
                binary=True,
            ):
                known[paths[bytes(key)]][int.from_bytes(bytes(content))] = seconds
            new = []
            for (path, content), choose in wanted.items():
                if content not in known[path]:
                    seconds = choose(frozenset(known[path].values()).__contains__)
                    known[path][content] = seconds
                    new.append(Issued(path, content, seconds))
            first = library.seq - len(wanted)
            with self._db.cursor() as cursor:
                cursor.executemany(
                    statements.ISSUE,
                    [
                        (library.id, *columns_of(one), first + number)
                        for number, one in enumerate(new, 1)
                    ],
                )
            if new:
                self._tell("files")
            return {(path, content): known[path][content] for path, content in wanted}

        return self._repeat(issue)

    # -- In all of them ------------------------------------------------------------

    def _advance(self, count: int) -> Library:
        """Lock the library, so that its changes are numbered in the order of their commits."""
        return Library(
            *self._row(
                "UPDATE zipfs.libraries SET seq = seq + %s WHERE id = %s RETURNING id, seq, era",
                count,
                self._library,
            )
        )

    def _copy(self, table: LiteralString, rows: Iterable[bytes]) -> None:
        with (
            self._db.cursor() as cursor,
            cursor.copy(
                SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(Identifier(table))
            ) as copy,
        ):
            copy.write(copy_of(rows))
        # Nobody else counts its rows, and for too many a plan reads the whole table that they are
        # looked up in.
        self._db.execute(SQL("ANALYZE {}").format(Identifier(table)))

    def _tell(self, what: str) -> None:
        self._db.execute("SELECT pg_notify(%s, %s)", (self._channel, what))

    def _repeat(self, work: Callable[[], T]) -> T:
        """*work* in a transaction; again if another one was in the way."""
        if not self._temporary:
            for statement in statements.TEMPORARY:
                self._db.execute(statement)
            self._temporary = True
        for left in reversed(range(_RETRIES)):
            try:
                with self._db.transaction():
                    return work()
            except (errors.DeadlockDetected, errors.SerializationFailure):
                if not left:
                    raise
        raise AssertionError("it was tried")  # pragma: no cover

    def _row(self, query: LiteralString | bytes, *values: object) -> Sequence[Any]:
        row = self._db.execute(query, values, binary=True).fetchone()
        if row is None:
            raise errors.NoData("the library isn't in the shared index any more")
        found: Sequence[Any] = row
        return found
