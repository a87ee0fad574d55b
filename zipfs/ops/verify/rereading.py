"""Reads one file again from its disk, and decides what is wrong with it.

Blocks that differ are read a second time at once. If they are right then, the fault is in memory,
a cable or a controller and not on the disk, and the file is *unstable*. A span that the disk
doesn't return is read block by block, so that the damaged blocks can be named.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Final, NamedTuple

from zipfs.library.filestate import BLOCK, Checksums, FileState
from zipfs.ops.verify.comparing import Comparison
from zipfs.ops.verify.diskfile import SPAN, DiskFile
from zipfs.ops.verify.verified import Kind

_MOST_UNREAD: Final = 16
"""Unreadable blocks of a file, after which the rest is skipped: each may take a minute."""


class Verdict(NamedTuple):
    """What is wrong with a file; see :class:`zipfs.ops.verify.verified.BadFile`."""

    kind: Kind
    crc32: int | None = None
    digest: bytes | None = None
    blocks: tuple[int, ...] = ()
    error: str = ""


def reread(
    path: bytes, state: FileState, known: Checksums, after: Callable[[int, int], None]
) -> Verdict | None:
    """What is wrong with the file at the absolute *path*; None if it is right.

    *known* are its checksums in *state*. *after* is called after each read with the bytes done so
    far and the bytes of that read; it may raise to abandon the file. Raises
    :exc:`FileNotFoundError` or :exc:`PermissionError` if there is no such file or it may not be
    read, and :exc:`ChangedError` if its state differs.
    """
    try:
        with DiskFile(path, state) as file:
            comparison, error = _compare(file, state, known, after)
            file.check()
            if comparison.matches:
                return None
            verdict = _judge(file, state, known, comparison, error)
            file.check()
            return verdict
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as failed:
        return Verdict("unreadable", error=_reason(failed))


def _compare(
    file: DiskFile,
    state: FileState,
    known: Checksums,
    after: Callable[[int, int], None] | None = None,
) -> tuple[Comparison, str]:
    """Compare the whole file; also returns why a part of it can't be read, empty if all can.

    Without *after* this is the second read of the file.
    """
    comparison = Comparison(state.size, known)
    reason = ""
    while not comparison.is_done:
        offset = comparison.offset
        length = min(SPAN, state.size - offset)
        try:
            comparison.feed(file.read(offset, length, again=after is None))
        except OSError as error:
            reason = _reason(error)
            _feed_by_blocks(file, comparison, offset + length)
        if len(comparison.unread) >= _MOST_UNREAD:
            comparison.skip(state.size - comparison.offset)
        if after:
            after(comparison.offset, comparison.offset - offset)
    return comparison, reason


def _feed_by_blocks(file: DiskFile, comparison: Comparison, end: int) -> None:
    while comparison.offset < end and len(comparison.unread) < _MOST_UNREAD:
        offset = comparison.offset
        length = min(BLOCK, end - offset)
        try:
            data = file.read(offset, length)
        except OSError:
            file.check()  # raises ChangedError, which takes precedence over the error
            comparison.skip(length)
        else:
            comparison.feed(data)


def _judge(
    file: DiskFile, state: FileState, known: Checksums, comparison: Comparison, error: str
) -> Verdict:
    if comparison.unread:
        blocks = tuple(sorted({*comparison.unread, *comparison.bad}))
        return Verdict("unreadable", blocks=blocks, error=error)
    bad = [number for number in comparison.bad if not _is_right(file, state, comparison, number)]
    if bad or (not comparison.bad and not _compare(file, state, known)[0].matches):
        return Verdict("damaged", comparison.crc32, comparison.digest, tuple(bad))
    return Verdict("unstable", comparison.crc32, comparison.digest, tuple(comparison.bad))


def _is_right(file: DiskFile, state: FileState, comparison: Comparison, number: int) -> bool:
    """Whether a block is right when it is read a second time."""
    offset = number * BLOCK
    with contextlib.suppress(OSError):
        block = file.read(offset, min(BLOCK, state.size - offset), again=True)
        return comparison.is_right(number, block)
    return False


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
