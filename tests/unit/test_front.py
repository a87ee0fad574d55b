"""What the example of a front end answers, and in which form (:mod:`tests.e2e.front.answers`)."""

from __future__ import annotations

import base64
import re
from urllib.parse import unquote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.e2e.front.answers import (
    Entry,
    File,
    Game,
    disposition,
    list_text,
    of_game,
    of_games,
    redirect,
)

# Names of files: any bytes but those that none can have.
NAMES = st.binary(min_size=1, max_size=40).map(
    lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_")
)
TEXTS = st.text(min_size=1, max_size=20).map(lambda text: text.encode(errors="replace"))


def _game(number: int, *names: bytes, path: bytes = b"roms/x/Game") -> Game:
    return Game(
        number=number,
        path=path,
        files=tuple(
            File(number=10 * number + index, path=path + b"/" + name, name=name, size=index)
            for index, name in enumerate(names)
        ),
    )


GAME = _game(1, b"a.bin", b"b.cue", b"sub/c.bin")


def test_a_whole_game_is_its_archive() -> None:
    for numbers in ((), (10, 11, 12)):
        answer = of_game(GAME, numbers)
        assert answer.redirect == "/zipfs/roms/x/Game.zip"
        assert (answer.filename, answer.content_type) == (b"Game.zip", "application/zip")
        assert answer.list_name == b""
        assert [entry.name for entry in answer.entries] == [b"a.bin", b"b.cue", b"sub/c.bin"]


@pytest.mark.parametrize("hidden_folder", [False, True])
def test_one_file_is_that_file(hidden_folder: bool) -> None:
    answer = of_game(GAME, [12], hidden_folder=hidden_folder)
    assert answer.redirect == "/library/roms/x/Game/sub/c.bin"
    assert (answer.filename, answer.content_type) == (b"c.bin", "application/octet-stream")
    assert answer.entries == ()


def test_a_part_is_a_list() -> None:
    answer = of_game(GAME, [12, 10])
    assert answer.filename == b"Game.zip"
    assert [entry.name for entry in answer.entries] == [b"a.bin", b"sub/c.bin", b"Game.m3u"]
    assert answer.entries[-1].content == b"a.bin\nsub/c.bin"
    assert answer.redirect == f"/zipfs/.lists/{answer.list_name.decode()}.zip"
    assert re.fullmatch(rb"[0-9a-f]{32}", answer.list_name)


def test_a_hidden_folder_is_a_list() -> None:
    answer = of_game(GAME, hidden_folder=True)
    names = [b".hidden/a.bin", b".hidden/b.cue", b".hidden/sub/c.bin", b"Game.m3u"]
    assert [entry.name for entry in answer.entries] == names
    assert answer.entries[-1].content == b".hidden/b.cue"
    assert answer.list_name


def test_a_playlist_of_its_own_is_enough() -> None:
    game = _game(1, b"a.bin", b"b.bin", b"sub/list.M3U")
    answer = of_game(game, hidden_folder=True)
    assert all(entry.content is None for entry in answer.entries)


def test_several_games_are_a_list_of_paths_in_the_library() -> None:
    answer = of_games([GAME, _game(2, b"x", path=b"roms/y/One")])
    assert answer.filename == b"2 games.zip"
    assert [(entry.name, entry.path) for entry in answer.entries] == [
        (path, path)
        for path in (
            b"roms/x/Game/a.bin", b"roms/x/Game/b.cue", b"roms/x/Game/sub/c.bin", b"roms/y/One/x"
        )
    ]  # fmt: skip


def test_the_same_request_is_the_same_list() -> None:
    names = {
        of_game(GAME, [10, 11]).list_name,
        of_game(GAME, [11, 10]).list_name,
        of_game(GAME, [11, 10, 10]).list_name,
    }
    assert len(names) == 1
    others = {
        of_game(GAME, [10, 12]).list_name,
        of_game(GAME, [10, 11], hidden_folder=True).list_name,
        of_game(GAME, hidden_folder=True).list_name,
        of_games([GAME]).list_name,
    }
    assert len(names | others) == 5


def test_files_of_others() -> None:
    with pytest.raises(LookupError):
        of_game(GAME, [10, 20])


@pytest.mark.parametrize("name", [b"new\nline", b"re\rturn", b" blank first"])
def test_what_no_line_can_say_is_built(name: bytes) -> None:
    with pytest.raises(ValueError, match="can't be in a list"):
        list_text([Entry(name=name, path=b"x", size=1)])
    answer = of_game(_game(1, name, b"b", b"c"), [10, 11])
    assert (answer.redirect, answer.list_name) == ("", b"")
    assert answer.content_type == "application/zip"


def test_list_text() -> None:
    entries = [
        Entry(name=b"Disc 1.chd", path=b"roms/psx/50% + \xff.chd", size=100339),
        Entry(name=b"a/b", path=b"c/d?e#f", size=0),
        Entry(name=b"x.m3u", size=2, content=b"\xfb\xff"),
    ]
    assert list_text(entries).splitlines() == [
        b"- 100339 /library/roms/psx/50%25%20%2B%20%FF.chd Disc 1.chd",
        b"- 0 /library/c/d%3Fe%23f a/b",
        b"- 2 /decode?value=%2B%2F8%3D x.m3u",
    ]
    assert base64.b64decode("+/8=") == b"\xfb\xff"


@given(path=NAMES)
def test_redirects_are_ascii_and_reversible(path: bytes) -> None:
    value = redirect("/zipfs/", path)
    assert re.fullmatch(r"/zipfs/(?:[A-Za-z0-9_.~/-]|%[0-9A-F]{2})+", value)
    assert unquote_to_bytes(value.removeprefix("/zipfs/")) == path


@given(name=NAMES | TEXTS)
def test_dispositions_are_one_header_that_says_the_name(name: bytes) -> None:
    value = disposition(name)
    # RFC 9110, 5.6.4: a quoted string; RFC 8187, 3.2.1: attr-char and pct-encoded.
    match = re.fullmatch(
        r"""attachment; filename="([ !#-$&-\[\]-~]*)\""""
        r"""(?:; filename\*=UTF-8''((?:[A-Za-z0-9!#$&+.^_`|~-]|%[0-9A-F]{2})+))?""",
        value,
    )
    assert match, value
    said = unquote(match[2], errors="strict") if match[2] else match[1]
    assert len(said) == len(name.decode(errors="replace"))
    for char, original in zip(said, name.decode(errors="replace"), strict=True):
        assert char == original or (char == "_" and not (original.isalnum() or original in " .-"))


def test_what_is_said_of_an_ordinary_name_is_short() -> None:
    assert disposition(b"Game (Disc 1).zip") == 'attachment; filename="Game (Disc 1).zip"'
