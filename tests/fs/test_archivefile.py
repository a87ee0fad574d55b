"""``zipfs.open_archive``: an archive as a file object, of folders on a real disk."""

from __future__ import annotations

import copy
import errno
import hashlib
import io
import logging
import os
import pickle
import shutil
import threading
import zipfile
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zipfs
from tests.fs.lab import Progress, open_below, root_only, unprivileged
from tests.strictzip import read_archive
from tests.support.libraries import content, expected, make_file, make_game, tree
from tests.support.waiting import SECONDS
from zipfs.errors import ChangedError as AnyChangedError
from zipfs.index import hash_file
from zipfs.index.index import Index
from zipfs.library import vouching
from zipfs.library.filestate import BLOCK, MIN_SETTLE
from zipfs.sealing import archivefile, offline
from zipfs.sealing.archivefile import KEPT_OPEN

FILES: dict[str, bytes | int] = {
    "a.bin": content(3 * BLOCK + 77, 1),
    "disc/b.bin": content(70_000, 2),
    "disc/empty": b"",
    "z": b"z",
}


def opened(folder: Path, **options: object) -> zipfs.ArchiveFile:
    return zipfs.open_archive(folder, **({"settle": MIN_SETTLE} | options))  # type: ignore[arg-type]


@pytest.fixture
def game(library: Path) -> Path:
    return make_game(library, "roms/psx/game", FILES)


@pytest.fixture
def archive(game: Path) -> Iterator[zipfs.ArchiveFile]:
    with opened(game) as archive:
        yield archive
    assert not open_below(game)


@pytest.fixture
def whole(game: Path) -> bytes:
    return expected(game).read(0, 1 << 40)


# -- What it is ------------------------------------------------------------------------------


def test_attributes(game: Path, archive: zipfs.ArchiveFile) -> None:
    wanted = expected(game)
    assert archive.name == "game.zip"
    assert archive.size == wanted.size
    assert archive.mtime_ns == wanted.mtime_ns
    assert archive.mtime == wanted.mtime_ns // 10**9
    assert archive.etag == f'"{archive.mtime:x}-{archive.size:x}"'
    assert archive.content_id == f"{wanted.content_id:032x}"
    assert archive.members == wanted.layout.members
    assert (archive.left_out, archive.renamed) == ((), {})
    assert "game.zip" in repr(archive)
    assert archive.readable()
    assert archive.seekable()
    assert not archive.writable()
    assert not archive.isatty()
    assert isinstance(archive, io.RawIOBase)


def test_nothing_is_written(game: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    before = tree(place)
    with opened(game) as archive:
        archive.read()
    assert tree(place) == before


def test_all_of_it(archive: zipfs.ArchiveFile, whole: bytes) -> None:
    assert archive.read() == whole
    assert archive.read() == b""
    assert len(read_archive(archive, check_data=True)) == len(FILES)


def test_zipfile_reads_it(archive: zipfs.ArchiveFile) -> None:
    with zipfile.ZipFile(archive) as found:
        assert found.testzip() is None
        assert {info.filename: found.read(info) for info in found.infolist()} == FILES
    assert not archive.closed  # it isn't zipfile's to close


@pytest.mark.parametrize("piece", [1000, 65536, 1 << 20, -1])
def test_it_is_copied(archive: zipfs.ArchiveFile, whole: bytes, piece: int) -> None:
    target = io.BytesIO()
    shutil.copyfileobj(archive, target, piece)
    assert target.getvalue() == whole


def test_the_usual_helpers(archive: zipfs.ArchiveFile, whole: bytes) -> None:
    assert hashlib.file_digest(archive, "sha256").digest() == hashlib.sha256(whole).digest()
    archive.seek(0)
    with io.BufferedReader(archive) as buffered:
        assert buffered.peek(4)[:4] == b"PK\x03\x04"
        assert buffered.read() == whole
    assert archive.closed


def test_one_file_is_enough(library: Path) -> None:
    game = make_game(library, "one", {"only": b"1"})
    with opened(game) as archive:
        assert archive.read() == expected(game).read(0, archive.size)


def test_litter_is_left_out(library: Path) -> None:
    game = make_game(library, "g", {"1": b"1", ".DS_Store": b"x", "@eaDir/x": b"x"})
    with opened(game) as archive:
        assert [member.name for member in archive.members] == [b"1"]


def test_what_belongs_is_chosen_as_by_the_mount(library: Path, place: Path) -> None:
    files = {"1": b"1", "1.nfo": b"x", "@eaDir/x": b"x", ".DS_Store": b"x", "s.tmp": b"x"}
    game = make_game(library, "roms/psx/G", files)
    config = place / "config.yml"
    config.write_text("exclude: {roms: {multi_file: {parts: {extensions: [nfo]}}}}\n")
    for options, names in [
        ({}, {b"1", b"1.nfo", b"s.tmp"}),
        ({"exclude": ["*.nfo", "G/s.*"]}, {b"1"}),
        ({"library": library, "exclude": ["roms/*/*/s.*"]}, {b"1", b"1.nfo"}),
        ({"include": ["@eaDir"]}, {b"1", b"1.nfo", b"s.tmp", b"@eaDir/x"}),
        ({"selection": "romm"}, {b"1", b"1.nfo", b"@eaDir/x"}),
        ({"selection": "romm", "romm_config": config}, {b"1", b"@eaDir/x"}),
    ]:
        with opened(game, **options) as archive:
            assert {member.name for member in archive.members} == names, options
    config.write_text("exclude: 7\n")
    with pytest.raises(zipfs.ConfigError, match="exclude"):
        opened(game, selection="romm", romm_config=config)


def test_the_styles(library: Path) -> None:
    game = make_game(library, "g", {"a?": b"1", "A:": b"2", "plain": b"3"})
    (game / "d:/e?").mkdir(parents=True)
    (game / "plain").chmod(0o755)
    with opened(game) as archive:
        assert archive.renamed == {b"A:": b"A%3A", b"d:/e?": b"d%3A/e?/"}
        assert not any(member.executable for member in archive.members)
    with opened(game, portable_names=True, timestamps="fixed", execute_bits=True) as archive:
        assert archive.renamed == {
            b"A:": b"A%3A",
            b"a?": b"a%3F",
            b"d:/e?": b"d%3A/e%3F/",
        }
        assert {member.mtime for member in archive.members} == {315_619_200}
        assert [member.name for member in archive.members if member.executable] == [b"plain"]
        wanted = archive.read()
        assert (len(wanted), wanted.count(b"PK\1\2")) == (archive.size, 4)


def test_playlists(library: Path) -> None:
    """A member that is in no file, where the mount has one."""
    game = make_game(library, "roms/psx/G", {"1.chd": b"one", "2.chd": b"two"})
    playlist = b"1.chd\n2.chd\n"
    for options, wanted in [
        ({}, None),
        ({"platform": "psx"}, playlist),
        ({"platform": "nes"}, None),
        ({"platform": "nes", "playlist_platforms": ["default,nes"]}, playlist),
        ({"platform": "nes", "playlist_platforms": ["nes"]}, playlist),
        ({"library": library}, playlist),
        ({"library": library, "playlists": "off"}, None),
        ({"library": library, "games": ["*/psx/*"]}, None),
        ({"library": library, "games": ["roms/{platform}/*"]}, playlist),
        ({"playlists": "romm"}, playlist[:-1]),
    ]:
        added = None if wanted is None else ("G.m3u", wanted)
        model = expected(game, playlist=added)
        with opened(game, **options) as archive:  # type: ignore[arg-type]
            assert archive.name == "G.zip"
            assert archive.mtime_ns == model.mtime_ns
            assert archive.read() == model.read(0, model.size)
            assert archive.renamed == {}


@pytest.mark.parametrize("name", [".", "..", "link", "relative"])
def test_ways_to_name_a_folder(
    name: str, game: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (game.parent / "link").symlink_to(game)
    where = {".": game, "..": game / "disc", "link": game.parent, "relative": game.parent}
    monkeypatch.chdir(where[name])
    for kind in (str, os.fsencode, Path):
        with opened(kind("game" if name == "relative" else name)) as archive:  # type: ignore[operator]
            assert archive.name == ("link.zip" if name == "link" else "game.zip")
            assert archive.read() == whole


# -- A file like any other -------------------------------------------------------------------


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_it_behaves_like_a_file_of_these_bytes(
    archive: zipfs.ArchiveFile, whole: bytes, data: st.DataObject
) -> None:
    """B3: any sequence of seeks and reads gives what ``BytesIO`` gives."""
    model = io.BytesIO(whole)
    archive.seek(0)
    places = st.one_of(
        st.integers(-(1 << 12), len(whole) + 4096),
        st.sampled_from([0, len(whole), 1 << 59, -len(whole), -len(whole) - 1]),
    )
    lengths = st.one_of(st.integers(0, 300), st.integers(0, 3 * BLOCK))
    for _ in range(data.draw(st.integers(1, 8))):
        kind = data.draw(st.sampled_from(["seek", "read", "readinto", "read_at"]))
        if kind == "seek":
            offset, whence = data.draw(places), data.draw(st.integers(0, 2))
            base = (0, model.tell(), len(whole))[whence]
            if base + offset < 0:
                with pytest.raises(OSError, match="would be negative"):
                    archive.seek(offset, whence)
            else:
                assert archive.seek(offset, whence) == model.seek(base + offset)
        elif kind == "read":
            length = data.draw(st.one_of(lengths, st.sampled_from([-1, None])))
            assert archive.read(length) == model.read(length)
        elif kind == "readinto":
            length = data.draw(lengths)
            mine, theirs = bytearray(length), bytearray(length)
            assert archive.readinto(mine) == model.readinto(theirs)
            assert mine == theirs
        else:
            offset, length = abs(data.draw(places)), data.draw(lengths)
            assert archive.read_at(offset, length) == whole[offset : offset + length]
        assert archive.tell() == model.tell()


def test_buffers_of_other_kinds(archive: zipfs.ArchiveFile, whole: bytes) -> None:
    numbers = array("I", bytes(4000))
    assert archive.readinto(numbers) == 4000
    assert numbers.tobytes() == whole[:4000]
    assert archive.readinto(array("I")) == 0
    with pytest.raises(TypeError):
        archive.readinto(b"1234")
    assert archive.tell() == 4000


def test_what_cant_be_done(archive: zipfs.ArchiveFile) -> None:
    refused: list[tuple[type[Exception], Callable[[], object]]] = [
        (ValueError, lambda: archive.read_at(-1, 1)),
        (ValueError, lambda: archive.read_at(0, -1)),
        (ValueError, lambda: archive.seek(0, 3)),
        (TypeError, lambda: archive.seek(1.5)),  # type: ignore[arg-type]
        (io.UnsupportedOperation, lambda: archive.write(b"")),
        (io.UnsupportedOperation, lambda: archive.truncate(0)),
        (io.UnsupportedOperation, archive.fileno),
        (TypeError, lambda: pickle.dumps(archive)),
        (TypeError, lambda: copy.copy(archive)),
        (TypeError, lambda: copy.deepcopy(archive)),
    ]
    for kind, call in refused:
        with pytest.raises(kind):
            call()
    assert archive.tell() == 0


def test_closed(game: Path) -> None:
    archive = opened(game)
    archive.read(1 << 20)
    assert open_below(game)
    archive.close()
    archive.close()
    assert archive.closed
    assert not open_below(game)
    calls: list[Callable[[], object]] = [
        archive.read, archive.tell, archive.readable, archive.seekable, archive.__enter__,
        lambda: archive.read_at(0, 1), lambda: archive.readinto(bytearray(1)),
        lambda: archive.seek(0),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ValueError, match="closed file"):
            call()


def test_forgotten(game: Path) -> None:
    archive = opened(game)
    archive.read(1 << 20)
    del archive
    assert not open_below(game)


# -- Threads, and few open files (R4) --------------------------------------------------------


def test_threads_share_one(archive: zipfs.ArchiveFile, whole: bytes) -> None:
    def read(seed: int) -> None:
        for step in range(60):
            offset = (seed * 7_919_317 + step * 611_953) % len(whole)
            length = (seed * 31 + step * 4099) % 200_000
            assert archive.read_at(offset, length) == whole[offset : offset + length]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(16)))
    assert archive.tell() == 0


def test_threads_take_turns_at_the_position(archive: zipfs.ArchiveFile, whole: bytes) -> None:
    def read(_: int) -> list[bytes]:
        return list(iter(lambda: archive.read(4096), b""))

    with ThreadPoolExecutor(4) as pool:
        pieces = [piece for found in pool.map(read, range(4)) for piece in found]
    assert sorted(pieces) == sorted(whole[n : n + 4096] for n in range(0, len(whole), 4096))


@pytest.mark.parametrize("threads", [1, 8, 30])
def test_open_files_are_bounded(
    threads: int, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    game = make_game(library, "g", {f"{n:04}": content(n % 50, n) for n in range(5000)})
    wanted = expected(game)
    archive = opened(game)
    whole = wanted.read(0, wanted.size)
    most = 0
    read_source = archivefile.read_source

    def watched(*arguments: object) -> None:
        nonlocal most
        most = max(most, len(open_below(game)))
        read_source(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(archivefile, "read_source", watched)

    def read(thread: int) -> None:
        start, end = (len(whole) * part // threads for part in (thread, thread + 1))
        for offset in range(start, end, 3011):
            length = min(3011, end - offset)
            assert archive.read_at(offset, length) == whole[offset : offset + length]

    with archive, ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, range(threads)))
        assert 1 < most <= KEPT_OPEN + threads
        assert len(open_below(game)) == KEPT_OPEN
    assert not open_below(game)


def test_closing_while_others_read(
    game: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is being read is read to its end, and closed then."""
    archive = opened(game)
    begun, go_on = threading.Event(), threading.Event()
    read_source = archivefile.read_source

    def waiting(*arguments: object) -> None:
        begun.set()
        assert go_on.wait(SECONDS)
        read_source(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(archivefile, "read_source", waiting)
    with ThreadPoolExecutor(1) as pool:
        reading_it = pool.submit(archive.read_at, 100, 1000)
        assert begun.wait(SECONDS)
        archive.close()
        assert len(open_below(game)) == 1
        go_on.set()
        assert reading_it.result() == whole[100:1100]
    assert not open_below(game)


def test_two_threads_open_the_same_file(
    game: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2, timeout=SECONDS)
    open_file = archivefile.open_file

    def together(*arguments: object, **options: object) -> int:
        both.wait()
        return open_file(*arguments, **options)  # type: ignore[arg-type]

    with opened(game) as archive:
        monkeypatch.setattr(archivefile, "open_file", together)
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(archive.read_at, [100, 200], [1000, 1000]))
        assert found == [whole[100:1100], whole[200:1200]]
        assert len(open_below(game)) == 1


@pytest.mark.large
@pytest.mark.timeout(600)
def test_70_000_members(library: Path) -> None:
    """ZIP64 by their number; and each is found."""
    game = make_game(library, "g", {f"{n:05}": b"%05d" % n for n in range(70_000)})
    with opened(game) as archive:
        assert len(archive.members) == 70_000
        with zipfile.ZipFile(archive) as found:
            names = found.namelist()
            assert len(names) == 70_000
            for name in names[::1009]:
                assert found.read(name) == name.encode()
        assert len(open_below(game)) <= KEPT_OPEN


# -- Never a wrong byte (R1, R2) -------------------------------------------------------------

DATA = FILES["a.bin"]
assert isinstance(DATA, bytes)


def write(file: Path, data: bytes, *, old_date: bool) -> None:
    before = file.stat()
    with open(file, "r+b") as stream:
        stream.write(data)
    if old_date:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(content(file.stat().st_size, "other"))
    other.rename(file)


CHANGES: dict[str, Callable[[Path], object]] = {
    "rewritten": lambda file: write(file, b"other", old_date=False),
    "rewritten, its date put back": lambda file: write(file, b"other", old_date=True),
    "cut off": lambda file: os.truncate(file, 100),
    "grown": lambda file: os.truncate(file, file.stat().st_size + 1),
    "dated": lambda file: os.utime(file, ns=(0, 0)),
}
GONE: dict[str, Callable[[Path], object]] = {
    "replaced": replace,
    "deleted": lambda file: file.unlink(),
    "renamed": lambda file: file.rename(file.with_name("renamed")),
    "a folder now": lambda file: (file.unlink(), file.mkdir()),
    "a FIFO now": lambda file: (file.unlink(), os.mkfifo(file)),
    "a link now": lambda file: (file.rename(file.with_name("x")), file.symlink_to("x")),
}


@pytest.mark.parametrize("touched", [True, False], ids=["open", "not open"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_an_error(
    change: str, touched: bool, game: Path, archive: zipfs.ArchiveFile, whole: bytes
) -> None:
    if touched:
        archive.read(1000)
        archive.seek(0)
    CHANGES[change](game / "a.bin")
    header = archive.read(4)  # the archive's own
    assert header == b"PK\x03\x04"
    for length in (100, 2 * BLOCK, -1):
        with pytest.raises(zipfs.ChangedError, match="changed") as caught:
            archive.read(length)
        assert isinstance(caught.value, OSError)
        assert isinstance(caught.value, AnyChangedError)
        assert caught.value.errno == errno.EIO
        assert caught.value.filename == str(game / "a.bin")
        assert archive.tell() == 4
    # The others are as they were.
    start = whole.index(FILES["disc/b.bin"])  # type: ignore[arg-type]
    assert archive.read_at(start, 1 << 30) == whole[start:]
    with opened(game) as again:
        assert again.read() == expected(game).read(0, again.size)
        assert again.etag != archive.etag


@pytest.mark.parametrize("change", GONE)
def test_a_file_that_is_gone(
    change: str, game: Path, archive: zipfs.ArchiveFile, whole: bytes
) -> None:
    """R2: its old bytes as long as it is open, proven by their checksums; else an error."""
    archive.read(1000)
    GONE[change](game / "a.bin")
    assert archive.read() == whole[1000:]
    with opened(game) as again:
        archive.close()
        GONE["deleted"](game / "z")
        with pytest.raises(zipfs.ChangedError):
            again.read()


def test_chmod_changes_no_byte(game: Path, archive: zipfs.ArchiveFile, whole: bytes) -> None:
    (game / "a.bin").chmod(0o640)
    (game / "z").chmod(0o640)
    assert archive.read() == whole


def test_where_times_tell_nothing_all_is_proven(
    game: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where a file that is rewritten may have the state of before."""
    monkeypatch.setattr(vouching, "PLATFORM_VOUCHES", False)
    with opened(game) as archive:
        assert archive.read() == whole
    write(game / "a.bin", b"other", old_date=True)
    whole = expected(game).read(0, 1 << 40)
    with opened(game) as archive:
        start = whole.index(b"other" + DATA[5:])
        write(game / "a.bin", b"again", old_date=True)
        with pytest.raises(zipfs.ChangedError):
            archive.read_at(start + 10, 10)
        start += BLOCK
        assert archive.read_at(start, BLOCK) == DATA[BLOCK : 2 * BLOCK]


def test_a_disk_that_fails(archive: zipfs.ArchiveFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(OSError, match="Input/output error") as caught:
        archive.read()
    assert not isinstance(caught.value, zipfs.ChangedError)
    assert archive.tell() == 0


# -- Opening ---------------------------------------------------------------------------------


def test_what_is_no_game(library: Path, game: Path) -> None:
    (library / "file").write_bytes(b"")
    make_game(library, "empty/folder", {})
    make_game(library, "litter", {"Thumbs.db": b"x"})
    make_game(library, "n" * 252, {"1": b"1"})
    cases = [
        (library / "nothing", "there is no folder"),
        (library / "file", "there is no folder"),
        (library / "empty", "holds no file"),
        (library / "litter", "holds no file"),
        (library / ("n" * 252), "too long a name"),
    ]
    for folder, said in cases:
        with pytest.raises(zipfs.LibraryError, match=said) as caught:
            opened(folder)
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, zipfs.ZipfsError)
    refused: list[dict[str, object]] = [
        {"timestamps": "none"}, {"settle": 0.0}, {"settle": float("nan")}, {"playlists": "all"},
        {"playlist_platforms": "psx"}, {"games": "*/*", "library": library},
        {"games": ["*/*"]}, {"platform": "psx", "library": library},
        {"exclude": "*.nfo"}, {"include": "*.nfo"}, {"selection": "batocera"},
        {"romm_config": "config.yml"}, {"platform": ""}, {"platform": "a/b"},
    ]  # fmt: skip
    for options in refused:
        with pytest.raises(ValueError, match=next(iter(options))):
            opened(game, **options)
    for options in [
        {"exclude": ["/x"]}, {"include": [""]}, {"games": ["{game}/{platform}"]},
        {"playlist_platforms": ["a/b"]}, {"playlist_platforms": [""]},
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=r"isn't|has to come last"):
            opened(game, **options)


@root_only
def test_what_cant_be_read(library: Path) -> None:
    game = make_game(library, "g", {"1": b"1", "2": b"2"})
    (game / "2").chmod(0)
    closed_game = make_game(library, "closed", {"1": b"1"})
    closed_game.chmod(0)
    with unprivileged():
        with opened(game) as archive:
            assert archive.left_out == ((b"2", "a file that can't be read"),)
        with pytest.raises(zipfs.LibraryError, match="Permission denied"):
            opened(closed_game)


def test_what_the_system_refuses(
    library: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its bits grant it, and something else doesn't: SELinux, or a server."""
    game = make_game(library, "g", {"1": b"1", "2": b"2"})

    def refused(path: bytes, *rest: object, **others: object) -> object:
        if path.endswith(b"/2"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return hash_file.hash_file(path, *rest, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(offline, "hash_file", refused)
    with opened(game) as archive:
        assert archive.left_out == ((b"2", "a file that can't be read"),)
        assert [member.name for member in archive.members] == [b"1"]
    assert "2 is left out" in caplog.text


def test_a_disk_that_fails_at_once(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    game = make_game(library, "g", {"1": b"1"})

    def broken(*_: object, **__: object) -> object:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(offline, "hash_file", broken)
    with pytest.raises(zipfs.LibraryError, match="can't read 1: Input/output error"):
        opened(game)


def test_a_game_that_never_holds_still(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    game = make_game(library, "g", {"1": b"1"})

    def changing(path: bytes, *rest: object, **others: object) -> object:
        make_file(path, os.urandom(1), mtime=int.from_bytes(os.urandom(3)))
        return hash_file.hash_file(path, *rest, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(offline, "hash_file", changing)
    with pytest.raises(zipfs.NotSealedError, match="keeps changing"):
        opened(game)


def test_links_and_devices(library: Path, game: Path, caplog: pytest.LogCaptureFixture) -> None:
    """H2, and it is said."""
    make_file(library / "roms/beside", b"beside")
    (game / "inside").symlink_to("disc/b.bin")
    (game / "beside").symlink_to(library / "roms/beside")
    (game / "outside").symlink_to("/etc/passwd")
    os.mkfifo(game / "fifo")
    leaves = "a symbolic link that leaves the library"
    fifo = "not a file or folder but a device, socket or FIFO"
    with caplog.at_level(logging.WARNING), opened(game) as archive:
        assert sorted(archive.left_out) == [
            (b"beside", leaves), (b"fifo", fifo), (b"outside", leaves)
        ]  # fmt: skip
        assert b"inside" in [member.name for member in archive.members]
    assert "outside is left out" in caplog.text
    with opened(game, library=library) as archive:
        prefix = b"roms/psx/game/"
        assert sorted(archive.left_out) == [(prefix + b"fifo", fifo), (prefix + b"outside", leaves)]
        wanted = expected(game, leave_out=["fifo", "outside"])
        assert archive.read() == wanted.read(0, wanted.size)


# -- In a library, and with an index ---------------------------------------------------------


SIZE = sum(len(data) for data in FILES.values() if isinstance(data, bytes))


def hashed(folder: Path, **options: object) -> int:
    """How many bytes have to be hashed to open it."""
    count = Progress()
    opened(folder, progress=count, **options).close()
    assert count.size == count.done
    return count.done


def test_without_an_index_nothing_is_remembered(game: Path) -> None:
    assert [hashed(game), hashed(game)] == [SIZE, SIZE]


@pytest.mark.parametrize("in_library", [True, False])
def test_an_index_remembers(in_library: bool, game: Path, library: Path, place: Path) -> None:
    other = make_game(library, "roms/psx/other", {"a.bin": b"other", "z": b"o"})
    options = {"index": place / "new/index.sqlite3"}
    if in_library:
        options["library"] = library
    assert hashed(game, **options) == SIZE
    assert hashed(other, **options) == 6  # files of the same names are others
    assert hashed(game, **options) == 0
    (game / "z").write_bytes(b"Z")
    assert hashed(game, **options) == 1
    with opened(game, **options) as archive:
        (game / "a.bin").chmod(0o600)  # which takes the checksums of blocks
        assert archive.read() == expected(game).read(0, archive.size)


def test_two_folders_of_one_library_know_of_each_other(
    game: Path, library: Path, place: Path
) -> None:
    """Wherever a path to the game leads, it is the same in the index."""
    (place / "way").symlink_to(library)
    (library / "roms/psx/linked").symlink_to("game")
    index = place / "index.sqlite3"
    assert hashed(game, library=library, index=index) == SIZE
    for folder, root in [
        (place / "way/roms/psx/game", place / "way"),
        (place / "way/roms/psx/game", library),
        (game, place / "way"),
        (library / "roms/psx/linked", library),
    ]:
        assert hashed(folder, library=root, index=index) == 0
    with opened(library / "roms/psx/linked", library=library) as archive:
        assert archive.name == "linked.zip"


def test_names_in_a_library(game: Path, library: Path) -> None:
    make_file(library / "roms/psx/game.zip", b"theirs")
    with opened(game, library=library) as archive:
        assert archive.name == "game (folder).zip"
    with opened(game) as archive:
        assert archive.name == "game.zip"


def test_what_is_not_in_the_library(game: Path, library: Path, place: Path) -> None:
    (library / "away").symlink_to(place)
    elsewhere = make_game(place, "elsewhere", {"1": b"1"})
    cases = [
        (elsewhere, "isn't a folder in the library"),
        (library, "isn't a folder in the library"),
        (library / "away/elsewhere", "leaves the library"),
        (library / "nothing", "there is no folder"),
        (game / "z", "there is no folder"),
        (game / "z/z", "there is no folder"),
    ]
    for folder, said in cases:
        with pytest.raises(zipfs.LibraryError, match=said):
            opened(folder, library=library)
    with pytest.raises(zipfs.LibraryError, match="nothing"):
        opened(game, library=place / "nothing")


def test_an_index_that_cant_be(game: Path, library: Path, place: Path) -> None:
    """H1: nothing is written to the library, or to the folder."""
    before = tree(library)
    for options in ({"index": game / "i"}, {"index": library / "i", "library": library}):
        with pytest.raises(zipfs.IndexFileError, match="would lie in"):
            opened(game, **options)
    with pytest.raises(zipfs.IndexFileError, match="can't write the index"):
        opened(game, index="/proc/nothing/index")
    assert tree(library) == before


def test_a_clash_moves_the_date(game: Path, place: Path) -> None:
    """V1, with an index that knows of another content with this date."""
    index_file = place / "index.sqlite3"
    with opened(game, index=index_file) as archive:
        mtime, content_id = archive.mtime, archive.content_id
    key = os.fsencode(game) + b"/game.zip"
    with closing(Index(str(index_file))) as index:
        assert index.issue(key, int(content_id, 16), lambda taken: 0) == mtime
    index_file.unlink()
    with closing(Index(str(index_file))) as index:
        index.issue(key, 1, lambda taken: mtime)
    with opened(game, index=index_file) as archive:
        assert archive.mtime == mtime - 86400
        assert archive.content_id == content_id
