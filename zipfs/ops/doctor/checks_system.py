"""Checks of the machine: FUSE, who may mount, versions, limits, programs.

Paths of the system's files are arguments, so that tests can pass others.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import os
import platform
import re
import resource
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from zipfs.errors import UnansweredError
from zipfs.mount.mountpoint import DEVICE, FUSE_CONF, user_allow_other
from zipfs.ops.doctor.findings import Finding
from zipfs.system import containers
from zipfs.system.process import Limits
from zipfs.system.subprocesses import ask

_MODULE: Final = "/proc/filesystems"
_SELF: Final = "/proc/self/status"
_IN_CONTAINER: Final = (
    "start the container with --device /dev/fuse --cap-add SYS_ADMIN"
    " --security-opt apparmor=unconfined"
)
_FEW_FILES: Final = 1024
"""Open files below which many downloads at once slow each other down."""
_NEEDED: Final = {"pyfuse3": (3, 4), "trio": (0, 27)}
"""As in pyproject.toml."""

Version = tuple[int, ...]
_KERNELS: Final[tuple[tuple[Version, str], ...]] = (
    (
        (4, 14),
        "it has no RWF_NOWAIT: a read of a source takes a thread, cached or not, which is slower",
    ),
    ((4, 20), "FUSE reads 128 KiB at most in one piece, so that downloads cost more"),
)
"""Versions of the kernel, each with what older ones lack."""


def check_device(
    device: str = DEVICE, filesystems: str = _MODULE, *, container: bool = False
) -> Iterator[Finding]:
    """Check whether FUSE's device exists and can be opened: fuse(4)."""
    name = DEVICE
    load = _IN_CONTAINER if container else "modprobe fuse"
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        yield Finding(name, "problem", "isn't there", load)
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ENXIO):
            yield Finding(name, "problem", "is there, but the kernel module isn't", "modprobe fuse")
        elif error.errno == errno.EACCES:
            yield Finding(
                name,
                "problem",
                "may not be opened by this user; distributions ship it with 0666",
                f"chmod 666 {device}",
            )
        else:
            what = f"can't be opened: {error.strerror}"
            yield Finding(name, "problem", what, _IN_CONTAINER if container else f"ls -l {device}")
    else:
        yield Finding(name, "ok", "can be opened")
    with open(filesystems, encoding="ascii") as lines:
        if not any(line.split()[-1:] == ["fuse"] for line in lines):
            yield Finding("kernel module fuse", "problem", "isn't loaded", "modprobe fuse")


def check_mounting(
    status: str = _SELF, *, allow_other: bool, container: bool, conf: str = FUSE_CONF
) -> Iterator[Finding]:
    """Check whether this user may mount, and let others in: fusermount3(1), fuse.conf(5)."""
    fields = containers.fields_of(status)
    if os.geteuid() == 0:
        yield _root_may(fields, container)
        return
    yield _helper(shutil.which("fusermount3"), fields.get("NoNewPrivs") == "1")
    if allow_other:
        if user_allow_other(conf):
            yield Finding("user_allow_other", "ok", f"is set in {conf}")
        else:
            yield Finding(
                "user_allow_other",
                "problem",
                f"isn't set in {conf}, so --allow-other is forbidden to users",
                f"echo user_allow_other >> {conf}, as root",
            )


def _root_may(fields: Mapping[str, str], container: bool) -> Finding:
    name = "right to mount"
    if not containers.may_mount(fields):
        return Finding(
            name,
            "problem",
            "this is root without CAP_SYS_ADMIN, as in a container",
            _IN_CONTAINER if container else "run it as root of the machine",
        )
    return Finding(name, "ok", "root may mount, and let others in")


def _helper(program: str | None, no_new_privileges: bool) -> Finding:
    name = "fusermount3"
    if program is None:
        return Finding(
            name,
            "problem",
            "isn't there, and without it only root can mount",
            "apt-get install fuse3 (Fedora, Arch: fuse3)",
        )
    status = os.stat(program)
    setuid = bool(status.st_mode & stat.S_ISUID) and status.st_uid == 0
    if not setuid and not _has_capability(program):
        return Finding(
            name,
            "problem",
            f"{program} isn't setuid root, so it can't mount for users",
            f"chown root {program} && chmod u+s {program}",
        )
    if no_new_privileges:
        return Finding(
            name,
            "problem",
            "is setuid root without effect: this process can't gain privileges (no_new_privs)",
            "remove NoNewPrivileges= from the service, or --security-opt no-new-privileges",
        )
    if not os.access(program, os.X_OK):
        return Finding(name, "problem", f"this user may not run {program}", f"chmod a+x {program}")
    return Finding(name, "ok", f"{program} can mount for users")


def _has_capability(program: str) -> bool:
    try:
        return bool(os.getxattr(program, "security.capability"))
    except OSError:
        return False


def check_versions(release: str | None = None) -> Iterator[Finding]:
    """Check the versions of the kernel (uname(2)), of Python, and of the packages required."""
    release = release or platform.release()
    kernel = version_of(release)
    lacks = [what for since, what in _KERNELS if kernel < since]
    if lacks:
        yield Finding("kernel", "note", f"{release}: {'; '.join(lacks)}", "use a newer kernel")
    else:
        yield Finding("kernel", "ok", release)
    yield Finding("Python", "ok", platform.python_version())
    try:
        versions = ask(_versions)
    except (OSError, UnansweredError) as error:
        yield Finding("pyfuse3", "problem", f"can't be loaded: {error}", "pip install pyfuse3")
        return
    for name, needed in _NEEDED.items():
        version = versions[name]
        wanted = ".".join(map(str, needed))
        if version.startswith("!"):
            yield Finding(
                name,
                "problem",
                f"can't be loaded: {version[1:]}",
                f"apt-get install libfuse3-dev gcc pkg-config python3-dev; {sys.executable} -m pip"
                f" install '{name}>={wanted}'",
            )
        elif version_of(version) < needed:
            yield Finding(
                name,
                "problem",
                f"{version}, and zipfs needs {wanted}",
                f"{sys.executable} -m pip install '{name}>={wanted}'",
            )
        else:
            yield Finding(name, "ok", version)
    if versions["libfuse"]:
        yield Finding("libfuse", "ok", versions["libfuse"])


def version_of(text: str) -> Version:
    """The numbers that *text* begins with: ``6.1.0-28-amd64`` is (6, 1, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, match[0].split("."))) if match else ()


def _versions() -> dict[str, Any]:
    """The versions of the packages, or ``!`` and the error; imports them, in a subprocess."""
    found = {}
    for name in _NEEDED:
        try:
            found[name] = str(importlib.import_module(name).__version__)
        except ImportError as error:
            found[name] = f"!{error}"
    return found | {"libfuse": _libfuse()}


def _libfuse() -> str:
    """The version and path of the loaded libfuse; empty if none is loaded, or without version."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as lines:
        paths = {line.split(maxsplit=5)[-1].strip() for line in lines if "libfuse3" in line}
    for path in sorted(paths):
        library = ctypes.CDLL(path)
        if hasattr(library, "fuse_pkgversion"):
            library.fuse_pkgversion.restype = ctypes.c_char_p
            return f"{library.fuse_pkgversion().decode()}, {path}"
    return ""


def check_limits(hard: int | None = None) -> Iterator[Finding]:
    """Check the limit on open files; *hard* is ``RLIMIT_NOFILE`` of setrlimit(2)."""
    if hard is None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        hard = 1 << 20
    files = Limits.within(hard).files
    what = f"{hard} at most, of which {files} are for files of the library"
    if files < _FEW_FILES:
        yield Finding(
            "open files",
            "note",
            f"{what}: many downloads at once will open and close them often",
            "LimitNOFILE=65536 in a service; else, as root: prlimit --nofile=65536 zipfs mount ...",
        )
    else:
        yield Finding("open files", "ok", what)


def check_programs(
    path: str | None = None, helpers: tuple[str, ...] = ("/sbin", "/usr/sbin")
) -> Iterator[Finding]:
    """Check whether the programs are found; *path* replaces ``$PATH``."""
    program = shutil.which("zipfs", path=path)
    if program is None:
        own = os.path.join(os.path.dirname(sys.executable), "zipfs")
        yield Finding(
            "program",
            "note",
            "zipfs isn't on the PATH of this user",
            f"ln -s {own} /usr/local/bin/zipfs",
        )
    else:
        yield Finding("program", "ok", program)
    if not any(os.path.exists(os.path.join(folder, "mount.zipfs")) for folder in helpers):
        yield Finding(
            "mount.zipfs",
            "note",
            "isn't in /sbin, so /etc/fstab and mount(8) don't know zipfs; all else works without",
        )
