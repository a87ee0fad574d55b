"""A source that fails, lies, or doesn't answer harms its own readers only (DESIGN R1, R3).

The library is shown to zipfs by :mod:`tests.support.faultfs`, which does on command what broken
disks and dead shares do. "Hangs" are real ones: nothing comes back until they are released.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from bench.mount import is_mounted
from bench.web import Server, nginx
from tests.e2e import curl
from tests.support.faultfs import OPS, Faults, Op
from tests.support.libraries import Expected, content, expected, expected_archive, make_game
from tests.support.mounting import Mounted, Mounts, run_zipfs
from tests.support.users import needs_root
from tests.support.waiting import SECONDS, poll
from zipfs.library.filestate import BLOCK

PATIENCE: Final = 1.0
"""Seconds: --read-timeout in these tests."""
A, B, C, D = (f"roms/psx/{name}" for name in "ABCD")
SIZE: Final = 3_000_000

Source = tuple[Path, Faults]


@pytest.fixture
def wanted(library: Path) -> dict[str, Expected]:
    """Four games of three files each, and their archives."""
    games = {}
    for game in (A, B, C, D):
        files = {
            "1.bin": content(SIZE, f"{game} 1"),
            "2.bin": content(SIZE, f"{game} 2"),
            "3.cue": game.encode(),
        }
        games[game] = expected(make_game(library, game, files))
    return games


@pytest.fixture
def mount(faulty: Source, mount: Mounts) -> Iterator[Mounts]:
    """Mounts that end before the file system does that they show, with nothing hanging."""
    yield mount
    faulty[1].clear()


@pytest.fixture
def serve(mount: Mounts, place: Path) -> Iterator[Callable[[Mounted], Server]]:
    """nginx in front of a mount; ended before it."""
    with contextlib.ExitStack() as servers:
        yield lambda mounted: servers.enter_context(nginx(mounted.path, workdir=place))


def whole(path: Path) -> bytes:
    """All of a file as its file system gives it now, and not as the kernel remembers it."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return file.readall()


def check_right(mounted: Mounted, wanted: dict[str, Expected], *games: str) -> None:
    for game in games:
        archive = wanted[game]
        assert whole(mounted.archive(game)) == archive.read(0, archive.size), game


def error_of(call: Callable[[Path], object], path: Path) -> int | None:
    """The errno that ``call(path)`` ends with; None if it ends well."""
    try:
        call(path)
    except OSError as error:
        return error.errno
    return None


class Background:
    """A call in a thread: what it gives, or the errno it ends with, is there in the end."""

    def __init__(self, call: Callable[[Path], object], path: Path) -> None:
        self.error: int | None = None
        self._thread = threading.Thread(target=self._run, args=(call, path), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[Path], object], path: Path) -> None:
        self.error = error_of(call, path)

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def join(self) -> Background:
        self._thread.join(SECONDS)
        assert self.done, "a call hangs"
        return self


def check_quiet(mounted: Mounted, faults: Faults, threads: int | None = None) -> None:
    """Nothing hangs any more, and no thread (more than *threads*) is left over that did."""
    poll("all to be answered", lambda: sum(faults.waiting("*", op) for op in OPS) == 0)
    if threads is not None:  # trio keeps an idle one for ten seconds
        poll("idle threads to end", lambda: count_threads(mounted) <= threads)
    mounted.check_descriptors()


def count_threads(mounted: Mounted) -> int:
    return len(os.listdir(f"/proc/{mounted.process.pid}/task"))


def failed_once(mounted: Mounted, text: str) -> None:
    """That the log has *text* in exactly one line."""
    lines = [line for line in mounted.log_text().splitlines() if text in line]
    assert len(lines) == 1, lines


# ---------------------------------------------------------------- reads


def test_read_error(
    faulty: Source,
    wanted: dict[str, Expected],
    mount: Mounts,
    serve: Callable[[Mounted], Server],
) -> None:
    library, faults = faulty
    mounted = mount(library)
    mounted.expect_log("reading roms/psx/A.zip ended in an error: Input/output error")
    mounted.wait_sealed(4)
    server = serve(mounted)
    faults.fail(f"{A}/2.bin", "read", errno.EIO)
    assert curl.get_if_whole(server.url_of(f"{A}.zip")) is None
    for game in (B, C, D):
        assert curl.sha256(server.url_of(f"{game}.zip")) == wanted[game].sha256()
    # What isn't in that file is there, what is isn't, and no byte of it is made up.
    with mounted.archive(A).open("rb", buffering=0) as file:
        begin = wanted[A].layout.data_offset(1)
        assert os.pread(file.fileno(), 1000, 0) == wanted[A].read(0, 1000)
        with pytest.raises(OSError, match="Input/output error"):
            os.pread(file.fileno(), 1000, begin)
        with pytest.raises(OSError, match="Input/output error"):
            os.pread(file.fileno(), 10, begin + SIZE - 5)
    faults.clear()
    assert curl.sha256(server.url_of(f"{A}.zip")) == wanted[A].sha256()
    failed_once(mounted, "reading roms/psx/A.zip ended in an error")


def test_short_read(
    faulty: Source,
    wanted: dict[str, Expected],
    mount: Mounts,
    serve: Callable[[Mounted], Server],
) -> None:
    library, faults = faulty
    mounted = mount(library)
    mounted.expect_log("reading roms/psx/A.zip ended in an error: a file of it has changed")
    mounted.wait_sealed(4)
    server = serve(mounted)
    at = SIZE // 2 + 123
    faults.shorten(f"{A}/2.bin", at)
    assert curl.get_if_whole(server.url_of(f"{A}.zip")) is None
    # Direct, so that each read is one of ours: all of it, or an error, and nothing in between.
    descriptor = os.open(mounted.archive(A), os.O_RDONLY | os.O_DIRECT)
    try:
        begin = wanted[A].layout.data_offset(1)
        # A block of which a part is missing can't be proven.
        proven = at // BLOCK * BLOCK
        assert os.pread(descriptor, proven, begin) == wanted[A].read(begin, proven)
        for offset, length in ((begin, proven + 1), (begin + at, 1), (begin + at - 1, 1)):
            with pytest.raises(OSError, match="Input/output error"):
                os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)
    check_right(mounted, wanted, B, C, D)
    faults.clear()
    check_right(mounted, wanted, A)
    # Less at a time than was asked for, as network file systems do, is no error.
    faults.trickle(f"{A}/*", 77_777)
    check_right(mounted, wanted, A)


def test_hanging_read(
    faulty: Source,
    wanted: dict[str, Expected],
    mount: Mounts,
    serve: Callable[[Mounted], Server],
) -> None:
    library, faults = faulty
    mounted = mount(library, f"--read-timeout={PATIENCE}", "--prove=never")  # nothing is kept
    mounted.expect_log("reading roms/psx/A.zip ended in an error: Connection timed out")
    mounted.wait_sealed(4)
    check_right(mounted, wanted, A, B)
    threads = count_threads(mounted)
    server = serve(mounted)
    faults.hang(f"{A}/2.bin", "read")
    reading = Background(whole, mounted.archive(A))
    poll("the read to hang", lambda: faults.waiting(f"{A}/2.bin", "read") > 0)
    # During the hang, and before anybody has given up.
    check_right(mounted, wanted, B)
    assert curl.sha256(server.url_of(f"{C}.zip")) == wanted[C].sha256()
    assert reading.join().error == errno.EIO
    # It hangs still, and nobody else waits for that any more.
    assert faults.waiting(f"{A}/2.bin", "read") > 0
    assert curl.get_if_whole(server.url_of(f"{A}.zip")) is None
    for game in (B, C, D):
        assert curl.sha256(server.url_of(f"{game}.zip")) == wanted[game].sha256()
    asked = faults.count(f"{A}/2.bin", "read")
    for _ in range(20):
        assert Background(whole, mounted.archive(A)).join().error == errno.EIO
    assert faults.count(f"{A}/2.bin", "read") == asked, "who hangs is asked again and again"
    faults.release()
    poll("A to be right again", lambda: error_of(whole, mounted.archive(A)) is None)
    check_right(mounted, wanted, A, B, C, D)
    check_quiet(mounted, faults, threads)


def test_many_readers_of_what_hangs(
    faulty: Source, wanted: dict[str, Expected], mount: Mounts
) -> None:
    """However many wait for one archive, those of others don't."""
    library, faults = faulty
    mounted = mount(library, f"--read-timeout={4 * PATIENCE}")
    mounted.expect_log("reading roms/psx/A.zip ended in an error: Connection timed out")
    mounted.wait_sealed(4)
    faults.hang(f"{A}/*", "read")
    begin = wanted[A].layout.data_offset(1)

    def somewhere(path: Path) -> None:
        # Past the page cache, where readers of the same page wait for each other.
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            os.pread(descriptor, 4096, begin)
        finally:
            os.close(descriptor)

    readers = [Background(somewhere, mounted.archive(A)) for _ in range(100)]
    poll("the reads to hang", lambda: faults.waiting(f"{A}/*", "read") > 0)
    check_right(mounted, wanted, B, C, D)
    assert not any(reader.done for reader in readers)
    assert {reader.join().error for reader in readers} == {errno.EIO}
    # Those that were given up are few, so that there are threads for others.
    assert faults.waiting(f"{A}/*", "read") <= 16
    faults.release()
    poll("A to be right again", lambda: error_of(whole, mounted.archive(A)) is None)
    check_right(mounted, wanted, A)


def test_hanging_open(faulty: Source, wanted: dict[str, Expected], mount: Mounts) -> None:
    library, faults = faulty
    mounted = mount(library, f"--read-timeout={PATIENCE}")
    mounted.expect_log(rf"opening {A}\.zip ended in an error: no answer in time")
    mounted.wait_sealed(4)
    faults.hang(f"{A}/2.bin", "open")
    opening = [Background(whole, mounted.archive(A)) for _ in range(20)]
    poll("an open to hang", lambda: faults.waiting(f"{A}/2.bin", "open") > 0)
    check_right(mounted, wanted, B, C, D)
    for each in opening:
        assert each.join().error == errno.EIO
    faults.release()
    poll("A to be right again", lambda: error_of(whole, mounted.archive(A)) is None)
    check_right(mounted, wanted, A)
    check_quiet(mounted, faults)
    # What the late ones came back with is closed: no file is open more than once.
    paths = list(mounted.library_descriptors().values())
    assert len(paths) == len(set(paths)), paths


def test_hanging_state(faulty: Source, wanted: dict[str, Expected], mount: Mounts) -> None:
    """Where the state vouches, it is asked for after each read; that may hang as well."""
    library, faults = faulty
    mounted = mount(library, f"--read-timeout={PATIENCE}", "--prove=never")
    mounted.expect_log("reading roms/psx/A.zip ended in an error: Connection timed out")
    mounted.expect_log("can't look at (roms/psx/A|the games in roms/psx): ")
    mounted.wait_sealed(4)
    with mounted.archive(A).open("rb", buffering=0) as file:
        faults.hang(f"{A}/2.bin", "stat")
        begin = wanted[A].layout.data_offset(1)
        with pytest.raises(OSError, match="Input/output error"):
            os.pread(file.fileno(), 1000, begin)
        check_right(mounted, wanted, B, C, D)
        faults.release()
        poll(
            "the file to be readable again",
            lambda: error_of(lambda _: os.pread(file.fileno(), 1000, begin), library) is None,
        )
    check_quiet(mounted, faults)


# ---------------------------------------------------------------- looks


@pytest.mark.parametrize("hanging", [f"{A}/2.bin", A])
def test_hanging_stat(
    faulty: Source, wanted: dict[str, Expected], mount: Mounts, hanging: str
) -> None:
    library, faults = faulty
    mounted = mount(library, f"--read-timeout={PATIENCE}")
    mounted.expect_log(r"can't look (at|through) ")
    mounted.expect_log(rf"opening {A}\.zip ended in an error: no answer in time")
    mounted.wait_sealed(4)
    threads = count_threads(mounted)
    faults.hang(hanging, "stat")
    # Until what was known a moment ago isn't taken for granted any more.
    poll("the lookup to hang", lambda: _hangs(mounted, faults, hanging))
    looking = Background(os.stat, mounted.archive(A))
    check_right(mounted, wanted, B, C, D)
    listing = Background(os.listdir, mounted.path / "roms/psx").join()
    assert listing.error is None
    looking.join()
    names = set(os.listdir(mounted.path / "roms/psx"))
    assert {"B.zip", "C.zip", "D.zip"} <= names <= {"A.zip", "B.zip", "C.zip", "D.zip"}
    # Not only what was known before: a game that is new while another hangs.
    make_game(mounted.library.parent / "library", "roms/psx/E", {"1": b"one", "2": b"two"})
    mounted.wait_archive("roms/psx/E")
    poll("E to be listed", lambda: "E.zip" in os.listdir(mounted.path / "roms/psx"))
    asked = faults.count(hanging, "stat")
    for _ in range(20):
        error_of(os.stat, mounted.archive(A))
        check_right(mounted, wanted, B)
    assert faults.count(hanging, "stat") - asked <= 8, "who hangs is asked again and again"
    faults.release()
    poll("A to be right again", lambda: error_of(whole, mounted.archive(A)) is None)
    check_right(mounted, wanted, A, B, C, D)
    assert set(os.listdir(mounted.path / "roms/psx")) == {f"{name}.zip" for name in "ABCDE"}
    check_quiet(mounted, faults, threads)


def _hangs(mounted: Mounted, faults: Faults, path: str) -> bool:
    error_of(os.stat, mounted.archive(A))
    return faults.waiting(path, "stat") > 0


@pytest.mark.parametrize("hanging", [f"{B}/2.bin", B, "roms/snes"])
def test_hanging_at_the_start(
    library: Path, faulty: Source, wanted: dict[str, Expected], mount: Mounts, hanging: str
) -> None:
    """What comes after it in the library is found and sealed all the same."""
    make_game(library, "roms/snes/F", {"1": b"one", "2": b"two"})
    shown, faults = faulty
    faults.hang(hanging, "stat")
    mounted = mount(shown, f"--read-timeout={PATIENCE}")
    mounted.expect_log(r"can't look (at|through) ")
    poll("the look at it to hang", lambda: faults.waiting(hanging, "stat") > 0)
    others = [game for game in (A, B, C, D) if not hanging.startswith(game)]
    for game in others:
        mounted.wait_archive(game)
    check_right(mounted, wanted, *others)
    assert hanging == "roms/snes" or "F.zip" in os.listdir(mounted.wait_for("roms/snes"))
    faults.release()
    for game in (A, B, C, D, "roms/snes/F"):
        poll(game, lambda game=game: error_of(whole, mounted.archive(game)) is None)  # type: ignore[misc]
    check_right(mounted, wanted, A, B, C, D)
    check_quiet(mounted, faults)


def test_first_lookup_hangs(faulty: Source, wanted: dict[str, Expected], mount: Mounts) -> None:
    """The kernel looks up one new name of a folder after the other: others wait, but not for ever.

    (It would do so at the same time for a file system that asked for FUSE_PARALLEL_DIROPS.)
    """
    shown, faults = faulty
    faults.hang(A, "stat")
    mounted = mount(shown, f"--read-timeout={PATIENCE}")
    mounted.expect_log(r"can't look (at|through) ")
    mounted.wait_archive(B)
    looking = Background(os.stat, mounted.archive(A))
    poll("the lookup to hang", lambda: faults.waiting(A, "stat") > 0)
    check_right(mounted, wanted, B)  # its name isn't new
    names = [Background(os.stat, mounted.path / f"roms/psx/nothing {n}") for n in range(10)]
    for name in names:
        assert name.join().error == errno.ENOENT
    assert looking.join().error == errno.EIO
    # From now on it is known to hang, and holds up nobody.
    for number in range(10, 20):
        assert Background(os.stat, mounted.archive(A)).join().error == errno.EIO
        assert error_of(os.stat, mounted.path / f"roms/psx/nothing {number}") == errno.ENOENT
    faults.release()
    poll("A to be right", lambda: error_of(whole, mounted.archive(A)) is None)
    check_right(mounted, wanted, A)


# ---------------------------------------------------------------- hashing


def test_hang_while_hashing(faulty: Source, wanted: dict[str, Expected], mount: Mounts) -> None:
    shown, faults = faulty
    faults.hang(f"{A}/2.bin", "read")
    mounted = mount(shown, f"--read-timeout={PATIENCE}")
    mounted.expect_log("can't read roms/psx/A/2.bin: Connection timed out; its archive isn't there")
    poll("the hashing to hang", lambda: faults.waiting(f"{A}/2.bin", "read") > 0)
    for game in (B, C, D):
        mounted.wait_archive(game)
    mounted.wait_log("can't read roms/psx/A/2.bin")
    check_right(mounted, wanted, B, C, D)
    assert error_of(os.stat, mounted.archive(A)) == errno.ENOENT
    # Whoever is asked for while its hashing hangs is told at once, like anything unsealed.
    for _ in range(20):
        assert error_of(os.stat, mounted.archive(A)) == errno.ENOENT
    assert faults.count(f"{A}/2.bin", "read") <= 2
    faults.release()
    mounted.wait_archive(A)
    check_right(mounted, wanted, A)
    check_quiet(mounted, faults)
    failed_once(mounted, "can't read roms/psx/A/2.bin")


def test_slow_source(faulty: Source, wanted: dict[str, Expected], mount: Mounts) -> None:
    """A disk that takes its time, such as one that starts to turn, is no error."""
    shown, faults = faulty
    faults.delay("roms/psx/*", "read", 0.05)
    mounted = mount(shown, "--read-timeout=2")
    mounted.wait_sealed(4)
    faults.clear()
    check_right(mounted, wanted, A, B, C, D)


def test_refused(faulty: Source, wanted: dict[str, Expected], mount: Mounts, library: Path) -> None:
    """A file that may not be opened is left out, and that is said once."""
    shown, faults = faulty
    faults.fail(f"{A}/2.bin", "open", errno.EACCES)
    mounted = mount(shown)
    mounted.expect_log("roms/psx/A/2.bin is left out: a file that can't be read")
    mounted.wait_sealed(4)
    without = expected(library / A, leave_out={"2.bin"})
    check_right(mounted, {**wanted, A: without}, A, B, C, D)
    os.listdir(mounted.path / "roms/psx")
    failed_once(mounted, "roms/psx/A/2.bin is left out")
    assert faults.count(f"{A}/2.bin", "open") == 1


def test_errors_while_hashing(faulty: Source, wanted: dict[str, Expected], mount: Mounts) -> None:
    """Each is said once, and tried again later, less and less often."""
    shown, faults = faulty
    started = time.monotonic()
    broken: dict[str, tuple[int, Op]] = {
        f"{A}/1.bin": (errno.ESTALE, "open"),
        f"{B}/1.bin": (errno.ENODEV, "open"),
        f"{C}/1.bin": (errno.ETIMEDOUT, "read"),
    }
    for path, (number, op) in broken.items():
        faults.fail(path, op, number)
    mounted = mount(shown)
    mounted.expect_log("can't read roms/psx/./1.bin: .*; its archive isn't there until")
    mounted.wait_archive(D)
    mounted.wait_log("can't read roms/psx/C/1.bin")
    check_right(mounted, wanted, D)
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:  # somebody who insists changes nothing
        for game in (A, B, C):
            assert error_of(os.stat, mounted.archive(game)) == errno.ENOENT
        os.listdir(mounted.path / "roms/psx")
        time.sleep(0.05)
    mounted.wait_log("can't read roms/psx/A/1.bin")  # it might just have been renamed
    for path, (number, op) in broken.items():
        # After 1, 2, 4, ... seconds; upon ESTALE the kernel itself tries once more.
        most = 2 * (1 + math.log2(1 + time.monotonic() - started))
        assert faults.count(path, op) <= most, (path, number)
        failed_once(mounted, f"can't read {path}: {os.strerror(number)}")
    faults.clear()
    for game in (A, B, C):
        mounted.wait_archive(game)
    check_right(mounted, wanted, A, B, C)


def test_slow_copy(
    library: Path, faulty: Source, wanted: dict[str, Expected], mount: Mounts, place: Path
) -> None:
    """A file that grows in its place isn't there until it is complete and has settled."""
    shown, _ = faulty
    mounted = mount(shown, settle=1.0)
    mounted.wait_sealed(4)
    (place / "source").write_bytes(content(2_000_000, "slow"))
    folder = make_game(library, "roms/psx/E", {"1.cue": b"first"})
    script = (
        "import sys, time\n"
        "data = open(sys.argv[1], 'rb').read()\n"
        "with open(sys.argv[2], 'wb', buffering=0) as file:\n"
        "    for at in range(0, len(data), 50_000):\n"
        "        file.write(data[at:at + 50_000])\n"
        "        time.sleep(0.1)\n"
    )
    seen = 0
    with subprocess.Popen(
        [sys.executable, "-c", script, place / "source", folder / "2.bin"]
    ) as writer:
        while writer.poll() is None:
            there = error_of(os.stat, mounted.archive("roms/psx/E")) is None
            # Only if it was still being written afterwards: otherwise it may just be complete.
            if there and writer.poll() is None:
                size = (folder / "2.bin").stat().st_size
                assert size == 2_000_000, f"there when {size} bytes were"
            seen += 1
            time.sleep(0.01)
        assert writer.returncode == 0
    assert seen > 20
    new = expected(folder)
    assert new.files
    assert mounted.wait_archive("roms/psx/E").stat().st_size == new.size
    check_right(mounted, {**wanted, "roms/psx/E": new}, A, "roms/psx/E")


# ---------------------------------------------------------------- the end


@pytest.mark.parametrize(("path", "op"), [(f"{A}/2.bin", "read"), (A, "stat"), (f"{A}/*", "open")])
def test_ends_while_the_source_hangs(
    faulty: Source, wanted: dict[str, Expected], mount: Mounts, path: str, op: Op
) -> None:
    shown, faults = faulty
    mounted = mount(shown)  # with the patience of the default, half a minute
    mounted.expect_log(r"can't look (at|through) |reading .* ended in an error")
    mounted.wait_sealed(4)
    faults.hang(path, op)
    waiting = Background(_use_until_it_fails, mounted.archive(A))
    poll("somebody to hang", lambda: faults.waiting(path, op) > 0)
    mounted.process.send_signal(signal.SIGTERM)
    poll("the unmount", lambda: not is_mounted(mounted.path))
    assert waiting.join().error is not None
    # All of it has ended but the threads that are in the kernel, which a FUSE file system can
    # hold there even against SIGKILL (fuse(4) knows no forced end of a request).
    poll("the daemon's end", lambda: _state(mounted.process.pid) == "Z")
    faults.release()
    assert mounted.see_end() == 0


def test_forced_unmount_during_a_read(
    faulty: Source, wanted: dict[str, Expected], mount: Mounts
) -> None:
    """Whoever reads is told of the end; what comes for him later is no error of the daemon."""
    shown, faults = faulty
    mounted = mount(shown)
    mounted.wait_sealed(4)
    faults.delay(f"{A}/2.bin", "read", 1.0)
    waiting = Background(whole, mounted.archive(A))
    poll("somebody to wait", lambda: faults.waiting(f"{A}/2.bin", "read") > 0)
    subprocess.run(["umount", "--force", "--lazy", mounted.path], check=True)
    assert waiting.join().error in (errno.ECONNABORTED, errno.ENOTCONN, errno.EIO)
    assert mounted.see_end() == 0


def _use_until_it_fails(path: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        whole(path)


def _state(pid: int) -> str:
    """The state of a process's first thread: Z once it has ended (proc_pid_stat(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_dump_while_the_source_hangs(
    faulty: Source, wanted: dict[str, Expected], mount: Mounts
) -> None:
    """SIGUSR1 shows who hangs, and in what."""
    shown, faults = faulty
    mounted = mount(shown, f"--read-timeout={PATIENCE}")
    mounted.expect_log("reading .* ended in an error")
    mounted.wait_sealed(4)
    faults.hang(f"{A}/1.bin", "read")
    assert error_of(whole, mounted.archive(A)) == errno.EIO
    mounted.process.send_signal(signal.SIGUSR1)
    mounted.wait_log("^Tasks:")
    assert re.search(r"File .*/library/files\.py.* in ", mounted.log_text())
    faults.release()
    check_quiet(mounted, faults)


def test_a_member_renamed_at_the_server(
    faulty: Source, library: Path, wanted: dict[str, Expected], mount: Mounts
) -> None:
    """SMB: its old name is listed for a while, and opening it is an invalid argument (seen).

    That is no defect of a disk to tell of, and the game is looked at again soon.
    """
    source, faults = faulty
    mounted = mount(source)
    mounted.wait_sealed(len(wanted))
    old, new = library / A / "1.bin", library / A / "renamed.bin"
    faults.fail(f"{A}/1.bin", "open", errno.EINVAL)
    asked = faults.count(f"{A}/1.bin", "open")
    os.link(old, new)
    with contextlib.suppress(OSError):
        whole(mounted.archive(A))  # somebody asks for it
    poll("it to be opened under its old name", lambda: faults.count(f"{A}/1.bin", "open") > asked)
    old.unlink()
    faults.clear()
    archive = mounted.wait_archive(A)
    assert whole(archive) == expected_archive(library / A)
    check_right(mounted, wanted, B, C, D)


def test_a_name_that_the_source_cant_have(
    faulty: Source, library: Path, wanted: dict[str, Expected], mount: Mounts
) -> None:
    """vfat and SMB say "invalid argument" to those: to a web server it is just not there."""
    source, faults = faulty
    mounted = mount(source)
    mounted.wait_sealed(len(wanted))
    faults.fail("roms/psx/odd*", "stat", errno.EINVAL)
    for name in ("odd?", "odd?.zip"):
        assert error_of(os.stat, mounted.path / "roms/psx" / name) == errno.ENOENT


@needs_root
@pytest.mark.parametrize("command", ["mount", "index", "verify", "inspect"])
def test_a_library_that_hangs_is_named(
    library: Path, place: Path, mount: Mounts, command: str
) -> None:
    """On a mount whose daemon is stuck; `stat` of it never returns, not even when killed."""
    make_game(library, "roms/psx/Game", {"a": b"a", "b": b"b"})
    mounted = mount(library)
    mounted.wait_sealed(1)
    (place / "empty").mkdir()
    mounted.process.send_signal(signal.SIGSTOP)
    try:
        arguments = {"mount": [place / "empty"], "inspect": ["roms/psx/Game"]}.get(command, [])
        done = run_zipfs(command, "--index", place / "other.sqlite3", mounted.path, *arguments)
    finally:
        mounted.process.send_signal(signal.SIGCONT)
    assert done.returncode == 3
    assert "doesn't answer (" in done.stderr
    assert len(done.stderr.splitlines()) == 1
