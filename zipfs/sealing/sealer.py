"""From a game to its archive.

:meth:`Sealer.examine` scans a game and returns what it is now. It is *sealed*, and only then
has an archive, if the checksums of all files are known for their current states, and nothing
in the game has changed for the settle time (DESIGN S1).

Everything here may touch the disk: call it from a worker thread.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from typing import ClassVar, Final

from zipfs.archive import validators
from zipfs.archive.layout import Layout
from zipfs.errors import LayoutError
from zipfs.index.index import Index
from zipfs.library.filestate import Checksums, FileState
from zipfs.library.policy import Policies
from zipfs.library.rules.general import Policy, archive_name
from zipfs.library.rules.globs import Patterns
from zipfs.library.rules.playlists import Playlists
from zipfs.library.rules.romm import Rules
from zipfs.library.scan import GameScan, LeftOut, Origins, SourceFile
from zipfs.library.view import LibraryView
from zipfs.logs import Once
from zipfs.sealing.members import Style, assemble, names_of
from zipfs.sealing.outcomes import (
    Absent,
    Examination,
    Impossible,
    Outcome,
    Plain,
    Sealed,
    Unhashed,
    Unneeded,
    Unsettled,
    Version,
)
from zipfs.system.paths import is_within
from zipfs.text import shown

log = logging.getLogger(__name__)

_NAME_MAX: Final = 255  # bytes, on every file system to which archives are copied
_NANOSECONDS: Final = 1_000_000_000
_SHORT: Final = 0.05
"""An examination shorter than this, in seconds, is recorded as taking none."""
_MAPPED_LOGGED: Final = 10
"""Maximum number of renamed members of an archive that are logged one by one."""


class Sealer:
    """Examines games of *library* with the checksums of *index*.

    *globs*, *patterns* and *rules* determine which folders are games, and which files belong to
    them (:class:`zipfs.library.policy.Policies`). *settle* is the settle time in seconds. With
    *trust_mtime*, if a file has the same size and mtime, its checksums are used until it has been
    hashed again. *style* is how archives state names and dates, *playlists* which of them
    get a playlist.
    """

    fewest: ClassVar[int] = 2
    """Minimum number of files of a game that has an archive."""

    def __init__(  # noqa: PLR0913 - independent options, most with a default
        self,
        library: LibraryView,
        index: Index,
        *,
        globs: tuple[bytes, ...] = (),
        patterns: Patterns = Patterns(),  # noqa: B008 - immutable
        rules: Rules | None = None,
        settle: float,
        trust_mtime: bool = False,
        style: Style = Style(),  # noqa: B008 - immutable
        playlists: Playlists = Playlists(),  # noqa: B008 - immutable
    ) -> None:
        self.library = library
        self.index = index
        self.settle = settle
        self._trust_mtime = trust_mtime
        self._style = style
        self._playlists = playlists
        self._once = Once(log)
        self._lock = threading.Lock()
        self._unreadable: dict[bytes, FileState] = {}
        self._policies = Policies(library, globs, patterns, rules)

    @property
    def policy(self) -> Policy:
        """Which folders are games and which files belong; replaced when it changes."""
        return self._policies.policy

    @property
    def rules(self) -> Rules | None:
        """The rules of RomM, if the policy is RomM's."""
        return self._policies.rules

    def adopt(self, rules: Rules) -> None:
        """Replace the rules of RomM by *rules*."""
        self._policies.adopt(rules)

    def detect(self) -> None:
        """Detect the library's structure again."""
        self._policies.detect()

    def decide(self) -> None:
        """Detect it if there was nothing yet to detect it by."""
        if not self._policies.is_decided:
            self._policies.detect()

    def mark_unreadable(self, file: SourceFile) -> None:
        """Skip *file*, which can't be opened, as long as it is in this state."""
        with self._lock:
            self._unreadable[file.source] = file.state

    def archive_path(self, game: bytes, source: bytes) -> bytes:
        """The path in the mount of the archive of the game at the path *game*.

        *source* is the game's folder. The name isn't taken in the folder that shows the game.
        """
        folder, _, name = game.rpartition(b"/")
        beside = _parent_source(self.library, folder, game, source)
        prefix = beside + b"/" if beside else b""
        found = archive_name(name, lambda other: self.library.exists(prefix + other))
        return folder + b"/" + found if folder else found

    def examine(
        self,
        game: bytes,
        source: bytes,
        before: Examination | None = None,
        *,
        origins: Origins = frozenset(),
        whole: bool = False,
    ) -> tuple[Examination, Version | None]:
        """Examine the game at the path *game*, with its folder at *source*.

        *before* is its previous examination, *origins* are those of the folder. The
        :class:`Version` is returned if the game is sealed, and either that is new or *whole*
        is true.
        """
        started = time.monotonic()
        clock_ns = time.time_ns()
        try:
            scan = self.library.scan(source, self.policy, origins, path=game)
        except (FileNotFoundError, NotADirectoryError):
            return Examination(started, b"", started, Absent()), None
        except OSError as error:
            reason = f"can't be listed: {error.strerror}"
            self._once.warning("%s %s; left out", shown(game), reason)
            left_out: tuple[LeftOut, ...] = (LeftOut(game, reason),)
            absent = Absent(reason, temporary=not isinstance(error, PermissionError))
            return Examination(started, b"", started, absent, left_out=left_out), None
        scan, refused = self._without_refused(scan)
        for path, reason in scan.left_out:
            self._once.warning("%s is left out: %s", shown(path), reason)
        archive = self.archive_path(game, source)
        fingerprint = scan.fingerprint()
        if before is None or before.fingerprint != fingerprint:
            before = None
        first_seen = before.first_seen if before else started
        version = None
        unsure: tuple[SourceFile, ...] = before.unsure if before else ()
        outcome: Outcome
        sealed = before.outcome if before and isinstance(before.outcome, Sealed) else None
        if sealed and sealed.path == archive and not whole and not unsure:
            outcome = sealed
        elif not scan.is_archive(self.fewest) or self._is_too_long(archive, scan):
            outcome = self._unarchived(scan)
        elif not (sealed or scan.is_whole) and (
            (seconds := self._unsettled(self._changed(scan), clock_ns, started - first_seen)) > 0
        ):
            outcome = Unsettled(seconds)
        elif scan.problem:
            # Only once it has settled: a list is wrong while it is being written.
            self._once.warning("there is no %s: %s", shown(archive), scan.problem, of=fingerprint)
            outcome = Impossible(scan.problem)
        else:
            outcome, version, unsure = self._assemble(archive, scan)
            if isinstance(outcome, Unhashed) and scan.is_whole and not sealed:
                # Its files have to settle before they are hashed (S1).
                changed = self._changed(outcome.missing)
                if (seconds := self._unsettled(changed, clock_ns, started - first_seen)) > 0:
                    outcome = Unsettled(seconds)
        took = time.monotonic() - started
        if took < _SHORT:
            took = 0.0  # one shared object instead of one number for each game
        left_out = tuple(_left_out(game, scan, refused, outcome, self.fewest))
        return Examination(
            started, fingerprint, first_seen, outcome, took, unsure, left_out
        ), version

    def _is_too_long(self, archive: bytes, scan: GameScan) -> bool:
        """Whether the name of *archive* is longer than file systems allow."""
        if len(archive.rpartition(b"/")[2]) <= _NAME_MAX:
            return False
        self._once.warning(
            "%s would be a name of more than %d bytes; %s",
            shown(archive),
            _NAME_MAX,
            "its folder is shown as it is" if scan.owns_folder else "it isn't there",
        )
        return True

    def _unarchived(self, scan: GameScan) -> Plain | Unneeded:
        """The outcome for a game without an archive."""
        if scan.owns_folder:
            return Plain(scan.status)
        return Unneeded(scan.objection(self.fewest) or "its name would be too long")

    def _without_refused(self, scan: GameScan) -> tuple[GameScan, list[LeftOut]]:
        """*scan* without the files that couldn't be opened, and those files."""
        with self._lock:
            if not self._unreadable:
                return scan, []
            refused = [f for f in scan.files if self._unreadable.get(f.source) == f.state]
            scan = scan.without(lambda file: self._unreadable.get(file.source) == file.state)
        return scan, [LeftOut(file.source, "a file that can't be read") for file in refused]

    def _changed(self, of: GameScan | tuple[SourceFile, ...]) -> int:
        """When the game, or any of the files, last changed; nanoseconds since the epoch."""
        if isinstance(of, GameScan):
            return of.written_ns if self._trust_mtime else of.changed_ns
        states = [file.state for file in of]
        return max(state.mtime_ns if self._trust_mtime else state.changed_ns for state in states)

    def _unsettled(self, changed_ns: int, clock_ns: int, known: float) -> float:
        """Seconds until what changed at *changed_ns* is settled; 0 if it is.

        Up to the beginning of the scan, at *clock_ns*: a change during the scan can be in one
        part of it and not in another, a combination that never existed.

        Either its newest time is old enough by the clock, or it has had the same fingerprint for
        *known* seconds. So if the clock was set back, or dates are in the future, the game
        settles by the second rule.
        """
        by_fingerprint = self.settle - known
        age = (clock_ns - changed_ns) / _NANOSECONDS
        by_clock = self.settle - age if age >= 0 else by_fingerprint
        return max(0.0, min(by_fingerprint, by_clock))

    def _assemble(
        self, archive: bytes, scan: GameScan
    ) -> tuple[Outcome, Version | None, tuple[SourceFile, ...]]:
        records = self.index.files([file.source for file in scan.files])
        missing = []
        unsure = []
        known: dict[bytes, Checksums] = {}
        for file in scan.files:
            record = records.get(file.source)
            if record is None:
                missing.append(file)
                continue
            hashed = file.state.measure(record[0])
            if hashed == file.state or (
                # Its inode didn't last, which says nothing of its content.
                file.by_content and hashed.without(inode=True) == file.state.without(inode=True)
            ):
                known[file.source] = record[1]
            elif (self._trust_mtime and hashed.has_content_of(file.state)) or (
                hashed.without(inode=True) == file.state.without(inode=True)
            ):
                known[file.source] = record[1]
                unsure.append(file)
            else:
                missing.append(file)
        if missing:
            return Unhashed(tuple(missing)), None, ()
        if unsure:
            # Until they have been hashed in this state, it doesn't vouch for them.
            proven = {id(file): dataclasses.replace(file, by_content=True) for file in unsure}
            scan = dataclasses.replace(
                scan, files=tuple(proven.get(id(file), file) for file in scan.files)
            )
        try:
            version = self._version(archive, scan, known)
        except (LayoutError, ValueError) as error:
            self._once.warning("%s can't be made: %s", shown(archive), error)
            return Impossible(str(error)), None, ()
        return version.sealed, version, tuple(unsure)

    def _version(self, archive: bytes, scan: GameScan, known: dict[bytes, Checksums]) -> Version:
        names = names_of(scan, self._style)
        mapped = [(path, name) for path, name in names.items() if path != name]
        for path, name in mapped[:_MAPPED_LOGGED]:
            self._once.warning("in %s, %s is called %s", shown(archive), shown(path), shown(name))
        if more := len(mapped[_MAPPED_LOGGED:]):
            self._once.warning(
                "in %s, %d more have other names; `zipfs inspect` shows them", shown(archive), more
            )
        members, files, inline = assemble(
            scan,
            names,
            known,
            self._style,
            playlists=self._playlists,
            platform=self.policy.platform(scan.game),
        )
        layout = Layout(members, inline)
        digests = tuple(known[file.source].digest for file in files)
        content = validators.content_id(layout, digests)
        newest = validators.date(layout)
        seconds = self.index.issue(
            archive, content, lambda taken: validators.resolve_clash(newest, content, taken)
        )
        sealed = Sealed(
            path=archive,
            content=content,
            inode=validators.inode(b"archive", archive, content.to_bytes(16)),
            size=layout.size,
            mtime_ns=validators.mtime_ns(seconds, content),
            access=scan.access,
            count=len(members),
        )
        folders = {names[path] + b"/": path for path in scan.folders}
        return Version(sealed, layout, files, digests, scan.left_out, folders)


def _left_out(
    game: bytes, scan: GameScan, refused: Iterable[LeftOut], outcome: Outcome, fewest: int
) -> Iterator[LeftOut]:
    """The skipped paths of *game*: files, folders, or the archive itself."""
    if scan.owns_folder:
        yield from scan.left_out
        yield from refused
    if isinstance(outcome, Impossible):
        yield LeftOut(game, f"no archive: {outcome.reason}")
    elif isinstance(outcome, Plain | Unneeded) and scan.is_archive(fewest):
        yield LeftOut(game, f"no archive: its name would have more than {_NAME_MAX} bytes")


def _parent_source(library: LibraryView, folder: bytes, game: bytes, source: bytes) -> bytes:
    """The source of *folder*, the parent of the path *game*."""
    if game == source:
        return folder
    absolute = os.path.realpath(library.absolute(folder))
    if absolute == library.root or not is_within(absolute, library.root):
        return b""  # by now a link that leads out of the library
    return os.path.relpath(absolute, library.root)
