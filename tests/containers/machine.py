"""A machine of its own: a fresh Debian or Ubuntu, booted by ``systemd-nspawn``.

Its root is made by ``debootstrap``, as those of ``make distros``. It has a network namespace of
its own, which ``slirp4netns`` connects to this machine's network, so that nothing here is routed,
filtered or changed for it; and devices of its own, whose permissions here don't matter.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from bench.process import start
from tests.distros import Root
from tests.service.container import Container
from tests.support.mounting import environment
from tests.support.waiting import poll

MINUTE: Final = 60.0

_APT: Final = (
    "apt-get -q update; DEBIAN_FRONTEND=noninteractive apt-get -q install -y"
    " -o Acquire::Retries=3 --no-install-recommends $1; apt-get clean;"
    ' rm -rf /var/lib/apt/lists/*; eval "$2"'
)


class Machine(Container):
    """The machine *name* of a *system* of :data:`tests.distros.SYSTEMS`, which was not booted yet.

    Its root is below *place*; what its console says goes to the file *log*.
    """

    def __init__(self, place: Path, system: str, name: str, log: Path) -> None:
        self._name = name
        self._root = Root(place, system)
        self._root.copy = self._folder = place / system / name
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._network: subprocess.Popen[bytes] | None = None
        self._leader = 0

    @property
    def folder(self) -> Path:
        """Its root, from outside."""
        return self._folder

    # -- Its root --------------------------------------------------------------

    def make(self, packages: str, further: str) -> None:
        """Make the root, with *packages* and after *further* commands, if there is none like it."""
        stamp = self._folder.with_name(f"{self._name}.made")
        wanted = hashlib.sha256(f"{packages}{_APT}{further}".encode()).hexdigest()
        if stamp.exists() and stamp.read_text() == wanted:
            return
        stamp.unlink(missing_ok=True)
        self._root.renew()
        install(self._root, packages, further)
        stamp.write_text(wanted)

    def copy(self, other: Machine) -> None:
        """Make the root, like that of *other*, which is off."""
        self.remove()
        command = ["cp", "-a", "--reflink=auto", str(other.folder), str(self._folder)]
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True)

    def remove(self) -> None:
        """Remove the root."""
        self._folder.with_name(f"{self._name}.made").unlink(missing_ok=True)
        self._root.remove()

    # -- Its life --------------------------------------------------------------

    def boot(self) -> None:
        """Boot it, connect it, and give it devices."""
        nspawn = [
            "systemd-nspawn", "--register=no", "--keep-unit", f"--directory={self._folder}",
            "--boot", "--private-network", f"--machine=zipfs-{self._name}-{os.getpid()}",
            "--capability=all", *(f"--bind-ro={path}" for path in self._root.package_folders()),
            "--console=pipe", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
            "--kill-signal=SIGRTMIN+4", "--system-call-filter=@keyring @mount @pkey bpf",
        ]  # fmt: skip
        bind = f"mount --bind {self._folder} {self._folder}"
        with self._log.open("ab") as log:
            self._process = start(
                ["unshare", "--mount", "--propagation", "private", "sh", "-ec",
                 f'{bind}; exec "$@"', "sh", *nspawn],
                env=environment({"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}),
                stdout=log.fileno(),
                stderr=log,
            )  # fmt: skip
        poll("the machine's systemd", self._find_leader, 5 * MINUTE)
        poll(
            "the machine to be up",
            lambda: self._state() in ("running", "degraded"),
            5 * MINUTE,
        )
        self._network = start(
            ["slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback",
             str(self._leader), "tap0"],
        )  # fmt: skip
        poll("the network", lambda: "tap0" in self.shell("cat /proc/net/route"))
        # As distributions have them; those of this machine may be closed.
        for path, numbers in (("/dev/fuse", "10 229"), ("/dev/net/tun", "10 200")):
            self.shell(
                f"umount {path} || true; rm -f {path}; mkdir -p {Path(path).parent};"
                f" mknod -m 666 {path} c {numbers}"
            )

    def power_off(self) -> None:
        """End it."""
        network, self._network = self._network, None
        if network is not None:
            network.terminate()
            network.wait()
        super().power_off()


def install(root: Root, packages: str, further: str) -> None:
    """Install *packages* into a root that isn't booted, and run *further* commands there."""
    words = " ".join(packages.split())
    status = root.run("sh", "-ec", _APT, "sh", words, further, folder="/")
    assert status == 0, f"packages can't be installed: {words}"


def missing() -> str | None:
    """Why there can't be a machine here; None if there can."""
    if os.geteuid() != 0:
        return "only root can boot a machine"
    for program in ("systemd-nspawn", "debootstrap", "slirp4netns"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            return f"{program} is not installed; `make containers` installs it"
    return None
