"""Checksums that nobody has computed yet: one pass over the bytes, kept in the catalog.

Owns: who computes which. Used by: view. Threading: any thread; the same revision is read by one at a time, and only once.
"""

from __future__ import annotations

import hashlib
import threading
import zlib

from archivia_fs.errors import CorruptData
from archivia_fs.types import RevisionId
from archivia_fs.vfs.view import Archive
from catalog.catalog import Catalog

BLOCK = 4 * 1024**2  # bytes read at once
AT_ONCE = 4  # revisions


class Checksums:
    """The SHA-256 (hex) and CRC-32 of revisions."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._locks = [threading.Lock() for _ in range(AT_ONCE)]

    def get(self, archive: Archive, revision_id: RevisionId) -> tuple[str, int]:
        """Takes as long as reading the file if one is pending. Raises StoreError, NotFound, CatalogError if what is read is not
        what was known."""
        with self._locks[zlib.crc32(revision_id.encode()) % AT_ONCE]:
            known = self._catalog.revision(revision_id)
            if known.sha256 is not None and known.crc32 is not None:
                return known.sha256, known.crc32
            found = _compute(archive, revision_id, known.size)
            self._catalog.fill_checksums(revision_id, *found)
            return found


def _compute(archive: Archive, revision_id: RevisionId, size: int) -> tuple[str, int]:
    sha256, crc, offset = hashlib.sha256(), 0, 0
    content = archive.revision(revision_id)
    try:
        while offset < size:
            data = content.pread(offset, BLOCK)
            count = memoryview(data).nbytes
            if not count:
                raise CorruptData(
                    f"Revision {revision_id} is shorter than the catalog says; `archivia-fs scrub` tells more."
                )
            sha256.update(data)
            crc = zlib.crc32(data, crc)
            offset += count
    finally:
        content.close()
    return sha256.hexdigest(), crc
