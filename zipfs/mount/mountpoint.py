"""Mount points: checks before a mount, the mount's options, unmounting, tuning."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
from collections.abc import Collection, Iterator, Mapping

from zipfs.config import Settings, state_lacks
from zipfs.errors import FuseError, MountpointError
from zipfs.sealing.sealers import check_index
from zipfs.system import containers, mounts, users
from zipfs.system.measuring import latency

DEVICE = "/dev/fuse"
FUSE_CONF = "/etc/fuse.conf"
SUBTYPE = "zipfs"
KIND = mounts.ZIPFS
CONNECTIONS = "/sys/fs/fuse/connections"
MAX_BACKGROUND = 512
"""Most read-ahead requests of the kernel at once."""
FAR_READ_AHEAD = 4
"""How many times as far the kernel reads ahead where the library answers slowly."""
_LINKS = 40
"""Most links that the kernel follows, path_resolution(7)."""
_INSTALL = "install the package fuse3"

log = logging.getLogger(__name__)


def check_fuse(*, allow_other: bool, stateless: bool = False) -> None:
    """Raise :exc:`FuseError` if this user can't mount; it names all that is missing.

    *stateless*: the settings name no index.
    """
    fields = containers.fields_of()
    ours = os.geteuid() == 0
    lacking = list(_device_lacks())
    if ours and not containers.may_mount(fields):
        lacking.append(
            "root has no right to mount here (CAP_SYS_ADMIN); in a container, it needs --cap-add"
            " SYS_ADMIN"
        )
    elif not ours:
        lacking += _users_lack(fields, allow_other=allow_other, stateless=stateless)
    if not lacking:
        return
    if not ours and containers.in_container():
        who = f"{os.geteuid()}:{os.getegid()}"
        lacking.append(
            f"simplest is to start the container as root, and name this user: zipfs mount --setuid"
            f" {who}"
        )
    raise FuseError("; ".join(lacking))


def _device_lacks() -> Iterator[str]:
    if not os.path.exists(DEVICE):
        yield (
            f"there is no {DEVICE}: load the kernel module (modprobe fuse);"
            " in a container, pass the device in (--device /dev/fuse)"
        )
        return
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EACCES:
            yield f"no permission to open {DEVICE}; distributions ship it with mode 0666"
        elif error.errno == errno.EPERM and containers.in_container():
            yield f"the container may not open {DEVICE}: pass the device in (--device /dev/fuse)"
        else:
            yield f"can't open {DEVICE}: {error.strerror}"


def _users_lack(fields: Mapping[str, str], *, allow_other: bool, stateless: bool) -> Iterator[str]:
    """What a user who isn't root lacks: fusermount3(1)."""
    if shutil.which("fusermount3") is None:
        yield f"fusermount3 isn't there, and without it only root can mount: {_INSTALL}"
    elif fields.get("NoNewPrivs") == "1":
        yield (
            "fusermount3 can't gain root's rights, as this process has no_new_privs; in a"
            " container, leave --security-opt no-new-privileges out"
        )
    elif not containers.may_gain_mounting(fields):
        yield (
            "fusermount3 can't gain the right to mount (CAP_SYS_ADMIN); in a container, it needs"
            " --cap-add SYS_ADMIN"
        )
    if allow_other and not user_allow_other(FUSE_CONF):
        yield (
            f"--allow-other is forbidden to users: an administrator has to add the line"
            f" 'user_allow_other' to {FUSE_CONF}"
        )
    if not users.has_entry(os.geteuid()):
        yield f"user {os.geteuid()} has no entry in /etc/passwd, which fusermount3 wants"
    if stateless and (why := state_lacks()):
        yield why


def forbidden() -> str:
    """The hint for a refusal of mount(2) in spite of the right: a profile of the container."""
    if not containers.in_container() or not containers.may_mount(containers.fields_of()):
        return ""
    if profile := containers.apparmor():
        return f"; the AppArmor profile {profile} may forbid it: --security-opt apparmor=unconfined"
    return "; the container's seccomp profile may forbid it: --security-opt seccomp=unconfined"


def user_allow_other(file: str = FUSE_CONF) -> bool:
    """Whether fuse.conf(5) allows users the mount option allow_other."""
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            return any(line.strip() == "user_allow_other" for line in lines)
    except OSError:
        return False


def mount_options(settings: Settings, before: Collection[str] | None = None) -> set[str]:
    """The options of fuse(4) and mount(8) for a mount with *settings*.

    *before* are those of the mount as it is, if the library isn't there and can't be asked.
    """
    given = {option for text in settings.options for option in text.split(",") if option}
    options = {"ro", "nosuid", "nodev", "noatime", "default_permissions", f"subtype={SUBTYPE}"}
    if not any(option.startswith("fsname=") for option in given):
        options.add(f"fsname={SUBTYPE}")
    if settings.allow_other:
        options.add("allow_other")
    # The mount is noexec if the library is, unless `exec` is given.
    if "exec" not in given and (
        os.statvfs(settings.library).f_flag & os.ST_NOEXEC if before is None else "noexec" in before
    ):
        options.add("noexec")
    return options | given


def absolute(mountpoint: str) -> str:
    """The absolute path of *mountpoint* with the links above it resolved, as in mountinfo."""
    # Not realpath of the whole, which accesses the mount: that may be dead.
    parent, name = os.path.split(os.path.abspath(mountpoint))
    return os.path.join(os.path.realpath(parent), name)


def resolved(mountpoint: str) -> str:
    """The absolute path of *mountpoint* with all links resolved; nothing mounted there is touched.

    A mount whose daemon is being restarted doesn't answer, not even :func:`os.lstat`.
    """
    path = absolute(mountpoint)
    for _ in range(_LINKS):
        if mounts.mounted_at(path) is not None or not os.path.islink(path):
            break
        path = absolute(os.path.join(os.path.dirname(path), os.readlink(path)))
    return path


def zipfs_mount(mountpoint: str) -> mounts.Mount:
    """The zipfs mounted on *mountpoint*. Raises :exc:`MountpointError` if there is none."""
    mount = mounts.mounted_at(absolute(mountpoint))
    if mount is None or mount.kind != KIND:
        raise MountpointError(f"no zipfs is mounted on {mountpoint}")
    return mount


def prepare(mountpoint: str, library: str, index: str) -> str:
    """Check that *library* can be mounted on *mountpoint*; returns its absolute path.

    *index* is the path of its index. A dead mount of zipfs there is unmounted. Raises
    :exc:`MountpointError` and :exc:`IndexFileError`.
    """
    path = resolved(mountpoint)
    mount = mounts.mounted_at(path)
    # An autofs, of systemd.automount(5), is there to be mounted over.
    if mount and mount.kind != "autofs":
        if mount.kind != KIND and mount.bound and containers.in_container():
            raise MountpointError(bound_itself(path))
        if mount.kind != KIND or not mounts.is_dead(path):
            raise MountpointError(
                f"something is mounted on {mountpoint} already; unmount it first:"
                f" zipfs unmount {mountpoint}"
            )
        unmount(path)
    try:
        if os.listdir(path):
            raise MountpointError(
                f"the mount point {mountpoint} isn't empty; choose an empty folder"
            )
    except FileNotFoundError:
        raise MountpointError(
            f"there is no folder {mountpoint} to mount on; make it: mkdir -p {mountpoint}"
        ) from None
    except NotADirectoryError:
        raise MountpointError(f"the mount point {mountpoint} isn't a folder") from None
    except OSError as error:
        raise MountpointError(f"can't use the mount point {mountpoint}: {error.strerror}") from None
    library = os.path.realpath(library)
    # Otherwise the file system would access itself, and hang.
    if os.path.commonpath([path, library]) in (path, library):
        raise MountpointError(
            f"the mount point {mountpoint} is in the library, or the library is in it;"
            " choose a folder elsewhere"
        )
    check_index(index, path, links=True)
    if containers.in_container() and containers.reach(path, list(mounts.mounts())) == "kept in":
        # In a folder of the container's own it is meant so, for a web server beside it.
        above = os.path.dirname(path)
        log.warning(
            "the mount on %s will stay in this container, as the folder above isn't shared; bind"
            " it with -v %s:%s:rshared",
            path,
            above,
            above,
        )
    return path


def bound_itself(path: str) -> str:
    """The message for a mount point that is itself a volume of this container."""
    above = os.path.dirname(path)
    return (
        f"{path} is itself bound into this container, and a mount on it would stay in here; bind"
        f" the folder above instead: -v {above}:{above}:rshared"
    )


def unmount(mountpoint: str, *, lazy: bool = True) -> None:
    """Unmount; if *lazy*, even if it is in use. Raises :exc:`MountpointError`, :exc:`FuseError`."""
    helper = shutil.which("fusermount3")
    if helper:
        command = [helper, "-u", *(["-z"] if lazy else []), "--", mountpoint]
    elif os.geteuid() == 0:
        command = ["umount", *(["-l"] if lazy else []), "--", mountpoint]
    else:
        raise FuseError(
            f"fusermount3 isn't there, and without it only root can unmount: {_INSTALL}"
        )
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines()
        raise MountpointError(
            f"can't unmount {mountpoint}: {reason[-1] if reason else f'status {done.returncode}'}"
        )


def read_ahead_for(settings: Settings) -> int:
    """The kernel's read-ahead, in KiB, that the library needs: more if it is far .

    Takes up to a second, where it doesn't answer. To be called before there are busy threads.
    """
    far = settings.read_ahead and latency.is_far(os.fsdecode(settings.library))
    return settings.read_ahead * (FAR_READ_AHEAD if far else 1)


def tune(path: str, read_ahead: int) -> str | None:
    """Set the kernel's limits for the mount at *path*; returns the reason if one can't be set.

    *read_ahead* is in KiB; 0 keeps the kernel's default. Blocking: the daemon calls it in a
    worker thread.
    """
    failed = None
    if read_ahead and (why := set_read_ahead(path, read_ahead)):
        failed = f"can't set the kernel's read-ahead: {why}"
        log.debug("%s", failed)
    if why := set_max_background(path, MAX_BACKGROUND):
        failed = failed or f"can't set the kernel's limit on read-ahead requests: {why}"
        log.debug("%s", failed)
    return failed


def set_read_ahead(path: str, kib: int) -> str | None:
    """Set the kernel's read-ahead for the mount at *path*; returns the reason if it can't be set.

    It writes ``/sys/class/bdi/MAJOR:MINOR/read_ahead_kb``, as only root may.
    """
    mount = mounts.mounted_at(path)
    if mount is None:
        return "the mount isn't there"
    try:
        with open(f"/sys/class/bdi/{mount.device}/read_ahead_kb", "w", encoding="ascii") as file:
            file.write(str(kib))
    except OSError as error:
        return error.strerror or str(error)
    return None


def set_max_background(path: str, requests: int) -> str | None:
    """Set the kernel's limit on read-ahead requests at once; returns the reason if it can't be set.

    fuse(4): /sys/fs/fuse/connections/MINOR. The default of 12 is for one disk: a
    dozen reads of one that doesn't answer would hold up all others.
    """
    mount = mounts.mounted_at(path)
    if mount is None:
        return "the mount isn't there"
    folder = f"{CONNECTIONS}/{mount.device.partition(':')[2]}"
    limits = {"max_background": requests, "congestion_threshold": requests * 3 // 4}
    if not os.path.isdir(folder) and os.geteuid() == 0 and os.path.isdir(CONNECTIONS):
        return _set_in_private(folder, limits)
    try:
        for name, value in limits.items():
            with open(f"{folder}/{name}", "w", encoding="ascii") as file:
                file.write(str(value))
    except OSError as error:
        return error.strerror or str(error)
    return None


def _set_in_private(folder: str, limits: dict[str, int]) -> str | None:
    """Write *limits* if fusectl isn't mounted, as in most containers.

    A command mounts it in a mount namespace of its own, which ends with the command.
    """
    script = "; ".join(f"echo {value} > {folder}/{name}" for name, value in limits.items())
    mount = f"mount -t fusectl fusectl {CONNECTIONS}"
    try:
        done = subprocess.run(
            ["unshare", "--mount", "--", "sh", "-e", "-c", f"{mount}; {script}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        return error.strerror or str(error)
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    return None
