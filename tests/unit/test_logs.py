"""What the journal is told, read as it reads it: systemd's native protocol."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from zipfs.logs import JournalHandler, Once, message_id


class Journal:
    """Listens as the journal does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(10)

    def entry(self) -> dict[str, str]:
        data = self.socket.recv(1 << 20)
        fields = {}
        while data:
            line, _, data = data.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if not equals:  # a value with line feeds: its length in 64 bits, little-endian
                (length,) = struct.unpack("<Q", data[:8])
                value, data = data[8 : 8 + length], data[8 + length + 1 :]
            fields[name.decode()] = value.decode()
        return fields


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "socket")
    yield made
    made.socket.close()


@pytest.fixture
def log(journal: Journal) -> Iterator[logging.Logger]:
    logger = logging.Logger("zipfs.test_logs")  # noqa: LOG001 - so that no other handler hears it
    handler = JournalHandler(str(journal.path))
    handler.mountpoint = "/mnt/caf\udce9"
    logger.addHandler(handler)
    yield logger
    handler.close()


def test_an_entry_has_fields(journal: Journal, log: logging.Logger) -> None:
    log.warning("%s is left out: %s", "roms/psx/A/\udcff", "a FIFO")
    entry = journal.entry()
    assert entry["MESSAGE"] == "roms/psx/A/\\udcff is left out: a FIFO"
    assert entry["PRIORITY"] == "4"
    assert entry["SYSLOG_IDENTIFIER"] == "zipfs"
    assert entry["ZIPFS_MESSAGE"] == "%s is left out: %s"
    assert entry["ZIPFS_ARG_1"] == "roms/psx/A/\\udcff"
    assert entry["ZIPFS_ARG_2"] == "a FIFO"
    assert entry["ZIPFS_MOUNTPOINT"] == "/mnt/caf\\udce9"
    assert entry["CODE_FUNC"] == "test_an_entry_has_fields"
    assert entry["MESSAGE_ID"] == message_id("%s is left out: %s")


def test_a_kind_of_message_is_known_by_its_id_whatever_it_is_about(
    journal: Journal, log: logging.Logger
) -> None:
    once = Once(log)
    for path in ("a", "b", "a"):
        once.warning("%s is left out: %s", path, "a FIFO")
    first, second = journal.entry(), journal.entry()
    assert first["MESSAGE_ID"] == second["MESSAGE_ID"]
    assert (first["ZIPFS_ARG_1"], second["ZIPFS_ARG_1"]) == ("a", "b")
    journal.socket.setblocking(False)
    with pytest.raises(BlockingIOError):  # said once
        journal.entry()


def test_a_traceback_is_in_the_message(journal: Journal, log: logging.Logger) -> None:
    try:
        raise ValueError("really")
    except ValueError:
        log.exception("unexpected error in %s", "read")
    entry = journal.entry()
    assert entry["PRIORITY"] == "3"
    assert entry["MESSAGE"].startswith("unexpected error in read\nTraceback")
    assert entry["MESSAGE"].endswith("ValueError: really")


def test_no_name_makes_a_field_of_its_own(journal: Journal, log: logging.Logger) -> None:
    log.warning("%s is left out: %s", "a\nPRIORITY=0\nFORGED=1", "b")
    entry = journal.entry()
    assert "FORGED" not in entry
    assert entry["PRIORITY"] == "4"
    assert entry["ZIPFS_ARG_1"] == "a\nPRIORITY=0\nFORGED=1"


def test_a_journal_that_went_away_is_no_error_for_whoever_logs(
    journal: Journal, log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)  # as long as nobody debugs
    journal.path.unlink()
    log.warning("nobody hears this")
    journal.socket.close()
    again = Journal(journal.path)
    log.warning("heard")
    assert again.entry()["MESSAGE"] == "heard"
    again.socket.close()
