"""A queue of notifications to the kernel: what is asked twice is pushed once, and who must know waits until it has arrived.

Owns: order and bound. Used by: invalidate. Threading: any thread puts and settles, quickly or for a bounded time; one thread runs.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class PushQueue(Generic[T]):
    """A set of things to push in order of arrival. Bounded: when full, all that is known is pushed instead."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: OrderedDict[T, None] = OrderedDict()
        self._all = False
        self._closed = False
        self._pushing_since: float | None = None  # monotonic
        self._asked = 0  # how many came, and
        self._done = 0  # how many of them, in their order, have arrived
        self._changed = threading.Condition()

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is being pushed."""
        return not (self._items or self._all or self._pushing_since is not None)

    def put(self, item: T) -> None:
        with self._changed:
            if item not in self._items:
                self._items[item] = None
                self._asked += 1
            if len(self._items) > self._limit:
                self._everything()
            self._changed.notify_all()

    def put_all(self) -> None:
        with self._changed:
            self._everything()
            self._changed.notify_all()

    def _everything(self) -> None:
        self._items.clear()
        self._all = True
        self._asked += 1

    def settle(self, seconds: float) -> bool:
        """Wait until what came before now has arrived: at most `seconds`, and not behind a push that has already taken as long."""
        with self._changed:
            asked, end = self._asked, time.monotonic() + seconds
            while self._done < asked and not self._closed:
                since = self._pushing_since
                left = min(end, end if since is None else since + seconds) - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True

    def close(self) -> None:
        """Push nothing more; nobody waits any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def run(self, push: Callable[[T], None], known: Callable[[], Sequence[T]]) -> None:
        """Push until closed. `known` lists all there is to push."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._all or self._items)
                if self._closed:
                    return
                if self._all:
                    self._all = False
                    upto = self._asked - len(self._items)  # what came after is still in the queue
                    batch: Sequence[T] = known()
                else:
                    upto = self._done + 1
                    batch = [self._items.popitem(last=False)[0]]
                self._pushing_since = time.monotonic()
            for item in batch:
                if self._closed:
                    return
                push(item)
                self._pushing_since = time.monotonic()
            with self._changed:
                self._pushing_since = None
                self._done = upto
                self._changed.notify_all()
