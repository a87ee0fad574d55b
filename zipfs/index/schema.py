"""The tables of the index, by version of the schema."""

from __future__ import annotations

from typing import Final

SCHEMA_VERSION: Final = 3

ADDED: Final = {
    1: """
CREATE TABLE files (
    path BLOB PRIMARY KEY, inode INTEGER NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
    crc32 INTEGER NOT NULL, digest BLOB NOT NULL, seal INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE blocks (
    digest BLOB PRIMARY KEY, hashes BLOB NOT NULL, seal INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE issued (
    path BLOB, content BLOB, seconds INTEGER NOT NULL, seal INTEGER NOT NULL,
    PRIMARY KEY (path, content)
) WITHOUT ROWID;
""",
    2: """
CREATE TABLE archives (
    path BLOB PRIMARY KEY, inode INTEGER NOT NULL, since_ns INTEGER NOT NULL, seal INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE folders (
    path BLOB PRIMARY KEY, changed_ns INTEGER NOT NULL, seal INTEGER NOT NULL
) WITHOUT ROWID;
""",
    3: """
CREATE TABLE games (
    folder BLOB, name BLOB, tree BLOB NOT NULL, made BLOB NOT NULL, fingerprint BLOB NOT NULL,
    archive BLOB NOT NULL, content BLOB NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, members INTEGER NOT NULL, mode INTEGER NOT NULL,
    uid INTEGER NOT NULL, gid INTEGER NOT NULL, seal INTEGER NOT NULL,
    PRIMARY KEY (folder, name)
) WITHOUT ROWID;
CREATE TABLE missing (
    path BLOB PRIMARY KEY, since INTEGER NOT NULL, seal INTEGER NOT NULL
) WITHOUT ROWID;
""",
}
"""What each version of the schema added to the one before."""
TABLES: Final = {
    1: {b"files": 8, b"blocks": 3, b"issued": 4},
    2: {b"files": 8, b"blocks": 3, b"issued": 4, b"archives": 4, b"folders": 3},
    3: {
        b"files": 8,
        b"blocks": 3,
        b"issued": 4,
        b"archives": 4,
        b"folders": 3,
        b"games": 14,
        b"missing": 3,
    },
}
"""The tables of each version, with their number of columns."""
