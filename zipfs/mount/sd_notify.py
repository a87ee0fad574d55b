"""The service manager's protocol: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3)."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, MutableMapping
from typing import Final

FUSE: Final = "fuse"
"""Name in the service manager's descriptor store of the daemon's open ``/dev/fuse``."""
_FIRST_HANDED_OVER: Final = 3
"""SD_LISTEN_FDS_START."""
_MICROSECONDS: Final = 1_000_000


class Notifier:
    """Sends states to the datagram socket that ``$NOTIFY_SOCKET`` names, if any."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the NUL of an abstract socket, unix(7).
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._last = ""

    @property
    def is_heard(self) -> bool:
        """Whether a service manager listens."""
        return bool(self._address)

    def status(self, text: str) -> None:
        """Send a line for ``systemctl status``, unless it equals the last one."""
        if text != self._last:
            self._last = text
            self._send(f"STATUS={text}")

    def ready(self) -> None:
        self._send("READY=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        """To be called at least every :func:`watchdog_seconds`."""
        self._send("WATCHDOG=1")

    def keep(self, descriptor: int, name: str) -> bool:
        """Store *descriptor* in the manager for the service's main process; False if it can't.

        The unit needs ``FileDescriptorStoreMax=``, systemd.service(5).
        """
        return self._send(f"FDSTORE=1\nFDNAME={name}", descriptor)

    def let_go(self, name: str) -> None:
        """Have the manager close the descriptor that is stored as *name*."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def _send(self, state: str, *descriptors: int) -> bool:
        if not self._address:
            return False
        # A manager that doesn't listen must not block or stop the daemon.
        with (
            contextlib.suppress(OSError),
            socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            ) as channel,
        ):
            channel.connect(self._address)
            socket.send_fds(channel, [state.encode()], list(descriptors))
            return True
        return False


def handed_over(name: str, environment: MutableMapping[str, str] = os.environ) -> int | None:
    """The newest descriptor that the service manager has stored as *name*; None without one.

    All others that it passed are closed, and the variables removed from *environment*.
    """
    count = environment.pop("LISTEN_FDS", "")
    pid = environment.pop("LISTEN_PID", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return None
    given = {
        _FIRST_HANDED_OVER + number: names[number : number + 1] for number in range(int(count))
    }
    found = max(
        (descriptor for descriptor, called in given.items() if called == [name]), default=None
    )
    for descriptor in given:
        if descriptor != found:
            os.close(descriptor)
    if found is not None:
        os.set_inheritable(found, False)
    return found


def watchdog_seconds(environment: Mapping[str, str] = os.environ) -> float | None:
    """Longest interval between two :meth:`Notifier.alive`, in seconds; None without a watchdog."""
    period = environment.get("WATCHDOG_USEC", "")
    pid = environment.get("WATCHDOG_PID", str(os.getpid()))
    if pid != str(os.getpid()) or not period.isdecimal() or not int(period):
        return None
    return int(period) / _MICROSECONDS
