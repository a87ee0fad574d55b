"""The service manager's protocol: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3)."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Final

FUSE: Final = "fuse"
"""Name in the service manager's descriptor store of the daemon's open ``/dev/fuse``."""
STATE: Final = "state"
"""Name there of the memfd by which the next daemon adopts the mount; none without it."""
_FIRST_HANDED_OVER: Final = 3
"""SD_LISTEN_FDS_START."""
_MICROSECONDS: Final = 1_000_000


class Notifier:
    """Sends states to the datagram socket that ``$NOTIFY_SOCKET`` names, if any.

    By *relay*, if that is given: the manager may listen to the parent process only.
    """

    def __init__(
        self,
        environment: Mapping[str, str] = os.environ,
        relay: Callable[[bytes], object] | None = None,
    ) -> None:
        self._relay = relay
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

    def speak(self) -> None:
        """Talk to the manager itself from now on, without the relay."""
        self._relay = None
        self._last = ""

    def main_is(self, pid: int) -> None:
        """The service's main process is another one from now on, in the same unit."""
        self._send(f"MAINPID={pid}")

    def ready(self) -> None:
        self._send("READY=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        """To be called at least every :func:`watchdog_seconds`."""
        self._send("WATCHDOG=1")

    def keep(self, descriptor: int, name: str) -> bool:
        """Store *descriptor* in the manager for the service's main process; False if it can't.

        The unit needs ``FileDescriptorStoreMax=``, systemd.service(5). The manager doesn't poll it,
        which would wake it for each request of the kernel, and have it drop an aborted mount.
        """
        return self._send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", descriptor)

    def let_go(self, name: str) -> None:
        """Have the manager close all descriptors that are stored as *name*."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def _send(self, state: str, *descriptors: int) -> bool:
        if not self._address:
            return False
        if self._relay and not descriptors:
            self._relay(state.encode())
            return True
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


def handed_over(
    wanted: Iterable[str], environment: MutableMapping[str, str] = os.environ
) -> dict[str, int]:
    """The descriptors that the service manager has stored, by name: the newest of each *wanted*.

    All others that it passed are closed, and the variables removed from *environment*.
    """
    count = environment.pop("LISTEN_FDS", "")
    pid = environment.pop("LISTEN_PID", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    given = range(_FIRST_HANDED_OVER, _FIRST_HANDED_OVER + int(count))
    asked = set(wanted)
    found = {
        name: descriptor
        for descriptor, name in zip(given, names, strict=False)
        if name in asked  # a later one replaces an earlier one
    }
    for descriptor in given:
        if descriptor in found.values():
            os.set_inheritable(descriptor, False)
        else:
            os.close(descriptor)
    return found


def has_stored(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the service manager passes descriptors on to this process."""
    return environment.get("LISTEN_PID", "") == str(os.getpid())


def watchdog_seconds(environment: Mapping[str, str] = os.environ) -> float | None:
    """Longest interval between two :meth:`Notifier.alive`, in seconds; None without a watchdog."""
    period = environment.get("WATCHDOG_USEC", "")
    pid = environment.get("WATCHDOG_PID", str(os.getpid()))
    if pid != str(os.getpid()) or not period.isdecimal() or not int(period):
        return None
    return int(period) / _MICROSECONDS
