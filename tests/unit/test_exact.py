"""Names as they are listed, and what it costs to know (DESIGN H7)."""

from __future__ import annotations

from collections import Counter

from zipfs.library.exact import ExactNames
from zipfs.library.filestate import FileState


class Disk:
    """Folders with names; one that is *blind* finds names by any case."""

    def __init__(self, folders: dict[bytes, list[bytes]], *, blind: bool) -> None:
        self.folders = folders
        self.blind = blind
        self.asked: Counter[str] = Counter()
        self.generation = 0
        self.exact = ExactNames(self.exists, self.state, self.names, lambda: self.generation)

    def exists(self, source: bytes) -> bool:
        self.asked["exists"] += 1
        folder, _, name = source.rpartition(b"/")
        if self.blind:
            return name.lower() in [other.lower() for other in self.folders[folder]]
        return name in self.folders[folder]

    def state(self, source: bytes) -> FileState:
        self.asked["state"] += 1
        return FileState(1, len(self.folders[source]), 1, 1)

    def names(self, source: bytes) -> list[bytes]:
        self.asked["names"] += 1
        return self.folders[source]


def test_an_ordinary_disk_is_asked_once_for_each_folder() -> None:
    disk = Disk({b"": [b"roms", b"Roms"], b"roms": [b"psx", b"snes"]}, blind=False)
    assert disk.exact.is_listed(b"roms/psx")
    asked = disk.asked.total()
    assert asked <= 2
    for name in (b"roms/psx", b"roms/snes") * 10:
        assert disk.exact.is_listed(name)
    assert disk.asked.total() == asked
    disk.generation += 1  # it may be another disk
    disk.blind = True
    assert not disk.exact.is_listed(b"roms/PSX")


def test_a_disk_that_finds_any_case_is_asked_for_its_names() -> None:
    disk = Disk({b"roms": [b"psx", b"1942", b"Ab"]}, blind=True)
    for _ in range(3):
        assert disk.exact.is_listed(b"roms/psx")
        assert disk.exact.is_listed(b"roms/1942")
        assert disk.exact.is_listed(b"roms/Ab")
    assert disk.asked["names"] == 1
    for other in (b"roms/PSX", b"roms/Psx", b"roms/aB", b"roms/AB"):
        assert not disk.exact.is_listed(other)
    disk.folders[b"roms"].append(b"new")
    assert disk.exact.is_listed(b"roms/new")


def test_both_cases_can_be_there() -> None:
    """On a disk that tells them apart; nothing is concluded from that."""
    disk = Disk({b"": [b"a", b"A", b"b"]}, blind=False)
    assert disk.exact.is_listed(b"a")
    assert disk.exact.is_listed(b"A")
    assert disk.exact.is_listed(b"b")
    before = disk.asked.total()
    assert disk.exact.is_listed(b"a")
    assert disk.asked.total() == before


def test_a_name_that_vanishes_meanwhile_proves_nothing() -> None:
    disk = Disk({b"": [b"a"]}, blind=True)
    disk.folders[b""] = []
    assert not disk.exact.is_listed(b"a")
    disk.folders[b""] = [b"A"]
    assert not disk.exact.is_listed(b"a")


def test_memory_is_bounded() -> None:
    many = [b"%06d" % number for number in range(30_000)]
    disk = Disk({b"1": many, b"2": many, b"3": many}, blind=True)
    for folder in (b"1", b"2", b"3"):
        assert disk.exact.is_listed(folder + b"/000001")
    assert disk.exact.is_listed(b"1/000002")
    assert disk.asked["names"] == 4
