"""The command line: arguments to settings, errors to one line and an exit code."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, NoReturn, ParamSpec, TypeVar

import click

from zipfs import __version__
from zipfs.cli import report
from zipfs.cli.command_doctor import doctor
from zipfs.cli.command_front import front
from zipfs.cli.command_help import manual
from zipfs.cli.command_mounts import prepare, tune, unmount
from zipfs.cli.command_restart import restart
from zipfs.cli.command_status import status
from zipfs.cli.command_verify import verify
from zipfs.cli.options import archive_options, json_option, mount_options, trust_option
from zipfs.cli.terminal import (
    Bar,
    console,
    drop_output,
    guard_output,
    load_settings,
    log_to_stderr,
    print_json,
)
from zipfs.config_shared import shown_address
from zipfs.errors import (
    EXIT_CODES,
    INTERRUPTED,
    ConfigError,
    FuseError,
    IndexFileError,
    LayoutError,
    LibraryError,
    NotSealedError,
    OutputError,
    ZipfsError,
)
from zipfs.library.absence import check_answers
from zipfs.library.rules.general import folders_of
from zipfs.library.scan import Entry
from zipfs.library.view import find_games
from zipfs.mount.restart.held import Held, from_environment
from zipfs.sealing import offline
from zipfs.sealing.outcomes import Impossible, Plain, Unneeded
from zipfs.sealing.sealer import Sealer
from zipfs.sealing.sealers import make_sealer, psycopg_needed
from zipfs.text import counted

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
_Command = Callable[P, R]

_EPILOG = "\b\nExit status:\n" + "\n".join(f"{code:5}  {text}" for code, text in EXIT_CODES.items())


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.version_option(__version__, prog_name="zipfs")
def cli() -> None:
    """Show every multi-file game of a library as one virtual, seekable .zip file.

    Nothing is copied, and nothing in the library is ever changed: the headers of the
    archives are computed, and their data are read from the files. Serve the mount with
    any web server, and downloads have byte ranges, resume and stable ETags.
    """


for _command in (doctor, front, manual, prepare, restart, status, tune, unmount, verify):
    cli.add_command(_command)


@cli.command(short_help="Mount a library, in the foreground.")
@click.argument("library", required=False)
@click.argument("mountpoint", required=False)
@archive_options
@mount_options
def mount(**given: Any) -> None:
    """Mount LIBRARY on the empty folder MOUNTPOINT, in the foreground.

    A game folder with two or more files is shown as NAME.zip in its place, as soon
    as its files are hashed and have settled; everything else is shown unchanged.
    SIGINT and SIGTERM unmount; SIGHUP rescans the library; SIGUSR1 dumps all stacks
    to stderr.
    """
    settings = load_settings(**given)
    log_to_stderr(settings.log_level)
    try:
        # The other commands don't need FUSE, which is the first that isn't there elsewhere.
        import pyfuse3  # noqa: F401, PLC0415

        from zipfs.mount import as_user, daemon  # noqa: PLC0415
        from zipfs.mount.restart.supervisor import divide  # noqa: PLC0415
        from zipfs.mount.sd_notify import has_stored  # noqa: PLC0415
    except ImportError as error:
        raise FuseError(
            f"FUSE isn't available ({error}); zipfs mounts only on Linux, with pyfuse3"
        ) from None
    settings = settings.absolute()
    held = from_environment()
    if held is None and not has_stored():
        check_answers(settings.library)
        held = divide(settings)
    if held is None:
        served = as_user.separate(settings)
        held = None if served.device is None else Held(served.device)
        daemon.run(settings, held, mounted=served.mounted)
        return
    as_user.drop(settings)
    daemon.run(settings, held)


@cli.command(short_help="Hash all games of a library now.")
@click.argument("library", required=False)
@archive_options
@trust_option
@click.option(
    "--prune",
    is_flag=True,
    help="Forget the checksums of files that are gone, also of disks that aren't mounted now.",
)
@click.option(
    "--migrate",
    is_flag=True,
    help="Make the tables of the shared index, or bring them to this version, and hash nothing.",
)
def index(*, migrate: bool, prune: bool, **given: Any) -> None:
    """Hash all games of LIBRARY now, so that a mount has every archive at once.

    After Ctrl-C the next run, or the mount, continues from there.
    """
    if migrate:
        _migrate(given)
        return
    settings = load_settings(**given)
    log_to_stderr("warning")
    check_answers(settings.library)
    sealer = make_sealer(settings)
    with closing(sealer.index), Bar() as bar:
        sealer.index.join()
        summary = offline.seal_all(sealer, list(find_games(sealer.library, sealer.policy)), bar)
        forgotten = offline.prune(sealer) if prune else 0
        saved = sealer.index.is_saving
        head = sealer.index.head_facts()
    for problem in summary.problems:
        click.echo(f"zipfs: {problem}", err=True)
    others = ""
    if summary.hashed_elsewhere:
        others = f", {counted(summary.hashed_elsewhere, 'byte')} by others meanwhile"
    click.echo(
        f"{counted(summary.archives, 'archive')} sealed: {counted(summary.members, 'member')},"
        f" {counted(summary.size, 'byte')} ({counted(summary.hashed, 'byte')} hashed now{others})"
    )
    if prune:
        click.echo(f"{counted(forgotten, 'file')} forgotten")
    if head and head.mode in ("joining", "away"):
        reason = head.reason or "it doesn't answer"
        click.echo(
            f"zipfs: the shared index {head.address} is away: {reason}; the next run, or a mount,"
            " tells it of this",
            err=True,
        )
    elif head and head.mode == "reading" and summary.hashed:
        click.echo(
            f"zipfs: the shared index {head.address} can only be read ({head.reason}): it isn't"
            " told of this",
            err=True,
        )
    if not saved:
        raise IndexFileError(f"the checksums could not be saved to the index {sealer.index.file}")
    if summary.changing:
        first = os.fsdecode(summary.changing[0])
        if len(summary.changing) == 1:
            raise NotSealedError(
                f"1 game could not be sealed, because it keeps changing or can't be read: {first}"
            )
        raise NotSealedError(
            f"{len(summary.changing)} games could not be sealed, because they keep changing or"
            f" can't be read; the first is {first}"
        )


def _migrate(given: Mapping[str, Any]) -> None:
    """Make or migrate the tables of the shared index; no library is needed for that."""
    settings = load_settings(**{**given, "library": given["library"] or "."})
    if settings.shared_index is None:
        raise ConfigError("--migrate is for a shared index; name it with --shared-index URL")
    with psycopg_needed():
        from zipfs.index.shared.postgresql.migration import migrate  # noqa: PLC0415 - an extra
    where = shown_address(settings.shared_index)
    before, after = migrate(settings.shared_index)
    if before == after:
        click.echo(f"the shared index {where} is of version {after}: nothing to do")
    else:
        did = f"brought from version {before} to {after}" if before else f"made, version {after}"
        click.echo(f"the tables of the shared index {where}: {did}")


@cli.command(short_help="Show the members and validators of an archive.")
@click.argument("place", metavar="[LIBRARY] GAME", nargs=-1, required=True)
@archive_options
@json_option
def inspect(place: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Show the archive of GAME, a path in LIBRARY or relative to it: members and validators.

    Files that aren't hashed yet are hashed first.
    """
    if len(place) > 2:
        raise click.UsageError(f"got an unexpected argument ({place[2]})")
    game = place[-1]
    settings = load_settings(library=place[0] if len(place) == 2 else None, **given)
    log_to_stderr("error")
    check_answers(settings.library)
    sealer = make_sealer(settings)
    with closing(sealer.index):
        sealer.index.join()
        found = _find_game(sealer, _within(settings.library, os.fsencode(game)))
        with Bar() as bar:
            examination, version = offline.seal_one(sealer, found, bar)
    if version is None:
        if isinstance(examination.outcome, Plain):
            raise LibraryError(
                f"{game} has fewer than two files, so it is shown as a folder, not as an archive"
            )
        if isinstance(examination.outcome, Unneeded):
            raise LibraryError(f"there is no {game}: {examination.outcome.reason}")
        if isinstance(examination.outcome, Impossible):
            raise LayoutError(f"{game} has no archive: {examination.outcome.reason}")
        raise NotSealedError(f"{game} keeps changing, or can't be read; try again later")
    if as_json:
        print_json(report.as_json(version))
    else:
        listed = sealer.library.list_of(found[0]) is not None
        report.print_version(version, console(), listed=listed)


def _within(library: str, path: bytes) -> bytes:
    """The path relative to the library of *path*, which may be absolute."""
    path = os.path.normpath(path)
    for root in (os.path.abspath(library), os.path.realpath(library)):
        path = path.removeprefix(os.fsencode(root).rstrip(b"/") + b"/")
    return b"" if path == b"." else path.strip(b"/")


def _find_game(sealer: Sealer, path: bytes) -> offline.FoundGame:
    """The game whose folder or archive is *path*. Raises :exc:`LibraryError`."""
    folder, _, name = path.rpartition(b"/")
    candidates = [path]
    candidates += [folder + b"/" + base if folder else base for base in folders_of(name)]
    for candidate in candidates:
        entry = sealer.library.entry(candidate)
        if isinstance(entry, Entry) and entry.is_folder:
            if sealer.policy.is_game(candidate):
                return candidate, entry
            shown = os.fsdecode(path) or "the library itself"
            raise LibraryError(
                f"{shown} isn't where games are; see --games in `zipfs index --help`"
            )
    if (missing := sealer.library.list_of(path.removesuffix(b".zip"))) is not None:
        raise LibraryError(f"there is no list {os.fsdecode(missing)} in the folder of lists")
    raise LibraryError(f"there is no game folder {os.fsdecode(path)} in the library")


def main() -> NoReturn:
    """The console script ``zipfs``."""
    guard_output()
    try:
        status = cli.main(standalone_mode=False, prog_name="zipfs") or 0
        sys.stdout.flush()  # at exit it would be too late to report an error
        sys.exit(status)
    except ZipfsError as error:
        if isinstance(error, OutputError):
            drop_output()
        click.echo(f"zipfs: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("zipfs: interrupted; the same command continues from here", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The program that reads the output has closed it.
        drop_output()
        sys.exit(1)
    except Exception:
        logging.basicConfig(stream=sys.stderr)
        log.exception("unexpected error; please report it")
        sys.exit(ZipfsError.exit_code)
