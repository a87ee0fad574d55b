"""Nodes that the kernel has forgotten, found by their inode alone.

An NFS server, and open_by_handle_at(2), know a file by its handle, which for FUSE is its inode. A
client can use it days later, when the kernel has long forgotten the node; then it asks for "." in
that inode (fuse_get_dentry in fs/fuse/inode.c). An inode is a hash (DESIGN V4), which can't be
turned back into a path. So

- the paths of the nodes forgotten last are kept, :data:`MEMORY` of them;
- archives, and the folders that games are in, are searched for among all games.

What that leads to is looked up from the root, and has to have the inode that was asked for. What
remains stale is a single file, or a folder without games, among those forgotten longest; and all of
these after a restart, until their folder is listed again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from zipfs.archive import validators
from zipfs.catalog.games import Games
from zipfs.catalog.nodes import Folder, Node
from zipfs.errors import StaleError
from zipfs.library.rules.general import folders_of
from zipfs.sealing.outcomes import Sealed, Unhashed, Unsettled
from zipfs.system.paths import join
from zipfs.system.threads.lanes import Threads

MEMORY: Final = 20_000
"""Paths that are kept, of about a hundred bytes each."""
_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.5


class Handles:
    """Finds nodes by inode: those that were forgotten, of any kind, and those of *games*.

    *root*, *lookup* and *refresh* are the catalog's.
    """

    def __init__(
        self,
        games: Games,
        threads: Threads,
        root: Callable[[], Awaitable[Folder]],
        lookup: Callable[[Folder, bytes], Awaitable[Node]],
        refresh: Callable[[Node], Awaitable[Node]],
    ) -> None:
        self._games = games
        self._in_thread = threads.run
        self._root = root
        self._lookup = lookup
        self._refresh = refresh
        self._paths: OrderedDict[int, bytes] = OrderedDict()

    def forgotten(self, inode: int, path: bytes) -> None:
        """The kernel has forgotten the node *inode* at *path*, and may ask for it by its inode."""
        self._paths[inode] = path
        self._paths.move_to_end(inode)
        if len(self._paths) > MEMORY:
            self._paths.popitem(last=False)

    async def lookup(self, inode: int, name: bytes, known: Node | None) -> Node:
        """What ``.`` or ``..`` is in the node *inode*: itself, or its folder.

        *known* is that node, if it isn't forgotten. Raises :exc:`StaleError` if it isn't found;
        the root's folder is the root.
        """
        node = await (self._refresh(known) if known else self.find(inode))
        return node if name == b"." else await self._at(node.path.rpartition(b"/")[0])

    async def find(self, inode: int, path: bytes | None = None, *, patience: float = 0.0) -> Node:
        """The node *inode*, which was at *path* if that is known.

        Where its archive is still to come, as its game settles or is hashed, it waits for that,
        for *patience* seconds. Raises :exc:`StaleError` if it isn't found.
        """
        if path is None:
            path = self._paths.get(inode)
        if path is None:
            path = await self._in_thread(self._search, inode, lane="handles")
        if path is None:
            raise StaleError
        pause, until = _FIRST_PAUSE, trio.current_time() + patience
        while True:
            try:
                node = await self._at(path)
            except FileNotFoundError:
                if not self._is_coming(path) or trio.current_time() >= until:
                    raise StaleError from None
            else:
                if node.attributes.inode != inode:
                    raise StaleError
                return node
            await trio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _is_coming(self, path: bytes) -> bool:
        """Whether an archive may appear at *path*: its game settles, or is hashed."""
        folder, _, name = path.rpartition(b"/")
        games = (self._games.get(join(folder, base)) for base in folders_of(name))
        return any(game and isinstance(game.outcome, Unhashed | Unsettled) for game in games)

    async def _at(self, path: bytes) -> Node:
        """The node at *path*; raises :exc:`StaleError` or :exc:`FileNotFoundError`."""
        node: Node = await self._root()
        for name in path.split(b"/") if path else ():
            if not isinstance(node, Folder):
                raise StaleError
            node = await self._lookup(node, name)
        return node

    def _search(self, inode: int) -> bytes | None:
        """In a worker thread: the path of the archive or folder of games *inode*."""
        folders = set()
        for game in self._games.snapshot():
            if isinstance(game.outcome, Sealed):
                if game.outcome.inode == inode:
                    return game.outcome.path
                folders.add(game.path.rpartition(b"/")[0])
            else:
                folders.add(game.path)
        seen: set[bytes] = set()
        for folder in folders:
            while folder and folder not in seen:
                seen.add(folder)
                if validators.inode(b"folder", folder) == inode:
                    return folder
                folder = folder.rpartition(b"/")[0]  # noqa: PLW2901 - the folders above it
        return None
