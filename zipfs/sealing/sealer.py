"""From a game folder to its archive: looking, checking, putting together.

:meth:`Sealer.examine` says what a game is right now. It is *sealed*, and only
then has an archive, if the checksums of all members are known for the very states
they are in, and nothing in the folder changed for the settle time (DESIGN S1).

Everything here may touch the disk: call it from a worker thread.
"""

from __future__ import annotations

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

_NAME_MAX: Final = 255  # of every file system that somebody will copy an archive to
_NANOSECONDS: Final = 1_000_000_000
_SHORT: Final = 0.05
"""Seconds of a look that count as none."""
_MAPPED_SAID: Final = 10
"""How many files with other names in an archive are told by name."""


class Sealer:
    """Examines games of *library* with the checksums of *index*.

    *globs*, *patterns* and *rules* say which folders are games, and what belongs to them
    (:class:`zipfs.library.policy.Policies`). *settle* is in seconds. With
    *trust_mtime*, checksums hold for a file of which only ctime has changed, until
    they are made anew. *style* says how archives state names and dates, *playlists* which of
    them get a member more.
    """

    fewest: ClassVar[int] = 2
    """How many files make a game."""

    def __init__(  # noqa: PLR0913 - each is a choice of its own, all but a few by default
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
        """By which games are found and files taken; another one as soon as there is reason."""
        return self._policies.policy

    @property
    def rules(self) -> Rules | None:
        """RomM's, if it is by those."""
        return self._policies.rules

    def adopt(self, rules: Rules) -> None:
        """Go by other *rules* of RomM from now on."""
        self._policies.adopt(rules)

    def detect(self) -> None:
        """Find out the library's structure, again if need be."""
        self._policies.detect()

    def mark_unreadable(self, file: SourceFile) -> None:
        """Leave *file* out while it is in this state: opening it was refused."""
        with self._lock:
            self._unreadable[file.source] = file.state

    def archive_path(self, game: bytes, source: bytes) -> bytes:
        """Where in the mount the archive of the game at path *game* belongs.

        *source* is the game's folder; the archive's name has to be free where
        the game is shown, beside it.
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
        """What the game at the path *game*, with its folder at *source*, is now.

        *before* is the last examination of it, *origins* are those of the folder.
        A :class:`Version` comes with it if the game is sealed and either *whole* is
        asked for or it is new.
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
            return Examination(started, b"", started, Absent(reason), left_out=left_out), None
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
        elif not sealed and (seconds := self._unsettled(scan, clock_ns, started - first_seen)) > 0:
            outcome = Unsettled(seconds)
        elif scan.problem:
            # Only now: what is being written is wrong for a while.
            self._once.warning("there is no %s: %s", shown(archive), scan.problem, of=fingerprint)
            outcome = Impossible(scan.problem)
        else:
            outcome, version, unsure = self._assemble(archive, scan)
        took = time.monotonic() - started
        if took < _SHORT:
            took = 0.0  # the same for all, and not a number each
        left_out = tuple(_left_out(game, scan, refused, outcome, self.fewest))
        return Examination(
            started, fingerprint, first_seen, outcome, took, unsure, left_out
        ), version

    def _is_too_long(self, archive: bytes, scan: GameScan) -> bool:
        """Whether no file could have the name of *archive*: its game stays a folder."""
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
        """What is there in place of an archive."""
        if scan.owns_folder:
            return Plain(scan.status)
        return Unneeded(scan.objection(self.fewest) or "its name would be too long")

    def _without_refused(self, scan: GameScan) -> tuple[GameScan, list[LeftOut]]:
        """*scan* without the files that were refused to us, and those."""
        with self._lock:
            if not self._unreadable:
                return scan, []
            refused = [f for f in scan.files if self._unreadable.get(f.source) == f.state]
            scan = scan.without(lambda file: self._unreadable.get(file.source) == file.state)
        return scan, [LeftOut(file.source, "a file that can't be read") for file in refused]

    def _unsettled(self, scan: GameScan, clock_ns: int, known: float) -> float:
        """Seconds until the folder has been still for the settle time; 0 if it has.

        That is, when the look at it began, at *clock_ns*: what changes meanwhile may be
        seen in one place and missed in another, and the two never were together.

        Either its youngest time is that old by the clock, or it was seen to be
        the same for that long (*known* seconds): a clock that was set back, and dates in the
        future, only cost the wait.
        """
        watched = self.settle - known
        changed = scan.written_ns if self._trust_mtime else scan.changed_ns
        age = (clock_ns - changed) / _NANOSECONDS
        aged = self.settle - age if age >= 0 else watched
        return max(0.0, min(watched, aged))

    def _assemble(
        self, archive: bytes, scan: GameScan
    ) -> tuple[Outcome, Version | None, tuple[SourceFile, ...]]:
        records = self.index.files([file.source for file in scan.files])
        missing = []
        unsure = []
        known: dict[bytes, Checksums] = {}
        for file in scan.files:
            record = records.get(file.source)
            if record and record[0] == file.state:
                known[file.source] = record[1]
            elif record and self._trust_mtime and file.state.differs_in_ctime_only(record[0]):
                known[file.source] = record[1]
                unsure.append(file)
            else:
                missing.append(file)
        if missing:
            return Unhashed(tuple(missing)), None, ()
        try:
            version = self._version(archive, scan, known)
        except (LayoutError, ValueError) as error:
            self._once.warning("%s can't be made: %s", shown(archive), error)
            return Impossible(str(error)), None, ()
        return version.sealed, version, tuple(unsure)

    def _version(self, archive: bytes, scan: GameScan, known: dict[bytes, Checksums]) -> Version:
        names = names_of(scan, self._style)
        mapped = [(path, name) for path, name in names.items() if path != name]
        for path, name in mapped[:_MAPPED_SAID]:
            self._once.warning("in %s, %s is called %s", shown(archive), shown(path), shown(name))
        if more := len(mapped[_MAPPED_SAID:]):
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
        return Version(sealed, layout, files, digests, scan.left_out)


def _left_out(
    game: bytes, scan: GameScan, refused: Iterable[LeftOut], outcome: Outcome, fewest: int
) -> Iterator[LeftOut]:
    """What of *game* isn't shown as it should be: its folders, its files, or all of it."""
    if scan.owns_folder:
        yield from scan.left_out
        yield from refused
    if isinstance(outcome, Impossible):
        yield LeftOut(game, f"no archive: {outcome.reason}")
    elif isinstance(outcome, Plain | Unneeded) and scan.is_archive(fewest):
        yield LeftOut(game, f"no archive: its name would have more than {_NAME_MAX} bytes")


def _parent_source(library: LibraryView, folder: bytes, game: bytes, source: bytes) -> bytes:
    """The source of the folder in which the path *game* is."""
    if game == source:
        return folder
    absolute = os.path.realpath(library.absolute(folder))
    if absolute == library.root or not is_within(absolute, library.root):
        return b""  # a link that leads out has come into the way this moment
    return os.path.relpath(absolute, library.root)
