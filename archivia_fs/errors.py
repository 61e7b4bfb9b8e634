"""The one error tree. Nothing else leaves the core; each door has one table from it.

Owns: every error with its errno. Used by: everybody. Threading: values.
Each message is a sentence for a person: what happened and, where there is a way out, what to do.
"""

from __future__ import annotations

import errno
from typing import ClassVar


class FsError(Exception):
    """Base of all errors of Archivia FS. `errno` is what a FUSE caller gets."""

    errno: ClassVar[int] = errno.EIO


class NotFound(FsError):
    errno = errno.ENOENT


class Exists(FsError):
    errno = errno.EEXIST


class NotADirectory(FsError):
    errno = errno.ENOTDIR


class IsADirectory(FsError):
    errno = errno.EISDIR


class NotEmpty(FsError):
    errno = errno.ENOTEMPTY


class NameTooLong(FsError):
    errno = errno.ENAMETOOLONG


class InvalidName(FsError):
    """NUL, "/", ".", "..", the empty name."""

    errno = errno.EINVAL


class NotUtf8(FsError):
    errno = errno.EILSEQ


class InvalidArgument(FsError):
    errno = errno.EINVAL


class AccessDenied(FsError):
    """The archive's user may not do this in that collection."""

    errno = errno.EACCES


class NotPermitted(FsError):
    errno = errno.EPERM


class ReadOnly(FsError):
    """A view, a read-only mount, or the root of the drive."""

    errno = errno.EROFS


class FileTooBig(FsError):
    errno = errno.EFBIG


class NoSpace(FsError):
    """The spill area, the catalog's disk or the store is full."""

    errno = errno.ENOSPC


class BadPicture(FsError):
    """The bytes of a picture contradict themselves, or go beyond what is read or decoded of one."""

    errno = errno.EIO


class BadHandle(FsError):
    errno = errno.EBADF


class Changed(FsError):
    """The file is not the one that the caller knows (If-Match)."""

    errno = errno.ESTALE


class Busy(FsError):
    errno = errno.EBUSY


class Locked(FsError):
    """An RFC 4918 lock of somebody else; or, for a WebDAV client, a lock of a program on a mount."""

    errno = errno.EBUSY


class NoAttribute(FsError):
    errno = errno.ENODATA


class AttributeExists(FsError):
    errno = errno.EEXIST


class NotSupported(FsError):
    errno = errno.EOPNOTSUPP


class TooManyLinks(FsError):
    errno = errno.EMLINK


class CrossDevice(FsError):
    """Between the archive and a view, or two views."""

    errno = errno.EXDEV


class StoreError(FsError):
    """The object store failed. `retryable` says whether the same request may succeed later."""

    errno = errno.EIO
    retryable: ClassVar[bool] = False


class StoreUnavailable(StoreError):
    """Not reachable, timed out, 5xx, SlowDown."""

    retryable = True


class StoreRejected(StoreError):
    """Wrong keys, no such bucket, forbidden: a person has to change something."""


class StoreFull(StoreError, NoSpace):
    """The object store has no room left."""

    errno = errno.ENOSPC


class QuotaReached(StoreFull):
    """The object store has room, but not for this bucket or user."""

    errno = errno.EDQUOT


class ObjectMissing(StoreError):
    """404 for an object or upload the catalog knows."""


class CorruptData(StoreError):
    """The store answered with other bytes, size, ETag or checksum than was written. Retrying is allowed."""

    retryable = True


class PreconditionFailed(StoreError):
    """If-Match / If-None-Match at the store did not hold (412)."""


class CatalogError(FsError):
    errno = errno.EIO


class CatalogBusy(CatalogError):
    """Another process kept the catalog locked too long."""

    errno = errno.EAGAIN


class CatalogTooNew(CatalogError):
    """The schema was written by a newer Archivia FS."""


class ConfigError(FsError):
    """A setting is wrong or unknown; the message names it and the way out."""

    errno = errno.EINVAL


class MountError(FsError):
    """The mount point cannot be used, or /dev/fuse is missing."""
