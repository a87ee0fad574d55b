"""Shared indexes for tests: databases of one server (:mod:`bench.postgresql`)."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from bench.postgresql import PORT, Server, programs, server
from zipfs.index.shared.postgresql.migration import migrate

__all__ = ["PORT", "Server", "Shared", "database", "programs", "server"]

_NUMBERS: Final = itertools.count()


class Shared(NamedTuple):
    """A database with a shared index."""

    server: Server
    name: str
    standby: Server | None = None
    """Of the server, and to be used in its place."""

    @property
    def address(self) -> str:
        return self.server.address(self.name, standby=self.standby)

    def ask(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows that answer *query*."""
        return self.server.ask(self.name, query, values)

    def count(self, table: str) -> int:
        """How many rows there are in *table*."""
        (row,) = self.ask(f"SELECT count(*) FROM zipfs.{table}")  # noqa: S608 - a name of ours
        return int(row[0])

    def begin_anew(self) -> None:
        """As after a disaster: an empty database in place of this one."""
        self.server.drop(self.name)
        self.server.make(self.name)
        migrate(self.address)


@contextlib.contextmanager
def database(of: Server) -> Iterator[Shared]:
    """An empty database with the tables of a shared index."""
    found = Shared(of, f"shared{next(_NUMBERS)}")
    of.make(found.name)
    migrate(found.address)
    try:
        yield found
    finally:
        of.drop(found.name)
