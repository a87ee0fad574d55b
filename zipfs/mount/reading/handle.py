"""An open content, and what is known of how its source answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from zipfs.mount.fd_pool import OpenFile
from zipfs.mount.reading.ahead import Ahead
from zipfs.mount.reading.content import Content
from zipfs.mount.reading.fetcher import Fetcher
from zipfs.system.measuring.gauge import is_slow

_MOST: Final = 32
"""Most files that are read at a time for one reader, where that isn't a setting."""
_SAMPLES: Final = 16


class Handle:
    """An open content, shared by all opens of it at the same time.

    *node* is its inode, *opened* the number of opens. *pinned* are files that stay open with it;
    *files* are the ones last found in the pool, by source number, some maybe closed since.
    *linger* is how long they stay open after the last release, in seconds. *ahead* reads ahead
    where the source is slow.
    """

    __slots__ = (
        "ahead", "content", "files", "is_local", "linger", "node", "opened", "pinned", "seconds",
    )  # fmt: skip

    def __init__(
        self, node: int, content: Content, pinned: Sequence[OpenFile], linger: float
    ) -> None:
        self.node = node
        self.content = content
        self.ahead: Ahead | None = None
        self.seconds: deque[float] = deque(maxlen=_SAMPLES)
        """How long each of the last files took that a thread opened or read."""
        self.is_local = False
        """Whether the source tells what it has in memory: it is on a disk of this machine."""
        self.files: dict[int, OpenFile] = {}
        self.opened = 0
        self.pinned = pinned
        self.linger = linger

    def judge(self, seconds: Sequence[float], fetcher: Fetcher, parallel: int | None) -> None:
        """Files took so many *seconds* each: if the source is slow, read ahead from now on.

        *parallel* is how many are to be read at a time; None: what turns out to be best.
        """
        self.seconds.extend(seconds)
        if not fetcher.count or parallel == 0 or self.ahead or not self.opened:
            return  # with nobody left, it would have no end
        fixed = parallel is not None
        if fixed or is_slow(self.seconds):
            most = max(1, min(parallel or _MOST, fetcher.count))
            self.ahead = Ahead(fetcher, self.content, most, fixed=fixed)
            self.ahead.is_local = self.is_local

    def told(self) -> None:
        """The source has told what it has in memory."""
        self.is_local = True
        if self.ahead:
            self.ahead.is_local = True

    def end_ahead(self) -> None:
        """Read ahead no more, unless the source is found to be slow again."""
        if self.ahead:
            self.ahead.end()
            self.ahead = None
            self.seconds.clear()
