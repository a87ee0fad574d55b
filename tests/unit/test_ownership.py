"""Whose files are said to be."""

from __future__ import annotations

import pytest

from zipfs.system.ownership import Ownership, umask_of


@pytest.mark.parametrize(
    ("umask", "mode", "shown"),
    [
        (None, 0o100640, 0o100640),
        (0o022, 0o100400, 0o100644),
        (0o022, 0o100755, 0o100644),
        (0o027, 0o40700, 0o40750),
        (0o777, 0o40755, 0o40000),
        (0, 0o104755, 0o100666),  # set-user-ID isn't a permission
    ],
)
def test_a_umask_takes_away_from_everything(umask: int | None, mode: int, shown: int) -> None:
    assert Ownership(umask=umask).mode(mode) == shown


@pytest.mark.parametrize(
    ("text", "number"), [("022", 0o022), ("22", 0o022), ("0", 0), ("0o27", 0o27), ("0777", 0o777)]
)
def test_a_umask_is_octal(text: str, number: int) -> None:
    assert umask_of(text) == number
