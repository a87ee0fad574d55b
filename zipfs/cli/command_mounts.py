"""``zipfs unmount``, ``prepare`` and ``tune``: commands beside a mount's daemon."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import stat
from typing import Final, NamedTuple

import click

from zipfs.cli.terminal import load_settings, log_to_stderr, mountpoint_of
from zipfs.config import Settings
from zipfs.errors import (
    ConfigError,
    FuseError,
    LibraryError,
    MountpointError,
    StillServingError,
    ZipfsError,
)
from zipfs.library.absence import check_answers
from zipfs.mount import mountpoint as mp
from zipfs.mount.restart import note as notes
from zipfs.mount.restart import unit as restarts
from zipfs.mount.sd_notify import FUSE, STATE, Notifier
from zipfs.mount.status.client import daemon_of
from zipfs.sealing.sealers import index_file, make_library, romm_rules
from zipfs.system import mounts

log = logging.getLogger(__name__)

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
@click.option(
    "--unit",
    metavar="NAME",
    help="Unmount only if no other daemon of this systemd unit follows, which adopts the mount."
    " Needs --noted.",
)
def unmount(
    mountpoint: str | None,
    config: str | None,
    lazy: bool,
    if_mounted: bool,
    noted: str | None,
    unit: str | None,
) -> None:
    """Unmount MOUNTPOINT, also one whose daemon has died.

    It waits until the daemon has ended, for half a minute; with --lazy it doesn't wait. A copy of
    the mount in another mount namespace (a container, a service with PrivateMounts=) goes on
    being served: then the status is 11, and the message names a process that has the copy.
    """
    if noted is not None:
        if mountpoint is not None or config is not None:
            raise click.UsageError("--noted names the mount; leave MOUNTPOINT and --config out")
        if not _unmount_noted(noted, lazy=lazy, unit=unit) and not if_mounted:
            raise MountpointError(f"nothing is mounted by the note {noted}")
        return
    if unit is not None:
        raise click.UsageError("--unit needs --noted, which tells which mount is the unit's")
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


def _unmount_noted(file: str, *, lazy: bool, unit: str | None = None) -> bool:
    """Unmount the mount in the note *file*, and remove *file*; False if it isn't mounted.

    It stays, and so does *file*, if another daemon of *unit* adopts it.
    """
    with notes.locked(file):
        if unit is not None and restarts.keeps(unit):
            return True
        return _unmount_locked(file, lazy=lazy)


def _unmount_locked(file: str, *, lazy: bool) -> bool:
    note = notes.read(file)
    if note is None:
        return False
    mounted = note.mounted()
    try:
        if mounted is not None:
            _unmount(mounted, lazy=lazy)
    finally:
        # If unmounting failed, it wasn't by a note that is wrong.
        if mounted is None or note.mounted() is None:
            os.unlink(file)
    return mounted is not None


@click.command(
    short_help="Mount as root for a service without privileges; see systemd/zipfs@.service."
)
@click.option("--config", metavar="FILE", required=True, help="TOML file, as that of `mount`.")
@click.option("--note", metavar="FILE", help="File for a note of the mount, for `unmount --noted`.")
@click.option(
    "--unit",
    metavar="NAME",
    help="Leave a mount that the daemon before has left to the next one as it is, if both of its"
    " descriptors are stored for this unit. Needs --note.",
)
def prepare(config: str, note: str | None, unit: str | None) -> None:
    """Mount, and store the descriptor in the service manager for `zipfs mount`.

    For the unit's ExecStartPre=, as root, so that the daemon itself needs no privilege. A mount
    whose daemon has died is unmounted first. Nobody but root may be able to write the config, as
    it decides what root mounts.
    """
    if unit is not None and note is None:
        raise click.UsageError("--unit needs --note, which tells which mount is the unit's")
    notifier = Notifier()
    if not notifier.is_heard:
        raise FuseError(
            "no service manager takes the mount over; this is for ExecStartPre= of a systemd unit"
        )
    try:
        settings, mountpoint = _settings(config)
        options = _options(settings, _held(note, unit))
    except ZipfsError:
        if note is not None:
            _unmount_noted(note, lazy=True)  # nobody will answer who waits
        raise
    with notes.locked(note) if note is not None else contextlib.nullcontext():
        _mount(settings, options, mountpoint, notifier, _Unit(config, note, unit))


class _Unit(NamedTuple):
    """What the unit file says: *config* and *note* are files, *name* is that of the unit."""

    config: str
    note: str | None
    name: str | None


def _settings(config: str) -> tuple[Settings, str]:
    """The checked settings in *config*, and the mount point. Raises :exc:`ZipfsError`."""
    _check_config(config)
    settings = load_settings(config)
    log_to_stderr(settings.log_level)
    mountpoint = mountpoint_of(settings.mountpoint, None)
    for key, path in (("library", settings.library), ("mountpoint", mountpoint)):
        if not os.path.isabs(path):
            raise ConfigError(f"{key!r} in {config} isn't an absolute path, which a service needs")
    romm_rules(settings)
    return settings, mountpoint


def _options(settings: Settings, held: notes.Note | None) -> set[str]:
    """The options of the mount, if there is a library to mount. Raises :exc:`ZipfsError`.

    The daemon that adopts the mount *held* can do without, for as long as it is away.
    """
    try:
        check_answers(settings.library)
        make_library(settings)
    except LibraryError:
        if held is None:
            raise
        return mp.mount_options(settings, held.options)
    return mp.mount_options(settings)


def _held(note: str | None, unit: str | None) -> notes.Note | None:
    """The note of the mount that waits for the next daemon, if there is one."""
    before = notes.read(note) if note is not None and unit is not None else None
    return before if before and unit and restarts.is_held(before, restarts.ask(unit)) else None


def _mount(
    settings: Settings, options: set[str], mountpoint: str, notifier: Notifier, unit: _Unit
) -> None:
    """Have the service manager store the descriptor of a mount, unless that of before is held."""
    from zipfs.mount import privileged  # noqa: PLC0415 - it imports only on Linux

    made = notes.Note("", mp.resolved(mountpoint), tuple(sorted(options)))
    if unit.note is not None:
        if (before := _held(unit.note, unit.name)) is not None:
            if (before.path, before.options) == (made.path, made.options):
                # The next time, that the config is the same is all that has to be found out.
                notes.write(unit.note, before._replace(config=notes.fingerprint(unit.config)))
                return
            log.warning("%s", _made_anew(before, made))
        _unmount_locked(unit.note, lazy=True)
    path = mp.prepare(mountpoint, settings.library, index_file(settings))
    device = privileged.mount(path, options, uid=os.getuid(), gid=os.getgid())
    try:
        if unit.note is not None:
            mounted = mounts.mounted_at(path)
            if mounted is None:
                raise FuseError(f"the mount on {path} isn't there")
            notes.write(
                unit.note,
                made._replace(
                    device=mounted.device, path=path, config=notes.fingerprint(unit.config)
                ),
            )
        _store(device, notifier, with_state=unit.name is not None)
    except BaseException:
        mp.unmount(path)
        raise


def _store(device: int, notifier: Notifier, *, with_state: bool) -> None:
    """Store *device* in the service manager, and with it a state that is empty yet."""
    for name in (FUSE, STATE):
        notifier.let_go(name)  # of a mount that nobody adopts
    kept = True
    if with_state:
        state = os.memfd_create("zipfs-state")
        kept = notifier.keep(state, STATE)
        os.close(state)
    if not (kept and notifier.keep(device, FUSE)):
        raise FuseError("the service manager doesn't take the mount over; see its log")


def _made_anew(before: notes.Note, after: notes.Note) -> str:
    if before.path != after.path:
        return f"the mount moves from {before.path} to {after.path}, and downloads are cut off"
    changed = {option.partition("=")[0] for option in {*before.options} ^ {*after.options}}
    return (
        f"{before.path} is mounted anew, and downloads are cut off: the kernel never changes"
        f" {', '.join(sorted(changed))} of a mount"
    )


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


@click.command(short_help="Set the kernel's read-ahead for a mount without privileges.")
@click.argument("mountpoint", required=False)
@_CONFIG
@click.option("--read-ahead", type=int, metavar="KIB", help="As that of `mount`.  [default: 1024]")
@click.option("--library", type=click.Path(), help="As that of `mount`.  [default: the file's]")
def tune(
    mountpoint: str | None, config: str | None, read_ahead: int | None, library: str | None
) -> None:
    """Set the limits of the mount on MOUNTPOINT that only root can set.

    They are its read-ahead, and the number of read-ahead requests at once. `zipfs mount` sets
    them itself if it runs as root; otherwise this makes the first download faster. For the
    unit's ExecStartPost=: the daemon's first answer resets them.
    """
    named = mountpoint_of(mountpoint, config)
    library = library or ("/" if config is None else None)
    settings = Settings.load(config, {} if library is None else {"library": library})
    if read_ahead is not None:
        settings = settings.model_copy(update={"read_ahead": read_ahead})
    if why := mp.tune(mp.zipfs_mount(named).path, mp.read_ahead_for(settings)):
        raise FuseError(why)
