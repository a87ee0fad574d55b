"""Entry names: from the path of a file to its name in an archive.

A path in a Linux file system is any bytes without NUL; an entry name is UTF-8 text that every
reader unpacks to the same place. The mapping is part of the format (DESIGN "The ZIP") and
treats each component of a path by itself:

- Valid UTF-8 is kept, in any normal form, except for characters that are unsafe on some system:
  a backslash (a separator on Windows), a colon (a drive or a stream), a control character
  (U+0000-001F, 007F-009F). Each is written as its UTF-8 bytes in the form ``%XX``.
- Bytes that aren't UTF-8 are written as ``%XX`` as well.
- The components ``.`` and ``..`` become ``%2E`` and ``%2E%2E``.
- A component that these rules make longer than 255 bytes, the limit of a file name, is cut
  before its extension, with ``~`` and a checksum of its original bytes at the cut.
- If two siblings have the same name after that, one whose name needed no change keeps it, and
  the others get `` (2)``, `` (3)`` ... before the extension, in the order of their original
  bytes.

A *portable* name is also one that Windows can create, and that macOS distinguishes from its
siblings. Two more rules:

- ``"``, ``*``, ``<``, ``>``, ``?`` and ``|``, a dot or a space at the end, and the
  first letter of a device's name (``CON``, ``nul.txt`` ...) are written as ``%XX``
  (https://learn.microsoft.com/windows/win32/fileio/naming-a-file).
- Siblings that differ only in letter case or normal form count as having the same name.

Nothing else is escaped: a ``%`` in a name stays, so ordinary names never change.
The result depends only on the set of paths, not on their order.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Final
from unicodedata import ucd_3_2_0

import xxhash

MAX_COMPONENT: Final = 255
"""Bytes: NAME_MAX of nearly all Linux file systems. Windows and macOS count UTF-16 units or
characters, of which there are never more than bytes."""

_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f:\\]")
_UNPORTABLE: Final = re.compile(r'[\x00-\x1f\x7f-\x9f:\\"*<>?|]|[. ]\Z')
_DEVICE: Final = re.compile(r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9¹²³]) *(?:\.|\Z)")
_MAX_EXTENSION: Final = 16
"""Maximum length of the extension that a cut name keeps, in bytes with its dot."""


def safe_component(raw: bytes, *, portable: bool = False) -> str:
    """One path component as text that is safe in an entry name."""
    if raw in (b".", b".."):
        return "%2E" * len(raw)
    pieces = _pieces(raw, _UNPORTABLE if portable else _UNSAFE)
    name = "".join(pieces)
    if portable and _DEVICE.match(name.upper()):
        pieces[0] = _percent(pieces[0].encode())
        name = "".join(pieces)
    if name.encode() == raw or len(name.encode()) <= MAX_COMPONENT:
        return name
    return _shortened(pieces, f"~{xxhash.xxh3_64_hexdigest(raw)}")


def _pieces(raw: bytes, unsafe: re.Pattern[str]) -> list[str]:
    """*raw* as text, split into characters and escapes."""
    text = raw.decode("utf-8", "surrogateescape")
    pieces = list(text)
    for match in unsafe.finditer(text):
        pieces[match.start()] = _percent(match[0].encode())
    if not text.isascii():
        for position, character in enumerate(text):
            if "\udc80" <= character <= "\udcff":
                pieces[position] = _percent(bytes([ord(character) - 0xDC00]))
    return pieces


def _percent(raw: bytes) -> str:
    return "".join(f"%{byte:02X}" for byte in raw)


def _shortened(pieces: list[str], mark: str) -> str:
    """As many *pieces* as fit into :data:`MAX_COMPONENT`, then *mark* and the extension."""
    text = "".join(pieces)
    extension = text[len(_split(text)[0]) :]
    if len(extension.encode()) > _MAX_EXTENSION:
        extension = ""
    room = MAX_COMPONENT - len((mark + extension).encode())
    kept = []
    for piece in pieces:
        room -= len(piece.encode())
        if room < 0:
            break
        kept.append(piece)
    return "".join(kept) + mark + extension


def entry_names(paths: Iterable[bytes], *, portable: bool = False) -> dict[bytes, bytes]:
    """The entry name of each of *paths*, which are relative and ``/``-separated.

    Distinct paths get distinct names, and one name is a folder of another only if its path is.
    Raises :exc:`ValueError` for a path with an empty component: absolute, or ending in ``/``.
    """
    paths = list(paths)
    if not portable and all(_is_plain(path) for path in paths):
        return {path: path for path in paths}
    siblings: defaultdict[bytes, set[bytes]] = defaultdict(set)
    for path in paths:
        parent = b""
        for component in path.split(b"/"):
            if not component:
                raise ValueError(f"{path!r} isn't a relative path")
            siblings[parent].add(component)
            parent = parent + b"/" + component if parent else component
    mapped = {
        parent: _map_siblings(children, portable=portable) for parent, children in siblings.items()
    }
    names = {}
    for path in paths:
        parent = b""
        parts = []
        for component in path.split(b"/"):
            parts.append(mapped[parent][component])
            parent = parent + b"/" + component if parent else component
        names[path] = "/".join(parts).encode()
    return names


def archive_order(name: bytes) -> tuple[bytes, bytes]:
    """The sort key of members: base name, then the whole name, bytewise; a folder's as a file's."""
    name = name.removesuffix(b"/")
    return name.rpartition(b"/")[2], name


def _is_plain(path: bytes) -> bool:
    """Whether *path* needs no mapping; a fast test, as this is so for nearly all paths."""
    return (
        path.isascii()
        and not _UNSAFE.search(path.decode("ascii"))
        and not any(component in (b"", b".", b"..") for component in path.split(b"/"))
    )


def _map_siblings(components: Iterable[bytes], *, portable: bool) -> dict[bytes, str]:
    """Names for the children of one folder, all different."""
    safe = {raw: safe_component(raw, portable=portable) for raw in components}
    mapped: dict[bytes, str] = {}
    taken = set()
    unchanged = [raw for raw, name in safe.items() if name.encode() == raw]
    for raw in (*sorted(unchanged), *sorted(safe.keys() - set(unchanged))):
        name = safe[raw]
        number = 2
        while (key := folded(name) if portable else name) in taken:
            name = _numbered(safe[raw], number)
            number += 1
        taken.add(key)
        mapped[raw] = name
    return mapped


def folded(name: str) -> str:
    """The same text for all names that are equal on Windows or macOS.

    Folds letter case and normal form (Unicode 15, 5.18 and UAX 15), only of characters in
    Unicode 3.2: the Unicode data of newer versions of Python must not change an archive
    (DESIGN B1). Where in doubt, names count as equal.
    """
    return "".join(
        # U+0131, dotless i: the lower case of I in Turkish.
        character.casefold().replace("\u0131", "i")
        if ucd_3_2_0.category(character) != "Cn"
        else character
        for character in ucd_3_2_0.normalize("NFD", name)
    )


def _numbered(name: str, number: int) -> str:
    stem, extension = _split(name)
    mark = f" ({number})"
    if len((stem + mark + extension).encode()) <= MAX_COMPONENT:
        return stem + mark + extension
    return _shortened(re.findall(r"%[0-9A-F]{2}|.", name, re.DOTALL), mark)


def _split(name: str) -> tuple[str, str]:
    """Stem and extension with its dot; a dot at the beginning of a name begins no extension."""
    stem, dot, extension = name.rpartition(".")
    return (stem, dot + extension) if stem else (name, "")
