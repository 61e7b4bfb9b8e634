"""A budget of bytes that writers share: full means wait.

Owns: how much memory uncommitted bytes may take. Used by: uploader. Threading: any thread; a leaf lock.
"""

from __future__ import annotations

import threading


class Budget:
    """Counts bytes in use against a total. One request larger than the whole budget is let through alone,
    so that nobody waits for what can never be."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._changed = threading.Condition(threading.Lock())

    @property
    def used(self) -> int:
        """Bytes taken at this moment."""
        return self._used

    def acquire(self, size: int, timeout: float) -> bool:
        """Take `size` bytes, waiting up to `timeout` seconds (0: not at all). False if they were not to be had."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._fits(size), timeout):
                return False
            self._used += size
            return True

    def release(self, size: int) -> None:
        """Give `size` bytes back."""
        with self._changed:
            self._used -= size
            self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return self._used + size <= self._total or self._used == 0
