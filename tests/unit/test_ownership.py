"""Whose files are said to be."""

from __future__ import annotations

import sys

import pytest

from zipfs.system.ownership import Ownership, number_of, umask_of


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


def test_names_mean_nobody_where_there_are_no_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows: its Python has neither pwd nor grp."""
    assert number_of("root") == 0
    for module in ("pwd", "grp"):
        monkeypatch.setitem(sys.modules, module, None)
    assert number_of("1000") == 1000
    with pytest.raises(ValueError, match="there is no user 'root' on this system"):
        number_of("root")
    with pytest.raises(ValueError, match="there is no group 'root' on this system"):
        number_of("root", group=True)
