"""Playlists of whatever is called like a disc, or nearly so."""

from __future__ import annotations

import zipfile
import zlib
from random import Random

from hypothesis import assume, given
from hypothesis import strategies as st

from tests.planned import PlannedArchive
from tests.property.strategies import components, trees, without_folders
from tests.strictzip import read_archive
from zipfs.archive.layout import Layout
from zipfs.archive.names import archive_order, entry_names
from zipfs.archive.records import Member
from zipfs.library.rules.playlists import Mode, Playlists, discs

_FRAGMENTS = [
    b"Disc ", b"disc ", b"1", b"2", b"10", b"01", b"(", b")", b"#", b" ", b".", b"a", b"B", b"%3A",
    "é".encode(), "\ufeff".encode(), b"Game", b"\n", b":", b"\xff",
]  # fmt: skip
_EXTENSIONS = [
    b"", b".cue", b".CUE", b".gdi", b".chd", b".iso", b".bin", b".adf", b".txt", b".m3u", b".a.cue",
]  # fmt: skip
_stems = st.lists(st.sampled_from(_FRAGMENTS), min_size=1, max_size=4).map(b"".join)
_files = st.builds(bytes.__add__, _stems, st.sampled_from(_EXTENSIONS))
_folders = st.one_of(_stems, st.sampled_from([b"DLC", b"update", b"Manuals", b".x", b"Game.m3u"]))
_paths = st.builds(
    lambda folders, file: b"/".join([*folders, file]), st.lists(_folders, max_size=2), _files
)
_games = st.lists(_paths, max_size=12).map(without_folders)
"""Paths of files that a game may have."""
_modes: st.SearchStrategy[Mode] = st.sampled_from(["discs", "romm"])


def entries(paths: list[bytes]) -> list[bytes]:
    return list(entry_names(paths).values())


@given(_games, _modes, st.randoms(use_true_random=False))
def test_the_order_takes_no_part(paths: list[bytes], mode: Mode, random: Random) -> None:
    members = entries(paths)
    playlists = Playlists(mode=mode)
    made = playlists.of(b"Game.m3u", members, b"psx")
    random.shuffle(members)
    assert playlists.of(b"Game.m3u", members, b"psx") == made


@given(_games)
def test_each_line_is_another_disc(paths: list[bytes]) -> None:
    members = entries(paths)
    made = Playlists().of(b"Game.m3u", members, b"psx")
    if made is None:
        return
    assert made.content.endswith(b"\n")
    lines = made.content.removesuffix(b"\n").split(b"\n")
    assert len(lines) >= 2
    assert len(set(lines)) == len(lines)
    named = [line.removeprefix(b"./") for line in lines]
    assert set(named) <= set(members)
    assert named == discs(members)
    assert not any(line.startswith((b"#", b" ", b"\xef\xbb\xbf")) for line in lines)
    assert not any(line.endswith(b"\r") for line in lines)
    assert not any(member.lower().endswith(b".m3u") for member in members)


@given(_games)
def test_romms_has_every_cue_or_every_member(paths: list[bytes]) -> None:
    members = sorted(entries(paths), key=archive_order)
    made = Playlists(mode="romm").of(b"Other.m3u", members, None)
    if made is None or not members:
        return
    lines = made.content.split(b"\n")
    assert lines == [member for member in members if member in lines]
    cues = [member for member in members if member.lower().endswith(b".cue")]
    # With another word before that, RomM may take it for another extension.
    plain = [cue for cue in cues if cue.rpartition(b"/")[2].count(b".") == 1]
    if lines != members or plain:
        assert set(plain) <= set(lines) <= set(cues)


@given(_games)
def test_a_disc_more_never_reorders_the_others(paths: list[bytes]) -> None:
    members = entries(paths)
    with_more = discs([*members, b"new folder 5/disc 5.chd"])
    assert [disc for disc in with_more if disc in members] == discs(members)


@given(_games, _modes, components)
def test_the_archive_is_one_that_readers_take(
    paths: list[bytes], mode: Mode, folder: bytes
) -> None:
    """The strict reader refuses names that clash, and files that are folders."""
    assume(folder not in (b".", b".."))
    members = sorted(entries(paths), key=archive_order)
    own = folder + b".m3u"
    name = entry_names([own])[own]
    made = Playlists(mode=mode).of(name, members, b"psx")
    assume(made is not None)
    assert made is not None
    layout = Layout(
        [
            *(Member(name=member, size=0, mtime=0, crc32=0) for member in members),
            Member(name=made.name, size=len(made.content), mtime=0, crc32=zlib.crc32(made.content)),
        ],
        {len(members): made.content},
    )
    found = read_archive(PlannedArchive(layout), check_data=True)
    assert [entry.name.encode() for entry in found] == [*members, made.name]
    with zipfile.ZipFile(PlannedArchive(layout)) as archive:
        assert archive.read(archive.infolist()[-1]) == made.content


@given(trees)
def test_no_names_are_too_bad(paths: list[bytes]) -> None:
    members = entries(paths)
    assert set(discs(members)) <= set(members)
    Playlists(mode="romm").of(b"G.m3u", members, None)
