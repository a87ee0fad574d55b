"""One head of many: the thread that talks to the shared index.

Nobody ever waits for this thread: not a lookup, not a read, not trio's loop. It is asked by putting
something down and waking it (:class:`zipfs.index.shared.desk.Desk`), and tells a
:class:`zipfs.index.shared.session.Listener`. While it can't reach the database, or that doesn't
answer, everything goes on here alone (:class:`zipfs.index.shared.state.State`).
"""

from __future__ import annotations

import logging
import random
import threading
from typing import Final

from zipfs.config_shared import shown_address
from zipfs.index.shared.desk import Desk
from zipfs.index.shared.exchange import Cache
from zipfs.index.shared.ledger import Ledger
from zipfs.index.shared.postgresql.connection import AwayError, Connections
from zipfs.index.shared.postgresql.rows import DamagedError
from zipfs.index.shared.postgresql.schema import SchemaError
from zipfs.index.shared.session import Listener, Session
from zipfs.index.shared.state import Mode, State
from zipfs.library.view import LibraryView

log = logging.getLogger(__name__)

_PAUSES: Final = (0.5, 1.0, 2.0, 5.0)
"""Seconds before the next attempt to connect, by the number of failures in a row."""
_END: Final = 2.0
"""Seconds for what isn't told yet, when the head ends."""


class Head:
    """The head of *library* at *address*, where that is called *name*; *cache* is its index."""

    def __init__(
        self, address: str, name: str, library: LibraryView, cache: Cache, ledger: Ledger
    ) -> None:
        self.state: Final = State(shown_address(address), name)
        self.desk: Final = Desk()
        self._library = library
        self._cache = cache
        self._ledger = ledger
        self._connections = Connections(address)
        self._thread: threading.Thread | None = None

    def start(self, listener: Listener) -> None:
        """Begin, and tell *listener*."""
        self._thread = threading.Thread(
            target=self._run, args=[listener], name="zipfs-shared", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Tell what isn't told yet, if that is possible soon, and end."""
        self.state.stopping = True
        self.desk.end()
        if self._thread:
            self._thread.join(_END if self.state.answers() else 0)
        self._connections.close()  # which ends what waits for an answer
        if self._thread:
            self._thread.join(_END)
        if not (self._thread and self._thread.is_alive()):
            self.desk.close()

    def _run(self, listener: Listener) -> None:
        state = self.state
        failures = 0
        while not state.stopping:
            try:
                with self._connections.one() as connection:
                    session = Session(
                        connection,
                        state,
                        self.desk,
                        self._library,
                        self._cache,
                        self._ledger,
                        listener,
                    )
                    failures = 0
                    session.run()
            except (AwayError, SchemaError, DamagedError) as error:
                state.become(Mode.AWAY, str(error))
            except Exception as error:
                # H4: a defect here is no reason to stop serving.
                log.exception("unexpected error about the shared index")
                state.become(Mode.AWAY, f"{type(error).__name__}: {error}")
            pause = _PAUSES[min(failures, len(_PAUSES) - 1)]
            failures += 1
            # Not all heads at once.
            self.desk.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 - no secret
