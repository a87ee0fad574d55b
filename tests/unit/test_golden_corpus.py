"""Golden archives of the whole corpus: what format version 1 makes of each hard folder.

As in ``test_golden``: a test that fails here says that archives have other bytes now. If that
is meant, do as it says there, and only then put the new values here (a failed test says them).
What every reader that can be had makes of these archives, ``make readers`` tells.
"""

from __future__ import annotations

import hashlib
from functools import cache

import isal.isal_zlib
import pytest
import xxhash

from tests.planned import PlannedArchive
from tests.readers.corpus import CASES, Case, File
from tests.strictzip import read_archive
from zipfs.archive import validators
from zipfs.archive.layout import Data, Layout
from zipfs.archive.names import archive_order
from zipfs.archive.records import FORMAT_VERSION, Member
from zipfs.library.rules.playlists import Playlists
from zipfs.sealing.members import Style

# For each case: size of the archive, the first 80 bits of the SHA-256 of all its bytes (without the
# members' data if it is a heavy one), and its content id.
GOLDEN: dict[str, tuple[int, str, int]] = {
    "ascii": (1720, "07663aa12947f0c43645", 0x99F394407DAABD0DB1F847CD421A29A5),
    "latin nfc": (634, "a2a3febd88495bdf4934", 0xAF6273DFBC8D752076DC44C40C87FA3D),
    "latin nfd": (481, "ab8a7dec1d400b8b9f98", 0x991588D4E3F250080BAD52E422932F30),
    "nfc and nfd": (508, "5ac734fc8985728908e6", 0x9B285CB255EBAD6738AAF7A0B65448CA),
    "japanese": (703, "3b2a82d93b9caff61474", 0xA7B3EE620803F1C8EEAE223EFDF60C97),
    "emoji": (493, "dbb328dfa12aab15f265", 0x2E804336B0F444BC266146AD1A70D188),
    "right to left": (484, "0d4620d7df850f52168e", 0xC27D652BDF8DB65A4BF2D5CEBE2EA11A),
    "other planes": (721, "b66d81482ba8d811bd97", 0x4036FC71160AD34EAA0B70D6EA01EE39),
    "from smb": (418, "aa0fb78f23c1c09d504f", 0x3D1771855E0DCC8D4693D2F20F5713AA),
    "long": (4369, "beab34658a9b019878ac", 0xD5C6D5C1700503B6001C91F8495720D9),
    "deep": (6199, "713606a1fd3487055b58", 0x300DDC82E26F9C5697F29E7665B7055B),
    "deeper than PATH_MAX": (15322, "1e6a53d86b0f736e7a09", 0xA8F19D7BFEF442F59A990EBD3B47D343),
    "spaces and dots": (865, "c135b2f4088000acd6f6", 0x2AA649F4AB89E3218067D65EE87799D5),
    "shell": (1189, "d48227e3bf50d238aced", 0x14FD0A32AD2585EA1772BC0E59540519),
    "unsafe": (1367, "4e4f70368bf89985d299", 0x9068A7BCECED367D7380540004660210),
    "not utf-8": (820, "1a4429e2d1336310548f", 0x08AE284909CCA9D73DB5EF6B36012A3F),
    "too long once mapped": (1760, "a721ed5a162e4ab4def5", 0x1D54A41AAB0294C116D2DCA39E6FA7C5),
    "clash once mapped": (778, "f1585acc965b03d58404", 0xBDED9AD28D5222219A9D4B3428C75B99),
    "letter case": (973, "6f84397520fc7b307a72", 0x97771BBAD768B3C40300D2D808F2C193),
    "windows devices": (883, "5f1beb797cd5d084a9ba", 0x0BC5A9E21C0EFD1B3C25C9820969EFCB),
    "portable": (2449, "238005b49f8a55fc7029", 0xB3F2B4407BF754924EF22DCC824EC3E8),
    "ordinary": (995266, "79c51a3e0974925142d7", 0x3126230A99151B229CF516B84507AFA7),
    "empty among others": (232, "43bde4afe43764edf773", 0xDE3B6E1C3299B71090420E71B0ADC4C6),
    "only empty": (314, "606e12b53e53b2895168", 0x1EA6DD65498D46F601935CAC59C26DE4),
    "one byte each": (25366, "768cc3b7d7db95c7409a", 0xB47769466B9FBF18CAED45111FB1E279),
    "dates": (1237, "ad6172164eb5525f2686", 0x96125993CF006A0D684A4627E59C9169),
    "fixed dates": (1309, "2a6449e61b3fea3472a5", 0x56CEF6E970764C8B8BB461C714177F4D),
    "before 1970": (369, "f18a5d2c4827a75e5fc9", 0x1E3CBA3D77E101ACC3C8A8A648FEEDE3),
    "empty folders": (1169, "76fe66b00e2332e7adbf", 0xE8FD2DC921F9B128AC88B4FADE173965),
    "execute bits": (701, "17d962c3d752ef03fdcf", 0x7B3755C6F900E38AB43BE48D6927BBEF),
    "playlist": (38037, "00f3a1bf806afc6374f5", 0x841199A6EEA7C744A415A1D4911B9255),
    "containers": (2772, "35452c85ce9ebbe2c7f7", 0x35D3EE7ACAD1A11D036BBCD6702905C8),
    "signatures": (1922, "c2242e03d4e270f02282", 0x44DDBBDE290EAEE2ADE31B535F6D0FEF),
    "same names elsewhere": (859, "d7273b1b8dddf4caabf6", 0xFF4FA26BBEF520F6C18AE5640885D338),
    "links": (644, "b79f1c494ad42775fdc6", 0xC569DEBB6163F865A9451595DE3E8EA9),
    "left out": (244, "3796dcca3d5a86c7f029", 0x32C51C0A92CB7438242EC68FDB23B4D3),
    "unreadable": (244, "3796dcca3d5a86c7f029", 0x32C51C0A92CB7438242EC68FDB23B4D3),
    "sparse": (68157687, "282b821d154aca372f5f", 0x9C557CD53FD9183139207EDE89B2A0B1),
    "just below 4 GiB": (4294965648, "c0081080aa03fb0fd9a4", 0x1EFEAB2503F486C03690B0BAC4444C10),
    "4 GiB - 2": (4294967734, "02ce7c642393fd8c853b", 0xB470F743B329CF9048170616E53E7E2D),
    "4 GiB - 1": (4294967775, "6aa852214e2cf9005310", 0x30D3AC8B65324BDEFFC77297C42F0517),
    "4 GiB": (4294967776, "3c7ba063de19f455cdac", 0x0D637936BAE8ABD8884F4FA68A6483D8),
    "65534 members": (7656390, "fb9609436fc40e21620d", 0x7616656D3EF0F9EED9E2DCE7249BDD0A),
    "65535 members": (7656583, "0a516f4784222a08d649", 0x63859BAAA01144A84894F85A63D37E59),
    "65536 members": (7656700, "391c3116eedec6c67f44", 0x90291C987B7FA49015A4CF8C1AFDB3D4),
    "100000 members": (11688988, "49794c68e54f10ec449e", 0xB077E22979222C5C9EB7D9B988BE4433),
}  # fmt: skip


@cache
def _checksums(file: File) -> tuple[int, bytes]:
    crc32, digest = 0, xxhash.xxh3_128()
    for chunk in file.chunks():
        crc32 = isal.isal_zlib.crc32(chunk, crc32)
        digest.update(chunk)
    return crc32, digest.digest()


@cache
def made(case: Case) -> tuple[Layout, list[File], int]:
    """The archive of *case*, its members' files, and its content id."""
    style = Style(
        portable_names=case.mount == "portable",
        fixed_times=case.mount == "fixed",
        execute_bits=case.mount == "execute",
    )
    files = {**case.files(), **case.more()}
    names = style.names([*files, *case.folders])
    order = sorted(files, key=lambda path: archive_order(names[path]))
    members = [
        Member(
            name=names[path],
            size=files[path].size,
            mtime=style.time(files[path].mtime),
            crc32=_checksums(files[path])[0],
            executable=style.execute_bits and bool(files[path].mode & 0o111),
        )
        for path in order
    ]
    newest = max(member.mtime for member in members)
    members += [
        Member(name=names[path] + b"/", size=0, mtime=newest, crc32=0) for path in case.folders
    ]
    members.sort(key=lambda member: archive_order(member.name))
    inline: dict[int, bytes] = {}
    if case.mount == "playlists":
        name = case.name.encode() + b".m3u"
        inline = Playlists(platforms=[b"cases"]).add(name, members, b"cases")
    layout = Layout(members, inline)
    sources = [files[path] for path in order]
    digests = [_checksums(file)[1] for file in sources]
    return layout, sources, validators.content_id(layout, digests)


each_case = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=pytest.mark.large if case.heavy else ())
        for case in CASES
    ],
)


def test_all_are_here() -> None:
    assert FORMAT_VERSION == 1
    assert sorted(GOLDEN) == sorted(case.name for case in CASES)


@each_case
def test_bytes(case: Case) -> None:
    layout, sources, content = made(case)
    digest = hashlib.sha256()
    for piece in layout.plan(0, layout.size):
        if not isinstance(piece, Data):
            digest.update(piece)
        elif not case.heavy:
            digest.update(b"".join(sources[piece.source].chunks()))
    now = layout.size, digest.hexdigest()[:20], content
    assert now == GOLDEN.get(case.name), f'"{case.name}": ({now[0]}, "{now[1]}", 0x{now[2]:032x}),'


@each_case
def test_says_what_the_corpus_says(case: Case) -> None:
    """Names, written out by hand there, and dates; and the strict reader takes it."""
    layout, sources, _ = made(case)
    modes = {name: file.mode for name, file in case.members().items()}

    def data(piece: Data) -> bytes:
        file = sources[piece.source]
        if isinstance(file.data, int):
            raise AssertionError("not read")
        return (file.data + file.tail)[piece.offset : piece.offset + piece.length]

    small = not any(isinstance(file.data, int) for file in sources)
    entries = read_archive(PlannedArchive(layout, data), check_data=small)
    members = case.members()
    assert [entry.name.encode() for entry in entries] == list(members)
    for entry, file in zip(entries, members.values(), strict=True):
        stated = file.mtime if file.stated is None else file.stated
        assert (entry.size, entry.crc32) == (file.size, _checksums(file)[0])
        # Only where the 0x5455 field can't say it, DOS time has to.
        said = int(entry.dos_time.timestamp()) if entry.mtime is None else entry.mtime
        assert said == stated, entry.name
        runs = case.mount == "execute" and bool(modes[entry.name.encode()] & 0o111)
        assert entry.executable == runs
