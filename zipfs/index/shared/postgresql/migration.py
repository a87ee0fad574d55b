"""``zipfs index --migrate``: the tables of a shared index are made, or brought to this version."""

from __future__ import annotations

import contextlib

from zipfs.config_shared import shown_address
from zipfs.errors import IndexFileError
from zipfs.index.shared.postgresql import schema
from zipfs.index.shared.postgresql.connection import AwayError, Connections


def migrate(address: str) -> tuple[int, int]:
    """Migrate the tables at *address*; returns the version before, and after.

    Raises :exc:`IndexFileError`.
    """
    where = shown_address(address)
    connections = Connections(address)
    with contextlib.closing(connections):
        try:
            with connections.one() as connection:
                return schema.migrate(connection)
        except (AwayError, schema.SchemaError) as error:
            raise IndexFileError(f"can't migrate the shared index {where}: {error}") from None
