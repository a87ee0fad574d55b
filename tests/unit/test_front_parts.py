"""What the middleware is made of, and the hook that is made of it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gunicorn.config import KNOWN_SETTINGS

from tests.hookfile import HOOK, hook_text
from tests.support.waiting import poll
from zipfs.cli.command_front import front_file
from zipfs.front.archives import AnswerCache, Outcome, name_of, write
from zipfs.front.calls import Breaker, CallPool
from zipfs.front.settings import Settings

TEXT = b"- 1 /library/a a\n- 1 /library/b b"

# ---------------------------------------------------------------- settings


def test_settings_by_environment() -> None:
    wrong: list[str] = []
    assert Settings.from_environment({}, wrong.append) == Settings()
    given = {
        "ZIPFS_LISTS": "/a/lists/",
        "ZIPFS_SHOWN": "/a/shown",
        "ZIPFS_LOCATION": "/cache/a%20b/",
        "ZIPFS_WAIT": "0.5",
        "ZIPFS_REUSE": "0",
        "ZIPFS_FALLBACK": "503",
    }
    assert Settings.from_environment(given, wrong.append) == Settings(
        lists="/a/lists", shown="/a/shown", location="/cache/a%20b", wait=0.5, reuse=0,
        fallback="503",
    )  # fmt: skip
    assert not wrong


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("LISTS", "lists"),
        ("SHOWN", "/a\0b"),
        ("SHOWN", "/a\r\nb: c"),
        ("LOCATION", "cache"),
        ("LOCATION", "/a\r\nx: y"),
        ("LOCATION", "/é"),
        ("WAIT", "soon"),
        ("WAIT", "-1"),
        ("WAIT", "nan"),
        ("REUSE", "inf"),
        ("FALLBACK", "404"),
    ],
)
def test_a_setting_that_is_wrong_has_its_default(name: str, text: str) -> None:
    wrong: list[str] = []
    assert Settings.from_environment({f"ZIPFS_{name}": text}, wrong.append) == Settings()
    (told,) = wrong
    assert told.startswith(f"ZIPFS_{name}={text!a} is")
    assert told.isascii()
    assert "\n" not in told


# ---------------------------------------------------------------- lists


def test_a_list_that_is_there_gets_a_new_date(tmp_path: Path) -> None:
    name = name_of(TEXT)
    path = tmp_path / f"{name}.list"
    assert write(str(tmp_path), name, TEXT) == ""
    os.utime(path, (1, 1))
    inode = path.stat().st_ino
    assert write(str(tmp_path), name, TEXT) == ""
    assert (path.stat().st_ino, path.stat().st_mtime > 1) == (inode, True)


def test_what_a_crash_has_left_is_written_again(tmp_path: Path) -> None:
    name = name_of(TEXT)
    path = tmp_path / f"{name}.list"
    path.write_bytes(TEXT[:5])
    assert write(str(tmp_path), name, TEXT) == ""
    assert path.read_bytes() == TEXT
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_many_write_the_same_list(tmp_path: Path) -> None:
    name = name_of(TEXT)
    with ThreadPoolExecutor(16) as pool:
        done = list(pool.map(lambda _: write(str(tmp_path), name, TEXT), range(64)))
    assert set(done) == {""}
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == TEXT


def test_answers_are_bounded() -> None:
    recent = AnswerCache(100, most=10)
    for number in range(100):
        recent.put(b"%d" % number, Outcome("name", "", None, b""))
    assert [recent.get(b"%d" % number) is not None for number in (0, 89, 90, 99)] == [
        False, False, True, True,
    ]  # fmt: skip


# ---------------------------------------------------------------- threads


def test_calls_have_few_threads() -> None:
    pool = CallPool(3)
    before = threading.active_count()
    calls = [pool.start(lambda number=number: number * 2) for number in range(100)]  # type: ignore[misc]
    assert [call.result(100) for call in calls] == [number * 2 for number in range(100)]
    go = threading.Event()
    calls = [pool.start(go.wait) for _ in range(20)]
    assert threading.active_count() - before <= 3
    calls[-1].cancel()
    go.set()
    assert all(call.result(100) for call in calls[:-1])

    def wrong() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pool.start(wrong).result(100)
    assert pool.start(lambda: 1).result(100) == 1


def test_a_call_that_hangs_keeps_no_process_from_ending() -> None:
    program = (
        "import threading; from zipfs.front.calls import Breaker, CallPool\n"
        "began = threading.Event()\n"
        "CallPool().start(lambda: (began.set(), threading.Event().wait()))\n"
        "began.wait()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)


def test_the_breaker_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another mount may be in the place of the one that hangs, whose question never returns."""
    hangs, asked = threading.Event(), []

    def lexists(path: str) -> bool:
        asked.append(path)
        if len(asked) <= 2:
            hangs.wait()
        return False

    monkeypatch.setattr(os.path, "lexists", lexists)
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    breaker = Breaker(["/a"])
    assert not breaker.is_open()
    breaker.trip()
    breaker.trip()
    try:
        for _ in range(10):
            assert breaker.is_open()
        now[0] += breaker.AGAIN + 1
        assert breaker.is_open()
        now[0] += breaker.AGAIN + 1
        breaker.is_open()
        while breaker.is_open():
            threading.Event().wait(0.001)
        assert len(asked) == 3
        assert len(set(asked)) == 3, "a cache could answer"
    finally:
        hangs.set()


def test_the_breaker_closes_when_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = threading.Event()
    monkeypatch.setattr(os.path, "lexists", lambda _: hangs.wait())
    breaker = Breaker(["/a", "/b"])
    breaker.trip()
    assert breaker.is_open()
    hangs.set()
    poll("the answer", lambda: not breaker.is_open())


# ---------------------------------------------------------------- the hook


def test_the_hook_is_the_middleware() -> None:
    assert HOOK.read_text() == hook_text(), "run: make manual"
    assert front_file("romm") == HOOK.read_text()


def test_the_hook_stands_alone() -> None:
    tree = ast.parse(HOOK.read_text(), feature_version=(3, 12))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.names[0].name if isinstance(node, ast.Import) else str(node.module)
            assert module.partition(".")[0] in sys.stdlib_module_names


def test_the_hook_sets_nothing_else_of_gunicorn() -> None:
    """gunicorn takes each name in it that is one of its settings."""
    program = "import runpy, sys; print(*runpy.run_path(sys.argv[1]))"
    told = subprocess.run(
        [sys.executable, "-I", "-c", program, HOOK], capture_output=True, text=True, check=True
    )
    names = {name.lower() for name in told.stdout.split()}
    assert names & {setting.name for setting in KNOWN_SETTINGS} == {"post_worker_init"}
