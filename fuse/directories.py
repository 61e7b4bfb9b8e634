"""Listings: a directory is read when it is opened or rewound, and told from that snapshot.

Owns: the open directories of a mount. Used by: operations. Threading: on the loop; the core is asked through the bridge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyfuse3
from pyfuse3 import EntryAttributes, FileHandleT, FileNameT, ReaddirToken

from archivia_fs.errors import FsError
from archivia_fs.types import FIRST_VIEW_INODE, Caller, Entry, InodeNo
from fuse.bridge import Bridge
from fuse.known import Known, OpenedDirectory
from fuse.replies import Replies

if TYPE_CHECKING:
    from archivia_fs.vfs.vfs import Vfs


class Directories:
    """One per mount."""

    def __init__(self, vfs: Vfs, bridge: Bridge, known: Known, replies: Replies) -> None:
        self._vfs = vfs
        self._bridge = bridge
        self._known = known
        self._replies = replies
        self._opened: dict[FileHandleT, OpenedDirectory] = {}

    def open(self, fh: FileHandleT, ino: InodeNo, caller: Caller, program: int) -> None:
        self._opened[fh] = OpenedDirectory(program=program, ino=ino, caller=caller)

    async def read(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        """As many entries from `start_id` on as the kernel has room for."""
        directory = self._opened[fh]
        if start_id == 0 or directory.entries is None:  # opened or rewound
            entries = self._vfs.readdir_nowait(directory.caller, directory.ino)
            if entries is None:
                entries = await self._bridge.metadata(directory, self._vfs.readdir, directory.caller, directory.ino)
            directory.entries = entries
        for position in range(start_id, len(directory.entries)):
            entry = directory.entries[position]
            # What a view shows the kernel keeps for a moment only; to look that up again might be to compute it.
            attributes = self._listed(directory, entry, verify=start_id > 0 and directory.ino < FIRST_VIEW_INODE)
            if not pyfuse3.readdir_reply(token, FileNameT(entry.name.encode()), attributes, position + 1):
                return
            self._known.add(entry.stat.ino, directory.ino, entry.name)

    def _listed(self, directory: OpenedDirectory, entry: Entry, *, verify: bool) -> EntryAttributes:
        """An entry of the snapshot; one that is not so any more is listed, but not to be kept."""
        stat = self._replies.fresh(entry.stat.ino)
        if stat is None or (verify and not self._still_there(directory, entry)):
            return self._replies.passing(entry.stat)
        return self._replies.named(stat, entry.name)

    def _still_there(self, directory: OpenedDirectory, entry: Entry) -> bool:
        try:
            now = self._vfs.lookup_nowait(directory.caller, directory.ino, entry.name)
        except FsError:
            return False
        return now is not None and now.ino == entry.stat.ino

    async def sync(self, fh: FileHandleT) -> None:
        """Names are in the catalog when the request that made them is answered; now a power cut cannot take them either."""
        await self._bridge.metadata(self._opened[fh], self._vfs.sync)

    def close(self, fh: FileHandleT) -> None:
        del self._opened[fh]
