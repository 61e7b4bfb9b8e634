"""Patience: repeat what may succeed later, for a bounded time.

Owns: the backoff schedule and the one place that waits between attempts. Used by: stack. Threading: any thread;
`close()` ends all waits at once. Outside the limiter, so that a waiting retry holds no slot.
"""

from __future__ import annotations

import builtins
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from typing_extensions import Buffer

from archivia_fs.errors import CorruptData, StoreError
from archivia_fs.store.base import ObjectStore, PendingUpload, StoredObject
from archivia_fs.store.forward import ForwardingStore
from archivia_fs.types import ObjectKey, Part, UploadId

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Times in seconds. A deadline is the time from the first attempt after which no new attempt is begun.

    Wrong bytes (CorruptData) are asked for `corrupt_attempts` times in all: a broken connection heals, a broken object does not.
    """

    first: float = 0.02
    cap: float = 5.0
    read_deadline: float = 60.0
    write_deadline: float = 120.0
    corrupt_attempts: int = 4


DEFAULT_POLICY = RetryPolicy()


def backoff(policy: RetryPolicy, attempt: int, jitter: float) -> float:
    """Seconds to wait after failed attempt number `attempt` (from 0): doubling from `first` to `cap`, of which
    `jitter` (0..1) decides the upper half, so that many callers do not come back together."""
    full = policy.cap if attempt > 60 else min(policy.cap, policy.first * 2.0**attempt)
    return full * (0.5 + 0.5 * jitter)


class RetryingStore(ForwardingStore):
    """Repeats every method but `probe`, whose error a person is waiting for. Raises the last error when time is up.

    `clock` gives seconds; `sleep` waits seconds and returns True when the store is closing; `rng` gives 0..1.
    """

    def __init__(
        self,
        inner: ObjectStore,
        policy: RetryPolicy = DEFAULT_POLICY,
        *,
        closing: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], bool] | None = None,
        rng: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(inner)
        self._policy = policy
        self._closing = closing or threading.Event()
        self._clock = clock
        self._sleep = sleep or self._closing.wait
        self._rng = rng

    def read_into(self, key: ObjectKey, offset: int, buffer: memoryview) -> None:
        self._read(lambda: self._inner.read_into(key, offset, buffer))

    def put(self, key: ObjectKey, body: Buffer, crc32: int) -> StoredObject:
        return self._write(lambda: self._inner.put(key, body, crc32))

    def head(self, key: ObjectKey) -> StoredObject:
        return self._read(lambda: self._inner.head(key))

    def delete(self, key: ObjectKey) -> None:
        self._write(lambda: self._inner.delete(key))

    def list(self, prefix: str, start_after: str = "") -> Iterator[StoredObject]:
        """Goes on after the last object it gave; each object given starts the patience anew."""
        patience = self._patience(self._policy.read_deadline)
        while True:
            try:
                for found in self._inner.list(prefix, start_after):
                    yield found
                    start_after = found.key
                    patience = self._patience(self._policy.read_deadline)
            except StoreError as error:
                patience.wait_or_raise(error)
            else:
                return

    def create_upload(self, key: ObjectKey) -> UploadId:
        return self._write(lambda: self._inner.create_upload(key))

    def upload_part(self, key: ObjectKey, upload_id: UploadId, number: int, body: Buffer, crc32: int) -> Part:
        return self._write(lambda: self._inner.upload_part(key, upload_id, number, body, crc32))

    def copy_part(
        self, key: ObjectKey, upload_id: UploadId, number: int, source: ObjectKey, offset: int, size: int
    ) -> str:
        return self._write(lambda: self._inner.copy_part(key, upload_id, number, source, offset, size))

    def complete_upload(self, key: ObjectKey, upload_id: UploadId, parts: Sequence[Part]) -> StoredObject:
        return self._write(lambda: self._inner.complete_upload(key, upload_id, parts))

    def abort_upload(self, key: ObjectKey, upload_id: UploadId) -> None:
        self._write(lambda: self._inner.abort_upload(key, upload_id))

    def list_parts(self, key: ObjectKey, upload_id: UploadId) -> Sequence[Part]:
        return self._read(lambda: self._inner.list_parts(key, upload_id))

    def list_uploads(self, prefix: str) -> Iterator[PendingUpload]:
        # at once, because there is no way to go on in the middle; pending uploads are few
        return iter(self._read(lambda: builtins.list(self._inner.list_uploads(prefix))))

    def close(self) -> None:
        self._closing.set()
        super().close()

    def _read(self, call: Callable[[], T]) -> T:
        return self._repeat(call, self._policy.read_deadline)

    def _write(self, call: Callable[[], T]) -> T:
        return self._repeat(call, self._policy.write_deadline)

    def _repeat(self, call: Callable[[], T], deadline: float) -> T:
        patience = self._patience(deadline)
        while True:
            try:
                return call()
            except StoreError as error:
                patience.wait_or_raise(error)

    def _patience(self, deadline: float) -> _Patience:
        return _Patience(self._policy, deadline, self._clock, self._sleep, self._rng)


class _Patience:
    """The waits of one call: how many there were, and when they must end."""

    def __init__(
        self,
        policy: RetryPolicy,
        deadline: float,
        clock: Callable[[], float],
        sleep: Callable[[float], bool],
        rng: Callable[[], float],
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._sleep = sleep
        self._rng = rng
        self._end = clock() + deadline
        self._attempt = 0
        self._corrupt = 0

    def wait_or_raise(self, error: StoreError) -> None:
        """Wait before the next attempt; raise `error` if it is final, if time is up, or if the store is closing."""
        self._corrupt += isinstance(error, CorruptData)
        if not error.retryable or self._corrupt >= self._policy.corrupt_attempts:
            raise error
        delay = backoff(self._policy, self._attempt, self._rng())
        if self._clock() + delay > self._end or self._sleep(delay):
            raise error
        self._attempt += 1
