"""RomM's rules: the defaults, its ``config.yml``, and each mistake in there."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zipfs.errors import ConfigError
from zipfs.library.rules import romm
from zipfs.library.rules.globs import Patterns
from zipfs.library.rules.romm import RommSelection, Rules, Structure, find_structure
from zipfs.library.rules.romm_config import read_rules

A = Structure((b"roms/{platform}/{game}",))
B = Structure((b"{platform}/roms/{game}",))

# -- Defaults ------------------------------------------------------------------------------


def test_defaults() -> None:
    """Word for word: a game must have the same members here and there."""
    assert set(romm.EXCLUDED_FOLDERS) == {
        "@eaDir", "assets", "__MACOSX", "#recycle", "$RECYCLE.BIN", ".Trash-*", ".stfolder",
        ".Spotlight-V100", ".fseventsd", ".DocumentRevisions-V100", "System Volume Information",
    }  # fmt: skip
    assert set(romm.EXCLUDED_EXTENSIONS) == {
        "db", "ini", "tmp", "bak", "lock", "log", "cache", "crdownload",
    }  # fmt: skip
    assert set(romm.EXCLUDED_FILES) == {
        ".DS_Store", ".localized", ".Trashes", ".stfolder", "@SynoResource", "*:Zone.Identifier",
        "gamelist.xml", "metadata.pegasus.txt",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing but a comment\n",
        "---\n",
        "exclude:\n",
        "exclude:\n  platforms:\n  roms:\n",
        "exclude: {roms: {single_file:, multi_file: {names:, parts:}}}",
        "exclude: {roms: {multi_file: {parts: {names: [], extensions:}}}}",
        "filesystem: {roms_folder:, structure:}",
        "filesystem: {structure: {default:, snes: [], firmware: 'bios/{platform}'}}",
        "scan: {priority: [1, {x: y}]}\nsystem: 5\nexclude: {more: 1}\n2: 3\n",
        "\ufeffexclude:\n",
        "a: &a [*a]\n",
    ],
)
def test_what_says_nothing_is_the_defaults(text: str) -> None:
    assert read_rules(text.encode(), "config.yml") == Rules()


def test_the_users_lists_add_to_the_defaults() -> None:
    rules = read_rules(
        b"""
exclude:
  platforms: [romm]
  roms:
    single_file: {names: [info.txt], extensions: [xml]}
    multi_file:
      names: ['final fantasy VII', DLC]
      parts:
        names: [data.xml, '._*']
        extensions: [xml, txt]
filesystem: {roms_folder: my_roms/, firmware_folder: bios}
""",
        "config.yml",
    )
    assert rules == Rules(
        platforms=(*romm.EXCLUDED_FOLDERS, "romm"),
        games=(*romm.EXCLUDED_FOLDERS, "final fantasy VII", "DLC"),
        files=(*romm.EXCLUDED_FILES, "data.xml", "._*"),
        extensions=(*romm.EXCLUDED_EXTENSIONS, "xml", "txt"),
        roms_folder="my_roms",
    )


def test_lists_may_be_told_once() -> None:
    rules = read_rules(b"x: &x [a]\nexclude: {platforms: *x, roms: {multi_file: {names: *x}}}", "c")
    assert (rules.platforms[-1], rules.games[-1]) == ("a", "a")


# -- Mistakes ------------------------------------------------------------------------------

MANY_KEYS = "\n".join(
    [
        *(f"a{n}: &a{n} {{{', '.join(f'k{n}_{k}: 1' for k in range(200))}}}" for n in range(51)),
        f"all: {{<<: [{', '.join(f'*a{n}' for n in range(51))}]}}",
    ]
)
ALIASES = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 11)
)
KEY = "bad value for {!r} in the RomM config c.yml: "
YAML = "the RomM config c.yml isn't valid YAML: "

WRONG: dict[str, tuple[str | bytes, str]] = {
    "no table": ("[]", "the RomM config c.yml isn't a table of keys"),
    "a word": ("exclude", "the RomM config c.yml isn't a table of keys"),
    "a list for a table": ("exclude: []", KEY.format("exclude") + "a table of keys is wanted"),
    "a word for a table": (
        "exclude: {roms: {multi_file: {parts: x}}}",
        KEY.format("exclude.roms.multi_file.parts") + "a table of keys is wanted",
    ),
    "a word for a list": (
        "exclude: {platforms: psx}",
        KEY.format("exclude.platforms") + "Input should be a valid list",
    ),
    "a number": (
        "exclude: {platforms: [psx, 2600]}",
        KEY.format("exclude.platforms[1]") + "Input should be a valid string; put it in quotes",
    ),
    "a truth": (
        "exclude: {roms: {multi_file: {names: [no]}}}",
        KEY.format("exclude.roms.multi_file.names[0]"),
    ),
    "what has no effect": (
        "exclude: {roms: {single_file: {extensions: xml}}}",
        KEY.format("exclude.roms.single_file.extensions"),
    ),
    "extensions": (
        "exclude: {roms: {multi_file: {parts: {extensions: [{a: b}]}}}}",
        KEY.format("exclude.roms.multi_file.parts.extensions[0]"),
    ),
    "no folder": ("filesystem: {roms_folder: ''}", KEY.format("filesystem.roms_folder")),
    "a folder elsewhere": ("filesystem: {roms_folder: ../x}", KEY.format("filesystem.roms_folder")),
    "a zero byte": (r'filesystem: {roms_folder: "a\0"}', KEY.format("filesystem.roms_folder")),
    "a folder that is a list": (
        "filesystem: {roms_folder: [a]}",
        KEY.format("filesystem.roms_folder"),
    ),
    "structure": ("filesystem: {structure: x}", KEY.format("filesystem.structure") + "a table"),
    "structure by number": (
        "filesystem: {structure: {2600: x}}",
        KEY.format("filesystem.structure[2600]"),
    ),
    "structure of numbers": (
        "filesystem: {structure: {default: [1]}}",
        KEY.format("filesystem.structure.default[0]"),
    ),
    "no platform": (
        "filesystem: {structure: {default: 'roms/{game}'}}",
        KEY.format("filesystem.structure.default") + "'roms/{game}' has no {platform}",
    ),
    "no platform in an override": (
        "filesystem: {structure: {snes: 'roms/psx/{game}'}}",
        KEY.format("filesystem.structure.snes") + "'roms/psx/{game}' has no {platform}",
    ),
    "an override that is too short": (
        "filesystem: {structure: {snes: '{game}'}}",
        KEY.format("filesystem.structure.snes"),
    ),
    "no game": (
        "filesystem: {structure: {default: 'roms/{platform}'}}",
        KEY.format("filesystem.structure.default") + "'roms/{platform}' has to end in {game}",
    ),
    "two games": (
        "filesystem: {structure: {default: '{game}/{platform}/{game}'}}",
        KEY.format("filesystem.structure.default"),
    ),
    "the library": (
        "filesystem: {structure: {default: '{library}/{platform}/{game}'}}",
        KEY.format("filesystem.structure.default") + "'{library}/{platform}/{game}' isn't a path",
    ),
    "platforms in two folders": (
        "filesystem: {structure: {snes: 'games/{platform}/{game}'}}",
        KEY.format("filesystem.structure.snes") + "'games/{platform}/{game}': all platforms have",
    ),
    "platforms in any folder": (
        "filesystem: {structure: {default: '{a}/{platform}/{game}'}}",
        KEY.format("filesystem.structure.default"),
    ),
    "not YAML": ("a: b: c", YAML + "mapping values are not allowed here, line 1, column 5"),
    "not closed": ("a: [1", YAML),
    "two documents": ("a: 1\n---\nb: 2", YAML + "expected a single document in the stream, but"),
    "an object": ("a: !!python/object/apply:os.getcwd []", YAML + "could not determine a "),
    "a date that isn't": ("a: 2001-99-99", YAML + "month must be in 1..12"),
    "a number that is too long": ("a: " + "1" * 5000, YAML),
    "a control character": ("a: \x01", YAML),
    "deep": ("[" * 5000, YAML + "too deeply nested"),
    "not UTF-8": (b"a: \xff", "the RomM config c.yml isn't UTF-8 text"),
    "UTF-16": ("exclude:".encode("utf-16"), "the RomM config c.yml isn't UTF-8 text"),
    "many keys": (MANY_KEYS, YAML + "more than 10000 keys in one table"),
    "a number to base 60": ("a: 1" + ":1" * 500, YAML + "more than 1000 characters that aren't a"),
    "a billion names": (ALIASES + "exclude: {platforms: *a10}", KEY.format("exclude.platforms[0]")),
    "many aliases": ("a: &a x\nb: [" + "*a, " * 101 + "]", YAML + "more than 100 aliases"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_line(case: str) -> None:
    data, message = WRONG[case]
    with pytest.raises(ConfigError) as caught:
        read_rules(data.encode() if isinstance(data, str) else data, "c.yml")
    assert str(caught.value).startswith(message)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 300


@given(st.binary(max_size=200) | st.text(alphabet="a[]{}:,-&*!?|>'\"%@\n #<").map(str.encode))
def test_any_bytes_are_rules_or_one_line(data: bytes) -> None:
    try:
        assert isinstance(read_rules(data, "c.yml"), Rules)
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - most are no error


# -- Where games are -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "folders", "wanted"),
    [
        (Rules(), [b"roms", b"psx/roms"], A),
        (Rules(), [b"psx/roms"], B),
        (Rules(), [], B),
        (Rules(roms_folder="a/[b]"), [b"a/[b]"], Structure((b"a/[[]b]/{platform}/{game}",))),
        (Rules(roms_folder="*"), [b"roms"], Structure((b"{platform}/[*]/{game}",))),
        (Rules(roms_folder="{game}"), [], Structure((b"{platform}/[{]game}/{game}",))),
        (Rules(roms_folder="\ud800"), [], Structure((b"{platform}/\xed\xa0\x80/{game}",))),
        (Rules(structure=B), [b"roms"], B),
    ],
)
def test_structure(rules: Rules, folders: list[bytes], wanted: Structure) -> None:
    assert find_structure(rules, folders.__contains__) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{default: '/{platform}/roms/{game}/'}", Structure(B.templates, deepest=True)),
        (
            "{SNES: 'roms/{platform}/{a b}/{game}'}",
            Structure(A.templates, (("snes", (b"roms/{platform}/*/{game}",)),), deepest=True),
        ),
        (
            "{default: 'x [1]/{platform}/{game}', ps3: ['x [1]/PS3/*/{game}']}",
            Structure(
                (b"x [[]1]/{platform}/{game}",),
                (("ps3", (b"x [[]1]/{platform}/[*]/{game}",)),),
                deepest=True,
            ),
        ),
    ],
)
def test_templates(text: str, wanted: Structure) -> None:
    rules = read_rules(f"filesystem: {{structure: {text}}}".encode(), "c.yml")
    assert rules.structure == wanted


def test_templates_are_below_the_roms_folder() -> None:
    rules = read_rules(b"filesystem: {roms_folder: x, structure: {a: 'x/{platform}/{game}'}}", "c")
    assert rules.structure
    assert rules.structure.templates == (b"x/{platform}/{game}",)


# path, whether it is a game, whether games may be below it
PLACES: list[tuple[Structure, bytes, bool, bool]] = [
    (A, b"", False, True),
    (A, b"roms", False, True),
    (A, b"roms/psx", False, True),
    (A, b"roms/psx/Game", True, False),
    (A, b"roms/psx/Game/x", False, False),
    (A, b"bios/psx/Game", False, False),
    (A, b"roms/psx/@EADIR", False, False),
    (A, b"roms/psx/ assets ", False, False),
    (A, b"roms/psx/assets2", True, False),
    (A, b"roms/psx/.Trash-1", False, False),
    (A, b"roms/psx/\xff", True, False),
    (A, b"roms/@eaDir", False, False),
    (A, b"roms/@eaDir/Game", False, False),
    (B, b"psx/roms/Game", True, False),
    (B, b"assets/roms/Game", False, False),
    (B, b"assets", False, False),
    (Structure((b"assets/{platform}/{game}",)), b"assets/psx/Game", True, False),
    (Structure((b"assets/*/*",)), b"assets/psx/Game", False, False),  # which is it?
    (Structure((b"**/{platform}/{game}",)), b"a/assets/Game", False, False),
    (Structure((b"**/{platform}/{game}",)), b"a/psx/Game", True, True),
    (Structure((b"roms/*/*", b"isos/{platform}/{game}")), b"isos/psx/Game", True, False),
    (Structure((b"roms/{platform}/{game}", b"roms/psx/*/*")), b"roms/psx/x", True, True),
    (Structure((b"a/{platform}/{game}", b"a/psx/*/*"), deepest=True), b"a/psx/x", False, True),
    (Structure((b"a/{platform}/{game}", b"a/psx/*/*"), deepest=True), b"a/psx/x/y", True, False),
    (Structure((b"a/{platform}/{game}", b"a/psx/*/*"), deepest=True), b"a/ps2/x", True, False),
]


@pytest.mark.parametrize(("structure", "path", "game", "holds"), PLACES)
def test_place(structure: Structure, path: bytes, game: bool, holds: bool) -> None:
    selection = RommSelection(Rules(), structure)
    assert selection.is_game(path) is game
    assert selection.may_hold_games(path) is holds


def test_whoever_holds_a_game_may_hold_games() -> None:
    """A walk that follows ``may_hold_games`` reaches every game."""
    for structure, path, game, _ in PLACES:
        selection = RommSelection(Rules(), structure)
        folder = path
        while game and folder:
            folder = folder.rpartition(b"/")[0]
            assert selection.may_hold_games(folder), (structure, folder)


def test_platforms_of_the_users() -> None:
    rules = read_rules(b"exclude: {platforms: ['PS*', roms]}", "c.yml")
    selection = RommSelection(rules, A)
    assert not selection.is_game(b"roms/psx/Game")
    assert not selection.may_hold_games(b"roms/Psx")
    assert selection.is_game(b"roms/gb/psx")  # as a game it is none of them
    assert RommSelection(rules, A, Patterns((), (b"psx",))).is_game(b"roms/psx/Game")


def test_no_globs_no_games() -> None:
    assert not RommSelection(Rules(), Structure(())).is_game(b"a")
    assert not RommSelection(Rules(), Structure(())).may_hold_games(b"")


# -- What is in them -----------------------------------------------------------------------

parts = st.sampled_from(
    [*romm.EXCLUDED_FILES, *romm.EXCLUDED_EXTENSIONS, *romm.EXCLUDED_FOLDERS, ".", "x", "\n", "é"]
)
file_names = st.lists(parts | parts.map(str.upper), min_size=1, max_size=4).map("".join)


@given(file_names)
def test_files(name: str) -> None:
    """Against the rule in other words."""
    _, dot, extension = name.rpartition(".")
    wanted = not (
        (dot and extension.lower() in romm.EXCLUDED_EXTENSIONS)
        or any(fnmatchcase(name, pattern) for pattern in romm.EXCLUDED_FILES)
    )
    path = b"roms/psx/Game/@eaDir/" + name.encode()
    assert RommSelection(Rules(), A).takes_file(path) is wanted
    assert RommSelection(Rules(), A, Patterns((), (b"*",))).takes_file(path)
    assert not RommSelection(Rules(), A, Patterns((b"*",))).takes_file(path)


@given(st.binary(min_size=1))
def test_any_folder_within_a_game(name: bytes) -> None:
    path = b"roms/psx/Game/" + name.replace(b"/", b"-")
    assert RommSelection(Rules(), A).takes_folder(path)
    assert not RommSelection(Rules(), A, Patterns((b"*",))).takes_folder(path)
    RommSelection(Rules(), A).takes_file(path)  # raises nothing


@pytest.mark.parametrize(
    ("templates", "game", "platform"),
    [
        ((b"roms/{platform}/{game}",), b"roms/psx/Game", b"psx"),
        ((b"{platform}/roms/{game}",), b"psx/roms/Game", b"psx"),
        ((b"roms/*/*",), b"roms/psx/Game", b"psx"),
        ((b"a/{game}", b"{platform}/old/{game}"), b"psx/old/Game", b"psx"),
        ((b"a/{game}",), b"a/Game", None),
        ((b"roms/{platform}/{game}",), b"elsewhere/Game", None),
    ],
)
def test_platform_of_a_game(
    templates: tuple[bytes, ...], game: bytes, platform: bytes | None
) -> None:
    """Which a playlist depends on."""
    assert RommSelection(Rules(), Structure(templates)).platform(game) == platform
