"""``mount.zipfs``: the program that mount(8) runs for ``mount -t zipfs`` and for fstab(5).

    mount.zipfs SOURCE TARGET [-sfnv] [-N namespace] [-o options] [-t type.subtype]

(mount(8), "External helpers".) It returns when the mount can be used; the daemon stays in the
background. The exit statuses are those of mount(8): 1 for wrong usage, 32 for a failed mount.

Each option of ``zipfs mount`` can be given as ``-o name=value``, or ``-o name`` if it has no
value; in names ``_`` is the same as ``-``. A value with a comma is quoted, ``name="a,b"``, or has
a backslash before the comma. Options that mount(8) and systemd use themselves are ignored.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import Final, NoReturn

import click

from zipfs import logs
from zipfs.cli.cli import mount as mount_command
from zipfs.cli.terminal import load_settings
from zipfs.config import Settings
from zipfs.errors import ZipfsError
from zipfs.library.absence import check_answers
from zipfs.mount import mountpoint as mp
from zipfs.mount.restart.held import Held, from_environment
from zipfs.system import mounts

log = logging.getLogger(__name__)

USAGE: Final = 1
FAILED: Final = 32

_NO_EFFECT: Final = frozenset(
    """
    defaults ro rw auto noauto user nouser users nousers owner noowner group nogroup _netdev nofail
    suid nosuid dev nodev relatime norelatime noatime atime diratime nodiratime strictatime
    nostrictatime lazytime nolazytime sync async dirsync silent loud mand nomand iversion noiversion
    """.split()  # noqa: SIM905 - forty lines otherwise
)
"""Options of mount(8) without effect: a mount of zipfs is read-only, has no devices and no setuid
programs, and keeps no access times."""
_OF_OTHERS: Final = re.compile(r"(x-|X-|comment=|user=|uhelper=|helper=)")
_FUSE: Final = re.compile(
    r"(exec|noexec|nosymfollow|auto_unmount|fsname=.*|subtype=.*|((fs|def|root)?context)=.*)"
)
_NEVER: Final = frozenset(("remount", "bind", "rbind", "move"))


def split(options: str) -> Iterator[str]:
    """The single options of *options*, without quotes and backslashes."""
    if re.fullmatch(r'(?:[^"\\]|\\.|"[^"]*")*', options, re.DOTALL) is None:
        raise click.UsageError(f"a quote isn't closed in the mount options {options!r}")
    for option in re.findall(r'(?:[^,"\\]|\\.|"[^"]*")+', options, re.DOTALL):
        yield re.sub(
            r'\\(.)|"([^"]*)"', lambda found: found[1] or found[2] or "", option, flags=re.DOTALL
        )


def arguments_of(options: Iterable[str], *, sloppy: bool = False) -> list[str]:
    """The arguments of ``zipfs mount`` for *options*.

    Raises :exc:`click.UsageError` for an unknown option, unless *sloppy*.
    """
    known = {
        name.removeprefix("--"): parameter
        for parameter in mount_command.params
        if isinstance(parameter, click.Option)
        for name in parameter.opts
        if name.startswith("--")
    }
    arguments: list[str] = []
    for option in options:
        name, equals, value = option.partition("=")
        parameter = known.get(name.replace("_", "-"))
        if parameter is not None:
            if parameter.is_flag and not equals:
                arguments.append(f"--{name.replace('_', '-')}")
            elif equals and not parameter.is_flag:
                arguments.append(f"--{name.replace('_', '-')}={value}")
            else:
                needs = "takes no value" if parameter.is_flag else f"needs a value, {name}=..."
                raise click.UsageError(f"the mount option {option!r} {needs}")
        elif _FUSE.fullmatch(option):
            arguments += ["-o", option]
        elif option in _NEVER:
            raise click.UsageError(f"can't {option}; unmount, and mount anew")
        elif not (option in _NO_EFFECT or _OF_OTHERS.match(option) or sloppy):
            raise click.UsageError(
                f"unknown mount option {option!r}; `zipfs mount --help` lists those of zipfs"
            )
    return arguments


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("source")
@click.argument("target")
@click.option("-o", "options", multiple=True, metavar="OPTIONS", help="Separated by commas.")
@click.option("-s", "sloppy", is_flag=True, help="Ignore unknown options.")
@click.option("-f", "fake", is_flag=True, help="Do everything but mount.")
@click.option("-n", "_no_mtab", is_flag=True, help="Ignored: there is no mtab.")
@click.option("-v", "verbose", is_flag=True, help="Print what is mounted.")
@click.option("-N", "namespace", metavar="NAMESPACE", help="Not supported; use nsenter(1).")
@click.option("-t", "_kind", metavar="TYPE", help="Ignored: there is only one.")
def helper(
    source: str,
    target: str,
    options: tuple[str, ...],
    sloppy: bool,
    fake: bool,
    _no_mtab: bool,
    verbose: bool,
    namespace: str | None,
    _kind: str | None,
) -> None:
    """Mount the library SOURCE on TARGET, for mount(8); the daemon runs in the background."""
    if namespace:
        raise click.UsageError("-N isn't supported; run mount in that namespace, by nsenter(1)")
    arguments = arguments_of(split(",".join(options)), sloppy=sloppy)
    if not any(argument.startswith("fsname=") for argument in arguments) and not (
        set(source) & set(",\\")
    ):
        # So that `mount -a` recognises the mount of an fstab line, and df(1) shows the library.
        arguments += ["-o", f"fsname={source}"]
    context = mount_command.make_context("zipfs mount", [*arguments, "--", source, target])
    settings = load_settings(**context.params).absolute()
    if fake:
        return
    if (held := from_environment()) is not None:
        raise SystemExit(_again(settings, held))
    status = _in_background(settings)
    if status:
        raise SystemExit(FAILED)
    if verbose:
        click.echo(f"zipfs: {source} mounted on {target}")


def _in_background(settings: Settings) -> int:
    """Start the daemon; 0 once it has mounted, or its exit status if it ends before."""
    ours, its = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        os._exit(_child(settings, its))
    os.close(its)
    with os.fdopen(ours, "rb") as pipe:
        if pipe.read(1):
            if settings.setuid is not None and settings.mountpoint is not None:
                # After the daemon's first answer, which resets it.
                mp.tune(mp.absolute(settings.mountpoint), mp.read_ahead_for(settings))
            return 0
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if settings.setuid is not None and settings.mountpoint is not None:
        # The daemon, which has become another user, may not unmount.
        path = mp.absolute(settings.mountpoint)
        mounted = mounts.mounted_at(path)
        if mounted and mounted.kind == mp.KIND and mounts.is_dead(path):
            mp.unmount(path)
    return status or FAILED


def _child(settings: Settings, pipe: int) -> int:
    """Run the daemon; returns its exit status. Errors before the mount are printed on stderr."""
    try:
        logs.to_stderr("error")
        _serve(settings, functools.partial(_detach, settings, pipe))
    except ZipfsError as error:
        click.echo(f"mount.zipfs: {error}", err=True)
        return error.exit_code
    except BaseException:
        log.exception("unexpected error; please report it")
        return ZipfsError.exit_code
    return 0


def _again(settings: Settings, held: Held) -> int:
    """Run the daemon for a mount that another one has served; returns its exit status."""
    from zipfs.mount import as_user, daemon  # noqa: PLC0415

    logs.to_system(settings.log_level)
    try:
        as_user.drop(settings)
        daemon.run(settings, held)
    except ZipfsError as error:
        log.error("%s", error)
        return error.exit_code
    except BaseException:
        log.exception("unexpected error; please report it")
        return ZipfsError.exit_code
    return 0


def _serve(settings: Settings, mounted: functools.partial[None]) -> None:
    # Only Linux has it.
    from zipfs.mount import as_user, daemon  # noqa: PLC0415
    from zipfs.mount.restart.supervisor import divide  # noqa: PLC0415

    check_answers(settings.library)
    # setsid not before the mount: only systemd's own process group may access the mount point of
    # an automount without waiting for the mount.
    held = divide(settings, quiet=True, before=os.setsid)
    if held is None and (user := as_user.wanted(settings)) is not None:
        held = Held(as_user.mount_for(settings, user)[0])
    as_user.drop(settings)
    daemon.run(settings, held, mounted=mounted)


def _detach(settings: Settings, pipe: int) -> None:
    """Detach from mount(8) after mounting, and let mount(8) return."""
    os.setsid()
    logs.to_system(settings.log_level)
    if settings.mountpoint is not None:
        logs.about(mp.absolute(settings.mountpoint))
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)
    os.write(pipe, b"\0")
    os.close(pipe)


def main() -> NoReturn:
    """The console script ``mount.zipfs``."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        helper.main(standalone_mode=False, prog_name="mount.zipfs")
    except ZipfsError as error:
        click.echo(f"mount.zipfs: {error}", err=True)
        sys.exit(USAGE if error.exit_code == 2 else FAILED)
    except click.ClickException as error:
        click.echo(f"mount.zipfs: {error.format_message()}", err=True)
        sys.exit(USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(FAILED)
    sys.exit(0)
