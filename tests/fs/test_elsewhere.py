"""Without FUSE, and on platforms that lack system calls of Linux (see tests.support.elsewhere)."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import zipfs
from tests.support.elsewhere import PLATFORMS
from tests.support.libraries import content, expected, make_game
from tests.support.waiting import SECONDS
from zipfs.library.filestate import BLOCK

ROOT = Path(__file__).parents[2]
FILES = {"a.bin": content(2 * BLOCK + 5), "disc/b.bin": content(3000), "z": b""}


def run(platform: str, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.support.elsewhere", platform, *map(str, arguments)],
        input=program,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


OPEN = """
import hashlib, os, sys, zipfile
import zipfs
_, folder, index = sys.argv
for _ in range(2):
    archive = zipfs.open_archive(folder, index=index, settle=0.05)
    print(hashlib.file_digest(archive, "sha256").hexdigest(), archive.mtime_ns, archive.etag)
    print([left.path.decode() for left in archive.left_out])
    assert zipfile.ZipFile(archive).testzip() is None
with open(os.path.join(folder, "a.bin"), "r+b") as file:
    file.write(b"other")
try:
    archive.read_at(0, 1000)
except zipfs.ChangedError as error:
    print(error.filename)
print([name for name in ("pyfuse3", "trio", "pydantic", "click") if sys.modules.get(name)])
"""


@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_archive_is_opened(platform: str, library: Path, place: Path) -> None:
    game = make_game(library, "game", FILES)
    wanted = expected(game)
    (game / "away").symlink_to("/etc/passwd")
    (game / "there").symlink_to("nothing")
    (game / "z").chmod(0o600)  # not all may read it; we do
    done = run(platform, OPEN, game, place / "index.sqlite3")
    seconds = wanted.mtime_ns // 10**9
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert printed[0] == printed[2]
    digest, mtime_ns, etag = printed[0].split()
    assert (int(mtime_ns), etag) == (wanted.mtime_ns, f'"{seconds:x}-{wanted.size:x}"')
    with open(game / "a.bin", "r+b") as file:
        file.write(FILES["a.bin"][:5])
    assert digest == hashlib.sha256(wanted.read(0, wanted.size)).hexdigest()
    assert printed[1] == printed[3] == "['away', 'there']"
    # Where dates show no change, content does; and that is the same.
    changed = [] if platform == "windows" else [str(game / "a.bin")]
    assert printed[4:] == [*changed, "[]"]


COMMAND = "from zipfs.cli.cli import main; main()"


@pytest.mark.parametrize("platform", PLATFORMS)
def test_without_fuse(platform: str, library: Path, place: Path) -> None:
    """All commands but ``mount`` do without it, and that says so in one line."""
    make_game(library, "roms/psx/game", FILES)
    index = f"--index={place / 'index.sqlite3'}"
    done = run(platform, COMMAND, "mount", index, library, place)
    assert done.returncode == 5
    assert done.stderr.startswith("zipfs: FUSE isn't available (")
    assert done.stderr.count("\n") == 1
    done = run(platform, COMMAND, "index", index, library)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 archive sealed: 3 members")
    done = run(platform, COMMAND, "inspect", index, library, "roms/psx/game")
    assert done.returncode == 0, done.stderr
    assert "disc/b.bin" in done.stdout
    done = run(platform, COMMAND, "doctor", library)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (5, "", 1)
    assert done.stderr.startswith("zipfs: zipfs mounts on Linux only")
    done = run(platform, COMMAND, "verify", index, library)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("3 files verified: ")


def test_importing_it_is_cheap() -> None:
    program = (
        "import zipfs, sys; print(sorted(name for name in sys.modules if name.startswith('zipfs')))"
    )
    done = run("linux", program)
    assert done.stdout == "['zipfs']\n", done.stderr


def test_all_names_are_there() -> None:
    program = "import zipfs\nfor name in zipfs.__all__: print(getattr(zipfs, name))\nzipfs.nothing"
    done = run("linux", program)
    assert len(done.stdout.splitlines()) == len(zipfs.__all__), done.stderr
    assert "module 'zipfs' has no attribute 'nothing'" in done.stderr
