"""The library on disk: entries of folders and files of games. File content isn't read.

Rules:

- No link leads out of the library (DESIGN H2). A symbolic link counts as its target if that
  is inside the library; otherwise it is skipped.
- Devices, sockets, FIFOs and unreadable files are skipped. Each is returned as a
  :class:`LeftOut`; the caller logs it.
- A link to a folder is followed unless that folder contains a folder already on the path, or
  :data:`MAX_LINKED_FOLDERS` links have been followed from different folders. So every path ends.

:mod:`zipfs.library.view` describes the methods. Every one may touch a disk: call it from a
worker thread.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from typing import Final

from zipfs.errors import LibraryError
from zipfs.library.absence import Absence
from zipfs.library.exact import ExactNames
from zipfs.library.filestate import FileState
from zipfs.library.presence import Presence
from zipfs.library.rules.general import Policy
from zipfs.library.scan import (
    NO_LINKS,
    Entry,
    FolderScan,
    GameScan,
    LeftOut,
    Origins,
    SourceFile,
    Type,
)
from zipfs.library.tree import tree_digest
from zipfs.library.view import PathMap
from zipfs.library.vouching import Vouchers, Vouching
from zipfs.system.events.changes import Change
from zipfs.system.paths import entries, is_link, is_within, join, lstat, may_read, open_path, real
from zipfs.system.permissions import behind, common_access, grants_us
from zipfs.system.syscalls import READ_FOLDER

MAX_LINKED_FOLDERS: Final = 8
"""Maximum number of different folders from which links are followed on one path."""


class Library:
    """The view of the folder *root* alone. Raises :exc:`LibraryError` if it can't be listed.

    *vouchers* decide what vouches for the bytes of its files. With *away* it is gone, and *root*
    isn't touched before somebody looks whether it is back.
    """

    def __init__(
        self, root: str | bytes, vouchers: Vouchers | None = None, away: Absence | None = None
    ) -> None:
        self.vouchers = vouchers or Vouchers()
        shown = os.fsdecode(root)
        try:
            if away is None:
                self.root = real(os.fsencode(root))
                with os.scandir(self.root):
                    pass
                self.presence = Presence(self.root)
            else:
                self.root = away.root
                self.presence = Presence(self.root, gone=away.reason)
        except NotADirectoryError:
            raise LibraryError(f"the library {shown} isn't a folder") from None
        except OSError as error:
            raise LibraryError(f"can't read the library {shown}: {error.strerror}") from None
        self._prefix = self.root.rstrip(b"/") + b"/"
        self._exact = ExactNames(
            self._may_exist, self.state, self.names, lambda: self.presence.generation
        )

    def absolute(self, source: bytes) -> bytes:
        return self._prefix + source

    def holds(self, path: str | bytes) -> bool:
        return is_within(real(os.fsencode(path), strict=False), self.root)

    def statvfs(self) -> os.statvfs_result:
        return os.statvfs(self.root)

    def watched(self) -> Mapping[bytes, PathMap]:
        return {self.root: lambda paths: paths}

    def heard(self, folder: bytes, path: bytes, change: Change) -> None:
        pass

    def entry(self, source: bytes, origins: Origins = NO_LINKS) -> Entry | LeftOut | None:
        try:
            status = lstat(self.absolute(source))
            return self._entry(source, origins, status)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.EINVAL:  # a name that the source can't have: vfat, SMB
                return None
            raise

    def entry_at(
        self, path: bytes, source: bytes, origins: Origins = NO_LINKS
    ) -> Entry | LeftOut | None:
        entry = self.entry(source, origins)
        if not isinstance(entry, Entry) or path == source:
            return entry
        try:
            return entry._replace(status=behind(entry.status, self._way_to(source)))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def file(self, path: bytes, entry: Entry) -> SourceFile:
        vouching = self.vouchers.of(self.absolute(entry.source), entry.status.st_dev)
        return vouching.file(path, entry.source, entry.status)

    def is_listed(self, source: bytes, entry: Entry | LeftOut) -> bool:
        return self._exact.is_listed(source)

    def _may_exist(self, source: bytes) -> bool:
        try:
            lstat(self.absolute(source))
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def state(self, source: bytes) -> FileState:
        return FileState.of(lstat(self.absolute(source)))

    def names(self, source: bytes) -> list[bytes]:
        descriptor = open_path(self.absolute(source), READ_FOLDER)
        try:
            return sorted(map(os.fsencode, os.listdir(descriptor)))
        finally:
            os.close(descriptor)

    def kinds(self, source: bytes, most: int | None = None) -> dict[bytes, Type | None]:
        descriptor = open_path(self.absolute(source), READ_FOLDER)
        try:
            with os.scandir(descriptor) as found:
                return {os.fsencode(one.name): _type(one) for one in islice(found, most)}
        finally:
            os.close(descriptor)

    def folder(
        self, source: bytes, origins: Origins = NO_LINKS
    ) -> list[tuple[bytes, Entry | LeftOut]]:
        return self.listed(source, origins)[0]

    def listed(
        self, source: bytes, origins: Origins = NO_LINKS
    ) -> tuple[list[tuple[bytes, Entry | LeftOut]], os.stat_result]:
        """The same with the stat result of the folder itself, from after it was listed."""
        children = []
        found, folder = entries(self.absolute(source))
        for name, status in found:
            try:
                children.append((name, self._entry(join(source, name), origins, status)))
            except (FileNotFoundError, NotADirectoryError):
                continue  # it, or the target of a link, has been removed meanwhile
        children.sort(key=itemgetter(0))
        return children, folder

    def has_folder(self, source: bytes) -> bool:
        try:
            entry = self.entry(source)
            return isinstance(entry, Entry) and entry.is_folder and self.is_listed(source, entry)
        except OSError:  # such as one in a folder that can't be entered
            return False

    def exists(self, source: bytes) -> bool:
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
        game = source if path is None else path
        walk = _Walk(self, policy, game)
        walk.run(source, origins)
        walk.files.sort(key=lambda file: file.path)
        walk.folders.sort()
        status = walk.access[0]
        if game != source:  # a link is on the way
            status = behind(status, self._way_to(source))
            walk.access.append(status)
        return FolderScan(
            game=game,
            files=tuple(walk.files),
            folders=tuple(walk.folders),
            access=common_access(walk.access),
            changed_ns=walk.changed_ns,
            written_ns=walk.written_ns,
            left_out=tuple(walk.left_out),
            status=status,
            is_spread=walk.is_spread or game != source,
        )

    def tree(self, source: bytes) -> bytes:
        absolute = self.absolute(source)
        digest, device = tree_digest(absolute)
        if not digest:
            return b""
        user = os.geteuid(), os.getegid(), *os.getgroups()  # who may read what
        return digest + _decided(self.vouchers.of(absolute, device), user)

    # -- Games that only a decorator adds ---------------------------------------

    def extended(self, policy: Policy) -> Policy:
        return policy

    def list_of(self, path: bytes) -> bytes | None:
        return None

    def came_whole(self, path: bytes) -> bool:
        return False

    def variants_of(self, game: bytes) -> Sequence[bytes]:
        return ()

    def beside(
        self, folder: bytes, games: Iterable[bytes], taken: Iterable[bytes]
    ) -> Sequence[bytes]:
        return ()

    # -- Links --------------------------------------------------------------------

    def _entry(self, path: bytes, origins: Origins, status: os.stat_result) -> Entry | LeftOut:
        if is_link(status):
            return self._follow(path, origins)
        return self._judge(path, Entry(path, status, origins))

    def _follow(self, path: bytes, origins: Origins) -> Entry | LeftOut:
        """The target of the symbolic link at *path*."""
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
        """The stat results of the folders above *source*, without the library itself."""
        end = source.find(b"/")
        while end >= 0:
            status = lstat(self.absolute(source[:end]))
            if is_link(status):  # by now
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            yield status
            end = source.find(b"/", end + 1)

    def _judge(self, path: bytes, entry: Entry) -> Entry | LeftOut:
        """*entry* if it is a folder or a readable regular file; else why it is skipped."""
        if entry.is_folder:
            return entry
        if not stat.S_ISREG(entry.status.st_mode):
            return LeftOut(path, "not a file or folder but a device, socket or FIFO")
        # access(2) takes time, so only where the bits deny: an access control list may grant.
        if not grants_us(entry.status) and not may_read(self.absolute(entry.source)):
            return LeftOut(path, "a file that can't be read")
        return entry


class _Walk:
    """Collects files and empty folders of a game, with a stack: paths may be thousands deep."""

    def __init__(self, library: Library, policy: Policy, game: bytes) -> None:
        self.library = library
        self.policy = policy
        self._prefix = game + b"/" if game else b""
        self.files: list[SourceFile] = []
        self.folders: list[bytes] = []
        self.left_out: list[LeftOut] = []
        self.access: list[os.stat_result] = []
        self._todo: list[tuple[bytes, bytes, Origins]] = []
        self.changed_ns = 0
        self.written_ns = 0
        self.is_spread = False

    def run(self, source: bytes, origins: Origins) -> None:
        self._todo = [(source, b"", origins)]
        while self._todo:
            source, path, origins = self._todo.pop()
            try:
                # After the listing, so that its times include all changes before it.
                children, status = self.library.listed(source, origins)
            except PermissionError:
                if not path:
                    raise  # nothing of the game can be shown
                self.left_out.append(LeftOut(source, "a folder that can't be read"))
                continue
            except (FileNotFoundError, NotADirectoryError):
                if path:
                    continue  # removed meanwhile
                raise
            self._note(status, FileState.of(status))
            left = [
                (name, isinstance(entry, Entry) and entry.is_folder)
                for name, entry in children
                if not self._take(name, entry, source, path)
            ]
            if path and len(left) == len(children) and self.policy.is_empty(left):
                self.folders.append(path)

    def _take(self, name: bytes, entry: Entry | LeftOut, source: bytes, path: bytes) -> bool:
        """Take *entry*, called *name* in the folder *source*, which is at *path* in the game.

        A folder is walked later. False if it doesn't belong to the game.
        """
        path = join(path, name)
        shown_at = self._prefix + path
        if isinstance(entry, LeftOut):
            self.is_spread = True  # it may be a link
            if self.policy.takes_file(shown_at):
                self.left_out.append(entry)
            return False
        at = join(source, name)
        is_link = entry.source != at  # without a link, an entry's source is its own path
        self.is_spread |= is_link
        if not entry.is_folder:
            if not self.policy.takes_file(shown_at):
                return False
            file = self.library.file(path, entry)
            self._note(entry.status, file.state)
            self.files.append(file)
            return True
        if not self.policy.takes_folder(shown_at):
            return False
        if is_link:
            if not self.policy.follows_folder_links:
                self.left_out.append(LeftOut(at, "a symbolic link to a folder"))
                return False
            self.access.append(entry.status)  # with the folders that lead there
        self._todo.append((entry.source, path, entry.origins))
        return True

    def _note(self, status: os.stat_result, state: FileState) -> None:
        self.access.append(status)
        self.changed_ns = max(self.changed_ns, state.changed_ns)
        self.written_ns = max(self.written_ns, state.mtime_ns)


def _type(found: os.DirEntry[str]) -> Type | None:
    if found.is_file(follow_symlinks=False):
        return Type.FILE
    return Type.FOLDER if found.is_dir(follow_symlinks=False) else None


@functools.cache
def _decided(vouching: Vouching, user: tuple[int, ...]) -> bytes:
    """What decides for *user* of files, with the same *vouching*."""
    return repr((vouching, user[:2], sorted(user[2:]))).encode()


def _is_inside(path: bytes, folder: bytes) -> bool:
    return not folder or path == folder or path.startswith(folder + b"/")
