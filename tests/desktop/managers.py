"""Thunar and PCManFM: how they are set up, and where each of them shows what."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final

from tests.desktop.session import ZONE, Desktop, Row
from tests.support.waiting import SECONDS, poll

_THUNAR: Final = """\
<?xml version="1.0" encoding="UTF-8"?>
<channel name="thunar" version="1.0">
  <property name="default-view" type="string" value="ThunarDetailsView"/>
  <property name="last-view" type="string" value="ThunarDetailsView"/>
  <property name="misc-date-style" type="string" value="THUNAR_DATE_STYLE_YYYYMMDD"/>
  <property name="misc-thumbnail-mode" type="string" value="THUNAR_THUMBNAIL_MODE_ALWAYS"/>
</channel>
"""
_PCMANFM: Final = """\
[ui]
view_mode=list
show_statusbar=1
"""
_OPENERS: Final = """\
[Default Applications]
application/zip=xarchiver.desktop
"""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a file manager says of a file."""

    size: str
    kind: str
    date: str


@dataclass(frozen=True, kw_only=True)
class Manager:
    """A file manager."""

    program: str
    settings: str
    """Where in the home folder its settings are, and what they say."""
    text: str
    title: str
    """Of a window that shows a folder, with the folder's name as ``{}``."""
    columns: Callable[[Row], Shown]
    date: str
    """A date's format, as of :func:`time.strftime`."""

    def window(self, folder: str) -> str:
        """The title of the window that shows a *folder* called so."""
        return self.title.format(folder)

    def open(self, desktop: Desktop, folder: Path) -> str:
        """Show *folder*; the title of the window."""
        desktop.write(".config/mimeapps.list", _OPENERS)
        desktop.write(self.settings, self.text)
        desktop.start(self.program, folder)
        title = self.window(folder.name)
        desktop.wait_windows(title)
        return title

    def go(self, desktop: Desktop, folder: Path) -> str:
        """Show another *folder* in the window that is there; its new title."""
        desktop.keys("ctrl+l")
        desktop.type(str(folder))
        desktop.keys("Return")
        title = self.window(folder.name)
        desktop.wait_windows(title)
        return title

    def expected(self, path: Path) -> Shown:
        """What it has to say of an archive."""
        status = os.stat(path)
        date = datetime.fromtimestamp(status.st_mtime, timezone(timedelta(hours=ZONE)))
        return Shown(size=_size(status.st_size), kind="Zip archive", date=date.strftime(self.date))


def _size(size: int) -> str:
    """A size in words, as GLib has it (g_format_size(3), in powers of 1024)."""
    if size < 1 << 10:
        return f"{size} bytes"
    return f"{size / (1 << 10):.1f} KiB" if size < 1 << 20 else f"{size / (1 << 20):.1f} MiB"


MANAGERS: Final = (
    Manager(
        program="thunar",
        settings=".config/xfce4/xfconf/xfce-perchannel-xml/thunar.xml",
        text=_THUNAR,
        title="{} - Thunar",
        columns=lambda row: Shown(size=row.texts[1], kind=row.texts[2], date=row.texts[3]),
        date="%Y-%m-%d %H:%M:%S",
    ),
    Manager(
        program="pcmanfm",
        settings=".config/pcmanfm/default/pcmanfm.conf",
        text=_PCMANFM,
        title="{}",
        columns=lambda row: Shown(size=row.texts[2], kind=row.texts[1], date=row.texts[3]),
        date="%m/%d/%y %H:%M",
    ),
)


def answer(desktop: Desktop, text: str, *keys: str) -> None:
    """Wait for a dialog that says *text*, press *keys*, and see it go."""
    desktop.wait_text(text)
    desktop.keys(*keys)
    poll(f"{text!r} to go", lambda: not any(text in s for s in desktop.tree().texts()), SECONDS)
