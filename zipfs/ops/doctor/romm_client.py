"""One download of RomM, asked for as a browser would: the head of the answer, and a few bytes.

With the standard library alone. No redirect is followed, since a login must go nowhere else. A
login comes from the environment or from ``~/.netrc``, never from a command line, which every user
of the machine can read:

- ``ZIPFS_ROMM_TOKEN``: a token, sent as ``Bearer``;
- ``ZIPFS_ROMM_USER`` and ``ZIPFS_ROMM_PASSWORD``;
- else the entry of the host in ``$NETRC`` or ``~/.netrc``.
"""

from __future__ import annotations

import base64
import http.client
import netrc
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from zipfs.errors import ConfigError

PATIENCE: Final = 60.0
"""Seconds for an answer: RomM's own queries, and its wait for the archive."""
_SAFE: Final = "/%:@!$&'()*+,;=~-._?"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came for a request; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    first: bytes
    """The first bytes of the body, as many as were wanted, or all."""

    def header(self, name: str) -> str:
        """The value of the header *name*; empty if it isn't there."""
        return self.headers.get(name, "")


class Download:
    """The download at *url*. Raises :exc:`ConfigError` if that is none of http or https."""

    def __init__(
        self, url: str, environ: Mapping[str, str] = os.environ, patience: float = PATIENCE
    ) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigError(f"{url!r} isn't the address of a download: {error}") from None
        if parts.scheme not in ("http", "https") or not host:
            raise ConfigError(
                f"{url!r} isn't the address of a download, like"
                " http://romm.example/api/roms/7/content/Game.zip"
            )
        if parts.username is not None or parts.password is not None:
            raise ConfigError(
                "a login in the address can be read by all users of this machine; set"
                " ZIPFS_ROMM_TOKEN, or write it into ~/.netrc"
            )
        self.host: Final = host
        self._secure = parts.scheme == "https"
        self._port = port
        self._patience = patience
        target = quote(parts.path or "/", safe=_SAFE)
        self._target = f"{target}?{quote(parts.query, safe=_SAFE)}" if parts.query else target
        self._login = _login(host, environ)

    @property
    def has_login(self) -> bool:
        """Whether a login is sent."""
        return bool(self._login)

    def ask(self, ranges: str = "", count: int = 4) -> Answer:
        """The answer, and *count* bytes of it. *ranges* is a header's value: ``bytes=0-9``.

        Raises :exc:`OSError`, or :exc:`http.client.HTTPException` for what isn't HTTP.
        """
        make = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = make(self.host, self._port, timeout=self._patience)
        headers = {"Accept-Encoding": "identity", "User-Agent": "zipfs doctor"}
        if self._login:
            headers["Authorization"] = self._login
        if ranges:
            headers["Range"] = ranges
        try:
            connection.request("GET", self._target, headers=headers)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read(count))
        finally:
            connection.close()  # the rest may be gigabytes


def _login(host: str, environ: Mapping[str, str]) -> str:
    """The value of ``Authorization`` for *host*; empty without a login."""
    if token := environ.get("ZIPFS_ROMM_TOKEN"):
        return f"Bearer {token}"
    user, password = environ.get("ZIPFS_ROMM_USER"), environ.get("ZIPFS_ROMM_PASSWORD")
    if user is None or password is None:
        file = environ.get("NETRC") or os.path.expanduser("~/.netrc")
        try:
            found = netrc.netrc(file).authenticators(host)
        except FileNotFoundError:
            return ""
        except (OSError, netrc.NetrcParseError) as error:
            raise ConfigError(f"can't use {file}: {error}") from None
        if found is None:
            return ""
        user, password = found[0], found[2] or ""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
