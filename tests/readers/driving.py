"""Runs drivers and programs that read an archive, from its path, from a pipe or over HTTP."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from bench.web import nginx
from tests.e2e.programs import PATH, environment
from tests.readers.gate import WrongError
from tests.readers.tools import BUILD, COMMONS_COMPRESS, DRIVERS

SECONDS: Final = 300.0
"""How long a program may take; only a defect comes near it."""


def output(
    argv: Sequence[str | Path],
    *,
    piped: Path | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> bytes:
    """What a program says. Raises :exc:`WrongError` if it fails or has anything to complain of.

    *piped* comes through a real pipe on its standard input, so that it can't seek there.
    """
    with contextlib.ExitStack() as stack:
        source: subprocess.Popen[bytes] | None = None
        if piped is not None:
            source = stack.enter_context(_process(["cat", piped], stdin=subprocess.DEVNULL))
        process = stack.enter_context(
            _process(
                argv,
                stdin=source.stdout if source else subprocess.DEVNULL,
                cwd=cwd,
                env=dict(env or {}),
            )
        )
        if source and source.stdout:
            source.stdout.close()  # or it would never hear that nobody reads any more
        try:
            out, err = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise WrongError(f"{argv[0]} is not done after {SECONDS:.0f} s") from None
        if process.returncode or err:
            said = err[-2000:].decode(errors="replace").strip()
            raise WrongError(f"{argv[0]} ended with {process.returncode}: {said}")
        # Many readers go once the directory begins.
        if source and source.wait(SECONDS) not in (0, -signal.SIGPIPE):
            raise WrongError(f"{piped} can't be read")
    return out


@contextlib.contextmanager
def _process(
    argv: Sequence[str | Path],
    *,
    stdin: IO[bytes] | int | None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own; gone with its children after the block."""
    program = shutil.which(argv[0], path=PATH)
    if program is None:
        raise WrongError(f"{argv[0]} is not installed: make readers")
    process = subprocess.Popen(
        [program, *argv[1:]],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=None if argv[0] == "cat" else subprocess.PIPE,
        cwd=cwd,
        env=environment(**(env or {})),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()
        process.wait(SECONDS)


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
    return _built("java", lambda sources, into: output([*_JAVAC, "-d", into, *sources]))


@functools.cache
def commons_path() -> str:
    """The class path with drivers/commons, which takes a library that isn't in every Java."""
    path = f"{java_classes()}:{COMMONS_COMPRESS}"

    def build(sources: Sequence[Path], into: Path) -> None:
        output([*_JAVAC, "-cp", path, "-d", into, *sources])

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
        output(["go", "build", "-o", into / "readzip", "."], cwd=DRIVERS / "go", env=env)

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
    return output(argv).decode().strip()
