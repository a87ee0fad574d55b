"""A TCP relay in front of a server: counts what passes, and holds it when a test says so."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Final

ADDRESS: Final = "127.0.0.1"
_PIECE: Final = 64 << 10


class Relay:
    """Passes connections on to *port*; of what comes back, no more than :meth:`allow` said."""

    def __init__(self, port: int, host: str) -> None:
        self._target = port
        self._host = host
        self._condition = threading.Condition()
        self._allowed = 0
        self._ended = False
        self.passed = 0
        """Bytes that clients were sent, headers included."""
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((host, 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def url_of(self, url: str) -> str:
        """*url* of the server by way of this relay."""
        return url.replace(f"{ADDRESS}:{self._target}/", f"{self._host}:{self.port}/", 1)

    def allow(self, size: int) -> None:
        """Let so many bytes pass altogether; then hold what comes."""
        with self._condition:
            self._allowed = size
            self._condition.notify_all()

    def cut(self) -> None:
        """End all connections that there are; those that come are passed on."""
        with self._condition:
            connections = list(self._sockets)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        with self._condition:
            self._ended = True
            self._condition.notify_all()
        # Waking whoever waits in accept or recv; closing alone doesn't.
        for connection in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for connection in (self._listener, *self._sockets):
            connection.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection((ADDRESS, self._target))
            with self._condition:
                self._sockets |= {client, server}
                if self._ended:
                    return
            self._start(self._pass_on, client, server, False)
            self._start(self._pass_on, server, client, True)

    def _pass_on(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        try:
            while piece := source.recv(_PIECE):
                while piece:
                    size = self._take(len(piece)) if counted else len(piece)
                    if not size:
                        return
                    target.sendall(piece[:size])
                    piece = piece[size:]
        except OSError:
            pass
        finally:
            # The end of one direction, also an untimely one, is passed on as such.
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_WR)

    def _take(self, wanted: int) -> int:
        """How many of *wanted* bytes may pass now; waits for one at least, 0 at the end."""
        with self._condition:
            self._condition.wait_for(lambda: self._ended or self.passed < self._allowed)
            size = 0 if self._ended else min(wanted, self._allowed - self.passed)
            self.passed += size
            return size


@contextlib.contextmanager
def relay(port: int, allowed: int, host: str = ADDRESS) -> Iterator[Relay]:
    """A relay to *port*, on an address of this machine; lets *allowed* bytes pass for a start."""
    made = Relay(port, host)
    made.allow(allowed)
    try:
        yield made
    finally:
        made.end()
