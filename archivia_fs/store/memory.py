"""An object store in this process's memory, with S3's rules.

Owns: its objects and uploads. Used by: tests of every room. Threading: one lock around each method; no method waits.
It passes the same conformance suite as the real servers, and is as strict as the strictest of them.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from typing_extensions import Buffer

from archivia_fs.errors import CorruptData, NotSupported, ObjectMissing, StoreRejected
from archivia_fs.store.base import PART_SIZE_MIN, PARTS_MAX, Capabilities, PendingUpload, StoredObject, multipart_etag
from archivia_fs.types import ObjectKey, Part, UploadId

_ABLE = Capabilities(part_copy=True, conditional_put=True, checksum="crc32", md5_etag=True)


@dataclass(frozen=True, slots=True)
class _Object:
    data: bytes
    etag: str
    modified_ns: int


@dataclass(frozen=True, slots=True)
class _Upload:
    key: ObjectKey
    started_ns: int
    parts: dict[int, bytes] = field(default_factory=dict)


class MemoryStore:
    """ObjectStore in memory. `part_size_min` in bytes may be lowered so that tests of many parts stay small."""

    def __init__(self, capabilities: Capabilities = _ABLE, part_size_min: int = PART_SIZE_MIN) -> None:
        self._capabilities = capabilities
        self._part_size_min = part_size_min
        self._lock = threading.Lock()
        self._objects: dict[ObjectKey, _Object] = {}  # guarded by _lock, as _uploads
        self._uploads: dict[UploadId, _Upload] = {}

    def probe(self) -> Capabilities:
        return self._capabilities

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def read_into(self, key: ObjectKey, offset: int, buffer: memoryview) -> None:
        data = self._object(key).data
        if offset + len(buffer) > len(data):
            raise CorruptData(f'"{key}" has {len(data)} bytes, and {len(buffer)} at {offset} were asked for.')
        buffer[:] = memoryview(data)[offset : offset + len(buffer)]

    def put(self, key: ObjectKey, body: Buffer, crc32: int) -> StoredObject:
        data = self._accept(body, crc32)
        made = _Object(data, _md5(data), time.time_ns())
        with self._lock:
            self._objects[key] = made
        return _stored(key, made)

    def head(self, key: ObjectKey) -> StoredObject:
        return _stored(key, self._object(key))

    def delete(self, key: ObjectKey) -> None:
        with self._lock:
            self._objects.pop(key, None)

    def list(self, prefix: str, start_after: str = "") -> Iterator[StoredObject]:
        with self._lock:
            found = [_stored(key, each) for key, each in self._objects.items() if key.startswith(prefix)]
        found.sort(key=lambda each: each.key.encode())
        after = start_after.encode()
        return iter([each for each in found if each.key.encode() > after])

    def create_upload(self, key: ObjectKey) -> UploadId:
        upload_id = UploadId(secrets.token_hex(16))
        with self._lock:
            self._uploads[upload_id] = _Upload(key, time.time_ns())
        return upload_id

    def upload_part(self, key: ObjectKey, upload_id: UploadId, number: int, body: Buffer, crc32: int) -> Part:
        if not 1 <= number <= PARTS_MAX:
            raise StoreRejected(f"Part numbers go from 1 to {PARTS_MAX}, not {number}.")
        data = self._accept(body, crc32)
        with self._lock:
            self._upload(key, upload_id).parts[number] = data
        return Part(number, len(data), _md5(data), crc32)

    def copy_part(
        self, key: ObjectKey, upload_id: UploadId, number: int, source: ObjectKey, offset: int, size: int
    ) -> str:
        if not self._capabilities.part_copy:
            raise NotSupported("This store cannot copy parts; read the bytes and send them again.")
        data = self._object(source).data
        if size < 1 or offset + size > len(data):
            raise CorruptData(f'"{source}" has {len(data)} bytes, and {size} at {offset} were to be copied.')
        part = data[offset : offset + size]
        with self._lock:
            self._upload(key, upload_id).parts[number] = part
        return _md5(part)

    def complete_upload(self, key: ObjectKey, upload_id: UploadId, parts: Sequence[Part]) -> StoredObject:
        expected = sum(part.size for part in parts)
        with self._lock:
            done = self._objects.get(key)
            if upload_id not in self._uploads and done is not None and done.etag == multipart_etag(parts):
                return _stored(key, done)  # completed before, and the answer was lost
            upload = self._upload(key, upload_id)
            self._check(parts, upload)
            data = b"".join(upload.parts[part.number] for part in parts)
            made = _Object(data, multipart_etag(parts), time.time_ns())
            self._objects[key] = made
            del self._uploads[upload_id]
        if len(data) != expected:
            raise CorruptData(f'"{key}" became {len(data)} bytes long from parts of {expected} bytes.')
        return _stored(key, made)

    def abort_upload(self, key: ObjectKey, upload_id: UploadId) -> None:
        with self._lock:
            self._uploads.pop(upload_id, None)

    def list_parts(self, key: ObjectKey, upload_id: UploadId) -> Sequence[Part]:
        with self._lock:
            parts = dict(self._upload(key, upload_id).parts)
        return [Part(number, len(data), _md5(data), zlib.crc32(data)) for number, data in sorted(parts.items())]

    def list_uploads(self, prefix: str) -> Iterator[PendingUpload]:
        with self._lock:
            found = [(each, upload_id) for upload_id, each in self._uploads.items() if each.key.startswith(prefix)]
        return iter([PendingUpload(each.key, upload_id, each.started_ns) for each, upload_id in found])

    def close(self) -> None:
        """Nothing is held but memory."""

    def _accept(self, body: Buffer, crc32: int) -> bytes:
        data = bytes(body)
        if self._capabilities.checksum == "crc32" and zlib.crc32(data) != crc32:
            raise CorruptData("The bytes that came have another CRC-32 than they were sent with.")
        return data

    def _object(self, key: ObjectKey) -> _Object:
        with self._lock:
            found = self._objects.get(key)
        if found is None:
            raise ObjectMissing(f'There is no object "{key}".')
        return found

    def _upload(self, key: ObjectKey, upload_id: UploadId) -> _Upload:
        found = self._uploads.get(upload_id)
        if found is None or found.key != key:
            raise ObjectMissing(f'There is no such upload of "{key}".')
        return found

    def _check(self, parts: Sequence[Part], upload: _Upload) -> None:
        """The rules of CompleteMultipartUpload: InvalidPartOrder, InvalidPart, EntityTooSmall."""
        if not parts or any(after.number <= before.number for before, after in itertools.pairwise(parts)):
            raise StoreRejected("The parts have to be named in ascending order.")
        for part in parts:
            data = upload.parts.get(part.number)
            if data is None or _md5(data) != part.etag:
                raise ObjectMissing(f'Part {part.number} of "{upload.key}" is not what was uploaded, or was never.')
        if any(len(upload.parts[part.number]) < self._part_size_min for part in parts[:-1]):
            raise StoreRejected(f"Every part but the last needs {self._part_size_min} bytes.")


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _stored(key: ObjectKey, found: _Object) -> StoredObject:
    return StoredObject(key, len(found.data), found.etag, found.modified_ns)
