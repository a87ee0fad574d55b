"""What YAML of others can do to us: nothing that its size doesn't account for.

Each case is parsed in a process that may take so much memory and processor time more, as a limit
that a good parser never comes near. Whether it is refused is left to PyYAML's version.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

MEMORY: Final = 256 << 20
SECONDS: Final = 30
"""Of the processor. A case that isn't bounded takes minutes, or for ever."""
TIMES: Final = 100
"""So many entries may be in all tables and lists, for each byte of the file."""

PARSE: Final = f"""
import datetime, resource, sys
from zipfs.library.rules.romm_config import parse_yaml

data = sys.stdin.buffer.read()
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {MEMORY},) * 2)
resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS},) * 2)
try:
    todo = [parse_yaml(data)]
except ValueError as error:
    assert len(str(error)) < 300, len(str(error))
    sys.exit()

PLAIN = {{str, int, float, bool, bytes, type(None), datetime.date, datetime.datetime}}
entries = 0
seen = {{}}
while todo:
    value = todo.pop()
    if id(value) in seen:
        continue
    seen[id(value)] = value
    if type(value) is dict:
        entries += len(value)
        todo += [*value, *value.values()]
    elif type(value) in {{list, tuple, set}}:
        entries += len(value)
        todo += value
    else:
        assert type(value) in PLAIN, type(value)
assert entries <= {TIMES} * len(data), entries
"""


def _grown(first: str, step: str, times: int = 10) -> str:
    """Each level refers to the one before nine times."""
    levels = [step.format(n=n, before=", ".join([f"*a{n - 1}"] * 9)) for n in range(1, times + 1)]
    return "\n".join([f"a0: &a0 {first}", *levels])


def _keys(count: int) -> str:
    return ", ".join(f"k{n}: 1" for n in range(count))


CASES: Final = {
    "a billion keys": _grown("{x: 1, y: 2}", "a{n}: &a{n} {{<<: [{before}]}}"),
    "a billion keys, by one": _grown("{x: 1}", "a{n}: &a{n} {{<<: [{before}], y{n}: 1}}"),
    "a billion names": _grown("[x]", "a{n}: &a{n} [{before}]"),
    "keys that are aliases": _grown("[x]", "a{n}: &a{n} {{? [{before}] : 1}}"),
    "large tables over and over": f"a0: &a0 {{{_keys(2_000)}}}\n"
    + "\n".join(f"b{n}: {{<<: *a0, x{n}: 1}}" for n in range(50)),
    "large tables, one in the other": f"a0: &a0 {{{_keys(2_000)}}}\n"
    + "\n".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a0], x{n}: 1}}" for n in range(1, 49)),
    "merged in itself": "a: &a {<<: *a, x: 1}",
    "in itself": "a: &a [*a, {b: *a}]",
    "many aliases": "a: &a x\nb: [" + "*a, " * 10_000 + "]",
    "many keys": f"{{{_keys(12_000)}}}",
    "merges without aliases": "{<<: " * 300 + "{x: 1}" + "}" * 300,
    "deep": "[" * 50_000,
    "deep in a table": "{a: " * 20_000,
    "deep by lines": "\n".join(" " * n + "a:" for n in range(1_000)),
    "a number": "a: " + "1" * 100_000,
    "a number to base 60": "a: 1" + ":1" * 500_000,
    "a number with a sign": "a: " + "-" * 100_000,
    "a float": "a: 1." + "1" * 100_000,
    "a float to base 60": "a: 1" + ":1" * 100_000 + ".5",
    "a hexadecimal number": "a: 0x" + "f" * 100_000,
    "keys of one hash": "{"
    + ", ".join(f"{n * sys.hash_info.modulus}: 1" for n in range(5_000))
    + "}",
    "a string": "a: " + "x" * 100_000,
    "quotes": "a: '" + "''" * 50_000 + "'",
    "an object": "a: !!python/object/apply:os.getcwd []",
    "bytes": "a: !!binary " + "QUJD" * 100_000,
    "a set": "a: !!set {x, y}",
    "pairs": "a: !!pairs [x: 1, x: 2]",
    "a date": "a: 2001-01-01",
    "anchors": "\n".join(f"a{n}: &a{n} x" for n in range(3_000)),
}


@pytest.mark.parametrize("case", CASES)
def test_it_takes_what_its_size_accounts_for(case: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PARSE],
        cwd=Path(__file__).parents[2],
        input=CASES[case].encode(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
