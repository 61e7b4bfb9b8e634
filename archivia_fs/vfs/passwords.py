"""Passwords of the catalog's users.

Owns: hashing (argon2id) and the memory of what was verified. Used by: vfs, app. Threading: any thread.
An argon2id check takes about 50 ms and 64 MiB by design, and HTTP Basic repeats the password with each request, so a
success is remembered for five minutes under a keyed hash; at most two checks run at once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from typing import Protocol

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from archivia_fs.types import ChangeKind, Effects

REMEMBER_SECONDS = 300
REMEMBERED_MAX = 1024  # successes
# OWASP's first choice for argon2id with little memory (Password Storage Cheat Sheet, 2024): 19 MiB, 2 passes. The default
# of 64 MiB would be a quarter of the gateway's memory.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID)


class Hashes(Protocol):
    def password_hash(self, name: str) -> str | None: ...


def hash_password(password: str) -> str:
    """The argon2id hash to keep in the catalog."""
    return _HASHER.hash(password)


class Passwords:
    """`verify` answers; a change of users or passwords (ACCESS) empties the memory at once."""

    def __init__(self, hashes: Hashes) -> None:
        self._hashes = hashes
        self._secret = secrets.token_bytes(32)
        self._known: dict[bytes, float] = {}
        self._checks = threading.BoundedSemaphore(2)

    def verify(self, user: str, password: str) -> bool:
        """Whether `password` is that of the enabled user."""
        digest = hmac.digest(self._secret, f"{user}\0{password}".encode("utf-8", "surrogatepass"), hashlib.sha256)
        now = time.monotonic()
        if self._known.get(digest, 0.0) > now:
            return True
        known = self._known
        with self._checks:
            stored = self._hashes.password_hash(user)
            try:
                # An unknown user costs the same time, so that names cannot be guessed by the clock.
                _HASHER.verify(stored or _NOBODY, password)
            except (VerificationError, InvalidHashError, UnicodeEncodeError):
                return False
        if stored is None:
            return False
        if len(known) >= REMEMBERED_MAX:
            known.clear()
        known[digest] = now + REMEMBER_SECONDS
        return True

    def apply(self, effects: Effects) -> None:
        """The change feed: forget all when users change."""
        if any(change.kind in (ChangeKind.ACCESS, ChangeKind.RESET) for change in effects.changes):
            self._known = {}


_NOBODY = _HASHER.hash(secrets.token_hex(16))
