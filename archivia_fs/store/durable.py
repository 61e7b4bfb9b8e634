"""What a store on this machine's disk acknowledged survives a power cut.

Owns: the flush between "stored" and "in the catalog", and the doubt about parts from before a power cut. Used by: app, for the
embedded store. Threading: any thread; flushes are shared: who asks while one runs waits for the next, which serves all who asked
until it began.

SeaweedFS's S3 server never calls fsync(2): after a power cut the last half minute may be missing, while the catalog, which does,
says it is there. So the folder of its data is flushed (syncfs(2)) before an object counts as stored. Measured on an SSD: 3 ms for
each file of 100 KB copied alone, nothing that shows for streams (2026-11).

Parts are not flushed before their upload is complete. One that began before this machine did, and is gone on with, may list parts
whose bytes never came to the disk: such parts are read back when it is complete, which costs as long as reading them.
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
from archivia_fs.store.verify import read_back
from archivia_fs.types import ObjectKey, Part, UploadId


class DurableStore(ForwardingStore):
    """A store whose new objects are on the disk of `folder` when they are acknowledged. `booted_ns`: when the machine started."""

    def __init__(self, inner: ObjectStore, folder: Path, booted_ns: int | None = None) -> None:
        super().__init__(inner)
        self._flush = SharedFlush(lambda: sync_filesystem(folder))
        self._booted_ns = boot_ns() if booted_ns is None else booted_ns
        self._doubtful: dict[UploadId, frozenset[tuple[int, str]]] = {}  # number and ETag of parts from before

    def put(self, key: ObjectKey, body: Buffer, crc32: int) -> StoredObject:
        stored = super().put(key, body, crc32)
        self._flush()
        return stored

    def list_parts(self, key: ObjectKey, upload_id: UploadId) -> Sequence[Part]:
        """Asked by who goes on with an upload."""
        parts = super().list_parts(key, upload_id)
        if any(each.upload_id == upload_id and each.started_ns < self._booted_ns for each in self.list_uploads(key)):
            self._doubtful[upload_id] = frozenset((part.number, part.etag) for part in parts)
        return parts

    def complete_upload(self, key: ObjectKey, upload_id: UploadId, parts: Sequence[Part]) -> StoredObject:
        """Raises CorruptData if a part from before the machine started has not come to the disk."""
        stored = super().complete_upload(key, upload_id, parts)
        doubtful = self._doubtful.get(upload_id, frozenset())
        offset = 0
        for part in parts:
            if (part.number, part.etag) in doubtful:
                read_back(self._inner, key, offset, part.size, part.crc32 or None)
            offset += part.size
        self._flush()
        self._doubtful.pop(upload_id, None)
        return stored

    def abort_upload(self, key: ObjectKey, upload_id: UploadId) -> None:
        super().abort_upload(key, upload_id)
        self._doubtful.pop(upload_id, None)


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


def boot_ns() -> int:
    """When this machine started (proc_stat(5))."""
    lines = Path("/proc/stat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("btime ")) * 10**9


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
