"""What the machines have seen, as it is published, and as the tables of the manual have it.

``results.json`` has for each kernel and source the row of the last run with ``--publish``; sources
that a run left out keep theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.vm.judging import CUT, WRONG, worst

RESULTS: Final = Path(__file__).parent / "results.json"
CHANGES: Final = ("in place", "dated back", "replaced", "renamed", "truncated", "deleted")

Row = Mapping[str, Any]
Published = Mapping[str, Mapping[str, Row]]
"""The rows by kernel and source."""

_MEBIBYTE: Final = 1 << 20
_NOTHING: Final = "-"
"""Where there is no server, or the run ended before."""


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


def wrong(rows: Iterable[Row]) -> bool:
    """Whether any download of *rows* was complete and wrong, or a row couldn't be made."""
    return any(WRONG in json.dumps(row) or "error" in row for row in rows)


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


def _remount(row: Row | None) -> str:
    if row is None:
        return _NOTHING
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


def _back(row: Row) -> str:
    if row["then"] == WRONG:
        return f"**{WRONG}**"
    return f"right, {seconds(row['seconds'])}" if row["seconds"] is not None else "never"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# ---------------------------------------------------------------- tables


def changes(rows: Mapping[str, Row]) -> str:
    """Source x change."""
    return _table(
        ["source", *CHANGES],
        (
            [name, *(_change(row["changes"][change]) for change in CHANGES)]
            for name, row in rows.items()
            if "changes" in row
        ),
    )


def servers(rows: Mapping[str, Row]) -> str:
    """Source x what a remount costs, and what is seen of a server that doesn't answer."""
    return _table(
        ["source", "mounted again: hashed?", "hangs: listing", "hangs: reading", "back: reading"],
        (
            [
                name,
                _remount(row.get("remount")),
                *(
                    [_probe(row["hang"]["list"]), _probe(row["hang"]["read"]), _back(row["back"])]
                    if "hang" in row and "back" in row
                    else [_NOTHING] * 3
                ),
            ]
            for name, row in rows.items()
            if "changes" in row
        ),
    )


_SEEN: Final = {"new": "right"}


def exports(rows: Mapping[str, Row]) -> str:
    """Export x what its client reads."""
    return _table(
        ["export", "all archives", "read on after `drop_caches`", "a change is read"],
        (
            [
                name.removeprefix("export-"),
                _SEEN.get(row["right"], row["right"]),
                _SEEN.get(row["forgotten"], row["forgotten"]),
                f"**{WRONG}**"
                if WRONG in row["changed"]["seen"]
                else seconds(row["changed"]["seconds"]),
            ]
            for name, row in rows.items()
            if "right" in row
        ),
    )


def ordered(rows: Mapping[str, Row], order: Sequence[str]) -> dict[str, Row]:
    """*rows* in the order of *order*; others aren't known any more."""
    return {name: rows[name] for name in order if name in rows}


def failures(rows: Mapping[str, Row]) -> list[str]:
    """The sources that couldn't be tried, and why."""
    return [f"{name}: {row['error']}" for name, row in rows.items() if "error" in row]


def page(rows: Mapping[str, Row]) -> str:
    """All tables of one kernel."""
    parts = [changes(rows), servers(rows), exports(rows)]
    # A table without rows isn't worth its head.
    return "\n\n".join(part for part in parts if part.count("\n") > 1)
