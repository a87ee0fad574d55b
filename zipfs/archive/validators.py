"""Validators: what an archive's content is called, dated and numbered.

Web servers make ETags of a file's modification time and size, and file systems
know files by inode. So both are functions of the content (DESIGN V1 to V4):
equal bytes have equal validators on any machine, different bytes have others.

XXH3 (https://xxhash.com) is fast and well mixed, and no defence against someone
who can write to the library and wants two files to collide.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import xxhash

from zipfs.archive.layout import Layout
from zipfs.archive.records import DOS_MIN, FORMAT_VERSION

DAY: Final = 86400
NANOSECONDS: Final = 1_000_000_000
ROOT_INODE: Final = 1
"""FUSE's number of a mount's root directory; no other node may have it."""


def content_id(layout: Layout, digests: Iterable[bytes]) -> int:
    """The 128-bit name of an archive's content (DESIGN V3).

    XXH3-128 over the format version and, for each member, its local header
    (which states name, size and time, as far as the archive can express them)
    and the XXH3-128 of its content, 16 bytes each, big-endian: *digests* has those of
    the sources. Raises :exc:`ValueError` unless there is one digest a source.
    """
    hasher = xxhash.xxh3_128(struct.pack("<I", FORMAT_VERSION))
    for header, digest in zip(layout.headers, _of_members(layout, digests), strict=True):
        if len(digest) != 16:
            raise ValueError(f"an XXH3-128 has 16 bytes, not {len(digest)}")
        hasher.update(struct.pack("<I", len(header)) + header + digest)
    return hasher.intdigest()


def _of_members(layout: Layout, digests: Iterable[bytes]) -> Iterator[bytes]:
    """The digest of each member, those of the sources being *digests*."""
    of_sources = iter(digests)
    for member in range(len(layout.members)):
        inline = layout.inline.get(member)
        if inline is not None:
            yield xxhash.xxh3_128_digest(inline)
        elif (digest := next(of_sources, None)) is not None:
            yield digest
    yield from of_sources  # more than there are members, which is noticed


def date(layout: Layout) -> int:
    """The day an archive belongs to: its newest member's time, in Unix seconds.

    Not before 1980, so that what is subtracted later can't make it negative.
    """
    return max([DOS_MIN, *(member.mtime for member in layout.members)])


def first_mtime(newest: int, content: int) -> int:
    """The modification time that *content* asks for, in whole Unix seconds.

    The time of day is a checksum of the content, the date is *newest*'s or the
    day before (DESIGN V3).
    """
    return newest - content % DAY


def mtime_ns(seconds: int, content: int) -> int:
    """*seconds* with further bits of *content* as nanoseconds (DESIGN V3)."""
    return seconds * NANOSECONDS + content // DAY % NANOSECONDS


def resolve_clash(newest: int, content: int, taken: Callable[[int], bool]) -> int:
    """Modification time for a content that this path hasn't shown before.

    *taken* tells of a time in Unix seconds whether another content of the same
    path was given it; a clash moves by whole days into the past (DESIGN V3).
    """
    seconds = first_mtime(newest, content)
    while taken(seconds):
        seconds -= DAY
    return seconds


def inode(kind: bytes, path: bytes, version: bytes = b"") -> int:
    """The inode of a node: 64 bits out of its kind, path and version (DESIGN V4).

    *path* is relative to the mount. A new version is a new inode, and so has a
    page cache of its own. 0 means "none" to the kernel and 1 is the root.
    """
    number = xxhash.xxh3_64_intdigest(b"%s\0%s\0%s" % (kind, path, version))
    return number if number > ROOT_INODE else number + 2


def nginx_etag(seconds: int, size: int) -> str:
    """The ETag that nginx sends: time and size in hex (``ngx_http_set_etag``)."""
    return f'"{seconds:x}-{size:x}"'


def caddy_etag(mtime: int, size: int) -> str:
    """The ETag that Caddy sends: time and size in base 36 (``calculateEtag``).

    *mtime* in seconds for Caddy up to 2.7, in nanoseconds since.
    """
    return f'"{_base36(mtime)}{_base36(size)}"'


def _base36(number: int) -> str:
    if number < 0:
        raise ValueError(f"{number} is no time or size of ours")
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
        if not number:
            return digits
