"""From the scan of a game to the members of its archive: order, names, dates, inline content.

A member that no file of the library stands for has the date of the newest one: content of a list,
a playlist, an empty folder. So it doesn't change the archive's date. A folder's own date isn't
used, since it moves with what comes and goes in it, and most programs that copy the dates of
files don't copy that of a folder: two copies of a library would differ.

Pure. The operator's choices are a :class:`Style`. They change members, never how members become
bytes: two mounts with the same style give the same archives (DESIGN B1), and another style gives
another content id and other validators.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final, NamedTuple

from zipfs.archive.names import archive_order, entry_names
from zipfs.archive.records import DOS_MIN, Member, archive_time
from zipfs.library.filestate import Checksums
from zipfs.library.rules.playlists import Playlists
from zipfs.library.scan import GameScan, SourceFile

FIXED_TIME: Final = DOS_MIN + 86400
"""The date of all members with fixed times, Unix seconds: 1980-01-02 00:00:00 UTC.

A day after the first DOS date, so that it isn't in 1979 in any time zone: programs that pack
the files again refuse that.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """How archives state names, dates and permissions.

    *portable_names*: only names that Windows and macOS can create side by side.
    *fixed_times*: all members have :data:`FIXED_TIME`, so that copies of a game without its
    dates give the same archive. *execute_bits*: files that can be executed are so in the archive.
    """

    portable_names: bool = False
    fixed_times: bool = False
    execute_bits: bool = False

    def names(self, paths: Iterable[bytes]) -> dict[bytes, bytes]:
        """The entry name of each path, see :func:`zipfs.archive.names.entry_names`."""
        return entry_names(paths, portable=self.portable_names)

    def time(self, mtime: int) -> int:
        """The date of a member for a file modified at *mtime*; both in Unix seconds."""
        return FIXED_TIME if self.fixed_times else archive_time(mtime)


_NANOSECONDS: Final = 1_000_000_000


class Assembly(NamedTuple):
    """The members of an archive.

    *files* are the sources of the members that are files, in order; *inline* has the content of
    the others, by their number among all members.
    """

    members: list[Member]
    files: tuple[SourceFile, ...]
    inline: Mapping[int, bytes]


def names_of(scan: GameScan, style: Style) -> dict[bytes, bytes]:
    """The entry name of each path in *scan*, of folders without the ``/`` at the end."""
    inline = (name.removesuffix(b"/") for name, _ in scan.inline.values())
    return style.names(chain((file.path for file in scan.files), scan.folders, inline))


def assemble(
    scan: GameScan,
    names: Mapping[bytes, bytes],
    known: Mapping[bytes, Checksums],
    style: Style,
    *,
    playlists: Playlists,
    platform: bytes | None,
) -> Assembly:
    """The members of the archive of *scan*, in order, with its playlist if it gets one.

    *names* are those of :func:`names_of`, *known* the checksums of all files by source, and
    *platform* is the name of the platform's folder, if it has one.
    """
    files = scan.files
    if not scan.keeps_order:
        files = tuple(sorted(files, key=lambda file: archive_order(names[file.path])))
    members = [_member(file, names, known, style) for file in files]
    newest = max((member.mtime for member in members), default=FIXED_TIME)
    if scan.folders:
        members += [_made(names[folder] + b"/", b"", newest) for folder in scan.folders]
        members.sort(key=lambda member: archive_order(member.name))
    inline = {number: content for number, (_, content) in sorted(scan.inline.items())}
    for number, content in inline.items():
        path = scan.inline[number].name
        name = names[path.removesuffix(b"/")] + (b"/" if path.endswith(b"/") else b"")
        members.insert(number, _made(name, content, newest))
    playlist = scan.game.rpartition(b"/")[2] + b".m3u"
    inline |= playlists.by(scan.playlists).add(
        style.names([playlist])[playlist], members, platform, depth=scan.depth
    )
    return Assembly(members, files, inline)


def _made(name: bytes, content: bytes, mtime: int) -> Member:
    return Member(name=name, size=len(content), mtime=mtime, crc32=zlib.crc32(content))


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
        executable=style.execute_bits and file.executable,
    )
