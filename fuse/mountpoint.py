"""Mount points: what the kernel says is mounted where, making a directory ready, and letting go of it.

Owns: /proc/self/mountinfo, fusermount3, the messages when something is in the way. Used by: mount, the app's `umount`.
Threading: any thread but the loop of a mount: these calls may ask the kernel about the mount itself.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat as stat_module
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from archivia_fs.errors import Busy, MountError

SUBTYPE = "archivia"
FSTYPE = f"fuse.{SUBTYPE}"
FUSE_DEVICE = Path("/dev/fuse")
FUSE_CONF = Path("/etc/fuse.conf")
MOUNTINFO = Path("/proc/self/mountinfo")

PROBE_SECONDS = 5.0  # a mount that answers statvfs(3) no sooner is one whose daemon hangs
DETACH_SECONDS = 30.0  # fusermount3
HOLDERS_MAX = 5  # processes named in a message


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of proc_pid_mountinfo(5)."""

    device: str  # "major:minor"
    path: Path
    fstype: str


def mounts() -> Sequence[Mount]:
    """All mounts of this process's namespace, oldest first."""
    found = []
    for line in MOUNTINFO.read_bytes().splitlines():
        left, _, right = line.partition(b" - ")
        fields = left.split()
        path = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), fields[4])
        found.append(Mount(fields[2].decode(), Path(os.fsdecode(path)), right.split()[0].decode()))
    return found


def mount_at(path: Path) -> Mount | None:
    """The topmost mount exactly at `path`, whether its daemon lives or not."""
    return next((mount for mount in reversed(mounts()) if mount.path == path), None)


def absolute(path: Path) -> Path:
    """The path as the kernel lists it. The last component is not touched: a dead mount there would not answer."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would touch it
    return Path(os.path.realpath(path.parent)) / path.name


# --- before mounting ---------------------------------------------------------------------------------------------------------


def check_host(*, allow_other: bool) -> None:
    """Raises MountError, with the way out, if this machine or user cannot mount."""
    try:
        os.close(os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise MountError(
            f"{FUSE_DEVICE} cannot be opened ({error.strerror}). Load the kernel module with `modprobe fuse`; in a "
            "container add `--device /dev/fuse --cap-add SYS_ADMIN`."
        ) from error
    if os.geteuid() == 0:
        return
    if shutil.which("fusermount3") is None:
        raise MountError("fusermount3 is missing; install it (Debian: `apt install fuse3`).")
    if allow_other and not _other_allowed():
        raise MountError(f"--allow-other needs the line `user_allow_other` in {FUSE_CONF}; add it, or mount as root.")


def _other_allowed() -> bool:
    try:
        lines = FUSE_CONF.read_text().splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def prepare(path: Path) -> bool:
    """Make `path` (absolute) an empty directory to mount on; a dead mount of ours there is taken away. Returns whether the
    directory was made here. Raises Busy for a live mount of ours, MountError for anything else in the way."""
    while (mount := mount_at(path)) is not None and not _alive(path):
        if mount.fstype != FSTYPE:
            raise MountError(f"A dead mount ({mount.fstype}) is at {path}; take it away with `umount -l {path}`.")
        detach(path, lazy=True)
    if mount is not None and mount.fstype == FSTYPE:
        raise Busy(f"An archive is already mounted at {path}; `archivia-fs umount {path}` ends that.")
    try:
        found = path.lstat()
    except FileNotFoundError:
        return _make(path)
    except OSError as error:
        raise MountError(f"{path} cannot be used as a mount point: {error.strerror}.") from error
    if not stat_module.S_ISDIR(found.st_mode):
        raise MountError(f"{path} is not a directory; name an empty one, or one that does not exist yet.")
    try:
        if any(path.iterdir()):
            raise MountError(f"{path} is not empty and mounting would hide what is in it; name an empty directory.")
    except OSError as error:
        raise MountError(f"{path} cannot be used as a mount point: {error.strerror}.") from error
    return False


def _make(path: Path) -> bool:
    try:
        path.mkdir(mode=0o755)
    except FileNotFoundError as error:
        raise MountError(
            f"{path.parent} does not exist; make it first, the mount point itself is made for you."
        ) from error
    except OSError as error:
        raise MountError(f"{path} cannot be made: {error.strerror}.") from error
    return True


def _alive(path: Path) -> bool:
    """Whether the mount answers. Raises MountError if it neither answers nor fails."""
    answers: list[bool] = []

    def probe() -> None:
        try:
            os.statvfs(path)  # stat(2) may be answered from the kernel's cache long after the daemon died
            answers.append(True)
        except OSError as error:
            answers.append(error.errno not in (errno.ENOTCONN, errno.ECONNABORTED))

    thread = threading.Thread(target=probe, daemon=True, name="mount-probe")
    thread.start()
    thread.join(PROBE_SECONDS)
    if not answers:
        raise MountError(f"The mount at {path} does not answer; end its daemon, then `umount -l {path}`.")
    return answers[0]


# --- after mounting ----------------------------------------------------------------------------------------------------------


def detach(path: Path, *, lazy: bool = False) -> None:
    """Unmount. `lazy` lets whoever has files open keep them until closed. Raises Busy (naming holders), MountError."""
    fusermount = shutil.which("fusermount3")
    command = [fusermount, "-u", *(["-z"] if lazy else [])] if fusermount else ["umount", *(["-l"] if lazy else [])]
    try:
        result = subprocess.run(
            [*command, "--", str(path)], capture_output=True, text=True, timeout=DETACH_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MountError(f"{path} could not be unmounted: {error}") from error
    if result.returncode == 0 or mount_at(path) is None:
        return
    message = result.stderr.strip()
    if "busy" in message.lower():
        users = ", ".join(holders(path)) or "some process"
        raise Busy(f"{path} is in use by {users}; close what is open there (or `cd` out of it) and try again.")
    raise MountError(f"{path} could not be unmounted: {message}")


def unmount(path: Path, *, timeout: float = DETACH_SECONDS) -> None:
    """For `archivia-fs umount DIR`: unmount an archive, dead or alive, and nothing else. Waits until it is gone. Uploads are
    finished before: close(2) does not return sooner, and a file still open makes this Busy. Raises Busy, MountError."""
    path = absolute(path)
    mount = mount_at(path)
    if mount is None:
        raise MountError(f"Nothing is mounted at {path}; `archivia-fs status` lists the mounts.")
    if mount.fstype != FSTYPE:
        raise MountError(f"What is mounted at {path} is not an archive but {mount.fstype}; use `umount`.")
    detach(path)
    end = time.monotonic() + timeout
    while (rest := mount_at(path)) is not None and rest.device == mount.device:
        if time.monotonic() > end:
            raise Busy(f"{path} is still mounted after {timeout:.0f} s; try again.")
        time.sleep(0.02)


def holders(path: Path) -> Sequence[str]:
    """Up to five processes that use something under `path`, as "name (pid)". Only readlink(2): nothing asks the mount."""
    found = []
    for process in sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        if any(target == str(path) or target.startswith(f"{path}/") for target in _uses(Path(f"/proc/{process}"))):
            try:
                name = Path(f"/proc/{process}/comm").read_text().strip()
            except OSError:
                continue
            found.append(f"{name} ({process})")
            if len(found) == HOLDERS_MAX:
                break
    return found


def _uses(process: Path) -> Iterator[str]:
    links = [process / "cwd", process / "root", process / "exe"]
    with suppress(OSError):  # another user's
        links.extend((process / "fd").iterdir())
    for link in links:
        try:
            yield os.readlink(link)  # noqa: PTH115 - a str is what we compare
        except OSError:
            continue
