"""How ``zipfs status`` looks: for people, and for Prometheus."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from tests.support.promtool import check_metrics
from zipfs.cli.exposition import exposition
from zipfs.cli.statustable import table
from zipfs.mount.metrics import BOUNDS
from zipfs.text import clean, duration, size, span

HOSTILE = 'a\x1b[31m"\\\n\x07\u202e[bold]'


def requests(count: int, seconds: float) -> dict[str, Any]:
    return {
        "count": count,
        "seconds": seconds,
        "longest": 0.5,
        "quantiles": {"0.5": 13e-6, "0.9": 2e-5, "0.99": 1.5e-3, "0.999": None},
        "below": [[bound / 1e9, min(count, number)] for number, bound in enumerate(BOUNDS)],
    }


@pytest.fixture
def document() -> dict[str, Any]:
    return {
        "document": 1,
        "version": "9.8.7",
        "format_version": 1,
        "pid": 1,
        "device": "0:54",
        "library": "/srv/games",
        "mountpoint": "/srv/www/games",
        "started": 1_700_000_000.5,
        "uptime": 3 * 86400 + 4 * 3600.0,
        "options": {"selection": "romm", "watch": "auto", "watching": "poll"},
        "gone": [],
        "archives": {"sealed": 1234, "members": 56789, "bytes": 3 << 40},
        "pending": {
            "surveyed": True,
            "games": 3,
            "bytes": 5 << 30,
            "bytes_per_second": 100 * (1 << 20),
            "seconds_left": 200.4,
            "hashed_bytes": 77,
        },
        "left_out": {
            "count": 12,
            "reasons": {"a symbolic link that leaves the library": 11, "no archive": 1},
            "newest": [
                {"path": f"roms/{n}", "reason": "no archive: why", "since": 1_700_000_000 - n}
                for n in range(12)
            ],
        },
        "singles": {"waiting": 3, "hashed": 12_000},
        "open": {"handles": 4, "files": 12, "most_files": 8192},
        "stuck": {"looking": 0, "reading": 2, "hashing": 0},
        "reads": {"bytes": 10 << 30, "cached": 990, "waited": 10},
        "requests": {"lookup": requests(5, 0.1), "read": requests(1000, 20.0)},
        "errors": [
            {"operation": "lookup", "errno": "ENOENT", "count": 5000},
            {"operation": "read", "errno": "EIO", "count": 1},
        ],
        "index": {
            "file": "/var/lib/zipfs/index.sqlite3",
            "size": 1 << 20,
            "saving": True,
            "rows_checked": 10,
            "rows_dropped": 1,
            "set_aside": 0,
        },
    }


def printed(document: dict[str, Any], *rest: Any, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table(document, *rest))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """All series of *text*, by name and labels but the mountpoint, which all must have."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("mountpoint")
            found[sample.name, frozenset(labels.items())] = sample.value
    return found


# -- For people ------------------------------------------------------------------------


def test_lines(document: dict[str, Any]) -> None:
    text = printed(document)
    for line in (
        "9.8.7, up for 3 d 4 h",
        "/srv/games",
        "/srv/www/games",
        "selection romm; changes are found by polling",
        "1,234 sealed: 56,789 members, 3.0 TiB",
        "3 games, 5.0 GiB to hash at 100.0 MiB/s, 3 min 20 s left",
        "4 handles; 12 of at most 8,192 files of the library",
        "in a disk that doesn't answer: 2 reading",
        "1,000, 10.0 GiB; 99.0 % from the page cache",
        "5,000 lookup ENOENT, 1 read EIO",
        "/var/lib/zipfs/index.sqlite3, 1.0 MiB; 10 rows read, 1 of them damaged",
        "Skipped, 12 in all: 11 a symbolic link that leaves the library; 1 no archive",
        "2023-11-14 22:13:20",
    ):
        assert line in text
    row = next(line for line in text.splitlines() if line.strip().startswith("read "))
    assert row.split() == ["read", "1,000", "13", "µs", "20", "µs", "1.5", "ms", "500", "ms"]


def test_nothing_to_tell(document: dict[str, Any]) -> None:
    document["pending"] |= {"games": 0, "bytes": 0, "bytes_per_second": None, "seconds_left": 0.0}
    document |= {
        "left_out": {"count": 0, "reasons": {}, "newest": []},
        "errors": [],
        "requests": {},
        "reads": {"bytes": 0, "cached": 0, "waited": 0},
        "stuck": {"looking": 0, "reading": 0, "hashing": 0},
        "index": None,
    }
    lines = [line.split() for line in printed(document).splitlines()]
    assert ["to", "do", "nothing"] in lines
    assert ["errors", "none"] in lines
    assert ["index", "it", "doesn't", "answer"] in lines
    assert ["Nothing", "is", "skipped."] in lines
    assert not any(line[:1] == ["stuck"] for line in lines)
    check_metrics(exposition(document))


def test_what_is_gone(document: dict[str, Any]) -> None:
    since = 1_700_000_000.5
    document["gone"] = [
        {"path": "", "reason": "Stale file handle", "since": since},
        {"path": "roms/usb", "reason": "No such file or directory", "since": since},
    ]
    text = printed(document)
    assert "the library, since 2023-11-14 22:13:20 (UTC): Stale file handle" in text
    assert "the disk on roms/usb, since " in text
    assert samples(exposition(document))["zipfs_gone_places", frozenset()] == 2
    del document["gone"]  # an older daemon
    assert "GONE" not in printed(document)
    assert samples(exposition(document))["zipfs_gone_places", frozenset()] == 0


def test_not_yet_looked_through(document: dict[str, Any]) -> None:
    document["pending"] |= {"surveyed": False, "bytes_per_second": None, "seconds_left": None}
    assert "the first scan is running; 3 games, 5.0 GiB to hash\n" in "\n".join(
        line.rstrip() + "\n" for line in printed(document).splitlines()
    )


def test_an_index_that_isnt_saved_to(document: dict[str, Any]) -> None:
    document["index"] |= {"saving": False, "set_aside": 2}
    text = printed(document)
    assert "NOT saved to" in text
    assert "made anew 2 times" in text


def test_so_many_of_those_left_out(document: dict[str, Any]) -> None:
    text = printed(document, None, 5)
    assert "roms/4" in text
    assert "roms/5" not in text
    assert "... and 7 more." in text


def test_rates_between_two(document: dict[str, Any]) -> None:
    before = copy.deepcopy(document)
    document["uptime"] += 2.0
    document["requests"]["read"]["count"] += 30
    document["reads"]["bytes"] += 6 << 20
    text = printed(document, before)
    assert "3.0 MiB/s now" in text
    row = next(line for line in text.splitlines() if line.strip().startswith("read "))
    assert row.split()[:3] == ["read", "1,030", "15.0"]
    # Another daemon by now: nothing to compare with.
    before["started"] -= 1
    assert "now" not in printed(document, before)


def test_nothing_that_a_terminal_obeys(document: dict[str, Any]) -> None:
    for key in ("library", "mountpoint", "version"):
        document[key] = HOSTILE
    document["left_out"]["newest"][0] |= {"path": HOSTILE, "reason": HOSTILE}
    document["left_out"]["reasons"] = {HOSTILE: 1}
    document["errors"][0] = {"operation": HOSTILE, "errno": HOSTILE, "count": 1}
    document["requests"][HOSTILE] = requests(1, 1)
    document["index"]["file"] = HOSTILE
    text = printed(document, width=300)
    assert set(text) - {"\n"} == {c for c in text if c.isprintable()}
    assert text.count(clean(HOSTILE)) >= 9
    assert "[bold]" in text
    check_metrics(exposition(document))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (size(0), "0 bytes"),
        (size(1023), "1023 bytes"),
        (size(1024), "1.0 KiB"),
        (size(1536 << 20), "1.5 GiB"),
        (size(1 << 62), "4096.0 PiB"),
        (span(0.4), "0 s"),
        (span(59), "59 s"),
        (span(60), "1 min"),
        (span(200), "3 min 20 s"),
        (span(7300), "2 h 1 min"),
        (span(86400 * 400), "400 d"),
        (duration(None), ""),
        (duration(13e-6), "13 µs"),
        (duration(1.2e-3), "1.2 ms"),
        (duration(30.5), "30.5 s"),
        (clean("a\ud800b\x00"), "a\\ud800b\\x00"),
    ],
)
def test_units(text: str, wanted: str) -> None:
    assert text == wanted


# -- For Prometheus --------------------------------------------------------------------


def test_promtool_has_nothing_to_say(document: dict[str, Any]) -> None:
    check_metrics(exposition(document))


def test_metrics(document: dict[str, Any]) -> None:
    found = samples(exposition(document))
    none: frozenset[tuple[str, str]] = frozenset()
    assert found["zipfs_archives", none] == 1234
    assert found["zipfs_read_bytes_total", none] == 10 << 30
    assert found["zipfs_reads_total", frozenset({("cached", "true")})] == 990
    assert found["zipfs_errors_total", frozenset({("operation", "read"), ("errno", "EIO")})] == 1
    assert found["zipfs_left_out", frozenset({("reason", "no archive")})] == 1
    assert found["zipfs_stuck", frozenset({("doing", "reading")})] == 2
    assert found["zipfs_index_rows_dropped_total", none] == 1
    assert found["zipfs_index_up", none] == 1
    reads = frozenset({("operation", "read")})
    assert found["zipfs_request_duration_seconds_count", reads] == 1000
    assert found["zipfs_request_duration_seconds_sum", reads] == 20
    buckets = [key for key in found if key[0].endswith("_bucket") and reads < key[1]]
    assert 10 < len(buckets) <= 20


def test_no_series_for_each_file(document: dict[str, Any]) -> None:
    """Not even of what is left out, of which there may be any number."""
    text = exposition(document)
    assert "roms/" not in text
    document["left_out"]["newest"] = []
    assert exposition(document) == text


def test_two_mounts_have_no_series_in_common(document: dict[str, Any]) -> None:
    """node_exporter refuses all files if one series is in two of them."""

    def series(text: str) -> set[str]:
        lines = text.splitlines()
        return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}

    other = document | {"mountpoint": "/srv/www/other"}
    assert not series(exposition(document)) & series(exposition(other))
