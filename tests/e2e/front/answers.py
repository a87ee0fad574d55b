"""What a front end answers to a request for a download. Pure.

The application sends no bytes of games. Its answer is a header with the path of what to send,
and the web server in front of it sends that file:

- a whole game of several files: its archive in the mount, ``/zipfs/roms/psx/Game.zip``;
- one file, also if it is all that is asked for of a game: the file in the library itself,
  ``/library/roms/psx/Game/Disc%201.chd``;
- a part of a game, a game with its files in a hidden folder, several games: an archive that
  somebody has to name first. Its members are written into a list (:func:`list_text`), and the
  list's own checksum is its name, so that the same request is the same archive each time, the
  request with a ``Range`` that comes an hour later included.

The formats: nginx's ``X-Accel-Redirect`` is a path with ``%XX`` for bytes, and ``?`` begins
arguments as in a URL. File names are RFC 6266 and RFC 8187. Lists are those of nginx's ZIP
module, a member a line: ``CRC SIZE LOCATION NAME``.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, quote_from_bytes

MOUNT: Final = "/zipfs/"
"""Where the server has the mount, for redirects of ours only."""
LIBRARY: Final = "/library/"
"""The same for the library."""
LISTS: Final = b".lists/"
"""The folder of the mount in which lists are shown as archives."""
HIDDEN: Final = b".hidden/"

# RFC 8187, 3.2.1: attr-char, without what `quote` never encodes.
_ATTR_CHARS: Final = "!#$&+^`|~"


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    number: int
    path: bytes
    """Relative to the library."""
    name: bytes
    """Relative to the folder of its game."""
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Game:
    number: int
    path: bytes
    """Relative to the library."""
    files: tuple[File, ...]
    """In the order of an archive; a game that is a file by itself has that one."""

    @property
    def name(self) -> bytes:
        return self.path.rpartition(b"/")[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A member of an archive: a file of the library, or *content*."""

    name: bytes
    path: bytes = b""
    size: int
    content: bytes | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    filename: bytes
    """What the download is to be called."""
    redirect: str = ""
    """For ``X-Accel-Redirect``; empty: there is nothing to send, it has to be built."""
    entries: tuple[Entry, ...] = ()
    """What the archive is built of if the server doesn't find it; empty: it is a file."""
    list_name: bytes = b""
    """The list that has to be there first, without ``.list``; empty: none."""

    @property
    def content_type(self) -> str:
        """To be said: what frameworks say if nobody does, ``text/html``, would be sent on."""
        return "application/zip" if self.entries else "application/octet-stream"


def of_game(game: Game, numbers: Iterable[int] = (), *, hidden_folder: bool = False) -> Answer:
    """A game; of its files only those with *numbers*, if there are any.

    Raises :exc:`LookupError` if one isn't a file of the game.
    """
    wanted = set(numbers)
    if wanted - {file.number for file in game.files}:
        raise LookupError("no file of this game")
    files = [file for file in game.files if not wanted or file.number in wanted]
    if len(files) == 1:
        (file,) = files
        return Answer(filename=file.path.rpartition(b"/")[2], redirect=redirect(LIBRARY, file.path))
    if len(files) == len(game.files) and not hidden_folder:
        return Answer(
            filename=game.name + b".zip",
            redirect=redirect(MOUNT, game.path + b".zip"),
            entries=tuple(Entry(name=f.name, path=f.path, size=f.size) for f in files),
        )
    prefix = HIDDEN if hidden_folder else b""
    entries = [Entry(name=prefix + f.name, path=f.path, size=f.size) for f in files]
    return _listed(game.name + b".zip", [*entries, *_playlist(game.name, entries)])


def of_games(games: Sequence[Game]) -> Answer:
    """Several games in one archive, each under its path in the library."""
    return _listed(
        b"%d games.zip" % len(games),
        [
            Entry(name=file.path, path=file.path, size=file.size)
            for game in games
            for file in game.files
        ],
    )


def _playlist(game: bytes, entries: Sequence[Entry]) -> list[Entry]:
    """The playlist that RomM adds: all .cue files or else all files, unless there is one."""
    if any(entry.name.lower().endswith(b".m3u") for entry in entries):
        return []
    names = [entry.name for entry in entries]
    content = b"\n".join([name for name in names if name.lower().endswith(b".cue")] or names)
    return [Entry(name=game + b".m3u", size=len(content), content=content)]


def _listed(filename: bytes, entries: Sequence[Entry]) -> Answer:
    try:
        text = list_text(entries)
    except ValueError:
        return Answer(filename=filename, entries=tuple(entries))
    # A name out of the content: two requests for the same never write different lists, and
    # nothing of what users type gets into a path.
    name = hashlib.sha256(text).hexdigest()[:32].encode()
    return Answer(
        filename=filename,
        redirect=redirect(MOUNT, LISTS + name + b".zip"),
        entries=tuple(entries),
        list_name=name,
    )


# ---------------------------------------------------------------- the formats


def redirect(place: str, path: bytes) -> str:
    """The value of ``X-Accel-Redirect`` for the file at *path* in *place*."""
    # Bytes, since names needn't be UTF-8; all but letters, digits and _.-~ is encoded.
    return place + quote_from_bytes(path)


def list_text(entries: Iterable[Entry]) -> bytes:
    """The list of *entries*. A name that can't stand in a line raises :exc:`ValueError`."""
    return b"".join(_line(entry) for entry in entries)


def _line(entry: Entry) -> bytes:
    if b"\n" in entry.name or b"\r" in entry.name or entry.name.startswith(b" "):
        raise ValueError(f"{entry.name!r} can't be in a list")
    location = LIBRARY + quote_from_bytes(entry.path)
    if entry.content is not None:
        location = f"/decode?value={quote(base64.b64encode(entry.content), safe='')}"
    # No CRC: it would be that of a file some time ago, or of what is in it.
    return f"- {entry.size} {location} ".encode() + entry.name + b"\n"


def disposition(filename: bytes) -> str:
    """``Content-Disposition`` for a download that is to be called *filename*.

    With the plain form for programs that know no other; control characters, which browsers
    would replace as well, are ``_`` in both, and so is what isn't UTF-8.
    """
    text = "".join(
        c if c.isprintable() and c != "\ufffd" else "_" for c in filename.decode(errors="replace")
    )
    # In the plain form `"` and `\` would have to be escaped, which not everybody undoes, and
    # some decode %XX (RFC 6266, Appendix D).
    plain = "".join(c if c.isascii() and c not in '"\\%' else "_" for c in text)
    value = f'attachment; filename="{plain}"'
    if plain != text:
        value += f"; filename*=UTF-8''{quote(text, safe=_ATTR_CHARS)}"
    return value
