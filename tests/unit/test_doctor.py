"""The pure parts of ``zipfs doctor``: what follows from what was found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zipfs.errors import Level
from zipfs.mount.mountpoint import user_allow_other
from zipfs.ops.doctor.checks_access import grants, way_to
from zipfs.ops.doctor.checks_changes import InotifyLimits, InotifyUse, check, limits
from zipfs.ops.doctor.checks_library import check_content, check_dates
from zipfs.ops.doctor.checks_system import check_limits, check_versions, version_of
from zipfs.ops.doctor.findings import LEVELS, Finding, worst
from zipfs.ops.doctor.headcount import Headcount
from zipfs.system.containers import in_container
from zipfs.system.filesystems import file_system, rows, settle_wanted
from zipfs.system.mounts import Mount, lower_folders, mounts, mounts_below
from zipfs.system.subprocesses import Identity
from zipfs.text import counted, printable, quoted, size

# -- File systems --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "level", "words"),
    [
        ("ext4", "rw,relatime", "ok", "all that zipfs relies on"),
        ("btrfs", "rw,subvol=/@games", "ok", "all that zipfs relies on"),
        ("squashfs", "ro", "ok", "never changes"),
        ("nfs4", "rw,vers=4.2", "note", "up to 60 seconds"),
        ("nfs", "rw,acregmax=30,acdirmax=10", "note", "up to 30 seconds"),
        ("nfs4", "rw,acregmin=1,acregmax=1,acdirmin=1,acdirmax=1", "ok", "for a second"),
        ("nfs", "rw,noac", "ok", "for a second"),
        ("cifs", "rw,actimeo=1", "ok", "for a second"),
        ("cifs", "rw", "ok", "for a second"),
        ("smb3", "rw,actimeo=60", "note", "for 60 seconds"),
        ("vfat", "rw,uid=0", "warning", "local time"),
        ("exfat", "rw", "warning", "put back"),
        ("fuse.sshfs", "rw", "note", "twenty seconds"),
        ("fuse.rclone", "ro", "note", "five minutes"),
        ("fuse.mergerfs", "rw", "note", "every ten seconds"),
        ("fuseblk", "rw", "note", "every ten seconds"),
        ("fuse.zipfs", "ro", "warning", "itself"),
        ("9p", "rw", "note", "every ten seconds"),
        ("overlay", "rw", "note", "maps"),
        ("tmpfs", "rw", "note", "maps"),
        ("befs", "rw", "note", "zipfs doesn't know"),
        ("proc", "rw", "problem", "no files"),
    ],
)
def test_what_a_file_system_lacks(kind: str, options: str, level: Level, words: str) -> None:
    found = file_system(kind, frozenset(options.split(",")))
    assert found.level == level
    assert words in found.note
    assert found.note == found.note.strip()


def test_dates_of_fat_in_utc_don_t_move() -> None:
    assert "local time" not in file_system("vfat", {"rw", "tz=UTC"}).note


def test_what_is_said_to_be_polled_is_polled() -> None:
    """What the doctor says and what the mount does are about the same file systems."""
    kinds = ["ext4", "nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "fuseblk", "9p", "virtiofs",
             "overlay", "tmpfs", "vfat", "fuse.rclone", "vboxsf", "ceph", "xfs"]  # fmt: skip
    for kind in kinds:
        said = "every ten seconds" in file_system(kind).note
        assert said is not file_system(kind).events, kind


def test_the_table_has_each_kind_once() -> None:
    kinds = [kind for row in rows() for kind in row.kinds]
    assert len(kinds) == len(set(kinds))
    for row in rows():
        assert all(file_system(kind) == row for kind in row.kinds)
        assert row.note
        assert row.remedy or row.level in ("ok", "note")


@pytest.mark.parametrize(
    ("granularity", "settle", "wanted"),
    [(0.0, 2.0, None), (2.0, 2.0, 5.0), (2.0, 2.5, None), (1.0, 0.5, 3.0)],
)
def test_settle_is_longer_than_the_steps_of_dates(
    granularity: float, settle: float, wanted: float | None
) -> None:
    assert settle_wanted(granularity, settle) == wanted


# -- Mounts --------------------------------------------------------------------------

_TABLE = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
30 22 0:40 / /srv/a\\040b rw - nfs4 nas:/x rw,vers=4.2,actimeo=1
31 22 0:41 / /srv/games rw,nosuid shared:7 master:2 - fuse.zipfs zipfs ro,user_id=0,allow_other
32 22 0:42 / /srv/gamesx rw - tmpfs tmpfs rw
33 31 0:43 / /srv/games/psx rw - fuse.sshfs host: rw
34 33 0:44 / /srv/games/psx rw - xfs /dev/sdb rw
"""


@pytest.fixture
def table(tmp_path: Path) -> str:
    file = tmp_path / "mountinfo"
    file.write_text(_TABLE)
    return str(file)


def test_mounts_and_their_options(table: str) -> None:
    found = {mount.path: mount for mount in mounts(table)}
    assert found["/srv/a b"] == Mount(
        "0:40", "/srv/a b", "nfs4", frozenset({"rw", "vers=4.2", "actimeo=1"}), 30
    )
    assert "allow_other" in found["/srv/games"].options
    assert "nosuid" in found["/srv/games"].options


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("rw,lowerdir=/a,upperdir=/u,workdir=/w", ["/a"]),
        ("ro,lowerdir=/a:/b b", ["/a", "/b b"]),
        (r"ro,lowerdir=/a\134:b:/c\040d", ["/a:b", "/c d"]),
        ("ro,lowerdir=/a:/b::/data", ["/a", "/b", "/data"]),
        ("ro,lowerdir+=/a:b,lowerdir+=/c", ["/a:b", "/c"]),
        ("rw", []),
    ],
)
def test_lower_layers(options: str, expected: list[str]) -> None:
    mount = Mount("0:44", "/merged", "overlay", frozenset(options.split(",")))
    assert sorted(lower_folders(mount)) == expected


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("/srv/games", [("/srv/games", "fuse.zipfs"), ("/srv/games/psx", "xfs")]),
        ("/srv/games/psx/RPG", [("/srv/games/psx", "xfs")]),
        ("/srv/gamesx", [("/srv/gamesx", "tmpfs")]),
        ("/home", [("/", "ext4")]),
    ],
)
def test_mounts_below(table: str, folder: str, expected: list[tuple[str, str]]) -> None:
    """The one that holds it first; of several at one place the last."""
    assert [(m.path, m.kind) for m in mounts_below(folder, mounts(table))] == expected


# -- Who may read --------------------------------------------------------------------


def status(mode: int, uid: int, gid: int) -> os.stat_result:
    return os.stat_result((mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "bits", "may"),
    [
        (0o755, 0, 0, 5, True),
        (0o750, 0, 0, 5, False),
        (0o750, 0, 33, 5, True),
        (0o750, 0, 44, 5, True),
        (0o077, 33, 44, 4, False),  # the owner's bits count, and no others
        (0o705, 0, 33, 4, False),
        (0o711, 0, 0, 1, True),
        (0o711, 0, 0, 5, False),
    ],
)
def test_permission_bits(mode: int, uid: int, gid: int, bits: int, may: bool) -> None:
    web = Identity("www-data", 33, 33, (33, 44))
    assert grants(status(mode, uid, gid), web, bits) is may
    assert grants(status(mode, uid, gid), Identity("root", 0, 0, (0,)), bits)


def test_way_to() -> None:
    assert way_to("/srv/www/games") == ["/", "/srv", "/srv/www"]
    assert way_to("/srv") == ["/"]
    assert way_to("/") == ["/"]


# -- inotify -------------------------------------------------------------------------


NOTHING = InotifyUse()


def inotify(
    limit: InotifyLimits, folders: int, use: InotifyUse = NOTHING, **options: bool
) -> list[Finding]:
    found = Headcount(folders=folders, complete=options.get("complete", True))
    return list(check(limit, use, found, instances=1, polled=options.get("polled", False)))


def test_enough_watches() -> None:
    (finding,) = inotify(InotifyLimits(8192, 128, 16384), 8192)
    assert finding.level == "ok"
    assert "8192 folders to watch" in finding.what


@pytest.mark.parametrize(("polled", "level"), [(False, "warning"), (True, "note")])
def test_too_few_watches(polled: bool, level: Level) -> None:
    use = InotifyUse(watches=5000, own=0)
    (finding,) = inotify(InotifyLimits(8192, 128, 16384), 4000, use, polled=polled)
    assert finding.level == level
    assert "fs.inotify.max_user_watches=32768 " in finding.remedy


def test_watches_of_zipfs_itself_don_t_count_twice() -> None:
    (finding,) = inotify(InotifyLimits(8192, 128, 16384), 8000, InotifyUse(8100, 8000, 2, 1))
    assert finding.level == "ok"
    assert "100 of them in use by other programs" in finding.what


def test_a_library_that_was_not_counted_to_its_end() -> None:
    (finding,) = inotify(InotifyLimits(100, 128, 16384), 4000, complete=False)
    assert "at least 4000 folders" in finding.what


def test_too_few_instances_and_a_short_queue() -> None:
    watches, instances, queue = inotify(InotifyLimits(8192, 128, 100), 1, InotifyUse(instances=128))
    assert (watches.level, instances.level, queue.level) == ("ok", "warning", "note")
    assert "max_user_instances=256 " in instances.remedy
    assert "max_queued_events=16384 " in queue.remedy


def test_no_inotify_at_all() -> None:
    (finding,) = inotify(InotifyLimits(None, None, None), 1)
    assert finding.level == "warning"


def test_limits_are_the_least(tmp_path: Path) -> None:
    """A user namespace may have lower ones than the machine."""
    machine, namespace = tmp_path / "inotify", tmp_path / "user"
    machine.mkdir()
    namespace.mkdir()
    (machine / "max_user_watches").write_text("1000\n")
    (machine / "max_user_instances").write_text("128\n")
    (namespace / "max_inotify_watches").write_text("10\n")
    assert limits(str(machine), str(namespace)) == InotifyLimits(10, 128, None)


# -- The machine ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("6.1.0-28-amd64", (6, 1, 0)),
        ("3.5.0", (3, 5, 0)),
        ("5.4", (5, 4)),
        ("4.14.336+", (4, 14, 336)),
        ("unknown", ()),
    ],
)
def test_versions_are_compared_as_numbers(text: str, version: tuple[int, ...]) -> None:
    assert version_of(text) == version


@pytest.mark.parametrize(
    ("release", "level", "words"),
    [
        ("6.1.0-28-amd64", "ok", ""),
        ("4.20.0", "ok", ""),
        ("4.19.0-27", "note", "128 KiB"),
        ("4.9.337", "note", "RWF_NOWAIT"),
    ],
)
def test_kernels(release: str, level: Level, words: str) -> None:
    finding = next(iter(check_versions(release)))
    assert (finding.name, finding.level) == ("kernel", level)
    assert words in finding.what


@pytest.mark.parametrize(("hard", "level"), [(1024, "note"), (65536, "ok"), (256, "note")])
def test_open_files(hard: int, level: Level) -> None:
    (finding,) = check_limits(hard)
    assert finding.level == level
    assert bool(finding.remedy) is (level != "ok")


def test_containers_are_known_by_their_marks(tmp_path: Path) -> None:
    root = f"{tmp_path}/"
    assert not in_container(root, {})
    assert in_container(root, {"container": "podman"})
    (tmp_path / ".dockerenv").touch()
    assert in_container(root, {})


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("user_allow_other\n", True),
        ("#user_allow_other\n", False),
        ("mount_max = 10\n  user_allow_other  \n", True),
        ("", False),
    ],
)
def test_fuse_conf(tmp_path: Path, text: str, allowed: bool) -> None:
    file = tmp_path / "fuse.conf"
    file.write_text(text)
    assert user_allow_other(str(file)) is allowed
    assert not user_allow_other(str(tmp_path / "missing"))


# -- The library ---------------------------------------------------------------------


def test_dates_and_the_clock() -> None:
    """A file of the future costs only the wait; a clock before 1980 is wrong."""
    fine = Headcount(files=3, newest=1_600_000_000.0)
    ahead = Headcount(files=3, newest=2_600_000_000.0, future=1, future_names=["roms/a"])

    def level(found: Headcount, now: float) -> str:
        (finding,) = check_dates(found, "/srv/games", 2.0, now, fixed=False)
        return finding.level

    assert level(fine, 1_700_000_000.0) == "ok"
    assert level(ahead, 1_700_000_000.0) == "note"
    assert level(ahead, 100.0) == "warning"


@pytest.mark.parametrize(
    ("newest", "fixed", "told"),
    [(2_600_000_000.0, False, True), (2_600_000_000.0, True, False), (1.6e9, False, False)],
    ids=["dates of files", "fixed dates", "a folder's date alone"],
)
def test_dates_that_apache_doubts(newest: float, fixed: bool, told: bool) -> None:
    ahead = Headcount(files=3, newest=newest, future=1, future_names=["roms/a"])
    (finding,) = check_dates(ahead, "/srv/games", 2.0, 1_700_000_000.0, fixed=fixed)
    assert ("weak ETag" in finding.what) == told


def test_content_that_was_not_counted_to_its_end() -> None:
    found = Headcount(folders=3, files=10, size=1 << 20, closed=2, closed_names=["a", "b\udcff"])
    counts, closed = check_content("/srv/games", found)
    assert counts.what == "at least 3 folders, 10 files, 1.0 MiB"
    assert closed.level == "warning"
    assert closed.what.isprintable()


def test_an_empty_library() -> None:
    (finding,) = check_content("/srv/games", Headcount(folders=1, complete=True))
    assert finding.level == "warning"


# -- Words ---------------------------------------------------------------------------


def test_words() -> None:
    assert [size(n) for n in (0, 999, 1024, 1536, 200 << 10, 5 << 40, 1 << 70)] == [
        "0 bytes", "999 bytes", "1.0 KiB", "1.5 KiB", "200.0 KiB", "5.0 TiB", "1048576.0 PiB",
    ]  # fmt: skip
    assert [counted(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert quoted("/a b") == "'/a b'"
    assert quoted("/a") == "/a"
    assert printable("a\nb") == r"'a\nb'"


def test_worst() -> None:
    findings = [Finding("a", level, "") for level in LEVELS]
    assert worst(findings) == "problem"
    assert worst(findings[:2]) == "note"
    assert worst([]) == "ok"
