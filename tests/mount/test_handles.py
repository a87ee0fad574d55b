"""File handles that are used after the kernel has forgotten what they are of (DESIGN F1).

By open_by_handle_at(2), and by NFS-Ganesha, a server that uses it, through a client of libnfs.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from bench.process import start, stop
from tests.support.exports import core_options
from tests.support.libraries import content, expected_archive, make_file, make_game
from tests.support.mounting import Mounted, Mounts, environment
from tests.support.users import needs_root
from tests.support.waiting import SECONDS, poll

libc: Final = ctypes.CDLL(None, use_errno=True)
DROP_CACHES: Final = Path("/proc/sys/vm/drop_caches")
PATHS: Final = ("roms", "roms/psx", "roms/psx/Game.zip", "roms/psx/single.iso", "roms/psx/One/1")

pytestmark = needs_root


class Handle(ctypes.Structure):
    """``struct file_handle``, open_by_handle_at(2)."""

    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("f_handle", ctypes.c_ubyte * 128),
    )

    @classmethod
    def of(cls, path: Path) -> Handle:
        handle, mount = cls(128), ctypes.c_int()
        failed = libc.name_to_handle_at(
            -100, bytes(path), ctypes.byref(handle), ctypes.byref(mount), 0
        )
        assert not failed, os.strerror(ctypes.get_errno())
        return handle

    @contextlib.contextmanager
    def opened(self, mount: int) -> Iterator[int]:
        """Open it in the file system of the descriptor *mount*. Raises :exc:`OSError`."""
        descriptor = libc.open_by_handle_at(mount, ctypes.byref(self), os.O_RDONLY)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def forget() -> None:
    """Have the kernel forget all nodes that nobody has open."""
    for _ in range(3):  # what is on a list for later goes with the next
        DROP_CACHES.write_text("2")


@pytest.fixture
def mounted(library: Path, mount: Mounts) -> Mounted:
    try:
        forget()
    except OSError as error:
        pytest.skip(f"the kernel's caches can't be dropped here: {error.strerror}")
    make_game(library, "roms/psx/Game", {"1": content(30_000), "2": b"2"})
    make_game(library, "roms/psx/One", {"1": content(100)})
    make_file(library / "roms/psx/single.iso", b"single")
    mounted = mount(library, "--allow-other")
    mounted.wait_sealed(1)
    return mounted


@pytest.fixture
def root(mounted: Mounted) -> Iterator[int]:
    descriptor = os.open(mounted.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_they_lead_to_the_same_files(mounted: Mounted, root: int) -> None:
    inodes = {path: (mounted.path / path).stat().st_ino for path in PATHS}
    handles = {path: Handle.of(mounted.path / path) for path in PATHS}
    for _ in range(2):
        for path, handle in handles.items():
            forget()
            with handle.opened(root) as descriptor:
                assert os.fstat(descriptor).st_ino == inodes[path]
                if os.path.isdir(mounted.path / path):
                    assert os.listdir(descriptor) == os.listdir(mounted.path / path)
                else:
                    wanted = (mounted.path / path).read_bytes()
                    assert os.pread(descriptor, len(wanted) + 1, 0) == wanted


def test_the_folders_above_are_found(mounted: Mounted, root: int) -> None:
    """The kernel asks for "..", as a folder has to have a path."""
    folder = mounted.path / "roms/psx/One"
    handle = Handle.of(folder)
    forget()
    with handle.opened(root) as descriptor:
        assert os.readlink(f"/proc/self/fd/{descriptor}") == str(folder)
        above = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
        try:
            assert os.fstat(above).st_ino == folder.parent.stat().st_ino
        finally:
            os.close(above)


def test_what_is_gone_is_stale(mounted: Mounted, root: int) -> None:
    handles = [Handle.of(mounted.path / path) for path in PATHS[2:]]
    shutil.rmtree(mounted.library / "roms/psx")
    mounted.wait_gone("roms/psx")
    forget()
    for handle in handles:
        with pytest.raises(OSError, match="Stale") as caught, handle.opened(root):
            pass
        assert caught.value.errno == errno.ESTALE


# -- An NFS server -------------------------------------------------------------------------------


@pytest.fixture
def export(mounted: Mounted, place: Path) -> Iterator[str]:
    """The export of the mount by NFS-Ganesha, as an address with %s for a path."""
    for program, package in (("ganesha.nfsd", "nfs-ganesha-vfs"), ("nfs-cat", "libnfs-utils")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: apt-get install {package}")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    configuration, log = place / "ganesha.conf", place / "ganesha.log"
    configuration.write_text(
        f"""
        NFS_CORE_PARAM {{
            Protocols = 4; NFS_Port = {port}; Bind_addr = 127.0.0.1;
            Enable_NLM = false; Enable_RQUOTA = false; {core_options("ganesha.nfsd")}
        }}
        NFSV4 {{ Graceless = true; RecoveryRoot = "{place / "recovery"}"; }}
        EXPORT {{
            Export_Id = 1; Path = "{mounted.path}"; Pseudo = /games; Access_Type = RO;
            Squash = none; SecType = sys; Filesystem_id = 7.7; Protocols = 4; Transports = TCP;
            FSAL {{ Name = VFS; }}
        }}
        """
    )
    (place / "recovery").mkdir()
    command = ["ganesha.nfsd", "-F", "-f", configuration, "-L", log, "-p", place / "ganesha.pid"]
    server = start(command, env=environment())

    def ready() -> bool:
        assert server.poll() is None, log.read_text()
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        poll("the NFS server", ready)
        yield f"nfs://127.0.0.1/games/%s?version=4&nfsport={port}"
    finally:
        stop(server)


def client(program: str, address: str) -> bytes:
    done = subprocess.run(
        [program, address], stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def test_an_nfs_server_goes_on(mounted: Mounted, export: str) -> None:
    """It keeps handles for as long as it likes."""
    wanted = expected_archive(mounted.library / "roms/psx/Game")
    for _ in range(3):
        listed = client("nfs-ls", export % "roms/psx").split()
        assert {b"Game.zip", b"One", b"single.iso"} <= set(listed)
        assert client("nfs-cat", export % "roms/psx/Game.zip") == wanted
        assert client("nfs-cat", export % "roms/psx/single.iso") == b"single"
        forget()
