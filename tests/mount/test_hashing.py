"""The process that hashes: killed, hanging, left alone, or held back (DESIGN R3, H4, H5)."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faultfs import Faults
from tests.support.libraries import content, expected, make_file, make_game
from tests.support.mounting import Mounted, Mounts
from tests.support.waiting import SECONDS, poll

GAME, BIG, SMALL = (f"roms/psx/{name}" for name in ("Game", "Big", "Small"))
SLOWLY = "--hash-rate=0.5"
"""With which the big game takes longer than any test."""


@pytest.fixture
def big(library: Path) -> Path:
    return make_game(library, BIG, {"disc": 200 << 20, "cue": b"FILE"})


def child_of(mounted: Mounted, name: str | None = None) -> int:
    """The process that hashes for *mounted*, once it has a file *name* open."""
    found: list[int] = []

    def there() -> bool:
        nonlocal found
        mounted.check_runs()
        found = mounted.children()
        if name is not None:
            files = mounted.library_descriptors().items()
            found = [pid for (pid, _), path in files if os.path.basename(path) == name]
        return bool(found)

    poll(f"a process that hashes {name}", there)
    (pid,) = found
    assert pid != mounted.process.pid
    return pid


def check_right(mounted: Mounted, library: Path, game: str) -> None:
    wanted = expected(library / game)
    assert mounted.wait_archive(game).read_bytes() == wanted.read(0, wanted.size)


def is_sealed(mounted: Mounted, game: str) -> bool:
    try:
        mounted.archive(game).stat()
    except FileNotFoundError:
        return False
    return True


# ---------------------------------------------------------------- its end


def test_killed(library: Path, big: Path, mount: Mounts) -> None:
    """Another one takes its place, and the mount doesn't care."""
    make_game(library, GAME, {"a": b"1", "b": b"2"})
    mounted = mount(library, SLOWLY)
    mounted.expect_log("WARNING: hashing roms/psx/Big/disc: the process has been killed by SIGKILL")
    check_right(mounted, library, GAME)
    child = child_of(mounted, "disc")
    os.kill(child, signal.SIGKILL)
    mounted.wait_log("has been killed by SIGKILL")  # so it has been reaped
    assert child_of(mounted, "disc") != child
    make_game(library, SMALL, {"a": b"3", "b": b"4"})
    check_right(mounted, library, SMALL)
    check_right(mounted, library, GAME)


def test_daemon_killed(library: Path, big: Path, mount: Mounts) -> None:
    """While it hashes, and while it dawdles for the sake of a rate."""
    mounted = mount(library, SLOWLY)
    child_of(mounted, "disc")
    mounted.kill()  # sees it end, too


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_stopped(library: Path, big: Path, mount: Mounts, number: signal.Signals) -> None:
    mounted = mount(library, SLOWLY)
    child_of(mounted, "disc")
    mounted.stop(number)  # sees it end, too


def test_signals_for_all_of_a_terminal(library: Path, big: Path, mount: Mounts) -> None:
    """Ctrl-C is for the daemon; a hangup makes it look again, and the hashing goes on."""
    mounted = mount(library, SLOWLY)
    child = child_of(mounted, "disc")
    os.killpg(mounted.process.pid, signal.SIGHUP)
    os.kill(child, signal.SIGHUP)
    mounted.wait_log("INFO: looking through the library again")
    assert child_of(mounted, "disc") == child
    os.killpg(mounted.process.pid, signal.SIGINT)
    mounted.see_end()


def test_daemon_killed_while_the_disk_hangs(
    library: Path, faulty: tuple[Path, Faults], mount: Mounts
) -> None:
    """As soon as the disk lets go of it, it is gone."""
    make_game(library, GAME, {"a": content(3000), "b": b"2"})
    shown, faults = faulty
    faults.hang(f"{GAME}/a")
    mounted = mount(shown)
    poll("the hashing to hang", lambda: faults.waiting(f"{GAME}/a", "read") > 0)
    mounted.process.kill()
    mounted.process.wait(SECONDS)
    faults.release()
    mounted.kill()  # sees all of it end


# ---------------------------------------------------------------- a disk that hangs


@pytest.fixture
def mount_faulty(faulty: tuple[Path, Faults], mount: Mounts) -> Iterator[Mounts]:
    """Mounts that end before the file system does that they show, with nothing hanging."""
    yield mount
    faulty[1].clear()


def test_hangs_in_several_files(
    library: Path, faulty: tuple[Path, Faults], mount_faulty: Mounts
) -> None:
    """Each holds a process of its own, which is gone when the disk comes back."""
    games = [f"roms/psx/{number}" for number in range(3)]
    for number, game in enumerate(games):
        make_game(library, game, {"a": content(3000 + number, game), "b": game.encode()})
    make_game(library, GAME, {"a": content(5000), "b": b"2"})
    shown, faults = faulty
    for game in games:
        faults.hang(f"{game}/a")
    mounted = mount_faulty(shown, "--read-timeout=1")
    mounted.expect_log("can't read roms/psx/./a: Connection timed out")
    check_right(mounted, library, GAME)
    for game in games:
        poll(f"{game} to hang", lambda game=game: faults.waiting(f"{game}/a", "read") > 0)  # type: ignore[misc]
        assert not is_sealed(mounted, game)
    mounted.wait_log(f"can't read {games[-1]}/a")
    # One that was hashing several has lost its first thread, and with it its environment, by
    # which we know it.
    assert mounted.status()["stuck"]["hashing"] == len(games)
    faults.release()
    poll("none to hang", lambda: mounted.status()["stuck"]["hashing"] == 0)
    poll("all but one to be gone", lambda: len(mounted.children()) <= 1)


# ---------------------------------------------------------------- at a bounded rate


def test_rate(library: Path, big: Path, mount: Mounts) -> None:
    """What is small and asked for doesn't wait for what is big, and that isn't hurried."""
    make_game(library, GAME, {"a": b"1", "b": b"2"})
    mounted = mount(library, SLOWLY)
    check_right(mounted, library, GAME)
    child = child_of(mounted, "disc")
    make_game(library, SMALL, {"a": b"3", "b": b"4"})
    check_right(mounted, library, SMALL)
    with pytest.raises(OSError, match=r".") as caught:
        mounted.archive(BIG).stat()  # which asks for it, too
    assert caught.value.errno == errno.ENOENT
    assert child_of(mounted, "disc") == child
    assert int(read_by(child)) < 100 << 20


def read_by(pid: int) -> str:
    """How many bytes a process has read from anything, as proc_pid_io(5) tells it."""
    return Path(f"/proc/{pid}/io").read_text().split()[1]


def test_rate_that_suffices(library: Path, mount: Mounts) -> None:
    """All that is to be hashed is."""
    make_game(library, GAME, {f"{n}": content(100_000, n) for n in range(50)})
    make_file(library / "roms/psx/Other/disc", content(20_000_000))
    make_file(library / "roms/psx/Other/cue", b"FILE")
    mounted = mount(library, "--hash-rate=20")
    mounted.wait_sealed(2)
    check_right(mounted, library, GAME)
    check_right(mounted, library, "roms/psx/Other")
