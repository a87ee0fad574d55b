"""Entry names: what a file's path is called inside an archive.

A path in a Linux file system is any bytes without NUL; an entry name is UTF-8
text that every reader must take for the same place. The policy, part of the
format (DESIGN "The ZIP"):

- A component that is valid UTF-8 keeps its characters as they are, in whatever
  normal form, save those that are unsafe somewhere: a backslash (a separator to
  Windows), a colon (a drive or a stream), a control character (U+0000-001F,
  007F-009F). Each is written as its UTF-8 bytes in the form ``%XX``.
- Bytes that aren't UTF-8 are written as ``%XX``, too.
- The components ``.`` and ``..`` become ``%2E`` and ``%2E%2E``.
- Where two siblings are called the same after that, one whose name needed no
  change keeps it, and the others get `` (2)``, `` (3)`` ... in the order of
  their original bytes, before the extension.

Nothing else is escaped: a ``%`` in a name stays, so ordinary names never change.
The result depends on the set of paths only, not on the order they come in.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f:\\]")


def safe_component(raw: bytes) -> str:
    """One path component as text that is safe in an entry name."""
    if raw in (b".", b".."):
        return "%2E" * len(raw)
    text = raw.decode("utf-8", "surrogateescape")
    text = _UNSAFE.sub(lambda match: _percent(match[0].encode()), text)
    if text.isascii() or not any("\udc80" <= character <= "\udcff" for character in text):
        return text
    return "".join(
        _percent(bytes([ord(character) - 0xDC00]))
        if "\udc80" <= character <= "\udcff"
        else character
        for character in text
    )


def _percent(raw: bytes) -> str:
    return "".join(f"%{byte:02X}" for byte in raw)


def entry_names(paths: Iterable[bytes]) -> dict[bytes, bytes]:
    """The entry name of each of *paths*, which are relative and ``/``-separated.

    Distinct paths get distinct names, and no name is a folder of another one
    unless its path is.
    """
    paths = list(paths)
    if all(_is_plain(path) for path in paths):
        return {path: path for path in paths}
    siblings: defaultdict[bytes, set[bytes]] = defaultdict(set)
    for path in paths:
        parent = b""
        for component in path.split(b"/"):
            siblings[parent].add(component)
            parent = parent + b"/" + component if parent else component
    mapped = {parent: _map_siblings(children) for parent, children in siblings.items()}
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
    """The key by which members are sorted: base name, then the whole name, bytewise."""
    return name.rpartition(b"/")[2], name


def _is_plain(path: bytes) -> bool:
    """Whether *path* needs no mapping; nearly all are this, and told so at once."""
    return (
        path.isascii()
        and not _UNSAFE.search(path.decode("ascii"))
        and not any(component in (b".", b"..") for component in path.split(b"/"))
    )


def _map_siblings(components: Iterable[bytes]) -> dict[bytes, str]:
    """Names for the children of one folder, all different."""
    safe = {component: safe_component(component) for component in components}
    mapped = {raw: name for raw, name in safe.items() if name.encode("utf-8", "replace") == raw}
    taken = set(mapped.values())
    for raw in sorted(safe.keys() - mapped.keys()):
        name = safe[raw]
        number = 2
        while name in taken:
            name = _numbered(safe[raw], number)
            number += 1
        taken.add(name)
        mapped[raw] = name
    return mapped


def _numbered(name: str, number: int) -> str:
    stem, dot, extension = name.rpartition(".")
    if not stem:
        return f"{name} ({number})"
    return f"{stem} ({number}){dot}{extension}"
