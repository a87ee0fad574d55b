"""When what has changed is settled, and may be hashed (DESIGN S1). Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from zipfs.library.scan import GameScan, SourceFile

_NANOSECONDS: Final = 1_000_000_000


class Settling(NamedTuple):
    """The settle time in *seconds*; with *by_mtime* ctime doesn't count."""

    seconds: float
    by_mtime: bool

    def changed(self, of: GameScan | tuple[SourceFile, ...]) -> int:
        """When the game, or any of the files, last changed; nanoseconds since the epoch."""
        if isinstance(of, GameScan):
            return of.written_ns if self.by_mtime else of.changed_ns
        states = [file.state for file in of]
        return max(state.mtime_ns if self.by_mtime else state.changed_ns for state in states)

    def left(self, of: GameScan | tuple[SourceFile, ...], clock_ns: int, known: float) -> float:
        """Seconds until the game, or the files, are settled; 0 if they are.

        Up to the beginning of the scan, at *clock_ns*: a change during the scan can be in one
        part of it and not in another, a combination that never existed.

        Either its newest time is old enough by the clock, or it has had the same fingerprint for
        *known* seconds. So if the clock was set back, or dates are in the future, the game
        settles by the second rule.
        """
        by_fingerprint = self.seconds - known
        age = (clock_ns - self.changed(of)) / _NANOSECONDS
        by_clock = self.seconds - age if age >= 0 else by_fingerprint
        return max(0.0, min(by_fingerprint, by_clock))
