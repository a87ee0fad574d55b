"""Playlists: the ``.m3u`` by which an emulator finds, and changes, the discs of a game.

Pure. A playlist is the archive's last member, and contains names of the others. It has the name
of the game's folder, so renaming the folder changes the archive. Two kinds:

``romm``
    The same bytes that RomM adds to its downloads: for every game, all ``.cue`` files or else
    all files, in the archive's order, without a newline at the end.
``discs``
    For platforms whose emulators take a playlist, and only if there are two discs. A disc is

    - a table of tracks (:data:`TABLES`), or an image (:data:`IMAGES`); of files whose names
      differ only in their extension, the one that comes first in these tuples;
    - not a raw image (:data:`RAW`) in the same folder as a table, whose tracks it holds;
    - neither hidden nor in a folder of another category (DLC, updates, manuals and so on, see
      :mod:`zipfs.library.rules.categories`).

    One line per disc, in natural order ("Disc 2" before "Disc 10"), with ``/`` between folders.

A game with a playlist of its own gets neither. Names are entry names, so they are UTF-8 without
line breaks (:mod:`zipfs.archive.names`).
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from zipfs.archive.names import archive_order, folded
from zipfs.archive.records import Member
from zipfs.library.rules.categories import GAME, category_named

Mode = Literal["off", "romm", "discs"]

PLATFORMS: Final = frozenset(
    {
        # Names of folders in ES-DE, Batocera and RomM, and common others. Optical discs:
        *(b"psx", b"ps1", b"ps", b"playstation"),  # Beetle PSX, SwanStation, DuckStation
        *(b"saturn", b"saturnjp", b"segasaturn", b"sega-saturn"),  # Beetle Saturn, Kronos
        # Genesis Plus GX, PicoDrive
        *(b"segacd", b"sega-cd", b"segacd32", b"megacd", b"mega-cd", b"megacdjp"),
        *(b"dreamcast", b"dc"),  # Flycast
        # Beetle PCE and PCE Fast; its CDs are often kept among the cards
        *(b"pcenginecd", b"pcengine-cd", b"pcecd", b"tg-cd", b"tgcd", b"turbografx-cd"),
        *(b"turbografxcd", b"pcengine", b"tg16"),
        *(b"pcfx", b"pc-fx"),  # Beetle PC-FX
        *(b"gc", b"ngc", b"gamecube"),  # Dolphin; hardly a game for the Wii has two discs
        # PUAE, discs and floppies
        *(b"amigacd32", b"amiga-cd32", b"cd32", b"amiga-cd", b"amigacd"),
        *(b"cdtv", b"amigacdtv", b"commodore-cdtv"),
        # Floppies, of which most games have several, to be changed in the middle of them:
        *(b"amiga", b"amiga500", b"amiga600", b"amiga1200", b"amiga4000"),  # PUAE
        *(b"c64", b"c128", b"plus4", b"c-plus-4", b"vic20", b"vic-20"),  # VICE
        *(b"atarist", b"atari-st"),  # Hatari
        *(b"amstradcpc", b"acpc", b"cpc"),  # Caprice32, CrocoDS
        *(b"msx", b"msx1", b"msx2", b"msx2+", b"msx2plus", b"msxturbor", b"msx-turbo"),  # blueMSX
        *(b"pc88", b"pc-8800-series"),  # QUASI88
        *(b"pc98", b"pc-9800-series"),  # Neko Project II Kai
        *(b"x68000", b"sharp-x68000"),  # PX68k
    }
)
"""Folders of the platforms whose emulators load the discs of a game through an ``.m3u``.

At least one emulator of each lists ``.m3u`` as supported, by ES-DE's ``es_systems.xml`` and
RetroArch's core information. None does for 3DO (Opera), Neo Geo CD (NeoCD), CD-i (SAME CDi), FM
Towns, PlayStation 2 (LRPS2), PSP and Xbox. DOS isn't here because a game's own configuration
mounts its discs.
"""

TABLES: Final = (b"cue", b"gdi", b"ccd", b"mds", b"toc")
"""Extensions of files that describe a disc's tracks, the preferred first."""
RAW: Final = (b"iso", b"img", b"mdf")
"""Extensions of images without a structure of their own, which tables refer to."""
IMAGES: Final = (
    *(b"chd", b"pbp", b"rvz", b"wia", b"gcz", b"cso", b"ciso", b"gcm", b"cdi", b"nrg", *RAW),
    *(b"ipf", b"adf", b"adz", b"dms", b"fdi"),  # Amiga
    *(b"g64", b"d64", b"d71", b"d80", b"d81", b"d82", b"x64", b"nib"),  # Commodore
    *(b"stx", b"st", b"msa", b"dim"),  # Atari ST; X68000
    *(b"dsk", b"dmk", b"di1", b"di2"),  # CPC, MSX
    *(b"d88", b"88d", b"d98", b"98d", b"hdm", b"xdf", b"2hd", b"dup", b"tfd", b"fdd"),  # PC-88, 98
)
"""Extensions of images of a disc or floppy, the preferred first. ``bin`` is too ambiguous."""
_RANKS: Final = {extension: rank for rank, extension in enumerate((*TABLES, *IMAGES))}
_RAW_RANKS: Final = frozenset(_RANKS[extension] for extension in RAW)

_ROMM_EXTENSION: Final = re.compile(r"\.((?:[a-z]+\.)*\w+)\Z")
"""RomM's definition of an extension: it includes all lower-case words before it, so that of
``game.disc.cue`` is ``disc.cue``."""


class Playlist(NamedTuple):
    """The name and content of a playlist."""

    name: bytes
    content: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Playlists:
    """Which games get a playlist. *platforms* are names of folders in lower case."""

    mode: Mode = "discs"
    platforms: Collection[bytes] = PLATFORMS

    def by(self, mode: Mode | None) -> Playlists:
        """A copy with *mode*, unless that is None."""
        return self if mode is None else dataclasses.replace(self, mode=mode)

    def of(
        self, name: bytes, members: Collection[bytes], platform: bytes | None, *, depth: int = 0
    ) -> Playlist | None:
        """The playlist *name* of a game with *members*, if it gets one.

        Both are entry names; folders among them are never in the playlist. *platform* is the name
        of the platform's folder, if it has one. The first *depth* folders of each member aren't
        the game's own, and are ignored. The result doesn't depend on the order of the members.
        """
        content = None
        if self.mode == "romm":
            content = _of_romm(sorted(_files(members), key=archive_order))
        elif self.mode == "discs" and platform is not None and platform.lower() in self.platforms:
            content = _of_discs(_files(members), depth)
        if content is None or not _is_free(name, members):
            return None
        return Playlist(name, content)

    def add(
        self, name: bytes, members: list[Member], platform: bytes | None, *, depth: int = 0
    ) -> dict[int, bytes]:
        """Append the playlist that :meth:`of` gives to *members*; its content by its number.

        It has the date of the newest member, so that the archive's date doesn't change.
        """
        names = [member.name for member in members]
        playlist = self.of(name, names, platform, depth=depth)
        if playlist is None:
            return {}
        member = Member(
            name=playlist.name,
            size=len(playlist.content),
            mtime=max(member.mtime for member in members),
            crc32=zlib.crc32(playlist.content),
        )
        members.append(member)
        return {len(members) - 1: playlist.content}


def platforms_named(names: Iterable[bytes]) -> frozenset[bytes]:
    """The platforms that the operator has named; ``default`` stands for :data:`PLATFORMS`."""
    named = frozenset(name.lower() for name in names)
    return (named - {b"default"}) | PLATFORMS if b"default" in named else named


def discs(members: Iterable[bytes]) -> list[bytes]:
    """The entry names among *members* that are discs of the game, in natural order."""
    best: dict[tuple[bytes, bytes], tuple[int, bytes]] = {}
    for member in members:
        *folders, base = member.split(b"/")
        stem, extension = _split(base)
        rank = _RANKS.get(extension)
        if rank is None or base.startswith(b".") or any(map(_is_excluded, folders)):
            continue
        key = (b"/".join(folders), stem)
        best[key] = min(best.get(key, (rank, member)), (rank, member))
    tables = {folder for (folder, _), (rank, _) in best.items() if rank < len(TABLES)}
    found = [
        member
        for (folder, _), (rank, member) in best.items()
        if rank not in _RAW_RANKS or folder not in tables
    ]
    return sorted(found, key=_natural)


def _files(members: Iterable[bytes]) -> list[bytes]:
    return [member for member in members if not member.endswith(b"/")]


def _of_romm(members: Iterable[bytes]) -> bytes | None:
    extensions = {member: _romm_extension(member) for member in members}
    if "m3u" in extensions.values():
        return None
    cues = [member for member, extension in extensions.items() if extension == "cue"]
    return b"\n".join(cues or extensions)


def _of_discs(members: Collection[bytes], depth: int) -> bytes | None:
    if any(_split(member.rpartition(b"/")[2])[1] == b"m3u" for member in members):
        return None
    own = {member.split(b"/", depth)[depth]: member for member in members}
    found = discs(own)
    if len(found) < 2:
        return None
    return b"".join(_line(own[disc]) + b"\n" for disc in found)


def _line(member: bytes) -> bytes:
    """The line for *member*: a leading ``#`` would begin a comment, and programs strip blanks
    and a byte order mark."""
    return b"./" + member if member.startswith((b"#", b" ", b"\xef\xbb\xbf")) else member


def _is_free(name: bytes, members: Iterable[bytes]) -> bool:
    """Whether no member at the top has *name*, on case-insensitive file systems as well."""
    beside = {member.partition(b"/")[0] for member in members}
    # `folded` is slow, so only for names that can be equal: ".m3u" is ASCII.
    beside = {other for other in beside if other.lower().endswith(b".m3u")}
    return folded(name.decode()) not in {folded(other.decode()) for other in beside}


def _is_excluded(folder: bytes) -> bool:
    """Whether a folder named *folder* contains no discs of the game."""
    return folder.startswith(b".") or category_named(folder) not in (None, GAME)


def _split(base: bytes) -> tuple[bytes, bytes]:
    """Stem, and extension in lower case without its dot."""
    stem, dot, extension = base.rpartition(b".")
    return (stem, extension.lower()) if dot else (base, b"")


def _romm_extension(member: bytes) -> str:
    match = _ROMM_EXTENSION.search(member.rpartition(b"/")[2].decode())
    return match[1].lower() if match else ""


def _natural(name: bytes) -> tuple[list[list[bytes | tuple[int, bytes]]], bytes]:
    """The sort key of discs: folder by folder, without the extension ("Game" before "Game 2"),
    numbers by value, ASCII letters without case; then by the bytes of the name."""
    folder, slash, base = name.rpartition(b"/")
    path = folder + slash + _split(base)[0]
    return [_pieces(component) for component in path.lower().split(b"/")], name


def _pieces(component: bytes) -> list[bytes | tuple[int, bytes]]:
    """Text and numbers alternately, so that two results can be compared."""
    return [
        # Not `int`, which is limited to 4300 digits.
        (len(value := piece.lstrip(b"0")), value) if number % 2 else piece
        for number, piece in enumerate(re.split(rb"([0-9]+)", component))
    ]
