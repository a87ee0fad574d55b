"""``zipfs unmount`` and ``zipfs prepare``: what is done about a mount without being its daemon."""

from __future__ import annotations

import os

import click

from zipfs import mountpoint as mp
from zipfs.config import Settings
from zipfs.errors import ConfigError, FuseError, MountpointError
from zipfs.notify import Notifier
from zipfs.sealers import make_library, romm_rules
from zipfs.terminal import load_settings, log_to_stderr

_CONFIG = click.option(
    "--config", metavar="FILE", help="TOML file that names the mount point, as that of `mount`."
)


def mountpoint_of(mountpoint: str | None, config: str | None) -> str:
    """The mount point that the command line or *config* names. Raises :exc:`ConfigError`."""
    if mountpoint is None and config is not None:
        mountpoint = Settings.load(config, {}).mountpoint
    if mountpoint is None:
        raise ConfigError("no mountpoint given; name it on the command line or in a config file")
    return mountpoint


@click.command(short_help="Unmount, also a mount whose daemon has died.")
@click.argument("mountpoint", required=False)
@_CONFIG
@click.option(
    "--lazy",
    is_flag=True,
    help="Unmount even if it is in use: downloads under way go on to their end, which is the"
    " daemon's end as well.",
)
@click.option("--if-mounted", is_flag=True, help="Do nothing, and be content, if there is none.")
def unmount(mountpoint: str | None, config: str | None, lazy: bool, if_mounted: bool) -> None:
    """Unmount MOUNTPOINT, also one whose daemon has died."""
    path = mountpoint_of(mountpoint, config)
    absolute = mp.absolute(path)
    mounted = mp.mounted_at(absolute)
    if mounted is None or mounted.kind != f"fuse.{mp.SUBTYPE}":
        if if_mounted:
            return
        raise MountpointError(f"no zipfs is mounted on {path}")
    mp.unmount(absolute, lazy=lazy or mp.is_dead(absolute))


@click.command(short_help="Mount for a service that has no right to; see systemd/zipfs@.service.")
@click.option("--config", metavar="FILE", required=True, help="TOML file, as that of `mount`.")
def prepare(config: str) -> None:
    """Mount, and have the service manager keep the descriptor for `zipfs mount`.

    For the unit's ExecStartPre=, as root: so the daemon itself needs no right at all. A mount
    whose daemon has died is taken away first.
    """
    from zipfs import privileged  # noqa: PLC0415 - on some systems nobody can

    settings = load_settings(config)
    log_to_stderr(settings.log_level)
    notifier = Notifier()
    if not notifier.is_heard:
        raise FuseError("nobody takes the mount over; this is for ExecStartPre= of a systemd unit")
    mountpoint = mountpoint_of(settings.mountpoint, None)
    make_library(settings)  # before anything is made or cleared away
    romm_rules(settings)
    path = mp.prepare(mountpoint, settings.library)
    options = mp.mount_options(settings)
    device = privileged.mount(path, options, uid=os.getuid(), gid=os.getgid())
    if not notifier.keep(device, "fuse"):
        mp.unmount(path)
        raise FuseError("the service manager doesn't take the mount over; see its log")


@click.command(short_help="Set the kernel's read-ahead for a mount that had no right to.")
@click.argument("mountpoint", required=False)
@_CONFIG
@click.option("--read-ahead", type=int, metavar="KIB", help="As that of `mount`.  [default: 1024]")
def tune(mountpoint: str | None, config: str | None, read_ahead: int | None) -> None:
    """Set, as root, what the kernel lets only root set of the mount on MOUNTPOINT.

    That is its read-ahead, and how many reads of it may be under way. `zipfs mount` does it
    itself if it is root's; else this makes the first download faster. For the unit's
    ExecStartPost=: before the daemon has answered its first question, nothing of it lasts.
    """
    path = mp.absolute(mountpoint_of(mountpoint, config))
    settings = Settings.load(config, {"library": "/"} if config is None else {})
    kib = settings.read_ahead if read_ahead is None else read_ahead
    mounted = mp.mounted_at(path)
    if mounted is None or mounted.kind != f"fuse.{mp.SUBTYPE}":
        raise MountpointError(f"no zipfs is mounted on {path}")
    if why := mp.tune(path, kib):
        raise FuseError(why)
