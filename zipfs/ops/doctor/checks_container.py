"""Checks of a container: where its mount is seen, what its daemon uses, and what can be mended.

A remedy for the machine is of no use in a container, which has another file system, hardly a
right, and programs that are gone with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Final

from zipfs.errors import MountpointError
from zipfs.mount import mountpoint as mp
from zipfs.mount.status import client as status_client
from zipfs.ops.doctor.findings import Finding
from zipfs.system import containers
from zipfs.system.mounts import Mount
from zipfs.text import quoted, size

_REACH: Final = "propagation"

_ON_HOST: Final = ("inotify", "kernel", "kernel module fuse", "max_background", "overlayfs")
_INSTEAD: Final = {
    "open files": "start the container with --ulimit nofile=65536 (Compose: ulimits)",
    "pyfuse3": "build the image anew",
    "trio": "build the image anew",
    "fusermount3": "start the container as root, with zipfs mount --setuid UID:GID",
    "user_allow_other": "start the container as root, with zipfs mount --setuid UID:GID",
}
_NEEDLESS: Final = ("program", "mount.zipfs")
"""Of what is missing there: no container has an fstab."""


def check_reach(path: str, mounted: Sequence[Mount], *, alone: bool) -> Iterator[Finding]:
    """Check whether a mount on *path* is seen outside of this container.

    *alone*: whether it is in a user namespace of the engine's.
    """
    above = os.path.dirname(path)
    bind = f"-v {quoted(above)}:{quoted(above)}:rshared (Compose: bind: {{propagation: rshared}})"
    how = containers.reach(path, mounted)
    if how == "kept in":
        yield Finding(
            _REACH,
            "warning",
            f"nobody outside sees a mount on {quoted(path)}: the folder above isn't shared",
            f"start the container with {bind}",
        )
    elif how == "own root":
        yield Finding(
            _REACH,
            "note",
            f"{quoted(path)} is in the container's own file system: only programs in the container"
            " see a mount there",
            f"if others are to see it, start the container with {bind}",
        )
    elif alone:
        yield Finding(
            _REACH,
            "note",
            "this engine has a user namespace of its own: containers of the same user see a mount"
            f" on {quoted(path)}, and the host doesn't",
            "run the web server in a container of the same user",
        )
    else:
        yield Finding(_REACH, "ok", f"a mount on {quoted(path)} is seen outside of the container")


def bound(path: str, mounted: Sequence[Mount]) -> Finding | None:
    """The finding for a mount point that is itself bound into the container; None if it isn't."""
    mount = next((m for m in reversed(mounted) if m.path == path), None)
    if mount is None or not mount.bound or mount.kind == mp.KIND:
        return None
    above = quoted(os.path.dirname(path))
    return Finding(
        "mount point",
        "problem",
        f"{quoted(path)} is itself bound into this container, and a mount on it would stay in here",
        f"bind the folder above instead: -v {above}:{above}:rshared",
    )


def document_of(path: str) -> dict[str, Any] | None:
    """The status of the mount at *path*, by its daemon; None if it doesn't tell."""
    try:
        return status_client.ask(path)
    except (MountpointError, OSError):
        return None


def check_daemon(document: dict[str, Any], library: str | None) -> Iterator[Finding]:
    """Say which library and index the daemon of *document* uses; *library* was named here."""
    theirs = document.get("library")
    if library is not None and theirs is not None and theirs != library:
        yield Finding(
            "library",
            "note",
            f"the mount shows {theirs}, not {library}, which was checked",
            f"zipfs doctor {quoted(theirs)} {quoted(str(document.get('mountpoint')))}",
        )
    index = document.get("index")
    if not index:
        yield Finding("index", "note", "the daemon doesn't say where it is", "see its log")
        return
    what = f"the daemon uses {index['file']}, {size(index['size'])}"
    if index.get("saving", True):
        yield Finding("index", "ok", what)
    else:
        yield Finding(
            "index",
            "warning",
            f"{what}, which can't be written: checksums are lost when it ends",
            "see its log; is there space, and does its folder belong to its user?",
        )


def possible(finding: Finding) -> Finding:
    """*finding* as it is in a container: with a remedy that can be carried out."""
    if finding.level == "ok":
        return finding
    if finding.name in _NEEDLESS:
        return Finding(finding.name, "ok", "isn't on the PATH, and a container needs no more")
    if not finding.remedy:
        return finding
    if finding.name in _INSTEAD:
        remedy = _INSTEAD[finding.name]
    elif finding.name in _ON_HOST or _changes(finding.remedy):
        remedy = f"on the host: {finding.remedy.removeprefix('on the host: ')}"
    elif finding.remedy.startswith("start it again, which removes"):
        remedy = "start the container again, which removes the dead mount"
    else:
        return finding
    return Finding(finding.name, finding.level, finding.what, remedy)


def _changes(remedy: str) -> bool:
    """Whether *remedy* is a command that changes the machine."""
    return remedy.split(maxsplit=1)[0] in ("echo", "modprobe", "mount")
