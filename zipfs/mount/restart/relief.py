"""A successor that a daemon starts itself, where the service manager holds the mount.

The manager starts a unit's main process only after the one before has ended, so a restart of the
unit takes as long as Python's start. For `systemctl reload` the daemon starts another one by its
own command line, as a child with its own rights, which loads everything and takes over. Then the
manager is told that this is the main process (``MAINPID=``, sd_notify(3)), and as soon as its
parent has ended it is the manager's child, as any main process.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import trio

from zipfs.mount.restart import held as words
from zipfs.mount.restart.held import Held


class Relief:
    """The successor of the daemon that serves what is *held*; made in a worker thread.

    Raises :exc:`OSError` if it can't be started.
    """

    def __init__(self, held: Held) -> None:
        self._channel, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.setblocking(False)
        with its:
            passed = [held.device, its.fileno()]
            if held.state is not None:
                passed.insert(1, held.state)
            numbers = " ".join(map(str, passed))
            environment = dict(os.environ, **{words.VARIABLE: f"{numbers} {words.RELIEF} 0"})
            environment.pop("WATCHDOG_PID", None)  # ours
            self._process = subprocess.Popen(
                [sys.executable, *sys.orig_argv[1:]], env=environment, pass_fds=passed
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    async def loaded(self) -> bool:
        """Wait until it is ready to take over; False if it has ended instead."""
        await trio.lowlevel.wait_readable(self._channel)
        try:
            return self._channel.recv(1 << 10) == words.LOADED
        except OSError:
            return False

    def go(self) -> None:
        """Have it take over, now."""
        self._channel.send(words.GO)

    async def ended(self) -> int:
        """Its exit status, once it has ended without taking over."""
        self._channel.close()
        return await trio.to_thread.run_sync(self._process.wait, abandon_on_cancel=True)
