"""Attributes and names as the kernel is told them.

Owns: how long each reply is good for. Used by: operations, directories. Threading: on the loop.

The kernel caches what it is told for an hour, so each reply must be fresh: attributes are read from memory again in the
step that replies, and whatever is committed after that step is pushed (invalidate.py). For an inode the kernel does not
know yet a push could overtake the reply; it gets a second's timeout the first time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyfuse3 import EntryAttributes

from archivia_fs.errors import FsError
from archivia_fs.types import InodeNo, Stat
from fuse.bridge import Bridge, Waiter
from fuse.convert import LONG_TIMEOUT, SHORT_TIMEOUT, RootMap, entry_timeout
from fuse.known import Known

if TYPE_CHECKING:
    from archivia_fs.vfs.vfs import Vfs


class Replies:
    """One per mount."""

    def __init__(self, vfs: Vfs, bridge: Bridge, root: RootMap, known: Known) -> None:
        self._vfs = vfs
        self._bridge = bridge
        self._root = root
        self._known = known

    def fresh(self, ino: InodeNo) -> Stat | None:
        """The inode as memory has it in this very step; None if it is not there."""
        try:
            return self._vfs.getattr_nowait(ino, live=True)
        except FsError:
            return None

    async def current(self, waiter: Waiter, ino: InodeNo) -> EntryAttributes:
        """The answer to getattr and setattr."""
        stat = self.fresh(ino)
        if stat is None:
            stat = await self._bridge.metadata(waiter, lambda: self._vfs.getattr(ino, live=True))
        return self._root.attributes(stat)

    def named(self, stat: Stat, name: str) -> EntryAttributes:
        """An inode under a name, in a listing."""
        attr = LONG_TIMEOUT if stat.ino in self._known else SHORT_TIMEOUT
        return self._root.attributes(stat, entry=entry_timeout(name, stat.ino), attr=attr)

    def passing(self, stat: Stat) -> EntryAttributes:
        """Of what may not be so any more: not to be kept."""
        return self._root.attributes(stat, entry=0.0, attr=0.0)

    def entry(self, stat: Stat, parent: InodeNo, name: str) -> EntryAttributes:
        """A name and its inode for the kernel, which holds one more reference from now on."""
        attributes = self.named(self.fresh(stat.ino) or stat, name)
        self._known.add(stat.ino, parent, name)
        return attributes
