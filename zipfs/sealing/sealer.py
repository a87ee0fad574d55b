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
from collections.abc import Collection
from typing import ClassVar, Final

from zipfs.archive import validators
from zipfs.archive.layout import Layout
from zipfs.errors import LayoutError
from zipfs.index.index import Index, UnissuedError
from zipfs.index.rows import Made
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
    NAME_MAX,
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
    archive_inode,
    skipped_of,
)
from zipfs.sealing.remembered import Remembered, made_of, sealed_as
from zipfs.sealing.settling import Settling
from zipfs.system.paths import is_within, join
from zipfs.text import shown

log = logging.getLogger(__name__)

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
        self._settling = Settling(settle, trust_mtime)
        self._trust_mtime = trust_mtime
        self._style = style
        self._playlists = playlists
        self._remembered = Remembered(style, playlists.mode, frozenset(playlists.platforms))
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
        made: Made | None = None,
        beside: Collection[bytes] | None = None,
    ) -> tuple[Examination, Version | None]:
        """Examine the game at the path *game*, with its folder at *source*.

        *before* is its previous examination, *origins* are those of the folder. *made* is what
        the index has of its archive: if that was made of the same, in the same way, it is that.
        *beside* are the names in the folder that shows the game, if they have just been read.
        The :class:`Version` is returned if the game is sealed, and either that is new and wasn't
        *made*, or *whole* is true.
        """
        started = time.monotonic()
        clock_ns = time.time_ns()
        if not whole and (same := self._unchanged(game, source, started, before, made, beside)):
            return same, None
        try:
            scan = self.library.scan(source, self.policy, origins, path=game)
        except (FileNotFoundError, NotADirectoryError):
            return Examination(started, b"", started, Absent()), None
        except OSError as error:
            return self._unlisted(game, started, error), None
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
        elif (
            made
            and not whole
            and made.key == self._remembered.key(archive, scan, fingerprint, self.policy)
        ):
            outcome = sealed_as(made, scan.access)
        elif not (sealed or scan.is_whole) and (
            (seconds := self._settling.left(scan, clock_ns, started - first_seen)) > 0
        ):
            outcome = Unsettled(seconds)
        elif scan.problem:
            # Only once it has settled: a list is wrong while it is being written.
            self._once.warning("there is no %s: %s", shown(archive), scan.problem, of=fingerprint)
            outcome = Impossible(scan.problem)
        else:
            outcome, version, unsure = self._assemble(archive, scan, fingerprint)
            if isinstance(outcome, Unhashed) and scan.is_whole and not sealed:
                # Its files have to settle before they are hashed (S1).
                known = started - first_seen
                if (seconds := self._settling.left(outcome.missing, clock_ns, known)) > 0:
                    outcome = Unsettled(seconds)
        took = time.monotonic() - started
        if took < _SHORT:
            took = 0.0  # one shared object instead of one number for each game
        left_out = tuple(skipped_of(game, scan, refused, outcome, self.fewest))
        return Examination(
            started,
            fingerprint,
            first_seen,
            outcome,
            took,
            unsure,
            scan.is_spread,
            left_out=left_out,
        ), version

    def _unlisted(self, game: bytes, started: float, error: OSError) -> Examination:
        reason = f"can't be listed: {error.strerror}"
        self._once.warning("%s %s; left out", shown(game), reason)
        absent = Absent(reason, temporary=not isinstance(error, PermissionError))
        left_out = (LeftOut(game, reason),)
        return Examination(started, b"", started, absent, left_out=left_out)

    def _is_too_long(self, archive: bytes, scan: GameScan) -> bool:
        """Whether the name of *archive* is longer than file systems allow."""
        if len(archive.rpartition(b"/")[2]) <= NAME_MAX:
            return False
        self._once.warning(
            "%s would be a name of more than %d bytes; %s",
            shown(archive),
            NAME_MAX,
            "its folder is shown as it is" if scan.owns_folder else "it isn't there",
        )
        return True

    def _unarchived(self, scan: GameScan) -> Plain | Unneeded:
        """The outcome for a game without an archive."""
        if scan.owns_folder:
            return Plain(scan.status, scan.files)
        return Unneeded(scan.objection(self.fewest) or "its name would be too long")

    def _without_refused(self, scan: GameScan) -> tuple[GameScan, list[LeftOut]]:
        """*scan* without the files that couldn't be opened, and those files."""
        with self._lock:
            if not self._unreadable:
                return scan, []
            refused = [f for f in scan.files if self._unreadable.get(f.source) == f.state]
            scan = scan.without(lambda file: self._unreadable.get(file.source) == file.state)
        return scan, [LeftOut(file.source, "a file that can't be read") for file in refused]

    def remember(self, game: bytes, source: bytes, found: Examination, version: Version) -> Made:
        """What the index is to remember of the archive of *game*, *version*, as it was *found*."""
        tree = b""
        if not (found.is_spread or found.left_out or version.left_out or self._unreadable):
            tree = self._tree_key(version.sealed.path, game, source)
            # It is that of what was found if that is what is found after it as well.
            if not self._is_still(game, source, found):
                tree = b""
        return made_of(version, found.fingerprint, tree)

    def _is_still(self, game: bytes, source: bytes, found: Examination) -> bool:
        try:
            again = self.library.scan(source, self.policy, path=game)
        except OSError:  # it has just gone away; what was found of it holds as of then
            return False
        return again.fingerprint() == found.fingerprint

    def _unchanged(
        self,
        game: bytes,
        source: bytes,
        started: float,
        before: Examination | None,
        made: Made | None,
        beside: Collection[bytes] | None,
    ) -> Examination | None:
        """*before*, or what was *made* before the start, if *game* is as it was then."""
        if before:
            tree = before.tree
            path = before.outcome.path if isinstance(before.outcome, Sealed) else b""
        else:
            tree, path = (made.tree, made.archive) if made else (b"", b"")
        if not tree or not path or self._unreadable:
            return None
        folder, _, name = game.rpartition(b"/")
        if beside is not None and path == join(folder, name + b".zip") and game == source:
            is_named = name + b".zip" not in beside
        else:
            is_named = path == self.archive_path(game, source)
        if not is_named or self._tree_key(path, game, source) != tree:
            return None
        if before:
            return dataclasses.replace(before, started=started, took=0.0)
        assert made  # noqa: S101 - as there is a tree
        return Examination(started, made.fingerprint, started, sealed_as(made), tree=tree)

    def _tree_key(self, archive: bytes, game: bytes, source: bytes) -> bytes:
        try:
            tree = self.library.tree(source) if game == source else b""
        except OSError:  # a scan shows what it is
            return b""
        return self._remembered.tree_key(archive, tree, self.policy)

    def _assemble(
        self, archive: bytes, scan: GameScan, fingerprint: bytes
    ) -> tuple[Outcome, Version | None, tuple[SourceFile, ...]]:
        records = self.index.files(dict.fromkeys(file.source for file in scan.files))
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
            if not unsure:
                version = dataclasses.replace(
                    version, key=self._remembered.key(archive, scan, fingerprint, self.policy)
                )
        except (LayoutError, ValueError) as error:
            self._once.warning("%s can't be made: %s", shown(archive), error)
            return Impossible(str(error)), None, ()
        except UnissuedError as error:
            return Unsettled(error.seconds), None, ()
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
            inode=archive_inode(archive, content),
            size=layout.size,
            mtime_ns=validators.mtime_ns(seconds, content),
            access=scan.access,
            count=len(members),
        )
        folders = {names[path] + b"/": path for path in scan.folders}
        return Version(sealed, layout, files, digests, scan.left_out, folders)


def _parent_source(library: LibraryView, folder: bytes, game: bytes, source: bytes) -> bytes:
    """The source of *folder*, the parent of the path *game*."""
    if game == source:
        return folder
    absolute = os.path.realpath(library.absolute(folder))
    if absolute == library.root or not is_within(absolute, library.root):
        return b""  # by now a link that leads out of the library
    return os.path.relpath(absolute, library.root)
