"""A desktop without a screen: an X server in memory, a window manager, D-Bus, and what runs there.

What is on the screen is read from the desktop's interface for screen readers, so that a test can
say "the row called so shows this size"; keys and clicks are an X server's, as a user's would be.
Nothing sleeps: what a click leads to is waited for. All of it runs as an ordinary user if we are
root, with a home folder of its own, and all that was started, by D-Bus as well, ends with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from bench.process import start
from tests.support.mounting import as_user, environment, processes_with
from tests.support.users import NOBODY
from tests.support.waiting import poll

_SCREEN: Final = (Path(__file__).parent / "screen.py").read_text()
_PYTHON: Final = "/usr/bin/python3"
_OF_DESKTOP: Final = "ZIPFS_TEST_DESKTOP"
"""Environment variable by which the processes of a desktop are known."""
PROGRAMS: Final = (
    "Xvfb", "openbox", "dbus-daemon", "xdotool", "wmctrl", "gio", "thunar", "pcmanfm",
    "xarchiver", "mc", "tmux", "xterm", "unzip",
)  # fmt: skip
ZONE: Final = 2
"""Hours that the desktop is east of Greenwich."""
SECONDS: Final = 240.0
"""How long to wait for what should take a moment; less than a test's own time."""

_OPENBOX: Final = """\
<openbox_config xmlns="http://openbox.org/3.4/rc">
  <theme><name>Clearlooks</name></theme>
  <applications><application type="normal"><maximized>yes</maximized></application></applications>
</openbox_config>
"""
"""Windows are as large as the screen, so that their lists show all columns; dialogs are not."""

Box = tuple[int, int, int, int]
"""Left, top, width and height, in pixels of the screen."""


def desktop_missing() -> str | None:
    """What isn't installed here; None if all is."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    code = "import gi; gi.require_version('Atspi', '2.0'); gi.require_version('Gdk', '3.0')"
    if subprocess.run([_PYTHON, "-c", code], capture_output=True, check=False).returncode:
        missing.append("Atspi and Gdk for the system's Python")
    return ", ".join(missing) or None


@dataclass(frozen=True, kw_only=True)
class Widget:
    """Something on the screen, and what is in it."""

    role: str
    """Such as ``table cell``, ``frame`` (a window), ``dialog``, ``push button``."""
    name: str
    box: Box
    children: tuple[Widget, ...]

    @classmethod
    def of(cls, told: dict[str, object]) -> Widget:
        """From what ``screen.py`` tells."""
        children = told["children"]
        assert isinstance(children, list)
        return cls(
            role=str(told["role"]),
            # File managers put a no-break space between number and unit.
            name=str(told["name"]).replace("\N{NO-BREAK SPACE}", " "),
            box=tuple(told["box"]),  # type: ignore[arg-type]  # four numbers
            children=tuple(cls.of(child) for child in children),
        )

    def walk(self) -> Iterator[Widget]:
        """It, and all that is in it, from top to bottom."""
        yield self
        for child in self.children:
            yield from child.walk()

    def all(self, role: str) -> list[Widget]:
        return [widget for widget in self.walk() if widget.role == role]

    def texts(self) -> list[str]:
        """All that one can read in it."""
        return [widget.name for widget in self.walk() if widget.name]

    @property
    def middle(self) -> tuple[int, int]:
        x, y, width, height = self.box
        return x + width // 2, y + height // 2


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a list with columns."""

    texts: tuple[str, ...]
    """Of its cells, from left to right."""
    icon: Box
    name: Widget


class Desktop:
    """A running desktop. *place* is for its files, *pictures* for screenshots."""

    def __init__(self, place: Path, pictures: Path, test: str) -> None:
        self.home = place / "home"
        self.log = place / "desktop.log"
        """What all of its programs have written."""
        self._runtime = place / "runtime"
        self._pictures = pictures
        self._test = test
        self._mark = str(place)
        self._user = NOBODY if os.geteuid() == 0 else None
        self._settings: dict[str, str] = {}
        self._children: list[subprocess.Popen[bytes]] = []
        for folder in (self.home, self._runtime):
            folder.mkdir()
            self.give(folder)
        self._runtime.chmod(0o700)

    def give(self, path: Path) -> None:
        """Let *path* be the user's."""
        if self._user is not None:
            os.chown(path, self._user, self._user)

    def write(self, relative: str, text: str) -> None:
        """A file in the home folder, such as a program's settings."""
        path = self.home
        for part in Path(relative).parent.parts:
            path /= part
            path.mkdir(exist_ok=True)
            self.give(path)
        path = self.home / relative
        path.write_text(text)
        self.give(path)

    def begin(self) -> None:
        """Start the X server, D-Bus and the window manager."""
        self._settings = {
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self._runtime),
            "XDG_DATA_HOME": str(self.home / ".local/share"),
            "XDG_CURRENT_DESKTOP": "XFCE",
            "LC_ALL": "C.UTF-8",
            "TZ": f"UTC-{ZONE}",  # dates are shown in the user's own time
            "GTK_MODULES": "gail:atk-bridge",  # GTK 2 tells of its widgets only then
            "TERM": "xterm",
            _OF_DESKTOP: self._mark,
        }
        # -noreset: else it begins anew, and breaks off who is just coming, when nobody is there.
        options = ("-screen", "0", "1280x900x24", "-noreset", "-nolisten", "tcp")
        display = self._first_line("Xvfb", "-displayfd", "1", *options)
        self._settings["DISPLAY"] = f":{display}"
        self._settings["DBUS_SESSION_BUS_ADDRESS"] = self._first_line(
            "dbus-daemon", "--session", "--nofork", "--print-address=1"
        )
        self.write(".config/openbox/rc.xml", _OPENBOX)
        self.start("openbox")
        poll("a window manager", lambda: self._run("wmctrl", "-m").returncode == 0, SECONDS)

    def _command(self, *command: str | Path) -> list[str | Path]:
        return [*(as_user(self._user) if self._user is not None else []), *command]

    def _environment(self) -> dict[str, str]:
        return environment({"PYTHONWARNINGS": None, **self._settings})

    def _first_line(self, *command: str) -> str:
        """Start a server, and wait for what it says of itself."""
        reading, writing = os.pipe()
        with os.fdopen(reading) as said, self.log.open("ab") as log:
            with os.fdopen(writing, "wb") as stdout:
                self._start(command, stdout=stdout, log=log)
            return said.readline().strip()

    def start(self, *command: str | Path) -> None:
        """Start a program on the desktop."""
        with self.log.open("ab") as log:
            self._start(command, stdout=log, log=log)

    def _start(self, command: Sequence[str | Path], *, stdout: IO[bytes], log: IO[bytes]) -> None:
        env = self._environment()
        self._children.append(start(self._command(*command), stdout=stdout, stderr=log, env=env))

    def _run(self, *command: str | Path, text: str = "") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self._command(*command),
            env=self._environment(),
            input=text.encode(),
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )

    def run(self, *command: str | Path, text: str = "") -> str:
        """Run a program on the desktop to its end; what it has written."""
        done = self._run(*command, text=text)
        assert done.returncode == 0, f"{command}: {done.stderr.decode(errors='replace')}"
        return done.stdout.decode(errors="surrogateescape")

    def refused(self, *command: str | Path) -> str:
        """Run a program that has to fail; what it says of that."""
        done = self._run(*command)
        assert done.returncode != 0, f"{command}: {done.stdout!r}"
        return done.stderr.decode(errors="replace")

    # -- What is on the screen -----------------------------------------------------------

    def tree(self) -> Widget:
        """All that is on the screen."""
        told = json.loads(self.run(_PYTHON, "-", "tree", text=_SCREEN))
        return Widget.of(told)

    def windows(self) -> list[str]:
        """The titles of all windows, whatever they are."""
        lines = self.run("wmctrl", "-l").splitlines()
        return sorted(re.sub(r"^\S+ +\S+ +\S+ ?", "", line) for line in lines)

    def wait_windows(self, *titles: str) -> None:
        """Wait until these windows are there, and no other."""
        found: list[str] = []

        def right() -> bool:
            nonlocal found
            found = self.windows()
            return found == sorted(titles)

        try:
            poll(f"the windows {titles}", right, SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}: {found}, {self.tree().texts()}") from None

    def window(self, title: str) -> Widget | None:
        """The window with that title, and what is in it."""
        for application in self.tree().children:
            for window in application.children:
                if window.name == title:
                    return window
        return None

    def rows(self, title: str) -> dict[str, Row]:
        """The rows of a window's list, from top to bottom, as far as they are on the screen."""
        window = self.window(title)
        if window is None:
            return {}
        # Side panes are lists with no column headers, or one.
        columns, table = max(
            (
                (_columns(table), table)
                for role in ("table", "tree table")  # the latter in Thunar 4.20
                for table in window.all(role)
            ),
            key=lambda pair: pair[0],
            default=(0, window),
        )
        cells = [widget for widget in table.children if widget.role == "table cell"]
        found = {}
        for number in range(0, len(cells), columns) if columns else ():
            icon, name = _icon_and_name(cells[number])
            texts = (name.name, *(cell.name for cell in cells[number + 1 : number + columns]))
            # A tree's cells are said to begin further right than they are drawn: by the width of
            # what would fold a line, of which there is none.
            x, y, width, height = icon.box
            x -= cells[number].box[0] - _left(table)
            found[name.name] = Row(texts=texts, icon=(x, y, width, height), name=name)
        return found

    def wait_rows(self, title: str, names: Collection[str]) -> dict[str, Row]:
        """Wait until the window's list has these rows and no other."""
        found: dict[str, Row] = {}

        def right() -> bool:
            nonlocal found
            found = self.rows(title)
            return sorted(found) == sorted(names)

        try:
            poll(f"the rows {names}", right, SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}: {sorted(found)}, {self.windows()}") from None
        return found

    def wait_text(self, text: str) -> str:
        """Wait until something on the screen has *text* in it; all of what it says."""
        found: list[str] = []

        def there() -> bool:
            nonlocal found
            found = [said for said in self.tree().texts() if text in said]
            return bool(found)

        poll(f"{text!r} on the screen", there, SECONDS)
        return found[0]

    def picture(self, name: str) -> None:
        """A screenshot, to be looked at."""
        done = self._run(_PYTHON, "-", "picture", text=_SCREEN)
        assert done.returncode == 0, done.stderr
        self._pictures.mkdir(parents=True, exist_ok=True)
        (self._pictures / f"{self._test}-{name}.png").write_bytes(done.stdout)

    def pixels(self, box: Box) -> bytes:
        """What a part of the screen looks like."""
        done = self._run(_PYTHON, "-", "pixels", *map(str, box), text=_SCREEN)
        assert done.returncode == 0, done.stderr
        return done.stdout

    # -- What the user does --------------------------------------------------------------

    def keys(self, *keys: str) -> None:
        """Press keys, such as ``ctrl+c``, one after the other."""
        self.run("xdotool", "key", "--delay", "30", *keys)

    def type(self, text: str) -> None:
        self.run("xdotool", "type", "--delay", "5", text)

    def click(self, widget: Widget, *, times: int = 1) -> None:
        self.click_at(*widget.middle, times=times)

    def click_at(self, x: int, y: int, *, times: int = 1, button: int = 1) -> None:
        """Click somewhere; button 4 is the wheel, upwards."""
        pause = "60" if button == 1 else "2"
        where = ["mousemove", str(x), str(y)]
        self.run("xdotool", *where, "click", "--repeat", str(times), "--delay", pause, str(button))

    # -- Its end -------------------------------------------------------------------------

    def end(self) -> None:
        """End all that was started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(AssertionError):
                poll("the desktop's end", lambda n=number: not self._signal(n), 3)  # type: ignore[misc]
                for child in self._children:
                    child.wait(SECONDS)
                return
        raise AssertionError(f"the desktop doesn't end: {self._processes()}")

    def _processes(self) -> Sequence[int]:
        return processes_with(f"{_OF_DESKTOP}={self._mark}")

    def _signal(self, number: int) -> bool:
        """Send a signal to all that is left; whether there is something."""
        left = self._processes()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return bool(left)


def _columns(table: Widget) -> int:
    headers = [widget for widget in table.children if widget.role == "table column header"]
    return len([header for header in headers if header.name])


def _left(table: Widget) -> int:
    """Where the cells of the first column begin, beside a margin."""
    header = next(w for w in table.children if w.role == "table column header" and w.name)
    return header.box[0] + 2


def _icon_and_name(cell: Widget) -> tuple[Widget, Widget]:
    """A first column's cell is made of an icon and a name."""
    parts = cell.children
    name = next((part for part in parts if part.name), cell)
    return parts[0] if parts else cell, name
