"""From what was found of a game to its members: order, names, dates, and what is in no file.

Pure: of files it knows what others found out. What the operator may choose of it is a
:class:`Style`. A choice changes members, never how members become bytes: two mounts with the
same style give the same archives (DESIGN B1), and another style is another content with
validators of its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from zipfs.archive.names import archive_order, entry_names
from zipfs.archive.records import DOS_MIN, Member, archive_time
from zipfs.library.filestate import Checksums
from zipfs.library.lists import ListScan
from zipfs.library.rules.playlists import Playlists
from zipfs.library.scan import GameScan, SourceFile
from zipfs.library.variants import VariantScan

FIXED_TIME: Final = DOS_MIN + 86400
"""The date of all members where dates don't count, Unix seconds: 1980-01-02 00:00:00 UTC.

A day behind the first that DOS time can say: no time zone makes it 1979, which programs that
pack the files again refuse.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """*portable_names*: only names that Windows and macOS can create side by side.
    *fixed_times*: archives depend on names and content alone, for copies without dates."""

    portable_names: bool = False
    fixed_times: bool = False

    def names(self, paths: Iterable[bytes]) -> dict[bytes, bytes]:
        """The entry name of each path, see :func:`zipfs.archive.names.entry_names`."""
        return entry_names(paths, portable=self.portable_names)

    def time(self, mtime: int) -> int:
        """The date to state for a file modified at *mtime*; both in Unix seconds."""
        return FIXED_TIME if self.fixed_times else archive_time(mtime)


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
    """A game's folder, or some of it: by :func:`zipfs.archive.names.archive_order`, and a
    playlist if it gets one.

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
