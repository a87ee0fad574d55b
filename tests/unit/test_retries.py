"""Soon, and then less and less often."""

from __future__ import annotations

from zipfs.system.threads.retries import LONGEST, Retries


def test_pauses_grow_to_a_limit() -> None:
    retries = Retries()
    pauses = [retries.after_failure() for _ in range(8)]
    assert pauses == [1, 2, 4, 8, 16, LONGEST, LONGEST, LONGEST]
    assert retries.are_rare


def test_what_works_begins_anew() -> None:
    retries = Retries()
    for _ in range(8):
        retries.after_failure()
    retries.over()
    assert not retries.are_rare
    assert retries.after_failure() == 1
