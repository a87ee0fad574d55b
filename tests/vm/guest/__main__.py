"""In the machine: try each source that the share's ``plan.json`` names, and write what is seen.

Each source is tried by a process of its own, with a time limit. If that doesn't end, or what it
mounted can't be unmounted, the machine is switched off: the host boots it again for the rest.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Final

from tests.vm.guest import cases, exports
from tests.vm.guest.daemon import FORK, MOUNT
from tests.vm.guest.processes import ProgramError, named, run, send, wait
from tests.vm.guest.sources import MOUNTS, SOURCES

_CLEAN: Final = 60.0


def _say(text: str) -> None:
    with open("/proc/uptime") as stream:
        up = float(stream.read().split()[0])
    print(f"[{up:7.1f}] {text}", flush=True)  # noqa: T201 - the machine's console


def _try(name: str, share: Path, patience: float) -> None:
    """Try the source *name*; what is seen is in ``results/``."""
    log = share / "logs" / f"{name}.log"
    began = time.monotonic()
    row: dict[str, Any]

    def say(text: str) -> None:
        _say(f"{name}: {text}")

    try:
        if name in exports.EXPORTED:
            row = exports.examine(name, log, say)
        else:
            row = cases.examine(SOURCES[name], log, patience, say)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs into the row
        traceback.print_exc()
        row = {"error": f"{type(error).__name__}: {error}"[:400]}
    row["seconds"] = round(time.monotonic() - began)
    write(share, name, row)


def write(share: Path, name: str, row: dict[str, Any]) -> None:
    """Leave *row* for the host, whole or not at all."""
    target = share / "results" / f"{name}.json"
    draft = target.with_suffix(".draft")
    draft.write_text(json.dumps({"kernel": platform.release(), **row}))
    os.rename(draft, target)


def _clean() -> bool:
    """Whether nothing of the source is left; servers stay, and go on if they were stopped."""
    send(signal.SIGCONT, *(name for source in SOURCES.values() for name in source.stopped))
    for process in named("zipfs", "nginx", "curl", "dd", "ls", "python"):
        if process != os.getpid():
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        path = line.split()[1]
        if path.startswith((f"{MOUNTS}/", str(MOUNT))):
            try:
                run("umount", path, limit=30)
            except ProgramError:
                return False
    return True


def _be_apart(name: str, share: Path, patience: float) -> None:
    os.setsid()
    _try(name, share, patience)


def main() -> int:
    share = Path(sys.argv[1])
    plan = json.loads((share / "plan.json").read_text())
    _say(f"kernel {platform.release()}")
    importlib.import_module("zipfs.mount.daemon")  # now, and not again in each fork
    # Little is on its way to a client, as over a real network.
    for name in ("tcp_wmem", "tcp_rmem"):
        Path(f"/proc/sys/net/ipv4/{name}").write_text("4096 65536 262144")
    for name in plan["sources"]:
        _say(name)
        process = FORK.Process(target=_be_apart, args=(name, share, plan["patience"]))
        process.start()
        process.join(plan["limit"])
        if process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid or 0, signal.SIGKILL)
            write(share, name, {"error": f"not done after {plan['limit']} s"})
            _say(f"{name}: not done in time")
            return 1
        if wait(_clean, _CLEAN, 2) is None:
            _say(f"{name}: something can't be unmounted")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
