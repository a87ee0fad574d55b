"""The process that hashes: out of the way, expendable, and never left over (DESIGN R3, H4)."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.fs.hashed import Results
from tests.fs.lab import until
from tests.support.libraries import content, make_file
from zipfs.errors import ChangedError
from zipfs.index import hash_client as worker_module
from zipfs.index import hash_process
from zipfs.index import hash_queue as hasher_module
from zipfs.index.hash_client import Process
from zipfs.index.hash_file import SLICE
from zipfs.index.hash_jobs import UnexpectedError
from zipfs.index.hash_messages import Job
from zipfs.index.hash_queue import Hasher
from zipfs.library.filestate import BLOCK, FileState
from zipfs.library.scan import SourceFile
from zipfs.system.rates import BURST

FOR_EVER = 1.0
"""Bytes per second: the first block is read, and then there is a pause of days."""


_OF_OTHERS: set[int] = set()
"""Processes that tests of other things have left behind."""


@pytest.fixture(autouse=True)
def _real(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    _OF_OTHERS.clear()
    _OF_OTHERS.update(children())
    monkeypatch.setattr(worker_module, "start", Process)
    yield
    assert children() == []


def children() -> list[int]:
    """Processes that this thread has started for the test, zombies included."""
    found = map(int, Path("/proc/thread-self/children").read_text().split())
    return [pid for pid in found if pid not in _OF_OTHERS]


class Bench:
    """A hasher of files in *folder*, at work."""

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        self._folder = folder
        self._nursery = nursery
        self.results = Results()
        self.hasher = Hasher(lambda name: os.fsencode(folder) + b"/" + name, self.results.keep)

    def start(self, *, rate: float = 0, patience: float | None = None) -> None:
        self.hasher.rate = rate
        self.hasher._patience = patience
        self._nursery.start_soon(self.hasher.run)

    def add(self, *names: str) -> None:
        for name in names:
            path = self._folder / name
            make_file(path, content(SIZES.get(name, 1000), name))
            self.add_in(os.fsencode(name), FileState.of(path.stat()))

    def add_in(self, name: bytes, state: FileState) -> None:
        self.results.request(self.hasher, SourceFile(name, name, state))

    async def done(self) -> Results:
        await until(lambda: not len(self.hasher))
        assert self.hasher.pending_bytes == 0
        return self.results

    async def child(self, name: str | None = None) -> int:
        """The process, once it has the file *name* open, if one is given."""
        found = 0

        def there() -> bool:
            nonlocal found
            for found in children():
                if name is None or str(self._folder / name) in opened(found):
                    return True
            return False

        await until(there)
        return found


def opened(pid: int) -> list[str]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        return [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return []


@pytest.fixture
async def bench(tmp_path: Path, nursery: trio.Nursery) -> Bench:
    return Bench(tmp_path, nursery)


def wrong(results: Results, *names: str) -> list[str]:
    """Those of *names* that haven't the right checksum."""
    got = {name: results.hashed.get(name.encode()) for name in names}
    return [name for name, found in got.items() if not found or found.crc32 != crc_of(name)]


def crc_of(name: str) -> int:
    return zlib.crc32(content(SIZES.get(name, 1000), name))


SIZES = {"empty": 0, "block": BLOCK, "other": 3 * BLOCK, "big": 70 * BLOCK + 5}
"""Of the files with these names; others have 1000 bytes."""


async def test_it_hashes(bench: Bench, tmp_path: Path) -> None:
    names = [f"{number}" for number in range(300)]
    bench.add(*names, *SIZES)
    odd = b"not UTF-8 \xff\n"
    make_file(tmp_path / os.fsdecode(odd), b"odd")
    bench.add_in(odd, FileState.of((tmp_path / os.fsdecode(odd)).stat()))
    bench.start()
    results = await bench.done()
    assert not results.failed
    assert wrong(results, *names, *SIZES) == []
    assert len(results.hashed[b"big"].blocks) == 71 * 8
    assert results.hashed[odd].crc32 == zlib.crc32(b"odd")


async def test_a_daemon_older_than_the_packages_finds_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that runs while it is upgraded asks for the process by its old name."""
    old = "import sys; sys.path[:] = sys.argv[1:]; from zipfs.hashing import main; main(1)"
    monkeypatch.setattr(hash_process, "COMMAND", old)
    bench.add("small", "big")
    bench.start()
    assert wrong(await bench.done(), "small", "big") == []


async def test_errors_come_through(bench: Bench, tmp_path: Path) -> None:
    bench.add("changed")
    (tmp_path / "changed").write_bytes(b"other")
    state = FileState(1, 2, 3, 4)
    bench.add_in(b"gone", state)
    bench.add_in(b"long" * 100, state)
    bench.start()
    results = await bench.done()
    assert isinstance(results.failed[b"changed"], ChangedError)
    assert isinstance(results.failed[b"gone"], ChangedError)
    error = results.failed[b"long" * 100]
    assert isinstance(error, OSError)
    assert (error.errno, error.strerror) == (errno.ENAMETOOLONG, "File name too long")


async def test_a_defect_is_logged_here(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """H4: with the traceback of there."""
    bench.add_in(b"a NUL \0 in a path", FileState(1, 2, 3, 4))
    bench.add("good")
    bench.start()
    results = await bench.done()
    assert wrong(results, "good") == []
    assert [type(error) for error in results.failed.values()] == [UnexpectedError]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "in open" in caplog.text
    assert "ValueError: " in caplog.text


async def test_it_is_out_of_the_way(bench: Bench) -> None:
    bench.add("other")
    bench.start(rate=FOR_EVER)
    child = await bench.child("other")
    assert os.getpriority(os.PRIO_PROCESS, child) == 19
    assert os.getpriority(os.PRIO_PROCESS, 0) < 19
    ionice = await trio.run_process(["ionice", "-p", f"{child}"], capture_stdout=True)
    assert ionice.stdout.startswith(b"idle")
    group = trio.Path(f"/proc/{child}/autogroup")
    if await group.exists():
        assert (await group.read_text()).endswith(" nice 10\n")
    # A terminal's signals don't reach it, nor harm it.
    assert os.getsid(child) == child
    os.kill(child, signal.SIGINT)
    os.kill(child, signal.SIGHUP)
    await trio.sleep(0.3)
    assert await bench.child("other") == child
    loaded = await trio.Path(f"/proc/{child}/maps").read_text()
    assert "xxhash" in loaded
    assert "pyfuse3" not in loaded


async def test_its_end_is_ours(bench: Bench) -> None:
    async with trio.open_nursery() as nursery:
        bench._nursery = nursery
        bench.add("other")
        bench.start(rate=FOR_EVER)
        await bench.child("other")
        nursery.cancel_scope.cancel()
    assert children() == []


async def test_it_ends_with_its_pipe(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Also while it dawdles, and without any signal."""
    bench.add("other")
    bench.start(rate=FOR_EVER)
    child = await bench.child("other")
    assert bench.hasher._worker
    bench.hasher._worker.dismiss()
    bench.hasher.rate = 0
    await until(lambda: child not in children())
    assert wrong(await bench.done(), "other") == []
    # We heard of its end first, and killed what was left of it.
    assert "hashing other: the process has " in caplog.text


async def test_killed(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Another one does it again, from the start, and what was not begun as well."""
    bench.add("other")
    bench.add("big")
    bench.start(rate=FOR_EVER)
    child = await bench.child("other")
    await until(lambda: bench.hasher.pending_bytes < SIZES["other"] + SIZES["big"])
    bench.hasher.rate = 0
    os.kill(child, signal.SIGKILL)
    results = await bench.done()
    assert not results.failed
    assert wrong(results, "other", "big") == []
    assert [record.getMessage() for record in caplog.records] == [
        "hashing other: the process has been killed by SIGKILL"
    ]


async def test_what_kills_it_each_time(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A file that does that is given up, and the others are not."""
    bench.add("other", "big")
    bench.start(rate=FOR_EVER)
    for number in range(3):
        child = await bench.child("other")
        if number == 2:
            bench.hasher.rate = 0
        os.kill(child, signal.SIGKILL)
        await until(lambda child=child: child not in children())  # type: ignore[misc]
    results = await bench.done()
    error = results.failed[b"other"]
    assert isinstance(error, OSError)
    assert error.errno == errno.EIO
    assert wrong(results, "big") == []
    assert len(caplog.records) == 3


async def test_given_up(bench: Bench) -> None:
    """One that doesn't answer is killed, and the file that it was at isn't tried again."""
    bench.add("other")
    bench.add("big")
    bench.start(rate=FOR_EVER, patience=2)
    child = await bench.child("other")
    os.kill(child, signal.SIGSTOP)
    await until(lambda: b"other" in bench.results.failed)
    bench.hasher._patience = None
    bench.hasher.rate = 0
    for other in children():
        os.kill(other, signal.SIGKILL)  # it knows the old rate
    results = await bench.done()
    assert isinstance(results.failed[b"other"], TimeoutError)
    assert wrong(results, "big") == []
    await until(lambda: child not in children())
    await until(lambda: not bench.hasher._stuck)


async def test_idle(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives its memory back, and is there again when it is needed."""
    monkeypatch.setattr(hasher_module, "_IDLE", 0.01)
    bench.start()
    for name in ("0", "1", "2"):
        bench.add(name)
        assert wrong(await bench.done(), name) == []
        await until(lambda: not children())


@pytest.mark.parametrize(
    ("program", "reason"),
    [("/nowhere/python", "No such file or directory"), ("/bin/false", "ended with status 1")],
)
async def test_it_doesnt_start(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    program: str,
    reason: str,
) -> None:
    """That is said once, nobody's file takes the blame, and it is tried again."""
    monkeypatch.setattr(hasher_module, "_PAUSES", (0.0, 0.01))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", program)
        bench.add("0")
        bench.start()
        await until(lambda: bench.hasher._failures > 5)
    results = await bench.done()
    assert wrong(results, "0") == []
    assert [record.getMessage() for record in caplog.records] == [
        f"the process that hashes doesn't start, and so nothing is sealed: {reason}"
    ]


async def test_whatever_the_folder(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that lies there, or is called like our modules, is run."""
    make_file(tmp_path / "zipfs.py", b"raise SystemExit")
    make_file(tmp_path / "signal.py", b"raise SystemExit")
    monkeypatch.chdir(tmp_path)
    bench.add("0")
    bench.start()
    assert wrong(await bench.done(), "0") == []


@pytest.mark.parametrize("rate", [1.0, 3.5 * BLOCK, 1e12])
def test_at_a_bounded_rate(rate: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of its own: bytes take their time, and no pause is made up for later."""
    clock = Clock()
    monkeypatch.setattr(hash_process, "time", clock)
    theirs, requests = os.pipe2(os.O_CLOEXEC)
    answers, ours = os.pipe2(os.O_CLOEXEC)
    try:
        server = hash_process._Server(theirs, ours)
        server._hangup = clock  # type: ignore[assignment]  # poll(2), which is our sleep
        os.set_blocking(answers, False)
        make_file(tmp_path / "file", content(10 * BLOCK))
        state = FileState.of((tmp_path / "file").stat())
        for number in range(2):
            started = clock.now
            file = number, os.fsencode(tmp_path / "file"), tuple(state), False
            server._work(Job([file], SLICE, rate, 3600.0))  # type: ignore[list-item]
            took = clock.now - started
            assert took == pytest.approx(10 * BLOCK / rate, rel=0.01, abs=2 * BURST)
            assert os.read(answers, 1 << 20)
            clock.now += 1e9
    finally:
        for end in (theirs, requests, answers, ours):
            os.close(end)


class Clock:
    """A time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1e9

    def monotonic(self) -> float:
        return self.now

    def poll(self, milliseconds: float) -> list[tuple[int, int]]:
        self.now += max(milliseconds, 0.001) / 1000
        return []
