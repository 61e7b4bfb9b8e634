"""Content: random-access immutable bytes, and a file object over them.

Owns: the read seam between the core, the views and the doors. Used by: vfs, views, webdav.
Threading: a Content may be read from several threads at once; a FileObject belongs to one thread.
"""

from __future__ import annotations

import io
import os
from typing import Protocol

from typing_extensions import Buffer


class Content(Protocol):
    """Immutable bytes of known size. `etag` is strong and unquoted (RFC 9110 8.8.3)."""

    @property
    def size(self) -> int: ...

    @property
    def etag(self) -> str: ...

    def pread(self, offset: int, size: int) -> Buffer:
        """Up to `size` bytes from `offset`; shorter only at the end. Raises StoreError."""
        ...

    def expect(self, start: int, end: int) -> None:
        """These bytes will be read in order: begin to fetch them, and nothing beyond. Never waits."""
        ...

    def close(self) -> None:
        """Let go of what the reader holds (blocks, pins). Reading afterwards is an error."""
        ...


class BytesContent:
    """Content over bytes in memory."""

    def __init__(self, data: bytes, etag: str) -> None:
        self._data = data
        self._etag = etag

    @property
    def size(self) -> int:
        return len(self._data)

    @property
    def etag(self) -> str:
        return self._etag

    def pread(self, offset: int, size: int) -> Buffer:
        return memoryview(self._data)[offset : offset + size]

    def expect(self, start: int, end: int) -> None:
        """They are here."""

    def close(self) -> None:
        """Nothing is held."""


class FileObject(io.RawIOBase):
    """A seekable, read-only file over a Content, for libraries that want one (wsgidav, zipfile, tifffile)."""

    def __init__(self, content: Content) -> None:
        super().__init__()
        self._content = content
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._content.size}[whence]
        if base + offset < 0:
            raise ValueError("seek before the beginning")
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._content.size - self._position)
        data = bytes(self._content.pread(self._position, left if size < 0 else min(size, left)))
        self._position += len(data)
        return data

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._content.close()
        super().close()
