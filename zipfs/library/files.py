"""Reading a file in its recorded state, or an error; blocking.

Bytes are read into a buffer first. Then the file's state is compared with the one that its
checksums belong to: a write changes ``mtime`` and ``ctime`` before it changes data, so if the
states are equal, the bytes read before are right (DESIGN R1).

If only ``ctime`` differs, the file was renamed, deleted, linked or given other permissions, or
rewritten by a program that restored its ``mtime``; ``stat`` doesn't show which. So from then on
bytes are proven by the checksums of their blocks before they are returned (R2).

Where the state can't vouch for bytes at all, each is proven so, and the state isn't asked for
(:mod:`zipfs.library.vouching`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence

from zipfs.errors import ChangedError
from zipfs.library.filestate import BLOCK, FileState
from zipfs.library.proven import DisprovedError, ProvenBlocks
from zipfs.library.scan import SourceFile
from zipfs.system.folders import Folders
from zipfs.system.paths import open_path
from zipfs.system.syscalls import GONE, MAYBE_GONE, READ_FILE, pread

Key = tuple[bytes, FileState]


def key_of(source: SourceFile) -> Key:
    return source.source, source.state


def open_file(
    absolute: Callable[[bytes], bytes],
    source: SourceFile,
    *,
    provable: bool = True,
    folders: Folders | None = None,
) -> int:
    """Open *source* in its recorded state; its descriptor.

    If it is *provable* (it has checksums), its ctime may differ; where its content vouches for its
    bytes, its inode as well. It is opened below one of the open *folders*, if any are given. Raises
    :exc:`ChangedError` if it is in another state or isn't there, or :exc:`OSError`.
    """
    path = absolute(source.source)
    if folders is not None:
        try:
            return _opened(folders.open, path, source, provable=provable)
        except ChangedError:
            # What was kept open may be another folder than the one that is there by now.
            if not folders.forget(path):
                raise
    return _opened(open_path, path, source, provable=provable)


def _opened(
    open_it: Callable[[bytes, int], int], path: bytes, source: SourceFile, *, provable: bool
) -> int:
    try:
        descriptor = open_it(path, READ_FILE)
    except OSError as error:
        if error.errno in GONE | MAYBE_GONE:
            raise ChangedError from None
        raise
    try:
        if not _is_probably(source, source.state.now(os.fstat(descriptor)), provable=provable):
            raise ChangedError
    except BaseException:
        close_all([descriptor])
        raise
    return descriptor


def _is_probably(source: SourceFile, state: FileState, *, provable: bool) -> bool:
    """Whether a file in *state* has the content of *source*; reading it tells for sure."""
    if state == source.state:
        return True
    if not provable:
        return False
    if source.by_content:
        return state.has_content_of(source.state)
    return state.differs_in_ctime_only(source.state)


def open_files(
    absolute: Callable[[bytes], bytes],
    sources: Sequence[SourceFile],
    *,
    provable: bool = True,
    folders: Folders | None = None,
) -> dict[Key, int]:
    """Descriptors of all *sources*. Raises as :func:`open_file` does; then none stays open."""
    opened: dict[Key, int] = {}
    try:
        for source in sources:
            if key_of(source) not in opened:
                opened[key_of(source)] = open_file(
                    absolute, source, provable=provable, folders=folders
                )
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
    descriptor: Callable[[], int],
    source: SourceFile,
    digest: bytes | None,
    proven: ProvenBlocks,
    offset: int,
    view: memoryview,
) -> None:
    """Fill *view* from *offset* of *source* in its recorded state.

    *descriptor* returns it open, and isn't called if all bytes are among *proven*; *digest* is
    its XXH3-128, None if unknown. Raises :exc:`DisprovedError`, :exc:`ChangedError` or
    :exc:`OSError`; the content of *view* is undefined then.
    """
    if source.by_content and digest is not None:
        _prove(descriptor, source, digest, proven, offset, view)
        return
    file = descriptor()
    _read_all(file, view, offset)
    status = os.fstat(file)
    state = source.state.now(status)
    if state == source.state:
        return
    if not state.differs_in_ctime_only(source.state):
        raise ChangedError
    if digest is not None:
        _prove(descriptor, source, digest, proven, offset, view)
    elif status.st_nlink:
        raise ChangedError
    # A file passed through has no checksums. That it was deleted (no links left) changes its
    # ctime and not its content.


def _prove(
    descriptor: Callable[[], int],
    source: SourceFile,
    digest: bytes,
    proven: ProvenBlocks,
    offset: int,
    view: memoryview,
) -> None:
    """Fill *view* with bytes whose blocks are proven, whole blocks read if they aren't yet."""
    size = source.state.size
    end = offset + len(view)
    for start in range(offset // BLOCK * BLOCK, end, BLOCK):
        first, until = max(start, offset), min(start + BLOCK, end, size)
        part = view[first - offset : until - offset]
        if proven.copy(digest, start, first - start, part):
            continue
        block = proven.buffer(min(BLOCK, size - start))
        _read_all(descriptor(), block, start)
        part[:] = block[first - start : until - start]  # before others can have the buffer
        if not proven.add(digest, size, start, block):
            raise DisprovedError(source, digest)


def prove_block(
    descriptor: int, source: SourceFile, digest: bytes, proven: ProvenBlocks, start: int
) -> None:
    """Read the block at *start* of *source*, open as *descriptor*, and keep it if it is right.

    Nothing else is asked about the file. Raises :exc:`ChangedError` or :exc:`OSError`.
    """
    size = source.state.size
    block = proven.buffer(min(BLOCK, size - start))
    _read_all(descriptor, block, start)
    if not proven.add(digest, size, start, block):
        raise DisprovedError(source, digest)


def read_through(descriptor: int, view: memoryview, offset: int) -> None:
    """Read at *offset*, so that the page cache has it; *view* is scratch. Raises as above."""
    _read_all(descriptor, view, offset)


def _read_all(descriptor: int, view: memoryview, offset: int) -> None:
    """Fill all of *view* from *offset*; raises :exc:`ChangedError` if the file ends before."""
    filled = 0
    while filled < len(view):
        count = pread(descriptor, view[filled:], offset + filled)
        if count == 0:
            raise ChangedError
        filled += count
