"""Archives of lists that come complete are there at once (DESIGN S1); others have to settle."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.support.libraries import content, make_game
from tests.support.lists import Wanted, expected_of, text_of, write_list
from tests.support.mounting import Mounted, Mounts
from tests.support.waiting import poll

MEMBERS: list[Wanted] = [
    ("disc 2.bin", "roms/psx/Game/disc 2.bin"),
    ("disc 1.bin", "roms/psx/Game/disc 1.bin"),
]
NEVER = 3600
"""A settle time that no test lasts."""


@pytest.fixture
def lists(place: Path, library: Path, mount: Mounts) -> Path:
    """An empty folder of lists; all files of the library are in the index."""
    make_game(library, "roms/psx/Game", {f"disc {n}.bin": content(5000 + n, n) for n in (1, 2)})
    before = mount(library)
    before.wait_sealed(1)
    before.unmount()
    folder = place / "lists"
    folder.mkdir()
    return folder


def assert_is(mounted: Mounted, name: str, members: list[Wanted]) -> None:
    wanted = expected_of(mounted.library, members)
    path = mounted.wait_for(f".lists/{name}.zip")
    assert path.read_bytes() == wanted.read(0, wanted.size)


def test_renamed_into_place(library: Path, lists: Path, mount: Mounts) -> None:
    mounted = mount(library, "--lists", lists, "--watch", "events", settle=NEVER)

    def is_watched() -> bool:
        write_list(lists / "first.list", text_of(library, MEMBERS))
        return (mounted.path / ".lists/first.zip").exists()

    poll("events", is_watched)
    (lists / "written.list").write_bytes(text_of(library, MEMBERS))
    for number in range(3):
        # Asked for before it is there, as it comes, or not at all.
        path = mounted.path / f".lists/{number}.zip"
        if number == 1:
            assert not path.exists()
        write_list(lists / f"{number}.list", text_of(library, MEMBERS[: number + 1]))
        if number == 2:
            path.exists()
        assert_is(mounted, str(number), MEMBERS[: number + 1])
    assert not (mounted.path / ".lists/written.zip").exists()
    (lists / "written.list").rename(lists / "renamed.list")
    assert_is(mounted, "renamed", MEMBERS)


def test_called_after_its_content(library: Path, lists: Path, mount: Mounts) -> None:
    """Also where nothing is told of changes, and of a list that was there before."""
    texts = [text_of(library, MEMBERS[:number]) for number in (1, 2)]
    names = [hashlib.sha256(text).hexdigest() for text in texts]
    (lists / f"{names[0]}.list").write_bytes(texts[0])
    (lists / "other.list").write_bytes(texts[0])
    mounted = mount(library, "--lists", lists, "--watch", "poll", settle=NEVER)
    assert_is(mounted, names[0], MEMBERS[:1])
    path = mounted.path / f".lists/{names[1]}.zip"
    assert not path.exists()
    with (lists / f"{names[1]}.list").open("wb", buffering=0) as stream:
        stream.write(texts[1][:-1])
        assert not path.exists()
        stream.write(texts[1][-1:])
    assert_is(mounted, names[1], MEMBERS)
    assert not (mounted.path / ".lists/other.zip").exists()


def test_a_file_that_is_not_hashed_yet(library: Path, lists: Path, mount: Mounts) -> None:
    mounted = mount(library, "--lists", lists, settle=1)
    make_game(library, "roms/psx/New", {"a.bin": b"a" * 5000})
    members: list[Wanted] = [*MEMBERS, ("a.bin", "roms/psx/New/a.bin")]
    text = text_of(library, members)
    name = hashlib.sha256(text).hexdigest()
    write_list(lists / f"{name}.list", text)
    assert_is(mounted, name, members)


def test_another_text_leaves_a_gap(library: Path, lists: Path, mount: Mounts) -> None:
    """V1: between two versions there is a moment without one, however soon the second is known."""
    mounted = mount(library, "--lists", lists, settle=5)
    write_list(lists / "x.list", text_of(library, MEMBERS))
    assert_is(mounted, "x", MEMBERS)
    write_list(lists / "x.list", text_of(library, MEMBERS[:1]))
    mounted.wait_gone(".lists/x.zip")
    wanted = expected_of(library, MEMBERS[:1])
    path = mounted.wait_for(".lists/x.zip")
    assert path.read_bytes() == wanted.read(0, wanted.size)
