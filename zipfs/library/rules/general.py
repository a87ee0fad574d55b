"""Which folders are games, which files belong to them, and the names of archives.

Pure: it decides by names and paths only. Paths are bytes, relative to the library,
``/``-separated, ``b""`` for the library itself.

:class:`Selection` is the general policy. Another policy (the rules of a front end, such as
:mod:`zipfs.library.rules.romm`) is another class that implements :class:`Policy`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Protocol

from zipfs.library.rules.globs import (
    Compiled,
    Patterns,
    any_of,
    compiled,
    is_prefix,
    matches,
    platform_of,
    split,
    text,
)

STRUCTURES: Final = (b"roms/*/*", b"*/roms/*", b"*/*")
"""The known structures of a library, in the order in which :func:`detect` tries them."""

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
    """Which folders of a library are games, and which files belong to them."""

    @property
    def follows_folder_links(self) -> bool:
        """Whether links to folders within a game are followed."""

    def is_game(self, path: bytes) -> bool:
        """Whether the folder at *path* is a game."""

    def may_hold_games(self, path: bytes) -> bool:
        """Whether a folder below *path* could be a game."""

    def platform(self, game: bytes) -> bytes | None:
        """The name of the platform's folder on the path *game*, if there is one."""

    def takes_folder(self, path: bytes) -> bool:
        """Whether the folder at *path*, within a game, belongs to it."""

    def takes_file(self, path: bytes) -> bool:
        """Whether the file at *path*, within a game, belongs to it."""

    def is_empty(self, left: Iterable[tuple[bytes, bool]]) -> bool:
        """Whether a folder within a game is one of its empty folders.

        *left* is what is in the folder and doesn't belong to the game: name, and whether it is a
        folder. There is nothing else in it.
        """


@dataclass(frozen=True)
class PolicyDecorator:
    """Forwards everything to *policy*; a subclass overrides what it adds."""

    policy: Policy

    @property
    def follows_folder_links(self) -> bool:
        return self.policy.follows_folder_links

    def is_game(self, path: bytes) -> bool:
        return self.policy.is_game(path)

    def may_hold_games(self, path: bytes) -> bool:
        return self.policy.may_hold_games(path)

    def platform(self, game: bytes) -> bytes | None:
        return self.policy.platform(game)

    def takes_folder(self, path: bytes) -> bool:
        return self.policy.takes_folder(path)

    def takes_file(self, path: bytes) -> bool:
        return self.policy.takes_file(path)

    def is_empty(self, left: Iterable[tuple[bytes, bool]]) -> bool:
        return self.policy.is_empty(left)


def detect(has: Callable[[bytes], bool], folders: Iterable[bytes]) -> bytes:
    """The structure of a library, one of :data:`STRUCTURES`.

    ``roms/*/*`` if it has a folder ``roms``, else ``*/roms/*`` if one of its folders has, else
    ``*/*``. *has* returns whether there is a folder at a path; *folders* are the names of the
    folders in the library.
    """
    if has(b"roms"):
        return STRUCTURES[0]
    if any(has(folder + b"/roms") for folder in folders):
        return STRUCTURES[1]
    return STRUCTURES[2]


@dataclass(frozen=True)
class Selection:
    """The general policy: games by glob, without the files that operating systems create.

    *globs* are relative to the library (see :mod:`zipfs.library.rules.globs`). *patterns* take
    precedence over :data:`LITTER_FOLDERS` and :data:`LITTER_FILES`.
    """

    globs: Sequence[bytes]
    patterns: Patterns = field(default_factory=Patterns)

    @property
    def follows_folder_links(self) -> bool:
        return True

    def is_game(self, path: bytes) -> bool:
        components = split(path)
        return any(matches(glob, components) for glob in self._compiled) and self._allows(
            components
        )

    def may_hold_games(self, path: bytes) -> bool:
        components = split(path)
        return self._allows(components) and any(
            is_prefix(glob, components) for glob in self._compiled
        )

    def platform(self, game: bytes) -> bytes | None:
        components = split(game)
        for glob, pattern in zip(self.globs, self._compiled, strict=True):
            if matches(pattern, components):
                return platform_of(glob, components)
        return None

    def takes_folder(self, path: bytes) -> bool:
        verdict = self.patterns.verdict(path)
        return not self._is_litter_folder(_name(path)) if verdict is None else verdict

    def takes_file(self, path: bytes) -> bool:
        verdict = self.patterns.verdict(path)
        return not self._is_litter_file(_name(path)) if verdict is None else verdict

    def is_empty(self, left: Iterable[tuple[bytes, bool]]) -> bool:
        # Litter comes and goes while people look around. What the user excludes is there.
        return all(
            self._is_litter_folder(name) if is_folder else self._is_litter_file(name)
            for name, is_folder in left
        )

    def _allows(self, components: Sequence[bytes]) -> bool:
        return self.patterns.allow(
            components, lambda number: not self._is_litter_folder(components[number])
        )

    def _is_litter_folder(self, name: bytes) -> bool:
        return bool(self._litter_folders.match(text(name)))

    def _is_litter_file(self, name: bytes) -> bool:
        return bool(self._litter_files.match(text(name)))

    @cached_property
    def _compiled(self) -> list[Compiled]:
        return [compiled(glob) for glob in self.globs]

    @cached_property
    def _litter_folders(self) -> re.Pattern[str]:
        return any_of(LITTER_FOLDERS)

    @cached_property
    def _litter_files(self) -> re.Pattern[str]:
        return any_of(LITTER_FILES)


@dataclass(frozen=True)
class Undecided(Selection):
    """The policy of a library whose structure can't be told yet, as it is empty: no games."""

    globs: Sequence[bytes] = ()

    def may_hold_games(self, path: bytes) -> bool:
        return True  # whatever comes may decide it


_LITTER: Final = any_of((*LITTER_FOLDERS, *LITTER_FILES))


def is_litter(name: bytes) -> bool:
    """Whether *name* is that of a file or folder which operating systems create."""
    return bool(_LITTER.match(text(name)))


def _name(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]


def archive_name(folder: bytes, exists: Callable[[bytes], bool]) -> bytes:
    """The name of the archive beside the game *folder*.

    ``NAME.zip``; if the library has that name itself, ``NAME (folder).zip``, then
    ``NAME (folder 2).zip`` and so on. *exists* returns whether the library has a name there.
    """
    name = folder + b".zip"
    number = 1
    # An alternative name may be the first choice of another folder's archive.
    while exists(name) or (number > 1 and exists(name.removesuffix(b".zip"))):
        name = folder + (b" (folder).zip" if number == 1 else b" (folder %d).zip" % number)
        number += 1
    return name


_ALTERNATIVE: Final = re.compile(rb"(.+) \(folder(?: [2-9]| [1-9][0-9]+)?\)\.zip", re.DOTALL)


def folders_of(name: bytes) -> list[bytes]:
    """The folders whose archives could have *name* (see :func:`archive_name`)."""
    folders = []
    if name.endswith(b".zip") and len(name) > len(b".zip"):
        folders.append(name[: -len(b".zip")])
    if match := _ALTERNATIVE.fullmatch(name):
        folders.append(match[1])
    return folders


def prefixes(path: bytes) -> Iterator[bytes]:
    """The folders above *path*, from the outermost, and *path* itself."""
    at = path.find(b"/")
    while at != -1:
        yield path[:at]
        at = path.find(b"/", at + 1)
    yield path
