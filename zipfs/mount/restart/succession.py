"""A daemon's part in a mount that outlives it: the daemons before it, and the one after.

A mount is *held* by the service manager or by a small parent process (:mod:`zipfs.mount.restart`).
The daemon takes it over from the state that is held with it, and leaves it there as it ends. Where
there is no state, the mount ends with the daemon.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterable
from typing import Final, Self

import trio

from zipfs.catalog.tree import Catalog
from zipfs.errors import FuseError, MountpointError, NotAdoptedError, RestartError
from zipfs.mount import mountpoint as mp
from zipfs.mount.restart import adoption, holder
from zipfs.mount.restart import held as words
from zipfs.mount.restart.adoption import Connection
from zipfs.mount.restart.held import Held
from zipfs.mount.restart.known import KnownNodes
from zipfs.mount.restart.relief import Relief
from zipfs.mount.restart.state import State, StateError
from zipfs.mount.sd_notify import Notifier
from zipfs.system.process import settle_heap, started_ns
from zipfs.text import shown

log = logging.getLogger(__name__)

_LAST_ANSWERS: Final = 0.05
_ALL_ANSWERS: Final = 5.0
_SURVEY: Final = 60.0
"""Most seconds for which a successor looks through the library before it takes over."""


class Succession:
    """Takes the mount at *path* over, which is *held* with *state*, and hands it over.

    *notifier* tells the service manager.
    """

    def __init__(self, held: Held, state: State, path: str, notifier: Notifier) -> None:
        self._held = held
        self._notifier = notifier
        if not state.place:
            state.set_place(os.fsencode(path))
        self.path: Final = os.fsdecode(state.place)
        """The mount point, which the settings may name no more."""
        if self.path != path:
            why = f"the mount is on {self.path}, and not on {path}: unmount it, and mount again"
            if held.task in (words.STANDBY, words.RELIEF):
                raise RestartError(why)
            log.warning("%s", why)
        self._began = time.monotonic()
        self._holder_is_gone = False
        self._relief: Relief | None = None
        self.state: Final = state
        self.connection: Connection | None = None
        self.is_first: Final = not state.answer
        self.failed = 0
        """How many successors of this daemon have failed."""
        self.outage: float | None = None
        """Seconds for which nobody answered before this daemon did; None for the first."""
        self.remount_for: list[str] = []
        """Options in which the mount differs from the settings: the kernel has fixed them."""

    @classmethod
    def of(cls, held: Held, path: str, notifier: Notifier) -> Self | None:
        """None if the mount ends with this daemon. Raises :exc:`NotAdoptedError`."""
        if held.state is None:
            return None
        try:
            return cls(held, State(held.state), path, notifier)
        except (StateError, OSError, ValueError) as error:
            raise NotAdoptedError(f"its state can't be read ({error})") from None

    def has_settings(self, options: Iterable[str]) -> None:
        """*options* are those that a mount with the settings of this daemon would have."""
        wanted = sorted(options)
        if self.state.options is None:
            self.state.set_options(wanted)
        self.remount_for = sorted(set(wanted) ^ set(self.state.options or wanted))

    def root_of(self, library: str) -> bytes | None:
        """The path without links of *library*, if the daemon before served just that one."""
        named, root = self.state.library or (b"", b"")
        return root if not self.is_first and named == os.fsencode(library) else None

    # -- Taking over ---------------------------------------------------------------------

    @property
    def stands_by(self) -> bool:
        """Whether another daemon serves the mount until this one is ready."""
        return self._held.task in (words.STANDBY, words.RELIEF)

    @property
    def lasts(self) -> bool:
        """Whether the mount goes on when this daemon ends: whoever holds it is there."""
        return not self._holder_is_gone

    @property
    def attempt(self) -> tuple[int, int]:
        """Which attempt this is to go on after a crash, and of how many.

        Zeros if it isn't one, or has lasted for so long that the holder counts anew.
        """
        has_lasted = time.monotonic() - self._began >= holder.WITHIN
        return (0, 0) if has_lasted else self._held.attempt or (0, 0)

    @property
    def restarts(self) -> int:
        """How many daemons the mount had before this one."""
        return max(0, self.state.daemons - 1)

    @property
    def asked_again(self) -> bool:
        """Whether the kernel sent again what the daemon before had taken and not answered."""
        return self.connection is not None and self.connection.resent and not self.is_first

    @property
    def holder(self) -> int | None:
        """The process that holds the mount; None if the service manager does."""
        return None if self._held.holder is None or self._holder_is_gone else os.getppid()

    async def stand_by(self, nodes: KnownNodes, catalog: Catalog) -> None:
        """Wait until the library is known, and then until the other daemon has stopped.

        All that can be done before is done before: nobody serves between the two.
        """
        with trio.move_on_after(_SURVEY):
            while not (catalog.is_surveyed or catalog.presence.is_gone):  # noqa: ASYNC110
                await trio.sleep(0.05)
        self.state.refresh()
        nodes.learn()
        catalog.shown_elsewhere(nodes.newest)
        await trio.to_thread.run_sync(settle_heap)
        self._held.say(words.LOADED)
        if await self._hear() != words.GO:
            raise RestartError("the mount isn't handed over")
        if self._held.task == words.RELIEF:  # that daemon ends now
            self._held = self._held._replace(holder=None)
            self._notifier.speak()

    def take_over(self, nodes: KnownNodes, catalog: Catalog, library: tuple[bytes, bytes]) -> None:
        """Make the connection with the kernel. Raises :exc:`NotAdoptedError`.

        *library* is as in :meth:`State.set_library`.
        """
        if not self.is_first:
            for option in self.remount_for:
                log.warning(
                    "the mount goes on without the change of its option %r: unmount, and mount"
                    " again, for that",
                    option,
                )
        news = self.state.refresh() if self.stands_by else None
        nodes.learn(news)
        nodes.take_over()
        catalog.shown_before(nodes.newest, (known.path for _, known, _ in news or ()))
        self.state.set_library(*library)
        self.connection = Connection(self._held.device, self.state)

    def exchange(self) -> bool:
        """As :meth:`Connection.exchange`."""
        stopped = self.state.stopped
        if not (self.connection and self.connection.exchange()):
            return False
        if not self.is_first:
            since = stopped or self._held.died_ns or started_ns()
            self.outage = (time.monotonic_ns() - since) / 1e9
            log.info(
                "took the mount on %s over: daemon %d, after %.3f s",
                shown(os.fsencode(self.path)),
                self.state.daemons,
                self.outage,
            )
        self._held.say(words.READY)
        return True

    # -- The next one --------------------------------------------------------------------

    async def follow_holder(self) -> None:
        """Heed what the parent process says, for ever."""
        while message := await self._hear():
            what, _, reason = message.partition(b" ")
            if what == words.FAILED:
                self._has_failed(reason.decode(errors="replace"))
        if self._held.holder is not None:
            self._holder_is_gone = True
            log.warning("the process that held the mount is gone; it ends with this daemon now")
        await trio.sleep_forever()

    async def _hear(self) -> bytes:
        """The next message of our parent; empty if it has ended."""
        if self._held.holder is None:
            return b""
        await trio.lowlevel.wait_readable(self._held.holder)
        try:
            return os.read(self._held.holder, 1 << 10)
        except OSError:
            return b""

    def is_for_hand_over(self, number: int) -> bool:
        """Whether the signal *number* says that another daemon is to go on with the mount."""
        if self._held.holder is None:
            # `systemctl stop` and `restart` look the same; after a stop the unit unmounts.
            return number == signal.SIGTERM
        return number == signal.SIGUSR2 and not self._holder_is_gone

    def is_for_relief(self, number: int) -> bool:
        """Whether the signal *number* says that this daemon is to start the next one itself."""
        return number == signal.SIGUSR2 and self._held.holder is None

    async def relieve(self) -> bool:
        """Start the next daemon; True when it is ready to take over, False if it can't."""
        if self._relief is not None:
            return False
        try:
            relief = self._relief = await trio.to_thread.run_sync(Relief, self._held)
        except OSError as error:
            self._has_failed(error.strerror or str(error))
            return False
        log.info("starting process %d, which is to take over", relief.pid)
        if await relief.loaded():
            return True
        self._relief = None
        self._has_failed(f"status {await relief.ended()}")
        return False

    def _has_failed(self, reason: str) -> None:
        self.failed += 1
        log.error("the daemon that should take over has failed (%s); this one goes on", reason)

    @property
    def patience(self) -> float:
        """Most seconds to wait for the answers to what was taken, while nobody serves.

        One request may wait for a disk, and all others for it. So where the kernel can ask the next
        daemon again, it soon does.
        """
        return _LAST_ANSWERS if adoption.can_ask_again() else _ALL_ANSWERS

    def hand_over(self, since_ns: int, *, answered: bool = True) -> None:
        """No more is taken since *since_ns*, nor answered from now on: the next can begin.

        *answered*: whether all is that was taken. *since_ns* is in nanoseconds of CLOCK_MONOTONIC.
        Raises :exc:`RestartError` if the next one has died: the manager starts another one.
        """
        with contextlib.suppress(OSError):
            self.state.hand_over(since_ns, answered=answered)
        if self._relief:
            relief, self._relief = self._relief, None
            self._notifier.main_is(relief.pid)  # before that says that it is ready
            try:
                relief.go()
            except OSError:
                raise RestartError("the daemon that should take over has just died") from None
        self._held.say(words.STOPPED)

    def end(self) -> None:
        """The mount is to end; whoever holds it sees to that, if he is there."""
        if self._holder_is_gone:
            with contextlib.suppress(MountpointError, FuseError):
                mp.unmount(self.path)
