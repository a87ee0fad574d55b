"""FUSE requests, answered by the catalog and the reader: a translation, no decisions.

pyfuse3 catches :exc:`pyfuse3.FUSEError` alone; any other exception ends the mount.
So each handler is wrapped (:func:`_handler`), and one table turns exceptions into
errno (DESIGN H4).

Extended attributes, ``flush`` and ``access`` are left undefined: the kernel asks once,
gets ``ENOSYS``, and doesn't ask again. The mount is read-only, so the kernel itself
answers ``EROFS`` to any request to change something.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from time import perf_counter_ns
from typing import Any, Concatenate, Final, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import pyfuse3
import trio

from zipfs.archive import validators
from zipfs.archive.validators import ROOT_INODE
from zipfs.catalog.dir_cache import Listing, OpenFolder
from zipfs.catalog.nodes import Archive, Attributes, Folder, Node
from zipfs.catalog.tree import Catalog
from zipfs.errors import ChangedError, StaleError
from zipfs.library.proven import DisprovedError
from zipfs.logs import Once
from zipfs.mount.metrics import Metrics
from zipfs.mount.reader import Handle, Reader
from zipfs.system.ownership import Ownership
from zipfs.text import shown

log = logging.getLogger(__name__)
_once = Once(log)

ENTRY_TIMEOUT: Final = 1.0
"""Longest time for which the kernel caches a name or attributes, in seconds."""
_BLOCK_SIZE: Final = 512  # the unit of st_blocks, stat(3type)
_NAME_MAX: Final = 255  # bytes

P = ParamSpec("P")
R = TypeVar("R")
_Handler = Callable[Concatenate["Operations", P], Coroutine[Any, Any, R]]


# -- Errno: every error that a request can return -----------------------------------------

# Invalid requests, refused without access to the library.
UNKNOWN_HANDLE: Final = errno.EBADF
NOT_A_NAME: Final = errno.ENOENT
NOT_A_FOLDER: Final = errno.ENOTDIR
IS_A_FOLDER: Final = errno.EISDIR
NEGATIVE: Final = errno.EINVAL
"""A negative offset, length or position in a listing: read(2), lseek(2)."""
FOR_WRITING: Final = errno.EROFS
"""An open for writing; the kernel refuses it itself, unless root has remounted it for writing."""
INODE_TAKEN: Final = errno.EIO
"""Two nodes have the same 63-bit inode number: an error, not the wrong file."""

# Errors whose errno depends on the operation.
FILE_REPLACED: Final = errno.ENOENT
"""A mirrored file was replaced between lookup and open. Not ESTALE, upon which the kernel
opens the new file by itself: a server that called stat before would send the new bytes under
the old ETag."""
UNREADABLE: Final = errno.EIO
"""A read failed, whatever the errno of the source: to a web server no other errno of read(2)
makes sense (R1)."""


def to_errno(error: Exception) -> int | None:
    """The errno that *error* means to a program; None for a defect of zipfs."""
    match error:
        case pyfuse3.FUSEError():
            return error.errno  # one of the above
        case StaleError():
            # open(2) looks the path up again by itself, and finds the new version.
            return errno.ESTALE
        case ChangedError():
            # R1: the source has other bytes than this version.
            return errno.EIO
        case TimeoutError():
            # The source doesn't answer; few programs expect ETIMEDOUT from a file.
            return errno.EIO
        case OSError(errno=errno.ENOSYS):
            # After ENOSYS the kernel never sends that request again, for the whole mount.
            return errno.EIO
        case OSError(errno=int(number)) if number:
            # The source's own errno: ENOENT, EACCES, EIO, ENOTCONN, ...
            return number
        case _:
            return None


# -- Handlers ----------------------------------------------------------------------------


def _failure(metrics: Metrics, operation: str, error: Exception) -> pyfuse3.FUSEError:
    """The answer to an *operation* that raised *error*; counts it, and logs a defect."""
    number = to_errno(error)
    if number is None:
        log.error("unexpected error in %s", operation, exc_info=error)
        number = errno.EIO
    metrics.failed(operation, number)
    return pyfuse3.FUSEError(number)


def _handler(function: _Handler[P, R]) -> _Handler[P, R]:
    """Wrap a handler: its duration is counted, and any exception becomes an errno."""
    operation = function.__name__

    @functools.wraps(function)
    async def handler(self: Operations, *arguments: P.args, **keywords: P.kwargs) -> R:
        started = perf_counter_ns()
        try:
            result = await function(self, *arguments, **keywords)
        except Exception as error:  # noqa: BLE001 - any but FUSEError would end the mount (H4)
            raise _failure(self.metrics, operation, error) from None
        self.metrics.done(operation, perf_counter_ns() - started)
        return result

    return handler  # type: ignore[return-value]  # wraps() hides that it is a plain function


class Operations(pyfuse3.Operations):
    """Handlers of FUSE requests. *mounted* is set when the kernel is connected.

    *republish_delay* is the time in seconds for which an archive isn't there between two
    versions; *ownership* has the overrides for uid, gid and mode. *asked* is called with the path
    of each game whose archive is opened.
    """

    supports_dot_lookup = True
    enable_writeback_cache = False

    def __init__(
        self,
        catalog: Catalog,
        reader: Reader,
        root: Folder,
        republish_delay: float = 2.0,
        ownership: Ownership = Ownership(),  # noqa: B008 - immutable
        asked: Callable[[bytes], None] | None = None,
    ) -> None:
        super().__init__()
        # At most half of the delay: a name that the kernel has cached for one version must
        # have expired when the next version appears (DESIGN V1).
        self._timeout = min(ENTRY_TIMEOUT, republish_delay / 2)
        self._catalog = catalog
        self._reader = reader
        self._ownership = ownership
        self._asked = asked
        self._nodes: dict[int, Node] = {ROOT_INODE: root}
        self._lookups: dict[int, int] = {}
        self._handles: dict[int, tuple[Node, Handle]] = {}
        self._listings: dict[int, OpenFolder] = {}
        self._entries: WeakKeyDictionary[Listing, list[pyfuse3.EntryAttributes]] = (
            WeakKeyDictionary()
        )
        self._last_handle = 0
        self.metrics: Final = Metrics()
        self.mounted = trio.Event()

    def init(self) -> None:
        self.mounted.set()

    @_handler
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        # The kernel never looks a name with a slash or NUL up. Checked all the same, as the name
        # becomes part of a path.
        if not name or b"/" in name or b"\0" in name:
            raise pyfuse3.FUSEError(NOT_A_NAME)
        if name in (b".", b".."):
            known = self._nodes.get(parent_inode)
            node = await self._catalog.handles.lookup(parent_inode, name, known)
        else:
            node = await self._catalog.lookup(self._folder(parent_inode), name)
        self._remember(node)
        return self._entry(node.attributes)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for inode, count in inode_list:
            left = self._lookups.get(inode, 0) - count
            if left > 0:
                self._lookups[inode] = left
            elif inode != ROOT_INODE:
                self._lookups.pop(inode, None)
                if node := self._nodes.pop(inode, None):
                    self._catalog.handles.forgotten(node)

    @_handler
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        node = await self._catalog.refresh(self._node(inode))
        if inode in self._nodes:  # the kernel may have forgotten it meanwhile
            self._nodes[inode] = node
        return self._entry(node.attributes)

    @_handler
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        handle = self._new_handle()
        folder = self._folder(inode)
        self._listings[handle] = OpenFolder(folder, await self._catalog.children(folder))
        return handle

    @_handler
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        opened = self._open_folder(fh)
        if start_id < 0:
            raise pyfuse3.FUSEError(NEGATIVE)
        if start_id == 0 and opened.is_read:  # rewinddir(3): as the folder is by now
            opened.listing = await self._catalog.children(opened.folder)
        opened.is_read = True
        listing = opened.listing
        entries = self._entries.get(listing)
        if entries is None:
            # Cached: most listings are read more than once, and this is a third of the cost.
            entries = [self._entry(node.attributes) for _, node in listing]
            self._entries[listing] = entries
        cookies = listing.cookies
        for number in range(listing.behind(start_id), len(listing)):
            name, node = listing[number]
            if not (listing.is_true or self._catalog.is_there(node)):
                continue
            if not pyfuse3.readdir_reply(token, name, entries[number], cookies[number]):
                return
            self._remember(node)

    @_handler
    async def releasedir(self, fh: int) -> None:
        self._open_folder(fh)
        del self._listings[fh]

    @_handler
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        node = self._node(inode)
        if isinstance(node, Folder):
            raise pyfuse3.FUSEError(IS_A_FOLDER)
        if self._asked and isinstance(node, Archive):
            self._asked(node.game)
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise pyfuse3.FUSEError(FOR_WRITING)
        try:
            content = await self._catalog.open(node) if isinstance(node, Archive) else node
            opened = await self._reader.open(inode, content)
        except TimeoutError:
            _once.warning("opening %s ended in an error: no answer in time", shown(node.path))
            raise
        except (ChangedError, OSError) as error:
            await self._catalog.confirm(node)
            if isinstance(error, OSError):
                raise
            self._catalog.failed(node, error)
            self.invalidate(node.path)
            if isinstance(node, Archive):
                raise StaleError from None
            raise pyfuse3.FUSEError(FILE_REPLACED) from None
        handle = self._new_handle()
        self._handles[handle] = node, opened
        # An inode is one version for ever, so the pages that the kernel has cached stay valid.
        return pyfuse3.FileInfo(fh=handle, keep_cache=True)

    async def read(self, fh: int, off: int, size: int) -> memoryview:  # type: ignore[override]  # pyfuse3 takes any buffer, and copies it before another task runs
        # Without the wrapper, which would be a large part of the cost of a small read.
        started = perf_counter_ns()
        node, handle = self._opened(fh)
        if off < 0 or size < 0:
            raise pyfuse3.FUSEError(NEGATIVE)
        metrics = self.metrics
        try:
            found = self._reader.read_now(handle, off, size)
            if isinstance(found, memoryview):
                metrics.bytes_read += len(found)
                metrics.cached.add(perf_counter_ns() - started)
                return found
            found = await found.finish()
        except Exception as error:  # noqa: BLE001 - as in _handler
            raise self._read_failure(node, handle, error) from None
        metrics.bytes_read += len(found)
        metrics.waited.add(perf_counter_ns() - started)
        return found

    def _read_failure(self, node: Node, handle: Handle, error: Exception) -> pyfuse3.FUSEError:
        """The answer to a read of *node*, open as *handle*, that raised *error*."""
        if isinstance(error, ChangedError | OSError):
            reason = "a file of it has changed"
            if isinstance(error, OSError):
                reason = error.strerror or repr(error)
            elif isinstance(error, DisprovedError):
                reason += f": {shown(error.source.source)} has other bytes in the same state"
            version = b"%d" % node.attributes.inode
            _once.warning("reading %s ended in an error: %s", shown(node.path), reason, of=version)
            self._catalog.failed(node, error, handle.content)
            error = pyfuse3.FUSEError(UNREADABLE)
        return _failure(self.metrics, "read", error)

    @_handler
    async def release(self, fh: int) -> None:
        _, handle = self._opened(fh)
        del self._handles[fh]
        self._reader.release(handle)

    @_handler
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        source = await self._catalog.statvfs()
        data = pyfuse3.StatvfsData()
        for name in (
            "f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail",
            "f_files", "f_ffree", "f_favail",
        ):  # fmt: skip
            setattr(data, name, getattr(source, name))
        data.f_namemax = _NAME_MAX
        return data

    def invalidate(self, path: bytes) -> None:
        """Invalidate the kernel's cached entry of *path* before it expires."""
        folder, _, name = path.rpartition(b"/")
        inode = validators.inode(b"folder", folder) if folder else ROOT_INODE
        # In pyfuse3's own thread: the kernel may hold a lock on the folder until a pending
        # request for it is answered.
        if name and inode in self._nodes and self.mounted.is_set():
            pyfuse3.invalidate_entry_async(inode, name, ignore_enoent=True)

    @property
    def open_handles(self) -> int:
        return len(self._handles)

    def is_open(self, game: bytes) -> bool:
        """Whether the archive of *game* is open."""
        nodes = (node for node, _ in self._handles.values())
        return any(isinstance(node, Archive) and node.game == game for node in nodes)

    def _opened(self, fh: int) -> tuple[Node, Handle]:
        try:
            return self._handles[fh]
        except KeyError:
            raise pyfuse3.FUSEError(UNKNOWN_HANDLE) from None

    def _open_folder(self, fh: int) -> OpenFolder:
        try:
            return self._listings[fh]
        except KeyError:
            raise pyfuse3.FUSEError(UNKNOWN_HANDLE) from None

    def _node(self, inode: int) -> Node:
        try:
            return self._nodes[inode]
        except KeyError:
            raise StaleError from None

    def _folder(self, inode: int) -> Folder:
        node = self._node(inode)
        if not isinstance(node, Folder):
            raise pyfuse3.FUSEError(NOT_A_FOLDER)
        return node

    def _remember(self, node: Node) -> None:
        """Count a reference of the kernel to *node*, which lasts until :meth:`forget`."""
        inode = node.attributes.inode
        other = self._nodes.get(inode)
        if (
            other is not None
            and other is not node
            and (type(other), other.path) != (type(node), node.path)
        ):
            log.error("inode %d is taken; %s isn't shown", inode, shown(node.path))
            raise pyfuse3.FUSEError(INODE_TAKEN)
        self._nodes[inode] = node
        self._lookups[inode] = self._lookups.get(inode, 0) + 1

    def _entry(self, attributes: Attributes) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = attributes.inode
        ownership = self._ownership
        entry.st_mode = ownership.mode(attributes.mode)
        # 1 for folders, too, so that find(1) doesn't use it to skip stat calls.
        entry.st_nlink = 1
        entry.st_uid = attributes.uid if ownership.uid is None else ownership.uid
        entry.st_gid = attributes.gid if ownership.gid is None else ownership.gid
        entry.st_size = attributes.size
        entry.st_blocks = -(-attributes.size // _BLOCK_SIZE)
        entry.st_mtime_ns = attributes.mtime_ns
        entry.st_ctime_ns = attributes.ctime_ns
        entry.st_atime_ns = attributes.mtime_ns
        entry.entry_timeout = self._timeout
        entry.attr_timeout = self._timeout
        return entry

    def _new_handle(self) -> int:
        self._last_handle += 1
        return self._last_handle
