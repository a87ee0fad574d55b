"""Whatever would change something ends in ``EROFS``, and changes nothing (DESIGN H1)."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.libraries import content, expected_archive, make_file, make_game, tree
from tests.support.mounting import Mounts, remount
from tests.support.waiting import SECONDS

ARCHIVE, SINGLE, FOLDER = "roms/psx/Game.zip", "roms/gb/Game.gb", "roms/psx"

PROGRAMS = (
    "touch new",
    f"touch {ARCHIVE}",
    f"touch -d 2001-01-01 {SINGLE}",
    "mkdir roms/new",
    "mkdir -p roms/new/er",
    f"rm -f {ARCHIVE}",
    f"rm -f {SINGLE}",
    "rm -rf roms",
    "rmdir roms/empty",
    f"mv {ARCHIVE} roms/psx/Other.zip",
    f"mv {SINGLE} roms/psx/",
    "mv roms/psx roms/psx2",
    f"ln {SINGLE} roms/gb/link.gb",
    f"ln -s Game.gb {FOLDER}/link.gb",
    f"chmod 600 {ARCHIVE}",
    f"chmod u+w {SINGLE}",
    f"chmod 777 {FOLDER}",
    f"chown 1:1 {SINGLE}",
    f"truncate -s 0 {SINGLE}",
    f"truncate -s 0 {ARCHIVE}",
    f"dd if=/dev/zero of={ARCHIVE} count=1 conv=notrunc",
    f"sh -c 'echo more >> {SINGLE}'",
    "sh -c 'echo new > roms/gb/new.gb'",
    f"cp {SINGLE} roms/gb/copy.gb",
    f"cp --remove-destination /etc/passwd {SINGLE}",
    "mkfifo roms/fifo",
    f"mknod {FOLDER}/null c 1 3",
    f"fallocate -l 1000000 {SINGLE}",
)

CALLS: dict[str, Callable[[Path, Path, Path], object]] = {
    "open to write": lambda archive, single, folder: os.open(archive, os.O_WRONLY),
    "open to read and write": lambda archive, single, folder: os.open(single, os.O_RDWR),
    "open to append": lambda archive, single, folder: os.open(single, os.O_WRONLY | os.O_APPEND),
    "open to truncate": lambda archive, single, folder: os.open(archive, os.O_TRUNC),
    "create": lambda archive, single, folder: os.open(folder / "x", os.O_CREAT | os.O_RDONLY),
    "nameless file": lambda archive, single, folder: os.open(folder, os.O_TMPFILE | os.O_RDWR),
    "truncate": lambda archive, single, folder: os.truncate(single, 1),
    "times": lambda archive, single, folder: os.utime(archive, (0, 0)),
    "owner": lambda archive, single, folder: os.chown(archive, 0, 0),
    "rename": lambda archive, single, folder: os.rename(single, folder / "x"),
    "link": lambda archive, single, folder: os.link(archive, folder / "x"),
    "symbolic link": lambda archive, single, folder: os.symlink("x", folder / "x"),
    "unlink": lambda archive, single, folder: os.unlink(archive),
    "extended attribute": lambda archive, single, folder: os.setxattr(single, "user.x", b"1"),
    "access": lambda archive, single, folder: _need(os.access(single, os.W_OK)),
}


def _need(granted: bool) -> None:
    # access(2) says it as well, but Python only returns whether.
    if not granted:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def make_library(library: Path) -> None:
    make_game(library, "roms/psx/Game", {"a": content(10_000), "b/c": content(20_000, 1)})
    make_file(library / SINGLE, content(5000, 2))
    (library / "roms/empty").mkdir()


def test_programs(library: Path, mount: Mounts) -> None:
    make_library(library)
    before = tree(library)
    mounted = mount(library)
    mounted.wait_archive("roms/psx/Game")
    shown = tree(mounted.path)
    for command in PROGRAMS:
        done = subprocess.run(  # noqa: S602 - the commands stand above
            command,
            shell=True,
            cwd=mounted.path,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode != 0, command
        assert "Read-only file system" in done.stderr, f"{command}: {done.stderr}"
    assert tree(mounted.path) == shown
    assert tree(library) == before


def test_system_calls(library: Path, mount: Mounts) -> None:
    make_library(library)
    before = tree(library)
    mounted = mount(library)
    archive = mounted.wait_archive("roms/psx/Game")
    for name, call in CALLS.items():
        with pytest.raises(OSError, match=r".") as caught:
            call(archive, mounted.path / SINGLE, mounted.path / FOLDER)
        assert caught.value.errno == errno.EROFS, name
    assert tree(library) == before


def test_no_write_permission_is_shown(library: Path, mount: Mounts) -> None:
    make_library(library)
    mounted = mount(library)
    mounted.wait_archive("roms/psx/Game")
    for name in (".", FOLDER, SINGLE, ARCHIVE):
        assert not stat.S_IMODE((mounted.path / name).stat().st_mode) & 0o222, name


def test_remount_for_writing_helps_nobody(library: Path, mount: Mounts) -> None:
    """Root may take the kernel's protection away; zipfs has nothing that could write."""
    if os.geteuid():
        pytest.skip("only root can remount")
    make_library(library)
    before = tree(library)
    mounted = mount(library)
    archive = mounted.wait_archive("roms/psx/Game")
    remount(mounted.path, "rw")
    single, folder = mounted.path / SINGLE, mounted.path / FOLDER
    for name, call in CALLS.items():
        try:
            opened = call(archive, single, folder)
        except OSError:
            continue
        if isinstance(opened, int):  # to write, but nothing can be written
            with pytest.raises(OSError, match=r"."):
                os.write(opened, b"x")
            os.close(opened)
        assert tree(library) == before, name
    with pytest.raises(OSError, match=r"."):
        folder.chmod(0o777)
    assert archive.read_bytes() == expected_archive(library / "roms/psx/Game")
    assert tree(library) == before


def test_no_extended_attributes(library: Path, mount: Mounts) -> None:
    make_library(library)
    os.setxattr(library / SINGLE, "user.x", b"1")
    mounted = mount(library)
    single = mounted.wait_for(SINGLE)
    with pytest.raises(OSError, match=r".") as caught:
        os.getxattr(single, "user.x")
    assert caught.value.errno == errno.EOPNOTSUPP
    with pytest.raises(OSError, match=r".") as caught:
        os.listxattr(single)
    assert caught.value.errno == errno.EOPNOTSUPP


def test_memory_map(library: Path, mount: Mounts) -> None:
    make_library(library)
    archive = mount(library).wait_archive("roms/psx/Game")
    wanted = expected_archive(library / "roms/psx/Game")
    with archive.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:] == wanted
        assert mapped[9000:12_000] == wanted[9000:12_000]


def test_access_times_stay(library: Path, mount: Mounts) -> None:
    """Reading goes by: not even the time of the last access moves in the mount."""
    make_library(library)
    archive = mount(library).wait_archive("roms/psx/Game")
    before = archive.stat()
    archive.read_bytes()
    assert archive.stat().st_atime_ns == before.st_atime_ns == before.st_mtime_ns
