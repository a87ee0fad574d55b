"""``zipfs.open_archive``: from a folder to a file object, without a mount.

The call scans the folder, hashes what isn't in the index and builds the archive, with the same
:class:`zipfs.sealing.sealer.Sealer` as the mount, so that the bytes are the same. Here any folder
with at least one file is a game.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from zipfs.errors import IndexFileError, LayoutError, LibraryError, NotSealedError
from zipfs.index.index import Index
from zipfs.index.indexfile import IN_MEMORY
from zipfs.index.rows import Made, Record
from zipfs.library.filestate import BLOCK, MIN_SETTLE
from zipfs.library.library import Library
from zipfs.library.policy import load_rules
from zipfs.library.rules.globs import Patterns, check_placeholders, check_relative, platform_names
from zipfs.library.rules.playlists import Playlists, platforms_named
from zipfs.library.rules.romm import Rules
from zipfs.library.scan import Entry, LeftOut, SourceFile
from zipfs.sealing.archivefile import ArchiveFile
from zipfs.sealing.members import Style
from zipfs.sealing.offline import FoundGame, Progress, Summary, seal_all
from zipfs.sealing.outcomes import Absent, Examination, Impossible, Plain, Version
from zipfs.sealing.sealer import Sealer
from zipfs.system.paths import slashed

if TYPE_CHECKING:
    from zipfs.config import SelectionName, Timestamps
    from zipfs.config_variants import PlaylistMode

log = logging.getLogger(__name__)

_BY_ITSELF: Final = (b"{platform}/*", b"*")
_SUFFIX: Final = b".zip"
StrPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def open_archive(  # noqa: PLR0913 - keywords; they are the mount's options, by their names
    folder: StrPath,
    *,
    library: StrPath | None = None,
    games: Sequence[str] = (),
    platform: str | None = None,
    index: StrPath | None = None,
    selection: SelectionName = "general",
    romm_config: StrPath | None = None,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    portable_names: bool = False,
    timestamps: Timestamps = "files",
    execute_bits: bool = False,
    playlists: PlaylistMode = "discs",
    playlist_platforms: Sequence[str] = ("default",),
    settle: float = 2.0,
    progress: Progress | None = None,
) -> ArchiveFile:
    """The archive of *folder*, as a seekable, read-only binary file object.

    Bytes, size and date are those that ``zipfs mount`` shows with the same options. The call
    hashes all files whose checksums aren't in *index*, an SQLite file that is created if
    missing and can be a mount's; None: checksums aren't saved. *progress* receives the progress
    of hashing.

    *library* is the folder of a mount, and *folder* is in it: then links can lead anywhere in
    the library, and the mount's index can be used. Without it, links that leave *folder* are
    skipped, and one index can be used for any number of folders.

    *games*, *selection*, *romm_config*, *exclude*, *include*, *portable_names*,
    *timestamps*, *execute_bits*, *playlists* and *playlist_platforms* are the mount's options. In
    a *library*, a game's path determines its platform. For a single folder give *platform*, such
    as "psx"; without it there is no playlist of discs. *settle* is the settle time in seconds: the
    call waits until nothing in the folder has changed for so long.

    See :class:`ArchiveFile` for the attributes that a server needs (``size``, ``etag``,
    ``mtime`` and so on) and for the skipped paths. The caller closes it.

    Raises :exc:`ValueError` for an invalid option, and subclasses of ``zipfs.ZipfsError`` with
    one line for people: :exc:`ConfigError` for a *romm_config* that can't be used,
    :exc:`LibraryError` if there is no such folder, no file in it, or one that can't be read,
    :exc:`NotSealedError` if it keeps changing, :exc:`LayoutError` if no ZIP can hold it,
    :exc:`IndexFileError` for an index that can't be written.
    """
    if timestamps not in ("files", "fixed"):
        raise ValueError(f"timestamps are 'files' or 'fixed', not {timestamps!r}")
    if not settle >= MIN_SETTLE:
        raise ValueError(f"settle is at least {MIN_SETTLE} seconds, not {settle!r}")
    if playlists not in ("off", "romm", "discs"):
        raise ValueError(f"playlists are 'off', 'romm' or 'discs', not {playlists!r}")
    platforms = _checked(
        games=games, exclude=exclude, include=include, playlist_platforms=playlist_platforms
    )
    if platform is not None and platform_names([platform]) != (platform,):
        raise ValueError(f"platform {platform!r} isn't the name of one folder, like 'psx'")
    if selection not in ("general", "romm"):
        raise ValueError(f"selection is 'general' or 'romm', not {selection!r}")
    if romm_config is not None and selection != "romm":
        raise ValueError("romm_config is for selection='romm'")
    path = os.fsencode(folder)
    if library is None:
        if games:
            raise ValueError("games are found in a library: name that as well")
        shelf, game, prefix = _by_itself(path, os.fsencode(platform or ""))
        archive: bytes | None = game[0].rpartition(b"/")[2] + _SUFFIX
        globs: tuple[bytes, ...] = _BY_ITSELF
    else:
        if platform is not None:
            raise ValueError("in a library, a game's place tells its platform: leave it out")
        shelf, game = _in_library(path, os.fsencode(library))
        archive, prefix = None, b""
        globs = _encoded(games)
    file = IN_MEMORY if index is None else os.fsdecode(index)
    if file != IN_MEMORY and shelf.holds(file):
        raise IndexFileError(
            f"the index {file} would lie in {os.fsdecode(shelf.root)}, where zipfs writes nothing;"
            " name another place for it"
        )
    with closing(_PrefixedIndex(file, prefix)) as checksums:
        sealer = _Sealer(
            archive,
            shelf,
            checksums,
            globs=globs,
            patterns=Patterns(_encoded(exclude), _encoded(include)),
            rules=_rules(selection, romm_config),
            settle=settle,
            style=Style(
                portable_names=portable_names,
                fixed_times=timestamps == "fixed",
                execute_bits=execute_bits,
            ),
            playlists=Playlists(
                mode=playlists, platforms=platforms_named(map(os.fsencode, platforms))
            ),
        )
        summary = seal_all(sealer, [game], progress)
        examination, version = sealer.examine(
            game[0], game[1].source, origins=game[1].origins, whole=True
        )
        for problem in summary.problems:
            log.warning("%s", problem)
        if version is None:
            raise _refusal(path, archive or sealer.archive_path(game[0], game[1].source),
                           examination, summary)  # fmt: skip
        blocks = _blocks(version, checksums)
    return ArchiveFile(version, shelf.absolute, blocks, (*version.left_out, *sealer.refused))


def _checked(**lists: Sequence[str]) -> tuple[str, ...]:
    """Check all options that are *lists*; returns the names of the playlist platforms.

    Raises :exc:`ValueError`.
    """
    for name, value in lists.items():
        if isinstance(value, str):
            raise ValueError(f"{name} is a list, like [{value!r}]")
    for name in ("games", "exclude", "include"):
        for glob in lists[name]:
            check_relative(glob)
    for glob in lists["games"]:
        check_placeholders(glob)
    return platform_names(lists["playlist_platforms"])


def _encoded(patterns: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(map(os.fsencode, patterns))


def _rules(selection: str, config: StrPath | None) -> Rules | None:
    if selection != "romm":
        return None
    return Rules() if config is None else load_rules(os.fsdecode(config))


def _by_itself(folder: bytes, platform: bytes) -> tuple[Library, FoundGame, bytes]:
    """A library of *folder* alone, the game that is all of it, and its prefix in an index.

    The game's path is in a folder *platform*, if that isn't empty. The prefix tells apart the
    folders that share an index (:class:`_PrefixedIndex`).
    """
    if not os.path.isdir(folder):
        raise LibraryError(f"there is no folder {os.fsdecode(folder)}")
    library = Library(folder)
    name = os.path.basename(os.path.abspath(folder)) or b"archive"  # of "/", or "C:/"
    path = platform + b"/" + name if platform else name
    game = path, Entry(b"", os.stat(library.root))
    return library, game, library.absolute(b"")


def _in_library(folder: bytes, root: bytes) -> tuple[Library, FoundGame]:
    """The library at *root*, and the game at *folder* in it."""
    library = Library(root)
    here = os.path.abspath(folder)
    for absolute, base in (
        (here, os.path.abspath(root)),
        (here, library.root),
        (os.path.realpath(folder), library.root),
    ):
        path = slashed(absolute).removeprefix(slashed(base).rstrip(b"/") + b"/")
        if len(path) < len(absolute):
            break
    else:
        raise LibraryError(
            f"{os.fsdecode(folder)} isn't a folder in the library {os.fsdecode(root)}"
        )
    entry = Entry(b"", os.stat(library.root))
    for name in path.split(b"/"):
        source = entry.source + b"/" + name if entry.source else name
        found = library.entry(source, entry.origins)
        if isinstance(found, LeftOut):
            raise LibraryError(f"{os.fsdecode(folder)} isn't in the library: {found.reason}")
        if found is None or not found.is_folder:
            raise LibraryError(f"there is no folder {os.fsdecode(folder)}")
        entry = found
    return library, (path, entry)


def _refusal(
    folder: bytes, archive: bytes, examination: Examination, summary: Summary
) -> LibraryError | LayoutError | NotSealedError:
    """The error that says why *folder* has no archive."""
    name = os.fsdecode(folder)
    outcome = examination.outcome
    if isinstance(outcome, Impossible):
        return LayoutError(f"{name} has no archive: {outcome.reason}")
    if isinstance(outcome, Absent):
        return LibraryError(f"{name} {outcome.reason or 'went away'}")
    if isinstance(outcome, Plain):
        if len(os.path.basename(archive)) > 255:
            return LibraryError(f"{name} has too long a name for an archive; rename it")
        return LibraryError(f"{name} holds no file that could be in an archive")
    if summary.problems:
        return LibraryError(f"{name} has no archive: {summary.problems[-1]}")
    return NotSealedError(f"{name} keeps changing; try again when nothing changes")


def _blocks(version: Version, index: Index) -> dict[bytes, bytes]:
    """The checksums of blocks of all files of more than one block, by digest; 8 bytes a MiB."""
    found = {}
    for file, digest in zip(version.files, version.digests, strict=True):
        if file.state.size > BLOCK and (hashes := index.blocks(digest)):
            found[digest] = hashes
    return found


class _Sealer(Sealer):
    """Seals one folder, wherever it is, if it has at least one file.

    *archive* is the name of its archive; None: the name that the mount would give it.
    """

    fewest = 1

    def __init__(
        self,
        archive: bytes | None,
        library: Library,
        index: Index,
        **options: Any,
    ) -> None:
        super().__init__(library, index, **options)
        self._archive = archive
        self.refused: list[LeftOut] = []
        """Files that couldn't be opened."""

    def archive_path(self, game: bytes, source: bytes) -> bytes:
        return super().archive_path(game, source) if self._archive is None else self._archive

    def mark_unreadable(self, file: SourceFile) -> None:
        super().mark_unreadable(file)
        self.refused.append(LeftOut(file.source, "a file that can't be read"))


class _PrefixedIndex(Index):
    """An index that stores each path with *prefix* before it."""

    def __init__(self, file: str, prefix: bytes) -> None:
        super().__init__(file)
        self._prefix = prefix

    def files(self, paths: Iterable[bytes]) -> dict[bytes, Record]:
        cut = len(self._prefix)
        found = super().files([self._prefix + path for path in paths])
        return {path[cut:]: record for path, record in found.items()}

    def put_files(self, records: Mapping[bytes, Record]) -> None:
        super().put_files({self._prefix + path: record for path, record in records.items()})

    def put_games(self, games: Mapping[bytes, Made | None]) -> None:
        pass  # these are no games of a mount

    def issue(
        self, path: bytes, content: int, choose: Callable[[Callable[[int], bool]], int]
    ) -> int:
        return super().issue(self._prefix + path, content, choose)
