"""A machine with container engines: Docker and Podman of Debian 13 or Ubuntu 24.04.

Its root is kept; the engines' own storage is in it, with the base images of :mod:`.images`.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.containers import images
from tests.containers.machine import MINUTE, Machine
from tests.distros import locked
from tests.support import documents

PLACE: Final = Path(os.environ.get("CONTAINERS_PLACE") or "/var/tmp/zipfs-containers")  # noqa: S108
"""Where roots are kept between two runs."""
SYSTEM: Final = os.environ.get("CONTAINERS_SYSTEM") or "debian13"
REPOSITORY: Final = Path(__file__).parents[2]
SOURCE: Final = "/root/zipfs"
"""Where the repository's files are in it."""
USER: Final = "gamer"
"""Who has a rootless Podman there."""

_PACKAGES: Final = """
    systemd systemd-sysv dbus dbus-user-session docker.io docker-buildx
    podman podman-compose crun netavark aardvark-dns passt slirp4netns uidmap fuse-overlayfs
    iptables nftables iproute2 curl aria2 procps python3 python3-venv fuse3 passwd
"""
_OWN_PACKAGES: Final = {
    # Each calls its Compose and its client in its own way.
    "debian13": "docker-cli docker-compose",
    "ubuntu2404": "docker-compose-v2",
}


class Engine(Machine):
    """The machine, which was not booted yet."""

    def __init__(self, place: Path, log: Path) -> None:
        super().__init__(place, SYSTEM, "engine", log)
        self._place = place

    def prepare(self) -> None:
        """Make its root, if there is none like it."""
        setup = (
            f"useradd --create-home --shell /bin/bash {USER}; systemctl disable docker.service"
            " containerd.service apt-daily.timer apt-daily-upgrade.timer || true"
        )
        self.make(f"{_PACKAGES} {_OWN_PACKAGES[SYSTEM]}", setup)

    def boot(self) -> None:
        """Boot it, and have the base images and our files there."""
        super().boot()
        # This machine's cgroups may have no controllers for another systemd.
        self.shell(
            "mkdir -p /etc/containers; printf '[containers]\\npids_limit = 0\\n'"
            " > /etc/containers/containers.conf; systemctl start docker"
        )
        self.clear()
        there = self.shell("docker images --format '{{.Repository}}:{{.Tag}}'").split()
        for name in images.BASES:
            if (name if ":" in name else f"{name}:latest") not in there:
                images.bring(self, self._place, name)
        self.bring()

    def clear(self) -> None:
        """Remove containers and volumes that an earlier run has left."""
        self.shell("docker ps -aq | xargs -r docker rm -f; docker volume prune -af")
        self.shell("grep -o '/[^ ]* fuse.zipfs' /proc/mounts | cut -d' ' -f1 | xargs -r umount -l")

    def bring(self) -> None:
        """Copy the repository's files, as they are now."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard",
             ".ci", "LICENSE", "README.md", "pyproject.toml", "zipfs", "systemd"],
            cwd=REPOSITORY, check=True, capture_output=True,
        ).stdout  # fmt: skip
        names = filter(None, listed.split(b"\0"))
        there = [name for name in names if (REPOSITORY / os.fsdecode(name)).exists()]
        packed = subprocess.run(
            ["tar", "-c", "--null", "-T", "-"],
            cwd=REPOSITORY, input=b"\0".join(there), check=True, capture_output=True,
        ).stdout  # fmt: skip
        script = f"rm -rf {SOURCE}; mkdir -p {SOURCE}; tar -x -C {SOURCE}"
        subprocess.run(
            [*self._inside(None), "sh", "-ec", script], input=packed, check=True, timeout=MINUTE
        )

    # -- In it -----------------------------------------------------------------

    def compose(self, file: str, *words: str, seconds: float = 10 * MINUTE) -> str:
        """Run ``docker compose`` with one of our files; all that it says."""
        command = ["docker", "compose", "-f", f"systemd/container/{file}", *words]
        script = f"cd {SOURCE}; {shlex.join(command)} 2>&1"
        return self.run("sh", "-ec", script, seconds=seconds).stdout

    def type(self, place: str, having: str = "") -> str:
        """Run the block of the manual at *place* as it is; all that it says."""
        script = f"cd {SOURCE}; exec 2>&1\n{documents.block(place, having)}"
        return self.run("sh", "-euc", script, seconds=20 * MINUTE).stdout

    def gamer(self, script: str, seconds: float = 10 * MINUTE) -> str:
        """What *script* prints, run by a user with a session."""
        command = f"export HOME=/home/{USER} XDG_RUNTIME_DIR=/run/user/1000; cd; {script}"
        return self.run("bash", "-ec", command, user=USER, seconds=seconds).stdout


@contextlib.contextmanager
def engine(log: Path) -> Iterator[Engine]:
    """A booted machine, that is off in the end."""
    PLACE.mkdir(parents=True, exist_ok=True)
    with locked(PLACE / "engine.lock"):
        machine = Engine(PLACE, log)
        machine.prepare()
        try:
            machine.boot()
            yield machine
        finally:
            machine.power_off()
