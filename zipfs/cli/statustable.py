"""The status of a mount for people: :mod:`zipfs.mount.status.document` as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from zipfs import text

_SHARES: Final = {"0.5": "median", "0.9": "90 %", "0.99": "99 %", "0.999": "99.9 %"}

Document = Mapping[str, Any]


def table(document: Document, before: Document | None = None, newest: int = 20) -> Group:
    """*document* as tables, with the *newest* skipped paths.

    With *before*, an earlier document of the same mount, rates are shown too.
    """
    seconds = _between(document, before)
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column(overflow="fold")
    for name, value in _lines(document, before, seconds):
        lines.add_row(name, Text(text.clean(value)))
    return Group(lines, _requests(document, before, seconds), *_skipped(document, newest))


def _between(document: Document, before: Document | None) -> float | None:
    """Seconds between two documents; None without *before*, or if another daemon made it."""
    if before is None or document["started"] != before["started"]:
        return None
    seconds: float = document["uptime"] - before["uptime"]
    return seconds if seconds > 0 else None


def _lines(
    document: Document, before: Document | None, seconds: float | None
) -> Iterator[tuple[str, str]]:
    options, archives = document["options"], document["archives"]
    yield "zipfs", f"{document['version']}, up for {text.span(document['uptime'])}"
    yield "library", document["library"]
    for gone in document.get("gone", ()):  # an older daemon says nothing of it
        where = f"the disk on {gone['path']}" if gone["path"] else "the library"
        since = text.date(gone["since"])
        yield "GONE", f"{where}, since {since} (UTC): {gone['reason']}"
    yield "mounted on", document["mountpoint"]
    watching = {"events": "changes are found by events", "poll": "changes are found by polling"}
    yield "by", f"selection {options['selection']}; {watching[options['watching']]}"
    proven = [source for source in document.get("sources", ()) if source["vouches"] == "content"]
    if proven:
        where = ", ".join(f"{source['path']} ({source['kind']})" for source in proven)
        yield "proven", f"each MiB is compared with its checksum on {where}"
    size = text.size(archives["bytes"])
    yield (
        "archives",
        f"{archives['sealed']:,} sealed: {archives['members']:,} members, {size}",
    )
    yield "to do", _to_do(document["pending"])
    singles = document.get("singles", {})
    if any(singles.values()):
        hashed = f"{singles['hashed']:,} hashed since the start, {singles['waiting']:,} to go"
        yield "single files", hashed
    opened = document["open"]
    files = f"{opened['files']:,} of at most {opened['most_files']:,}"
    yield (
        "open",
        f"{opened['handles']:,} handles; {files} files of the library",
    )
    if any(document["stuck"].values()):
        stuck = (f"{count:,} {doing}" for doing, count in document["stuck"].items() if count)
        yield "stuck", f"in a disk that doesn't answer: {', '.join(stuck)}"
    yield "reads", _reads(document, before, seconds)
    errors = (
        f"{error['count']:,} {error['operation']} {error['errno']}" for error in document["errors"]
    )
    yield "errors", ", ".join(errors) or "none"
    yield "restarts", _restarts(document.get("restarts"))
    yield "index", _index(document["index"])
    if shared := document.get("shared_index"):
        yield "shared index", _shared(shared)


def _to_do(pending: Document) -> str:
    if not pending["surveyed"]:
        found = "the first scan is running; "
    elif not pending["games"] and not pending["bytes"]:
        return "nothing"
    else:
        found = ""
    found += f"{pending['games']:,} games, {text.size(pending['bytes'])} to hash"
    if pending["bytes_per_second"]:
        found += f" at {text.size(pending['bytes_per_second'])}/s"
    if pending["seconds_left"]:
        found += f", {text.span(pending['seconds_left'])} left"
    return found


def _reads(document: Document, before: Document | None, seconds: float | None) -> str:
    reads = document["reads"]
    count = reads["cached"] + reads["waited"]
    found = f"{count:,}, {text.size(reads['bytes'])}"
    if count:
        found += f"; {100 * reads['cached'] / count:.1f} % from the page cache"
    if before and seconds:
        rate = (reads["bytes"] - before["reads"]["bytes"]) / seconds
        found += f"; {text.size(rate)}/s now"
    return found


def _restarts(restarts: Document | None) -> str:
    if restarts is None or not restarts["outlives"]:
        return "none: the mount ends with its daemon"
    keeper = (
        "the service manager" if restarts["holder"] is None else f"process {restarts['holder']}"
    )
    found = f"{restarts['count']:,}; {keeper} keeps the mount"
    if restarts.get("attempt"):
        found += f"; attempt {restarts['attempt']} of {restarts['attempts']} after crashes"
    if restarts["outage"] is not None:
        found += f"; the last took {text.duration(restarts['outage'])}"
        found += f", {restarts['reopened']:,} opened again, {restarts['lost']:,} lost"
    if restarts["failed"]:
        found += f"; {restarts['failed']:,} daemons failed to take over"
    if restarts["remount_for"]:
        found += f"; unmount and mount again for {', '.join(restarts['remount_for'])}"
    return found


def _index(index: Document | None) -> str:
    if index is None:
        return "it doesn't answer"
    found = f"{index['file']}, {text.size(index['size'])}"
    if not index["saving"]:
        found += ", NOT saved to: the disk may be full"
    found += f"; {index['rows_checked']:,} rows read, {index['rows_dropped']:,} of them damaged"
    if index["set_aside"]:
        found += f"; made anew {index['set_aside']:,} times"
    return found


_MODES: Final = {
    "joining": "getting in step",
    "sharing": "in step",
    "reading": "only read",
    "alone": "NOT shared, hashing alone",
    "away": "AWAY, hashing here until it is back",
}


def _shared(shared: Document) -> str:
    found = f"{shared['library']} at {shared['address']}: {_MODES[shared['mode']]}"
    if shared["reason"]:
        found += f", since {text.date(shared['since'])} (UTC): {shared['reason']}"
    found += f"; {text.counted(shared['heads'], 'head')}; {shared['shared']:,} rows saved,"
    found += f" {shared['taken']:,} taken"
    if shared["waiting"]:
        found += f", {shared['waiting']:,} to be saved"
    if shared["damaged"]:
        found += f", {shared['damaged']:,} damaged"
    if shared["unlike"]:
        found += f"; {text.counted(shared['unlike'], 'file')} with other inodes here"
    return found


def _requests(document: Document, before: Document | None, seconds: float | None) -> Table:
    rated = before is not None and seconds is not None
    found = Table(box=SIMPLE_HEAD, pad_edge=False)
    found.add_column("answered")
    for name in ("count", *(["a second"] if rated else []), *_SHARES.values(), "longest"):
        found.add_column(name, justify="right")
    for operation, durations in document["requests"].items():
        if not durations["count"]:
            continue
        cells = [text.clean(operation), f"{durations['count']:,}"]
        if before is not None and seconds is not None:
            earlier = before["requests"].get(operation, {"count": 0})["count"]
            cells.append(f"{(durations['count'] - earlier) / seconds:,.1f}")
        cells += [text.duration(durations["quantiles"][share]) for share in _SHARES]
        found.add_row(*map(Text, cells), text.duration(durations["longest"]))
    return found


def _skipped(document: Document, newest: int) -> Iterator[Text | Table]:
    left_out = document["left_out"]
    if not left_out["count"]:
        yield Text("Nothing is skipped.")
        return
    reasons = (f"{count:,} {reason}" for reason, count in left_out["reasons"].items())
    yield Text(text.clean(f"Skipped, {left_out['count']:,} in all: {'; '.join(reasons)}"))
    shown = left_out["newest"][:newest]
    if not shown:
        return
    found = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("since (UTC)", "path in the library", "reason"):
        found.add_column(name, overflow="fold")
    for skip in shown:
        since = text.date(skip["since"])
        found.add_row(since, Text(text.clean(skip["path"])), Text(text.clean(skip["reason"])))
    yield found
    if more := left_out["count"] - len(shown):
        yield Text(f"... and {more:,} more.")
