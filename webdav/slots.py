"""Who may keep a thread waiting: transfers, up to so many at once, so that threads are always left for names and attributes.

Owns: the count of transfers. A transfer is what waits for its client or for the store: the bytes of GET and PUT, and what a view
has to compute first. Used by: connection, server. Threading: any thread; one lock, held for an instant.
"""

from __future__ import annotations

import threading
from http import HTTPStatus

from webdav.convert import fail

PATIENCE_S = 25.0  # seconds a transfer waits for a slot: less than the 30 s after which davfs2 gives up on an answer


class Slots:
    """At most `running` transfers at once, and `waiting` more that wait for one of them to end. Each has a thread of the server."""

    def __init__(self, running: int, waiting: int) -> None:
        self._running_max = running
        self._waiting_max = waiting
        self._running = 0
        self._waiting = 0
        self._closed = False
        self._changed = threading.Condition()

    def take(self) -> None:
        """Wait for a slot. Raises DAVError 503 when too many wait already, or none became free in time."""
        with self._changed:
            if self._running >= self._running_max and self._waiting >= self._waiting_max:
                _refuse()
            self._waiting += 1
            try:
                free = self._changed.wait_for(lambda: self._closed or self._running < self._running_max, PATIENCE_S)
            finally:
                self._waiting -= 1
            if self._closed or not free:
                _refuse()
            self._running += 1

    def take_now(self) -> bool:
        """Take a slot if one is free and nobody waits for it."""
        with self._changed:
            free = not self._closed and self._waiting == 0 and self._running < self._running_max
            self._running += free
            return free

    def give_back(self) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify()

    def close(self) -> None:
        """Whoever waits is refused: the server ends."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _refuse() -> None:
    fail(HTTPStatus.SERVICE_UNAVAILABLE, "The gateway is busy with other transfers; try again in a moment.")
