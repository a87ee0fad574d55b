"""A mount made with privilege for a daemon without any, as ``systemd/zipfs@.service`` has it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.mount import is_mounted, unmount_lazily
from bench.process import stop
from tests.support.libraries import content, expected_archive, make_game
from tests.support.mounting import Mounts, as_user, environment, run_zipfs
from tests.support.users import NOBODY, needs_root
from tests.support.waiting import poll
from zipfs.mount.mountpoint import MAX_BACKGROUND
from zipfs.system import mounts

pytestmark = needs_root

GAME = "roms/psx/Game"
_FILES = {"a": content(300_000, 1), "b": content(200_000, 2)}


class Manager:
    """What the service manager does: keeps a descriptor, and hands it over."""

    def __init__(self, place: Path, library: Path) -> None:
        self.path = place / "mount"
        self.path.mkdir()
        state = place / "state"
        state.mkdir()
        os.chown(state, NOBODY, NOBODY)
        self.config = place / "zipfs.toml"
        self.config.write_text(
            f'library = "{library}"\nmountpoint = "{self.path}"\nallow-other = true\n'
            f'index = "{state}/index.sqlite3"\nsettle = 0.2\n'
        )
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.address = str(place / "notify")
        self.socket.bind(self.address)
        os.chown(self.address, NOBODY, NOBODY)
        self.socket.settimeout(30)
        self.log = place / "daemon.log"
        self.note = place / "note"
        self.others: list[Path] = []
        """Further mount points."""

    def prepare(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return run_zipfs(
            "prepare", "--config", self.config, "--note", self.note, *arguments,
            env={"NOTIFY_SOCKET": self.address, **env},
        )  # fmt: skip

    def end(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """What ExecStopPost= does."""
        return run_zipfs(
            "unmount", "--lazy", "--if-mounted", "--noted", self.note, *arguments, env=env
        )

    def kept(self, name: str = "fuse") -> int:
        """The next descriptor that is stored, which has to be *name*."""
        message = b"FDSTOREREMOVE=1"
        while message.startswith(b"FDSTOREREMOVE=1"):
            message, descriptors, _, _ = socket.recv_fds(self.socket, 4096, 4)
        assert message == f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0".encode()
        (descriptor,) = descriptors
        return descriptor

    def heard(self) -> list[bytes]:
        """All that was sent and not received yet."""
        found = []
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.socket.recv(4096))
        self.socket.settimeout(30)
        return found

    def device(self) -> str | None:
        """What is mounted; nobody has to answer for that."""
        mounted = mounts.mounted_at(str(self.path))
        return mounted and mounted.device

    def daemon(self, device: int, program: str) -> subprocess.Popen[bytes]:
        """Start the daemon as an ordinary user, with *device* as its descriptor 3."""
        # bash: other shells know descriptors of one digit only.
        script = f'LISTEN_FDS=1 LISTEN_FDNAMES=fuse LISTEN_PID=$$ exec "$@" 3<&{device}'
        variables = environment({"NOTIFY_SOCKET": self.address})
        os.set_inheritable(device, True)
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [
                    *as_user(NOBODY),
                    "bash",
                    "-c",
                    script,
                    "sh",
                    program,
                    "mount",
                    "--config",
                    self.config,
                ],
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                close_fds=False,
            )
        os.close(device)
        return process

    def wait_for(self, message: bytes) -> None:
        try:
            while self.socket.recv(4096) != message:
                pass
        except TimeoutError:
            raise AssertionError(self.log.read_text()) from None


@pytest.fixture
def manager(fuse: None, no_process_left: None, place: Path, library: Path) -> Iterator[Manager]:
    make_game(library, GAME, _FILES)
    made = Manager(place, library)
    yield made
    made.socket.close()
    for path in (made.path, *made.others):
        if is_mounted(path):
            unmount_lazily(path)


def test_a_daemon_without_any_right_answers(manager: Manager, public_program: str) -> None:
    done = manager.prepare()
    assert (done.returncode, done.stderr) == (0, "")
    assert is_mounted(manager.path)
    process = manager.daemon(manager.kept(), public_program)
    try:
        # The store doesn't keep it any longer: it would outlive a crash.
        manager.wait_for(b"FDSTOREREMOVE=1\nFDNAME=fuse")
        manager.wait_for(b"READY=1")
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}\n" in status
        archive = manager.path / f"{GAME}.zip"
        poll("the archive", archive.exists)
        assert archive.read_bytes() == expected_archive(manager.path.parent / "library" / GAME)
        done = run_zipfs("tune", "--config", manager.config)
        assert (done.returncode, done.stderr) == (0, "")
        device = os.stat(manager.path).st_dev
        name = f"{os.major(device)}:{os.minor(device)}"
        assert Path(f"/sys/class/bdi/{name}/read_ahead_kb").read_text() == "1024\n"
        limit = Path(f"/sys/fs/fuse/connections/{os.minor(device)}/max_background")
        if limit.exists():
            assert int(limit.read_text()) == MAX_BACKGROUND
    finally:
        status = stop(process)
    assert status == 0, manager.log.read_text()
    # It had no right to take it away; whoever made it has.
    with pytest.raises(OSError, match="Transport endpoint is not connected"):
        os.listdir(manager.path)
    manager.config.unlink()  # it goes by the note alone
    for _ in range(2):
        done = manager.end()
        assert (done.returncode, done.stderr) == (0, "")
        assert not is_mounted(manager.path)
    done = run_zipfs("unmount", manager.path)
    assert (done.returncode, done.stderr) == (4, f"zipfs: no zipfs is mounted on {manager.path}\n")
    done = run_zipfs("unmount", "--noted", manager.note)
    assert (done.returncode, done.stderr) == (
        4, f"zipfs: nothing is mounted by the note {manager.note}\n",
    )  # fmt: skip


def test_the_one_before_that_died_is_taken_away(manager: Manager) -> None:
    manager.prepare()
    os.close(manager.kept())
    with pytest.raises(OSError, match="Transport endpoint is not connected"):
        os.listdir(manager.path)
    assert manager.prepare().returncode == 0
    os.close(manager.kept())


def test_nothing_is_mounted_if_nobody_takes_it_over(manager: Manager) -> None:
    done = run_zipfs("prepare", "--config", manager.config)
    assert done.returncode == 5
    assert done.stderr == (
        "zipfs: no service manager takes the mount over; this is for ExecStartPre= of a systemd"
        " unit\n"
    )
    manager.socket.close()
    done = manager.prepare()
    assert (done.returncode, done.stdout) == (5, "")
    assert "doesn't take the mount over" in done.stderr
    assert not is_mounted(manager.path)


def test_an_ordinary_user_can_t(manager: Manager, public_program: str, public_device: None) -> None:
    done = run_zipfs(
        "prepare",
        "--config",
        manager.config,
        env={"NOTIFY_SOCKET": manager.address},
        user=NOBODY,
        program=[public_program],
    )
    assert done.returncode == 5
    assert "only root may" in done.stderr


@pytest.mark.parametrize("option", ["allow_root", "dev", "suid", "fd=0", "user_id=0", "x=y"])
def test_what_could_do_harm_or_is_unknown_is_refused(manager: Manager, option: str) -> None:
    with manager.config.open("a") as config:
        config.write(f'options = ["{option}"]\n')
    done = manager.prepare()
    assert done.returncode == 2
    assert f"the mount option '{option}' can't be had" in done.stderr
    assert not is_mounted(manager.path)


def test_the_mount_of_another_is_left_alone(manager: Manager, mount: Mounts, place: Path) -> None:
    """Two services with one mount point: the second fails, and the first goes on."""
    healthy = mount(place / "library", mountpoint=manager.path)
    done = manager.prepare()
    assert done.returncode == 4
    assert "something is mounted on" in done.stderr
    assert manager.end().returncode == 0
    healthy.check_runs()
    assert is_mounted(manager.path)
    # Nor is what stands where ours was, called by another device.
    manager.note.write_text(json.dumps({"device": "0:1", "path": str(manager.path)}))
    assert manager.end().returncode == 0
    healthy.check_runs()
    assert is_mounted(manager.path)
    assert not manager.note.exists()


@pytest.mark.parametrize(
    ("mode", "owner", "refused"),
    [
        (0o644, 0, False),
        (0o600, 0, False),
        (0o664, 0, True),
        (0o646, 0, True),
        (0o644, NOBODY, True),
    ],
)
def test_nobody_but_root_may_write_the_config(
    manager: Manager, mode: int, owner: int, refused: bool
) -> None:
    manager.config.chmod(mode)
    os.chown(manager.config, owner, owner)
    done = manager.prepare()
    assert done.returncode == (2 if refused else 0)
    if refused:
        assert "others than root may write the config file" in done.stderr
    else:
        os.close(manager.kept())


def test_a_config_has_to_be_a_file_with_absolute_paths(manager: Manager) -> None:
    text = manager.config.read_text()
    manager.config.write_text(text.replace(str(manager.path), "srv/rel"))
    done = manager.prepare()
    assert done.returncode == 2
    assert "'mountpoint' in" in done.stderr
    assert "isn't an absolute path" in done.stderr
    manager.config.unlink()
    os.mkfifo(manager.config)
    done = manager.prepare()
    assert (done.returncode, "isn't a file" in done.stderr) == (2, True)


# -- For a unit that keeps its mount ------------------------------------------------------------

UNIT = "zipfs@games.service"


class Unit:
    """A unit in its service manager, which ``systemctl`` asks, and what that has stored of it."""

    def __init__(self, manager: Manager, place: Path) -> None:
        self.manager = manager
        self.stored: list[int] = []
        self._bin = place / "bin"
        self._bin.mkdir()
        program = self._bin / "systemctl"
        program.write_text('#!/bin/sh\ncat "$0.$1"\n')
        program.chmod(0o755)

    def prepare(self, active: str = "activating") -> subprocess.CompletedProcess[str]:
        return self.manager.prepare("--unit", UNIT, PATH=self._path(active, "start"))

    def end(self, active: str, job: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        return self.manager.end("--unit", UNIT, PATH=self._path(active, job), **env)

    def _path(self, active: str, job: str) -> str:
        (self._bin / "systemctl.show").write_text(
            f"Job={7 if job else 0}\nActiveState={active}\n"
            f"NFileDescriptorStore={len(self.stored)}\n"
        )
        (self._bin / "systemctl.list-jobs").write_text(f"7 {UNIT} {job} running\n" if job else "")
        return f"{self._bin}:{os.environ['PATH']}"

    def store(self) -> None:
        """Keep what is sent, in the order in which it has to be."""
        assert [self.manager.socket.recv(4096) for _ in range(2)] == [
            b"FDSTOREREMOVE=1\nFDNAME=fuse",
            b"FDSTOREREMOVE=1\nFDNAME=state",
        ]
        self.lose()
        self.stored = [self.manager.kept("state"), self.manager.kept("fuse")]

    def lose(self) -> None:
        for descriptor in self.stored:
            os.close(descriptor)
        self.stored = []


@pytest.fixture
def unit(manager: Manager, place: Path) -> Iterator[Unit]:
    """A unit whose mount is held; nobody answers, so whoever touches it waits for ever."""
    made = Unit(manager, place)
    done = made.prepare()
    assert (done.returncode, done.stderr) == (0, "")
    made.store()
    yield made
    made.lose()


def test_a_mount_and_an_empty_state_are_stored(unit: Unit) -> None:
    state, device = unit.stored
    assert os.fstat(state).st_size == 0
    assert os.pwrite(state, b"x" * 10000, 0) == 10000
    assert os.readlink(f"/proc/self/fd/{device}") == "/dev/fuse"


@pytest.mark.parametrize("config", ["the same", "another text"])
def test_a_mount_that_is_held_is_left_to_the_next_daemon(unit: Unit, config: str) -> None:
    manager, before = unit.manager, unit.manager.device()
    if config != "the same":
        with manager.config.open("a") as file:
            file.write("read-timeout = 3\n")
    for _ in range(2):
        done = unit.prepare()
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert manager.device() == before
        assert manager.heard() == []


def test_a_mount_that_nobody_holds_any_more_is_made_anew(unit: Unit) -> None:
    os.close(unit.stored.pop())
    done = unit.prepare()
    assert (done.returncode, done.stderr) == (0, "")
    unit.store()
    before = unit.manager.device()
    # Somebody has unmounted it.
    unmount_lazily(unit.manager.path)
    assert unit.prepare().returncode == 0
    unit.store()
    assert None not in (before, unit.manager.device())


def test_what_the_kernel_fixed_needs_a_new_mount_and_that_is_said(unit: Unit, place: Path) -> None:
    manager = unit.manager
    text = manager.config.read_text()
    manager.config.write_text(text.replace("allow-other = true\n", 'options = ["fsname=other"]\n'))
    done = unit.prepare()
    assert done.returncode == 0
    assert done.stderr.endswith(
        f"{manager.path} is mounted anew, and downloads are cut off: the kernel never changes"
        " allow_other, fsname of a mount\n"
    )
    # By its device it can't be told apart: that of the one before is free.
    mounted = mounts.mounted_at(str(manager.path))
    assert mounted is not None
    assert "allow_other" not in mounted.options
    unit.store()
    new = place / "new"
    new.mkdir()
    manager.others.append(new)
    manager.config.write_text(text.replace(str(manager.path), str(new)))
    done = unit.prepare()
    assert done.returncode == 0
    assert done.stderr.endswith(
        f"the mount moves from {manager.path} to {new}, and downloads are cut off\n"
    )
    assert manager.device() is None
    assert is_mounted(new)
    unit.store()


def test_a_mount_point_that_is_a_link(unit: Unit, place: Path) -> None:
    manager, before = unit.manager, unit.manager.device()
    (place / "link").symlink_to("mount")
    manager.config.write_text(
        manager.config.read_text().replace(str(manager.path), str(place / "link"))
    )
    done = unit.prepare()
    assert (done.returncode, done.stderr, manager.device()) == (0, "", before)


def test_by_a_wrong_config_nobody_waits_for_a_daemon(unit: Unit) -> None:
    unit.manager.config.write_text("x = ")
    done = unit.prepare()
    assert done.returncode == 2
    assert "isn't valid TOML" in done.stderr
    assert unit.manager.device() is None
    assert not unit.manager.note.exists()


def test_it_stays_in_a_restart_and_goes_with_a_stop(unit: Unit) -> None:
    manager, before = unit.manager, unit.manager.device()
    for job, result, status in (
        ("restart", "success", ""),
        ("restart", "success", "0"),
        ("", "signal", "KILL"),
    ):
        done = unit.end("deactivating", job, SERVICE_RESULT=result, EXIT_STATUS=status)
        assert (done.returncode, done.stderr, manager.device()) == (0, "", before)
        assert manager.note.exists()
    for _ in range(2):
        done = unit.end("deactivating", "stop", SERVICE_RESULT="success")
        assert (done.returncode, done.stderr, manager.device()) == (0, "", None)
        assert not manager.note.exists()


def test_a_unit_that_has_failed_for_good_leaves_none(unit: Unit) -> None:
    assert unit.end("activating", "start").returncode == 0
    assert unit.manager.device() is not None
    done = unit.end("failed")
    assert (done.returncode, done.stderr, unit.manager.device()) == (0, "", None)


def test_a_unit_needs_a_note(manager: Manager) -> None:
    for arguments, needed in (
        (("prepare", "--config", str(manager.config), "--unit", UNIT), "--note"),
        (("unmount", str(manager.path), "--unit", UNIT), "--noted"),
    ):
        done = run_zipfs(*arguments, env={"NOTIFY_SOCKET": manager.address})
        assert done.returncode == 2
        assert f"--unit needs {needed}" in done.stderr
