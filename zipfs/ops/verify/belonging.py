"""Finds the archives that a file is in. It lists the games' folders, and reads no file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from zipfs.library.scan import Entry
from zipfs.library.view import find_games
from zipfs.sealing.sealer import Sealer


class Belonging:
    """Finds the archives that have given files of *sealer*'s library as members."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._library = sealer.library

    def by_place(self, path: bytes) -> tuple[bytes, ...]:
        """The archive of the game whose folder has the file at *path*; empty if there is none.

        Fast. Archives of lists and variants, or by links, are found by :meth:`look_through` only.
        """
        policy = self._sealer.policy
        folder = path
        while folder := folder.rpartition(b"/")[0]:
            if not policy.is_game(folder):
                continue
            try:
                entry = self._library.entry(folder)
                if isinstance(entry, Entry) and entry.is_folder:
                    sources, archive = self._game(folder, entry)
                    return (archive,) if path in sources else ()
            except OSError:
                break
        return ()

    def look_through(
        self, paths: Collection[bytes], known: Callable[[Sequence[bytes]], Collection[bytes]] | None
    ) -> tuple[dict[bytes, tuple[bytes, ...]], int]:
        """The archives of each file at *paths* that is in one, and the number of unknown files.

        These are files of games that *known*, called with paths, doesn't return; 0 without it.
        """
        archives: dict[bytes, list[bytes]] = {path: [] for path in paths}
        unknown: set[bytes] = set()  # a file of several archives counts once
        for game, entry in find_games(self._library, self._sealer.policy):
            try:
                sources, archive = self._game(game, entry)
            except OSError:
                continue  # the folder can't be listed; a mount logs that
            for source in archives.keys() & sources:
                archives[source].append(archive)
            if known is not None:
                unknown.update(set(sources).difference(known(sources)))
        return {path: tuple(sorted(names)) for path, names in archives.items() if names}, len(
            unknown
        )

    def _game(self, path: bytes, entry: Entry) -> tuple[list[bytes], bytes]:
        """The sources in a game's archive, and the archive's path; both empty without one."""
        scan = self._library.scan(entry.source, self._sealer.policy, entry.origins, path=path)
        if scan.problem or not scan.is_archive(self._sealer.fewest):
            return [], b""
        sources = [file.source for file in scan.files]
        return sources, self._sealer.archive_path(path, entry.source)
