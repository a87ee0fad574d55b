"""Programs that read ZIP archives, each asked whether an archive is whole."""

from __future__ import annotations

import os
import threading
import zipfile
from pathlib import Path

from tests.e2e import curl
from tests.e2e.expected import Expected, sha256_of
from tests.e2e.programs import Argument, environment, run
from tests.strictzip import read_archive


def read_from_pipe(
    url: str, *argv: Argument, seconds: float = 60, cwd: Path | None = None, tz: str = "UTC"
) -> bytes:
    """What a program says to the download in its standard input."""
    outlet, inlet = os.pipe()
    with curl.streaming(url) as download:
        feeder = threading.Thread(target=_feed, args=(download, inlet))
        feeder.start()
        try:
            with open(outlet, "rb") as stdin:
                done = run(*argv, stdin=stdin, seconds=seconds, cwd=cwd, env=environment(TZ=tz))
        finally:
            feeder.join()  # curl's time is limited
        assert download.wait() == 0
    return done.stdout


def _feed(download: curl.Stream, inlet: int) -> None:
    with open(inlet, "wb", buffering=0) as pipe:
        wanted = True
        while piece := download.read(curl.PIECE):
            try:
                wanted = wanted and bool(pipe.write(piece))
            except BrokenPipeError:
                wanted = False  # many readers go once the directory begins


def check_unzip(archive: Path, expected: Expected, *, seconds: float = 60) -> None:
    said = run("unzip", "-t", archive, seconds=seconds).stdout.decode()
    assert said.count(" OK\n") == len(expected.members)
    assert "No errors detected in compressed data" in said


def check_7z(archive: Path, expected: Expected, *, seconds: float = 60) -> None:
    said = run("7z", "t", "-bd", archive, seconds=seconds).stdout.decode()
    assert "Everything is Ok" in said
    assert f"Files: {len(expected.members)}\n" in said
    assert "Warning" not in said


def check_zipfile(archive: Path, expected: Expected) -> None:
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        assert [(info.filename, info.file_size, info.CRC) for info in opened.infolist()] == [
            (member.name, member.size, member.crc32) for member in expected.members
        ]


def check_strictly(archive: Path, expected: Expected) -> None:
    with archive.open("rb") as stream:
        entries = read_archive(stream)
    assert [(entry.name, entry.size, entry.mtime, entry.crc32) for entry in entries] == [
        (member.name, member.size, member.mtime, member.crc32) for member in expected.members
    ]


def check_bsdtar_from_pipe(url: str, expected: Expected, *, seconds: float = 60) -> None:
    said = read_from_pipe(url, "bsdtar", "-tf", "-", seconds=seconds)
    assert said.decode().splitlines() == [member.name for member in expected.members]


def check_java_from_pipe(
    url: str, expected: Expected, classes: Path, *, seconds: float = 60
) -> None:
    said = read_from_pipe(
        url, "java", "-XX:-UsePerfData", "-Xmx256m", "-cp", classes, "ReadZip", seconds=seconds
    )
    assert said.decode().split("\0")[:-1] == [
        f"{member.size} {member.mtime} {member.name}" for member in expected.members
    ]


def check_all_on_disk(archive: Path, expected: Expected, *, seconds: float = 60) -> None:
    """All readers that need a file to seek in."""
    check_strictly(archive, expected)
    check_unzip(archive, expected, seconds=seconds)
    check_7z(archive, expected, seconds=seconds)
    check_zipfile(archive, expected)


def files_of(folder: Path) -> dict[str, tuple[int, str]]:
    """Time in whole seconds and SHA-256 of each file, by path."""
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_mtime_ns // 1_000_000_000,
            sha256_of(path),
        )
        for path in folder.rglob("*")
        if not path.is_dir()
    }
