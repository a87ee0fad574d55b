"""What is said where a flag is missing, and what doctor says in a container, with a real engine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.containers.engine import Engine
from tests.containers.test_docker import TWO
from tests.support.waiting import poll

DEVICE = "--device=/dev/fuse"
LEAST = ("--cap-drop=ALL", "--cap-add=SYS_ADMIN", "--cap-add=SETUID", "--cap-add=SETGID")
LIBRARY = "--volume=/srv/games:/library:ro,rslave"

pytestmark = pytest.mark.usefixtures("image", "games")


@pytest.fixture(autouse=True)
def _clean_up(machine: Engine) -> Iterator[None]:
    yield
    machine.clear()


def run(machine: Engine, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the image with *options* to its end, which comes at once."""
    return machine.run("docker", "run", "--rm", LIBRARY, *options, "zipfs", check=False)


def test_without_any_flag(machine: Engine) -> None:
    done = run(machine)
    assert done.returncode == 5
    (line,) = done.stderr.splitlines()
    assert "--device /dev/fuse" in line
    assert "--cap-add SYS_ADMIN" in line


def test_the_device_alone(machine: Engine) -> None:
    done = run(machine, DEVICE)
    assert done.returncode == 5
    assert done.stderr == (
        "zipfs: root has no right to mount here (CAP_SYS_ADMIN); in a container, it needs --cap-add"
        " SYS_ADMIN\n"
    )


def test_the_device_as_a_volume(machine: Engine) -> None:
    """The node is there, and the container may not open it."""
    done = run(machine, "--volume=/dev/fuse:/dev/fuse", *LEAST)
    assert done.returncode == 5
    assert "pass the device in (--device /dev/fuse)" in done.stderr


@pytest.mark.parametrize("lacking", ["SETUID", "SETGID"])
def test_a_right_that_the_user_needs(machine: Engine, lacking: str) -> None:
    done = run(machine, DEVICE, *(flag for flag in LEAST if not flag.endswith(lacking)))
    assert done.returncode == 5
    assert f"--cap-add {lacking}" in done.stderr


def test_a_user_of_the_engine(machine: Engine) -> None:
    """``user:`` of a Compose file: all that it lacks, and the way that needs none of it."""
    done = machine.run(
        "docker", "run", "--rm", LIBRARY, "--user=4321:4321", "zipfs", "mount", "--allow-other",
        "/library", "/srv/www/games", check=False,
    )  # fmt: skip
    assert done.returncode == 5
    (line,) = done.stderr.splitlines()
    for words in (
        "--device /dev/fuse",
        "--cap-add SYS_ADMIN",
        "user_allow_other",
        "user 4321 has no entry in /etc/passwd",
        "$STATE_DIRECTORY",
        "zipfs mount --setuid 4321:4321",
    ):
        assert words in line


def test_a_folder_that_isn_t_shared(machine: Engine) -> None:
    options = ["--name=kept", "--volume=/srv/www:/srv/www", DEVICE, *LEAST, LIBRARY]
    machine.run("docker", "run", "--detach", *options, "zipfs")

    def logs() -> str:
        done = machine.run("docker", "logs", "kept")
        return done.stdout + done.stderr

    poll("the mount", lambda: "INFO: mounted" in logs(), 120)
    assert "bind it with -v /srv/www:/srv/www:rshared" in logs()
    doctor = machine.run(
        "docker", "exec", "kept", "zipfs", "doctor", "/library", "/srv/www/games", check=False
    )
    assert "warning propagation: nobody outside sees a mount on /srv/www/games" in doctor.stdout


def test_the_mount_point_itself_as_a_volume(machine: Engine) -> None:
    done = run(machine, "--volume=/srv/www/games:/srv/www/games:rshared", DEVICE, *LEAST)
    assert done.returncode == 4
    assert "bind the folder above instead: -v /srv/www:/srv/www:rshared" in done.stderr


def test_doctor(machine: Engine) -> None:
    machine.compose(TWO, "up", "-d")
    status = ["docker", "exec", "container-zipfs-1", "zipfs", "status", "/srv/www/games"]
    poll("the mount", lambda: machine.run(*status, check=False).returncode == 0, 120)
    said = machine.type("containers#when-it-doesnt-work")
    found = said.splitlines()
    for line in (
        "ok      mount point: zipfs is mounted on /srv/www/games",
        "ok      propagation: a mount on /srv/www/games is seen outside of the container",
        "ok      user 101: lists the mount, and reads each of 1 file tried",
    ):
        assert line in found, said
    assert any(line.startswith("ok      index: the daemon uses /state/library-") for line in found)
    for line in found:
        if "remedy: " in line:
            assert "sysctl" not in line or "on the host" in line
            assert "apt-get" not in line
