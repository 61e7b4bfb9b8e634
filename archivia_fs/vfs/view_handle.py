"""An open file of a view: what FileHandle is to the archive, without writing.

Owns: the content it reads. Used by: vfs. Threading: any thread.
"""

from __future__ import annotations

from typing_extensions import Buffer

from archivia_fs.content import Content
from archivia_fs.errors import ReadOnly
from archivia_fs.types import OpenFlags, Stat


class ViewHandle:
    """Reads one state of a computed file from open to release, whatever changes meanwhile."""

    def __init__(self, stat: Stat, content: Content) -> None:
        self.ino = stat.ino
        self.flags = OpenFlags.READ
        self._stat = stat
        self._content = content

    def stat(self) -> Stat:
        return self._stat

    def pread(self, offset: int, size: int) -> Buffer:
        """Up to `size` bytes from `offset`. Raises StoreError."""
        return self._content.pread(offset, size)

    def pread_nowait(self, offset: int, size: int) -> Buffer | None:
        """Never: a view may have to compute."""
        return None

    def pwrite(self, offset: int, data: Buffer) -> int:
        """Raises ReadOnly."""
        raise ReadOnly("Views are computed; write under /Documents.")

    def pwrite_nowait(self, offset: int, data: Buffer) -> int | None:
        """Raises ReadOnly."""
        return self.pwrite(offset, data)

    def truncate(self, size: int) -> None:
        """Raises ReadOnly."""
        self.pwrite(size, b"")

    @property
    def only_emptied(self) -> bool:
        """Never: nothing is uncommitted."""
        return False

    def postpone(self) -> None:
        """Nothing is uncommitted."""

    def flush(self) -> None:
        """Nothing is uncommitted."""

    def flush_nowait(self) -> bool:
        """Nothing is uncommitted."""
        return True

    def fsync(self) -> None:
        """Nothing is uncommitted."""

    def release_nowait(self) -> bool:
        """Never: a view may have to let go of much."""
        return False

    def release(self) -> None:
        self._content.close()

    discard = release
