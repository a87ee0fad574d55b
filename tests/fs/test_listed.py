"""Lists in the tree (DESIGN S1, S2, V1 to V4, R1, H2, H3): a game each, found and forgotten."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.fs.conftest import SETTLE, Tree, sealed
from tests.fs.lab import FakeTime, open_below, unprivileged, until
from tests.support.libraries import MTIME, content, make_file, make_game
from tests.support.lists import Wanted, expected_of, text_of, write_list
from zipfs.catalog import game as game_module
from zipfs.catalog.nodes import Folder
from zipfs.errors import ConfigError, StaleError
from zipfs.index.index import Index
from zipfs.library.decorators.lists import ListScan, WithLists
from zipfs.library.filestate import FileState
from zipfs.library.library import Library
from zipfs.library.rules.general import Selection
from zipfs.library.scan import Entry, LeftOut
from zipfs.library.view import find_games
from zipfs.sealing.members import FIXED_TIME, Style
from zipfs.sealing.offline import seal_all
from zipfs.sealing.outcomes import Absent, Impossible, Outcome, Plain, Sealed, Unsettled, Version
from zipfs.sealing.sealer import Sealer
from zipfs.system.permissions import Access

LIST = b".lists/bulk"
MEMBERS: list[Wanted] = [
    ("Final/disc 2.bin", "roms/final/disc 2.bin"),
    ("solo", "roms/solo.iso"),
    ("readme.txt", b"made by the front end"),
    ("Final/disc 1.bin", "roms/final/disc 1.bin"),
]


@pytest.fixture(autouse=True)
def nothing_stays_open(library: Path, lists: Path) -> Iterator[None]:
    yield
    assert open_below(library) == open_below(lists) == []


@pytest.fixture
def lists(place: Path, library: Path) -> Path:
    """An empty folder of lists; the library has something to put into them."""
    make_game(library, "roms/final", {f"disc {n}.bin": content(3000 + n, n) for n in (1, 2)})
    make_file(library / "roms/solo.iso", b"iso", mtime=MTIME + 5000)
    folder = place / "lists"
    folder.mkdir()
    return folder


def listed(library: Path, lists: Path, folder: bytes = b".lists") -> WithLists:
    return WithLists(Library(str(library)), str(lists), shown_in=folder, prefix=b"/library/")


@pytest.fixture
def sealer(library: Path, lists: Path, index: Index, clock: FakeTime) -> Sealer:
    return Sealer(listed(library, lists), index, globs=(b"roms/*",), settle=SETTLE)


def version_of(sealer: Sealer, name: str = "bulk") -> Version:
    _, version = sealed(sealer, b".lists/" + name.encode())
    assert version is not None
    return version


def outcome_of(sealer: Sealer, name: str = "bulk") -> Outcome:
    return sealed(sealer, b".lists/" + name.encode())[0].outcome


def problem_of(sealer: Sealer, name: str = "bulk") -> str:
    found = outcome_of(sealer, name)
    assert isinstance(found, Impossible)
    return found.reason


# -- The folder ----------------------------------------------------------------------------


def test_where_it_can_be(place: Path, library: Path, lists: Path) -> None:
    make_file(library / "roms/lists/x.list", b"")
    for folder, said in (
        (place / "none", "can't read the folder of lists .*: No such file or directory"),
        (library / "roms/solo.iso", "isn't a folder"),
        (library, "lies in the library"),
        (library / "roms/lists", "lies in the library"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            listed(library, folder)
        assert len(str(caught.value).splitlines()) == 1
    (place / "link").symlink_to(library / "roms/lists")
    with pytest.raises(ConfigError, match="lies in the library"):
        listed(library, place / "link")
    with pytest.raises(ConfigError, match="lies in the library"):
        listed(Path("/"), lists)
    # Beside it, however alike they are called; and the library may lie in it.
    beside = place / "library.lists"
    beside.mkdir()
    assert listed(library, beside).lists == os.fsencode(beside)
    assert listed(library, place).lists == os.fsencode(place)


def test_a_name_that_the_library_has(library: Path, lists: Path) -> None:
    with pytest.raises(ConfigError, match=r"the library has a roms of its own; .* --lists-folder"):
        listed(library, lists, b"roms")
    (library / "dangling").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="the library has a dangling of its own"):
        listed(library, lists, b"dangling")
    # What comes later is hidden.
    found = listed(library, lists, b"bulk")
    make_file(library / "bulk/roms/later", b"")
    make_file(library / "bulk/x.zip", b"")
    write_list(lists / "x.list", b"")
    assert found.names(b"") == [b"bulk", b"dangling", b"roms"]
    assert found.names(b"bulk") == [b"x"]
    assert found.entry(b"bulk/roms") is None
    assert found.exists(b"bulk")
    assert not found.exists(b"bulk/x.zip")
    assert not found.exists(b"bulk/roms")
    assert [name for name, _ in found.folder(b"")].count(b"bulk") == 1


def test_what_is_a_list(library: Path, lists: Path, place: Path) -> None:
    for name in ("a.list", "b.list.list", ".hidden.list", "\udcff.list", "c.zip.list"):
        make_file(lists / name, b"")
    for name in (".list", "notes.txt", "d.list~", ".e.list.swp", "LIST", "f.LIST"):
        make_file(lists / name, b"")
    make_file(lists / "folder.list/g.list", b"")
    make_file(place / "secret", b"")
    (lists / "link.list").symlink_to(place / "secret")
    (lists / "near.list").symlink_to("a.list")
    os.mkfifo(lists / "fifo.list")
    with socket.socket(socket.AF_UNIX) as channel:
        channel.bind(os.fsencode(lists / "socket.list"))
    found = listed(library, lists)
    entries = dict(found.folder(b".lists"))
    assert found.names(b".lists") == sorted(entries)
    there = {name for name, entry in entries.items() if isinstance(entry, Entry)}
    assert there == {b"a", b"b.list", b".hidden", b"\xff", b"c.zip"}
    left_out = {name: entry for name, entry in entries.items() if isinstance(entry, LeftOut)}
    assert set(left_out) == {b"folder", b"link", b"near", b"fifo", b"socket"}
    assert {entry.reason for entry in left_out.values()} == {
        "a list has to be a file, and no link to one"
    }
    for name in (b"notes.txt", b"none", b"", b"folder/g", b"a.list", b"x" * 5000):
        assert found.entry(b".lists/" + name) is None
    for name in (b"link", b"near", b"none"):
        with pytest.raises(FileNotFoundError):
            found.scan(b".lists/" + name, Selection(()))


def test_lists_tell_nothing_of_the_structure(library: Path, lists: Path, index: Index) -> None:
    make_game(library, "roms/psx/game", {"1": b"1", "2": b"2"})
    write_list(lists / "roms.list", b"")
    sealer = Sealer(listed(library, lists), index, settle=SETTLE)
    assert sealer.policy.is_game(b"roms/psx/game")
    assert sealer.policy.is_game(b".lists/roms")
    other = library.with_name("other")
    make_game(other, "psx/game", {"1": b"1", "2": b"2"})
    assert Sealer(listed(other, lists), index, settle=SETTLE).policy.is_game(b"psx/game")


def test_what_is_a_game_there(library: Path, lists: Path, index: Index) -> None:
    sealer = Sealer(listed(library, lists), index, globs=(b"*", b"*/*/*"), settle=SETTLE)
    policy = sealer.policy
    for path, is_game, may_hold in (
        (b"", False, True),
        (b".lists", False, True),
        (b".lists/x", True, False),
        (b".lists/x/y", False, False),
        (b".listsx", True, True),
        (b"roms/.lists/x", True, False),
    ):
        assert (policy.is_game(path), policy.may_hold_games(path)) == (is_game, may_hold), path


# -- Archives ------------------------------------------------------------------------------


def test_an_archive_in_the_order_of_its_list(library: Path, lists: Path, sealer: Sealer) -> None:
    write_list(lists / "bulk.list", text_of(library, MEMBERS))
    version = version_of(sealer)
    wanted = expected_of(library, MEMBERS)
    assert version.sealed.path == b".lists/bulk.zip"
    assert [member.name.decode() for member in version.layout.members] == [n for n, _ in MEMBERS]
    assert version.sealed.content == wanted.content_id
    assert (version.size, version.sealed.count) == (wanted.size, 4)
    assert version.sealed.mtime_ns == wanted.mtime_ns
    assert version.sealed.inode == wanted.inode(".lists/bulk.zip")
    # Content has the date of the newest file.
    assert [member.mtime for member in version.layout.members] == [
        MTIME,
        MTIME + 5000,
        MTIME + 5000,
        MTIME,
    ]
    assert [file.source for file in version.files] == [
        b"roms/final/disc 2.bin",
        b"roms/solo.iso",
        b"roms/final/disc 1.bin",
    ]


def test_another_order_is_another_archive(library: Path, lists: Path, sealer: Sealer) -> None:
    write_list(lists / "bulk.list", text_of(library, MEMBERS))
    write_list(lists / "back.list", text_of(library, MEMBERS[::-1]))
    assert version_of(sealer).sealed.content != version_of(sealer, "back").sealed.content


@pytest.mark.parametrize(
    "members",
    [
        pytest.param([("a", "roms/solo.iso")], id="one file"),
        pytest.param([("a", "roms/solo.iso"), ("b", "roms/solo.iso")], id="twice"),
        pytest.param([("a", b"A"), ("b", "roms/solo.iso"), ("c", b"C")], id="content around"),
        pytest.param([(".hidden/a", "roms/solo.iso")], id="hidden"),
        pytest.param([("a", b""), ("b", b"B")], id="content only"),
    ],
)
def test_kinds(members: list[Wanted], library: Path, lists: Path, sealer: Sealer) -> None:
    write_list(lists / "bulk.list", text_of(library, members))
    version = version_of(sealer)
    wanted = expected_of(library, members)
    assert version.sealed.content == wanted.content_id
    assert version.sealed.mtime_ns == wanted.mtime_ns
    assert version.layout.inline == wanted.layout.inline


def test_content_alone_has_a_fixed_date(library: Path, lists: Path, sealer: Sealer) -> None:
    write_list(lists / "bulk.list", text_of(library, [("a", b"A"), ("b", b"B")]))
    assert {member.mtime for member in version_of(sealer).layout.members} == {FIXED_TIME}


def test_a_crc_in_a_list_counts_for_nothing(library: Path, lists: Path, sealer: Sealer) -> None:
    write_list(lists / "bulk.list", text_of(library, MEMBERS))
    right = version_of(sealer).sealed
    write_list(lists / "bulk.list", text_of(library, MEMBERS, crc="deadbeef"))
    assert version_of(sealer).sealed == right


def test_names_are_mapped_as_all_are(
    library: Path, lists: Path, index: Index, sealer: Sealer, caplog: pytest.LogCaptureFixture
) -> None:
    members: list[Wanted] = [
        ("a:b", "roms/solo.iso"),
        ("a%3Ab", "roms/solo.iso"),
        ("a:c/", b""),
        ("\udcff", b"Y"),
        ("CON", b"Z"),
    ]
    write_list(lists / "bulk.list", text_of(library, members))
    names = [member.name.decode() for member in version_of(sealer).layout.members]
    assert names == ["a%3Ab (2)", "a%3Ab", "a%3Ac/", "%FF", "CON"]
    assert "in .lists/bulk.zip, a:b is called a%3Ab (2)" in caplog.text
    portable = Sealer(
        listed(library, lists), index, settle=SETTLE, style=Style(portable_names=True)
    )
    assert version_of(portable).layout.members[-1].name == b"%43ON"


def test_folders(library: Path, lists: Path, sealer: Sealer) -> None:
    """Just as they are listed, beside what is in them and before it or not."""
    members: list[Wanted] = [
        ("A/x", "roms/solo.iso"),
        ("A/save/", b""),
        ("Z/", b""),
        ("A/", b""),
        ("Z/readme.txt", b"content"),
    ]
    write_list(lists / "bulk.list", text_of(library, members))
    version = version_of(sealer)
    wanted = expected_of(library, members)
    assert [member.name.decode() for member in version.layout.members] == [
        name for name, _ in members
    ]
    assert version.sealed.content == wanted.content_id
    assert (version.sealed.size, version.sealed.count) == (wanted.size, 5)
    assert {member.mtime for member in version.layout.members} == {MTIME + 5000}


def test_folders_are_no_content_of_the_list(library: Path, lists: Path, sealer: Sealer) -> None:
    """Whoever may read the files may read the archive (H3): names are told to anybody."""
    write_list(lists / "bulk.list", text_of(library, [("x", "roms/solo.iso"), ("save/", b"")]))
    (lists / "bulk.list").chmod(0o600)
    assert version_of(sealer).sealed.access.mode == 0o444
    write_list(lists / "bulk.list", text_of(library, [("x", "roms/solo.iso"), ("save", b"")]))
    (lists / "bulk.list").chmod(0o600)
    assert version_of(sealer).sealed.access.mode == 0o400


def test_folders_alone(library: Path, lists: Path, sealer: Sealer) -> None:
    members: list[Wanted] = [("a/", b""), ("b/c/", b"")]
    write_list(lists / "bulk.list", text_of(library, members))
    version = version_of(sealer)
    assert version.sealed.content == expected_of(library, members).content_id
    assert {member.mtime for member in version.layout.members} == {FIXED_TIME}


def test_names_are_tidied(library: Path, lists: Path, sealer: Sealer) -> None:
    size = (library / "roms/solo.iso").stat().st_size
    tidy = b"- %d /library/roms/solo.iso A/x\n0 0 @directory A/save" % size
    write_list(lists / "bulk.list", tidy)
    right = version_of(sealer).sealed
    write_list(lists / "bulk.list", tidy.replace(b" A/", b" ./A//"))
    assert version_of(sealer).sealed == right
    write_list(lists / "bulk.list", tidy.replace(b" A/x", b" ../x"))
    assert problem_of(sealer) == "bulk.list, line 1: its name ../x has the component .."


def test_execute_bits(library: Path, lists: Path, index: Index, clock: FakeTime) -> None:
    write_list(lists / "bulk.list", text_of(library, [("run", "roms/solo.iso"), ("x", b"#!")]))
    (library / "roms/solo.iso").chmod(0o755)
    sealer = Sealer(listed(library, lists), index, settle=SETTLE, style=Style(execute_bits=True))
    assert [member.executable for member in version_of(sealer).layout.members] == [True, False]


def test_no_playlist_and_no_litter(
    library: Path, lists: Path, index: Index, clock: FakeTime
) -> None:
    """A list is what it says, on whatever platform."""
    make_game(library, "psx/Game", {"Game (Disc 1).chd": b"1", "Game (Disc 2).chd": b"2"})
    make_file(library / "psx/Game/.DS_Store", b"litter")
    sealer = Sealer(listed(library, lists), index, globs=(b"{platform}/*",), settle=SETTLE)
    members: list[Wanted] = [
        (name, f"psx/Game/{name}")
        for name in ("Game (Disc 1).chd", ".DS_Store", "Game (Disc 2).chd")
    ]
    write_list(lists / "bulk.list", text_of(library, members))
    assert [member.name.decode() for member in version_of(sealer).layout.members] == [
        name for name, _ in members
    ]


def test_a_link_inside_is_what_it_leads_to(library: Path, lists: Path, sealer: Sealer) -> None:
    (library / "linked").symlink_to("roms/final")
    (library / "one").symlink_to(library / "linked/disc 1.bin")
    write_list(lists / "bulk.list", text_of(library, [("1", "one"), ("2", "linked/disc 2.bin")]))
    assert [file.source for file in version_of(sealer).files] == [
        b"roms/final/disc 1.bin",
        b"roms/final/disc 2.bin",
    ]


def test_deeper_than_a_path_can_be(library: Path, lists: Path, sealer: Sealer) -> None:
    folder = b"/".join([b"d" * 250] * 20)
    descriptor = os.open(library, os.O_RDONLY)
    for component in folder.split(b"/"):
        os.mkdir(component, dir_fd=descriptor)
        below = os.open(component, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    file = os.open(b"file", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor)
    os.write(file, b"deep")
    os.close(file)
    os.close(descriptor)
    write_list(lists / "bulk.list", b"- 4 /library/%s/file deep" % folder)
    assert version_of(sealer).files[0].source == folder + b"/file"


# A list, and what is said of it.
WRONG: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "bulk.list, it is empty"),
    "no list": (b"nonsense", "bulk.list, line 1: it has less than"),
    "no such file": (b"- 3 /library/roms/none x", "line 1: there is no roms/none in the library"),
    "no such folder": (b"- 3 /library/nope/none x", "line 1: there is no nope in the library"),
    "a file for a folder": (b"- 3 /library/roms/solo.iso/a x", "line 1: roms/solo.iso isn't a fol"),
    "a folder": (b"- 3 /library/roms/final x", "line 1: roms/final is a folder"),
    "a smaller size": (b"- 2 /library/roms/solo.iso x", "line 1: its size is 2, but roms/solo.iso"),
    "a larger size": (b"- 4 /library/roms/solo.iso x", "line 1: its size is 4, but roms/solo.iso"),
    "a FIFO": (b"- 0 /library/fifo x", "line 1: fifo is not a file or folder but a device, "),
    "out": (b"- 6 /library/out x", "line 1: out is a symbolic link that leaves the library"),
    "out on the way": (b"- 6 /library/outside/s x", "line 1: outside is a symbolic link that l"),
    "nowhere": (b"- 0 /library/dangling x", "line 1: dangling is a symbolic link to nothing that"),
    "a circle": (b"- 0 /library/circle x", "line 1: circle is a symbolic link that leads to itse"),
    "a long name": (b"- 0 /library/%s x" % (b"n" * 256), "can't be looked at: File name too long"),
    "a list": (b"- 0 /library/.lists/bulk x", "line 1: there is no .lists in the library"),
    "the second": (
        b"- 3 /library/roms/solo.iso x\r\n\r\n- 3 /library/none y",
        "bulk.list, line 3: there is no none in the library",
    ),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_one_wrong_line_and_there_is_no_archive(
    text: bytes, said: str, library: Path, lists: Path, place: Path, sealer: Sealer,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    make_file(place / "outside/s", b"secret")
    (library / "out").symlink_to(place / "outside/s")
    (library / "outside").symlink_to(place / "outside")
    (library / "dangling").symlink_to("nowhere")
    (library / "circle").symlink_to("circle")
    os.mkfifo(library / "fifo")
    write_list(lists / "bulk.list", text)
    examination, version = sealer.examine(LIST, LIST)
    assert version is None
    assert isinstance(examination.outcome, Impossible)
    assert said in examination.outcome.reason
    assert examination.outcome.reason.startswith("bulk.list, ")
    for _ in range(3):
        examination, _ = sealer.examine(LIST, LIST, examination)
    assert [record.getMessage() for record in caplog.records] == [
        f"there is no .lists/bulk.zip: {examination.outcome.reason}"  # type: ignore[union-attr]
    ]


def test_said_again_when_it_is_another(
    library: Path, lists: Path, sealer: Sealer, caplog: pytest.LogCaptureFixture
) -> None:
    for text in (b"nonsense", b"nonsense", b"rubbish", b"rubbish"):
        write_list(lists / "bulk.list", text)
        problem_of(sealer)
    assert len(caplog.records) == 2


def test_a_list_that_cant_be_read(library: Path, lists: Path, sealer: Sealer) -> None:
    write_list(lists / "bulk.list", text_of(library, MEMBERS))
    (lists / "bulk.list").chmod(0)
    with unprivileged():
        assert problem_of(sealer) == "bulk.list, it can't be read: Permission denied"
    (lists / "bulk.list").chmod(0o600)
    version_of(sealer)


def test_a_member_that_cant_be_read(library: Path, lists: Path, sealer: Sealer) -> None:
    write_list(lists / "bulk.list", text_of(library, MEMBERS))
    (library / "roms/solo.iso").chmod(0)
    with unprivileged():
        problem = problem_of(sealer)
        assert problem == "bulk.list, line 2: roms/solo.iso is a file that can't be read"


def test_a_member_that_is_refused_when_it_is_opened(
    library: Path, lists: Path, sealer: Sealer
) -> None:
    """Permissions don't tell all: a game does without such a file, a list doesn't."""
    write_list(lists / "bulk.list", text_of(library, MEMBERS))
    version = version_of(sealer)
    sealer.mark_unreadable(version.files[1])
    assert problem_of(sealer) == "bulk.list, line 2: roms/solo.iso can't be read"
    os.utime(library / "roms/solo.iso")
    version_of(sealer)


def test_too_large(
    library: Path, lists: Path, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = text_of(library, MEMBERS)
    write_list(lists / "bulk.list", text)
    monkeypatch.setattr("zipfs.library.decorators.lists.MAX_LIST", len(text) - 1)
    assert problem_of(sealer) == "bulk.list, it is larger than 256 MiB"
    monkeypatch.setattr("zipfs.library.decorators.lists.MAX_LIST", len(text))
    version_of(sealer)


# -- When ----------------------------------------------------------------------------------


def test_a_list_settles(library: Path, lists: Path, sealer: Sealer, clock: FakeTime) -> None:
    """S1: and as long as it may be in the making, nothing wrong is said of it."""
    text = text_of(library, MEMBERS)
    write_list(lists / "bulk.list", text)
    version_of(sealer)  # hashed
    clock.ahead_ns = 0
    for part in (text[:50], text):
        (lists / "bulk.list").write_bytes(part)
        examination, _ = sealer.examine(LIST, LIST)
        assert isinstance(examination.outcome, Unsettled)
        assert 0 < examination.outcome.seconds <= SETTLE
    clock.ahead = SETTLE  # and it was seen to be the same for so long
    examination, version = sealer.examine(LIST, LIST, examination)
    assert isinstance(examination.outcome, Sealed)
    assert version is not None


def test_it_is_as_young_as_what_is_youngest_of_it(
    library: Path, lists: Path, sealer: Sealer
) -> None:
    """S1: of the list and its members, by both of their times."""
    path, member = lists / "bulk.list", library / "roms/solo.iso"
    write_list(path, text_of(library, MEMBERS))
    for file in (path, member, path):
        before = sealer.library.scan(LIST, sealer.policy).changed_ns
        while FileState.of(file.stat()).changed_ns <= before:  # the clock has ticks
            file.chmod(0o644)
        scan = sealer.library.scan(LIST, sealer.policy)
        assert scan.changed_ns == FileState.of(file.stat()).changed_ns
        os.utime(file, (2e9, 2e9))
        assert sealer.library.scan(LIST, sealer.policy).written_ns == 2_000_000_000 * 10**9
        os.utime(file, (1e9, 1e9))


def test_written_anew_with_the_same_text(
    library: Path, lists: Path, sealer: Sealer, clock: FakeTime
) -> None:
    """It has nothing to settle: the archive stays."""
    write_list(lists / "bulk.list", text_of(library, MEMBERS))
    before, _ = sealed(sealer, LIST)
    clock.ahead_ns = 0
    write_list(lists / "bulk.list", text_of(library, MEMBERS))
    after, _ = sealer.examine(LIST, LIST, before)
    assert isinstance(after.outcome, Sealed)
    assert after.outcome == before.outcome


def test_no_tick_of_a_clock_hides_a_change(library: Path, lists: Path, sealer: Sealer) -> None:
    """The same size, the same times, the same inode: its text is looked at."""
    path = lists / "bulk.list"
    write_list(path, text_of(library, [("a", "roms/final/disc 1.bin")]))
    before, _ = sealed(sealer, LIST)
    status = path.stat()
    with path.open("r+b") as file:
        file.write(text_of(library, [("b", "roms/final/disc 1.bin")]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after, _ = sealed(sealer, LIST, before)
    assert isinstance(before.outcome, Sealed)
    assert isinstance(after.outcome, Sealed)
    assert before.outcome.content != after.outcome.content


def test_a_changed_member_is_another_version(library: Path, lists: Path, sealer: Sealer) -> None:
    write_list(lists / "bulk.list", text_of(library, MEMBERS))
    before, _ = sealed(sealer, LIST)
    first = before.outcome
    assert isinstance(first, Sealed)
    make_file(library / "roms/solo.iso", b"ISO", mtime=MTIME + 5000)
    after, _ = sealed(sealer, LIST, before)
    second = after.outcome
    assert isinstance(second, Sealed)
    assert second.mtime_ns // 10**9 != first.mtime_ns // 10**9
    assert second.inode != first.inode
    make_file(library / "roms/solo.iso", b"iso", mtime=MTIME + 5000)
    assert sealed(sealer, LIST, after)[0].outcome == first  # V2: A, B, A


def test_removed(library: Path, lists: Path, sealer: Sealer) -> None:
    write_list(lists / "bulk.list", text_of(library, MEMBERS))
    before, _ = sealed(sealer, LIST)
    (lists / "bulk.list").unlink()
    assert sealer.examine(LIST, LIST, before)[0].outcome == Absent()


def test_it_is_sealed_offline_as_well(library: Path, lists: Path, sealer: Sealer) -> None:
    write_list(lists / "bulk.list", text_of(library, MEMBERS))
    write_list(lists / "bad.list", b"nonsense")
    games = list(find_games(sealer.library, sealer.policy))
    assert [path for path, _ in games if path.startswith(b".lists")] == [
        b".lists/bad",
        b".lists/bulk",
    ]
    summary = seal_all(sealer, games)
    assert (summary.archives, summary.members) == (2, 6)
    assert summary.hashed == 3001 + 3002 + 3
    assert summary.problems == [
        ".lists/bad: bad.list, line 1: it has less than CRC, SIZE, LOCATION and NAME"
    ]


# -- Who may read (H3) -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modes", "mode"),
    [
        ({}, 0o444),
        ({"roms/solo.iso": 0o640}, 0o440),
        ({"roms/final": 0o700}, 0o400),
        ({"roms": 0o750}, 0o440),
        ({"roms": 0o711}, 0o444),  # what lies in it can be read by its name
        ({"": 0o700}, 0o400),
        ({"roms/other": 0o700}, 0o444),  # on nobody's way
    ],
)
def test_as_readable_as_all_of_it(
    modes: dict[str, int], mode: int, library: Path, lists: Path, sealer: Sealer
) -> None:
    make_game(library, "roms/other", {"a": b""})
    write_list(lists / "bulk.list", text_of(library, MEMBERS[:2]))
    (lists / "bulk.list").chmod(0o600)  # of no account: nothing in it is shown
    for path, bits in modes.items():
        (library / path).chmod(bits)
    try:
        access = version_of(sealer).sealed.access
    finally:
        library.chmod(0o755)
    assert access == Access(mode, os.getuid(), os.getgid())


def test_content_is_as_readable_as_its_list(library: Path, lists: Path, sealer: Sealer) -> None:
    for members in (MEMBERS, [("a", b"A")]):
        write_list(lists / "bulk.list", text_of(library, members))
        for bits in (0o644, 0o640, 0o600):
            (lists / "bulk.list").chmod(bits)
            assert version_of(sealer).sealed.access.mode == bits & 0o444


# -- The tree --------------------------------------------------------------------------------


async def test_the_tree(library: Path, lists: Path, running: Tree) -> None:
    write_list(lists / "bulk.list", text_of(library, MEMBERS))
    write_list(lists / "bad.list", b"nonsense")
    make_file(lists / "notes.txt", b"no list")
    node = await running.sealed(".lists/bulk.zip")
    wanted = expected_of(library, MEMBERS)
    assert node.attributes.inode == wanted.inode(".lists/bulk.zip")
    assert (node.attributes.size, node.attributes.mtime_ns) == (wanted.size, wanted.mtime_ns)
    version = await running.catalog.open(node)
    assert version.sealed.content == wanted.content_id
    assert await running.names("") == [".lists", "roms"]
    assert await running.names(".lists") == ["bulk.zip"]
    folder = await running.find(".lists")
    assert isinstance(folder, Folder)
    assert folder.attributes.mode == 0o040555 & ~0o022
    for missing in ("bulk", "bad", "bad.zip", "bulk.list", "notes.txt", "none.zip", ".zip"):
        assert not await running.is_there(f".lists/{missing}")
    await running.sealed("roms/final.zip")
    assert running.catalog.totals().archives == 2


async def test_lists_whose_names_look_like_archives(
    library: Path, lists: Path, running: Tree, stale: None
) -> None:
    """Each X.list is X.zip, whatever others are called; looked up anew each time."""
    names = ["a", "a.zip", "a (folder)", "a.list", "a.zip.zip"]
    for number, name in enumerate(names):
        write_list(lists / f"{name}.list", text_of(library, [(str(number), b"")]))
    for number, name in enumerate(names):
        node = await running.sealed(f".lists/{name}.zip")
        version = await running.catalog.open(node)
        assert version.layout.members[0].name.decode() == str(number)
    assert sorted(await running.names(".lists")) == sorted(f"{name}.zip" for name in names)


async def test_asked_for_before_it_is_listed(
    library: Path,
    lists: Path,
    tree: Tree,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S2: asking is enough for it to be hashed, first of all."""
    monkeypatch.setattr(tree.catalog.hasher, "run", trio.sleep_forever)
    assert not await tree.is_there(".lists/bulk.zip")
    write_list(lists / "bulk.list", text_of(library, MEMBERS))
    assert not await tree.is_there(".lists/bulk.zip")
    game = tree.game(".lists/bulk")
    assert game
    assert game.reseal
    assert game.reseal.asked
    nursery.start_soon(tree.catalog.run)
    await until(lambda: game.reseal and game.reseal.request)
    assert game.reseal.request
    assert {file.source for file in game.reseal.request.files} == {
        b"roms/final/disc 1.bin",
        b"roms/final/disc 2.bin",
        b"roms/solo.iso",
    }


async def test_noticed_when_told(
    library: Path,
    lists: Path,
    running: Tree,
    sealer: Sealer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown_at = sealer.library.watched()[os.fsencode(lists)]
    await until(lambda: running.games.is_scanned)
    text = text_of(library, MEMBERS)
    write_list(lists / "bulk.list", text)
    assert shown_at([b"x.list", b"y", b".list", b""]) == {b".lists/x", b".lists"}
    running.catalog.changed(shown_at([b"bulk.list", b".bulk.list.tmp"]))
    await until(lambda: running.games.by_archive(b".lists/bulk.zip"))
    before = await running.archive(".lists/bulk.zip")
    unpublished: list[bytes] = []
    monkeypatch.setattr(running.games, "_unpublished", unpublished.append)
    (lists / "bulk.list").unlink()
    running.catalog.changed([LIST])
    await until(lambda: running.games.by_archive(b".lists/bulk.zip") is None)
    assert unpublished == [b".lists/bulk.zip"]
    with pytest.raises(StaleError):
        await running.catalog.open(before)
    # Back again, and nothing is hashed for it.
    write_list(lists / "bulk.list", text)
    running.catalog.changed([LIST])
    after = (await running.sealed(".lists/bulk.zip")).attributes
    assert after._replace(ctime_ns=before.attributes.ctime_ns) == before.attributes


async def test_another_list_is_another_version_after_a_gap(
    library: Path, lists: Path, running: Tree, clock: FakeTime, monkeypatch: pytest.MonkeyPatch,
    stale: None,
) -> None:  # fmt: skip
    """V1, V4: and nobody is led from one to the other."""
    monkeypatch.setattr(game_module, "time", clock)
    clock.frozen = time.monotonic()
    write_list(lists / "bulk.list", text_of(library, MEMBERS))
    before = await running.sealed(".lists/bulk.zip")
    (lists / "bulk.list").write_bytes(text_of(library, MEMBERS[:2]))
    assert not await running.is_there(".lists/bulk.zip")
    assert not await running.is_there(".lists/bulk.zip")
    clock.frozen += SETTLE
    after = await running.sealed(".lists/bulk.zip")
    assert after.attributes.inode != before.attributes.inode
    assert after.attributes.mtime_ns // 10**9 != before.attributes.mtime_ns // 10**9


async def test_the_walk_finds_and_forgets(
    library: Path, lists: Path, running: Tree, stale: None
) -> None:
    for number in range(50):
        write_list(lists / f"{number}.list", text_of(library, [(f"{number}", "roms/solo.iso")]))
    running.catalog.rescan()
    await until(lambda: running.catalog.totals().archives == 51)
    assert len(await running.names(".lists")) == 50
    for number in range(50):
        (lists / f"{number}.list").unlink()
    running.catalog.rescan()
    await until(lambda: running.catalog.totals().archives == 1)
    assert await running.names(".lists") == []


async def test_the_folder_goes_and_comes(
    library: Path, lists: Path, running: Tree, stale: None
) -> None:
    write_list(lists / "bulk.list", text_of(library, MEMBERS))
    await running.sealed(".lists/bulk.zip")
    aside = lists.with_name("aside")
    shutil.move(lists, aside)
    assert await running.names("") == ["roms"]
    assert not await running.is_there(".lists")
    shutil.move(aside, lists)
    assert await running.names(".lists") == ["bulk.zip"]


async def test_what_is_kept_of_a_list_is_small(library: Path, lists: Path, running: Tree) -> None:
    """No parsed form: of a list that nobody has open there is what there is of a game."""
    members: list[Wanted] = [(f"n{number}", "roms/solo.iso") for number in range(1000)]
    write_list(lists / "bulk.list", text_of(library, members))
    await until(lambda: running.games.by_archive(b".lists/bulk.zip"))
    assert len(running.games.versions) == 0
    game = running.game(".lists/bulk")
    assert game
    await until(lambda: game.reseal is None)
    assert game.examination
    assert not isinstance(game.examination, ListScan)
    assert isinstance(game.outcome, Sealed)


def test_nothing_here_is_plain(library: Path, lists: Path, sealer: Sealer) -> None:
    write_list(lists / "bulk.list", text_of(library, [("a", b"A")]))
    assert not isinstance(outcome_of(sealer), Plain)
    assert isinstance(outcome_of(sealer), Sealed)
