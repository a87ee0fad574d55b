"""Lists that try to get at a file outside the library, in every way that comes to mind."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from tests.support.libraries import make_file

SECRET: Final = b"canary"
NAME: Final = "secret"

_DOTS: Final = (
    b"..",
    b".%2e",
    b"%2E%2e",
    b"%252e%252e",  # encoded twice
    b"%25252e%25252e",
    b"%c0%ae%c0%ae",  # too long for UTF-8
    b"\xc0\xae\xc0\xae",
    b"%e0%80%ae%e0%80%ae",
    b"%u002e%u002e",
    b"%ef%bc%8e%ef%bc%8e",  # full width
    b"..%00",
    b"%00..",
    b"..;",
    b".. ".strip() + b"+",
    b"...",
)
_SLASHES: Final = (
    b"/",
    b"//",
    b"/./",
    b"/%2e/",
    b"%2f",
    b"%2F",
    b"%252f",
    b"%5c",
    b"\\",
    b"\\/",
    b"%c0%af",
    b"%ef%bc%8f",
    b"/%00/",
)


def make_library(library: Path, outside: Path) -> None:
    """A library with a file as large as the *outside* one, and links that lead there."""
    make_file(outside / NAME, SECRET)
    make_file(outside / "folder" / NAME, SECRET)
    make_file(library.with_name(library.name + "2") / NAME, SECRET)
    make_file(library / "roms/psx/inside", b"inside")
    make_file(library / "roms/psx/folder/inside", b"inside")
    for path, target in {
        "file": outside / NAME,
        "folder": outside,
        "up": library.parent,
        "root": Path("/"),
        "relative": Path("..") / outside.name,
        "chain 1": Path("chain 2"),
        "chain 2": outside / NAME,
        "chain 3": Path("chain 4/folder"),
        "chain 4": outside,
        "back": library / "roms/psx/folder/../../../.." / outside.name / NAME,
        "cwd": Path("/proc/self/cwd"),
        "proc": Path("/proc/self/root"),
        "roms/psx/deep": outside / "folder",
    }.items():
        (library / path).symlink_to(target)


def locations(library: Path, outside: Path) -> Iterator[bytes]:
    """Locations, as they stand in a list, that would lead out if somebody were careless."""
    beside = os.fsencode(outside.name)
    absolute = os.fsencode(outside / NAME)
    name = os.fsencode(NAME)
    for dots, slash in itertools.product(_DOTS, _SLASHES):
        up = dots + slash
        yield b"/library/" + up + beside + slash + name
        yield b"/library/roms" + slash + up * 2 + beside + b"/" + name
        yield b"/library" + slash + up * 20 + absolute.lstrip(b"/")
    for link in ("file", "chain 1", "chain 2", "back"):
        yield b"/library/" + quote(link).encode()
    for link in ("folder", "relative", "chain 3", "chain 4", "roms/psx/deep"):
        for rest in (b"", b"/", b"/secret", b"/folder/secret", b"//secret", b"/./secret"):
            yield b"/library/" + quote(link).encode() + rest
    for link in (b"root", b"proc", b"up", b"cwd"):
        yield b"/library/" + link + absolute
        yield b"/library/" + link + b"/" + beside + b"/secret"
        yield b"/library/" + link + b"/etc/passwd"
    yield absolute
    yield b"/" + absolute
    yield b"file://" + absolute
    yield b"http://localhost" + absolute
    for prefix in (
        b"/library/",
        b"/library",
        b"/library2/",
        b"/library2",
        b"/LIBRARY/",
        b"//library/",
    ):
        yield prefix + absolute
        yield prefix + b"/" + beside + b"/secret"
    yield b"/library2/secret"
    yield b"/library/../library2/secret"
    yield b"/library/roms/psx/inside%00" + absolute
    yield b"/library/" + absolute + b"%00/roms/psx/inside"
    yield b"/library/roms/psx/inside/../../../../" + beside + b"/secret"
    yield b"/library/roms/psx/inside#/../../" + beside + b"/secret"
    yield b"/library/~/secret"
    yield b"/library/~root/secret"
    yield b"/library/$HOME/secret"
    yield b"/library/roms/psx/*"
    yield b"/library/.lists/../" + beside + b"/secret"


def write_escapes(lists: Path, library: Path, outside: Path) -> list[str]:
    """A list for each of :func:`locations`; what they are called. And ``control``, which is
    fine: of a file inside, and as long as the one outside."""
    names = []
    for number, location in enumerate(locations(library, outside)):
        names.append(f"escape-{number}")
        line = b"- %d %s secret" % (len(SECRET), location)
        (lists / f"{names[-1]}.list").write_bytes(line)
    assert len(names) >= 200
    (lists / "control.list").write_bytes(b"- 6 /library/roms/psx/inside secret")
    return names
