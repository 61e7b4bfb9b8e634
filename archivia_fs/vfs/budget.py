"""A budget of bytes that many share: full means wait, first come first served.

Owns: how much memory may be taken. Used by: uploader, and the views for pictures. Threading: any thread; a leaf lock, not held
while `relieve` runs.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

STUCK_SECONDS = 1.0  # without anything given back, after which those who wait may be waiting for each other


class Budget:
    """Counts bytes in use against a total. One request larger than the whole budget is let through alone,
    so that nobody waits for what can never be.

    With `relieve`, those who hold a little while they wait for more never wait for each other for good: when nothing was given
    back for STUCK_SECONDS, the first in line calls `relieve`, which may make others give back what lies idle; if that does not
    help, it gets what it asks for beyond the total. Nobody else does before the total holds again.
    """

    def __init__(self, total: int, relieve: Callable[[], None] | None = None) -> None:
        self._total = total
        self._relieve = relieve
        self._used = 0
        self._changed = threading.Condition(threading.Lock())
        self._line: deque[object] = deque()  # who waits, in the order they came
        self._given_back = time.monotonic()

    @property
    def used(self) -> int:
        """Bytes taken at this moment."""
        return self._used

    def acquire(self, size: int, timeout: float) -> bool:
        """Take `size` bytes, waiting up to `timeout` seconds (0: not at all). False if they were not to be had."""
        with self._changed:
            if not self._line and self._fits(size):
                self._used += size
                return True
            if timeout <= 0:
                return False
            ticket = object()
            self._line.append(ticket)
        try:
            return self._wait(ticket, size, time.monotonic() + timeout)
        finally:
            with self._changed:
                self._line.remove(ticket)
                self._changed.notify_all()

    def release(self, size: int) -> None:
        """Give `size` bytes back."""
        with self._changed:
            self._used -= size
            self._given_back = time.monotonic()
            self._changed.notify_all()

    def _wait(self, ticket: object, size: int, deadline: float) -> bool:
        since, relieved = time.monotonic(), False
        while True:
            with self._changed:
                now = time.monotonic()
                first = self._line[0] is ticket
                stuck = self._relieve is not None and now - max(since, self._given_back) >= STUCK_SECONDS
                if first and (self._fits(size) or (stuck and relieved and self._used <= self._total)):
                    self._used += size
                    return True
                if now >= deadline:
                    return False
                if not (first and stuck) or relieved:
                    self._changed.wait(min(deadline - now, STUCK_SECONDS))
                    continue
            assert self._relieve is not None
            self._relieve()
            relieved = True

    def _fits(self, size: int) -> bool:
        return self._used + size <= self._total or self._used == 0
