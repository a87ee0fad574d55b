"""`make demo`: free games (or LIBRARY=/path) mounted by zipfs and served by nginx, to play with.

Runs until Ctrl-C or SIGTERM, then takes away all that it made and exits with 0.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench import BenchError, games
from bench.mount import Mount, mounted, wait_ready
from bench.session import Stop, StoppedError, temporary_folder
from bench.web import Server, check_port, nginx

PORT: Final = 8080
# The free games are hashed in a second; what takes longer is the time a folder must be at rest.
SEAL_SECONDS: Final = 120.0
# How long to look for archives in somebody's own library, which may hold any number of files.
LOOK_SECONDS: Final = 3.0
EXAMPLES: Final = 2


def say(text: str = "", end: str = "\n") -> None:
    """Print a line, at once also if the output is a pipe."""
    try:
        print(text, end=end, flush=True)
    except OSError:  # nobody reads any more: `make demo | head`, or a terminal that was closed
        # The interpreter's own flush at exit would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise StoppedError(signal.SIGPIPE) from None


class _Progress:
    """zipfs' STATUS=, in place on a terminal, otherwise a line now and then."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._shown = ""
        self._next = 0.0

    def show(self, status: str) -> None:
        if status == self._shown:
            return
        if self._terminal:
            columns = shutil.get_terminal_size().columns - 1
            say(f"\r\x1b[K{status[:columns]}", end="")
        elif time.monotonic() >= self._next:
            say(status)
            self._next = time.monotonic() + 5
        else:
            return
        self._shown = status

    def done(self) -> None:
        """End the line that `show` left open."""
        if self._terminal and self._shown:
            say()
        self._shown = ""


def _wait_until_sealed(mount: Mount, archives: Sequence[Path], stop: Stop) -> None:
    """Wait until these are there (S1: an archive is listed once its checksums are known)."""
    progress = _Progress()
    deadline = time.monotonic() + SEAL_SECONDS
    try:
        while missing := [path for path in archives if not path.exists()]:
            stop.check()
            mount.check()
            if time.monotonic() > deadline:
                names = ", ".join(path.name for path in missing)
                raise BenchError(f"not ready after {SEAL_SECONDS:.0f} s: {names}")
            progress.show(mount.status)
            mount.wait(0.1)
    finally:
        progress.done()


def _wait_for_some(mount: Mount, stop: Stop) -> list[Path]:
    """The archives of somebody's own library: all, if no more come, or those of the first moments.

    A big library takes hours to hash, and what is there can be downloaded meanwhile.
    """
    progress = _Progress()
    deadline = time.monotonic() + 4 * LOOK_SECONDS
    before: list[Path] = []
    try:
        while True:
            pause = time.monotonic() + 1
            while time.monotonic() < pause:
                stop.check()
                mount.check()
                progress.show(mount.status)
                mount.wait(0.1)
            found = _archives(mount.mountpoint)
            if (found and found == before) or time.monotonic() > deadline:
                return found
            before = found
    finally:
        progress.done()


def _archives(mountpoint: Path) -> list[Path]:
    """The .zip files in the mount, the biggest first, as far as they are found in a short time."""
    found: list[tuple[int, str]] = []
    folders = [str(mountpoint)]
    deadline = time.monotonic() + LOOK_SECONDS
    while folders and time.monotonic() < deadline:
        # A folder of a library may be closed to us, or gone since it was listed.
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.name.lower().endswith(".zip"):
                    found.append((entry.stat().st_size, entry.path))
    return [Path(path) for _, path in sorted(found, reverse=True)]


def _print_suggestions(server: Server, mountpoint: Path, archives: Sequence[Path]) -> None:
    say()
    say(f"All games:  {server.url}/")
    say(f"The mount:  {mountpoint}")
    if not archives:
        say("No archive is ready yet: their checksums are being computed, see above.")
    for path in archives[:EXAMPLES]:
        url = shlex.quote(server.url_of(path.relative_to(mountpoint)))
        name = shlex.quote(path.name)
        say()
        say(f"{path.name}, {path.stat().st_size / 1e6:.1f} MB, to try in another terminal:")
        say(f"  curl -I {url}")
        say("interrupt this one with Ctrl-C, and let the next resume it:")
        say(f"  curl --limit-rate 8M -o {name} {url}")
        say(f"  curl -C - -o {name} {url}")
        say(f"  unzip -t {name}")
        say("16 connections at once:")
        say(f"  aria2c -x16 -s16 -k1M --allow-overwrite=true -o {name} {url}")
        say("without any download:")
        say(f"  unzip -l {shlex.quote(str(path))}")
    say()
    say("Ctrl-C ends it all and leaves only what you downloaded.")


def _run(library: Path | None, port: int, stop: Stop) -> None:
    try:
        check_port(port)
    except BenchError as error:
        raise BenchError(f"{error}; choose another: make demo PORT=8081") from None
    with temporary_folder("zipfs-demo-") as folder:
        mountpoint = folder / "mount"
        mountpoint.mkdir()
        options: list[str] = []
        expected: list[Path] = []
        if library is None:
            library = folder / "library"
            library.mkdir()
            say("Copying the free games …")
            for game in games.build(library):
                archive = mountpoint / game.relative_to(library).with_name(f"{game.name}.zip")
                # A game of one file stays as it is.
                if sum(path.is_file() for path in game.rglob("*")) > 1:
                    expected.append(archive)
            options = ["--index", str(folder / "index.sqlite")]
        stop.check()

        with mounted(library, mountpoint, workdir=folder, options=options) as mount:
            wait_ready(mount, check=stop.check)
            # nginx goes first at the end: it holds files of the mount open.
            with nginx(mountpoint, port=port, workdir=folder) as server:
                if expected:
                    _wait_until_sealed(mount, expected, stop)
                    archives = _archives(mountpoint)
                else:
                    archives = _wait_for_some(mount, stop)
                _print_suggestions(server, mountpoint, archives)
                _serve(mount, server, stop)


def _serve(mount: Mount, server: Server, stop: Stop) -> None:
    progress = _Progress()
    try:
        while True:
            stop.check()
            mount.check()
            if server.process.poll() is not None:
                raise BenchError(f"nginx ended with status {server.process.returncode}")
            mount.wait(0.2)
            progress.show(mount.status)
    finally:
        progress.done()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument(
        "--library",
        type=Path,
        # An empty one is what `make demo LIBRARY=` gives.
        default=os.environ.get("LIBRARY") or None,
        help="your own library instead of the free games (also: LIBRARY=)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=os.environ.get("PORT") or PORT,
        help="nginx' port on 127.0.0.1 (also: PORT=; default: 8080)",
    )
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    stop = Stop()
    try:
        _run(arguments.library and arguments.library.expanduser(), arguments.port, stop)
    except StoppedError:
        pass
    except BenchError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
