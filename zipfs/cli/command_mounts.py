"""``zipfs unmount``, ``prepare`` and ``tune``: commands beside a mount's daemon.

The mount of a service is made by one process of root, and unmounted by another, maybe after the
config was changed or removed, or when something else is mounted there. So the first writes device
and path of its mount to a file that only root may write, the *note*, and the second uses only that.
"""

from __future__ import annotations

import json
import os
import select
import stat
from typing import Final

import click

from zipfs.cli.terminal import check_answers, load_settings, log_to_stderr, mountpoint_of
from zipfs.config import Settings
from zipfs.errors import ConfigError, FuseError, MountpointError, StillServingError
from zipfs.mount import mountpoint as mp
from zipfs.mount.sd_notify import FUSE, Notifier
from zipfs.mount.status_client import daemon_of
from zipfs.sealing.sealers import make_library, romm_rules
from zipfs.system import mounts

_PATIENCE: Final = 30
"""Seconds to wait for the end of a daemon whose mount is gone: it saves what it has hashed."""
_FEW: Final = 3
"""Most processes that are named."""
_CONFIG = click.option(
    "--config", metavar="FILE", help="TOML file that names the mount point, as that of `mount`."
)


@click.command(short_help="Unmount, also a mount whose daemon has died.")
@click.argument("mountpoint", required=False)
@_CONFIG
@click.option(
    "--lazy",
    is_flag=True,
    help="Unmount even if it is in use: downloads under way are completed, and then the daemon"
    " ends.",
)
@click.option(
    "--if-mounted", is_flag=True, help="Do nothing, with status 0, if nothing is mounted."
)
@click.option(
    "--noted", metavar="FILE", help="Unmount only what `prepare --note FILE` has mounted."
)
def unmount(
    mountpoint: str | None, config: str | None, lazy: bool, if_mounted: bool, noted: str | None
) -> None:
    """Unmount MOUNTPOINT, also one whose daemon has died.

    It waits until the daemon has ended, for half a minute; with --lazy it doesn't wait. A copy of
    the mount in another mount namespace (a container, a service with PrivateMounts=) goes on
    being served: then the status is 11, and the message names a process that has the copy.
    """
    if noted is not None:
        if mountpoint is not None or config is not None:
            raise click.UsageError("--noted names the mount; leave MOUNTPOINT and --config out")
        if not _unmount_noted(noted, lazy=lazy) and not if_mounted:
            raise MountpointError(f"nothing is mounted by the note {noted}")
        return
    named = mountpoint_of(mountpoint, config)
    try:
        mount = mp.zipfs_mount(named)
    except MountpointError:
        if if_mounted:
            return
        raise
    _unmount(mount, lazy=lazy)


def _unmount(mount: mounts.Mount, *, lazy: bool) -> None:
    """Unmount; unless *lazy*, wait for the end of the daemon. Raises :exc:`StillServingError`."""
    if lazy or mounts.is_dead(mount.path):
        mp.unmount(mount.path)
        return
    daemon = daemon_of(mount)
    try:
        mp.unmount(mount.path, lazy=False)
        _await_end(daemon, mount)
    finally:
        if daemon is not None:
            os.close(daemon)


def _await_end(daemon: int | None, mount: mounts.Mount) -> None:
    """Wait for the end of *daemon*, a pidfd; raises :exc:`StillServingError`.

    None: which process it is isn't known, and only copies of the mount tell that it isn't over.
    """
    ended = select.poll()
    if daemon is not None:
        ended.register(daemon, select.POLLIN)
    found: list[mounts.Copy] = []
    complete = True
    for _ in range(_PATIENCE):
        before = found
        found, complete = mounts.copies(mount.device)
        if (before and found) or (daemon is None and not found):
            break  # it won't end by itself; or nothing says that it hasn't
        if ended.poll(1000):
            return
    if daemon is None and not found:
        return
    here = sorted({copy.path for copy in found if copy.ours})
    others = [f"{copy.name} (process {copy.pid})" for copy in found if not copy.ours]
    others = list(dict.fromkeys(others))  # it may be mounted there twice
    if here:
        why = f"it is mounted on {here[0]}, too; unmount it there: zipfs unmount {here[0]}"
    elif others:
        more = f" and {len(others) - _FEW} more" if len(others) > _FEW else ""
        why = (
            f"there is a copy of the mount in the namespace of {', '.join(others[:_FEW])}{more};"
            " end that first"
        )
    elif not complete:
        why = (
            "there may be a copy of the mount in another namespace; root sees in which by: grep -l"
            f" ' {mount.device} ' /proc/*/mountinfo"
        )
    else:
        why = "it may wait for a disk that doesn't answer; its log tells more"
    raise StillServingError(f"{mount.path} is unmounted, but its daemon hasn't ended: {why}")


def _unmount_noted(file: str, *, lazy: bool) -> bool:
    """Unmount the mount in the note *file*, and remove *file*; False if it isn't mounted."""
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as stream:
            note = json.load(stream)
        device, path = str(note["device"]), str(note["path"])
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MountpointError(
            f"the note {file} can't be read ({error}); unmount by hand, and remove it"
        ) from None
    mounted = mounts.mounted_at(path)
    # Another file system may be mounted there meanwhile.
    ours = mounted is not None and (mounted.device, mounted.kind) == (device, mp.KIND)
    try:
        if mounted is not None and ours:
            _unmount(mounted, lazy=lazy)
    except StillServingError:
        os.unlink(file)
        raise
    os.unlink(file)
    return ours


@click.command(
    short_help="Mount as root for a service without privileges; see systemd/zipfs@.service."
)
@click.option("--config", metavar="FILE", required=True, help="TOML file, as that of `mount`.")
@click.option("--note", metavar="FILE", help="File for a note of the mount, for `unmount --noted`.")
def prepare(config: str, note: str | None) -> None:
    """Mount, and store the descriptor in the service manager for `zipfs mount`.

    For the unit's ExecStartPre=, as root, so that the daemon itself needs no privilege. A mount
    whose daemon has died is unmounted first. Nobody but root may be able to write the config, as
    it decides what root mounts.
    """
    from zipfs.mount import privileged  # noqa: PLC0415 - it imports only on Linux

    _check_config(config)
    settings = load_settings(config)
    log_to_stderr(settings.log_level)
    notifier = Notifier()
    if not notifier.is_heard:
        raise FuseError(
            "no service manager takes the mount over; this is for ExecStartPre= of a systemd unit"
        )
    mountpoint = mountpoint_of(settings.mountpoint, None)
    for key, path in (("library", settings.library), ("mountpoint", mountpoint)):
        if not os.path.isabs(path):
            raise ConfigError(f"{key!r} in {config} isn't an absolute path, which a service needs")
    check_answers(settings)
    make_library(settings)  # before anything is made or cleared away
    romm_rules(settings)
    if note is not None:
        _unmount_noted(note, lazy=True)  # of a run without ExecStopPost=
    path = mp.prepare(mountpoint, settings.library)
    options = mp.mount_options(settings)
    device = privileged.mount(path, options, uid=os.getuid(), gid=os.getgid())
    try:
        if note is not None:
            _write_note(note, path)
        if not notifier.keep(device, FUSE):
            raise FuseError("the service manager doesn't take the mount over; see its log")
    except BaseException:
        mp.unmount(path)
        raise


def _check_config(file: str) -> None:
    try:
        status = os.stat(file)
    except OSError:
        return  # load_settings reports it
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"the config file {file} isn't a file")
    if os.geteuid() == 0 and (status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        raise ConfigError(
            f"others than root may write the config file {file}, by which root mounts: chown root"
            f" {file} && chmod go-w {file}"
        )


def _write_note(file: str, path: str) -> None:
    mounted = mounts.mounted_at(path)
    if mounted is None:
        raise FuseError(f"the mount on {path} isn't there")
    try:
        with open(file, "w", encoding="utf-8", errors="surrogateescape") as stream:
            json.dump({"device": mounted.device, "path": path}, stream)
    except OSError as error:
        raise FuseError(f"can't note down the mount in {file}: {error.strerror}") from None


@click.command(short_help="Set the kernel's read-ahead for a mount without privileges.")
@click.argument("mountpoint", required=False)
@_CONFIG
@click.option("--read-ahead", type=int, metavar="KIB", help="As that of `mount`.  [default: 1024]")
def tune(mountpoint: str | None, config: str | None, read_ahead: int | None) -> None:
    """Set the limits of the mount on MOUNTPOINT that only root can set.

    They are its read-ahead, and the number of read-ahead requests at once. `zipfs mount` sets
    them itself if it runs as root; otherwise this makes the first download faster. For the
    unit's ExecStartPost=: the daemon's first answer resets them.
    """
    named = mountpoint_of(mountpoint, config)
    settings = Settings.load(config, {"library": "/"} if config is None else {})
    kib = settings.read_ahead if read_ahead is None else read_ahead
    if why := mp.tune(mp.zipfs_mount(named).path, kib):
        raise FuseError(why)
