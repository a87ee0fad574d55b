"""The address of a shared index, ``postgresql://…``: checked, and as it is shown.

It is the URL of libpq, https://www.postgresql.org/docs/current/libpq-connect.html. A password in it
would be in the list of processes, in shells' histories and in config files, so it is refused: libpq
finds one in the file that ``PGPASSFILE`` names, in a service file, and in ``PGPASSWORD``.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

SCHEMES: Final = ("postgresql", "postgres")
_SECRET: Final = frozenset({"password", "sslpassword", "oauth_client_secret", "scram_client_key"})
"""Parameters of libpq that are secrets."""
_ELSEWHERE: Final = "leave it to PGPASSFILE (~/.pgpass), a service file or PGPASSWORD"


def check_address(address: str) -> str:
    """*address* if it can be one; raises :exc:`ValueError`, whose text has nothing secret."""
    try:
        parts = urlsplit(address)
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
    except ValueError:
        parts = None
        parameters = {}
    if parts is None or parts.scheme not in SCHEMES or not address.startswith(f"{parts.scheme}://"):
        raise ValueError("it isn't an address of PostgreSQL, like postgresql://host/database")
    user, at, _ = parts.netloc.rpartition("@")
    if (at and ":" in user) or not _SECRET.isdisjoint(parameters):
        raise ValueError(f"it has a password, which everybody could see; {_ELSEWHERE}")
    return address


def shown_address(address: str) -> str:
    """*address* for the log: host and database, or the service."""
    parts = urlsplit(address)
    parameters = dict(parse_qsl(parts.query))
    if service := parameters.get("service"):
        return f"service {service}"
    host = unquote(parts.netloc.rpartition("@")[2]) or parameters.get("host", "")
    if port := parameters.get("port"):
        host += f":{port}"
    return f"{host or 'local'}{parts.path.rstrip('/')}"
