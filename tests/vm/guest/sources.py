"""The sources: how each is served and mounted, and how its server is stopped.

A change is made in ``server``, as somebody else would make it: in the folder that a server
exports, or, on a disk, in the mount itself. ``client`` is the library.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.vm.guest.processes import ProgramError, named, run, send, start, wait

EXPORTS: Final = Path("/srv/export")
MOUNTS: Final = Path("/mnt")
WORK: Final = Path("/srv/work")
_LOGS: Final = WORK / "servers.log"
_LEASE: Final = 10
"""Seconds for which a client of NFSv4 may go on, and for which a server waits after its start."""
_WEBDAV: Final = "127.0.0.1:8091"


@dataclass(kw_only=True)
class Source:
    """A library on *name*. Raises :exc:`ProgramError` where the machine hasn't got that."""

    name: str
    mount: Callable[[Source], None]
    serve: Callable[[], None] = lambda: None
    own_server: bool = False
    """Whether changes are made elsewhere than in the library."""
    stopped: tuple[str, ...] = ()
    """The programs that serve it, if they can be stopped."""
    since: str = "0"
    """The first kernel that has it, as Debian configures them."""
    server: Path = field(init=False)
    client: Path = field(init=False)

    def __post_init__(self) -> None:
        self.client = MOUNTS / self.name
        self.server = EXPORTS / self.name if self.own_server else self.client

    def begin(self, say: Callable[[str], None]) -> None:
        """An empty source, mounted."""
        for folder in (EXPORTS, WORK, self.client):
            folder.mkdir(parents=True, exist_ok=True)
        if self.own_server:
            shutil.rmtree(self.server, ignore_errors=True)
            self.server.mkdir()
        self.serve()
        say("served")
        self.mount(self)
        say("mounted")

    def unmount(self) -> None:
        """Raises :exc:`ProgramError` if it is still busy after a while."""
        errors: list[str] = []

        def unmounted() -> bool:
            with contextlib.suppress(ProgramError):
                run("umount", self.client)
                return True
            errors.append("")
            return not os.path.ismount(self.client)

        if wait(unmounted, 30, 1) is None:
            raise ProgramError(f"{self.client} is busy")

    @property
    def can_hang(self) -> bool:
        return bool(self.stopped)

    def hang(self) -> None:
        """Stop the server: no request is answered any more."""
        if self.stopped == ("nfsd",):
            run("rpc.nfsd", "0")
        else:
            send(signal.SIGSTOP, *self.stopped)

    def back(self) -> None:
        """Let the server go on."""
        if self.stopped == ("nfsd",):
            run("rpc.nfsd", "8")
        else:
            send(signal.SIGCONT, *self.stopped)


# ---------------------------------------------------------------- servers


def serve_nfs(*folders: str) -> None:
    """knfsd, with all of :data:`EXPORTS` exported; further *folders* get a number each."""
    run("modprobe", "nfsd")
    if not os.path.ismount("/proc/fs/nfsd"):
        run("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
    if not named("rpcbind"):
        run("rpcbind", "-w")
    options = "rw,no_root_squash,no_subtree_check"
    lines = [f"{EXPORTS} 127.0.0.1({options},fsid=1)"]
    lines += [f"{path} 127.0.0.1({options},fsid={n})" for n, path in enumerate(folders, 2)]
    Path("/etc/exports").write_text("".join(f"{line}\n" for line in lines))
    run("exportfs", "-ra")
    if not named("nfsd"):
        # A server that was just started waits until its clients of before are gone.
        for name in ("nfsv4leasetime", "nfsv4gracetime"):
            with contextlib.suppress(OSError):
                Path("/proc/fs/nfsd", name).write_text(f"{_LEASE}\n")
        run("rpc.nfsd", "8")
    if not named("rpc.mountd"):
        run("rpc.mountd")


def serve_smb(*folders: str) -> None:
    """Samba, with the share ``library``; *folders* are shares ``0``, ``1`` …"""
    shares = {"library": str(EXPORTS), **{str(n): path for n, path in enumerate(folders)}}
    lines = ["[global]", "map to guest = never", "disable spoolss = yes", "load printers = no"]
    lines += ["smb ports = 445"]
    for name, path in shares.items():
        lines += [f"[{name}]", f"path = {path}", "read only = no", "valid users = root"]
    configuration = WORK / "smb.conf"
    configuration.write_text("".join(f"{line}\n" for line in lines))
    if named("smbd"):
        send(signal.SIGTERM, "smbd")
        wait(lambda: not named("smbd"), 30)
    run("smbd", "-D", "-s", configuration)


def serve_ssh() -> None:
    if not named("sshd"):
        run("/usr/sbin/sshd")


def serve_webdav() -> None:
    """A server that sees its folder as it is: by default it remembers listings, as the client."""
    if not named("rclone"):
        command = ("rclone", "serve", "webdav", EXPORTS, "--addr", _WEBDAV)
        start(*command, "--dir-cache-time", "0s", log=_LOGS)


# ---------------------------------------------------------------- clients


def mount_nfs(client: Path, options: str, folder: Path) -> None:
    run("modprobe", "nfs")
    run("mount", "-t", "nfs", "-o", options, f"127.0.0.1:{folder}", client)


def mount_smb(client: Path, options: str, share: str) -> None:
    run("modprobe", "cifs")
    login = f"username=root,password=secret{options and ','}{options}"

    def mounted() -> bool:
        with contextlib.suppress(ProgramError):
            run("mount", "-t", "cifs", "-o", login, f"//127.0.0.1/{share}", client)
            return True
        return False

    if wait(mounted, 60, 1) is None:  # smbd takes some seconds until it listens
        run("mount", "-t", "cifs", "-o", login, f"//127.0.0.1/{share}", client)


def _nfs(options: str) -> Callable[[Source], None]:
    return lambda source: mount_nfs(source.client, options, source.server)


def _smb(options: str) -> Callable[[Source], None]:
    return lambda source: mount_smb(source.client, options, f"library/{source.server.name}")


def _disk(kind: str, make: str, *, mount: str = "") -> Callable[[Source], None]:
    """A disk of its own in a file, made at the first mount."""

    def mounted(source: Source) -> None:
        image = WORK / f"{source.client.name}.img"
        if not image.exists():
            with image.open("wb") as stream:
                stream.truncate(400 << 20)
            run(*make.split(), image)
        if mount:
            run(mount, "-o", "allow_other", image, source.client)
        else:
            run("mount", "-t", kind, "-o", "loop", image, source.client)

    return mounted


def _sshfs(source: Source) -> None:
    # A cipher that the emulated processor has instructions for.
    options = "allow_other,Ciphers=aes128-gcm@openssh.com"
    run("sshfs", "-o", options, f"root@127.0.0.1:{source.server}", source.client)


def _rclone(source: Source) -> None:
    where = ("--webdav-url", f"http://{_WEBDAV}", f":webdav:{source.server.name}")
    run("rclone", "mount", "--daemon", "--allow-other", *where, source.client)


def _mergerfs(source: Source) -> None:
    run("mergerfs", "-o", "allow_other", source.server, source.client)


def _overlay(source: Source) -> None:
    layers = {name: WORK / "overlay" / name for name in ("lower", "upper", "work")}
    for folder in layers.values():
        folder.mkdir(parents=True, exist_ok=True)
    options = ",".join(f"{name}dir={path}" for name, path in layers.items())
    run("mount", "-t", "overlay", "-o", options, "overlay", source.client)


def _ext4(source: Source) -> None:
    folder = WORK / "ext4"
    folder.mkdir(exist_ok=True)
    run("mount", "--bind", folder, source.client)


def _served(name: str, serve: Callable[[], None], mount: Callable[[Source], None],
            *stopped: str) -> Source:  # fmt: skip
    return Source(name=name, serve=serve, mount=mount, own_server=True, stopped=stopped)


SOURCES: Final[Mapping[str, Source]] = {
    source.name: source
    for source in (
        Source(name="ext4", mount=_ext4),
        Source(name="btrfs", mount=_disk("btrfs", "mkfs.btrfs -q")),
        Source(name="xfs", mount=_disk("xfs", "mkfs.xfs -q")),
        Source(name="ntfs3", mount=_disk("ntfs3", "mkntfs -Q -F"), since="6.12"),
        Source(
            name="ntfs-3g",
            mount=_disk("ntfs-3g", "mkntfs -Q -F", mount="ntfs-3g"),
            stopped=("ntfs-3g",),
        ),
        Source(name="vfat", mount=_disk("vfat", "mkfs.vfat -F 32")),
        Source(name="exfat", mount=_disk("exfat", "mkfs.exfat")),
        Source(name="overlay", mount=_overlay),
        _served("mergerfs", lambda: None, _mergerfs, "mergerfs"),
        _served("nfs3", serve_nfs, _nfs("vers=3,nolock"), "nfsd"),
        _served("nfs4.2", serve_nfs, _nfs("vers=4.2"), "nfsd"),
        _served("nfs4.2-noatime", serve_nfs, _nfs("vers=4.2,noatime"), "nfsd"),
        _served("cifs", serve_smb, _smb(""), "smbd"),
        _served("cifs-cache=none", serve_smb, _smb("cache=none"), "smbd"),
        _served("cifs-noserverino", serve_smb, _smb("noserverino"), "smbd"),
        _served("sshfs", serve_ssh, _sshfs, "sftp-server"),
        # Its client is called the same, and stops with it: to zipfs that is the same.
        _served("rclone", serve_webdav, _rclone, "rclone"),
    )
}  # fmt: skip
"""In the order of the table; of ``ext4`` all is known, so it shows that the machine works."""
