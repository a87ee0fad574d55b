"""What the machine boots from: a disk with Debian, and for each kernel its modules and initrd.

Debian's system is a root as ``make distros`` makes it (:mod:`tests.distros`), with the servers,
file systems and clients of a library's sources, and zipfs' locked dependencies in ``/opt/zipfs``.
The kernels are Debian's own, each from the release that has it; only their image and modules are
taken, so one disk serves all of them. All of it is kept below *place*, and made again if what it
was made from has changed.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import re
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.distros import Root, locked

REPOSITORY: Final = Path(__file__).parents[2]
KERNELS: Final = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie"}
"""The kernels' series, and the release of Debian that has it."""

_SYSTEM: Final = "debian12"
_GIBIBYTES: Final = 6
"""Size of the disk; what isn't written takes no room."""
_PACKAGES: Final = (
    "busybox-static", "curl", "fuse3", "iproute2", "kmod", "netbase", "nginx-light", "procps",
    "gcc", "libc6-dev", "libfuse3-dev", "pkg-config", "python3", "python3-dev", "python3-venv",
    "cifs-utils", "nfs-common", "nfs-kernel-server", "rpcbind", "samba",
    "mergerfs", "openssh-server", "rclone", "sshfs",
    "btrfs-progs", "dosfstools", "exfatprogs", "ntfs-3g", "xfsprogs",
)  # fmt: skip
_PREPARE: Final = """
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q install -y --no-install-recommends "$@"
.ci/zipfs-venv /usr/bin/python3 /opt/zipfs
ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys
printf 'StrictHostKeyChecking no\\n' >/root/.ssh/config
printf 'secret\\nsecret\\n' | smbpasswd -a -s root
rm -rf /root/zipfs /var/lib/apt/lists/*
"""
_FETCH: Final = """
mkdir -p "/kernels/$1"
cd "/kernels/$1"
apt-get -q update
series=$(echo "$1" | sed 's/[.]/[.]/g')
package=$(apt-cache show linux-image-amd64 |
    sed -n "s/^Depends: *\\(linux-image-$series[.][^ ,]*\\).*/\\1/p" | sort -V | tail -n 1)
apt-get -q download "$package"
dpkg -x ./*.deb .
"""
_DRIVERS: Final = ("block", "char", "virtio", "net")
"""Folders of drivers that a virtual machine needs; of ``net`` the files only."""
_AT_BOOT: Final = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic")
_INIT: Final = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done </order
count=0
while [ ! -e /dev/vdb ] && [ "$count" -lt 100 ]; do sleep 0.1; count=$((count + 1)); done
mount -t ext4 -o rw /dev/vda /new
mkdir -p /new/lib/modules
mount -t ext4 -o ro /dev/vdb /new/lib/modules
cp /machine-init /new/sbin/machine-init
for folder in dev proc sys; do mount --move "/$folder" "/new/$folder"; done
exec switch_root /new /sbin/machine-init
"""
_APPLETS: Final = ("sh", "mount", "insmod", "switch_root", "sleep", "mkdir", "cp")


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """Files of a kernel of the series *name*: what qemu boots, and a disk with its modules."""

    name: str
    folder: Path

    @property
    def image(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"

    @property
    def modules(self) -> Path:
        return self.folder / "modules.img"


class Images:
    """The disks below *place*."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._root = Root(place, _SYSTEM)
        self.disk = place / "disk.img"

    def prepare(self) -> None:
        """Make the disk, unless it is there. Raises :exc:`subprocess.CalledProcessError`."""
        self._place.mkdir(parents=True, exist_ok=True)
        with locked(self._place / "images.lock"):
            made = self._place / "disk.made"
            locks = (REPOSITORY / ".ci/locks/run.txt").read_text()
            wanted = _fingerprint(_PREPARE, *_PACKAGES, locks)
            kept = made.exists() and made.read_text() == wanted
            if kept and self._root.copy.is_dir():
                return
            made.unlink(missing_ok=True)
            self._root.renew()
            self._root.clone()
            self._in_root(_PREPARE, *_PACKAGES)
            _make_disk(self.disk, self._root.copy, f"{_GIBIBYTES}G")
            made.write_text(wanted)

    def kernel(self, name: str) -> Kernel:
        """The kernel *name*, made unless it is there; after :meth:`prepare`."""
        kernel = Kernel(name=name, folder=self._place / "kernels" / name)
        with locked(self._place / "images.lock"):
            made = kernel.folder / "made"
            wanted = _fingerprint(_FETCH, _INIT, INIT.read_text(), *_DRIVERS, *_AT_BOOT, *_APPLETS)
            if not (made.exists() and made.read_text() == wanted):
                shutil.rmtree(kernel.folder, ignore_errors=True)
                kernel.folder.mkdir(parents=True)
                self._fetch(kernel)
                made.write_text(wanted)
        return kernel

    def _fetch(self, kernel: Kernel) -> None:
        lists = self._root.copy / "etc/apt/sources.list"
        line = lists.read_text().splitlines()[0]
        extra = self._root.copy / "etc/apt/sources.list.d/kernel.list"
        release = KERNELS[kernel.name]
        suites = (release, f"{release}-updates")
        extra.write_text("".join(f"{line.replace('bookworm', suite)}\n" for suite in suites))
        unpacked = self._root.copy / "kernels" / kernel.name
        try:
            self._in_root(_FETCH, kernel.name)
            [image] = unpacked.glob("boot/vmlinuz-*")
            version = image.name.removeprefix("vmlinuz-")
            [modules] = [
                found
                for found in (unpacked / "lib/modules", unpacked / "usr/lib/modules")
                if found.is_dir()
            ]
            _thin_out(modules / version / "kernel" / "drivers")
            base = f"/{modules.parent.parent.relative_to(self._root.copy)}"
            if modules.parent.parent.name == "usr":  # depmod and modprobe look in lib/ only
                base = f"{base}/modules-base"
                (unpacked / "usr/modules-base/lib").mkdir(parents=True)
                modules = modules.rename(unpacked / "usr/modules-base/lib/modules")
            self._in_root('depmod -b "$1" "$2"', base, version)
            shutil.copy(image, kernel.image)
            kernel.initrd.write_bytes(self._initrd(base, version))
            _make_disk(kernel.modules, modules, "1500M")
        finally:
            extra.unlink()
            shutil.rmtree(unpacked, ignore_errors=True)

    def _initrd(self, base: str, version: str) -> bytes:
        """Files that mount the disk: a gzipped archive of cpio's format *newc*."""
        found = subprocess.run(
            [
                "chroot", self._root.copy, "sh", "-ec",
                'for m in "$@"; do modprobe -d "$0" -S VERSION --show-depends "$m" || true; done'
                .replace("VERSION", version),
                base, *_AT_BOOT,
            ],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        files = [Path(f"{self._root.copy}{path}") for path in re.findall(r"insmod (\S+)", found)]
        files = list(dict.fromkeys(files))
        modules = {
            f"modules/{file.name.removesuffix('.xz')}": (
                lzma.decompress(file.read_bytes()) if file.suffix == ".xz" else file.read_bytes()
            )
            for file in files
        }
        order = "".join(f"{name.removeprefix('modules/')}\n" for name in modules)
        return gzip.compress(
            cpio(
                ("bin", "dev", "modules", "new", "proc", "sys"),
                {
                    "init": _INIT.encode(),
                    "machine-init": INIT.read_bytes(),
                    "order": order.encode(),
                    "bin/busybox": (self._root.copy / "bin/busybox").read_bytes(),
                    **modules,
                },
                {f"bin/{applet}": b"busybox" for applet in _APPLETS},
            ),
            1,
        )

    def carry(self, package: Path, share: Path) -> None:
        """Put zipfs as it is in the folder *package*, and what tests it, into *share*."""
        source = self._root.copy / "tmp/carried"
        shutil.rmtree(source, ignore_errors=True)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package, source / "zipfs", ignore=ignored)
        (source / "tests").mkdir()
        (source / "tests/__init__.py").touch()
        (source / "bench").mkdir()
        shutil.copy(REPOSITORY / "bench/nginx.conf", source / "bench")
        shutil.copytree(REPOSITORY / "tests/vm", source / "tests/vm", ignore=ignored)
        # In the machine that would take half a minute. The files get other dates there.
        mode = "python3 -m compileall -q --invalidation-mode unchecked-hash /tmp/carried"
        self._in_root(mode, folder="/")
        with tarfile.open(share / "zipfs.tar", "w") as archive:
            archive.add(source, ".")
        shutil.rmtree(source)

    def _in_root(self, script: str, *arguments: str, folder: str | None = None) -> None:
        here = folder or ("/root/zipfs" if script is _PREPARE else "/")
        status = self._root.run("sh", "-ec", script, "sh", *arguments, folder=here)
        if status:
            raise subprocess.CalledProcessError(status, script)


INIT: Final = Path(__file__).parent / "guest/init"


def _fingerprint(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _thin_out(drivers: Path) -> None:
    """Remove the drivers of hardware that the machine doesn't have."""
    for folder in drivers.iterdir():
        if folder.name == "net":
            for below in folder.iterdir():
                if below.is_dir():
                    shutil.rmtree(below)
        elif folder.is_dir() and folder.name not in _DRIVERS:
            shutil.rmtree(folder)


def _make_disk(disk: Path, folder: Path, size: str) -> None:
    """Write *folder* into the new file system *disk*."""
    disk.unlink(missing_ok=True)
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", folder, disk, size],
        stdin=subprocess.DEVNULL,
        check=True,
    )


def cpio(folders: Sequence[str], files: Mapping[str, bytes], links: Mapping[str, bytes]) -> bytes:
    """An archive of cpio's format *newc* (Linux, driver-api/early-userspace/buffer-format)."""
    entries = [
        *((name, stat.S_IFDIR | 0o755, b"") for name in folders),
        *((name, stat.S_IFREG | 0o755, data) for name, data in files.items()),
        *((name, stat.S_IFLNK | 0o777, target) for name, target in links.items()),
        ("TRAILER!!!", 0, b""),
    ]
    parts: list[bytes] = []
    for number, (name, mode, data) in enumerate(entries):
        path = name.encode() + b"\0"
        numbers = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
        header = b"070701" + b"".join(b"%08X" % value for value in numbers) + path
        parts += [header, bytes(-len(header) % 4), data, bytes(-len(data) % 4)]
    return b"".join(parts)
