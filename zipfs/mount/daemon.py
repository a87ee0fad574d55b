"""The mount's life: start, signals, end.

A check that fails before the mount raises :exc:`zipfs.errors.ZipfsError`, one line on the
terminal. Afterwards errors become an errno and a log entry, and the daemon ends by a signal
or when it is unmounted.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import logging
import math
import os
import resource
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import NamedTuple

import pyfuse3
import trio

from zipfs import logs
from zipfs.catalog.old_lists import OldLists
from zipfs.catalog.tree import Catalog
from zipfs.config import Settings
from zipfs.errors import ConfigError, FuseError, ZipfsError
from zipfs.library.place import place_name
from zipfs.library.view import LibraryView
from zipfs.mount import mountpoint as mp
from zipfs.mount import pyfuse3_loop, status_server
from zipfs.mount.fs import Operations
from zipfs.mount.reader import Reader
from zipfs.mount.romm_follower import RommConfig
from zipfs.mount.sd_notify import FUSE, Notifier, handed_over, watchdog_seconds
from zipfs.mount.status import Status
from zipfs.mount.watcher import watch
from zipfs.sealing.sealer import Sealer
from zipfs.sealing.sealers import make_library, make_sealer, romm_rules
from zipfs.system.filesystems import needs_polling
from zipfs.system.process import Limits, share_heap
from zipfs.text import shown

log = logging.getLogger(__name__)

MAX_REQUESTS = 1000
"""Most requests of the kernel at once, those that wait for a slow disk included."""
_STATUS_INTERVAL = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DUMP = signal.SIGUSR1


def run(
    settings: Settings, device: int | None = None, *, mounted: Callable[[], None] = lambda: None
) -> None:
    """Mount and serve until a signal or an unmount. Raises :exc:`zipfs.errors.ZipfsError`.

    *device* is the descriptor of ``/dev/fuse`` of a mount that a privileged process has made
    (:mod:`zipfs.mount.privileged`); one that the service manager holds takes precedence.
    *mounted* is called when the mount can be used.
    """
    settings = settings.absolute()
    notifier = Notifier()
    if (stored := handed_over(FUSE)) is not None:
        device = stored
        # Otherwise it would stay open after a crash, and accesses to the mount would hang.
        notifier.let_go(FUSE)
    if settings.mountpoint is None:
        raise ConfigError("no mountpoint given; name it on the command line or in a config file")
    share_heap()  # before there are threads
    if device is None:
        mp.check_fuse(allow_other=settings.allow_other)
    make_library(settings)  # before anything is made or cleared away
    romm_rules(settings)
    if device is None:
        path = mp.prepare(settings.mountpoint, settings.library)
    else:
        path = mp.absolute(settings.mountpoint)
    logs.about(path)
    sealer = make_sealer(settings)
    if sealer.index.has_files():
        sealer.library.presence.expect()
    if _has_descriptor(sys.stderr):
        faulthandler.enable()  # prints the stacks when the watchdog ends a stuck daemon by SIGABRT
    # The receiver in _serve restores these at its end: a second Ctrl-C, or a closed
    # terminal, must not interrupt the unmounting.
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {_DUMP})  # _dump waits for it
    try:
        # mount_options accesses the library's disk, so it isn't called in the event loop.
        mount = _Mount(path, device, mp.mount_options(settings), notifier, mounted)
        # If it was started in the library, that can be unmounted.
        os.chdir("/")
        trio.run(_serve, settings, mount, sealer)
    finally:
        sealer.index.close()


class _Mount(NamedTuple):
    """The mount to make, or with a *device* the existing one; *mounted* is called once it works."""

    path: str
    device: int | None
    options: set[str]
    notifier: Notifier
    mounted: Callable[[], None]


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
        invalidated=invalidated.send_nowait,
    )
    reader = Reader(sealer.library.absolute, sealer.index.blocks, limits, patience)
    notifier = mount.notifier
    # Signals are received before mounting: one in between would leave the mount behind.
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        threading.Thread(
            target=_dump, args=[trio.lowlevel.current_trio_token()], daemon=True
        ).start()
        async with _ending_nursery() as nursery:
            romm = RommConfig(settings.romm_config, sealer.rules, catalog.reselect)
            nursery.start_soon(_handle_signals, signals, nursery.cancel_scope, catalog, romm)
            old_lists = OldLists.of(settings)
            operations = Operations(
                catalog,
                reader,
                await catalog.root(),
                settings.settle,
                settings.ownership,
                asked=old_lists.opened,
            )
            _mount(operations, mount, settings)
            try:
                async with trio.open_nursery() as serving:
                    serving.start_soon(_serve_requests, nursery.cancel_scope)
                    await operations.mounted.wait()
                    if mount.device is None:
                        tune = functools.partial(mp.tune, mount.path, settings.read_ahead)
                        await trio.to_thread.run_sync(tune, abandon_on_cancel=True)
                    status = Status(settings, mount.path, sealer.index, catalog, reader, operations)
                    await serving.start(status_server.run, status.document, mount.path)
                    log.info("mounted %s on %s", _shown(settings.library), _shown(mount.path))
                    notifier.ready()
                    mount.mounted()
                    serving.start_soon(_keep_alive, notifier)
                    serving.start_soon(_invalidate, to_invalidate, operations)
                    serving.start_soon(catalog.run)
                    serving.start_soon(romm.follow)
                    serving.start_soon(_watch, settings, sealer.library, catalog)
                    serving.start_soon(reader.tidy)
                    serving.start_soon(old_lists.run, operations.is_open)
                    serving.start_soon(_report, catalog, notifier)
            finally:
                notifier.stopping()
                await _save(catalog)
                pyfuse3.terminate()
                # Lazily, if it is in use: downloads under way are cut off.
                pyfuse3.close(unmount=True)
                log.info("unmounted %s", _shown(mount.path))


@contextlib.asynccontextmanager
async def _ending_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery that raises a :exc:`ZipfsError` of its body without an exception group."""
    mine: ZipfsError | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except ZipfsError as error:
            mine = error
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


async def _serve_requests(scope: trio.CancelScope) -> None:
    """Answer the kernel's requests; cancel *scope* when the mount is unmounted."""
    pyfuse3_loop.install()
    await pyfuse3.main(max_tasks=MAX_REQUESTS)
    scope.cancel()


async def _handle_signals(
    signals: AsyncIterator[int], scope: trio.CancelScope, catalog: Catalog, romm: RommConfig
) -> None:
    async for number in signals:
        if number == signal.SIGHUP:
            log.info("looking through the library again")
            catalog.rescan()
            romm.reread()
        else:
            log.info("ending: %s", signal.Signals(number).name)
            scope.cancel()
            # Further signals are ignored, so that they don't delay the unmounting.
            for ending in (signal.SIGINT, signal.SIGTERM):
                signal.signal(ending, signal.SIG_IGN)


def _dump(token: trio.lowlevel.TrioToken) -> None:
    """Dump all stacks at each SIGUSR1, for ever, in a thread: the event loop may be stuck.

    Not ``faulthandler.register``: that reads the frames of other threads while they run, and on a
    busy mount one dump in a hundred ended in a segmentation fault. This thread holds the GIL.
    """
    while True:
        signal.sigwait({_DUMP})
        if _has_descriptor(sys.stderr):
            faulthandler.dump_traceback(all_threads=True)
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(_dump_tasks)


def _has_descriptor(stream: object) -> bool:
    try:
        stream.fileno()  # type: ignore[attr-defined]  # the test is whether it exists
    except (AttributeError, OSError, ValueError):
        return False
    return True


async def _watch(settings: Settings, library: LibraryView, catalog: Catalog) -> None:
    """Pass events of changes to *catalog*, for ever."""
    while True:
        returned = catalog.returned
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch_here, settings, library, catalog)
            await returned.wait()
            # What was watched is another folder, or its disk was unmounted.
            nursery.cancel_scope.cancel()
        catalog.polling = True


async def _watch_here(settings: Settings, library: LibraryView, catalog: Catalog) -> None:
    """The same for the library as it is now. *settings* say how; without events it is polled."""
    folders = library.watched()
    silent = set(folders)
    """Folders whose changes cause no events."""
    eventless = {folder: await trio.to_thread.run_sync(needs_polling, folder) for folder in folders}
    if settings.watch == "poll" or (settings.watch == "auto" and any(eventless.values())):
        kinds = ", ".join(sorted({kind for found in eventless.values() for kind in found}))
        log.info(
            "looking for changes every few seconds%s", f": no events from {kinds}" if kinds else ""
        )

    def ready(folder: bytes) -> None:
        if not eventless[folder]:
            silent.discard(folder)
        catalog.polling = bool(silent)

    def changed(folder: bytes, paths: Iterable[bytes]) -> None:
        try:
            catalog.changed(folders[folder](paths))
        except Exception:
            # H4: called by the event loop itself, which an exception would end.
            log.exception("unexpected error about changes in the library")

    async def listen(folder: bytes) -> None:
        await watch(
            folder,
            functools.partial(changed, folder),
            functools.partial(ready, folder),
            deep=folder == library.root,
            heard=None if folder == library.root else functools.partial(library.heard, folder),
        )
        silent.add(folder)
        catalog.polling = True

    if settings.watch != "poll":
        async with trio.open_nursery() as nursery:
            for folder in folders:
                nursery.start_soon(listen, folder)


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


def _mount(operations: Operations, mount: _Mount, settings: Settings) -> None:
    # libfuse's name for a mount that is there already; fuse_session_mount in fuse_lowlevel.h.
    path = mount.path if mount.device is None else f"/dev/fd/{mount.device}"
    with _captured_stderr() as captured, _signals_blocked():
        try:
            pyfuse3.init(operations, path, mount.options)
        except RuntimeError as error:
            # libfuse prints the reason on stderr only.
            lines = [line for line in captured() if line]
            reason = lines[-1] if lines else str(error)
            raise FuseError(f"can't mount on {settings.mountpoint}: {reason}") from None


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block signals in this thread: to libfuse 3.17 an interrupted waitpid(2) is a failed mount."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _captured_stderr() -> Iterator[Callable[[], list[str]]]:
    """Redirect file descriptor 2 to a file, for C code that writes to it; yields its lines."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)

        def captured() -> list[str]:
            file.seek(0)
            return file.read().decode("utf-8", "replace").splitlines()

        try:
            yield captured
        finally:
            os.dup2(original, 2)
            os.close(original)


def _dump_tasks() -> None:
    """Print the stacks of all trio tasks on stderr."""
    lines = ["Tasks:\n"]
    root = trio.lowlevel.current_root_task()
    todo = [root] if root else []
    while todo:
        task = todo.pop()
        lines.append(f"  {task.name}\n")
        for frame, line in task.iter_await_frames():
            summary = traceback.StackSummary.extract(iter([(frame, line)]))
            lines += [f"  {text}" for text in summary.format()]
        for nursery in task.child_nurseries:
            todo += nursery.child_tasks
    sys.stderr.write("".join(lines))
    sys.stderr.flush()
