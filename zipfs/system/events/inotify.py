"""inotify(7): the kernel's events of changes below a folder.

By ctypes, which releases the interpreter's lock during a system call: watching a folder
includes a lookup, which takes as long as its disk takes. Of the libraries, watchfiles 1.3 holds
that lock, so that one hanging folder stops the whole mount, and watchdog 7.1 confuses folders
that it has no permission to read.

All methods except :meth:`Inotify.stop` and :meth:`Inotify.hurry` have to be called from one thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from zipfs.system.events.changes import Change
from zipfs.system.paths import open_path
from zipfs.system.syscalls import READ_FOLDER

_libc: Final = ctypes.CDLL(None, use_errno=True)

# <sys/inotify.h>
_MODIFY: Final = 0x2
_ATTRIB: Final = 0x4
_CLOSE_WRITE: Final = 0x8
_MOVED_FROM: Final = 0x40
_MOVED_TO: Final = 0x80
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_DELETE_SELF: Final = 0x400
_MOVE_SELF: Final = 0x800
_UNMOUNT: Final = 0x2000
_Q_OVERFLOW: Final = 0x4000
_IGNORED: Final = 0x8000
_ONLYDIR: Final = 0x1000000
_EXCL_UNLINK: Final = 0x4000000
_ISDIR: Final = 0x40000000

_CHANGES: Final = (
    _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF
)
_MASK: Final = _CHANGES | _ONLYDIR | _EXCL_UNLINK  # no _DONT_FOLLOW: see _added
_ROOT_MASK: Final = _MASK | _MOVE_SELF  # of the others, the folder above tells
_EVENT: Final = struct.Struct("iIII")
_BUFFER: Final = 1 << 16
_GONE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES)


class Inotify:
    """Watches *root*, an absolute path, and all folders in it if *deep*; links aren't followed.

    *heard* is called with each event, in their order and at once: a path relative to the root,
    and what happened to it. Raises :exc:`OSError`; ``ENOSPC`` beyond the user's limit on watches.
    """

    def __init__(
        self,
        root: bytes,
        *,
        deep: bool = True,
        heard: Callable[[bytes, Change], None] | None = None,
    ) -> None:
        self._root = root
        self._deep = deep
        self._heard = heard
        self._folders: dict[int, bytes] = {}
        """Relative path of each watch descriptor."""
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._now = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._waiting: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self._descriptor = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor < 0:
            os.close(self._stop)
            os.close(self._now)
            raise _error()

    def close(self) -> None:
        with self._lock:
            self._closed = True
        os.close(self._descriptor)
        os.close(self._stop)
        os.close(self._now)

    def stop(self) -> None:
        """Make :meth:`changes` end. From any thread, before :meth:`close`."""
        os.eventfd_write(self._stop, 1)

    def hurry(self, done: Callable[[], None]) -> None:
        """Have :meth:`changes` yield all events until now at once; then *done* is called.

        From any thread; *done* is called in that of :meth:`changes`, and never after its end.
        """
        with self._lock:
            if not self._closed:
                self._waiting.append(done)
                os.eventfd_write(self._now, 1)

    def add(self, folder: bytes = b"", *, before: Callable[[], object] = lambda: None) -> None:
        """Watch *folder*, relative to the root, and all folders in it if *deep*.

        *before* is called before each of them.
        """
        for _ in self._added(folder, is_told=False, before=before):
            pass

    def _added(
        self, folder: bytes, *, is_told: bool = True, before: Callable[[], object] = lambda: None
    ) -> Iterator[bytes]:
        """Watch *folder* and the folders in it; yields the paths of all that is there if *is_told*.

        A generator, since a list of a million paths takes as much memory as everything else,
        and fragments it.
        """
        todo = [folder]
        while todo:
            path = todo.pop()
            before()
            absolute = os.path.join(self._root, path)
            try:
                descriptor = open_path(absolute, READ_FOLDER)
                try:
                    # A short path, since the call takes no descriptor.
                    short = b"/proc/self/fd/%d" % descriptor
                    self._folders[self._watch(short, _MASK if path else _ROOT_MASK)] = path
                    # Listed after it is watched: later changes are reported as events.
                    with contextlib.suppress(OSError), os.scandir(descriptor) as entries:
                        for entry in entries:
                            is_folder = self._deep and entry.is_dir(follow_symlinks=False)
                            if not (is_folder or is_told):
                                continue  # a million files, at a start
                            child = os.path.join(path, os.fsencode(entry.name))
                            if is_told:
                                yield child
                            if is_folder:
                                todo.append(child)
                finally:
                    os.close(descriptor)
            except OSError as error:
                if error.errno not in _GONE:
                    raise

    def _watch(self, folder: bytes, mask: int) -> int:
        watch: int = _libc.inotify_add_watch(self._descriptor, folder, mask)
        if watch < 0:
            raise _error()
        return watch

    def changes(self, quiet: float, longest: float) -> Iterator[set[bytes]]:
        """Sets of changed paths, each collected until *quiet* seconds without an event.

        At most for *longest* seconds. ``b""``, the root, means that anything can have changed.
        Ends after :meth:`stop`.
        """
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        poll.register(self._now, select.POLLIN)
        paths: set[bytes] = set()
        until = 0.0
        while True:
            left = min(quiet, until - time.monotonic()) if paths else None
            ready = dict(poll.poll(None if left is None else max(0.0, left) * 1000))
            if self._stop in ready:
                return
            waiting = self._hurried() if self._now in ready else []
            if ready:
                if not paths:
                    until = time.monotonic() + longest
                while (read := self._read()) is not None:
                    paths |= read
                    if not waiting:
                        break
            if paths and (waiting or not ready or time.monotonic() >= until):
                yield paths
                paths = set()
            for done in waiting:
                done()

    def _hurried(self) -> list[Callable[[], None]]:
        os.eventfd_read(self._now)
        return [self._waiting.popleft() for _ in range(len(self._waiting))]

    def _read(self) -> set[bytes] | None:
        """The paths of some events; None if there are none."""
        paths: set[bytes] = set()
        try:
            data = os.read(self._descriptor, _BUFFER)
        except BlockingIOError:
            return None
        at = 0
        while at < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            name = data[at : at + length].rstrip(b"\0")
            at += length
            paths.update(self._event(watch, mask, name))
        return paths

    def _event(self, watch: int, mask: int, name: bytes) -> Iterator[bytes]:
        if mask & (_Q_OVERFLOW | _UNMOUNT):
            if self._heard:
                self._heard(b"", Change.ANY)
            yield b""
            return
        if mask & _IGNORED:
            self._folders.pop(watch, None)
            return
        folder = self._folders.get(watch)
        if folder is None:
            return
        path = os.path.join(folder, name) if name else folder
        if self._heard:
            self._heard(path, _change(mask))
        yield path
        if mask & _ISDIR and mask & _MOVED_FROM:
            self._remove(path)
        elif self._deep and mask & _ISDIR and mask & (_CREATE | _MOVED_TO):
            # With what it held before it was watched.
            yield from self._added(path)

    def _remove(self, folder: bytes) -> None:
        """Remove the watches of *folder*, which was renamed or moved away."""
        for watch, path in list(self._folders.items()):
            if path == folder or path.startswith(folder + b"/"):
                _libc.inotify_rm_watch(self._descriptor, watch)
                del self._folders[watch]


def _change(mask: int) -> Change:
    if mask & _MOVED_TO:
        return Change.RENAMED
    if mask & _ATTRIB:
        return Change.ATTRIBUTES
    return Change.CLOSED if mask & _CLOSE_WRITE else Change.ANY


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
