"""How many calls at once make a source faster: found out by measuring.

A source far away answers slowly, and many calls at once as fast as one. A disk that seeks gets
slower by them, and one whose data are cached gains nothing, as the interpreter runs one thread at
a time. What a source is isn't known by its name. So while most of the time is spent waiting, twice
as many are tried now and then, and kept if that was worth it.
"""

from __future__ import annotations

import threading
from typing import Final

MOST: Final = 32
"""Calls at once at most."""
_COUNT: Final = 64
_SECONDS: Final = 0.05
"""Calls, and seconds, at least, of one measurement."""
_SAMPLE: Final = 8
"""Calls of each of those at once, at least, while something is being tried: the last ones of many
are made by fewer than all."""
_GAIN: Final = 1.3
"""How much faster twice as many have to be. A disk with a queue of its own gets to 1.2."""
_WAITING: Final = 0.5
"""Share of the time in which a processor is busy, up to which more are worth a try..."""
_BUSY: Final = 0.9
"""...and from which fewer do."""
_HOLD: Final = 8
_LONGEST_HOLD: Final = 512
"""Measurements until the next try after one that was no use; twice as many after each..."""
_SLOWER: Final = 2
"""...and none any more if the source is so many times slower than it was then."""


class Width:
    """The number of calls at once for one source, *most* at most. Thread-safe.

    With *fixed* it is always *most*.
    """

    def __init__(self, most: int = MOST, *, fixed: bool = False) -> None:
        self._most = max(1, most)
        self._fixed = fixed
        self._lock = threading.Lock()
        self.now = self._most if fixed else 1
        """So many at once."""
        self._count = 0
        self._seconds = 0.0
        self._busy = 0.0
        self._rate_before: float | None = None
        """Calls a second with half as many, while a try lasts."""
        self._hold = 0
        self._left = 0
        """Measurements until the next try."""
        self._rate_held = 0.0
        """Calls a second when the last try was no use."""
        self._is_new = not fixed

    @property
    def sample(self) -> int | None:
        """How many calls are to be made until it is asked again; None: as many as there are.

        Few, as long as it isn't known or another one is being tried.
        """
        with self._lock:
            if self._is_new or self._rate_before is not None:
                return max(_COUNT, _SAMPLE * self.now)
            return None

    def measured(self, width: int, count: int, seconds: float, busy: float) -> None:
        """*count* calls, *width* at once, took so many *seconds*, and *busy* ones of processors."""
        if self._fixed:
            return
        with self._lock:
            if width != self.now or count < width:  # of another time, or not even that many
                return
            self._count += count
            self._seconds += seconds
            self._busy += busy
            if self._count < _COUNT or self._seconds < _SECONDS:
                return
            rate, share = self._count / self._seconds, self._busy / self._seconds
            self._count, self._seconds, self._busy = 0, 0.0, 0.0
            self._decide(rate, share)

    def _decide(self, rate: float, share: float) -> None:
        before, self._rate_before = self._rate_before, None
        self._is_new = False
        if before is not None:
            if rate >= _GAIN * before:
                self._hold = self._left = 0
            else:
                self.now = max(1, self.now // 2)
                self._hold = min(_LONGEST_HOLD, 2 * self._hold or _HOLD)
                self._left = self._hold
                self._rate_held = before
                return
        if _SLOWER * rate < self._rate_held:  # it isn't what it was when that was found out
            self._hold = self._left = 0
        if share > _BUSY and self.now > 1:
            self.now //= 2
        elif self._left > 0:
            self._left -= 1
        elif share < _WAITING and 2 * self.now <= self._most:
            self._rate_before = rate
            self.now *= 2
