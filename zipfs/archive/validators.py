"""Validators: an archive's content id, modification time and inode.

Web servers compute ETags from a file's modification time and size, and file systems identify
files by inode. So both are functions of the content (DESIGN V1 to V4): equal bytes have equal
validators on any machine, different bytes have different ones.

XXH3 (https://xxhash.com) is fast and well distributed. It is no protection against somebody who
can write to the library and constructs two files with the same checksum.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import xxhash

from zipfs.archive.layout import Layout
from zipfs.archive.records import DOS_MIN, FORMAT_VERSION, MAX_32

DAY: Final = 86400
NANOSECONDS: Final = 1_000_000_000
ROOT_INODE: Final = 1
"""FUSE's inode of a mount's root directory; no other node has it."""
_INODE_MAX: Final = (1 << 63) - 1


def content_id(layout: Layout, digests: Iterable[bytes]) -> int:
    """The content id of an archive, 128 bits (DESIGN V3).

    XXH3-128 over the format version and, for each member, its local header (name, size and
    time, as far as the archive can express them) and the XXH3-128 of its content, 16 bytes
    each, big-endian. The attributes of an executable, which only the central directory has, come
    before its header. *digests* are those of the sources, in order. Raises :exc:`ValueError`
    unless there is one digest of 16 bytes per source.
    """
    hasher = xxhash.xxh3_128(struct.pack("<I", FORMAT_VERSION))
    for member, header, digest in zip(
        layout.members, layout.headers, _member_digests(layout, digests), strict=True
    ):
        if len(digest) != 16:
            raise ValueError(f"an XXH3-128 has 16 bytes, not {len(digest)}")
        if member.executable:
            # No header is as long as that, so this can't be the beginning of another member.
            hasher.update(struct.pack("<II", MAX_32, member.attributes))
        hasher.update(struct.pack("<I", len(header)) + header + digest)
    return hasher.intdigest()


def _member_digests(layout: Layout, digests: Iterable[bytes]) -> Iterator[bytes]:
    """The digest of each member; *digests* are those of the sources."""
    of_sources = iter(digests)
    for member in range(len(layout.members)):
        inline = layout.inline.get(member)
        if inline is not None:
            yield xxhash.xxh3_128_digest(inline)
        elif (digest := next(of_sources, None)) is not None:
            yield digest
    yield from of_sources  # more digests than members: the strict zip raises


def date(layout: Layout) -> int:
    """The date of an archive: its newest member's time, in Unix seconds.

    Not before 1980, so that later subtractions can't make it negative.
    """
    return max([DOS_MIN, *(member.mtime for member in layout.members)])


def first_mtime(newest: int, content: int) -> int:
    """The preferred modification time of *content*, a content id, in whole Unix seconds.

    The time of day is a checksum of the content; the date is that of *newest*, in Unix seconds,
    or the day before (DESIGN V3).
    """
    return newest - content % DAY


def mtime_ns(seconds: int, content: int) -> int:
    """*seconds* with further bits of *content* as nanoseconds (DESIGN V3)."""
    return seconds * NANOSECONDS + content // DAY % NANOSECONDS


def resolve_clash(newest: int, content: int, taken: Callable[[int], bool]) -> int:
    """Modification time of a content that is new at this path, in Unix seconds.

    *taken* returns whether another content of the same path was given a time; a clash is
    resolved by moving whole days into the past (DESIGN V3).
    """
    seconds = first_mtime(newest, content)
    while taken(seconds):
        seconds -= DAY
    return seconds


def inode(kind: bytes, path: bytes, version: bytes = b"") -> int:
    """The inode of a node: 63 bits computed from its kind, path and version (DESIGN V4).

    *path* is relative to the mount. A new version has a new inode, and so a page cache of its
    own. Never 0, which means "none" to the kernel, nor 1, the root. Not 64 bits: programs and
    databases keep inodes in signed numbers.
    """
    number = xxhash.xxh3_64_intdigest(b"%s\0%s\0%s" % (kind, path, version)) & _INODE_MAX
    return number if number > ROOT_INODE else number + 2


def nginx_etag(seconds: int, size: int) -> str:
    """The ETag that nginx sends: time and size in hex (``ngx_http_set_etag``)."""
    return f'"{seconds:x}-{size:x}"'


def caddy_etag(mtime: int, size: int) -> str:
    """The ETag that Caddy sends: time and size in base 36 (``calculateEtag``).

    *mtime* is in seconds for Caddy up to 2.7, in nanoseconds for later versions.
    """
    return f'"{_base36(mtime)}{_base36(size)}"'


def _base36(number: int) -> str:
    if number < 0:
        raise ValueError(f"a time or a size is at least 0, not {number}")
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
        if not number:
            return digits
