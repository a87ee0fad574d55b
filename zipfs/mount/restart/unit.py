"""Whether the mount of a systemd unit stays when its daemon ends.

The mount lives as long as somebody has its ``/dev/fuse`` open. For a unit that is the daemon, and
the service manager's descriptor store (systemd.service(5), ``FileDescriptorStoreMax=``), which
passes it to the next daemon. While none answers, whoever asks the mount for something waits. So
it must stay where another daemon follows at once, and go wherever none does.

*The store.* systemd keeps it while the unit is active or changes its state, while it has a job,
and while an automatic restart is due. Once the unit is inactive or failed without a job, systemd
closes what is stored: all who wait get ``ENOTCONN``, whatever happens here. What is left to do is
to take the dead mount off its path; at a stop, before it is dead.

*Who decides.* Three commands do; each is ``zipfs unmount --noted FILE --unit NAME``:

1. ``ExecStop=`` runs before the daemon is told to end: upon a job to stop or to restart, and
   without a job if the daemon has ended with status 0. Not after a crash.
2. ``ExecStopPost=`` runs after each end of the daemon, also of one that wasn't ready yet. Between
   the two, a restart can become a stop.
3. ``zipfs-unmount@.service`` runs by ``OnFailure=`` and ``OnSuccess=``: the unit is failed or
   inactive. Nobody knows before that the limit of starts is reached, that what a restart needs
   can't be started, or that a restart becomes a stop after 2 has asked. It runs amid each restart
   as well, and with systemd 254 and later after each crash.

In 1 and 2, ``SERVICE_RESULT`` is set, systemd.exec(5), and :func:`follows` tells whether another
daemon does. In 3 the unit is at rest, or it is being started again: :func:`stays`.

If the unit is stopped between a crash and the next start, only 3 runs: the path is dead for a
moment.

*A reload* has a successor started by the daemon (:mod:`.relief`): the unit stays active, and none
of these commands is run.

*The next start.* ``ExecStartPre=`` doesn't get what is stored. By the note
(:mod:`zipfs.mount.restart.note`) it finds the mount of the daemon before; it is *held*, for the
next to adopt, if both descriptors are stored: :func:`is_held`.

Nothing here touches the mount: that would wait for the daemon that is to be started. And all of it
runs while readers wait, so :func:`nothing_to_do` decides before anything large is imported.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from zipfs.errors import ConfigError, NotAdoptedError, ZipfsError
from zipfs.mount.restart import note as notes

DESCRIPTORS: Final = 2
"""As many are stored for a mount that is held."""
_FINAL: Final = frozenset({str(NotAdoptedError.exit_code), str(ConfigError.exit_code)})
"""Exit statuses of a daemon after which no other adopts its mount."""
_STARTING_JOBS: Final = frozenset({"start", "restart", "try-restart", "reload-or-start"})


class State(NamedTuple):
    """What the service manager says of the unit."""

    active: str = ""
    """``ActiveState``; "" if it doesn't say."""
    job: str = ""
    """Type of its job, as of ``systemctl list-jobs``; "" without one."""
    stored: int = 0
    """How many descriptors are stored for it."""


def follows(state: State, result: str, status: str) -> bool:
    """Whether another daemon follows the one that ends, as known in ExecStop= and ExecStopPost=.

    *result* and *status* are ``SERVICE_RESULT`` and ``EXIT_STATUS``.
    """
    if status in _FINAL or not state.active:
        return False
    if state.job == "stop" or state.job in _STARTING_JOBS:
        return state.job != "stop"
    # Restart=on-failure; if there is none, or too many were, the unit fails: OnFailure=.
    return result != "success"


def stays(state: State) -> bool:
    """Whether the mount stays, as seen from zipfs-unmount@.service.

    With a job a start follows, which takes a dead mount away.
    """
    return bool(state.job) or state.active not in ("inactive", "failed")


def is_held(note: notes.Note | None, state: State) -> bool:
    """Whether the mount of *note* waits for the next daemon."""
    return note is not None and state.stored >= DESCRIPTORS and note.mounted() is not None


def ask(unit: str) -> State:
    """The state of *unit*; the default if the service manager doesn't say."""
    properties = dict(
        line.partition("=")[::2]
        for line in _systemctl(
            "show", "--property=ActiveState,Job,NFileDescriptorStore", "--", unit
        )
    )
    number = properties.get("Job", "0")
    job = ""
    if number not in ("", "0"):
        # JOB UNIT TYPE STATE
        rows = [
            line.split() for line in _systemctl("list-jobs", "--full", "--plain", "--no-legend")
        ]
        job = next((row[2] for row in rows if len(row) > 2 and row[:2] == [number, unit]), "")
    stored = properties.get("NFileDescriptorStore", "0")
    return State(properties.get("ActiveState", ""), job, int(stored) if stored.isdecimal() else 0)


def _systemctl(*arguments: str) -> list[str]:
    try:
        done = subprocess.run(
            ["systemctl", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError:
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def keeps(unit: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the mount of *unit* stays, asked by one of the three commands."""
    result = environment.get("SERVICE_RESULT")
    if result is None:
        return stays(ask(unit))
    return follows(ask(unit), result, environment.get("EXIT_STATUS", ""))


def nothing_to_do(arguments: Sequence[str]) -> bool:
    """Whether the command ``zipfs`` with *arguments*, which have ``--unit``, leaves all as it is.

    False if it isn't that simple: then the command itself finds out.
    """
    given = dict(itertools.pairwise(arguments))
    unit = given["--unit"]
    try:
        if arguments[0] == "unmount":
            return not os.path.exists(given["--noted"]) or keeps(unit)
        if arguments[0] == "prepare":
            with notes.locked(given["--note"]):
                note = notes.read(given["--note"])
                return (
                    note is not None
                    and note.config != ""
                    and note.config == notes.fingerprint(given["--config"])
                    and is_held(note, ask(unit))
                )
    except (KeyError, ZipfsError):
        pass
    return False
