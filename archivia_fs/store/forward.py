"""A store that hands every call on: the base of the wrappers, so that each writes down only what it changes.

Owns: nothing. Used by: retry, limit, verify, faults. Threading: as the store inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from typing_extensions import Buffer

from archivia_fs.store.base import Capabilities, ObjectStore, PendingUpload, StoredObject
from archivia_fs.types import ObjectKey, Part, UploadId


class ForwardingStore:
    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner

    def probe(self) -> Capabilities:
        return self._inner.probe()

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    def read_into(self, key: ObjectKey, offset: int, buffer: memoryview) -> None:
        self._inner.read_into(key, offset, buffer)

    def put(self, key: ObjectKey, body: Buffer, crc32: int) -> StoredObject:
        return self._inner.put(key, body, crc32)

    def head(self, key: ObjectKey) -> StoredObject:
        return self._inner.head(key)

    def delete(self, key: ObjectKey) -> None:
        self._inner.delete(key)

    def list(self, prefix: str, start_after: str = "") -> Iterator[StoredObject]:
        return self._inner.list(prefix, start_after)

    def create_upload(self, key: ObjectKey) -> UploadId:
        return self._inner.create_upload(key)

    def upload_part(self, key: ObjectKey, upload_id: UploadId, number: int, body: Buffer, crc32: int) -> Part:
        return self._inner.upload_part(key, upload_id, number, body, crc32)

    def copy_part(
        self, key: ObjectKey, upload_id: UploadId, number: int, source: ObjectKey, offset: int, size: int
    ) -> str:
        return self._inner.copy_part(key, upload_id, number, source, offset, size)

    def complete_upload(self, key: ObjectKey, upload_id: UploadId, parts: Sequence[Part]) -> StoredObject:
        return self._inner.complete_upload(key, upload_id, parts)

    def abort_upload(self, key: ObjectKey, upload_id: UploadId) -> None:
        self._inner.abort_upload(key, upload_id)

    def list_parts(self, key: ObjectKey, upload_id: UploadId) -> Sequence[Part]:
        return self._inner.list_parts(key, upload_id)

    def list_uploads(self, prefix: str) -> Iterator[PendingUpload]:
        return self._inner.list_uploads(prefix)

    def close(self) -> None:
        self._inner.close()
