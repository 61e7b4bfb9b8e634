"""The old bytes under an edit.

Owns: a revision being edited and how much of it still shows. Used by: writer, uploader. Threading: as its writer.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from typing_extensions import Buffer

from archivia_fs.types import Revision
from archivia_fs.vfs.reader import RevisionContent
from archivia_fs.vfs.segments import Segment, segments_of
from archivia_fs.vfs.transfers import Transfers

STEP = 1024**2  # bytes read at once


class Base:
    """`end`: bytes of it that still show; a truncate hides the rest for good. Behind `stored` they are zeros."""

    def __init__(self, transfers: Transfers, revision: Revision) -> None:
        self.revision = revision
        self.end = revision.size
        self._content = RevisionContent(transfers, revision)
        # Where the server copies, little is read again, and nothing beyond it.
        self._exact = RevisionContent(transfers, revision, ahead=not transfers.store.capabilities.part_copy)

    @property
    def stored(self) -> int:
        """Bytes that show and are in the object."""
        return min(self.revision.stored, self.end)

    def pread(self, offset: int, size: int) -> Buffer:
        """Up to `size` bytes; shorter only at `end`. Raises StoreError."""
        return self._content.pread(offset, max(0, min(size, self.end - offset)))

    def reread(self, offset: int, size: int) -> Buffer:
        """As pread, for bytes that are sent again."""
        return self._exact.pread(offset, max(0, min(size, self.end - offset)))

    def crc32(self, start: int, end: int) -> int:
        """Of old bytes, whether they still show or not; reads them in steps. Raises StoreError."""
        result = 0
        while start < end:
            data = self._exact.pread(start, min(STEP, end - start))
            result = zlib.crc32(data, result)
            start += memoryview(data).nbytes
        return result

    def segments(self) -> Sequence[Segment]:
        """What of the object shows; the CRC-32 of a segment that is cut is not known."""
        found = []
        for segment in segments_of(self.revision):
            if segment.end <= self.stored:
                found.append(segment)
            elif segment.start < self.stored:
                found.append(Segment(segment.start, self.stored, None))
        return found

    def close(self) -> None:
        self._content.close()
        self._exact.close()
