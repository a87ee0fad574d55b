"""The options of the commands, in the order in which ``--help`` tells of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, get_args

import click

from zipfs.config import LogLevel, PlaylistMode, SelectionName, Timestamps, Trust, Watch

P = ParamSpec("P")
R = TypeVar("R")
_Command = Callable[P, R]

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, for programs instead of people."
)

_ARCHIVE_OPTIONS = (
    click.option(
        "--config",
        metavar="FILE",
        help="TOML file with the options of `mount` by name, LIBRARY and MOUNTPOINT included.",
    ),
    click.option(
        "--index",
        metavar="FILE",
        help="Where the checksums are kept (SQLite).  [default: a file of its own for each"
        " library, in $STATE_DIRECTORY or else in your state folder, ~/.local/state/zipfs]",
    ),
    click.option(
        "--games",
        metavar="GLOB",
        multiple=True,
        help="Which folders are games, relative to the library, such as 'roms/*/*' or"
        " '{platform}/roms/{game}'; can be given several times.  [default: roms/*/* if there is"
        " a folder roms, else */roms/* if there are such, else */*]",
    ),
    click.option(
        "--selection",
        type=click.Choice(get_args(SelectionName)),
        help="By whose rules: `general`, all but what operating systems leave behind, or those of"
        " `romm`.  [default: general]",
    ),
    click.option(
        "--romm-config",
        metavar="FILE",
        help="RomM's config.yml, for what it leaves out and where it looks for games.  [default:"
        " what RomM does without one]",
    ),
    click.option(
        "--exclude",
        metavar="PATTERN",
        multiple=True,
        help="Files and folders to leave out of archives, by name, such as '*.nfo', or by path in"
        " the library, such as 'roms/*/*/extras'; can be given several times.",
    ),
    click.option(
        "--include",
        metavar="PATTERN",
        multiple=True,
        help="Files and folders to take in that would be left out; can be given several times.",
    ),
    click.option(
        "--portable-names",
        is_flag=True,
        help="Change the names in archives so that Windows can create each of them, and macOS"
        " side by side.",
    ),
    click.option(
        "--timestamps",
        type=click.Choice(get_args(Timestamps)),
        help="Date the members of archives as their `files` are, or all the same: `fixed`, for"
        " libraries whose copies have other dates.  [default: files]",
    ),
    click.option(
        "--playlists",
        type=click.Choice(get_args(PlaylistMode)),
        help="Add an .m3u to archives: `off`, to none; `romm`, to all, as RomM does; `discs`, to"
        " games of two or more discs, on platforms whose emulators take it.  [default: discs]",
    ),
    click.option(
        "--playlist-platforms",
        metavar="NAME,...",
        multiple=True,
        help="Folders of these platforms, instead of the README's list; `default` among them"
        " stands for that; can be given several times.  [default: default]",
    ),
    click.option(
        "--lists",
        metavar="FOLDER",
        help="Show each X.list in FOLDER, members in the format of nginx's ZIP module, as X.zip.",
    ),
    click.option(
        "--lists-folder",
        metavar="NAME",
        help="The folder of the mount where they are shown.  [default: .lists]",
    ),
    click.option(
        "--lists-prefix",
        metavar="PATH",
        help="Where locations in lists have the library.  [default: /library/]",
    ),
)


def archive_options(command: _Command[P, R]) -> _Command[P, R]:
    """What decides on archives, so that all commands have to be told the same."""
    for option in reversed(_ARCHIVE_OPTIONS):
        command = option(command)
    return command


_MOUNT_OPTIONS = (
    click.option(
        "--allow-other",
        is_flag=True,
        help="Let other users, a web server's for one, into the mount. Each file can still be read"
        " only by whom its source grants it.",
    ),
    click.option(
        "--settle",
        type=float,
        metavar="SECONDS",
        help="How long nothing in a game's folder must have changed before its archive is shown."
        "  [default: 2]",
    ),
    click.option(
        "--read-ahead",
        type=int,
        metavar="KIB",
        help="The kernel's read-ahead for the mount, set if root; 0 leaves it alone."
        "  [default: 1024]",
    ),
    click.option(
        "--watch",
        type=click.Choice(get_args(Watch)),
        help="How to hear of changes before somebody asks: `events` from the kernel, or `poll`,"
        " looking through the library every few seconds.  [default: auto, which polls where the"
        " file system sends no events: NFS, SMB, FUSE]",
    ),
    click.option(
        "--trust",
        type=click.Choice(get_args(Trust)),
        help="What shows that a file is unchanged: all of its `state`, or `mtime` and size alone,"
        " so that archives stay up while files are checked again after a chmod.  [default: state]",
    ),
    click.option(
        "--read-timeout",
        type=float,
        metavar="SECONDS",
        help="How long a read may wait for a disk or a share that doesn't answer before it fails;"
        " 0 waits for ever.  [default: 30]",
    ),
    click.option(
        "--hash-rate",
        type=float,
        metavar="MIB",
        help="How many MiB a second are read, at most, to compute checksums; 0: as many as the disk"
        " gives.  [default: 0]",
    ),
    click.option(
        "--uid",
        metavar="USER",
        help="Whose all files and folders are said to be, by number or name.  [default: whose they"
        " are]",
    ),
    click.option("--gid", metavar="GROUP", help="The same of the group."),
    click.option(
        "--umask",
        metavar="OCTAL",
        help="Which permissions nobody has, such as 022; all others everybody has, whatever the"
        " sources grant.  [default: what they grant]",
    ),
    click.option(
        "-o",
        "options",
        metavar="OPTION",
        multiple=True,
        help="A mount option of FUSE's own, passed on as it is.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(get_args(LogLevel)),
        help="How much to say on stderr.  [default: info]",
    ),
)


def mount_options(command: _Command[P, R]) -> _Command[P, R]:
    """What only a mount can be told."""
    for option in reversed(_MOUNT_OPTIONS):
        command = option(command)
    return command
