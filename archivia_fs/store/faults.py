"""A store that misbehaves as told, for tests of everything above it.

Owns: a queue of faults. Used by: tests. Threading: any thread; each fault strikes `times` matching calls.
"""

from __future__ import annotations

import enum
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from typing_extensions import Buffer

from archivia_fs.errors import CorruptData, StoreError, StoreUnavailable
from archivia_fs.store.base import ObjectStore, PendingUpload, StoredObject
from archivia_fs.store.forward import ForwardingStore
from archivia_fs.types import ObjectKey, Part, UploadId

T = TypeVar("T")


class Kind(enum.Enum):
    FAIL = "fail"  # raises `error` instead of doing anything
    LOSE_ANSWER = "lose answer"  # does it, then raises `error`
    HANG = "hang"  # waits for `release()`, then raises `error`
    LOSE_DATA = "lose data"  # put, upload_part: answers as if stored, stores nothing
    TRUNCATE = "truncate"  # put, upload_part, read_into: the last byte is missing, the answer claims it
    FLIP = "flip"  # put, upload_part, read_into: one bit is wrong, silently
    WRONG_ETAG = "wrong etag"  # put, upload_part: stored well, but another ETag is told


@dataclass(frozen=True, slots=True)
class Fault:
    """Strikes the next `times` calls of the method named `operation` ("*": of any), after letting `after` pass."""

    kind: Kind
    operation: str = "*"
    times: int = 1
    after: int = 0
    error: StoreError = StoreUnavailable("The store was told to fail.")  # noqa: RUF009 - only raised


class FaultyStore(ForwardingStore):
    """`calls` counts the calls of every method; `hanging` is set while a call hangs."""

    def __init__(self, inner: ObjectStore, hang_seconds: float = 30.0) -> None:
        super().__init__(inner)
        self._hang_seconds = hang_seconds  # no test hangs longer than this
        self._lock = threading.Lock()
        self._faults: list[Fault] = []  # guarded by _lock, as calls
        self._released = threading.Event()
        self.calls: dict[str, int] = {}
        self.hanging = threading.Event()

    def inject(self, *faults: Fault) -> None:
        with self._lock:
            self._faults.extend(faults)

    def heal(self) -> None:
        """Forget the faults that have not struck yet, and let hanging calls go."""
        with self._lock:
            self._faults.clear()
        self.release()

    def release(self) -> None:
        self._released.set()

    def read_into(self, key: ObjectKey, offset: int, buffer: memoryview) -> None:
        fault = self._strike("read_into")
        self._around(fault, lambda: self._inner.read_into(key, offset, buffer))
        if fault is None or not buffer:
            return
        if fault.kind is Kind.TRUNCATE:
            buffer[-1] = 0
            raise CorruptData(f"The store broke off after {len(buffer) - 1} of {len(buffer)} bytes.")
        if fault.kind is Kind.FLIP:
            buffer[0] ^= 1

    def put(self, key: ObjectKey, body: Buffer, crc32: int) -> StoredObject:
        data = bytes(body)
        fault = self._strike("put")
        if fault is not None and fault.kind is Kind.LOSE_DATA:
            return StoredObject(key, len(data), "d41d8cd98f00b204e9800998ecf8427e")
        sent = _damaged(data, fault)
        stored = self._around(fault, lambda: self._inner.put(key, sent, _crc(sent, data, crc32)))
        return replace(stored, size=len(data), etag=_etag(stored.etag, fault))

    def head(self, key: ObjectKey) -> StoredObject:
        return self._around(self._strike("head"), lambda: self._inner.head(key))

    def delete(self, key: ObjectKey) -> None:
        self._around(self._strike("delete"), lambda: self._inner.delete(key))

    def list(self, prefix: str, start_after: str = "") -> Iterator[StoredObject]:
        for found in self._inner.list(prefix, start_after):
            self._around(self._strike("list"), lambda: None)
            yield found

    def create_upload(self, key: ObjectKey) -> UploadId:
        return self._around(self._strike("create_upload"), lambda: self._inner.create_upload(key))

    def upload_part(self, key: ObjectKey, upload_id: UploadId, number: int, body: Buffer, crc32: int) -> Part:
        data = bytes(body)
        fault = self._strike("upload_part")
        if fault is not None and fault.kind is Kind.LOSE_DATA:
            return Part(number, len(data), "d41d8cd98f00b204e9800998ecf8427e", crc32)
        sent = _damaged(data, fault)
        part = self._around(
            fault, lambda: self._inner.upload_part(key, upload_id, number, sent, _crc(sent, data, crc32))
        )
        return replace(part, size=len(data), crc32=crc32, etag=_etag(part.etag, fault))

    def copy_part(
        self, key: ObjectKey, upload_id: UploadId, number: int, source: ObjectKey, offset: int, size: int
    ) -> str:
        fault = self._strike("copy_part")
        return self._around(fault, lambda: self._inner.copy_part(key, upload_id, number, source, offset, size))

    def complete_upload(self, key: ObjectKey, upload_id: UploadId, parts: Sequence[Part]) -> StoredObject:
        fault = self._strike("complete_upload")
        return self._around(fault, lambda: self._inner.complete_upload(key, upload_id, parts))

    def abort_upload(self, key: ObjectKey, upload_id: UploadId) -> None:
        self._around(self._strike("abort_upload"), lambda: self._inner.abort_upload(key, upload_id))

    def list_parts(self, key: ObjectKey, upload_id: UploadId) -> Sequence[Part]:
        return self._around(self._strike("list_parts"), lambda: self._inner.list_parts(key, upload_id))

    def list_uploads(self, prefix: str) -> Iterator[PendingUpload]:
        return self._around(self._strike("list_uploads"), lambda: self._inner.list_uploads(prefix))

    def _strike(self, operation: str) -> Fault | None:
        """Count the call, and take the first fault that is due for it."""
        with self._lock:
            self.calls[operation] = self.calls.get(operation, 0) + 1
            for index, fault in enumerate(self._faults):
                if fault.operation not in {operation, "*"}:
                    continue
                if fault.after:
                    self._faults[index] = replace(fault, after=fault.after - 1)
                    return None
                if fault.times > 1:
                    self._faults[index] = replace(fault, times=fault.times - 1)
                else:
                    del self._faults[index]
                return fault
        return None

    def _around(self, fault: Fault | None, call: Callable[[], T]) -> T:
        if fault is None or fault.kind not in {Kind.FAIL, Kind.HANG, Kind.LOSE_ANSWER}:
            return call()
        if fault.kind is Kind.HANG:
            self.hanging.set()
            self._released.wait(self._hang_seconds)
        elif fault.kind is Kind.LOSE_ANSWER:
            call()
        raise fault.error


def _damaged(data: bytes, fault: Fault | None) -> bytes:
    if fault is not None and data:
        if fault.kind is Kind.TRUNCATE:
            return data[:-1]
        if fault.kind is Kind.FLIP:
            return bytes([data[0] ^ 1]) + data[1:]
    return data


def _crc(sent: bytes, data: bytes, crc32: int) -> int:
    # the damage is the store's own, after its check of what came
    return crc32 if sent is data else zlib.crc32(sent)


def _etag(etag: str, fault: Fault | None) -> str:
    return etag[::-1] if fault is not None and fault.kind is Kind.WRONG_ETAG else etag
