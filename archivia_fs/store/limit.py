"""How many bodies travel at once, in each direction.

Owns: two semaphores. Used by: stack. Threading: any thread; waits are bounded.
Metadata requests (head, list, delete, create, complete) pass freely: a slow store full of transfers must not stop them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from typing_extensions import Buffer

from archivia_fs.errors import StoreUnavailable
from archivia_fs.store.base import ObjectStore, StoredObject
from archivia_fs.store.forward import ForwardingStore
from archivia_fs.types import ObjectKey, Part, UploadId


@dataclass(frozen=True, slots=True)
class Limits:
    """Transfers at once, and the seconds one waits for its turn before it counts as a failed attempt."""

    downloads: int = 16
    uploads: int = 12
    wait: float = 60.0


DEFAULT_LIMITS = Limits()


class LimitedStore(ForwardingStore):
    def __init__(self, inner: ObjectStore, limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(inner)
        self._limits = limits
        self._downloads = threading.BoundedSemaphore(limits.downloads)
        self._uploads = threading.BoundedSemaphore(limits.uploads)

    def read_into(self, key: ObjectKey, offset: int, buffer: memoryview) -> None:
        with self._turn(self._downloads):
            self._inner.read_into(key, offset, buffer)

    def put(self, key: ObjectKey, body: Buffer, crc32: int) -> StoredObject:
        with self._turn(self._uploads):
            return self._inner.put(key, body, crc32)

    def upload_part(self, key: ObjectKey, upload_id: UploadId, number: int, body: Buffer, crc32: int) -> Part:
        with self._turn(self._uploads):
            return self._inner.upload_part(key, upload_id, number, body, crc32)

    @contextlib.contextmanager
    def _turn(self, semaphore: threading.BoundedSemaphore) -> Iterator[None]:
        if not semaphore.acquire(timeout=self._limits.wait):
            raise StoreUnavailable(
                f"All transfers to the object store were busy for {self._limits.wait:.0f} seconds; it hangs or is overloaded."
            )
        try:
            yield
        finally:
            semaphore.release()
