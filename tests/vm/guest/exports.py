"""The mount itself, exported by knfsd and Samba, and read through a client."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.vm import judging
from tests.vm.guest import library
from tests.vm.guest.daemon import MOUNT, Daemon, Server, running
from tests.vm.guest.library import CHANGES
from tests.vm.guest.processes import drop_caches, run, wait
from tests.vm.guest.sources import MOUNTS, SOURCES, mount_nfs, mount_smb, serve_nfs, serve_smb

_NOTICED: Final = 120.0
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Export:
    """A server for the mount, and its client."""

    serve: Callable[[], None]
    mount: Callable[[Path], None]


EXPORTED: Final[Mapping[str, Export]] = {
    "export-nfs3": Export(
        serve=lambda: serve_nfs(str(MOUNT)),
        mount=lambda client: mount_nfs(client, "vers=3,nolock", MOUNT),
    ),
    "export-nfs4.2": Export(
        serve=lambda: serve_nfs(str(MOUNT)),
        mount=lambda client: mount_nfs(client, "vers=4.2", MOUNT),
    ),
    "export-smb": Export(
        serve=lambda: serve_smb(str(MOUNT)), mount=lambda client: mount_smb(client, "", "0")
    ),
}


def examine(name: str, log: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """What a client of the export *name* sees."""
    source, export = SOURCES["ext4"], EXPORTED[name]
    client = MOUNTS / name
    client.mkdir(parents=True, exist_ok=True)
    daemon = Daemon(source.client, name, log)
    daemon.forget()
    source.begin(say)
    for change in CHANGES.values():
        library.make(source.server, change.folder, change.seed)
    row: dict[str, Any] = {}
    with running(daemon, Server(log), len(CHANGES)):
        export.serve()
        export.mount(client)
        try:
            say("mounted")
            row["right"] = _read_all(source.server, client)
            row["forgotten"] = _read_on(source.server, client)
            say(f"{row}")
            row["changed"] = _change(source.server, client)
            say(f"{row}")
        finally:
            run("umount", "-l", client)
            if "nfs" in name:
                run("rpc.nfsd", "0")
                run("exportfs", "-ua")
    source.unmount()
    return row


def _verdict(file: Path, truth: judging.Members) -> str:
    try:
        return judging.judge(file.read_bytes(), complete=True, old={}, new=truth)
    except OSError as error:
        return os.strerror(error.errno or 0)


def _read_all(server: Path, client: Path) -> str:
    """What is read of all archives: ``new`` is what is there."""
    found = {
        _verdict(client / change.archive, library.truth(server, change.folder))
        for change in CHANGES.values()
    }
    return " ".join(sorted(found))


def _read_on(server: Path, client: Path) -> str:
    """An open archive is read on after all kernels have forgotten what nobody holds."""
    change = CHANGES["in place"]
    parts = []
    try:
        with (client / change.archive).open("rb", buffering=0) as stream:
            while part := stream.read(_BLOCK):
                parts.append(part)
                if len(parts) % 4 == 0:
                    drop_caches()
    except OSError as error:
        return os.strerror(error.errno or 0)
    truth = library.truth(server, change.folder)
    return judging.judge(b"".join(parts), complete=True, old={}, new=truth)


def _change(server: Path, client: Path) -> dict[str, Any]:
    """Seconds until the client reads the new version, and what else it was given until then."""
    change = CHANGES["replaced"]
    old = library.truth(server, change.folder)
    change.apply(change.at(server), library.content(library.SIZE, change.seed + 5))
    new = library.truth(server, change.folder)
    began = time.monotonic()
    seen: list[str] = []

    def arrived() -> bool:
        try:
            data, complete = (client / change.archive).read_bytes(), True
        except OSError:
            data, complete = b"", False
        seen.append(judging.judge(data, complete=complete, old=old, new=new))
        return seen[-1] == judging.NEW

    taken = wait(arrived, _NOTICED, 2)
    return {
        "seconds": None if taken is None else round(time.monotonic() - began, 1),
        "seen": sorted(set(seen)),
    }
