"""Telling the service manager how it is: sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping


class Notifier:
    """Sends states to the datagram socket that ``$NOTIFY_SOCKET`` names, if any."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the NUL of an abstract socket, unix(7).
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._last = ""

    def status(self, text: str) -> None:
        """One line for people, ``systemctl status`` shows it; repeated ones are not sent."""
        if text != self._last:
            self._last = text
            self._send(f"STATUS={text}")

    def ready(self) -> None:
        self._send("READY=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        # Nobody may be hindered by a manager that doesn't listen.
        with (
            contextlib.suppress(OSError),
            socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            ) as channel,
        ):
            channel.sendto(state.encode(), self._address)
