"""The tables of the shared index in PostgreSQL, in a schema of their own, ``zipfs``.

``about`` (one row: the version, and which database this is), ``libraries``, ``heads`` (who shares,
and until when it counts as alive), ``files`` (as in :mod:`zipfs.index.tables`, with ``blocks``),
``issued`` (likewise) and ``queue`` (files to be hashed, and by whom).

``libraries.seq`` counts the changes of ``files`` and ``issued``. Who writes these locks the row of
the library first, so that changes become visible in the order of their numbers: what is up to a
number, and was seen with it, is all there will ever be.

Paths are in keys by their XXH3-128: a long path fits into no index of PostgreSQL. Only ``heads``
has a foreign key, since checking one costs as much as inserting a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from psycopg import Connection

SCHEMA: Final = "zipfs"
VERSION: Final = 1
OLDEST: Final = 13_00_00
"""The oldest PostgreSQL with ``gen_random_uuid()``, as ``server_version`` counts."""
_LOCK: Final = 0x7A697066
"""The number of the advisory lock: two who migrate do it one after the other."""

_ADDED: Final = {
    1: """
CREATE TABLE zipfs.about (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    version integer NOT NULL,
    database uuid NOT NULL DEFAULT gen_random_uuid()
);
CREATE TABLE zipfs.libraries (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    seq bigint NOT NULL DEFAULT 0,
    era integer NOT NULL DEFAULT 1
);
CREATE TABLE zipfs.heads (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    library integer NOT NULL REFERENCES zipfs.libraries ON DELETE CASCADE,
    name text NOT NULL,
    until timestamptz NOT NULL
);
CREATE INDEX heads_library ON zipfs.heads (library, until);
CREATE TABLE zipfs.files (
    library integer NOT NULL,
    era integer NOT NULL,
    key bytea NOT NULL CHECK (octet_length(key) = 16),
    path bytea NOT NULL,
    inode bigint NOT NULL, size bigint NOT NULL,
    mtime_ns bigint NOT NULL, ctime_ns bigint NOT NULL,
    crc32 bigint NOT NULL,
    digest bytea NOT NULL CHECK (octet_length(digest) = 16),
    blocks bytea NOT NULL,
    hashed_ns bigint NOT NULL,
    seal bigint NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (library, key)
);
CREATE INDEX files_seq ON zipfs.files (library, seq);
CREATE TABLE zipfs.issued (
    library integer NOT NULL,
    key bytea NOT NULL CHECK (octet_length(key) = 16),
    path bytea NOT NULL,
    content bytea NOT NULL CHECK (octet_length(content) = 16),
    seconds bigint NOT NULL,
    seal bigint NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (library, key, content),
    UNIQUE (library, key, seconds)
);
CREATE INDEX issued_seq ON zipfs.issued (library, seq);
CREATE TABLE zipfs.queue (
    library integer NOT NULL,
    key bytea NOT NULL CHECK (octet_length(key) = 16),
    path bytea NOT NULL,
    inode bigint NOT NULL, size bigint NOT NULL,
    mtime_ns bigint NOT NULL, ctime_ns bigint NOT NULL,
    by_content boolean NOT NULL,
    rank smallint NOT NULL,
    head bigint,
    claimed timestamptz,
    offered timestamptz NOT NULL DEFAULT now(),
    refused bigint[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (library, key, inode, size, mtime_ns, ctime_ns)
);
CREATE INDEX queue_rank ON zipfs.queue (library, rank, size);
""",
}
"""What each version of the schema added to the one before."""


class SchemaError(Exception):
    """The tables aren't those of this version of zipfs."""


def version_of(db: Connection[Any]) -> int:
    """The version of the schema in *db*; 0 if there is none."""
    found = db.execute("SELECT to_regclass('zipfs.about') IS NOT NULL").fetchone()
    if not (found and found[0]):
        return 0
    row = db.execute("SELECT version FROM zipfs.about").fetchone()
    return int(row[0]) if row else 0


def check(db: Connection[Any]) -> None:
    """Raise :exc:`SchemaError` unless the schema is the one that this zipfs knows."""
    version = version_of(db)
    if version == 0:
        raise SchemaError("it has no tables yet; make them with `zipfs index --migrate`")
    if version < VERSION:
        raise SchemaError(
            f"its tables are of version {version}; bring them to {VERSION} with"
            " `zipfs index --migrate`"
        )
    _refuse_newer(version)


def _refuse_newer(version: int) -> None:
    if version > VERSION:
        raise SchemaError(
            f"its tables are of version {version}, and this zipfs knows them up to {VERSION};"
            " upgrade zipfs on this machine"
        )


def migrate(db: Connection[Any]) -> tuple[int, int]:
    """Bring the schema in *db* to :data:`VERSION`; returns the version before, and after.

    In one transaction: it is done whole or not at all. Raises :exc:`SchemaError`.
    """
    if db.info.server_version < OLDEST:
        raise SchemaError(
            f"PostgreSQL is of version {db.info.server_version // 10000} there, and has to be of"
            f" {OLDEST // 10000} or later"
        )
    with db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        before = version_of(db)
        _refuse_newer(before)
        if not before:
            db.execute("CREATE SCHEMA IF NOT EXISTS zipfs")
        for added in range(before + 1, VERSION + 1):
            for statement in filter(str.strip, _ADDED[added].split(";")):
                db.execute(statement.encode())
        if not before:
            db.execute("INSERT INTO zipfs.about (version) VALUES (%s)", (VERSION,))
        elif before != VERSION:
            db.execute("UPDATE zipfs.about SET version = %s", (VERSION,))
    return before, VERSION
