"""``zipfs restart``: another daemon for a mount that goes on, for an upgrade or new options."""

from __future__ import annotations

import os
import signal
import time
from typing import Any, Final

import click

from zipfs.cli.terminal import mountpoint_of
from zipfs.errors import MountpointError, RestartError
from zipfs.mount.status.client import ask

_PATIENCE: Final = 300.0
"""Seconds to wait for the new daemon, which looks through the library first."""
_PAUSE: Final = 0.1


@click.command(short_help="Replace the daemon of a mount, for an upgrade or new options.")
@click.argument("mountpoint", required=False)
@click.option(
    "--config", metavar="FILE", help="TOML file that names the mount point, as that of `mount`."
)
def restart(mountpoint: str | None, config: str | None) -> None:
    """Replace the daemon of MOUNTPOINT without an interruption.

    A new daemon is started with the command line of the mount: with the zipfs that is installed
    now, and the config as it is now. When it knows the library it takes over from the old one, in
    the midst of downloads. If it can't, the old one goes on serving, and the status is 12.
    """
    path = mountpoint_of(mountpoint, config)
    before = ask(path)
    holder = _holder_of(before, path)
    try:
        descriptor = os.pidfd_open(holder)
    except OSError as error:
        raise RestartError(f"can't find the process that holds {path}: {error.strerror}") from None
    try:
        # The number can't have become another process's: it is still the daemon's parent.
        if _holder_of(ask(path), path) != holder:
            raise RestartError(f"{path} was mounted anew just now; try again")
        signal.pidfd_send_signal(descriptor, signal.SIGUSR2)
    except PermissionError:
        raise RestartError(
            f"no permission to restart the daemon of {path}; run this as the user who mounted it"
        ) from None
    except ProcessLookupError:
        raise RestartError(f"the process that held {path} has just ended") from None
    finally:
        os.close(descriptor)
    _await(path, before)


def _holder_of(status: dict[str, Any], path: str) -> int:
    restarts = status.get("restarts") or {}
    holder = restarts.get("holder")
    if holder is None and restarts.get("outlives"):
        holder = status["pid"]  # the service manager holds it, and the daemon starts the next one
    if not isinstance(holder, int):
        raise RestartError(
            f"no process of zipfs holds {path} beside its daemon: unmount it, and mount it again"
        )
    return holder


def _await(path: str, before: dict[str, Any]) -> None:
    """Wait until another daemon answers than *before*. Raises :exc:`RestartError`."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        time.sleep(_PAUSE)
        try:
            now = ask(path)
        except MountpointError:
            continue  # between the two
        restarts = now["restarts"]
        if now["pid"] != before["pid"]:
            click.echo(
                f"zipfs: process {now['pid']} (version {now['version']}) serves {path} now;"
                f" nobody did for {1000 * restarts['outage']:.0f} ms"
            )
            if restarts["remount_for"]:
                raise RestartError(
                    f"the new daemon serves, but the kernel keeps these options until {path} is"
                    f" unmounted and mounted again: {', '.join(restarts['remount_for'])}"
                )
            return
        if restarts["failed"] != before["restarts"]["failed"]:
            raise RestartError(
                f"the new daemon of {path} didn't start, and the old one goes on; the reason is in"
                " its log"
            )
    raise RestartError(f"the new daemon of {path} isn't ready after {_PATIENCE:.0f} s; see its log")
