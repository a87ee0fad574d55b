"""``zipfs verify``: everything read again, and compared with the index."""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

import click

from zipfs.cli.options import archive_options
from zipfs.cli.terminal import Bar, check_answers, load_settings, log_to_stderr
from zipfs.errors import DamageError, IndexFileError, LibraryError
from zipfs.index.index import IN_MEMORY, Index
from zipfs.index.tables import Store
from zipfs.ops.verify import foundreport, verified
from zipfs.ops.verify.verified import Finding, Memory
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
"""Files that the last line names."""


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Seconds, or hours and minutes: ``3600``, ``90min``, ``1h 30m``."""
    if value is None:
        return None
    text = value.strip().lower()
    seconds = 0.0
    at = 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None or match[2] not in _UNITS:
            raise click.BadParameter(f"{value!r} is no time like 3600, 90min or 1h30m")
        seconds += float(match[1]) * _UNITS[match[2]]
        at = match.end()
    if not seconds:
        raise click.BadParameter(f"{value!r} is no time to do anything in")
    return seconds


@click.command(short_help="Read all files again: are they still what they were?")
@click.argument("library", required=False)
@archive_options
@click.option(
    "--rate",
    type=click.FloatRange(min=0),
    metavar="MIB",
    help="Highest rate of reading, in MiB a second; 0 sets no limit.  [default: hash-rate of the"
    " config file, or else 0]",
)
@click.option(
    "--max-time",
    callback=_seconds,
    metavar="DURATION",
    help="Stop after so many seconds, or 90min, or 1h30m, with status 0: the next run continues.",
)
@click.option("--restart", is_flag=True, help="Begin again instead of continuing.")
@click.option("--json", "as_json", is_flag=True, help="For programs instead of people.")
def verify(
    rate: float | None, max_time: float | None, restart: bool, as_json: bool, **given: Any
) -> None:
    """Read all files of LIBRARY that are hashed from the disk again, and compare.

    A file that nobody has written since and that has other bytes is named: its disk has damaged
    it. Nothing is changed, neither in the library nor in the index. Ctrl-C, or a kill, keeps what
    was done; the next run carries on from there, and once all is done begins the next round.
    """
    deadline = None if max_time is None else time.monotonic() + max_time
    settings = load_settings(**given)
    log_to_stderr("warning")
    check_answers(settings)
    file = index_file(settings)
    with closing(Index(IN_MEMORY)) as nothing:
        sealer = make_sealer(settings, nothing)
        root = sealer.library.root
        with _store(file) as store, _memory(file, root) as memory, Bar("verifying") as bar:
            if restart:
                memory.round = memory.partial = None
            lower_process()
            verifier = Verifier(
                sealer,
                store,
                memory,
                file + verified.SUFFIX,
                pace=Pace((settings.hash_rate if rate is None else rate) * _MIB),
                progress=bar,
                tell=_tell,
                deadline=deadline,
            )
            ended = verifier.run()
    _say(verifier, file, os.fsdecode(root), ended=ended, as_json=as_json)


def _tell(finding: Finding) -> None:
    """In the log, or on a terminal above the bar, which the log knows nothing of."""
    if sys.stderr.isatty():
        click.echo(f"zipfs: {foundreport.line(finding)}", err=True)
    else:
        log.error("%s", foundreport.line(finding))


@contextmanager
def _store(file: str) -> Iterator[Store]:
    """The index at *file*, which has to be there; its errors as ours."""
    if not os.path.exists(file):
        raise IndexFileError(
            f"there is no index {file} to compare with; `zipfs index` makes it, or name another"
            " with --index FILE"
        )
    try:
        with closing(Store(file, reading=True)) as store:
            yield store
    except sqlite3.Error as error:
        raise IndexFileError(
            f"can't read the index {file}: {error}; `zipfs index` makes a damaged one anew"
        ) from None
    except UnicodeDecodeError:
        raise IndexFileError(f"the index {file} is damaged; `zipfs index` makes it anew") from None


@contextmanager
def _memory(index: str, root: bytes) -> Iterator[Memory]:
    """What is remembered of verifying by *index*, ours alone for as long as this lasts."""
    file = index + verified.SUFFIX
    try:
        inode = lstat(root).st_ino
    except OSError as error:
        raise LibraryError(f"can't read the library: {error.strerror}") from None
    try:
        manager = verified.alone(file)
        is_alone = manager.__enter__()
    except OSError as error:
        raise IndexFileError(
            f"can't write beside the index, {file}: {error.strerror}; name another with --index"
        ) from None
    try:
        if not is_alone:
            raise IndexFileError(f"another `zipfs verify` by the index {index} is under way")
        try:
            memory = verified.load(file, (root, inode))
        except OSError as error:
            raise IndexFileError(f"can't read {file}: {error.strerror}") from None
        yield memory
    finally:
        manager.__exit__(None, None, None)


def _say(verifier: Verifier, file: str, root: str, *, ended: bool, as_json: bool) -> None:
    """The summary, and an error if anything is damaged."""
    memory, run = verifier.memory, verifier.this_run
    round_ = memory.last if ended else memory.round
    assert round_ is not None  # noqa: S101 - one of the two is always there
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
        click.echo(json.dumps(facts, indent=2))
    else:
        click.echo(
            f"{counted(round_.verified, 'file')} verified: {counted(round_.size, 'byte')},"
            f" in {round_.seconds:.0f} s ({counted(run.size, 'byte')} read now)"
        )
        if reasons := foundreport.left_out(round_):
            click.echo(f"not verified: {reasons}")
        if not ended:
            share = 100 * round_.passed // max(verifier.known_size, 1)
            click.echo(f"stopped at {share}%, as told to; the same command carries on from there")
            if memory.last and memory.last.ended is not None:
                click.echo(f"the last whole round ended on {date(memory.last.ended)}")
    standing = memory.findings
    for path, finding in sorted(standing.items()):
        if path not in run.found:
            log.error("found on %s: %s", date(finding.seconds), foundreport.line(finding))
    if standing:
        names = list(map(shown, sorted(standing)))
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        what = (
            "1 file isn't what it was when it was hashed"
            if len(names) == 1
            else f"{len(names)} files aren't what they were when they were hashed"
        )
        raise DamageError(
            f"{what}, or can't be read; restore from a backup: {', '.join(names[:_SHOWN])}{more}"
        )
