"""How many threads look at each of the library's places at once."""

from __future__ import annotations

from zipfs.library.place import is_in
from zipfs.library.presence import Presence
from zipfs.system.measuring.width import MOST, Width


class Widths:
    """A width for the library's root, and for each disk that is mounted in it (*presence*).

    One for each kind of work, too: to examine a game takes longer than to look at a file.

    *threads* is the number of all threads that look at it. *fixed* is the same for all, None:
    they are measured.
    """

    def __init__(self, presence: Presence, threads: int, fixed: int | None = None) -> None:
        self._presence = presence
        self._most = min(MOST, threads // 2) if fixed is None else min(fixed, threads)
        self._is_fixed = fixed is not None
        self._of: dict[tuple[bytes, str], Width] = {}

    def of(self, source: bytes, work: str) -> Width:
        """That of the place that *source* is in, for that kind of *work*."""
        place = max((place for place in self._presence.places if is_in(source, place)), key=len)
        return self._of.setdefault((place, work), Width(self._most, fixed=self._is_fixed))
