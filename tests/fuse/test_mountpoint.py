"""What may be in the way of a mount, and what is said about it; ends that were not clean."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from archivia_fs.errors import Busy, MountError
from fuse import mountpoint
from fuse.mount import FuseMount, MountOptions
from tests.fuse.conftest import eventually, mounted
from tests.fuse.toy import ToyVfs

if TYPE_CHECKING:
    from archivia_fs.vfs.vfs import Vfs

DAEMON = """
import sys
from pathlib import Path
from fuse.mount import FuseMount, MountOptions
from tests.fuse.toy import ToyVfs
vfs = ToyVfs()
vfs.add("/from-the-daemon", b"1")
FuseMount(vfs, Path(sys.argv[1]), MountOptions(user="admin")).run()
print("ended", flush=True)
"""


def start_daemon(path: Path) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    child = subprocess.Popen([sys.executable, "-c", DAEMON, str(path)], cwd=root, stdout=subprocess.PIPE, text=True)
    eventually(lambda: mountpoint.mount_at(path) is not None and (path / "from-the-daemon").exists(), 20)
    return child


def test_a_dead_mount_is_recovered(vfs: ToyVfs, tmp_path: Path) -> None:
    path = tmp_path / "mnt"
    child = start_daemon(path)
    try:
        child.send_signal(signal.SIGKILL)
        child.wait(10)
        with pytest.raises(OSError, match="not connected"):
            list(path.iterdir())
        vfs.add("/alive", b"1")
        with mounted(vfs, path):
            assert (path / "alive").read_bytes() == b"1"
        assert mountpoint.mount_at(path) is None
    finally:
        child.kill()
        child.wait(10)
        subprocess.run(["fusermount3", "-u", "-z", "-q", str(path)], check=False)


def test_umount_ends_the_daemon_and_takes_the_directory_it_made(tmp_path: Path) -> None:
    path = tmp_path / "mnt"
    child = start_daemon(path)
    try:
        with (path / "f").open("wb"), pytest.raises(Busy, match=f"\\({os.getpid()}\\)"):
            mountpoint.unmount(path)
        mountpoint.unmount(path)
        assert child.wait(10) == 0
        assert child.stdout is not None
        assert child.stdout.read() == "ended\n"
        assert not path.exists()
    finally:
        child.kill()
        child.wait(10)
        subprocess.run(["fusermount3", "-u", "-z", "-q", str(path)], check=False)


def test_a_live_mount_is_busy_for_a_second_one(vfs: ToyVfs, tmp_path: Path) -> None:
    path = tmp_path / "mnt"
    child = start_daemon(path)
    try:
        with pytest.raises(Busy, match="already mounted"), mounted(vfs, path):
            pass
        assert (path / "from-the-daemon").exists()
    finally:
        subprocess.run(["fusermount3", "-u", "-z", str(path)], check=False)
        assert child.wait(10) == 0


def test_one_mount_per_process(vfs: ToyVfs, mount: Path, tmp_path: Path) -> None:
    with pytest.raises(Busy, match="This process has a mount already"), mounted(ToyVfs(), tmp_path / "second"):
        pass
    assert mount.is_dir()


def test_a_directory_that_was_there_stays(vfs: ToyVfs, tmp_path: Path) -> None:
    path = tmp_path / "mnt"
    path.mkdir()
    with mounted(vfs, path):
        pass
    assert path.is_dir()
    with mounted(vfs, path):  # and again
        assert mountpoint.mount_at(path) is not None


def refused(vfs: ToyVfs, path: Path, **options: bool) -> str:
    with pytest.raises(MountError) as caught:
        FuseMount(cast("Vfs", vfs), path, MountOptions(user="admin", **options)).mount()
    return str(caught.value)


def test_what_is_in_the_way_is_named(vfs: ToyVfs, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").touch()
    (tmp_path / "file").touch()
    assert "not empty" in refused(vfs, full)
    assert "not a directory" in refused(vfs, tmp_path / "file")
    assert "does not exist; make it first" in refused(vfs, tmp_path / "no" / "where")
    assert (full / "mine.txt").exists()
    assert not (tmp_path / "no").exists()
    with mounted(vfs, tmp_path / "mnt"):  # a refusal leaves nothing behind that is in the way of the next
        pass


def test_without_the_fuse_device_the_way_out_is_named(
    vfs: ToyVfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mountpoint, "FUSE_DEVICE", tmp_path / "no-device")
    message = refused(vfs, tmp_path / "mnt")
    assert "modprobe fuse" in message
    assert "--device /dev/fuse" in message
    assert not (tmp_path / "mnt").exists()


def test_allow_other_needs_permission_unless_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = tmp_path / "fuse.conf"
    conf.write_text("# user_allow_other\n")
    monkeypatch.setattr(mountpoint, "FUSE_CONF", conf)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MountError, match="user_allow_other"):
        mountpoint.check_host(allow_other=True)
    mountpoint.check_host(allow_other=False)
    conf.write_text("# user_allow_other\nuser_allow_other\n")
    mountpoint.check_host(allow_other=True)


def test_only_archives_are_unmounted(tmp_path: Path) -> None:
    with pytest.raises(MountError, match="Nothing is mounted"):
        mountpoint.unmount(tmp_path)
    with pytest.raises(MountError, match="not an archive but proc"):
        mountpoint.unmount(Path("/proc"))


def test_a_busy_mount_names_its_holder_and_goes_when_forced(vfs: ToyVfs, tmp_path: Path) -> None:
    ino = vfs.add("/a", b"old")
    with mounted(vfs, tmp_path / "mnt") as mount, writer(mount.path / "a") as child:
        with pytest.raises(Busy, match=f"\\({child.pid}\\)"):
            mount.unmount()
        assert (mount.path / "a").exists()
        mount.unmount(force=True, timeout=10)
        assert mount.finished.is_set()
        assert mountpoint.mount_at(mount.path) is None
    assert vfs.data[ino] == b"old"  # nobody closed it
    assert vfs.remembered == set()
    assert vfs.listeners == []


@contextmanager
def writer(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has written to a file and keeps it open."""
    script = (
        "import sys; f = open(sys.argv[1], 'wb', buffering=0); f.write(b'new'); print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            yield child
        finally:
            child.kill()


def test_unmount_waits_for_what_is_being_committed(vfs: ToyVfs, tmp_path: Path) -> None:
    """RELEASE has no waiter, but the mount does not end before it."""
    with mounted(vfs, tmp_path / "mnt") as mount:
        (mount.path / "a").write_bytes(b"1" * 1000)
        mount.unmount(timeout=10)
        assert vfs.dirty == {}
        assert mount.finished.is_set()
        mount.unmount()  # again: nothing to do


def test_a_mount_that_never_ran_can_be_taken_back(vfs: ToyVfs, tmp_path: Path) -> None:
    mount = FuseMount(cast("Vfs", vfs), tmp_path / "mnt", MountOptions(user="admin"))
    mount.mount()
    assert mountpoint.mount_at(mount.path) is not None
    mount.unmount()
    assert mountpoint.mount_at(mount.path) is None
    assert not mount.path.exists()


def test_repeated_mounts_leak_neither_threads_nor_descriptors(tmp_path: Path) -> None:
    with mounted(ToyVfs(), tmp_path / "mnt"):
        pass
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        with mounted(ToyVfs(), tmp_path / "mnt") as mount:
            (mount.path / "a").touch()
    time.sleep(0.05)
    assert len(os.listdir("/proc/self/fd")) <= descriptors  # noqa: PTH208
    assert threading.active_count() <= threads + 4  # trio keeps idle workers for ten seconds


def test_mountinfo_paths_with_blanks(vfs: ToyVfs, tmp_path: Path) -> None:
    with mounted(vfs, tmp_path / "my archive\tä") as mount:
        found = mountpoint.mount_at(mount.path)
        assert found is not None
        assert found.fstype == "fuse.archivia"
