"""Believe nothing: compare what the store says it has with what was sent.

Owns: the comparison. Used by: stack. Threading: any thread; reading back holds one buffer of 1 MiB per call.
What is compared follows `capabilities.checksum`:
"crc32", "md5": the server has refused wrong bytes itself, so sizes are left, and the ETag of what is one request, where it is the
MD5 (a lost or exchanged part does not get through the completion of its upload; a small file has no such second look);
"etag": the ETag is the MD5 of the bytes, so it is computed here too (SHA and MD5 of big buffers let other threads run);
"none": what was stored is read back and its CRC-32 compared, a multipart object when it is complete.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence

from typing_extensions import Buffer

from archivia_fs.errors import CorruptData
from archivia_fs.store.base import ObjectStore, StoredObject
from archivia_fs.store.forward import ForwardingStore
from archivia_fs.types import ObjectKey, Part, UploadId

_BLOCK = 1024**2  # bytes read back at a time


class VerifyingStore(ForwardingStore):
    """Raises CorruptData (retryable) where the store has something else than was given to it."""

    def put(self, key: ObjectKey, body: Buffer, crc32: int) -> StoredObject:
        stored = self._inner.put(key, body, crc32)
        view = memoryview(body).cast("B")
        self._compare(f'"{key}"', view, stored.size, stored.etag, md5=self.capabilities.md5_etag)
        if self.capabilities.checksum == "none":
            read_back(self._inner, key, 0, len(view), crc32)
        return stored

    def upload_part(self, key: ObjectKey, upload_id: UploadId, number: int, body: Buffer, crc32: int) -> Part:
        part = self._inner.upload_part(key, upload_id, number, body, crc32)
        self._compare(f'part {number} of "{key}"', memoryview(body).cast("B"), part.size, part.etag)
        return part

    def complete_upload(self, key: ObjectKey, upload_id: UploadId, parts: Sequence[Part]) -> StoredObject:
        stored = self._inner.complete_upload(key, upload_id, parts)
        expected = sum(part.size for part in parts)
        if stored.size != expected:
            raise CorruptData(f'The store made "{key}" {stored.size} bytes long; its parts have {expected}.')
        if self.capabilities.checksum == "none":
            offset = 0
            for part in parts:
                if part.crc32:  # 0: a copied part whose CRC-32 nobody knows
                    read_back(self._inner, key, offset, part.size, part.crc32)
                offset += part.size
        return stored

    def _compare(self, what: str, body: memoryview, size: int, etag: str, *, md5: bool = False) -> None:
        if size != len(body):
            raise CorruptData(f"The store says that {what} has {size} bytes; {len(body)} were sent.")
        if not etag:
            raise CorruptData(f"The store gave no ETag for {what}, so it may not have it.")
        if md5 or self.capabilities.checksum == "etag":
            sent = hashlib.md5(body, usedforsecurity=False).hexdigest()
            if etag != sent:
                raise CorruptData(f"The store has {what} with ETag {etag}; the bytes sent have the MD5 {sent}.")


def read_back(store: ObjectStore, key: ObjectKey, offset: int, size: int, crc32: int | None) -> None:
    """Read bytes of an object. Raises CorruptData if they have another CRC-32, or, where it is None, if they are not there."""
    block = memoryview(bytearray(min(_BLOCK, size)))
    found = 0
    for position in range(0, size, _BLOCK):
        piece = block[: min(_BLOCK, size - position)]
        store.read_into(key, offset + position, piece)
        found = zlib.crc32(piece, found)
    if crc32 not in (None, found):
        raise CorruptData(
            f'The store has other bytes in "{key}" at {offset} (CRC-32 {found:08x}) than were sent ({crc32:08x}).'
        )
