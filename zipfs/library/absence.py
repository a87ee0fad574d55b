"""A library that isn't there as a daemon starts, which goes on with the mount of another one.

Who reads isn't to wait for it: the daemon begins with a library that is gone (DESIGN H6).
"""

from __future__ import annotations

import os
from typing import NamedTuple

from zipfs.errors import LibraryError, UnansweredError
from zipfs.library.place import reason_of
from zipfs.system.subprocesses import FailedError, ask


class Absence(NamedTuple):
    """Why a library isn't there, and where it was."""

    root: bytes
    """Its absolute path without links, as it was."""
    reason: str


def check_answers(library: str) -> None:
    """Raise :exc:`LibraryError` if *library*, or its file system, doesn't answer.

    Any access to a share or a mount that hangs blocks for ever, and such a process can't be
    killed. To be called before threads are started, as it forks.
    """
    if os.name != "posix" or not (hasattr(os, "fork") and hasattr(os, "statvfs")):
        return
    try:
        ask(_look_at, library)
    except UnansweredError as error:
        raise LibraryError(
            f"the file system of the library {library} doesn't answer ({error}); `zipfs doctor"
            f" {library}` may tell more"
        ) from None
    except (OSError, FailedError):
        return  # reported when the library is opened


def _look_at(path: str) -> None:
    os.path.realpath(path)
    os.statvfs(path)  # never answered from a cache


def absence(library: str, root: bytes) -> Absence | None:
    """Whether *library*, whose root was at *root*, can't be listed now; forks, as above."""
    try:
        check_answers(library)
        with os.scandir(library):
            return None
    except LibraryError:
        return Absence(root, "it doesn't answer")
    except OSError as error:
        return Absence(root, reason_of(error))
