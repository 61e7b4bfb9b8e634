"""The tables between the kernel's words and the core's."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata

import pyfuse3
import pytest

from archivia_fs import errors
from archivia_fs.types import FIRST_VIEW_INODE, InodeNo, OpenFlags, Stat, StatFs
from fuse import convert
from fuse.bridge import handler
from fuse.operations import Operations

FILE = Stat(InodeNo(20), stat.S_IFREG | 0o640, 2, 3, 4, 0, 513, -1_500_000_000, 10**18 + 7, 5, 6)


def test_every_error_has_the_errno_of_its_class() -> None:
    assert convert.errno_of(errors.NotFound("x")) == errno.ENOENT
    assert convert.errno_of(errors.StoreUnavailable("x")) == errno.EIO
    assert convert.errno_of(errors.CrossDevice("x")) == errno.EXDEV
    assert convert.errno_of(KeyError("x")) == errno.EIO


def test_names() -> None:
    assert convert.decode_name("Blatt-ä.dng".encode()) == "Blatt-ä.dng"
    assert convert.decode_name(b"a" * 255) == "a" * 255
    with pytest.raises(errors.NameTooLong):
        convert.decode_name("ä".encode() * 128)
    with pytest.raises(errors.NotUtf8):
        convert.decode_name(b"\xff.dng")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (os.O_RDONLY, OpenFlags.READ),
        (os.O_WRONLY | os.O_CREAT | os.O_EXCL, OpenFlags.WRITE),
        (os.O_RDWR | os.O_TRUNC, OpenFlags.READ | OpenFlags.WRITE | OpenFlags.TRUNCATE),
        (os.O_WRONLY | os.O_APPEND, OpenFlags.WRITE | OpenFlags.APPEND),
    ],
)
def test_open_flags(flags: int, expected: OpenFlags) -> None:
    assert convert.open_flags(flags) == expected


def test_attributes_keep_nanoseconds_before_and_after_1970() -> None:
    attributes = convert.RootMap().attributes(FILE, entry=5.0)
    assert (attributes.st_atime_ns, attributes.st_mtime_ns) == (FILE.atime_ns, FILE.mtime_ns)
    assert (attributes.st_size, attributes.st_blocks, attributes.st_nlink) == (513, 2, 2)
    assert (attributes.entry_timeout, attributes.attr_timeout) == (5.0, convert.LONG_TIMEOUT)


def test_the_root_of_a_subtree_is_one_for_the_kernel_both_ways() -> None:
    root = convert.RootMap(InodeNo(77))
    assert root.inward(1) == 77
    assert root.outward(InodeNo(77)) == 1
    assert root.inward(20) == root.outward(InodeNo(20)) == 20


def test_views_are_kept_for_a_moment_only_because_nobody_pushes_their_changes() -> None:
    view = InodeNo(FIRST_VIEW_INODE + 1)
    assert convert.entry_timeout("a.jpg", view) == convert.SHORT_TIMEOUT
    assert convert.entry_timeout("a.jpg", InodeNo(20)) == convert.LONG_TIMEOUT


def test_spellings_that_are_pushed_are_those_kept_for_long() -> None:
    nfc, nfd = "ä̇b", unicodedata.normalize("NFD", "ä̇b")
    mixed = "ä" + unicodedata.normalize("NFD", "ä")
    assert set(convert.spellings(nfc)) >= {unicodedata.normalize("NFC", nfc), nfd}
    assert convert.entry_timeout(nfd, InodeNo(20)) == convert.LONG_TIMEOUT
    assert convert.entry_timeout(mixed, InodeNo(20)) == convert.SHORT_TIMEOUT
    assert convert.spellings("plain") == ("plain",)


def test_setattr_changes_what_the_kernel_names_and_nothing_else() -> None:
    attributes, fields = pyfuse3.EntryAttributes(), pyfuse3.SetattrFields()
    assert convert.set_attr(attributes, fields) is None


def test_statvfs_is_in_blocks_of_a_mebibyte() -> None:
    data = convert.statvfs(StatFs(1 << 50, 1 << 49, 10, 9))
    assert data.f_blocks * data.f_frsize == 1 << 50
    assert data.f_bavail * data.f_frsize == 1 << 49
    assert data.f_namemax == 255


def test_every_handler_of_ours_is_guarded() -> None:
    """Any exception but FUSEError would end the mount; `forget` has no reply and guards itself."""
    ours = {name for name in vars(Operations) if not name.startswith("_") and callable(getattr(Operations, name))}
    theirs = {name for name in vars(pyfuse3.Operations) if not name.startswith("_")}
    unguarded = {name for name in ours & theirs if not hasattr(getattr(Operations, name), "is_handler")}
    assert unguarded == {"forget", "init"}  # init sets an event
    assert {"lookup", "getattr", "read", "write", "flush", "release", "readdir", "statfs"} <= ours


@pytest.mark.parametrize(
    ("error", "expected"),
    [(errors.NotEmpty("x"), errno.ENOTEMPTY), (ZeroDivisionError(), errno.EIO), (pyfuse3.FUSEError(7), 7)],
)
def test_the_guard_turns_every_exception_into_an_errno(error: Exception, expected: int) -> None:
    @handler
    async def failing() -> None:
        raise error

    with pytest.raises(pyfuse3.FUSEError) as caught:
        failing().send(None)
    assert caught.value.errno == expected
