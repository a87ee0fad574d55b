"""What drivers in other languages need: to be compiled once, and archives over HTTP."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.web import nginx
from tests.readers.programs import run
from tests.readers.tools import BUILD, COMMONS_COMPRESS, DRIVERS


@contextlib.contextmanager
def served(archive: Path, place: Path) -> Iterator[str]:
    """The URL of *archive*, served by a real nginx for as long as the block takes."""
    with (
        tempfile.TemporaryDirectory(dir=place) as workdir,
        nginx(archive.parent, workdir=Path(workdir)) as server,
    ):
        yield server.url_of(archive.name)


# -- what has to be compiled ----------------------------------------------------------

_JAVAC: Final = ("javac", "-Xlint:all,-path", "-Werror")


@functools.cache
def java_classes() -> Path:
    """The folder of the compiled drivers/java."""
    return _built("java", lambda sources, into: run(*_JAVAC, "-d", into, *sources))


@functools.cache
def commons_path() -> str:
    """The class path with drivers/commons, which takes a library that isn't in every Java."""
    path = f"{java_classes()}:{COMMONS_COMPRESS}"

    def build(sources: Sequence[Path], into: Path) -> None:
        run(*_JAVAC, "-cp", path, "-d", into, *sources)

    return f"{_built('commons', build, depends=path)}:{path}"


@functools.cache
def go_program() -> Path:
    """The compiled drivers/go."""

    def build(_sources: Sequence[Path], into: Path) -> None:
        # Nothing from the network, nothing in a home folder.
        env = {
            "GOPROXY": "off",
            "GOFLAGS": "-mod=mod",
            "GOTOOLCHAIN": "local",
            "GOCACHE": str(BUILD / "go-cache"),
            "GOPATH": str(BUILD / "go"),
            "CGO_ENABLED": "0",
        }
        run("go", "build", "-o", into / "readzip", ".", cwd=DRIVERS / "go", env=env)

    return _built("go", build) / "readzip"


def _built(
    language: str, build: Callable[[Sequence[Path], Path], object], *, depends: str = ""
) -> Path:
    """Where the driver in *language* is, compiled now if these sources have never been.

    Appears whole or not at all: several test runs may want it at the same time.
    """
    sources = sorted(path for path in (DRIVERS / language).iterdir() if path.is_file())
    digest = hashlib.sha256((compiler(language) + depends).encode())
    for source in sources:
        digest.update(source.read_bytes())
    folder = BUILD / f"{language}-{digest.hexdigest()[:16]}"
    if not folder.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as draft:
            build(sources, Path(draft, "built"))
            # If somebody else was first, theirs is as good.
            with contextlib.suppress(OSError):
                Path(draft, "built").rename(folder)
    return folder


@functools.cache
def compiler(language: str) -> str:
    """The version of a language's compiler, in its own words."""
    argv = ["go", "env", "GOVERSION"] if language == "go" else ["javac", "-version"]
    return run(*argv).decode().strip()
