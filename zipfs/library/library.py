"""The library on disk, looked at: entries of folders, files of games. No bytes read.

Rules:

- Nothing outside the library is followed to (DESIGN H2). A symbolic link counts
  as what it points to, if that is inside; otherwise it is left out.
- Devices, sockets and FIFOs are left out, and so is what can't be read. What was
  left out is reported as :class:`LeftOut`; saying it is the caller's.
- A link to a folder is followed unless that folder holds one on the way down, or
  more than :data:`MAX_LINKED_FOLDERS` are on it already: no path is endless.

Every method may touch a disk: call them from a worker thread. Paths are bytes
relative to the library, ``b""`` being the library itself; *source* is one without
links on the way, and *origins* are the sources of the folders from which links were
followed to get there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from zipfs.errors import LibraryError
from zipfs.library.filestate import FileState
from zipfs.library.rules.general import Policy
from zipfs.library.scan import NO_LINKS, Entry, GameScan, LeftOut, Origins, SourceFile
from zipfs.system.paths import entries, is_link, is_within, join, lstat, may_read, open_path, real
from zipfs.system.permissions import behind, common_access, grants_us
from zipfs.system.syscalls import READ_FOLDER

MAX_LINKED_FOLDERS: Final = 8
"""From how many different folders links may be followed on the way down."""


class Library:
    """The library at *root*. Raises :exc:`LibraryError` if it isn't a readable folder."""

    def __init__(self, root: str | bytes) -> None:
        shown = os.fsdecode(root)
        try:
            self.root = real(os.fsencode(root))
            with os.scandir(self.root):
                pass
        except NotADirectoryError:
            raise LibraryError(f"the library {shown} isn't a folder") from None
        except OSError as error:
            raise LibraryError(f"can't read the library {shown}: {error.strerror}") from None
        self._prefix = self.root.rstrip(b"/") + b"/"

    def absolute(self, source: bytes) -> bytes:
        return self._prefix + source

    def holds(self, path: str | bytes) -> bool:
        """Whether *path*, links followed as far as it is there, is in the library."""
        return is_within(real(os.fsencode(path), strict=False), self.root)

    def with_lists(self, policy: Policy) -> Policy:
        """*policy*, where lists are games as well."""
        return policy  # there are none here

    def list_of(self, path: bytes) -> bytes | None:
        """The name of the list that is the game at *path*, if one can be."""
        return None

    def variants_of(self, game: bytes) -> Sequence[bytes]:
        """The paths at which further archives of the game at the path *game* may be."""
        return ()  # there are none here

    def beside(
        self, folder: bytes, games: Iterable[bytes], taken: Iterable[bytes]
    ) -> Sequence[bytes]:
        """The names of those in the folder at the path *folder*, where the *games* are.

        Nothing that the library has there is called so; *taken* are its names.
        """
        return ()

    def statvfs(self) -> os.statvfs_result:
        return os.statvfs(self.root)

    def entry(self, source: bytes, origins: Origins = NO_LINKS) -> Entry | LeftOut | None:
        """What *source*, whose parent has no links on the way, leads to; None if nothing."""
        try:
            status = lstat(self.absolute(source))
            return self._entry(source, origins, status)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def entry_at(
        self, path: bytes, source: bytes, origins: Origins = NO_LINKS
    ) -> Entry | LeftOut | None:
        """The same for what is shown at *path*, which may lead there by links."""
        entry = self.entry(source, origins)
        if not isinstance(entry, Entry) or path == source:
            return entry
        try:
            return entry._replace(status=behind(entry.status, self._way_to(source)))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def state(self, source: bytes) -> FileState:
        """The state that a folder itself is in: another one if a name came or went."""
        return FileState.of(lstat(self.absolute(source)))

    def names(self, source: bytes) -> list[bytes]:
        """The names of all that is in a folder, in order; nothing of it is looked at."""
        descriptor = open_path(self.absolute(source), READ_FOLDER)
        try:
            return sorted(map(os.fsencode, os.listdir(descriptor)))
        finally:
            os.close(descriptor)

    def folder(
        self, source: bytes, origins: Origins = NO_LINKS
    ) -> list[tuple[bytes, Entry | LeftOut]]:
        """All entries of a folder, by name."""
        children = []
        for name, status in entries(self.absolute(source)):
            try:
                children.append((name, self._entry(join(source, name), origins, status)))
            except (FileNotFoundError, NotADirectoryError):
                continue  # went away meanwhile, or what a link leads to
        children.sort(key=lambda child: child[0])
        return children

    def has_folder(self, source: bytes) -> bool:
        """Whether there is a folder at *source*, links followed, as far as can be seen."""
        try:
            entry = self.entry(source)
        except OSError:  # in a folder that may not be entered, for one
            return False
        return isinstance(entry, Entry) and entry.is_folder

    def exists(self, source: bytes) -> bool:
        """Whether there is anything at *source*, a dangling link included."""
        try:
            lstat(self.absolute(source))
        except OSError:
            return False
        return True

    def scan(
        self,
        source: bytes,
        policy: Policy,
        origins: Origins = NO_LINKS,
        *,
        path: bytes | None = None,
    ) -> GameScan:
        """All files of the game folder at *source* that *policy* takes.

        *path* is where the game is shown, if not there: what *policy* goes by.
        Raises :exc:`OSError` if a folder can't be listed for another reason than
        permission: half a game must not be taken for a whole one.
        """
        walk = _Walk(self, policy, source if path is None else path)
        walk.run(source, origins)
        walk.files.sort(key=lambda file: file.path)
        status = walk.access[0]
        if path is not None and path != source:  # a link is on the way
            status = behind(status, self._way_to(source))
            walk.access.append(status)
        return GameScan(
            files=tuple(walk.files),
            access=common_access(walk.access),
            changed_ns=walk.changed_ns,
            written_ns=walk.written_ns,
            left_out=tuple(walk.left_out),
            status=status,
        )

    def games(self, policy: Policy) -> Iterator[tuple[bytes, Entry]]:
        """Path and folder of each game, as *policy* takes them.

        A folder that can't be listed is passed over here; whoever asks for it is
        told why.
        """
        todo: list[tuple[bytes, bytes, Origins]] = [(b"", b"", NO_LINKS)]
        while todo:
            path, source, origins = todo.pop()
            try:
                children = self.folder(source, origins)
            except OSError:
                continue
            games = []
            for name, entry in children:
                if not isinstance(entry, Entry) or not entry.is_folder:
                    continue
                child = join(path, name)
                if policy.is_game(child):
                    games.append(name)
                    yield child, entry
                elif policy.may_hold_games(child):
                    todo.append((child, entry.source, entry.origins))
            for name in self.beside(path, games, (name for name, _ in children)):
                variant = self.entry(join(source, name), origins)
                if isinstance(variant, Entry) and variant.is_folder:
                    yield join(path, name), variant

    def _entry(self, path: bytes, origins: Origins, status: os.stat_result) -> Entry | LeftOut:
        if is_link(status):
            return self._follow(path, origins)
        return self._judge(path, Entry(path, status, origins))

    def _follow(self, path: bytes, origins: Origins) -> Entry | LeftOut:
        """What the symbolic link at *path* leads to."""
        try:
            target = real(self.absolute(path))
            if not is_within(target, self.root):
                return LeftOut(path, "a symbolic link that leaves the library")
            status = lstat(target)
            if is_link(status):  # by now
                raise FileNotFoundError
        except OSError as error:
            if error.errno == errno.ELOOP:
                return LeftOut(path, "a symbolic link that leads to itself")
            return LeftOut(path, "a symbolic link to nothing that can be reached")
        source = target[len(self._prefix) :]
        if stat.S_ISDIR(status.st_mode):
            origins |= {path.rpartition(b"/")[0]}
            if any(_is_inside(origin, source) for origin in origins):
                return LeftOut(path, "a symbolic link that leads back to a folder above it")
            if len(origins) > MAX_LINKED_FOLDERS:
                return LeftOut(path, "a symbolic link behind too many others")
        entry = self._judge(path, Entry(source, status, origins))
        if isinstance(entry, Entry):
            entry = entry._replace(status=behind(status, self._way_to(source)))
        return entry

    def _way_to(self, source: bytes) -> Iterator[os.stat_result]:
        """The folders that lead to *source*, the library itself left out."""
        end = source.find(b"/")
        while end >= 0:
            status = lstat(self.absolute(source[:end]))
            if is_link(status):  # by now
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            yield status
            end = source.find(b"/", end + 1)

    def _judge(self, path: bytes, entry: Entry) -> Entry | LeftOut:
        """*entry*, if it is something that can be shown at *path*."""
        if entry.is_folder:
            return entry
        if not stat.S_ISREG(entry.status.st_mode):
            return LeftOut(path, "not a file or folder but a device, socket or FIFO")
        # Asked only then, because it takes time: an access control list may grant it.
        if not grants_us(entry.status) and not may_read(self.absolute(entry.source)):
            return LeftOut(path, "a file that can't be read")
        return entry


class _Walk:
    """One walk through a game folder, and what it gathers.

    A stack instead of recursion: a path may be thousands of folders deep.
    """

    def __init__(self, library: Library, policy: Policy, game: bytes) -> None:
        self.library = library
        self.policy = policy
        self._prefix = game + b"/" if game else b""
        self.files: list[SourceFile] = []
        self.left_out: list[LeftOut] = []
        self.access: list[os.stat_result] = []
        self.changed_ns = 0
        self.written_ns = 0

    def run(self, source: bytes, origins: Origins) -> None:
        todo = [(source, b"", origins)]
        while todo:
            source, path, origins = todo.pop()
            try:
                children = self.library.folder(source, origins)
                # After the listing, so that its times tell of all that went before.
                status = lstat(self.library.absolute(source))
            except PermissionError:
                if not path:
                    raise  # nothing of the game is left to show
                self.left_out.append(LeftOut(source, "a folder that can't be read"))
                continue
            except (FileNotFoundError, NotADirectoryError):
                if path:
                    continue  # went away meanwhile
                raise
            self._note(status, FileState.of(status))
            for name, entry in children:
                within = join(path, name)
                shown_at = self._prefix + within
                if isinstance(entry, LeftOut):
                    if self.policy.takes_file(shown_at):
                        self.left_out.append(entry)
                elif not entry.is_folder:
                    if self.policy.takes_file(shown_at):
                        state = FileState.of(entry.status)
                        self._note(entry.status, state)
                        self.files.append(SourceFile(within, entry.source, state))
                elif self.policy.takes_folder(shown_at):
                    # What is no link is found where it is.
                    linked = entry.source != join(source, name)
                    if self.policy.follows_folder_links or not linked:
                        if linked:  # with the folders that lead there
                            self.access.append(entry.status)
                        todo.append((entry.source, within, entry.origins))
                    else:
                        self.left_out.append(
                            LeftOut(join(source, name), "a symbolic link to a folder")
                        )

    def _note(self, status: os.stat_result, state: FileState) -> None:
        self.access.append(status)
        self.changed_ns = max(self.changed_ns, state.changed_ns)
        self.written_ns = max(self.written_ns, state.mtime_ns)


def _is_inside(path: bytes, folder: bytes) -> bool:
    return not folder or path == folder or path.startswith(folder + b"/")
