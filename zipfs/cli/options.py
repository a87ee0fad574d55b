"""The options of the commands, in the order of ``--help``."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, get_args

import click

from zipfs.config import LogLevel, SelectionName, Timestamps, Trust, Watch
from zipfs.config_variants import PlaylistMode
from zipfs.library.vouching import HashSingles, Prove

P = ParamSpec("P")
R = TypeVar("R")
_Command = Callable[P, R]

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, for programs instead of people."
)

shared_index_option = click.option(
    "--shared-index",
    metavar="URL",
    help="A PostgreSQL database, postgresql://HOST/DATABASE, in which all who show this library"
    " share its checksums, so that each file is hashed once (`zipfs help scaling`). Its password is"
    " taken from PGPASSFILE, a service file or PGPASSWORD.",
)
shared_name_option = click.option(
    "--shared-name",
    metavar="NAME",
    help="The name of the library in the shared index, the same for all who show it.  [default: the"
    " path of LIBRARY]",
)

_ARCHIVE_OPTIONS = (
    click.option(
        "--config",
        metavar="FILE",
        help="TOML file with the options of `mount` by name, and LIBRARY and MOUNTPOINT.",
    ),
    click.option(
        "--index",
        metavar="FILE",
        help="The file of checksums (SQLite).  [default: a file of its own for each"
        " library, in $STATE_DIRECTORY or else in your state folder, ~/.local/state/zipfs]",
    ),
    shared_index_option,
    shared_name_option,
    click.option(
        "--games",
        metavar="GLOB",
        multiple=True,
        help="Which folders are games, relative to the library, such as 'roms/*/*' or"
        " '{platform}/roms/{game}'; can be given several times.  [default: roms/*/* if there is"
        " a folder roms, else */roms/* if such folders exist, else */*]",
    ),
    click.option(
        "--selection",
        type=click.Choice(get_args(SelectionName)),
        help="Which files are in archives: with `general`, all but those that operating systems"
        " leave behind; with `romm`, those that RomM selects.  [default: general]",
    ),
    click.option(
        "--romm-config",
        metavar="FILE",
        help="RomM's config.yml, which says what is excluded and where games are.  [default: RomM's"
        " own defaults]",
    ),
    click.option(
        "--exclude",
        metavar="PATTERN",
        multiple=True,
        help="Files and folders to exclude from archives, by name, such as '*.nfo', or by path in"
        " the library, such as 'roms/*/*/extras'; can be given several times.",
    ),
    click.option(
        "--include",
        metavar="PATTERN",
        multiple=True,
        help="Files and folders to include although they would be skipped; can be given several"
        " times.",
    ),
    click.option(
        "--portable-names",
        is_flag=True,
        help="Change names in archives so that Windows can create each of them, and macOS all"
        " of them in one folder.",
    ),
    click.option(
        "--timestamps",
        type=click.Choice(get_args(Timestamps)),
        help="The dates of members: those of their `files`, or one for all, `fixed`, for"
        " libraries whose copies have other dates.  [default: files]",
    ),
    click.option(
        "--execute-bits",
        is_flag=True,
        help="Keep execute permissions in archives. Not for FAT, exFAT, NTFS or SMB, which show"
        " all files as executable.",
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
        help="Folders of platforms that get playlists, instead of the list in `zipfs help"
        " playlists`; `default` stands for that list; can be given several times.  [default:"
        " default]",
    ),
    click.option(
        "--lists",
        metavar="FOLDER",
        help="Show each X.list in FOLDER, a list of members in the format of nginx's ZIP module, as"
        " the archive X.zip.",
    ),
    click.option(
        "--lists-folder",
        metavar="NAME",
        help="The folder of the mount that shows the archives of lists.  [default: .lists]",
    ),
    click.option(
        "--lists-prefix",
        metavar="PATH",
        help="The path that stands for the library in the locations of lists.  [default:"
        " /library/]",
    ),
)


def archive_options(command: _Command[P, R]) -> _Command[P, R]:
    """Add the options that determine archives, the same for all commands."""
    for option in reversed(_ARCHIVE_OPTIONS):
        command = option(command)
    return command


trust_option = click.option(
    "--trust",
    type=click.Choice(get_args(Trust)),
    help="What shows that a file is unchanged: its whole `state`, or `mtime` and size alone, so"
    " that archives stay while files are hashed again after a chmod or a copy.  [default: state]",
)
"""Of the commands that hash."""

_MOUNT_OPTIONS = (
    trust_option,
    click.option(
        "--allow-other",
        is_flag=True,
        help="Let other users, such as a web server's, into the mount. Each file still has the"
        " permissions of its source.",
    ),
    click.option(
        "--settle",
        type=float,
        metavar="SECONDS",
        help="How long a game's folder has to be unchanged before its archive is shown."
        "  [default: 2; 0.05 to 86400]",
    ),
    click.option(
        "--read-ahead",
        type=int,
        metavar="KIB",
        help="The kernel's read-ahead for the mount, in KiB, and four times as far where the"
        " library takes more than half a millisecond to answer; only root can set it; 0 keeps the"
        " kernel's default.  [default: 1024]",
    ),
    click.option(
        "--watch",
        type=click.Choice(get_args(Watch)),
        help="How changes are noticed: by `events` from the kernel, or by `poll`, which scans the"
        " library every few seconds.  [default: auto, which polls where the"
        " file system sends no events: NFS, SMB, FUSE]",
    ),
    click.option(
        "--prove",
        type=click.Choice(get_args(Prove)),
        help="Where each MiB is compared with its checksum before a byte of it is served:"
        " `always`, `never`, or where dates can't be relied on: SMB, NFSv4 with noatime, FUSE, FAT."
        "  [default: auto]",
    ),
    click.option(
        "--hash-singles",
        type=click.Choice(get_args(HashSingles)),
        help="Which files outside archives get checksums as well, and are compared with them:"
        " `always` all, `never` none, or those whose dates can't be relied on.  [default: auto]",
    ),
    click.option(
        "--read-timeout",
        type=float,
        metavar="SECONDS",
        help="Seconds after which a read fails if the disk or the share doesn't answer; 0: never."
        "  [default: 30]",
    ),
    click.option(
        "--parallel-reads",
        type=int,
        metavar="N",
        help="How many files to read at a time for one reader, and ahead of it; 0: only what is"
        " asked for, one after the other.  [default: as many as make it quicker, by measuring the"
        " source: up to 32 on a share, few on a disk]",
    ),
    click.option(
        "--parallel-looks",
        type=int,
        metavar="N",
        help="How many files and games to look at at a time, for a listing or a scan, and how many"
        " small files to hash at a time.  [default: as many as make it quicker, by measuring the"
        " source: up to 32 on a share, one on a quick disk]",
    ),
    click.option(
        "--hash-rate",
        type=float,
        metavar="MIB",
        help="Most MiB to read per second to compute checksums; 0: no limit.  [default: 0]",
    ),
    click.option(
        "--recheck-rate",
        type=float,
        metavar="MIB",
        help="MiB to read again per second of what its dates don't vouch for, to find changes that"
        " no date tells of; 0: none.  [default: 1, but 0 on cloud storage such as rclone]",
    ),
    click.option(
        "--lists-keep",
        type=float,
        metavar="DAYS",
        help="Remove lists that nobody has asked for in so many days; 0 keeps all.  [default: 0]",
    ),
    click.option(
        "--uid",
        metavar="USER",
        help="Owner of all files and folders, by number or name.  [default: the source's]",
    ),
    click.option(
        "--gid",
        metavar="GROUP",
        help="Group of all files and folders, by number or name.  [default: the source's]",
    ),
    click.option(
        "--umask",
        metavar="OCTAL",
        help="Octal umask, such as 022; replaces the source's permission bits.  [default: the"
        " source's bits]",
    ),
    click.option(
        "--no-supervise",
        is_flag=True,
        help="Serve in this process alone, so that the mount dies with it. Otherwise a small one"
        " keeps the mount and starts the daemon again, and no download is cut.",
    ),
    click.option(
        "--setuid",
        metavar="USER[:GROUP]",
        help="Mount as root, then become this user, by name or number, and drop all rights.",
    ),
    click.option(
        "-o",
        "options",
        metavar="OPTION",
        multiple=True,
        help="A mount option of FUSE, passed on unchanged.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(get_args(LogLevel)),
        help="Level of the log on stderr.  [default: info]",
    ),
)


def mount_options(command: _Command[P, R]) -> _Command[P, R]:
    """Add the options of a mount only."""
    for option in reversed(_MOUNT_OPTIONS):
        command = option(command)
    return command
