"""Settings: what the file and the command line say, and one line for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from zipfs.config import Settings, state_folder
from zipfs.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "zipfs.toml"


FULL = """
library = "/srv/library"
mountpoint = "/mnt/library"
index = "/var/lib/zipfs/index"
shared-index = "postgresql://zipfs@db/games"
shared-name = "games"
games = ["roms/*/*", "more/**"]
selection = "romm"
romm-config = "/srv/romm/config.yml"
exclude = ["*.nfo"]
include = ["@eaDir", "roms/*/*/x.db"]
allow-other = true
settle = 5
read-ahead = 0
watch = "poll"
trust = "mtime"
prove = "always"
hash-singles = "always"
recheck-rate = 3
portable-names = true
timestamps = "fixed"
execute-bits = true
playlists = "romm"
playlist-platforms = ["default", "3DO, psp"]
lists = "/srv/lists"
lists-folder = "bulk"
lists-prefix = "/files"
lists-keep = 30
read-timeout = 5
parallel-reads = 16
parallel-looks = 8
hash-rate = 20
uid = "root"
gid = 33
umask = "027"
no-supervise = true
setuid = "54321:100"
options = ["noatime,nodev", "fsname=games"]
log-level = "debug"

[[variants]]
name = "no manuals"
without = ["Manuals", "dlc"]
exclude = ["*.pdf"]
include = ["manual/important.pdf"]
prefix = ".hidden/"
games = ["roms/{platform}/*"]
playlists = "romm"

[[variants]]
name = "base"
only = ["game"]
"""


def test_defaults() -> None:
    settings = Settings.load(None, {"library": "lib"})
    assert settings.model_dump() == {
        "library": "lib",
        "mountpoint": None,
        "index": None,
        "shared_index": None,
        "shared_name": None,
        "games": (),
        "selection": "general",
        "romm_config": None,
        "exclude": (),
        "include": (),
        "portable_names": False,
        "timestamps": "files",
        "execute_bits": False,
        "playlists": "discs",
        "playlist_platforms": ("default",),
        "lists": None,
        "lists_folder": ".lists",
        "lists_prefix": "/library/",
        "lists_keep": 0.0,
        "variants": (),
        "allow_other": False,
        "settle": 2.0,
        "read_ahead": 1024,
        "watch": "auto",
        "trust": "state",
        "prove": "auto",
        "hash_singles": "auto",
        "recheck_rate": None,
        "read_timeout": 30.0,
        "parallel_reads": None,
        "parallel_looks": None,
        "hash_rate": 0.0,
        "uid": None,
        "gid": None,
        "umask": None,
        "no_supervise": False,
        "setuid": None,
        "options": (),
        "log_level": "info",
    }


def test_file_says_all(file: Path) -> None:
    file.write_text(FULL)
    assert Settings.load(str(file), {}).model_dump() == {
        "library": "/srv/library",
        "mountpoint": "/mnt/library",
        "index": "/var/lib/zipfs/index",
        "shared_index": "postgresql://zipfs@db/games",
        "shared_name": "games",
        "games": ("roms/*/*", "more/**"),
        "selection": "romm",
        "romm_config": "/srv/romm/config.yml",
        "exclude": ("*.nfo",),
        "include": ("@eaDir", "roms/*/*/x.db"),
        "portable_names": True,
        "timestamps": "fixed",
        "execute_bits": True,
        "playlists": "romm",
        "playlist_platforms": ("default", "3DO", "psp"),
        "lists": "/srv/lists",
        "lists_folder": "bulk",
        "lists_prefix": "/files/",
        "lists_keep": 30.0,
        "variants": (
            {
                "name": "no manuals",
                "only": (),
                "without": ("manual", "dlc"),
                "exclude": ("*.pdf",),
                "include": ("manual/important.pdf",),
                "prefix": ".hidden",
                "games": ("roms/{platform}/*",),
                "playlists": "romm",
            },
            {
                "name": "base",
                "only": ("game",),
                "without": (),
                "exclude": (),
                "include": (),
                "prefix": "",
                "games": (),
                "playlists": None,
            },
        ),
        "allow_other": True,
        "settle": 5.0,
        "read_ahead": 0,
        "watch": "poll",
        "trust": "mtime",
        "prove": "always",
        "hash_singles": "always",
        "recheck_rate": 3.0,
        "read_timeout": 5.0,
        "parallel_reads": 16,
        "parallel_looks": 8,
        "hash_rate": 20.0,
        "uid": 0,
        "gid": 33,
        "umask": 0o027,
        "no_supervise": True,
        "setuid": "54321:100",
        "options": ("noatime,nodev", "fsname=games"),
        "log_level": "debug",
    }


def test_command_line_wins(file: Path) -> None:
    file.write_text(FULL)
    given = {
        "library": "other",
        "games": ("*",),
        "allow-other": False,
        "settle": 0.5,
        "read-ahead": None,  # says nothing
        "log-level": None,
    }
    settings = Settings.load(str(file), given)
    assert settings.library == "other"
    assert settings.games == ("*",)
    assert settings.allow_other is False
    assert settings.settle == 0.5
    assert settings.read_ahead == 0
    assert settings.log_level == "debug"
    assert settings.mountpoint == "/mnt/library"


def test_no_platforms_are_some_too(file: Path) -> None:
    """Unlike a list that isn't there."""
    file.write_text('library = "lib"\nplaylist-platforms = []\n')
    assert Settings.load(str(file), {}).playlist_platforms == ()


@pytest.mark.parametrize(
    ("given", "prefix"),
    [("/", "/"), ("/a", "/a/"), ("/a/", "/a/"), ("/files/of mine", None), ("/é/b/", "/é/b/")],
)
def test_a_prefix_has_a_slash_at_both_ends(given: str, prefix: str | None) -> None:
    values = {"library": "lib", "lists": "lists", "lists-prefix": given}
    if prefix is None:
        with pytest.raises(ConfigError, match="isn't the path of a URL"):
            Settings.load(None, values)
    else:
        assert Settings.load(None, values).lists_prefix == prefix


def test_frozen() -> None:
    settings = Settings.load(None, {"library": "lib"})
    with pytest.raises(ValidationError, match="frozen"):
        settings.settle = 1.0  # type: ignore[misc]


BASE = 'library = "lib"\n'
WRONG: list[tuple[str, str]] = [
    ('uid = "nosuchuser"', "bad value for 'uid' in {file}: there is no user 'nosuchuser'"),
    ('gid = "nosuchgroup"', "bad value for 'gid' in {file}: there is no group 'nosuchgroup'"),
    ("uid = -1", "bad value for 'uid' in {file}: -1 is no number of a user"),
    ("uid = 4294967295", "bad value for 'uid' in {file}: 4294967295 is no number of a user"),
    ("umask = 22", "bad value for 'umask' in {file}: octal digits in quotes are wanted"),
    ('umask = "088"', "bad value for 'umask' in {file}: '088' isn't a umask"),
    ('umask = "1777"', "bad value for 'umask' in {file}: '1777' isn't a umask"),
    # TOML below `library`, and what the line says; {file} is the file's path
    (
        "colour = 1",
        "unknown key 'colour' in {file}; the known ones are allow-other, exclude, execute-bits, ",
    ),
    ("allow_other = true", "unknown key 'allow_other' in {file}; the known ones are allow-other"),
    ('"a\\nb" = 1', r"unknown key 'a\nb' in {file}"),
    ("[mount]\nsettle = 1", "unknown key 'mount' in {file}"),
    ("mountpoint = 1", "bad value for 'mountpoint' in {file}: Input should be a valid string"),
    ('mountpoint = ""', "bad value for 'mountpoint' in {file}: it is empty"),
    ('index = ""', "bad value for 'index' in {file}: "),
    ("index = false", "bad value for 'index' in {file}: "),
    ('allow-other = "yes"', "bad value for 'allow-other' in {file}: "),
    ("allow-other = 1", "bad value for 'allow-other' in {file}: "),
    ('settle = "2"', "bad value for 'settle' in {file}: "),
    ("settle = true", "bad value for 'settle' in {file}: "),
    ("settle = 0", "bad value for 'settle' in {file}: Input should be greater than or equal to"),
    ("settle = 0.049", "bad value for 'settle' in {file}: "),
    ("settle = -1", "bad value for 'settle' in {file}: "),
    ("settle = 86401", "bad value for 'settle' in {file}: "),
    ("settle = nan", "bad value for 'settle' in {file}: "),
    ("settle = inf", "bad value for 'settle' in {file}: "),
    ("read-ahead = -1", "bad value for 'read-ahead' in {file}: "),
    ("read-ahead = 1048577", "bad value for 'read-ahead' in {file}: "),
    ("read-ahead = 1.5", "bad value for 'read-ahead' in {file}: "),
    ("read-ahead = true", "bad value for 'read-ahead' in {file}: "),
    ('log-level = "loud"', "bad value for 'log-level' in {file}: Input should be 'debug', "),
    ('log-level = "INFO"', "bad value for 'log-level' in {file}: "),
    ('games = "*/*"', "bad value for 'games' in {file}: "),
    ("games = [1]", "bad value for 'games' in {file}: "),
    ('games = ["/roms/*"]', "bad value for 'games' in {file}: '/roms/*' isn't a pattern relative "),
    ('games = [""]', "bad value for 'games' in {file}: '' isn't a pattern"),
    ('games = ["a//b"]', "bad value for 'games' in {file}: 'a//b' isn't a pattern"),
    ('games = ["*", "../x"]', "bad value for 'games' in {file}: '../x' isn't a pattern"),
    ('games = ["./x"]', "bad value for 'games' in {file}: './x' isn't a pattern"),
    (
        "games = ['{x}/{game}']",
        "bad value for 'games' in {file}: '{{x}}/{{game}}': {{x}} is unknown, ",
    ),
    ("games = ['{game}/x']", "bad value for 'games' in {file}: '{{game}}/x': {{game}} has to come"),
    (
        "games = ['*/{game}s']",
        "bad value for 'games' in {file}: '*/{{game}}s': {{game}} stands for ",
    ),
    (
        "games = ['{platform}/{platform}']",
        "bad value for 'games' in {file}: '{{platform}}/{{platform}}' has {{platform}} more than",
    ),
    (
        'selection = "RomM"',
        "bad value for 'selection' in {file}: Input should be 'general' or 'rom",
    ),
    ('romm-config = ""', "bad value for 'romm-config' in {file}: it is empty"),
    ('romm-config = "x"', "'romm-config' is for the selection 'romm' only; choose that as well"),
    ("lists-keep = 5", "'lists-keep' is for 'lists' only; give that as well"),
    ('lists-folder = "x"', "'lists-folder' is for 'lists' only; give that as well"),
    ('lists-prefix = "/x/"', "'lists-prefix' is for 'lists' only; give that as well"),
    ('shared-name = "x"', "'shared-name' is for 'shared-index' only; give that as well"),
    ('exclude = "*.nfo"', "bad value for 'exclude' in {file}: a list is wanted, like ['*.nfo']"),
    ('exclude = ["/x"]', "bad value for 'exclude' in {file}: '/x' isn't a pattern relative to"),
    ('include = ["a/../b"]', "bad value for 'include' in {file}: 'a/../b' isn't a pattern relati"),
    ('options = "ro"', "bad value for 'options' in {file}: "),
    ('options = ["rw"]', "bad value for 'options' in {file}: the mount option 'rw' can't be had"),
    ('games = "roms/*/*"', "bad value for 'games' in {file}: a list is wanted, like ['roms/*/*']"),
    ("playlists = true", "bad value for 'playlists' in {file}: Input should be 'off', 'romm' or "),
    ('playlists = "all"', "bad value for 'playlists' in {file}: Input should be 'off', 'romm' or "),
    (
        'playlist-platforms = "psx"',
        "bad value for 'playlist-platforms' in {file}: a list is wanted, like ['psx']",
    ),
    (
        'playlist-platforms = ["psx,"]',
        "bad value for 'playlist-platforms' in {file}: '' isn't the name of a platform's folder",
    ),
    (
        'playlist-platforms = ["roms/psx"]',
        "bad value for 'playlist-platforms' in {file}: 'roms/psx' isn't the name of a platform's",
    ),
    ("playlist-platforms = [1]", "bad value for 'playlist-platforms' in {file}: "),
    ('lists = ""', "bad value for 'lists' in {file}: it is empty"),
    ('lists-folder = ""', "bad value for 'lists-folder' in {file}: '' isn't the name of a folder"),
    ('lists-folder = "a/b"', "bad value for 'lists-folder' in {file}: 'a/b' isn't the name of a "),
    ('lists-folder = ".."', "bad value for 'lists-folder' in {file}: '..' isn't the name of a "),
    (f'lists-folder = "{"x" * 256}"', "bad value for 'lists-folder' in {file}: 'xxx"),
    ('lists-prefix = "library/"', "bad value for 'lists-prefix' in {file}: 'library/' isn't the "),
    ('lists-prefix = ""', "bad value for 'lists-prefix' in {file}: '' isn't the path of a URL"),
    ('lists-prefix = "/a/../b/"', "bad value for 'lists-prefix' in {file}: '/a/../b/' isn't the "),
    ('lists-prefix = "/a//b"', "bad value for 'lists-prefix' in {file}: '/a//b' isn't the path "),
    ('lists-prefix = "/a%20b"', "bad value for 'lists-prefix' in {file}: '/a%20b' isn't the "),
    ('options = ["noatime, rw"]', "bad value for 'options' in {file}: the mount option 'rw'"),
    ("a = " + "[" * 5000, "the config file {file} isn't valid TOML: too deeply nested"),
    ('options = ["noatime,rw"]', "bad value for 'options' in {file}: the mount option 'rw'"),
    ('options = ["suid"]', "bad value for 'options' in {file}: the mount option 'suid' can't be"),
    ('options = ["ro, dev"]', "bad value for 'options' in {file}: the mount option 'dev' can't be"),
    ('options = ["max_read=1"]', "bad value for 'options' in {file}: the mount option 'max_read=1"),
    ("settle = ", "the config file {file} isn't valid TOML: "),
    ("settle = 1\nsettle = 2", "the config file {file} isn't valid TOML: "),
    ('library = "again"', "the config file {file} isn't valid TOML: "),
]


_BOTH = "it would be the same as the whole archive; give 'only', 'without', 'exclude' or 'prefix'"
WRONG += [
    ('variants = "x"', "bad value for 'variants' in {file}: tables are wanted: write [[variants]]"),
    ("[variants]", "bad value for 'variants' in {file}: tables are wanted: write [[variants]]"),
    ("variants = [1]", "bad value of variant 1 in {file}: Input should be a valid dictionary"),
    ("[[variants]]", "no name given of variant 1 in {file}"),
    (
        '[[variants]]\nname = "a"\ncolour = 1',
        "unknown key 'colour' of variant 1 in {file}; the known ones are exclude, games, include, ",
    ),
    ('[[variants]]\nname = "a"', f"bad value of variant 1 in {{file}}: {_BOTH}"),
    ('[[variants]]\nname = "a"\ninclude = ["x"]', f"bad value of variant 1 in {{file}}: {_BOTH}"),
    (
        '[[variants]]\nname = "a"\nonly = ["game"]\nwithout = ["dlc"]',
        "bad value of variant 1 in {file}: 'only' and 'without' exclude each other",
    ),
    (
        '[[variants]]\nname = "a"\nprefix = "x"\n[[variants]]\nname = "A"\nprefix = "y"',
        "bad value for 'variants' in {file}: two have the name 'a'",
    ),
    *(
        (
            f'[[variants]]\nprefix = "x"\nname = "a"\n[[variants]]\nname = {name}\nprefix = "x"',
            "bad value for 'name' of variant 2 in {file}: ",
        )
        for name in ('""', '" "', '"a "', '"a/b"', '"a[b"', '"a]"', '"a\\nb"', '"a\\u0000"', "1")
    ),
    *(
        (
            f'[[variants]]\nname = "a"\nprefix = {prefix}',
            "bad value for 'prefix' of variant 1 in {file}: ",
        )
        for prefix in ('"/a"', '"/"', '"a//b"', '"../a"', '"."', '"a\\\\b"', '"c:"', '"a\\tb"', "1")
    ),
    (f'[[variants]]\nname = "a"\nprefix = "{"x" * 256}"', "bad value for 'prefix' of variant 1 "),
    (
        '[[variants]]\nname = "a"\nwithout = ["manual", "extras"]',
        "bad value for 'without' of variant 1 in {file}: 'extras' is no category; the known ones a",
    ),
    (
        '[[variants]]\nname = "a"\nonly = "game"',
        "bad value for 'only' of variant 1 in {file}: a list is wanted, like ['game']",
    ),
    (
        '[[variants]]\nname = "a"\nexclude = ["/x"]',
        "bad value for 'exclude' of variant 1 in {file}: '/x' isn't a pattern relative to the game",
    ),
    (
        '[[variants]]\nname = "a"\nprefix = "x"\ninclude = ["a/../b"]',
        "bad value for 'include' of variant 1 in {file}: 'a/../b' isn't a pattern relative to the ",
    ),
    (
        '[[variants]]\nname = "a"\nprefix = "x"\ngames = ["/x"]',
        "bad value for 'games' of variant 1 in {file}: '/x' isn't a pattern relative to the ",
    ),
    (
        '[[variants]]\nname = "a"\nprefix = "x"\ngames = ["{game}/x"]',
        "bad value for 'games' of variant 1 in {file}: '{{game}}/x': {{game}} has to come last",
    ),
    (
        '[[variants]]\nname = "a"\nprefix = "x"\nplaylists = "all"',
        "bad value for 'playlists' of variant 1 in {file}: Input should be 'off', 'romm' or ",
    ),
]


@pytest.mark.parametrize(("toml", "message"), WRONG, ids=[toml for toml, _ in WRONG])
def test_a_mistake_is_one_line(toml: str, message: str, file: Path) -> None:
    file.write_text(BASE + toml + "\n")
    with pytest.raises(ConfigError) as caught:
        Settings.load(str(file), {})
    assert str(caught.value).startswith(message.format(file=file))
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no library given; name it on the command line or in a config file"),
        ({"library": None}, "no library given; name it on the command line or in a config file"),
        ({"library": ""}, "bad value for 'library' on the command line: "),
        ({"library": "a", "settle": 0.0}, "bad value for 'settle' on the command line: "),
        ({"library": "a", "games": ("/",)}, "bad value for 'games' on the command line: '/' "),
        (
            {"library": "a", "playlist-platforms": ("",)},
            "bad value for 'playlist-platforms' on the command line: '' isn't the name of a",
        ),
        ({"library": "a", "options": ("rw",)}, "bad value for 'options' on the command line: "),
        ({"library": "a", "log-level": "x"}, "bad value for 'log-level' on the command line: "),
    ],
)
def test_a_mistake_on_the_command_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load(None, given)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value).splitlines()) == 1


def test_a_mistake_is_said_to_be_where_it_is(file: Path) -> None:
    file.write_text(BASE + "settle = 0\n")
    with pytest.raises(ConfigError, match=f"'settle' in {file}: "):
        Settings.load(str(file), {"settle": None, "read-ahead": 1})
    with pytest.raises(ConfigError, match="'settle' on the command line: "):
        Settings.load(str(file), {"settle": 0.01})
    assert Settings.load(str(file), {"settle": 1.0}).settle == 1.0


def test_file_that_isnt_there(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=f"can't read the config file {path}: {reason}"):
            Settings.load(str(path), {"library": "lib"})


def test_file_that_isnt_text(file: Path) -> None:
    file.write_bytes(b"library = '\xff'")
    with pytest.raises(ConfigError, match=f"the config file {file} isn't valid TOML: "):
        Settings.load(str(file), {})


@pytest.mark.parametrize("key", ["library", "mountpoint", "index"])
def test_a_path_may_be_any_bytes(key: str) -> None:
    """Linux' paths needn't be UTF-8; Python hands them over with surrogates."""
    settings = Settings.load(None, {"library": "lib", key: "/srv/caf\udce9"})
    assert getattr(settings, key) == "/srv/caf\udce9"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"STATE_DIRECTORY": "/var/lib/zipfs"}, "/var/lib/zipfs"),
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}, "/var/lib/a"),
    ],
)
def test_state_folder_is_systemds(environment: dict[str, str], expected: str) -> None:
    assert state_folder(environment) == expected


@pytest.mark.parametrize("environment", [{}, {"STATE_DIRECTORY": ""}])
def test_state_folder_is_the_users(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/home/somebody/state")
    assert state_folder(environment) == "/home/somebody/state/zipfs"


def test_whole_paths_need_no_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As mount(8) may run: in a folder that isn't there any more."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    relative = Settings.load(None, {"library": "lib", "mountpoint": "/mnt"})
    assert relative.absolute().library == str(tmp_path / "gone/lib")
    (tmp_path / "gone").rmdir()
    whole = Settings.load(None, {"library": "/lib", "mountpoint": "/mnt"})
    assert whole.absolute() == whole
    with pytest.raises(ConfigError, match=r"lib in the working directory: .*; give its whole path"):
        relative.absolute()
