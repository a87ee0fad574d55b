"""Readers from Java, Go, npm and PyPI: libraries, each run by a driver in drivers/.

A driver prints a line for each entry (:func:`tests.readers.gate.of_lines`), with all checks of
the library switched on; what the library complains of ends it with an error.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.readers.driving import commons_path, compiler, go_program, java_classes, served
from tests.readers.gate import Found, Read, Reader, WrongError, of_folder, of_lines
from tests.readers.programs import Argument, run
from tests.readers.tools import (
    COMMONS_COMPRESS,
    DRIVERS,
    NODE_MODULES,
    READERS_PYTHON,
    READERS_VENV,
)

_LARGEST: Final = 1 << 30
"""What a reader of files may skip (``sizes_only_above``) to save time, where others of its kind
don't: it has to read what is behind, so a wrong size or offset is seen all the same."""
_LARGE: Final = ("just below 4 GiB", "4 GiB - 2", "4 GiB - 1", "4 GiB")
"""The cases with a member of about 4 GiB."""


def _because(reason: str, *cases: str) -> dict[str, str]:
    return dict.fromkeys(cases, reason)


def _argument(largest: int | None) -> list[str]:
    """The last argument of a driver."""
    return [] if largest is None else [str(largest)]


# -- Java -------------------------------------------------------------------------------

_JVM: Final = (
    *("-XX:-UsePerfData", "-XX:+UseSerialGC", "-Xshare:auto", "-Xmx512m"),
    "-Dsun.jnu.encoding=UTF-8",
)


def _java(driver: str, mode: str, *, pipe: bool = False, largest: int | None = None) -> Read:
    def read(archive: Path, _place: Path) -> Mapping[bytes, Found]:
        path = commons_path() if driver == "ReadCommons" else str(java_classes())
        argv: list[Argument] = ["java", *_JVM, "-cp", path, driver, mode]
        if pipe:
            return of_lines(run(*argv, piped=archive).splitlines())
        return of_lines(run(*argv, archive, *_argument(largest)).splitlines())

    return read


def _java_version() -> str:
    return compiler("java").removeprefix("javac ")


def _commons_version() -> str:
    with zipfile.ZipFile(COMMONS_COMPRESS) as jar:
        manifest = jar.read("META-INF/MANIFEST.MF").decode()
    found = re.search(r"^Implementation-Version: (\S+)", manifest, re.MULTILINE)
    return found[1] if found else "?"


_JAR_LINE: Final = re.compile(rb" *(\d+) \w{3} \w{3} \d\d \d\d:\d\d:\d\d \S+ \d+ (.*)")


def _jar(archive: Path, place: Path) -> dict[bytes, Found]:
    """``jar tvf`` for the names, ``jar xf`` for the content.

    It can extract to a folder only, so not what takes gigabytes on the disk.
    """
    listed: dict[bytes, int] = {}
    jar = ["jar", *(f"-J{option}" for option in _JVM)]
    for line in run(*jar, "tvf", archive).splitlines():
        fields = _JAR_LINE.fullmatch(line)
        if fields is None or fields[2] in listed:
            raise WrongError(f"jar says {line!r}")
        listed[fields[2]] = int(fields[1])
    small = [name.decode() for name, size in listed.items() if size <= _LARGEST]
    chosen = small if len(small) < len(listed) else []
    run(*jar, "xf", archive, *chosen, cwd=place)
    found = of_folder(place)
    for name, size in listed.items():
        if size > _LARGEST:
            found[name] = Found(size, "")
        elif name not in found:
            raise WrongError(f"jar lists {name!r} and doesn't extract it")
    if unlisted := found.keys() - listed.keys():
        raise WrongError(f"jar extracts {min(unlisted)!r} and doesn't list it")
    return found


_JAVA: Final = (
    Reader("Java ZipFile", _java_version, _java("ReadZip", "file")),
    Reader("Java ZipInputStream, pipe", _java_version, _java("ReadZip", "stream", pipe=True)),
    Reader(
        "Java NIO file system",
        _java_version,
        _java("ReadZip", "nio", largest=_LARGEST),
        sizes_only_above=_LARGEST,
    ),
    Reader(
        "jar",
        _java_version,
        _jar,
        limits=_because(
            "extracts by whole paths, and the system takes less than 4096 bytes in one",
            "deeper than PATH_MAX",
        ),
        sizes_only_above=_LARGEST,
    ),
    Reader(
        "Commons Compress ZipFile",
        _commons_version,
        _java("ReadCommons", "file", largest=_LARGEST),
        heavy=True,
        sizes_only_above=_LARGEST,
    ),
    Reader(
        "Commons Compress stream, pipe",
        _commons_version,
        _java("ReadCommons", "stream", pipe=True),
        heavy=True,
    ),
)

# -- Go ---------------------------------------------------------------------------------


def _go(archive: Path, _place: Path) -> dict[bytes, Found]:
    return of_lines(run(go_program(), archive).splitlines())


_GO: Final = (Reader("Go archive/zip", lambda: compiler("go").removeprefix("go"), _go, heavy=True),)

# -- npm --------------------------------------------------------------------------------


def _node(library: str, *, pipe: bool, largest: int | None) -> Read:
    def read(archive: Path, _place: Path) -> dict[bytes, Found]:
        argv: list[Argument] = ["node", "--no-deprecation", DRIVERS / "node" / "read.js", library]
        env = {"NODE_PATH": str(NODE_MODULES)}
        if pipe:
            return of_lines(run(*argv, "-", piped=archive, env=env).splitlines())
        return of_lines(run(*argv, archive, *_argument(largest), env=env).splitlines())

    return read


def _npm_version(package: str) -> Callable[[], str]:
    def version() -> str:
        said: str = json.loads((NODE_MODULES / package / "package.json").read_bytes())["version"]
        return said

    return version


def _npm(
    name: str,
    library: str,
    package: str | None = None,
    *,
    pipe: bool = False,
    limits: Mapping[str, str] | None = None,
    largest: int | None = None,
    samples: bool = False,
) -> Reader:
    return Reader(
        name,
        _npm_version(package or library),
        _node(library, pipe=pipe, largest=largest),
        limits=limits or {},
        heavy=True,
        sizes_only_above=largest,
        samples=samples,
    )


_IN_MEMORY: Final = _because(
    "takes the whole archive in one Buffer, and Node's readFile gives none above 2 GiB", *_LARGE
)
_NO_BOM: Final = _because(
    "decodes names by a TextDecoder, which drops U+FEFF at the beginning", "other planes"
)

_NPM: Final = (
    _npm("adm-zip", "adm-zip", limits=_IN_MEMORY),
    _npm("fflate unzip", "fflate", limits={**_IN_MEMORY, **_NO_BOM}),
    _npm("fflate Unzip, pipe", "fflate-stream", "fflate", pipe=True, limits=_NO_BOM),
    _npm("jszip", "jszip", limits=_IN_MEMORY),
    _npm(
        "node-stream-zip",
        "node-stream-zip",
        limits=_because(
            "its buffer is a thousandth of the archive or 1 KiB, and a header has to fit in",
            "deep",
            "deeper than PATH_MAX",
        ),
        largest=_LARGEST,
    ),
    _npm("unzipit", "unzipit", largest=_LARGEST),
    _npm("unzipper Open", "unzipper-open", "unzipper", largest=_LARGEST),
    _npm("unzipper Parse, pipe", "unzipper-parse", "unzipper", pipe=True),
    _npm("yauzl", "yauzl"),
    _npm("yauzl-promise", "yauzl-promise", largest=_LARGEST),
    _npm(
        "zip.js, strict",
        "zip.js",
        "@zip.js/zip.js",
        largest=_LARGEST,
        samples=True,
    ),
)

# -- PyPI -------------------------------------------------------------------------------


def _python(library: str, *, pipe: bool, http: bool, largest: int | None) -> Read:
    def read(archive: Path, place: Path) -> dict[bytes, Found]:
        argv: list[Argument] = [
            READERS_PYTHON,
            "-I",
            "-W",
            "error",
            DRIVERS / "python" / "read.py",
            library,
        ]
        if http:
            with served(archive, place) as url:
                return of_lines(run(*argv, url, *_argument(largest)).splitlines())
        if pipe:
            return of_lines(run(*argv, "-", piped=archive).splitlines())
        return of_lines(run(*argv, archive, *_argument(largest)).splitlines())

    return read


def _pypi_version(package: str) -> Callable[[], str]:
    def version() -> str:
        places = [str(path) for path in READERS_VENV.glob("lib/python3*/site-packages")]
        for found in importlib.metadata.distributions(name=package, path=places):
            return found.version
        raise importlib.metadata.PackageNotFoundError(package)

    return version


def _pypi(
    name: str,
    library: str,
    *,
    pipe: bool = False,
    http: bool = False,
    limits: Mapping[str, str] | None = None,
    largest: int | None = None,
) -> Reader:
    return Reader(
        name,
        _pypi_version(library),
        _python(library, pipe=pipe, http=http, largest=largest),
        limits=limits or {},
        heavy=True,
        sizes_only_above=largest,
        samples=http,
    )


_COMPOSES: Final = _because(
    "libarchive composes all names that are said to be UTF-8 (NFC)",
    *("latin nfd", "nfc and nfd", "japanese", "portable"),
)

_PYPI: Final = (
    _pypi("libarchive-c", "libarchive-c", limits=_COMPOSES, largest=_LARGEST),
    _pypi("libarchive-c, pipe", "libarchive-c", pipe=True, limits=_COMPOSES),
    _pypi("remotezip, HTTP", "remotezip", http=True, largest=_LARGEST),
    _pypi("stream-unzip, pipe", "stream-unzip", pipe=True),
    _pypi(
        "unzip-http, HTTP",
        "unzip-http",
        http=True,
        limits={
            **_because(
                "asks for the range up to the byte before the first to get an empty entry",
                *("empty among others", "only empty", "empty folders", "execute bits"),
            ),
            **_because(
                "takes any signature of a ZIP64 end record in the last 64 KiB for the end record",
                "signatures",
            ),
        },
        largest=_LARGEST,
    ),
)

READERS: Final = (*_JAVA, *_GO, *_NPM, *_PYPI)
