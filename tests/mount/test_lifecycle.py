"""The daemon from its start to its end, a bad end included (DESIGN H5)."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.mount import is_mounted, zipfs_program
from tests.support.libraries import content, expected, expected_archive, make_file, make_game
from tests.support.mounting import Mounted, Mounts, run_zipfs
from tests.support.users import needs_root, run_as
from tests.support.waiting import poll
from zipfs.errors import StillServingError

GAME = "roms/psx/Game"


@pytest.fixture
def game(library: Path) -> Path:
    return make_game(library, GAME, {"a": content(3_000_000, 1), "b": content(2_000_000, 2)})


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open *path* to read past the page cache; its daemon may be gone when it is closed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        yield descriptor
    finally:
        with contextlib.suppress(OSError):  # ENOTCONN, and closed all the same
            os.close(descriptor)


def read_ahead_of(path: Path) -> int:
    """The kernel's read-ahead for what is mounted at *path*, KiB."""
    device = os.stat(path).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    return int(Path(f"/sys/class/bdi/{name}/read_ahead_kb").read_text())


# -- Start ---------------------------------------------------------------------------


def test_says_how_it_is(game: Path, library: Path, mount: Mounts) -> None:
    """In its log, and to the service manager."""
    make_file(library / "roms/gb/single.gb", b"x")
    mounted = mount(library)
    mounted.wait_sealed(1)
    size = expected(game).size
    lines = mounted.log_text().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith(f"INFO: mounted {library} on {mounted.path}")
    assert lines[1].endswith(f"INFO: everything is sealed: 1 archives, 2 members, {size} bytes")
    poll("the status", lambda: mounted.notifications.status == "1 archives sealed")
    assert mounted.notifications.seen.count("READY=1") == 1
    mounted.stop()
    seen = mounted.notifications.seen
    assert seen[-1] == "STOPPING=1"
    assert mounted.log_text().splitlines()[-1].endswith(f"INFO: unmounted {mounted.path}")


def test_ready_means_mounted(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mount(library)
    assert is_mounted(mounted.path)
    assert os.listdir(mounted.path) == ["roms"]


def test_without_a_service_manager(game: Path, library: Path, mount: Mounts) -> None:
    for address in (None, "", "/nothing/listens/here", "@nor here"):
        mounted = mount(library, env={"NOTIFY_SOCKET": address}, ready=False)
        mounted.wait_log("mounted")
        assert mounted.wait_archive(GAME).read_bytes() == expected_archive(game)
        mounted.process.send_signal(signal.SIGTERM)
        mounted.see_end()


def test_a_journal_that_isn_t_stderr_is_none(game: Path, library: Path, mount: Mounts) -> None:
    """`JOURNAL_STREAM` is inherited by what has its stderr elsewhere, systemd.exec(5)."""
    mounted = mount(library, env={"JOURNAL_STREAM": "1:2"})
    assert re.match(r"\d{4}-\d\d-\d\d .* INFO: mounted ", mounted.log_text())


def test_log_level(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mount(library, "--log-level=warning")
    mounted.wait_archive(GAME)
    mounted.stop()
    assert not mounted.log_text()


@needs_root
@pytest.mark.parametrize(("options", "kib"), [((), 1024), (("--read-ahead=256",), 256)])
def test_read_ahead(
    game: Path, library: Path, mount: Mounts, options: tuple[str, ...], kib: int
) -> None:
    assert read_ahead_of(mount(library, *options).path) == kib


@needs_root
def test_read_ahead_left_alone(game: Path, library: Path, mount: Mounts) -> None:
    # 128 unless the system's administrator has chosen something else; never what we set.
    assert read_ahead_of(mount(library, "--read-ahead=0").path) != 1024


def test_mount_options(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mount(library, "-o", "fsname=games", "-o", "nodev,nosuid")
    device = os.stat(mounted.path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    (line,) = (line for line in lines if line.split()[2] == number)
    assert " - fuse.zipfs " in line
    options = set(line.split()[5].split(","))
    assert {"ro", "nodev", "nosuid", "noatime"} <= options


def test_config_file(game: Path, library: Path, mount: Mounts, place: Path) -> None:
    """The names of the options; what the command line says wins."""
    make_game(library, "isos/Other", {"a": b"a", "b": b"b"})
    config = place / "config.toml"
    config.write_text(
        'games = ["isos/*"]\nsettle = 1\nread-ahead = 512\nlog-level = "warning"\n'
        f'library = "{place}/nowhere"\nindex = "{place}/nowhere/index"\n'
    )
    mounted = mount(library, "--config", config)
    assert mounted.wait_archive("isos/Other").exists()
    assert not mounted.archive(GAME).exists()
    if os.geteuid() == 0:
        assert read_ahead_of(mounted.path) == 512
    assert not mounted.log_text()


# -- Signals -------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_stop(game: Path, library: Path, mount: Mounts, number: signal.Signals) -> None:
    mounted = mount(library)
    mounted.wait_archive(GAME)
    assert mounted.stop(number) == 0
    assert os.listdir(mounted.path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_stop_with_open_readers(
    game: Path, library: Path, mount: Mounts, number: signal.Signals
) -> None:
    """They are cut off; nobody is waited for."""
    mounted = mount(library)
    archive = mounted.wait_archive(GAME)
    reader = subprocess.Popen(
        ["sh", "-c", "cd roms/psx && exec sleep 1000"], cwd=mounted.path, stdin=subprocess.DEVNULL
    )
    try:
        with opened(archive) as descriptor:
            assert len(os.pread(descriptor, 1000, 0)) == 1000
            mounted.stop(number)
            with pytest.raises(OSError, match=r".") as caught:
                os.pread(descriptor, 1000, 2_000_000)
            assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    finally:
        reader.kill()
        reader.wait()


def test_stop_during_a_download(game: Path, library: Path, mount: Mounts) -> None:
    make_game(library, "roms/psx/Big", {"a": 1 << 30, "b": b"b"})
    mounted = mount(library)
    archive = mounted.wait_archive("roms/psx/Big")
    with subprocess.Popen(
        ["cat", archive], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as download:
        assert download.stdout
        assert download.stderr
        assert len(download.stdout.read(10_000_000)) == 10_000_000
        mounted.stop()
        rest = 0
        while data := download.stdout.read(1 << 20):
            rest += len(data)
        assert download.stderr.read()
    assert download.returncode == 1
    assert rest < 1 << 30


def test_signal_during_the_start(game: Path, library: Path, mount: Mounts) -> None:
    """As soon as there is a mount, a signal takes it away again."""
    for _ in range(5):
        mounted = mount(library, ready=False)
        poll("the mount", lambda mounted=mounted: is_mounted(mounted.path))  # type: ignore[misc]
        mounted.process.send_signal(signal.SIGTERM)
        mounted.see_end()


def test_stopped_impatiently(game: Path, library: Path, mount: Mounts) -> None:
    """No further signal keeps it from unmounting, a closed terminal's included."""
    mounted = mount(library)
    with opened(mounted.wait_archive(GAME)):
        numbers = itertools.cycle([signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
        while mounted.process.poll() is None:
            mounted.process.send_signal(next(numbers))
            # Quicker than any hand, and slower than Python answers: handlers that interrupt each
            # other without end are a storm, not impatience.
            time.sleep(0.002)
    mounted.see_end()


def test_hangup_looks_again(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mount(library)
    mounted.wait_sealed(1)
    make_game(library, "roms/psx/Other", {"a": b"a", "b": b"b"})
    mounted.process.send_signal(signal.SIGHUP)
    mounted.wait_sealed(2)
    mounted.wait_log("INFO: looking through the library again")


def test_dump(game: Path, library: Path, mount: Mounts) -> None:
    """SIGUSR1 tells where all tasks and threads are, and goes on."""
    mounted = mount(library)
    archive = mounted.wait_archive(GAME)
    for _ in range(2):
        with archive.open("rb") as file:
            file.read(1000)
            mounted.process.send_signal(signal.SIGUSR1)
            mounted.wait_log(r"^Tasks:\n(.*\n)*  zipfs\.mount\.reader\.Reader\.tidy\n    File ")
    log = mounted.log_text()
    assert "(most recent call first):" in log
    assert "  zipfs.mount.daemon._serve_requests\n" in log
    assert "  zipfs.index.hash_queue.Hasher.run\n" in log
    assert archive.read_bytes() == expected_archive(game)


def test_dump_while_it_is_busy(library: Path, mount: Mounts) -> None:
    """Looking into a running daemon doesn't harm it."""
    folder = make_game(library, GAME, {f"{n}": content(200_000, n) for n in range(20)})
    wanted = expected_archive(folder)
    mounted = mount(library)
    archive = mounted.wait_archive(GAME)
    stop = threading.Event()

    def read() -> None:
        with opened(archive) as descriptor:
            while not stop.is_set():
                for offset in range(0, len(wanted), 150_000):
                    os.pread(descriptor, 150_000, offset)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for number in range(150):
            mounted.process.send_signal(signal.SIGUSR1)
            poll("the dump", lambda n=number: mounted.log_text().count("Tasks:\n") > n)  # type: ignore[misc]
            mounted.check_runs()
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert archive.read_bytes() == wanted


# -- Unmounting ----------------------------------------------------------------------


def test_unmount(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mount(library)
    mounted.wait_archive(GAME)
    done = run_zipfs("unmount", mounted.path, env=by_its_socket(mounted))
    if assert_unmounted(done):
        # It has been waited for, and so has all that it had open.
        assert mounted.process.poll() == 0
    mounted.see_end()


def assert_unmounted(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether the daemon has ended with it, which others can't spoil but by a copy."""
    if done.returncode == StillServingError.exit_code:
        # A service of this machine, started meanwhile, got a copy of all that is mounted.
        assert "a copy of the mount in the namespace of" in done.stderr
        return False
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return True


def by_its_socket(mounted: Mounted) -> dict[str, str | None]:
    """How a command finds the daemon."""
    return {"RUNTIME_DIRECTORY": str(mounted.runtime)}


@needs_root
@pytest.mark.parametrize("known", [True, False], ids=["by its socket", "without"])
def test_unmount_with_a_copy_elsewhere(
    known: bool, game: Path, library: Path, mount: Mounts
) -> None:
    """What a container or a service has got of the mount is served on, and is named."""
    mounted = mount(library)
    archive = mounted.wait_archive(GAME)
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 999"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout
            other.stdout.read(1)
            done = run_zipfs("unmount", mounted.path, env=by_its_socket(mounted) if known else None)
            assert done.returncode == StillServingError.exit_code
            assert f"sleep (process {other.pid})" in done.stderr
            assert done.stderr.count("\n") == 1
            assert not is_mounted(mounted.path)
            seen = run_as(None, "nsenter", "-m", "-t", str(other.pid), "cat", archive)
            assert seen.stdout == expected_archive(game)
        finally:
            other.kill()
    mounted.see_end()


@needs_root
def test_unmount_with_a_copy_here(game: Path, library: Path, mount: Mounts, place: Path) -> None:
    mounted = mount(library)
    mounted.wait_archive(GAME)
    (place / "copy").mkdir()
    subprocess.run(["mount", "--bind", mounted.path, place / "copy"], check=True)
    env = by_its_socket(mounted)
    done = run_zipfs("unmount", mounted.path, env=env)
    assert done.returncode == StillServingError.exit_code
    assert f"zipfs unmount {place / 'copy'}" in done.stderr
    done = run_zipfs("unmount", place / "copy", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert mounted.process.poll() == 0
    mounted.see_end()


def test_unmount_in_use(game: Path, library: Path, mount: Mounts) -> None:
    """Refused, unless lazily: then the name is free at once."""
    mounted = mount(library)
    archive = mounted.wait_archive(GAME)
    with archive.open("rb") as file:
        done = run_zipfs("unmount", mounted.path)
        assert done.returncode == 4
        assert done.stderr.startswith(f"zipfs: can't unmount {mounted.path}: ")
        assert "busy" in done.stderr
        assert done.stderr.count("\n") == 1
        assert file.read(10) == expected_archive(game)[:10]
        done = run_zipfs("unmount", "--lazy", mounted.path)
        assert (done.returncode, done.stderr) == (0, "")
        assert not is_mounted(mounted.path)
        # A download goes on to its end; the daemon waits for that.
        assert file.read() == expected_archive(game)[10:]
        assert mounted.process.poll() is None
    mounted.see_end()


def test_unmount_by_a_relative_path(game: Path, library: Path, mount: Mounts, place: Path) -> None:
    mounted = mount(library)
    (place / "link").symlink_to(place)
    done = run_zipfs("unmount", f"link/{mounted.path.name}/", cwd=place)
    assert_unmounted(done)
    mounted.see_end()


def test_names_with_blanks(place: Path, mount: Mounts) -> None:
    """mountinfo(5) writes them in octal."""
    library = place / "a library\twith\\blanks"
    make_game(library, GAME, {"a": b"a", "b": b"b"})
    point = place / "a mount point\twith\\blanks\n"
    point.mkdir()
    mounted = mount(library, mountpoint=point)
    assert mounted.wait_archive(GAME).exists()
    done = run_zipfs("unmount", point)
    assert_unmounted(done)
    mounted.see_end()


def test_unmounted_by_others(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mount(library)
    mounted.wait_archive(GAME)
    mounted.unmount()
    assert mounted.process.returncode == 0


# -- A bad end -----------------------------------------------------------------------


def assert_dead(mounted: Mounted) -> None:
    assert is_mounted(mounted.path)
    with pytest.raises(OSError, match=r".") as caught:
        os.listdir(mounted.path)
    assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)


@pytest.mark.parametrize("reading", [False, True])
def test_mount_after_kill(game: Path, library: Path, mount: Mounts, reading: bool) -> None:
    """What is left is cleared away by the next start, also if somebody is still in there."""
    first = mount(library)
    archive = first.wait_archive(GAME)
    data = archive.read_bytes()
    with opened(archive) if reading else contextlib.nullcontext():
        os.stat(first.path)  # the kernel knows its attributes for a second
        first.kill()
        assert_dead(first)
        second = mount(library, mountpoint=first.path)
        assert second.wait_archive(GAME).read_bytes() == data
    second.stop()
    assert not is_mounted(first.path)


def test_unmount_after_kill(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mount(library)
    with opened(mounted.wait_archive(GAME)):
        mounted.kill()
        assert_dead(mounted)
        done = run_zipfs("unmount", mounted.path)
        assert (done.returncode, done.stderr) == (0, "")
        assert not is_mounted(mounted.path)


def test_killed_while_hashing(library: Path, mount: Mounts) -> None:
    """What was saved is kept, the rest is hashed again."""
    make_game(library, "roms/ps3/Big", {"a": 1 << 40, "b": b"b"})
    small = make_game(library, GAME, {"a": b"a", "b": b"b"})
    first = mount(library)
    first.wait_archive(GAME)
    first.kill()
    second = mount(library, mountpoint=first.path)
    assert second.wait_archive(GAME).read_bytes() == expected_archive(small)
    second.stop()


# -- What it holds -------------------------------------------------------------------


def test_files_are_closed_after_use(library: Path, mount: Mounts) -> None:
    """A few seconds after the last reader left, no file of the library is open (R4)."""
    for number in range(5):
        make_game(library, f"roms/psx/{number}", {f"{n}": content(5000, n) for n in range(20)})
    make_file(library / "roms/gb/single.gb", content(5000))
    mounted = mount(library)
    mounted.wait_sealed(5)
    handles = [
        (mounted.path / name).open("rb")
        for name in ("roms/gb/single.gb", *(f"roms/psx/{number}.zip" for number in range(5)))
    ]
    for handle in handles:
        handle.read(100)
    assert mounted.library_descriptors()
    for handle in handles:
        handle.close()
    poll("the files to be closed", lambda: not mounted.library_descriptors())
    mounted.check_descriptors()


def test_few_descriptors(library: Path, mount: Mounts) -> None:
    """With a limit of 100 open files, games of hundreds are read side by side (R4)."""
    folders = [
        make_game(library, f"roms/psx/{number}", {f"{n}": content(3000, n) for n in range(300)})
        for number in range(3)
    ]
    mounted = mount(library, program=["prlimit", "--nofile=100:100", zipfs_program()])
    mounted.wait_sealed(3)
    wanted = [expected(folder) for folder in folders]
    handles = [mounted.archive(f"roms/psx/{number}").open("rb") for number in range(3)]
    try:
        for offset in range(0, wanted[0].size, 50_000):
            for handle, archive in zip(handles, wanted, strict=True):
                handle.seek(offset)
                assert handle.read(50_000) == archive.read(offset, 50_000)
        assert len(mounted.descriptors()) <= 100
    finally:
        for handle in handles:
            handle.close()


def test_memory_is_bounded(library: Path, mount: Mounts) -> None:
    """Reading a large archive through doesn't fill the daemon with it."""
    make_game(library, "roms/psx/Big", {"a": 1 << 30, "b": b"b"})
    mounted = mount(library)
    archive = mounted.wait_archive("roms/psx/Big")

    def resident() -> int:
        status = Path(f"/proc/{mounted.process.pid}/status").read_text()
        match = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert match
        return int(match[1]) << 10

    before = resident()
    with archive.open("rb") as file:
        while file.read(1 << 20):
            pass
    assert resident() < before + (64 << 20)
