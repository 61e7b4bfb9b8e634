"""The spill area: sparse local files for bytes that arrive out of order.

Owns: the directory's use of disk, bounded in bytes. Used by: writer. Threading: a SpillFile belongs to one
file's writer turn; the area's accounting is a leaf lock.
A spill file has no name (it is unlinked at birth), so a crash leaves nothing behind.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from pathlib import Path

from typing_extensions import Buffer

from archivia_fs.errors import NoSpace
from archivia_fs.vfs.intervals import IntervalSet


class SpillArea:
    """Hands out spill files in `directory` that together hold at most `limit` bytes."""

    def __init__(self, directory: Path, limit: int) -> None:
        self._directory = directory
        self._limit = limit
        self._used = 0
        self._lock = threading.Lock()

    def open(self) -> SpillFile:
        """A new, empty spill file. Raises NoSpace."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            descriptor, path = tempfile.mkstemp(dir=self._directory, prefix="spill-")
            Path(path).unlink()
        except OSError as error:
            raise NoSpace(f"The spill area {self._directory} cannot be written: {error.strerror}.") from error
        return SpillFile(self, descriptor)

    def take(self, size: int) -> None:
        """Account for `size` more bytes on disk. Raises NoSpace."""
        with self._lock:
            if self._used + size > self._limit:
                raise NoSpace(
                    f"The spill area {self._directory} is full ({self._limit >> 20} MiB): close files that are written "
                    "out of order, or give ARCHIVIA_CACHE_DIR a larger disk."
                )
            self._used += size

    def give_back(self, size: int) -> None:
        with self._lock:
            self._used -= size


class SpillFile:
    """Bytes at offsets of the file being written, and which of them are there."""

    def __init__(self, area: SpillArea, descriptor: int) -> None:
        self._area = area
        self._descriptor = descriptor
        self._accounted = 0
        self.written = IntervalSet()

    @property
    def used(self) -> int:
        """Bytes of disk that are accounted for."""
        return self._accounted

    def pwrite(self, offset: int, data: Buffer) -> None:
        """Keep `data` at `offset`. Raises NoSpace; then nothing is known of the range."""
        view = memoryview(data)
        end = offset + view.nbytes
        fresh = sum(stop - start for start, stop, inside in self.written.pieces(offset, end) if not inside)
        self._area.take(fresh)
        self._accounted += fresh
        try:
            while view:
                count = os.pwrite(self._descriptor, view, end - view.nbytes)
                view = view[count:]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise NoSpace("The disk of the spill area is full: give ARCHIVIA_CACHE_DIR a larger one.") from error
            raise
        self.written.add(offset, end)

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`; holes read as zeros."""
        while buffer:
            count = os.preadv(self._descriptor, [buffer], offset)
            if count == 0:
                buffer[:] = bytes(len(buffer))
                return
            buffer, offset = buffer[count:], offset + count

    def clip(self, size: int) -> None:
        """Forget all bytes at and beyond `size`."""
        self.written.clip(size)
        os.ftruncate(self._descriptor, size)
        total = self.written.total
        self._area.give_back(self._accounted - total)
        self._accounted = total

    def close(self) -> None:
        """Give the disk space back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._area.give_back(self._accounted)
            self._accounted = 0
