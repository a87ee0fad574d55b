"""A mount outlives its daemon: whoever reads goes on, and never gets another byte (DESIGN F2)."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from bench.mount import is_mounted
from tests.support.faultfs import Faults
from tests.support.libraries import content, expected_archive, make_game
from tests.support.mounting import Mounted, Mounts, run_zipfs
from tests.support.users import NOBODY, needs_root, run_as
from tests.support.waiting import SECONDS, poll
from zipfs.errors import IndexFileError, MountpointError, RestartError, StillServingError
from zipfs.mount.restart import adoption, holder, state
from zipfs.mount.restart.held import AGAIN, STANDBY, Held
from zipfs.mount.restart.succession import Succession
from zipfs.mount.sd_notify import Notifier

GAME = "roms/psx/Game"
MIB = 1 << 20


@pytest.fixture
def game(library: Path) -> Path:
    files = {"disc 1.bin": content(3 * MIB, 1), "disc 2.bin": content(2 * MIB, 2)}
    return make_game(library, GAME, files)


def mounted_for(mount: Mounts, library: Path, *options: str, **more: Any) -> Mounted:
    """A mount that outlives its daemon, with all sealed."""
    mounted = mount(library, *options, supervised=True, **more)
    mounted.wait_sealed()
    mounted.expect_log("the daemon has died")
    return mounted


@contextlib.contextmanager
def nobody(mounted: Mounted) -> Iterator[None]:
    """While this lasts there is no daemon."""
    os.kill(mounted.process.pid, signal.SIGSTOP)
    try:
        (daemon,) = mounted.daemons
        os.kill(daemon, signal.SIGKILL)
        poll("its end", lambda: is_dead(daemon))
        yield
    finally:
        os.kill(mounted.process.pid, signal.SIGCONT)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open *path*, whose mount may be dead when it is closed."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        with contextlib.suppress(OSError):  # and closed all the same
            os.close(descriptor)


def is_dead(pid: int) -> bool:
    """A zombie, too: its parent is stopped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def restarted(mounted: Mounted, library: Path) -> None:
    done = zipfs_restart(mounted)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"serves {mounted.path} now; nobody did for" in done.stdout
    poll("the old daemon to end", lambda: len(mounted.daemons) == 1)


def zipfs_restart(mounted: Mounted) -> subprocess.CompletedProcess[str]:
    return run_zipfs("restart", mounted.path, env={"RUNTIME_DIRECTORY": str(mounted.runtime)})


class Reader:
    """Reads *path* again and again, in pieces and with pauses, until the end."""

    def __init__(self, path: Path, wanted: bytes) -> None:
        self.path = path
        self.wanted = wanted
        self.bytes = 0
        self.failure: object = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            with self.path.open("rb", buffering=0) as file:
                while not self._stop.is_set():
                    at = (self.bytes * 7919) % len(self.wanted)
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    data = os.pread(file.fileno(), 50_000, at)
                    if data != self.wanted[at : at + 50_000]:
                        self.failure = f"wrong bytes at {at}"
                        return
                    self.bytes += len(data)
                    time.sleep(0.002)
        except OSError as error:
            self.failure = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        assert self.failure is None
        assert self.bytes

    def goes_on(self) -> None:
        before = self.bytes
        poll("more to be read", lambda: self.failure or self.bytes > before + 3_000_000)
        assert self.failure is None


# -- Whoever is there goes on ----------------------------------------------------------


@pytest.mark.parametrize("how", ["killed", "handed over"])
def test_readers_go_on(game: Path, library: Path, mount: Mounts, how: str) -> None:
    for number in range(30):
        make_game(library, f"roms/psx/{number}", {"a": b"a", "b": b"b"})
    mounted = mounted_for(mount, library)
    archive, platform = mounted.archive(GAME), mounted.path / "roms/psx"
    wanted, before = expected_archive(game), archive.stat()
    folder = os.open(platform, os.O_RDONLY | os.O_DIRECTORY)
    pids = set()
    with Reader(archive, wanted) as reader, os.scandir(platform) as entries:
        seen = [next(entries).name]
        for number in (1, 2, 3):
            pids.add(mounted.daemon)
            if how == "killed":
                mounted.kill_daemon()
                mounted.wait_restarts(number)
            else:
                restarted(mounted, library)
            reader.goes_on()
        seen += [entry.name for entry in entries]
    assert mounted.daemon not in pids
    assert len(pids) == 3
    assert sorted(seen) == sorted(os.listdir(platform))
    assert len(seen) == 31
    after = archive.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_size,
    )
    # Who stands in a folder of it, and who has only its descriptor.
    assert os.stat("Game.zip", dir_fd=folder).st_ino == before.st_ino
    assert len(os.listdir(folder)) == 31
    os.close(folder)
    restarts = mounted.status()["restarts"]
    assert restarts["count"] == 3
    assert restarts["outage"] > 0
    assert restarts["asked_again"]
    assert restarts["lost"] == 0
    assert restarts["holder"] == mounted.process.pid


def test_a_request_under_way_is_asked_again(game: Path, library: Path, mount: Mounts) -> None:
    """Taken by a daemon that can't answer any more: stopped, then killed."""
    mounted = mounted_for(mount, library)
    wanted, found = expected_archive(game), []
    with mounted.archive(GAME).open("rb", buffering=0) as file:
        os.kill(mounted.daemon, signal.SIGSTOP)
        reading = threading.Thread(target=lambda: found.append(os.pread(file.fileno(), 100, MIB)))
        reading.start()
        time.sleep(0.2)
        mounted.kill_daemon()
        reading.join(SECONDS)
    assert found == [wanted[MIB : MIB + 100]]


def test_a_request_that_takes_long_is_left_to_the_next_daemon(
    game: Path, faulty: tuple[Path, Faults], mount: Mounts
) -> None:
    """Nobody else waits for the disk meanwhile."""
    if not adoption.can_ask_again():
        pytest.skip("this kernel can't ask again")
    library, faults = faulty
    steady = make_game(game.parents[2], "roms/psx/Steady", {"1": content(MIB, 3), "2": b"2"})
    mounted = mounted_for(mount, library)
    wanted, found = expected_archive(game), []
    at = 2 * MIB
    with (
        Reader(mounted.archive("roms/psx/Steady"), expected_archive(steady)) as reader,
        mounted.archive(GAME).open("rb", buffering=0) as file,
    ):
        faults.hang(f"{GAME}/disc 1.bin", "read")
        reading = threading.Thread(target=lambda: found.append(os.pread(file.fileno(), 100, at)))
        reading.start()
        poll("the read to hang", lambda: faults.waiting(f"{GAME}/disc 1.bin", "read") > 0)
        os.kill(mounted.process.pid, signal.SIGUSR2)
        mounted.wait_log("leaving requests that take long")
        mounted.wait_restarts(1)
        assert mounted.status()["restarts"]["outage"] is not None
        reader.goes_on()
        assert not found
        faults.release()
        reading.join(SECONDS)
    assert found == [wanted[at : at + 100]]


def test_killed_twice_in_a_row(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mounted_for(mount, library)
    with Reader(mounted.archive(GAME), expected_archive(game)) as reader:
        first = mounted.daemon
        mounted.kill_daemon()
        poll("the next daemon", lambda: mounted.daemons not in ([], [first]))
        mounted.kill_daemon()  # while it starts
        mounted.wait_restarts(1)
        reader.goes_on()


# -- What has changed meanwhile --------------------------------------------------------


@pytest.mark.parametrize("change", ["in place", "replaced", "deleted", "renamed", "game deleted"])
def test_changed_while_nobody_was_there(
    game: Path, library: Path, mount: Mounts, change: str
) -> None:
    """EIO for who reads the old version; the new one is a new file."""
    other = make_game(library, "roms/psx/Other", {"1": content(MIB, 3), "2": b"2"})
    mounted = mounted_for(mount, library)
    mounted.expect_log("isn't there any more|ended in an error")
    with (
        mounted.archive(GAME).open("rb", buffering=0) as file,
        mounted.archive("roms/psx/Other").open("rb", buffering=0) as steady,
    ):
        before = os.fstat(file.fileno())
        with nobody(mounted):
            member = game / "disc 1.bin"
            if change == "in place":
                with member.open("r+b") as stream:
                    stream.write(b"other bytes")
            elif change == "replaced":
                (game / "new").write_bytes(content(3 * MIB, 9))
                (game / "new").rename(member)
            elif change == "deleted":
                member.unlink()
                (game / "disc 3.bin").write_bytes(b"3")
            elif change == "renamed":
                member.rename(game / "disc 9.bin")
            else:
                shutil.rmtree(game)
        mounted.wait_restarts(1)
        with pytest.raises(OSError, match=r".") as caught:
            os.pread(file.fileno(), 100, 2 * MIB + 12345)
        # The second if the kernel asks for its attributes first.
        assert caught.value.errno in (errno.EIO, errno.ESTALE)
        assert os.pread(steady.fileno(), 2 * MIB, 0) == expected_archive(other)
    if change == "game deleted":
        mounted.wait_gone(f"{GAME}.zip")
        return
    poll("the new version", lambda: is_new(mounted.archive(GAME), before.st_ino))
    assert mounted.archive(GAME).read_bytes() == expected_archive(game)


def is_new(path: Path, inode: int) -> bool:
    try:
        return path.stat().st_ino != inode
    except FileNotFoundError:
        return False


def test_between_two_versions_there_is_none(game: Path, library: Path, mount: Mounts) -> None:
    """DESIGN V1, over a restart: a server that has asked for the date can't open the next one."""
    mounted = mounted_for(mount, library, settle=1.5)
    archive = mounted.archive(GAME)
    before = archive.stat().st_ino
    with nobody(mounted):
        (game / "disc 2.bin").write_bytes(b"new")
        # Its dates are settled, and the index knows it: nothing but the gap holds it back.
        for file in (*game.iterdir(), game):
            os.utime(file, (1e9, 1e9))
        time.sleep(1.6)
        done = run_zipfs("index", "--index", mounted.index, library)
        assert done.returncode == 0
    mounted.wait_restarts(1)
    seen: list[int] = []

    def is_there() -> bool:
        with contextlib.suppress(FileNotFoundError):
            seen.append(archive.stat().st_ino)
            return seen[-1] != before
        seen.append(0)
        return False

    poll("the new version", is_there)
    assert 0 in seen
    assert before not in seen[seen.index(0) :]


def test_the_index_is_lost(game: Path, library: Path, mount: Mounts) -> None:
    """All is hashed again, and who reads waits for that."""
    mounted = mounted_for(mount, library)
    wanted = expected_archive(game)
    with mounted.archive(GAME).open("rb", buffering=0) as file:
        assert file.read(100) == wanted[:100]
        with nobody(mounted):
            for path in mounted.index.parent.glob("*.sqlite3*"):
                path.unlink()
        assert os.pread(file.fileno(), 6 * MIB, 0) == wanted[: 6 * MIB]


@pytest.mark.parametrize("how", ["killed", "handed over"])
@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_there_is_no_library_for_a_new_daemon(
    game: Path, library: Path, mount: Mounts, how: str, left: str
) -> None:
    """Nobody waits for it: all ends in an error (DESIGN H6), and is back by itself."""
    link = library.with_name("link")
    link.symlink_to(library)
    mounted = mounted_for(mount, link)
    mounted.expect_log("is gone|ended in an error")
    aside = library.with_name("aside")
    with opened(mounted.archive(GAME)) as file:
        assert os.pread(file, 100, 0) == expected_archive(game)[:100]
        for number in (1, 2):  # the second one has never seen it
            if how == "killed":
                with nobody(mounted):
                    if number == 1:
                        move_away(library, aside, left)
            else:
                if number == 1:
                    move_away(library, aside, left)
                restarted(mounted, library)
            mounted.wait_restarts(number)
            for ask in (
                lambda: os.pread(file, 100, MIB),
                lambda: os.listdir(mounted.path),
                lambda: os.stat(mounted.path),
                lambda: os.stat(mounted.archive(GAME)),
                lambda: os.statvfs(mounted.path),
            ):
                with pytest.raises(OSError, match=r".") as caught:
                    ask()
                assert caught.value.errno == errno.EIO
            assert [gone["path"] for gone in mounted.status()["gone"]] == [""]
        assert "the library is gone" in mounted.log_text()
        if left == "an empty folder":
            library.rmdir()
        aside.rename(library)
        poll("the archive", lambda: can_read(mounted.archive(GAME)))
        assert os.pread(file, 100, MIB) == expected_archive(game)[MIB : MIB + 100]
    assert "the library is back" in mounted.log_text()
    assert mounted.status()["gone"] == []
    assert mounted.archive(GAME).read_bytes() == expected_archive(game)
    # And what changes there is heard of, as ever.
    make_game(library, "roms/psx/New", {"1": b"one", "2": b"two"})
    mounted.wait_archive("roms/psx/New")
    assert mounted.status()["restarts"]["lost"] == 0


def move_away(library: Path, aside: Path, left: str) -> None:
    library.rename(aside)
    if left == "an empty folder":
        library.mkdir()


def test_another_library_is_not_one_that_is_away() -> None:
    """A path that the daemon before didn't serve may be mistyped: then it fails."""
    memory = state.create()
    try:
        journal = state.State(memory)
        journal.set_answer(b"answer")
        journal.set_library(b"/srv/link", b"/mnt/games")
        found = Succession.of(Held(-1, memory, None, STANDBY), "/srv/one", Notifier({}))
        assert found
        assert found.root_of("/srv/link") == b"/mnt/games"
        assert found.root_of("/srv/lnik") is None
    finally:
        os.close(memory)


def test_the_library_is_gone_meanwhile(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mounted_for(mount, library)
    mounted.expect_log("is gone|ended in an error|isn't there any more")
    aside = library.with_name("aside")
    with mounted.archive(GAME).open("rb", buffering=0) as file:
        with nobody(mounted):
            library.rename(aside)
            library.mkdir()
        with pytest.raises(OSError, match=r".") as caught:
            os.pread(file.fileno(), 100, MIB)
        assert caught.value.errno == errno.EIO
    library.rmdir()
    aside.rename(library)
    poll("the archive", lambda: can_read(mounted.archive(GAME)))
    assert mounted.archive(GAME).read_bytes() == expected_archive(game)


def can_read(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


# -- Killed at the worst moments -------------------------------------------------------

_DIES = """
import os, signal, sys
from zipfs.cli import cli
from zipfs.mount.restart import adoption, state

def once(owner, name, after):
    whole = getattr(owner, name)
    def dies(self, *arguments, **keywords):
        if not after:
            die()
        result = whole(self, *arguments, **keywords)
        die()
        return result
    def die():
        try:
            os.close(os.open(sys.argv[0] + {mark!r}, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, dies)

sys.argv[0] = ""
once({owner}, {name!r}, {after})
cli.main()
"""


def dying(mark: Path, owner: str, name: str, *, after: bool) -> list[str]:
    """zipfs whose first daemon that comes so far is killed before or *after* a method."""
    code = _DIES.format(mark=str(mark), owner=owner, name=name, after=after)
    return [sys.executable, "-c", code]


@pytest.mark.parametrize(
    ("owner", "name", "after"),
    [
        ("adoption.Connection", "_first_request", True),
        ("state.State", "set_init", True),
        ("adoption.Connection", "_pass_on", False),
        ("state.State", "set_answer", False),  # the kernel has got it
        ("state.State", "set_answer", True),
        ("state.State", "start", False),
        ("state.State", "start", True),
    ],
)
def test_killed_while_it_introduces_itself(
    game: Path, library: Path, mount: Mounts, place: Path, owner: str, name: str, after: bool
) -> None:
    """The first daemon dies in mid-INIT, and the second one is the first that serves."""
    program = dying(place / "died", owner, name, after=after)
    mounted = mounted_for(mount, library, program=program)
    assert (place / "died").exists()
    assert "has died" in mounted.log_text()
    assert mounted.archive(GAME).read_bytes() == expected_archive(game)


@pytest.mark.parametrize(
    ("owner", "name", "after"),
    [
        ("adoption.Connection", "_pass_on", False),
        ("adoption.Connection", "_resend", False),
        ("adoption.Connection", "_resend", True),
        ("state.State", "start", False),
    ],
)
@pytest.mark.parametrize("how", ["killed", "handed over"])
def test_killed_while_it_takes_over(
    game: Path,
    library: Path,
    mount: Mounts,
    place: Path,
    owner: str,
    name: str,
    after: bool,
    how: str,
) -> None:
    mark = place / "died"
    mark.touch()  # not the first
    program = dying(mark, owner, name, after=after)
    mounted = mounted_for(mount, library, program=program)
    with Reader(mounted.archive(GAME), expected_archive(game)) as reader:
        mark.unlink()
        if how == "killed":
            mounted.kill_daemon()
        else:
            os.kill(mounted.process.pid, signal.SIGUSR2)
        poll("the second to die", mark.exists)
        mounted.wait_restarts(1)
        reader.goes_on()


def test_the_old_one_is_killed_while_it_hands_over(
    game: Path, library: Path, mount: Mounts, place: Path
) -> None:
    mark = place / "died"
    program = dying(mark, "state.State", "hand_over", after=False)
    mounted = mounted_for(mount, library, program=program)
    with Reader(mounted.archive(GAME), expected_archive(game)) as reader:
        os.kill(mounted.process.pid, signal.SIGUSR2)
        poll("the first to die", mark.exists)
        mounted.wait_restarts(1)
        reader.goes_on()


_SUCCESSOR_DIES = """
import os, pathlib, signal, sys, time
from zipfs.cli import cli
from zipfs.mount.restart import state
hand_over = state.State.hand_over
def hand_over_to_nobody(self, *arguments, **keywords):
    pid = os.getppid()
    children = pathlib.Path(f"/proc/{{pid}}/task/{{pid}}/children").read_text().split()
    (successor,) = {{*map(int, children)}} - {{os.getpid()}}
    os.kill(successor, signal.SIGKILL)
    {wait}
    hand_over(self, *arguments, **keywords)
state.State.hand_over = hand_over_to_nobody
cli.main()
"""


@pytest.mark.parametrize("wait", ["time.sleep(1)", "pass"])
def test_the_successor_is_killed_as_the_old_one_hands_over(
    game: Path, library: Path, mount: Mounts, wait: str
) -> None:
    """Nobody serves then, and nobody is to unmount: a third one takes over."""
    program = [sys.executable, "-c", _SUCCESSOR_DIES.format(wait=wait)]
    mounted = mounted_for(mount, library, program=program)
    mounted.expect_log("its successor has died|that should take over has failed")
    with Reader(mounted.archive(GAME), expected_archive(game)) as reader:
        os.kill(mounted.process.pid, signal.SIGUSR2)
        mounted.wait_restarts(1)
        reader.goes_on()
    assert mounted.process.poll() is None


# -- Who can't take over ---------------------------------------------------------------


def test_the_successor_fails(game: Path, library: Path, mount: Mounts, place: Path) -> None:
    """The old one goes on, and `restart` says so."""
    config = place / "zipfs.toml"
    config.write_text("settle = 0.2\n")
    mounted = mounted_for(mount, library, "--config", str(config))
    mounted.expect_log("that should take over has failed")
    daemon = mounted.daemon
    with Reader(mounted.archive(GAME), expected_archive(game)) as reader:
        config.write_text("setle = 3\n")
        done = zipfs_restart(mounted)
        assert done.returncode == RestartError.exit_code
        assert "the old one goes on" in done.stderr
        assert done.stderr.count("\n") == 1
        reader.goes_on()
        assert "unknown key 'setle'" in mounted.log_text()
        assert mounted.daemon == daemon
        assert mounted.status()["restarts"]["failed"] == 1
        config.write_text("read-timeout = 77\n")
        restarted(mounted, library)
        reader.goes_on()
    assert mounted.status()["options"]["read_timeout"] == 77


def test_options_that_the_kernel_keeps(
    game: Path, library: Path, mount: Mounts, place: Path
) -> None:
    config = place / "zipfs.toml"
    config.write_text("allow-other = true\n")
    mounted = mounted_for(mount, library, "--config", str(config))
    mounted.expect_log("without the change of its option 'allow_other'")
    config.write_text("allow-other = false\n")
    done = zipfs_restart(mounted)
    assert done.returncode == RestartError.exit_code
    assert "until" in done.stderr
    assert "allow_other" in done.stderr
    assert mounted.archive(GAME).read_bytes() == expected_archive(game)


def test_another_mount_point() -> None:
    """The mount can't move: a successor refuses, and after a crash it stays where it is."""
    memory = state.create()
    try:
        state.State(memory).set_place(b"/srv/one")
        with pytest.raises(RestartError, match="the mount is on /srv/one, and not on /srv/two"):
            Succession.of(Held(-1, memory, None, STANDBY), "/srv/two", Notifier({}))
        found = Succession.of(Held(-1, memory, None, AGAIN), "/srv/two", Notifier({}))
        assert found
        assert found.path == "/srv/one"
    finally:
        os.close(memory)


def test_without_a_holder(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mount(library)
    done = zipfs_restart(mounted)
    assert done.returncode == RestartError.exit_code
    assert "no process of zipfs holds" in done.stderr


_OLD_KERNEL = """
from zipfs.cli import cli
from zipfs.mount.restart import adoption
adoption.Connection._resend = lambda self: False
cli.main()
"""


def test_a_kernel_that_can_t_ask_again(game: Path, library: Path, mount: Mounts) -> None:
    """Linux before 6.9: handed over it goes on; after a crash the mount is made anew."""
    program = [sys.executable, "-c", _OLD_KERNEL]
    mounted = mounted_for(mount, library, program=program)
    mounted.expect_log("this kernel can't ask again|can't be taken over")
    wanted = expected_archive(game)
    with Reader(mounted.archive(GAME), wanted) as reader:
        restarted(mounted, library)
        reader.goes_on()
    with opened(mounted.archive(GAME)) as file:
        mounted.kill_daemon()
        poll("the old mount's end", lambda: fails(lambda: os.fstat(file)))
    poll("the new mount", lambda: can_read(mounted.archive(GAME)))
    assert mounted.archive(GAME).read_bytes() == wanted
    assert mounted.process.poll() is None  # the same process as ever


def fails(call: Callable[[], object]) -> bool:
    try:
        call()
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


_ALWAYS_DIES = """
import os, signal, sys
from zipfs.cli import cli
if len(os.environ.get("ZIPFS_HELD", "").split()) == 5:
    os.kill(os.getpid(), signal.SIGKILL)
cli.main()
"""


def test_it_dies_too_often(game: Path, library: Path, mount: Mounts) -> None:
    """Then nobody waits any more."""
    mounted = mounted_for(mount, library, program=[sys.executable, "-c", _ALWAYS_DIES])
    mounted.expect_log("has died")
    with opened(mounted.archive(GAME)) as file:
        mounted.kill_daemon()
        # It waits in the first of these, until it is over.
        poll("its end", lambda: fails(lambda: os.fstat(file)))
    assert mounted.process.wait(SECONDS) == -signal.SIGKILL
    assert mounted.log_text().count("has died") == 11
    assert "too often" in mounted.log_text()
    assert not is_mounted(mounted.path)
    mounted.ended = True


def test_what_is_said_while_it_dies_again_and_again(
    game: Path, library: Path, mount: Mounts
) -> None:
    """Which attempt it is, and when the next one begins; nothing of that waits for a daemon."""
    mounted = mounted_for(mount, library, program=[sys.executable, "-c", _ALWAYS_DIES])
    env = {"RUNTIME_DIRECTORY": str(mounted.runtime)}
    found = {}

    def says(*command: str | Path) -> subprocess.CompletedProcess[str] | None:
        done = run_zipfs(*command, env=env)
        shown = re.search(r"attempt ([0-9]+) of 10, next in ([0-9.]+) s;", done.stderr)
        if shown is None:
            return None
        assert done.stderr.count("\n") == 1
        assert done.returncode == MountpointError.exit_code
        assert int(shown[1]) > 1
        assert float(shown[2]) <= 5.0
        return done

    def is_said(*command: str | Path) -> bool:
        found[command[0]] = says(*command)
        return found[command[0]] is not None

    def is_measured() -> bool:
        done = run_zipfs("status", "--prometheus", mounted.path, env=env)
        assert done.returncode == 0, done.stderr
        found["metrics"] = done.stdout
        return not re.search(r"^zipfs_restart_pause_seconds{.*} 0\.0$", done.stdout, re.MULTILINE)

    mounted.kill_daemon()
    mounted.wait_log("attempt 4 of 10")
    poll("the status", lambda: is_said("status", mounted.path))
    poll("what restart says", lambda: is_said("restart", mounted.path))
    poll("the metrics", is_measured)
    assert re.search(r"^zipfs_up{.*} 0\.0$", found["metrics"], re.MULTILINE)
    assert re.search(r"^zipfs_restart_attempt{.*} [4-9]\.0$", found["metrics"], re.MULTILINE)
    poll("the document", lambda: is_said("status", "--json", mounted.path))
    document = json.loads(found["status"].stdout)
    assert document["serving"] is False
    assert document["restarts"]["holder"] == mounted.process.pid
    assert document["restarts"]["attempts"] == 10
    mounted.process.send_signal(signal.SIGTERM)
    assert mounted.process.wait(SECONDS) in (0, -signal.SIGKILL)
    assert not is_mounted(mounted.path)
    mounted.ended = True


def test_an_attempt_that_lasts_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = state.create()
    try:
        held = Held(-1, memory, None, AGAIN, attempt=(3, 10))
        found = Succession.of(held, "/srv/one", Notifier({}))
        assert found
        assert found.attempt == (3, 10)
        later = time.monotonic() + holder.WITHIN
        monkeypatch.setattr(time, "monotonic", lambda: later)
        assert found.attempt == (0, 0)
    finally:
        os.close(memory)


def test_a_daemon_knows_which_attempt_it_is(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mounted_for(mount, library)
    for number in (1, 2):
        mounted.kill_daemon()
        mounted.wait_restarts(number)
        restarts = mounted.status()["restarts"]
        assert (restarts["attempt"], restarts["attempts"]) == (number, 10)
    restarted(mounted, library)
    restarts = mounted.status()["restarts"]
    assert (restarts["count"], restarts["attempt"]) == (3, 0)


def test_nobody_comes_back(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mounted_for(mount, library)
    with opened(mounted.archive(GAME)) as file:
        mounted.kill()
        with pytest.raises(OSError, match=r".") as caught:
            os.pread(file, 100, MIB)
        assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
    again = mount(library, mountpoint=mounted.path, supervised=True)
    again.wait_sealed()
    assert again.archive(GAME).read_bytes() == expected_archive(game)


def test_the_holder_is_killed(game: Path, library: Path, mount: Mounts) -> None:
    """Downloads go on; the mount ends with the daemon, which is told to."""
    mounted = mounted_for(mount, library)
    with Reader(mounted.archive(GAME), expected_archive(game)) as reader:
        daemon = mounted.daemon
        mounted.process.kill()
        mounted.process.wait(SECONDS)
        poll("the daemon to notice", lambda: "is gone; it ends with this" in mounted.log_text())
        assert not mounted.status()["restarts"]["outlives"]
        reader.goes_on()
        mounted.ended = True
    os.kill(daemon, signal.SIGTERM)
    poll("it to be unmounted", lambda: not is_mounted(mounted.path))
    poll("the daemon to end", lambda: not os.path.exists(f"/proc/{daemon}"))
    mounted.notifications.close()


# -- Signals, and its end --------------------------------------------------------------


def test_signals_are_passed_on(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mounted_for(mount, library)
    mounted.process.send_signal(signal.SIGHUP)
    mounted.wait_log("looking through the library again")
    mounted.process.send_signal(signal.SIGUSR1)
    mounted.wait_log("Tasks:")
    assert mounted.stop() == 0


def test_stopped_while_nobody_is_there(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mounted_for(mount, library)
    with nobody(mounted):
        mounted.process.send_signal(signal.SIGTERM)
    assert mounted.process.wait(SECONDS) in (0, -signal.SIGKILL)
    assert not is_mounted(mounted.path)
    mounted.ended = True


def test_unmounted_while_nobody_is_there(game: Path, library: Path, mount: Mounts) -> None:
    """`status` and `unmount` end, and say what is wrong."""
    mounted = mounted_for(mount, library)
    env = {"RUNTIME_DIRECTORY": str(mounted.runtime)}
    with nobody(mounted):
        done = run_zipfs("status", mounted.path, env=env)
        assert done.returncode == MountpointError.exit_code
        assert "is being started again, or is stuck" in done.stderr
        assert run_zipfs("unmount", mounted.path, env=env).returncode in (
            0,
            StillServingError.exit_code,
        )
        assert not is_mounted(mounted.path)
    assert mounted.process.wait(SECONDS) == 0
    mounted.ended = True


def test_told_twice_to_end(game: Path, library: Path, mount: Mounts) -> None:
    """A daemon that is stuck is killed by the second signal."""
    mounted = mounted_for(mount, library)
    os.kill(mounted.daemon, signal.SIGSTOP)
    mounted.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert mounted.process.poll() is None
    mounted.process.send_signal(signal.SIGTERM)
    assert mounted.process.wait(SECONDS) == -signal.SIGKILL
    assert not is_mounted(mounted.path)
    mounted.ended = True


def test_unmounted_by_others(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mounted_for(mount, library)
    mounted.kill_daemon()
    mounted.wait_restarts(1)
    mounted.unmount()


def test_an_error_at_the_start_is_as_ever(library: Path, mount: Mounts, place: Path) -> None:
    (place / "folder").mkdir()
    mounted = mount(library, index=place / "folder", supervised=True, ready=False)
    assert mounted.process.wait(SECONDS) == IndexFileError.exit_code
    assert mounted.log_text().count("\n") == 1
    mounted.ended = True
    assert not is_mounted(mounted.path)


@needs_root
def test_a_user_s_mount(
    game: Path, library: Path, mount: Mounts, public_program: str, public_device: None
) -> None:
    """By fusermount3, which returns the descriptor."""
    mounted = mounted_for(mount, library, user=NOBODY, program=[public_program])
    mounted.kill_daemon()
    mounted.wait_restarts(1)
    got = run_as(NOBODY, "cat", mounted.archive(GAME))
    assert got.stdout == expected_archive(game)
    mounted.stop()


@needs_root
def test_setuid_with_a_holder(
    game: Path, library: Path, mount: Mounts, place: Path, public_program: str
) -> None:
    """The holder stays root, each daemon becomes the user anew."""
    state = place / "state"
    state.mkdir()
    os.chown(state, NOBODY, NOBODY)
    options = ("--allow-other", "--setuid", f"{NOBODY}:{NOBODY}")
    mounted = mounted_for(
        mount,
        library,
        *options,
        index=state / "index.sqlite3",
        env={"RUNTIME_DIRECTORY": None},
        program=[public_program],
    )
    for number in (1, 2):
        serving = mounted.status()["pid"]  # another one may be in preparation
        status = Path(f"/proc/{serving}/status").read_text()
        assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}" in status
        assert "CapEff:\t0000000000000000" in status
        mounted.kill_daemon()
        mounted.wait_restarts(number)
    assert mounted.archive(GAME).read_bytes() == expected_archive(game)
    assert mounted.stop() == 0
