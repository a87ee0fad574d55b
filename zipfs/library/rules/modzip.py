"""Lists of members in the format of nginx's ZIP module: bytes to entries. Pure.

One member per line, in the archive's order (mod_zip, ``ngx_http_zip_parsers.rl``)::

    CRC SIZE LOCATION NAME
    1034ab38 428 /library/roms/psx/Game/Disc%201.chd Disc 1.chd
    - 100339 /library/roms/psx/Game/Disc%202.chd DLC/Disc 2.chd
    4a17b156 11 /decode?value=SGVsbG8gV29ybGQ= readme.txt
    0 0 @directory save

- Lines end in LF, CR LF or CR; empty lines are ignored. Fields are separated by one or more
  blanks; the name is the rest of the line, and may contain and end in blanks.
- ``CRC`` is up to 8 hex digits, or ``-``. It is checked for its form and ignored: the CRC-32 of
  the archive is computed from the file.
- ``LOCATION`` is the URL of a file below a prefix. ``%XX`` is a byte and ``+`` a blank, as the
  module decodes it; a plus is ``%2B``. Decoded once, the part after the prefix is the file's
  path in the library.
- ``/decode?value=BASE64`` is a member whose content is in the list (RFC 4648, 4).
- ``@directory`` is an empty folder, with any ``SIZE``, which the module ignores as well.
- ``NAME`` is the entry's path in the archive, with ``/`` as separator; a folder's may end in one.
  The module writes it as it is. Here it is the path that it leads to when it is unpacked: a
  component that is empty or ``.`` is dropped, ``..`` is refused.

A location that nginx would normalise (RFC 3986, 5.2.4) is refused: ``.`` and ``..``, empty
components, encoded slashes, NUL, a ``%`` that isn't followed by two hex digits. So are members
that can't be unpacked side by side: two of the same name, and a file whose name is that of a
folder of another. A folder may have others in it.
"""

from __future__ import annotations

import binascii
import re
from itertools import pairwise
from typing import Final, NamedTuple, NoReturn
from urllib.parse import unquote_to_bytes

from zipfs.archive.names import MAX_COMPONENT
from zipfs.text import shown

MAX_LIST: Final = 256 << 20
"""Maximum size of a list, in bytes."""
TOO_LARGE: Final = f"it is larger than {MAX_LIST >> 20} MiB"
MAX_LINE: Final = 1 << 20
"""Maximum length of a line, in bytes; only inline content needs so much."""
MAX_ENTRIES: Final = 1_000_000
MAX_INLINE: Final = 16 << 20
"""Maximum inline content of one list, in bytes; it is in memory while its archive is open."""
_MAX_PATH: Final = 65_535
"""Maximum length in bytes of a name (a 16-bit field, APPNOTE 4.4.10) and of a location's path."""
_MAX_SIZE_DIGITS: Final = 19  # of 2**63 - 1

_LINE: Final = re.compile(
    rb"(?:[0-9A-Fa-f]{1,8}|-) +([0-9]+) +([^? ]+)(?:\?([^ ]+))? +([^ \0][^\0]*)"
)
_BAD_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ENCODED_SLASH: Final = re.compile(rb"%2[Ff]")
_BAD_COMPONENT: Final = re.compile(rb"(?:\A|/)(\.{0,2})(?:/|\Z)")
_INLINE: Final = b"/decode"
_VALUE: Final = b"value="
_FOLDER: Final = b"@directory"


class ListError(Exception):
    """A list can't be an archive. *line* counts from 1; None if it isn't about one line."""

    def __init__(self, line: int | None, reason: str) -> None:
        super().__init__(line, reason)
        self.line = line
        self.reason = reason

    def __str__(self) -> str:
        return self.reason if self.line is None else f"line {self.line}: {self.reason}"


class ListedMember(NamedTuple):
    """A member that a list names: a file at *path* in the library, or inline *content*.

    *line* counts from 1, *size* is in bytes. A folder's *name* ends in ``/``, and it has empty
    *content*.
    """

    line: int
    size: int
    name: bytes
    path: bytes = b""
    content: bytes | None = None


def parse(data: bytes, prefix: bytes) -> list[ListedMember]:
    """The members that the list *data* names, in its order.

    *prefix* is the path of the library's URL, with a ``/`` at both ends. Raises
    :exc:`ListError` for the first line that is wrong by itself, or else for one whose name
    conflicts with another's.
    """
    if len(data) > MAX_LIST:
        raise ListError(None, TOO_LARGE)
    entries: list[ListedMember] = []
    inline = 0
    for number, line in enumerate(data.splitlines(), 1):
        if not line:
            continue
        if len(entries) == MAX_ENTRIES:
            raise ListError(number, f"more than {MAX_ENTRIES} members")
        try:
            entry = _entry(number, line, prefix)
        except _Refused as refused:
            raise ListError(number, str(refused)) from None
        if entry.content is not None:
            inline += len(entry.content)
            if inline > MAX_INLINE:
                raise ListError(number, f"more than {MAX_INLINE >> 20} MiB of content in the list")
        entries.append(entry)
    if not entries:
        raise ListError(None, "it is empty")
    _check_names(entries)
    return entries


class _Refused(Exception):  # noqa: N818 - never leaves this module
    """A line is wrong; the message says why."""


def _entry(number: int, line: bytes, prefix: bytes) -> ListedMember:
    if len(line) > MAX_LINE:
        raise _Refused(f"it is longer than {MAX_LINE} bytes")
    match = _LINE.fullmatch(line)
    if match is None:
        _refuse(line)
    digits, location, query, name = match.groups()
    digits = digits.lstrip(b"0")
    if len(digits) > _MAX_SIZE_DIGITS:  # also because `int` takes no more than 4300
        raise _Refused("its size is larger than a file can be")
    size = int(digits or b"0")
    if query is None and _decoded(location) == _FOLDER:
        return ListedMember(number, 0, _tidied(name) + b"/", content=b"")
    if name.rpartition(b"/")[2] in (b"", b"."):
        raise _Refused(f"its name {_short(name)} isn't the path of a file")
    name = _tidied(name)
    if query is None:
        return ListedMember(number, size, name, path=_path(location, prefix))
    if _decoded(location) != _INLINE:
        raise _Refused("its location has arguments, which only /decode takes")
    return ListedMember(number, size, name, content=_content(query, size))


def _refuse(line: bytes) -> NoReturn:
    """Raise :exc:`_Refused` for a *line* that doesn't match the format."""
    fields = re.split(rb" +", line, maxsplit=3)
    if line.startswith(b" "):
        reason = "it begins with a blank"
    elif len(fields) < 4 or not fields[3]:
        reason = "it has less than CRC, SIZE, LOCATION and NAME"
    elif not re.fullmatch(rb"[0-9A-Fa-f]{1,8}|-", fields[0]):
        reason = f"{_short(fields[0])} is no CRC: up to 8 hex digits, or -"
    elif not re.fullmatch(rb"[0-9]+", fields[1]):
        reason = f"{_short(fields[1])} is no size in bytes"
    elif b"\0" in fields[3]:
        reason = "its name has a NUL in it"
    else:
        reason = f"{_short(fields[2])} is no location"
    raise _Refused(reason)


def _tidied(name: bytes) -> bytes:
    """*name* as a relative path, of a folder as well without a ``/`` at the end."""
    if len(name) > _MAX_PATH:
        raise _Refused(f"its name is longer than {_MAX_PATH} bytes")
    if _BAD_COMPONENT.search(name):
        components = [part for part in name.split(b"/") if part not in (b"", b".")]
        if b".." in components:
            raise _Refused(f"its name {_short(name)} has the component ..")
        if not components:
            raise _Refused(f"its name {_short(name)} is that of no file or folder")
        name = b"/".join(components)
    if len(name) > MAX_COMPONENT and any(
        len(component) > MAX_COMPONENT for component in name.split(b"/")
    ):
        raise _Refused(f"a part of its name is longer than {MAX_COMPONENT} bytes")
    return name


def _path(location: bytes, prefix: bytes) -> bytes:
    """The path in the library that *location* stands for."""
    if _ENCODED_SLASH.search(location):
        raise _Refused("its location has an encoded slash")
    path = _decoded(location)
    if not path.startswith(prefix):
        raise _Refused(f"its location {_short(location)} isn't below {shown(prefix)}")
    path = path[len(prefix) :]
    if len(path) > _MAX_PATH:
        raise _Refused(f"its location is longer than {_MAX_PATH} bytes")
    if b"\0" in path:
        raise _Refused("its location has a NUL in it")
    if match := _BAD_COMPONENT.search(path):
        what = f"the component {match[1].decode()}" if match[1] else "an empty component"
        raise _Refused(f"its location {_short(location)} has {what}")
    return path


def _decoded(location: bytes) -> bytes:
    if b"%" not in location and b"+" not in location:
        return location
    if _BAD_PERCENT.search(location):
        raise _Refused("its location has a % that isn't followed by two hex digits")
    return unquote_to_bytes(location.replace(b"+", b" "))


def _content(query: bytes, size: int) -> bytes:
    """The content in *query*, the arguments of ``/decode``."""
    if not query.startswith(_VALUE):
        raise _Refused("/decode takes value=BASE64, and nothing else")
    try:
        # Encoded or not: `+` is a digit here, since there are no blanks.
        content = binascii.a2b_base64(
            unquote_to_bytes(query.removeprefix(_VALUE)), strict_mode=True
        )
    except binascii.Error:
        raise _Refused("the value of /decode isn't Base64") from None
    if len(content) != size:
        raise _Refused(f"its size is {size}, but its content has {len(content)} bytes")
    return content


def _check_names(entries: list[ListedMember]) -> None:
    """Raise :exc:`ListError` if two of *entries* can't be unpacked side by side."""
    # Sorted with NUL, which no name contains, instead of the slash: a folder's files come
    # directly after what has the folder's name.
    order = sorted(entries, key=lambda entry: _path_of(entry).replace(b"/", b"\0"))
    for first, then in pairwise(order):
        path, other = _path_of(first), _path_of(then)
        if path == other:
            raise ListError(then.line, f"its name {_short(other)} is that of line {first.line}")
        if other.startswith(path + b"/") and path == first.name:
            reason = f"its name {_short(path)} is that of a folder of line {then.line}"
            raise ListError(first.line, reason)


def _path_of(entry: ListedMember) -> bytes:
    return entry.name.removesuffix(b"/")


def _short(raw: bytes) -> str:
    """*raw* for the log, cut to 100 bytes."""
    return shown(raw if len(raw) <= 100 else raw[:100] + b"...")
