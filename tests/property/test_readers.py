"""Random trees, read by programs that know nothing of zipfs: they see what the folder holds.

Names come from all of Unicode and from raw bytes; where the policy changes one, what the
readers have to find is what it says, and the strict reader that it is safe.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.planned import PlannedArchive, held
from tests.property.strategies import long_components, paths, times, without_folders
from tests.strictzip import read_archive
from tests.support.waiting import SECONDS
from zipfs.archive.layout import Layout
from zipfs.archive.records import Member
from zipfs.sealing.members import Style

_any_name = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20)
    .map(str.encode)
    .filter(lambda name: name not in (b".", b"..")),
    st.binary(min_size=1, max_size=30)
    .map(lambda raw: raw.translate(None, b"/\0"))
    .filter(lambda name: name not in (b"", b".", b"..")),
    long_components.map(lambda name: name[:255]),
)
_any_path = st.one_of(paths, st.lists(_any_name, min_size=1, max_size=4).map(b"/".join))
any_tree = st.dictionaries(_any_path, st.tuples(st.binary(max_size=50), times), max_size=10).map(
    lambda tree: {path: tree[path] for path in without_folders(tree)}
)
styles = st.builds(Style, portable_names=st.booleans(), fixed_times=st.booleans())


@dataclass(frozen=True)
class Program:
    """One that extracts an archive, ``{}``, into the folder that it is started in.

    *piped*: it gets the archive on its standard input. *composes*: it brings names to normal
    form C, so that some may be called otherwise, or even the same.
    """

    argv: Sequence[str]
    piped: bool = False
    composes: bool = False

    def extract(self, archive: Path, place: Path) -> None:
        done = subprocess.run(
            [argument.format(archive) for argument in self.argv],
            cwd=place,
            input=archive.read_bytes() if self.piped else b"",
            capture_output=True,
            timeout=SECONDS,
            check=False,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"},
        )
        assert done.returncode == 0, done.stderr + done.stdout

    def takes_for(self, name: bytes) -> bytes:
        """What it makes of an entry name."""
        return unicodedata.normalize("NFC", name.decode()).encode() if self.composes else name


PROGRAMS = {
    # -V: otherwise ";" and digits at a name's end are a version on VMS, and are cut off.
    "unzip": Program(["unzip", "-q", "-V", "{}"]),
    "7z": Program(["7z", "x", "-bd", "-y", "{}"]),
    "bsdtar": Program(["bsdtar", "-xf", "{}"], composes=True),
    "bsdtar from a pipe": Program(["bsdtar", "-xf", "-"], piped=True, composes=True),
}


def extracted(place: Path) -> dict[bytes, bytes]:
    root = os.fsencode(place)
    return {
        os.path.relpath(path, root): Path(os.fsdecode(path)).read_bytes()
        for parent, _, names in os.walk(root)
        for path in (os.path.join(parent, name) for name in names)
    }


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
@settings(max_examples=60, deadline=None)
@given(tree=any_tree, style=styles)
def test_a_random_tree(
    program: Program, tree: dict[bytes, tuple[bytes, int]], style: Style
) -> None:
    names = style.names(tree)
    wanted = {names[path]: data for path, (data, _) in tree.items()}
    assume(len(set(map(program.takes_for, wanted))) == len(wanted))
    layout = Layout(
        Member(name=names[path], size=len(data), mtime=style.time(mtime), crc32=zlib.crc32(data))
        for path, (data, mtime) in tree.items()
    )
    planned = PlannedArchive(layout, held([data for data, _ in tree.values()]))
    entries = read_archive(planned, check_data=True)
    assert [entry.name.encode() for entry in entries] == list(wanted)
    with zipfile.ZipFile(planned) as archive:
        assert {info.orig_filename.encode(): archive.read(info) for info in archive.infolist()} == (
            wanted
        )
    if not tree:
        return  # most programs call an archive of nothing an error
    with tempfile.TemporaryDirectory() as folder:
        file, place = Path(folder, "archive.zip"), Path(folder, "extracted")
        place.mkdir()
        file.write_bytes(planned.read_at(0, planned.size))
        program.extract(file, place)
        found = {program.takes_for(name): data for name, data in extracted(place).items()}
        assert found == {program.takes_for(name): data for name, data in wanted.items()}
