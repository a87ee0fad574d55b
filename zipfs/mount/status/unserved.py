"""What is known of a mount while no daemon answers for it: the process that holds it says so.

That starts the daemon again after a crash (:mod:`zipfs.mount.restart.holder`), and answers at an
abstract socket, whatever the daemon does. Such names are free for all, so an answer counts only if
its process is root's, of the user who mounted, or ours (SO_PEERCRED, unix(7)).
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Collection
from typing import Any, Final

from zipfs.errors import MountpointError
from zipfs.mount.restart.telling import ASKED
from zipfs.system.users import peer

_PATIENCE: Final = 2.0
"""Seconds to wait for its answer: it has little else to do."""
_MOST: Final = 1 << 16


class UnservedError(MountpointError):
    """Nobody answers for a mount, and the next daemon is on its way."""

    def __init__(self, message: str, document: dict[str, Any]) -> None:
        super().__init__(message)
        self.document = document
        """What is known of it, with the keys of :mod:`zipfs.mount.status.document`."""


def unserved(path: str, device: str, users: Collection[int]) -> UnservedError | None:
    """What the process that holds the mount *device* at *path* says of its next daemon.

    None if there is no such process of one of *users*, or if its daemon serves.
    """
    told = _ask(device, users)
    if not told or not isinstance(told.get("attempt"), int):
        return None
    if told["starts_in"] is not None:
        what = f"attempt {told['attempt']} of {told['attempts']}, next in {told['starts_in']:.1f} s"
    elif told["starting_for"] is not None:
        what = f"the daemon has been starting for {told['starting_for']:.1f} s"
        if told["attempt"]:
            what = f"attempt {told['attempt']} of {told['attempts']}, {what}"
    else:
        return None
    document = {"document": 1, "serving": False, "mountpoint": path, "device": device}
    return UnservedError(
        f"nobody serves {path}: {what}; the log tells why",
        {**document, "restarts": {"outlives": True, **told}},
    )


def _ask(device: str, users: Collection[int]) -> dict[str, Any] | None:
    deadline = time.monotonic() + _PATIENCE
    answer = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(_PATIENCE)
            channel.connect(ASKED + device)
            if peer(channel)[1] not in users:
                return None
            while len(answer) < _MOST and time.monotonic() < deadline:
                piece = channel.recv(_MOST)
                if not piece:
                    break
                answer += piece
        found = json.loads(answer)
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
