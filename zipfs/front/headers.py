"""Headers of requests and answers, as pairs of bytes: which matter, and what becomes of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from zipfs.front.archives import Outcome
from zipfs.front.settings import Settings

Headers = list[tuple[bytes, bytes]]

CONDITIONS = re.compile(
    rb"range|if-range|if-match|if-none-match|if-modified-since|if-unmodified-since|accept-encoding",
    re.IGNORECASE,
)
"""What is the web server's to decide: the application is asked for all of it, uncompressed."""
IDENTITY = re.compile(
    rb"auth|cert|cookie|email|forwarded|groups|^host$|jwt|key|real-ip|remote|secret|session|token"
    rb"|user(?!-agent)",
    re.IGNORECASE,
)
"""Headers by whose names an application may tell one client from another."""
REPLACED = re.compile(
    rb"x-archive-.*|accept-ranges|content-encoding|content-length|content-type|etag|last-modified"
    rb"|transfer-encoding|x-zipfs",
    re.IGNORECASE,
)
"""What is that of the list, and not of its archive."""


def is_list(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether an answer is a list for nginx's ZIP module."""
    found = {name.lower(): value.strip().lower() for name, value in headers}
    return (
        status == 200
        and found.get(b"x-archive-files") == b"zip"
        and b"content-encoding" not in found
    )


def unconditional(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Those of a request, for the whole of what it is about."""
    return [pair for pair in headers if not CONDITIONS.fullmatch(pair[0])]


def key_of(path: bytes, query: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A digest of what is asked for and by whom."""
    digest = hashlib.sha256()
    whose = [pair for pair in headers if IDENTITY.search(pair[0])]
    for part in (path, query, *(part for pair in sorted(whose) for part in pair)):
        digest.update(b"%d:" % len(part) + part)
    return digest.digest()


def archive_headers(
    headers: Iterable[tuple[bytes, bytes]], name: str, settings: Settings
) -> Headers:
    """Those of the answer that has the web server send the archive."""
    kept = [pair for pair in headers if not REPLACED.fullmatch(pair[0])]
    target = f"{settings.location}/{name}.zip".encode()
    return [
        *kept,
        (b"content-type", b"application/zip"),
        (settings.redirect.lower().encode(), target),
        (b"content-length", b"0"),
    ]


def list_headers(headers: Iterable[tuple[bytes, bytes]], outcome: Outcome) -> Headers:
    """Those of the answer that is the list, with the reason; what comes of it can't be resumed."""
    kept = [pair for pair in headers if pair[0].lower() not in (b"accept-ranges", b"x-zipfs")]
    return [*kept, (b"accept-ranges", b"none"), (b"x-zipfs", _ascii(outcome.reason))]


def _ascii(text: str) -> bytes:
    return text.encode("ascii", "backslashreplace")


def unavailable(outcome: Outcome) -> Headers:
    """Those of a 503."""
    return [
        (b"retry-after", b"5"),
        (b"content-type", b"text/plain"),
        (b"content-length", b"0"),
        (b"x-zipfs", _ascii(outcome.reason)),
    ]


def without_cookies(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """For those who haven't asked themselves."""
    return [pair for pair in headers if pair[0].lower() != b"set-cookie"]
