"""A mount made with privilege for a daemon without any, as ``systemd/zipfs@.service`` has it."""

from __future__ import annotations

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

    def prepare(self) -> subprocess.CompletedProcess[str]:
        return run_zipfs(
            "prepare", "--config", self.config, "--note", self.note,
            env={"NOTIFY_SOCKET": self.address},
        )  # fmt: skip

    def end(self) -> subprocess.CompletedProcess[str]:
        """What ExecStopPost= does."""
        return run_zipfs("unmount", "--lazy", "--if-mounted", "--noted", self.note)

    def kept(self) -> int:
        message, descriptors, _, _ = socket.recv_fds(self.socket, 4096, 4)
        assert message == b"FDSTORE=1\nFDNAME=fuse"
        (descriptor,) = descriptors
        return descriptor

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
    if is_mounted(made.path):
        unmount_lazily(made.path)


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
