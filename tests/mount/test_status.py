"""``zipfs status``: what it says of a mount is true, and asking harms nobody."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pty
import re
import select
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.mount import is_mounted, zipfs_program
from tests.support.faultfs import Faults
from tests.support.libraries import content, expected, make_file, make_game
from tests.support.mounting import Mounted, Mounts, environment, run_zipfs
from tests.support.promtool import check_metrics
from tests.support.users import NOBODY, OTHER, needs_root, run_as
from tests.support.waiting import SECONDS, poll
from zipfs import __version__
from zipfs.mount.status.runtime import SYSTEM, socket_name
from zipfs.system.mounts import mounted_at

GAME = "roms/psx/Game"
SIZE = 3_000_000


@pytest.fixture
def game(library: Path) -> Path:
    return make_game(library, GAME, {"1.bin": content(SIZE, 1), "2.bin": content(SIZE, 2)})


def run_status(mounted: Mounted, *options: str, **how: Any) -> subprocess.CompletedProcess[str]:
    env = {"RUNTIME_DIRECTORY": str(mounted.runtime)}
    return run_zipfs("status", mounted.path, *options, env=env, **how)


def status(mounted: Mounted) -> dict[str, Any]:
    done = run_status(mounted, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refusal(mounted: Mounted, **how: Any) -> str:
    """The one line that is said in place of an answer."""
    done = run_status(mounted, **how)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1), done
    return done.stderr


def left_out(mounted: Mounted) -> dict[str, str]:
    return {one["path"]: one["reason"] for one in status(mounted)["left_out"]["newest"]}


def wait_left_out(mounted: Mounted, wanted: dict[str, str]) -> None:
    """Wait until exactly this is left out, by path and reason."""
    poll(f"{wanted} to be left out", lambda: left_out(mounted) == wanted)
    found = status(mounted)["left_out"]
    assert found["count"] == sum(found["reasons"].values()) == len(wanted)


# -- What it says ----------------------------------------------------------------------


def test_who_it_is(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mount(library, "--selection", "romm")
    mounted.wait_sealed(1)
    found = status(mounted)
    assert found["version"] == __version__
    assert found["pid"] == mounted.process.pid
    assert (found["library"], found["mountpoint"]) == (str(library), str(mounted.path))
    assert found["options"]["selection"] == "romm"
    assert found["options"]["watch"] == "auto"
    assert abs(time.time() - found["started"] - found["uptime"]) < 60
    assert found["index"]["file"] == str(mounted.index)
    assert found["index"]["size"] > 0
    assert found["index"]["saving"]
    assert found["index"]["rows_checked"] > 0
    assert found["index"]["rows_dropped"] == found["index"]["set_aside"] == 0


def test_watching(game: Path, library: Path, mount: Mounts) -> None:
    for option, wanted in (("poll", "poll"), ("events", "events")):
        mounted = mount(library, "--watch", option)
        poll(wanted, lambda m=mounted, w=wanted: status(m)["options"]["watching"] == w)  # type: ignore[misc]


def test_pending(game: Path, library: Path, mount: Mounts) -> None:
    """Hashing as slowly as it is told to; the time left is what it then takes."""
    make_file(game / "big", 1 << 30)
    mounted = mount(library, "--hash-rate", "1")
    found: dict[str, Any] = {}

    def timed() -> bool:
        found.update(status(mounted))
        return bool(found["pending"]["seconds_left"])

    poll("a time left", timed)
    assert found["archives"] == {"sealed": 0, "members": 0, "bytes": 0}
    pending = found["pending"]
    assert pending["surveyed"]
    assert pending["games"] == 1
    assert 1 << 29 < pending["bytes"] < (1 << 30) + 2 * SIZE
    assert 0 < pending["bytes_per_second"] < 3 << 20
    assert pending["seconds_left"] == pytest.approx(pending["bytes"] / pending["bytes_per_second"])
    assert re.search(r"to do +1 games, .* to hash at .*iB/s, \d+ min", run_status(mounted).stdout)


def test_sealed(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mount(library)
    mounted.wait_sealed(1)
    found = status(mounted)
    assert found["archives"] == {"sealed": 1, "members": 2, "bytes": expected(game).size}
    pending = found["pending"]
    assert (pending["games"], pending["bytes"], pending["seconds_left"]) == (0, 0, 0)
    assert pending["hashed_bytes"] == 2 * SIZE


def test_reads_and_bytes_are_those_of_readers(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mount(library)
    archive = mounted.wait_archive(GAME)
    before = status(mounted)
    assert before["reads"] == {"bytes": 0, "cached": 0, "waited": 0}
    size = len(archive.read_bytes())
    found = status(mounted)
    reads = found["reads"]
    assert reads["bytes"] == size == expected(game).size
    count = reads["cached"] + reads["waited"]
    assert count >= size / (1 << 20)
    durations = found["requests"]["read"]
    assert durations["count"] == count
    quantiles = list(durations["quantiles"].values())
    assert quantiles == sorted(quantiles)
    assert 0 < quantiles[0] <= quantiles[-1] <= durations["longest"] <= durations["seconds"]
    assert found["requests"]["open"]["count"] == 1

    # The kernel has them now: a second reader is no work, and isn't counted.
    # Unless somebody else needs memory, or has emptied its cache, just then: so again.
    def is_known() -> bool:
        nonlocal reads
        reads = status(mounted)["reads"]
        archive.read_bytes()
        return status(mounted)["reads"] == reads

    poll("the kernel to have all of it", is_known)
    # Then it hasn't any more.
    with archive.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert status(mounted)["open"]["handles"] == 1
        assert len(file.read()) == size
    assert status(mounted)["reads"]["bytes"] >= reads["bytes"] + size
    poll("the handle to be closed", lambda: status(mounted)["open"]["handles"] == 0)


def test_page_cache_and_disk(
    faulty: tuple[Path, Faults], game: Path, library: Path, mount: Mounts
) -> None:
    """A file system without RWF_NOWAIT takes a thread; what is in a disk's cache doesn't."""
    fast, slow = mount(library), mount(faulty[0])
    for mounted in (fast, slow):
        assert len(mounted.wait_archive(GAME).read_bytes()) > 2 * SIZE
    assert status(fast)["reads"]["cached"] > 0
    assert status(fast)["reads"]["waited"] == 0
    found = status(slow)["reads"]
    # Each MiB is read once, in a thread; what else is read of it is there then.
    assert found["waited"] >= 3
    fast.stop()
    slow.stop()


def test_errors_by_kind(
    faulty: tuple[Path, Faults], game: Path, library: Path, mount: Mounts
) -> None:
    shown, faults = faulty
    mounted = mount(shown)
    mounted.expect_log("reading roms/psx/Game.zip ended in an error: Input/output error")
    archive = mounted.wait_archive(GAME)

    def errors() -> dict[tuple[str, str], int]:
        return {(e["operation"], e["errno"]): e["count"] for e in status(mounted)["errors"]}

    assert ("read", "EIO") not in errors()
    faults.fail(f"{GAME}/1.bin", "read", errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        archive.read_bytes()
    assert errors()["read", "EIO"] >= 1
    missing = errors().get(("lookup", "ENOENT"), 0)
    for number in range(3):
        assert not (mounted.path / f"missing {number}").exists()
    assert errors()["lookup", "ENOENT"] == missing + 3
    assert "EIO" in run_status(mounted).stdout
    mounted.stop()


def test_left_out_comes_and_goes(game: Path, library: Path, mount: Mounts, place: Path) -> None:
    """In a game, beside games, in a folder of no games, and a game as a whole."""
    outside = make_file_at(place / "outside")
    leaves = "a symbolic link that leaves the library"
    nothing = "a symbolic link to nothing that can be reached"
    special = "not a file or folder but a device, socket or FIFO"
    (game / "leaves").symlink_to(outside)
    (library / "roms/psx/Broken").symlink_to("nowhere")
    (library / "roms/link.gb").symlink_to(outside)
    (library / "docs").mkdir()
    os.mkfifo(library / "docs/fifo")
    mounted = mount(library, "--games", "roms/*/*")
    mounted.expect_log("is left out: ")
    mounted.wait_sealed(1)
    found = {f"{GAME}/leaves": leaves, "roms/psx/Broken": nothing, "roms/link.gb": leaves}
    wait_left_out(mounted, found)  # of docs nobody knows yet
    assert os.listdir(mounted.path / "docs") == []
    found["docs/fifo"] = special
    wait_left_out(mounted, found)
    # Mended one after the other.
    (game / "leaves").unlink()
    del found[f"{GAME}/leaves"]
    wait_left_out(mounted, found)
    make_game(library, "roms/psx/nowhere", {"a": b"a", "b": b"b"})
    (library / "roms/psx/Broken").unlink()
    (library / "roms/psx/Broken").symlink_to("nowhere")
    del found["roms/psx/Broken"]
    wait_left_out(mounted, found)
    (library / "docs/fifo").unlink()
    del found["docs/fifo"]
    wait_left_out(mounted, found)
    (library / "roms/link.gb").unlink()
    wait_left_out(mounted, {})
    assert "Nothing is skipped." in run_status(mounted).stdout
    # And again.
    (library / "roms/psx/Another").symlink_to("nowhere else")
    mounted.process.send_signal(signal.SIGHUP)
    wait_left_out(mounted, {"roms/psx/Another": nothing})


def make_file_at(path: Path) -> Path:
    make_file(path, b"outside")
    return path


def test_left_out_when_nobody_tells(game: Path, library: Path, mount: Mounts) -> None:
    """Looks are all there is, so what is mended is seen with the next walk."""
    (library / "docs").mkdir()
    os.mkfifo(library / "docs/fifo")
    (library / "roms/psx/link").symlink_to("nowhere")
    mounted = mount(library, "--games", "roms/*/*", "--watch", "poll")
    mounted.expect_log("is left out: ")
    os.listdir(mounted.path / "docs")
    wait_left_out(
        mounted,
        {
            "docs/fifo": "not a file or folder but a device, socket or FIFO",
            "roms/psx/link": "a symbolic link to nothing that can be reached",
        },
    )
    (library / "docs/fifo").unlink()
    (library / "roms/psx/link").unlink()
    mounted.process.send_signal(signal.SIGHUP)
    wait_left_out(mounted, {})


def test_a_game_that_cant_be_hashed(
    faulty: tuple[Path, Faults], game: Path, library: Path, mount: Mounts
) -> None:
    shown, faults = faulty
    faults.fail(f"{GAME}/1.bin", "read", errno.EIO)
    mounted = mount(shown)
    mounted.expect_log(f"can't read {GAME}/1.bin: Input/output error")
    wait_left_out(mounted, {f"{GAME}/1.bin": "can't be read: Input/output error"})
    faults.clear()
    os.utime(game / "1.bin")  # else it is tried again in half a minute
    assert mounted.wait_archive(GAME)
    wait_left_out(mounted, {})
    mounted.stop()


def test_a_name_that_is_no_text(library: Path, mount: Mounts) -> None:
    folder = make_game(library, "roms/psx/G", {"1": b"1", "2": b"2"})
    os.symlink(b"/", os.fsencode(folder) + b"/\xff\n\x1b[31m")
    mounted = mount(library)
    mounted.expect_log("is left out: ")
    mounted.wait_sealed(1)
    name = "roms/psx/G/\\xff\\n\\x1b[31m"
    wait_left_out(mounted, {name: "a symbolic link that leaves the library"})
    table = run_status(mounted).stdout
    assert name in table
    assert "\x1b" not in table


def test_a_damaged_row_of_the_index(game: Path, library: Path, mount: Mounts) -> None:
    first = mount(library)
    first.wait_sealed(1)
    first.stop()
    with contextlib.closing(sqlite3.connect(first.index)) as index:
        path = f"{GAME}/1.bin".encode()
        assert index.execute("UPDATE files SET crc32 = 7 WHERE path = ?", [path]).rowcount == 1
        index.commit()
    second = mount(library, index=first.index)
    second.wait_sealed(1)
    # The archive is as it was made; its rows are read when somebody opens it.
    archive = second.path / f"{GAME}.zip"

    def is_read() -> bool:
        with contextlib.suppress(OSError):
            return archive.read_bytes() != b""
        return False

    poll("the archive", lambda: is_read() and status(second)["index"]["rows_dropped"] >= 1)
    poll("it to be hashed", lambda: status(second)["pending"]["hashed_bytes"] == SIZE)
    assert is_read()


# -- In which form ---------------------------------------------------------------------


def test_prometheus(game: Path, library: Path, mount: Mounts) -> None:
    (game / "leaves").symlink_to("/")
    mounted = mount(library)
    mounted.expect_log("is left out: ")
    mounted.wait_archive(GAME).read_bytes()
    assert not mounted.archive("missing").exists()
    done = run_status(mounted, "--prometheus")
    assert (done.returncode, done.stderr) == (0, "")
    check_metrics(done.stdout)
    labels = f'{{mountpoint="{mounted.path}"}}'
    assert f"zipfs_archives{labels} 1.0\n" in done.stdout
    assert re.search(rf"zipfs_read_bytes_total{re.escape(labels)} [1-9]", done.stdout)
    assert 'operation="lookup"' in done.stdout


def test_a_config_file_in_place_of_the_mountpoint(
    game: Path, library: Path, mount: Mounts, place: Path
) -> None:
    mounted = mount(library)
    config = place / "zipfs.toml"
    config.write_text(f'library = "{library}"\nmountpoint = "{mounted.path}"\n')
    env = {"RUNTIME_DIRECTORY": str(mounted.runtime)}
    done = run_zipfs("status", "--config", config, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert str(mounted.path) in done.stdout
    config.write_text(f'library = "{library}"\n')
    done = run_zipfs("status", "--config", config, env=env)
    assert done.returncode == 2
    assert done.stderr == f"zipfs: no mountpoint in {config}; name it on the command line\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--json", "--prometheus", "/m"],
        ["--json", "--watch", "2", "/m"],
        ["/m", "--watch", "0"],
        ["/m", "--watch", "nan"],
        ["/m", "--watch", "x"],
        ["/m", "--config", "x"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    done = run_zipfs("status", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def read_screen(main: int, until: Callable[[str], object], seconds: float = 30) -> str:
    """What is written to the terminal *main* until that holds of it."""
    data = b""
    deadline = time.monotonic() + seconds
    # A character may come in two parts.
    while not until(shown := data.decode(errors="ignore")):
        assert time.monotonic() < deadline, shown
        if select.select([main], [], [], 0.1)[0]:
            data += os.read(main, 65536)
    return shown


def plain(shown: str) -> str:
    """Without what a terminal is told to do."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)


def test_watch(game: Path, library: Path, mount: Mounts) -> None:
    """On a terminal one view that changes; Ctrl-C is how one ends it, so that is no error."""
    mounted = mount(library)
    archive = mounted.wait_archive(GAME)
    main, terminal = pty.openpty()
    try:
        with subprocess.Popen(
            [zipfs_program(), "status", mounted.path, "--watch", "0.3"],
            env=environment(
                {
                    "TERM": "xterm",
                    "COLUMNS": "120",
                    "LINES": "50",
                    "RUNTIME_DIRECTORY": str(mounted.runtime),
                }
            ),
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stderr
            os.close(terminal)
            try:
                read_screen(main, lambda shown: re.search(r"reads +0, 0 bytes", plain(shown)))
                assert len(archive.read_bytes()) > 2 * SIZE
                later = read_screen(
                    main,
                    lambda shown: re.search(
                        r"reads +[1-9]\d*, 5\.7 MiB.*[KM]iB/s now", plain(shown)
                    ),
                )
                assert "a second" in later
                assert "\x1b[" in later  # over the last one
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(OSError):  # EIO is how a terminal's end looks like
                    while os.read(main, 65536):
                        pass
                assert process.stderr.read() == b""
                assert process.wait(SECONDS) == 0
            finally:
                process.kill()
    finally:
        os.close(main)


@pytest.mark.parametrize("end", ["Ctrl-C", "unmount"])
def test_watch_without_a_terminal(end: str, game: Path, library: Path, mount: Mounts) -> None:
    mounted = mount(library)
    with subprocess.Popen(
        [zipfs_program(), "status", "--watch", "0.2", mounted.path],
        env=environment({"RUNTIME_DIRECTORY": str(mounted.runtime), "PYTHONUNBUFFERED": "1"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        seen = 0
        for line in process.stdout:
            seen += line.startswith("zipfs")
            if seen == 3:
                break
        if end == "Ctrl-C":
            process.send_signal(signal.SIGINT)
        else:
            mounted.unmount()
        rest, said = process.communicate(timeout=SECONDS)
    assert "\x1b" not in rest
    if end == "Ctrl-C":
        assert (process.returncode, said) == (0, "")
    else:
        assert process.returncode == 4
        assert said == f"zipfs: no zipfs is mounted on {mounted.path}\n"


# -- What can be wrong -----------------------------------------------------------------


def test_nothing_is_mounted(place: Path) -> None:
    done = run_zipfs("status", place)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == f"zipfs: no zipfs is mounted on {place}\n"
    assert run_zipfs("status", "/proc").returncode == 4


def test_a_dead_mount(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mount(library)
    mounted.wait_sealed(1)
    mounted.kill()
    assert os.listdir(mounted.runtime)  # left behind
    said = refusal(mounted)
    assert said == (
        f"zipfs: the daemon of {mounted.path} has died; mount it again, which removes the dead"
        f" mount, or unmount it: zipfs unmount {mounted.path}\n"
    )
    # As it says.
    done = run_zipfs("unmount", mounted.path)
    assert (done.returncode, done.stderr) == (0, "")
    assert not is_mounted(mounted.path)


def test_a_daemon_that_hangs(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mount(library)
    mounted.process.send_signal(signal.SIGSTOP)
    try:
        assert "is alive but has not answered for 5 s" in refusal(mounted)
        # The same where its socket is nowhere to be found.
        (socket_name,) = os.listdir(mounted.runtime)
        (mounted.runtime / socket_name).rename(mounted.runtime / "elsewhere")
        assert f"nobody answers for {mounted.path}: its daemon is" in refusal(mounted)
        (mounted.runtime / "elsewhere").rename(mounted.runtime / socket_name)
    finally:
        mounted.process.send_signal(signal.SIGCONT)
    assert status(mounted)["pid"] == mounted.process.pid
    mounted.stop()
    assert os.listdir(mounted.runtime) == []


@needs_root
def test_other_users(
    game: Path, library: Path, mount: Mounts, public_program: str, public_device: None
) -> None:
    """Who mounted it may ask, and root; nobody else, even where they may read all files."""
    theirs = mount(library, user=NOBODY, program=[public_program])
    ours = mount(library, "--allow-other", index=theirs.index.parent / "ours")
    for mounted, user in ((theirs, NOBODY), (theirs, None), (ours, None)):
        done = run_status(mounted, user=user, program=[public_program])
        assert (done.returncode, done.stderr) == (0, "")
    for mounted, user in ((theirs, OTHER), (ours, OTHER), (ours, NOBODY)):
        said = refusal(mounted, user=user, program=[public_program])
        assert said == (
            f"zipfs: can't ask the daemon of {mounted.path}: no permission; run this as root, as"
            " the user who mounted it, or, if systemd runs it, as a member of its group\n"
        )
    theirs.stop()


@needs_root
def test_a_group_that_may_ask(
    game: Path, library: Path, mount: Mounts, public_program: str, public_device: None
) -> None:
    mounted = mount(library, user=NOBODY, program=[public_program])
    (name,) = os.listdir(mounted.runtime)
    os.chown(mounted.runtime / name, NOBODY, OTHER)
    assert run_status(mounted, user=OTHER, program=[public_program]).returncode == 0
    mounted.stop()


def test_no_place_for_a_socket(game: Path, library: Path, mount: Mounts, place: Path) -> None:
    """The mount lives on; that there is no answer is said here and in the log."""
    env = {"RUNTIME_DIRECTORY": str(place / "not/there")}
    mounted = mount(library, env=env)
    mounted.wait_log("`zipfs status` will get no answer: no socket in .*/not/there: No such file")
    assert mounted.wait_archive(GAME).read_bytes()
    assert "it has no socket" in refusal(mounted)


def connect(client: socket.socket, address: str) -> None:
    """As connect(2), however many wait to be accepted."""
    while True:
        try:
            client.connect(address)
        except BlockingIOError:
            time.sleep(0.01)
        else:
            return


@contextlib.contextmanager
def clients(mounted: Mounted, count: int) -> Iterator[list[socket.socket]]:
    """Connections to the daemon on which nobody ever reads."""
    (name,) = os.listdir(mounted.runtime)
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(10)
            connect(client, f"{mounted.runtime}/{name}")
            found.append(client)
        yield found


def test_clients_that_hang_hinder_nobody(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mount(library)
    archive = mounted.wait_archive(GAME)
    with clients(mounted, 200):
        assert status(mounted)["archives"]["sealed"] == 1
        assert len(archive.read_bytes()) > 2 * SIZE
    assert status(mounted)["archives"]["sealed"] == 1


def test_many_who_ask_at_once(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mount(library)
    mounted.wait_sealed(1)
    (name,) = os.listdir(mounted.runtime)
    answers: list[dict[str, Any]] = []

    def ask() -> None:
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(20)
                connect(client, f"{mounted.runtime}/{name}")
                with client.makefile("rb") as stream:
                    answers.append(json.loads(stream.read()))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer["archives"]["sealed"] for answer in answers] == [1] * 160


def test_the_mount_shows_nothing_of_it(game: Path, library: Path, mount: Mounts) -> None:
    """No file, no attribute: a web server publishes the one, and listings ask for the other."""
    mounted = mount(library)
    archive = mounted.wait_archive(GAME)
    assert status(mounted)["archives"]["sealed"] == 1
    found = [os.path.join(folder, name) for folder, folders, files in os.walk(mounted.path)
             for name in (*folders, *files)]  # fmt: skip
    wanted = {"roms", "roms/psx", f"{GAME}.zip"}
    assert {os.path.relpath(path, mounted.path) for path in found} == wanted
    for path in (mounted.path, archive):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at below
            os.listxattr(path)
        assert caught.value.errno == errno.ENOTSUP
    for name in (".zipfs", ".status", ".zipfs-status", "status", "0-0.sock"):
        assert not (mounted.path / name).exists()


@needs_root
def test_others_see_nothing_of_the_socket(game: Path, library: Path, mount: Mounts) -> None:
    """Where root mounts without systemd."""
    mounted = mount(library, env={"RUNTIME_DIRECTORY": None})
    done = run_zipfs("status", mounted.path)
    assert (done.returncode, done.stderr) == (0, "")
    found = mounted_at(str(mounted.path))
    assert found
    name = socket_name(found.device)
    assert os.listdir(mounted.runtime) == []
    script = f"import socket; socket.socket(socket.AF_UNIX).connect('{SYSTEM}/{name}')"
    assert b"PermissionError" in run_as(OTHER, "python3", "-c", script).stderr
    mounted.stop()
    assert not os.path.lexists(f"{SYSTEM}/{name}")


@pytest.mark.parametrize(
    ("redirection", "why"),
    [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")],
)
@pytest.mark.parametrize("option", ["", "--json", "--prometheus", "--watch"])
def test_an_output_that_takes_nothing(
    redirection: str, why: str, option: str, game: Path, library: Path, mount: Mounts
) -> None:
    mounted = mount(library)
    mounted.wait_sealed(1)
    shell = ["sh", "-c", f'exec "$@" {option} {redirection}', "sh"]
    done = subprocess.run(
        [*shell, zipfs_program(), "status", mounted.path],
        env=environment({"RUNTIME_DIRECTORY": str(mounted.runtime)}),
        stderr=subprocess.PIPE,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, f"zipfs: can't write the output: {why}\n")
