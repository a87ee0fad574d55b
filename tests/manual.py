"""`make manual`: the parts of the manual that the code has, the man pages, and the hook for RomM.

A part stands between two comments of a page of ``zipfs/manual/``::

    <!-- begin: made by `make manual` (NAME) -->
    <!-- end -->

``python -m tests.manual`` writes all of them, ``--check`` says which are out of date. What the
code says in click's options, exit statuses, tables and log messages is said nowhere else.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import click

import zipfs
from tests import hookfile, manpages
from tests.vm import results
from tests.vm.guest.exports import EXPORTED
from tests.vm.guest.sources import SOURCES
from zipfs.cli import exposition
from zipfs.cli.cli import cli
from zipfs.cli.command_help import pages
from zipfs.cli.options import _ARCHIVE_OPTIONS
from zipfs.errors import EXIT_CODES
from zipfs.library.rules.categories import PARTS
from zipfs.library.rules.general import LITTER_FILES, LITTER_FOLDERS
from zipfs.library.rules.playlists import IMAGES, PLATFORMS, RAW, TABLES
from zipfs.system.filesystems import rows

ROOT: Final = Path(__file__).parents[1]
MANUAL: Final = ROOT / "zipfs/manual"
README: Final = ROOT / "README.md"
PACKAGE: Final = Path(zipfs.__file__).parent

_WIDTH: Final = 80
_PART: Final = re.compile(
    r"(<!-- begin: made by `make manual` \((?P<name>[a-z-]+)\) -->\n).*?(<!-- end -->)", re.DOTALL
)
_DEFAULT: Final = re.compile(r"\s*\[default: (?P<value>.*)\]", re.DOTALL)
_LEVELS: Final = ("info", "warning", "error", "exception")


# ---------------------------------------------------------------- Markdown


def wrapped(text: str, *, first: str = "", rest: str = "") -> str:
    """*text* in lines that a terminal has room for; `code` isn't broken."""
    # What stands between backquotes is one word.
    glued = re.sub(r"`[^`]*`", lambda code: code[0].replace(" ", "\0"), " ".join(text.split()))
    lines = textwrap.wrap(
        glued, _WIDTH, initial_indent=first, subsequent_indent=rest,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return "\n".join(lines).replace("\0", " ")


def items(texts: Iterable[str]) -> str:
    return "\n".join(wrapped(text, first="- ", rest="  ") for text in texts)


def names(found: Iterable[bytes | str]) -> str:
    """Each of *found* as code, one after the other."""
    return " ".join(f"`{name.decode() if isinstance(name, bytes) else name}`" for name in found)


# ---------------------------------------------------------------- options


def command(name: str) -> click.Command:
    return cli.commands[name]


def options_of(name: str) -> list[click.Option]:
    return [one for one in command(name).params if isinstance(one, click.Option)]


def archive_options() -> set[str]:
    """The names of the options that all commands about archives have."""

    def nothing() -> None: ...

    for option in _ARCHIVE_OPTIONS:
        option(nothing)
    found: list[click.Option] = nothing.__click_params__  # type: ignore[attr-defined] # click's
    return {str(option.name) for option in found}


def described(option: click.Option) -> str:
    """What it is called, what it does, and its default."""
    text = option.help or ""
    default = _DEFAULT.search(text)
    text = _DEFAULT.sub("", text).rstrip(". ")
    value = f" Default: {default['value']}." if default else ""
    return f"`{shown(option)}`: {globs_as_code(f'{text}.{value}')}"


def globs_as_code(text: str) -> str:
    """*text* with each pattern between backquotes: Markdown takes a `*` for emphasis."""
    pieces = text.split("`")
    pieces[::2] = [
        re.sub(r"'?([\w/{}*-]*\*[\w/{}*.-]*[\w*])'?|'([^' ]*[*{/][^' ]*)'", r"`\1\2`", piece)
        for piece in pieces[::2]
    ]
    return "`".join(pieces)


def shown(option: click.Option) -> str:
    flags = ", ".join(option.opts)
    if option.is_flag:
        return flags
    metavar = option.metavar
    if metavar is None and isinstance(option.type, click.Choice):
        metavar = "|".join(option.type.choices)
    return f"{flags} {metavar or 'VALUE'}"


def _options(*commands: str, but: Iterable[str] = ()) -> str:
    left_out = set(but)
    return items(
        described(option)
        for name in commands
        for option in options_of(name)
        if option.name not in left_out
    )


# ---------------------------------------------------------------- other tables


def _file_systems() -> str:
    return items(
        f"{names(row.kinds)} ({row.level}): {row.note}."
        + (f" Proven by content: {row.stale}." if row.stale else "")
        + (f" Remedy: {row.remedy}." if row.remedy else "")
        for row in rows()
        if row.level != "problem"  # views of the kernel, where no library is
    )


def _sources() -> str:
    published = results.load()
    seen = wrapped(
        f"Seen on Linux {', '.join(results.kernels(published))}; `never`: the new version wasn't"
        f" offered within {results.patience(published):.0f} seconds."
    )
    return f"{seen}\n\n{results.page(published, [*SOURCES, *EXPORTED])}"


def _statuses() -> str:
    rows = (f"| {code} | {text} |" for code, text in EXIT_CODES.items())
    return "\n".join(["| status | meaning |", "|---|---|", *rows])


def _discs() -> str:
    return items(
        (
            f"Tables of tracks: {names(f'.{one.decode()}' for one in TABLES)}",
            f"Images: {names(f'.{one.decode()}' for one in IMAGES)}",
            f"Of these, raw images: {names(f'.{one.decode()}' for one in RAW)}",
        )
    )


def _clutter() -> str:
    return items((f"Folders: {names(LITTER_FOLDERS)}", f"Files: {names(LITTER_FILES)}"))


def _metrics() -> str:
    """The families of :mod:`zipfs.cli.exposition`, from its calls."""
    found = [("zipfs_info", "Which zipfs this is.")]
    tree = ast.parse(Path(exposition.__file__).read_text())
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        texts = [one.value for one in call.args[:2] if isinstance(one, ast.Constant)]
        if len(texts) < 2 or not isinstance(call.func, ast.Attribute | ast.Name):
            continue
        name, help_ = map(str, texts)
        called = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
        if called in ("_gauge", "_gauges"):
            found.append((f"zipfs_{name}", help_))
        elif called in ("_counter", "_counters"):
            found.append((f"zipfs_{name}_total", help_))
        elif called == "HistogramMetricFamily":
            found.append((name, help_))
    return items(f"`{name}`: {help_}" for name, help_ in sorted(set(found)))


def messages() -> dict[str, set[str]]:
    """The first argument of each call that logs, by level."""
    found: dict[str, set[str]] = {"info": set(), "warning": set(), "error": set()}
    for file in sorted(PACKAGE.rglob("*.py")):
        for call in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Attribute)
                and call.func.attr in _LEVELS
                and isinstance(call.func.value, ast.Name | ast.Attribute)
                and call.args
                and isinstance(call.args[0], ast.Constant)
                and isinstance(call.args[0].value, str)
            ):
                level = "error" if call.func.attr == "exception" else call.func.attr
                found[level].add(call.args[0].value)
    return {level: kinds - {"%s"} for level, kinds in found.items()}


def _messages() -> str:
    paragraphs = []
    for level, kinds in messages().items():
        lines = "\n".join(sorted(kinds))
        paragraphs.append(f"At the level {level}:\n\n```\n{lines}\n```")
    return "\n\n".join(paragraphs)


def _topics() -> str:
    rows = (f"| [{one.topic}](zipfs/manual/{one.topic}.md) | {one.title} |" for one in pages())
    return "\n".join(["| topic | is about |", "|---|---|", *rows])


PARTS_OF_IT: Final[dict[str, Callable[[], str]]] = {
    "archive-options": lambda: _options(
        "mount", but={str(one.name) for one in options_of("mount")} - archive_options()
    ),
    "mount-options": lambda: _options("mount", but=archive_options()),
    "unmount": lambda: _options("unmount"),
    "inspect": lambda: _options("inspect", but=archive_options()),
    "prepare": lambda: _options("prepare") + "\n\nof `tune`:\n\n" + _options("tune"),
    "help": lambda: _options("help"),
    "doctor": lambda: _options("doctor"),
    "status": lambda: _options("status"),
    "verify": lambda: _options("verify", but=archive_options()),
    "exit-statuses": _statuses,
    "filesystems": _file_systems,
    "sources": _sources,
    "no-events": lambda: wrapped(
        names(sorted(kind for row in rows() if not row.events for kind in row.kinds))
    ),
    "platforms": lambda: wrapped(names(sorted(PLATFORMS))),
    "discs": _discs,
    "categories": lambda: wrapped(names(PARTS)),
    "clutter": _clutter,
    "metrics": _metrics,
    "messages": _messages,
    "topics": _topics,
}


# ---------------------------------------------------------------- pages


def filled(text: str) -> str:
    """*text* with each of its parts as the code has it now. Raises :exc:`KeyError` for others."""
    return _PART.sub(lambda part: f"{part[1]}{PARTS_OF_IT[part['name']]()}\n{part[3]}", text)


def written() -> Iterator[tuple[Path, str]]:
    """Each file that is made or has made parts, and its text as it has to be."""
    for file in (README, *sorted(MANUAL.glob("*.md"))):
        yield file, filled(file.read_text())
    yield MANUAL / "zipfs.1", manpages.zipfs_1(options_of)
    yield MANUAL / "mount.zipfs.8", manpages.mount_zipfs_8()
    yield hookfile.HOOK, hookfile.hook_text()


def main() -> int:
    status = 0
    for file, text in written():
        if file.exists() and file.read_text() == text:
            continue
        if "--check" in sys.argv:
            print(f"{file.relative_to(ROOT)} is out of date; run: make manual")  # noqa: T201 - a program
            status = 1
        else:
            file.write_text(text)
            print(f"written: {file.relative_to(ROOT)}")  # noqa: T201 - a program
    return status


if __name__ == "__main__":
    sys.exit(main())
