"""What the documents tell people to type or to write into files, for tests that do so.

A place in them is ``DOCUMENT#HEADING``: a topic of the manual, or ``README``, and the anchor that a
forge gives the heading (``serving#nginx``). A section goes to the next heading of its level or a
higher one; ``serving`` alone is what stands before the first heading but the title. A block is what
stands between two lines of three backquotes.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
MANUAL: Final = ROOT / "zipfs/manual"
_FENCE: Final = "```"


class Block(NamedTuple):
    """A block of a document."""

    place: str
    """Of the nearest heading above it."""
    language: str
    text: str

    @property
    def first(self) -> str:
        """Its first line, by which a table can name it."""
        return self.text.partition("\n")[0]


class _Heading(NamedTuple):
    line: int
    level: int
    anchor: str


def documents() -> dict[str, Path]:
    """All that users read, by name."""
    pages = {file.stem: file for file in sorted(MANUAL.glob("*.md"))}
    return {"README": ROOT / "README.md", **pages}


def anchor(heading: str) -> str:
    """What GitHub, and other forges alike, make of a heading."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def headings(text: str) -> Iterator[_Heading]:
    """Those of a document, which aren't comments in a block."""
    fenced = False
    for number, line in enumerate(text.splitlines()):
        fenced ^= line.startswith(_FENCE)
        if not fenced and (match := re.match(r"(#+) (.*)", line)):
            yield _Heading(number, len(match[1]), anchor(match[2]))


def section(place: str) -> str:
    """The text of the section at *place*."""
    document, _, wanted = place.partition("#")
    text = documents()[document].read_text()
    found = list(headings(text))
    if not wanted:
        return "".join(text.splitlines(keepends=True)[1 : found[1].line])
    at = [number for number, one in enumerate(found) if one.anchor == wanted]
    assert len(at) == 1, f"there is no section {place}, or there are two"
    start = found[at[0]]
    ends = (one.line for one in found[at[0] + 1 :] if one.level <= start.level)
    lines = text.splitlines(keepends=True)
    return "".join(lines[start.line + 1 : next(ends, len(lines))])


def _blocks(text: str, document: str) -> Iterator[Block]:
    place, language, begun = document, "", None
    for number, line in enumerate(lines := text.splitlines()):
        if line.startswith(_FENCE) and begun is None:
            begun, language = number + 1, line.removeprefix(_FENCE)
        elif line.startswith(_FENCE):
            yield Block(place, language, "\n".join([*lines[begun:number], ""]))
            begun = None
        elif begun is None and (match := re.match(r"##+ (.*)", line)):
            place = f"{document}#{anchor(match[1])}"
    assert begun is None, f"a block of {document} doesn't end"


def all_blocks() -> Iterator[Block]:
    """Each block of each document."""
    for document, file in documents().items():
        yield from _blocks(file.read_text(), document)


def blocks(place: str) -> list[str]:
    """All blocks of the section at *place*."""
    return [block.text for block in _blocks(section(place), "")]


def block(place: str, having: str = "") -> str:
    """The only block of the section at *place* that has the text *having* in it."""
    found = [text for text in blocks(place) if having in text]
    assert len(found) == 1, f"{len(found)} blocks of {place} have {having!r}"
    return found[0]


def quoted(place: str) -> list[str]:
    """What stands between backquotes in the section at *place*, on one line each."""
    text = re.sub(rf"^{_FENCE}.*?^{_FENCE}$", "", section(place), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(piece.split()) for piece in text.split("`")[1::2]]


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """*text* with each key of *changes*, which must be there, replaced by its value."""
    for old, new in changes.items():
        assert old in text, f"the document has no {old!r} where a test replaces it"
        text = text.replace(old, new)
    return text


def mount_options(place: str, library: str) -> list[str]:
    """The options of the one ``zipfs mount`` of the section at *place* that mounts *library*."""
    found = []
    for text in blocks(place):
        for line in text.replace("\\\n", " ").splitlines():
            if line.startswith("zipfs mount "):
                words = shlex.split(line, comments=True)
                if words[-2] == library:
                    found.append(words[2:-2])
    (options,) = found
    return options
