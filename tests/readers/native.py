"""Readers that Debian packages: command-line programs, C libraries, and scripts of ours."""

from __future__ import annotations

import json
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final, cast

from tests.readers.gate import (
    Found,
    Reader,
    WrongError,
    of_folder,
    of_frames,
    of_lines,
    of_stream,
    unique,
)
from tests.readers.programs import (
    LARGE,
    FailedError,
    compiled,
    hash_output,
    is_large,
    library_version,
    read_output,
    run,
    run_silent,
    version,
)
from tests.readers.tools import DRIVERS
from tests.strictzip import read_archive

Entries = Mapping[bytes, Found]

# ------------------------------------------------------------ programs that extract


def _unzip(archive: Path, place: Path) -> Entries:
    if is_large(archive):
        names = run("unzip", "-Z1", archive).splitlines()
        return unique((name, hash_output("unzip", "-p", archive, name)) for name in names)
    run_silent("unzip", "-q", archive, cwd=place)
    return of_folder(place)


def _7z(archive: Path, place: Path) -> Entries:
    if is_large(archive):
        listed = run("7z", "l", "-slt", "-ba", archive)
        names = re.findall(rb"^Path = (.*)$", listed, re.MULTILINE)
        return unique((name, hash_output("7z", "x", "-so", archive, name)) for name in names)
    said = run("7z", "x", "-bd", f"-o{place}", archive)
    if b"Everything is Ok" not in said or b"arning" in said:
        raise FailedError(said[-600:].decode(errors="replace"))
    return of_folder(place)


def _bsdtar(archive: Path, place: Path) -> Entries:
    # -S leaves holes where there are zeros: large files take no space.
    run_silent("bsdtar", "-xSf", archive, "-C", place)
    return of_folder(place)


def _bsdtar_piped(archive: Path, place: Path) -> Entries:
    run_silent("bsdtar", "-xSf", "-", "-C", place, piped=archive)
    return of_folder(place)


def _busybox(archive: Path, place: Path) -> Entries:
    if is_large(archive):
        listed = run("busybox", "unzip", "-l", archive)
        names = re.findall(rb"^ *\d+ +[\d-]+ [\d:]+ +(.*)$", listed, re.MULTILINE)
        return unique(
            (name, hash_output("busybox", "unzip", "-p", archive, name)) for name in names
        )
    run_silent("busybox", "unzip", "-q", archive, "-d", place)
    return of_folder(place)


def _busybox_piped(archive: Path, place: Path) -> Entries:
    run_silent("busybox", "unzip", "-q", "-", "-d", place, piped=archive)
    return of_folder(place)


def _unar(archive: Path, place: Path) -> Entries:
    if not is_large(archive):
        run_silent("unar", "-q", "-D", "-o", place, archive)
        return of_folder(place)
    # It writes to files only, so a large one is just listed. (Not always: what lsar prints of
    # names that aren't ASCII isn't even UTF-8.)
    entries = unique(
        (entry["XADFileName"].encode(), Found(entry["XADFileSize"], ""))
        for entry in json.loads(run("lsar", "-j", archive))["lsarContents"]
    )
    small = [name for name, entry in entries.items() if entry.size < LARGE]
    run_silent("unar", "-q", "-D", "-o", place, archive, *small)
    return {**entries, **of_folder(place)}


# ------------------------------------------------------------ programs that do only a part

_ZIPINFO: Final = re.compile(
    rb"^Central directory entry #\d+:\n-+\n\n(?:.*\n\n)??  (.*)\n\n  offset of local header"
    rb"(?:.*\n)+?  uncompressed size: +(\d+) bytes$",
    re.MULTILINE,
)


def _zipinfo(archive: Path, _place: Path) -> Entries:
    said = run("zipinfo", "-v", archive)
    if complaint := re.search(rb"(?m)^ *(?:warning|error|note).*", said):
        raise FailedError(complaint[0].decode(errors="replace"))
    (count,) = re.findall(rb"central directory contains (\d+) entr", said) or [b"0"]
    entries = unique((match[1], Found(int(match[2]), "")) for match in _ZIPINFO.finditer(said))
    if int(count) != len(entries):
        raise WrongError(f"it says {int(count)} entries and shows {len(entries)}")
    return entries


_FUNZIP: Final = r"funzip warning: zipfile has more than one entry--rest ignored"


def _funzip(archive: Path, _place: Path) -> Entries:
    # It knows no names: the first one is said by the local header.
    with archive.open("rb") as stream:
        header = stream.read(30)
        name = stream.read(int.from_bytes(header[26:28], "little"))
    return {name: hash_output("funzip", piped=archive, complaints=_FUNZIP)}


_DETAIL: Final = re.compile(
    rb"^([0-9A-F]+) +(LOCAL HEADER|CENTRAL HEADER|Filename Length|Filename"
    rb"|Uncompressed Length|Uncompressed Size) +(\S+)",
    re.MULTILINE,
)


def _zipdetails(archive: Path, _place: Path) -> Entries:
    with archive.open("rb") as stream:
        stream.seek(-12, os.SEEK_END)  # "total number of entries", without a comment behind it
        if int.from_bytes(stream.read(2), "little") > 50_000:
            raise FailedError("not run: it takes minutes for so many members")
    headers: dict[bytes, list[tuple[bytes, Found]]] = {b"LOCAL HEADER": [], b"CENTRAL HEADER": []}
    here = headers[b"LOCAL HEADER"]
    length = 0
    said = run("zipdetails", archive)
    if complaint := re.search(rb"(?mi)^[0-9A-F]* ?(?:prefix|trailing|unexpected) .*", said):
        raise FailedError(complaint[0].decode(errors="replace"))
    # It breaks long names into lines, so take from it where they are, and read them there.
    with archive.open("rb") as stream:
        for offset, what, value in _DETAIL.findall(said):
            if what in headers:
                here = headers[what]
                here.append((b"", Found(0, "")))
            elif what == b"Filename Length":
                length = int(value, 16)
            elif what == b"Filename":
                stream.seek(int(offset, 16))
                here[-1] = (stream.read(length), here[-1][1])
            else:
                here[-1] = (here[-1][0], Found(int(value, 16), ""))
    if headers[b"LOCAL HEADER"] != headers[b"CENTRAL HEADER"]:
        raise WrongError("local and central headers differ")
    return unique(headers[b"CENTRAL HEADER"])


# ------------------------------------------------------------ libraries and languages


def _strict(archive: Path, _place: Path) -> Entries:
    with archive.open("rb") as stream:
        entries = read_archive(stream)
        return unique((entry.name.encode(), _at(stream, entry.data_offset, entry.size))
                      for entry in entries)  # fmt: skip


class _Part:
    """A stretch of a file, to be read once."""

    def __init__(self, stream: BinaryIO, offset: int, size: int) -> None:
        stream.seek(offset)
        self._stream = stream
        self._left = size

    def read(self, size: int) -> bytes:
        data = self._stream.read(min(size, self._left))
        self._left -= len(data)
        return data


def _at(stream: BinaryIO, offset: int, size: int) -> Found:
    return of_stream(cast("BinaryIO", _Part(stream, offset, size)))


def _python_zipfile(archive: Path, _place: Path) -> Entries:
    def entries() -> Iterator[tuple[bytes, Found]]:
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                with opened.open(info) as stream:
                    yield info.orig_filename.encode(), of_stream(cast("BinaryIO", stream))

    return unique(entries())


def _in_c(source: str, library: str) -> Callable[[Path, Path], Entries]:
    return lambda archive, _: read_output(of_frames, compiled(source, library), archive)


def _script(interpreter: str, source: str) -> Callable[[Path, Path], Entries]:
    return lambda archive, _: read_output(
        of_lines, interpreter, DRIVERS / source, archive, str(LARGE)
    )


# ------------------------------------------------------------ what they can't do

_DEEP: Final = "deeper than PATH_MAX"
_ZIPINFO_LIMITS: Final = {
    _DEEP: "cuts names at 4096 bytes",
    "4 GiB - 1": "takes the size of 2^32 - 1 for unknown ever after: says the ZIP64 field of the "
    "next member is corrupt (also with what Python's zipfile writes)",
}
_UNZIP_LIMITS: Final = {
    "ascii": "takes a semicolon at a name's end for a VMS version, and drops it (not with -V)",
    **_ZIPINFO_LIMITS,
}
_BSDTAR_LIMITS: Final = dict.fromkeys(
    ("latin nfd", "nfc and nfd", "japanese", "portable"),
    "libarchive turns names from NFD into NFC, also two into one",
)
_7Z_LIMITS: Final = {_DEEP: "makes folders by their whole path, so none beyond PATH_MAX"}
_BEYOND_4_GIB: Final = ("4 GiB - 2", "4 GiB - 1", "4 GiB")
"""The cases with a member, and the directory, beyond the first 4 GiB."""
_NO_ZIP64: Final = "knows no ZIP64"
_BUSYBOX_PIPED_LIMITS: Final = {
    _DEEP: "takes an archive with a name of more than 4095 bytes for bad",
    "4 GiB": _NO_ZIP64,
}
_BUSYBOX_LIMITS: Final = {**_BUSYBOX_PIPED_LIMITS, **dict.fromkeys(_BEYOND_4_GIB, _NO_ZIP64)}
_MINIZIP_LIMITS: Final = {
    **dict.fromkeys(
        _BEYOND_4_GIB,
        "doesn't take values from ZIP64 fields on 64-bit systems (nor those that Python's zipfile "
        "writes, where it lists 4294967294 bytes as 4294967295)",
    ),
    "65535 members": "takes just this number for unknown, reads on behind the last member and "
    "fails (also with what Python's zipfile writes)",
}
_ZZIPLIB_LIMITS: Final = {
    **dict.fromkeys(_BEYOND_4_GIB, "knows no ZIP64, its sizes have 32 bits"),
    **dict.fromkeys(
        ("65536 members", "100000 members"), "knows no ZIP64, it counts 65,535 members at most"
    ),
}
_UNAR_LIMITS: Final = {
    "other planes": "drops U+FEFF at a name's start",
    **_7Z_LIMITS,
    **dict.fromkeys(
        _BEYOND_4_GIB,
        "takes the archive for corrupted at the first member that begins beyond 4 GiB (also with "
        "what Python's zipfile writes)",
    ),
}
_DETAILS_LIMITS: Final = {
    **dict.fromkeys(
        ("deep", _DEEP),
        "its offsets are wrong behind a name of many hundred bytes in the directory (also with "
        "what Python's zipfile writes)",
    ),
    **dict.fromkeys(
        ("65534 members", "65535 members", "65536 members", "100000 members"),
        "takes minutes for so many members, so it isn't run",
    ),
}
_RUBYZIP_LIMITS: Final = {
    "signatures": "takes any ZIP64 signatures in the last 64 KiB for the end record, without "
    "asking the end record itself"
}

# ------------------------------------------------------------ all of them

READERS: Final = (
    Reader("Info-ZIP unzip", version("unzip", "-v", pattern=r"UnZip (\S+)"), _unzip, _UNZIP_LIMITS),
    Reader(
        "Info-ZIP zipinfo -v",
        version("zipinfo", pattern=r"ZipInfo (\S+)"),
        _zipinfo,
        _ZIPINFO_LIMITS,
        sizes_only_above=-1,
    ),
    Reader(
        "Info-ZIP funzip",
        version("unzip", "-v", pattern=r"UnZip (\S+)", needs="funzip"),
        _funzip,
        first_only=True,
    ),
    Reader("7z", version("7z"), _7z, _7Z_LIMITS),
    Reader("bsdtar", version("bsdtar", "--version"), _bsdtar, _BSDTAR_LIMITS),
    Reader("bsdtar, piped", version("bsdtar", "--version"), _bsdtar_piped, _BSDTAR_LIMITS),
    Reader("Python zipfile", lambda: sys.version.split()[0], _python_zipfile),
    Reader("strict checker", lambda: "ours", _strict),
    Reader(
        "busybox unzip",
        version("busybox", pattern=r"v(\S+)"),
        _busybox,
        _BUSYBOX_LIMITS,
        heavy=True,
    ),
    Reader(
        "busybox unzip, piped",
        version("busybox", pattern=r"v(\S+)"),
        _busybox_piped,
        _BUSYBOX_PIPED_LIMITS,
        heavy=True,
    ),
    Reader(
        "The Unarchiver",
        version("unar", "--version"),
        _unar,
        _UNAR_LIMITS,
        heavy=True,
        sizes_only_above=LARGE - 1,
    ),
    Reader(
        "zipdetails",
        version("zipdetails", "--version"),
        _zipdetails,
        _DETAILS_LIMITS,
        heavy=True,
        sizes_only_above=-1,
    ),
    Reader("libzip", library_version("libzip"), _in_c("c_libzip.c", "libzip"), heavy=True),
    Reader(
        "minizip",
        library_version("minizip"),
        _in_c("c_minizip.c", "minizip"),
        _MINIZIP_LIMITS,
        heavy=True,
    ),
    Reader(
        "zziplib",
        library_version("zziplib"),
        _in_c("c_zziplib.c", "zziplib"),
        _ZZIPLIB_LIMITS,
        heavy=True,
    ),
    Reader(
        "Perl Archive::Zip",
        version("perl", "-MArchive::Zip", "-e", "print $Archive::Zip::VERSION"),
        _script("perl", "perl_archive_zip.pl"),
        heavy=True,
        sizes_only_above=LARGE - 1,
    ),
    Reader(
        "PHP ZipArchive",
        version("php", "-r", "echo phpversion('zip');"),
        _script("php", "php_ziparchive.php"),
        heavy=True,
        sizes_only_above=LARGE - 1,
    ),
    Reader(
        "Ruby rubyzip",
        version("ruby", "-e", "require 'zip/version'; puts Zip::VERSION"),
        _script("ruby", "ruby_rubyzip.rb"),
        _RUBYZIP_LIMITS,
        heavy=True,
        sizes_only_above=LARGE - 1,
    ),
)
