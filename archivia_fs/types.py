"""Leaf values that every room shares: identities, stats, revisions, changes.

Owns: the words of the house as frozen dataclasses. Used by: everybody. Threading: all values are immutable.
Times are nanoseconds since the epoch (they may be negative), sizes are bytes.
"""

from __future__ import annotations

import enum
import stat as stat_module
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NewType

InodeNo = NewType("InodeNo", int)
RevisionId = NewType("RevisionId", str)
ObjectKey = NewType("ObjectKey", str)
UploadId = NewType("UploadId", str)  # the object store's id of one multipart upload

ROOT_INODE = InodeNo(1)  # "/": holds Documents and the views; FUSE_ROOT_ID in the kernel
DOCUMENTS_INODE = InodeNo(2)  # "/Documents": its children are the collections
FIRST_FREE_INODE = InodeNo(16)  # 3..15 are kept for the future
FIRST_VIEW_INODE = InodeNo(1 << 62)  # computed nodes of views; never in the catalog

NAME_MAX = 255  # bytes of UTF-8, as NAME_MAX in limits.h
PATH_MAX = 4096  # bytes; longest symlink target accepted, as PATH_MAX in limits.h
SIZE_MAX = 5 * 1024**4  # bytes (5 TiB): the largest S3 object, so the largest file


@dataclass(frozen=True, slots=True)
class Stat:
    """What getattr(2) tells of one inode, plus the revision its bytes come from.

    `mode` holds the file type bits (S_IFMT). `revision` is None for everything without bytes,
    and for a file of size 0. `symlink` is the target of a symbolic link.
    """

    ino: InodeNo
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    birth_ns: int
    revision: RevisionId | None = None
    symlink: str | None = None

    @property
    def is_dir(self) -> bool:
        return stat_module.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat_module.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat_module.S_ISLNK(self.mode)

    @property
    def etag(self) -> str:
        """Strong entity tag without quotes (RFC 9110 8.8.3): the same tag always means the same bytes."""
        return self.revision if self.revision is not None else f"empty-{self.ino}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A dentry with the stat of its inode: one row of readdirplus. `name` is spelled as it was created."""

    name: str
    stat: Stat


@dataclass(frozen=True, slots=True)
class SetAttr:
    """The fields of setattr(2) to change; None leaves a field alone. `mode` without S_IFMT bits (they are ignored).

    Size is not here: truncation makes a new revision and goes through `Vfs.truncate` or a file handle.
    """

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class CopySource:
    """Where the bytes of a copied part come from: an object, and the first of them in it."""

    key: ObjectKey
    offset: int


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart upload: S3 part number (1..10,000), size, ETag as the store gave it, CRC-32 of its bytes. `source`:
    the server has copied it from there, and nobody knows its CRC-32 (0). `sha256` (hex): of a part that was composed, whose ETag
    need not be the MD5 of its bytes."""

    number: int
    size: int
    etag: str
    crc32: int
    source: CopySource | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Revision:
    """The immutable bytes of a file.

    The first `stored` bytes are those of the object `key` from its beginning; from there to `size` the file
    reads as zeros (a hole left by truncate). `key` is None when `stored` is 0. `sha256` (hex) or `crc32` None means
    pending. Several revisions may share one object (truncate makes one without moving a byte).
    """

    id: RevisionId
    key: ObjectKey | None
    size: int
    stored: int
    sha256: str | None
    crc32: int | None
    created_ns: int
    parts: Sequence[Part] = ()


class RenameFlag(enum.IntFlag):
    """renameat2(2) flags, with the kernel's values."""

    NONE = 0
    NOREPLACE = 1
    EXCHANGE = 2


class OpenFlags(enum.IntFlag):
    """How a file is opened; the doors translate O_* and HTTP methods into these."""

    READ = 1
    WRITE = 2
    TRUNCATE = 4
    APPEND = 8


class ChangeKind(enum.StrEnum):
    """What a committed change did. ENTRY_* name a dentry (parent, name, ino); the others only an inode."""

    ENTRY_ADDED = "entry+"
    ENTRY_REMOVED = "entry-"
    ATTRIBUTES = "attr"
    DATA = "data"  # another revision or size; attributes too
    PROPERTIES = "prop"
    LOCKS = "lock"  # RFC 4918 locks came or went; the inode says nothing
    ACCESS = "access"  # users, collections or grants: drop what is known about rights
    RESET = "reset"  # changes were missed (the log is trimmed): drop every cache


@dataclass(frozen=True, slots=True)
class Change:
    """One numbered row of the catalog's log. Numbers have no gaps and follow commit order.

    `origin` is the gateway process that committed it (a random id chosen at start).
    """

    seq: int
    origin: str
    kind: ChangeKind
    ino: InodeNo
    parent: InodeNo | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Effects:
    """What one catalog transaction did: its changes in order, and the inodes it touched as they are after it.

    An inode with `nlink == 0` has no name any more (it may still be open).
    """

    changes: Sequence[Change]
    stats: Sequence[Stat]

    def stat(self, ino: InodeNo) -> Stat:
        """The state of `ino` after the transaction. Raises KeyError if the transaction did not touch it."""
        for stat in self.stats:
            if stat.ino == ino:
                return stat
        raise KeyError(ino)


@dataclass(frozen=True, slots=True)
class User:
    name: str
    admin: bool
    disabled: bool


class Right(enum.StrEnum):
    READ = "read"
    WRITE = "write"  # includes READ


@dataclass(frozen=True, slots=True)
class Collection:
    """A top-level folder: `grants` maps user names to rights; the owner and admins may do everything."""

    ino: InodeNo
    name: str
    owner: str
    grants: Sequence[tuple[str, Right]] = ()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the archive's user (decides what collections may be read and written) and the POSIX owner
    given to what is created. Permission bits are the kernel's business (`default_permissions`). `has_tokens`: the door
    has asked for the tokens of RFC 4918 locks itself."""

    user: str
    uid: int
    gid: int
    has_tokens: bool = False


@dataclass(frozen=True, slots=True)
class StatFs:
    """statvfs(3) in bytes and counts."""

    total_bytes: int
    free_bytes: int
    total_inodes: int
    free_inodes: int


@dataclass(frozen=True, slots=True)
class Lock:
    """One RFC 4918 lock. `path` is the lock root from "/", `expires_ns` wall clock or None for never,
    `owner` the owner element as the client sent it, `depth` 0 or -1 (infinity)."""

    token: str
    path: str
    user: str
    owner: str
    exclusive: bool
    depth: int
    timeout_s: int
    expires_ns: int | None


@dataclass(frozen=True, slots=True)
class Beginning:
    """By what an upload is known again: number, size and CRC-32 of its first part that was sent, and the object that the parts
    before it are copied from (None: there are none)."""

    number: int
    size: int
    crc32: int
    source: ObjectKey | None = None


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """A journalled multipart upload. `target` says for whom ("inode 7"), for status and gc."""

    upload_id: UploadId
    key: ObjectKey
    origin: str
    target: str
    created_ns: int
    parts: Sequence[Part] = ()


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """How far a journalled upload is: `bytes` in `parts` are stored. `alive`: its gateway goes on with it; else it was interrupted,
    and whoever sends the same bytes goes on. `active_ns`: when the last part was noted, or it changed hands."""

    target: str
    origin: str
    parts: int
    bytes: int
    created_ns: int
    active_ns: int
    alive: bool


def lookup_key(name: str) -> str:
    """The form of a name that dentries are found under: NFC, so Finder's NFD spelling and Linux's NFC are one file."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)
