"""RomM's config on disk: read, and read again when it has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from tests.fs.lab import root_only, unprivileged, until
from tests.support.waiting import SECONDS
from zipfs.errors import ConfigError
from zipfs.library.policy import MAX_SIZE, load_rules
from zipfs.library.rules.romm import Rules
from zipfs.mount import romm_follower
from zipfs.mount.romm_follower import RommConfig

HOLDS = "its previous content stays in force"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yml"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(romm_follower, "POLL_SECONDS", 0.01)


def write(file: Path, text: str) -> None:
    file.write_text(text)


def platforms(name: str) -> str:
    return f"exclude: {{platforms: [{name}]}}\n"


class Adopted:
    """What rules were adopted, by the last platform that they leave out."""

    def __init__(self, path: Path | None, rules: Rules | None = None) -> None:
        self.names: list[str] = []
        self.error: Exception | None = None
        self.config = RommConfig(str(path) if path else None, rules, self.adopt)

    async def adopt(self, rules: Rules) -> None:
        self.names.append(rules.platforms[-1])
        if self.error:
            raise self.error


# -- Reading -------------------------------------------------------------------------------


def test_load(file: Path) -> None:
    file.write_text(platforms("psx"))
    assert load_rules(str(file)).platforms[-1] == "psx"
    file.write_bytes(b"")
    assert load_rules(str(file)) == Rules()
    file.write_bytes(b"#" * MAX_SIZE)
    assert load_rules(str(file)) == Rules()


def test_what_cant_be_loaded(file: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    file.write_bytes(b"#" * (MAX_SIZE + 1))
    cases = {
        tmp_path / "none": "can't read the RomM config {}: No such file or directory",
        tmp_path: "can't read the RomM config {}: Is a directory",
        tmp_path / "fifo": "the RomM config {} isn't a file",
        file: "the RomM config {} is larger than 1048576 bytes",
    }
    for path, message in cases.items():
        with pytest.raises(ConfigError) as caught:
            load_rules(str(path))
        assert str(caught.value) == message.format(path)


@root_only
def test_what_may_not_be_read(place: Path) -> None:
    file = place / "config.yml"
    file.write_text("")
    file.chmod(0)
    with unprivileged(), pytest.raises(ConfigError, match=r"config\.yml: Permission denied"):
        load_rules(str(file))


# -- Following -----------------------------------------------------------------------------


async def test_no_file_no_following() -> None:
    with trio.fail_after(SECONDS):
        await Adopted(None).config.follow()


async def test_changes_are_adopted(file: Path, nursery: trio.Nursery) -> None:
    """In place, by rename, and what changed since the start before anybody looked."""
    write(file, platforms("since"))
    adopted = Adopted(file, Rules())
    nursery.start_soon(adopted.config.follow)
    await until(lambda: adopted.names == ["since"])
    write(file, platforms("in place"))
    await until(lambda: adopted.names[1:] == ["in place"])
    new = file.parent / "new"
    write(new, platforms("renamed"))
    os.rename(new, file)
    await until(lambda: adopted.names[2:] == ["renamed"])


async def test_the_same_in_other_words_is_no_change(file: Path, nursery: trio.Nursery) -> None:
    write(file, platforms("a"))
    adopted = Adopted(file, load_rules(str(file)))
    nursery.start_soon(adopted.config.follow)
    write(file, "# a comment\n" + platforms("'a'"))
    adopted.config.reread()
    await until(lambda: not adopted.config._now.is_set())
    write(file, platforms("b"))
    await until(lambda: adopted.names == ["b"])


async def test_a_file_in_the_making_is_left_alone(
    file: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state counts once it was seen twice."""
    states = iter(["old", "old", "a", "b", "c", "d", "d", "d"])
    taken = []

    def state(path: str) -> str:
        taken.append(next(states, "d"))
        return taken[-1]

    read = []

    def reading(path: str) -> Rules:
        read.append((len(taken), taken[-1]))
        return Rules()

    monkeypatch.setattr(romm_follower, "_state", state)
    monkeypatch.setattr(romm_follower, "load_rules", reading)
    nursery.start_soon(Adopted(file, Rules()).config.follow)
    await until(lambda: len(taken) > 10)
    assert read == [(2, "old"), (7, "d")]


async def test_told_to_read(
    file: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGHUP: at once, also where the file's state tells of no change."""
    write(file, platforms("a"))
    monkeypatch.setattr(romm_follower, "POLL_SECONDS", 3600.0)
    monkeypatch.setattr(romm_follower, "_state", lambda path: "same")
    adopted = Adopted(file)
    nursery.start_soon(adopted.config.follow)
    adopted.config.reread()
    await until(lambda: adopted.names == ["a"])
    write(file, platforms("b"))
    adopted.config.reread()
    await until(lambda: adopted.names == ["a", "b"])


async def test_a_mistake_changes_nothing(
    file: Path, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, also if the file is read again; and again if it comes back."""
    write(file, platforms("a"))
    adopted = Adopted(file)
    nursery.start_soon(adopted.config.follow)
    await until(lambda: adopted.names == ["a"])
    write(file, "exclude: 5")
    await until(lambda: caplog.messages)
    for _ in range(3):
        adopted.config.reread()
        await until(lambda: not adopted.config._now.is_set())
    os.unlink(file)
    await until(lambda: len(caplog.messages) > 1)
    assert caplog.messages == [
        f"bad value for 'exclude' in the RomM config {file}: a table of keys is wanted; {HOLDS}",
        f"can't read the RomM config {file}: No such file or directory; {HOLDS}",
    ]
    assert adopted.names == ["a"]
    write(file, platforms("a"))
    adopted.config.reread()
    await until(lambda: not adopted.config._now.is_set())
    write(file, platforms("b"))
    await until(lambda: adopted.names == ["a", "b"])
    os.unlink(file)
    await until(lambda: len(caplog.messages) == 3)
    assert caplog.messages[2] == caplog.messages[1]


async def test_nothing_unexpected_ends_the_following(
    file: Path, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """H4."""
    write(file, platforms("a"))
    adopted = Adopted(file)
    adopted.error = RuntimeError("defect")
    nursery.start_soon(adopted.config.follow)
    await until(lambda: adopted.names == ["a"])
    write(file, platforms("b"))
    await until(lambda: adopted.names == ["a", "b"])
    assert "unexpected error while reading the RomM config" in caplog.messages
