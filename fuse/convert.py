"""Between the kernel's words and the core's: names, flags, attributes, errors, the mount's root.

Owns: every translation of the FUSE door. Used by: operations, invalidate, mount. Threading: pure functions and values.
"""

from __future__ import annotations

import errno
import os
import unicodedata
from collections.abc import Sequence

import pyfuse3

from archivia_fs.errors import FsError, InvalidArgument, NameTooLong, NotUtf8
from archivia_fs.types import (
    FIRST_VIEW_INODE,
    NAME_MAX,
    ROOT_INODE,
    Caller,
    InodeNo,
    OpenFlags,
    RenameFlag,
    SetAttr,
    Stat,
    StatFs,
)

LONG_TIMEOUT = 3600.0  # seconds the kernel may keep what is pushed to it when it changes
SHORT_TIMEOUT = 1.0  # seconds for what nobody pushes (views) or what a race may have made stale
BLOCK_SIZE = 128 * 1024  # bytes, st_blksize: what stdio and cp use as a buffer, so small writers send larger requests
STATFS_UNIT = 1024 * 1024  # bytes per block in statvfs(3)


def errno_of(error: BaseException) -> int:
    """The errno a caller of the kernel gets; EIO for what is not an error of ours."""
    return error.errno if isinstance(error, FsError) else errno.EIO


def decode_name(name: bytes) -> str:
    """Raises NameTooLong over 255 bytes (the kernel lets 1,024 through), NotUtf8."""
    if len(name) > NAME_MAX:
        raise NameTooLong(f"A name has at most {NAME_MAX} bytes of UTF-8; this one has {len(name)}.")
    return _decode(name)


def decode_target(target: bytes) -> str:
    """The target of a symbolic link. Raises NotUtf8."""
    return _decode(target)


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise NotUtf8("Names are UTF-8; this one is not. Rename it (convmv does whole folders).") from error


def spellings(name: str) -> Sequence[str]:
    """The names under which the kernel may long remember this one: the core finds a file under every equivalent spelling."""
    if name.isascii():
        return (name,)
    return tuple({name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)})


def entry_timeout(name: str, ino: InodeNo) -> float:
    """Seconds the kernel may keep a name. Changes of `name`, its NFC and its NFD spelling are pushed; other spellings are not."""
    if ino >= FIRST_VIEW_INODE:
        return SHORT_TIMEOUT
    if name.isascii() or unicodedata.is_normalized("NFC", name) or unicodedata.is_normalized("NFD", name):
        return LONG_TIMEOUT
    return SHORT_TIMEOUT


def open_flags(flags: int) -> OpenFlags:
    """open(2) flags as the core's. O_CREAT and O_EXCL are the caller's business."""
    access = flags & os.O_ACCMODE
    result = OpenFlags(0)
    if access in (os.O_RDONLY, os.O_RDWR):
        result |= OpenFlags.READ
    if access in (os.O_WRONLY, os.O_RDWR):
        result |= OpenFlags.WRITE
    if flags & os.O_TRUNC:
        result |= OpenFlags.TRUNCATE
    if flags & os.O_APPEND:
        result |= OpenFlags.APPEND
    return result


def rename_flags(flags: int) -> RenameFlag:
    """renameat2(2) flags. Raises InvalidArgument for those we do not know (RENAME_WHITEOUT)."""
    if flags & ~int(RenameFlag.NOREPLACE | RenameFlag.EXCHANGE):  # an int: ~ of a Flag leaves unknown bits out
        raise InvalidArgument("Of renameat2's flags, RENAME_NOREPLACE and RENAME_EXCHANGE are supported.")
    return RenameFlag(flags)


def set_attr(attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields) -> SetAttr | None:
    """What setattr changes besides the size; None for nothing."""
    change = SetAttr(
        mode=attr.st_mode & 0o7777 if fields.update_mode else None,
        uid=attr.st_uid if fields.update_uid else None,
        gid=attr.st_gid if fields.update_gid else None,
        atime_ns=attr.st_atime_ns if fields.update_atime else None,
        mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
    )
    return None if change == SetAttr() else change


def statvfs(stat: StatFs) -> pyfuse3.StatvfsData:
    """statvfs(3) in blocks of 1 MiB."""
    data = pyfuse3.StatvfsData()
    data.f_bsize = data.f_frsize = STATFS_UNIT
    data.f_blocks = stat.total_bytes // STATFS_UNIT
    data.f_bfree = data.f_bavail = stat.free_bytes // STATFS_UNIT
    data.f_files = stat.total_inodes
    data.f_ffree = data.f_favail = stat.free_inodes
    data.f_namemax = NAME_MAX
    return data


class RootMap:
    """The kernel calls the root of a mount 1, whatever directory of the drive it is. Both ways, and attributes outward."""

    def __init__(self, root: InodeNo = ROOT_INODE) -> None:
        self.root = root

    def inward(self, inode: int) -> InodeNo:
        """The core's number of a kernel inode."""
        return self.root if inode == pyfuse3.ROOT_INODE else InodeNo(inode)

    def outward(self, ino: InodeNo) -> pyfuse3.InodeT:
        """The kernel's number of a core inode."""
        return pyfuse3.ROOT_INODE if ino == self.root else pyfuse3.InodeT(ino)

    def attributes(self, stat: Stat, *, entry: float = 0.0, attr: float = LONG_TIMEOUT) -> pyfuse3.EntryAttributes:
        """A stat for the kernel, to be kept for `entry` (its name) and `attr` (all else) seconds."""
        result = pyfuse3.EntryAttributes()
        result.st_ino = self.outward(stat.ino)
        result.entry_timeout = entry
        result.attr_timeout = SHORT_TIMEOUT if stat.ino >= FIRST_VIEW_INODE else attr
        result.st_mode = pyfuse3.ModeT(stat.mode)
        result.st_nlink = stat.nlink
        result.st_uid = stat.uid
        result.st_gid = stat.gid
        result.st_rdev = stat.rdev
        result.st_size = stat.size
        result.st_blksize = BLOCK_SIZE
        result.st_blocks = (stat.size + 511) // 512
        result.st_atime_ns = stat.atime_ns
        result.st_mtime_ns = stat.mtime_ns
        result.st_ctime_ns = stat.ctime_ns
        return result


def absent() -> pyfuse3.EntryAttributes:
    """A name that is not there; the kernel may remember so for a moment, and is told when it appears."""
    result = pyfuse3.EntryAttributes()
    result.st_ino = pyfuse3.InodeT(0)
    result.entry_timeout = SHORT_TIMEOUT
    return result


def caller_of(user: str, ctx: pyfuse3.RequestContext) -> Caller:
    """The archive's user of this mount, with the POSIX owner of the calling process."""
    return Caller(user, ctx.uid, ctx.gid)
