"""A real systemd in a container: this system's own programs, and only the units that tests need.

``systemd-nspawn`` over an overlay of this system's root, in a mount namespace that ends with it:
whatever happens, no mount is left. What is installed, enabled or configured on this machine takes
no part: the folders that systemd reads units, generators and settings from are hidden, and a few
of the machine's own units are put back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.process import start
from tests.support.mounting import environment
from tests.support.waiting import SECONDS, poll

_REPOSITORY: Final = Path(__file__).parents[2]
_BOOT_SECONDS: Final = 300.0
"""As long as a machine with much other work may take."""
_HIDDEN: Final = (
    "/etc/init.d",
    "/etc/nginx/conf.d",
    "/etc/nginx/modules-enabled",
    "/etc/nginx/sites-enabled",
    "/etc/systemd",
    "/etc/tmpfiles.d",
    "/usr/local/lib/systemd",
    "/usr/local/lib/tmpfiles.d",
    *(
        f"/usr/lib/{folder}"
        for folder in (
            "systemd/system",
            "systemd/system-environment-generators",
            "systemd/system-generators",
            "systemd/system-preset",
            "tmpfiles.d",
        )
    ),
    *(
        f"/usr/lib/systemd/{settings}.conf.d"
        for settings in ("system", "journald", "user", "logind")
    ),
)
"""Folders of which the container has only what is put there for it. /etc/systemd has the links
of `systemctl enable`, and drop-ins; packages put such links below /usr/lib, too."""
_TARGETS: Final = """
    basic emergency final first-boot-complete local-fs local-fs-pre multi-user network
    network-online network-pre nss-lookup nss-user-lookup paths poweroff remote-fs remote-fs-pre
    rescue shutdown slices sockets swap sysinit time-set time-sync timers umount
"""
_UNITS: Final = (
    *(f"{name}.target" for name in _TARGETS.split()),
    "nginx.service",
    "systemd-journald-dev-log.socket",
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-poweroff.service",
    "systemd-tmpfiles-setup.service",
)
"""What boots, and what tests start. The machine's own files, as its users have them."""
_WANTED: Final = {
    "sysinit": ("systemd-journald.service", "systemd-tmpfiles-setup.service"),
    "sockets": ("systemd-journald.socket", "systemd-journald-dev-log.socket"),
}
_GENERATORS: Final = ("systemd-fstab-generator",)  # and ours, which `make install` brings
_TMPFILES: Final = ("systemd.conf", "systemd-tmp.conf", "tmp.conf", "var.conf")
_SETTINGS: Final = {
    "/etc/machine-id": "",
    "/etc/fstab": "",
    # No directory service of the machine's is asked who somebody is.
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
    "/etc/systemd/system.conf": "[Manager]\nDefaultTimeoutStartSec=300\n",
    # All that a service logs is kept, however much, and nothing of the machine's own journal.
    "/etc/systemd/journald.conf": "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n",
    "/etc/nginx/nginx.conf": """
user www-data;
pid /run/nginx.pid;
events {}
http {
    access_log off;
    include conf.d/*.conf;
}
""",
}
_LET_GO: Final = (
    "cut -d' ' -f5 /proc/self/mountinfo | grep -vE '^/($|proc|sys|dev($|/pts|/shm$))' | tac"
    ' | while read -r path; do umount --lazy "$(printf %b "$path")" || true; done'
)
"""In its mount namespace, mounts of others are copies, which would go on when theirs have ended:
a daemon, for one, wouldn't be told that it was unmounted."""


class Container:
    """A container that was not booted yet; *place* is where its files are.

    That is another file system than the root's: an overlay can't lie in what it lies over.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self.stage = place / "stage"
        """Laid over this system's root: put files here before :meth:`boot`."""
        self._log = place / "console.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        for name in ("stage", "upper", "work", "root"):
            (place / name).mkdir()

    def install(self) -> None:
        """``make install``, as for a package."""
        done = subprocess.run(
            ["make", "--no-print-directory", "install", f"DESTDIR={self.stage}"],
            cwd=_REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout

    def furnish(self) -> None:
        """What any container needs."""
        for path in _HIDDEN:
            folder = self._staged(path)
            folder.mkdir(parents=True, exist_ok=True)
            # overlayfs shows nothing of what lies below such a folder.
            os.setxattr(folder, "trusted.overlay.opaque", b"y")
        for folder, names in (
            ("systemd/system", _UNITS),
            ("systemd/system-generators", _GENERATORS),
            ("tmpfiles.d", _TMPFILES),
        ):
            for name in names:
                file = Path("/usr/lib", folder, name)
                if file.exists():  # not every version of systemd has all of them
                    shutil.copy2(file, self._staged(str(file)), follow_symlinks=False)
        units = self._staged("/usr/lib/systemd/system")
        (units / "default.target").symlink_to("multi-user.target")
        for target, names in _WANTED.items():
            wants = units / f"{target}.target.wants"
            wants.mkdir()
            for name in names:
                (wants / name).symlink_to(f"../{name}")
        for path, text in _SETTINGS.items():
            self.write(path, text)

    def _staged(self, path: str) -> Path:
        """Where *path* is in the stage."""
        return self.stage / path.lstrip("/")

    def write(self, path: str, text: str) -> None:
        """Write a file before the container is booted."""
        file = self._staged(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def boot(self) -> None:
        """Boot it, and wait until all is started."""
        folders = f"lowerdir={self.stage}:/,upperdir={self._place}/upper,workdir={self._place}/work"
        root = self._place / "root"
        nspawn = (
            f"systemd-nspawn --register=no --keep-unit --directory={root} --boot"
            f" --private-network --machine=zipfs-test-{os.getpid()} --capability=all"
            " --bind=/dev/fuse --bind=/dev/autofs --console=pipe --resolv-conf=off"
            " --timezone=off --link-journal=no --kill-signal=SIGRTMIN+4"
        )
        script = f"{_LET_GO}; mount -t overlay overlay -o {folders} {root}; exec {nspawn}"
        with self._log.open("ab") as log:
            self._process = start(
                ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script],
                env=environment(
                    {
                        "SYSTEMD_LOG_LEVEL": "warning",
                        # Also where the machine has the old hierarchy, which new systemds refuse.
                        "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                    }
                ),
                stdout=log.fileno(),
                stderr=log,
            )
        poll("the container's systemd", self._find_leader, _BOOT_SECONDS)
        deadline = time.monotonic() + _BOOT_SECONDS
        while (state := self._state()) not in ("running", "degraded"):
            assert time.monotonic() < deadline, f"{state}: {self._log.read_text(errors='replace')}"
            time.sleep(0.1)

    def _state(self) -> str:
        return self.run("systemctl", "is-system-running", check=False).stdout.strip()

    def _find_leader(self) -> bool:
        process = self._process
        assert process is not None
        assert process.poll() is None, self._log.read_text(errors="replace")
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{process.pid}/task").iterdir():
                for pid in (task / "children").read_text().split():
                    if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                        self._leader = int(pid)
                        return True
        return False

    def run(
        self, *command: str, check: bool = True, user: str | None = None, seconds: float = SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run *command* in the container, to its end."""
        done = subprocess.run(
            [*self._inside(user), *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=seconds,
            check=False,
        )
        if check:
            assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start *command* in the container; what it says is nobody's."""
        return start([*self._inside(None), *command])

    def shell(self, script: str, *, user: str | None = None) -> str:
        """What *script* prints in the container; it has to succeed."""
        return self.run("sh", "-euc", script, user=user).stdout

    def _inside(self, user: str | None) -> list[str]:
        variables = ("HOME=/root", "LC_ALL=C.UTF-8", f"PATH={os.defpath}:/usr/local/bin:/usr/sbin")
        enter = ["nsenter", f"--target={self._leader}", "--all", "--wd=/"]
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []
        # nsenter's own folder is outside of the container's root, where getcwd(2) fails.
        return [*enter, "env", "-i", "--chdir=/", *variables, *become]

    def show(self, unit: str, name: str) -> str:
        """A property of *unit*."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()

    def journal(self, unit: str) -> str:
        """All that *unit* has logged."""
        self.run("journalctl", "--sync", check=False)
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}").stdout

    def power_off(self) -> None:
        """End it, as by its switch; what was written stays for the next boot."""
        process, self._process = self._process, None
        if process is None:
            return
        if self._leader and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._leader, signal.SIGRTMIN + 4)  # systemd(1): poweroff.target
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(self._log.read_text(errors="replace")) from None
        finally:
            self._leader = 0


def missing() -> str | None:
    """Why there can't be a container here; None if there can."""
    if os.geteuid() != 0:
        return "only root can boot a container"
    if shutil.which("systemd-nspawn") is None:
        return "systemd-nspawn is not installed"
    return None


@contextlib.contextmanager
def container(place: Path, *, bare: bool = False) -> Iterator[Container]:
    """A container with zipfs installed unless it is to be *bare*; it is off in the end."""
    made = Container(place)
    if not bare:
        made.install()
    made.furnish()
    try:
        yield made
    finally:
        made.power_off()
