"""The order of the wrappers, written down once.

Owns: nothing. Used by: app. Threading: as the store inside.
"""

from __future__ import annotations

from archivia_fs.store.base import ObjectStore
from archivia_fs.store.limit import DEFAULT_LIMITS, LimitedStore, Limits
from archivia_fs.store.retry import DEFAULT_POLICY, RetryingStore, RetryPolicy
from archivia_fs.store.verify import VerifyingStore


def stack(store: ObjectStore, *, retry: RetryPolicy = DEFAULT_POLICY, limits: Limits = DEFAULT_LIMITS) -> ObjectStore:
    """`store` with patience around limits around verification: a retry holds no slot while it waits, and what the
    verification finds wrong is retried."""
    return RetryingStore(LimitedStore(VerifyingStore(store), limits), retry)
