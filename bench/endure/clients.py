"""What clients do over HTTP in `make endure`, each byte compared with what is right.

An answer may be 404, or break off before its end, if something was done to the game a short while
ago (:meth:`.library.Library.is_excused`); it may never be something else.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import re
import shutil
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from bench.endure.library import EXCUSED, HOMEBREW, MIB, Library
from bench.endure.programs import Programs
from bench.synthetic import drop_cache
from bench.web import ADDRESS, Server
from tests.model.versions import ModelError, Version, check

SECONDS: Final = 60.0
"""Without a byte: then it is a failure."""
RANGE: Final = 64 << 10
FORGOTTEN: Final = 0.5
"""Share of the archives whose pages the kernel drops before they are asked for: a library is
larger than memory."""
HANG: Final = (15.0, 45.0)
"""Seconds for which a client that hangs takes nothing."""
PREFIX: Final = "mount/"
MISSING: Final = "404: not sealed yet, or gone"
BROKEN: Final = "answers that broke off, after a change"

Answer = http.client.HTTPResponse


class Clients:
    """Clients of *server*, whose root has the mount in `mount`; *drafts* is for downloads."""

    def __init__(self, server: Server, library: Library, programs: Programs, drafts: Path) -> None:
        self.received = 0
        """Bytes of bodies."""
        self.counts: Counter[str] = Counter()
        """What was answered, and how often."""
        self._lock = threading.Lock()
        self._server = server
        self._library = library
        self._programs = programs
        self._drafts = drafts

    def count(self, what: str, received: int = 0) -> None:
        with self._lock:
            self.counts[what] += 1
            self.received += received

    # -- Downloads ---------------------------------------------------------------

    def whole(self, rng: random.Random, count: int) -> int:
        """Whole downloads."""
        return self._some(rng, count, self.fetch)

    def fetch(self, path: str) -> bool:
        """Download the archive at *path* and compare; False if it wasn't there, and may."""
        with self._asked(path) as answer:
            if answer is not None:
                self._take_rest(path, answer, self._version(path, answer))
            return answer is not None

    def resumed(self, rng: random.Random, count: int) -> int:
        """Downloads that break off and go on later, at the byte where they were."""

        def one(path: str) -> bool:
            with self._asked(path) as answer:
                if answer is None:
                    return False
                etag, version = answer.headers["ETag"], self._version(path, answer)
                done = self._take(path, answer, version, 0, rng.randrange(version.size))
            with self._asked(path, {"Range": f"bytes={done}-", "If-Range": etag}) as answer:
                if answer is not None and answer.status == 206:
                    check(answer.headers["ETag"] == etag, f"{path}: a range of another version")
                    self._take_rest(path, answer, version, done)
                elif answer is not None:  # another version, whole
                    self._take_rest(path, answer, self._version(path, answer))
            return True

        return self._some(rng, count, one)

    def broken_off(self, rng: random.Random, count: int) -> int:
        """Downloads that are broken off and left."""

        def one(path: str) -> bool:
            with self._asked(path) as answer:
                if answer is not None:
                    version = self._version(path, answer)
                    self._take(path, answer, version, 0, rng.randrange(version.size))
            return answer is not None

        return self._some(rng, count, one)

    def parallel(self, rng: random.Random, count: int) -> int:
        """Downloads by aria2c, over sixteen connections."""
        for _ in range(count):
            path = rng.choice(self._library.stable("psx", "real"))
            self._forget(rng, path)
            folder = self._drafts / "parallel"
            folder.mkdir(parents=True)
            try:
                status = self._programs.run(
                    "aria2c", "-q", "-x16", "-s16", "-k1M", "--file-allocation=none",
                    "--max-tries=1", "-d", str(folder), "-o", "it.zip",
                    self._server.url_of(PREFIX + path),
                )  # fmt: skip
                if status == 0 and not self._programs.ending:
                    self._library.check_file(path, folder / "it.zip")
                    self.count("bodies compared", (folder / "it.zip").stat().st_size)
                elif not self._library.is_excused(path) and not self._programs.ending:
                    raise ModelError(f"{path}: aria2c ended with status {status}")
            finally:
                shutil.rmtree(folder)
        return count

    def under_change(self, rng: random.Random, count: int) -> int:
        """Downloads of a game that is rewritten in place meanwhile: the old bytes, or a break."""

        def one(path: str) -> bool:
            self._forget(rng, path, 1.0)
            with self._asked(path) as answer:
                if answer is not None:
                    version = self._version(path, answer)
                    done = self._take(path, answer, version, 0, RANGE)
                    self._library.change_large(rng, path)
                    self._take_rest(path, answer, version, done)
            return answer is not None

        return self._some(rng, count, one, self._library.large())

    def hang(self, rng: random.Random, count: int) -> int:
        """Clients that take a little, hang for a while, and vanish without a word."""
        for _ in range(count):
            path = rng.choice(self._library.stable("psx", "large"))
            self._forget(rng, path)
            with socket.socket() as client:
                # Before connecting: the window is announced then.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
                client.settimeout(SECONDS)
                client.connect((ADDRESS, self._server.port))
                lines = f"GET /{quote(PREFIX + path)} HTTP/1.1", f"Host: {ADDRESS}", "", ""
                client.sendall("\r\n".join(lines).encode())
                self.count("clients that hung", len(client.recv(RANGE)))
                self._programs.quiet.wait(rng.uniform(*HANG))
                if rng.random() < 0.5:  # RST instead of FIN
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return count

    # -- Small things ------------------------------------------------------------

    def ranges(self, rng: random.Random, count: int) -> int:
        """Small ranges of one archive, over one connection."""
        path = self._library.any(rng)
        self._forget(rng, path)
        done = size = 0
        with contextlib.closing(self._connect()) as connection:
            while done < count:
                first = rng.randrange(size) if size else 0
                last = first + rng.randint(1, RANGE) - 1
                answer = self._ask(connection, path, {"Range": f"bytes={first}-{last}"})
                done += 1
                if answer.status == 416 and self._library.is_excused(path):
                    answer.read()
                    size = 0  # a smaller version
                    continue
                if answer.status == 404:
                    self.excuse(path, MISSING)
                    break
                check(answer.status == 206, f"{path}: {answer.status} to a range")
                version = self._version(path, answer)
                size = version.size
                length = min(last + 1, size) - first
                if self._take(path, answer, version, first, length) < first + length:
                    self.excuse(path, BROKEN)
                    break
                self.count("ranges compared")
        return done

    def checks(self, rng: random.Random, count: int) -> int:
        """Clients that ask whether what they have is still right."""
        with contextlib.closing(self._connect()) as connection:
            for _ in range(count):
                path = self._library.any(rng)
                answer = self._ask(connection, path, method="HEAD")
                answer.read()
                if answer.status == 404:
                    self.excuse(path, MISSING)
                    continue
                self._version(path, answer)
                again = self._ask(connection, path, {"If-None-Match": answer.headers["ETag"]})
                if again.status == 304:
                    again.read()
                else:
                    self.excuse(path, f"{again.status} instead of 304, after a change")
                    connection.close()  # with the body; the next request connects anew
        return count

    def pages(self, rng: random.Random, count: int) -> int:
        """Pages of folders, as nginx makes them."""
        stable = self._library.stable()
        folders = sorted({path.rpartition("/")[0] for path in stable} | {HOMEBREW})
        with contextlib.closing(self._connect()) as connection:
            for _ in range(count):
                folder = rng.choice(folders)
                answer = self._ask(connection, f"{folder}/")
                text = answer.read().decode()
                check(answer.status == 200, f"{folder}/: {answer.status}")
                self.count("pages", len(text))
                shown = {unquote(link) for link in re.findall(r'<a href="([^"]+)"', text)}
                for path in stable:
                    where, _, name = path.rpartition("/")
                    if where == folder and name not in shown:
                        self.excuse(path, "a page without it, after a change")
        return count

    # -- How it is done ----------------------------------------------------------

    def excuse(self, path: str, what: str) -> None:
        """Count *what* was seen of *path*; raises :exc:`ModelError` if that may not be now."""
        check(self._library.is_excused(path), f"{path}, to which nothing was done: {what}")
        self.count(what)

    def _some(
        self,
        rng: random.Random,
        count: int,
        one: Callable[[str], bool],
        paths: list[str] | None = None,
    ) -> int:
        """Do *one* to so many archives that are there, as long as there is time; how many were."""
        done = 0
        until = time.monotonic() + EXCUSED
        while done < count and time.monotonic() < until and not self._programs.ending:
            path = rng.choice(paths) if paths else self._library.any(rng)
            self._forget(rng, path)
            done += one(path)
            time.sleep(0.05)
        return done

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(ADDRESS, self._server.port, timeout=SECONDS)

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        path: str,
        headers: dict[str, str] | None = None,
        method: str = "GET",
    ) -> Answer:
        connection.request(method, f"/{quote(PREFIX + path)}", headers=headers or {})
        return connection.getresponse()

    @contextlib.contextmanager
    def _asked(self, path: str, headers: dict[str, str] | None = None) -> Iterator[Answer | None]:
        """The answer, its body still to be read; None: not there, and excused."""
        with contextlib.closing(self._connect()) as connection:
            answer = self._ask(connection, path, headers)
            if answer.status == 404:
                self.excuse(path, MISSING)
                yield None
            elif answer.status == 416:
                self.excuse(path, "416: a smaller version")
                yield None
            else:
                check(answer.status in (200, 206), f"{path}: {answer.status} {answer.reason}")
                yield answer

    def _version(self, path: str, answer: Answer) -> Version:
        return self._library.identify_http(path, answer.headers["ETag"])

    def _forget(self, rng: random.Random, path: str, share: float = FORGOTTEN) -> None:
        if rng.random() < share:
            with contextlib.suppress(OSError):
                drop_cache(self._programs.mountpoint / path)

    def _take(self, path: str, answer: Answer, version: Version, at: int, count: int) -> int:
        """Compare *count* bytes of the body, which begins *at*, fewer if it breaks off; the end."""
        end = at + count
        while at < end:
            try:
                data = answer.read(min(end - at, MIB))
            except (http.client.IncompleteRead, ConnectionResetError):
                break
            if not data:
                break
            check(data == version.read(at, len(data)), f"WRONG BYTES: {path} at {at}: {version}")
            self.count("pieces compared", len(data))
            at += len(data)
        return at

    def _take_rest(self, path: str, answer: Answer, version: Version, at: int = 0) -> None:
        """Compare the rest of the body; it may break off after a change."""
        if self._take(path, answer, version, at, version.size - at) < version.size:
            self.excuse(path, BROKEN)
        else:
            self.count("bodies compared")
