"""The check of the shared index: whether this machine could be a head of it. It writes nothing."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import Final

from zipfs.config import Settings
from zipfs.config_shared import shown_address
from zipfs.errors import ConfigError, LibraryError
from zipfs.ops.doctor.findings import Finding
from zipfs.sealing.sealers import make_library, psycopg_needed, shared_name
from zipfs.text import counted, duration

_NAME: Final = "shared index"
_problem = functools.partial(Finding, _NAME, "problem")
_warning = functools.partial(Finding, _NAME, "warning")
_SLOW: Final = 0.1
"""Seconds for one answer from which on new archives are noticeably late."""
_MANUAL: Final = "see `zipfs help scaling`"


def check(address: str, settings: Settings, *, library: bool) -> Iterator[Finding]:
    """Check the shared index at *address*, and with *library* whether its files are as recorded."""
    where = shown_address(address)
    try:
        with psycopg_needed():
            from zipfs.index.shared import probe  # noqa: PLC0415 - an extra
            from zipfs.index.shared.postgresql import (  # noqa: PLC0415 - likewise
                connection,
                database,
                schema,
            )
    except ConfigError as error:
        yield _problem(str(error), "install them, or leave out --shared-index")
        return
    connections = connection.Connections(address, "zipfs doctor")
    with contextlib.closing(connections):
        try:
            with connections.one() as found:
                schema.check(found)
                asked = database.Database(found)
                started = time.monotonic()
                place = asked.place()
                took = time.monotonic() - started
                there = asked.find(shared_name(settings), make=False)
                heads = asked.alive() if there else 0
                recorded = asked.sample(probe.SAMPLE) if there and library else []
        except connection.AwayError as error:
            yield _problem(f"can't reach {where}: {error}", f"{_MANUAL}; heads hash by themselves")
            return
        except schema.SchemaError as error:
            yield _problem(
                f"{where} can't be used: {error}", f"{_MANUAL}; heads hash by themselves"
            )
            return
    if recorded:
        try:
            votes = probe.compare_within(make_library(settings), recorded)
        except (LibraryError, ConfigError):
            votes = None  # which the check of the library tells
        if votes and not votes.agree:
            yield _warning(
                f"{votes.same} of {len(recorded)} files of {shared_name(settings)} have here the"
                f" inodes and times that {where} has, {votes.other} have others, and"
                f" {votes.silent} aren't here as they were; this head would hash alone",
                f"mount the same export as the other heads, or give this library another"
                f" --shared-name; {_MANUAL}",
            )
    if not place.may_write:
        what = "it is a standby" if not place.may_listen else "this role may only read"
        yield Finding(
            _NAME,
            "note",
            f"{where}: {what}, so this head leaves hashing to others, if there are any",
        )
    if took > _SLOW:
        yield _warning(f"{where} takes {duration(took)} to answer", "look for what keeps it busy")
    name = f"{shared_name(settings)} at {where}"
    if there is None:
        yield Finding(_NAME, "ok", f"{name} isn't there yet; the first head makes it")
    else:
        known = f"{there.seq:,} changes so far"
        yield Finding(_NAME, "ok", f"{name}: {counted(heads, 'other head')} alive, {known}")
