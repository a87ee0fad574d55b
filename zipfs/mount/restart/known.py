"""The nodes that the kernel knows: by inode, with its references.

The kernel asks for nodes by their inodes, until it has sent as many FORGET as it was given
references. Where the mount outlives its daemon, each of them is in the journal
(:mod:`zipfs.mount.restart.state`), and a node that only an earlier daemon has told of is looked up
by its path when it is asked for. It has to have the inode that is asked for: a node of another
version is never taken instead (DESIGN F2).

How many references the kernel has from earlier daemons isn't known, so a FORGET may end a node too
early. Whoever is asked for it later finds it as an NFS server's handles are found
(:mod:`zipfs.catalog.handles`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from zipfs.archive.validators import ROOT_INODE
from zipfs.catalog.handles import Handles
from zipfs.catalog.nodes import Archive, Folder, Node
from zipfs.errors import StaleError
from zipfs.logs import Once
from zipfs.mount.restart.state import Known, News, Shown, State
from zipfs.text import shown

log = logging.getLogger(__name__)
_once = Once(log)

PATIENCE: Final = 120.0
"""Seconds to wait for an archive that was there before a restart: its checksums may be lost."""


class InodeTakenError(Exception):
    """Two nodes have the same inode."""


class KnownNodes:
    """Nodes by inode. *root* is known for ever; *handles* finds what isn't known here.

    *state* is the journal, None if the mount ends with this daemon.
    """

    def __init__(self, root: Folder, handles: Handles, state: State | None = None) -> None:
        self._nodes: dict[int, Node] = {ROOT_INODE: root}
        self._lookups: dict[int, int] = {}
        self._handles: Final = handles
        self._state = state
        self._earlier: dict[int, Known] = {}
        self.newest: dict[bytes, int] = {}
        """The archive at each path that the kernel was told of last; only with a journal."""
        self.found_again = 0
        """How many nodes of earlier daemons were found by their paths."""
        self.lost = 0
        """How many weren't: they are gone, or other versions are there."""

    @property
    def outlive(self) -> bool:
        """Whether the mount goes on when this daemon ends."""
        return self._state is not None

    @property
    def has_earlier(self) -> bool:
        """Whether there was a daemon of this mount before: what isn't known here may be its."""
        return self._state is not None and self._state.daemons > 1

    def learn(self, news: Iterable[News] | None = None) -> None:
        """What is in the journal by now was told by earlier daemons; *news* are what is new in it.

        None: it is learnt from the beginning.
        """
        if self._state is None:
            return
        if news is None:
            self._earlier = self._state.known
            archives = (
                (known.path, inode)
                for inode, known in self._earlier.items()
                if known.kind is Shown.ARCHIVE
            )
            self.newest = dict(archives)
            return
        for inode, known, is_forgotten in news:
            if known.kind is Shown.ARCHIVE and not is_forgotten:
                self.newest[known.path] = inode
            elif self.newest.get(known.path) == inode:
                del self.newest[known.path]

    def take_over(self) -> None:
        """No earlier daemon writes any more."""
        if self._state:
            self._state.known = {}

    def __contains__(self, inode: int) -> bool:
        return inode in self._nodes or inode in self._earlier

    def get(self, inode: int) -> Node | None:
        """The node *inode*, if this daemon has told of it or found it; touches no disk."""
        return self._nodes.get(inode)

    async def find(self, inode: int) -> Node:
        """The node *inode*; raises :exc:`StaleError`, or what looking it up does."""
        node = self._nodes.get(inode)
        if node is not None:
            return node
        if not self.has_earlier:
            raise StaleError
        try:
            known = self._earlier.get(inode)
            path = known.path if known else None
            node = await self._handles.find(inode, path, patience=PATIENCE)
        except StaleError:
            self.lost += 1
            if known := self._earlier.get(inode):
                _once.warning("%s of before the restart isn't there any more", shown(known.path))
            raise
        self.found_again += 1
        self._earlier.pop(inode, None)
        return self._nodes.setdefault(inode, node)

    def refreshed(self, node: Node) -> None:
        """*node* has other attributes now, if the kernel still knows it."""
        if node.attributes.inode in self._nodes:
            self._nodes[node.attributes.inode] = node

    def remember(self, node: Node) -> None:
        """Count a reference of the kernel to *node*. Raises :exc:`InodeTakenError`.

        The kernel may be told of it after :meth:`commit`.
        """
        inode = node.attributes.inode
        other = self._nodes.get(inode)
        if self._state and isinstance(node, Archive):
            # In the journal the version told of last is the last one of its path.
            if self.newest.get(node.path) != inode:
                self.newest[node.path] = inode
                self._state.tell(inode, Shown.ARCHIVE, node.path)
            self._earlier.pop(inode, None)
        elif other is None and self._state and self._earlier.pop(inode, None) is None:
            self._state.tell(inode, _kind_of(node), node.path)
        if (
            other is not None
            and other is not node
            and (type(other), other.path) != (type(node), node.path)
        ):
            log.error("inode %d is taken; %s isn't shown", inode, shown(node.path))
            raise InodeTakenError
        self._nodes[inode] = node
        self._lookups[inode] = self._lookups.get(inode, 0) + 1

    def commit(self) -> None:
        """Write to the journal what it has to have before the kernel gets its answer."""
        if self._state is None:
            return
        try:
            self._state.commit()
            if self._state.is_mostly_garbage:
                self._state.rewrite(self._all())
        except OSError as error:  # no memory: what isn't in it is stale after a restart
            _once.warning("can't note down what the kernel knows: %s", error.strerror)

    def forget(self, inodes: Sequence[tuple[int, int]]) -> None:
        """The kernel has given up so many references to each inode."""
        for inode, count in inodes:
            left = self._lookups.get(inode, 0) - count
            if left > 0:
                self._lookups[inode] = left
            elif inode != ROOT_INODE:
                self._lookups.pop(inode, None)
                node, known = self._nodes.pop(inode, None), self._earlier.pop(inode, None)
                path = node.path if node else known.path if known else None
                if path is not None:
                    if self.newest.get(path) == inode:
                        del self.newest[path]
                    self._handles.forgotten(inode, path)
                    if self._state:
                        self._state.forget(inode, path)

    def _all(self) -> Iterator[tuple[int, Shown, bytes]]:
        everything = [(i, known.kind, known.path) for i, known in self._earlier.items()]
        everything += [(i, _kind_of(node), node.path) for i, node in self._nodes.items()]
        # The newest archive of each path last.
        everything.sort(key=lambda found: self.newest.get(found[2]) == found[0])
        return (found for found in everything if found[0] != ROOT_INODE)


def _kind_of(node: Node) -> Shown:
    if isinstance(node, Folder):
        return Shown.FOLDER
    return Shown.ARCHIVE if isinstance(node, Archive) else Shown.FILE
