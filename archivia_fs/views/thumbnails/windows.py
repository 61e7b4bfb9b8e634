"""Bounded reading of a few places in a huge file.

Owns: the count of what is read. Used by: ifd, jpeg, ways. Threading: one thread.
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
        self._asked = 0
        self._windows: dict[int, bytes] = {}
        self.size = size

    def get(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes. Raises BadPicture past the end of the file, or when enough was read."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise BadPicture(f"The picture points to byte {offset + size}, but the file has {self.size}.")
        if size == 0:
            return b""
        first, last = offset // WINDOW, (offset + size - 1) // WINDOW
        if last - first >= self._limit:
            raise BadPicture(f"The picture has a table of {size} bytes, which no camera writes.")
        self._fill(first, last)
        found = b"".join(self._windows[index] for index in range(first, last + 1))
        start = offset - first * WINDOW
        return found[start : start + size]

    def _fill(self, first: int, last: int) -> None:
        """Read what is missing of these windows, at once."""
        missing = [index for index in range(first, last + 1) if index not in self._windows]
        if not missing:
            return
        first, last = missing[0], missing[-1]
        self._asked += last - first + 1
        if self._asked > self._limit:
            raise BadPicture(f"After {self._limit * WINDOW} bytes it is still not clear what is in the picture.")
        start, end = first * WINDOW, min((last + 1) * WINDOW, self._file_size)
        data = self._read(start, end - start)
        if len(data) != end - start:
            raise BadPicture(f"The file has {self._file_size} bytes, but ends before.")
        for index in range(first, last + 1):
            self._windows[index] = data[index * WINDOW - start :][:WINDOW]


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
