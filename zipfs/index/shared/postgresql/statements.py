"""The longer statements of the shared index. They are put together of constants only."""

from __future__ import annotations

import re
from typing import Final

from zipfs.index.shared.postgresql.rows import GONE, PRUNED

_FILE: Final = "key, inode, size, mtime_ns, ctime_ns, crc32, hashed_ns, seal, digest, path, blocks"
"""The columns in the order of :func:`zipfs.index.shared.postgresql.rows.copied`."""
_STATE: Final = "inode, size, mtime_ns, ctime_ns"

_PACKED: Final = (
    "int8send(inode) || int8send(size) || int8send(mtime_ns) || int8send(ctime_ns)"
    " || int8send(crc32) || int8send(hashed_ns) || int8send(seal) || digest"
    " || int4send(octet_length(path)) || int4send(octet_length(blocks)) || path || blocks"
)
"""A row of ``files`` as :func:`zipfs.index.shared.postgresql.rows.unpacked` reads it."""
_PACKED_ISSUED: Final = (
    "content || int8send(seconds) || int8send(seal) || int4send(octet_length(path)) || path"
)
"""A row of ``issued`` as :func:`zipfs.index.shared.postgresql.rows.unpacked_issued` reads it."""


def _of(table: str, columns: str) -> str:
    """*columns* with the name of *table*."""
    return re.sub(rf"\b({_FILE.replace(', ', '|')})\b", rf"{table}.\1", columns)


def _same(one: str, other: str) -> str:
    """That they are of one file in one state."""
    keys = ("key", *_STATE.split(", "))
    return " AND ".join(f"{one}.{key} = {other}.{key}" for key in keys)


_LOOKED_UP: Final = """
CROSS JOIN LATERAL (
    SELECT * FROM zipfs.files WHERE library = %(library)s AND key = i.key OFFSET 0
) f"""
"""The row of each of some files ``i``, by the key: a plain join would read the whole table."""

_PRUNED: Final = f"'\\x{PRUNED.hex()}'::bytea"

TEMPORARY: Final = (
    """
CREATE TEMPORARY TABLE IF NOT EXISTS zipfs_incoming (
    key bytea, inode bigint, size bigint, mtime_ns bigint, ctime_ns bigint, crc32 bigint,
    hashed_ns bigint, seal bigint, digest bytea, path bytea, blocks bytea
) ON COMMIT DELETE ROWS
""",
    """
CREATE TEMPORARY TABLE IF NOT EXISTS zipfs_offered (
    key bytea, inode bigint, size bigint, mtime_ns bigint, ctime_ns bigint, by_content boolean,
    rank smallint, path bytea
) ON COMMIT DELETE ROWS
""",
)
"""Into which rows are copied, in the order of what :mod:`.rows` makes."""

PLACE: Final = b"""
SELECT a.database::text, pg_is_in_recovery(), current_setting('transaction_read_only') = 'on',
    has_table_privilege('zipfs.files', 'INSERT') AND has_table_privilege('zipfs.files', 'UPDATE')
    AND has_table_privilege('zipfs.files', 'DELETE')
    AND has_table_privilege('zipfs.issued', 'INSERT')
    AND has_table_privilege('zipfs.queue', 'INSERT')
    AND has_table_privilege('zipfs.queue', 'UPDATE')
    AND has_table_privilege('zipfs.queue', 'DELETE')
    AND has_table_privilege('zipfs.libraries', 'INSERT')
    AND has_table_privilege('zipfs.libraries', 'UPDATE')
    AND has_table_privilege('zipfs.heads', 'INSERT')
    AND has_table_privilege('zipfs.heads', 'UPDATE')
    AND has_table_privilege('zipfs.heads', 'DELETE')
    AND has_database_privilege(current_database(), 'TEMPORARY'),
    -- The timeline, which a failover changes.
    CASE WHEN NOT pg_is_in_recovery() THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END
FROM zipfs.about a
"""

_SAMPLE: Final = """
SELECT f.path, f.inode, f.size, f.mtime_ns, f.ctime_ns
FROM (
    SELECT * FROM zipfs.files WHERE library = %(library)s {} LIMIT 20 * %(count)s
) f JOIN zipfs.libraries l ON l.id = f.library AND l.era = f.era
WHERE f.size >= 0 LIMIT %(count)s
"""
# Not all of an earlier era are looked through: that takes seconds.
SAMPLE: Final = _SAMPLE.format("AND key >= %(first)s ORDER BY key").encode()
SAMPLE_LATEST: Final = _SAMPLE.format("ORDER BY seq DESC").encode()
"""An era's rows have later changes than those of all eras before."""

CHANGED_FILES: Final = f"""
SELECT count(*), max(seq), string_agg({_PACKED}, ''::bytea)
FROM (
    SELECT * FROM zipfs.files WHERE library = %s AND seq > %s AND seq <= %s ORDER BY seq LIMIT %s
) f
""".encode()
CHANGED_ISSUED: Final = f"""
SELECT count(*), max(seq), string_agg({_PACKED_ISSUED}, ''::bytea)
FROM (
    SELECT * FROM zipfs.issued WHERE library = %s AND seq > %s AND seq <= %s ORDER BY seq LIMIT %s
) i
""".encode()

PUT: Final = f"""
INSERT INTO zipfs.files AS f (library, era, {_FILE}, seq)
SELECT %(library)s, %(era)s, {_FILE}, %(seq)s + row_number() OVER ()
FROM zipfs_incoming
ON CONFLICT (library, key) DO UPDATE SET
    era = excluded.era, path = excluded.path, inode = excluded.inode, size = excluded.size,
    mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns, crc32 = excluded.crc32,
    digest = excluded.digest, blocks = excluded.blocks, hashed_ns = excluded.hashed_ns,
    seal = excluded.seal, seq = excluded.seq
WHERE f.era <> excluded.era OR (
    ({_of("f", _STATE)}, f.digest) IS DISTINCT FROM ({_of("excluded", _STATE)}, excluded.digest)
    AND CASE
        WHEN excluded.digest = {_PRUNED} THEN excluded.hashed_ns > f.hashed_ns
        WHEN f.digest <> excluded.digest AND excluded.size = {GONE} AND f.size <> {GONE} THEN false
        WHEN f.digest <> excluded.digest AND excluded.size <> {GONE} AND f.size = {GONE} THEN true
        ELSE excluded.hashed_ns > f.hashed_ns
    END
)
""".encode()
"""The later of two results counts. The same one again is no change. What is forgotten is one
content, and no other."""
PUT_IN_QUEUE: Final = f"""
DELETE FROM zipfs.queue q USING zipfs_incoming i
WHERE q.library = %(library)s AND {_same("q", "i")}
""".encode()
PUT_IN_VAIN: Final = f"""
SELECT string_agg({_of("f", _PACKED)}, ''::bytea)
FROM zipfs_incoming i {_LOOKED_UP}
WHERE ({_of("f", _STATE)}, f.digest) IS DISTINCT FROM ({_of("i", _STATE)}, i.digest)
""".encode()

OFFERED_KNOWN: Final = f"""
SELECT string_agg({_of("f", _PACKED)}, ''::bytea)
FROM zipfs_offered i {_LOOKED_UP}
WHERE {_same("f", "i")}
""".encode()
OFFER: Final = f"""
INSERT INTO zipfs.queue AS q (library, key, path, {_STATE}, by_content, rank)
SELECT %(library)s, key, path, {_STATE}, by_content, rank
FROM zipfs_offered o
WHERE NOT EXISTS (
    SELECT FROM zipfs.files f WHERE f.library = %(library)s AND {_same("f", "o")}
)
ORDER BY key
ON CONFLICT (library, key, {_STATE}) DO UPDATE SET
    rank = least(q.rank, excluded.rank), offered = now(),
    refused = array_remove(q.refused, %(head)s)
WHERE q.rank > excluded.rank OR %(head)s = ANY (q.refused)
    OR q.offered < now() - interval '5 minutes'
""".encode()

_FREE: Final = """
        NOT (%(head)s = ANY (q.refused)) AND (
            q.head IS NULL
            OR NOT EXISTS (SELECT FROM zipfs.heads h WHERE h.id = q.head AND h.until > now())
            OR q.claimed < now() - interval '10 minutes' - interval '1 second' * (q.size / 1e6)
        )
"""
"""A claim of a head that is dead, or of one that was too long about it, isn't one."""

CLAIM: Final = f"""
WITH picked AS (
    SELECT q.key, q.inode, q.size, q.mtime_ns, q.ctime_ns, q.rank
    FROM zipfs.queue q
    WHERE q.library = %(library)s AND {_FREE}
        AND NOT EXISTS (
            SELECT FROM zipfs.files f WHERE f.library = q.library AND {_same("f", "q")}
        )
    ORDER BY q.rank, q.size, q.key
    LIMIT %(count)s
    FOR UPDATE OF q SKIP LOCKED
), summed AS (
    SELECT *, sum(size) OVER (ORDER BY rank, size, key) - size AS before FROM picked
)
UPDATE zipfs.queue q SET head = %(head)s, claimed = now()
FROM summed s
WHERE q.library = %(library)s AND {_same("q", "s")} AND s.before < %(size)s
RETURNING q.path, q.by_content, q.rank, q.inode, q.size, q.mtime_ns, q.ctime_ns
""".encode()

# Who has just offered these has locked them all.
CLAIM_OFFERED: Final = f"""
UPDATE zipfs.queue q SET head = %(head)s, claimed = now()
FROM zipfs_offered o
WHERE q.library = %(library)s AND {_same("q", "o")} AND {_FREE}
""".encode()
OFFERED_TO_OTHERS: Final = f"""
SELECT o.key
FROM zipfs_offered o JOIN zipfs.queue q ON q.library = %(library)s AND {_same("q", "o")}
WHERE q.head IS DISTINCT FROM %(head)s
""".encode()

REFUSE: Final = f"""
UPDATE zipfs.queue SET refused = array_append(refused, %s), head = NULL
WHERE library = %s AND (key, {_STATE}) = (%s, %s, %s, %s, %s)
""".encode()

TIDY: Final = b"""
DELETE FROM zipfs.queue q
WHERE library = %s AND offered < now() - interval '1 hour'
    AND NOT EXISTS (SELECT FROM zipfs.heads h WHERE h.id = q.head AND h.until > now())
"""

TIDY_FILES: Final = f"""
DELETE FROM zipfs.files
WHERE library = %s AND size = {GONE} AND digest = {_PRUNED}
    AND hashed_ns < (extract(epoch FROM now()) - 86400) * 1e9
""".encode()
"""What is gone stays as a row for a day, so that all heads are told."""

ISSUE: Final = b"""
INSERT INTO zipfs.issued (library, key, path, content, seconds, seal, seq)
VALUES (%s, %s, %s, %s, %s, %s, %s)
"""
