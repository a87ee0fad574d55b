"""What the machines have seen, as it is published, and as the tables of the manual have it.

``results.json`` has for each kernel and source the row of the last run with ``--publish``; sources
that a run left out keep theirs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.vm.judging import CUT, NEW, WRONG, worst

RESULTS: Final = Path(__file__).parent / "results.json"
CHANGES: Final = ("in place", "dated back", "truncated", "replaced", "renamed", "deleted")

Row = Mapping[str, Any]
Published = Mapping[str, Mapping[str, Row]]
"""The rows by kernel and source."""

_MEBIBYTE: Final = 1 << 20
_NOTHING: Final = "-"
"""Where there is no server to stop."""


def load(file: Path = RESULTS) -> dict[str, dict[str, dict[str, Any]]]:
    if not file.exists():
        return {}
    found: dict[str, dict[str, dict[str, Any]]] = json.loads(file.read_text())
    return found


def publish(kernel: str, rows: Mapping[str, Row], file: Path = RESULTS) -> None:
    """Put *rows* in the place of those that *file* has for the same kernel and sources."""
    known = load(file)
    known[kernel] = {**known.get(kernel, {}), **{name: dict(row) for name, row in rows.items()}}
    file.write_text(f"{json.dumps(known, indent=1, sort_keys=True)}\n")


def failed(row: Row) -> bool:
    """Whether *row* breaks a promise: wrong bytes, no answer, nothing after the server is back."""
    hung = row.get("hang", {})
    return (
        "error" in row
        or WRONG in json.dumps(row)
        or any(hung[probe]["seconds"] is None for probe in ("list", "read") if probe in hung)
        or row.get("back", {}).get("seconds", 0) is None
    )


# ---------------------------------------------------------------- cells


def seconds(value: float | None) -> str:
    """A duration for people; None is one that hasn't ended."""
    if value is None:
        return "never"
    return f"{value:.0f} s" if value >= 1 else "<1 s"


def _change(row: Row) -> str:
    """How the download ended, and when the new version was offered."""
    verdict = worst([row["during"], row["then"]])
    shown = f"**{WRONG}**" if verdict == WRONG else verdict
    if verdict == CUT and row.get("during") == CUT and row["offered"] is None:
        return f"{shown}, never"
    return f"{shown}, {seconds(row['offered'])}"


def _remount(row: Row) -> str:
    hashed, of = row["hashed"], row["of"]
    if not hashed:
        return "no"
    return f"{hashed / _MEBIBYTE:.0f} of {of / _MEBIBYTE:.0f} MiB"


def _probe(row: Row) -> str:
    if row["said"] == "right":
        return f"right, {seconds(row['seconds'])}"
    if row["seconds"] is None:
        return "no answer"
    return f"{row['said']}, {seconds(row['seconds'])}"


def _read(verdict: str) -> str:
    return "right" if verdict == NEW else verdict.replace(WRONG, f"**{WRONG}**")


def _back(row: Row) -> str:
    if row["then"] == WRONG:
        return f"**{WRONG}**"
    return f"right, {seconds(row['seconds'])}" if row["seconds"] is not None else "never"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# ---------------------------------------------------------------- tables

_TIME: Final = re.compile(r"<?[0-9]+ s")


def _cells_of_changes(row: Row) -> list[str] | None:
    if "changes" not in row:
        return None
    cells = (_change(row["changes"][change]) for change in CHANGES)
    return [row.get("vouches") or "state", *cells]


def _cells_of_servers(row: Row) -> list[str] | None:
    if "remount" not in row:
        return None
    hung = "hang" in row and "back" in row
    return [
        _remount(row["remount"]),
        _probe(row["hang"]["list"]) if hung else _NOTHING,
        _probe(row["hang"]["read"]) if hung else _NOTHING,
        _back(row["back"]) if hung else _NOTHING,
    ]


def _cells_of_exports(row: Row) -> list[str] | None:
    if "right" not in row:
        return None
    changed = row["changed"]
    return [
        _read(row["right"]),
        _read(row["forgotten"]),
        f"**{WRONG}**" if WRONG in changed["seen"] else seconds(changed["seconds"]),
    ]


_TABLES: Final[Sequence[tuple[tuple[str, ...], Callable[[Row], list[str] | None]]]] = (
    (("source", "vouches", *CHANGES), _cells_of_changes),
    (
        ("source", "mounted again: hashed", "hangs: a listing", "hangs: a read", "back: a read"),
        _cells_of_servers,
    ),
    (("export", "all archives", "read on after `drop_caches`", "a change"), _cells_of_exports),
)


def version(kernel: str) -> list[int]:
    """To compare kernels by."""
    return [int(part) for part in kernel.split(".")]


def _lines(
    published: Published, order: Sequence[str], cells: Callable[[Row], list[str] | None]
) -> Iterator[list[str]]:
    """A line for each source; more where kernels differ in more than seconds."""
    for name in order:
        groups: dict[str, tuple[list[str], list[str]]] = {}
        for kernel in sorted(published, key=version):
            if (found := cells(published[kernel].get(name, {}))) is not None:
                kernels, line = groups.setdefault(_TIME.sub("", repr(found)), ([], []))
                kernels.append(kernel)
                line[:] = found  # the times are the newest kernel's
        for kernels, line in groups.values():
            everywhere = len(kernels) == len(published)
            yield [name if everywhere else f"{name} ({', '.join(kernels)})", *line]


def page(published: Published, order: Sequence[str]) -> str:
    """All tables, with the sources in the order of *order*."""
    parts = []
    for head, cells in _TABLES:
        # A table without lines isn't worth its head.
        if lines := list(_lines(published, order, cells)):
            parts.append(_table(head, lines))
    return "\n\n".join(parts)


def kernels(published: Published) -> list[str]:
    """The kernels' full names, as uname(1) has them."""
    return [
        next((row["kernel"] for row in published[name].values() if "kernel" in row), name)
        for name in sorted(published, key=version)
    ]


def patience(published: Published) -> float:
    """Seconds for which a new version was waited for, at least."""
    return min(
        (
            row["patience"]
            for rows in published.values()
            for row in rows.values()
            if "patience" in row
        ),
        default=0,
    )


def failures(rows: Mapping[str, Row]) -> list[str]:
    """The sources that couldn't be tried, and why."""
    return [f"{name}: {row['error']}" for name, row in rows.items() if "error" in row]
