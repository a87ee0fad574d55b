"""Things are said once, and on one line."""

from __future__ import annotations

import logging

import pytest

from zipfs import logs
from zipfs.logs import Once
from zipfs.text import shown


@pytest.fixture
def logger() -> logging.Logger:
    return logging.getLogger("tests.once")


def test_each_message_is_said_once(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    said = Once(logger)
    for _ in range(3):
        said.warning("%s is left out", "a")
        said.warning("%s is left out", "b")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "a is left out"),
        ("WARNING", "b is left out"),
    ]


def test_two_of_them_know_nothing_of_each_other(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    Once(logger).warning("%d", 1)
    Once(logger).warning("%d", 1)
    assert len(caplog.records) == 2


def test_a_percent_sign_is_just_text(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    Once(logger).warning("%s", "100%s %d")
    assert caplog.messages == ["100%s %d"]


def test_the_oldest_is_forgotten_first(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "REMEMBERED", 2)
    said = Once(logger)
    for number in (1, 2, 1, 3, 1, 2):  # 1 is heard again and again, so 2 is the oldest
        said.warning("%d", number)
    assert caplog.messages == ["1", "2", "3", "2"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"roms/doom", "roms/doom"),
        ("Pokémon ゼ".encode(), "Pokémon ゼ"),
        (b"caf\xe9", r"caf\xe9"),
        (b"a\nb\r\x1b[31m", r"a\nb\r\x1b[31m"),
        ("\x85\u2028\u202e".encode(), r"\x85\u2028\u202e"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),
        (b"it's", "it's"),
        (b"", ""),
    ],
)
def test_shown_is_one_printable_line(path: bytes, expected: str) -> None:
    assert shown(path) == expected
    assert shown(path).isprintable()
