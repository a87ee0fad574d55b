"""What the index knows of games' archives, until each game was looked at after the start.

What a game's archive was is saved with what it was made of. So the first look at a game after a
start only finds out whether that is the same, instead of putting the archive together
(:meth:`zipfs.sealing.sealer.Sealer.examine`). Before that look, a listing tells of the archive as
the index knows it, with no time to live, so that whoever asks for it has the game looked at
(:meth:`zipfs.catalog.listing.lister.Lister.look_ahead`). As he is going to ask for all, the rest of
that listing is looked at before it is told, and needn't be asked for.

A folder's games are loaded at once where all of them are about to be looked at; each row is used
once, and all are dropped after the first scan.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from zipfs.catalog.saver import Saver, drop_saved
from zipfs.index.index import Index
from zipfs.index.rows import Made, MadeAt
from zipfs.system.threads.lanes import Threads

_MEMORY: Final = 100_000
"""Games of which rows are in memory at most; a single folder may have more."""
_SAVE_SECONDS: Final = 2.0


class MadeArchives:
    """Archives as *index* knows them, by paths of games. Methods belong to trio's thread, unless
    they say otherwise."""

    def __init__(self, index: Index) -> None:
        self._index = index
        # A thread of its own: saving must not wait for the library's disk.
        self._in_thread = Threads(1).run
        self._lock = threading.Lock()
        self._loaded: OrderedDict[bytes, dict[bytes, MadeAt]] = OrderedDict()
        self._is_over = False
        self._unsaved: dict[bytes, Made | None] = {}
        self._saver = Saver(self._save, _SAVE_SECONDS)

    # -- What was made before the start --------------------------------------------

    def load(self, folder: bytes) -> None:
        """In a worker thread: load what is known of all games in *folder*."""
        if self._is_over or folder in self._loaded:
            return
        found = self._index.games(folder)
        with self._lock:
            if self.is_over:  # meanwhile
                return
            self._loaded[folder] = found
            count = sum(map(len, self._loaded.values()))
            while count > _MEMORY and len(self._loaded) > 1:
                count -= len(self._loaded.popitem(last=False)[1])

    def take(self, game: bytes) -> MadeAt | None:
        """In a worker thread: what the archive of *game* was; it is forgotten here by that."""
        if self._is_over:
            return None
        folder, _, name = game.rpartition(b"/")
        with self._lock:
            loaded = self._loaded.get(folder)
            if loaded is not None:
                return loaded.pop(name, None)
        return self._index.game(game)

    def of(self, folder: bytes, name: bytes) -> MadeAt | None:
        """What the archive of the game *name* in *folder* was, if that is loaded; in any thread."""
        return self._loaded.get(folder, {}).get(name)

    @property
    def is_over(self) -> bool:
        """Whether all games were looked at."""
        return self._is_over

    def over(self) -> None:
        """All games were looked at."""
        self._is_over = True
        self._loaded = OrderedDict()  # without the lock, for which the loop would wait

    # -- What is made now ------------------------------------------------------------

    def keep(self, game: bytes, made: Made) -> None:
        """The archive of *game* is what *made* says."""
        self._unsaved[game] = made
        self._saver.changed()

    def drop(self, game: bytes) -> None:
        """*game* has no archive any more."""
        self._unsaved[game] = None
        self._saver.changed()

    async def run(self) -> None:
        """Save what changes, for ever."""
        await self._saver.run()

    async def save(self) -> None:
        """Save all that isn't saved."""
        await self._saver.now()

    async def _save(self) -> None:
        if games := dict(self._unsaved):
            await self._in_thread(self._index.put_games, games)
            drop_saved(self._unsaved, games)
