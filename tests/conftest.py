"""Fixtures for tests that mount: a library, a place for files, and the mounts themselves."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from bench.session import Stop
from tests.support.mounting import (
    MARKER,
    Mounts,
    fuse_missing,
    marked_processes,
    sweep,
    temporary_folder,
)
from tests.support.postgresql import Server, Shared, database, programs, server
from tests.support.users import device_for_everybody, program_for_everybody
from tests.support.waiting import poll

_MOUNTS: pytest.StashKey[list[Mounts]] = pytest.StashKey()
_WATCHDOG: pytest.StashKey[threading.Timer] = pytest.StashKey()
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TIME_TO_FAIL = 10.0
"""Seconds before the end of a test's time at which its daemons are killed: what waits for them
then goes on, and the test fails by itself and shows why. The timeout proper ends the whole run."""


def pytest_sessionstart() -> None:
    # A shell that runs us in the background has us, and all that we start, ignore SIGINT.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ[MARKER] = str(os.getpid())  # for all that we start, servers included
    sweep()


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: object) -> None:
    seconds = getattr(settings, "timeout", None)
    if seconds:
        timer = threading.Timer(max(seconds / 2, seconds - _TIME_TO_FAIL), _break_off, [item])
        timer.daemon = True
        item.stash[_WATCHDOG] = timer
        timer.start()


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> None:
    if timer := item.stash.get(_WATCHDOG, None):
        timer.cancel()


def _break_off(item: pytest.Item) -> None:
    for mounts in item.stash.get(_MOUNTS, []):
        mounts.break_off()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for mounts in item.stash.get(_MOUNTS, []):
            mounts.dump()
            for mounted in mounts.all:
                if mounted.log.exists():
                    title = f"log of zipfs on {mounted.path} ({report.when})"
                    report.sections.append((title, mounted.log_text()))
    return report


@pytest.fixture
def place() -> Iterator[Path]:
    """A temporary folder that every user may enter."""
    with temporary_folder() as folder:
        yield folder


@pytest.fixture
def library(place: Path) -> Path:
    """An empty library."""
    folder = place / "library"
    folder.mkdir()
    return folder


@pytest.fixture
def no_process_left() -> Iterator[None]:
    """Fails the test if a process that it started is there after its end."""
    before = marked_processes()
    yield
    left = {}

    def none_left() -> bool:
        nonlocal left
        left = {key: what for key, what in marked_processes().items() if key not in before}
        return not left

    try:
        poll("all processes to end", none_left)
    except AssertionError as error:
        for pid, _ in left:
            os.kill(pid, signal.SIGKILL)
        raise AssertionError(f"{error}: {sorted(left.values())}") from None


@pytest.fixture(scope="session")
def fuse() -> None:
    """Skips the test if nothing can be mounted here; but never where that is the point."""
    if missing := fuse_missing():
        if os.environ.get("CI"):
            pytest.fail(f"no FUSE: {missing}")
        pytest.skip(f"no FUSE: {missing}")  # a laptop; in CI it failed just above


@pytest.fixture
def mount(
    request: pytest.FixtureRequest, fuse: None, no_process_left: None, place: Path
) -> Iterator[Mounts]:
    """Makes mounts: ``mount(library, "--allow-other").wait_sealed()``. See :class:`Mounts`."""
    mounts = Mounts(place)
    request.node.stash.setdefault(_MOUNTS, []).append(mounts)
    yield mounts
    mounts.end()


@pytest.fixture
def stop() -> Iterator[Stop]:
    """What a benchmark looks at for signals; the handlers are put back."""
    before = [signal.getsignal(number) for number in _SIGNALS]
    try:
        yield Stop()
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server, for all tests of this process; ``--shared-index`` needs one."""
    if programs() is None:
        if os.environ.get("CI"):
            pytest.fail("no PostgreSQL")
        pytest.skip("no PostgreSQL")  # a laptop; in CI it failed just above
    with temporary_folder() as folder, server(folder / "postgresql") as found:
        yield found


@pytest.fixture
def shared(postgresql: Server) -> Iterator[Shared]:
    """An empty database of that server, with the tables of a shared index."""
    with database(postgresql) as found:
        yield found


@pytest.fixture(scope="session")
def public_program() -> Iterator[str]:
    """A ``zipfs`` that ordinary users can run."""
    with temporary_folder() as folder:
        yield program_for_everybody(folder)


@pytest.fixture
def public_device(fuse: None) -> Iterator[None]:
    """Ordinary users may open ``/dev/fuse`` for the time of a test."""
    with device_for_everybody():
        yield
