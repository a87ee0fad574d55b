"""Names inside an archive: distinct, safe, and the same whatever order the disk lists in."""

from __future__ import annotations

import unicodedata
import zipfile
from functools import partial

from hypothesis import assume, given
from hypothesis import strategies as st

from tests.planned import PlannedArchive
from tests.property.strategies import components, long_components, names, trees
from tests.strictzip import read_archive
from zipfs.archive.layout import Layout
from zipfs.archive.names import entry_names, safe_component
from zipfs.archive.records import Member
from zipfs.library.rules.general import archive_name, folders_of

DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{name}{digit}" for name in ("COM", "LPT") for digit in "0123456789¹²³"
}


@given(trees)
def test_any_files_make_an_archive_that_readers_take(paths: list[bytes]) -> None:
    """Distinct, safe, relative, UTF-8, no file that is a folder: the strict reader's rules."""
    mapped = entry_names(paths)
    assert mapped.keys() == set(paths)
    layout = Layout(Member(name=mapped[path], size=0, mtime=0, crc32=0) for path in paths)
    entries = read_archive(PlannedArchive(layout))
    assert [entry.name.encode() for entry in entries] == [mapped[path] for path in paths]
    with zipfile.ZipFile(PlannedArchive(layout)) as reader:
        assert [info.orig_filename.encode() for info in reader.infolist()] == list(
            map(mapped.__getitem__, paths)
        )


@given(trees)
def test_folders_stay_folders(paths: list[bytes]) -> None:
    """Files of one folder are in one folder, and those of two in two."""
    mapped = entry_names(paths)
    assert all(name.count(b"/") == path.count(b"/") for path, name in mapped.items())
    there: dict[tuple[bytes, ...], tuple[bytes, ...]] = {}
    for path, name in mapped.items():
        parts, named = tuple(path.split(b"/")), tuple(name.split(b"/"))
        for depth in range(1, len(parts) + 1):
            assert there.setdefault(parts[:depth], named[:depth]) == named[:depth]
    assert len(set(there.values())) == len(there)


@given(trees.flatmap(lambda paths: st.tuples(st.just(paths), st.permutations(paths))))
def test_order_takes_no_part(pair: tuple[list[bytes], list[bytes]]) -> None:
    assert entry_names(pair[0]) == entry_names(pair[1])


@given(trees)
def test_mapping_is_done_once(paths: list[bytes]) -> None:
    """An archive that is unpacked and packed again keeps its names."""
    mapped = sorted(entry_names(paths).values())
    assert entry_names(mapped) == {name: name for name in mapped}


@given(st.lists(names, max_size=8), trees)
def test_safe_names_are_never_changed(safe: list[bytes], unsafe: list[bytes]) -> None:
    """Not even by an unsafe sibling that would like to be called the same."""
    safe = [b"safe/" + name for name in safe]
    unsafe = [b"safe/" + path for path in unsafe if safe_path(path) != path]
    together = dict.fromkeys([*safe, *unsafe])
    folders = set()
    for path in together:
        while path := path.rpartition(b"/")[0]:
            folders.add(path)
    assume(folders.isdisjoint(together))
    mapped = entry_names(together)
    assert all(mapped[name] == name for name in safe)


def safe_path(path: bytes) -> bytes:
    return "/".join(map(safe_component, path.split(b"/"))).encode()


@given(components)
def test_component_says_what_it_was(raw: bytes) -> None:
    """Nothing is lost: each escape is the bytes that it stands for."""
    text = safe_component(raw)
    assert text
    assert not set(text) & set("/\\:\0")
    assume(b"%" not in raw)
    parts = text.split("%")
    assert raw == parts[0].encode() + b"".join(
        bytes.fromhex(part[:2]) + part[2:].encode() for part in parts[1:]
    )


@given(trees)
def test_portable_names_are_names_to_windows_and_macos(paths: list[bytes]) -> None:
    names = entry_names(paths, portable=True)
    siblings: dict[str, set[str]] = {}
    for name in names.values():
        parent = ""
        for component in name.decode().split("/"):
            # Naming Files, Paths, and Namespaces (Microsoft).
            assert not set(component) & set('<>:"/\\|?*')
            assert min(component) >= " "
            assert component[-1] not in ". "
            assert component.split(".")[0].rstrip(" ").upper() not in DEVICES
            assert len(component.encode("utf-16-le")) <= 2 * 255
            siblings.setdefault(parent, set()).add(component)
            parent += "/" + component
    for together in siblings.values():
        for alike in (str.upper, str.lower, str.casefold, partial(unicodedata.normalize, "NFD")):
            assert len({alike(component) for component in together}) == len(together)


@given(trees)
def test_portable_mapping_is_done_once(paths: list[bytes]) -> None:
    mapped = sorted(entry_names(paths, portable=True).values())
    assert entry_names(mapped, portable=True) == {name: name for name in mapped}
    assert entry_names(mapped) == {name: name for name in mapped}


@given(st.lists(long_components, min_size=1, max_size=4).map(dict.fromkeys).map(list))
def test_no_mapped_name_is_too_long(raw: list[bytes]) -> None:
    for portable in (False, True):
        names = entry_names(raw, portable=portable)
        assert len(set(names.values())) == len(raw)
        for before, name in names.items():
            assert len(name) <= 255 or name == before
            name.decode()


@given(st.data())
def test_archives_have_names_of_their_own(data: st.DataObject) -> None:
    """Folders beside files that are called like their archives: no two meet, all are found."""
    stems = st.sampled_from([b"a", b"a.zip", b"a (folder)", b"a (folder 2)", b"b"])
    folders = data.draw(st.sets(stems, max_size=5), "folders")
    others = (
        data.draw(
            st.sets(st.builds(bytes.__add__, stems, st.sampled_from([b".zip", b" (folder).zip"]))),
            "files",
        )
        - folders
    )
    there = folders | others
    archives = {folder: archive_name(folder, there.__contains__) for folder in folders}
    assert len(set(archives.values())) == len(archives)
    assert not set(archives.values()) & there
    for folder, name in archives.items():
        assert folder in folders_of(name)
        assert name == folder + b".zip" or folder + b".zip" in there
