"""What a store on this machine's disk acknowledged survives a power cut.

Owns: the flush between "stored" and "in the catalog". Used by: app, for the embedded store. Threading: any thread; flushes
are shared: who asks while one runs waits for the next, which serves all who asked until it began.

SeaweedFS's S3 server never calls fsync(2): after a power cut the last half minute may be missing, while the catalog, which does,
says it is there. So the folder of its data is flushed (syncfs(2)) before an object counts as stored. Measured on an SSD: 3 ms for
each file of 100 KB copied alone, nothing that shows for streams (2026-11).
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from typing_extensions import Buffer

from archivia_fs.errors import StoreFull, StoreUnavailable
from archivia_fs.store.base import ObjectStore, StoredObject
from archivia_fs.store.forward import ForwardingStore
from archivia_fs.types import ObjectKey, Part, UploadId


class DurableStore(ForwardingStore):
    """A store whose new objects are on the disk of `folder` when they are acknowledged."""

    def __init__(self, inner: ObjectStore, folder: Path) -> None:
        super().__init__(inner)
        self._flush = SharedFlush(lambda: sync_filesystem(folder))

    def put(self, key: ObjectKey, body: Buffer, crc32: int) -> StoredObject:
        stored = super().put(key, body, crc32)
        self._flush()
        return stored

    def complete_upload(self, key: ObjectKey, upload_id: UploadId, parts: Sequence[Part]) -> StoredObject:
        stored = super().complete_upload(key, upload_id, parts)
        self._flush()
        return stored


class SharedFlush:
    """Calls `flush` so that each caller returns after one that began after its call; many callers share one."""

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self._turn = threading.Lock()
        self._begun = 0  # the number of the last flush that began; written under _turn, read without
        self._finished = 0  # and of the last one that succeeded

    def __call__(self) -> None:
        """Raises what `flush` raises; the others who wait then flush again."""
        earlier = self._begun
        with self._turn:
            if self._finished > earlier:
                return
            self._begun += 1
            self._flush()
            self._finished = self._begun


def sync_filesystem(folder: Path) -> None:
    """Write everything of `folder`'s file system to its disk (syncfs(2)). Raises StoreFull, StoreUnavailable."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if _LIBC.syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        finally:
            os.close(descriptor)
    except OSError as error:
        kind = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreUnavailable
        raise kind(f"The disk of {folder} did not take what was written: {error.strerror}.") from error


_LIBC = ctypes.CDLL(None, use_errno=True)
