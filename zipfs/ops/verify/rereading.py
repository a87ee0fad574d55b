"""One file read again from its disk, and what is to be said of it.

What differs is read once more, at once: if it is right then, the disk isn't what is failing but
memory, a cable or a controller, and the file is *unstable*. What the disk won't give is tried
block by block, so that the damaged ones can be named.
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
"""Blocks of a file that are tried although the disk won't give them: each may take a minute."""

After = Callable[[Comparison, int], None]
"""Is told how far a comparison is, and how many bytes that took; may raise to break it off."""


class Verdict(NamedTuple):
    """What is wrong with a file; see :class:`zipfs.ops.verify.verified.Finding`."""

    kind: Kind
    crc32: int | None = None
    digest: bytes | None = None
    blocks: tuple[int, ...] = ()
    error: str = ""


def reread(
    path: bytes, state: FileState, known: Checksums, comparison: Comparison, after: After
) -> Verdict | None:
    """What is wrong with the file at *path*, absolute, that was *known* in *state*.

    Carries on with *comparison*. Raises :exc:`FileNotFoundError`, :exc:`PermissionError` if there
    is no such file or it may not be read, and :exc:`ChangedError` if it is in another state.
    """
    try:
        with DiskFile(path, state) as file:
            error = _compare(file, state, comparison, after)
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


def _compare(file: DiskFile, state: FileState, comparison: Comparison, after: After) -> str:
    """Feed *comparison* with all that is left; why some of it can't be read, if it can't."""
    reason = ""
    while not comparison.is_done:
        offset = comparison.offset
        length = min(SPAN - offset % SPAN, state.size - offset)
        try:
            comparison.feed(file.read(offset, length))
        except OSError as error:
            reason = _reason(error)
            _feed_by_blocks(file, comparison, offset + length)
        if len(comparison.unread) >= _MOST_UNREAD:
            comparison.skip(state.size - comparison.offset)
        after(comparison, comparison.offset - offset)
    return reason


def _feed_by_blocks(file: DiskFile, comparison: Comparison, end: int) -> None:
    while comparison.offset < end and len(comparison.unread) < _MOST_UNREAD:
        offset = comparison.offset
        length = min(BLOCK, end - offset)
        try:
            data = file.read(offset, length)
        except OSError:
            file.check()  # if it has gone altogether, that is what is to be said
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
    if bad or (not comparison.bad and not _matches_now(file, state, known)):
        # As it was at first: XXH3-128 of the whole is only known if it was read in one go.
        return Verdict("damaged", comparison.crc32, comparison.digest, tuple(bad))
    return Verdict("unstable", comparison.crc32, comparison.digest, tuple(comparison.bad))


def _is_right(file: DiskFile, state: FileState, comparison: Comparison, number: int) -> bool:
    """Whether a block is right when it is read once more."""
    offset = number * BLOCK
    with contextlib.suppress(OSError):
        block = file.read(offset, min(BLOCK, state.size - offset), again=True)
        return comparison.is_right(number, block)
    return False


def _matches_now(file: DiskFile, state: FileState, known: Checksums) -> bool:
    """The same for all of the file."""
    comparison = Comparison(state.size, known)
    while not comparison.is_done:
        offset = comparison.offset
        length = min(SPAN - offset % SPAN, state.size - offset)
        try:
            comparison.feed(file.read(offset, length, again=True))
        except OSError:
            return False
    return comparison.matches


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
