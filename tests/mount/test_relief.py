"""A daemon that a service manager's store holds the mount for starts the next one itself.

The test is that manager here. Who holds a mount must not touch it, so others read.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bench.mount import unmount_lazily, zipfs_program
from tests.support.libraries import content, expected_archive, make_game
from tests.support.mounting import Notifications, environment, run_zipfs
from tests.support.users import needs_root
from tests.support.waiting import SECONDS, poll
from zipfs.errors import RestartError
from zipfs.mount import privileged

pytestmark = needs_root  # to mount

GAME = "roms/psx/Game"


class Unit:
    """A service whose daemon was started with what is stored for it."""

    def __init__(
        self, library: Path, place: Path, config: Path, program: Sequence[str] = ()
    ) -> None:
        self.point = place / "unit"
        self.point.mkdir()
        self.runtime = place / "unit-run"
        self.runtime.mkdir()
        self.notifications = Notifications()
        self.log = place / "unit-log"
        options = {"ro", "nosuid", "nodev", "noatime", "default_permissions", "fsname=zipfs"}
        self._fuse = privileged.mount(str(self.point), {*options, "subtype=zipfs"}, uid=0, gid=0)
        self._state = os.memfd_create("state")
        command = [*(program or [zipfs_program()]), "mount", "--config", config]
        self._command = [str(part) for part in (*command, library, self.point)]
        self.main = self._child = self.start()

    def start(self) -> int:
        """Start a daemon with what is stored; its number."""
        return os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh", *self._command],
            environment(
                {
                    "NOTIFY_SOCKET": self.notifications.address,
                    "RUNTIME_DIRECTORY": str(self.runtime),
                    "LISTEN_FDS": "2",
                    "LISTEN_FDNAMES": "fuse:state",
                }
            ),
            file_actions=[
                (
                    os.POSIX_SPAWN_OPEN,
                    2,
                    str(self.log),
                    os.O_WRONLY | os.O_CREAT | os.O_APPEND,
                    0o600,
                ),
                (os.POSIX_SPAWN_DUP2, self._fuse, 3),
                (os.POSIX_SPAWN_DUP2, self._state, 4),
            ],
        )

    def said(self) -> list[str]:
        self.notifications.update()
        return [text for text in self.notifications.seen if not text.startswith("STATUS=")]

    def read(self) -> bytes:
        command = ["cat", self.point / f"{GAME}.zip"]
        return subprocess.run(command, capture_output=True, timeout=SECONDS, check=False).stdout

    def restart(self) -> subprocess.CompletedProcess[str]:
        return run_zipfs("restart", self.point, env={"RUNTIME_DIRECTORY": str(self.runtime)})

    def close(self) -> None:
        unmount_lazily(self.point)
        os.close(self._fuse)  # nobody waits any more, whatever has happened
        os.close(self._state)
        for pid in {self.main, self._child}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._child, 0)
        self.notifications.close()


@pytest.fixture
def game(library: Path) -> Path:
    return make_game(library, GAME, {"1": content(300_000, 1), "2": b"two"})


@pytest.fixture
def config(place: Path) -> Path:
    file = place / "zipfs.toml"
    file.write_text(f'settle = 0.2\nindex = "{place}/unit.sqlite3"\n')
    return file


@pytest.fixture
def unit(game: Path, library: Path, place: Path, config: Path) -> Iterator[Unit]:
    with contextlib.closing(Unit(library, place, config)) as made:
        poll("READY=1", lambda: "READY=1" in made.said())
        poll("the archive", lambda: made.read() == expected_archive(game))
        yield made


def test_the_next_one_is_the_main_process(unit: Unit, game: Path) -> None:
    done = unit.restart()
    assert (done.returncode, done.stderr) == (0, "")
    assert os.waitpid(unit.main, 0)[1] == 0
    said = unit.said()
    (main,) = [text for text in said if text.startswith("MAINPID=")]
    unit.main = int(main.removeprefix("MAINPID="))
    # That before what the next one says for itself.
    poll("READY=1", lambda: unit.said().count("READY=1") == 2)
    said = unit.said()
    assert said.index(main) < len(said) - 1 - said[::-1].index("READY=1")
    assert unit.read() == expected_archive(game)
    assert f"process {unit.main} " in done.stdout


def test_one_that_fails(unit: Unit, game: Path, config: Path) -> None:
    text = config.read_text()
    config.write_text("setle = 3\n")
    done = unit.restart()
    assert done.returncode == RestartError.exit_code
    assert "the old one goes on" in done.stderr
    assert not any(said.startswith("MAINPID=") for said in unit.said())
    assert unit.read() == expected_archive(game)
    config.write_text(text)
    assert unit.restart().returncode == 0
    assert os.waitpid(unit.main, 0)[1] == 0
    (main,) = [said for said in unit.said() if said.startswith("MAINPID=")]
    unit.main = int(main.removeprefix("MAINPID="))
    assert unit.read() == expected_archive(game)


_DIES = """
import os, signal
from zipfs.cli import cli
from zipfs.mount.restart.relief import Relief
go = Relief.go
def go_nowhere(self):
    os.kill(self.pid, signal.SIGKILL)
    self._process.wait()
    go(self)
Relief.go = go_nowhere
cli.main()
"""


def test_one_that_dies_in_the_midst_of_it(
    game: Path, library: Path, place: Path, config: Path
) -> None:
    """The old one has stopped: it fails, so that the manager starts another one and keeps all."""
    program = [sys.executable, "-c", _DIES]
    with contextlib.closing(Unit(library, place, config, program)) as unit:
        poll("READY=1", lambda: "READY=1" in unit.said())
        poll("the archive", lambda: unit.read() == expected_archive(game))
        os.kill(unit.main, signal.SIGUSR2)
        _, status = os.waitpid(unit.main, 0)
        assert os.waitstatus_to_exitcode(status) == RestartError.exit_code
        unit.main = unit._child = unit.start()
        assert unit.read() == expected_archive(game)
        assert "has just died" in unit.log.read_text()
