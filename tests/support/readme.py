"""What README.md tells people to type or to write into files, for tests that do so.

Sections are ``## Title``; a block is a run of lines indented by four blanks.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_README: Final = Path(__file__).parents[2] / "README.md"


def section(title: str) -> str:
    """The text of a section."""
    text = re.split(rf"^## {re.escape(title)}$", _README.read_text(), flags=re.MULTILINE)
    assert len(text) == 2, f"README.md has no section {title}"
    return re.split(r"^## ", text[1], flags=re.MULTILINE)[0]


def blocks(title: str) -> list[str]:
    """All blocks of the section *title*, without their indentation."""
    # What goes on after an empty line is the same block.
    found = re.findall(r"(?:^    .*\n(?:\n+(?=    ))?)+", section(title), re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


def block(title: str, having: str) -> str:
    """The only block of the section *title* that has the text *having* in it."""
    (found,) = [text for text in blocks(title) if having in text]
    return found


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """*text* with each key of *changes*, which must be there, replaced by its value."""
    for old, new in changes.items():
        assert old in text, f"README.md has no {old!r} where a test replaces it"
        text = text.replace(old, new)
    return text


def mount_options(title: str, library: str) -> list[str]:
    """The options of the one ``zipfs mount`` of the section *title* that mounts *library*."""
    found = []
    for text in blocks(title):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["zipfs", "mount"] and words[-2] == library:
                found.append(words[2:-2])
    (options,) = found
    return options
