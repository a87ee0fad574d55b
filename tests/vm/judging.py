"""Is a download right? The rules, without any I/O.

A download that ends complete has to be one version of the archive, whole: all members, with their
own bytes and checksums, of the old version or of the new one. One that ends early, by an error or
a closed connection, is told by its client, and never wrong.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Final

import xxhash

OLD: Final = "old"
"""Complete, with the bytes from before the change."""
NEW: Final = "new"
CUT: Final = "cut"
"""Ended before its end, and the client knows."""
WRONG: Final = "WRONG"
"""Complete, and no version of the archive."""
NONE: Final = "none"
"""There was no archive."""

Members = Mapping[str, str]
"""The digest of each member, by name."""


def digest(data: bytes) -> str:
    """XXH3-128: a machine without a hypervisor takes seconds for a SHA-256."""
    return xxhash.xxh3_128_hexdigest(data)


def members(data: bytes) -> Members | None:
    """What is in the archive *data*; None if it isn't a whole one."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # Reading to the end compares the checksum.
            return {one.filename: digest(archive.read(one)) for one in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError):
        return None


def judge(data: bytes, *, complete: bool, old: Members, new: Members) -> str:
    """The verdict on a download of *data*."""
    if not complete:
        return CUT
    found = members(data)
    if found == old:
        return OLD
    return NEW if found == new else WRONG


def worst(verdicts: Sequence[str]) -> str:
    """That which matters most among *verdicts* of one archive, in their order."""
    return WRONG if WRONG in verdicts else verdicts[0] if verdicts else NONE
