"""Which folders are games, which of their files belong, and what archives are called.

Pure: it judges names and paths that somebody else found. Paths are bytes,
relative to the library, ``/``-separated, ``b""`` for the library itself.

:class:`Selection` is the general policy. Another one (a front end's own rules)
is another class with the same methods; nothing else needs to know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property
from typing import Final, Protocol

STRUCTURES: Final = (b"roms/*/*", b"*/roms/*", b"*/*")
"""The known shapes of a library, tried in this order (see :func:`detect`)."""

PLATFORM: Final = b"{platform}"
"""The component of a glob that stands for the platform."""
_WILDCARD: Final = re.compile(rb"[*?[]")

LITTER_FOLDERS: Final = (
    "@eaDir",  # Synology: thumbnails and metadata
    "#recycle",  # Synology: bin
    "#snapshot",  # Synology: snapshots
    "__MACOSX",  # left by unpacking an archive made on macOS
    ".AppleDouble",  # netatalk: resource forks
    ".TemporaryItems",  # macOS
    ".Trashes",  # macOS: bin
    ".Trash-*",  # freedesktop.org: bin
    ".Spotlight-V100",  # macOS: search index
    ".fseventsd",  # macOS: event log
    ".DocumentRevisions-V100",  # macOS: versions
    ".stfolder",  # Syncthing: marker
    ".stversions",  # Syncthing: old versions
    "$RECYCLE.BIN",  # Windows: bin
    "System Volume Information",  # Windows
    "lost+found",  # ext2 and its heirs
)
LITTER_FILES: Final = (
    ".DS_Store",  # macOS: view settings
    "._*",  # macOS: resource fork on a foreign file system
    ".localized",  # macOS
    ".LSOverride",  # macOS
    ".VolumeIcon.icns",  # macOS
    ".Trashes",  # macOS, as a file
    ".stfolder",  # Syncthing, as a file
    "Thumbs.db",  # Windows: thumbnails
    "ehthumbs.db",  # Windows Media Center: thumbnails
    "desktop.ini",  # Windows: view settings
    "*:Zone.Identifier",  # Windows: "came from the web"
    "@SynoResource",  # Synology
    "@SynoEAStream",  # Synology
    ".directory",  # KDE: view settings
    ".nfs[0-9a-f]*",  # NFS: a file that was deleted while open
    ".fuse_hidden*",  # libfuse: the same
    ".syncthing.*.tmp",  # Syncthing: a transfer in progress
)


class Policy(Protocol):
    """What the catalog asks of a selection."""

    def is_game(self, path: bytes) -> bool:
        """Whether the folder at *path* is a game, by its place."""

    def may_hold_games(self, path: bytes) -> bool:
        """Whether a folder below the one at *path* could be a game."""

    def platform(self, game: bytes) -> bytes | None:
        """The name of the folder that stands for the platform of *game*, if any does."""

    def takes_folder(self, name: bytes) -> bool:
        """Whether a sub-folder called *name* belongs to its game."""

    def takes_file(self, name: bytes) -> bool:
        """Whether a file called *name* belongs to its game."""


def detect(has: Callable[[bytes], bool], folders: Iterable[bytes]) -> bytes:
    """The structure of a library, one of :data:`STRUCTURES`.

    *has* tells whether there is a folder at a path, *folders* are the names of
    those in the library: ``roms/*/*`` if there is ``roms``, else ``*/roms/*`` if
    any has ``roms`` in it, else ``*/*``.
    """
    if has(b"roms"):
        return STRUCTURES[0]
    if any(has(folder + b"/roms") for folder in folders):
        return STRUCTURES[1]
    return STRUCTURES[2]


def _pattern(component: bytes) -> re.Pattern[str]:
    return re.compile(translate("*" if component == PLATFORM else _text(component)))


def _split(glob: bytes) -> list[bytes]:
    return glob.strip(b"/").split(b"/")


def _platform(glob: Sequence[bytes], components: Sequence[bytes]) -> bytes | None:
    """The one of *components*, which *glob* matches, that stands for the platform."""
    wild = [n for n, part in enumerate(glob[:-1]) if part != b"**" and _WILDCARD.search(part)]
    marked = [n for n, part in enumerate(glob) if part == PLATFORM]
    place = max(marked or wild, default=None)
    if place is None:
        return None
    if b"**" in glob[:place]:
        if b"**" in glob[place:]:
            return None
        place += len(components) - len(glob)
    # Where a `**` matches nothing, it may be the game itself.
    return components[place] if place < len(components) - 1 else None


def _text(raw: bytes) -> str:
    # One character each, as a person counts them, so that ``?`` and ``[...]`` match
    # a letter beyond ASCII; what isn't UTF-8 is one a byte, so any bytes can be matched.
    return raw.decode("utf-8", "surrogateescape")


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    # ASCII: otherwise a long s (U+017F) is an "s" whose case was ignored.
    return re.compile("|".join(map(translate, patterns)), re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Selection:
    """The general policy: games by glob, no operating system's litter in archives.

    *globs* are relative to the library; ``*``, ``?`` and ``[...]`` match within a
    component, ``**`` any number of components. ``{platform}`` is a ``*`` that stands for
    the platform.
    """

    globs: Sequence[bytes]

    def is_game(self, path: bytes) -> bool:
        components = path.split(b"/") if path else []
        return any(_matches(glob, components) for glob in self._compiled) and not any(
            map(self._is_litter_folder, components)
        )

    def may_hold_games(self, path: bytes) -> bool:
        components = path.split(b"/") if path else []
        if any(map(self._is_litter_folder, components)):
            return False
        return any(_is_prefix(glob, components) for glob in self._compiled)

    def platform(self, game: bytes) -> bytes | None:
        """What ``{platform}`` matches, or the last wildcard before the game's own component.

        None if the glob that *game* matches has neither, or doesn't tell, between two ``**``,
        which component that is.
        """
        components = game.split(b"/")
        for glob, compiled in zip(self.globs, self._compiled, strict=True):
            if _matches(compiled, components):
                return _platform(_split(glob), components)
        return None

    def takes_folder(self, name: bytes) -> bool:
        return not self._is_litter_folder(name)

    def takes_file(self, name: bytes) -> bool:
        return not self._litter_files.match(_text(name))

    def _is_litter_folder(self, name: bytes) -> bool:
        return bool(self._litter_folders.match(_text(name)))

    @cached_property
    def _compiled(self) -> list[list[re.Pattern[str] | None]]:
        return [
            [None if component == b"**" else _pattern(component) for component in _split(glob)]
            for glob in self.globs
        ]

    @cached_property
    def _litter_folders(self) -> re.Pattern[str]:
        return _any_of(LITTER_FOLDERS)

    @cached_property
    def _litter_files(self) -> re.Pattern[str]:
        return _any_of(LITTER_FILES)


def _matches(glob: Sequence[re.Pattern[str] | None], components: Sequence[bytes]) -> bool:
    """Whether *glob* matches all of *components*; ``None`` in it is ``**``."""
    if not glob:
        return not components
    if glob[0] is None:
        return any(_matches(glob[1:], components[n:]) for n in range(len(components) + 1))
    return (
        bool(components)
        and bool(glob[0].match(_text(components[0])))
        and _matches(glob[1:], components[1:])
    )


def _is_prefix(glob: Sequence[re.Pattern[str] | None], components: Sequence[bytes]) -> bool:
    """Whether *glob* could match something below *components*."""
    if not components:
        return bool(glob)
    if not glob:
        return False
    if glob[0] is None:
        return True
    return bool(glob[0].match(_text(components[0]))) and _is_prefix(glob[1:], components[1:])


def archive_name(folder: bytes, exists: Callable[[bytes], bool]) -> bytes:
    """What the archive of the game *folder* is called beside it.

    ``NAME.zip``; if the library has that name already, its own keeps it and the
    archive is ``NAME (folder).zip``, then ``NAME (folder 2).zip`` and so on.
    *exists* tells whether the library has a name there.
    """
    name = folder + b".zip"
    number = 1
    # An alternative may be the proper name of another folder's archive.
    while exists(name) or (number > 1 and exists(name.removesuffix(b".zip"))):
        name = folder + (b" (folder).zip" if number == 1 else b" (folder %d).zip" % number)
        number += 1
    return name


_ALTERNATIVE: Final = re.compile(rb"(.+) \(folder(?: [2-9]| [1-9][0-9]+)?\)\.zip", re.DOTALL)


def folders_of(name: bytes) -> list[bytes]:
    """Which folders' archives could be called *name* (see :func:`archive_name`)."""
    folders = []
    if name.endswith(b".zip") and len(name) > len(b".zip"):
        folders.append(name[: -len(b".zip")])
    if match := _ALTERNATIVE.fullmatch(name):
        folders.append(match[1])
    return folders
