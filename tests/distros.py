"""``make distros``: does what CI runs pass on a fresh system, with nothing installed?

    python -m tests.distros debian13            # `make test` in a new, bare Debian 13
    python -m tests.distros ubuntu2404 desktop  # other targets of the Makefile
    python -m tests.distros --keep debian13; python -m tests.distros --again debian13

A *root* is a folder that ``debootstrap`` makes: the smallest system that has apt. It gets a clone
of what is committed here, and all else that it needs is for the Makefile to install. Its packages
come from the archives that debootstrap knows, its Python packages from where this machine has
them: settings of apt, pip and npm, certificates and proxies are this machine's, copied.

It is no container with its own systemd, but a process tree with mounts of its own, in which all
devices and permissions are this machine's: tests mount, make loop devices and boot containers as
they would outside.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.mount import mounts_below

_REPOSITORY: Final = Path(__file__).parents[1]
_CLONE: Final = "/root/zipfs"


@dataclass(frozen=True, kw_only=True)
class _System:
    """A distribution: its *suite*, debootstrap's *script* for it, its archive's *keyring*."""

    suite: str
    script: str
    components: str
    keyring: str | None = None


SYSTEMS: Final = {
    "debian12": _System(suite="bookworm", script="sid", components="main"),
    "debian13": _System(suite="trixie", script="sid", components="main"),
    # Testing, until it is released: it changes from day to day.
    "debian14": _System(suite="forky", script="sid", components="main"),
    "ubuntu2404": _System(
        suite="noble",
        script="gutsy",  # of that year; what all later ones use, and older debootstraps have
        components="main,universe",
        keyring="ubuntu-archive-keyring.gpg",
    ),
}
_KEYRINGS: Final = Path("/usr/share/keyrings")
_KEYRING_FROM: Final = ("debian13", "ubuntu-keyring")
"""A system, and its package with the keyring: not every Debian has it."""
_TRIES: Final = 3
"""How often a base is begun, as an archive may not answer; what came is kept."""

_VARIABLE: Final = re.compile(
    r".*_proxy|pip_.*|npm_config_.*|.*ca_?(bundle|info|path|certs?|file).*|.*cert.*"
    r"|pytest_args|soak_.*|endure_.*|.*_args|ci",
    re.IGNORECASE,
)
"""What in our environment concerns how packages are fetched, or the target that is run."""
_SETTINGS: Final = (
    "/etc/hosts",
    "/etc/npmrc",
    "/etc/pip.conf",
    "/etc/resolv.conf",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/xdg/pip",
    "/usr/local/share/ca-certificates",
    "~/.config/pip/pip.conf",
    "~/.npmrc",
    "~/.pip/pip.conf",
)
_APT: Final = re.compile(r"Acquire::(https?|Check-[\w-]+|Retries)\b.*;", re.IGNORECASE)
_FOLDER: Final = re.compile(r"(?:file://)?(/[\w./+-]+)")

_ENTER: Final = r"""
mount --bind "$1" "$1"
cd "$1"
mount --rbind /dev dev
mount --rbind /sys sys
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount --bind "$2" var/cache/apt/archives
mkdir -p root/.cache
mount --bind "$3" root/.cache
shift 3
while [ "$1" != -- ]; do
    mkdir -p "./$1"
    mount --bind -o ro "$1" "./$1"
    shift
done
shift
mkdir -p .outside
pivot_root . .outside
# Not exec: this shell is the first process, and has to take in those that lose their parent.
chroot . sh -ec 'umount --lazy /.outside; rmdir /.outside; cd "$0"; exec "$@"' "$@"
"""


class Root:
    """The system *name* below *place*: a base that is kept, and a copy of it for each run."""

    def __init__(self, place: Path, name: str) -> None:
        self._place = place
        self._name = name
        self._system = SYSTEMS[name]
        self._folder = place / name
        self.base = self._folder / "base"
        self.copy = self._folder / "root"
        self._debs = self._folder / "debs"
        self._cache = self._folder / "cache"

    def make_base(self) -> None:
        """Make the base, if there is none."""
        for folder in (self._folder, self._debs, self._debs / "partial", self._cache):
            folder.mkdir(parents=True, exist_ok=True)
        with locked(self._folder / "base.lock"):
            if not (self._folder / "made").exists():
                self._bootstrap()

    def _bootstrap(self) -> None:
        keyring = self._find_keyring()
        system = self._system
        command = [
            "debootstrap",
            "--variant=minbase",
            f"--components={system.components}",
            "--include=ca-certificates,make",
            f"--cache-dir={self._debs}",
            *([f"--keyring={keyring}"] if keyring else []),
            system.suite,
            str(self.base),
            "",  # the archive that its script names
            system.script,
        ]
        for left in reversed(range(_TRIES)):
            _remove(self.base)
            done = subprocess.run(command, stdin=subprocess.DEVNULL, check=not left)
            if done.returncode == 0:
                break
        sources = self.base / "etc/apt/sources.list"
        line = sources.read_text().splitlines()[0]
        sources.write_text(f"{line}\n{line.replace(system.suite, f'{system.suite}-updates')}\n")
        (self._folder / "made").touch()

    def _find_keyring(self) -> Path | None:
        if self._system.keyring is None:
            return None
        installed = _KEYRINGS / self._system.keyring
        if installed.exists():
            return installed
        kept = self._place / self._system.keyring
        if not kept.exists():
            name, package = _KEYRING_FROM
            other = Root(self._place, name)
            other.copy = self._folder / "for-keyring"  # its own one may be kept
            other.renew()
            script = f"apt-get -q update; cd /tmp; apt-get download {package}; dpkg -x {package}* ."
            other.run("sh", "-ec", script, folder="/")
            shutil.copy(other.copy / "tmp" / str(installed).lstrip("/"), kept)
            other.remove()
        return kept

    def renew(self) -> None:
        """A new copy of the base, with this machine's settings."""
        self.make_base()
        self.remove()
        _run("cp", "-a", "--reflink=auto", str(self.base), str(self.copy))
        for name in _SETTINGS:
            source = Path(name).expanduser()
            if source.exists():
                self._carry(source, name.replace("~", "/root"))
        for value in _variables().values():
            if value.startswith("/") and os.path.isfile(value) and value not in _SETTINGS:
                self._carry(Path(value), value)
        settings = subprocess.run(
            ["apt-config", "dump"], capture_output=True, text=True, check=True
        )
        chosen = [line for line in settings.stdout.splitlines() if _APT.fullmatch(line)]
        (self.copy / "etc/apt/apt.conf.d/95machine").write_text("".join(f"{c}\n" for c in chosen))

    def _carry(self, source: Path, name: str) -> None:
        target = self.copy / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            target.unlink(missing_ok=True)  # a link may lead out of the root
            shutil.copyfile(source, target)

    def clone(self) -> None:
        """A clone of what is committed here."""
        target = self.copy / _CLONE.lstrip("/")
        shutil.rmtree(target, ignore_errors=True)
        _run("git", "clone", "--quiet", "--no-hardlinks", str(_REPOSITORY), str(target))

    def pull(self) -> None:
        """What was committed since."""
        git = ["git", "-C", str(self.copy / _CLONE.lstrip("/"))]
        _run(*git, "fetch", "--quiet", str(_REPOSITORY), "HEAD")
        _run(*git, "reset", "--quiet", "--hard", "FETCH_HEAD")

    def run(self, *command: str, folder: str = _CLONE) -> int:
        """Run *command* in the copy; its exit status."""
        variables = {"HOME": "/root", "LANG": "C.UTF-8", "TERM": os.environ.get("TERM", "dumb")}
        variables |= _variables() | {"CI": "true"}  # what can't be tested fails, and isn't skipped
        variables["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return subprocess.run(
            [
                "unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private",
                "sh", "-ec", _ENTER, "enter",
                self.copy, self._debs, self._cache, *self.package_folders(), "--", folder, *command,
            ],
            env=variables,
            stdin=subprocess.DEVNULL,
            check=False,
        ).returncode  # fmt: skip

    def package_folders(self) -> list[str]:
        """Folders of packages on this machine that pip's settings name."""
        texts = list(_variables().values())
        for name in _SETTINGS:
            source = Path(name).expanduser()
            if "pip" in name and source.exists():
                files = source.iterdir() if source.is_dir() else [source]
                texts += [file.read_text(errors="replace") for file in files if file.is_file()]
        # An index in a folder has its files beside it.
        found = {p.removesuffix("/simple") for text in texts for p in _FOLDER.findall(text)}
        return sorted(
            path
            for path in found
            if os.path.isdir(path)
            and path.count("/") > 1
            and not path.startswith(("/etc", "/root"))
        )

    def remove(self) -> None:
        """Remove the copy."""
        _remove(self.copy)


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if _VARIABLE.fullmatch(name)}


def _remove(folder: Path) -> None:
    """Remove *folder*, and nothing that a run which was broken off has left mounted in it."""
    for mount in reversed(mounts_below(folder)):
        _run("umount", str(mount))
    _run("rm", "-rf", "--one-file-system", str(folder))


def _run(*command: str) -> None:
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run targets in a root; the exit status is that of the first that fails."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.distros", description=__doc__.split("\n")[0]
    )
    parser.add_argument("system", choices=sorted(SYSTEMS))
    parser.add_argument("target", nargs="*", default=["test"], help="of the Makefile (test)")
    parser.add_argument("--place", type=Path, default=_REPOSITORY / ".distros")
    parser.add_argument("--keep", action="store_true", help="leave the root there afterwards")
    parser.add_argument("--again", action="store_true", help="in the root that was kept; keep it")
    chosen = parser.parse_args(arguments)
    if os.geteuid() != 0:
        parser.error("only root can do that")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    root = Root(chosen.place.absolute(), chosen.system)
    with locked(chosen.place.absolute() / f"{chosen.system}.lock"):
        return _run_targets(root, chosen)


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Wait until nobody else has *file* locked, and lock it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run_targets(root: Root, chosen: argparse.Namespace) -> int:
    status = 0
    try:
        if chosen.again:
            root.pull()
        else:
            root.renew()
            root.clone()
        for target in chosen.target:
            began = time.monotonic()
            status = root.run("make", "--no-print-directory", *target.split())
            took = f"{time.monotonic() - began:.0f} s"
            print(f"{chosen.system}: make {target}: exit status {status}, {took}", flush=True)
            if status:
                break
    finally:
        if not (chosen.keep or chosen.again):
            root.remove()
    return status


if __name__ == "__main__":
    sys.exit(main())
