"""What a daemon is given of a mount that somebody else holds, so that it outlives the daemon.

The *holder* is the service manager, with its descriptor store (sd_notify(3)), or our own small
parent process (:mod:`.holder`), which passes the descriptors' numbers on in :data:`VARIABLE` and
listens at a socket.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import MutableMapping
from typing import Final, NamedTuple

VARIABLE: Final = "ZIPFS_HELD"
"""Environment variable with blanks between: the numbers of ``/dev/fuse``, state and socket, what to
do, and when the daemon before died, in nanoseconds of CLOCK_MONOTONIC, or 0."""
ATTEMPT: Final = "ZIPFS_ATTEMPT"
"""Environment variable of a daemon that follows a dead one: which attempt it is, of how many."""
FIRST: Final = "first"
AGAIN: Final = "again"
STANDBY: Final = "standby"
"""Load everything, say :data:`LOADED`, and wait for :data:`GO` before taking the mount over."""
RELIEF: Final = "relief"
"""The same for a child of the daemon that serves (:mod:`.relief`), which ends after that."""

# From the daemon.
READY: Final = b"ready"
LOADED: Final = b"loaded"
STOPPED: Final = b"stopped"
"""All that was taken is answered, nothing more is taken: the next one can begin."""

NOTIFY: Final = b"notify "
"""What follows is for the service manager, sd_notify(3)."""

# To the daemon.
GO: Final = b"go"
FAILED: Final = b"failed"
"""The daemon that should have taken over has ended; then a blank and its exit status."""


class Held(NamedTuple):
    """A mount that is held: its ``/dev/fuse``, and the memfd of its state, None to keep none."""

    device: int
    state: int | None = None
    holder: int | None = None
    """Our end of the socket to our parent; None if the service manager holds it."""
    task: str = FIRST
    died_ns: int = 0
    """When the daemon before died, in nanoseconds of CLOCK_MONOTONIC; 0 if that isn't known."""
    attempt: tuple[int, int] | None = None
    """Which attempt this is to go on after a crash, and of how many; None if it isn't one."""

    def say(self, message: bytes) -> None:
        """Tell our parent, if there is one."""
        if self.holder is not None:
            with contextlib.suppress(OSError):
                os.write(self.holder, message)

    def notify(self, state: bytes) -> None:
        """Have our parent tell the service manager *state*."""
        self.say(NOTIFY + state)


def from_environment(environment: MutableMapping[str, str] = os.environ) -> Held | None:
    """What our parent passes on; None if it isn't a holder. The variable is removed."""
    given = environment.pop(VARIABLE, "").split()
    attempt = environment.pop(ATTEMPT, "").split()
    if len(given) != 5:
        return None
    device, state, holder = map(int, given[:3])
    for descriptor in (device, state, holder):
        os.set_inheritable(descriptor, False)
    found = Held(device, state, holder, given[3], int(given[4]))
    if found.task == AGAIN and len(attempt) == 2:
        return found._replace(attempt=(int(attempt[0]), int(attempt[1])))
    return found
