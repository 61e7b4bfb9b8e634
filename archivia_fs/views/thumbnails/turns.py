"""Who may decode now: a few at a time, what somebody waits for before what is made ahead, quick pictures never behind slow ones.

Owns: the turns. Used by: pool, maker. Threading: any thread; one lock, held only to decide. A turn lasts from the first byte that
is read until the decoder has answered, so the number of turns bounds memory and processes too.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from archivia_fs.errors import Busy

TURNS = 3  # of which slow pictures have all but one
WAITING_MAX = 64  # callers; each is a thread of a door
PATIENCE = 60.0  # seconds that somebody who has opened a file waits
PATIENCE_AHEAD = 600.0  # seconds for what nobody waits for

CLOSING = "The gateway is shutting down."
_MANY = "Many previews are being made; try again in a moment."


@dataclass(slots=True, eq=False)
class Demand:
    """Somebody who wants a preview. `urgent`: they wait for it; it may become so (Turns.hurry). `patience`: seconds."""

    urgent: bool = True
    patience: float = PATIENCE


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    demand: Demand
    slow: bool
    large: bool


class Turns:
    """At most `number` at a time, of these at most one less that are slow, and of those that nobody waits for one. Large ones one
    at a time, but what nobody waits for holds up nobody who waits: there may be one of each. At most `waiting` callers wait."""

    def __init__(self, number: int = TURNS, waiting: int = WAITING_MAX) -> None:
        self._number = number
        self._waiting_max = waiting
        self._changed = threading.Condition()
        self._running: list[_Turn] = []
        self._waiting: list[_Turn] = []
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether nobody gets a turn any more."""
        return self._closed

    @property
    def large(self) -> int:
        """How many large ones have their turn."""
        with self._changed:
            return sum(each.large for each in self._running)

    @contextlib.contextmanager
    def turn(self, demand: Demand, *, slow: bool, large: bool) -> Iterator[None]:
        """Waits for a turn, as long as the demand's patience lasts. Raises Busy."""
        turn = _Turn(demand, slow, large)
        with self._changed:
            if len(self._waiting) >= self._waiting_max:
                raise Busy(_MANY)
            self._waiting.append(turn)
            try:
                came = self._changed.wait_for(lambda: self._closed or self._is_next(turn), demand.patience)
                if self._closed:
                    raise Busy(CLOSING)
                if not came:
                    raise Busy(_MANY)
                self._running.append(turn)
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._running.remove(turn)
                self._changed.notify_all()

    def hurry(self, demand: Demand) -> None:
        """Somebody waits for it now."""
        with self._changed:
            demand.urgent = True
            self._changed.notify_all()

    def close(self) -> None:
        """Whoever waits gets Busy."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _is_next(self, turn: _Turn) -> bool:
        """Whether it may run, and nobody else who may run goes before."""
        for each in sorted(self._waiting, key=lambda each: not each.demand.urgent):  # the order of equals is kept
            if self._may_run(each):
                return each is turn
        return False

    def _may_run(self, turn: _Turn) -> bool:
        urgent = turn.demand.urgent
        slow = [each.demand.urgent for each in self._running if each.slow]
        large = [each.demand.urgent for each in self._running if each.large]
        return (
            len(self._running) < self._number
            and not (turn.slow and (len(slow) >= max(1, self._number - 1) or (not urgent and False in slow)))
            and not (turn.large and urgent in large)
        )
