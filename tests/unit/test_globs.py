"""Patterns: placeholders, the user's own, and what can't be one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zipfs.library.rules.globs import (
    Patterns,
    check_placeholders,
    check_relative,
    compiled,
    encode,
    is_prefix,
    literal,
    matches,
    split,
)


@pytest.mark.parametrize(
    ("glob", "path", "wanted"),
    [
        (b"{platform}/roms/{game}", b"psx/roms/Game", True),
        (b"{platform}/roms/{game}", b"psx/isos/Game", False),
        (b"{platform}/roms/{game}", b"a/b/roms/Game", False),
        (b"{game}", b"Game", True),
        (b"**/{game}", b"a/b/Game", True),
        (b"[{]platform}/{game}", b"psx/Game", False),
        (b"[{]platform}/{game}", b"{platform}/Game", True),
        (b"x{y}/*", b"x{y}/Game", True),
    ],
)
def test_placeholders(glob: bytes, path: bytes, wanted: bool) -> None:
    assert matches(compiled(glob), split(path)) is wanted


@pytest.mark.parametrize(
    "glob", ["{platform}/{game}", "{game}/", "{platform}/*", "*/{game}", "a{b}/*", "[{]a}/*", "**"]
)
def test_good_placeholders(glob: str) -> None:
    check_placeholders(glob)


@pytest.mark.parametrize(
    ("glob", "message"),
    [
        ("{plattform}/{game}", "'{plattform}/{game}': {plattform} is unknown, there are "),
        ("{}/{game}", "'{}/{game}': {} is unknown, there are {platform} and {game}; write *"),
        ("{game}/{platform}", "'{game}/{platform}': {game} has to come last"),
        ("{platform}/{platform}", "'{platform}/{platform}' has {platform} more than once"),
        ("{platform}s/*", "'{platform}s/*': {platform} stands for a whole name"),
    ],
)
def test_wrong_placeholders(glob: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"\{") as caught:
        check_placeholders(glob)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("glob", ["/a", "", "/", "a//b", "./a", "a/.."])
def test_not_relative(glob: str) -> None:
    with pytest.raises(ValueError, match="isn't a pattern relative to the library"):
        check_relative(glob)


@pytest.mark.parametrize(
    ("patterns", "path", "verdict"),
    [
        (Patterns(), b"a", None),
        (Patterns((b"*.nfo",)), b"a/b/c.NFO", False),
        (Patterns((b"*.nfo",)), b"a.nfo/b", None),  # the folder is asked about by itself
        (Patterns((b"A/*",)), b"a/b", False),
        (Patterns((b"a/*",)), b"x/a/b", None),
        (Patterns((b"a/*",)), b"a/b/c", None),
        (Patterns((b"a/**",)), b"a/b/c", False),
        (Patterns((b"**/x/",)), b"a/b/x", False),
        (Patterns((b"x/",)), b"a/b/x", False),
        (Patterns((b"*",), (b"b",)), b"a/b", True),
        (Patterns((b"*",), (b"b",)), b"b/a", False),
        (Patterns((), (b"a/b",)), b"a/b", True),
        (Patterns((b"s?",)), "\u017fx".encode(), None),
        (Patterns((b"\xff*",)), b"a/\xffb", False),
        (Patterns((b"a", b"b/c")), b"b/c", False),
    ],
)
def test_patterns(patterns: Patterns, path: bytes, verdict: bool | None) -> None:
    assert patterns.verdict(path) is verdict


def test_the_way_to_a_path() -> None:
    """Whatever is left out on the way counts, unless that very folder is taken in."""
    components = [b"a", b"b", b"c"]
    assert Patterns().allow(components, lambda place: True)
    assert not Patterns().allow(components, lambda place: place != 1)
    assert not Patterns((b"b",)).allow(components, lambda place: True)
    assert Patterns((b"b",), (b"a/b",)).allow(components, lambda place: True)
    assert Patterns((), (b"b",)).allow(components, lambda place: place != 1)
    assert not Patterns((), (b"c",)).allow(components, lambda place: place != 1)
    assert Patterns((b"x",)).allow([], lambda place: False)


@given(st.text(), st.text())
def test_a_literal_matches_itself_only(name: str, other: str) -> None:
    if "/" in name or "/" in other or name in ("", "**"):
        return
    glob = compiled(encode(literal(name)))
    assert matches(glob, [encode(name)])
    assert matches(glob, [encode(other)]) is (name == other)


names = st.sampled_from([b"a", b"b", b"*", b"?b", b"**", b"{platform}", b"{game}", b"[ab]"])


@given(st.lists(names, min_size=1, max_size=5), st.lists(st.sampled_from([b"a", b"b"]), max_size=6))
def test_what_matches_is_reached(glob: list[bytes], components: list[bytes]) -> None:
    """Each folder on the way to a match is one that something below could match."""
    pattern = compiled(b"/".join(glob))
    if matches(pattern, components):
        assert all(is_prefix(pattern, components[:place]) for place in range(len(components)))
