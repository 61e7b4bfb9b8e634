"""A real mount over the toy: what the kernel sees of the door itself. Data and POSIX semantics have the functional suite."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from archivia_fs import errors
from fuse import mount as fuse_mount
from fuse import mountpoint
from tests.fuse.conftest import eventually, mounted
from tests.fuse.toy import SELF, ToyVfs


def test_a_file_goes_in_and_out(vfs: ToyVfs, mount: Path) -> None:
    (mount / "d").mkdir()
    path = mount / "d" / "page-001.dng"
    path.write_bytes(b"raw" * 100_000)
    assert vfs.data[vfs.resolve(SELF, "/d/page-001.dng").ino] == b"raw" * 100_000
    assert path.read_bytes() == b"raw" * 100_000
    path.rename(mount / "moved.dng")
    assert list((mount / "d").iterdir()) == []
    os.truncate(mount / "moved.dng", 3)
    assert (mount / "moved.dng").read_bytes() == b"raw"
    os.utime(mount / "moved.dng", ns=(1, 1_234_567_890_123_456_789))
    assert (mount / "moved.dng").stat().st_mtime_ns == 1_234_567_890_123_456_789
    (mount / "moved.dng").unlink()
    (mount / "d").rmdir()
    assert list(mount.iterdir()) == []


def test_links_and_special_files(vfs: ToyVfs, mount: Path) -> None:
    (mount / "a").write_bytes(b"1")
    (mount / "hard").hardlink_to(mount / "a")
    (mount / "soft").symlink_to("a")
    os.mkfifo(mount / "fifo", 0o600)
    assert (mount / "hard").stat().st_nlink == 2
    assert (mount / "hard").stat().st_ino == (mount / "a").stat().st_ino
    assert (mount / "soft").readlink() == Path("a")
    assert (mount / "soft").read_bytes() == b"1"
    assert stat.S_ISFIFO((mount / "fifo").stat().st_mode)


def test_a_long_listing_is_complete_and_each_inode_is_remembered_once(vfs: ToyVfs, tmp_path: Path) -> None:
    names = [f"page-{number:04}.dng" for number in range(1500)]
    for name in names:
        vfs.add(f"/{name}", b"")
    with mounted(vfs, tmp_path / "mnt") as mount:
        assert sorted(path.name for path in mount.path.iterdir()) == names
        assert vfs.calls["remember"] == len(names)  # short of memory, the kernel may have forgotten some by now
    assert vfs.remembered == set()


def test_an_entry_that_goes_while_listing_is_not_kept_by_the_kernel(vfs: ToyVfs, mount: Path) -> None:
    """What is listed from the snapshot after a change must not live on as a name for an hour."""
    for number in range(1000):
        vfs.add(f"/f{number:04}", b"")
    with os.scandir(mount) as entries:
        next(entries)
        vfs.unlink(SELF, vfs.resolve(SELF, "/").ino, "f0999")
        eventually(lambda: not (mount / "f0999").exists())
        for _ in entries:
            pass
    assert not (mount / "f0999").exists()


def test_errors_reach_the_caller_and_the_mount_lives_on(vfs: ToyVfs, mount: Path) -> None:
    vfs.add("/a", b"1")
    with pytest.raises(OSError) as caught:
        os.mkdir(os.fsencode(mount) + b"/\xff")  # noqa: PTH102
    assert caught.value.errno == errno.EILSEQ
    with pytest.raises(OSError) as caught:
        (mount / ("x" * 256)).mkdir()
    assert caught.value.errno == errno.ENAMETOOLONG
    vfs.fail_getattr = ZeroDivisionError("a bug")
    with pytest.raises(OSError) as caught:
        (mount / "a").read_bytes()
    assert caught.value.errno == errno.EIO
    vfs.fail_getattr = None
    assert (mount / "a").read_bytes() == b"1"


def test_close_returns_the_error_of_the_upload_and_the_old_bytes_are_back(vfs: ToyVfs, mount: Path) -> None:
    ino = vfs.add("/a", b"old")
    vfs.fail_flush = errors.StoreUnavailable("The store does not answer.")
    descriptor = os.open(mount / "a", os.O_WRONLY | os.O_TRUNC)
    os.write(descriptor, b"new content")
    with pytest.raises(OSError) as caught:
        os.fsync(descriptor)
    assert caught.value.errno == errno.EIO
    with pytest.raises(OSError) as caught:
        os.close(descriptor)
    assert caught.value.errno == errno.EIO
    eventually(lambda: ino not in vfs.dirty)
    vfs.fail_flush = None
    eventually(lambda: (mount / "a").read_bytes() == b"old")


def test_a_failed_write_has_its_errno(vfs: ToyVfs, mount: Path) -> None:
    vfs.fail_write = errors.NoSpace("The spill area is full.")
    with pytest.raises(OSError) as caught, (mount / "a").open("wb", buffering=0) as file:
        file.write(b"x")
    assert caught.value.errno == errno.ENOSPC


MAPPING = """
import mmap, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR)
mapping = mmap.mmap(descriptor, 8192)
os.close(descriptor)
mapping[4096:4099] = b"new"
"""


def test_bytes_written_through_a_mapping_after_close_are_committed(vfs: ToyVfs, mount: Path) -> None:
    """In another process: a page fault holds the GIL, which the mount's thread needs to answer it.
    [O6] Bytes written through mmap after `close()` are committed when the last reference goes; an error then is only in the log.
    """
    ino = vfs.add("/a", b"x" * 8192)
    subprocess.run([sys.executable, "-c", MAPPING, str(mount / "a")], check=True, timeout=20)
    eventually(lambda: vfs.data[ino][4096:4099] == b"new")


def test_append_and_exclusive_create(vfs: ToyVfs, mount: Path) -> None:
    (mount / "a").write_bytes(b"1")
    with (mount / "a").open("ab") as file:
        file.write(b"2")
    assert (mount / "a").read_bytes() == b"12"
    with pytest.raises(FileExistsError):
        (mount / "a").open("xb")


def test_the_umask_and_the_caller_own_what_is_made(vfs: ToyVfs, mount: Path) -> None:
    (mount / "d").mkdir(mode=0o777)
    old = os.umask(0o027)
    try:
        os.close(os.open(mount / "f", os.O_CREAT | os.O_WRONLY, 0o666))
    finally:
        os.umask(old)
    assert (mount / "f").stat().st_mode & 0o777 == 0o640
    assert (mount / "f").stat().st_uid == os.getuid()


def test_listing_goes_on_while_the_store_hangs(vfs: ToyVfs, mount: Path) -> None:
    for number in range(40):  # more than there are threads for data
        vfs.add(f"/f{number}", b"x")
    with ThreadPoolExecutor(40) as readers, vfs.hanging_store():
        reads = [readers.submit((mount / f"f{number}").read_bytes) for number in range(40)]
        eventually(lambda: vfs.calls["open"] == 40)
        start = time.monotonic()
        assert len(list(mount.iterdir())) == 40
        (mount / "new").mkdir()
        (mount / "f0").chmod(0o600)
        assert time.monotonic() - start < 1.0
        assert not any(read.done() for read in reads)
        assert vfs.slow_data is not None
        vfs.slow_data.set()
        assert [read.result(10) for read in reads] == [b"x"] * 40


def test_pages_are_kept_between_opens_of_an_unchanged_revision(vfs: ToyVfs, mount: Path) -> None:
    ino = vfs.add("/a", b"x" * 50_000)
    for _ in range(5):
        assert (mount / "a").read_bytes() == b"x" * 50_000
    cold = vfs.calls["pread"]
    for _ in range(5):
        (mount / "a").read_bytes()
    assert vfs.calls["pread"] == cold
    vfs.commit(ino, b"y" * 50_000)
    assert (mount / "a").read_bytes() == b"y" * 50_000


def test_names_and_attributes_are_kept_by_the_kernel(vfs: ToyVfs, mount: Path) -> None:
    (mount / "a").touch()
    (mount / "a").stat()
    time.sleep(1.1)  # the first attributes of an inode are good for a second
    (mount / "a").stat()
    before = vfs.calls.copy()
    for _ in range(100):
        (mount / "a").stat()
    assert vfs.calls == before


def test_read_only(vfs: ToyVfs, tmp_path: Path) -> None:
    vfs.add("/a", b"1")
    with mounted(vfs, tmp_path / "ro", read_only=True) as mount:
        assert (mount.path / "a").read_bytes() == b"1"
        with pytest.raises(OSError) as caught:
            (mount.path / "b").touch()
        assert caught.value.errno == errno.EROFS


def test_subtree(vfs: ToyVfs, tmp_path: Path) -> None:
    vfs.add("/outside", b"")
    top = vfs.add("/box")
    vfs.add("/box/inner")
    with mounted(vfs, tmp_path / "sub", subtree="/box") as mount:
        assert [path.name for path in mount.path.iterdir()] == ["inner"]
        (mount.path / "file").write_bytes(b"1")
        (mount.path / "file").rename(mount.path / "inner" / "file")
        assert vfs.resolve(SELF, "/box/inner/file").size == 1
        assert mount.path.stat().st_mode == vfs.stats[top].mode
        vfs.unlink(SELF, vfs.resolve(SELF, "/box/inner").ino, "file")
        eventually(lambda: not (mount.path / "inner" / "file").exists())
        vfs.add("/box/late", b"2")
        eventually(lambda: (mount.path / "late").exists())


@pytest.mark.parametrize("subtree", ["/nothing", "/file"])
def test_a_subtree_that_is_no_folder_is_refused(vfs: ToyVfs, tmp_path: Path, subtree: str) -> None:
    vfs.add("/file", b"")
    with pytest.raises(errors.FsError), mounted(vfs, tmp_path / "sub", subtree=subtree):
        pass
    assert not (tmp_path / "sub").exists()


def test_xattrs_are_off_unless_asked_for(vfs: ToyVfs, mount: Path) -> None:
    """[R2] Extended attributes on a mount are ENOSYS unless it is mounted with `--xattr`."""
    (mount / "a").touch()
    with pytest.raises(OSError) as caught:
        os.setxattr(mount / "a", "user.title", b"x")
    assert caught.value.errno == errno.EOPNOTSUPP  # what the kernel makes of ENOSYS


ACL = struct.pack("<I" + "HHI" * 3, 2, *(1, 6, 0xFFFFFFFF), *(4, 4, 0xFFFFFFFF), *(0x20, 4, 0xFFFFFFFF))  # 0644


def test_xattrs(vfs: ToyVfs, tmp_path: Path) -> None:
    with mounted(vfs, tmp_path / "mnt", xattr=True) as mount:
        path = mount.path / "a"
        path.touch()
        ino = vfs.resolve(SELF, "/a").ino
        os.setxattr(path, "user.dc.title", "Blatt ä".encode(), os.XATTR_CREATE)
        vfs.xattrs[ino]["{http://purl.org/dc/elements/1.1/}creator"] = b"only for WebDAV"
        assert vfs.xattrs[ino]["user.dc.title"] == "Blatt ä".encode()
        assert os.getxattr(path, "user.dc.title") == "Blatt ä".encode()
        assert os.listxattr(path) == ["user.dc.title"]
        with pytest.raises(FileExistsError):
            os.setxattr(path, "user.dc.title", b"", os.XATTR_CREATE)
        os.removexattr(path, "user.dc.title")
        for missing in (lambda: os.removexattr(path, "user.dc.title"), lambda: os.getxattr(path, "user.dc.title")):
            with pytest.raises(OSError) as caught:
                missing()
            assert caught.value.errno == errno.ENODATA
        with pytest.raises(OSError) as caught:
            os.setxattr(path, "system.posix_acl_access", ACL)
        assert caught.value.errno == errno.EOPNOTSUPP


def test_rename_flags(vfs: ToyVfs, mount: Path) -> None:
    renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    (mount / "a").write_bytes(b"a")
    (mount / "b").write_bytes(b"b")
    names = (-100, os.fsencode(mount / "a"), -100, os.fsencode(mount / "b"))
    assert renameat2(*names, 1) == -1
    assert ctypes.get_errno() == errno.EEXIST
    assert renameat2(*names, 2) == 0
    assert ((mount / "a").read_bytes(), (mount / "b").read_bytes()) == (b"b", b"a")
    assert renameat2(*names, 4) == -1  # WHITEOUT
    assert ctypes.get_errno() == errno.EINVAL


def test_df_is_sane(vfs: ToyVfs, mount: Path) -> None:
    info = os.statvfs(mount)
    assert info.f_blocks * info.f_frsize == 1 << 40
    assert info.f_namemax == 255


def test_the_mount_is_tuned_where_we_may(vfs: ToyVfs, mount: Path) -> None:
    device = mountpoint.mount_at(mount)
    assert device is not None
    setting = Path(f"/sys/class/bdi/{device.device}/read_ahead_kb")
    if not os.access(setting, os.W_OK):
        pytest.skip("only root may set read_ahead_kb")
    eventually(lambda: int(setting.read_text()) == fuse_mount.READ_AHEAD_KIB)
