"""How the options of mount(8) become those of ``zipfs mount``."""

from __future__ import annotations

import click
import pytest

from zipfs.cli.cli import mount
from zipfs.cli.mount_helper import arguments_of, split

_NOTHING_TO_US = ["rw", "ro", "defaults", "noauto", "nofail", "_netdev", "user", "users", "dev"]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", []),
        ("rw", ["rw"]),
        ("ro,allow_other,settle=5", ["ro", "allow_other", "settle=5"]),
        (",,ro,", ["ro"]),
        (r"exclude=a\,b,ro", ["exclude=a,b", "ro"]),
        (r"exclude=a\\,ro", ["exclude=a\\", "ro"]),
        ('exclude="a,b",ro', ["exclude=a,b", "ro"]),
        ("exclude=*.n fo", ["exclude=*.n fo"]),
    ],
)
def test_options_are_split_at_commas(text: str, options: list[str]) -> None:
    assert list(split(text)) == options


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (["allow_other"], ["--allow-other"]),
        (["allow-other", "portable_names"], ["--allow-other", "--portable-names"]),
        (["settle=5", "read_ahead=0"], ["--settle=5", "--read-ahead=0"]),
        (["exclude=a", "exclude=-b=c"], ["--exclude=a", "--exclude=-b=c"]),
        (["config=/etc/zipfs/games.toml"], ["--config=/etc/zipfs/games.toml"]),
        (["uid=33", "gid=www-data", "umask=027"], ["--uid=33", "--gid=www-data", "--umask=027"]),
        (_NOTHING_TO_US, []),
        (["x-systemd.automount", "x-systemd.idle-timeout=5", "X-mount.mkdir", "comment=x"], []),
        (["user=tom"], []),
        (["exec"], ["-o", "exec"]),
        (["noexec", "context=a:b:c"], ["-o", "noexec", "-o", "context=a:b:c"]),
    ],
)
def test_an_option_of_mount_is_one_of_ours_or_nothing_to_us(
    options: list[str], arguments: list[str]
) -> None:
    assert arguments_of(options) == arguments


def test_every_option_of_zipfs_mount_can_be_had() -> None:
    for parameter in mount.params:
        names = [name[2:] for name in parameter.opts if name.startswith("--")]
        if not isinstance(parameter, click.Option) or not names or names == ["help"]:
            continue
        option = names[0] if parameter.is_flag else f"{names[0]}=x"
        assert arguments_of([option.replace("-", "_", 2)]) == [f"--{option}"]


def test_who_is_to_be_the_daemon() -> None:
    assert arguments_of(["setuid=1000:100", "ro"]) == ["--setuid=1000:100"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("alow_other", "unknown mount option 'alow_other'"),
        ("allow_other=1", "takes no value"),
        ("settle", "needs a value"),
        ("remount", "can't remount"),
        ("bind", "can't bind"),
        ("setuid", "needs a value"),
        ("help", "unknown mount option"),
    ],
)
def test_what_can_t_be_had_is_said(option: str, message: str) -> None:
    with pytest.raises(click.UsageError, match=message):
        arguments_of([option])


def test_sloppy_passes_over_what_isn_t_known() -> None:
    assert arguments_of(["of_sshfs", "reconnect=yes", "allow_other"], sloppy=True) == [
        "--allow-other"
    ]


def test_a_quote_that_isn_t_closed_is_a_mistake() -> None:
    with pytest.raises(click.UsageError, match="a quote isn't closed"):
        list(split('exclude="a,b'))
    assert list(split(r"exclude=a\"b")) == ['exclude=a"b']
