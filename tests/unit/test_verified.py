"""What verifying remembers: kept, found again, and forgotten if it can't be made sense of."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.users import NOBODY, needs_root
from zipfs.library.filestate import BLOCK, FileState
from zipfs.ops.verify import foundreport, verified
from zipfs.ops.verify.verified import BadFile, Kind, Memory, Round

LIBRARY = (b"/srv/g\xe4mes", 2)
STATE = FileState((1 << 64) - 1, 10 * BLOCK, -1, 1_600_000_000_123_456_789)
BAD_FILE = BadFile(
    path=b"roms/\xff/a",
    kind="damaged",
    state=STATE,
    crc32=1,
    digest=bytes(range(16)),
    found_crc32=0xFFFFFFFF,
    found_digest=bytes(16),
    blocks=(0, 1, 9),
    found_at=datetime(2020, 9, 13, 12, 26, 40, 7, UTC),
    archives=(b"roms/\xff.zip",),
)
OTHER = BadFile(
    path=b"b",
    kind="unreadable",
    state=STATE,
    crc32=0,
    digest=bytes(16),
    error="Input/output error",
    found_at=datetime(2020, 1, 1, tzinfo=UTC),
)
MEMORY = Memory(
    LIBRARY,
    round=Round(
        began=datetime(2020, 1, 1, tzinfo=UTC), position=b"roms/\xff/a", given_up=b"\xfe", passed=7,
        verified=2, size=6, seconds=1.5,
    ),
    last=Round(
        began=datetime(1970, 1, 1, tzinfo=UTC), gone=1, changed=2, refused=3, unhashed=4,
        ended=datetime(1970, 1, 1, 0, 0, 6, tzinfo=UTC),
    ),
    bad_files={BAD_FILE.path: BAD_FILE, OTHER.path: OTHER},
)  # fmt: skip


@pytest.mark.parametrize("memory", [MEMORY, Memory(LIBRARY)])
@pytest.mark.parametrize("durably", [False, True])
def test_all_of_it_is_found_again(memory: Memory, durably: bool, tmp_path: Path) -> None:
    file = tmp_path / "index.verify"
    verified.save(str(file), memory, durably=durably)
    assert verified.load(str(file), LIBRARY) == memory
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["index.verify"]


def test_another_library_is_another_story(tmp_path: Path) -> None:
    file = str(tmp_path / "index.verify")
    verified.save(file, MEMORY)
    for other in ((b"/srv/other", 2), (LIBRARY[0], 3)):
        assert verified.load(file, other) == Memory(other)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "7", '{"version": 3}', '{"version": 1}', "\xff", "[" * 100_000],
)
def test_what_makes_no_sense_is_forgotten(text: str, tmp_path: Path) -> None:
    file = tmp_path / "index.verify"
    file.write_bytes(text.encode("latin-1"))
    assert verified.load(str(file), LIBRARY) == Memory(LIBRARY)


def test_every_key_has_to_be_there(tmp_path: Path) -> None:
    file = tmp_path / "index.verify"
    verified.save(str(file), MEMORY)
    whole = json.loads(file.read_text())
    for key in whole:
        for values in ({k: v for k, v in whole.items() if k != key}, whole | {key: "x"}):
            file.write_text(json.dumps(values))
            assert verified.load(str(file), LIBRARY) == Memory(LIBRARY), key


def test_dates_are_in_utc_for_people_too(tmp_path: Path) -> None:
    file = tmp_path / "index.verify"
    verified.save(str(file), MEMORY)
    kept = json.loads(file.read_text())
    assert kept["last"]["ended"] == "1970-01-01T00:00:06Z"
    assert kept["bad_files"][0]["found_at"] == "2020-09-13T12:26:40.000007Z"
    for date in ("1970-01-01T00:00:06", "yesterday"):  # the first is in no zone
        file.write_text(json.dumps(kept | {"last": kept["last"] | {"ended": date}}))
        assert verified.load(str(file), LIBRARY) == Memory(LIBRARY)


def test_a_file_of_version_1_is_read(tmp_path: Path) -> None:
    """Its rounds and bad files stay; where it was within a file is dropped."""
    path, name = "roms/\udcff/a", "/srv/g\udce4mes"
    round_ = {
        "began": 1_577_836_800, "position": path, "passed": 7, "verified": 2, "size": 6,
        "changed": 0, "gone": 0, "refused": 0, "unhashed": None, "ended": None, "seconds": 1.5,
    }  # fmt: skip
    finding = {
        "path": path, "kind": "damaged", "state": list(STATE), "crc32": 1,
        "digest": bytes(range(16)).hex(), "found_crc32": 0xFFFFFFFF, "found_digest": "00" * 16,
        "blocks": [0, 1, 9], "error": "", "seconds": 1_600_000_000, "archives": ["roms/\udcff.zip"],
    }  # fmt: skip
    partial = {
        "path": path, "state": list(STATE), "digest": "00" * 16, "offset": BLOCK, "crc32": 3,
        "bad": [0], "unread": [4],
    }  # fmt: skip
    file = tmp_path / "index.verify"
    old = {"version": 1, "library": name, "inode": 2, "round": round_, "partial": partial}
    file.write_text(json.dumps(old | {"last": None, "findings": [finding]}))
    memory = verified.load(str(file), LIBRARY)
    assert MEMORY.round
    expected = Memory(
        LIBRARY,
        round=replace(MEMORY.round, given_up=b""),
        bad_files={
            BAD_FILE.path: replace(BAD_FILE, found_at=BAD_FILE.found_at.replace(microsecond=0))
        },
    )
    assert memory == expected
    verified.save(str(file), memory)
    assert json.loads(file.read_text())["version"] == 2
    assert verified.load(str(file), LIBRARY) == expected


def test_a_failure_to_save_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "index.verify"
    verified.save(str(file), MEMORY)
    (tmp_path / "index.verify.new").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        verified.save(str(file), Memory(LIBRARY))
    assert verified.load(str(file), LIBRARY) == MEMORY


def test_only_one_at_a_time(tmp_path: Path) -> None:
    file = str(tmp_path / "index.verify")
    with verified.alone(file) as first, verified.alone(file) as second:
        assert (first, second) == (True, False)
    with verified.alone(file) as third:
        assert third


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("damaged", ["is damaged at MiB 0-2, 9-10 of 10: CRC-32 ffffffff instead of 00000001"]),
        ("unreadable", ["can't be read (Input/output error) at MiB 0-2", "restore"]),
        ("unstable", ["was read wrong at first", "memory"]),
    ],
)
def test_a_line_names_it_all(kind: Kind, texts: list[str]) -> None:
    values = vars(BAD_FILE) | {"kind": kind}
    if kind == "unreadable":
        values |= {"error": "Input/output error", "found_crc32": None, "found_digest": None}
    line = foundreport.line(BadFile(**values))
    assert line.startswith("roms/\\xff/a ")
    assert "; it is in roms/\\xff.zip; " in line
    for text in texts:
        assert text in line
    assert "\n" not in line


def test_for_programs() -> None:
    facts = json.loads(json.dumps(foundreport.as_json(MEMORY)))
    other, finding = facts["findings"]
    assert finding["path"] == "roms/\\xff/a"
    assert finding["expected"] == {"crc32": "00000001", "xxh3_128": bytes(range(16)).hex()}
    assert finding["found"] == {"crc32": "ffffffff", "xxh3_128": "00" * 16}
    assert finding["blocks"] == [
        {"offset": 0, "length": 2 * BLOCK},
        {"offset": 9 * BLOCK, "length": BLOCK},
    ]
    assert (other["kind"], other["error"]) == ("unreadable", "Input/output error")
    assert facts["last_round"]["ended"] == "1970-01-01 00:00:06"
    assert MEMORY.last
    assert foundreport.not_verified(MEMORY.last) == (
        "2 changed since they were hashed, 1 gone, 3 may not be read, 4 not hashed yet"
    )


@needs_root
def test_what_root_makes_in_the_daemon_s_folder_is_the_daemon_s(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    file = tmp_path / "index.verify"
    verified.save(str(file), MEMORY)
    with verified.alone(str(file)):
        pass
    assert {path.stat().st_uid for path in tmp_path.iterdir()} == {NOBODY}


def test_a_link_in_its_place_isn_t_followed(tmp_path: Path) -> None:
    """The folder may be another user's than who verifies."""
    file = tmp_path / "index.verify"
    elsewhere = tmp_path / "precious"
    elsewhere.write_text("precious")
    for name in ("index.verify.new", "index.verify.lock"):
        (tmp_path / name).symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic links"):
        verified.save(str(file), MEMORY)
    (tmp_path / "index.verify.new").unlink(missing_ok=True)
    with pytest.raises(OSError, match="symbolic links"), verified.alone(str(file)):
        pass
    assert elsewhere.read_text() == "precious"
