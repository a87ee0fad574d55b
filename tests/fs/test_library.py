"""The library as it is looked at (DESIGN H2, H3): links, what isn't a file, what can't be read."""

from __future__ import annotations

import os
import socket
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fs.lab import NOBODY, open_below, root_only, unprivileged
from tests.support.libraries import make_file, make_game
from zipfs.errors import LibraryError
from zipfs.library.filestate import FileState
from zipfs.library.library import MAX_LINKED_FOLDERS, Library
from zipfs.library.rules.general import Selection
from zipfs.library.scan import Entry, FolderScan, GameScan, LeftOut, SourceFile
from zipfs.library.view import find_games
from zipfs.system.permissions import Access, behind, common_access, grants_us

ALL = Selection((b"*/*",))


@pytest.fixture(autouse=True)
def nothing_stays_open(library: Path) -> Iterator[None]:
    yield
    assert open_below(library) == []


def status(mode: int, uid: int = 0, gid: int = 0) -> os.stat_result:
    return os.stat_result((mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))


def paths(scan: GameScan) -> list[bytes]:
    return [file.path for file in scan.files]


def reasons(scan: GameScan) -> dict[bytes, str]:
    return dict(scan.left_out)


# -- The folder itself ---------------------------------------------------------------


def test_a_library_has_to_be_a_readable_folder(place: Path) -> None:
    (place / "file").touch()
    (place / "closed").mkdir(mode=0o300)
    for name, text in {"none": "No such file", "file": "isn't a folder"}.items():
        with pytest.raises(LibraryError, match=text):
            Library(str(place / name))
    with unprivileged(), pytest.raises(LibraryError, match="Permission denied"):
        Library(str(place / "closed"))


def test_a_library_by_way_of_links(library: Path, place: Path) -> None:
    make_file(library / "roms/a/1", b"x")
    (place / "alias").symlink_to(library)
    found = Library(str(place / "alias"))
    assert found.root == os.fsencode(library)
    assert isinstance(found.entry(b"roms/a/1"), Entry)


def test_the_root_of_the_system_can_be_a_library() -> None:
    found = Library("/")
    assert found.absolute(b"etc") == b"/etc"
    entry = found.entry(b"proc")
    assert isinstance(entry, Entry)
    assert entry.is_folder
    assert entry.source == b"proc"


def test_entries_are_in_the_order_of_their_bytes(library: Path) -> None:
    names = [b"b", b"B", b"a", "ä".encode(), b"\xff\xfe", b"a b", b"new\nline", b"%41"]
    for name in names:
        make_file(os.path.join(os.fsencode(library), name), b"")
    assert [name for name, _ in Library(str(library)).folder(b"")] == sorted(names)


def test_what_isnt_there(library: Path) -> None:
    make_file(library / "file", b"")
    found = Library(str(library))
    for path in (b"none", b"none/below", b"file/below"):
        assert found.entry(path) is None
        assert not found.exists(path)
        assert not found.has_folder(path)
    with pytest.raises(FileNotFoundError):
        found.folder(b"none")
    with pytest.raises(NotADirectoryError):
        found.folder(b"file")


# -- Links (H2) ----------------------------------------------------------------------


@pytest.fixture
def outside(place: Path) -> Path:
    make_file(place / "outside/secret", b"secret")
    return place / "outside"


LEAVING = {
    "absolute": "{outside}",
    "absolute, of a file": "{outside}/secret",
    "relative": "../../../outside",
    "by way of the library itself": "{library}/../outside",
    "through a link inside": "../hop/secret",
    "a name that begins like the library's": "{library}-2",
    "the folder above": "../../..",
    "the root": "/",
    "a process's own": "/proc/self/root",
}


@pytest.mark.parametrize("target", LEAVING.values(), ids=LEAVING)
def test_links_that_leave_the_library_are_left_out(
    target: str, library: Path, outside: Path
) -> None:
    make_file(library.with_name("library-2") / "secret", b"secret")
    make_game(library, "roms/game", {"1": b"1"})
    (library / "roms/hop").symlink_to(outside)
    link = library / "roms/game/link"
    link.symlink_to(target.format(outside=outside, library=library))
    found = Library(str(library))
    scan = found.scan(b"roms/game", ALL)
    assert paths(scan) == [b"1"]
    assert reasons(scan) == {b"roms/game/link": "a symbolic link that leaves the library"}
    assert found.entry(b"roms/game/link") == LeftOut(
        b"roms/game/link", "a symbolic link that leaves the library"
    )
    assert dict(found.folder(b"roms/game"))[b"link"] == found.entry(b"roms/game/link")
    assert found.exists(b"roms/game/link")  # so that no archive takes its name


def test_links_inside_count_as_what_they_lead_to(library: Path) -> None:
    make_game(library, "roms/game", {"1": b"1", "sub/2": b"22"})
    make_file(library / "store/3", b"333")
    make_file(library / "store/deep/4", b"4444")
    game = library / "roms/game"
    (game / "absolute").symlink_to(library / "store/3")
    (game / "relative").symlink_to("../../store/deep")
    (game / "chain").symlink_to("relative/4")
    (game / "same").symlink_to("1")
    scan = Library(str(library)).scan(b"roms/game", ALL)
    assert {file.path: file.source for file in scan.files} == {
        b"1": b"roms/game/1",
        b"sub/2": b"roms/game/sub/2",
        b"absolute": b"store/3",
        b"relative/4": b"store/deep/4",
        b"chain": b"store/deep/4",
        b"same": b"roms/game/1",
    }
    assert scan.left_out == ()
    assert scan.size == 1 + 2 + 3 + 4 + 4 + 1


@pytest.mark.parametrize(
    ("folders", "kept"),
    [
        ([(0o755, 1, 1), (0o111, 2, 2)], (0o644, 5, 6)),
        ([(0o700, 5, 6)], (0o400, 5, 6)),
        ([(0o755, 1, 1), (0o750, 5, 6)], (0o440, 5, 6)),
        ([(0o700, 7, 6)], (0o000, 0, 6)),
    ],
)
def test_what_is_left_behind_folders(
    folders: list[tuple[int, int, int]], kept: tuple[int, int, int]
) -> None:
    before = os.stat_result((stat.S_IFREG | 0o644, 1, 2, 1, 5, 6, 7, 8, 9, 10))
    after = behind(before, [status(stat.S_IFDIR | mode, *ids) for mode, *ids in folders])
    assert (stat.S_IMODE(after.st_mode), after.st_uid, after.st_gid) == kept
    assert stat.S_ISREG(after.st_mode)
    now = os.stat(__file__)
    folder = [status(stat.S_IFDIR | 0o700, now.st_uid, now.st_gid)]
    assert FileState.of(behind(now, folder)) == FileState.of(now)


def test_behind_a_folder_a_folder_can_be_entered_by_whom_it_can_be_listed() -> None:
    before = status(stat.S_IFDIR | 0o755, 5, 6)
    after = behind(before, [status(stat.S_IFDIR | 0o750, 5, 6)])
    assert after.st_mode == stat.S_IFDIR | 0o550


def test_links_to_nothing(library: Path) -> None:
    make_game(library, "roms/game", {"1": b"1"})
    game = library / "roms/game"
    (game / "dangling").symlink_to("none")
    (game / "through a file").symlink_to("1/none")
    (game / "self").symlink_to("self")
    (game / "ping").symlink_to("pong")
    (game / "pong").symlink_to("ping")
    scan = Library(str(library)).scan(b"roms/game", ALL)
    assert paths(scan) == [b"1"]
    assert reasons(scan) == {
        b"roms/game/dangling": "a symbolic link to nothing that can be reached",
        b"roms/game/through a file": "a symbolic link to nothing that can be reached",
        b"roms/game/self": "a symbolic link that leads to itself",
        b"roms/game/ping": "a symbolic link that leads to itself",
        b"roms/game/pong": "a symbolic link that leads to itself",
    }


@pytest.mark.parametrize("target", [".", "..", "../..", "../../..", "sub/..", "sub"])
def test_links_back_up(target: str, library: Path) -> None:
    make_game(library, "roms/game", {"1": b"1", "sub/2": b"2"})
    (library / "roms/game/sub/loop").symlink_to(target)
    scan = Library(str(library)).scan(b"roms/game", ALL)
    assert paths(scan) == [b"1", b"sub/2"]
    assert list(reasons(scan)) == [b"roms/game/sub/loop"]


def test_two_folders_that_link_to_each_other(library: Path) -> None:
    make_game(library, "roms/a", {"1": b"1"})
    make_game(library, "roms/b", {"2": b"2"})
    (library / "roms/a/to b").symlink_to("../b")
    (library / "roms/b/to a").symlink_to("../a")
    found = Library(str(library))
    assert paths(found.scan(b"roms/a", ALL)) == [b"1", b"to b/2"]
    assert paths(found.scan(b"roms/b", ALL)) == [b"2", b"to a/1"]


def walk(library: Library) -> list[bytes]:
    """All files of the tree as it is shown: a loop would never end."""
    found = []
    todo = [(b"", b"", frozenset[bytes]())]
    while todo:
        path, source, origins = todo.pop()
        for name, entry in library.folder(source, origins):
            child = path + b"/" + name
            if not isinstance(entry, Entry):
                continue
            if entry.is_folder:
                todo.append((child, entry.source, entry.origins))
            else:
                found.append(child)
        assert len(found) + len(todo) < 10_000
    return sorted(found)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "a", "b", "a/c", "b/d"]),
            st.sampled_from([".", "..", "a", "b", "a/c", "b/d", "b/l0", "a/l1"]),
        ),
        max_size=4,
    )
)
def test_no_links_make_the_tree_endless(
    tmp_path_factory: pytest.TempPathFactory, links: list[tuple[str, str]]
) -> None:
    root = tmp_path_factory.mktemp("loops")
    for folder in ("a/c", "b/d"):
        make_file(root / folder / "file", b"")
    for number, (folder, target) in enumerate(links):
        (root / folder / f"l{number}").symlink_to(root / target)
    library = Library(str(root))
    files = walk(library)
    assert {b"/a/c/file", b"/b/d/file"} <= set(files)
    assert len(list(find_games(library, Selection((b"**/c",))))) < 1000
    library.scan(b"a", ALL)


def test_so_many_links_deep(library: Path) -> None:
    for number in range(MAX_LINKED_FOLDERS + 2):
        make_file(library / f"{number}/file", b"")
        (library / f"{number}/next").symlink_to(f"../{number + 1}")
    scan = Library(str(library)).scan(b"0", ALL)
    assert paths(scan) == sorted(
        b"next/" * number + b"file" for number in range(MAX_LINKED_FOLDERS + 1)
    )
    assert len(scan.left_out) == 1
    assert "too many" in scan.left_out[0].reason


def test_a_folder_that_becomes_a_link_is_not_followed(library: Path, outside: Path) -> None:
    """Between two looks: what was a folder is a way out now."""
    make_game(library, "roms/game", {"1": b"1"})
    found = Library(str(library))
    (library / "roms/game").rename(library / "roms/old")
    (library / "roms/game").symlink_to(outside)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        found.folder(b"roms/game")


# -- Neither files nor folders -------------------------------------------------------


def test_special_files_are_left_out(library: Path) -> None:
    game = make_game(library, "roms/game", {"1": b"1"})
    os.mkfifo(game / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(game / "socket"))
    (game / "link").symlink_to("fifo")
    special = {b"fifo", b"socket", b"link"}
    if os.geteuid() == 0:
        os.mknod(game / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        special.add(b"device")
    found = Library(str(library))
    scan = found.scan(b"roms/game", ALL)
    assert paths(scan) == [b"1"]
    assert reasons(scan) == {
        b"roms/game/" + name: "not a file or folder but a device, socket or FIFO"
        for name in special
    }
    for name in special:
        assert isinstance(found.entry(b"roms/game/" + name), LeftOut)


def test_litter_is_not_even_mentioned(library: Path) -> None:
    game = make_game(library, "roms/game", {"1": b"1", ".DS_Store": b"", "@eaDir/2": b""})
    (game / "Thumbs.db").symlink_to("none")
    scan = Library(str(library)).scan(b"roms/game", ALL)
    assert paths(scan) == [b"1"]
    assert scan.left_out == ()


# -- What can't be read --------------------------------------------------------------


def test_files_and_folders_that_cant_be_read(library: Path) -> None:
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2", "sub/3": b"3", "list/4": b"4"})
    (game / "2").chmod(0o000)
    (game / "sub").chmod(0o000)
    (game / "list").chmod(0o444)  # its names can be read, and nothing of what they stand for
    found = Library(str(library))
    try:
        with unprivileged():
            scan = found.scan(b"roms/game", ALL)
            assert paths(scan) == [b"1"]
            assert reasons(scan) == {
                b"roms/game/2": "a file that can't be read",
                b"roms/game/sub": "a folder that can't be read",
                b"roms/game/list": "a folder that can't be read",
            }
            assert not found.has_folder(b"roms/game/sub/below")
            with pytest.raises(PermissionError):
                found.entry(b"roms/game/sub/3")
    finally:
        for name in ("sub", "list"):
            (game / name).chmod(0o755)


def test_a_game_that_cant_be_listed_has_no_scan(library: Path) -> None:
    """Otherwise it were empty, and shown as a folder with nothing in it."""
    game = make_game(library, "roms/game", {"1": b"1"})
    game.chmod(0o000)
    with unprivileged(), pytest.raises(PermissionError):
        Library(str(library)).scan(b"roms/game", ALL)
    game.chmod(0o755)


def test_a_game_that_isnt_there_has_no_scan(library: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Library(str(library)).scan(b"roms/game", ALL)
    make_file(library / "roms/game", b"")
    with pytest.raises(NotADirectoryError):
        Library(str(library)).scan(b"roms/game", ALL)


def test_half_a_game_is_none(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An I/O error in a sub-folder must not leave an archive of the rest."""
    make_game(library, "roms/game", {"1": b"1", "2": b"2", "sub/3": b"3"})
    found = Library(str(library))
    look = found.listed

    def failing(source: bytes, *rest: frozenset[bytes]) -> object:
        if source.endswith(b"sub"):
            raise OSError(5, "Input/output error")
        return look(source, *rest)

    monkeypatch.setattr(found, "listed", failing)
    with pytest.raises(OSError, match="Input/output"):
        found.scan(b"roms/game", ALL)


@root_only
@pytest.mark.parametrize(
    ("mode", "uid", "gid", "may"),
    [
        (0o444, 0, 0, True),
        (0o440, 0, 0, False),
        (0o004, 0, 0, True),
        (0o400, NOBODY, 0, True),
        (0o044, NOBODY, 0, False),  # the owner's bits are the only ones that count for him
        (0o040, 0, NOBODY, True),
        (0o404, 0, NOBODY, False),
        (0o000, NOBODY, NOBODY, False),
    ],
)
def test_who_may_read(mode: int, uid: int, gid: int, may: bool) -> None:
    found = status(stat.S_IFREG | mode, uid, gid)
    assert grants_us(found)  # root may
    with unprivileged():
        assert grants_us(found) == may


@root_only
def test_a_file_that_an_access_control_list_grants(library: Path) -> None:
    """As on many a NAS: the permission bits alone say no."""
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    for name in ("1", "2"):
        (game / name).chmod(0o640)
    # acl(5): the owner rw, one more user r, the group nothing, at most r, others nothing.
    nobody = 0xFFFFFFFF
    entries = [(1, 6, nobody), (2, 4, NOBODY), (4, 0, nobody), (16, 4, nobody), (32, 0, nobody)]
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(game / "1", "system.posix_acl_access", value)
    except OSError as error:
        pytest.skip(f"no access control lists on this file system: {error.strerror}")
    with unprivileged():
        scan = Library(str(library)).scan(b"roms/game", ALL)
    assert paths(scan) == [b"1"]
    assert reasons(scan) == {b"roms/game/2": "a file that can't be read"}


# -- Access (H3) ---------------------------------------------------------------------

FILE, FOLDER = stat.S_IFREG, stat.S_IFDIR

ACCESS: dict[str, tuple[list[tuple[int, int, int]], Access]] = {
    "all alike": (
        [(FOLDER | 0o755, 7, 8), (FILE | 0o644, 7, 8)],
        Access(0o444, 7, 8),
    ),
    "one private file": (
        [(FOLDER | 0o755, 7, 8), (FILE | 0o644, 7, 8), (FILE | 0o600, 7, 8)],
        Access(0o400, 7, 8),
    ),
    "for the group": (
        [(FOLDER | 0o750, 7, 8), (FILE | 0o640, 7, 8)],
        Access(0o440, 7, 8),
    ),
    "a folder only to be listed": (
        [(FOLDER | 0o744, 7, 8), (FILE | 0o644, 7, 8)],
        Access(0o400, 7, 8),
    ),
    "a folder only to be entered": (
        [(FOLDER | 0o711, 7, 8), (FILE | 0o644, 7, 8)],
        Access(0o400, 7, 8),
    ),
    "to be listed one, to be entered the other": (
        [(FOLDER | 0o754, 7, 8), (FOLDER | 0o751, 7, 8), (FILE | 0o644, 7, 8)],
        Access(0o440, 7, 8),
    ),
    "not for the owner": (
        [(FOLDER | 0o755, 7, 8), (FILE | 0o044, 7, 8)],
        Access(0o044, 7, 8),
    ),
    "executables": (
        [(FOLDER | 0o755, 7, 8), (FILE | 0o755, 7, 8)],
        Access(0o444, 7, 8),
    ),
    "set-user-id, sticky": (
        [(FOLDER | 0o1777, 7, 8), (FILE | 0o6755, 7, 8)],
        Access(0o444, 7, 8),
    ),
    "nobody at all": (
        [(FOLDER | 0o755, 7, 8), (FILE | 0o000, 7, 8)],
        Access(0, 7, 8),
    ),
    "two owners, public": (
        [(FOLDER | 0o755, 7, 8), (FILE | 0o644, 9, 8)],
        Access(0o444, 0, 8),
    ),
    "two owners, each his own": (
        [(FOLDER | 0o755, 7, 8), (FILE | 0o600, 9, 8)],
        Access(0, 0, 8),
    ),
    "two owners, one group": (
        [(FOLDER | 0o750, 7, 8), (FILE | 0o640, 9, 8)],
        Access(0o040, 0, 8),
    ),
    # One of the group is the owner, whose own bits are the only ones that count for him.
    "two owners, and one not for his owner": (
        [(FOLDER | 0o755, 7, 8), (FILE | 0o044, 9, 8)],
        Access(0, 0, 8),
    ),
    "two groups, and one not for its group": (
        [(FOLDER | 0o755, 7, 8), (FILE | 0o604, 7, 9)],
        Access(0o400, 7, 0),
    ),
    "two groups, public": (
        [(FOLDER | 0o755, 7, 8), (FILE | 0o644, 7, 9)],
        Access(0o444, 7, 0),
    ),
    "two groups, each its own": (
        [(FOLDER | 0o750, 7, 8), (FILE | 0o640, 7, 9)],
        Access(0o400, 7, 0),
    ),
    "owner and group differ": (
        [(FOLDER | 0o755, 7, 8), (FILE | 0o644, 9, 9)],
        Access(0o444, 0, 0),
    ),
}


@pytest.mark.parametrize("case", ACCESS)
def test_the_access_that_all_parts_grant(case: str) -> None:
    parts, expected = ACCESS[case]
    assert common_access([status(*part) for part in parts]) == expected
    assert common_access([status(*part) for part in reversed(parts)]) == expected


MODES = st.integers(0, 0o777)
IDS = st.integers(0, 3)


def grants(access: tuple[int, int, int], user: int, groups: set[int], bit: int) -> bool:
    """What the kernel answers to somebody who isn't root."""
    mode, uid, gid = access
    if user == uid:
        return bool(mode & bit << 6)
    if gid in groups:
        return bool(mode & bit << 3)
    return bool(mode & bit)


@given(
    st.lists(st.tuples(st.booleans(), MODES, IDS, IDS), min_size=1, max_size=4),
    st.integers(1, 3),
    st.sets(st.integers(1, 3)),
)
def test_nobody_may_read_more_than_at_the_source(
    parts: list[tuple[bool, int, int, int]], user: int, groups: set[int]
) -> None:
    """H3, for each user in any groups: what the archive grants, each part grants."""
    access = common_access(
        [status((FOLDER if folder else FILE) | mode, uid, gid) for folder, mode, uid, gid in parts]
    )
    assert access.mode & ~0o444 == 0
    if grants(access, user, groups, 4):
        for folder, mode, uid, gid in parts:
            assert grants((mode, uid, gid), user, groups, 4)
            assert not folder or grants((mode, uid, gid), user, groups, 1)


def test_the_access_of_a_game_counts_its_folders(library: Path) -> None:
    game = make_game(library, "roms/game", {"1": b"1", "sub/2": b"2"})
    found = Library(str(library))
    before = found.scan(b"roms/game", ALL)
    assert before.access.mode == 0o444
    (game / "sub").chmod(0o711)
    after = found.scan(b"roms/game", ALL)
    assert after.access.mode == 0o400
    assert after.fingerprint() != before.fingerprint()


# -- Scans ---------------------------------------------------------------------------


def test_a_scan_is_the_same_for_the_same(library: Path) -> None:
    game = make_game(library, "roms/game", {f"{number}": b"x" for number in range(50)})
    found = Library(str(library))
    first = found.scan(b"roms/game", ALL)
    assert first == found.scan(b"roms/game", ALL)
    seen = {first.fingerprint()}
    for change in (
        lambda: (game / "sub").mkdir(mode=0o711),
        lambda: (game / "1").write_bytes(b"y"),
        lambda: (game / "1").chmod(0o600),
        lambda: (game / "2").rename(game / "two"),
        (game / "3").unlink,
        lambda: os.utime(game / "4", ns=(0, 1)),
    ):
        change()
        seen.add(found.scan(b"roms/game", ALL).fingerprint())
    assert len(seen) == 7


def test_names_that_run_together_are_told_apart(library: Path) -> None:
    state = FileState(1, 2, 3, 4)
    access = Access(0o444, 0, 0)
    status = os.stat(library)
    prints = {
        FolderScan(
            game=b"game",
            files=(SourceFile(path, source, state),),
            access=access,
            changed_ns=0,
            written_ns=0,
            status=status,
        ).fingerprint()
        for path, source in [(b"ab", b"c"), (b"a", b"bc"), (b"abc", b""), (b"a", b"b 2 c")]
    }
    assert len(prints) == 4


def test_when_a_game_last_changed(library: Path) -> None:
    game = make_game(library, "roms/game", {"1": b"1", "sub/2": b"2"})
    scan = Library(str(library)).scan(b"roms/game", ALL)
    everything = [game, game / "1", game / "sub", game / "sub/2"]
    assert scan.changed_ns == max(path.stat().st_ctime_ns for path in everything)
    os.utime(game / "sub", ns=(0, 1 << 62))
    assert Library(str(library)).scan(b"roms/game", ALL).changed_ns == 1 << 62


def test_dates_beyond_64_bits(library: Path) -> None:
    """ext4 knows them up to 2446, XFS up to 2486; 64 bits of nanoseconds end in 2262."""
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    os.utime(game / "1", (0, 14_000_000_000))
    if (game / "1").stat().st_mtime_ns < 1 << 63:
        pytest.skip("no such dates on this file system")
    scan = Library(str(library)).scan(b"roms/game", ALL)
    assert scan.files[0].state.mtime_ns == (1 << 63) - 1
    assert len(scan.fingerprint()) == 16


def test_fifteen_hundred_folders_deep(library: Path) -> None:
    os.makedirs(library / "roms/game")
    make_file(library / "roms/game/1", b"1")
    deep = os.open(library / "roms/game", os.O_RDONLY)
    try:
        for _ in range(1500):
            os.mkdir("d", dir_fd=deep)
            below = os.open("d", os.O_RDONLY, dir_fd=deep)
            os.close(deep)
            deep = below
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=deep))
    finally:
        os.close(deep)
    scan = Library(str(library)).scan(b"roms/game", ALL)
    assert sorted(map(len, paths(scan))) == [1, 1500 * 2 + 4]
    # Python's own rmtree is recursive, and the fixture's.
    subprocess.run(["rm", "-rf", "--", str(library / "roms")], check=True)


def test_deeper_than_a_path_can_say(library: Path) -> None:
    """PATH_MAX is 4096 bytes, and no limit to how deep a folder can be."""
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    deep = os.open(library / "roms/game", os.O_RDONLY)
    try:
        for _ in range(20):
            os.mkdir("d" * 250, dir_fd=deep)
            below = os.open("d" * 250, os.O_RDONLY, dir_fd=deep)
            os.close(deep)
            deep = below
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=deep))
    finally:
        os.close(deep)
    found = Library(str(library))
    folder = b"roms/game/" + b"/".join([b"d" * 250] * 20)
    assert sorted(map(len, paths(found.scan(b"roms/game", ALL)))) == [1, 1, 20 * 251 + 4]
    assert found.has_folder(folder)
    assert found.exists(folder + b"/file")
    assert not found.exists(folder + b"/nothing")
    assert found.names(folder) == [b"file"]
    assert found.entry(folder + b"/nothing") is None
    assert len(list(find_games(found, ALL))) == 1


# -- Games ---------------------------------------------------------------------------


def test_games_by_their_place(library: Path) -> None:
    for name in ("roms/a", "roms/b", "other/c", "@eaDir/d", "roms/#recycle"):
        make_game(library, name, {"1": b"1"})
    make_file(library / "roms/file", b"")
    (library / "roms/link").symlink_to("a")
    (library / "linked").symlink_to("roms")
    (library / "loop").symlink_to(".")
    found = {path: entry.source for path, entry in find_games(Library(str(library)), ALL)}
    assert found == {
        b"roms/a": b"roms/a",
        b"roms/b": b"roms/b",
        b"roms/link": b"roms/a",
        b"other/c": b"other/c",
        b"linked/a": b"roms/a",
        b"linked/b": b"roms/b",
        b"linked/link": b"roms/a",
    }


def test_folders_that_cant_be_listed_hide_no_others(library: Path) -> None:
    make_game(library, "closed/a", {"1": b"1"})
    make_game(library, "open/b", {"1": b"1"})
    (library / "closed").chmod(0o000)
    found = Library(str(library))
    with unprivileged():
        assert [path for path, _ in find_games(found, ALL)] == [b"open/b"]
    (library / "closed").chmod(0o755)
