"""``make newcomer``: from nothing to a resumed download, as the documents tell it.

    python -m tests.newcomer debian13 ubuntu2404
    python -m tests.newcomer --way demo debian13

For each system and each way a fresh machine is booted, with nothing installed but what boots it,
and somebody types what README and the manual say, which is taken from them: `make demo`; zipfs as a
service with nginx; the same with nginx in Docker. A download is cut and resumed, and is right.
What is printed in the end is a table: how long it took from the first command to the resumed
download, how much of that was apt-get's, and what came of it.

The library has a game of 64 MB. A registry of images stands in the machine itself (see
:mod:`tests.containers.images`), and bringing an image from it takes none of the time that is given.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tests.containers import images
from tests.containers.machine import MINUTE, Machine, missing
from tests.distros import locked
from tests.e2e.expected import Expected
from tests.support import documents
from tests.support.libraries import content, make_game
from tests.support.waiting import poll

_REPOSITORY: Final = Path(__file__).parents[1]
_PLACE: Final = Path("/var/tmp/zipfs-newcomer")  # noqa: S108
NAMES: Final = {"debian13": "Debian 13", "ubuntu2404": "Ubuntu 24.04"}
"""As the documents call the systems."""
_GAME: Final = "roms/psx/Game"
_HOST: Final = "containers#zipfs-on-the-host"
_URL: Final = f"http://127.0.0.1:8080/{_GAME}.zip"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SECONDS: Final = 40 * MINUTE
"""How long one command may take on a machine that has much else to do."""
_RESTARTED: Final = "zipfs@games"
_MOUNTS: Final = "grep fuse.zipfs /proc/mounts"

_SYSTEM_PACKAGES: Final = "systemd systemd-sysv dbus iproute2 procps passwd"
_TIMES: Final = "/var/log/apt-get.times"
_FRESH: Final = f"""
dpkg --purge make
apt-get -q update
# Who types says yes to apt-get, and saves the example of a config as it is.
echo 'APT::Get::Assume-Yes "true";' >/etc/apt/apt.conf.d/96yes
ln -s /bin/true /usr/local/bin/editor
# How long apt-get takes is written down.
cat >/usr/local/bin/apt-get <<'SCRIPT'
#!/bin/sh
began=$(date +%s%3N)
/usr/bin/apt-get "$@"
status=$?
echo $(($(date +%s%3N) - began)) >>{_TIMES}
exit $status
SCRIPT
chmod 755 /usr/local/bin/apt-get
"""


class Newcomer:
    """Who types at a fresh machine; all that is said goes to the file *said* as well."""

    def __init__(self, machine: Machine, system: str, said: Path) -> None:
        self.machine = machine
        self.system = system
        self._said = said
        self._began = time.monotonic()
        self._not_counted = 0.0
        self.seconds: float | None = None
        """From the first command to the resumed download; None before that."""
        self.apt_seconds = 0.0

    def type(self, script: str, folder: str = "/root") -> str:
        """What *script* says, typed at a shell of root's; it has to succeed."""
        began = time.monotonic()
        done = self.machine.run(
            "env", f"--chdir={folder}", f"PATH={_PATH}", "DEBIAN_FRONTEND=noninteractive",
            "bash", "-euc", f"exec 2>&1\n{script}", check=False, seconds=_SECONDS,
        )  # fmt: skip
        with self._said.open("a") as said:
            took = f"{time.monotonic() - began:.1f} s"
            said.write(f"\n$ {script.rstrip()}\n{done.stdout}[{done.returncode}, {took}]\n")
        if done.returncode != 0:
            last = done.stdout.rstrip().rpartition("\n")[2]
            raise AssertionError(f"status {done.returncode} of {script.strip()!r}: {last}")
        return done.stdout

    def clone(self) -> None:
        """With what "Try it" names installed."""
        self.type(f"{before_the_clone()}\ngit clone --quiet /srv/zipfs.git zipfs")

    @contextmanager
    def not_counted(self) -> Iterator[None]:
        """For what a newcomer gets otherwise."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._not_counted += time.monotonic() - began

    def stop_clock(self) -> None:
        """There is the resumed download."""
        self.seconds = time.monotonic() - self._began - self._not_counted
        times = self.machine.folder / _TIMES.lstrip("/")
        self.apt_seconds = sum(int(line) for line in times.read_text().split()) / 1000


# -- What the documents say beside their blocks ----------------------------------------


def before_the_clone() -> str:
    """How to install what "Try it" names."""
    names = [name for name in documents.quoted("README#try-it") if re.fullmatch(r"\w+", name)]
    return f"apt-get install {' '.join(names)}"


def with_nginx() -> str:
    """How to install nginx, to write its configuration, and to have it read."""
    place = "README#serve-it"
    said = documents.quoted(place)
    packages = next(piece for piece in said if piece.startswith("apt-get install"))
    file = next(piece for piece in said if piece.startswith("/etc/nginx/"))
    reload = next(piece for piece in said if piece.startswith("nginx -t"))
    server = documents.block(place, "server {")
    return f"{packages}\nprintf %s {shlex.quote(server)} >{file}\n{reload}"


def before_docker(system: str) -> str:
    """How to install Docker and Compose on *system*."""
    name = NAMES[system]
    text = " ".join(documents.section(_HOST).split())
    found = re.search(rf"`(apt-get install [^`]+)` on {re.escape(name)}", text)
    assert found, f"{_HOST} doesn't say what to install on {name}"
    return found[1]


# -- The ways --------------------------------------------------------------------------


def try_demo(you: Newcomer) -> None:
    """``make demo``, and what it says is to be tried."""
    you.clone()
    command = f"exec {documents.block('README#try-it').strip()} >/root/said 2>&1"
    demo = you.machine.start(
        "env", "--chdir=/root/zipfs", f"PATH={_PATH}", "setsid", "bash", "-c",
        f"echo $$ >/run/demo; {command}",
    )  # fmt: skip
    said = you.machine.folder / "root/said"

    def invites() -> bool:
        assert demo.poll() is None, said.read_text()[-2000:]
        return "Ctrl-C ends it all" in said.read_text()

    try:
        poll("the demo to be ready", invites, _SECONDS)
        lines = [line.strip() for line in said.read_text().splitlines()]
        slow, resume, test = (
            next(line for line in lines if line.startswith(beginning))
            for beginning in ("curl --limit-rate", "curl -C -", "unzip -t")
        )
        _cut(you, slow)
        you.type(f"{resume}\n{test}")
        you.stop_clock()
    finally:
        # Ctrl-C of a terminal is a signal to all of them; Ubuntu's sh knows no groups.
        # Before the machine ends, or nsenter(1) is stopped with them, and nobody waits for them.
        you.machine.run("bash", "-c", "kill -INT -- -$(cat /run/demo)", check=False)
        demo.wait(10 * MINUTE)
    for left in (_MOUNTS, "pgrep -x nginx", "ls -d /tmp/zipfs-demo-*"):
        you.type(f"if {left}; then exit 1; fi")


def install_service(you: Newcomer) -> None:
    """``make install`` and nginx of the system."""
    _start_service(you)
    you.type(with_nginx())
    _download(you)


def serve_from_docker(you: Newcomer) -> None:
    """The service, and nginx in Docker."""
    _start_service(you)
    you.type(before_docker(you.system))
    with you.not_counted():
        images.bring(you.machine, _place_of(you.machine), "nginx")
    you.type(documents.block(_HOST, "docker compose"), "/root/zipfs")
    _download(you)
    you.type("docker compose -f systemd/container/host.yml down", "/root/zipfs")


def _start_service(you: Newcomer) -> None:
    you.clone()
    you.type(documents.block("service", "make install"), "/root/zipfs")


def _download(you: Newcomer) -> None:
    """Cut and resumed; and another, during which the service is restarted."""
    folder = you.machine.folder / "srv/games" / _GAME
    with you.not_counted():
        wanted = Expected(folder).sha256()
    you.type("command -v curl || apt-get install curl")
    you.type(f"timeout 900 sh -c 'until curl -sfI {_URL}; do sleep 0.2; done'")
    _cut(you, f"curl -sSf --limit-rate 8M -o game.zip {_URL}")
    you.type(f"curl -sSf -C - -o game.zip {_URL}\necho {wanted} game.zip | sha256sum -c")
    you.stop_clock()

    you.type(
        f"curl -sSf --limit-rate 2M -o other.zip {_URL} & downloading=$!\n"
        f"{_until_bigger('other.zip')}\n"
        f"systemctl restart {_RESTARTED}\n"
        "kill -0 $downloading  # or this would show nothing\n"
        "wait $downloading\n"
        f"echo {wanted} other.zip | sha256sum -c"
    )
    you.type(f"systemctl disable --now {_RESTARTED}\nif {_MOUNTS}; then exit 1; fi")


def _cut(you: Newcomer, command: str) -> None:
    """Begin the download of *command*, which has ``-o FILE``, and press Ctrl-C."""
    words = shlex.split(command)
    file = words[words.index("-o") + 1]
    # With -m a job in the background hears of Ctrl-C.
    you.type(
        f"set -m\n{command} & downloading=$!\n{_until_bigger(file)}\n"
        "kill -INT $downloading\nif wait $downloading; then exit 1; fi"
    )


def _until_bigger(file: str) -> str:
    size = f"$(stat -c %s {shlex.quote(file)} 2>/dev/null || echo 0)"
    return f"until [ {size} -gt 1000000 ]; do sleep 0.1; done"


WAYS: Final[dict[str, tuple[str, Callable[[Newcomer], None]]]] = {
    "demo": ("`make demo`", try_demo),
    "service": ("service, nginx", install_service),
    "docker": ("service, nginx in Docker", serve_from_docker),
}


# -- All of them -----------------------------------------------------------------------


class _Row(NamedTuple):
    system: str
    way: str
    seconds: float | None
    apt_seconds: float
    fault: str

    def __str__(self) -> str:
        seconds = "" if self.seconds is None else f"{self.seconds:.0f}"
        result = self.fault or "works"
        return f"| {self.system} | {self.way} | {seconds} | {self.apt_seconds:.0f} | {result} |"


def _place_of(machine: Machine) -> Path:
    return machine.folder.parents[1]


def _furnish(machine: Machine) -> None:
    """What the machine of somebody who plays has: a library, and where to clone zipfs from."""
    games = machine.folder / "srv/games"
    make_game(games, _GAME, {"a.bin": content(64_000_000, 1), "b.bin": content(70_000, 2)})
    for path in (games, *games.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    clone = ["git", "clone", "--quiet", "--bare", "--no-hardlinks", str(_REPOSITORY)]
    subprocess.run([*clone, str(machine.folder / "srv/zipfs.git")], check=True)


def _try(place: Path, system: str, way: str, fresh: Machine) -> _Row:
    name, follow = WAYS[way]
    console, said = (place / f"{system}-{way}.{kind}" for kind in ("console", "said"))
    said.unlink(missing_ok=True)
    machine = Machine(place, system, way, console)
    you: Newcomer | None = None
    try:
        machine.copy(fresh)
        _furnish(machine)
        with _booted(machine):
            you = Newcomer(machine, system, said)
            follow(you)
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        fault = " ".join(str(error).split())[-200:] or repr(error)
        for file in (console, said):
            if file.exists():
                print(f"-- {file.name}:\n{file.read_text(errors='replace')[-5000:]}", flush=True)
    else:
        fault = ""
    finally:
        machine.remove()
    seconds, apt_seconds = (you.seconds, you.apt_seconds) if you else (None, 0.0)
    return _Row(NAMES[system], name, seconds, apt_seconds, fault)


@contextmanager
def _booted(machine: Machine) -> Iterator[None]:
    try:
        machine.boot()
        yield
    finally:
        machine.power_off()


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _run(place: Path, systems: Sequence[str], ways: Sequence[str]) -> list[_Row]:
    rows = []
    if "docker" in ways:
        images.pack(place, "nginx")
    for system in systems:
        fresh = Machine(place, system, "fresh", place / f"{system}-fresh.console")
        fresh.make(_SYSTEM_PACKAGES, _FRESH)
        for way in ways:
            before = _load()
            rows.append(_try(place, system, way, fresh))
            print(f"{rows[-1]} load {before} before, {_load()} after", flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Follow each way on each system; the exit status is 1 if one leads nowhere."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.newcomer", description=__doc__.split("\n")[0]
    )
    parser.add_argument("system", nargs="*", help=f"of {', '.join(NAMES)} (all)")
    parser.add_argument("--way", action="append", choices=WAYS, help="all of them, if not given")
    parser.add_argument("--keep", action="store_true", help="leave what was made for the next run")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.system) - set(NAMES):
        parser.error(f"unknown systems: {', '.join(sorted(unknown))}")
    if why := missing():
        parser.error(why)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Whoever starts us in the background has it ignored; those who download mustn't.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with locked(_PLACE / "newcomer.lock"):
        try:
            rows = _run(_PLACE, chosen.system or list(NAMES), chosen.way or list(WAYS))
        finally:
            if not chosen.keep:
                shutil.rmtree(_PLACE)
    print("\n| system | way | seconds | of which apt-get | result |\n|---|---|--:|--:|---|")
    for row in rows:
        print(row)
    print(f"\n{os.cpu_count()} CPUs, Linux {os.uname().release}")
    return 1 if any(row.fault for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
