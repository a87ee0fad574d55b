"""The readers that are there anyway, on all cases but the giants; and the gate itself.

``make readers`` runs all readers on all cases.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.readers.corpus import CASES, Case, File
from tests.readers.gate import (
    SAMPLED,
    Found,
    Reader,
    WrongError,
    check,
    compare,
    of_folder,
    of_lines,
)
from tests.readers.native import READERS as NATIVE
from tests.readers.programs import FailedError, run
from tests.readers.registry import READERS
from tests.readers.shelf import Volume, shelved

_LIGHT_READERS: Final = [reader for reader in READERS if not reader.heavy]
_LIGHT_CASES: Final = [case for case in CASES if not case.heavy]


# ------------------------------------------------------------------------ readers and cases


@pytest.fixture(scope="module")
def volumes(fuse: None, request: pytest.FixtureRequest) -> Iterator[Mapping[str, Volume]]:
    program = None
    if os.geteuid() == 0:
        program = request.getfixturevalue("public_program")
    with shelved(_LIGHT_CASES, program=program) as volumes:
        yield {volume.case.name: volume for volume in volumes}


@pytest.mark.parametrize("case", _LIGHT_CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("reader", _LIGHT_READERS, ids=lambda reader: reader.name)
def test_reader(reader: Reader, case: Case, volumes: Mapping[str, Volume], place: Path) -> None:
    volume = volumes[case.name]
    try:
        check(reader, case, volume.archive, place, volume.source)
    except Exception as error:
        if reason := reader.limits.get(case.name):
            pytest.xfail(f"{reason}: {error}")
        raise


# ------------------------------------------------------------------------ the gate itself

CASE: Final = Case("small", lambda: {b"a": File(b"one"), b"d/b": File(b"two"), b"e": File()})
_READERS: Final = {reader.name: reader for reader in NATIVE}


def write(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


RIGHT: Final = {"a": b"one", "d/b": b"two", "e": b""}
_WRONG: Final = {
    "another byte": {**RIGHT, "a": b"onE"},
    "shorter": {**RIGHT, "a": b"on"},
    "empty": {**RIGHT, "a": b""},
    "not empty": {**RIGHT, "e": b"e"},
    "swapped": {**RIGHT, "a": b"two", "d/b": b"one"},
    "one missing": {"a": b"one", "e": b""},
    "one too many": {**RIGHT, "f": b""},
    "another name": {"a": b"one", "d/B": b"two", "e": b""},
    "another folder": {"a": b"one", "b": b"two", "e": b""},
}
_WHOLE: Final = [
    reader for reader in NATIVE if not reader.heavy and reader.sizes_only_above is None
    and not reader.first_only and reader.name != "strict checker"
]  # fmt: skip


@pytest.mark.parametrize("reader", _WHOLE, ids=lambda reader: reader.name)
@pytest.mark.parametrize("wrong", _WRONG)
def test_notices(reader: Reader, wrong: str, place: Path) -> None:
    archive = write(place / "wrong.zip", _WRONG[wrong])
    for number, files in enumerate((RIGHT, _WRONG[wrong])):
        folder = place / f"{number}"
        folder.mkdir()
        archive = write(place / f"{number}.zip", files)
        if files is RIGHT:
            assert check(reader, CASE, archive, folder)
        else:
            with pytest.raises(WrongError):
                check(reader, CASE, archive, folder)


@pytest.mark.parametrize("reader", _WHOLE, ids=lambda reader: reader.name)
def test_notices_damage(reader: Reader, place: Path) -> None:
    """A byte of the data that isn't that of the checksum: the reader itself complains."""
    archive = write(place / "archive.zip", RIGHT)
    archive.write_bytes(archive.read_bytes().replace(b"two", b"twO"))
    folder = place / "folder"
    folder.mkdir()
    with pytest.raises((WrongError, FailedError, zipfile.BadZipFile)):
        check(reader, CASE, archive, folder)


def test_notices_damaged_headers(place: Path) -> None:
    """What lists only looks at the structure."""
    archive = write(place / "archive.zip", RIGHT)
    assert not check(_READERS["Info-ZIP zipinfo -v"], CASE, archive, place)
    archive.write_bytes(b"junk" + archive.read_bytes())
    with pytest.raises(FailedError):
        check(_READERS["Info-ZIP zipinfo -v"], CASE, archive, place)


def test_content_may_be_left_out_only_where_announced() -> None:
    wanted = {b"small": Found(3, "ab"), b"large": Found(3000, "cd")}
    found = {b"small": Found(3, "ab"), b"large": Found(3000, "")}

    def reader(limit: int | None) -> Reader:
        return Reader("", str, lambda *_: {}, sizes_only_above=limit)

    assert not compare(reader(2999), wanted, found)
    assert compare(reader(3000), wanted, wanted)
    for limit in (None, 3000):
        with pytest.raises(WrongError):
            compare(reader(limit), wanted, found)
    for entry in (Found(2999, ""), Found(3000, "ce")):
        with pytest.raises(WrongError):
            compare(reader(2999), wanted, {**found, b"large": entry})


def test_who_samples_reads_one_in_a_hundred() -> None:
    reader = Reader("one that samples", str, lambda _archive, _place: {}, samples=True)
    wanted = {b"%d" % n: Found(n, f"sha256 of {n}") for n in range(SAMPLED + 1)}
    listed = {name: entry._replace(sha256="") for name, entry in wanted.items()}
    some = dict(list(wanted.items())[::100])
    assert not compare(reader, wanted, listed | some)
    assert compare(reader, wanted, wanted) is False  # never said to be all
    few = dict(list(some.items())[2:])
    wrong = some | {b"100": Found(100, "of another")}
    size = {b"101": Found(100, "")}
    for found in (listed, listed | few, listed | wrong, listed | some | size):
        with pytest.raises(WrongError):
            compare(reader, wanted, found)
    small = {name: wanted[name] for name in list(wanted)[:-1]}
    with pytest.raises(WrongError):
        compare(reader, small, {name: listed[name] for name in small} | some)


def test_name_found_twice() -> None:
    with pytest.raises(WrongError, match="twice"):
        of_lines([b"61 0 ab\n", b"61 0 ab\n"])


def test_no_archive(place: Path) -> None:
    with pytest.raises(WrongError, match="no archive"):
        check(_READERS["7z"], CASE, place / "nothing.zip", place)


def test_folder_with_long_paths(place: Path) -> None:
    case = next(case for case in CASES if case.name == "deeper than PATH_MAX")
    case.build(os.fsencode(place / "folder"))
    wanted = {name: Found(e.size, e.sha256) for name, e in case.entries().items()}
    assert of_folder(place / "folder") == wanted


def test_program_that_complains(place: Path) -> None:
    with pytest.raises(FailedError, match="ends with 0: careful"):
        run("sh", "-c", "echo careful >&2")
    with pytest.raises(FailedError, match="SIGKILL"):
        run("sh", "-c", "kill -9 $$")
    assert run("cat", piped=write(place / "piped", {}))


# ------------------------------------------------------------------------ the registry


def test_cases_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))


def test_readers_are_unique() -> None:
    names = [reader.name for reader in READERS]
    assert len(names) == len(set(names))


def test_limits_are_of_cases_and_have_reasons() -> None:
    names = {case.name for case in CASES}
    for reader in READERS:
        assert reader.limits.keys() <= names, reader.name
        assert all(reason.strip() for reason in reader.limits.values()), reader.name
