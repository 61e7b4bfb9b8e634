"""Bounded reading of a few places in a huge file.

Owns: the count of what is read. Used by: ifd, jpeg. Threading: one thread.
"""

from __future__ import annotations

from collections.abc import Callable

from archivia_fs.errors import BadPicture

WINDOW = 16 * 1024  # bytes; the IFDs of a camera's file mostly stand in one or two of these
WINDOWS_MAX = 16  # so 256 KiB of a file at most are read to find what is in it

Read = Callable[[int, int], bytes]  # (offset, size): up to `size` bytes, fewer only at the end of the file


class Windows:
    """A file seen through aligned windows, each read once; `limit` of them in all."""

    def __init__(self, read: Read, size: int, limit: int = WINDOWS_MAX) -> None:
        self._read = read
        self._file_size = size
        self._limit = limit
        self._windows: dict[int, bytes] = {}
        self.size = size

    @property
    def bytes_read(self) -> int:
        """What was asked of the file so far."""
        return sum(map(len, self._windows.values()))

    def get(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes. Raises BadPicture past the end of the file, or when enough was read."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise BadPicture(f"The picture points to byte {offset + size}, but the file has {self.size}.")
        if size == 0:
            return b""
        first, last = offset // WINDOW, (offset + size - 1) // WINDOW
        if last - first >= self._limit:
            raise BadPicture(f"The picture has a table of {size} bytes, which no camera writes.")
        found = b"".join(self._window(index) for index in range(first, last + 1))
        start = offset - first * WINDOW
        return found[start : start + size]

    def _window(self, index: int) -> bytes:
        window = self._windows.get(index)
        if window is None:
            if len(self._windows) >= self._limit:
                raise BadPicture(f"After {self._limit * WINDOW} bytes it is still not clear what is in the picture.")
            size = min(WINDOW, self._file_size - index * WINDOW)
            window = self._read(index * WINDOW, size)
            if len(window) != size:
                raise BadPicture(f"The file has {self._file_size} bytes, but ends before.")
            self._windows[index] = window
        return window


class Inside:
    """A file inside a file, such as the TIFF in a JPEG's Exif: offsets count from its own beginning."""

    def __init__(self, windows: Windows, base: int, size: int) -> None:
        self._windows = windows
        self._base = base
        self.size = min(size, max(0, windows.size - base))

    def get(self, offset: int, size: int) -> bytes:
        """As Windows.get."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise BadPicture(f"The Exif data point to byte {offset + size} of {self.size}.")
        return self._windows.get(self._base + offset, size)
