"""What clients do over HTTP in `make endure`, each answer compared with what is right.

An answer may be 404, or break off before its end, if something was done to the game a short while
ago (:meth:`bench.endure.library.Shelf.is_excused`); it may never be something else.
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
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import quote, unquote

from bench.endure.day import WrongError
from bench.endure.library import EXCUSED, HOMEBREW, MIB, Shelf
from bench.endure.oracle import Oracle, Sink
from bench.endure.programs import Programs
from bench.synthetic import drop_cache
from bench.web import ADDRESS, Server

SECONDS: Final = 60.0
"""Without a byte: then it is a failure."""
RANGE: Final = 64 << 10
FORGOTTEN: Final = 0.5
"""How many archives the kernel has forgotten when they are asked for: a library is larger than
memory."""
HANG: Final = (15.0, 45.0)
"""Seconds for which a client that hangs takes nothing."""
PREFIX: Final = "mount/"


class Visits:
    """Clients of *server*, whose root has the mount in `mount`."""

    def __init__(self, server: Server, shelf: Shelf, oracle: Oracle, programs: Programs) -> None:
        self.received = 0
        self._server = server
        self._shelf = shelf
        self._oracle = oracle
        self._programs = programs
        self._mount = programs.mountpoint
        self._buffers = threading.local()

    # -- Downloads ---------------------------------------------------------------

    def whole(self, rng: random.Random, count: int) -> int:
        """Whole downloads."""

        def one(archive: str) -> bool:
            self._forget(rng, archive)
            return self.fetch(archive)

        return self._some(rng, count, one)

    def fetch(self, archive: str) -> bool:
        """Download *archive* and compare; False if it wasn't there, and may."""
        with self._asked(archive) as answer:
            if answer is not None:
                sink = self._oracle.sink(archive, answer.headers["ETag"])
                self._take_all(archive, answer, sink)
            return answer is not None

    def resumed(self, rng: random.Random, count: int) -> int:
        """Downloads that break off and go on later, at the byte where they were."""

        def one(archive: str) -> bool:
            self._forget(rng, archive)
            with self._asked(archive) as answer:
                if answer is None:
                    return False
                etag = answer.headers["ETag"]
                sink = self._oracle.sink(archive, etag)
                self._take(answer, sink, rng.randrange(int(answer.headers["Content-Length"])))
            headers = {"Range": f"bytes={sink.received}-", "If-Range": etag}
            with self._asked(archive, headers) as answer:
                if answer is None:
                    sink.drop()
                elif answer.status == 206:
                    self._take_all(archive, answer, sink)
                else:  # another version, whole
                    sink.drop()
                    sink = self._oracle.sink(archive, answer.headers["ETag"])
                    self._take_all(archive, answer, sink)
            return True

        return self._some(rng, count, one)

    def broken_off(self, rng: random.Random, count: int) -> int:
        """Downloads that are broken off and left."""

        def one(archive: str) -> bool:
            self._forget(rng, archive)
            with self._asked(archive) as answer:
                if answer is not None:
                    sink = self._oracle.sink(archive, answer.headers["ETag"])
                    size = int(answer.headers["Content-Length"])
                    self._take(answer, sink, rng.randrange(size))
                    sink.drop()
            return answer is not None

        return self._some(rng, count, one)

    def parallel(self, rng: random.Random, count: int) -> int:
        """Downloads by aria2c, over sixteen connections."""
        for _ in range(count):
            archive = rng.choice(self._shelf.stable("psx", "real"))
            self._forget(rng, archive)
            folder = self._oracle.draft().with_suffix("")
            folder.mkdir()
            try:
                done = self._programs.run(
                    "aria2c", "-q", "-x16", "-s16", "-k1M", "--file-allocation=none",
                    "--max-tries=1", "-d", str(folder), "-o", "it.zip", self._url(archive),
                )  # fmt: skip
                if done == 0:
                    self._oracle.check_file(archive, folder / "it.zip")
                    self.received += (folder / "it.zip").stat().st_size
                elif not self._shelf.is_excused(archive) and not self._programs.ending:
                    raise WrongError(f"{archive}: aria2c ended with status {done}")
            finally:
                shutil.rmtree(folder)
        return count

    def under_change(self, rng: random.Random, count: int) -> int:
        """Downloads of a game that is rewritten in place meanwhile: the old bytes, or a break."""
        done = 0
        for archive in self._tries(lambda: rng.choice(self._shelf.changing(large=True))):
            with contextlib.suppress(OSError):
                drop_cache(self._mount / archive)
            with self._asked(archive) as answer:
                if answer is not None:
                    sink = self._oracle.sink(archive, answer.headers["ETag"])
                    self._take(answer, sink, RANGE)
                    with self._shelf.lock:
                        if archive in self._shelf.changing(large=True):
                            self._shelf.rewrite(rng, archive)
                    self._take_all(archive, answer, sink)
                    done += 1
            if done == count:
                break
        return done

    def hang(self, rng: random.Random, count: int) -> int:
        """Clients that take a little, hang for a while, and vanish without a word."""
        for _ in range(count):
            archive = rng.choice(self._shelf.stable("psx", "large"))
            self._forget(rng, archive)
            with socket.socket() as client:
                # Before connecting: the window is told then.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
                client.settimeout(SECONDS)
                client.connect((ADDRESS, self._server.port))
                path = quote(PREFIX + archive)
                client.sendall(f"GET /{path} HTTP/1.1\r\nHost: {ADDRESS}\r\n\r\n".encode())
                self.received += len(client.recv(RANGE))
                self._programs.quiet.wait(rng.uniform(*HANG))
                if rng.random() < 0.5:  # RST instead of FIN
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return count

    # -- Small things ------------------------------------------------------------

    def ranges(self, rng: random.Random, count: int) -> int:
        """Small ranges of one archive, over one connection."""
        archive = self._shelf.any(rng)
        self._forget(rng, archive)
        connection = self._connect()
        done = 0
        size = 0
        try:
            while done < count:
                first = rng.randrange(size) if size else 0
                last = first + rng.randint(1, RANGE) - 1
                answer = self._ask(connection, archive, {"Range": f"bytes={first}-{last}"})
                done += 1
                data = self._read(archive, answer)
                if answer.status == 404 and self._excuse(archive):
                    break
                if answer.status == 416 and self._shelf.is_excused(archive):
                    size = 0  # a smaller version
                    continue
                if answer.status != 206:
                    raise WrongError(f"{archive}: {answer.status} to a range")
                if data is None:
                    break
                etag, size = answer.headers["ETag"], _size(answer.headers["Content-Range"])
                if not self._oracle.compare(archive, etag, first, data):
                    self.fetch(archive)
        finally:
            connection.close()
        return done

    def checks(self, rng: random.Random, count: int) -> int:
        """Clients that ask whether what they have is still right."""
        connection = self._connect()
        try:
            for _ in range(count):
                archive = self._shelf.any(rng)
                answer = self._ask(connection, archive, method="HEAD")
                answer.read()
                if answer.status == 404:
                    self._excuse(archive)
                    continue
                etag = answer.headers["ETag"]
                again = self._ask(connection, archive, {"If-None-Match": etag})
                if again.status != 304 and not self._shelf.is_excused(archive):
                    raise WrongError(f"{archive}: {again.status} instead of 304")
                if again.status == 200:
                    connection.close()
                    connection = self._connect()
                else:
                    again.read()
        finally:
            connection.close()
        return count

    def pages(self, rng: random.Random, count: int) -> int:
        """Pages of folders, as nginx makes them."""
        stable = self._shelf.stable()
        folders = sorted({archive.rpartition("/")[0] for archive in stable} | {HOMEBREW})
        connection = self._connect()
        try:
            for _ in range(count):
                folder = rng.choice(folders)
                connection.request("GET", f"/{quote(PREFIX + folder)}/")
                answer = connection.getresponse()
                text = answer.read().decode()
                self.received += len(text)
                if answer.status != 200:
                    raise WrongError(f"{folder}/: {answer.status}")
                shown = {unquote(link) for link in re.findall(r'<a href="([^"]+)"', text)}
                for archive in stable:
                    where, _, name = archive.rpartition("/")
                    if where == folder and name not in shown:
                        self._excuse(archive, "a page without")
        finally:
            connection.close()
        return count

    def asked_at_once(self, archive: str) -> None:
        """Ask for an archive whose game was changed a moment ago."""
        with self._asked(archive) as answer:
            if answer is not None:
                self._take_all(archive, answer, self._oracle.sink(archive, answer.headers["ETag"]))

    # -- How it is done ----------------------------------------------------------

    def _some(self, rng: random.Random, count: int, one: Callable[[str], bool]) -> int:
        """Do *one* to so many archives that are there; how many were."""
        done = 0
        for archive in self._tries(lambda: self._shelf.any(rng)):
            done += one(archive)
            if done == count:
                break
        return done

    def _tries(self, choose: Callable[[], str]) -> Iterator[str]:
        """Archives, as long as there is time; a short rest after each that isn't there."""
        until = time.monotonic() + EXCUSED
        while time.monotonic() < until and not self._programs.ending:
            yield choose()
            time.sleep(0.05)

    def _url(self, archive: str) -> str:
        return self._server.url_of(PREFIX + archive)

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(ADDRESS, self._server.port, timeout=SECONDS)

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        archive: str,
        headers: dict[str, str] | None = None,
        method: str = "GET",
    ) -> http.client.HTTPResponse:
        connection.request(method, f"/{quote(PREFIX + archive)}", headers=headers or {})
        return connection.getresponse()

    @contextlib.contextmanager
    def _asked(
        self, archive: str, headers: dict[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse | None]:
        """The answer, its body still to be read; None: not there, and excused."""
        connection = self._connect()
        try:
            answer = self._ask(connection, archive, headers)
            if answer.status == 404:
                self._excuse(archive)
                yield None
            elif answer.status == 416 and self._shelf.is_excused(archive):
                yield None
            elif answer.status not in (200, 206):
                raise WrongError(f"{archive}: {answer.status} {answer.reason}")
            else:
                yield answer
        finally:
            connection.close()

    def _excuse(self, archive: str, what: str = "404 for") -> bool:
        """Raise :exc:`WrongError` unless *archive* may be missing."""
        if not self._shelf.is_excused(archive):
            raise WrongError(f"{what} {archive}, to which nothing was done")
        self._oracle.count("404: not sealed yet, or gone")
        return True

    def _forget(self, rng: random.Random, archive: str) -> None:
        if rng.random() < FORGOTTEN:
            with contextlib.suppress(OSError):
                drop_cache(self._mount / archive)

    def _buffer(self) -> memoryview:
        if not hasattr(self._buffers, "view"):
            self._buffers.view = memoryview(bytearray(MIB))
        view: memoryview = self._buffers.view
        return view

    def _take(self, answer: http.client.HTTPResponse, sink: Sink, count: int) -> None:
        """At most *count* bytes of the body, less if it breaks off."""
        buffer = self._buffer()
        while count > 0:
            try:
                got = answer.readinto(buffer[: min(count, MIB)])
            except ConnectionResetError:
                return
            if not got:
                return
            sink.add(buffer[:got])
            self.received += got
            count -= got

    def _take_all(self, archive: str, answer: http.client.HTTPResponse, sink: Sink) -> bool:
        """The rest of the body; compares it. False if it broke off, and may."""
        size = int(answer.headers["Content-Length"])
        if answer.status == 206:
            size = _size(answer.headers["Content-Range"])
        self._take(answer, sink, size - sink.received)
        if sink.received < size:
            sink.drop()
            self._oracle.count("answers that broke off, after a change")
            if not self._shelf.is_excused(archive):
                raise WrongError(f"{archive} broke off at {sink.received} of {size} bytes")
            return False
        sink.finish()
        return True

    def _read(self, archive: str, answer: http.client.HTTPResponse) -> bytes | None:
        """A small body; None if it broke off, and may."""
        try:
            data = answer.read()
        except (http.client.IncompleteRead, ConnectionResetError):
            if not self._shelf.is_excused(archive):
                raise
            self._oracle.count("answers that broke off, after a change")
            return None
        self.received += len(data)
        return data


def _size(content_range: str) -> int:
    """The size of the whole, as `Content-Range: bytes 0-9/1234` tells it (RFC 9110, 14.4)."""
    return int(content_range.rpartition("/")[2])
