"""Lists: archives defined by a front end, as games in a folder of their own.

A list is a file ``X.list`` that names files of the library
(:mod:`zipfs.library.rules.modzip`). :class:`WithLists` shows it as a game at the path ``X`` in
a folder that the library doesn't have. The archive has the list's members, in its order and
under its names.

Rules:

- The folder of lists hides an entry of the library with the same name.
- A location is resolved from the library's root by the rules of :mod:`zipfs.library.library`,
  and has to lead to a regular file of the size that the list states.
- If one line is wrong there is no archive; :attr:`GameScan.problem` names the line and the
  reason.
- Every scan reads the list again, and its content is part of the fingerprint: so a change
  within one tick of the clock is detected.
- A list is complete, and doesn't have to settle, if the kernel has told that it was renamed into
  place and of no write since, or if it is called after its content: by the SHA-256 of it, or at
  least its first 16 hex digits. The latter holds also where no events come.
- A list is a regular file; links and anything else in the folder are skipped.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Self

import xxhash

from zipfs.errors import ConfigError
from zipfs.library.filestate import FileState
from zipfs.library.resolve import Folders, UnusableError
from zipfs.library.rules.general import Policy, PolicyDecorator
from zipfs.library.rules.modzip import MAX_LIST, TOO_LARGE, ListedMember, ListError, parse
from zipfs.library.rules.playlists import Mode
from zipfs.library.scan import (
    NO_LINKS,
    Entry,
    GameScan,
    Inline,
    Kind,
    LeftOut,
    Origins,
    SourceFile,
    Type,
)
from zipfs.library.view import Decorator, LibraryView, PathMap
from zipfs.system.events.changes import Change
from zipfs.system.paths import is_within, listing, real
from zipfs.system.permissions import common_access, truthful
from zipfs.system.syscalls import READ_FILE, keep_atime
from zipfs.text import shown

SUFFIX: Final = b".list"
_DIGEST: Final = re.compile(rb"([0-9a-f]{16,64})\.list")
"""The name of a list that says what its content is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListScan(GameScan):
    """A list: :attr:`files` are those that it names, in its order, under its names."""

    keeps_order: bool = True
    is_spread: bool = True
    playlists: Mode | None = "off"
    name: bytes
    """The name of the list's file."""
    lines: tuple[int, ...]
    """The line in the list of each of the files, from 1."""
    digest: bytes
    """XXH3-128 of the list."""

    def objection(self, fewest: int) -> str:
        return ""

    def without(self, refused: Callable[[SourceFile], bool]) -> Self:
        for line, file in zip(self.lines, self.files, strict=True):
            if refused(file):
                reason = f"{shown(file.source)} can't be read"
                problem = _problem(self.name, ListError(line, reason))
                return dataclasses.replace(self, problem=problem)
        return self

    def fingerprint(self) -> bytes:
        found = self.files_digest() + self.digest + self.problem.encode()
        return xxhash.xxh3_128_digest(found)


@dataclass(frozen=True)
class _ListPolicy(PolicyDecorator):
    """*policy*, under which the folder of lists holds games, and nothing else."""

    folder: bytes

    def is_game(self, path: bytes) -> bool:
        parent, _, name = path.rpartition(b"/")
        if parent == self.folder:
            return bool(name)
        return not is_within(path, self.folder) and self.policy.is_game(path)

    def may_hold_games(self, path: bytes) -> bool:
        if is_within(path, self.folder):
            return path == self.folder
        return self.policy.may_hold_games(path)

    def platform(self, game: bytes) -> bytes | None:
        return None if is_within(game, self.folder) else self.policy.platform(game)


class WithLists(Decorator):
    """*inner*, and in its folder *shown_in* the lists of the folder *lists*.

    Their locations are below *prefix*, which has a ``/`` at both ends. Raises
    :exc:`ConfigError` if the lists can't be read, or can't be shown there.
    """

    def __init__(
        self, inner: LibraryView, lists: str | bytes, *, shown_in: bytes, prefix: bytes
    ) -> None:
        super().__init__(inner)
        given = os.fsdecode(lists)
        try:
            self.lists = real(os.fsencode(lists))
            with os.scandir(self.lists):
                pass
        except NotADirectoryError:
            raise ConfigError(f"the folder of lists {given} isn't a folder") from None
        except OSError as error:
            raise ConfigError(
                f"can't read the folder of lists {given}: {error.strerror}; name another with"
                " --lists"
            ) from None
        if is_within(self.lists, self.root):
            raise ConfigError(
                f"the folder of lists {given} lies in the library, where it would be shown as a"
                " part of it; name another place with --lists"
            )
        if inner.exists(shown_in):
            raise ConfigError(
                f"the library has a {os.fsdecode(shown_in)} of its own; show the lists"
                " under another name with --lists-folder"
            )
        self._shown_in = shown_in
        self._prefix_of_locations = prefix
        self._renamed: dict[bytes, FileState] = {}
        """The state of each list that was renamed into place, and not written to since."""

    # -- What it adds to the view -----------------------------------------------

    def watched(self) -> Mapping[bytes, PathMap]:
        return {**super().watched(), self.lists: self._shown_at}

    def heard(self, folder: bytes, path: bytes, change: Change) -> None:
        if folder != self.lists:
            super().heard(folder, path, change)
        elif not path and change is Change.ANY:
            self._renamed.clear()
        elif change is Change.RENAMED or (change is Change.ATTRIBUTES and path in self._renamed):
            try:
                self._renamed[path] = FileState.of(os.lstat(self._file(path)))
            except OSError:  # gone again
                self._renamed.pop(path, None)
        elif change is Change.ANY:
            self._renamed.pop(path, None)

    def came_whole(self, path: bytes) -> bool:
        return self.list_of(path) in self._renamed

    def tree(self, source: bytes) -> bytes:
        return b"" if is_within(source, self._shown_in) else super().tree(source)

    def extended(self, policy: Policy) -> Policy:
        return _ListPolicy(super().extended(policy), self._shown_in)

    def list_of(self, path: bytes) -> bytes | None:
        parent, _, name = path.rpartition(b"/")
        return name + SUFFIX if parent == self._shown_in and name else None

    def entry(self, source: bytes, origins: Origins = NO_LINKS) -> Entry | LeftOut | None:
        if not is_within(source, self._shown_in):
            return super().entry(source, origins)
        try:
            if source == self._shown_in:
                status = os.stat(self.lists)
                return Entry(source, status) if stat.S_ISDIR(status.st_mode) else None
            name = self.list_of(source)
            if name is None:
                return None
            status = os.lstat(self._file(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # no such list can exist
                return None
            raise
        if not stat.S_ISREG(status.st_mode):
            return LeftOut(self._file(name), "a list has to be a file, and no link to one")
        return Entry(source, status, kind=Kind.LIST)

    def entry_at(
        self, path: bytes, source: bytes, origins: Origins = NO_LINKS
    ) -> Entry | LeftOut | None:
        if is_within(source, self._shown_in):  # no link leads there
            return self.entry(source, origins)
        return super().entry_at(path, source, origins)

    def is_listed(self, source: bytes, entry: Entry | LeftOut) -> bool:
        return is_within(source, self._shown_in) or super().is_listed(source, entry)

    def state(self, source: bytes) -> FileState:
        if source == self._shown_in:
            return FileState.of(os.stat(self.lists))
        return super().state(source)

    def names(self, source: bytes) -> list[bytes]:
        if source == self._shown_in:
            with listing(os.fsdecode(self.lists)) as entries:
                names = [os.fsencode(entry.name) for entry in entries]
            return sorted(
                name.removesuffix(SUFFIX)
                for name in names
                if name.endswith(SUFFIX) and name != SUFFIX
            )
        names = super().names(source)
        return names if source else sorted({*names, self._shown_in})

    def kinds(self, source: bytes, most: int | None = None) -> dict[bytes, Type | None]:
        if source == self._shown_in:
            return dict.fromkeys(self.names(source))
        kinds = super().kinds(source, most)
        return kinds if source else {**kinds, self._shown_in: None}

    def folder(
        self, source: bytes, origins: Origins = NO_LINKS
    ) -> list[tuple[bytes, Entry | LeftOut]]:
        if source and source != self._shown_in:
            return super().folder(source, origins)
        children = [] if source else super().folder(source, origins)
        ours = self.names(source) if source else [self._shown_in]
        children = [child for child in children if child[0] != self._shown_in]
        prefix = source + b"/" if source else b""
        children += [(name, entry) for name in ours if (entry := self.entry(prefix + name))]
        return sorted(children, key=lambda child: child[0])

    def has_folder(self, source: bytes) -> bool:
        # Lists take no part in detecting the library's structure.
        return not is_within(source, self._shown_in) and super().has_folder(source)

    def exists(self, source: bytes) -> bool:
        if is_within(source, self._shown_in):
            # No name there is taken: each archive has the name of its list.
            return source == self._shown_in
        return super().exists(source)

    def scan(
        self,
        source: bytes,
        policy: Policy,
        origins: Origins = NO_LINKS,
        *,
        path: bytes | None = None,
    ) -> GameScan:
        name = self.list_of(source)
        if name is None:
            return super().scan(source, policy, origins, path=path)
        return self._scan(name, source if path is None else path)

    def _shown_at(self, paths: Iterable[bytes]) -> set[bytes]:
        """The paths in this view of the *paths* in the folder of lists; ``b""`` is that itself."""
        return {
            self._shown_in + b"/" + path.removesuffix(SUFFIX) if path else self._shown_in
            for path in paths
            if not path or (path.endswith(SUFFIX) and path != SUFFIX)
        }

    # -- Lists -----------------------------------------------------------------

    def _file(self, name: bytes) -> bytes:
        return os.path.join(self.lists, name)

    def _scan(self, name: bytes, game: bytes) -> ListScan:
        """The list *name*, which is the game at *game*; :exc:`FileNotFoundError` if it is gone."""
        data, status, problem = self._read(name)
        found = _Found(status)
        if not problem:
            try:
                self._find(parse(data, self._prefix_of_locations), found)
            except ListError as error:
                problem = _problem(name, error)
        if problem:
            # The list alone has to settle then: the files that it names may still be missing.
            found = _Found(status)
        state = FileState.of(status)
        states = [state, *(file.state for file in found.files)]
        return ListScan(
            game=game,
            files=tuple(found.files),
            access=common_access(found.parts or [status]),
            changed_ns=max(state.changed_ns for state in states),
            written_ns=max(state.mtime_ns for state in states),
            status=status,
            problem=problem,
            # A wrong one may be right in a moment: files that it names are being copied.
            is_whole=not problem and self._is_whole(name, state, data),
            name=name,
            inline=found.inline,
            lines=tuple(found.lines),
            digest=xxhash.xxh3_128_digest(data),
        )

    def _is_whole(self, name: bytes, state: FileState, data: bytes) -> bool:
        """Whether the list *name* with the content *data* is known to be complete."""
        if self._renamed.get(name) == state:
            return True
        digest = _DIGEST.fullmatch(name)
        return digest is not None and hashlib.sha256(data).hexdigest().encode().startswith(
            digest[1]
        )

    def _read(self, name: bytes) -> tuple[bytes, os.stat_result, str]:
        """Content and stat result of the list *name*, and why it can't be read, if it can't."""
        path = self._file(name)
        try:
            descriptor = os.open(path, READ_FILE)
        except PermissionError as error:
            problem = f"it can't be read: {error.strerror}"
            return b"", os.lstat(path), _problem(name, ListError(None, problem))
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a link or a socket meanwhile
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
            raise
        with os.fdopen(descriptor, "rb") as file:
            keep_atime(descriptor, READ_FILE)
            status = os.fstat(descriptor)
            # If it grew since fstat, the second one has a new mtime, and the list isn't settled.
            size = status.st_size + 1 if status.st_size <= MAX_LIST else 0
            data = file.read(size) if stat.S_ISREG(status.st_mode) else b""
            problem = "" if size else _problem(name, ListError(None, TOO_LARGE))
            return data, truthful(os.fstat(descriptor), descriptor), problem

    def _find(self, entries: list[ListedMember], found: _Found) -> None:
        """Find the files of *entries*. Raises :exc:`ListError`."""
        folders = Folders(self._inner.entry)
        for number, entry in enumerate(entries):
            if entry.content is not None:
                found.inline[number] = Inline(entry.name, entry.content)
                continue
            try:
                file = folders.file(entry.path)
            except UnusableError as error:
                raise ListError(entry.line, str(error)) from None
            if file.status.st_size != entry.size:
                raise ListError(
                    entry.line,
                    f"its size is {entry.size}, but {shown(entry.path)} has"
                    f" {file.status.st_size} bytes",
                )
            found.files.append(self.file(entry.name, file))
            found.lines.append(entry.line)
            found.files_status.append(file.status)
        found.folders = folders.private()


class _Found:
    """Collects the members of a list with the stat result *status*."""

    def __init__(self, status: os.stat_result) -> None:
        self._status = status
        self.files: list[SourceFile] = []
        self.lines: list[int] = []
        self.files_status: list[os.stat_result] = []
        self.folders: list[os.stat_result] = []
        self.inline: dict[int, Inline] = {}

    @property
    def parts(self) -> list[os.stat_result]:
        """Stat results of all that a reader of the archive has to be able to read (DESIGN H3).

        The list itself is one of them if it holds content.
        """
        holds_content = any(not name.endswith(b"/") for name, _ in self.inline.values())
        return self.files_status + self.folders + ([self._status] if holds_content else [])


def _problem(name: bytes, error: ListError) -> str:
    return f"{shown(name)}, {error}"
