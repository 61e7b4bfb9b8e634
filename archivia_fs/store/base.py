"""The object store seam: what the core asks of S3, and nothing more.

Owns: the ObjectStore protocol and its values. Used by: vfs, maintenance, app. Threading: every method may be
called from any thread at once; implementations keep their own connections. All block; callers bound them.
Contract common to all: errors are StoreError children only; each method may be repeated after a StoreError with
`retryable` (put and upload_part overwrite the same key or number with the same bytes, delete and abort of
something that is gone succeed).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from typing_extensions import Buffer

from archivia_fs.types import ObjectKey, Part, UploadId

PART_SIZE_MIN = 5 * 1024**2  # bytes; every part but the last (Amazon S3 "Multipart upload limits")
PART_SIZE_MAX = 5 * 1024**3  # bytes
PARTS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the probe at start found. `checksum`: how the server proves that it got the bytes:
    "crc32" (rejects a wrong x-amz-checksum-crc32), "md5" (rejects a wrong Content-MD5), "etag" (only the
    ETag, the MD5 of the bytes, can be compared), "none" (read back). `multipart_etag`: what it answers to a completed
    upload is `multipart_etag()` of the parts. `md5_etag`: the ETag of an object that was stored in one request is its MD5."""

    part_copy: bool
    conditional_put: bool
    checksum: str
    multipart_etag: bool = False
    md5_etag: bool = False


@dataclass(frozen=True, slots=True)
class StoredObject:
    key: ObjectKey
    size: int
    etag: str
    modified_ns: int = 0


@dataclass(frozen=True, slots=True)
class PendingUpload:
    key: ObjectKey
    upload_id: UploadId
    started_ns: int


class ObjectStore(Protocol):
    def probe(self) -> Capabilities:
        """Check address, keys and bucket, and find out what the server really does. Raises StoreRejected or
        StoreUnavailable with a message that says what to change. Costs about ten small requests; leaves nothing behind."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """The result of the last `probe()`; before any probe the most careful answer."""
        ...

    def read_into(self, key: ObjectKey, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` (writable, bytes) from `offset`. Exactly or not at all: a short body raises CorruptData,
        a missing object ObjectMissing."""
        ...

    def put(self, key: ObjectKey, body: Buffer, crc32: int) -> StoredObject:
        """Store one object in one request; verified by the server against `crc32` as far as it can, and by us."""
        ...

    def head(self, key: ObjectKey) -> StoredObject:
        """Raises ObjectMissing."""
        ...

    def delete(self, key: ObjectKey) -> None: ...

    def list(self, prefix: str, start_after: str = "") -> Iterator[StoredObject]:
        """All objects under `prefix` in key order (of UTF-8 bytes), those after the key `start_after`, fetched page by page."""
        ...

    def create_upload(self, key: ObjectKey) -> UploadId: ...

    def upload_part(self, key: ObjectKey, upload_id: UploadId, number: int, body: Buffer, crc32: int) -> Part:
        """Send part `number` (1..10,000; 5 MiB..5 GiB but the last may be smaller); may be repeated, in any order."""
        ...

    def copy_part(
        self, key: ObjectKey, upload_id: UploadId, number: int, source: ObjectKey, offset: int, size: int
    ) -> str:
        """Server-side copy of a range as a part; returns its ETag. Raises NotSupported where the probe found none."""
        ...

    def complete_upload(self, key: ObjectKey, upload_id: UploadId, parts: Sequence[Part]) -> StoredObject:
        """Make the object from `parts` (sorted by number), then HEAD it: another size than the parts' sum raises CorruptData.
        Repeating it after a lost answer succeeds if the object is there and its ETag is that of these very parts."""
        ...

    def abort_upload(self, key: ObjectKey, upload_id: UploadId) -> None: ...

    def list_parts(self, key: ObjectKey, upload_id: UploadId) -> Sequence[Part]:
        """What the store holds of an upload, by number; `crc32` is 0 where the store does not tell. Raises ObjectMissing."""
        ...

    def list_uploads(self, prefix: str) -> Iterator[PendingUpload]: ...

    def close(self) -> None: ...


def multipart_etag(parts: Sequence[Part]) -> str:
    """The ETag of an object made of these parts: the MD5 of their MD5s, and how many they are. "" if one of them has no MD5 for an
    ETag (a server that encrypts). A part that SeaweedFS has copied has such an ETag itself, of which the MD5 counts."""
    try:
        digests = b"".join(bytes.fromhex(part.etag.partition("-")[0]) for part in parts)
    except ValueError:
        return ""
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"
