"""Patterns of names and paths.

Pure. Paths are bytes relative to the library, ``/``-separated; *components* is such a path,
split. Patterns have ``*``, ``?`` and ``[...]`` within a component; the component ``**`` matches
any number of components, zero included.

In a pattern of games, the components ``{platform}`` and ``{game}`` match like ``*``, and name
what they match (:func:`check_placeholders`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property
from glob import escape
from typing import Final

PLATFORM: Final = "{platform}"
GAME: Final = "{game}"
_WILDCARD: Final = re.compile(rb"[*?[]")

_ANY: Final = re.compile(translate("*"))
"""Matches each component."""

Compiled = Sequence[re.Pattern[str] | None]
"""A glob, component by component; ``None`` is ``**``."""


def text(raw: bytes) -> str:
    """*raw* for a regular expression: UTF-8, and one character for each other byte.

    So ``?`` and ``[...]`` match one character beyond ASCII, and any bytes can be matched.
    """
    return raw.decode("utf-8", "surrogateescape")


def encode(path: str) -> bytes:
    """*path*, read from a text file, as UTF-8 bytes; a lone surrogate is no error."""
    return path.encode("utf-8", "surrogatepass")


def literal(path: str) -> str:
    """The glob that matches *path* and nothing else."""
    return escape(path).replace("{", "[{]")


def split(path: bytes) -> list[bytes]:
    """The components of *path*; empty for the library itself."""
    return path.split(b"/") if path else []


def any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    """A regular expression that matches a whole name if one of *patterns* does.

    There has to be at least one. The case of ASCII letters is ignored; that of others isn't,
    or a long s (U+017F) would match an "s".
    """
    return re.compile("|".join(map(translate, patterns)), re.IGNORECASE | re.ASCII)


def compiled(glob: bytes, flags: int = 0) -> Compiled:
    """*glob* for :func:`matches` and :func:`is_prefix`."""
    placeholders = (PLATFORM.encode(), GAME.encode())
    return [
        None
        if component == b"**"
        else _ANY
        if component in placeholders or component == b"*"
        else re.compile(translate(text(component)), flags)
        for component in glob.strip(b"/").split(b"/")
    ]


def matches(glob: Compiled, components: Sequence[bytes]) -> bool:
    """Whether *glob* matches all of *components*."""
    for number, pattern in enumerate(glob):
        if pattern is None:
            rest = glob[number + 1 :]
            return any(matches(rest, components[n:]) for n in range(number, len(components) + 1))
        if number == len(components):
            return False
        # Each name of a large folder is matched.
        if pattern is not _ANY and not pattern.match(text(components[number])):
            return False
    return len(glob) == len(components)


def is_prefix(glob: Compiled, components: Sequence[bytes]) -> bool:
    """Whether *glob* could match something below *components*."""
    if not components:
        return bool(glob)
    if not glob:
        return False
    if glob[0] is None:
        return True
    return bool(glob[0].match(text(components[0]))) and is_prefix(glob[1:], components[1:])


def platform_of(glob: bytes, components: Sequence[bytes]) -> bytes | None:
    """The platform's folder among *components*, the path of a game that *glob* matches.

    It is what ``{platform}`` matches, or else what the last wildcard before the game's own
    component matches. None if there is neither, or if it is ambiguous (between two ``**``).
    """
    parts = glob.strip(b"/").split(b"/")
    wild = [n for n, part in enumerate(parts[:-1]) if part != b"**" and _WILDCARD.search(part)]
    marked = [n for n, part in enumerate(parts) if part == PLATFORM.encode()]
    number = max(marked or wild, default=None)
    if number is None:
        return None
    if b"**" in parts[:number]:
        if b"**" in parts[number:]:
            return None
        number += len(components) - len(parts)
    # Where a `**` matches no component, this may be the game itself.
    return components[number] if number < len(components) - 1 else None


def check_relative(glob: str) -> None:
    """Raise :exc:`ValueError`, with a message for the user, if *glob* can't match a path."""
    components = glob.strip("/").split("/")
    if glob.startswith("/") or not all(components) or {".", ".."} & set(components):
        raise ValueError(f"{glob!r} isn't a pattern relative to the library, like 'roms/*/*'")


def check_placeholders(glob: str) -> None:
    """Raise :exc:`ValueError` if *glob* has an unknown or misplaced placeholder."""
    components = glob.strip("/").split("/")
    for placeholder in (PLATFORM, GAME):
        if glob.count(placeholder) > 1:
            raise ValueError(f"{glob!r} has {placeholder} more than once")
        if placeholder in glob and placeholder not in components:
            raise ValueError(f"{glob!r}: {placeholder} stands for a whole name, between slashes")
    for component in components:
        if re.fullmatch(r"\{.*\}", component, re.DOTALL) and component not in (PLATFORM, GAME):
            raise ValueError(
                f"{glob!r}: {component} is unknown, there are {PLATFORM} and {GAME};"
                " write * for a folder of any name"
            )
    if GAME in components[:-1]:
        raise ValueError(f"{glob!r}: {GAME} has to come last")


def platform_names(given: Iterable[str]) -> tuple[str, ...]:
    """The names of platforms' folders in *given*, strings of one or more, comma-separated.

    Raises :exc:`ValueError`, with a message for the user, for what can't be such a name.
    """
    names = tuple(name.strip() for several in given for name in several.split(","))
    for name in names:
        if not name or "/" in name:
            raise ValueError(f"{name!r} isn't the name of a platform's folder, like 'psx'")
    return names


@dataclass(frozen=True)
class Patterns:
    """The user's patterns of excluded and included paths; *include* takes precedence.

    A pattern without ``/`` matches the base name of a file or folder anywhere; one with ``/``
    matches a path relative to the library. The case of ASCII letters is ignored.
    """

    exclude: tuple[bytes, ...] = ()
    include: tuple[bytes, ...] = ()

    def verdict(self, path: bytes) -> bool | None:
        """True if *path* is included, False if it is excluded, None if no pattern matches."""
        if self.include and _match(self._include, path):
            return True
        if self.exclude and _match(self._exclude, path):
            return False
        return None

    def allow(self, components: Sequence[bytes], by_default: Callable[[int], bool]) -> bool:
        """Whether neither the path of *components* nor a folder above it is excluded.

        *by_default* decides where no pattern matches; its argument is an index of *components*.
        """
        if not (self.exclude or self.include):
            return all(map(by_default, range(len(components))))
        for number in range(len(components)):
            verdict = self.verdict(b"/".join(components[: number + 1]))
            if verdict is None:
                verdict = by_default(number)
            if not verdict:
                return False
        return True

    @cached_property
    def _include(self) -> _Matcher:
        return _matcher(self.include)

    @cached_property
    def _exclude(self) -> _Matcher:
        return _matcher(self.exclude)


_Matcher = tuple[re.Pattern[str] | None, list[Compiled]]
"""The patterns of names as one regular expression, and those of paths."""


def _matcher(patterns: Iterable[bytes]) -> _Matcher:
    plain = [pattern.strip(b"/") for pattern in patterns]
    names = [text(pattern) for pattern in plain if b"/" not in pattern]
    paths = [compiled(pattern, re.IGNORECASE | re.ASCII) for pattern in plain if b"/" in pattern]
    return any_of(names) if names else None, paths


def _match(matcher: _Matcher, path: bytes) -> bool:
    names, paths = matcher
    if names and names.match(text(path.rpartition(b"/")[2])):
        return True
    return bool(paths) and any(matches(glob, path.split(b"/")) for glob in paths)
