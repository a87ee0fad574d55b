"""The address of a shared index: what it may be, and that no password is in it, nor told."""

from __future__ import annotations

import pytest

from zipfs.config import Settings
from zipfs.config_shared import check_address, shown_address
from zipfs.errors import ConfigError

SECRET = "hunter2"  # noqa: S105 - it is one


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://db/games", "db/games"),
        ("postgres://db:5433/games", "db:5433/games"),
        ("postgresql://zipfs@db1,db2:5433/games?sslmode=require", "db1,db2:5433/games"),
        ("postgresql://zipfs@/games?host=/run/postgresql&port=5433", "/run/postgresql:5433/games"),
        ("postgresql:///?service=games", "service games"),
        ("postgresql:///games", "local/games"),
        ("postgresql://[2001:db8::1]:5432/games", "[2001:db8::1]:5432/games"),
        ("postgresql://db/games?passfile=/etc/zipfs/pgpass", "db/games"),
    ],
)
def test_addresses(address: str, shown: str) -> None:
    assert check_address(address) == address
    assert shown_address(address) == shown


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://zipfs:{SECRET}@db/games",
        f"postgresql://:{SECRET}@db/games",
        f"postgresql://db/games?password={SECRET}",
        f"postgresql://db/games?sslmode=require&pass%77ord={SECRET}",
        f"postgresql://db/games?sslpassword={SECRET}",
    ],
)
def test_a_password_is_refused_and_not_told(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load(None, {"library": "lib", "shared-index": address})
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "PGPASSFILE" in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["", "db/games", "mysql://db/games", "postgresql:db", f"host=db password={SECRET}", "http://["],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load(None, {"library": "lib", "shared-index": address})
    assert "postgresql://host/database" in str(caught.value)
    assert SECRET not in str(caught.value)
