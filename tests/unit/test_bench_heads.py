"""What `make bench-heads` tells: a table of shares, a million files in words, and a plot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import heads_report, readme

RESULTS = {
    "about": {"date": "2026-11-30", "linux": "6.1", "cpus": 2, "load_before": 0.1},
    "division": {
        "size": 80.0,
        "files": 800,
        "rate": 2.0,
        "seconds": {"1": [40.0, 44.0, 42.0], "2": [21.0, 20.0, 23.0], "4": [10.5, 10.0, 12.0]},
    },
    "many": {
        "files": 1_000_000,
        "bytes_a_file": 287.4,
        "bytes_a_file_here": 124.2,
        "start_seconds": 50.2,
        "start_queries": 1_010,
        "lookup_seconds": 1e-5,
        "round_trips_in_lookups": 0,
    },
}


def test_shares_are_of_one_heads_time() -> None:
    shares = [share for *_, share in heads_report.shares(RESULTS["division"])]
    assert shares == [1.0, 0.5, 0.25]


def test_the_manual_has_all_of_it() -> None:
    text = heads_report.markdown(RESULTS)
    assert "| 4 | 10.5 s (10.0 to 12.0) | 0.25 |" in text
    words = " ".join(text.split())
    assert "1,000,000 files: 287 bytes a file" in words
    assert "10 µs and 0 round trips" in words
    assert max(map(len, text.splitlines())) <= 80
    scaling = readme.SCALING.read_text()
    assert text in readme.replaced(scaling, text, readme.BEGIN_HEADS)


def test_the_manual_has_what_is_published() -> None:
    scaling = readme.SCALING.read_text()
    assert readme.BEGIN_HEADS in scaling
    if readme.HEADS.exists():
        text = heads_report.markdown(json.loads(readme.HEADS.read_text()))
        assert scaling == readme.replaced(scaling, text, readme.BEGIN_HEADS)


def test_a_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    drawn = heads_report.draw(RESULTS, tmp_path)
    assert drawn
    assert "</svg>" in drawn.read_text()
    one = {**RESULTS["division"], "seconds": {"1": [1.0]}}
    assert heads_report.draw({"division": one}, tmp_path) is None
