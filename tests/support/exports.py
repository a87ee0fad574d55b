"""File servers that show a folder to others, and the programs with which those read it.

They run beside the machine's own ones: each with a port, a configuration and a state of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.process import find_program
from bench.web import ADDRESS, Server, serving
from tests.support.waiting import SECONDS

_SAMBA: Final = """\
[global]
server role = standalone server
bind interfaces only = yes
interfaces = {address}
smb ports = {port}
disable netbios = yes
map to guest = Bad User
guest account = nobody
lock directory = {state}
state directory = {state}
cache directory = {state}
private dir = {state}
pid directory = {state}
ncalrpc dir = {state}/ncalrpc
log file = {state}/log
load printers = no
printcap name = /dev/null
disable spoolss = yes
[{name}]
path = {root}
read only = yes
guest ok = yes
"""

# NFSv4 alone needs no rpcbind and no mountd. Ganesha would go on for a minute with what it knows of
# a path, which shows a change that much later.
_GANESHA: Final = """\
NFS_CORE_PARAM {{
    Protocols = 4; NFS_Port = {port}; Bind_addr = {address};
    Enable_UDP = false; Enable_NLM = false; Enable_RQUOTA = false; {more}
}}
NFSV4 {{ Graceless = true; RecoveryRoot = "{state}"; }}
EXPORT {{
    Export_Id = 1; Path = "{root}"; Pseudo = "/{name}"; Protocols = 4;
    Access_Type = RO; Squash = None; SecType = sys, none;
    Attr_Expiration_Time = 1;
    FSAL {{ Name = VFS; }}
}}
"""
NAME: Final = "games"
"""Of the share."""


@dataclass(frozen=True, slots=True)
class Export:
    """A folder as clients of a file server see it. Paths are relative to it."""

    server: Server
    place: Path
    """For what a client writes."""
    listing: Callable[[Export], dict[str, int]]
    reading: Callable[[Export, str], bytes]

    def files(self) -> dict[str, int]:
        """All files, and their sizes."""
        return self.listing(self)

    def read(self, path: str) -> bytes:
        """A whole file. Raises :exc:`subprocess.CalledProcessError`."""
        return self.reading(self, path)


def _run(*command: str | Path) -> bytes:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS,
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    ).stdout


# ---------------------------------------------------------------- SMB


def _smbclient(export: Export, commands: str) -> bytes:
    share = f"//{ADDRESS}/{NAME}"
    port = str(export.server.port)
    return _run("smbclient", "-s", os.devnull, "-N", "-p", port, share, "-c", commands)


def _smb_files(export: Export) -> dict[str, int]:
    found = {}
    folder = ""
    for line in _smbclient(export, "recurse; ls").decode().splitlines():
        if line.startswith("\\"):
            folder = line.replace("\\", "/")[1:] + "/"
        # "  name     attributes   size  weekday month day time year"
        fields = line.rsplit(maxsplit=6)
        if line.startswith("  ") and len(fields) == 7 and "D" not in fields[0].rsplit()[-1]:
            name = fields[0].strip().rpartition(" ")[0].rstrip()
            found[folder + name] = int(fields[1])
    return found


def _smb_read(export: Export, path: str) -> bytes:
    file = export.place / "from-samba"
    _smbclient(export, f'get "{path}" "{file}"')
    return file.read_bytes()


@contextmanager
def samba(root: Path, place: Path) -> Iterator[Export]:
    """Show *root* by SMB; it has to be readable for everybody if we are root."""

    def command(folder: Path, port: int) -> list[str | Path]:
        configuration = folder / "smb.conf"
        text = _SAMBA.format(address=ADDRESS, port=port, state=folder, root=root, name=NAME)
        configuration.write_text(text)
        program = find_program("smbd", package="samba")
        return [program, "--foreground", "--no-process-group", "-s", configuration]

    with serving("smbd", command, None, place) as server:
        yield Export(server, place, _smb_files, _smb_read)


# ---------------------------------------------------------------- NFS


def _nfs_url(export: Export, path: str = "") -> str:
    return f"nfs://{ADDRESS}/{NAME}/{path}?version=4&nfsport={export.server.port}"


def _nfs_files(export: Export) -> dict[str, int]:
    # "-rw-r--r--  1 uid gid  size path"
    lines = _run("nfs-ls", "-R", _nfs_url(export)).decode().splitlines()
    rows = [line.split(maxsplit=5) for line in lines]
    return {row[5]: int(row[4]) for row in rows if row[0].startswith("-")}


def _nfs_read(export: Export, path: str) -> bytes:
    return _run("nfs-cat", _nfs_url(export, path))


def core_options(program: str | Path) -> str:
    """What this version of Ganesha needs in order to run where a process can't flush others' I/O.

    Since version 6 it wants the permission of prctl(2)'s PR_SET_IO_FLUSHER, or to be told.
    """
    told = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
    found = re.search(r"Release = V(\d+)", told.stdout + told.stderr)
    return "allow_set_io_flusher_fail = true;" if found and int(found[1]) >= 6 else ""


@contextmanager
def ganesha(root: Path, place: Path) -> Iterator[Export]:
    """Show *root* by NFSv4. It takes root, for file handles."""

    def command(folder: Path, port: int) -> list[str | Path]:
        configuration = folder / "ganesha.conf"
        program = find_program("ganesha.nfsd", package="nfs-ganesha")
        text = _GANESHA.format(
            address=ADDRESS,
            port=port,
            state=folder,
            root=root,
            name=NAME,
            more=core_options(program),
        )
        configuration.write_text(text)
        log, pid = folder / "log", folder / "pid"
        return [program, "-F", "-f", configuration, "-L", log, "-p", pid]

    with serving("ganesha", command, None, place) as server:
        yield Export(server, place, _nfs_files, _nfs_read)


EXPORTS: Final[dict[str, Callable[[Path, Path], AbstractContextManager[Export]]]] = {
    "Samba": samba,
    "Ganesha": ganesha,
}
