"""What the process that holds a mount says: its log, to the service manager, and to who asks.

Whoever connects to its abstract socket (unix(7)), which has the mount's number in its name, gets
one JSON document and is disconnected: how far it is with starting a daemon. No file is left behind
by that, and it works while nobody else answers for the mount.

As :mod:`.holder`, without an import of zipfs.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time

ASKED = "\0zipfs-holder-"
"""Address of the socket; then MAJOR:MINOR of the mount."""


class Teller:
    """Talks for the mount *number*, MAJOR:MINOR, on *mountpoint*.

    *quiet*: stderr leads nowhere, and messages go to syslog(3).
    """

    def __init__(self, mountpoint: str, number: str, *, quiet: bool) -> None:
        self._mountpoint = mountpoint
        self._quiet = quiet
        self._manager = os.environ.get("NOTIFY_SOCKET", "")
        self._asked: socket.socket | None = None
        asked = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            asked.bind(ASKED + number)
            asked.listen()
            self._asked = asked
        except OSError:  # somebody has that name: who asks doesn't believe him
            asked.close()

    def fileno(self) -> int:
        """Readable when somebody asks; -1 if nobody can."""
        return self._asked.fileno() if self._asked else -1

    def answer(self, told: dict[str, object]) -> None:
        """Tell who asks *told*."""
        with contextlib.suppress(OSError):
            if self._asked:
                client, _ = self._asked.accept()
                with client:
                    client.send(json.dumps(told).encode())

    def notify(self, state: bytes) -> None:
        """Send *state* to the service manager that has started us, sd_notify(3)."""
        address = self._manager
        if not address:
            return
        address = "\0" + address[1:] if address.startswith("@") else address
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        with socket.socket(socket.AF_UNIX, kind) as channel, contextlib.suppress(OSError):
            channel.sendto(state, address)

    def log(self, priority: int, message: str) -> None:
        """One line; *priority* is syslog's."""
        if self._quiet:
            import syslog  # noqa: PLC0415 - in the background only

            syslog.openlog("zipfs", syslog.LOG_PID, syslog.LOG_DAEMON)
            syslog.syslog(priority, f"{self._mountpoint}: {message}")
            return
        if "JOURNAL_STREAM" in os.environ:
            line = f"<{priority}>{message}\n"
        else:
            now = time.time()
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
            level = "ERROR" if priority == 3 else "WARNING"
            line = f"{stamp},{int(now % 1 * 1000):03d} {level}: {message}\n"
        with contextlib.suppress(OSError):
            os.write(2, line.encode("utf-8", "backslashreplace"))


def named(code: int) -> str:
    """The exit status *code* in words; a negative one is that of a signal."""
    if code >= 0:
        return f"status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
