"""Python as it is on another platform, as far as zipfs would notice: run with its name.

``python -m tests.support.elsewhere PLATFORM ARGUMENT...`` runs what is on standard input there.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import sys

_UNIX = ["geteuid", "getegid", "getgroups", "fchown", "setpriority", "statvfs", "pread"]
_FLAGS = ["O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK"]
_LINUX = ["preadv", "posix_fadvise", "RWF_NOWAIT", "O_PATH", "getxattr"]

PLATFORMS = {
    "linux": ("linux", []),
    "macos": ("darwin", _LINUX),
    "windows": ("win32", [*_LINUX, *_FLAGS, *_UNIX]),
}
_MODULES = ["pyfuse3", "trio", "fcntl", "resource", "pwd", "grp", "termios"]


def become(platform: str) -> None:
    """Take away what *platform* hasn't got; nothing of zipfs is imported yet."""
    assert "zipfs" not in sys.modules
    for module in _MODULES:
        sys.modules[module] = None  # type: ignore[assignment]  # importing it is an error
    called, missing = PLATFORMS[platform]
    for name in missing:
        delattr(os, name)
    if platform == "linux":
        return
    # Not told of in `os.supports_effective_ids`, being another one.
    os.access = functools.partial(os.access)
    if platform == "windows":
        _without_folders()
    # Other modules that ask for the platform would want a real one.
    before, sys.platform = sys.platform, called
    from zipfs.index import hash_file  # noqa: PLC0415
    from zipfs.library import vouching  # noqa: PLC0415
    from zipfs.system import process  # noqa: PLC0415

    sys.platform = before
    assert hash_file._libc is None
    assert process._libc is None
    vouching.PLATFORM_VOUCHES = platform != "windows"
    vouching._HAS_TABLE = False


def _without_folders() -> None:
    """No descriptors of folders, and no C library of the process's own."""
    os.supports_fd = set()
    open_any = os.open

    def open_file(path: bytes, flags: int, mode: int = 0o777) -> int:
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return open_any(path, flags, mode)

    def no_library(name: str | None) -> None:
        raise TypeError("bad argument type for built-in operation")

    os.open = open_file  # type: ignore[assignment]
    ctypes.CDLL = no_library  # type: ignore[assignment, misc]


if __name__ == "__main__":
    program = sys.stdin.read()
    del sys.argv[0]
    become(sys.argv[0])
    exec(compile(program, "<stdin>", "exec"), {"__name__": "__main__"})  # noqa: S102 - a test's own
