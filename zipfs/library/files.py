"""Reading a file in its recorded state, or an error; blocking.

Bytes are read into a buffer first. Then the file's state is compared with the one that its
checksums belong to: a write changes ``mtime`` and ``ctime`` before it changes data, so if the
states are equal, the bytes read before are right (DESIGN R1).

If only ``ctime`` differs, the file was renamed, deleted, linked or given other permissions, or
rewritten by a program that restored its ``mtime``; ``stat`` doesn't show which. So from then on
bytes are proven by the checksums of their blocks before they are returned (R2).

On Windows ``ctime`` is the time of creation. There the state doesn't show a change, and all
bytes are proven.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence

import xxhash

from zipfs.errors import ChangedError
from zipfs.library.filestate import BLOCK, FileState
from zipfs.library.scan import SourceFile
from zipfs.system.paths import open_path
from zipfs.system.syscalls import GONE, MAYBE_GONE, READ_FILE, pread

Key = tuple[bytes, FileState]
Blocks = Callable[[bytes], bytes | None]
"""From a file's XXH3-128 to the checksums of its blocks; None if they are unknown."""

STATE_VOUCHES: bool = os.name != "nt"
"""Whether equal states imply equal bytes, however the file was written."""


def key_of(source: SourceFile) -> Key:
    return source.source, source.state


def open_file(
    absolute: Callable[[bytes], bytes], source: SourceFile, *, provable: bool = True
) -> int:
    """Open *source* in its recorded state; its descriptor.

    If it is *provable* (it has checksums), its ctime may differ. Raises :exc:`ChangedError` if
    it is in another state or isn't there, or :exc:`OSError`.
    """
    try:
        descriptor = open_path(absolute(source.source), READ_FILE)
    except OSError as error:
        if error.errno in GONE | MAYBE_GONE:
            raise ChangedError from None
        raise
    try:
        state = FileState.of(os.fstat(descriptor))
        if state != source.state and not (provable and state.differs_in_ctime_only(source.state)):
            raise ChangedError
    except BaseException:
        close_all([descriptor])
        raise
    return descriptor


def open_files(
    absolute: Callable[[bytes], bytes], sources: Sequence[SourceFile], *, provable: bool = True
) -> dict[Key, int]:
    """Descriptors of all *sources*. Raises as :func:`open_file` does; then none stays open."""
    opened: dict[Key, int] = {}
    try:
        for source in sources:
            if key_of(source) not in opened:
                opened[key_of(source)] = open_file(absolute, source, provable=provable)
    except BaseException:
        close_all(opened.values())
        raise
    return opened


def close_all(descriptors: Iterable[int]) -> None:
    """Close *descriptors*; in a worker thread."""
    for descriptor in descriptors:
        # It is closed in any case (close(2)), and nothing was written that could be lost. A dead
        # source (FUSE, NFS) can raise here as well.
        with contextlib.suppress(OSError):
            os.close(descriptor)


def read_source(
    descriptor: int,
    source: SourceFile,
    digest: bytes | None,
    blocks: Blocks,
    offset: int,
    view: memoryview,
) -> None:
    """Fill *view* from *offset* of *source*, open as *descriptor*, in its recorded state.

    *digest* is its XXH3-128, None if unknown. Raises :exc:`ChangedError` or :exc:`OSError`; the
    content of *view* is undefined then.
    """
    _read_all(descriptor, view, offset)
    status = os.fstat(descriptor)
    state = FileState.of(status)
    if state == source.state:
        if STATE_VOUCHES or digest is None:
            return
    elif not state.differs_in_ctime_only(source.state):
        raise ChangedError
    if digest is not None:
        _prove(descriptor, source.state.size, digest, blocks, offset, view)
    elif status.st_nlink:
        raise ChangedError
    # A file passed through has no checksums. That it was deleted (no links left) changes its
    # ctime and not its content.


def _prove(
    descriptor: int, size: int, digest: bytes, blocks: Blocks, offset: int, view: memoryview
) -> None:
    """Read the blocks around *view* again, prove them, and fill *view* from them."""
    hashes = blocks(digest) if size > BLOCK else None
    if size > BLOCK and (hashes is None or len(hashes) != 8 * -(-size // BLOCK)):
        raise ChangedError
    block = memoryview(bytearray(min(BLOCK, size)))
    for start in range(offset // BLOCK * BLOCK, offset + len(view), BLOCK):
        part = block[: min(BLOCK, size - start)]
        _read_all(descriptor, part, start)
        if hashes is None:
            proven = xxhash.xxh3_128_digest(part) == digest
        else:
            number = start // BLOCK
            proven = xxhash.xxh3_64_digest(part) == hashes[8 * number : 8 * number + 8]
        if not proven:
            raise ChangedError
        first = max(start, offset)
        until = min(start + len(part), offset + len(view))
        view[first - offset : until - offset] = part[first - start : until - start]


def _read_all(descriptor: int, view: memoryview, offset: int) -> None:
    """Fill all of *view* from *offset*; raises :exc:`ChangedError` if the file ends before."""
    filled = 0
    while filled < len(view):
        count = pread(descriptor, view[filled:], offset + filled)
        if count == 0:
            raise ChangedError
        filled += count
