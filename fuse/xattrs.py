"""Extended attributes of a mount: the core's properties whose key is an xattr name.

Owns: which names the kernel may see. Used by: operations. Threading: on the loop; the core is asked through the bridge.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyfuse3
from pyfuse3 import FUSEError, XAttrNameT

from archivia_fs.errors import InvalidArgument, IsADirectory, ReadOnly
from archivia_fs.types import Caller, InodeNo
from archivia_fs.vfs.safety import PREFIX as SAFETY
from fuse.bridge import Bridge, Waiter
from fuse.convert import decode_name

if TYPE_CHECKING:
    from archivia_fs.vfs.vfs import Vfs

PREFIXES = ("user.", "trusted.", "security.")  # others are the kernel's own, such as system.posix_acl_access


class Xattrs:
    """Not `enabled`: ENOSYS, after which the kernel never asks again. Enabled, it asks for security.capability before
    each write(2), and `ls -l` asks twice per file."""

    def __init__(self, vfs: Vfs, bridge: Bridge, *, enabled: bool) -> None:
        self._vfs = vfs
        self._bridge = bridge
        self._enabled = enabled

    async def get(self, waiter: Waiter, caller: Caller, ino: InodeNo, name: bytes) -> bytes:
        """getxattr(2): ENODATA if there is none."""
        key = self._key(name)
        if key.startswith(SAFETY):
            return await self._safety(waiter, caller, ino, key.removeprefix(SAFETY))
        value = (await self._bridge.metadata(waiter, self._vfs.properties, ino)).get(key)
        if value is None:
            raise FUSEError(pyfuse3.ENOATTR)
        return bytes(value)

    async def _safety(self, waiter: Waiter, caller: Caller, ino: InodeNo, name: str) -> bytes:
        """user.archivia.state, .size, .sha256, .crc32, .revision, .since: computed, read-only, and not in listxattr(2), so that
        `cp -a` and `rsync -X` do not try to copy them."""
        try:
            words = (await self._bridge.metadata(waiter, self._vfs.state, caller, ino)).words()
        except (IsADirectory, InvalidArgument, ReadOnly) as error:
            raise FUSEError(pyfuse3.ENOATTR) from error
        if name not in words:
            raise FUSEError(pyfuse3.ENOATTR)
        return words[name].encode()

    async def names(self, waiter: Waiter, ino: InodeNo) -> Sequence[XAttrNameT]:
        """listxattr(2). WebDAV properties that have no xattr spelling are not shown."""
        self._check()
        keys = await self._bridge.metadata(waiter, self._vfs.properties, ino)
        return [XAttrNameT(key.encode()) for key in keys if key.startswith(PREFIXES)]

    async def set(self, waiter: Waiter, caller: Caller, ino: InodeNo, name: bytes, value: bytes | None) -> None:
        """setxattr(2), or with None removexattr(2)."""
        key = self._key(name)
        if key.startswith(SAFETY):
            raise FUSEError(errno.EPERM)
        await self._bridge.metadata(waiter, self._vfs.set_properties, caller, ino, {key: value})

    def _check(self) -> None:
        if not self._enabled:
            raise FUSEError(errno.ENOSYS)

    def _key(self, name: bytes) -> str:
        self._check()
        key = decode_name(name)
        if not key.startswith(PREFIXES):
            raise FUSEError(errno.EOPNOTSUPP)
        return key
