"""What a front end that hands its downloads over to zipfs has to know."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Folders and times; the defaults are those of RomM's image."""

    lists: str = "/zipfs/lists"
    """The folder that zipfs has as ``--lists``."""
    shown: str = "/romm/cache/zipfs/.lists"
    """The folder in the mount in which their archives appear."""
    location: str = "/cache/zipfs/.lists"
    """The same folder as the web server knows it: a URL's path, or what *redirect* takes."""
    wait: float = 5.0
    """Seconds for which to wait for an archive, from when its list is written."""
    reuse: float = 10.0
    """Seconds for which an answer serves again; 0: each request asks the application."""
    fallback: str = "list"
    """Without an archive: ``list``, the list goes on as it was, or ``503``, try again later."""
    redirect: str = "X-Accel-Redirect"
    """The header by which the web server sends a file."""

    @staticmethod
    def from_environment(environ: Mapping[str, str], complain: Callable[[str], None]) -> Settings:
        """``ZIPFS_LISTS``, ``ZIPFS_SHOWN`` and so on; what is wrong is told and has its default."""
        given = {name: environ.get(f"ZIPFS_{name.upper()}", "") for name in _CHECKS}
        good: dict[str, str | float] = {}
        for name, text in given.items():
            if text:
                try:
                    good[name] = _CHECKS[name](text)
                except ValueError as error:
                    default = getattr(Settings(), name)
                    complain(f"ZIPFS_{name.upper()}={text!a} {error}; it is {default} now")
        return Settings(**good)  # type: ignore[arg-type] # each check gives what its field is


def _folder(text: str) -> str:
    if not os.path.isabs(text) or not text.isprintable():  # it is told in a header
        raise ValueError("isn't an absolute path")
    return text.rstrip("/") or "/"


def _location(text: str) -> str:
    if not re.fullmatch(r"/[!-~]*", text):  # it becomes a header
        raise ValueError("isn't a URL's path, percent-encoded")
    return text.rstrip("/")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= 3600:
        raise ValueError("isn't a number of seconds up to 3600")
    return seconds


def _fallback(text: str) -> str:
    if text not in ("list", "503"):
        raise ValueError("is neither list nor 503")
    return text


_CHECKS: Mapping[str, Callable[[str], str | float]] = {
    "lists": _folder,
    "shown": _folder,
    "location": _location,
    "wait": _seconds,
    "reuse": _seconds,
    "fallback": _fallback,
}
