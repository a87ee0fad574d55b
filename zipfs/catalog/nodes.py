"""Nodes of the tree: folders, files passed through, and versions of archives.

Immutable. A file or an archive that changes is another node, with another inode,
so that the kernel never mixes the pages of two versions (DESIGN V4).
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from zipfs.archive import validators
from zipfs.archive.layout import Data, Piece
from zipfs.index.rows import Made
from zipfs.library.filestate import FileState
from zipfs.library.scan import NO_LINKS, Entry, Origins, SourceFile
from zipfs.sealing.outcomes import Sealed, archive_inode

_NANOSECONDS: Final = 1_000_000_000


class Proof(NamedTuple):
    """What proves a single file: its XXH3-128.

    Its dates are *later* than told by so many seconds: another content had the same ones.
    """

    digest: bytes
    later: int = 0


class Attributes(NamedTuple):
    """What ``stat`` says of a node."""

    inode: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of the library, shown as it is."""

    path: bytes
    source: bytes
    origins: Origins
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class File:
    """A file of the library, passed through, in one state, which is its version."""

    path: bytes
    file: SourceFile
    attributes: Attributes
    digests: tuple[bytes, ...] = ()
    """Its XXH3-128, if it is proven by that (:mod:`zipfs.catalog.singles`)."""

    @property
    def size(self) -> int:
        return self.file.state.size

    @property
    def files(self) -> tuple[SourceFile, ...]:
        return (self.file,)

    def plan(self, offset: int, length: int) -> Iterator[Piece]:
        end = min(offset + length, self.size)
        if offset < end:
            yield Data(0, offset, end - offset)

    def locate(self, offset: int, length: int) -> tuple[int, int] | None:
        return (0, offset) if offset + length <= self.size else None


@dataclass(frozen=True, slots=True)
class Archive:
    """One version of the archive of the game at the path *game*."""

    path: bytes
    game: bytes
    attributes: Attributes


Node = Folder | File | Archive


def file_node(
    path: bytes, file: SourceFile, status: os.stat_result, proof: Proof | None = None
) -> File:
    """The file at *path* with that *status*; with a *proof*, the one with just those bytes."""
    version = struct.pack("<QQqq", *file.state)
    digests: tuple[bytes, ...] = ()
    later_ns = 0
    if proof:
        digests = (proof.digest,)
        version += proof.digest
        later_ns = proof.later * _NANOSECONDS
    attributes = Attributes(
        inode=validators.inode(b"file", path, version),
        # No set-user-id bits: H3, no file can do more here than at its source.
        mode=stat.S_IFREG | status.st_mode & 0o555,
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns + later_ns,
        # Some states are without a ctime. To make another one takes as long as the rest.
        ctime_ns=(file.state.ctime_ns or FileState.of(status).ctime_ns) + later_ns,
    )
    return File(path, file, attributes, digests)


def folder_node(path: bytes, entry: Entry, changed_ns: int) -> Folder:
    """The folder *entry* at *path*, whose listing last changed at *changed_ns*."""
    status = entry.status
    attributes = Attributes(
        inode=validators.inode(b"folder", path) if path else validators.ROOT_INODE,
        mode=stat.S_IFDIR | status.st_mode & 0o555,
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size,
        mtime_ns=changed_ns,
        ctime_ns=changed_ns,
    )
    return Folder(path, entry.source, entry.origins, attributes)


def unseen_root() -> Folder:
    """The root of a library that wasn't there yet: what is asked of it is answered without this."""
    attributes = Attributes(
        inode=validators.ROOT_INODE,
        mode=stat.S_IFDIR | 0o555,
        uid=0,
        gid=0,
        size=0,
        mtime_ns=0,
        ctime_ns=0,
    )
    return Folder(b"", b"", NO_LINKS, attributes)


def archive_node(game: bytes, sealed: Sealed, since_ns: int) -> Archive:
    """The version *sealed* of the archive of the game at *game*, there since *since_ns*."""
    attributes = Attributes(
        inode=sealed.inode,
        mode=stat.S_IFREG | sealed.access.mode,
        uid=sealed.access.uid,
        gid=sealed.access.gid,
        size=sealed.size,
        mtime_ns=sealed.mtime_ns,
        ctime_ns=since_ns,
    )
    return Archive(sealed.path, game, attributes)


def made_node(game: bytes, made: Made, since_ns: int) -> Archive:
    """The same as the index knows it, before the game was looked at."""
    attributes = Attributes(
        inode=archive_inode(made.archive, made.content),
        mode=stat.S_IFREG | made.mode,
        uid=made.uid,
        gid=made.gid,
        size=made.size,
        mtime_ns=made.mtime_ns,
        ctime_ns=since_ns,
    )
    return Archive(made.archive, game, attributes)
