"""What systemd is told of the mounts that an instance needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from zipfs.cli.generator import drop_in, generate, instance


def test_library_mountpoint_and_all_else_that_is_named() -> None:
    config = {
        "library": "/srv/games",
        "mountpoint": "/srv/www",
        "lists": "/l",
        "index": "rel/ative",
    }
    assert drop_in(config) == '[Unit]\nRequiresMountsFor="/srv/games" "/srv/www" "/l"\n'


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/a b", r'"/a\x20b"'),
        ('/a"b', r'"/a\x22b"'),
        ("/a\\b", r'"/a\x5cb"'),
        ("/100%", r'"/100\x25"'),
        ("/a\nExecStart=x", r'"/a\x0aExecStart=x"'),
        ("/é", r'"/\xc3\xa9"'),
    ],
)
def test_no_path_is_taken_for_anything_else(path: str, word: str) -> None:
    assert drop_in({"library": path}) == f"[Unit]\nRequiresMountsFor={word}\n"


@pytest.mark.parametrize("config", [{}, {"library": 5}, {"library": "relative"}, {"library": [1]}])
def test_nothing_to_say(config: dict[str, object]) -> None:
    assert drop_in(config) == ""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("games.toml", "games"),
        ("a-b_c.toml", "a-b_c"),
        (r"a\x2db.toml", r"a\x2db"),
        ("games.toml~", None),
        (".toml", None),
        ("a b.toml", None),
        ("é.toml", None),
        ("games", None),
    ],
)
def test_which_files_are_instances(name: str, expected: str | None) -> None:
    assert instance(name) == expected


def test_a_file_that_is_wrong_stops_no_other(tmp_path: Path) -> None:
    configs, folder = tmp_path / "configs", tmp_path / "units"
    configs.mkdir()
    folder.mkdir()
    (configs / "a.toml").write_text("library = ")
    (configs / "b.toml").write_bytes(b"\xff")
    (configs / "c.toml").mkdir()
    (configs / "d.toml").write_text('library = "/srv/d"')
    (configs / "e.toml").write_text("x=" + "[" * 100_000)
    generate(str(folder), str(configs))
    found = sorted(folder.rglob("*.conf"))
    assert found == [
        folder / "zipfs-verify@d.service.d/50-mounts.conf",
        folder / "zipfs@d.service.d/50-mounts.conf",
    ]
    for file in found:
        assert 'RequiresMountsFor="/srv/d"' in file.read_text().splitlines()


def test_without_any_config_there_is_nothing(tmp_path: Path) -> None:
    generate(str(tmp_path), str(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []


def test_it_loads_next_to_nothing() -> None:
    """It runs at each boot and reload, before there is anything."""
    script = "import sys, zipfs.cli.generator; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"pydantic", "click", "trio", "pyfuse3", "rich"}.isdisjoint(loaded)
