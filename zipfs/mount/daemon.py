"""The mount's life: start, signals, end.

A check that fails before the mount raises :exc:`zipfs.errors.ZipfsError`, one line on the
terminal. Afterwards errors become an errno and a log entry, and the daemon ends by a signal
or when it is unmounted.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import gc
import logging
import math
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Final, NamedTuple, cast

import trio

from zipfs import logs
from zipfs.catalog.background.old_lists import OldLists
from zipfs.catalog.nodes import unseen_root
from zipfs.catalog.tree import Catalog
from zipfs.config import Settings
from zipfs.errors import GoneError, ZipfsError
from zipfs.library.absence import absence, check_answers
from zipfs.library.place import place_name
from zipfs.mount import mountpoint as mp
from zipfs.mount.fs import Operations
from zipfs.mount.reader import Reader
from zipfs.mount.restart.held import RELIEF, Held
from zipfs.mount.restart.known import KnownNodes
from zipfs.mount.restart.succession import Succession
from zipfs.mount.romm_follower import RommConfig
from zipfs.mount.sd_notify import FUSE, STATE, Notifier, handed_over, watchdog_seconds
from zipfs.mount.session import ENDING, Session
from zipfs.mount.stacks import DUMP, dump_stacks, has_descriptor
from zipfs.mount.status import server as status_server
from zipfs.mount.status.document import Status
from zipfs.mount.watcher import follow
from zipfs.sealing.sealer import Sealer
from zipfs.sealing.sealers import index_file, make_library, make_sealer, romm_rules
from zipfs.system.process import Limits, prepare_heap
from zipfs.text import shown

log = logging.getLogger(__name__)

_STATUS_INTERVAL = 1.0


def run(
    settings: Settings,
    held: Held | None = None,
    *,
    mounted: Callable[[], None] = lambda: None,
) -> None:
    """Mount and serve until a signal or an unmount. Raises :exc:`zipfs.errors.ZipfsError`.

    *held* is a mount that a privileged process has made (:mod:`zipfs.mount.privileged`), or that
    outlives this daemon; one that the service manager holds takes precedence. *mounted* is called
    when the mount can be used.
    """
    settings = settings.absolute()
    relay: Callable[[bytes], object] | None = None
    if held and held.holder is not None:
        relay = held.notify if held.task != RELIEF else lambda _: None  # not yet
    notifier = Notifier(relay=relay)
    stored = handed_over((FUSE, STATE))
    if FUSE in stored:
        held = Held(stored[FUSE], stored.get(STATE))
        if held.state is None:
            # Otherwise it would stay open after a crash, and accesses to the mount would hang.
            notifier.let_go(FUSE)
    point = settings.where
    prepare_heap()  # before there are threads
    path = prepare(settings) if held is None else mp.absolute(point)
    succession = None if held is None else Succession.of(held, path, notifier)
    away = None
    if succession and (root := succession.root_of(settings.library)):
        away = absence(settings.library, root)
    elif held is not None:
        check_answers(settings.library)
    logs.about(path)
    # As long as no other thread lengthens what is measured.
    is_tuned = away is None and (held is None or held.holder is not None)
    read_ahead = mp.read_ahead_for(settings) if is_tuned else None
    sealer = make_sealer(settings, away=away)
    if sealer.index.has_files():
        sealer.library.presence.expect()
    if has_descriptor(sys.stderr):
        faulthandler.enable()  # prints the stacks when the watchdog ends a stuck daemon by SIGABRT
    # The receiver in _serve restores these at its end: a second Ctrl-C, or a closed
    # terminal, must not interrupt the unmounting.
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {DUMP})  # dump_stacks waits for it
    try:
        # mount_options accesses the library's disk, so it isn't called in the event loop.
        before = succession.state.options if away and succession else None
        options = mp.mount_options(settings, before)
        if succession:
            succession.has_settings(options)
            path = succession.path
        mount = _Mount(path, held, options, notifier, mounted, succession, read_ahead)
        # If it was started in the library, that can be unmounted.
        os.chdir("/")
        trio.run(_serve, settings, mount, sealer)
    finally:
        sealer.index.close()


def prepare(settings: Settings) -> str:
    """Check that *settings* can be mounted; returns the mount point's absolute path.

    Raises :exc:`ZipfsError`.
    """
    point = settings.where
    mp.check_fuse(allow_other=settings.allow_other, stateless=settings.index is None)
    make_library(settings)  # before anything is made or cleared away
    romm_rules(settings)
    return mp.prepare(point, settings.library, index_file(settings))


class _Mount(NamedTuple):
    """The mount to make, or the one that is *held*; *mounted* is called once it works."""

    path: str
    held: Held | None
    options: set[str]
    notifier: Notifier
    mounted: Callable[[], None]
    succession: Succession | None
    read_ahead: int | None
    """The kernel's, in KiB; None: others set it."""


async def _serve(settings: Settings, mount: _Mount, sealer: Sealer) -> None:
    patience = settings.read_timeout or None
    limits = Limits.within(_raise_limit())
    # Paths to invalidate in the kernel. A channel, as the operations are made from the catalog.
    invalidated, to_invalidate = trio.open_memory_channel[bytes](math.inf)
    catalog = Catalog(
        sealer,
        limits,
        patience,
        settings.hash_rate * (1 << 20),
        hash_singles=settings.hash_singles,
        recheck_rate=settings.recheck_rate,
        parallel=settings.parallel_looks,
        invalidated=invalidated.send_nowait,
    )
    if settings.watch != "poll":
        catalog.hearing.expect()
    reader = Reader(
        sealer.library.absolute,
        sealer.index.blocks,
        limits,
        patience,
        parallel=settings.parallel_reads,
    )
    notifier, succession = mount.notifier, mount.succession
    # Signals are received before mounting: one in between would leave the mount behind.
    with trio.open_signal_receiver(*ENDING) as signals:
        threading.Thread(
            target=dump_stacks, args=[trio.lowlevel.current_trio_token()], daemon=True
        ).start()
        async with _ending_nursery() as nursery:
            romm = RommConfig(settings.romm_config, sealer.rules, catalog.reselect)
            old_lists = OldLists.of(settings)
            try:
                root = await catalog.root()
            except GoneError:
                root = unseen_root()
            state = succession.state if succession else None
            nodes = KnownNodes(root, catalog.handles, state)
            operations = Operations(
                catalog,
                reader,
                root,
                settings.settle,
                settings.ownership,
                asked=old_lists.opened,
                nodes=nodes,
            )
            session = Session(operations, mount.path, mount.options, mount.held, succession)
            end = _End(nursery.cancel_scope, session, operations, catalog, succession)
            nursery.start_soon(_handle_signals, signals, end, romm, nursery)

            def begin_background(serving: trio.Nursery) -> None:
                serving.start_soon(_invalidate, to_invalidate, operations)
                serving.start_soon(catalog.run)
                serving.start_soon(romm.follow)
                serving.start_soon(follow, settings, sealer.library, catalog)
                serving.start_soon(reader.tidy)
                serving.start_soon(old_lists.run, operations.is_open)
                serving.start_soon(_report, catalog, notifier)

            try:
                async with trio.open_nursery() as serving:
                    stands_by = succession is not None and succession.stands_by
                    if succession and stands_by:
                        begin_background(serving)
                        await succession.stand_by(nodes, catalog)
                    if succession:
                        library = os.fsencode(settings.library), sealer.library.root
                        succession.take_over(nodes, catalog, library)
                    session.begin()
                    serving.start_soon(_serve_requests, session, end)
                    await operations.mounted.wait()
                    if mount.read_ahead is not None:
                        tune = functools.partial(mp.tune, mount.path, mount.read_ahead)
                        await trio.to_thread.run_sync(tune, abandon_on_cancel=True)
                    status = Status(
                        settings, mount.path, sealer.index, catalog, reader, operations, succession
                    )
                    await serving.start(status_server.run, status.document, mount.path)
                    if succession is None or succession.is_first:
                        log.info("mounted %s on %s", _shown(settings.library), _shown(mount.path))
                    notifier.ready()
                    mount.mounted()
                    serving.start_soon(_keep_alive, notifier)
                    if succession:
                        serving.start_soon(succession.follow_holder)
                    if not stands_by:
                        begin_background(serving)
            finally:
                await end.end(notifier, mount.path)


class _End:
    """How the daemon ends: by unmounting, or by leaving the mount to the next one."""

    def __init__(
        self,
        scope: trio.CancelScope,
        session: Session,
        operations: Operations,
        catalog: Catalog,
        succession: Succession | None,
    ) -> None:
        self._scope = scope
        self._session = session
        self._operations = operations
        self.catalog: Final = catalog
        self.succession: Final = succession
        self._stopped_ns: int | None = None
        """Since when no more requests are taken, as another daemon follows."""
        self._is_answered = False

    async def hand_over(self) -> None:
        """Leave the mount to the next daemon: answer what was taken, and take no more."""
        await _save(self.catalog)  # while requests are still answered
        gc.disable()  # a collection could take longer than all of what follows
        self._stopped_ns = time.monotonic_ns()
        self._session.stop()
        with trio.move_on_after(self.succession.patience if self.succession else 0):
            await trio.sleep_forever()  # _serve_requests ends it
        self._scope.cancel()

    def answered(self) -> None:
        """All requests that were taken are answered, and no more come."""
        if self.succession and self._stopped_ns is not None:
            self.succession.hand_over(self._stopped_ns)  # before all else: nobody serves
            self._is_answered = True
        self._scope.cancel()

    def cancel(self) -> None:
        self._scope.cancel()

    async def end(self, notifier: Notifier, path: str) -> None:
        if not self._session.has_begun:
            await _save(self.catalog)
            return
        if self._stopped_ns is not None and self.succession:
            if not self._is_answered:
                log.info("leaving requests that take long to the next daemon")
                self.succession.hand_over(self._stopped_ns, answered=False)
            await _save(self.catalog)
            self._session.end(terminate=False)
            return
        notifier.stopping()
        await _save(self.catalog)
        self._session.end()
        if self.succession:
            self.succession.end()
        if self._operations.mounted.is_set():
            log.info("unmounted %s", _shown(path))


@contextlib.asynccontextmanager
async def _ending_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery that raises a :exc:`ZipfsError` of its body without an exception group."""
    mine: ZipfsError | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except* ZipfsError as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            mine = cast(ZipfsError, error)
            nursery.cancel_scope.cancel()
    if mine:
        raise mine


async def _invalidate(paths: trio.MemoryReceiveChannel[bytes], operations: Operations) -> None:
    """Invalidate the kernel's cached entries of *paths*, for ever."""
    async for path in paths:
        try:
            operations.invalidate(path)
        except Exception:
            # H4: nothing unexpected ends the mount.
            log.exception("unexpected error about changes in the library")


async def _save(catalog: Catalog) -> None:
    with trio.move_on_after(5) as scope:
        scope.shield = True
        await catalog.save()


async def _serve_requests(session: Session, end: _End) -> None:
    """Answer the kernel's requests until there will be no more."""
    await session.serve()
    end.answered()


async def _relieve(end: _End, succession: Succession) -> None:
    """Hand over to a daemon that this one starts, as soon as that is ready."""
    if await succession.relieve():
        log.info("handing over to the next daemon")
        await end.hand_over()


async def _handle_signals(
    signals: AsyncIterator[int], end: _End, romm: RommConfig, nursery: trio.Nursery
) -> None:
    async for number in signals:
        if number == signal.SIGHUP:
            log.info("looking through the library again")
            end.catalog.rescan()
            romm.reread()
        elif end.succession and end.succession.is_for_hand_over(number):
            log.info("handing over to the next daemon")
            await end.hand_over()
        elif end.succession and end.succession.is_for_relief(number):
            nursery.start_soon(_relieve, end, end.succession)
        elif number != signal.SIGUSR2:
            log.info("ending: %s", signal.Signals(number).name)
            end.cancel()
            # Further signals are ignored, so that they don't delay the unmounting.
            for ending in (signal.SIGINT, signal.SIGTERM):
                signal.signal(ending, signal.SIG_IGN)


async def _report(catalog: Catalog, notifier: Notifier) -> None:
    """Update the service manager's status line once a second."""
    while True:
        totals = catalog.totals()
        if gone := catalog.presence.gone:
            notifier.status(f"{place_name(gone[0].source)} is gone: {gone[0].reason}")
        elif totals.unsealed:
            notifier.status(
                f"{totals.archives} archives sealed, {totals.unsealed} to go,"
                f" {totals.pending_bytes / 1e9:.1f} GB to hash"
            )
        else:
            notifier.status(f"{totals.archives} archives sealed")
        await trio.sleep(_STATUS_INTERVAL)


def _shown(path: str) -> str:
    return shown(os.fsencode(path))


async def _keep_alive(notifier: Notifier) -> None:
    """Ping the service manager's watchdog four times in its interval."""
    if seconds := watchdog_seconds():
        while True:
            notifier.alive()
            await trio.sleep(seconds / 4)


def _raise_limit() -> int:
    """Raise the soft limit on open files to the hard one; returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return soft if soft != resource.RLIM_INFINITY else 1 << 20
