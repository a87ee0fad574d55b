"""``make vm``: a library on each kind of source, in a virtual machine for each kernel.

    python -m tests.vm                                    # all: hours, as there is no KVM
    python -m tests.vm --kernel 6.1 --source cifs         # one of them
    python -m tests.vm --publish                          # … and put it into the manual

The exit status is 1 if a download ended complete with wrong bytes, a program got no answer while
a server didn't answer, nothing could be read when it was back, or a source couldn't be tried.
Images are kept in ``--place``, so that only the first run makes them. Root is needed to make them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.distros import locked
from tests.vm import results
from tests.vm.guest.exports import EXPORTED
from tests.vm.guest.sources import SOURCES
from tests.vm.image import KERNELS, REPOSITORY, Images
from tests.vm.machine import Machine

_LIMIT: Final = 900
"""Seconds for one source."""
_BOOTS: Final = 3
"""How often a source is begun whose machine ends before it is done."""


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.vm", description=__doc__.split("\n")[0])
    parser.add_argument("--kernel", action="append", choices=list(KERNELS), help="(all)")
    parser.add_argument(
        "--source", action="append", help="the one of this name, or all with this in it (all)"
    )
    parser.add_argument("--place", type=Path, default=REPOSITORY / ".vm", help="for the images")
    parser.add_argument(
        "--patience", type=float, default=150, help="seconds until a change counts as unnoticed"
    )
    parser.add_argument(
        "--package", type=Path, default=REPOSITORY / "zipfs", help="another zipfs than this one"
    )
    parser.add_argument("--publish", action="store_true", help="into tests/vm/results.json")
    parser.add_argument("--into", type=Path, help="another file to publish into")
    return parser.parse_args(given)


def choose(wanted: Sequence[str] | None, kernel: str) -> list[str]:
    """The sources and exports that *kernel* has: all, or those *wanted* by name or a part of it."""
    version = results.version(kernel)
    disks = [name for name, one in SOURCES.items() if results.version(one.since) <= version]
    known = [*disks, *EXPORTED]
    if not wanted:
        return known
    exact = set(known).intersection(wanted)
    parts = set(wanted) - exact
    return [name for name in known if name in exact or any(part in name for part in parts)]


class _Run:
    """The sources *wanted* on one kernel; boots as often as it takes."""

    def __init__(
        self, images: Images, kernel: str, share: Path, package: Path, patience: float
    ) -> None:
        self._images = images
        self._package = package
        self._kernel = images.kernel(kernel)
        self._share = share
        self._patience = patience

    def run(self, wanted: Sequence[str]) -> dict[str, dict[str, Any]]:
        shutil.rmtree(self._share, ignore_errors=True)
        for folder in ("results", "logs"):
            (self._share / folder).mkdir(parents=True)
        self._images.carry(self._package, self._share)
        boots: dict[str, int] = {}
        while left := [name for name in wanted if not self._file(name).exists()]:
            boots[left[0]] = boots.get(left[0], 0) + 1
            if boots[left[0]] > _BOOTS:
                self._file(left[0]).write_text(json.dumps({"error": "the machine doesn't run"}))
                continue
            plan = {"sources": left, "patience": self._patience, "limit": _LIMIT}
            (self._share / "plan.json").write_text(json.dumps(plan))
            machine = Machine(self._kernel, self._images.disk, self._share)
            if not machine.run(_LIMIT + 60) and (begun := self._begun(left)):
                self._file(begun).write_text(json.dumps({"error": "the machine hung"}))
        return {name: json.loads(self._file(name).read_text()) for name in wanted}

    def _begun(self, left: Sequence[str]) -> str | None:
        """The source at which the machine was."""
        return next((name for name in left if not self._file(name).exists()), None)

    def _file(self, name: str) -> Path:
        return self._share / "results" / f"{name}.json"


def main(given: Sequence[str] | None = None) -> int:
    chosen = _arguments(given)
    if os.geteuid() != 0:
        sys.exit("only root can make the images: bootstrap and loop mounts")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the machine, too
    place = chosen.place.absolute()
    images = Images(place)
    images.prepare()
    status = False
    for kernel in chosen.kernel or KERNELS:
        began = time.monotonic()
        with locked(place / "machine.lock"):
            share = place / "share" / kernel
            run = _Run(images, kernel, share, chosen.package, chosen.patience)
            rows = run.run(choose(chosen.source, kernel))
        print(f"\nkernel {kernel}, {(time.monotonic() - began) / 60:.0f} min\n")
        print(results.page({kernel: rows}, [*SOURCES, *EXPORTED]))
        for line in results.failures(rows):
            print(f"- {line}")
        sys.stdout.flush()
        if chosen.publish or chosen.into:
            results.publish(kernel, rows, chosen.into or results.RESULTS)
        status |= any(map(results.failed, rows.values()))
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
