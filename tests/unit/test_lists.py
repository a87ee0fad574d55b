"""Lists, line by line: what is taken, and what is said of the first line that is wrong."""

from __future__ import annotations

import base64

import pytest

from zipfs.library.rules import modzip
from zipfs.library.rules.modzip import ListedMember, ListError, parse

PREFIX = b"/library/"
HELLO = base64.b64encode(b"Hello World")

# A list, and its members: line, size, name, path, content.
TAKEN: dict[str, tuple[bytes, list[ListedMember]]] = {
    "one": (b"- 5 /library/a b", [ListedMember(1, 5, b"b", b"a")]),
    "LF": (b"- 5 /library/a b\n", [ListedMember(1, 5, b"b", b"a")]),
    "CR LF": (
        b"- 5 /library/a b\r\n- 6 /library/c d\r\n",
        [ListedMember(1, 5, b"b", b"a"), ListedMember(2, 6, b"d", b"c")],
    ),
    "CR": (
        b"- 5 /library/a b\r- 6 /library/c d",
        [ListedMember(1, 5, b"b", b"a"), ListedMember(2, 6, b"d", b"c")],
    ),
    "empty lines": (
        b"\n\r\n- 5 /library/a b\n\n\n- 6 /library/c d\n\n",
        [ListedMember(3, 5, b"b", b"a"), ListedMember(6, 6, b"d", b"c")],
    ),
    "its order": (
        b"- 1 /library/z z\n- 1 /library/a a\n",
        [ListedMember(1, 1, b"z", b"z"), ListedMember(2, 1, b"a", b"a")],
    ),
    "many blanks": (b"1034ab38 428    /library/foo.txt   My Document1.txt",
                    [ListedMember(1, 428, b"My Document1.txt", b"foo.txt")]),
    "blanks in a name": (b"- 5 /library/a b  c d", [ListedMember(1, 5, b"b  c d", b"a")]),
    "a blank at its end": (b"- 5 /library/a b ", [ListedMember(1, 5, b"b ", b"a")]),
    "a tab in it": (b"- 5 /library/a b\tc", [ListedMember(1, 5, b"b\tc", b"a")]),
    "a form feed ends no line": (b"- 5 /library/a b\x0c\x0b\x1c\x85c",
                                 [ListedMember(1, 5, b"b\x0c\x0b\x1c\x85c", b"a")]),
    "CRC in small letters": (b"abcdef01 5 /library/a b", [ListedMember(1, 5, b"b", b"a")]),
    "CRC in capitals": (b"ABCDEF01 5 /library/a b", [ListedMember(1, 5, b"b", b"a")]),
    "CRC of fewer digits": (b"0 5 /library/a b", [ListedMember(1, 5, b"b", b"a")]),
    "size 0": (b"- 0 /library/a b", [ListedMember(1, 0, b"b", b"a")]),
    "size with zeros before it": (b"- " + b"0" * 5000 + b"5 /library/a b",
                                  [ListedMember(1, 5, b"b", b"a")]),
    "the largest size": (b"- 9223372036854775807 /library/a b",
                         [ListedMember(1, 2**63 - 1, b"b", b"a")]),
    "encoded blank": (b"- 5 /library/a%20b c", [ListedMember(1, 5, b"c", b"a b")]),
    "plus": (b"- 5 /library/a+b c", [ListedMember(1, 5, b"c", b"a b")]),
    "encoded plus": (b"- 5 /library/a%2Bb c", [ListedMember(1, 5, b"c", b"a+b")]),
    "encoded bytes": (b"- 5 /library/%c3%A9%ff c", [ListedMember(1, 5, b"c", b"\xc3\xa9\xff")]),
    "bytes as they are": (b"- 5 /library/\xc3\xa9\xff\xe9 \xc3\xa9",
                          [ListedMember(1, 5, b"\xc3\xa9", b"\xc3\xa9\xff\xe9")]),
    "encoded percent": (b"- 5 /library/100%25 c", [ListedMember(1, 5, b"c", b"100%")]),
    "decoded once": (b"- 5 /library/%252e%252e/%2541 c",
                     [ListedMember(1, 5, b"c", b"%2e%2e/%41")]),
    "encoded question mark": (b"- 5 /library/who%3f c", [ListedMember(1, 5, b"c", b"who?")]),
    "hash": (b"- 5 /library/a#b c", [ListedMember(1, 5, b"c", b"a#b")]),
    "encoded newline": (b"- 5 /library/a%0Ab c", [ListedMember(1, 5, b"c", b"a\nb")]),
    "backslash": (b"- 5 /library/a\\..\\b c", [ListedMember(1, 5, b"c", b"a\\..\\b")]),
    "dots that climb nowhere": (b"- 5 /library/.../..a/.b/c.. d",
                                [ListedMember(1, 5, b"d", b".../..a/.b/c..")]),
    "encoded dot in a name": (b"- 5 /library/a%2Echd c", [ListedMember(1, 5, b"c", b"a.chd")]),
    "encoded letter of the prefix": (b"- 5 /%6Cibrary/a c", [ListedMember(1, 5, b"c", b"a")]),
    "folders": (b"- 5 /library/roms/psx/Game/a.chd DLC/a.chd",
                [ListedMember(1, 5, b"DLC/a.chd", b"roms/psx/Game/a.chd")]),
    "a hidden folder": (b"- 5 /library/a .hidden/a", [ListedMember(1, 5, b".hidden/a", b"a")]),
    "dots in a name": (b"- 5 /library/a ...a/..b/.c/d.",
                       [ListedMember(1, 5, b"...a/..b/.c/d.", b"a")]),
    **{
        f"a name that isn't tidy: {name.decode()}": (
            b"- 5 /library/a " + name, [ListedMember(1, 5, b"A/x", b"a")]
        )
        for name in (b"./A/x", b"A//x", b"A/./x", b"/A/x", b"//A///././x", b"./././A/x")
    },
    "content under a name that isn't tidy": (b"- 0 /decode?value= ./n",
                                             [ListedMember(1, 0, b"n", content=b"")]),
    **{
        f"a folder: {line.decode()}": (line, [ListedMember(1, 0, b"A/save/", content=b"")])
        for line in (
            b"0 0 @directory A/save",
            b"0        0      @directory A/save",
            b"- 0 @directory A/save",
            b"0 0 @directory A/save/",
            b"0 4096 @directory ./A//save//",
            b"0 0 %40directory A/save/.",
        )
    },
    "a folder with others in it": (b"0 0 @directory A\n- 5 /library/a A/x\n0 0 @directory A/b\n",
                                   [ListedMember(1, 0, b"A/", content=b""),
                                    ListedMember(2, 5, b"A/x", b"a"),
                                    ListedMember(3, 0, b"A/b/", content=b"")]),
    "a file of the name": (b"- 5 /library/@directory @directory",
                           [ListedMember(1, 5, b"@directory", b"@directory")]),
    "a name with a backslash": (b"- 5 /library/a a\\b", [ListedMember(1, 5, b"a\\b", b"a")]),
    "one file twice": (b"- 5 /library/a b\n- 5 /library/a c",
                       [ListedMember(1, 5, b"b", b"a"), ListedMember(2, 5, b"c", b"a")]),
    "names that differ in case": (b"- 5 /library/a b\n- 5 /library/a B",
                                  [ListedMember(1, 5, b"b", b"a"), ListedMember(2, 5, b"B", b"a")]),
    "names that begin alike": (b"- 5 /library/a b\n- 5 /library/a b.x\n- 5 /library/a b c/d",
                               [ListedMember(1, 5, b"b", b"a"), ListedMember(2, 5, b"b.x", b"a"),
                                ListedMember(3, 5, b"b c/d", b"a")]),
    "content": (b"4a17b156 11 /decode?value=" + HELLO + b" a.m3u",
                [ListedMember(1, 11, b"a.m3u", content=b"Hello World")]),
    "content of unknown CRC": (b"- 11 /decode?value=" + HELLO + b" a.m3u",
                               [ListedMember(1, 11, b"a.m3u", content=b"Hello World")]),
    "content of another CRC": (b"00000000 11 /decode?value=" + HELLO + b" a.m3u",
                               [ListedMember(1, 11, b"a.m3u", content=b"Hello World")]),
    "content encoded": (b"- 11 /decode?value=" + HELLO.replace(b"=", b"%3d") + b" a.m3u",
                        [ListedMember(1, 11, b"a.m3u", content=b"Hello World")]),
    "content with all digits": (b"- 3 /decode?value=++// a\n- 3 /decode?value=%2b%2B%2f%2F b",
                                [ListedMember(1, 3, b"a", content=b"\xfb\xef\xff"),
                                 ListedMember(2, 3, b"b", content=b"\xfb\xef\xff")]),
    "no content": (b"- 0 /decode?value= a", [ListedMember(1, 0, b"a", content=b"")]),
    "a name of 255 bytes": (b"- 5 /library/a " + b"n" * 255 + b"/" + b"m" * 255,
                            [ListedMember(1, 5, b"n" * 255 + b"/" + b"m" * 255, b"a")]),
}  # fmt: skip

# A list, which line is wrong, and what is said of it.
REFUSED: dict[str, tuple[bytes, int | None, str]] = {
    "empty": (b"", None, "it is empty"),
    "empty lines only": (b"\n\r\n\n", None, "it is empty"),
    "text": (b"nonsense", 1, "it has less than CRC, SIZE, LOCATION and NAME"),
    "HTML": (b"<html> <body> 404 Not", 1, "<html> is no CRC"),
    "the second line": (b"- 5 /library/a b\nx", 2, "it has less than"),
    "behind empty lines": (b"\r\n\r\n- 5 /library/a b\r\n\r\nx", 5, "it has less than"),
    "no name": (b"- 5 /library/a", 1, "it has less than"),
    "an empty name": (b"- 5 /library/a ", 1, "it has less than"),
    "blanks for a name": (b"- 5 /library/a    ", 1, "it has less than"),
    "a blank first": (b" - 5 /library/a b", 1, "it begins with a blank"),
    "tabs between": (b"-\t5\t/library/a\tb", 1, "it has less than"),
    "a byte order mark": (b"\xef\xbb\xbf- 5 /library/a b", 1, r"\ufeff- is no CRC"),
    "UTF-16": ("- 5 /library/a b".encode("utf-16-le"), 1, r"-\x00 is no CRC"),
    "no CRC": (b"5 /library/a b c", 1, "/library/a is no size in bytes"),
    "a CRC that isn't hex": (b"xyz 5 /library/a b", 1, "xyz is no CRC: up to 8 hex digits, or -"),
    "a CRC of 9 digits": (b"123456789 5 /library/a b", 1, "123456789 is no CRC"),
    "a CRC with 0x": (b"0x1234 5 /library/a b", 1, "0x1234 is no CRC"),
    "two dashes": (b"-- 5 /library/a b", 1, "-- is no CRC"),
    "a size that isn't known": (b"- - /library/a b", 1, "- is no size in bytes"),
    "a negative size": (b"- -5 /library/a b", 1, "-5 is no size in bytes"),
    "a size in hex": (b"- 0x5 /library/a b", 1, "0x5 is no size in bytes"),
    "Arabic digits": ("- \u0665 /library/a b".encode(), 1, "\u0665 is no size in bytes"),
    "a size with a fraction": (b"- 5.0 /library/a b", 1, "5.0 is no size in bytes"),
    "a size of 20 digits": (b"- 18446744073709551616 /library/a b", 1, "its size is larger than"),
    "a size of 5000 digits": (b"- " + b"9" * 5000 + b" /library/a b", 1, "its size is larger than"),
    "another place": (b"- 5 /other/a b", 1, "its location /other/a isn't below /library/"),
    "the prefix as a prefix": (b"- 5 /library2/a b", 1, "its location /library2/a isn't below"),
    "no slash first": (b"- 5 library/a b", 1, "its location library/a isn't below"),
    "two slashes first": (b"- 5 //library/a b", 1, "its location //library/a isn't below"),
    "a host": (b"- 5 http://x/library/a b", 1, "its location http://x/library/a isn't below"),
    "a file": (b"- 5 file:///library/a b", 1, "its location file:///library/a isn't below"),
    "a named location": (b"0 0 @named a", 1, "its location @named isn't below"),
    "a folder with arguments": (b"0 0 @directory?x a", 1, "its location has arguments, which only"),
    "a folder without a size": (b"0 - @directory a", 1, "- is no size in bytes"),
    "a folder without a name": (b"0 0 @directory ", 1, "it has less than"),
    "a folder that is no other": (b"0 0 @directory ./", 1, "its name ./ is that of no file or"),
    "a folder elsewhere": (b"0 0 @directory a/..", 1, "its name a/.. has the component .."),
    "a folder twice": (b"0 0 @directory a\n0 0 @directory ./a/\n", 2,
                       "its name a is that of line 1"),
    "a folder and a file of one name": (b"0 0 @directory n\n- 5 /library/a n\n", 2,
                                        "its name n is that of line 1"),
    "a folder in a file": (b"- 5 /library/a n\n0 0 @directory n/x\n", 1,
                           "its name n is that of a folder of line 2"),
    "the library": (b"- 5 /library/ b", 1, "its location /library/ has an empty component"),
    "without its slash": (b"- 5 /library b", 1, "its location /library isn't below /library/"),
    "a folder": (b"- 5 /library/a/ b", 1, "its location /library/a/ has an empty component"),
    "doubled slashes": (b"- 5 /library/a//b c", 1, "its location /library/a//b has an empty"),
    "at the beginning": (b"- 5 /library//etc/passwd c", 1, "its location /library//etc/passwd has"),
    "climbing": (b"- 5 /library/../etc c", 1, "its location /library/../etc has the component .."),
    "at the end": (b"- 5 /library/a/.. c", 1, "its location /library/a/.. has the component .."),
    "a dot": (b"- 5 /library/./a c", 1, "its location /library/./a has the component ."),
    "encoded dots": (b"- 5 /library/%2e%2E/a c", 1, "its location /library/%2e%2E/a has the"),
    "half encoded dots": (b"- 5 /library/.%2e/a c", 1, "its location /library/.%2e/a has the"),
    "climbing to the prefix": (b"- 5 /x/../library/a c", 1, "its location /x/../library/a isn't"),
    "an encoded slash": (b"- 5 /library/a%2Fb c", 1, "its location has an encoded slash"),
    "in small letters": (b"- 5 /library/..%2fb c", 1, "its location has an encoded slash"),
    "NUL": (b"- 5 /library/a%00b c", 1, "its location has a NUL in it"),
    "NUL itself": (b"- 5 /library/a\0b c", 1, "its location has a NUL in it"),
    "NUL behind dots": (b"- 5 /library/..%00/b c", 1, "its location has a NUL in it"),
    "a percent at the end": (b"- 5 /library/a% c", 1, "its location has a % that isn't followed"),
    "and one digit": (b"- 5 /library/a%4 c", 1, "its location has a % that isn't followed"),
    "no hex": (b"- 5 /library/a%zz c", 1, "its location has a % that isn't followed"),
    "%u": (b"- 5 /library/%u002e c", 1, "its location has a % that isn't followed"),
    "arguments": (b"- 5 /library/a?b c", 1, "its location has arguments, which only /decode"),
    "no arguments": (b"- 5 /library/a? c", 1, "/library/a? is no location"),
    "no content": (b"- 5 /decode c", 1, "its location /decode isn't below /library/"),
    "no value": (b"- 5 /decode?v=" + HELLO + b" c", 1, "/decode takes value=BASE64"),
    "more than the value": (b"- 11 /decode?value=" + HELLO + b"&x=1 c", 1,
                            "the value of /decode isn't Base64"),
    "no padding": (b"- 11 /decode?value=" + HELLO.rstrip(b"=") + b" c", 1, "the value of"),
    "the other Base64": (b"- 3 /decode?value=--__ c", 1, "the value of /decode isn't"),
    "content of another size": (b"- 10 /decode?value=" + HELLO + b" c", 1,
                                "its size is 10, but its content has 11 bytes"),
    "decoding elsewhere": (b"- 11 /library/decode?value=" + HELLO + b" c", 1, "its location has"),
    "a folder's name": (b"- 5 /library/a b/", 1, "its name b/ isn't the path of a file"),
    "another one": (b"- 5 /library/a b/.", 1, "its name b/. isn't the path of a file"),
    "a slash for a name": (b"- 5 /library/a /", 1, "its name / isn't the path of a file"),
    "a dot for a name": (b"- 5 /library/a .", 1, "its name . isn't the path of a file"),
    "a name that climbs": (b"- 5 /library/a ../../x", 1, "its name ../../x has the component .."),
    "a name that climbs back": (b"- 5 /library/a a/../x", 1, "its name a/../x has the component"),
    "a name that climbs at the end": (b"- 5 /library/a a/..", 1, "its name a/.. has the component"),
    "content of a name that climbs": (b"- 0 /decode?value= ../n", 1, "its name ../n has the"),
    "one name once tidied": (b"- 5 /library/a A/x\n- 5 /library/b ./A//x\n", 2,
                             "its name A/x is that of line 1"),
    "NUL in a name": (b"- 5 /library/a b\0c", 1, "its name has a NUL in it"),
    "a long part of a name": (b"- 5 /library/a b/" + b"n" * 256, 1, "a part of its name is longer"),
    "a long name": (b"- 5 /library/a " + b"n/" * 32768 + b"n", 1, "its name is longer than 65535"),
    "a long path": (b"- 5 /library/" + b"n/" * 32768 + b"n n", 1, "its location is longer than"),
    "a long line": (b"- 5 /decode?value=" + b"A" * (1 << 20) + b" n", 1, "it is longer than"),
    "a name twice": (b"- 5 /library/a n\n- 5 /library/b m\n- 5 /library/c n\n", 3,
                     "its name n is that of line 1"),
    "content of a name twice": (b"- 0 /decode?value= n\n- 5 /library/c n\n", 2,
                                "its name n is that of line 1"),
    "a file and a folder": (b"- 5 /library/a n\n- 5 /library/b n!\n- 5 /library/c n/x/y\n", 1,
                            "its name n is that of a folder of line 3"),
    "a folder and a file": (b"- 5 /library/a n/x/y\n- 5 /library/b n/x\n", 2,
                            "its name n/x is that of a folder of line 1"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "members"), TAKEN.values(), ids=TAKEN)
def test_taken(data: bytes, members: list[ListedMember]) -> None:
    assert parse(data, PREFIX) == members


@pytest.mark.parametrize(("data", "line", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(data: bytes, line: int | None, reason: str) -> None:
    with pytest.raises(ListError) as caught:
        parse(data, PREFIX)
    assert caught.value.line == line
    assert caught.value.reason.startswith(reason)
    # One line for people, however long and strange what it is about.
    said = str(caught.value)
    assert said == caught.value.reason if line is None else f"line {line}: {caught.value.reason}"
    assert said.isprintable()
    assert len(said) < 500


@pytest.mark.parametrize(
    ("prefix", "location", "path"),
    [
        (b"/", b"/a/b", b"a/b"),
        (b"/files/of/", b"/files/of/a", b"a"),
        (b"/files/of/", b"/files/of%2fa", None),
        (b"/files/of/", b"/files/a", None),
        ("/dateien/é/".encode(), b"/dateien/%C3%A9/a", b"a"),
        (b"/", b"//a", None),
        (b"/", b"/../a", None),
    ],
)
def test_prefixes(prefix: bytes, location: bytes, path: bytes | None) -> None:
    line = b"- 5 %s n" % location
    if path is None:
        with pytest.raises(ListError):
            parse(line, prefix)
    else:
        assert parse(line, prefix) == [ListedMember(1, 5, b"n", path)]


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each up to what it is, and one more."""
    line = b"- 1 /decode?value=QQ== %d\n"
    data = b"".join(line % number for number in range(3))
    for limit, exact in (("MAX_ENTRIES", 3), ("MAX_INLINE", 3), ("MAX_LIST", len(data))):
        with monkeypatch.context() as patch:
            patch.setattr(modzip, limit, exact)
            assert len(parse(data, PREFIX)) == 3
            patch.setattr(modzip, limit, exact - 1)
            with pytest.raises(ListError) as caught:
                parse(data, PREFIX)
            assert caught.value.line == (None if limit == "MAX_LIST" else 3)
    with monkeypatch.context() as patch:
        patch.setattr(modzip, "MAX_LINE", len(line % 0) - 1)
        assert len(parse(data, PREFIX)) == 3
        patch.setattr(modzip, "MAX_LINE", len(line % 0) - 2)
        with pytest.raises(ListError, match="line 1: it is longer than"):
            parse(data, PREFIX)


def test_names_are_compared_in_one_go() -> None:
    """As many, and as deep, as a list can have: not each with each, nor each folder of each."""
    deep = b"/".join([b"d"] * 30_000)
    data = b"".join(b"- 1 /library/a %d/%s\n" % (number, deep) for number in range(300))
    assert len(parse(data, PREFIX)) == 300
