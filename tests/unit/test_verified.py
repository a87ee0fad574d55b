"""What verifying remembers: kept, found again, and forgotten if it can't be made sense of."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.users import NOBODY, needs_root
from zipfs.library.filestate import BLOCK, FileState
from zipfs.ops.verify import foundreport, verified
from zipfs.ops.verify.verified import Finding, Kind, Memory, Partial, Round

LIBRARY = (b"/srv/g\xe4mes", 2)
STATE = FileState((1 << 64) - 1, 10 * BLOCK, -1, 1_600_000_000_123_456_789)
FINDING = Finding(
    path=b"roms/\xff/a",
    kind="damaged",
    state=STATE,
    crc32=1,
    digest=bytes(range(16)),
    found_crc32=0xFFFFFFFF,
    found_digest=bytes(16),
    blocks=(0, 1, 9),
    seconds=1_600_000_000,
    archives=(b"roms/\xff.zip",),
)
OTHER = Finding(
    path=b"b", kind="unreadable", state=STATE, crc32=0, digest=bytes(16), error="Input/output error"
)
MEMORY = Memory(
    LIBRARY,
    round=Round(began=5, position=b"roms/\xff/a", passed=7, verified=2, size=6, seconds=1.5),
    partial=Partial(
        path=b"\xfe", state=STATE, digest=bytes(16), offset=BLOCK, crc32=3, bad=(0,), unread=(4,)
    ),
    last=Round(began=1, gone=1, changed=2, refused=3, unhashed=4, ended=6),
    findings={FINDING.path: FINDING, OTHER.path: OTHER},
)


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
    ["", "{", "[]", "null", "7", '{"version": 2}', '{"version": 1}', "\xff", "[" * 100_000],
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
    values = vars(FINDING) | {"kind": kind}
    if kind == "unreadable":
        values |= {"error": "Input/output error", "found_crc32": None, "found_digest": None}
    line = foundreport.line(Finding(**values))
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
    assert foundreport.left_out(MEMORY.last) == (
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
