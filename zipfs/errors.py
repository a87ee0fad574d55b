"""The errors of zipfs, and the exit status of each.

The message of a :exc:`ZipfsError` is one sentence with the problem and the remedy; the command
line prints it without a traceback. ``EXIT_CODES`` is the table in the manual
(``zipfs help exit-statuses``).
"""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

Level: TypeAlias = Literal["ok", "note", "warning", "problem"]
"""Severity of a finding. ``note``: it works, with a consequence to know. ``warning``: something
works badly, or not for every user. ``problem``: a requested function doesn't work."""


class ZipfsError(Exception):
    """Base of all errors that a user can fix; ``str()`` is the line to print."""

    exit_code: ClassVar[int] = 1


class ConfigError(ZipfsError):
    """An option, a config file or one of its keys is wrong."""

    exit_code = 2


class UnknownOptionError(ConfigError):
    """A mount option that only libfuse knows."""


class TopicError(ZipfsError):
    """The manual has no such topic, or no section with the words searched for."""

    exit_code = 2


class LibraryError(ZipfsError):
    """The library, or the given game, doesn't exist or can't be read."""

    exit_code = 3


class MountpointError(ZipfsError):
    """The mount point is missing, not empty, in use, or not a zipfs mount."""

    exit_code = 4


class FuseError(ZipfsError):
    """FUSE isn't available, or the system forbids the mount."""

    exit_code = 5


class IndexFileError(ZipfsError):
    """The index can't be created or opened at its path."""

    exit_code = 6


class LayoutError(ZipfsError):
    """The members can't be expressed as a ZIP (a name beyond 65,535 bytes, say)."""

    exit_code = 7


class NotSealedError(ZipfsError):
    """The game is changing; there is no archive of it yet."""

    exit_code = 8


class ProblemsFoundError(ZipfsError):
    """`zipfs doctor` found a problem."""

    exit_code = 9


class OutputError(ZipfsError):
    """Standard output can't be written: its disk is full, or it was closed."""


class UnansweredError(Exception):
    """A file system didn't answer in time."""


class DamageError(ZipfsError):
    """Files have other bytes than when they were hashed, though their state is the same."""

    exit_code = 10


class StillServingError(ZipfsError):
    """It is unmounted here, and its daemon hasn't ended."""

    exit_code = 11


class NotAdoptedError(ZipfsError):
    """The mount of an earlier daemon can't be taken over; a new one has to be made."""

    exit_code = 96


class RestartError(ZipfsError):
    """The daemon that was to be replaced goes on, or the new one can't do all that was asked."""

    exit_code = 12


class ChangedError(Exception):
    """A file isn't in the expected state (any more).

    Not an error that a user can fix, so no :exc:`ZipfsError`: a reader of the old version gets
    ``EIO``, and the game is examined again.
    """


class GoneError(OSError):
    """The library, or a disk of it, isn't where it was: what was asked can't be answered (H6).

    ``errno`` is ``EIO``; ``strerror`` is the reason.
    """


class StaleError(Exception):
    """A node belongs to a version that isn't the current one of its path."""


INTERRUPTED = 130
"""Exit status after Ctrl-C in a command that can be continued later (128 + SIGINT)."""

EXIT_CODES: dict[int, str] = {
    0: "done; for `mount`: unmounted after a signal or `zipfs unmount`",
    ZipfsError.exit_code: (
        "an unexpected error; the log has its traceback. Or the output can't be written"
    ),
    ConfigError.exit_code: "wrong usage, an unknown option, topic or config key, a bad value",
    LibraryError.exit_code: "no such library or game, or it can't be read",
    MountpointError.exit_code: "mount point missing, not empty, in use, or not mounted",
    FuseError.exit_code: "FUSE is missing, or the system forbids this mount",
    IndexFileError.exit_code: ("the index can't be written at its path, or `verify` finds none"),
    LayoutError.exit_code: "the game can't be expressed as a ZIP, or its list is wrong",
    NotSealedError.exit_code: "the game is changing right now; try again later",
    ProblemsFoundError.exit_code: "`doctor` found a problem; its remedy is printed with it",
    DamageError.exit_code: "`verify` found files that are damaged, or can't be read",
    StillServingError.exit_code: (
        "`unmount` has unmounted, and the daemon hasn't ended: another mount namespace has a copy,"
        " or a disk doesn't answer"
    ),
    RestartError.exit_code: (
        "`restart`: the new daemon didn't start, and the old one goes on serving; or the mount has"
        " to be made anew for some options"
    ),
    NotAdoptedError.exit_code: (
        "`mount`, started again for a mount that goes on: it can't be taken over. Who started it"
        " makes a new one"
    ),
    INTERRUPTED: "interrupted by Ctrl-C; the results so far are saved",
}
