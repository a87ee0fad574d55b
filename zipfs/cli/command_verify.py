"""``zipfs verify``: reads all files again, and compares them with the index."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Final

import click

from zipfs.cli.options import archive_options, json_option
from zipfs.cli.terminal import Bar, load_settings, log_to_stderr, print_json
from zipfs.errors import DamageError, IndexFileError, LibraryError
from zipfs.index.index import Index
from zipfs.index.indexfile import IN_MEMORY
from zipfs.index.tables import Store, is_damage
from zipfs.library.absence import check_answers
from zipfs.ops.verify import foundreport, verified
from zipfs.ops.verify.verified import BadFile, Memory
from zipfs.ops.verify.verify import Verifier
from zipfs.sealing.sealers import index_file, make_sealer
from zipfs.system.paths import lstat
from zipfs.system.process import lower_process
from zipfs.system.rates import Pace
from zipfs.text import counted, date, shown

log = logging.getLogger(__name__)

_MIB: Final = 1 << 20
_UNITS: Final = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.ASCII)
_SHOWN: Final = 3
"""Most files that the last line names."""


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Seconds of a duration: ``3600``, ``90min``, ``1h 30m``."""
    if value is None:
        return None
    text = value.strip().lower()
    seconds = 0.0
    at = 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None or match[2] not in _UNITS:
            raise click.BadParameter(f"{value!r} isn't a duration like 3600, 90min or 1h30m")
        seconds += float(match[1]) * _UNITS[match[2]]
        at = match.end()
    if not seconds:
        raise click.BadParameter(f"{value!r} isn't a duration longer than 0")
    return seconds


@click.command(short_help="Read all files again, and compare them with the index.")
@click.argument("library", required=False)
@archive_options
@click.option(
    "--rate",
    type=click.FloatRange(min=0),
    metavar="MIB",
    help="Most MiB to read per second; 0: no limit.  [default: hash-rate of the config file, or"
    " else 0]",
)
@click.option(
    "--max-time",
    callback=_seconds,
    metavar="DURATION",
    help="Stop after this time, such as 3600 (seconds), 90min or 1h30m; the next run continues."
    " It reads the file that was abandoned then to its end, however long that takes.",
)
@click.option(
    "--restart", is_flag=True, help="Begin a new round instead of continuing the last one."
)
@json_option
def verify(
    rate: float | None, max_time: float | None, restart: bool, as_json: bool, **given: Any
) -> None:
    """Read all hashed files of LIBRARY again from the disk, and compare them with the index.

    A file is reported if its bytes have changed though no program has written it: the disk has
    damaged it. Neither the library nor the index is changed. After Ctrl-C, or a kill, the next
    run continues with the file that was being read; after the last file, the next run begins
    again with the first.
    """
    deadline = None if max_time is None else time.monotonic() + max_time
    settings = load_settings(**given)
    log_to_stderr("warning")
    check_answers(settings.library)
    file = index_file(settings)
    with closing(Index(IN_MEMORY)) as nothing:
        sealer = make_sealer(settings, nothing)
        root = sealer.library.root
        with _store(file) as store, _memory(file, root) as memory, Bar("verifying") as bar:
            if restart:
                memory.round = None
            lower_process()
            verifier = Verifier(
                sealer,
                store,
                memory,
                file + verified.SUFFIX,
                pace=Pace((settings.hash_rate if rate is None else rate) * _MIB),
                progress=bar,
                report=_report,
                deadline=deadline,
            )
            ended = verifier.run()
    _summarize(verifier, file, os.fsdecode(root), ended=ended, as_json=as_json)


def _report(bad_file: BadFile) -> None:
    """Log *bad_file*; on a terminal print it above the bar, which the log would overwrite."""
    if sys.stderr.isatty():
        click.echo(f"zipfs: {foundreport.line(bad_file)}", err=True)
    else:
        log.error("%s", foundreport.line(bad_file))


@contextmanager
def _store(file: str) -> Iterator[Store]:
    """The index at *file*, which must exist; its errors become :exc:`IndexFileError`."""
    if not os.path.exists(file):
        raise IndexFileError(
            f"there is no index {file} to compare with; `zipfs index` creates it, or name another"
            " with --index FILE"
        )
    try:
        with closing(Store(file, reading=True)) as store:
            yield store
    except sqlite3.Error as error:
        if is_damage(error):
            remedy = "`zipfs index` replaces it"
        elif os.statvfs(file).f_flag & os.ST_RDONLY:
            remedy = "SQLite has to write beside it: copy it off that read-only file system"
        else:
            remedy = "`zipfs doctor` says what is wrong with its place"
        raise IndexFileError(f"can't read the index {file}: {error}; {remedy}") from None
    except UnicodeDecodeError:
        raise IndexFileError(f"the index {file} is damaged; `zipfs index` replaces it") from None


@contextmanager
def _memory(index: str, root: bytes) -> Iterator[Memory]:
    """The saved data beside *index*, locked for the context."""
    file = index + verified.SUFFIX
    try:
        inode = lstat(root).st_ino
    except OSError as error:
        raise LibraryError(f"can't read the library: {error.strerror}") from None
    with ExitStack() as stack:
        try:
            is_alone = stack.enter_context(verified.alone(file))
        except OSError as error:
            raise IndexFileError(
                f"can't write beside the index, {file}: {error.strerror}; name another with --index"
            ) from None
        if not is_alone:
            raise IndexFileError(f"another `zipfs verify` by the index {index} is under way")
        try:
            memory = verified.load(file, (root, inode))
        except OSError as error:
            raise IndexFileError(f"can't read {file}: {error.strerror}") from None
        yield memory


def _summarize(verifier: Verifier, file: str, root: str, *, ended: bool, as_json: bool) -> None:
    """Print the summary; raise :exc:`DamageError` if any file is bad."""
    memory, run = verifier.memory, verifier.this_run
    round_ = memory.last if ended else memory.round
    assert round_ is not None  # noqa: S101 - one of the two is always set
    if as_json:
        facts = {
            "library": root,
            "index": file,
            "ended": ended,
            "known": {"files": verifier.known, "bytes": verifier.known_size},
            "this_run": {
                "verified_files": run.verified,
                "read_bytes": run.size,
                "seconds": round(run.seconds, 3),
            },
            **foundreport.as_json(memory),
        }
        print_json(facts)
    else:
        click.echo(
            f"{counted(round_.verified, 'file')} verified: {counted(round_.size, 'byte')},"
            f" in {round_.seconds:.0f} s ({counted(run.size, 'byte')} read now)"
        )
        if reasons := foundreport.not_verified(round_):
            click.echo(f"not verified: {reasons}")
        if not ended:
            share = 100 * round_.passed // max(verifier.known_size, 1)
            click.echo(f"stopped at {share}% by --max-time; the same command continues from there")
            if memory.last and memory.last.ended is not None:
                click.echo(f"the last whole round ended on {date(memory.last.ended.timestamp())}")
    bad_files = memory.bad_files
    for path, bad_file in sorted(bad_files.items()):
        if path not in run.found:
            found_at = date(bad_file.found_at.timestamp())
            log.error("found on %s: %s", found_at, foundreport.line(bad_file))
    if bad_files:
        names = list(map(shown, sorted(bad_files)))
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        what = (
            "1 file isn't what it was when it was hashed"
            if len(names) == 1
            else f"{len(names)} files aren't what they were when they were hashed"
        )
        raise DamageError(
            f"{what}, or can't be read; restore from a backup: {', '.join(names[:_SHOWN])}{more}"
        )
