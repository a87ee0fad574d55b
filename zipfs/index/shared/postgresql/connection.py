"""Connections to PostgreSQL that give up: psycopg's own wait without a limit for an answer.

A server that was stopped, or a network that swallows everything, answers nothing and closes
nothing. Here each wait ends after :data:`PATIENCE` seconds, and at once when the pool is closing.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Generator, Iterator
from typing import Any, Final

import psycopg
from psycopg import errors
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

PATIENCE: Final = 20.0
"""Seconds to wait for an answer to one query."""
_CONNECT: Final = 5
"""Seconds to wait for a connection."""
_SPARE: Final = 5.0
"""Seconds until a second connection is closed again."""

# Its warnings come several a second while there is no database; ours come once.
logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)


class AwayError(Exception):
    """PostgreSQL can't be asked, or refuses; the text says why, on one line."""


def reason_of(error: BaseException) -> str:
    """What *error* says, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


class Connections:
    """A pool of connections to *address*; all but :meth:`close` is for one thread.

    Made without connecting. At most two are open, for some seconds: one that is used, and one that
    the pool has made in place of a broken one.
    """

    def __init__(self, address: str, name: str = "zipfs") -> None:
        self._failed = ""
        self._closing = False

        class Connection(psycopg.Connection[Any]):
            @classmethod
            def connect(cls, *arguments: Any, **parameters: Any) -> Connection:
                try:
                    return super().connect(*arguments, **parameters)
                except psycopg.Error as error:
                    self._failed = reason_of(error)  # the pool tells nobody
                    raise

            def wait(this, gen: Any, *arguments: Any, **parameters: Any) -> Any:  # noqa: N805
                return super().wait(self._limited(gen), *arguments, **parameters)

        self._pool = ConnectionPool(
            address,
            connection_class=Connection,
            kwargs={
                "autocommit": True,
                "application_name": name,
                "connect_timeout": _CONNECT,
                # A server that has lost its power is noticed while nothing is asked.
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
            },
            min_size=0,
            max_size=2,
            max_idle=_SPARE,
            open=False,
            reconnect_timeout=_CONNECT,
            num_workers=1,
        )

    def _limited(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """*gen*, which psycopg resumes ten times a second while there is no answer."""
        until = time.monotonic() + PATIENCE
        try:
            state = next(gen)
            while True:
                ready = yield state
                if self._closing:
                    raise errors.OperationalError("closing")
                if time.monotonic() > until:
                    raise errors.OperationalError(f"no answer for {PATIENCE:.0f} seconds")
                state = gen.send(ready)
        except StopIteration as end:
            return end.value

    @contextlib.contextmanager
    def one(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection; errors of psycopg, in it or in the block, become :exc:`AwayError`."""
        try:
            if self._pool.closed:
                self._pool.open()
            connection = self._pool.getconn(_CONNECT + 1)
        except PoolTimeout:
            raise AwayError(self._failed or "no answer") from None
        except (psycopg.Error, PoolClosed) as error:
            raise AwayError(reason_of(error)) from None
        try:
            yield connection
        except psycopg.Error as error:
            connection.close()  # nobody knows what state it is in
            raise AwayError(reason_of(error)) from error
        except BaseException:
            connection.close()
            raise
        finally:
            with contextlib.suppress(psycopg.Error, ValueError):
                self._pool.putconn(connection)

    def close(self) -> None:
        """End all waits; in any thread."""
        self._closing = True
        with contextlib.suppress(psycopg.Error):
            self._pool.close(timeout=0)
