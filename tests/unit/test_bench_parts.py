"""What `make bench` measures with: the end of a child, a first byte, what a process has used."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from bench import BenchError
from bench.mount import mounts_below
from bench.process import start
from bench.session import Stop, StoppedError, temporary_folder
from bench.speed.load import first_byte
from bench.usage import Usage, peak_memory


def test_a_program_that_fails_is_told_by_its_last_words(stop: Stop) -> None:
    assert stop.run("echo", "words") == "words\n"
    with pytest.raises(BenchError, match="sh ended with status 3: no luck"):
        stop.run("sh", "-c", "echo no luck >&2; exit 3")


def test_a_signal_ends_what_runs(stop: Stop) -> None:
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(StoppedError) as stopped:
        stop.run("sleep", "60")
    assert stopped.value.number == signal.SIGTERM


def test_a_temporary_folder_goes_with_all_in_it(tmp_path: Path) -> None:
    with temporary_folder("zipfs-bench-test-") as folder:
        (folder / "sub").mkdir()
        (folder / "sub/file").write_text("x")
        assert mounts_below(folder) == []
    assert not folder.exists()
    assert Path("/proc") in mounts_below(Path("/proc"))


def test_usage_is_that_of_a_session() -> None:
    script = "head -c 10000000 /dev/zero | tail -c 1; echo; sleep 60"
    process = start(["sh", "-c", script], stdout=subprocess.PIPE)
    try:
        assert process.stdout
        assert process.stdout.readline()
        used = Usage.of(process.pid)
        assert peak_memory(process.pid) > 100_000
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    # Those of children that have ended are among their parent's.
    assert 20_000_000 <= used.read < 21_000_000
    assert used.cpu_seconds >= 0
    assert Usage.of(None) == Usage()


@pytest.mark.parametrize("status", [200, 206])
def test_the_first_byte_is_that_of_the_content(stop: Stop, status: int) -> None:
    with _serving(f"HTTP/1.1 {status} OK\r\nX: y\r\n\r\n", "content") as (url, asked):
        seconds = first_byte(stop, f"{url}/a?b", 5 if status == 206 else 0)
        assert seconds > 0.2  # the header came at once
    assert asked[0].startswith("GET /a?b HTTP/1.1\r\n")
    assert ("Range: bytes=5-\r\n" in asked[0]) == (status == 206)


def test_a_server_that_does_not_resume_is_seen(stop: Stop) -> None:
    with (
        _serving("HTTP/1.1 200 OK\r\n\r\n", "content") as (url, _),
        pytest.raises(BenchError, match="status 200"),
    ):
        first_byte(stop, f"{url}/", 5)


def test_an_answer_without_content_is_seen(stop: Stop) -> None:
    with (
        _serving("HTTP/1.1 200 OK\r\n\r\n", "") as (url, _),
        pytest.raises(BenchError, match="gave no content"),
    ):
        first_byte(stop, f"{url}/")


class _serving:  # noqa: N801  # a context manager, and used like a function
    """A server that answers one request: the header at once, the content later."""

    def __init__(self, header: str, content: str) -> None:
        self._parts = header.encode(), content.encode()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._asked: list[str] = []
        self._thread = threading.Thread(target=self._answer)

    def __enter__(self) -> tuple[str, list[str]]:
        self._thread.start()
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}", self._asked

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._socket.close()

    def _answer(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            self._asked.append(connection.recv(65536).decode())
            connection.sendall(self._parts[0])
            time.sleep(0.25)
            connection.sendall(self._parts[1])
