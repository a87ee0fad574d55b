"""From what was found of a game to its members: order, names, dates, and what is in no file.

Pure: of files it knows what others found out.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from zipfs.filestate import Checksums
from zipfs.listed import ListScan
from zipfs.names import archive_order
from zipfs.playlists import Playlists
from zipfs.sources import GameScan, SourceFile
from zipfs.style import FIXED_TIME, Style
from zipfs.varied import VariantScan
from zipfs.zipformat import Member

_NANOSECONDS: Final = 1_000_000_000


class Assembly(NamedTuple):
    """The members of an archive. *files* are those that are in one, in their order; *inline*
    has the content of the others, by number."""

    members: list[Member]
    files: tuple[SourceFile, ...]
    inline: Mapping[int, bytes]


def names_of(scan: GameScan, style: Style) -> dict[bytes, bytes]:
    """The entry name of each path in *scan*."""
    return style.names(_paths(scan))


def _paths(scan: GameScan) -> Iterator[bytes]:
    yield from (file.path for file in scan.files)
    if isinstance(scan, ListScan):
        yield from (inline.name for inline in scan.inline.values())


def of_folder(
    scan: GameScan,
    names: Mapping[bytes, bytes],
    known: Mapping[bytes, Checksums],
    style: Style,
    *,
    playlists: Playlists,
    playlist: bytes,
    platform: bytes | None,
) -> Assembly:
    """A game's folder, or some of it: by :func:`zipfs.names.archive_order`, and a playlist if
    it gets one.

    *names* are those of :func:`names_of`, *known* the checksums of all files by source.
    *playlist* is what the playlist would be called.
    """
    files = tuple(sorted(scan.files, key=lambda file: archive_order(names[file.path])))
    members = [_member(file, names, known, style) for file in files]
    depth = 0
    if isinstance(scan, VariantScan):
        depth = scan.variant.depth
        playlists = playlists.by(scan.variant.playlists)
    inline = playlists.add(style.names([playlist])[playlist], members, platform, depth=depth)
    return Assembly(members, files, inline)


def of_list(
    scan: ListScan,
    names: Mapping[bytes, bytes],
    known: Mapping[bytes, Checksums],
    style: Style,
) -> Assembly:
    """A list: in its order. What is in no file is dated as the newest that is."""
    members = [_member(file, names, known, style) for file in scan.files]
    newest = max((member.mtime for member in members), default=FIXED_TIME)
    for number, (name, content) in sorted(scan.inline.items()):
        member = Member(
            name=names[name], size=len(content), mtime=newest, crc32=zlib.crc32(content)
        )
        members.insert(number, member)
    inline = {number: content for number, (_, content) in scan.inline.items()}
    return Assembly(members, scan.files, inline)


def _member(
    file: SourceFile,
    names: Mapping[bytes, bytes],
    known: Mapping[bytes, Checksums],
    style: Style,
) -> Member:
    return Member(
        name=names[file.path],
        size=file.state.size,
        mtime=style.time(file.state.mtime_ns // _NANOSECONDS),
        crc32=known[file.source].crc32,
    )
