"""The front end's application itself: HTTP on one side, the library on the other.

What it answers is decided in :mod:`tests.e2e.front.answers`. Here is what has to be done for
that: finding the games, writing lists, and building an archive the old way, while sending it,
for the server that hasn't found it in the mount.

Requests, all of them GET or HEAD:

    /api/roms/ID/content/NAME[?file_ids=ID,...][&hidden_folder=true]
    /api/roms/download?rom_ids=ID,...
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Final, Self, cast
from urllib.parse import parse_qs, urlsplit

from tests.e2e.front.answers import (
    LISTS,
    Answer,
    Entry,
    File,
    Game,
    disposition,
    list_text,
    of_game,
    of_games,
)

MISSING: Final = "X-Zipfs"
"""The header by which the server tells that there is no archive. Nobody else may send it."""
_PIECE: Final = 1 << 20
_POLL_SECONDS: Final = 0.02


class Front(ThreadingHTTPServer):
    """The application, listening on 127.0.0.1 at a port of its own.

    *lists* is where it writes lists, and *mount* where it sees whether they have become
    archives, for which it waits *seconds* at most. Both None: the server will find none.
    """

    def __init__(
        self,
        library: Path,
        *,
        mount: Path | None = None,
        lists: Path | None = None,
        seconds: float = 10,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.library = os.fsencode(library)
        self.games = {game.number: game for game in _games(self.library)}
        self.built = 0
        """How many archives it had to build."""
        self._mount = mount
        self._lists = lists
        self._seconds = seconds

    def game(self, path: str | bytes) -> Game:
        """The game at *path* in the library."""
        return next(game for game in self.games.values() if game.path == os.fsencode(path))

    def answer(self, target: str) -> Answer:
        """What to send for the URL *target*. Raises :exc:`LookupError`, :exc:`ValueError`."""
        url = urlsplit(target)
        arguments = {name: values[-1] for name, values in parse_qs(url.query).items()}
        match url.path.split("/"):
            case ["", "api", "roms", "download"]:
                wanted = _numbers(arguments.get("rom_ids", ""))
                if not wanted:
                    raise ValueError("rom_ids is missing")
                return of_games([self.games[number] for number in wanted])
            case ["", "api", "roms", number, "content", _]:
                return of_game(
                    self.games[int(number)],
                    _numbers(arguments.get("file_ids", "")),
                    hidden_folder=arguments.get("hidden_folder") == "true",
                )
        raise LookupError(target)

    def prepare(self, answer: Answer) -> None:
        """See to it that the list is there, and wait a moment for its archive."""
        if not answer.list_name or self._lists is None:
            return
        path = self._lists / os.fsdecode(answer.list_name + b".list")
        if not path.exists():  # its name is its content's checksum
            self._write(path, answer)
        if self._mount is not None:
            archive = self._mount / os.fsdecode(LISTS + answer.list_name + b".zip")
            deadline = time.monotonic() + self._seconds
            while not archive.exists() and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)

    def _write(self, path: Path, answer: Answer) -> None:
        # By rename, so that nobody ever sees half a list.
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            try:
                file.write(list_text(answer.entries))
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.replace(file.name, path)
            except OSError:
                os.unlink(file.name)
                raise

    def handle_error(self, *_: object) -> None:
        pass  # a client that has gone; nothing of it is ours


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word]


def _games(library: bytes) -> Iterator[Game]:
    """The games at roms/*/*, and their files in the order of an archive."""
    number = 0
    for platform in sorted(os.scandir(os.path.join(library, b"roms")), key=lambda e: e.name):
        for found in sorted(os.scandir(platform.path), key=lambda e: e.name):
            path = os.path.relpath(found.path, library)
            paths = [path]
            if found.is_dir():
                paths = [
                    os.path.relpath(os.path.join(parent, name), library)
                    for parent, _, names in os.walk(found.path)
                    for name in names
                ]
            paths.sort(key=lambda file: (os.path.basename(file), file))
            number += 1
            yield Game(
                number=number,
                path=path,
                files=tuple(
                    File(
                        number=1000 * number + index,
                        path=file,
                        name=os.path.relpath(file, path) if found.is_dir() else found.name,
                        size=os.stat(os.path.join(library, file)).st_size,
                    )
                    for index, file in enumerate(paths)
                ),
            )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def front(self) -> Front:
        return cast(Front, self.server)

    def do_GET(self) -> None:
        try:
            answer = self.front.answer(self.path)
        except LookupError:
            self.send_error(404)
            return
        except ValueError as error:
            self.send_error(400, str(error).encode("ascii", "backslashreplace").decode())
            return
        if self.headers.get(MISSING) or not answer.redirect:
            self._build(answer)
        else:
            self._redirect(answer)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _redirect(self, answer: Answer) -> None:
        self.front.prepare(answer)
        self.send_response(200)
        self._say(answer)
        self.send_header("X-Accel-Redirect", answer.redirect)
        # What frameworks add by themselves, of what they take for the page. The file's own has
        # to win.
        self.send_header("ETag", '"of the application"')
        self.send_header("Last-Modified", "Thu, 01 Jan 1970 00:00:01 GMT")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _build(self, answer: Answer) -> None:
        self.front.built += 1
        self.send_response(200)
        self._say(answer)
        # It will be another archive the next time: nothing to resume, nothing to keep.
        self.send_header("Accept-Ranges", "none")
        self.send_header("Cache-Control", "no-store")
        # HTTP/1.0 has no chunks, and no other end than that of the connection.
        chunked = self.request_version != "HTTP/1.0"
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.command == "HEAD":
            return
        # Should this fail, the last chunk doesn't come, and everybody sees that it is cut.
        self.close_connection = True
        with _Stream(self.wfile, chunked=chunked) as stream:
            archive = zipfile.ZipFile(cast(IO[bytes], stream), "w")
            for entry in answer.entries:
                _add(archive, entry, self.front.library)
            archive.close()

    def _say(self, answer: Answer) -> None:
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Disposition", disposition(answer.filename))

    def send_response(self, code: int, message: str | None = None) -> None:
        # Without Date and Server, which are the web server's to say.
        self.send_response_only(code, message)

    def log_message(self, *_: object) -> None:
        pass


def _add(archive: zipfile.ZipFile, entry: Entry, library: bytes) -> None:
    info = zipfile.ZipInfo(entry.name.decode(errors="replace"))
    with archive.open(info, "w", force_zip64=entry.size >= 1 << 31) as member:
        if entry.content is not None:
            member.write(entry.content)
            return
        with open(os.path.join(library, entry.path), "rb") as file:
            while piece := file.read(_PIECE):
                member.write(piece)


class _Stream:
    """An archive on its way to the client; no seeking, so there are no sizes in its headers."""

    def __init__(self, output: object, *, chunked: bool) -> None:
        self._output: IO[bytes] | None = cast(IO[bytes], output)
        self._chunked = chunked

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        output, self._output = self._output, None
        if output is not None and kind is None and self._chunked:
            output.write(b"0\r\n\r\n")  # the last chunk (RFC 9112, 7.1)

    def write(self, data: bytes) -> int:
        # After an exception nothing more: a ZipFile that is thrown away completes its archive.
        if data and self._output is not None:
            self._output.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        return len(data)

    def flush(self) -> None:
        pass


@contextlib.contextmanager
def serving(front: Front) -> Iterator[Front]:
    """Have *front* answer until the block ends."""
    thread = threading.Thread(target=front.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield front
    finally:
        front.shutdown()
        thread.join()
        front.server_close()
