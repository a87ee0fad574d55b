"""Patterns of names and paths, and whether they match.

Pure. Paths are bytes relative to the library, ``/``-separated; *components* is such a
path, split. Patterns know ``*``, ``?`` and ``[...]`` within a component, and ``**`` as a
component for any number of components, none included.

In a pattern that says where games are, the components ``{platform}`` and ``{game}`` match
like ``*``. They only say what is there (:func:`check_placeholders`).
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

Compiled = Sequence[re.Pattern[str] | None]
"""A glob, component by component; ``None`` is ``**``."""


def text(raw: bytes) -> str:
    """*raw* for a regular expression.

    One character each, as a person counts them, so that ``?`` and ``[...]`` match
    a letter beyond ASCII; what isn't UTF-8 is one a byte, so any bytes can be matched.
    """
    return raw.decode("utf-8", "surrogateescape")


def encode(path: str) -> bytes:
    """*path*, out of a text file, as bytes: half a surrogate pair, too, which is in no name."""
    return path.encode("utf-8", "surrogatepass")


def literal(path: str) -> str:
    """The glob that matches *path* and nothing else."""
    return escape(path).replace("{", "[{]")


def split(path: bytes) -> list[bytes]:
    """The components of *path*; none of the library itself."""
    return path.split(b"/") if path else []


def any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    """What matches a whole name if one of *patterns* does, which mustn't be none.

    The case of ASCII letters doesn't count. Of others it does: a long s (U+017F) would
    be an "s" otherwise.
    """
    return re.compile("|".join(map(translate, patterns)), re.IGNORECASE | re.ASCII)


def compiled(glob: bytes, flags: int = 0) -> Compiled:
    """*glob* for :func:`matches` and :func:`is_prefix`."""
    placeholders = (PLATFORM.encode(), GAME.encode())
    return [
        None
        if component == b"**"
        else re.compile(translate("*" if component in placeholders else text(component)), flags)
        for component in glob.strip(b"/").split(b"/")
    ]


def matches(glob: Compiled, components: Sequence[bytes]) -> bool:
    """Whether *glob* matches all of *components*."""
    if not glob:
        return not components
    if glob[0] is None:
        return any(matches(glob[1:], components[n:]) for n in range(len(components) + 1))
    return (
        bool(components)
        and bool(glob[0].match(text(components[0])))
        and matches(glob[1:], components[1:])
    )


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
    """The one of *components*, a game's that *glob* matches, that stands for its platform.

    It is what ``{platform}`` matches, or else the last wildcard before the game's own
    component. None if there is neither, or if it can't be told, between two ``**``, which
    component that is.
    """
    parts = glob.strip(b"/").split(b"/")
    wild = [n for n, part in enumerate(parts[:-1]) if part != b"**" and _WILDCARD.search(part)]
    marked = [n for n, part in enumerate(parts) if part == PLATFORM.encode()]
    place = max(marked or wild, default=None)
    if place is None:
        return None
    if b"**" in parts[:place]:
        if b"**" in parts[place:]:
            return None
        place += len(components) - len(parts)
    # Where a `**` matches nothing, it may be the game itself.
    return components[place] if place < len(components) - 1 else None


def check_relative(glob: str) -> None:
    """Raise :exc:`ValueError`, with a reason for people, if *glob* can't match a path."""
    components = glob.strip("/").split("/")
    if glob.startswith("/") or not all(components) or {".", ".."} & set(components):
        raise ValueError(f"{glob!r} isn't a pattern relative to the library, like 'roms/*/*'")


def check_placeholders(glob: str) -> None:
    """The same if its placeholders are unknown ones, or not where they have a meaning."""
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
    """Names of platforms' folders, which may be several in one string, with commas between.

    Raises :exc:`ValueError`, with a reason for people, for what can't be one.
    """
    names = tuple(name.strip() for several in given for name in several.split(","))
    for name in names:
        if not name or "/" in name:
            raise ValueError(f"{name!r} isn't the name of a platform's folder, like 'psx'")
    return names


@dataclass(frozen=True)
class Patterns:
    """What a user wants left out, and taken in: the latter wins.

    A pattern without ``/`` is one of a base name, of a file or a folder anywhere; with
    one it is that of a path, from the library on. The case of ASCII letters doesn't count.
    """

    exclude: tuple[bytes, ...] = ()
    include: tuple[bytes, ...] = ()

    def verdict(self, path: bytes) -> bool | None:
        """Whether what is at *path* is taken in (True) or left out (False); None: no word."""
        if self.include and _match(self._include, path):
            return True
        if self.exclude and _match(self._exclude, path):
            return False
        return None

    def allow(self, components: Sequence[bytes], by_default: Callable[[int], bool]) -> bool:
        """Whether nothing on the way to *components* is left out.

        Of what there is no word about, *by_default* tells, by its place in *components*.
        """
        if not (self.exclude or self.include):
            return all(map(by_default, range(len(components))))
        for place in range(len(components)):
            verdict = self.verdict(b"/".join(components[: place + 1]))
            if verdict is None:
                verdict = by_default(place)
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
"""Patterns of names as one, and those of paths."""


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
