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

import pyfuse3
import trio

from zipfs.archive import validators
from zipfs.archive.validators import ROOT_INODE
from zipfs.catalog.listing.listing import OpenFolder, Seen
from zipfs.catalog.nodes import Archive, Attributes, File, Folder, Node
from zipfs.catalog.tree import Catalog
from zipfs.errors import ChangedError, StaleError
from zipfs.library.proven import DisprovedError
from zipfs.logs import Once
from zipfs.mount.errnos import (
    FILE_REPLACED,
    FOR_WRITING,
    INODE_TAKEN,
    IS_A_FOLDER,
    NEGATIVE,
    NOT_A_FOLDER,
    NOT_A_NAME,
    UNKNOWN_HANDLE,
    UNREADABLE,
    to_errno,
)
from zipfs.mount.metrics import Metrics
from zipfs.mount.reader import Reader
from zipfs.mount.reading.handle import Handle
from zipfs.mount.restart.known import InodeTakenError, KnownNodes
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
    of each game whose archive is opened. *nodes* are those that the kernel knows, of the *root*.
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
        nodes: KnownNodes | None = None,
    ) -> None:
        super().__init__()
        # At most half of the delay: a name that the kernel has cached for one version must
        # have expired when the next version appears (DESIGN V1).
        self._timeout = min(ENTRY_TIMEOUT, republish_delay / 2)
        self._catalog = catalog
        self._reader = reader
        self._ownership = ownership
        self._asked = asked
        self.nodes: Final = nodes or KnownNodes(root, catalog.handles)
        self._handles: dict[int, list[tuple[Node, Handle]]] = {}
        self._listings: dict[int, OpenFolder] = {}
        self.reopened = 0
        """How many files and folders that an earlier daemon had opened were opened again."""
        self.metrics: Final = Metrics()
        self.mounted = trio.Event()
        """Set when requests can come."""

    def init(self) -> None:
        if not self.nodes.outlive:  # else the connection isn't the kernel's yet
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
            known = self.nodes.get(parent_inode)
            node = await self._catalog.handles.lookup(parent_inode, name, known)
        else:
            node = await self._catalog.lookup(await self._folder(parent_inode), name)
        self._remember(node)
        self.nodes.commit()
        return self._entry(node.attributes)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        self.nodes.forget(inode_list)

    @_handler
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        node = await self._catalog.refresh(await self.nodes.find(inode))
        self.nodes.refreshed(node)
        return self._entry(node.attributes)

    @_handler
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        folder = await self._folder(inode)
        listing = await self._catalog.open_folder(folder)
        opened = self._listings.get(inode)
        if opened is None:
            opened = self._listings[inode] = OpenFolder(folder, listing)
        else:  # cookies hold in any listing
            opened.listing, opened.is_read = listing, False
        opened.opens += 1
        return inode

    @_handler
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        opened = self._listings.get(fh) or await self._reopen_folder(fh)
        if start_id < 0:
            raise pyfuse3.FUSEError(NEGATIVE)
        if start_id == 0 and opened.is_read:  # rewinddir(3): as the folder is by now
            opened.listing = await self._catalog.open_folder(opened.folder)
        opened.is_read = True
        listing = opened.listing
        number, told = await self._catalog.behind(listing, start_id)
        is_any = False
        size = len(listing)
        while True:
            seen = listing.at(number, told) if number < size else None
            if seen is None:
                # Whoever has some names needn't wait for the next ones.
                if is_any or not await self._catalog.look_at(listing, number, told):
                    break
                size = len(listing)  # it may have been read to its end
                seen = listing.at(number, told)
            number += 1
            if seen is None or (node := seen.node) is None:
                continue
            is_told = listing.is_true or seen.is_provisional  # as somebody looks before it is used
            if not (is_told or self._catalog.is_there(node)):
                continue
            reply = seen.reply or self._reply(seen, node)
            cookie = listing.names.cookies[number - 1] | told
            if not pyfuse3.readdir_reply(token, seen.name, reply, cookie):
                break
            is_any = True
            self._remember(node)
        self.nodes.commit()

    def _reply(self, seen: Seen, node: Node) -> pyfuse3.EntryAttributes:
        """The entry that *seen* with that *node* is told by."""
        # Kept: most listings are read more than once, and this is a third of the cost.
        reply = seen.reply = self._entry(node.attributes)
        if seen.is_provisional:  # who asks for it has it looked at
            reply.entry_timeout = reply.attr_timeout = 0.0
        return reply

    @_handler
    async def releasedir(self, fh: int) -> None:
        opened = self._listings.get(fh)
        if opened is None:
            self._check_earlier()
            return
        opened.opens -= 1
        if opened.opens <= 0:
            del self._listings[fh]

    @_handler
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        node = await self.nodes.find(inode)
        if isinstance(node, Folder):
            raise pyfuse3.FUSEError(IS_A_FOLDER)
        if self._asked and isinstance(node, Archive):
            self._asked(node.game)
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise pyfuse3.FUSEError(FOR_WRITING)
        try:
            opened = await self._open(node)
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
        self._handles.setdefault(inode, []).append((node, opened))
        # An inode is one version for ever, so the pages that the kernel has cached stay valid.
        return pyfuse3.FileInfo(fh=inode, keep_cache=True)

    async def _open(self, node: File | Archive) -> Handle:
        content = await self._catalog.open(node)
        return await self._reader.open(node.attributes.inode, content)

    async def read(self, fh: int, off: int, size: int) -> memoryview:  # type: ignore[override]  # pyfuse3 takes any buffer, and copies it before another task runs
        # Without the wrapper, which would be a large part of the cost of a small read.
        started = perf_counter_ns()
        opened = self._handles.get(fh)
        node, handle = opened[-1] if opened else await self._reopen(fh)
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
                reason += (
                    f": {shown(error.source.source)} has other bytes of the same size and date"
                )
            version = b"%d" % node.attributes.inode
            _once.warning("reading %s ended in an error: %s", shown(node.path), reason, of=version)
            self._catalog.failed(node, error, handle.content)
            error = pyfuse3.FUSEError(UNREADABLE)
        return _failure(self.metrics, "read", error)

    @_handler
    async def release(self, fh: int) -> None:
        opened = self._handles.get(fh)
        if not opened:
            self._check_earlier()
            return
        _, handle = opened.pop(0)
        if not opened:
            del self._handles[fh]
        self._reader.release(handle)

    # -- What an earlier daemon has opened. Handles are inodes, so they mean the same here. --------

    def _check_earlier(self) -> None:
        if not self.nodes.has_earlier:
            raise pyfuse3.FUSEError(UNKNOWN_HANDLE)

    async def _reopen(self, fh: int) -> tuple[Node, Handle]:
        """Open the file again that an earlier daemon has opened as *fh*; a failure is a read's."""
        self._check_earlier()
        try:
            node = await self.nodes.find(fh)
            if isinstance(node, Folder):
                raise pyfuse3.FUSEError(IS_A_FOLDER)
            handle = await self._open(node)
        except (StaleError, ChangedError):
            raise _failure(self.metrics, "read", pyfuse3.FUSEError(UNREADABLE)) from None
        except Exception as error:  # noqa: BLE001 - as in _handler
            raise _failure(self.metrics, "read", error) from None
        if opened := self._handles.get(fh):  # by another read meanwhile
            self._reader.release(handle)
        else:
            opened = self._handles[fh] = [(node, handle)]
            self.reopened += 1
        return opened[-1]

    async def _reopen_folder(self, fh: int) -> OpenFolder:
        self._check_earlier()
        folder = await self._folder(fh)
        opened = OpenFolder(folder, await self._catalog.open_folder(folder), is_read=True, opens=1)
        self.reopened += 1
        return self._listings.setdefault(fh, opened)

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
        if name and inode in self.nodes and self.mounted.is_set():
            pyfuse3.invalidate_entry_async(inode, name, ignore_enoent=True)

    @property
    def open_handles(self) -> int:
        return sum(map(len, self._handles.values()))

    def is_open(self, game: bytes) -> bool:
        """Whether the archive of *game* is open."""
        nodes = (opened[0][0] for opened in self._handles.values())
        return any(isinstance(node, Archive) and node.game == game for node in nodes)

    async def _folder(self, inode: int) -> Folder:
        node = await self.nodes.find(inode)
        if not isinstance(node, Folder):
            raise pyfuse3.FUSEError(NOT_A_FOLDER)
        return node

    def _remember(self, node: Node) -> None:
        try:
            self.nodes.remember(node)
        except InodeTakenError:
            raise pyfuse3.FUSEError(INODE_TAKEN) from None

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
