"""A library with lists in it: a folder of archives that somebody else asks for.

Each file ``X.list`` in a folder of the front end's is a game to all that is above here, at
the path ``X`` in a folder of the mount that the library doesn't have. It is found as a
game's folder is found, and scanned as one: its files are those that it names
(:mod:`zipfs.library.rules.modzip`), wherever in the library they are, in its order and under its
names.

Rules:

- The folder of lists hides what the library has of its name.
- A location is walked from the library's root, component by component, by the rules of
  :mod:`zipfs.library.library`: a link that stays inside counts as what it points to, and nothing
  else leads anywhere. It has to lead to a file of the size that the list says.
- One line that is wrong, and there is no archive. Which one, and why, is
  :attr:`zipfs.library.library.GameScan.problem`.
- A list is read anew by every look at it, and its content is a part of the fingerprint: no
  clock's tick hides a change of it.
- Lists are files by themselves; links, and whatever else there is, are left out.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Self

import xxhash

from zipfs.errors import ConfigError
from zipfs.library.filestate import FileState
from zipfs.library.resolve import Folders, UnusableError
from zipfs.library.rules.general import Policy, PolicyDecorator
from zipfs.library.rules.modzip import MAX_LIST, TOO_LARGE, Listed, ListError, parse
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
)
from zipfs.library.view import Decorator, LibraryView, PathMap
from zipfs.system.paths import is_within, real
from zipfs.system.permissions import common_access, truthful
from zipfs.system.syscalls import READ_FILE
from zipfs.text import shown

SUFFIX: Final = b".list"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListScan(GameScan):
    """What a list names, as it was found: :attr:`files` in its order, under its names."""

    keeps_order: bool = True
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
                f"the library has a {os.fsdecode(shown_in)} of its own; have the lists shown"
                " under another name with --lists-folder"
            )
        self._shown_in = shown_in
        self._prefix_of_locations = prefix

    # -- What it adds to the view -----------------------------------------------

    def watched(self) -> Mapping[bytes, PathMap]:
        return {**super().watched(), self.lists: self._shown_at}

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
            if error.errno == errno.ENAMETOOLONG:  # asked for, where none can be
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

    def state(self, source: bytes) -> FileState:
        if source == self._shown_in:
            return FileState.of(os.stat(self.lists))
        return super().state(source)

    def names(self, source: bytes) -> list[bytes]:
        if source == self._shown_in:
            return sorted(
                name.removesuffix(SUFFIX)
                for name in os.listdir(self.lists)
                if name.endswith(SUFFIX) and name != SUFFIX
            )
        names = super().names(source)
        return names if source else sorted({*names, self._shown_in})

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
        # Lists tell nothing of the library's structure.
        return not is_within(source, self._shown_in) and super().has_folder(source)

    def exists(self, source: bytes) -> bool:
        if is_within(source, self._shown_in):
            # All names there are archives', and each has its list's own.
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
        """Where what is at *paths* in the folder of lists is shown; ``b""`` is the folder."""
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
            # Only when the list itself has settled is it one; its files may still be coming.
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
            name=name,
            inline=found.inline,
            lines=tuple(found.lines),
            digest=xxhash.xxh3_128_digest(data),
        )

    def _read(self, name: bytes) -> tuple[bytes, os.stat_result, str]:
        """The list *name*, its status behind that, and why it can't be read."""
        path = self._file(name)
        try:
            descriptor = os.open(path, READ_FILE)
        except PermissionError as error:
            problem = f"it can't be read: {error.strerror}"
            return b"", os.lstat(path), _problem(name, ListError(None, problem))
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a link or a socket by now
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
            raise
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            # More than there was is no list yet, and its date says so: it has to settle.
            size = status.st_size + 1 if status.st_size <= MAX_LIST else 0
            data = file.read(size) if stat.S_ISREG(status.st_mode) else b""
            problem = "" if size else _problem(name, ListError(None, TOO_LARGE))
            return data, truthful(os.fstat(descriptor), descriptor), problem

    def _find(self, entries: list[Listed], found: _Found) -> None:
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
            found.files.append(SourceFile(entry.name, file.source, FileState.of(file.status)))
            found.lines.append(entry.line)
            found.files_status.append(file.status)
        found.folders = folders.private()


class _Found:
    """What was found of a list with *status*."""

    def __init__(self, status: os.stat_result) -> None:
        self._status = status
        self.files: list[SourceFile] = []
        self.lines: list[int] = []
        self.files_status: list[os.stat_result] = []
        self.folders: list[os.stat_result] = []
        self.inline: dict[int, Inline] = {}

    @property
    def parts(self) -> list[os.stat_result]:
        """What a reader of the archive has to be able to read (DESIGN H3).

        That is the list as well if content stands in it.
        """
        return self.files_status + self.folders + ([self._status] if self.inline else [])


def _problem(name: bytes, error: ListError) -> str:
    return f"{shown(name)}, {error}"
