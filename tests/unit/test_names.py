"""The policy on names, case by case."""

from __future__ import annotations

from itertools import permutations

import pytest
import xxhash

from zipfs.archive.names import entry_names, safe_component

COMPONENTS: dict[bytes, str] = {
    # Ordinary names stay.
    b"Game (Disc 1) [!].bin": "Game (Disc 1) [!].bin",
    b"100%": "100%",
    b"%3A": "%3A",
    b" leading, trailing. ": " leading, trailing. ",
    b"...": "...",
    b".hidden": ".hidden",
    b"a..b": "a..b",
    b'*?"<>|': '*?"<>|',
    b"~": "~",
    "é".encode(): "é",
    "e\u0301".encode(): "e\u0301",  # no normal form is forced upon it
    "ゼルダの伝説".encode(): "ゼルダの伝説",
    "😀\U0010ffff".encode(): "😀\U0010ffff",
    "\u2028\u202e\ufeff\ufffd".encode(): "\u2028\u202e\ufeff\ufffd",
    "\xa0".encode(): "\xa0",
    # What leads elsewhere.
    b".": "%2E",
    b"..": "%2E%2E",
    b"\\..\\a": "%5C..%5Ca",
    b"C:": "C%3A",
    b"a.txt:Zone.Identifier": "a.txt%3AZone.Identifier",
    # Control characters, as the bytes of their UTF-8.
    b"a\nb": "a%0Ab",
    b"\x01\x1f\x7f": "%01%1F%7F",
    b"\x1b[31m": "%1B[31m",
    "\x80\x85\x9f".encode(): "%C2%80%C2%85%C2%9F",
    # Bytes that aren't UTF-8.
    b"caf\xe9": "caf%E9",
    b"\xff\xfe": "%FF%FE",
    b"\x80": "%80",
    b"\xc3": "%C3",  # cut off
    b"\xe9\x9f": "%E9%9F",
    b"\xed\xa0\x80": "%ED%A0%80",  # a lone surrogate
    b"\xed\xa0\xbd\xed\xb8\x80": "%ED%A0%BD%ED%B8%80",  # a pair, CESU-8
    b"\xed\xb3\xbf": "%ED%B3%BF",  # the surrogate that stands for a byte in Python
    b"\xc0\xae\xc0\xae": "%C0%AE%C0%AE",  # overlong dots
    b"\xc0\xaf": "%C0%AF",  # an overlong slash
    b"\xe0\x80\xaf": "%E0%80%AF",
    b"\xf4\x90\x80\x80": "%F4%90%80%80",  # beyond U+10FFFF
    b"\xef\xbf\xbd": "\ufffd",
    # All at once, among characters that stay.
    b"\xc3\xa9\xe9:\n": "é%E9%3A%0A",
}


@pytest.mark.parametrize(("raw", "expected"), COMPONENTS.items())
def test_component(raw: bytes, expected: str) -> None:
    assert safe_component(raw) == expected


@pytest.mark.parametrize(("raw", "expected"), COMPONENTS.items())
def test_entry_name(raw: bytes, expected: str) -> None:
    """The same, alone and below a folder: the fast way agrees with the thorough one."""
    assert entry_names([raw]) == {raw: expected.encode()}
    inside = raw + b"/" + raw
    assert entry_names([inside, b"plain"]) == {
        inside: f"{expected}/{expected}".encode(),
        b"plain": b"plain",
    }


CLASHES: dict[str, dict[bytes, str]] = {
    "the unchanged keeps its name": {b"a:b": "a%3Ab (2)", b"a%3Ab": "a%3Ab"},
    "before the extension": {b"a:b.bin": "a%3Ab (2).bin", b"a%3Ab.bin": "a%3Ab.bin"},
    "last extension": {b"\xff.tar.gz": "%FF.tar (2).gz", b"%FF.tar.gz": "%FF.tar.gz"},
    "no stem": {b".:": ".%3A (2)", b".%3A": ".%3A"},
    "empty extension": {b":.": "%3A (2).", b"%3A.": "%3A."},
    "two": {b"%FF": "%FF", b"%FF (2)": "%FF (2)", b"\xff": "%FF (3)"},
    "a number that is mapped, too": {
        b"%3A": "%3A",
        b":": "%3A (2)",
        b"%3A (2)\n": "%3A (2)%0A",
    },
    # ":" comes before "\xff": the order is that of the original bytes.
    "several": {
        b"%3A%FF": "%3A%FF",
        b"%3A\xff": "%3A%FF (2)",
        b":%FF": "%3A%FF (3)",
        b":\xff": "%3A%FF (4)",
    },
    "only mapped ones": {b"%3A\xff": "%3A%FF", b":%FF": "%3A%FF (2)"},
    "c1 and its bytes": {b"\xc2\x85": "%C2%85 (2)", b"%C2%85": "%C2%85"},
    "file and folder": {b"a:": "a%3A (2)", b"a%3A/file": "a%3A/file"},
    "folder and file": {b"a:/file": "a%3A (2)/file", b"a%3A": "a%3A"},
    "folders stay apart": {
        b"a:/file": "a%3A (2)/file",
        b"a%3A/file": "a%3A/file",
        b"a:/other": "a%3A (2)/other",
    },
    "each folder by itself": {
        b"x/a:": "x/a%3A",
        b"y/a:": "y/a%3A (2)",
        b"y/a%3A": "y/a%3A",
    },
    "a dotted folder": {b"v1.0:/a": "v1 (2).0%3A/a", b"v1.0%3A/a": "v1.0%3A/a"},
    "numbered is taken further down": {
        b"%3A": "%3A",
        b":": "%3A (2)",
        b"%3A (3)": "%3A (3)",
    },
}


@pytest.mark.parametrize("expected", CLASHES.values(), ids=CLASHES)
def test_clash(expected: dict[bytes, str]) -> None:
    wanted = {path: name.encode() for path, name in expected.items()}
    for order in permutations(expected):
        assert entry_names(order) == wanted


def test_nothing_gives_nothing() -> None:
    assert entry_names([]) == {}


@pytest.mark.parametrize("path", [b"", b"/", b"/absolute", b"a//b", b"a/"])
def test_what_is_no_relative_path(path: bytes) -> None:
    for others in ([], [b"caf\xe9"]):
        with pytest.raises(ValueError, match="isn't a relative path"):
            entry_names([path, *others])


# -- Names that have become too long -------------------------------------------


def test_as_long_as_a_name_can_be() -> None:
    """255 bytes are left alone, whether mapped or not."""
    assert safe_component(b"x" * 255) == "x" * 255
    assert safe_component(b"x" * 252 + b"\n") == "x" * 252 + "%0A"


def test_cut_between_characters_and_escapes() -> None:
    mark = "~" + xxhash.xxh3_64_hexdigest(b"\xff" * 255)
    assert safe_component(b"\xff" * 255) == "%FF" * 79 + mark
    raw = "ゼ".encode() * 84 + b":" + b".bin"
    assert len(raw) == 257
    name = safe_component(raw)
    assert name == "ゼ" * 78 + "~" + xxhash.xxh3_64_hexdigest(raw) + ".bin"
    assert len(name.encode()) == 255


def test_long_names_differ_by_their_checksum() -> None:
    paths = [b"\xff" * 254 + bytes([last]) for last in (0xFE, 0xFF)]
    names = entry_names(paths)
    assert len(set(names.values())) == 2
    assert all(len(name) <= 255 and b" (2)" not in name for name in names.values())


def test_an_extension_of_any_length() -> None:
    assert safe_component(b"a" * 100 + b":." + b"b" * 153).endswith(
        "~" + xxhash.xxh3_64_hexdigest(b"a" * 100 + b":." + b"b" * 153)
    )


def test_what_no_mapping_has_made_long_stays() -> None:
    """File systems that count characters have names of more bytes."""
    assert safe_component("ゼ".encode() * 255) == "ゼ" * 255


def test_numbered_within_the_limit() -> None:
    taken = b"%FF" + b"x" * 252
    names = entry_names([taken, b"\xff" + b"x" * 252])
    assert names == {taken: taken, b"\xff" + b"x" * 252: b"%FF" + b"x" * 248 + b" (2)"}
    wide = [b"%FF" * 80 + b"a.bin.bin.bin", b"\xff" * 80 + b"a.bin.bin.bin"]
    assert entry_names(wide)[wide[1]] == b"%FF" * 80 + b"a.bin.b (2).bin"


# -- Portable names ------------------------------------------------------------

PORTABLE: dict[bytes, str] = {
    b"Game (Disc 1) [!].bin": "Game (Disc 1) [!].bin",
    b"100%": "100%",
    b".hidden": ".hidden",
    b" leading": " leading",
    b'a"b*c<d>e?f|g': "a%22b%2Ac%3Cd%3Ee%3Ff%7Cg",
    b"C:\\x": "C%3A%5Cx",
    b"dot.": "dot%2E",
    b"dots...": "dots..%2E",
    b"...": "..%2E",
    b"space ": "space%20",
    b"both. ": "both.%20",
    b" ": "%20",
    b"no-break\xc2\xa0": "no-break\xa0",
    b"line\n": "line%0A",
    b".": "%2E",
    b"..": "%2E%2E",
    b"CON": "%43ON",
    b"con": "%63on",
    b"Con.": "Con%2E",
    b"con ": "con%20",  # what Windows would have dropped is no longer at the end
    b"con.tar.gz": "%63on.tar.gz",
    b"aux .txt": "%61ux .txt",
    b"nul:": "nul%3A",
    b"COM0": "%43OM0",
    b"com9.x": "%63om9.x",
    "COM²".encode(): "%43OM²",
    "lpt³.bin".encode(): "%6Cpt³.bin",
    b"CONIN$": "%43ONIN$",
    b"conout$.x": "%63onout$.x",
    b"console": "console",
    b"COM10": "COM10",
    b"com": "com",
    b".con": ".con",
    b"a.con": "a.con",
    b"caf\xe9?": "caf%E9%3F",
    "Game\uf029".encode(): "Game\uf029",
}


@pytest.mark.parametrize(("raw", "expected"), PORTABLE.items())
def test_portable(raw: bytes, expected: str) -> None:
    assert safe_component(raw, portable=True) == expected
    assert entry_names([raw + b"/" + raw], portable=True) == {
        raw + b"/" + raw: f"{expected}/{expected}".encode()
    }


PORTABLE_CLASHES: dict[str, dict[bytes, str]] = {
    "letter case": {b"README": "README", b"Readme": "Readme (2)", b"readme": "readme (3)"},
    "the unchanged comes first": {b"A%3F": "A%3F", b"a%3f": "a%3f (2)", b"A?": "A%3F (3)"},
    "normal forms": {"e\u0301".encode(): "e\u0301", "\u00e9".encode(): "\u00e9 (2)"},
    "both": {"E\u0301".encode(): "E\u0301", "\u00e9".encode(): "\u00e9 (2)"},
    "more than one letter": {b"STRASSE": "STRASSE", "Straße".encode(): "Straße (2)"},
    "three sigmas": {
        "\u03a3".encode(): "\u03a3",
        "\u03c2".encode(): "\u03c2 (2)",
        "\u03c3".encode(): "\u03c3 (3)",
    },
    "turkish": {
        b"I": "I",
        b"i": "i (2)",
        "\u0131".encode(): "\u0131 (3)",
        "\u0130".encode(): "\u0130",
    },
    "folders": {b"DLC/a": "DLC/a", b"dlc/a": "dlc (2)/a"},
    "file and folder": {b"Disc/1": "Disc/1", b"disc": "disc (2)"},
    "elsewhere": {b"a/X": "a/X", b"b/x": "b/x"},
    "letters of after Unicode 3.2": {
        "\u2c00".encode(): "\u2c00",  # Glagolitic, Unicode 4.1
        "\u2c30".encode(): "\u2c30",
    },
}


@pytest.mark.parametrize("expected", PORTABLE_CLASHES.values(), ids=PORTABLE_CLASHES)
def test_portable_clash(expected: dict[bytes, str]) -> None:
    wanted = {path: name.encode() for path, name in expected.items()}
    for order in permutations(expected):
        assert entry_names(order, portable=True) == wanted


def test_many_clashes() -> None:
    """As many as there are, and each is told apart."""
    paths = [b"%FF", b"\xff"]
    paths += [b"d/" + name for name in (b"\xff:", b"%FF:", b"\xff%3A", b"%FF%3A", b"%FF%3A (2)")]
    names = entry_names(paths)
    assert names == {
        b"%FF": b"%FF",
        b"\xff": b"%FF (2)",
        b"d/%FF%3A": b"d/%FF%3A",
        b"d/%FF%3A (2)": b"d/%FF%3A (2)",
        b"d/%FF:": b"d/%FF%3A (3)",
        b"d/\xff%3A": b"d/%FF%3A (4)",
        b"d/\xff:": b"d/%FF%3A (5)",
    }


def test_paths_may_come_from_an_iterator() -> None:
    assert entry_names(iter([b"a", b"b:"])) == {b"a": b"a", b"b:": b"b%3A"}
