"""One connection of a head to the shared index, from its beginning to its end."""

from __future__ import annotations

import logging
import os
import select
import socket
import time
from collections.abc import Sequence
from typing import Any, Final, Protocol

from psycopg import Connection

from zipfs.index.hash_jobs import Rank
from zipfs.index.shared.desk import Desk
from zipfs.index.shared.exchange import Cache, Exchange
from zipfs.index.shared.exchange import Listener as ExchangeListener
from zipfs.index.shared.ledger import Ledger
from zipfs.index.shared.postgresql import schema
from zipfs.index.shared.postgresql.connection import AwayError
from zipfs.index.shared.postgresql.database import LEASE, Database, Place
from zipfs.index.shared.probe import SAMPLE, compare_within
from zipfs.index.shared.state import Mode, State
from zipfs.library.filestate import FileState
from zipfs.library.scan import SourceFile
from zipfs.library.view import LibraryView

log = logging.getLogger(__name__)

_RENEW: Final = LEASE / 3
_POLL: Final = 5.0
"""Seconds between two looks at the shared index without being told of anything."""
_POLL_DEAF: Final = 1.0
"""The same where nothing is told: a standby server."""
_HUNGRY: Final = 1.0
"""Seconds between two attempts to claim something, while there was nothing to claim."""
_AGAIN: Final = 300.0
"""Seconds after which a head that is alone compares states again, by a new session."""
_TIDY: Final = 600.0
"""Seconds between two times that the queue is tidied."""
_TIDY_FILES: Final = 6 * 3600.0
"""The same of the files."""


class Listener(ExchangeListener, Protocol):
    """Is told what has changed, in the head's thread."""

    def claimed(self, files: Sequence[tuple[SourceFile, int]]) -> None:
        """*files*, each with its rank, are this head's to hash.

        Also where they are none, if certain ones were wanted (:meth:`Desk.take`).
        """

    def asked(self, files: Sequence[tuple[bytes, FileState]]) -> None:
        """Of what it has claimed, somebody asks for *files*."""


class Session:
    """What is done over *connection*; to be made for each one anew.

    Raises :exc:`AwayError`, :exc:`SchemaError` of the schema, and psycopg's errors.
    """

    def __init__(
        self,
        connection: Connection[Any],
        state: State,
        desk: Desk,
        library: LibraryView,
        cache: Cache,
        ledger: Ledger,
        listener: Listener,
    ) -> None:
        self._connection = connection
        self._state = state
        self._desk = desk
        self._library = library
        self._listener = listener
        self._database = Database(connection)
        schema.check(connection)
        self._place: Final[Place] = self._database.place()
        found = self._database.find(state.name, make=self._place.may_write)
        if found is None:
            raise AwayError(f"no head that may write has shared {state.name} yet")
        self._exchange = Exchange(self._database, cache, ledger, listener, state.counts)
        self._exchange.begin(self._place.database, state.name, found)
        self._told: set[str] = {"files", "queue", "asked"}
        """What has changed since it was last looked at."""
        connection.add_notify_handler(lambda notice: self._told.add(notice.payload))
        if self._place.may_listen:
            self._database.listen()
        self._renewed = 0.0
        self._tidied = time.monotonic()
        self._tidied_files = time.monotonic() - _TIDY_FILES
        self._claimed_at = 0.0

    def run(self) -> None:
        """Share until the head stops."""
        state, desk = self._state, self._desk
        state.connected()
        state.issues = self._place.may_write
        self._renew()
        mode, reason = self._compare()
        if mode is Mode.ALONE:
            self._exchange.leave()
        if mode is Mode.SHARING:
            self._database.keep_claims(state.number, desk.claimed())
            if not self._exchange.is_whole:
                for _ in self._exchange.push_all():
                    self._step()
        if self._place.may_write:
            self._push()
        self._pull(files=mode is not Mode.ALONE)
        state.become(mode, reason)
        again = time.monotonic() + _AGAIN
        while not state.stopping:
            if mode is Mode.ALONE and time.monotonic() > again:
                return
            if not self._place.may_listen and self._database.is_primary():
                return  # a standby that has been promoted, which closes no connection
            self._step()
            self._share(mode)
            self._wait()
        self._step()
        if self._place.may_write:
            self._push()
            self._database.leave(state.number)
            state.number = 0

    def _step(self) -> None:
        """A step begins: the database has answered. The head stays alive."""
        self._state.beat()
        if time.monotonic() - self._renewed >= _RENEW:
            self._renew()

    def _renew(self) -> None:
        state, database = self._state, self._database
        self._renewed = time.monotonic()
        if self._place.may_write and not (state.number and database.renew(state.number)):
            state.number = database.enrol(f"{socket.gethostname()}:{os.getpid()}")
        state.others = database.alive() - self._place.may_write

    def _compare(self) -> tuple[Mode, str]:
        """What this head can share."""
        state = self._state
        if self._library.presence.gone:
            raise AwayError("the library isn't there")
        recorded = self._database.sample(SAMPLE)
        votes = compare_within(self._library, recorded) if recorded else None
        if recorded and votes is None:
            raise AwayError("the library doesn't answer")
        if votes and not votes.agree:
            if votes.agree is None:
                told = f"none of {len(recorded)} files is here as it was recorded"
            else:
                told = f"{votes.other} of {len(recorded)} files have other inodes or times"
            if state.others or not self._place.may_write:
                return Mode.ALONE, told
            # All heads have ended, and the library has moved to another disk since.
            log.info("the shared index of %s begins anew: %s", state.name, told)
            self._database.new_era()
        if not self._place.may_write:
            standby = not self._place.may_listen
            return Mode.READING, "it is a standby" if standby else "this role may not write"
        return Mode.SHARING, ""

    def _share(self, mode: Mode) -> None:
        """Do all that there is to do."""
        desk = self._desk
        if self._place.may_write:
            self._push()
            self._exchange.issue(desk.issues())
            desk.issued()
        if "files" in self._told:
            self._told.discard("files")
            self._pull(files=mode is not Mode.ALONE)
        if mode is Mode.SHARING:
            self._queue()
        if self._place.may_write and time.monotonic() - self._tidied > _TIDY:
            self._tidied = time.monotonic()
            self._database.tidy()
            if time.monotonic() - self._tidied_files > _TIDY_FILES:
                self._tidied_files = time.monotonic()
                self._database.tidy_files()

    def _push(self) -> None:
        while self._exchange.push():
            self._step()

    def _pull(self, *, files: bool) -> None:
        for _ in self._exchange.pull(files=files):
            self._step()

    def _queue(self) -> None:
        """Offer what is to be hashed, and claim some of what others offer."""
        desk, database, number = self._desk, self._database, self._state.number
        if refused := desk.refused():
            database.refuse(number, refused)
        while offers := desk.offers():
            self._exchange.took(database.offer(offers, number, self._state.counts.damaged))
            self._told.add("queue")
            self._step()
        if takes := desk.takes():
            known, mine = database.take(takes, number, self._state.counts.damaged)
            self._exchange.took(known)
            desk.has_taken(takes, mine)
            self._listener.claimed([(file, Rank.MEMBER) for file in mine])
        if "asked" in self._told:
            self._told.discard("asked")
            self._told.add("queue")
            if asked := database.asked(number):
                self._listener.asked(asked)
        wanted = desk.wanted()
        if wanted and ("queue" in self._told or time.monotonic() - self._claimed_at >= _HUNGRY):
            self._told.discard("queue")
            self._claimed_at = time.monotonic()
            if claimed := database.claim(number, *wanted):
                desk.has_claimed(claimed)
                self._listener.claimed(claimed)

    def _wait(self) -> None:
        """Until something is put down, told, or due."""
        hungry = self._desk.wanted() is not None
        if self._told - {"queue"} or (hungry and "queue" in self._told):
            return
        poll = _POLL if self._place.may_listen else _POLL_DEAF
        self._state.rest()
        files = [self._connection.fileno(), self._desk.fileno()]
        ready, _, _ = select.select(files, [], [], min(poll, _HUNGRY) if hungry else poll)
        self._state.beat()
        self._desk.rest()
        if files[0] in ready:
            self._connection.execute("SELECT 1")  # which reads what is told
        elif not ready:
            self._told.add("files")
